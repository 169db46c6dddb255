"""The streams between producers and routers: reading, taking over, acknowledging, refusing."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

from msgspec import Struct

from pushfleet.message import Lane
from pushfleet_workers.ingress.keys import IngressKeys
from pushfleet_workers.ingress.refused import payload_of
from pushfleet_workers.ledger.keys import MARK_BUCKET_MS
from pushfleet_workers.redis_link import Link
from pushfleet_workers.redis_replies import good
from pushfleet_workers.scripts import load
from pushfleet_workers.stream_group import StreamEntry, StreamGroup

__all__ = ["GROUP", "IngressKeys", "IngressStream", "Raw", "Routed"]

GROUP = "router"
_ACKNOWLEDGE = load(__name__, "acknowledge")
_REFUSE = load(__name__, "refuse")
_ROW = struct.Struct(">IH")
"""Of an entry: its deliveries, and the number of what else it counts."""

_DIGITS_MAX = 20


class Raw(Struct):
    """A stream entry as it came. Its repr does not show what it says."""

    id: bytes
    time_ms: int
    """When it was written, by Redis' clock."""

    fields: Mapping[bytes, bytes]
    again: bool = False
    """Another router read it before: part of it may have been put already."""

    def __repr__(self) -> str:
        return f"Raw(id={self.id!r}, again={self.again})"

    @property
    def written_ms(self) -> int:
        """When it was written first, by Redis' clock: before that, if it was refused since and has come back."""
        first = self.fields.get(b"w", b"")
        return min(int(first), self.time_ms) if first.isdigit() and len(first) < _DIGITS_MAX else self.time_ms

    @property
    def bucket(self) -> int:
        """The bucket of its markers."""
        return self.time_ms // MARK_BUCKET_MS


class Routed(Struct):
    """What the router decided on an entry."""

    raw: Raw
    part: bytes
    deliveries: int
    counts: dict[str, int]
    """Books' fields to add to, for example ``recipients`` or ``suppressed:demo:muted``."""


class IngressStream:
    """One lane's stream, seen by one reader.

    * **link** - for commands that answer at once.
    * **waiting_link** - a connection of its own, since reading blocks.
    * **consumer** - the reader's name, unique in the fleet.
    """

    def __init__(self, link: Link, waiting_link: Link, prefix: str, lane: Lane, consumer: str) -> None:
        self.lane = lane
        self.keys = IngressKeys(prefix, lane)
        self._link = link
        self._group = StreamGroup(link, waiting_link, self.keys.stream, GROUP, consumer)

    async def prepare(self) -> None:
        """Make the stream and the group of routers where they are not there yet."""
        await self._group.prepare()

    async def read(self, count: int, wait_ms: int) -> list[Raw]:
        """Up to *count* new entries, at once if there are any, else within *wait_ms*; empty when none came."""
        return _raws(await self._group.read(count, wait_ms))

    async def missed(self, count: int) -> list[Raw]:
        """Up to *count* entries whose reading broke off before we saw them; empty when there are no more."""
        return _raws(await self._group.missed(count), again=True)

    async def take_over(self, idle_ms: int, count: int) -> list[Raw]:
        """Entries that another router read more than *idle_ms* ago and has not acknowledged: now they are ours."""
        return _raws(await self._group.take_over(idle_ms, count), again=True)

    async def acknowledged(self, parts: Sequence[tuple[Raw, bytes]]) -> set[bytes]:
        """Which of *parts*, each with its entry, were acknowledged before."""
        by_bucket: dict[int, list[bytes]] = {}
        for raw, part in parts:
            by_bucket.setdefault(raw.bucket, []).append(part)
        asked = [(at, some) for bucket, some in by_bucket.items() for at in (bucket, bucket - 1, bucket + 1)]
        known: set[bytes] = set()
        replies = good(await self._link.pipeline([("HMGET", self.keys.marks(at), *some) for at, some in asked]))
        for (_, some), reply in zip(asked, replies, strict=True):
            known.update(part for part, mark in zip(some, reply, strict=True) if mark is not None)
        return known

    async def acknowledge(self, routed: Sequence[Routed]) -> int:
        """Remove *routed* entries and count what was decided, each part once; returns how many were repeats."""
        by_bucket: dict[int, list[Routed]] = {}
        for one in routed:
            by_bucket.setdefault(one.raw.bucket, []).append(one)
        keys = self.keys
        calls = [
            (
                _ACKNOWLEDGE,
                (keys.stream, keys.books, *keys.marks_around(bucket), keys.mark_index),
                _acknowledgement(bucket, some),
            )
            for bucket, some in by_bucket.items()
        ]
        return sum(reply[1] for reply in good(await self._link.run_many(calls)))

    async def refuse(self, raw: Raw, reason: str, problem: str) -> None:
        """Move an entry that cannot be routed to the refused ones."""
        first = raw.id if raw.written_ms == raw.time_ms else b"%d-0" % raw.written_ms
        await self._link.run(
            _REFUSE,
            (self.keys.stream, self.keys.books, self.keys.refused),
            (GROUP, raw.id, first, *payload_of(raw.fields), reason, problem[:500]),
        )

    async def oldest_ms(self) -> int | None:
        """The time of the oldest entry that no router is done with, whether one has read it or not."""
        found = await self._link.call("XRANGE", self.keys.stream, "-", "+", "COUNT", 1)
        return int(found[0][0].partition(b"-")[0]) if found else None

    async def forget_idle_consumers(self) -> int:
        """Remove routers from the group that have been idle for an hour and hold nothing; returns how many."""
        return await self._group.forget_idle_readers()


def _acknowledgement(bucket: int, routed: Sequence[Routed]) -> list[Any]:
    numbers: dict[tuple[tuple[str, int], ...], int] = {}
    rows = bytearray()
    for one in routed:
        number = numbers.setdefault(tuple(one.counts.items()), len(numbers) + 1)
        rows += _ROW.pack(one.deliveries, number)
    arguments: list[Any] = [GROUP, bucket, len(routed), *[one.raw.id for one in routed], *[one.part for one in routed]]
    arguments.append(bytes(rows))
    for counts in numbers:
        arguments += (len(counts), *chain.from_iterable(counts))
    return arguments


def _raws(entries: Sequence[StreamEntry], *, again: bool = False) -> list[Raw]:
    return [Raw(name, int(name.partition(b"-")[0]), fields, again) for name, fields in entries]
