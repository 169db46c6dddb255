"""A Redis stream and its group of readers, as one reader sees them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pushfleet_workers.redis_link import Link, ReplyError
from pushfleet_workers.scripts import load

__all__ = ["StreamEntry", "StreamGroup"]

_FORGET = load("pushfleet_workers", "stream_group")
_GONE_AFTER_MS = 3_600_000

StreamEntry = tuple[bytes, dict[bytes, bytes]]
"""An entry's id and fields."""


class StreamGroup:
    """One reader of *group*; every method raises :class:`RedisUnusable` and :class:`ReplyError`.

    Where the connection breaks under :meth:`read`, entries may be ours without our having seen them; where the server
    has forgotten its last moments, without its knowing that we acknowledged them. They come with :meth:`missed`, for
    which the reader must hold nothing else by that name.

    * **link** - for commands that answer at once.
    * **waiting_link** - a connection of its own, since reading blocks.
    """

    def __init__(self, link: Link, waiting_link: Link, stream: str, group: str, reader: str) -> None:
        self._link = link
        self._waiting_link = waiting_link
        self._stream = stream
        self._group = group
        self._reader = reader
        self._missed_after: bytes | None = None
        """Up to which entry those that are ours were looked through; None: none can have been missed."""

        self._history = ""
        """Of the data that they were looked through in, see :attr:`Link.history`."""

    async def prepare(self) -> None:
        """Make the stream and the group where they are not there yet."""
        try:
            await self._link.call("XGROUP", "CREATE", self._stream, self._group, "0", "MKSTREAM")
        except ReplyError as problem:
            if not str(problem).startswith("BUSYGROUP"):
                raise

    async def read(self, count: int, wait_ms: int) -> list[StreamEntry]:
        """Up to *count* new entries, at once if there are any, else within *wait_ms*; empty when none came."""
        try:
            reply = await self._waiting_link.call(*self._reading(count), "BLOCK", wait_ms, "STREAMS", self._stream, ">")
        except BaseException:
            self.look_back()
            raise
        return _entries(reply[0][1]) if reply else []

    def look_back(self) -> None:
        """What this reader has read and not acknowledged comes once more, by :meth:`missed`."""
        self._missed_after = b"0"

    async def missed(self, count: int) -> list[StreamEntry]:
        """Up to *count* entries that were read by us and may not have been seen; empty when there are no more."""
        await self._waiting_link.ready()
        if self._history != self._waiting_link.history:
            self._history = self._waiting_link.history
            self.look_back()
        while self._missed_after is not None:
            reply = await self._waiting_link.call(*self._reading(count), "STREAMS", self._stream, self._missed_after)
            found = reply[0][1]
            self._missed_after = found[-1][0] if found else None
            if entries := _entries(found):
                return entries
        return []

    def _reading(self, count: int) -> tuple[str | int, ...]:
        return "XREADGROUP", "GROUP", self._group, self._reader, "COUNT", count

    async def take_over(self, idle_ms: int, count: int) -> list[StreamEntry]:
        """Entries that another reader read more than *idle_ms* ago and has not acknowledged: now they are ours."""
        reply = await self._link.call(
            "XAUTOCLAIM", self._stream, self._group, self._reader, idle_ms, "0", "COUNT", count
        )
        return _entries(reply[1])

    async def forget_idle_readers(self) -> int:
        """Remove readers from the group that have been idle for an hour and hold nothing; returns how many."""
        return int(await self._link.run(_FORGET, (self._stream,), (self._group, _GONE_AFTER_MS)))


def _entries(found: Sequence[Any]) -> list[StreamEntry]:
    # Entries that were deleted meanwhile come without fields.
    return [(name, dict(zip(fields[::2], fields[1::2], strict=True))) for name, fields in found if fields]
