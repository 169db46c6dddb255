"""Erasing in what is remembered for recalls: whom messages went to.

There is no index by user, so all of it is walked.
"""

from __future__ import annotations

import asyncio

from pushfleet.errors import InvalidMessage
from pushfleet.wire import decode_message
from pushfleet_workers.erasure.sought import Sought
from pushfleet_workers.recall.keys import digest_key
from pushfleet_workers.redis_link import Link, ReplyError
from pushfleet_workers.scripts import load

__all__ = ["sweep_memory"]

_ERASE = load("pushfleet_workers.recall", "erase")
_KEYS_AT_ONCE = 500
_READ_AT_ONCE = 16
"""Of a large group there may be half a megabyte under one key."""

_PAUSE_S = 0.001
"""Between pages: the walk passes every key of the token state, and leaves Redis to the pushes."""


async def sweep_memory(state: Link, prefix: str, sought: Sought) -> int:
    """Take them out; gives of how many parts of messages. Raises :class:`RedisUnusable`."""
    changed, cursor = 0, b"0"
    pattern = digest_key(prefix, "*")
    while True:
        cursor, keys = await state.call("SCAN", cursor, "MATCH", pattern, "COUNT", _KEYS_AT_ONCE, "TYPE", "hash")
        for first in range(0, len(keys), _READ_AT_ONCE):
            some = keys[first : first + _READ_AT_ONCE]
            for key, kept in zip(some, await state.pipeline([("HGETALL", key) for key in some]), strict=True):
                changed += await _without(state, key, kept, sought)
        if cursor == b"0":
            return changed
        await asyncio.sleep(_PAUSE_S)


async def _without(state: Link, key: bytes, kept: list[bytes] | ReplyError, sought: Sought) -> int:
    """Rewrite what is kept of one message; gives how many of its parts that changed."""
    if isinstance(kept, ReplyError):
        # It is gone meanwhile, or none of ours.
        return 0
    changed = 0
    for part, payload in zip(kept[::2], kept[1::2], strict=True):
        becomes = _rewritten(payload, sought) if part.isdigit() else None
        if becomes is not None:
            changed += await state.run(_ERASE, (key,), (part, payload, becomes))
    return changed


def _rewritten(payload: bytes, sought: Sought) -> bytes | None:
    try:
        message = decode_message(payload)
    except InvalidMessage:
        return None
    return sought.without_recipients(message, message.sent_at_ms or 0)
