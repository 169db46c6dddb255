"""The fleet's one clock: Redis' time, kept as an offset to this machine's."""

from __future__ import annotations

import time

__all__ = ["FleetClock"]


class FleetClock:
    """The machine's clock, corrected by what Redis says; a worker whose clock is off does no harm."""

    def __init__(self) -> None:
        self._offset_ms = 0.0

    def heard(self, redis_now_ms: float) -> None:
        """Take Redis' time, just received."""
        self._offset_ms = redis_now_ms - time.time() * 1000

    def now_ms(self) -> int:
        """Unix milliseconds by Redis' clock, to within a round trip."""
        return int(time.time() * 1000 + self._offset_ms)
