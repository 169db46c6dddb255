"""What of waiting deliveries is still to be sent: asks, ends what is not, and lets wait on what must."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence

from pushfleet_workers.clock import FleetClock
from pushfleet_workers.errors import RedisUnusable, where_raised
from pushfleet_workers.hand import Hand, Held
from pushfleet_workers.hooks import metrics
from pushfleet_workers.ledger import Entry
from pushfleet_workers.overtaking import Overtaking
from pushfleet_workers.push import Delivery, Push
from pushfleet_workers.recheck import Rechecked
from pushfleet_workers.redis_link import ReplyError
from pushfleet_workers.retry import End, Later

__all__ = ["Recheck", "StillWanted"]

log = logging.getLogger(__name__)

Recheck = Callable[[Sequence[Entry]], Awaitable[Rechecked]]
"""Decides again on entries that waited, see :class:`pushfleet_workers.recheck.Rechecker`."""

_Chunk = tuple[Held, list[Delivery]]
_ASK_AGAIN_MS = 2_000


class StillWanted:
    """Decides again on what is in hand of one account.

    * **name** - the account's, for the log.
    """

    def __init__(self, recheck: Recheck, overtaking: Overtaking, hand: Hand, clock: FleetClock, name: str) -> None:
        self._recheck = recheck
        self._overtaking = overtaking
        self._hand = hand
        self._clock = clock
        self._name = name

    async def of(self, aged: Sequence[_Chunk]) -> list[_Chunk]:
        """What of *aged* is to be sent now; asked about all at once. The rest has ended, or waits in the ledger."""
        try:
            found = await self._recheck([held.entry for held, _ in aged])
        except Exception as problem:  # noqa: BLE001
            # Without the state the first decision stands: a push too many beats a push lost, and what is parked waits.
            log.error("recheck of %s raised %s", self._name, where_raised(problem))
            found = Rechecked()
        left = [(held, some) for held, deliveries in aged if (some := self._heed(held, deliveries, found))]
        return await self._not_overtaken(left)

    async def _not_overtaken(self, chunks: list[_Chunk]) -> list[_Chunk]:
        """Those of *chunks* that no newer push of their conversation has overtaken; the others end."""
        try:
            overtaken = await self._overtaking.overtaken([(held.entry.parcel.push, some) for held, some in chunks])
        except (RedisUnusable, ReplyError) as problem:
            log.warning("%s sends retries that may be overtaken: %s", self._name, problem)
            return chunks
        left = []
        for held, deliveries in chunks:
            self._hand.finish(held, [one for one in deliveries if one.id in overtaken], End("dropped", "superseded"))
            left.append((held, [one for one in deliveries if one.id not in overtaken]))
        return [(held, some) for held, some in left if some]

    def _heed(self, held: Held, deliveries: list[Delivery], found: Rechecked) -> list[Delivery]:
        """What of *deliveries* is to be sent now, after what was *found*."""
        refused = found.refused
        for reason in sorted({refused[one.id] for one in deliveries if one.id in refused}):
            refusals = [one for one in deliveries if refused.get(one.id) == reason]
            self._hand.finish(held, refusals, End("suppressed", reason))
        left = [one for one in deliveries if one.id not in refused] if refused else deliveries
        if found.later or held.entry.parcel.push.parking == "parked":
            left = self._let_wait(held, left, found)
        if left and found.rendered:
            left = self._hand.reword(held, left, found.rendered)
        # Of what tells of others too, only now it is known until when one of them makes sense.
        if left and held.entry.parcel.push.expires_at_ms <= self._clock.now_ms():
            self._hand.finish(held, left, End("dropped", "expired"))
            return []
        held.decided_ms = int(self._clock.now_ms())
        return left

    def _let_wait(self, held: Held, deliveries: list[Delivery], found: Rechecked) -> list[Delivery]:
        """Those of *deliveries* that need not wait: none of a parked push, which has no permit to leave."""
        push = held.entry.parcel.push
        go_on = (_ASK_AGAIN_MS, push) if push.parking == "parked" else None
        groups: dict[tuple[int, tuple[object, ...]], tuple[Push, list[Delivery]]] = {}
        left = []
        for one in deliveries:
            wait = found.later.get(one.id, go_on)
            if wait is None:
                left.append(one)
                continue
            wait_ms, carried = wait
            groups.setdefault((wait_ms, carried.variant), (carried, []))[1].append(one)
        now_ms = self._clock.now_ms()
        for (wait_ms, _), (carried, some) in groups.items():
            if carried.expires_at_ms <= now_ms:
                self._hand.finish(held, some, End("dropped", "expired"))
            else:
                self._hand.postpone(held, some, Later(wait_ms, counts=False), push=carried)
                metrics.PARKED.labels(self._name.partition(":")[0], carried.parking).inc(len(some))
        return left
