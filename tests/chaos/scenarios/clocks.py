"""Clocks that are wrong."""

from __future__ import annotations

from tests.chaos.processes import until
from tests.chaos.scenario import scenario
from tests.chaos.stage import Stage

AHEAD_S, BEHIND_S = 300, -300
FAR_BEHIND_S = -2 * 3_600
"""Further than APNs lets an authorization be from its own clock."""

SHORT_TTL_S = 2


@scenario(vendors=("apns", "huawei"), excused=frozenset({"dropped:expired"}))
def clocks_that_are_wrong(stage: Stage) -> None:
    """Processes whose clocks are five minutes ahead or behind, or two hours, send in time and nothing too late."""
    for role in ("router",) if stage.short else ("router", "router", "api"):
        off_s = AHEAD_S if len(stage.fleet.processes) % 2 else BEHIND_S
        stage.fleet.start(role, seams=[f"clock:{off_s}"], ready=False)
    stage.fleet.wait_ready()
    stage.backlog(100, ttl_s=SHORT_TTL_S)
    until(lambda: not stage.audit().lanes["normal"].present, what="all is routed")
    expired_at = max(one.sent_at_s for one in stage.told()) + SHORT_TTL_S
    until(lambda: stage.now() > expired_at, what="what no worker claimed has expired")
    for off_s in (AHEAD_S, FAR_BEHIND_S) if stage.short else (AHEAD_S, BEHIND_S, FAR_BEHIND_S):
        stage.fleet.start("worker", seams=[f"clock:{off_s}"], ready=False)
    stage.fleet.wait_ready()
    with stage.load(per_s=stage.size(full=150, short=50), ttl_s=60):
        stage.until_taken(stage.size(full=3_000, short=150))
    stage.until_idle()
    ends = stage.books().ledger.ends
    stage.measured("expired", ends.get("dropped:expired", 0))
    stage.expect(ends.get("dropped:expired") == _deliveries(stage, SHORT_TTL_S), "only what had expired was dropped")


def _deliveries(stage: Stage, ttl_s: int) -> int:
    return sum(len(one.users) for one in stage.told() if one.ttl_s == ttl_s)
