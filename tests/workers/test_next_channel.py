"""A device's next channel: which one it is, and that a move happens once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, cast

import pytest
from tests.chaos.proxy import RedisProxy
from tests.workers.routing import PREFIX

from pushfleet.message import ApnsOptions, OfflinePush
from pushfleet_workers.account import AccountSettings
from pushfleet_workers.audit import read_books
from pushfleet_workers.clock import FleetClock
from pushfleet_workers.errors import FleetError, MoveUnheard, RedisUnusable
from pushfleet_workers.ledger import AccountKeys, Entry, unpack
from pushfleet_workers.next_channel import NextChannel
from pushfleet_workers.push import Delivery, Push, delivery_id
from pushfleet_workers.recall.memory import RecallMemory
from pushfleet_workers.redis_link import Link, LinkLost, ReplyError
from pushfleet_workers.redis_server import EmbeddedRedis
from pushfleet_workers.tokens.erasures import Erasures
from pushfleet_workers.tokens.keys import UserKeys
from pushfleet_workers.tokens.record import Channel, Device, encode_device

HUAWEI, FCM, APNS = ("huawei", "main"), ("fcm", "main"), ("apns", "main")
ACCOUNTS = {name: AccountSettings(app="demo") for name in (HUAWEI, FCM, APNS)}
FAR_MS = 4_000_000_000_000


class Stage:
    def __init__(self, link: Link, here: tuple[str, str], queue: Link | None = None) -> None:
        self.link = link
        self.triggered: list[str] = []
        self.next = NextChannel(link, queue or link, ACCOUNTS, PREFIX, here, FleetClock(), self.triggered.append)

    async def device(self, *channels: Channel, user: str = "bob", **fields: Any) -> None:
        device = Device(**{"channels": list(channels), "state": "b", **fields})
        await self.link.call("HSET", UserKeys(PREFIX, "demo", user).devices, "phone", encode_device(device))

    async def move(self, push: Push, deliveries: list[Delivery], *, same_account: bool = True) -> set[bytes]:
        return await self.next.move([(push, push.lane, deliveries)], same_account=same_account)

    async def put_at(self, account: tuple[str, str]) -> list[Entry]:
        return [unpack(one) for one in await self.link.call("LRANGE", AccountKeys(PREFIX, *account).ready[1], 0, -1)]


def with_stage(url: str, scenario: Callable[[Stage], Awaitable[None]], here: tuple[str, str] = HUAWEI) -> None:
    async def run() -> None:
        link = Link(url)
        try:
            await scenario(Stage(link, here))
        finally:
            await link.close()

    asyncio.run(run())


def a_push(**changes: Any) -> Push:
    fields = {"expires_at_ms": FAR_MS, "sent_at_ms": 1, "enqueued_at_ms": 1, **changes}
    return Push("demo", "m1", fields.pop("kind", "chat"), fields.pop("lane", "normal"), "Ann", "hi", **fields)


def a_delivery(user: str = "bob", **changes: Any) -> Delivery:
    return Delivery(delivery_id("demo", "m1", user, "phone"), user, "phone", "old", 5, **{"badge": 0, **changes})


def channel(account: tuple[str, str], token: str, kind: Any = "alert", **fields: Any) -> Channel:
    return Channel(*account, token, 7, kind, **fields)


def test_the_delivery_goes_on_in_the_next_channels_account_once(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.device(channel(HUAWEI, "old"), channel(FCM, "new"), unread=4)
        delivery = a_delivery(attempt=3, remedy="shrink")
        for _ in range(2):
            assert await stage.move(a_push(), [delivery]) == {delivery.id}
        (entry,) = await stage.put_at(FCM)
        (moved,) = entry.parcel.deliveries
        assert (moved.id, moved.token, moved.registered_at_ms) == (delivery.id, "new", 7)
        assert (moved.attempt, moved.remedy, moved.tried) == (0, "", ["huawei:main:alert"])
        assert moved.badge == 5, "FCM wants the number that Huawei counts by itself"
        books = await read_books(stage.link, PREFIX, [FCM])
        assert (books.accounts["fcm:main"].put, books.accounts["fcm:main"].balanced) == (1, True)
        assert set(stage.triggered) == {"fcm"}

    with_stage(redis_url, scenario)


def test_a_move_whose_answer_was_lost_has_happened_once(redis_server: EmbeddedRedis, redis_url: str) -> None:
    """Or both accounts would send it, and nobody would count that."""

    async def run(way: RedisProxy) -> None:
        link, queue = Link(redis_url), Link(way.url)
        stage, delivery = Stage(link, HUAWEI, queue), a_delivery()
        await stage.device(channel(HUAWEI, "old"), channel(FCM, "new"))
        await queue.ready()
        with way.swallowing_answers():
            moving = asyncio.create_task(stage.move(a_push(), [delivery]))
            deadline = time.monotonic() + 10
            while not await stage.put_at(FCM):
                assert time.monotonic() < deadline
                await asyncio.sleep(0.01)
            assert not moving.done()
        assert await asyncio.wait_for(moving, 10) == {delivery.id}
        assert len(await stage.put_at(FCM)) == 1
        await queue.close()
        await link.close()

    with RedisProxy(redis_server.port) as way:
        asyncio.run(run(way))


class Scripted:
    """A link that goes through *answers* where it puts: errors are raised or given, None is what the server says."""

    def __init__(self, link: Link, *answers: Exception | None, histories: str = "") -> None:
        self._link = link
        self._answers = list(answers)
        self._histories = list(histories)
        self.history = "a"
        self.puts = 0

    async def ready(self) -> None:
        self.history = self._histories.pop(0) if self._histories else self.history

    async def run_many(self, calls: Any) -> list[Any]:
        if calls[0][0].name != "put":
            return await self._link.run_many(calls)
        self.puts += 1
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if isinstance(answer, LinkLost):
            raise answer
        return await self._link.run_many(calls) if answer is None else [answer] * len(calls)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._link, name)


LOST, LOADING = LinkLost("broke"), ReplyError("LOADING Redis is loading the dataset in memory")


@pytest.mark.parametrize(
    ("answers", "histories", "raised", "puts"),
    [
        ([LOST, None], "", None, 2),
        ([LOST, LOST, None], "", None, 3),
        ([LOST, LOADING, None], "", None, 3),
        ([LOST], "", MoveUnheard, 0),
        ([LOST, LOADING], "", MoveUnheard, 0),
        ([LOST, None], "ab", MoveUnheard, 1),
        ([LOADING, None], "", RedisUnusable, 1),
        ([ReplyError("OOM command not allowed"), None], "", RedisUnusable, 1),
    ],
    ids=[
        "lost once", "lost twice", "lost, then loading", "always lost", "lost, then always loading",
        "lost with the data", "loading", "full",
    ],
)  # fmt: skip
def test_whether_a_move_happened_is_known_or_said_not_to_be(
    redis_url: str,
    monkeypatch: pytest.MonkeyPatch,
    answers: list[Exception | None],
    histories: str,
    raised: type[FleetError] | None,
    puts: int,
) -> None:
    monkeypatch.setattr("pushfleet_workers.next_channel._ASK_FOR_S", 0.2)
    monkeypatch.setattr("pushfleet_workers.next_channel._ASK_AGAIN_S", 0.01)

    async def scenario(stage: Stage) -> None:
        link = Scripted(stage.link, *answers, histories=histories)
        stage.next = NextChannel(stage.link, cast("Link", link), ACCOUNTS, PREFIX, HUAWEI, FleetClock(), print)
        await stage.device(channel(HUAWEI, "old"), channel(FCM, "new"))
        await stage.device(channel(HUAWEI, "only"), user="eve")
        delivery, stays = a_delivery(), a_delivery("eve")
        if raised is None:
            assert await stage.move(a_push(), [delivery, stays]) == {delivery.id}
            assert len(await stage.put_at(FCM)) == 1
        else:
            with pytest.raises(raised) as told:
                await stage.move(a_push(), [delivery, stays])
            assert getattr(told.value, "deliveries", {delivery.id}) == {delivery.id}
            assert await stage.put_at(FCM) == []
        assert link.puts == puts or (not puts and link.puts > 2)

    with_stage(redis_url, scenario)


def test_the_number_that_the_backend_gave_stays(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.device(channel(HUAWEI, "old"), channel(FCM, "new"), unread=4)
        await stage.move(a_push(), [a_delivery(badge=7)])
        (entry,) = await stage.put_at(FCM)
        assert entry.parcel.deliveries[0].badge == 7

    with_stage(redis_url, scenario)


@pytest.mark.parametrize(("same_account", "still_shown"), [(True, True), (False, False)])
def test_what_an_account_that_is_shut_did_not_show_is_not_taken_back_there(
    redis_url: str, same_account: bool, still_shown: bool
) -> None:
    """A dead token is dropped, and a recall goes where the push went; a shut account's token stays the first."""

    async def scenario(stage: Stage) -> None:
        await stage.device(channel(HUAWEI, "old"), channel(FCM, "new"))
        memory = RecallMemory(PREFIX)
        push, delivery = a_push(replace_key="r"), a_delivery()
        place = memory.place_of(delivery, *HUAWEI)
        message = push.app, push.message_id, push.replace_key
        await stage.link.run(*memory.show_call(message, [place], 60, b"1-1", again=False))
        assert await stage.move(push, [delivery], same_account=same_account) == {delivery.id}
        replies = await stage.link.call(*memory.shown(message, [place]))
        assert memory.shows(message, replies) == [still_shown]

    with_stage(redis_url, scenario)


