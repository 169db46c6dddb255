"""Logged out by another login: as of its time, and until the device registers again."""

from __future__ import annotations

import pytest
from tests.workers.tokens.support import APP, Stage, a_registration, a_report, on_redis

PLATFORMS = {"phone": "ios", "old phone": "ios", "tablet": "android", "nameless": ""}


async def registered(stage: Stage, at_ms: int = 100) -> None:
    for device, platform in PLATFORMS.items():
        given = a_registration(device.replace(" ", "-"), platform=platform, state="background", at_ms=at_ms)
        await stage.store.register(APP, "ann", device, given)


async def gone(stage: Stage) -> set[str]:
    return {name for name, device in (await stage.store.user(APP, "ann")).devices.items() if device.logged_out}


@pytest.mark.parametrize(
    ("platform", "expected"), [("", {"old phone", "tablet", "nameless"}), ("ios", {"old phone"}), ("windows", set())]
)
def test_a_login_logs_the_others_out(redis_url: str, platform: str, expected: set[str]) -> None:
    async def scenario(stage: Stage) -> None:
        await registered(stage)
        assert set(await stage.store.login(APP, "ann", "phone", 200, platform)) == expected
        assert await gone(stage) == expected
        assert await stage.store.login(APP, "ann", "phone", 200, platform) == []

    on_redis(redis_url, scenario)


@pytest.mark.parametrize(
    ("theirs", "platform", "is_same"),
    [
        ("ios", "iOS", True),
        ("iOS", "ios", True),
        ("iOS", "IOS", True),
        ("HUAWEI", "Huawei", True),
        ("huawei", "HUAWEI", True),
        ("Windows", "windows", True),
        ("\x02", "ios", False),
        ("ios", "\x02", False),
        ("\x02", "\x02", True),
        ("\0A", "\0a", True),
        ("ipados", "ios", False),
    ],
)
def test_capitals_make_no_other_platform(redis_url: str, theirs: str, platform: str, is_same: bool) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.store.register(APP, "ann", "old", a_registration("t1", platform=theirs, at_ms=100))
        assert await stage.store.login(APP, "ann", "new", 200, platform) == ["old"] * is_same

    on_redis(redis_url, scenario)


def test_who_registers_after_the_login_is_back_in_whatever_order_both_come(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        await registered(stage)
        again = a_registration("tablet-2", platform="android", at_ms=300)
        await stage.store.register(APP, "ann", "tablet", again)
        assert set(await stage.store.login(APP, "ann", "phone", 200)) == {"old phone", "nameless"}
        await stage.store.register(APP, "ann", "nameless", a_registration("t4", at_ms=201))
        assert await gone(stage) == {"old phone"}

    on_redis(redis_url, scenario)


def test_of_two_logins_the_later_one_holds_in_any_order(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        await registered(stage)
        await stage.store.register(APP, "ann", "tablet", a_registration("t5", at_ms=300))
        await stage.store.login(APP, "ann", "tablet", 300)
        await stage.store.login(APP, "ann", "phone", 200)
        assert await gone(stage) == set(PLATFORMS) - {"tablet"}

    on_redis(redis_url, scenario)


def test_a_device_that_is_not_registered_yet_logs_others_out(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        await registered(stage)
        stage.now_ms += 1
        assert set(await stage.store.login(APP, "ann", "new", 0)) == set(PLATFORMS)
        assert await stage.store.login(APP, "nobody", "new") == []
        await stage.store.report(APP, [a_report("killed", stage.now_ms + 1, device="phone")])
        assert "phone" in await gone(stage)

    on_redis(redis_url, scenario)
