"""Pushes that wait for a moment before they leave."""

from __future__ import annotations

from typing import Any

import pytest
from tests.workers.routing import PREFIX, Stage, chat, group, now_ms, play

from pushfleet import OfflineMessage, OfflinePush, Recipient, Target
from pushfleet.message import ApnsOptions, Kind, Lane
from pushfleet_workers.clock import FleetClock
from pushfleet_workers.peace import hold_s
from pushfleet_workers.recall import ClaimedRecalls
from pushfleet_workers.recheck import Rechecker
from pushfleet_workers.settings import AppSettings
from pushfleet_workers.tokens.record import BACKGROUND, FOREGROUND, Device, State

NOW_MS = 1_800_000_000_000
DESK = Device(state=FOREGROUND, lease_until_ms=NOW_MS + 1, platform="Windows")
PHONE = Device(state=FOREGROUND, lease_until_ms=NOW_MS + 1, platform="ios")


def app(**fields: Any) -> dict[str, Any]:
    """The apps, one of which is set up so."""
    return {"demo": {"name": "Demo", **fields}, "lite": {}}


@pytest.mark.parametrize(
    ("kind", "lane", "wait_s"),
    [
        ("chat", "normal", 2),
        ("mention", "urgent", 1),
        ("marketing", "bulk", 3),
        ("call", "urgent", 0),
        ("call_cancel", "urgent", 0),
        ("missed_call", "urgent", 0),
    ],
)
def test_each_lane_waits_as_it_is_told_and_calls_never_do(kind: Kind, lane: Lane, wait_s: float) -> None:
    settings = AppSettings(hold_urgent_s=1, hold_normal_s=2, hold_bulk_s=3, desktop="hold", desktop_hold_s=0.5)
    assert hold_s(settings, kind, lane, [DESK], NOW_MS) == wait_s
    assert hold_s(AppSettings(), kind, lane, [DESK], NOW_MS) == 0


@pytest.mark.parametrize(
    ("device", "wait_s"),
    [
        (DESK, 15),
        (Device(state=FOREGROUND, lease_until_ms=NOW_MS + 1, platform="web"), 15),
        (Device(state=FOREGROUND, lease_until_ms=NOW_MS, platform="web"), 2),
        (Device(state=BACKGROUND, lease_until_ms=NOW_MS + 1, platform="web"), 2),
        (PHONE, 2),
    ],
)
def test_whoever_sits_at_a_desk_has_longer_to_read_there(device: Device, wait_s: float) -> None:
    settings = AppSettings(hold_normal_s=2, desktop="hold")
    assert hold_s(settings, "chat", "normal", [PHONE, device], NOW_MS) == wait_s
    assert hold_s(AppSettings(hold_normal_s=2), "chat", "normal", [PHONE, device], NOW_MS) == 2


