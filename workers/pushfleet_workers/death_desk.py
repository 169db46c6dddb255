"""What operators do with dead tokens: look at them, bring them back, and decide on accounts whose guard has tripped."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from typing import Annotated, Literal

from msgspec import Meta, Struct

from pushfleet_workers.redis_link import Link
from pushfleet_workers.settings import DeathsSettings
from pushfleet_workers.tokens.death_log import DeathTold, Filter
from pushfleet_workers.tokens.death_watch import DeathWatch
from pushfleet_workers.tokens.deaths import Deaths
from pushfleet_workers.tokens.tombstones import Fate, Grave, Restored

__all__ = ["AccountDeaths", "DeathDesk", "DeathPage", "Decided", "Decision", "RestoreDone"]

Decision = Literal["confirm", "lift"]

_DEAD = (Fate.DROPPED, Fate.QUARANTINED)
_AT_ONCE = 100
_SCANNED_MAX = 5_000


class DeathPage(Struct, frozen=True):
    """A page of what became of dead tokens, in order."""

    deaths: list[DeathTold]
    cursor: Annotated[str, Meta(description="Where the next page begins.")]
    more: Annotated[bool, Meta(description="Whether there is more already.")]


class RestoreDone(Struct, frozen=True, kw_only=True):
    """What came of restoring; the counts but `more` add up to the deaths that were meant."""

    restored: Annotated[int, Meta(description="Back, or passed over no more; in a dry run: that could be tried.")] = 0
    unknown: Annotated[int, Meta(description="Restored before, or nothing is left to restore.")] = 0
    no_device: Annotated[int, Meta(description="The device is gone.")] = 0
    outdated: Annotated[int, Meta(description="The device has registered since.")] = 0
    taken: Annotated[int, Meta(description="Another user has the token now.")] = 0
    more: Annotated[bool, Meta(description="Whether the limit left some out: repeat it.")] = False


class AccountDeaths(Struct, frozen=True, kw_only=True):
    """How an account stands that has quarantined tokens, or whose guard has tripped."""

    vendor: str
    credential: str
    guarded_since_ms: Annotated[int, Meta(description="When its guard tripped, Unix milliseconds; 0: it has not.")]
    quarantined: Annotated[int, Meta(description="Tokens that are passed over.")]
    window_deaths: Annotated[int, Meta(description="Undated deaths lately.")]
    window_accepted: Annotated[int, Meta(description="Pushes that were accepted in the same time.")]


class Decided(Struct, frozen=True, kw_only=True):
    """What came of a decision on an account's quarantined tokens."""

    dropped: int = 0
    restored: int = 0
    other: Annotated[int, Meta(description="Registered anew, removed, or decided before.")] = 0
    more: Annotated[bool, Meta(description="Whether some are left: repeat it. The guard holds until then.")] = False


