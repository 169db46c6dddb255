"""What is parked since the app is in the foreground: when it is looked at, and how it lies in the ledger until then."""

from __future__ import annotations

import struct
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from tests.workers.ledger.support import an_entry
from tests.workers.routing import PREFIX, Stage, chat, group, now_ms, play

from pushfleet import Recipient
from pushfleet.message import Lane
from pushfleet_workers.ledger import AccountKeys, pack, unpack
from pushfleet_workers.peace.parking import FIRST_LOOK_MS, LOOK_MS_MAX, first_look_ms, next_look_ms
from pushfleet_workers.push import Delivery, Parcel, Parking, Push
from pushfleet_workers.tokens.keys import UserKeys
from pushfleet_workers.tokens.record import BACKGROUND, FOREGROUND

NOW_MS = 1_800_000_000_000
PARKS: dict[str, Any] = {"name": "Demo", "foreground_ack": "park"}
BOB = UserKeys(PREFIX, "demo", "bob")


def on(url: str, scenario: Callable[[Stage], Awaitable[None]], **app: Any) -> None:
    """Play with parking switched on for the app; Bob's phone is in the foreground, his pad is not."""

    async def run(stage: Stage) -> None:
        await stage.device(state=FOREGROUND, lease_until_ms=now_ms() + 400_000)
        await stage.device(name="pad", state=BACKGROUND, unread=3)
        await scenario(stage)

    play(url, run, apps={"demo": {**PARKS, **app}, "lite": {}})


def a_push(lane: Lane = "normal", parking: Parking = "parked", *, waited_ms: int = 0, left_ms: int = 10**9) -> Push:
    entered_ms = NOW_MS - waited_ms
    return Push(
        "demo", "m", "chat", lane, "Ann", "hi", NOW_MS + left_ms, entered_ms, entered_ms, parking=parking
    )  # fmt: skip


@pytest.mark.parametrize(
    ("lane", "life_ms", "look_ms"),
    [
        ("normal", 86_400_000, FIRST_LOOK_MS),
        ("bulk", 86_400_000, FIRST_LOOK_MS),
        ("normal", 1_500, 1_500),
        ("urgent", 30_000, 3_000),
        ("urgent", 4_000, 2_000),
    ],
)
def test_the_first_look_comes_soon_and_what_is_urgent_keeps_half_of_its_life(
    lane: Lane, life_ms: int, look_ms: int
) -> None:
    assert first_look_ms(lane, 3, NOW_MS, NOW_MS + life_ms) - NOW_MS == look_ms


OLD = a_push(waited_ms=90_000)
PHONE = next(
    one
    for number in range(10**6)
    if next_look_ms(OLD, one := Delivery(b"", f"u{number}", "phone", "t", 0), 2**50, 3, NOW_MS) == LOOK_MS_MAX
)
"""What waits for it has just been looked at together."""


@pytest.mark.parametrize(
    ("push", "lease_ms", "wait_ms"),
    [
        (a_push(parking=""), 400_000, FIRST_LOOK_MS),
        (a_push(parking="", waited_ms=90_000), 400_000, FIRST_LOOK_MS),
        (a_push(waited_ms=500), 400_000, FIRST_LOOK_MS),
        (a_push(waited_ms=5_000), 400_000, 5_000),
        (a_push(waited_ms=90_000), 400_000, LOOK_MS_MAX),
        (a_push(waited_ms=90_000), 3_001, 4_000),
        (a_push(waited_ms=90_000), 3_000, 3_000),
        (a_push(waited_ms=90_000, left_ms=700), 400_000, 700),
        (a_push(waited_ms=90_000, left_ms=0), 400_000, 1),
        (a_push("urgent", ""), 400_000, 3_000),
        (a_push("urgent", "", left_ms=1_000), 400_000, 500),
    ],
)
def test_the_next_look_comes_after_as_long_as_it_has_waited_or_when_something_ends_it(
    push: Push, lease_ms: int, wait_ms: int
) -> None:
    assert next_look_ms(push, PHONE, NOW_MS + lease_ms, 3, NOW_MS) == wait_ms


