"""Up to when conversations are done with: how far users have read them, and when a call in them ended."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from pushfleet_workers.redis_link import Link
from pushfleet_workers.redis_replies import is_damaged
from pushfleet_workers.scripts import Script, load
from pushfleet_workers.tokens.keys import UserKeys

__all__ = [
    "CALL_LIFE_MS",
    "CONVERSATIONS_MAX",
    "Done",
    "ReadStore",
    "call_over",
    "done_command",
    "ends_call",
    "read_done",
]

LIFE_S = 28 * 86_400
"""After that no message is left whose push it could stop: none lives longer."""

CONVERSATIONS_MAX = 1_000
"""Most conversations of a user that are remembered; beyond that the ones with the oldest messages are forgotten."""

CALL_LIFE_MS = 3_600_000
"""How long it is known that a call ended: none rings for longer than that."""

CALLS_MAX = 50
"""Most conversations and calls of their own name of a user, of which it is known that they ended."""

_OVER = load("pushfleet_workers.tokens", "over")
_READ = load("pushfleet_workers.tokens", "read", preambles=("common", "cursors"))

Call = tuple[Script, tuple[str, ...], tuple[str | int, ...]]


class Done(NamedTuple):
    """Up to when messages of a conversation are done with, Unix milliseconds; 0: nobody knows."""

    sent_ms: int = 0
    """When the last of them was written: read up to there, or, of calls, over by what the backend says."""

    entered_ms: int = 0
    """When the fleet got the end of a call that says no time itself: whatever came before is over."""

    came_ms: int = 0
    """When it got the latest end, whatever that says: calls that say no time themselves are over that came before."""

    def covers(self, sent_at_ms: int, enqueued_at_ms: int) -> bool:
        """Whether that holds for what was written at *sent_at_ms* and came at *enqueued_at_ms*."""
        if self.came_ms and sent_at_ms == enqueued_at_ms:
            return enqueued_at_ms <= self.came_ms
        return sent_at_ms <= self.sent_ms or enqueued_at_ms <= self.entered_ms


class ReadStore:
    """Takes down how far users have read.

    * **now_ms** - the clock for reports that come without a time of their own.
    """

    def __init__(self, link: Link, prefix: str, now_ms: Callable[[], int]) -> None:
        self._link = link
        self._prefix = prefix
        self._now_ms = now_ms

    async def mark(
        self, app: str, user: str, conversation: str, up_to_ms: int, *, unread: int | None = None, at_ms: int = 0
    ) -> bool:
        """Note that *user* has read *conversation* up to the message that was written at *up_to_ms*.

        *unread*, as of *at_ms*, is what the user has left in all conversations: the badges of all devices count on from
        there. False when all of it is older than what is known. Raises :class:`RedisUnusable`; repeating it is safe.
        """
        keys = UserKeys(self._prefix, app, user)
        left = "" if unread is None else unread
        args = (conversation, up_to_ms, at_ms or self._now_ms(), left, CONVERSATIONS_MAX, LIFE_S)
        return bool(await self._link.run(_READ, (keys.devices, keys.badges, keys.reads, keys.storms), args))


def call_over(prefix: str, app: str, user: str, name: str, *, sent_at_ms: int, enqueued_at_ms: int) -> Call:
    """The script call that notes that a call is over for *user*.

    * **name** - the call's replace key, or its conversation, for all calls in it.
    * **sent_at_ms** - when it ended; 0: its end says none, and counts as of *enqueued_at_ms*, when it came. Two clocks
      are never held against each other: an end and a call that the backend dates both go by the backend's, all others
      by Redis'.
    """
    args = (name, sent_at_ms, 0 if sent_at_ms else enqueued_at_ms, enqueued_at_ms, CALLS_MAX, CALL_LIFE_MS)
    return _OVER, (UserKeys(prefix, app, user).calls,), args


def ends_call(end_sent_at_ms: int, end_enqueued_at_ms: int, sent_at_ms: int, enqueued_at_ms: int) -> bool:
    """Whether an end comes after a call, as :meth:`Done.covers` says it of ends that were noted.

    One that says no time itself has that of its entry.
    """
    if end_sent_at_ms == end_enqueued_at_ms or sent_at_ms == enqueued_at_ms:
        return enqueued_at_ms <= end_enqueued_at_ms
    return sent_at_ms <= end_sent_at_ms


def done_command(
    prefix: str, app: str, user: str, kind: str, conversation: str, replace_key: str
) -> tuple[str, ...] | None:
    """The command whose reply :func:`read_done` takes, for a message of *kind*; None where nothing can be known."""
    keys = UserKeys(prefix, app, user)
    if kind != "call":
        return ("HGET", keys.reads, conversation) if conversation else None
    names = dict.fromkeys(name for name in (conversation, replace_key) if name)
    return ("HMGET", keys.calls, *names) if names else None


def read_done(reply: Any) -> Done:
    """Up to when it is done with; what is not what it should be is as good as unknown."""
    if is_damaged(reply):
        return Done()
    if isinstance(reply, list):
        return Done(*map(max, zip(*map(_end_in, reply), strict=True)))
    return Done(_time_in(reply))


def _end_in(value: bytes | None) -> Done:
    """As `over.lua` writes it."""
    sent, entered, came, *_ = [*(value or b"").split(b":"), b"", b""]
    return Done(_time_in(sent), _time_in(entered), _time_in(came))


def _time_in(value: bytes | None) -> int:
    return int(value) if value is not None and value.isdigit() else 0
