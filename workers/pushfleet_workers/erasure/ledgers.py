"""Erasing in one account's ledger: what waits, what is dead, and who is in the hands of workers meanwhile.

Parcels go the way dead, delayed, ready, leased, and the ledger is walked in that order, a page at a time. What a worker
takes while it is walked is decided on once more before it is sent, and ends there.
"""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

from pushfleet_workers.erasure.sought import Sought
from pushfleet_workers.ledger import AccountKeys, DeadLetters
from pushfleet_workers.redis_link import Link
from pushfleet_workers.scripts import load
from pushfleet_workers.tokens.erasures import Owner

__all__ = ["LedgerErasure", "Swept"]

_ERASE = load("pushfleet_workers.ledger", "erase", preamble="common")
_PAGE = 50
_FENCE = struct.calcsize(">d")
_AT_ONCE = 10
"""Parcels that one script changes: in a long lane each costs Redis up to a millisecond."""

_DELAYED = "delayed"

_Change = tuple[str, bytes, bytes]
"""Where a parcel lies, as `erase.lua` names it, the entry as it is, and as it is to be."""


@dataclass(slots=True)
class Swept:
    """What came of a walk."""

    deliveries: int = 0
    """That ended."""

    letters: int = 0
    """Dead letters that went, or lost deliveries."""

    missed: set[Owner] = field(default_factory=set)
    """Users of whom something moved on before it could be taken: look again."""


class LedgerErasure:
    """One account's ledger; every method raises :class:`RedisUnusable`.

    * **kept_from_ms** - dead letters from before are not kept, so nothing of them is written anew.
    """

    def __init__(self, link: Link, keys: AccountKeys, kept_from_ms: int) -> None:
        self._link = link
        self._keys = keys
        self._kept_from_ms = kept_from_ms
        self._fence: bytes | None = None
        """That of the last claim before it was looked at what workers have in hand."""

        self._script_keys = (
            keys.books, *keys.ready, keys.suspect, keys.delayed, keys.delayed_entries, keys.dead
        )  # fmt: skip

    async def in_hand(self, sought: Sought) -> set[Owner]:
        """Users whose deliveries workers have in hand: they end by themselves, or come back."""
        self._fence = await self._last_fence()
        found: set[Owner] = set()
        for owner in await self._link.call("ZRANGE", self._keys.owners, 0, -1):
            async for values in self._hash_pages(self._keys.leased(owner.decode())):
                for value in values:
                    found |= sought.owners_in(value[_FENCE:])
        return found

    async def sweep(self, sought: Sought) -> Swept:
        """Take out what is theirs, after :meth:`in_hand`."""
        swept = Swept()
        await self._dead(sought, swept)
        await self._waiting(sought, swept)
        if await self._last_fence() != self._fence:
            # Of what was claimed meanwhile some is in hand, and some may have been put back behind us.
            swept.missed |= await self.in_hand(sought)
            await self._waiting(sought, swept)
        return swept

    async def _last_fence(self) -> bytes | None:
        fence: bytes | None = await self._link.call("HGET", self._keys.books, "fence")
        return fence

    async def _dead(self, sought: Sought, swept: Swept) -> None:
        async for letters in DeadLetters(self._link, self._keys).oldest_first():
            changes: list[_Change] = []
            for letter in letters:
                becomes = sought.without_of_letter(letter.entry, letter.died_ms)
                if becomes is not None:
                    becomes = becomes if letter.died_ms >= self._kept_from_ms else b""
                    changes.append((letter.place, letter.entry, becomes))
            swept.letters += await self._change(changes, sought, swept)

    async def _waiting(self, sought: Sought, swept: Swept) -> None:
        async for entries in self._hash_pages(self._keys.delayed_entries):
            await self._change(_changes([(_DELAYED, entry) for entry in entries], sought), sought, swept)
        for number, key in enumerate((*self._keys.ready, self._keys.suspect), start=1):
            await self._list(number, key, sought, swept)

    async def _list(self, number: int, key: str, sought: Sought, swept: Swept) -> None:
        """From the tail on: what is claimed from the head meanwhile moves nothing that was not seen yet."""
        last = -1
        while True:
            page: list[bytes] = await self._link.call("LRANGE", key, last - _PAGE + 1, last)
            first = last - len(page) + 1
            changes = _changes([(f"{number}:{first + at}", entry) for at, entry in enumerate(page)], sought)
            await self._change(changes, sought, swept)
            if len(page) < _PAGE:
                return
            # What lay before those that went has moved up.
            last -= len(page) - sum(not becomes for _, _, becomes in changes)

    async def _change(self, changes: Sequence[_Change], sought: Sought, swept: Swept) -> int:
        """Make *changes*; gives how many parcels were changed."""
        changed = 0
        for at in range(0, len(changes), _AT_ONCE):
            some = changes[at : at + _AT_ONCE]
            ended, gone = await self._link.run(_ERASE, self._script_keys, [part for change in some for part in change])
            swept.deliveries += ended
            changed += len(some) - len(gone)
            for position in gone:
                swept.missed |= sought.owners_in(some[position][1])
        return changed

    async def _hash_pages(self, key: str) -> AsyncIterator[list[bytes]]:
        cursor = b"0"
        while True:
            cursor, flat = await self._link.call("HSCAN", key, cursor, "COUNT", _PAGE)
            if flat:
                yield flat[1::2]
            if cursor == b"0":
                return


def _changes(seen: Sequence[tuple[str, bytes]], sought: Sought) -> list[_Change]:
    found = ((where, entry, sought.without(entry)) for where, entry in seen)
    return [(where, entry, becomes) for where, entry, becomes in found if becomes is not None]
