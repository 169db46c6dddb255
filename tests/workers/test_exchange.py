"""A load of deliveries becomes requests, their answers outcomes; whatever a vendor module does."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
from tests.workers.doubles import Cloud
from tests.workers.ledger.support import an_entry

from pushfleet.message import ApnsOptions, OfflinePush
from pushfleet_workers.account import AccountSettings
from pushfleet_workers.clock import FleetClock
from pushfleet_workers.errors import Distrusted, NoAnswer
from pushfleet_workers.exchange import Exchange, Letters
from pushfleet_workers.outcome import NOT_RECALLABLE, OK, DayHour, Outcome, Remedy, Scope, Verdict
from pushfleet_workers.push import Delivery, Push
from pushfleet_workers.vendor import Request, Response, Staged

QUOTA = Outcome(Verdict.BAD_PAYLOAD, code="10252", remedy=Remedy.SINGLE_SEND)
NO_MORE = Outcome(Verdict.QUOTA_EXHAUSTED, Scope.CLASS, code="no_more", until=DayHour(0, 8))
NO_RIGHT = Outcome(Verdict.MISCONFIGURED, Scope.CLASS, code="no_right")


class StagingCloud(Cloud):
    """Takes content ahead of its targets."""

    def __init__(self) -> None:
        super().__init__(1_000)
        self.stagings: list[str] = []
        self.staged: Staged | NoAnswer = Staged("task-1")

    def stage(self, account: Any, push: Push, deliveries: Sequence[Delivery], auth: str, now_ms: int) -> Request | None:
        return Request("https://cloud.test/stage", {}, push.body.encode()) if len(deliveries) > 1 else None

    def read_staged(self, response: Response) -> Staged:
        assert isinstance(self.staged, Staged)
        return self.staged

    def build_staged(
        self, account: Any, push: Push, deliveries: Sequence[Delivery], auth: str, now_ms: int, staged: str
    ) -> Request:
        return self.build(account, push, deliveries, f"{auth} {staged}", now_ms)

    async def send(self, request: Request) -> Response:
        if request.url.endswith("/stage"):
            self.stagings.append(request.body.decode())
            if isinstance(self.staged, NoAnswer):
                raise self.staged
            return Response(200, {}, b"")
        return await super().send(request)


def letters(name: str = "m", deliveries: int = 1, **changes: Any) -> Letters:
    parcel = an_entry(name, deliveries=deliveries).parcel
    for number, delivery in enumerate(parcel.deliveries):
        delivery.token = f"{name}-{number}"
    fields = {field: getattr(parcel.push, field) for field in parcel.push.__struct_fields__}
    return Push(**fields | changes), parcel.deliveries


def exchanged(cloud: Cloud, *loads: Sequence[Letters], then: Callable[[], None] = lambda: None) -> list[Any]:
    async def run() -> list[Any]:
        seconds: list[float] = []
        exchange = Exchange(cloud, AccountSettings(app="demo"), cloud, FleetClock(), seconds.append)
        found, before = [], len(cloud.requests)
        for load in loads:
            found.append(await exchange(load, "auth"))
            then()
        assert len(seconds) == len(cloud.requests) - before
        return found

    return asyncio.run(run())


def test_content_is_handed_over_once_and_named_in_every_request() -> None:
    cloud = StagingCloud()
    first, second = exchanged(cloud, [letters(deliveries=3)], [letters(deliveries=2)])
    assert (first, second) == ([[OK] * 3], [[OK] * 2])
    assert cloud.stagings == ["hi"]
    assert cloud.auths == ["auth task-1", "auth task-1"]


def test_one_delivery_needs_no_staging() -> None:
    cloud = StagingCloud()
    assert exchanged(cloud, [letters()]) == [[[OK]]]
    assert cloud.stagings == []


def test_a_refused_staging_is_the_outcome_of_all_and_is_not_remembered() -> None:
    cloud = StagingCloud()
    cloud.staged = Staged(failure=QUOTA)

    def mend() -> None:
        cloud.staged = Staged("task-2")

    first, second = exchanged(cloud, [letters(deliveries=2)], [letters(deliveries=2)], then=mend)
    assert (first, second) == ([[QUOTA] * 2], [[OK] * 2])
    assert cloud.auths == ["auth task-2"]


def test_a_staging_that_is_refused_for_the_day_is_not_asked_for_again_that_day() -> None:
    cloud = StagingCloud()
    cloud.staged = Staged(failure=replace(QUOTA, until=DayHour(0, 8)))
    first, second = exchanged(cloud, [letters(deliveries=2)], [letters("n", deliveries=2, body="other")])
    assert first == second == [[cloud.staged.failure] * 2]
    assert cloud.stagings == ["hi"]


def test_a_staging_whose_success_nobody_can_read_has_reached_nobody() -> None:
    cloud = StagingCloud()
    cloud.staged = Staged(failure=Outcome(Verdict.RETRY, Scope.ACCOUNT, code="HTTP 200", unknown=True))
    assert exchanged(cloud, [letters(deliveries=2)]) == [[[replace(cloud.staged.failure, unknown=False)] * 2]]


def test_a_staging_without_an_answer_has_reached_nobody() -> None:
    cloud = StagingCloud()
    cloud.staged = NoAnswer("reset", maybe_delivered=True)
    with pytest.raises(NoAnswer) as lost:
        exchanged(cloud, [letters(deliveries=2)])
    assert not lost.value.maybe_delivered


def test_a_peer_that_is_not_trusted_has_as_good_as_answered() -> None:
    distrusted = Distrusted("the certificate of the peer is not taken", "certificate_expired")
    expected = Outcome(Verdict.RETRY, Scope.ACCOUNT, code="certificate_expired")
    cloud = Cloud(5)
    cloud.answer("m-0", distrusted)

    async def run() -> list[list[Outcome]]:
        return await Exchange(cloud, AccountSettings(app="demo"), cloud, FleetClock(), lambda _: None)(
            [letters(deliveries=2)], "auth"
        )

    assert asyncio.run(run()) == [[expected] * 2]
    staging = StagingCloud()
    staging.staged = distrusted
    assert exchanged(staging, [letters(deliveries=2)]) == [[[expected] * 2]]


def test_a_module_that_cannot_build_costs_only_its_own() -> None:
    cloud = Cloud()
    cloud.build_fails = {"m-0"}
    ((outcome,),) = exchanged(cloud, [letters()])[0]
    assert (outcome.verdict, outcome.code) == (Verdict.BAD_PAYLOAD, "vendor_module_failed")


def test_a_module_that_cannot_read_leaves_the_outcome_unknown_to_us() -> None:
    cloud = Cloud(5)
    cloud.read_fails = {"m-0"}
    outcomes = exchanged(cloud, [letters(deliveries=2)])[0][0]
    assert {(one.code, one.unknown) for one in outcomes} == {("no_answer", True)}


def test_a_mixed_load_gives_each_push_its_outcomes_and_a_second_chance_alone() -> None:
    cloud = Cloud(10)
    cloud.mixing = True
    bad = Outcome(Verdict.BAD_PAYLOAD, code="bad")
    cloud.answer("b-1", bad)
    (a, b) = exchanged(cloud, [letters("a"), letters("b", 2)])[0]
    assert a == [OK]
    assert b[0] == OK
    assert b[1].remedy is Remedy.SINGLE_SEND
    tried = letters("b")
    tried[1][0].remedy = "single_send"
    assert exchanged(cloud, [letters("a"), tried])[0][1] == [OK]


@pytest.mark.parametrize(
    ("told", "options", "verdict", "scope"),
    [
        (NO_RIGHT, None, Verdict.MISCONFIGURED, Scope.CLASS),
        (NO_RIGHT, OfflinePush(), Verdict.MISCONFIGURED, Scope.CLASS),
        (NO_RIGHT, OfflinePush(apns=ApnsOptions(category="X")), Verdict.MISCONFIGURED, Scope.CLASS),
        (NO_RIGHT, OfflinePush(apns=ApnsOptions(push_type="voip")), Verdict.BAD_PAYLOAD, Scope.DEVICE),
        (NO_MORE, OfflinePush(apns=ApnsOptions(title="X")), Verdict.QUOTA_EXHAUSTED, Scope.CLASS),
        (NO_MORE, OfflinePush(apns=ApnsOptions(push_type="voip")), Verdict.QUOTA_EXHAUSTED, Scope.DEVICE),
    ],
)
def test_who_asked_for_the_class_is_to_blame_for_it(
    told: Outcome, options: OfflinePush | None, verdict: Verdict, scope: Scope
) -> None:
    cloud = Cloud()
    cloud.answer("m-0", told)
    ((outcome,),) = exchanged(cloud, [letters(options=options)])[0]
    assert (outcome.verdict, outcome.scope) == (verdict, scope)
    assert (outcome.code, outcome.until) == (told.code, told.until)


def test_a_fault_of_the_account_is_nobodys_override() -> None:
    cloud = Cloud()
    wrong = Outcome(Verdict.MISCONFIGURED, Scope.ACCOUNT, code="key")
    cloud.answer("m-0", wrong)
    options = OfflinePush(apns=ApnsOptions(push_type="voip"))
    assert exchanged(cloud, [letters(options=options)]) == [[[wrong]]]


def test_a_recall_goes_by_the_vendors_means_else_replaces_else_is_not_possible() -> None:
    class Withdrawing(Cloud):
        def withdraw(
            self, account: Any, push: Push, deliveries: Sequence[Delivery], auth: str, now_ms: int
        ) -> Request | None:
            return self.build(account, push, deliveries, "withdraw", now_ms)

    recall = {"recall": True, "revision": 1}
    withdrawing, replacing, mute = Withdrawing(), Cloud(), Cloud()
    mute.replaces = False  # type: ignore[misc]
    assert exchanged(withdrawing, [letters(**recall)]) == [[[OK]]]
    assert withdrawing.auths == ["withdraw"]
    assert exchanged(replacing, [letters(**recall, replace_key="c")]) == [[[OK]]]
    for cloud, push in ((Cloud(), letters(**recall)), (mute, letters(**recall, replace_key="c"))):
        assert exchanged(cloud, [push]) == [[[NOT_RECALLABLE]]]
        assert cloud.requests == []
