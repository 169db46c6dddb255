"""Error replies of Redis: raised, or left with the one user whose key is not what it should be."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pushfleet_workers.redis_connection import ReplyError

__all__ = ["checked", "good", "is_damaged"]


def checked(reply: Any) -> Any:
    """The *reply*; raises the :class:`ReplyError` that it is."""
    if isinstance(reply, ReplyError):
        raise reply
    return reply


def good(replies: Iterable[Any]) -> list[Any]:
    """All *replies*; raises the first :class:`ReplyError` among them."""
    return [checked(reply) for reply in replies]


def is_damaged(reply: Any) -> bool:
    """Whether the key that was asked for holds something else: nobody but its owner is to pay for that.

    Raises any other :class:`ReplyError` that *reply* is.
    """
    if not isinstance(reply, ReplyError):
        return False
    if "WRONGTYPE" not in str(reply):
        raise reply
    return True
