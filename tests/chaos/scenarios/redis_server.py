"""The Redis server dies or hangs, or the machine that it runs on dies."""

from __future__ import annotations

import os
import signal
import time

from tests.chaos.forgetting import expect_only_these_lost
from tests.chaos.host_crash import EVERYSEC, CrashingHost
from tests.chaos.processes import until
from tests.chaos.scenario import scenario
from tests.chaos.stage import PREFIX, Stage

ALWAYS = {"appendfsync": "always"}


@scenario(vendors=("apns", "huawei"), redis=ALWAYS, short=False)
def redis_dies(stage: Stage) -> None:
    """Redis is killed and comes back, again and again, with `appendfsync always`."""
    stage.fleet.start_all("router", "worker", "worker")
    with stage.load(per_s=300):
        for _ in range(10):
            stage.until_more_taken(300)
            die(stage)
        stage.until_more_taken(300)


@scenario(vendors=("apns", "huawei"), redis=EVERYSEC, short=False)
def redis_dies_with_everysec(stage: Stage) -> None:
    """The same with `appendfsync everysec`; the machine goes on and writes what the process had written."""
    stage.fleet.start_all("router", "worker", "worker")
    times = []
    with CrashingHost(stage.redis) as host, stage.load(per_s=300):
        for _ in range(10):
            stage.until_more_taken(300)
            times.append(host.kill_server())
            stage.healed()
        stage.until_more_taken(300)
    expect_only_these_lost(stage, times)


@scenario(vendors=("apns", "huawei"), redis=EVERYSEC)
def host_of_redis_dies(stage: Stage) -> None:
    """The machine of Redis dies and has forgotten the last second, with `appendfsync everysec`."""
    router, *_ = stage.fleet.start_all("router", "worker")
    times = []
    with CrashingHost(stage.redis) as host, stage.load(per_s=stage.rate(full=300, short=100)):
        for turn in range(stage.size(full=6, short=1)):
            until(lambda: host.can_fail, what="Redis has run for a while")
            stage.until_more_taken(stage.size(full=300, short=40))
            if turn % 2 == 0:
                # What no router has read is nowhere but in Redis.
                router.pause()
                until(lambda: stage.client.xlen(f"{PREFIX}:{{ingress:normal}}") > 50, what="messages wait")
            times.append(host.power_off())
            router.go_on()
            stage.healed()
        stage.until_more_taken(stage.size(full=300, short=40))
    expect_only_these_lost(stage, times)


@scenario(vendors=("apns", "huawei"), short=False)
def redis_hangs(stage: Stage) -> None:
    """Redis stands still (SIGSTOP) for ten seconds."""
    stage.fleet.start_all("router", "worker", "worker")
    with stage.load(per_s=300):
        stage.until_more_taken(500)
        hang(stage, 10)
        stage.until_more_taken(500)


def die(stage: Stage) -> None:
    """Redis is killed and started again."""
    stage.redis.kill()
    stage.redis.start()
    stage.healed()


def hang(stage: Stage, seconds: float) -> None:
    """Redis does nothing for a while."""
    os.kill(stage.redis.pid, signal.SIGSTOP)
    time.sleep(seconds)
    os.kill(stage.redis.pid, signal.SIGCONT)
    stage.healed()