def test_a_channel_that_was_tried_or_cannot_serve_is_passed_over(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.device(
            channel(HUAWEI, "old"),
            channel(("xiaomi", "gone"), "x"),
            channel(APNS, "quarantined", quarantined_until_ms=FAR_MS),
            channel(FCM, "new"),
        )
        assert await stage.move(a_push(), [a_delivery(tried=["fcm:main:alert"])]) == set()
        assert len(await stage.move(a_push(), [a_delivery()])) == 1
        assert await stage.put_at(APNS) == []

    with_stage(redis_url, scenario)


@pytest.mark.parametrize(
    "delivery",
    [a_delivery(user=""), a_delivery(unknown=1), a_delivery(user="nobody")],
    ids=["addressed directly", "maybe delivered", "without a device"],
)
def test_some_are_never_moved(redis_url: str, delivery: Delivery) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.device(channel(HUAWEI, "old"), channel(FCM, "new"))
        assert await stage.move(a_push(), [delivery]) == set()

    with_stage(redis_url, scenario)


def test_what_came_before_its_user_was_erased_does_not_go_on_to_who_is_back(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        erasures = Erasures(stage.link, PREFIX)
        await erasures.forgotten("demo", "bob", 999, 1_000)
        await stage.device(channel(HUAWEI, "old"), channel(FCM, "new"))
        assert await stage.move(a_push(enqueued_at_ms=1_000), [a_delivery()]) == set()
        assert await stage.move(a_push(enqueued_at_ms=1_001), [a_delivery()]) == {a_delivery().id}
        await stage.device(channel(HUAWEI, "old"), channel(FCM, "new"), user="ann")
        assert await stage.move(a_push(enqueued_at_ms=1_000), [a_delivery("ann")]) == {a_delivery("ann").id}

    with_stage(redis_url, scenario)


@pytest.mark.parametrize(("lane", "moves"), [("urgent", 1), ("normal", 0)])
def test_what_was_parked_for_as_long_as_it_may_passes_the_foreground_here_as_well(
    redis_url: str, lane: Any, moves: int
) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.device(channel(HUAWEI, "old"), channel(FCM, "new"), state="f", lease_until_ms=FAR_MS)
        assert await stage.move(a_push(lane=lane), [a_delivery()]) == set()
        assert len(await stage.move(a_push(lane=lane, parking="released"), [a_delivery()])) == moves

    with_stage(redis_url, scenario)


def test_a_device_that_meanwhile_wants_nothing_gets_nothing_elsewhere(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.device(channel(HUAWEI, "old"), channel(FCM, "new"), permitted=False)
        assert await stage.move(a_push(), [a_delivery()]) == set()
        assert len(await stage.move(a_push(), [a_delivery(user="ann"), a_delivery()])) == 0

    with_stage(redis_url, scenario)


def test_a_call_whose_voip_token_died_rings_as_an_alert_of_the_same_account(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.device(channel(APNS, "voip", "voip"), channel(APNS, "alert"))
        push = a_push(kind="call", lane="urgent", options=OfflinePush(apns=ApnsOptions(push_type="voip")))
        assert len(await stage.move(push, [a_delivery(token_kind="voip")])) == 1
        (entry,) = [unpack(one) for one in await stage.link.call("LRANGE", AccountKeys(PREFIX, *APNS).ready[0], 0, -1)]
        assert [(one.token, one.token_kind) for one in entry.parcel.deliveries] == [("alert", "alert")]

    with_stage(redis_url, scenario, here=APNS)


def test_it_knows_whether_the_app_has_another_account() -> None:
    accounts = {HUAWEI: AccountSettings(app="demo"), FCM: AccountSettings(app="other")}
    alone = NextChannel(None, None, accounts, PREFIX, HUAWEI, FleetClock(), lambda vendor: None)  # type: ignore[arg-type]
    assert not alone.other_accounts
    accounts[APNS] = AccountSettings(app="demo")
    assert alone.other_accounts
