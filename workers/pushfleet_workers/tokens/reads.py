"""How far users have read their conversations: by its time, the last message that they read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pushfleet_workers.redis_link import Link, ReplyError
from pushfleet_workers.scripts import load
from pushfleet_workers.tokens.keys import UserKeys

__all__ = ["CONVERSATIONS_MAX", "ReadStore", "cursor_command", "read_cursor"]

LIFE_S = 28 * 86_400
"""After that no message is left whose push it could stop: none lives longer."""

CONVERSATIONS_MAX = 1_000
"""Most conversations of a user that are remembered; beyond that the ones with the oldest messages are forgotten."""

_READ = load("pushfleet_workers.tokens", "read", preamble="common")


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


def cursor_command(prefix: str, app: str, user: str, conversation: str) -> tuple[str, ...]:
    """The command whose reply :func:`read_cursor` takes."""
    return "HGET", UserKeys(prefix, app, user).reads, conversation


def read_cursor(reply: Any) -> int:
    """Up to when the user has read, Unix milliseconds; 0: nobody knows, or the key is not what it should be."""
    if isinstance(reply, ReplyError):
        if not str(reply).startswith("WRONGTYPE"):
            raise reply
        return 0
    return int(reply) if reply is not None and reply.isdigit() else 0
