"""One lane's refused entries: what no router could route and waits for somebody to look."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import NamedTuple

from pushfleet.wire import VERSION
from pushfleet_workers import stream_pages
from pushfleet_workers.ingress.keys import IngressKeys
from pushfleet_workers.redis_link import Link
from pushfleet_workers.scripts import load

__all__ = ["Readmission", "RefusedEntries", "RefusedEntry", "payload_of"]

_READMIT = load("pushfleet_workers.ingress", "readmit")
_PAYLOAD_BYTES_MAX = 65_536
_VERSION_BYTES_MAX = 16


@dataclass(frozen=True, slots=True)
class RefusedEntry:
    """A stream entry that could not be routed."""

    place: str
    """Its id among the refused: when it was refused, Unix milliseconds by Redis' clock, and a number."""

    written_ms: int
    """When its producer wrote it, by the same clock; 0: nobody knows."""

    version: bytes
    name: str
    """The field that held the payload, ``m`` or ``r``; empty where there was not exactly one."""

    payload: bytes = field(repr=False)
    reason: str
    """One of :data:`pushfleet_workers.reasons.REFUSED_ENTRIES`."""

    problem: str
    """What was wrong, in a sentence."""

    @property
    def came_ms(self) -> int:
        """When it was there at the latest: as it was written, or refused."""
        return self.written_ms or int(self.place.partition("-")[0])

    @property
    def cut(self) -> bool:
        """Whether only the beginning of the payload was kept."""
        return len(self.payload) >= _PAYLOAD_BYTES_MAX


class Readmission(NamedTuple):
    """A refused entry on its way back to the routers."""

    place: str
    written_ms: int
    version: bytes
    name: str
    payload: bytes

    def __repr__(self) -> str:
        return f"Readmission({self.place}, {len(self.payload)} bytes)"


class RefusedEntries:
    """The refused entries of one lane; every method raises :class:`RedisUnusable`."""

    def __init__(self, link: Link, keys: IngressKeys) -> None:
        self._link = link
        self._keys = (keys.stream, keys.books, keys.refused)
        self._refused = keys.refused

    async def count(self) -> int:
        """How many there are."""
        return int(await self._link.call("XLEN", self._refused))

    async def oldest_first(self, first: str = "-", last: str = "+") -> AsyncIterator[list[RefusedEntry]]:
        """Page after page of what lies from place *first* to *last*, both as `XRANGE` takes them."""
        async for page in stream_pages.oldest_first(self._link, self._refused, first, last):
            yield [_read(*one) for one in page]

    async def newest_first(self, first: str = "-", last: str = "+") -> AsyncIterator[list[RefusedEntry]]:
        """As :meth:`oldest_first`, the other way round."""
        async for page in stream_pages.newest_first(self._link, self._refused, first, last):
            yield [_read(*one) for one in page]

    async def readmit(self, readmissions: Sequence[Readmission]) -> list[Readmission]:
        """Write entries once more for the routers; gives those that were gone.

        Repeating it is safe, and so is doing it twice at once: each entry goes back once.
        """
        gone = await self._link.run(_READMIT, self._keys, tuple(chain.from_iterable(readmissions)))
        return [readmissions[position] for position in gone]

    async def drop(self, places: Sequence[str]) -> int:
        """Forget entries; gives how many there were. The books keep counting them as malformed."""
        return int(await self._link.call("XDEL", self._refused, *places)) if places else 0


def payload_of(fields: Mapping[bytes, bytes]) -> tuple[bytes, str, bytes]:
    """What is kept of a refused entry's *fields*: version, name of the field with the payload, its beginning."""
    named = [name for name in (b"m", b"r") if name in fields]
    payload = fields[named[0]] if named else b""
    name = named[0].decode() if len(named) == 1 else ""
    return fields.get(b"v", VERSION)[:_VERSION_BYTES_MAX], name, payload[:_PAYLOAD_BYTES_MAX]


def _read(place: str, fields: Mapping[bytes, bytes]) -> RefusedEntry:
    written = fields.get(b"entry", b"").partition(b"-")[0]
    return RefusedEntry(
        place,
        int(written) if written.isdigit() else 0,
        fields.get(b"v", VERSION),
        fields.get(b"field", b"").decode(errors="replace"),
        fields.get(b"m", b""),
        fields.get(b"reason", b"").decode(errors="replace"),
        fields.get(b"problem", b"").decode(errors="replace"),
    )
