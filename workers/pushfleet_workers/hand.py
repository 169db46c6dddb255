"""What a process has in hand of one account's ledger: leased entries, what became of their deliveries, the way back."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from itertools import chain

from msgspec import Struct
from msgspec.structs import replace

from pushfleet.message import LANES
from pushfleet_workers.clock import FleetClock
from pushfleet_workers.errors import RedisUnusable, where_raised
from pushfleet_workers.hooks import metrics
from pushfleet_workers.hooks.tally import SecondsTally
from pushfleet_workers.ledger import Entry, Ledger, Settlement, pack
from pushfleet_workers.ledger.entry import parcel_id
from pushfleet_workers.outcome import Remedy
from pushfleet_workers.overtaking import Overtaking
from pushfleet_workers.push import Delivery, Parcel, Push, PutOff, sent_id
from pushfleet_workers.redis_link import ReplyError
from pushfleet_workers.retry import SENT, End, Later
from pushfleet_workers.unshown import Unshown

__all__ = ["Hand", "Held", "unresolved"]

log = logging.getLogger(__name__)

_PARTIAL_AFTER_S = 0.25
_REDIS_RETRY_S = 0.2
_SENT_BY_LANE = {lane: f"{lane}:sent:" for lane in LANES}


class Held(Struct, eq=False):
    """A leased entry in hand."""

    entry: Entry
    settlement: Settlement
    claimed_at: float
    open: int
    """Deliveries without a result so far."""

    done: set[bytes] = set()
    """Of a parcel of several: deliveries that have a result."""

    under_way: bool = False
    """Whether any of it may have left, by a request or to another account."""

    queued_at: float = 0.0
    """When it was found that it may leave; monotonic seconds, as all of these."""

    leave_by: float = math.inf
    """Until when it makes sense, and what was decided and granted stands."""

    decided_ms: int = 0
    """When it was decided on it again, a moment ago; 0: it was not."""

    @property
    def left(self) -> list[Delivery]:
        """The deliveries without a result so far."""
        return [one for one in self.entry.parcel.deliveries if one.id not in self.done]


class Hand:
    """The entries of one account in one process. Results are gathered for *settle_s* and written in one script.

    * **overtaking** - told what is sent, and what is tried again.
    * **unshown** - told what is dropped, or dead.
    * **first** - awaited before results are written: what is due at once must not leave before the gate knows.
    * **has_news** - whether the gate has to be told something although no result waits.
    * **on_written** - called when nothing waits to be written any more.
    """

    def __init__(
        self,
        ledger: Ledger,
        clock: FleetClock,
        name: str,
        *,
        overtaking: Overtaking,
        unshown: Unshown,
        settle_s: float,
        first: Callable[[], Awaitable[None]],
        has_news: Callable[[], bool],
        on_written: Callable[[], None],
    ) -> None:
        self._ledger = ledger
        self._clock = clock
        self._name = name
        self._overtaking = overtaking
        self._unshown = unshown
        self._settle_s = settle_s
        self._first = first
        self._has_news = has_news
        self._on_written = on_written
        self.suspect = False
        """An entry that was lost twice with its process is in hand: nothing travels beside it."""

        self.some_is_due = False
        """Something goes back that may be claimed again at once."""

        self._held: dict[bytes, Held] = {}
        self._results: list[Settlement] = []
        self._settling: list[Settlement] = []
        self._flushing: asyncio.Task[None] | None = None
        self._partial_at = 0.0
        vendor, _, credential = name.partition(":")
        self._late = metrics.LATE_RESULTS.labels(vendor, credential)
        self._delivery_seconds = {lane: SecondsTally(metrics.DELIVERY_SECONDS.labels(vendor, lane)) for lane in LANES}

    @property
    def busy(self) -> bool:
        """Whether anything is in hand or not yet settled."""
        return bool(self._held or self._results or self._flushing)

    @property
    def holds(self) -> bool:
        """Whether any delivery is without a result."""
        return bool(self._held)

    @property
    def leases(self) -> list[tuple[bytes, int, int]]:
        """Id, fence and deliveries of all entries that are leased to us: what is sent and not yet settled is, too."""
        settlements = chain(self._settling, self._results, (held.settlement for held in self._held.values()))
        return [(one.id, one.fence, one.size) for one in settlements]

    def take(self, entry: Entry) -> Held:
        """Hold a leased *entry*."""
        size = len(entry.parcel.deliveries)
        held = Held(entry, Settlement(entry.id, entry.fence, size), time.monotonic(), size)
        self._held[entry.id] = held
        self.suspect = self.suspect or entry.lost > 1
        return held

    def everything(self) -> list[Held]:
        """All that is held."""
        return list(self._held.values())

    # ---- what became of deliveries

    def finish(self, held: Held, deliveries: list[Delivery], end: End, *, code: str = "") -> None:
        """*deliveries* ended; those that have a result already keep it."""
        deliveries = unresolved(held, deliveries)
        if not deliveries:
            return
        settlement, lane, count = held.settlement, held.entry.lane, len(deliveries)
        settlement.ended += count
        name = _SENT_BY_LANE[lane] if end is SENT else f"{lane}:{end.end}:{end.reason}"
        settlement.ends[name] = settlement.ends.get(name, 0) + count
        if end.end == "sent":
            push = held.entry.parcel.push
            settlement.accepted += tuple([sent_id(push, one) for one in deliveries])
            took_s = max(0, self._clock.now_ms() - push.enqueued_at_ms) / 1000
            self._delivery_seconds[lane].observe(took_s, count)
            if self._overtaking.possible:
                self._overtaking.sent(push, deliveries)
        elif end.end == "dead":
            letter = _entry_of(held, deliveries)
            settlement.dead.append((pack(letter), end.reason, code, deliveries[0].attempt + 1))
        if end.end in ("dropped", "dead"):
            self._unshown.dropped(settlement, held.entry, deliveries)
        self._resolved(held, deliveries)

    def postpone(
        self, held: Held, deliveries: list[Delivery], step: Later, *, tried: bool = False, push: Push | None = None
    ) -> None:
        """*deliveries* are tried (again) later, as entries of their own; those that have a result keep it.

        *push* is what they carry from now on; None: what they carried.
        """
        deliveries = unresolved(held, deliveries)
        if not deliveries:
            return
        if step.remedy:
            for delivery in deliveries:
                delivery.remedy = step.remedy
        if tried:
            self._overtaking.retry_waits(push or held.entry.parcel.push, deliveries, step.wait_ms)
        size = len(deliveries)
        if step.remedy == Remedy.SPLIT:
            size = max(1, size // 2)
        elif step.remedy == Remedy.SINGLE_SEND:
            size = 1
        # What costs no attempt and stays what it is waits for the account.
        gated = not step.counts and push is None
        before = held.entry.parcel.put_off
        for first in range(0, len(deliveries), size):
            entry = _entry_of(held, deliveries[first : first + size], push)
            if held.entry.parcel.push.parking == "parked" and not any(one.tries for one in entry.parcel.deliveries):
                # Nothing left with those that died, and we live.
                entry.lost = 0
            if tried:
                # What we survived is no suspect.
                entry.lost = min(entry.lost, 1)
                for delivery in entry.parcel.deliveries:
                    delivery.tries += 1
            elif before is not None and before.counted_day:
                # It is counted still, and has to be decided on anew.
                entry.parcel.put_off = PutOff(0, before.lost, before.counted_day)
            entry.parcel.gated = gated
            held.settlement.later.append((step.wait_ms, pack(entry)))
        self.some_is_due = self.some_is_due or step.wait_ms <= 0
        self._resolved(held, deliveries)

    def put_off(self, held: Held, deliveries: list[Delivery], *, counted_day: int | None = None) -> None:
        """*deliveries* could not leave in time: they are claimed again, in their order and with new permits.

        *counted_day* is as in :class:`PutOff`; None: as it was.
        """
        deliveries = unresolved(held, deliveries)
        if not deliveries:
            return
        before = held.entry.parcel.put_off
        if counted_day is None:
            counted_day = before.counted_day if before is not None else 0
        self.some_is_due = True
        if before is None and not (held.decided_ms or counted_day) and _is_whole(held, deliveries):
            held.settlement.give_back = True
        else:
            entry = _entry_of(held, deliveries)
            if held.decided_ms or counted_day:
                entry.parcel.put_off = PutOff(held.decided_ms, entry.lost, counted_day)
            held.settlement.later.append((0, pack(entry)))
        self._resolved(held, deliveries)

    def reword(self, held: Held, deliveries: list[Delivery], pushes: Mapping[bytes, Push]) -> list[Delivery]:
        """Give *deliveries* the pushes that they carry from now on, by delivery id; the others keep theirs.

        Those that are left to be sent: an entry has one push, so those with another one become entries of their own,
        due at once.
        """
        old = held.entry
        groups: dict[tuple[object, ...], tuple[Push, list[Delivery]]] = {}
        for one in unresolved(held, deliveries):
            push = pushes.get(one.id, old.parcel.push)
            groups.setdefault(push.variant, (push, []))[1].append(one)
        if not groups:
            return []
        (push, stay), *others = groups.values()
        for other, some in others:
            entry = _entry_of(held, some, other)
            # What a cap has counted is not counted once more because it says something else.
            entry.parcel.put_off = old.parcel.put_off
            held.settlement.later.append((0, pack(entry)))
            self.some_is_due = True
            self._resolved(held, some)
        parcel = replace(old.parcel, push=push)
        held.entry = Entry(old.id, parcel, old.lane, old.put_ms, old.lost, old.fence)
        return stay

    def give_back(self, held: Held, deliveries: list[Delivery]) -> None:
        """Nothing was tried with *deliveries*: they return to the head of their lane.

        It may take a while until they are claimed again, and then it is decided on them again.
        """
        parcel, held.decided_ms = held.entry.parcel, 0
        noted = parcel.put_off is not None and parcel.put_off.decided_ms
        if _is_whole(held, deliveries) and not noted:
            held.settlement.give_back = True
            self._resolved(held, deliveries)
        else:
            self.put_off(held, deliveries)

    def _resolved(self, held: Held, deliveries: Sequence[Delivery]) -> None:
        held.open -= len(deliveries)
        if held.open > 0:
            held.done.update([one.id for one in deliveries])
        else:
            held.open = 0
            if self._held.get(held.entry.id) is held:
                del self._held[held.entry.id]
            if held.entry.lost > 1:
                self.suspect = False
            self._results.append(held.settlement)
        self.write_soon()

    # ---- to the ledger

    def write_soon(self) -> None:
        """See to it that results, and news for the gate, are written."""
        if self._flushing is None:
            self._flushing = asyncio.get_running_loop().create_task(self._flush())

    async def written(self, deadline: float) -> None:
        """Wait until all results are written, at most until *deadline* (monotonic)."""
        while (self._results or self._flushing) and (left_s := deadline - time.monotonic()) > 0:
            self.write_soon()
            assert self._flushing is not None
            await asyncio.wait([self._flushing], timeout=left_s)

    async def _flush(self) -> None:
        try:
            await asyncio.sleep(self._settle_s)
            while self._results or self._has_news():
                self._add_partial_results()
                self._settling, self._results = self._results, []
                try:
                    await self._first()
                    await self._overtaking.write()
                    if self._settling:
                        late = await self._ledger.settle(self._settling)
                        self._late.inc(len(late))
                        self._unshown.settled(self._settling, late)
                        self._settling = []
                except (RedisUnusable, ReplyError) as problem:
                    # Settling twice is safe: what was settled has lost its lease.
                    metrics.REDIS_LOST.labels("worker").inc()
                    log.warning("results of %s wait for Redis: %s", self._name, problem)
                    await self._try_again_soon()
                except Exception as problem:  # noqa: BLE001 - results must not get lost by a defect
                    log.error("writing results of %s raised %s", self._name, where_raised(problem))
                    await self._try_again_soon()
        finally:
            self._flushing = None
            for tally in self._delivery_seconds.values():
                tally.flush()
            self._on_written()

    async def _try_again_soon(self) -> None:
        self._results = self._settling + self._results
        self._settling = []
        await asyncio.sleep(_REDIS_RETRY_S)

    def _add_partial_results(self) -> None:
        """Settle the finished part of parcels that have been in hand for long: a crash then repeats less."""
        horizon = time.monotonic() - _PARTIAL_AFTER_S
        if self._partial_at > horizon:
            return
        self._partial_at = time.monotonic()
        for held in self._held.values():
            if held.claimed_at > horizon or held.open == len(held.entry.parcel.deliveries):
                continue
            old, deliveries = held.entry, held.left
            parcel = replace(old.parcel, deliveries=deliveries)
            held.entry = Entry(old.id, parcel, old.lane, old.put_ms, old.lost, old.fence)
            held.settlement.rest = pack(held.entry)
            self._results.append(held.settlement)
            held.settlement = Settlement(old.id, old.fence, len(deliveries))


def unresolved(held: Held, deliveries: list[Delivery]) -> list[Delivery]:
    """Those of *deliveries* that have no result yet: a second one would be counted beside the first."""
    if not held.open:
        return []
    return [one for one in deliveries if one.id not in held.done] if held.done else deliveries


def _is_whole(held: Held, deliveries: list[Delivery]) -> bool:
    """Whether *deliveries* are all of the parcel."""
    return held.open == len(deliveries) == len(held.entry.parcel.deliveries)


def _entry_of(held: Held, deliveries: list[Delivery], push: Push | None = None) -> Entry:
    old = held.entry
    new_id = parcel_id(old.id, deliveries[0].id, deliveries[0].attempt, old.fence)
    return Entry(new_id, Parcel(push or old.parcel.push, deliveries), old.lane, old.put_ms, old.lost)
