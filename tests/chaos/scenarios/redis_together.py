"""All that befalls Redis without its forgetting anything, on one fleet."""

from __future__ import annotations

from collections.abc import Callable

from tests.chaos.scenario import scenario
from tests.chaos.scenarios.redis_network import lose_answers, reset, slow_down
from tests.chaos.scenarios.redis_server import ALWAYS, die, hang
from tests.chaos.stage import Stage


@scenario(vendors=("apns", "huawei"), redis=ALWAYS, proxied=True)
def redis_in_trouble(stage: Stage) -> None:
    """Redis dies, hangs, is reset, loses answers and is slow, one after the other."""
    stage.fleet.start_all("router", "worker")
    troubles: list[Callable[[Stage], object]] = [die, reset, _hang, lose_answers, _be_slow]
    with stage.load(per_s=stage.rate(full=300, short=100)):
        for trouble in troubles * stage.size(full=2, short=1):
            stage.until_more_taken(stage.size(full=150, short=30))
            trouble(stage)
        stage.until_more_taken(stage.size(full=150, short=30))


def _hang(stage: Stage) -> None:
    # For longer than the leases of the short form.
    hang(stage, stage.size(full=5, short=3))


def _be_slow(stage: Stage) -> None:
    slow_down(stage, 0.05)
    stage.until_more_taken(stage.size(full=150, short=30))
    slow_down(stage, 0.0)
