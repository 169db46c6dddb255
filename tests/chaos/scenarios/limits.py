"""What holds for an account however many processes share it."""

from __future__ import annotations

import time

from tests.chaos.processes import until
from tests.chaos.scenario import scenario
from tests.chaos.stage import Stage

RATE_PER_S = 200
BURST = 50


@scenario(accounts={"apns": {"rate_per_s": RATE_PER_S, "burst": BURST}})
def four_workers_share_a_rate(stage: Stage) -> None:
    """Four workers keep one account's rate in every sliding second, while one of them is killed and one hangs."""
    count = stage.size(full=3_000, short=300)
    stage.backlog(count, groups_every=0)
    stage.fleet.start("router")
    until(lambda: not stage.audit().lanes["normal"].present, what="all is routed")
    killed, paused, *_ = stage.fleet.start_all(*["worker"] * 4)
    stage.until_taken(count * 0.2)
    killed.kill()
    paused.pause()
    stage.until_taken(count * 0.4)
    paused.go_on()
    stage.fleet.start("worker", ready=False)
    stage.healed()
    stage.until_idle()
    used = _busiest_stretch(sorted(met.at_s for met in stage.cloud.met()))
    stage.measured("rate_used_per_s", used)
    # A worker each, beside a full bucket; the fifth makes its own while the bucket is low.
    stage.connecting(4)
    stage.expect(used > 0.8 * RATE_PER_S, f"the rate is made use of: {used:.0f} of {RATE_PER_S} a second")


SHORT_TTL_S = 3


@scenario(accounts={"apns": {"in_flight_max": 4}}, excused=frozenset({"dropped:expired"}))
def messages_outlived_by_their_backlog(stage: Stage) -> None:
    """What lives for three seconds is not sent later, though a worker has it in hand and its vendor is slow."""
    stage.cloud.rule("apns", "answer", delay_s=0.5)
    stage.fleet.start_all("router", "worker")
    stage.backlog(stage.size(full=500, short=100), ttl_s=SHORT_TTL_S)
    stage.until_idle()
    ends = stage.books().ledger.ends
    stage.measured("sent", ends.get("sent:", 0))
    stage.measured("expired", ends.get("dropped:expired", 0))
    stage.expect(ends.get("sent:") and ends.get("dropped:expired"), f"some were sent and some expired: {ends}")


LEASES_S = 3
VENDOR_S = 1.0


@scenario(accounts={"apns": {"in_flight_max": 50}})
def a_worker_hangs_and_comes_back(stage: Stage) -> None:
    """A worker that hung for longer than its leases comes back: its work went to others, its results change nothing."""
    stage.cloud.rule("apns", "answer", delay_s=VENDOR_S)
    stage.fleet.start("router")
    hanging = stage.fleet.start("worker", seams=[f"leases:{LEASES_S}"])
    with stage.load(per_s=stage.size(full=50, short=30)):
        stage.until_taken(20)
        hanging.pause()
        in_hand = stage.audit().accounts["apns:main"].leased
        other = stage.fleet.start("worker", seams=[f"leases:{LEASES_S}"])
        until(lambda: "came back from a dead process" in other.said(), what="its work is given to others")
        hanging.go_on()
        stage.healed()
        until(lambda: _late_results(hanging.metrics()), what="its results come, too late")
        time.sleep(VENDOR_S)
    stage.measured("in_hand", in_hand)
    stage.expect(in_hand > 0, "it hung with work in hand")


def _busiest_stretch(times_s: list[float], share: float = 0.3) -> float:
    """How many a second there were in the densest stretch that holds this share of them."""
    size = max(2, int(len(times_s) * share))
    shortest_s = min(times_s[at + size - 1] - times_s[at] for at in range(len(times_s) - size + 1))
    return (size - 1) / shortest_s


def _late_results(metrics: str) -> float:
    return sum(
        float(line.rpartition(" ")[2])
        for line in metrics.splitlines()
        if line.startswith("pushfleet_late_results_total{")
    )
