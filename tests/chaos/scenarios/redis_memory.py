"""The memory that Redis may use."""

from __future__ import annotations

from tests.chaos.load import Told
from tests.chaos.processes import until
from tests.chaos.scenario import scenario
from tests.chaos.stage import Stage

MARK = 0.7
"""`ingress.memory_mark` as it is by default."""


# Less in hand: a token whose death becomes known while a lot of work waits there is sent what waits.
@scenario(vendors=("apns", "huawei"), accounts={vendor: {"in_flight_max": 50} for vendor in ("apns", "huawei")})
def memory_runs_short(stage: Stage) -> None:
    """What waits fills Redis to the mark while nobody sends: producers are refused, and the fleet drains it."""
    stage.fleet.start_all("router", "router", "api")
    before = _used(stage)
    most = int((before + stage.size(full=4_000_000, short=1_500_000)) / MARK)
    stage.client.config_set("maxmemory", most)
    fullest = 0.0
    with stage.load(per_s=stage.rate(full=400, short=300)):
        until(lambda: _used(stage) >= MARK * most, what="what waits fills Redis to the mark")
        stage.fleet.start_all("worker", "worker")
        stage.healed()
        for _ in range(stage.size(full=20, short=3)):
            stage.until_more_taken(stage.size(full=200, short=50))
            fullest = max(fullest, _used(stage) / most)
        stage.until_caught_up()
        until(lambda: any(one.accepted for one in _refused(stage)), what="who was refused at the mark is taken")
    stage.measured("refused", len(_refused(stage)))
    stage.measured("fullest", fullest)
    stage.expect(fullest < 1, "nothing of the fleet's own fills the rest")
    stage.expect("errorstat_OOM" not in stage.client.info("errorstats"), "Redis refuses nobody")


def _refused(stage: Stage) -> list[Told]:
    """The messages whose producer was told to come again."""
    return [one for one in stage.told() if one.refusals > 0]


def _used(stage: Stage) -> int:
    return int(stage.client.info("memory")["used_memory"])
