"""How much of the machine a scenario gets while it plays."""

from __future__ import annotations

import contextlib
import math
import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

__all__ = ["Machine", "cpu_s", "p99"]

_NAP_S = 0.01
_LOOK_EVERY = 50
_PROC = Path("/proc")


def p99(sorted_values: Sequence[float]) -> float:
    """The 99th percentile of values that are sorted; 0 of none."""
    return sorted_values[math.ceil(len(sorted_values) * 0.99) - 1] if sorted_values else 0.0


class Machine:
    """Watches the machine from a thread, as a context manager."""

    def __init__(self) -> None:
        self._late: list[tuple[float, float]] = []
        self._cpu: list[tuple[float, float, float]] = []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="machine", daemon=True)

    def __enter__(self) -> Self:
        """Begin."""
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End."""
        self._ended.set()
        self._thread.join()

    def late_s(self, since_s: float, until_s: float) -> float:
        """By how much a thread that wanted to sleep for 10 ms overslept between the two times, 99th percentile."""
        return p99(sorted(late_s for at_s, late_s in self._late if since_s <= at_s < until_s))

    def cores_of_others(self, since_s: float, until_s: float) -> float:
        """How many cores others than we and our children kept busy between the two times; 0 where nobody knows."""
        seen = [look for look in self._cpu if since_s - 1 <= look[0] <= until_s + 1]
        if len(seen) < 2:
            return 0.0
        (began_s, all_before, ours_before), (ended_s, all_after, ours_after) = seen[0], seen[-1]
        return max(0.0, (all_after - all_before) - (ours_after - ours_before)) / (ended_s - began_s)

    def _watch(self) -> None:
        naps = 0
        while not self._ended.is_set():
            if naps % _LOOK_EVERY == 0 and (spent := cpu_s()) is not None:
                self._cpu.append((time.time(), *spent))
            naps += 1
            began = time.monotonic()
            time.sleep(_NAP_S)
            self._late.append((time.time(), time.monotonic() - began - _NAP_S))


def cpu_s(root: int = 0) -> tuple[float, float] | None:
    """CPU seconds that all processes have spent, and those that *root* (by default we) and its children have.

    None where the system does not tell, as on a Mac.
    """
    ticks = os.sysconf("SC_CLK_TCK")
    try:
        first = (_PROC / "stat").read_text().partition("\n")[0]
    except OSError:
        return None
    _, user, nice, system, _idle, _waiting, *interrupted = first.split()
    everybody = sum(map(int, (user, nice, system, *interrupted[:3])))
    spent = dict(_processes())
    return everybody / ticks, sum(_of_tree(spent, root or os.getpid())) / ticks


def _processes() -> Iterator[tuple[int, tuple[int, int]]]:
    """Of every process its parent and the ticks that it and its children that are gone have spent."""
    for folder in _PROC.iterdir():
        if folder.name.isdigit():
            # Behind the name, which may hold anything.
            with contextlib.suppress(OSError):
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
                yield int(folder.name), (int(fields[1]), sum(map(int, fields[11:15])))


def _of_tree(spent: Mapping[int, tuple[int, int]], root: int) -> Iterator[int]:
    for process, (_, ticks) in spent.items():
        ancestor = process
        while ancestor in spent and ancestor != root:
            ancestor = spent[ancestor][0]
        if ancestor == root:
            yield ticks
