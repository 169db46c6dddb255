"""What operators do with dead letters: look at them, put them back, drop them. Whose they are, which, and how many."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from typing import Annotated

from msgspec import Meta, Struct

from pushfleet.message import LANES
from pushfleet_workers import registry
from pushfleet_workers.audit import accounts_key
from pushfleet_workers.credential_store import Accounts
from pushfleet_workers.dead_letters.letter import INGRESS, Letter, LetterFilter, LetterName
from pushfleet_workers.dead_letters.renewal import Left, Renewed, Terms
from pushfleet_workers.dead_letters.shelf import PER_SECOND, AccountShelf, Back, IngressShelf, Shelf
from pushfleet_workers.dead_letters.shown import LetterDetail, LetterShown, show_detail, show_letter
from pushfleet_workers.errors import SettingsError
from pushfleet_workers.ledger import AccountKeys
from pushfleet_workers.outcome import Row
from pushfleet_workers.redis_link import Link
from pushfleet_workers.settings import Settings

__all__ = ["DropDone", "LetterDesk", "LetterPage", "ReplayDone"]

log = logging.getLogger(__name__)

_SCANNED_MAX = 5_000
_AT_ONCE = 100
_BYTES_AT_ONCE = 1_000_000

Which = LetterFilter | Sequence[LetterName]
"""The letters that a filter takes, or those that are named."""

Progress = Callable[[int], None]
"""Told how many more letters have been looked at."""


class LetterPage(Struct, frozen=True):
    """A page of letters, the newest first."""

    letters: list[LetterShown]
    cursor: Annotated[str, Meta(description="Where the next page begins; empty: there was nothing to look at.")]
    more: Annotated[bool, Meta(description="Whether there may be more.")]


class ReplayDone(Struct, frozen=True, kw_only=True):
    """What came of a replay, or would."""

    replayed: Annotated[int, Meta(description="Letters that went back.")] = 0
    deliveries: Annotated[int, Meta(description="Deliveries in them.")] = 0
    left: Annotated[dict[str, int], Meta(description="Letters that were meant and stay, by why.")] = {}
    more: Annotated[bool, Meta(description="Whether the limit left some out: repeat it, with the same `until_ms`.")] = (
        False
    )
    until_ms: Annotated[
        int, Meta(description="Those that came until then were meant, so that what dies again is not replayed again.")
    ] = 0


class DropDone(Struct, frozen=True, kw_only=True):
    """What came of dropping letters, or would."""

    dropped: Annotated[int, Meta(description="Letters that are gone now. The books keep counting them.")] = 0
    gone: Annotated[int, Meta(description="Letters that were not there any more.")] = 0
    more: Annotated[bool, Meta(description="Whether the limit left some out: repeat it, with the same `until_ms`.")] = (
        False
    )
    until_ms: Annotated[int, Meta(description="Those that came until then were meant.")] = 0


class LetterDesk:
    """The dead letters of all accounts and what routers refused; every method raises :class:`RedisUnusable`.

    * **link** - the Redis of the queue.
    * **accounts** - all that there are; accounts that routers knew before are looked at as well.
    """

    def __init__(self, settings: Settings, link: Link, accounts: Accounts) -> None:
        self._settings = settings
        self._link = link
        self._accounts = accounts

    # ---- looking

    async def page(self, wanted: LetterFilter, count: int, before: LetterName | None = None) -> LetterPage:
        """The newest *count* letters that are meant, or the next ones *before* that; looks at 5,000 at most."""
        found: list[LetterShown] = []
        cursor, looked = "", 0
        async for letter in self._newest_first(wanted, before):
            if len(found) == count or looked == _SCANNED_MAX:
                return LetterPage(found, cursor, more=True)
            looked += 1
            cursor = str(letter.name)
            if wanted.takes(letter):
                found.append(show_letter(letter))
        return LetterPage(found, cursor, more=False)

    async def _newest_first(self, wanted: LetterFilter, before: LetterName | None) -> AsyncIterator[Letter]:
        first, last = wanted.bounds
        rows = [_each(shelf.newest_first(first, _older(last, shelf, before))) for shelf in await self._visited(wanted)]
        heads = {number: head for number, row in enumerate(rows) if (head := await anext(row, None)) is not None}
        while heads:
            number = max(heads, key=lambda one: heads[one].name.order)
            yield heads.pop(number)
            head = await anext(rows[number], None)
            if head is not None:
                heads[number] = head

    async def detail(self, name: LetterName) -> LetterDetail | None:
        """All that is told of a letter; None where it is not there."""
        for shelf in await self._visited(LetterFilter(vendor=name.vendor, credential=name.credential)):
            async for letter in _each(shelf.oldest_first(name.place, name.place)):
                return show_detail(letter, _codes(name.vendor), shelf.renew(letter, Terms(await self._now_ms())))
        return None

    # ---- putting back and dropping

    async def replay(
        self,
        which: Which,
        *,
        ttl_s: int = 0,
        per_second: float = 0.0,
        limit: int = 0,
        dry_run: bool = False,
        progress: Progress = lambda looked: None,
    ) -> ReplayDone:
        """Put letters back, account by account, the oldest first; the accounts' workers decide on them anew.

        * **ttl_s** - a new time to live, also for what has expired; 0: they keep what they have left.
        * **per_second** - deliveries of an account that become due in a second; 0: half of its limit, a hundred where
          it has none.
        * **limit** - most letters to put back; 0: all.
        * **dry_run** - only say what would happen.

        Doing it again, or twice at once, puts each letter back once.
        """
        now_ms = await self._now_ms()
        terms = Terms(now_ms, ttl_s)
        left: Counter[str] = Counter()
        replayed = deliveries = 0
        more = False
        until_ms = _until_ms(which, now_ms)
        async for shelf, letters in self._meant(which, until_ms, left, per_second):
            progress(len(letters))
            backs = [(letter, shelf.renew(letter, terms)) for letter in letters if _is_meant(which, letter)]
            left.update(back.value for _, back in backs if isinstance(back, Left))
            going = [(letter, back) for letter, back in backs if not isinstance(back, Left)]
            room = limit - replayed if limit else len(going)
            more = more or len(going) > room
            for batch in _batches(going[:room]):
                gone = [] if dry_run else await shelf.replay(batch)
                left.update([Left.GONE.value] * len(gone))
                replayed += len(batch) - len(gone)
                deliveries += sum(one.deliveries for one, _ in batch) - sum(one.deliveries for one in gone)
            if more:
                break
        if replayed and not dry_run:
            log.info("%d dead letters were replayed, with %d deliveries", replayed, deliveries)
        return ReplayDone(
            replayed=replayed, deliveries=deliveries, left=dict(sorted(left.items())), more=more, until_ms=until_ms
        )

    async def drop(
        self, which: Which, *, limit: int = 0, dry_run: bool = False, progress: Progress = lambda looked: None
    ) -> DropDone:
        """Forget letters for good, the oldest first, at most *limit* (0: all), or in a dry run count them."""
        dropped = 0
        more = False
        gone: Counter[str] = Counter()
        until_ms = _until_ms(which, await self._now_ms())
        async for shelf, letters in self._meant(which, until_ms, gone):
            progress(len(letters))
            meant = [letter for letter in letters if _is_meant(which, letter)]
            room = limit - dropped if limit else len(meant)
            more = more or len(meant) > room
            there = len(meant[:room]) if dry_run else await shelf.drop(meant[:room])
            dropped += there
            gone[Left.GONE.value] += len(meant[:room]) - there
            if more:
                break
        if dropped and not dry_run:
            log.info("%d dead letters were dropped", dropped)
        return DropDone(dropped=dropped, gone=gone[Left.GONE.value], more=more, until_ms=until_ms)

    async def count(self, which: Which) -> int:
        """How many letters :meth:`replay` and :meth:`drop` would look at, at most."""
        if not isinstance(which, LetterFilter):
            return len(which)
        return sum([await shelf.count() for shelf in await self._visited(which)])

    async def _meant(
        self, which: Which, until_ms: int, missing: Counter[str], per_second: float = 0.0
    ) -> AsyncIterator[tuple[Shelf, list[Letter]]]:
        """Pages of letters that may be meant; named ones that are not there are counted as *missing*."""
        if isinstance(which, LetterFilter):
            first, _ = which.bounds
            for shelf in await self._visited(which, per_second):
                async for page in shelf.oldest_first(first, str(until_ms)):
                    yield shelf, page
            return
        shelves = {(one.vendor, one.credential): one for one in await self._visited(LetterFilter(), per_second)}
        for name in sorted(set(which), key=lambda one: one.order):
            shelf_of_it = shelves.get((name.vendor, name.credential))
            found = False
            if shelf_of_it is not None:
                async for page in shelf_of_it.oldest_first(name.place, name.place):
                    found = True
                    yield shelf_of_it, page
            if not found:
                missing[Left.GONE.value] += 1

    async def _visited(self, wanted: LetterFilter, per_second: float = 0.0) -> list[Shelf]:
        """The shelves whose letters may be meant, in order."""
        settings, prefix = self._settings, self._settings.redis.prefix
        known = await self._link.call("SMEMBERS", accounts_key(prefix))
        names = {tuple(name.decode().split(":", 1)) for name in known} | self._accounts.apps.keys()
        rates = {(vendor, credential): account.rate_per_s for vendor, credential, account in self._accounts.each()}
        recalls = {name for name, app in settings.apps.items() if app.recall_window_s}
        shelves: list[Shelf] = []
        for vendor, credential in sorted(names):
            app = self._accounts.apps.get((vendor, credential))
            rate = rates.get((vendor, credential))
            shelves.append(
                AccountShelf(
                    self._link,
                    AccountKeys(prefix, vendor, credential),
                    app,
                    recalls=app in recalls,
                    per_second=per_second or (rate / 2 if rate else PER_SECOND),
                )
            )
        shelves += [IngressShelf(self._link, prefix, lane, settings.apps, recalls) for lane in LANES]
        return [shelf for shelf in shelves if wanted.visits(shelf.vendor, shelf.credential)]

    async def _now_ms(self) -> int:
        seconds, micros = await self._link.call("TIME")
        return int(seconds) * 1000 + int(micros) // 1000


def _is_meant(which: Which, letter: Letter) -> bool:
    return not isinstance(which, LetterFilter) or which.takes(letter)


def _until_ms(which: Which, now_ms: int) -> int:
    """What comes later is not meant: a letter that was put back may be dead again before the work is done."""
    until_ms = which.until_ms if isinstance(which, LetterFilter) else 0
    return min(until_ms, now_ms) if until_ms else now_ms


def _older(last: str, shelf: Shelf, before: LetterName | None) -> str:
    """The last place of *shelf* that comes after *before* where the newest come first, and not after *last*."""
    if before is None or (last != "+" and int(last) < before.at_ms):
        return last
    return before.place if (shelf.vendor, shelf.credential) < (before.vendor, before.credential) else f"({before.place}"


async def _each(pages: AsyncIterator[list[Letter]]) -> AsyncIterator[Letter]:
    async for page in pages:
        for letter in page:
            yield letter


def _batches(going: Sequence[tuple[Letter, Back]]) -> Iterator[list[tuple[Letter, Back]]]:
    """Of a size that one script moves in a moment."""
    batch: list[tuple[Letter, Back]] = []
    size = 0
    for letter, back in going:
        batch.append((letter, back))
        size += len(back.entry if isinstance(back, Renewed) else back.payload)
        if len(batch) == _AT_ONCE or size >= _BYTES_AT_ONCE:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _codes(vendor: str) -> Mapping[str, Row]:
    if vendor == INGRESS:
        return {}
    try:
        return registry.load(vendor).codes
    except SettingsError:
        # Its package is not installed any more.
        return {}
