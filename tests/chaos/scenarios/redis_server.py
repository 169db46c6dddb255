"""The Redis server dies, hangs, or is full; or the machine that it runs on dies."""

from __future__ import annotations

import os
import signal
import time

import redis
from tests.chaos.forgetting import expect_only_these_lost
from tests.chaos.host_crash import EVERYSEC, CrashingHost
from tests.chaos.load import Plan, message
from tests.chaos.processes import until
from tests.chaos.scenario import scenario
from tests.chaos.stage import PREFIX, Stage

from pushfleet import Backpressure, Producer

ALWAYS = {"appendfsync": "always"}
MEMORY_MARK = 0.7
"""`ingress.memory_mark` by default."""


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


@scenario(vendors=("apns", "huawei"))
def redis_is_full(stage: Stage) -> None:
    """Redis is full to the last byte: producers were refused before that, and the fleet drains all the same."""
    router, _ = stage.fleet.start_all("router", "worker")
    stage.backlog(100)
    stage.until_idle()
    for vendor in stage.people.vendors:
        stage.cloud.set(vendor, blackout=True)
    used, messages = _used(stage), stage.size(full=8_000_000, short=800_000)
    stage.client.config_set("maxmemory", int((used + messages) / MEMORY_MARK))
    with stage.load(per_s=stage.rate(full=2_000, short=1_000)):
        until(lambda: _used(stage) > used + messages / 2, what="much waits in the ledgers")
        router.pause()
        until(lambda: _refuses(stage), what="producers are refused")
        until(lambda: _nothing_comes(stage), what="no more comes from the one that goes on trying")
    waiting = stage.audit()
    _fill_up(stage.client)
    router.kill()
    stage.fleet.start_all("router", "worker")
    for vendor in stage.people.vendors:
        stage.cloud.set(vendor, blackout=False)
    stage.until_idle()
    stage.client.delete("junk")
    stage.healed()
    stage.backlog(100)
    stage.measured("drained_when_full", waiting.pending)


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


def _used(stage: Stage) -> int:
    return int(stage.client.info("memory")["used_memory"])


def _share(stage: Stage) -> float:
    """How much of the memory is used."""
    return _used(stage) / int(stage.client.config_get("maxmemory")["maxmemory"])


def _refuses(stage: Stage) -> bool:
    """Whether memory is at the mark; then a producer that comes now is refused."""
    if _share(stage) < MEMORY_MARK:
        return False
    plan = Plan(name="refused", redis_url="", book="", vendors=list(stage.people.vendors), per_vendor=1, per_s=1)
    with Producer(stage.redis.url, prefix=PREFIX) as producer:
        try:
            producer.enqueue(message(plan, 0, stage.now()))
        except Backpressure:
            return True
    raise AssertionError(f"a producer was not refused at {_share(stage):.0%}")


def _nothing_comes(stage: Stage) -> bool:
    """Whether nothing was added for longer than a producer goes without a look at the memory."""
    before = stage.audit().lanes["normal"].added
    time.sleep(1.5)
    return stage.audit().lanes["normal"].added == before


def _fill_up(client: redis.Redis) -> None:
    """Use whatever memory is left."""
    size = 1_000_000
    while size > 16:
        try:
            client.rpush("junk", b"x" * size)
        except redis.OutOfMemoryError:
            size //= 2
