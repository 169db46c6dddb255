"""Counting in batches: prometheus-client's locks and loops cost more than what a push may take for its metrics."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter as Counts
from typing import Any

from prometheus_client import Counter, Histogram

__all__ = ["AnswerTally", "SecondsTally"]


class SecondsTally:
    """Observations for one labelled histogram, handed over by :meth:`flush`."""

    def __init__(self, histogram: Histogram) -> None:
        # A histogram has no public way to take many observations at once.
        self._sum: Any = histogram._sum
        self._buckets: Any = histogram._buckets
        self._bounds: list[float] = list(histogram._upper_bounds)
        self._seconds: list[tuple[float, int]] = []

    def observe(self, seconds: float, times: int = 1) -> None:
        """Note an observation that was made so many times."""
        self._seconds.append((seconds, times))

    def flush(self) -> None:
        """Hand over what was noted."""
        if not self._seconds:
            return
        noted, self._seconds = self._seconds, []
        self._sum.inc(sum([seconds * times for seconds, times in noted]))
        counts: Counts[int] = Counts()
        for seconds, times in noted:
            counts[bisect_left(self._bounds, seconds)] += times
        for bucket, count in counts.items():
            self._buckets[bucket].inc(count)


class AnswerTally:
    """Answers by verdict and code for one account's counter, handed over by :meth:`flush`."""

    def __init__(self, counter: Counter, *labels: str) -> None:
        self._counter = counter
        self._labels = labels
        self._counts: Counts[tuple[str, str]] = Counts()

    def count(self, verdict: str, code: str, number: int) -> None:
        """Note *number* answers."""
        self._counts[verdict, code] += number

    def flush(self) -> None:
        """Hand over what was noted."""
        counts, self._counts = self._counts, Counts()
        for (verdict, code), number in counts.items():
            self._counter.labels(*self._labels, verdict, code).inc(number)
