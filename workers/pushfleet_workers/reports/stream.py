"""The stream of reports as one API process sees it: reading, taking over, ending, putting aside, bounding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pushfleet_workers.redis_link import Link
from pushfleet_workers.redis_replies import good
from pushfleet_workers.stream_group import StreamGroup

__all__ = ["GROUP", "Entry", "ReportKeys", "ReportStream"]

GROUP = "api"
REFUSED_MAX = 10_000
"""About how many entries that cannot be read are kept to be looked at."""

_FIELD_BYTES_MAX = 4_096


class ReportKeys:
    """The keys of the stream."""

    def __init__(self, prefix: str) -> None:
        self.stream = f"{prefix}:{{reports}}"
        self.refused = f"{self.stream}:refused"


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry as it came."""

    id: bytes
    fields: dict[bytes, bytes]

    @property
    def time_ms(self) -> int:
        """When it was written, by Redis' clock."""
        return int(self.id.partition(b"-")[0])


class ReportStream:
    """The stream and its group of readers; every method raises :class:`RedisUnusable` and :class:`ReplyError`.

    * **link** - for commands that answer at once.
    * **waiting_link** - a connection of its own, since reading blocks.
    * **length_max** - entries above which the oldest are dropped unread.
    """

    def __init__(self, link: Link, waiting_link: Link, prefix: str, consumer: str, length_max: int) -> None:
        self.keys = ReportKeys(prefix)
        self._link = link
        self._group = StreamGroup(link, waiting_link, self.keys.stream, GROUP, consumer)
        self._length_max = length_max

    async def prepare(self) -> None:
        """Make the stream and the group where they are not there yet; what we began and did not end comes again."""
        await self._group.prepare()
        self._group.look_back()

    async def read(self, count: int, wait_ms: int) -> list[Entry]:
        """Up to *count* entries: what we began and did not end, else new ones within *wait_ms*; empty: none came."""
        again = await self._group.missed(count)
        return [Entry(*one) for one in again or await self._group.read(count, wait_ms)]

    async def take_over(self, idle_ms: int, count: int) -> list[Entry]:
        """Entries that another process read more than *idle_ms* ago and did not end: now they are ours."""
        return [Entry(*one) for one in await self._group.take_over(idle_ms, count)]

    async def end(self, entries: Sequence[Entry]) -> None:
        """Take *entries* out: they were applied, or put aside."""
        ids = [entry.id for entry in entries]
        good(await self._link.pipeline([("XACK", self.keys.stream, GROUP, *ids), ("XDEL", self.keys.stream, *ids)]))

    async def put_aside(self, entry: Entry, problem: str) -> None:
        """Keep an entry that cannot be read, with what is wrong; about the last 10,000 are kept."""
        told = [part[:_FIELD_BYTES_MAX] for field in list(entry.fields.items())[:8] for part in field]
        await self._link.call(
            "XADD", self.keys.refused, "MAXLEN", "~", REFUSED_MAX, "*", "id", entry.id, "problem", problem, *told
        )

    async def bound(self) -> tuple[int, int]:
        """Drop the oldest above the limit, forget readers that are gone; how many are left, how many were dropped."""
        dropped = await self._link.call("XTRIM", self.keys.stream, "MAXLEN", self._length_max)
        await self._group.forget_idle_readers()
        return await self._link.call("XLEN", self.keys.stream), dropped
