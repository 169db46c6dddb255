"""What was settled a moment ago, in case that Redis forgets it: a replica that takes over may lag behind."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Container, Iterable, Sequence

from msgspec import Struct

__all__ = ["Recent", "Sent"]

_KEPT_S = 10.0
_KEPT_MAX = 20_000


class Sent(Struct, gc=False):
    """What of one lease the vendor took."""

    id: bytes
    fence: int
    deliveries: tuple[bytes, ...]
    """:func:`pushfleet_workers.push.sent_id` of each."""


class Recent:
    """The leases that were settled last, and what of them was sent; so many as ten seconds bring, 20,000 at most."""

    def __init__(self, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._clock_s = clock_s
        self._sent: deque[tuple[float, Sent]] = deque(maxlen=_KEPT_MAX)

    def add(self, sent: Iterable[Sent]) -> None:
        """Remember *sent*; what is ten seconds older goes. Where nothing comes, nothing goes."""
        now_s = self._clock_s()
        kept = self._sent
        kept.extend([(now_s, one) for one in sent])
        while kept and kept[0][0] < now_s - _KEPT_S:
            kept.popleft()

    def of_claims_between(self, gaps: Sequence[tuple[int, int]]) -> list[Sent]:
        """Those whose fence lies between the two of any pair."""
        return [one for _, one in self._sent if any(last < one.fence < first for last, first in gaps)]

    def of_leases(self, ids: Container[bytes]) -> list[Sent]:
        """Those with these ids."""
        return [one for _, one in self._sent if one.id in ids]
