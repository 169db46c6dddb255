"""The way to Redis: connections break, answers get lost, questions arrive late, everything takes its time."""

from __future__ import annotations

import time

from tests.chaos.processes import until
from tests.chaos.scenario import scenario
from tests.chaos.stage import Stage

PATIENCE_S = 2
"""`redis.timeout_s`, so that a silence outlasts it."""

SLOW_S = 0.1
"""In each direction."""


@scenario(vendors=("apns", "huawei"), proxied=True, short=False)
def connections_are_reset(stage: Stage) -> None:
    """All connections to Redis break, again and again, every other time after answers got lost."""
    stage.fleet.start_all("router", "worker", "worker")
    broken = 0
    with stage.load(per_s=300):
        for _ in range(10):
            stage.until_more_taken(150)
            broken += reset(stage)
            stage.until_more_taken(150)
            lose_answers(stage)
        stage.until_more_taken(150)
    stage.until_idle()
    stage.measured("broken", broken)
    stage.expect("come from a router that is gone" not in stage.fleet.said(), "readers find what they missed")
    stage.expect(not stage.books().ledger.unknown, "the way to Redis makes no outcome unknown")


@scenario(proxied=True, accounts={"apns": {"in_flight_max": 5}}, short=False)
def connections_stall(stage: Stage) -> None:
    """Connections to Redis stall for longer than anybody waits, and what was asked over them is done in the end."""
    stage.fleet.env = {**stage.fleet.env, "PUSHFLEET_REDIS__TIMEOUT_S": str(PATIENCE_S)}
    # More comes than leaves: whatever claim is carried out late takes something.
    stage.cloud.rule("apns", "answer", delay_s=0.05)
    stage.fleet.start_all("router", "worker", "worker")
    with stage.load(per_s=200):
        for turn in range(4):
            stage.until_more_taken(200)
            # None gets through, or only the old ones do not.
            with stage.servers.way.silent() if turn % 2 else stage.servers.way.stalled():
                time.sleep(2 * PATIENCE_S)
            stage.healed()
        stage.until_more_taken(200)
    stage.until_idle()
    stage.expect("came back from a dead process" not in stage.fleet.said(), "workers find what they have leased")


@scenario(proxied=True, short=False)
def redis_is_slow(stage: Stage) -> None:
    """Every command and every answer takes 100 ms on its way."""
    stage.fleet.start_all("router", "worker", "worker")
    with stage.load(per_s=300):
        stage.until_more_taken(50)
        slow_down(stage, SLOW_S)
        stage.until_more_taken(3_000)
        stage.servers.way.delay_s = 0.0
        stage.healed()
        stage.until_more_taken(50)
    stage.expect(not stage.books().ledger.unknown, "a slow Redis makes no outcome unknown")


def reset(stage: Stage) -> int:
    """Break all connections to Redis; how many there were."""
    broken = stage.servers.way.reset()
    stage.healed()
    return broken


def lose_answers(stage: Stage) -> None:
    """Let Redis carry out some commands without anybody's hearing of it, then break all connections."""
    with stage.servers.way.swallowing_answers():
        until(lambda: stage.servers.way.swallowed >= 10, what="answers are swallowed")
    stage.healed()


def slow_down(stage: Stage, delay_s: float) -> None:
    """Let everything take that long, each way."""
    stage.servers.way.delay_s = delay_s
