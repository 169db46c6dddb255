"""Registrations: what a device becomes, and that a token has one owner."""

import asyncio
import random

import pytest
from tests.workers.tokens.support import (
    APP,
    NOW_MS,
    PREFIX,
    Stage,
    a_channel,
    a_registration,
    a_report,
    drop_token,
    on_redis,
    quarantine,
)

from pushfleet_workers.tokens.changes import ChannelGiven
from pushfleet_workers.tokens.keys import UserKeys
from pushfleet_workers.tokens.record import Channel
from pushfleet_workers.tokens.store import DEVICES_MAX, LIFE_S, Registered


def test_a_device_registers(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        given = a_registration(
            channels=(a_channel("t1", region="cn"), a_channel("v1", kind="voip")),
            platform="ios",
            maker="apple",
            os_version="18.1",
            app_version="3.2",
            locale="zh-Hans-CN",
            time_zone="Asia/Shanghai",
            notifications=False,
            state="background",
            unread=7,
            at_ms=NOW_MS - 5,
        )
        done = await stage.store.register(APP, "ann", "d1", given)
        assert done.applied
        device = await stage.device()
        assert device == done.device
        assert device.channels == [
            Channel("apns", "main", "t1", NOW_MS - 5, region="cn"),
            Channel("apns", "main", "v1", NOW_MS - 5, kind="voip"),
        ]
        assert (device.platform, device.maker, device.os_version, device.app_version) == ("ios", "apple", "18.1", "3.2")
        assert (device.locale, device.time_zone, device.permitted) == ("zh-Hans-CN", "Asia/Shanghai", False)
        assert (device.state, device.state_at_ms, device.unread) == ("b", NOW_MS - 5, 7)

    on_redis(redis_url, scenario)


def test_a_registration_without_a_time_is_of_now(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        done = await stage.store.register(APP, "ann", "d1", a_registration())
        assert done.device.channels[0].registered_at_ms == NOW_MS

    on_redis(redis_url, scenario)


def test_a_registration_without_a_state_keeps_state_and_base(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.store.register(APP, "ann", "d1", a_registration("t1", state="background", unread=3, at_ms=100))
        await stage.store.register(APP, "ann", "d1", a_registration("t2", at_ms=200))
        device = await stage.device()
        assert (device.state, device.state_at_ms, device.unread) == ("b", 100, 3)
        assert await stage.tokens() == ["t2"]

    on_redis(redis_url, scenario)


@pytest.mark.parametrize(
    "hostile", ["}", "a:b", "a\nb", "a\0b", "a b", "用户", "\U0001f600", "%7D", '"', "\\", "d" * 128]
)
def test_hostile_ids_register_move_and_go(redis_url: str, hostile: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.store.register(APP, hostile, hostile, a_registration("t1"))
        assert list((await stage.store.user(APP, hostile)).devices) == [hostile]
        done = await stage.store.report(APP, [a_report("background", user=hostile, device=hostile)])
        assert done.applied == 1
        stage.now_ms += 1
        await stage.store.register(APP, "bob", "d2", a_registration("t1"))
        assert await stage.tokens(hostile, hostile) == []
        stage.now_ms += 1
        await stage.store.register(APP, hostile, hostile, a_registration("t1"))
        assert await stage.tokens("bob", "d2") == []
        assert await stage.store.remove(APP, hostile, hostile)
        assert not (await stage.store.user(APP, hostile)).devices
        assert await stage.index_size() == 0

    on_redis(redis_url, scenario)


@pytest.mark.parametrize(
    "device",
    [
        "123e4567-e89b-12d3-a456-426614174000",
        "123E4567-E89B-12D3-A456-426614174000",
        "123E4567-e89b-12d3-a456-426614174000",
        "11111111-1111-1111-1111-111111111111",
        "123e4567e89b12d3a456426614174000",
        "１23e4567-e89b-12d3-a456-426614174000",
        "{23e4567-e89b-12d3-a456-42661417400}",
        "ÿþ",
        "\xff" + "1" * 16,
    ],
)
def test_an_installation_id_is_kept_letter_for_letter(redis_url: str, device: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.store.register(APP, "ann", device, a_registration())
        assert list((await stage.store.user(APP, "ann")).devices) == [device]

    on_redis(redis_url, scenario)


# ---- time


def test_an_older_registration_that_comes_late_changes_nothing(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.store.register(APP, "ann", "d1", a_registration("new", at_ms=200, locale="fr"))
        done = await stage.store.register(APP, "ann", "d1", a_registration("old", at_ms=100, locale="de"))
        assert not done.applied
        assert await stage.tokens() == ["new"]
        assert (await stage.device()).locale == "fr"
        assert await stage.owner("old") is None
        assert await stage.owner("new") == "ann"

    on_redis(redis_url, scenario)


def test_a_registration_is_repeated_without_a_change(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        given = a_registration("t1", "t2", state="background", unread=2, at_ms=100)
        first = await stage.store.register(APP, "ann", "d1", given)
        again = await stage.store.register(APP, "ann", "d1", given)
        assert first.device == again.device == await stage.device()
        assert await stage.index_size() == 2

    on_redis(redis_url, scenario)


def test_registering_after_a_logout_ends_it(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.store.register(APP, "ann", "d1", a_registration(at_ms=100))
        await stage.store.report(APP, [a_report("logged_out", 200)])
        await stage.store.register(APP, "ann", "d1", a_registration(at_ms=300))
        assert (await stage.device()).state == ""

    on_redis(redis_url, scenario)


def test_a_logout_that_comes_after_a_later_registration_does_not_hold(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.store.register(APP, "ann", "d1", a_registration(at_ms=300))
        await stage.store.report(APP, [a_report("logged_out", 200)])
        assert (await stage.device()).state == ""
        await stage.store.report(APP, [a_report("logged_out", 400)])
        assert (await stage.device()).state == "o"

    on_redis(redis_url, scenario)


def test_an_older_registration_does_not_end_a_later_logout(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.store.register(APP, "ann", "d1", a_registration("t1", at_ms=100))
        await stage.store.report(APP, [a_report("logged_out", 300)])
        await stage.store.register(APP, "ann", "d1", a_registration("t2", at_ms=200))
        assert (await stage.device()).state == "o"
        assert await stage.tokens() == ["t2"]

    on_redis(redis_url, scenario)


# ---- channels and their owners


def test_a_change_of_vendor_replaces_the_channel(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.store.register(APP, "ann", "d1", a_registration(channels=(a_channel("h1", "huawei"),)))
        stage.now_ms += 1
        await stage.store.register(APP, "ann", "d1", a_registration(channels=(a_channel("o1", "harmony"),)))
        assert [(one.vendor, one.token) for one in (await stage.device()).channels] == [("harmony", "o1")]
        assert await stage.owner("h1", "huawei") is None
        assert await stage.owner("o1", "harmony") == "ann"

    on_redis(redis_url, scenario)


def test_a_token_moves_to_its_new_owner_and_nothing_else_moves(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.store.register(APP, "ann", "d1", a_registration("t1", "t2", "t3"))
        stage.now_ms += 1
        await stage.store.register(APP, "bob", "d9", a_registration("t2"))
        assert await stage.tokens() == ["t1", "t3"]
        assert await stage.tokens("bob", "d9") == ["t2"]
        assert [await stage.owner(token) for token in ("t1", "t2", "t3")] == ["ann", "bob", "ann"]

    on_redis(redis_url, scenario)


def test_a_token_moves_between_two_devices_of_a_user(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.store.register(APP, "ann", "d1", a_registration("t1", "t2"))
        stage.now_ms += 1
        await stage.store.register(APP, "ann", "d2", a_registration("t1"))
        assert await stage.tokens("ann", "d1") == ["t2"]
        assert await stage.tokens("ann", "d2") == ["t1"]
        assert await stage.owner("t1") == "ann"

    on_redis(redis_url, scenario)


@pytest.mark.parametrize("at_once", [True, False])
def test_two_devices_of_a_user_swap_their_tokens(redis_url: str, at_once: bool) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.store.register(APP, "ann", "d1", a_registration("t1"))
        await stage.store.register(APP, "ann", "d2", a_registration("t2"))
        stage.now_ms += 1
        swapped = [(APP, "ann", "d1", a_registration("t2")), (APP, "ann", "d2", a_registration("t1"))]
        if at_once:
            await stage.store.register_many(swapped)
        else:
            for one in swapped:
                await stage.store.register(*one)
        assert (await stage.tokens("ann", "d1"), await stage.tokens("ann", "d2")) == (["t2"], ["t1"])
        assert [await stage.owner("t1"), await stage.owner("t2")] == ["ann", "ann"]

    on_redis(redis_url, scenario)


def test_two_users_swap_their_tokens_in_one_batch(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.store.register(APP, "ann", "d1", a_registration("t1"))
        await stage.store.register(APP, "bob", "d1", a_registration("t2"))
        stage.now_ms += 1
        await stage.store.register_many(
            [(APP, "ann", "d1", a_registration("t2")), (APP, "bob", "d1", a_registration("t1"))]
        )
        assert (await stage.tokens("ann"), await stage.tokens("bob")) == (["t2"], ["t1"])
        assert [await stage.owner("t1"), await stage.owner("t2")] == ["bob", "ann"]

    on_redis(redis_url, scenario)


@pytest.mark.parametrize(("first_ms", "second_ms", "winner"), [(100, 200, "bob"), (200, 100, "ann"), (100, 100, None)])
def test_a_token_given_twice_in_a_batch_has_one_owner(
    redis_url: str, first_ms: int, second_ms: int, winner: str | None
) -> None:
    async def scenario(stage: Stage) -> None:
        done = await stage.store.register_many(
            [
                (APP, "ann", "d1", a_registration("t1", at_ms=first_ms)),
                (APP, "bob", "d1", a_registration("t1", at_ms=second_ms)),
            ]
        )
        holders = {user for user in ("ann", "bob") if await stage.tokens(user)}
        assert len(holders) == 1
        assert winner is None or holders == {winner}
        assert {await stage.owner("t1")} == holders
        shown = {user for user, one in zip(("ann", "bob"), done, strict=True) if one.device.channels}
        assert shown == holders, "the answers say who has it"

    on_redis(redis_url, scenario)


def test_a_token_given_to_two_devices_of_a_user_in_a_batch_is_on_one(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        done = await stage.store.register_many(
            [(APP, "ann", "d1", a_registration("t1")), (APP, "ann", "d2", a_registration("t1"))]
        )
        assert await stage.tokens("ann", "d1") + await stage.tokens("ann", "d2") == ["t1"]
        assert await stage.owner("t1") == "ann"
        assert done[1].device.channels

    on_redis(redis_url, scenario)


def test_a_device_given_twice_in_a_batch_ends_with_the_later_one(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.store.register_many(
            [(APP, "ann", "d1", a_registration("t1", at_ms=100)), (APP, "ann", "d1", a_registration("t2", at_ms=200))]
        )
        assert await stage.tokens() == ["t2"]
        assert await stage.owner("t1") is None
        assert await stage.owner("t2") == "ann"

    on_redis(redis_url, scenario)


def test_a_token_that_moved_on_does_not_come_back_with_a_late_registration(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.store.register(APP, "bob", "d1", a_registration("t1", at_ms=200))
        done = await stage.store.register(APP, "ann", "d1", a_registration("t1", "t2", at_ms=100))
        assert [channel.token for channel in done.device.channels] == ["t2"]
        assert await stage.tokens("bob") == ["t1"]
        assert await stage.tokens("ann") == ["t2"]
        assert await stage.owner("t1") == "bob"

    on_redis(redis_url, scenario)


def test_the_same_token_of_another_vendor_stays_where_it_is(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.store.register(APP, "ann", "d1", a_registration(channels=(a_channel("t1", "fcm"),)))
        stage.now_ms += 1
        await stage.store.register(APP, "bob", "d1", a_registration(channels=(a_channel("t1", "huawei"),)))
        assert (await stage.tokens("ann"), await stage.tokens("bob")) == (["t1"], ["t1"])

    on_redis(redis_url, scenario)


def test_apps_do_not_take_tokens_from_one_another(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.store.register(APP, "ann", "d1", a_registration("t1"))
        stage.now_ms += 1
        await stage.store.register("lite", "ann", "d1", a_registration("t1"))
        assert await stage.tokens() == ["t1"]
        assert await stage.owner("t1") == "ann"
        assert await stage.owner("t1", app="lite") == "ann"

    on_redis(redis_url, scenario)


def test_a_new_registration_keeps_the_quarantine_of_a_token(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.store.register(APP, "ann", "d1", a_registration("t1", "t2"))
        assert await quarantine(stage.store, APP, "ann", "d1", "t2", 777)
        assert not await quarantine(stage.store, APP, "ann", "d1", "t3", 777)
        assert not await quarantine(stage.store, APP, "ann", "d2", "t2", 777)
        stage.now_ms += 1
        await stage.store.register(APP, "ann", "d1", a_registration("t2", "t3"))
        assert [one.quarantined_until_ms for one in (await stage.device()).channels] == [777, 0]

    on_redis(redis_url, scenario)


# ---- what goes


def test_a_removed_device_leaves_nothing_behind(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.store.register(APP, "ann", "d1", a_registration("t1", "t2"))
        await stage.store.register(APP, "ann", "d2", a_registration("t3"))
        assert await stage.store.remove(APP, "ann", "d1")
        assert list((await stage.store.user(APP, "ann")).devices) == ["d2"]
        assert await stage.owner("t1") is None
        assert await stage.owner("t3") == "ann"
        assert not await stage.store.remove(APP, "ann", "d1")
        assert not await stage.store.remove(APP, "nobody", "d1")
        assert await stage.store.remove(APP, "ann", "d2")
        assert await stage.link.call("KEYS", "*") == []

    on_redis(redis_url, scenario)


def test_a_user_has_a_bounded_number_of_devices(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        for number in range(DEVICES_MAX + 5):
            stage.now_ms += 1
            await stage.store.register(APP, "ann", f"d{number}", a_registration(f"t{number}"))
        assert set((await stage.store.user(APP, "ann")).devices) == {f"d{n}" for n in range(5, DEVICES_MAX + 5)}
        assert await stage.index_size() == DEVICES_MAX

    on_redis(redis_url, scenario)


def test_a_device_that_reports_outlives_those_that_are_silent(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        for number in range(DEVICES_MAX):
            stage.now_ms += 1
            await stage.store.register(APP, "ann", f"d{number}", a_registration(f"t{number}"))
        stage.now_ms += 1
        await stage.store.report(APP, [a_report("background", device="d0")])
        stage.now_ms += 1
        await stage.store.register(APP, "ann", "new", a_registration("t-new"))
        devices = (await stage.store.user(APP, "ann")).devices
        assert "d0" in devices
        assert "d1" not in devices

    on_redis(redis_url, scenario)


def test_an_installation_that_was_silent_for_a_life_goes_with_the_next_registration(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.store.register(APP, "ann", "old", a_registration("t1"))
        stage.now_ms += (LIFE_S - 1) * 1000
        await stage.store.register(APP, "ann", "new", a_registration("t2"))
        assert set((await stage.store.user(APP, "ann")).devices) == {"old", "new"}
        stage.now_ms += 2_000
        await stage.store.register(APP, "ann", "new", a_registration("t2"))
        assert set((await stage.store.user(APP, "ann")).devices) == {"new"}
        assert await stage.owner("t1") is None

    on_redis(redis_url, scenario)


def test_what_a_user_of_whom_nobody_hears_wanted_expires_and_devices_are_left_to_their_keeper(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.store.register(APP, "ann", "d1", a_registration())
        await stage.store.set_receive_option(APP, "ann", "room", "none")
        await stage.link.call("PERSIST", UserKeys(PREFIX, APP, "ann").options)
        await stage.store.report(APP, [a_report("killed", NOW_MS + 1)])
        keys = UserKeys(PREFIX, APP, "ann")
        assert LIFE_S - 60 < await stage.link.call("TTL", keys.options) <= LIFE_S
        assert await stage.link.call("TTL", keys.devices) == -1

    on_redis(redis_url, scenario)


def test_a_user_who_reports_all_day_is_kept_alive_once_a_day(redis_url: str) -> None:
    day_ms = 86_400_000

    async def scenario(stage: Stage) -> None:
        midnight_ms = NOW_MS // day_ms * day_ms
        keys = UserKeys(PREFIX, APP, "ann")
        await stage.store.register(APP, "ann", "d1", a_registration(state="background", at_ms=midnight_ms))
        await stage.store.set_receive_option(APP, "ann", "room", "none")
        for key in (keys.devices, keys.options):
            await stage.link.call("EXPIRE", key, 100)
        await stage.store.report(APP, [a_report("killed", midnight_ms + day_ms - 1)])
        assert 0 < await stage.link.call("TTL", keys.devices) <= 100
        await stage.store.report(APP, [a_report("killed", midnight_ms + day_ms)])
        assert await stage.link.call("TTL", keys.devices) == -1
        assert await stage.link.call("TTL", keys.options) > LIFE_S - 60

    on_redis(redis_url, scenario)


# ---- many at once


def test_concurrent_registrations_of_one_token_leave_it_one_owner(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        stores = [stage.a_store() for _ in range(4)]
        users = [f"u{number}" for number in range(12)]
        for round_ in range(12):
            stage.now_ms += 10
            dice = random.Random(round_)
            await asyncio.gather(
                *(
                    dice.choice(stores).register(
                        APP, user, "d1", a_registration("t1", at_ms=stage.now_ms + dice.choice([0, 0, 1, 2]))
                    )
                    for user in users
                )
            )
            holders = [user for user in users if await stage.tokens(user)]
            assert holders == [await stage.owner("t1")]

    on_redis(redis_url, scenario)


def test_of_concurrent_registrations_the_newest_wins(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        stores = [stage.a_store() for _ in range(4)]
        times = list(range(1, 21))
        random.Random(1).shuffle(times)
        await asyncio.gather(
            *(
                stores[number % 4].register(APP, f"u{at_ms}", "d1", a_registration("t1", at_ms=at_ms))
                for number, at_ms in enumerate(times)
            )
        )
        assert await stage.owner("t1") == "u20"
        assert [user for user in (f"u{n}" for n in times) if await stage.tokens(user)] == ["u20"]

    on_redis(redis_url, scenario)


def test_concurrent_changes_of_one_device_lose_nothing(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.store.register(APP, "ann", "d1", a_registration("t1", "t2", "t3", at_ms=NOW_MS))
        stores = [stage.a_store() for _ in range(6)]
        await asyncio.gather(
            stores[0].report(APP, [a_report("background", NOW_MS + 5, 4)]),
            stores[1].report(APP, [a_report("killed", NOW_MS + 9)]),
            drop_token(stores[2], APP, "ann", "d1", "t2", NOW_MS, None),
            stores[3].mute_device(APP, "ann", "d1", stage.now_ms),
            quarantine(stores[4], APP, "ann", "d1", "t3", 99),
            stores[5].register(APP, "bob", "d1", a_registration("t1", at_ms=NOW_MS + 1)),
        )
        device = await stage.device()
        assert device.channels == [Channel("apns", "main", "t3", NOW_MS, quarantined_until_ms=99)]
        assert (device.state, device.state_at_ms, device.unread, device.permitted) == ("k", NOW_MS + 9, 4, False)

    on_redis(redis_url, scenario)


def test_concurrent_registrations_of_devices_of_one_user_are_all_kept(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        stores = [stage.a_store() for _ in range(4)]
        await asyncio.gather(
            *(stores[n % 4].register(APP, "ann", f"d{n}", a_registration(f"t{n}")) for n in range(DEVICES_MAX))
        )
        assert len((await stage.store.user(APP, "ann")).devices) == DEVICES_MAX

    on_redis(redis_url, scenario)


def test_a_repeat_heals_a_registration_that_broke_off_anywhere(redis_url: str) -> None:
    """The process dies after its first, second … script; the same is said again by another."""

    async def scenario(stage: Stage) -> None:
        for steps in range(12):
            old, new, token = f"old{steps}", f"new{steps}", f"t{steps}"
            await stage.store.register(APP, old, "d1", a_registration(token, at_ms=100))
            left = steps

            class Dying(type(stage.link)):  # type: ignore[misc]
                async def pipeline(self, commands: object) -> object:
                    nonlocal left
                    left -= 1
                    if left < 0:
                        raise ConnectionError
                    return await super().pipeline(commands)

            link = Dying(stage.url)
            stage.links.append(link)
            try:
                await stage.a_store(link).register(APP, new, "d1", a_registration(token, at_ms=200))
            except ConnectionError:
                pass
            else:
                break
            await stage.store.register(APP, new, "d1", a_registration(token, at_ms=200))
            assert (await stage.tokens(old), await stage.tokens(new)) == ([], [token]), steps
            assert await stage.owner(token) == new
        else:
            raise AssertionError("a registration takes fewer round trips than that")
        assert steps > 3

    on_redis(redis_url, scenario)


def test_a_claimer_that_died_leaves_no_second_owner_when_the_token_moves_on(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.store.register(APP, "ann", "d1", a_registration("t1", at_ms=100))

        class Dying(type(stage.link)):  # type: ignore[misc]
            left = 1

            async def pipeline(self, commands: object) -> object:
                self.left -= 1
                if self.left < 0:
                    raise ConnectionError
                return await super().pipeline(commands)

        await stage.link.call("SCRIPT", "LOAD", "return 1")
        link = Dying(stage.url)
        stage.links.append(link)
        with pytest.raises(ConnectionError):
            await stage.a_store(link).register(APP, "bob", "d1", a_registration("t1", at_ms=200))
        await stage.store.register(APP, "eve", "d1", a_registration("t1", at_ms=300))
        assert [user for user in ("ann", "bob", "eve") if await stage.tokens(user)] == ["eve"]
        assert await stage.owner("t1") == "eve"

    on_redis(redis_url, scenario)


def test_many_registrations_take_few_round_trips(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.store.register(APP, "warm", "up", a_registration("w"))
        trips = 0
        pipeline = stage.link.pipeline

        async def counted(commands: object) -> object:
            nonlocal trips
            trips += 1
            return await pipeline(commands)  # type: ignore[arg-type]

        stage.link.pipeline = counted  # type: ignore[method-assign, assignment]
        done = await stage.store.register_many(
            [(APP, f"u{number}", "d1", a_registration(f"t{number}")) for number in range(300)]
        )
        assert trips <= 6
        assert all(isinstance(one, Registered) and one.applied for one in done)

    on_redis(redis_url, scenario)


def test_an_empty_batch_is_nothing(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        assert await stage.store.register_many([]) == []
        assert (await stage.store.report(APP, [])).applied == 0
        assert await stage.link.call("KEYS", "*") == []

    on_redis(redis_url, scenario)


def test_the_representation_of_what_was_given_shows_no_token() -> None:
    assert "secret" not in repr(ChannelGiven(vendor="apns", token="secret"))
    assert "secret" not in repr(a_registration("secret"))
