"""How often somebody may call: a bucket for each, and bounded memory however many there are."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Hashable

__all__ = ["Buckets"]


class Buckets:
    """A token bucket for each key; the keys that were silent the longest are forgotten first.

    * **rate_per_s** - what flows in; twice as much may come at once.
    * **keys_max** - most keys that are known.
    """

    def __init__(
        self, rate_per_s: float, keys_max: int = 1_000, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._rate_per_s = rate_per_s
        self._capacity = max(1.0, 2 * rate_per_s)
        self._keys_max = keys_max
        self._monotonic = monotonic
        self._levels: OrderedDict[Hashable, tuple[float, float]] = OrderedDict()

    def take(self, key: Hashable) -> bool:
        """Whether *key* may call once more now."""
        now_s = self._monotonic()
        level, at_s = self._levels.pop(key, (self._capacity, now_s))
        level = min(self._capacity, level + (now_s - at_s) * self._rate_per_s)
        may = level >= 1
        self._levels[key] = (level - 1 if may else level, now_s)
        if len(self._levels) > self._keys_max:
            self._levels.popitem(last=False)
        return may

    def __len__(self) -> int:
        return len(self._levels)
