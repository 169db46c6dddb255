"""Where dead letters lie: one shelf for each account, one for each lane of the ingress."""

from __future__ import annotations

from collections.abc import AsyncIterator, Container, Sequence
from typing import Protocol

from pushfleet.message import Lane
from pushfleet_workers.dead_letters.letter import INGRESS, Letter, letter_of_entry, letter_of_parcel
from pushfleet_workers.dead_letters.renewal import Left, Renewed, Terms, readmitted, renewed
from pushfleet_workers.ingress import IngressKeys
from pushfleet_workers.ingress.refused import Readmission, RefusedEntries
from pushfleet_workers.ledger import AccountKeys, DeadLetters, Return
from pushfleet_workers.redis_link import Link

__all__ = ["PER_SECOND", "AccountShelf", "Back", "IngressShelf", "Shelf"]

PER_SECOND = 100.0
"""Deliveries that become due in a second where nothing else is said."""

Back = Renewed | Readmission
"""A letter on its way back."""


class Shelf(Protocol):
    """One stream of letters; every coroutine raises :class:`RedisUnusable`."""

    vendor: str
    credential: str

    async def count(self) -> int:
        """How many letters there are."""
        ...

    def oldest_first(self, first: str = "-", last: str = "+") -> AsyncIterator[list[Letter]]:
        """Page after page of what lies from place *first* to *last*, both as `XRANGE` takes them."""
        ...

    def newest_first(self, first: str = "-", last: str = "+") -> AsyncIterator[list[Letter]]:
        """As :meth:`oldest_first`, the other way round."""
        ...

    def renew(self, letter: Letter, terms: Terms) -> Back | Left:
        """What *letter* becomes when it is replayed, or why it stays."""
        ...

    async def replay(self, letters: Sequence[tuple[Letter, Back]]) -> list[Letter]:
        """Put letters back, each once, whoever else does the same; gives those that were gone."""
        ...

    async def drop(self, letters: Sequence[Letter]) -> int:
        """Forget letters; gives how many there were."""
        ...


class AccountShelf:
    """The dead letters of one account.

    * **app** - the account's; None where the account is gone.
    * **recalls** - whether messages of the app can be taken back.
    * **per_second** - deliveries a second that become due again, so that new ones are not held up by all of them.
    """

    def __init__(
        self, link: Link, keys: AccountKeys, app: str | None, *, recalls: bool = False, per_second: float = PER_SECOND
    ) -> None:
        self.vendor = keys.vendor
        self.credential = keys.credential
        self._letters = DeadLetters(link, keys)
        self._app = app
        self._recalls = recalls
        self._per_second = per_second
        self._returned = 0

    async def count(self) -> int:
        """As :meth:`Shelf.count`."""
        return await self._letters.count()

    async def oldest_first(self, first: str = "-", last: str = "+") -> AsyncIterator[list[Letter]]:
        """As :meth:`Shelf.oldest_first`."""
        async for page in self._letters.oldest_first(first, last):
            yield [letter_of_parcel(self.vendor, self.credential, self._app or "", one) for one in page]

    async def newest_first(self, first: str = "-", last: str = "+") -> AsyncIterator[list[Letter]]:
        """As :meth:`Shelf.newest_first`."""
        async for page in self._letters.newest_first(first, last):
            yield [letter_of_parcel(self.vendor, self.credential, self._app or "", one) for one in page]

    def renew(self, letter: Letter, terms: Terms) -> Back | Left:
        """As :meth:`Shelf.renew`."""
        if self._app is None:
            return Left.NO_ACCOUNT
        return renewed(letter, terms, recalls=self._recalls)

    async def replay(self, letters: Sequence[tuple[Letter, Back]]) -> list[Letter]:
        """As :meth:`Shelf.replay`."""
        returns: dict[str, Return] = {}
        by_place: dict[str, Letter] = {}
        for letter, back in letters:
            assert isinstance(back, Renewed)
            # What has little time left does not wait for its turn.
            wait_ms = min(int(self._returned * 1000 / self._per_second), back.left_ms // 2)
            self._returned += letter.deliveries
            by_place[letter.name.place] = letter
            returns[letter.name.place] = Return(letter.name.place, wait_ms, back.entry)
        gone = await self._letters.replay(list(returns.values()))
        return [by_place[one.place] for one in gone]

    async def drop(self, letters: Sequence[Letter]) -> int:
        """As :meth:`Shelf.drop`."""
        return await self._letters.drop([one.name.place for one in letters])


class IngressShelf:
    """The refused entries of one lane.

    * **apps** - those that there are.
    * **recalls** - those of them whose messages can be taken back.
    """

    vendor = INGRESS

    def __init__(self, link: Link, prefix: str, lane: Lane, apps: Container[str], recalls: Container[str]) -> None:
        self.credential: str = lane
        self._lane: Lane = lane
        self._entries = RefusedEntries(link, IngressKeys(prefix, lane))
        self._apps = apps
        self._recalls = recalls

    async def count(self) -> int:
        """As :meth:`Shelf.count`."""
        return await self._entries.count()

    async def oldest_first(self, first: str = "-", last: str = "+") -> AsyncIterator[list[Letter]]:
        """As :meth:`Shelf.oldest_first`."""
        async for page in self._entries.oldest_first(first, last):
            yield [letter_of_entry(self._lane, one) for one in page]

    async def newest_first(self, first: str = "-", last: str = "+") -> AsyncIterator[list[Letter]]:
        """As :meth:`Shelf.newest_first`."""
        async for page in self._entries.newest_first(first, last):
            yield [letter_of_entry(self._lane, one) for one in page]

    def renew(self, letter: Letter, terms: Terms) -> Back | Left:
        """As :meth:`Shelf.renew`."""
        return readmitted(letter, terms, self._apps, recalls=letter.about.app in self._recalls)

    async def replay(self, letters: Sequence[tuple[Letter, Back]]) -> list[Letter]:
        """As :meth:`Shelf.replay`."""
        by_place = {letter.name.place: letter for letter, _ in letters}
        readmissions = [back for _, back in letters if isinstance(back, Readmission)]
        return [by_place[one.place] for one in await self._entries.readmit(readmissions)]

    async def drop(self, letters: Sequence[Letter]) -> int:
        """As :meth:`Shelf.drop`."""
        return await self._entries.drop([one.name.place for one in letters])
