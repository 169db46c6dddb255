"""Devices that nobody uses: passed over by the decision, then removed, with their tokens."""

from __future__ import annotations

import pytest
from tests.workers.tokens.support import APP, NOW_MS, PREFIX, Stage, a_registration, a_report, on_redis

from pushfleet_workers.decision import refuse_device
from pushfleet_workers.device_keeper import DeviceKeeper
from pushfleet_workers.lease import Lease
from pushfleet_workers.settings import AppSettings
from pushfleet_workers.tokens.keys import UserKeys, owner_of
from pushfleet_workers.tokens.record import BACKGROUND, LOGGED_OUT, Channel, Device
from pushfleet_workers.tokens.store import LIFE_S

DAY_MS = 86_400_000
MONTH_MS = 30 * DAY_MS


def keeper(stage: Stage, days: int = 30) -> DeviceKeeper:
    apps = {APP: AppSettings(device_unused_days=days), "lite": AppSettings(device_unused_days=0)}
    return DeviceKeeper(stage.link, PREFIX, stage.store, apps, lambda: stage.now_ms, Lease(stage.link, "lease"))


@pytest.mark.parametrize(
    ("device", "unused_ms", "reason"),
    [
        (Device([Channel("apns", "main", "t", NOW_MS - MONTH_MS)]), MONTH_MS, ""),
        (Device([Channel("apns", "main", "t", NOW_MS - MONTH_MS - 1)]), MONTH_MS, "device_stale"),
        (Device([Channel("apns", "main", "t", 1)], BACKGROUND, NOW_MS - MONTH_MS), MONTH_MS, ""),
        (Device([Channel("apns", "main", "t", 1)], BACKGROUND, NOW_MS - MONTH_MS - 1), MONTH_MS, "device_stale"),
        (Device([Channel("apns", "main", "t", 1)], BACKGROUND, 1), 0, ""),
        (Device([], BACKGROUND, 1, registered_at_ms=NOW_MS), MONTH_MS, ""),
        (Device([], LOGGED_OUT, 1), MONTH_MS, "logged_out"),
    ],
)
def test_a_device_that_was_silent_for_long_is_passed_over(device: Device, unused_ms: int, reason: str) -> None:
    assert refuse_device(device, NOW_MS, unused_ms=unused_ms) == reason
    assert refuse_device(device, NOW_MS, unused_ms=unused_ms, forced=True) == reason


def test_what_nobody_uses_goes_with_its_tokens_and_what_is_used_stays(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.store.register(APP, "ann", "old", a_registration("t1"))
        await stage.store.register(APP, "ann", "reports", a_registration("t2"))
        await stage.store.register(APP, "b:ob", "only", a_registration("t3"))
        await stage.store.register("lite", "eve", "kept", a_registration("t4"))
        await stage.store.set_receive_option(APP, "ann", "c1", "none")
        stage.now_ms += 1
        await stage.store.report(APP, [a_report("background", device="reports")])
        stage.now_ms = NOW_MS + MONTH_MS
        assert await keeper(stage).look() == 0
        stage.now_ms += 1
        assert await keeper(stage).look() == 2
        assert list((await stage.store.user(APP, "ann")).devices) == ["reports"]
        assert (await stage.store.user(APP, "ann")).options == {"c1": ("none", 0)}
        assert (await stage.store.user(APP, "b:ob")).devices == {}
        assert list((await stage.store.user("lite", "eve")).devices) == ["kept"]
        assert [await stage.owner(token) for token in ("t1", "t2", "t3")] == [None, "ann", None]
        assert await stage.owner("t4", app="lite") == "eve"

    on_redis(redis_url, scenario)


def test_where_no_days_are_set_and_where_the_app_is_gone_it_takes_a_life(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.store.register("lite", "eve", "d1", a_registration("t1"))
        await stage.store.register("left", "pat", "d1", a_registration("t2"))
        stage.now_ms += LIFE_S * 1000
        assert await keeper(stage).look() == 0
        stage.now_ms += 1
        assert await keeper(stage).look() == 2
        assert await stage.link.call("DBSIZE") == 0

    on_redis(redis_url, scenario)


def test_a_record_that_cannot_be_read_stays_for_a_life_and_leaves_the_others_alone(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.store.register(APP, "ann", "d1", a_registration())
        await stage.damage(b"\xc1")
        key = UserKeys(PREFIX, APP, "ann").devices
        stage.now_ms += 2 * MONTH_MS
        assert await keeper(stage).look() == 0
        assert LIFE_S - 60 < await stage.link.call("TTL", key) <= LIFE_S
        await stage.link.call("EXPIRE", key, 100)
        assert await keeper(stage).look() == 0
        assert 0 < await stage.link.call("TTL", key) <= 100
        await stage.store.register(APP, "ann", "d2", a_registration("t2"))
        assert await stage.link.call("TTL", key) == -1

    on_redis(redis_url, scenario)


@pytest.mark.parametrize("user", ["ann", "a:b", "用户", "}", "a b"])
def test_a_key_tells_its_user(user: str) -> None:
    assert owner_of(PREFIX, UserKeys(PREFIX, APP, user).devices) == (APP, user)
