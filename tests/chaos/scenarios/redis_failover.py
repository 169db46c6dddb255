"""The master of Redis dies, and Sentinels let its replica take over."""

from __future__ import annotations

from collections.abc import Sequence

from tests.chaos.forgetting import MARK, Forgotten, Marks, expect_only_these_lost
from tests.chaos.processes import Process, until
from tests.chaos.scenario import scenario
from tests.chaos.stage import PREFIX, Stage
from tests.sentinels import SentinelCluster

from pushfleet_workers.redis_server import EmbeddedRedis

NOBODY = "nobody"
STREAM = f"{PREFIX}:{{ingress:normal}}"
WAITING = 50
"""So many messages has the old master when it dies that the replica does not have."""

ACCEPTED_AGAIN_S, PUSHED_AGAIN_S = 3.0, 5.0
"""After the Sentinels have switched; more than it takes, since all of it shares two cores."""


@scenario(vendors=("apns", "huawei"), sentinels=True)
def redis_fails_over(stage: Stage) -> None:
    """The master dies after its replica was cut off for a while; producers did not wait for the replica."""
    router, *_ = stage.fleet.start_all("router", "worker")
    with stage.load(per_s=stage.rate(full=300, short=100)):
        times = [_fail_over(stage, router) for _ in range(stage.size(full=2, short=1))]
        stage.until_more_taken(stage.size(full=300, short=40))
    expect_only_these_lost(stage, times)
    _expect_no_pause(stage, times)


@scenario(vendors=("apns", "huawei"), sentinels=True)
def redis_fails_over_and_producers_wait(stage: Stage) -> None:
    """The same with `wait_replicas`: what the replica does not have was not accepted."""
    router, *_ = stage.fleet.start_all("router", "worker")
    with stage.load(per_s=stage.size(full=300, short=100), wait_replicas=1):
        for _ in range(stage.size(full=2, short=1)):
            _fail_over(stage, router)
        stage.until_more_taken(stage.size(full=300, short=40))
    stage.expect(any(one.refusals for one in stage.told()), "producers heard that the replica does not confirm")


def _fail_over(stage: Stage, router: Process) -> Forgotten:
    """Cut the replica off, let messages wait, kill the master; returns when the old one is a replica of the new one."""
    cluster = stage.servers.cluster
    old = cluster.master
    with Marks(old.url) as marks, cluster.client(old) as client:
        stage.until_more_taken(stage.size(full=300, short=40))
        # What no router has read is nowhere but in Redis.
        router.pause()
        _cut_off(cluster, old)
        before = client.xlen(STREAM)
        until(lambda: client.xlen(STREAM) > before + WAITING, what="messages wait that the replica does not have")
        cluster.kill(old)
        died_s = stage.now()
    new, back_s = cluster.wait_switched(old), stage.now()
    with cluster.client(new) as client:
        forgotten = Forgotten(marks.sent_at_s(client.get(MARK)), died_s, back_s)
    router.go_on()
    cluster.rejoin(old)
    stage.healed()
    return forgotten


def _expect_no_pause(stage: Stage, times: Sequence[Forgotten]) -> None:
    """Soon after the Sentinels had switched, producers were accepted and what is new was at its vendor."""
    books = stage.books()
    accepted, pushed = [], []
    for time in times:
        new = {one.id: one.told_at_s for one in books.told if one.accepted and one.told_at_s > time.died_s}
        accepted.append(max(0.0, min(new.values()) - time.back_s))
        pushed.append(max(0.0, min(met.at_s for met in books.cloud.taken() if met.message_id in new) - time.back_s))
    stage.measured("accepted_again_s", max(accepted))
    stage.measured("pushed_again_s", max(pushed))
    stage.expect(
        max(accepted) < ACCEPTED_AGAIN_S, f"producers are accepted again at once, not {max(accepted):.1f} s after"
    )
    stage.expect(max(pushed) < PUSHED_AGAIN_S, f"pushes leave again at once, not {max(pushed):.1f} s after")


def _cut_off(cluster: SentinelCluster, master: EmbeddedRedis) -> None:
    """From now on nothing is replicated: *master* does not know the user that its replica comes as."""
    for replica in cluster.replicas:
        with cluster.client(replica) as client:
            client.config_set("masteruser", NOBODY, "masterauth", NOBODY)
    with cluster.client(master) as client:
        client.execute_command("CLIENT", "KILL", "TYPE", "replica")
