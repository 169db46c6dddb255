"""Processes die without a word: anywhere, and at the worst moments."""

from __future__ import annotations

import random
import signal
import time

from tests.chaos.processes import Process, until
from tests.chaos.registrations import registering
from tests.chaos.scenario import TRANSPORTS, scenario
from tests.chaos.stage import PREFIX, Stage

SEED = 20_260_707


@scenario(vendors=("apns", "huawei"), transports=TRANSPORTS)
def killed_at_random(stage: Stage) -> None:
    """kill -9 of routers, workers and APIs at random moments, again and again."""
    stage.cloud.rule("apns", "answer", delay_s=0.02)
    chance, kills = random.Random(SEED), stage.size(full=200 if stage.pace == 1 else 50, short=4)
    spare = () if stage.short else ("router", "worker", "api")
    stage.fleet.start_all("router", "worker", "worker", "api", *spare)
    with registering(stage.fleet) as registrations, stage.load(per_s=stage.rate(full=150, short=100)):
        for _ in range(kills):
            time.sleep(chance.uniform(0, 0.2))
            victim = _one_that_works(stage, chance)
            victim.kill()
            stage.fleet.start(victim.role, ready=False)
        stage.fleet.wait_ready()
        stage.healed()
    stage.expect(not registrations.missing(stage.redis.url, PREFIX), "every device that an API took is registered")
    stage.measured("kills", kills)
    stage.measured("registrations", len(registrations.told))
    _replay_what_died_thrice(stage)


WORST_MOMENTS = {"put": "router", "popped": "worker", "claimed": "worker", "answered": "worker"}
"""Named points of :mod:`tests.chaos.seams`, and who comes to them."""


@scenario(transports=TRANSPORTS)
def killed_at_the_worst_moment(stage: Stage) -> None:
    """kill -9 between two steps that belong together: put and acknowledge, pop and record, claim, answer and settle."""
    stage.fleet.start_all("router", "worker")
    with stage.load(per_s=stage.rate(full=150, short=100)):
        stage.until_taken(50)
        for turn in range(1, stage.size(full=4 if stage.pace == 1 else 2, short=1) + 1):
            for point, role in WORST_MOMENTS.items():
                for other in stage.fleet.living(role):
                    other.ask_to_end()
                    other.ends(30)
                if point == "popped":
                    # It is only sent where no worker listens.
                    until(lambda: stage.client.llen(f"{PREFIX}:celery:push.apns"), what="a trigger waits")
                times = 1 if point == "popped" else turn
                victim = stage.fleet.start(role, seams=[f"crash:{point}:{times}"], ready=False)
                until(lambda victim=victim: not victim.alive, what=f"it comes to the point {point}")  # type: ignore[misc]
                stage.expect(victim.ends(0) == -signal.SIGKILL, f"it died at the point {point}: {victim.said()[-300:]}")
                stage.fleet.start(role, ready=False)
        stage.fleet.wait_ready()
        stage.healed()
    _replay_what_died_thrice(stage)


def _one_that_works(stage: Stage, chance: random.Random) -> Process:
    """A process that is ready: one that is still starting has nothing to lose."""
    ready: list[Process] = []

    def found() -> bool:
        ready[:] = [process for process in stage.fleet.living() if process.ready]
        return bool(ready)

    until(found, what="a process is ready")
    return chance.choice(ready)


def _replay_what_died_thrice(stage: Stage) -> None:
    """What three processes died with is put aside until somebody looks; here nothing is wrong with it."""
    stage.until_idle()
    put_aside = stage.books().ledger.ends.get("dead:poison", 0)
    stage.measured("put_aside", put_aside)
    if put_aside:
        stage.command("dlq", "replay", "--reason", "poison")
