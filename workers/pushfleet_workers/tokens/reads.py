"""Up to when conversations are done with: how far users have read them, and when a call in them ended."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pushfleet_workers.redis_link import Link, ReplyError
from pushfleet_workers.scripts import Script, load
from pushfleet_workers.tokens.keys import UserKeys

__all__ = ["CONVERSATIONS_MAX", "ReadStore", "call_over", "cursor_command", "read_cursor"]

LIFE_S = 28 * 86_400
"""After that no message is left whose push it could stop: none lives longer."""

CONVERSATIONS_MAX = 1_000
"""Most conversations of a user that are remembered; beyond that the ones with the oldest messages are forgotten."""

CALL_LIFE_MS = 3_600_000
"""How long it is known that a call ended: none rings for longer than that."""

CALLS_MAX = 50
"""Most conversations of a user in which ended calls are known."""

_OVER = load("pushfleet_workers.tokens", "over")
_READ = load("pushfleet_workers.tokens", "read", preamble="common")

Call = tuple[Script, tuple[str, ...], tuple[str | int, ...]]


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


def call_over(prefix: str, app: str, user: str, conversation: str, ended_at_ms: int) -> Call:
    """The script call that notes that a call in *conversation* is over for *user*."""
    args = (conversation, ended_at_ms, CALLS_MAX, CALL_LIFE_MS)
    return _OVER, (UserKeys(prefix, app, user).calls,), args


def cursor_command(prefix: str, app: str, user: str, conversation: str, kind: str) -> tuple[str, ...]:
    """The command whose reply :func:`read_cursor` takes, for messages of *kind*: of a call, when one ended."""
    keys = UserKeys(prefix, app, user)
    return "HGET", keys.calls if kind == "call" else keys.reads, conversation


def read_cursor(reply: Any) -> int:
    """Up to when it is done with, Unix milliseconds; 0: nobody knows, or the key is not what it should be."""
    if isinstance(reply, ReplyError):
        if not str(reply).startswith("WRONGTYPE"):
            raise reply
        return 0
    return int(reply) if reply is not None and reply.isdigit() else 0
