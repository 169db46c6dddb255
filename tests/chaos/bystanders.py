"""Those to whom nothing is done: whether they feel what befalls others."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Self

import msgspec
from tests.chaos.books import Books, latencies_s
from tests.chaos.machine import Machine, p99
from tests.chaos.processes import until
from tests.chaos.stage import Stage

from pushfleet_workers.fakecloud.journal import Met

__all__ = ["FLOOR_S", "RATIO", "STALL_S", "Bystanders", "complaints"]

RATIO = 1.5
"""What the p99 in the fault may be, by that in the calm."""

FLOOR_S = 0.02
"""Of less than this the ratio says nothing: that is one process waiting for a core once or twice."""

STALL_S = 3.0
"""What the p99 may be where the ratio cannot be judged: a few turns of whoever has the cores, and no timeout."""

UNDER_WAY_S = 0.1
"""What is made so shortly before a fault is healed meets the healing, when the broken ones catch up at once."""

_LATE_S = 0.01
_OTHERS_CORES = 0.25

Span = tuple[float, float]


class Bystanders:
    """Measures how long pushes of *vendors* take, from being made to being taken, in the phases of others' faults.

    * **counts** - which of their pushes count, by default all.
    """

    def __init__(self, stage: Stage, vendors: Sequence[str], counts: Callable[[Met], bool] = lambda _: True) -> None:
        self._stage = stage
        self._vendors = vendors
        self._counts = counts
        self._machine = Machine()
        self._spans: dict[str, list[Span]] = {"calm": [], "fault": [], "catching_up": []}

    def __enter__(self) -> Self:
        """Watch the machine as well."""
        self._machine.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """No longer."""
        self._machine.__exit__(kind, error, trace)

    def calm(self, pushes: int) -> None:
        """Measure while nothing is broken, until so many of their pushes have been taken."""
        with self._span("calm"):
            self.taken(pushes)

    def taken(self, pushes: int) -> None:
        """Wait until so many more of their pushes have been taken."""
        enough = self._taken() + pushes
        until(lambda: self._taken() >= enough, 120, what=f"{pushes} pushes of {', '.join(self._vendors)} are taken")

    def fault(self) -> contextlib.AbstractContextManager[None]:
        """Measure while something is broken, until the block ends; it is healed then."""
        return self._span("fault", UNDER_WAY_S)

    def catching_up(self) -> contextlib.AbstractContextManager[None]:
        """Measure while what has waited for the broken ones goes out, until the block ends."""
        return self._span("catching_up")

    @contextlib.contextmanager
    def _span(self, phase: str, but_s: float = 0.0) -> Iterator[None]:
        """Measure, but what is made in the last *but_s* seconds."""
        began_s = self._stage.now()
        yield
        self._spans[phase].append((began_s, max(began_s, self._stage.now() - but_s)))

    def judge(self) -> None:
        """Tell the figures, and what is wrong with them; once nothing is pending.

        While others catch up the machine is busy with that, so that nothing but a stall is a fault.
        """
        books = self._stage.books()
        met = [one for one in books.cloud.met if one.vendor in self._vendors and self._counts(one)]
        books = msgspec.structs.replace(books, cloud=msgspec.structs.replace(books.cloud, met=met))
        p99s_s = {phase: _p99_s(books, spans) for phase, spans in self._spans.items()}
        judged = not self._stage.short and not any(self._restless(*span) for span in self._spans["fault"])
        for phase, seconds in p99s_s.items():
            self._stage.measured(f"{phase}_p99_ms", seconds * 1000)
        self._stage.measured("judged", judged)
        self._stage.faults += complaints(p99s_s, judged=judged)

    def _taken(self) -> int:
        return sum(int(self._stage.cloud.stats(vendor)["accepted"]) for vendor in self._vendors)

    def _restless(self, since_s: float, until_s: float) -> bool:
        late_s, others = self._machine.late_s(since_s, until_s), self._machine.cores_of_others(since_s, until_s)
        return late_s > _LATE_S and others > _OTHERS_CORES


def complaints(p99s_s: Mapping[str, float], *, judged: bool) -> list[str]:
    """What must not be in the figures of the phases ``calm``, ``fault`` and ``catching_up``.

    The fault is *judged* by the ratio where we have the machine for ourselves. Where other processes take the cores
    away the figures differ by that, and only a stall can be told.
    """
    calm_s = p99s_s["calm"]
    stall_s = max(STALL_S, RATIO * calm_s)
    most_s = {"fault": RATIO * max(calm_s, FLOOR_S) if judged else stall_s, "catching_up": stall_s}
    return [
        f"in the phase {phase} of others the p99 of bystanders is {p99s_s[phase] * 1000:.0f} ms, and "
        f"{most * 1000:.0f} ms is the most: in the calm it is {calm_s * 1000:.0f} ms"
        for phase, most in most_s.items()
        if p99s_s[phase] > most
    ]


def _p99_s(books: Books, spans: Sequence[Span]) -> float:
    return p99(sorted(one for since_s, until_s in spans for one in latencies_s(books, "", since_s, until_s)))
