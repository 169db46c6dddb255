"""Processes are asked to end while they are busy."""

from __future__ import annotations

from tests.chaos.processes import until
from tests.chaos.scenario import TRANSPORTS, scenario
from tests.chaos.stage import Stage

BUDGET_S = 20.0
"""`worker.shutdown_s` by default; a vendor that answers needs a small part of it."""

SHORT_BUDGET_S = 2.0
MARGIN_S = 5.0
"""What settling, closing connections and leaving Python may take besides."""

LANES = ("urgent", "normal", "bulk")


@scenario(
    vendors=("apns", "huawei"),
    transports=TRANSPORTS,
    accounts={"apns": {"in_flight_max": 100}, "huawei": {"in_flight_max": 20}},
)
def sigterm(stage: Stage) -> None:
    """SIGTERM under full load: all is finished or given back, and nothing waits for a lease to run out."""
    stage.cloud.rule("apns", "answer", delay_s=0.2)
    roles = ("router", "worker") if stage.short else ("router", "router", "worker", "worker", "api")
    slowest_s = 0.0
    with stage.load(per_s=stage.rate(full=400, short=300)):
        for turn in range(1, stage.size(full=4, short=2)):
            stage.fleet.start_all(*roles)
            stage.healed()
            stage.until_taken(turn * stage.rate(full=1_500, short=300))
            slowest_s = max(slowest_s, _all_end(stage, BUDGET_S))
            stage.expect(
                not any(book.unknown for book in stage.audit().accounts.values()), "all that left was answered"
            )
        stage.fleet.start_all(*roles)
        stage.healed()
    stage.measured("slowest_exit_s", slowest_s)


@scenario(transports=TRANSPORTS, settings=f"[worker]\nshutdown_s = {SHORT_BUDGET_S}")
def sigterm_while_a_vendor_hangs(stage: Stage) -> None:
    """SIGTERM while no answers come: what has left goes back as an unknown outcome once the budget is spent."""
    stage.fleet.start_all("router", "worker")
    stage.backlog(100)
    stage.until_idle()
    silence = stage.cloud.rule("apns", "silent", accepts=False)
    stage.backlog(100)
    until(lambda: stage.cloud.stats("apns")["results"].get("silent", 0) > 100, what="requests have left")
    took_s = _all_end(stage, SHORT_BUDGET_S + MARGIN_S)
    stage.expect(stage.audit().accounts["apns:main"].unknown, "nobody knows what became of what left")
    stage.cloud.forget_rule("apns", silence)
    stage.fleet.start_all("router", "worker")
    stage.healed()
    stage.measured("slowest_exit_s", took_s)


def _all_end(stage: Stage, budget_s: float) -> float:
    """Ask all to end at once, in the middle of their work; how long the last one took."""
    until(lambda: any(book.leased for book in stage.audit().accounts.values()), what="workers have something in hand")
    leaving, began = stage.fleet.living(), stage.now()
    for process in leaving:
        process.ask_to_end()
    codes = [(process.role, process.ends(budget_s)) for process in leaving]
    took_s = stage.now() - began
    stage.expect(not any(code for _, code in codes), f"every exit code is 0: {codes}")
    stage.expect(not any(book.leased for book in stage.audit().accounts.values()), "nothing is leased any more")
    stage.expect(not _read_and_not_routed(stage), "routers have finished what they read")
    stage.expect(not stage.client.hlen("pushfleet:celery:unacked"), "Celery has nothing in hand")
    return took_s


def _read_and_not_routed(stage: Stage) -> int:
    """Entries that wait until somebody takes them over."""
    groups = [stage.client.xpending(f"pushfleet:{{ingress:{lane}}}", "router") for lane in LANES]
    return sum(group["pending"] for group in groups)