def test_what_a_device_has_waited_for_long_is_looked_at_together() -> None:
    for waited_ms in (10_000, 90_000, 10**7):
        assert next_look_ms(a_push(waited_ms=waited_ms), PHONE, 2**50, 3, NOW_MS + 6_000) == 9_000
    assert next_look_ms(a_push(waited_ms=5_000), PHONE, 2**50, 3, NOW_MS + 12_000) == 3_000
    pad = Delivery(b"", PHONE.user, "pad", "t", 0)
    assert next_look_ms(OLD, pad, 2**50, 3, NOW_MS) < LOOK_MS_MAX, "another device has its own times"


@given(st.integers(1, 500_000), st.integers(0, 10**7), st.integers(1, 10**8), st.text())
def test_a_lease_is_never_outslept_and_looks_are_few(lease_ms: int, waited_ms: int, left_ms: int, user: str) -> None:
    """Whatever it has waited, and whenever its lease ends, the look after that is less than a second late."""
    at_ms, looks, delivery = NOW_MS, 0, Delivery(b"", user, "phone", "t", 0)
    push = a_push(waited_ms=waited_ms, left_ms=left_ms)
    while at_ms < NOW_MS + min(lease_ms, left_ms):
        wait_ms = next_look_ms(push, delivery, NOW_MS + lease_ms, 3, at_ms)
        assert 1 <= wait_ms <= LOOK_MS_MAX
        at_ms += wait_ms
        looks += 1
    assert at_ms < NOW_MS + min(lease_ms + 1_000, left_ms + 1)
    assert looks <= 6 + min(lease_ms, left_ms) / LOOK_MS_MAX


def test_a_parked_entry_asks_for_no_permits(redis_url: str) -> None:
    entry = an_entry("m")
    expires_at_ms = entry.parcel.push.expires_at_ms
    for parking, expiry in (("", expires_at_ms), ("parked", 0), ("released", expires_at_ms)):
        parked = replace(entry.parcel.push, parking=parking)
        entry.parcel = Parcel(parked, entry.parcel.deliveries)
        assert struct.unpack(">HBBdd16s", pack(entry)[:36])[3] == expiry
        assert unpack(pack(entry)).parcel.push == parked


