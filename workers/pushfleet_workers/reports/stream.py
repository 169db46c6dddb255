"""The stream of reports as one API process sees it: reading, taking over, ending, putting aside, bounding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pushfleet_workers.redis_link import Link, ReplyError
from pushfleet_workers.scripts import load

__all__ = ["GROUP", "Entry", "ReportKeys", "ReportStream"]

GROUP = "api"
REFUSED_MAX = 10_000
"""About how many entries that cannot be read are kept to be looked at."""

_FORGET = load("pushfleet_workers.ingress", "forget")
_GONE_AFTER_MS = 3_600_000
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
        self._waiting_link = waiting_link
        self._consumer = consumer
        self._length_max = length_max

    async def prepare(self) -> None:
        """Make the stream and the group where they are not there yet."""
        try:
            await self._link.call("XGROUP", "CREATE", self.keys.stream, GROUP, "0", "MKSTREAM")
        except ReplyError as problem:
            if not str(problem).startswith("BUSYGROUP"):
                raise

    async def read(self, count: int, wait_ms: int) -> list[Entry]:
        """Up to *count* new entries, at once if there are any, else within *wait_ms*; empty when none came."""
        reply = await self._waiting_link.call(
            "XREADGROUP", "GROUP", GROUP, self._consumer, "COUNT", count, "BLOCK", wait_ms, "STREAMS",
            self.keys.stream, ">",
        )  # fmt: skip
        return _entries(reply[0][1]) if reply else []

    async def take_over(self, idle_ms: int, count: int) -> list[Entry]:
        """Entries that another process read more than *idle_ms* ago and did not end: now they are ours."""
        reply = await self._link.call(
            "XAUTOCLAIM", self.keys.stream, GROUP, self._consumer, idle_ms, "0", "COUNT", count
        )
        return _entries(reply[1])

    async def end(self, entries: Sequence[Entry]) -> None:
        """Take *entries* out: they were applied, or put aside."""
        ids = [entry.id for entry in entries]
        _check(await self._link.pipeline([("XACK", self.keys.stream, GROUP, *ids), ("XDEL", self.keys.stream, *ids)]))

    async def put_aside(self, entry: Entry, problem: str) -> None:
        """Keep an entry that cannot be read, with what is wrong; about the last 10,000 are kept."""
        told = [part[:_FIELD_BYTES_MAX] for field in list(entry.fields.items())[:8] for part in field]
        await self._link.call(
            "XADD", self.keys.refused, "MAXLEN", "~", REFUSED_MAX, "*", "id", entry.id, "problem", problem, *told
        )

    async def bound(self) -> tuple[int, int]:
        """Drop the oldest above the limit, forget readers that are gone; how many are left, how many were dropped."""
        dropped = await self._link.call("XTRIM", self.keys.stream, "MAXLEN", self._length_max)
        await self._link.run(_FORGET, (self.keys.stream,), (GROUP, _GONE_AFTER_MS))
        return await self._link.call("XLEN", self.keys.stream), dropped


def _entries(found: Sequence[Any]) -> list[Entry]:
    # Entries that were dropped meanwhile come without fields.
    return [Entry(name, dict(zip(fields[::2], fields[1::2], strict=True))) for name, fields in found if fields]


def _check(replies: Sequence[Any]) -> None:
    for reply in replies:
        if isinstance(reply, ReplyError):
            raise reply
