"""What one process has claimed of one account and no sender has taken yet, by lane, and how much that should be."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator

from pushfleet.message import LANES, Lane
from pushfleet_workers.hand import Held
from pushfleet_workers.push import Delivery
from pushfleet_workers.triage import Chunk
from pushfleet_workers.vendor import Vendor

__all__ = ["AHEAD_MAX", "CLAIM_PARCELS", "LEAST", "LONG_S", "Ahead", "Waiting"]

CLAIM_PARCELS = 100
_BULK_WINDOW_SHARE = 0.7

_SOME = 50
AHEAD_MAX = _SOME + CLAIM_PARCELS
LEAST = 6
LONG_S = 0.2
_SHORT_S = 0.1


class Ahead:
    """How many chunks are claimed ahead of the senders: *most*, or less where what is claimed waits long to leave.

    Few entries a claim would make each cost twice as much. But what was decided on a second ago must not leave, and
    what waits in a slow process could leave from another one.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self.count = most

    @property
    def low(self) -> int:
        """With fewer waiting it is time to claim again."""
        return self.count // 3

    def heed(self, waited_s: float) -> None:
        """What is to leave next has waited so long; 0: nothing waits any more."""
        if waited_s > LONG_S:
            self.count = max(min(LEAST, self._most), self.count // 2)
        elif waited_s < _SHORT_S:
            self.count = min(self._most, self.count * 2)


class Waiting:
    """The queues of one account in one process.

    * **window** - how many requests may be under way; bulk gets a part of it.
    * **void** - whether an entry must not leave any more.
    * **put_off** - given what must not leave now, in order.
    * **on_low** - called when so few wait that it is time to claim again.
    """

    def __init__(
        self,
        vendor: Vendor,
        window: int,
        *,
        void: Callable[[Held], bool],
        put_off: Callable[[list[Chunk]], None],
        on_low: Callable[[], None],
    ) -> None:
        self._vendor = vendor
        self._void = void
        self._put_off = put_off
        self._on_low = on_low
        self._window = window
        self._bulk_window = max(1, int(window * _BULK_WINDOW_SHARE))
        most = min(AHEAD_MAX, _SOME + window // 2)
        self._ahead, self._bulk_ahead = Ahead(most), Ahead(most)
        self._queues: dict[Lane, deque[Chunk]] = {lane: deque() for lane in LANES}
        self._bulk_under_way = 0
        self._count = 0

    def __len__(self) -> int:
        """How many chunks wait."""
        return self._count

    @property
    def is_low(self) -> bool:
        """Whether a claim would be served."""
        return self._count - len(self._queues["bulk"]) < self._ahead.low

    @property
    def may_go(self) -> bool:
        """Whether anything waits that a free sender would take."""
        return any(queue and (lane != "bulk" or self._bulk_goes) for lane, queue in self._queues.items())

    def room(self, under_way: int) -> tuple[int, int]:
        """How many more chunks should be claimed while so many requests are *under_way*, and how many of them bulk."""
        self._heed_waits()
        bulk = len(self._queues["bulk"])
        room = self._window + self._ahead.count - (self._count - bulk) - under_way
        return max(1, room), max(0, self._bulk_window + self._bulk_ahead.count - bulk - self._bulk_under_way)

    def add(self, held: Held, deliveries: list[Delivery]) -> None:
        """Queue *deliveries* in chunks of what fits into a request."""
        queue = self._queues[held.entry.lane]
        size = self._vendor.batch_size
        if size == 1:
            queue.extend([(held, [one]) for one in deliveries])
            self._count += len(deliveries)
            return
        for first in range(0, len(deliveries), size):
            queue.append((held, deliveries[first : first + size]))
            self._count += 1

    def next(self, *, mixes: bool) -> list[Chunk]:
        """What the next request carries: a chunk, or several where the vendor *mixes* pushes; empty: nothing may go."""
        for lane, queue in self._queues.items():
            if lane == "bulk" and not self._bulk_goes:
                continue
            while queue:
                if self._void(queue[0][0]):
                    self._put_off(self._without_stale(queue))
                    continue
                load = [self._take(queue)]
                if mixes:
                    self._fill(load, queue)
                return load
        return []

    def began(self, lane: Lane) -> None:
        """A sender began with work of *lane*."""
        self._bulk_under_way += lane == "bulk"

    def ended(self, lane: Lane) -> None:
        """A sender is through with work of *lane*."""
        self._bulk_under_way -= lane == "bulk"

    def drain(self) -> Iterator[Chunk]:
        """All that waits; none of it waits here any more."""
        for queue in self._queues.values():
            while queue:
                self._count -= 1
                yield queue.popleft()

    @property
    def _bulk_goes(self) -> bool:
        return self._bulk_under_way < self._bulk_window

    def _heed_waits(self) -> None:
        now = time.monotonic()
        *rest, bulk = (queue[0][0].queued_at if queue else now for queue in self._queues.values())
        self._ahead.heed(now - min(rest))
        self._bulk_ahead.heed(now - bulk)

    def _without_stale(self, queue: deque[Chunk]) -> list[Chunk]:
        """Take out what must not leave any more, and what came later to replace it: it must not be there first."""
        stale: list[Chunk] = []
        stays: list[Chunk] = []
        places: set[tuple[str, str]] = set()
        for chunk in queue:
            push = chunk[0].entry.parcel.push
            place = push.app, push.replace_key
            if self._void(chunk[0]) or place in places:
                stale.append(chunk)
                if push.replace_key:
                    places.add(place)
            else:
                stays.append(chunk)
        queue.clear()
        queue.extend(stays)
        self._count -= len(stale)
        return stale

    def _take(self, queue: deque[Chunk]) -> Chunk:
        chunk = queue.popleft()
        self._count -= 1
        if self._ahead.low - 1 in (self._count, self._count - len(self._queues["bulk"])):
            self._on_low()
        return chunk

    def _fill(self, load: list[Chunk], queue: deque[Chunk]) -> None:
        """Let what waits behind *load* travel along, as far as it fits and what is said of one holds for all."""
        name = self._vendor.name

        def nature(chunk: Chunk) -> object:
            held, deliveries = chunk
            push = held.entry.parcel.push
            alone = held.entry.lost or push.recall or any(one.remedy for one in deliveries)
            return (push.kind, getattr(push.options, name, None)) if not alone else None

        shared = nature(load[0])
        size = len(load[0][1])
        while queue and shared is not None and nature(queue[0]) == shared and not self._void(queue[0][0]):
            size += len(queue[0][1])
            if size > self._vendor.batch_size:
                return
            load.append(self._take(queue))