class DeathDesk:
    """Dead tokens in the hands of operators; every method raises :class:`RedisUnusable` and may be repeated.

    * **state** - the Redis of the token state.
    * **queue** - the Redis of the ledgers.
    """

    def __init__(
        self, state: Link, queue: Link, prefix: str, settings: DeathsSettings, now_ms: Callable[[], int]
    ) -> None:
        self._deaths = Deaths(state, prefix, settings, now_ms)
        self._watch = DeathWatch(queue, prefix, settings)

    async def page(self, app: str, after: str, count: int, wanted: Filter) -> DeathPage:
        """The next deaths after the cursor *after* that are meant, at most *count*; looks at 5,000 at most."""
        found: list[DeathTold] = []
        cursor, left = after, _SCANNED_MAX
        while left > 0:
            told, reached = await self._deaths.log.after(app, cursor, min(left, count))
            if reached == cursor:
                return DeathPage(found, cursor, more=False)
            for one in told:
                if wanted.takes(one):
                    found.append(one)
                    if len(found) == count:
                        return DeathPage(found, one.cursor, more=True)
            cursor, left = reached, left - count
        return DeathPage(found, cursor, more=True)

    async def newest(self, app: str, wanted: Filter, count: int) -> list[DeathTold]:
        """The last *count* deaths that are meant, the newest first."""
        found: list[DeathTold] = []
        async for one in self._deaths.log.newest_first(app, wanted):
            found.append(one)
            if len(found) == count:
                break
        return found

    async def restore(
        self, app: str, wanted: Filter, count: int, *, dry_run: bool = False, undated: bool = False
    ) -> RestoreDone:
        """Bring back some *count* tokens that are meant, or in a dry run count them.

        * **undated** - only those whose vendor did not say since when they are dead.
        """
        tally: Counter[str] = Counter()
        more = False
        async for batch in self._meant(app, wanted, undated=undated):
            if tally["restored"] >= count:
                more = True
                break
            tally += await self._restore(batch, dry_run=dry_run)
        return RestoreDone(**tally, more=more)

    async def _meant(self, app: str, wanted: Filter, *, undated: bool) -> AsyncIterator[list[Grave]]:
        """The graves that are meant, each once."""
        seen: set[Grave] = set()
        batch: list[Grave] = []
        async for one in self._deaths.log.newest_first(app, wanted):
            grave = Grave(app, one.user, one.id)
            if one.fate not in _DEAD or grave in seen or (undated and one.since_ms):
                continue
            seen.add(grave)
            batch.append(grave)
            if len(batch) == _AT_ONCE:
                yield batch
                batch = []
        if batch:
            yield batch

    async def _restore(self, graves: Sequence[Grave], *, dry_run: bool) -> Counter[str]:
        stones = await self._deaths.find(graves)
        buried = [
            grave for grave, stone in zip(graves, stones, strict=True) if stone is not None and stone.fate in _DEAD
        ]
        tally = Counter(unknown=len(graves) - len(buried))
        if dry_run:
            return tally + Counter(restored=len(buried))
        said = await asyncio.gather(*(self._deaths.restore(grave) for grave in buried))
        return tally + Counter(one.value for one in said)

    # ---- accounts

    async def accounts(self, accounts: Iterable[tuple[str, str]]) -> list[AccountDeaths]:
        """Those of *accounts* (vendor, credential) that somebody should look at."""
        asked = list(accounts)
        held = await self._deaths.ward.occupied(asked)
        standings = {account: await self._watch.weigh(*account) for account in asked}
        return [
            AccountDeaths(
                vendor=vendor,
                credential=credential,
                guarded_since_ms=standing.guarded_since_ms,
                quarantined=held.get((vendor, credential), 0),
                window_deaths=standing.window_deaths,
                window_accepted=standing.window_accepted,
            )
            for (vendor, credential), standing in standings.items()
            if standing.guarded_since_ms or (vendor, credential) in held
        ]

    async def decide(self, app: str, vendor: str, credential: str, decision: Decision, count: int) -> Decided:
        """Drop or restore the account's quarantined tokens, at most *count*, and reset its guard after the last.

        To lift also brings back what the wave took before the guard tripped.
        """
        tally: Counter[str] = Counter()
        while tally.total() < count:
            graves = await self._deaths.ward.oldest(vendor, credential, min(_AT_ONCE, count - tally.total()))
            if not graves:
                break
            tally += await (self._confirm(graves) if decision == "confirm" else self._lift(graves))
            await self._deaths.ward.leave(vendor, credential, graves)
        left = (vendor, credential) in await self._deaths.ward.occupied([(vendor, credential)])
        wave_since_ms = await self._watch.wave_since_ms(vendor, credential)
        if decision == "lift" and wave_since_ms and not left:
            wanted = Filter(vendor=vendor, credential=credential, fate=Fate.DROPPED.value, since_ms=wave_since_ms)
            done = await self.restore(app, wanted, max(1, count - tally.total()), undated=True)
            tally["restored"] += done.restored
            left = done.more
        if not left:
            await self._watch.release(vendor, credential)
        return Decided(dropped=tally["dropped"], restored=tally["restored"], other=tally["other"], more=left)

    async def _confirm(self, graves: Sequence[Grave]) -> Counter[str]:
        stones = await self._deaths.find(graves)
        held = [
            self._deaths.confirm(grave, stone)
            for grave, stone in zip(graves, stones, strict=True)
            if stone is not None and stone.fate is Fate.QUARANTINED
        ]
        dropped = sum(await asyncio.gather(*held))
        return Counter(dropped=dropped, other=len(graves) - dropped)

    async def _lift(self, graves: Sequence[Grave]) -> Counter[str]:
        said = await asyncio.gather(*(self._deaths.restore(grave) for grave in graves))
        restored = sum(one is Restored.RESTORED for one in said)
        return Counter(restored=restored, other=len(graves) - restored)
