"""What a user wants altogether: when they are not to be disturbed, and what is stored of it."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from functools import cache
from zoneinfo import ZoneInfo

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.workers.tokens.support import APP, NOW_MS, PREFIX, Stage, a_registration, on_redis

from pushfleet_workers.tokens.keys import UserKeys
from pushfleet_workers.tokens.lookup import Lookup
from pushfleet_workers.tokens.preference_store import PreferenceStore
from pushfleet_workers.tokens.preferences import (
    DAY_S,
    PREFERENCES_FIELD,
    Preferences,
    Window,
    find_overlap,
    find_zone,
    is_quiet,
    read_preferences,
    repack_preferences,
)
from pushfleet_workers.tokens.store import OPTIONS_MAX, OptionsFull

NIGHT = (Window(22 * 3600, 9 * 3600),)


def at(text: str, zone: str = "UTC") -> int:
    """Unix milliseconds of a time that a clock in *zone* shows; ``+1`` behind it means the second time it does."""
    second = text.endswith("+1")
    wall = datetime.fromisoformat(text.removesuffix("+1")).replace(tzinfo=ZoneInfo(zone), fold=int(second))
    return int(wall.timestamp() * 1000)


# ---- do not disturb


@pytest.mark.parametrize(
    ("time", "quiet"),
    [
        ("2026-03-01T21:59:59", False),
        ("2026-03-01T22:00:00", True),
        ("2026-03-01T23:59:59", True),
        ("2026-03-02T00:00:00", True),
        ("2026-03-02T06:59:59", True),
        ("2026-03-02T07:00:00", False),
        ("2026-03-02T12:00:00", False),
    ],
)
def test_a_night_reaches_over_midnight(time: str, quiet: bool) -> None:
    assert is_quiet(Preferences(quiet_daily=NIGHT, time_zone="Asia/Shanghai"), "", at(time, "Asia/Shanghai")) is quiet


@pytest.mark.parametrize(
    ("own", "device", "quiet"),
    [
        ("Asia/Shanghai", "Europe/Berlin", True),
        ("", "Asia/Shanghai", True),
        ("", "Europe/Berlin", False),
        ("", "", False),
        ("", "Mars/Olympus", False),
        ("Gone/Zone", "Asia/Shanghai", False),
    ],
)
def test_whose_clock_it_goes_by(own: str, device: str, quiet: bool) -> None:
    # 23:00 in Shanghai, 16:00 in Berlin, 15:00 in UTC.
    assert is_quiet(Preferences(quiet_daily=NIGHT, time_zone=own), device, at("2026-03-01T15:00")) is quiet


def test_an_absolute_time_holds_until_it_comes() -> None:
    preferences = Preferences(quiet_until_ms=NOW_MS)
    assert is_quiet(preferences, "", NOW_MS - 1)
    assert not is_quiet(preferences, "", NOW_MS)


@pytest.mark.parametrize(
    ("window", "time", "quiet"),
    [
        # Clocks go from 02:00 to 03:00 on 29 March, and from 03:00 back to 02:00 on 25 October.
        (Window(2 * 3600 + 1800, 3600), "2026-03-29T01:59", False),
        (Window(2 * 3600 + 1800, 3600), "2026-03-29T03:00", True),
        (Window(2 * 3600 + 1800, 3600), "2026-03-29T03:30", False),
        (Window(2 * 3600, 3600), "2026-10-25T02:30", True),
        (Window(2 * 3600, 3600), "2026-10-25T02:30+1", True),
        (Window(2 * 3600, 3600), "2026-10-25T03:00", False),
        (Window(22 * 3600, 9 * 3600), "2026-03-29T06:59", True),
        (Window(22 * 3600, 9 * 3600), "2026-03-29T07:00", False),
        (Window(22 * 3600, 9 * 3600), "2026-10-25T06:59", True),
        (Window(22 * 3600, 9 * 3600), "2026-10-25T07:00", False),
    ],
)
def test_the_clock_on_the_wall_counts_when_clocks_change(window: Window, time: str, quiet: bool) -> None:
    preferences = Preferences(quiet_daily=(window,), time_zone="Europe/Berlin")
    assert is_quiet(preferences, "", at(time, "Europe/Berlin")) is quiet


@cache
def minutes_of_day(window: Window) -> frozenset[str]:
    """Every minute of the day that *window* covers, found by walking through it on a day without changes."""
    start = datetime(2000, 1, 1, tzinfo=UTC) + timedelta(seconds=window.start_s)
    return frozenset((start + timedelta(minutes=n)).strftime("%H:%M") for n in range(window.length_s // 60))


CHANGES = [
    ("Europe/Berlin", "2026-03-29"),
    ("Europe/Berlin", "2026-10-25"),
    ("America/New_York", "2026-03-08"),
    ("America/New_York", "2026-11-01"),
    ("Australia/Lord_Howe", "2026-04-05"),  # by half an hour
    ("America/Santiago", "2026-09-06"),  # at midnight
    ("Pacific/Apia", "2011-12-30"),  # a day that never was
    ("Asia/Shanghai", "2026-06-01"),
    ("Asia/Kathmandu", "2026-06-01"),
]
whole_minutes = st.builds(
    lambda start, length: Window(start * 60, length * 60), st.integers(0, 1_439), st.integers(1, 1_440)
)


@given(where=st.sampled_from(CHANGES), window=whole_minutes, first=st.integers(-1_440, 1_440))
def test_minute_by_minute_around_changes_of_the_clock(where: tuple[str, str], window: Window, first: int) -> None:
    zone, day = where
    preferences = Preferences(quiet_daily=(window,), time_zone=zone)
    start = datetime.fromisoformat(day).replace(tzinfo=UTC) + timedelta(minutes=first)
    covered = minutes_of_day(window)
    for number in range(0, 1_440, 7):
        moment = start + timedelta(minutes=number)
        shown = moment.astimezone(ZoneInfo(zone)).strftime("%H:%M")
        assert is_quiet(preferences, "", int(moment.timestamp() * 1000)) is (shown in covered), (zone, shown, window)


@given(windows=st.lists(whole_minutes, max_size=5))
def test_windows_overlap_when_they_share_a_minute(windows: list[Window]) -> None:
    seen: set[str] = set()
    expected = None
    for number, window in enumerate(windows):
        if expected is None and seen & minutes_of_day(window):
            expected = number
        seen |= minutes_of_day(window)
    assert find_overlap(windows) == expected


@pytest.mark.parametrize(
    "name",
    [
        *("", "Mars/Olympus", "../../etc/passwd", "/etc/passwd", "Europe", "a\0b", "x" * 41, "中"),
        *("localtime", "posixrules", "Factory", "posix/UTC", "right/Asia/Shanghai"),
    ],
)
def test_what_is_no_time_zone_is_none(name: str) -> None:
    assert find_zone(name) is None


@pytest.mark.parametrize("name", ["UTC", "Asia/Shanghai", "Asia/Calcutta", "US/Pacific", "America/Argentina/Ushuaia"])
def test_names_that_devices_report_are_known(name: str) -> None:
    assert find_zone(name) is not None


# ---- the record


sounds = st.none() | st.text(max_size=8)
preferences_strategy = st.builds(
    Preferences,
    push=st.booleans(),
    hide_text=st.booleans(),
    single_sound=sounds,
    group_sound=sounds,
    quiet_until_ms=st.integers(0, 2**48),
    quiet_daily=st.lists(st.builds(Window, st.integers(0, DAY_S - 1), st.integers(1, DAY_S)), max_size=3).map(tuple),
    time_zone=st.sampled_from(["", "Asia/Shanghai"]),
    calls_pass=st.booleans(),
    mentions_pass=st.booleans(),
)


@given(before=preferences_strategy, wanted=preferences_strategy)
def test_what_is_stored_is_read_again_whatever_was_there(before: Preferences, wanted: Preferences) -> None:
    stored = repack_preferences(None, before)
    assert (read_preferences(stored or None) or Preferences()) == before
    assert (read_preferences(repack_preferences(stored or None, wanted) or None) or Preferences()) == wanted


def test_who_wants_nothing_special_costs_nothing() -> None:
    assert repack_preferences(None, Preferences()) == b""
    assert repack_preferences(repack_preferences(None, Preferences(push=False)), Preferences()) == b""


def test_a_record_stays_small() -> None:
    assert len(repack_preferences(None, Preferences(quiet_daily=NIGHT, time_zone="Asia/Shanghai"))) <= 48


def test_what_a_newer_process_added_stays() -> None:
    window = [22 * 3600, 9 * 3600, "weekdays"]
    newer = msgspec.msgpack.encode([True, False, None, "ding", 0, [window], "", True, False, {"new": 1}])
    read = read_preferences(newer)
    assert read == Preferences(group_sound="ding", quiet_daily=NIGHT)
    changed = msgspec.msgpack.decode(repack_preferences(newer, msgspec.structs.replace(read, push=False)))
    assert changed == [False, False, None, "ding", 0, [window], "", True, False, {"new": 1}]
    others = msgspec.msgpack.decode(repack_preferences(newer, Preferences()))
    assert others == [True, False, None, None, 0, [], "", True, False, {"new": 1}]


def test_a_record_of_an_older_process_has_the_defaults_of_what_it_lacks() -> None:
    assert read_preferences(msgspec.msgpack.encode([False])) == Preferences(push=False)


@pytest.mark.parametrize(
    "stored", [b"", b"none", b"\x93", b"\xc1", msgspec.msgpack.encode({"push": False}), b"\x91\x01"]
)
def test_a_damaged_record_is_as_good_as_none_and_is_overwritten(
    stored: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    assert read_preferences(stored) is None
    assert "cannot be read" in caplog.text
    assert read_preferences(repack_preferences(stored, Preferences(push=False))) == Preferences(push=False)


# ---- in Redis


def test_the_lookup_brings_preferences_and_option_in_one_command(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        store, lookup = PreferenceStore(stage.link, PREFIX), Lookup(PREFIX)
        wanted = Preferences(push=False, group_sound="")
        await store.change(APP, "ann", lambda _: wanted)
        await stage.store.set_receive_option(APP, "ann", "room", "none")
        for conversation, receive in (("room", "none"), ("other", "all"), ("", "all")):
            commands = lookup.commands(APP, "ann", conversation)
            assert len(commands) == lookup.width == 2
            state = lookup.read(await stage.link.pipeline(commands))
            assert (state.preferences, state.receive_at(NOW_MS)) == (wanted, receive)
        assert (await store.get(APP, "ann")) == wanted
        assert (await store.get(APP, "bob")) == Preferences()
        # They are no option of a conversation.
        assert (await stage.store.user(APP, "ann")).options == {"room": ("none", 0)}

    on_redis(redis_url, scenario)


def test_they_live_and_go_with_the_user(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        store, key = PreferenceStore(stage.link, PREFIX), UserKeys(PREFIX, APP, "ann").options
        await store.change(APP, "ann", lambda _: Preferences(hide_text=True))
        assert await stage.link.call("TTL", key) > 200 * 86_400
        await stage.link.call("EXPIRE", key, 10)
        await stage.store.register(APP, "ann", "d1", a_registration("t1"))
        assert await stage.link.call("TTL", key) > 200 * 86_400
        await stage.store.forget_user(APP, "ann")
        assert await stage.link.call("EXISTS", key) == 0
        await store.change(APP, "ann", lambda _: Preferences(hide_text=True))
        await store.change(APP, "ann", lambda _: Preferences())
        assert await stage.link.call("EXISTS", key) == 0

    on_redis(redis_url, scenario)


def test_changes_at_once_lose_nothing(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        stores = [PreferenceStore(stage.link, PREFIX) for _ in range(8)]
        replace = msgspec.structs.replace
        await asyncio.gather(
            *(
                store.change(APP, "ann", lambda was: replace(was, quiet_until_ms=was.quiet_until_ms + 1))
                for store in stores
                for _ in range(5)
            )
        )
        assert (await stores[0].get(APP, "ann")).quiet_until_ms == 40

    on_redis(redis_url, scenario)


def test_a_change_that_is_refused_changes_nothing(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        store = PreferenceStore(stage.link, PREFIX)
        await store.change(APP, "ann", lambda _: Preferences(push=False))

        def refuse(_: Preferences) -> Preferences:
            raise ValueError("no")

        with pytest.raises(ValueError, match="no"):
            await store.change(APP, "ann", refuse)
        assert (await store.get(APP, "ann")) == Preferences(push=False)

    on_redis(redis_url, scenario)


def test_full_options_lose_what_is_over_and_never_the_preferences(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        store, key = PreferenceStore(stage.link, PREFIX), UserKeys(PREFIX, APP, "ann").options
        # Its last bytes look like the end of an option.
        wanted = Preferences(quiet_until_ms=1)
        await store.change(APP, "ann", lambda _: wanted)
        await stage.link.call("HSET", key, PREFERENCES_FIELD, msgspec.msgpack.encode([False]) + b"none:1")
        fields = [part for n in range(OPTIONS_MAX) for part in (f"c{n}", "none:1")]
        await stage.link.call("HSET", key, *fields)
        await stage.store.set_receive_option(APP, "ann", "new", "none")
        assert await stage.link.call("HLEN", key) == 2
        assert await stage.link.call("HEXISTS", key, PREFERENCES_FIELD) == 1
        await stage.link.call("HSET", key, *(part.replace("none:1", "none") for part in fields[2:]))
        with pytest.raises(OptionsFull):
            await stage.store.set_receive_option(APP, "ann", "newer", "none")

    on_redis(redis_url, scenario)
