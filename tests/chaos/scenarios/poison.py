"""What ruins whoever touches it, among many that are well."""

from __future__ import annotations

import json

from tests.chaos.processes import Process, until
from tests.chaos.scenario import scenario
from tests.chaos.seams import POISON
from tests.chaos.stage import PREFIX, Stage

LEASES_S = 2


@scenario(excused=frozenset({"dead:poison"}))
def a_message_that_kills_its_process(stage: Stage) -> None:
    """A message whose process dies with it, among 300 others, is a dead letter after three deaths, and alone is one."""
    api, *_ = stage.fleet.start_all("api", "router")
    _enqueue_poison_among_innocents(stage)
    deaths = 0
    while not deaths or stage.audit().pending:
        # It may die before anybody sees that it is ready.
        worker = stage.fleet.start("worker", seams=[f"leases:{LEASES_S}", "defect:exit"], ready=False)
        until(lambda worker=worker: not worker.alive or not stage.audit().pending, what="it dies or all is done")  # type: ignore[misc]
        deaths += not worker.alive
        worker.expected_to_end = True
    stage.measured("deaths", deaths)
    stage.expect(deaths == 3, f"three processes died of it, not {deaths}")
    _expect_one_letter(stage, api, "poison")


@scenario(excused=frozenset({"dead:bad_payload"}))
def a_message_that_breaks_its_vendor_module(stage: Stage) -> None:
    """A message over which the vendor's module raises, among 300 others, is a dead letter at once, and alone is one."""
    api, *_ = stage.fleet.start_all("api", "router")
    stage.fleet.start("worker", seams=["defect:raise"])
    _enqueue_poison_among_innocents(stage)
    stage.until_idle()
    _expect_one_letter(stage, api, "bad_payload")


NO_MESSAGES = (
    {"x": "y"},
    {"v": "1", "m": "no JSON"},
    {"v": "1", "m": b"\xff\xfe"},
    {"v": "1", "m": '{"id": 5}'},
    {"v": "1", "m": '{"id": "m", "app": "nobody", "recipients": ["bob"], "body": "x"}'},
    {"v": "9999", "m": "{}"},
    {"v": "1", "m": "[" * 60_000},
    {"v": "1", "r": '{"id": "m"}'},
)


@scenario(vendors=("apns", "huawei"))
def entries_that_are_no_messages(stage: Stage) -> None:
    """Entries of the streams that break the contract are put aside with a reason, and nobody waits for them."""
    api, *_ = stage.fleet.start_all("api", "router", "worker")
    with stage.load(per_s=stage.size(full=200, short=100)):
        for lane in ("urgent", "normal", "bulk"):
            for fields in NO_MESSAGES:
                stage.client.xadd(f"{PREFIX}:{{ingress:{lane}}}", fields)  # type: ignore[arg-type]
        stage.until_taken(stage.size(full=1_500, short=200))
    stage.until_idle()
    refused = sum(book.malformed for book in stage.audit().lanes.values())
    stage.measured("put_aside", refused)
    stage.expect(refused == 3 * len(NO_MESSAGES), f"each was put aside: {refused}")
    listed = stage.command("dlq", "list", "--vendor", "ingress", "--json").splitlines()
    stage.expect(len(listed) == refused, f"operators see them: {len(listed)}")
    until(lambda: _metric(api, "pushfleet_malformed_entries_total") == refused, what="the alarm rings")


NO_TRIGGERS = (
    "this is no JSON",
    json.dumps({"body": "W10=", "headers": {"task": "push.nothing", "id": "1"}, "properties": {}}),
    json.dumps({"body": "", "content-type": "application/json", "content-encoding": "utf-8",
                "headers": {"task": "push.drain", "id": "1"},
                "properties": {"delivery_tag": "t", "body_encoding": "base64",
                               "delivery_info": {"exchange": "", "routing_key": "push.apns"}}}),
    "null",
)  # fmt: skip


@scenario(settings="[worker]\nlinger_s = 0.1")
def entries_that_are_no_triggers(stage: Stage) -> None:
    """What others write into a Celery queue of ours is put aside; workers live, and are still woken through it."""
    stage.fleet.start("router")
    first, second = stage.fleet.start_all("worker", "worker")
    with stage.load(per_s=stage.size(full=100, short=50)):
        for _ in range(stage.size(full=10, short=2)):
            stage.client.lpush(f"{PREFIX}:celery:push.apns", *NO_TRIGGERS)
            stage.until_taken(stage.cloud.taken() + 50)
    stage.until_idle()
    put_aside = stage.client.xlen(f"{PREFIX}:celery:refused")
    stage.measured("put_aside", put_aside)
    stage.expect(put_aside == len(NO_TRIGGERS) * stage.size(full=10, short=2), f"each was put aside: {put_aside}")
    alarms = [_metric(worker, "pushfleet_refused_triggers_total") for worker in (first, second)]
    stage.expect(sum(alarms) == put_aside, f"the alarm rings: {alarms}")
    # A drain that lingers has its trigger in hand still.
    until(lambda: not stage.client.hlen(f"{PREFIX}:celery:unacked"), 30, what="Celery has nothing in hand")
    until(lambda: not stage.client.zcard(f"{PREFIX}:{{apns}}:listeners"), what="no drain listens any more")
    stage.backlog(20)
    until(lambda: stage.client.llen(f"{PREFIX}:celery:push.apns") == 0, what="the trigger is taken")


def _enqueue_poison_among_innocents(stage: Stage) -> None:
    half = stage.size(full=150, short=50)
    stage.backlog(half, groups_every=0)
    stage.backlog(1, text=f"some {POISON}")
    stage.backlog(half, groups_every=0)


def _expect_one_letter(stage: Stage, api: Process, reason: str) -> None:
    """It is recorded, it is the only one, and operators are told."""
    letters = [json.loads(line) for line in stage.command("dlq", "list", "--json").splitlines()]
    found = [(letter["reason"], letter["deliveries"]) for letter in letters]
    stage.expect(found == [(reason, 1)], f"the one dead letter is that of the message: {found}")
    until(lambda: _metric(api, "pushfleet_dead_letters") == 1, what="the alarm rings")


def _metric(process: Process, name: str) -> float:
    """The sum of a metric over its labels."""
    lines = [line for line in process.metrics().splitlines() if line.startswith(f"{name}{{")]
    return sum(float(line.rpartition(" ")[2]) for line in lines)
