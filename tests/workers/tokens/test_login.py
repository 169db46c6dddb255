"""Logged out by another login: as of its time, and until the device registers again."""

from __future__ import annotations

import msgspec
import pytest
from tests.workers.tokens.support import APP, PREFIX, Stage, a_registration, a_report, on_redis

from pushfleet_workers.tokens.keys import UserKeys
from pushfleet_workers.tokens.store import OPTIONS_MAX, OptionsFull

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


@pytest.mark.parametrize(
    ("platform", "expected"), [("", {"ios-old", "android-old"}), ("ios", {"ios-old"}), ("windows", set())]
)
def test_a_registration_from_before_the_login_comes_after_it(redis_url: str, platform: str, expected: set[str]) -> None:
    async def scenario(stage: Stage) -> None:
        assert await stage.store.login(APP, "ann", "ios-new", 200, platform) == []
        for number, device in enumerate(("ios-old", "android-old", "ios-new")):
            given = a_registration(f"t{number}", platform=device[:-4], state="killed", at_ms=100)
            await stage.store.register(APP, "ann", device, given)
        later = a_registration("t9", platform="ios", at_ms=201)
        await stage.store.register(APP, "ann", "ios-later", later)
        assert await gone(stage) == expected

    on_redis(redis_url, scenario)


def test_of_logins_on_several_platforms_each_holds_for_what_comes_late(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        for device, platform, at_ms in (
            ("i2", "ios", 300),
            ("a2", "android", 400),
            ("i2", "ios", 200),
            ("i3", "ios", 150),
        ):
            await stage.store.login(APP, "ann", device, at_ms, platform)
        for device, platform, at_ms in (
            ("i1", "iOS", 299),
            ("a1", "android", 399),
            ("i4", "ios", 301),
            ("i2", "ios", 149),
        ):
            await stage.store.register(APP, "ann", device, a_registration(device, platform=platform, at_ms=at_ms))
        assert await gone(stage) == {"i1", "a1", "i2"}

    on_redis(redis_url, scenario)


def test_logins_are_no_options_and_the_last_few_are_kept(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        key = UserKeys(PREFIX, APP, "ann").options
        for number in range(30):
            await stage.store.login(APP, "ann", f"d{number}", 100 + number)
        assert len(msgspec.msgpack.decode(await stage.link.call("HGET", key, b"\xff"))) == 8
        assert await stage.link.call("TTL", key) > 0
        assert (await stage.store.user(APP, "ann")).options == {}
        await stage.link.call(
            "HSET", key, *(part for number in range(OPTIONS_MAX - 1) for part in (f"c{number}", "none"))
        )
        await stage.store.set_receive_option(APP, "ann", "last", "none")
        with pytest.raises(OptionsFull):
            await stage.store.set_receive_option(APP, "ann", "more", "none")
        await stage.store.register(APP, "ann", "old", a_registration(at_ms=50))
        assert await gone(stage) == {"old"}
        assert await stage.store.forget_user(APP, "ann")
        await stage.store.register(APP, "ann", "old", a_registration(at_ms=50))
        assert await gone(stage) == set()

    on_redis(redis_url, scenario)


@pytest.mark.parametrize("stored", [b"", b"\xc1", b"\x05", b"x", b"\x91\x05", b"\x93\x93\x01\x02\x03\x80\x92\x01\xa1d"])
def test_damaged_logins_are_as_good_as_none(redis_url: str, stored: bytes) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.link.call("HSET", UserKeys(PREFIX, APP, "ann").options, b"\xff", stored)
        await stage.store.register(APP, "ann", "old", a_registration(at_ms=50))
        assert await gone(stage) == set()
        assert await stage.store.login(APP, "ann", "new", 60) == ["old"]

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