def test_what_is_held_waits_in_the_ledger_and_is_decided_again(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.device()
        await stage.route(chat("m1"), chat("m2", kind="call"), chat("m3", Recipient(id="bob", push="force")))
        assert [one.parcel.push.message_id for one in await stage.entries()] == ["m2", "m3"]
        ((due_ms, held),) = await stage.delayed()
        assert (held.parcel.push.message_id, held.parcel.push.later) == ("m1", "held")
        assert held.parcel.push.enqueued_at_ms + 30_000 == due_ms
        book = (await stage.books()).accounts["apns:main"]
        assert (book.put, book.ready, book.delayed) == (3, 2, 1)
        assert await stage.joined()
        checker = Rechecker(stage.queue, PREFIX, FleetClock(), "apns", "main")
        assert (await checker.recheck([held])).refused == {}
        await stage.device(state=FOREGROUND, lease_until_ms=now_ms() + 60_000)
        assert (await checker.recheck([held])).refused == {held.parcel.deliveries[0].id: "foreground"}

    play(redis_url, scenario, apps=app(hold_normal_s=30))


@pytest.mark.parametrize(("state", "waits"), [(FOREGROUND, True), (BACKGROUND, False)])
def test_the_phone_of_whoever_sits_at_a_desk_waits(redis_url: str, state: State, waits: bool) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.device(vendor="huawei")
        await stage.device(name="desk", channels=[], state=state, lease_until_ms=now_ms() + 60_000, platform="mac")
        await stage.device("eve", vendor="huawei")
        await stage.route(group("m1", "bob", "eve"))
        later = [one.user for _, entry in await stage.delayed("huawei") for one in entry.parcel.deliveries]
        assert later == (["bob"] if waits else [])
        at_once = [one.user for one in await stage.deliveries("huawei")]
        assert at_once == (["eve"] if waits else ["bob", "eve"])
        assert await stage.joined()

    play(redis_url, scenario, apps=app(desktop="hold"))


def test_nothing_waits_past_its_end_and_neither_does_what_is_addressed_directly(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.device()
        target = Target(vendor="apns", credential="main", token="direct")
        await stage.route(chat("m1", ttl_s=20), OfflineMessage(id="m2", app="demo", targets=(target,), body="Code"))
        assert [one.parcel.push.message_id for one in await stage.entries()] == ["m1", "m2"]
        assert await stage.delayed() == []

    play(redis_url, scenario, apps=app(hold_normal_s=30))


def test_a_clock_that_is_behind_holds_nothing(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.device()
        stage.router._clock.heard(now_ms() - 5_000)
        await stage.route(chat("m1", kind="call"), chat("m2"))
        assert [one.parcel.push.message_id for one in await stage.entries()] == ["m1", "m2"]

    play(redis_url, scenario, apps=app(hold_bulk_s=30))


def test_a_part_that_a_dead_router_put_for_later_is_put_once(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.device()
        stage.enqueue(chat("m1"))
        await stage.put_and_die(*await stage.read())
        await stage.router.route(stage.streams["normal"], await stage.read_again())
        assert len(await stage.delayed()) == 1
        assert await stage.joined()

    play(redis_url, scenario, apps=app(hold_normal_s=30))


def test_what_is_held_and_recalled_never_leaves_and_neither_does_its_recall(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.device()
        await stage.route(chat("m0", Recipient(id="bob", push="force")), chat("m1"))
        await stage.recall("m1")
        assert [one.parcel.push.recall for one in await stage.entries()] == [False], "m0 is still what is shown"
        assert await stage.suppressed() == {"not_shown": 1}
        ((_, held),) = await stage.delayed()
        checker = Rechecker(stage.queue, PREFIX, FleetClock(), "apns", "main", recall_window_s=120)
        assert list((await checker.recheck([held])).refused.values()) == ["recalled"]
        await stage.recall("m0")
        _, recall = await stage.entries()
        assert recall.parcel.push.recall
        assert (await checker.recheck([recall])).refused == {}

    play(redis_url, scenario, apps=app(hold_normal_s=30, recall_window_s=120))


def test_what_was_held_is_taken_back_once_it_is_sent(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.device()
        await stage.route(chat("m1"))
        await stage.route(chat("m2", Recipient(id="bob", push="force")))
        ((_, held),) = await stage.delayed()
        checker = Rechecker(stage.queue, PREFIX, FleetClock(), "apns", "main", recall_window_s=120)
        assert (await checker.recheck([held])).refused == {}
        await stage.recall("m2")
        assert await stage.suppressed() == {"not_shown": 1}, "what was held came later, and replaced it"
        await stage.recall("m1")
        assert [one.parcel.push.message_id for one in await stage.entries() if one.parcel.push.recall] == ["m1"]

    play(redis_url, scenario, apps=app(hold_normal_s=30, recall_window_s=120))


def test_a_recall_at_the_moment_of_sending_is_not_missed(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.device()
        await stage.route(chat("m1"))
        ((_, held),) = await stage.delayed()
        show = ClaimedRecalls.show

        async def after_a_recall(recalls: ClaimedRecalls, *given: Any) -> Any:
            monkeypatch.undo()
            await stage.recall("m1")
            return await show(recalls, *given)

        monkeypatch.setattr(ClaimedRecalls, "show", after_a_recall)
        checker = Rechecker(stage.queue, PREFIX, FleetClock(), "apns", "main", recall_window_s=120)
        assert list((await checker.recheck([held])).refused.values()) == ["recalled"]
        assert await stage.entries() == []
        await stage.recall("m1", "bob", conversation="c1")
        assert await stage.suppressed() == {"not_shown": 2}

    play(redis_url, scenario, apps=app(hold_normal_s=30, recall_window_s=120))


def test_what_waits_and_shows_nothing_is_not_remembered_as_shown(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.device()
        silent = OfflinePush(apns=ApnsOptions(push_type="background"))
        await stage.route(chat("m1", offline_push=silent))
        ((_, held),) = await stage.delayed()
        checker = Rechecker(stage.queue, PREFIX, FleetClock(), "apns", "main", recall_window_s=120)
        assert (await checker.recheck([held])).refused == {}
        await stage.recall("m1")
        assert await stage.suppressed() == {"not_shown": 1}

    play(redis_url, scenario, apps=app(hold_normal_s=30, recall_window_s=120))
