"""One account's dead letters: what could not be delivered and waits for somebody to look."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import NamedTuple

from pushfleet_workers import stream_pages
from pushfleet_workers.ledger.keys import AccountKeys
from pushfleet_workers.redis_link import Link
from pushfleet_workers.redis_replies import good
from pushfleet_workers.scripts import load

__all__ = ["DeadLetter", "DeadLetters", "Return", "trim_letters"]

_REPLAY = load("pushfleet_workers.ledger", "replay", preamble="common")


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A parcel that ended as dead."""

    place: str
    """Its id in the stream: when it died, Unix milliseconds by Redis' clock, and a number."""

    entry: bytes = field(repr=False)
    """As it lay in the ledger; what cannot be read among it."""

    reason: str
    """One of :data:`pushfleet_workers.reasons.DEAD`."""

    code: str
    """The vendor's own code; empty where there is none."""

    attempts: int
    died_ms: int = 0
    """When it died: before what its place says where a part of it was erased since."""


class Return(NamedTuple):
    """A letter on its way back into the ledger."""

    place: str
    wait_ms: int
    """From now on until it is due."""

    entry: bytes
    """With as many deliveries as the letter has, and an id that nothing else in the ledger has."""

    def __repr__(self) -> str:
        return f"Return({self.place}, in {self.wait_ms} ms)"


class DeadLetters:
    """The dead letters of one account; every method raises :class:`RedisUnusable`."""

    def __init__(self, link: Link, keys: AccountKeys) -> None:
        self._link = link
        self._keys = keys

    async def count(self) -> int:
        """How many there are."""
        return int(await self._link.call("XLEN", self._keys.dead))

    async def oldest_first(self, first: str = "-", last: str = "+") -> AsyncIterator[list[DeadLetter]]:
        """Page after page of what lies from place *first* to *last*, both as `XRANGE` takes them."""
        async for page in stream_pages.oldest_first(self._link, self._keys.dead, first, last):
            yield [_read(*one) for one in page]

    async def newest_first(self, first: str = "-", last: str = "+") -> AsyncIterator[list[DeadLetter]]:
        """As :meth:`oldest_first`, the other way round."""
        async for page in stream_pages.newest_first(self._link, self._keys.dead, first, last):
            yield [_read(*one) for one in page]

    async def replay(self, returns: Sequence[Return]) -> list[Return]:
        """Put letters back among what the account has to send later; gives those that were gone.

        Repeating it is safe, and so is doing it twice at once: each letter goes back once.
        """
        keys = self._keys
        gone = await self._link.run(
            _REPLAY,
            (keys.books, keys.dead, keys.delayed, keys.delayed_entries),
            tuple(chain.from_iterable(returns)),
        )
        return [returns[position] for position in gone]

    async def drop(self, places: Sequence[str]) -> int:
        """Forget letters; gives how many there were. The books keep counting their deliveries as dead."""
        return int(await self._link.call("XDEL", self._keys.dead, *places)) if places else 0


async def trim_letters(link: Link, streams: Iterable[str], before_ms: int) -> None:
    """Forget what has lain in *streams* since before *before_ms*; the books keep counting it."""
    good(await link.pipeline([("XTRIM", stream, "MINID", before_ms) for stream in streams]))


def _read(place: str, fields: Mapping[bytes, bytes]) -> DeadLetter:
    return DeadLetter(
        place,
        fields.get(b"entry", b""),
        fields.get(b"reason", b"").decode(errors="replace"),
        fields.get(b"code", b"").decode(errors="replace"),
        int(fields.get(b"attempts", b"0")),
        int(fields.get(b"died", place.partition("-")[0])),
    )
