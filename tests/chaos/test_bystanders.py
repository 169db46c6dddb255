"""What is said of bystanders, and how the machine is watched."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest
from tests.chaos.bystanders import FLOOR_S, RATIO, STALL_S, complaints
from tests.chaos.machine import Machine, cpu_s, p99
from tests.chaos.processes import until

SPIN = "import time\nuntil = time.process_time() + 0.5\nwhile time.process_time() < until: pass\ninput()"


def said(calm_s: float, fault_s: float, catching_up_s: float = 0.0, *, judged: bool = True) -> list[str]:
    return complaints({"calm": calm_s, "fault": fault_s, "catching_up": catching_up_s}, judged=judged)


@pytest.mark.parametrize(
    ("calm_s", "fault_s", "fine"),
    [
        (0.1, 0.1 * RATIO - 0.001, True),
        (0.1, 0.1 * RATIO + 0.001, False),
        (0.005, FLOOR_S * RATIO - 0.001, True),
        (0.005, FLOOR_S * RATIO + 0.001, False),
        (0.0, 0.0, True),
    ],
)
def test_bystanders_may_be_half_as_slow_again_above_a_floor(calm_s: float, fault_s: float, fine: bool) -> None:
    assert bool(said(calm_s, fault_s)) is not fine


def test_where_others_have_the_cores_only_a_stall_is_told() -> None:
    assert said(0.05, STALL_S - 0.1, judged=False) == []
    assert "fault of others" in said(0.05, STALL_S + 0.1, judged=False)[0]
    assert said(STALL_S, STALL_S * RATIO - 0.1, judged=False) == []


def test_catching_up_may_take_the_machine_and_not_stall_others() -> None:
    assert said(0.01, 0.01, STALL_S - 0.1) == []
    assert "catching_up of others" in said(0.01, 0.01, STALL_S + 0.1)[0]


def test_the_99th_percentile_leaves_one_of_a_hundred_out() -> None:
    assert p99([]) == 0
    assert p99([7]) == 7
    assert p99(list(range(1, 101))) == 99
    assert p99(list(range(1, 102))) == 100


def test_the_machine_is_watched_while_the_block_runs() -> None:
    began_s = time.time()
    with Machine() as machine:
        until(lambda: machine.late_s(began_s, time.time()) > 0, what="a nap was watched")
    assert machine.late_s(began_s - 10, began_s - 5) == 0


@pytest.mark.skipif(cpu_s() is None, reason="only Linux tells what others spend")
def test_what_a_child_spends_is_ours_and_what_it_is_to_others_is_not() -> None:
    before, mine_before = cpu_s() or (0.0, 0.0)
    with subprocess.Popen([sys.executable, "-c", SPIN], stdin=subprocess.PIPE) as child:
        deadline = time.monotonic() + 60
        while (cpu_s(child.pid) or (0.0, 0.0))[1] < 0.3:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        after, mine_after = cpu_s() or (0.0, 0.0)
        child.communicate(b"\n")
    assert mine_after - mine_before >= 0.25
    assert after - before >= mine_after - mine_before - 0.1
