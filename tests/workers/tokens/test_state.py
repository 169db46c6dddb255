"""Reports, deaths of tokens, receive options and badges."""

import asyncio
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.workers.tokens.support import (
    APP,
    LEASE_S,
    NOW_MS,
    PREFIX,
    Stage,
    a_registration,
    a_report,
    drop_token,
    on_redis,
)

from pushfleet_workers.redis_server import EmbeddedRedis
from pushfleet_workers.tokens.changes import Report
from pushfleet_workers.tokens.keys import UserKeys, device_field
from pushfleet_workers.tokens.lookup import Counted, Lookup, read_badges
from pushfleet_workers.tokens.store import OPTIONS_MAX, OptionsFull


async def badge(
    stage: Stage, message: str, user: str = "ann", device: str = "d1", sent_at_ms: int = NOW_MS - 1_000
) -> int:
    """The badge that the push of *message* shows."""
    calls = Lookup(PREFIX).badge_calls([Counted(APP, user, device, message, sent_at_ms)])
    (counted,) = read_badges(await stage.link.run_many(calls))
    return (await stage.device(user, device)).unread + counted


# ---- reports


@pytest.mark.parametrize(
    ("state", "unread", "expected"),
    [
        ("foreground", None, ("f", NOW_MS + 50, NOW_MS + 50 + LEASE_S * 1000, 0)),
        ("foreground", 9, ("f", NOW_MS + 50, NOW_MS + 50 + LEASE_S * 1000, 9)),
        ("background", 7, ("b", NOW_MS + 50, 0, 7)),
        ("background", None, ("b", NOW_MS + 50, 0, 3)),
        ("killed", None, ("k", NOW_MS + 50, 0, 3)),
        ("logged_out", None, ("o", NOW_MS + 50, 0, 3)),
    ],
)
def test_a_report_is_taken(redis_url: str, state: str, unread: int | None, expected: tuple[object, ...]) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.store.register(APP, "ann", "d1", a_registration(state="background", unread=3))
        stage.now_ms += 1_000
        done = await stage.store.report(APP, [a_report(state, NOW_MS + 50, unread)])
        assert (done.applied, done.outdated, done.unknown) == (1, 0, 0)
        device = await stage.device()
        assert (device.state, device.state_at_ms, device.lease_until_ms, device.unread) == expected
        assert await stage.tokens() == ["token-1"]

    on_redis(redis_url, scenario)


