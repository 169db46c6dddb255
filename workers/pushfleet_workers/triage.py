"""What becomes of claimed entries: some go at once, some have to be asked about first, some have ended."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from pushfleet_workers.clock import FleetClock
from pushfleet_workers.elsewhere import Elsewhere
from pushfleet_workers.hand import Hand, Held
from pushfleet_workers.ledger import Entry
from pushfleet_workers.push import Delivery, PutOff, sent_id
from pushfleet_workers.retry import SENT, End
from pushfleet_workers.still_wanted import StillWanted

__all__ = ["Chunk", "Doubts", "Triage"]

Chunk = tuple[Held, list[Delivery]]
"""An entry in hand, and deliveries of it."""

_DECISION_HOLDS_MS = 1_000
"""How long what was found out of work that could not leave in time is not asked again: long enough for new permits."""

_OF_CALLS = frozenset({"call", "call_cancel"})


@dataclass(slots=True)
class Doubts:
    """Claimed work that has to be asked about before it leaves."""

    aged: list[Chunk] = field(default_factory=list)
    """It waited, or was parked."""

    lost: list[Chunk] = field(default_factory=list)
    """A process died with it."""

    def __bool__(self) -> bool:
        return bool(self.aged or self.lost)


class Triage:
    """Sorts the entries that one process claims of one account.

    * **queue** - given what goes at once.
    * **recheck_s** - from what age on an entry is asked about.
    * **drop_unknown** - whether what a process died with ends, since it may have left.
    """

    def __init__(
        self,
        hand: Hand,
        elsewhere: Elsewhere,
        still_wanted: StillWanted,
        clock: FleetClock,
        *,
        queue: Callable[[Held, list[Delivery]], None],
        recheck_s: float,
        drop_unknown: bool,
    ) -> None:
        self._hand = hand
        self._elsewhere = elsewhere
        self._still_wanted = still_wanted
        self._clock = clock
        self._queue = queue
        self._recheck_ms = recheck_s * 1000
        self._drop_unknown = drop_unknown

    def take(self, entries: Sequence[Entry], late_oks: frozenset[bytes]) -> Doubts:
        """Take *entries* in hand and queue what goes at once; what is left has to be asked about.

        *late_oks* are as in :class:`Claim`.
        """
        doubts = Doubts()
        now_ms = self._clock.now_ms()
        for entry in entries:
            held = self._hand.take(entry)
            deliveries = entry.parcel.deliveries
            if late_oks:
                deliveries = self.without_accepted(held, deliveries, late_oks)
            push = entry.parcel.push
            decided_ms = 0
            if entry.parcel.put_off is not None:
                held.decided_ms = decided_ms = _decided_lately(entry, entry.parcel.put_off, now_ms)
            if entry.lost and not decided_ms:
                doubts.lost.append((held, deliveries))
            elif push.parking == "parked":
                # It may have been confirmed although it has expired since.
                doubts.aged.append((held, deliveries))
            elif push.expires_at_ms <= now_ms and (decided_ms or not push.tells_of_others):
                self._hand.finish(held, deliveries, End("dropped", "expired"))
            elif not decided_ms and (now_ms - entry.put_ms > self._recheck_ms or _had_its_chance(entry)):
                doubts.aged.append((held, deliveries))
            else:
                self._queue(held, deliveries)
        return doubts

    async def queue_what_is_wanted(self, doubts: Doubts) -> None:
        """Ask about what :meth:`take` left, and queue what of it is still to be sent."""
        aged = doubts.aged
        if doubts.lost:
            aged += await self._of_the_dead(doubts.lost)
        for held, deliveries in await self._still_wanted.of(aged) if aged else ():
            self._queue(held, deliveries)

    def without_accepted(self, held: Held, deliveries: list[Delivery], late_oks: frozenset[bytes]) -> list[Delivery]:
        """*deliveries* without those that were accepted after their lease was lost, which end as sent."""
        push = held.entry.parcel.push
        accepted = [one for one in deliveries if sent_id(push, one) in late_oks]
        if not accepted:
            return deliveries
        self._hand.finish(held, accepted, SENT)
        return [one for one in deliveries if sent_id(push, one) not in late_oks]

    async def _of_the_dead(self, lost: list[Chunk]) -> list[Chunk]:
        """What of entries that a process died with is still to be sent: each may have left it in some way."""
        left = []
        for held, deliveries in await self._elsewhere.without_gone(lost):
            push = held.entry.parcel.push
            if push.parking == "parked":
                # It had no permit to leave.
                left.append((held, deliveries))
                continue
            for delivery in deliveries:
                delivery.tries = max(1, delivery.tries)
            if self._drop_unknown:
                self._hand.finish(held, deliveries, End("dropped", "unknown_outcome"))
            elif push.expires_at_ms <= self._clock.now_ms() and not push.tells_of_others:
                self._hand.finish(held, deliveries, End("dropped", "expired"))
            else:
                left.append((held, deliveries))
        return left


def _had_its_chance(entry: Entry) -> bool:
    """Whether what holds for it may have changed however young it is.

    It was tried, parked or put for later, it takes a message back, or it is a call, which may be over.
    """
    first, push = entry.parcel.deliveries[0], entry.parcel.push
    if push.kind in _OF_CALLS:
        return True
    return bool(first.tries or first.tried or entry.lost or push.recall or push.later or push.parking)


def _decided_lately(entry: Entry, put_off: PutOff, now_ms: float) -> int:
    """When it was decided on an entry that could not leave in time, and that nobody had in hand and died since."""
    holds = put_off.lost == entry.lost and now_ms - put_off.decided_ms <= _DECISION_HOLDS_MS
    return put_off.decided_ms if holds else 0
