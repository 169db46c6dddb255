"""For a night: everything at once, for long."""

from __future__ import annotations

import os
import random
import signal
import statistics
import time
from collections.abc import Callable
from pathlib import Path

from tests.chaos.processes import Process
from tests.chaos.scenario import scenario
from tests.chaos.stage import Stage

SEED = 20_260_708
FAULT_S = 5.0
IDLE_S = 65.0
"""After this long connections of HTTP/1.1 are closed that nobody needs: after 30 s, which is looked for every 30 s."""

GROWTH_MB_MAX = 25.0
"""What a process may have grown by between the second and the last fifth of the run."""

VENDORS = ("apns", "fcm", "huawei", "oppo")


@scenario(vendors=VENDORS, short=False, by_hand=True)
def soak(stage: Stage) -> None:
    """Half an hour of mixed load and random faults: memory stays flat, no connection leaks, the books balance."""
    chance = random.Random(SEED)
    watched = stage.fleet.start_all("router", "worker", "api")
    stage.fleet.start_all("router", "worker", "api")
    connections: dict[str, int] = {}
    resident_mb: dict[Process, list[float]] = {process: [] for process in watched}
    until_s, faults = stage.now() + stage.size(full=1_800, short=60), 0
    with stage.load(per_s=stage.size(full=150, short=100)):
        while stage.now() < until_s:
            chance.choice(FAULTS)(stage, chance, watched)
            faults += 1
            stage.fleet.wait_ready()
            for process, sizes in resident_mb.items():
                sizes.append(_resident_mb(process))
            connections = connections or _connections(stage)
        stage.healed()
    stage.until_idle()
    time.sleep(IDLE_S)
    stage.measured("faults", faults)
    for process, sizes in resident_mb.items():
        fifth = max(1, len(sizes) // 5)
        growth = statistics.median(sizes[-fifth:]) - statistics.median(sizes[fifth : 2 * fifth] or sizes)
        stage.measured(f"{process.role}_grew_mb", growth)
        stage.expect(growth < GROWTH_MB_MAX, f"the memory of the {process.role} stays flat: it grew by {growth:.0f} MB")
    for where, count in _connections(stage).items():
        stage.measured(f"connections_{where}", count)
        stage.expect(count <= connections[where] + 4, f"no connection to {where} leaks: {connections[where]}, {count}")


def _somebody_dies(stage: Stage, chance: random.Random, watched: list[Process]) -> None:
    victim = chance.choice([process for process in stage.fleet.living() if process not in watched])
    victim.kill()
    stage.fleet.start(victim.role)


def _somebody_is_replaced(stage: Stage, chance: random.Random, watched: list[Process]) -> None:
    leaving = chance.choice([process for process in stage.fleet.living() if process not in watched])
    leaving.ask_to_end()
    stage.expect(leaving.ends(40) == 0, f"the {leaving.role} ends with 0")
    stage.fleet.start(leaving.role)


def _somebody_hangs(stage: Stage, chance: random.Random, watched: list[Process]) -> None:
    hanging = chance.choice(stage.fleet.living())
    hanging.pause()
    time.sleep(FAULT_S)
    hanging.go_on()


def _redis_hangs(stage: Stage, chance: random.Random, watched: list[Process]) -> None:
    os.kill(stage.redis.pid, signal.SIGSTOP)
    time.sleep(FAULT_S)
    os.kill(stage.redis.pid, signal.SIGCONT)


def _redis_dies(stage: Stage, chance: random.Random, watched: list[Process]) -> None:
    stage.redis.kill()
    time.sleep(1)
    stage.redis.start()


def _a_vendor_is_gone(stage: Stage, chance: random.Random, watched: list[Process]) -> None:
    vendor = chance.choice(VENDORS)
    stage.cloud.set(vendor, blackout=True)
    time.sleep(FAULT_S)
    stage.cloud.set(vendor, blackout=False)


def _a_vendor_forgets_whom_it_let_in(stage: Stage, chance: random.Random, watched: list[Process]) -> None:
    stage.cloud.set(chance.choice(VENDORS), expire_auth=True)
    time.sleep(FAULT_S)


def _a_vendor_answers(**rule: object) -> Callable[[Stage, random.Random, list[Process]], None]:
    def for_a_while(stage: Stage, chance: random.Random, watched: list[Process]) -> None:
        vendor = chance.choice(VENDORS)
        number = stage.cloud.rule(vendor, **rule)  # type: ignore[arg-type]
        time.sleep(FAULT_S)
        stage.cloud.forget_rule(vendor, number)

    return for_a_while


FAULTS = (
    _somebody_dies, _somebody_is_replaced, _somebody_hangs, _redis_hangs, _redis_dies, _a_vendor_is_gone,
    _a_vendor_forgets_whom_it_let_in,
    _a_vendor_answers(action="answer", delay_s=2.0),
    _a_vendor_answers(action="raw", status=503),
    _a_vendor_answers(action="throttle", retry_after_s=1),
    _a_vendor_answers(action="reset", every=7),
    _a_vendor_answers(action="goaway", every=50),
    _a_vendor_answers(action="silent", every=100),
)  # fmt: skip


def _resident_mb(process: Process) -> float:
    pages = int(Path(f"/proc/{process.running.pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def _connections(stage: Stage) -> dict[str, int]:
    """Open ones to Redis by the fleet, and to each vendor."""
    to_redis = [one for one in stage.client.client_list() if one["name"].startswith("pushfleet-")]
    return {"redis": len(to_redis), **{vendor: stage.cloud.stats(vendor)["connections"] for vendor in VENDORS}}