def test_a_push_to_the_foreground_waits_and_the_users_other_device_gets_it_at_once(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.route(chat("m1"))
        assert [one.device for one in await stage.deliveries()] == ["pad"]
        ((due_ms, parked),) = await stage.delayed()
        push = parked.parcel.push
        assert (push.parking, push.later, due_ms) == ("parked", "", push.enqueued_at_ms + FIRST_LOOK_MS)
        (delivery,) = parked.parcel.deliveries
        assert (delivery.device, delivery.badge, delivery.counted) == ("phone", -1, True)
        assert await stage.suppressed() == {}
        assert await stage.joined()

    on(redis_url, scenario)


def test_without_the_setting_it_is_taken_for_delivered(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.route(chat("m1"))
        assert await stage.suppressed() == {"foreground": 1}
        assert await stage.delayed() == []

    on(redis_url, scenario, foreground_ack="assume")


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"channels": []}, "foreground"),
        ({"logged_out_at_ms": 1}, "logged_out"),
        ({"permitted": False}, "notifications_off"),
        ({"credential": "sold"}, "foreground"),
    ],
)
def test_only_what_could_leave_later_is_parked(redis_url: str, changed: dict[str, Any], reason: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.device(state=FOREGROUND, lease_until_ms=now_ms() + 400_000, **changed)
        await stage.route(chat("m1"))
        assert await stage.suppressed() == {reason: 1}
        assert await stage.delayed() == []

    on(redis_url, scenario)


def test_what_is_forced_passes_and_a_recall_is_not_parked(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.route(chat("m1", Recipient(id="bob", push="force")))
        assert sorted(one.device for one in await stage.deliveries()) == ["pad", "phone"]
        await stage.recall("m1")
        assert await stage.delayed() == []
        assert await stage.suppressed() == {"foreground": 1}

    on(redis_url, scenario, recall_window_s=120)


def test_a_call_is_parked_for_a_moment(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.route(chat("m1", kind="call"), chat("m2", kind="call", ttl_s=1))
        waits = [due_ms - entry.parcel.push.enqueued_at_ms for due_ms, entry in await stage.delayed()]
        assert sorted(waits) == [500, 1_500]

    on(redis_url, scenario, park_urgent_s=1.5)


def test_what_is_held_as_well_waits_for_the_later_of_both(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.device("eve", token="eve")
        await stage.route(group("m1", "bob", "eve"))
        waiting = {
            (one.user, one.device): (due_ms - entry.parcel.push.enqueued_at_ms, entry.parcel.push)
            for due_ms, entry in await stage.delayed()
            for one in entry.parcel.deliveries
        }
        told = {place: (wait_ms, push.later, push.parking) for place, (wait_ms, push) in waiting.items()}
        # All are due together: what is parked must not take the place of what is only held.
        assert told == {
            ("bob", "phone"): (FIRST_LOOK_MS, "held", "parked"),
            ("bob", "pad"): (FIRST_LOOK_MS, "held", ""),
            ("eve", "phone"): (FIRST_LOOK_MS, "held", ""),
        }
        assert await stage.joined()

    on(redis_url, scenario, hold_normal_s=FIRST_LOOK_MS / 1000)


def test_as_long_as_it_is_parked_it_neither_counts_nor_storms_nor_shows(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.queue.call("HDEL", BOB.devices, "pad")
        await stage.route(group("m1", "bob"), group("m2", "bob"))
        assert len(await stage.delayed()) == 2
        assert await stage.queue.call("EXISTS", BOB.badges, BOB.storms) == 0
        assert await stage.queue.call("KEYS", f"{PREFIX}:{{r:*") == []
        assert await stage.joined()

    on(redis_url, scenario, storm_waits_s=[10], recall_window_s=120)


def test_what_a_dead_router_parked_is_parked_once(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        stage.enqueue(group("m1", "bob"))
        await stage.put_and_die(*await stage.read())
        await stage.device(state=BACKGROUND)
        await stage.router.route(stage.streams["normal"], await stage.read_again())
        assert len(await stage.delayed()) == 1
        assert [one.device for one in await stage.deliveries()] == ["pad"]
        assert await stage.joined()

    on(redis_url, scenario, storm_waits_s=[10])


def test_a_carrier_that_a_dead_router_promised_and_that_is_parked_now_holds_nothing_up(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.device(state=BACKGROUND)
        await stage.queue.call("HDEL", BOB.devices, "pad")
        await stage.route(group("m1", "bob"))
        stage.enqueue(group("m2", "bob"))
        raws = await stage.read()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(stage.router, "_put", _die)
            with pytest.raises(RuntimeError):
                await stage.router._finish(stage.streams["normal"], [await _job(stage, raw) for raw in raws])
        await stage.device(state=FOREGROUND, lease_until_ms=now_ms() + 400_000)
        await stage.router.route(stage.streams["normal"], await stage.read_again())
        ((_, parked),) = await stage.delayed()
        assert (parked.parcel.push.message_id, parked.parcel.push.parking) == ("m2", "parked")
        await stage.device(state=BACKGROUND)
        await stage.route(group("m3", "bob"))
        assert "m3" in {entry.parcel.push.message_id for _, entry in await stage.delayed()}, "m2 carries nothing"

    on(redis_url, scenario, storm_waits_s=[10])


async def _die(jobs: object) -> None:
    raise RuntimeError


async def _job(stage: Stage, raw: Any) -> Any:
    return await stage.router._job(stage.streams["normal"], raw)


def test_parcels_of_parked_deliveries_are_no_larger_than_others(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        users = [f"u{number}" for number in range(120)]
        for user in users:
            await stage.device(user, token=user, state=FOREGROUND, lease_until_ms=now_ms() + 400_000)
        await stage.route(group("m1", *users))
        assert sorted(len(entry.parcel.deliveries) for _, entry in await stage.delayed()) == [20, 50, 50]
        keys = AccountKeys(PREFIX, "apns", "main")
        assert (
            await stage.queue.call("ZCARD", keys.delayed) == await stage.queue.call("HLEN", keys.delayed_entries) == 3
        )
        assert await stage.joined()

    on(redis_url, scenario)