def test_a_report_without_a_time_is_of_now(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.store.register(APP, "ann", "d1", a_registration())
        stage.now_ms += 5
        await stage.store.report(APP, [a_report("foreground")])
        device = await stage.device()
        assert (device.state_at_ms, device.lease_until_ms) == (NOW_MS + 5, NOW_MS + 5 + LEASE_S * 1000)

    on_redis(redis_url, scenario)


def test_another_foreground_report_renews_the_lease(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.store.register(APP, "ann", "d1", a_registration(state="foreground"))
        stage.now_ms += 100_000
        await stage.store.report(APP, [a_report("foreground")])
        assert (await stage.device()).lease_until_ms == NOW_MS + 100_000 + LEASE_S * 1000
        await stage.store.report(APP, [a_report("background", stage.now_ms + 1)])
        assert (await stage.device()).lease_until_ms == 0

    on_redis(redis_url, scenario)


def test_an_older_report_changes_nothing(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.store.register(APP, "ann", "d1", a_registration(state="background", unread=3, at_ms=200))
        before = await stage.device()
        done = await stage.store.report(APP, [a_report("foreground", 100)])
        assert (done.applied, done.outdated) == (0, 1)
        assert await stage.device() == before

    on_redis(redis_url, scenario)


def test_unknown_devices_are_left_out_and_stay_unknown(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.store.register(APP, "ann", "d1", a_registration())
        done = await stage.store.report(
            APP,
            [
                a_report("background", device="d2"),
                a_report("background", user="nobody"),
                a_report("background", NOW_MS + 1),
            ],
        )
        assert (done.applied, done.outdated, done.unknown) == (1, 0, 2)
        assert list((await stage.store.user(APP, "ann")).devices) == ["d1"]
        assert not (await stage.store.user(APP, "nobody")).devices

    on_redis(redis_url, scenario)


def test_a_thousand_reports_at_once(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.store.register_many([(APP, f"u{n}", "d1", a_registration(f"t{n}")) for n in range(400)])
        reports = [a_report("background", NOW_MS + 1, 2, user=f"u{n}") for n in range(500)]
        reports += [a_report("killed", NOW_MS + 2, user=f"u{n}") for n in range(500)]
        random.Random(1).shuffle(reports)
        done = await stage.store.report(APP, reports)
        assert done.applied + done.outdated == 800
        assert done.unknown == 200
        for number in (0, 399):
            device = await stage.device(f"u{number}")
            assert (device.state, device.unread) == ("k", 2)

    on_redis(redis_url, scenario)


def test_a_thousand_reports_of_one_device_at_once(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.store.register(APP, "ann", "d1", a_registration(at_ms=1))
        times = list(range(2, 1_002))
        random.Random(2).shuffle(times)
        await stage.store.report(APP, [a_report("background", at_ms, at_ms) for at_ms in times])
        device = await stage.device()
        assert (device.state_at_ms, device.unread) == (1_001, 1_001)

    on_redis(redis_url, scenario)


REPORTS = st.lists(
    st.builds(
        Report,
        user=st.just("-"),
        device=st.just("d1"),
        state=st.sampled_from(["foreground", "background", "killed", "logged_out"]),
        unread=st.none() | st.integers(0, 9),
        at_ms=st.integers(1, 40),
    ),
    max_size=8,
)


@settings(deadline=None, max_examples=60)
@given(REPORTS, st.integers(1, 40), st.randoms(use_true_random=False), st.booleans())
def test_reports_in_any_order_end_as_sorted_by_time(
    redis_server: EmbeddedRedis, reports: list[Report], registered_at_ms: int, dice: random.Random, one_by_one: bool
) -> None:
    shuffled = list(reports)
    dice.shuffle(shuffled)

    async def scenario(stage: Stage) -> None:
        ends = []
        for user, some in (("sorted", sorted(reports, key=lambda one: one.at_ms)), ("shuffled", shuffled)):
            await stage.store.remove(APP, user, "d1")
            await stage.store.register(APP, user, "d1", a_registration(user, at_ms=registered_at_ms))
            mine = [Report(user=user, device="d1", state=one.state, unread=one.unread, at_ms=one.at_ms) for one in some]
            for batch in [[one] for one in mine] if one_by_one else [mine]:
                await stage.store.report(APP, batch)
            device = await stage.device(user)
            device.channels = []
            ends.append(device)
        assert ends[0] == ends[1]
        newest = max(
            (one.at_ms for one in reports if one.state != "logged_out" or one.at_ms >= registered_at_ms), default=0
        )
        assert ends[0].state_at_ms == newest

    on_redis(redis_server.url, scenario)


def test_an_unread_number_that_comes_after_a_later_state_still_counts(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.store.register(APP, "ann", "d1", a_registration(at_ms=1))
        await stage.store.report(APP, [a_report("killed", 20)])
        await stage.store.report(APP, [a_report("background", 10, 5)])
        device = await stage.device()
        assert (device.state, device.state_at_ms, device.unread) == ("k", 20, 5)
        await stage.store.report(APP, [a_report("background", 9, 8)])
        assert (await stage.device()).unread == 5

    on_redis(redis_url, scenario)


def test_a_logout_stops_until_the_next_registration(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.store.register(APP, "ann", "d1", a_registration(at_ms=100))
        assert await stage.store.logout(APP, "ann", "d1", 200)
        assert (await stage.device()).state == "o"
        assert not await stage.store.logout(APP, "ann", "d1", 50)
        assert not await stage.store.logout(APP, "ann", "d2", 200)

    on_redis(redis_url, scenario)


@pytest.mark.parametrize("state", ["foreground", "background", "killed"])
@pytest.mark.parametrize("logout_first", [True, False])
def test_what_is_reported_after_a_logout_does_not_end_it(redis_url: str, state: str, logout_first: bool) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.store.register(APP, "ann", "d1", a_registration(at_ms=100))
        reports = [a_report("logged_out", 200), a_report(state, 300, 4)]
        for report in reports if logout_first else reports[::-1]:
            assert (await stage.store.report(APP, [report])).applied == 1
        device = await stage.device()
        assert (device.logged_out, device.state_at_ms, device.unread) == (True, 300, 4)
        await stage.store.register(APP, "ann", "d1", a_registration(at_ms=150))
        assert (await stage.device()).logged_out
        await stage.store.register(APP, "ann", "d1", a_registration(at_ms=201))
        device = await stage.device()
        assert (device.logged_out, device.state_at_ms) == (False, 300)

    on_redis(redis_url, scenario)


# ---- deaths of tokens


@pytest.mark.parametrize(
    ("sent_to_ms", "since_ms", "dropped"),
    [
        (100, None, True),
        (50, None, False),
        (150, None, False),
        (50, 101, True),
        (100, 100, False),
        (100, 99, False),
    ],
)
def test_a_dead_token_goes_unless_it_registered_later(
    redis_url: str, sent_to_ms: int, since_ms: int | None, dropped: bool
) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.store.register(APP, "ann", "d1", a_registration("t1", "t2", at_ms=100))
        assert await drop_token(stage.store, APP, "ann", "d1", "t1", sent_to_ms, since_ms) is dropped
        assert await stage.tokens() == (["t2"] if dropped else ["t1", "t2"])
        assert await stage.owner("t1") == (None if dropped else "ann")

    on_redis(redis_url, scenario)


def test_news_of_a_token_that_registered_again_is_too_old(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.store.register(APP, "ann", "d1", a_registration("t1", at_ms=100))
        await stage.store.register(APP, "ann", "d1", a_registration("t1", at_ms=300))
        assert not await drop_token(stage.store, APP, "ann", "d1", "t1", 100, None)
        assert not await drop_token(stage.store, APP, "ann", "d1", "t1", 100, 200)
        assert await stage.tokens() == ["t1"]

    on_redis(redis_url, scenario)


def test_news_of_unknown_tokens_devices_and_users_changes_nothing(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.store.register(APP, "ann", "d1", a_registration("t1", at_ms=100))
        assert not await drop_token(stage.store, APP, "ann", "d1", "t2", 100, None)
        assert not await drop_token(stage.store, APP, "ann", "d2", "t1", 100, None)
        assert not await drop_token(stage.store, APP, "bob", "d1", "t1", 100, None)
        assert not await stage.store.mute_device(APP, "ann", "d2", stage.now_ms)
        assert await stage.tokens() == ["t1"]

    on_redis(redis_url, scenario)


def test_a_device_that_lost_its_last_token_keeps_its_state(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.store.register(APP, "ann", "d1", a_registration("t1", at_ms=100, state="background", unread=4))
        assert await drop_token(stage.store, APP, "ann", "d1", "t1", 100, None)
        device = await stage.device()
        assert (device.channels, device.state, device.unread) == ([], "b", 4)
        assert not (await stage.store.register(APP, "ann", "d1", a_registration("t0", at_ms=99))).applied
        assert (await stage.store.register(APP, "ann", "d1", a_registration("t2", at_ms=101))).applied
        assert await stage.tokens() == ["t2"]

    on_redis(redis_url, scenario)


def test_a_muted_device_shows_notifications_again_when_it_registers_so(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.store.register(APP, "ann", "d1", a_registration())
        assert await stage.store.mute_device(APP, "ann", "d1", stage.now_ms)
        assert not (await stage.device()).permitted
        await stage.store.report(APP, [a_report("background", NOW_MS + 1)])
        assert not (await stage.device()).permitted
        stage.now_ms += 1
        await stage.store.register(APP, "ann", "d1", a_registration())
        assert (await stage.device()).permitted

    on_redis(redis_url, scenario)


def test_a_mute_from_before_the_last_registration_does_not_hold(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.store.register(APP, "ann", "d1", a_registration(at_ms=100))
        await stage.store.register(APP, "ann", "d1", a_registration(at_ms=200))
        assert not await stage.store.mute_device(APP, "ann", "d1", 100)
        assert (await stage.device()).permitted
        assert await stage.store.mute_device(APP, "ann", "d1", 200)

    on_redis(redis_url, scenario)


# ---- receive options


def test_receive_options_are_set_and_forgotten(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.store.set_receive_option(APP, "ann", "room", "none")
        await stage.store.set_receive_option(APP, "ann", "群}:\n", "mentions", NOW_MS + 5)
        assert (await stage.store.user(APP, "ann")).options == {
            "room": ("none", 0),
            "群}:\n": ("mentions", NOW_MS + 5),
        }
        await stage.store.set_receive_option(APP, "ann", "room", "all")
        await stage.store.set_receive_option(APP, "ann", "群}:\n", "all")
        assert await stage.link.call("KEYS", "*") == []

    on_redis(redis_url, scenario)


def test_receive_options_are_bounded_and_those_over_make_room(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        key = UserKeys(PREFIX, APP, "ann").options
        await stage.link.pipeline([("HSET", key, f"c{n}", f"none:{NOW_MS + 10}") for n in range(OPTIONS_MAX)])
        with pytest.raises(OptionsFull):
            await stage.store.set_receive_option(APP, "ann", "one-more", "none")
        await stage.store.set_receive_option(APP, "ann", "c1", "none")
        stage.now_ms += 10
        await stage.store.set_receive_option(APP, "ann", "one-more", "none")
        assert set((await stage.store.user(APP, "ann")).options) == {"c1", "one-more"}

    on_redis(redis_url, scenario)


# ---- badges


def test_a_badge_counts_each_message_once(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.store.register(APP, "ann", "d1", a_registration(state="background", unread=3))
        shown = [await badge(stage, message) for message in ("m1", "m2", "m1", "m2", "m3")]
        assert shown == [4, 5, 5, 5, 6]

    on_redis(redis_url, scenario)


def test_badges_of_devices_and_users_are_apart(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        for user, device in (("ann", "d1"), ("ann", "d2"), ("bob", "d1")):
            await stage.store.register(APP, user, device, a_registration(f"{user}-{device}"))
        assert await badge(stage, "m1") == 1
        assert await badge(stage, "m2") == 2
        assert await badge(stage, "m1", device="d2") == 1
        assert await badge(stage, "m1", user="bob") == 1

    on_redis(redis_url, scenario)


@pytest.mark.parametrize(
    ("state", "unread", "shown"), [("background", 10, 11), ("foreground", None, 1), ("killed", None, 6)]
)
def test_a_new_base_ends_what_was_counted_on_the_old_one(
    redis_url: str, state: str, unread: int | None, shown: int
) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.store.register(APP, "ann", "d1", a_registration(state="background", unread=3))
        assert [await badge(stage, "m1"), await badge(stage, "m2")] == [4, 5]
        await stage.store.report(APP, [a_report(state, NOW_MS + 1, unread)])
        assert await badge(stage, "m3") == shown

    on_redis(redis_url, scenario)


def test_a_base_that_comes_late_or_twice_does_not_end_the_count(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.store.register(APP, "ann", "d1", a_registration(state="background", unread=3))
        assert await badge(stage, "m1") == 4
        await stage.store.report(APP, [a_report("background", NOW_MS, 3), a_report("background", NOW_MS - 9, 50)])
        assert await badge(stage, "m2") == 5

    on_redis(redis_url, scenario)


@pytest.mark.parametrize(("at_ms", "shown"), [(99, 8), (100, 7), (150, 7), (200, 6), (300, 5), (400, 5)])
def test_a_base_ends_the_count_of_what_was_written_until_then(redis_url: str, at_ms: int, shown: int) -> None:
    """Times in units that a badge tells apart; one message is routed later than a newer one."""

    async def scenario(stage: Stage) -> None:
        start_ms = NOW_MS - 60_000
        await stage.store.register(APP, "ann", "d1", a_registration(state="background", unread=0, at_ms=start_ms))
        for message, sent_at in (("m1", 100), ("m3", 300), ("m2", 200)):
            await badge(stage, message, sent_at_ms=start_ms + 16 * sent_at)
        await stage.store.report(APP, [a_report("background", start_ms + 16 * at_ms, 4)])
        assert await badge(stage, "m2", sent_at_ms=start_ms + 16 * 200) == shown - 1
        assert await badge(stage, "m4", sent_at_ms=start_ms + 16 * 500) == shown
        await stage.store.report(APP, [a_report("foreground", start_ms + 16 * 501)])
        assert await badge(stage, "m5", sent_at_ms=start_ms + 16 * 502) == 1

    on_redis(redis_url, scenario)


@pytest.mark.parametrize(("counted", "shown"), [(63, 64), (64, 64), (200, 64)])
def test_a_base_that_is_older_than_all_that_is_remembered_keeps_no_more(
    redis_url: str, counted: int, shown: int
) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.store.register(APP, "ann", "d1", a_registration(state="background", at_ms=NOW_MS - 60_000))
        for number in range(counted):
            await badge(stage, f"m{number}")
        await stage.store.report(APP, [a_report("background", NOW_MS - 30_000, 0)])
        assert await badge(stage, "new") == shown

    on_redis(redis_url, scenario)


@pytest.mark.parametrize("age_days", [50, 300])
def test_what_was_counted_long_ago_ends_all_the_same(redis_url: str, age_days: int) -> None:
    async def scenario(stage: Stage) -> None:
        long_ago_ms = NOW_MS - age_days * 86_400_000
        await stage.store.register(APP, "ann", "d1", a_registration(state="background", at_ms=long_ago_ms))
        assert await badge(stage, "m1", sent_at_ms=long_ago_ms + 1_000) == 1
        await stage.store.report(APP, [a_report("foreground", NOW_MS)])
        assert await badge(stage, "m2", sent_at_ms=NOW_MS + 1_000) == 1

    on_redis(redis_url, scenario)


def test_a_registration_without_a_state_does_not_end_the_count(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.store.register(APP, "ann", "d1", a_registration("t1", state="background", unread=3))
        assert await badge(stage, "m1") == 4
        stage.now_ms += 1
        await stage.store.register(APP, "ann", "d1", a_registration("t2"))
        assert await badge(stage, "m2") == 5

    on_redis(redis_url, scenario)


def test_older_messages_that_are_routed_again_do_not_count(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.store.register(APP, "ann", "d1", a_registration())
        messages = [f"m{number}" for number in range(63)]
        for message in messages:
            await badge(stage, message)
        dice = random.Random(3)
        assert {await badge(stage, dice.choice(messages)) for _ in range(100)} == {63}

    on_redis(redis_url, scenario)


def test_a_message_that_counted_before_a_new_base_does_not_count_after_it(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.store.register(APP, "ann", "d1", a_registration())
        await badge(stage, "m1")
        await stage.store.report(APP, [a_report("background", NOW_MS + 1, 1)])
        assert await badge(stage, "m1") == 1

    on_redis(redis_url, scenario)


def test_the_memory_of_a_badge_is_bounded(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.store.register(APP, "ann", "d1", a_registration())
        pushes = [Counted(APP, "ann", "d1", f"m{number}", NOW_MS) for number in range(2_000)]
        calls = Lookup(PREFIX).badge_calls(pushes)
        assert read_badges(await stage.link.run_many(calls)) == list(range(1, 2_001))
        key = UserKeys(PREFIX, APP, "ann").badges
        assert await stage.link.call("HSTRLEN", key, device_field("d1")) <= 512
        assert await stage.link.call("OBJECT", "ENCODING", key) == b"listpack"
        assert await stage.link.call("TTL", key) > 0

    on_redis(redis_url, scenario)


def test_concurrent_counts_of_a_badge_lose_nothing(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.store.register(APP, "ann", "d1", a_registration())
        pushes = [Counted(APP, "ann", "d1", f"m{number % 50}", NOW_MS) for number in range(200)]
        calls = [call for push in pushes for call in Lookup(PREFIX).badge_calls([push])]
        stores = [stage.a_store() for _ in range(4)]
        assert stores
        counted = read_badges(await asyncio.gather(*(stage.links[n % 5].run(*call) for n, call in enumerate(calls))))
        assert max(counted) == 50

    on_redis(redis_url, scenario)


def test_a_removed_device_leaves_no_badge(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.store.register(APP, "ann", "d1", a_registration())
        await badge(stage, "m1")
        await stage.store.remove(APP, "ann", "d1")
        assert await stage.link.call("KEYS", "*") == []

    on_redis(redis_url, scenario)
