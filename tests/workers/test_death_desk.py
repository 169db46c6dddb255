"""Bringing dead tokens back, deciding on guarded accounts, and forgetting users."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from tests.workers.tokens.deaths_support import ACCOUNT, DATED, DEAD, DOUBTFUL, Hall, in_hall
from tests.workers.tokens.support import APP, NOW_MS, PREFIX, a_registration

from pushfleet_workers.death_desk import DeathDesk, Decided, RestoreDone
from pushfleet_workers.tokens.death_log import START, Filter
from pushfleet_workers.tokens.record import Channel
from pushfleet_workers.tokens.tombstones import LIFE_S

ALL = Filter()


def a_desk(hall: Hall) -> DeathDesk:
    return DeathDesk(hall.link, hall.link, PREFIX, hall.limits, lambda: hall.now_ms)


async def restored(hall: Hall, wanted: Filter = ALL, **more: Any) -> RestoreDone:
    return await a_desk(hall).restore(APP, wanted, 1_000, **more)


# ---- restoring


def test_a_dropped_token_comes_back_where_it_was(redis_url: str) -> None:
    async def scenario(hall: Hall) -> None:
        await hall.register("ann", "t1", "t2", "t3")
        before = await hall.device()
        await hall.answer(("ann", "t2", DATED))
        assert await hall.owner("t2") is None
        assert await restored(hall) == RestoreDone(restored=1)
        assert await hall.device() == before
        assert await hall.owner("t2") == "ann"
        assert await hall.fates() == [("ann", "dropped"), ("ann", "restored")]
        assert await restored(hall) == RestoreDone(unknown=1)

    in_hall(redis_url, scenario)


def test_a_device_that_lost_all_its_tokens_gets_them_back(redis_url: str) -> None:
    async def scenario(hall: Hall) -> None:
        device = "0a1b2c3d-0000-4000-8000-00000000000f"
        await hall.store.register(APP, "ann", device, a_registration("t1", "t2", at_ms=NOW_MS))
        for token in ("t1", "t2"):
            assert await hall.feedback.tell_of_token(APP, *ACCOUNT, token, DEAD, NOW_MS + 1)
        assert await hall.tokens("ann", device) == []
        assert await restored(hall) == RestoreDone(restored=2)
        assert sorted(await hall.tokens("ann", device)) == ["t1", "t2"]

    in_hall(redis_url, scenario)


def test_a_restored_token_that_dies_again_dies_again(redis_url: str) -> None:
    async def scenario(hall: Hall) -> None:
        await hall.register("ann", "t1")
        for _ in range(2):
            await hall.answer(("ann", "t1", DATED))
            assert await hall.tokens() == []
            assert await restored(hall) == RestoreDone(restored=1)
            assert await hall.tokens() == ["t1"]

    in_hall(redis_url, scenario)


def test_to_restore_a_quarantined_token_is_to_pass_it_over_no_more(redis_url: str) -> None:
    async def scenario(hall: Hall) -> None:
        await hall.register("ann", "t1")
        await hall.answer(("ann", "t1", DOUBTFUL))
        assert await restored(hall) == RestoreDone(restored=1)
        assert await hall.until() == [0]
        assert await hall.deaths.ward.occupied([ACCOUNT]) == {}

    in_hall(redis_url, scenario)


def test_what_has_changed_since_stays_as_it_is(redis_url: str) -> None:
    async def scenario(hall: Hall) -> None:
        for user in ("anew", "moved", "gone", "same"):
            await hall.register(user, f"t-{user}")
            await hall.answer((user, f"t-{user}", DATED))
        later = NOW_MS + 5
        await hall.store.register(APP, "anew", "d1", a_registration("t-new", at_ms=later))
        await hall.store.register(APP, "thief", "d1", a_registration("t-moved", at_ms=later))
        await hall.store.remove(APP, "gone", "d1")
        await hall.store.register(APP, "same", "d1", a_registration("t-same", at_ms=later))
        assert await restored(hall) == RestoreDone(outdated=2, taken=1, no_device=1)
        assert await hall.tokens("anew") == ["t-new"]
        assert (await hall.tokens("thief"), await hall.owner("t-moved")) == (["t-moved"], "thief")
        assert (await hall.tokens("same"), await hall.owner("t-same")) == (["t-same"], "same")
        assert await hall.owner("t-gone") is None
        assert await hall.owner("t-anew") is None

    in_hall(redis_url, scenario)


def test_a_dry_run_changes_nothing(redis_url: str) -> None:
    async def scenario(hall: Hall) -> None:
        await hall.register("ann", "t1", "t2")
        await hall.answer(("ann", "t1", DATED))
        assert await restored(hall, dry_run=True) == RestoreDone(restored=1)
        assert await hall.tokens() == ["t2"]

    in_hall(redis_url, scenario)


@pytest.mark.parametrize(
    ("wanted", "back"),
    [
        (Filter(), {"t1", "t2"}),
        (Filter(user="ann"), {"t1"}),
        (Filter(code="BadDeviceToken"), {"t2"}),
        (Filter(vendor="apns", credential="main"), {"t1", "t2"}),
        (Filter(vendor="fcm"), set()),
        (Filter(credential="other"), set()),
        (Filter(since_ms=1), {"t1", "t2"}),
        (Filter(until_ms=1), set()),
        (Filter(since_ms=2**43), set()),
        (Filter(until_ms=2**43), {"t1", "t2"}),
    ],
)
def test_filters_say_which_are_meant(redis_url: str, wanted: Filter, back: set[str]) -> None:
    async def scenario(hall: Hall) -> None:
        await hall.register("ann", "t1")
        await hall.register("bob", "t2")
        await hall.answer(("ann", "t1", DATED))
        await hall.answer(("bob", "t2", replace(DATED, code="BadDeviceToken")))
        assert (await restored(hall, wanted)).restored == len(back)
        assert {*await hall.tokens("ann"), *await hall.tokens("bob")} == back

    in_hall(redis_url, scenario)


def test_after_thirty_days_or_64_more_a_tombstone_is_gone(redis_url: str) -> None:
    async def scenario(hall: Hall) -> None:
        dead = f"{PREFIX}:{{u:{APP}:ann}}:dead"
        for number in range(70):
            at_ms = NOW_MS + number
            hall.now_ms = at_ms
            await hall.store.register(APP, "ann", "d1", a_registration(f"t{number}", at_ms=at_ms))
            await hall.feedback.tell_of_token(APP, *ACCOUNT, f"t{number}", replace(DEAD, since_ms=at_ms + 1), 0)
        assert await hall.link.call("HLEN", dead) == 64
        assert LIFE_S - 5 < await hall.link.call("TTL", dead) <= LIFE_S
        hall.now_ms += LIFE_S * 1000
        await hall.store.register(APP, "ann", "d1", a_registration("t", at_ms=hall.now_ms))
        await hall.feedback.tell_of_token(APP, *ACCOUNT, "t", replace(DEAD, since_ms=hall.now_ms + 1), 0)
        assert await hall.link.call("HLEN", dead) == 2, "the last one of those before, and the new one"

    in_hall(redis_url, scenario)


# ---- the log


def test_the_log_is_read_on_with_its_cursor(redis_url: str) -> None:
    async def scenario(hall: Hall) -> None:
        for number in range(7):
            await hall.register(f"u{number}", f"t{number}")
            await hall.answer((f"u{number}", f"t{number}", DATED))
        desk, seen, cursor, more = a_desk(hall), [], START, True
        while more:
            page = await desk.page(APP, cursor, 3, ALL)
            seen += [one.user for one in page.deaths]
            cursor, more = page.cursor, page.more
        assert seen == [f"u{number}" for number in range(7)]
        assert (await desk.page(APP, cursor, 3, ALL)).cursor == cursor
        assert [one.user for one in (await desk.page(APP, START, 3, Filter(user="u6"))).deaths] == ["u6"]
        assert [one.user for one in await desk.newest(APP, ALL, 2)] == ["u6", "u5"]

    in_hall(redis_url, scenario)


def test_a_page_looks_at_so_many_and_no_further(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pushfleet_workers.death_desk._SCANNED_MAX", 4)

    async def scenario(hall: Hall) -> None:
        for number in range(6):
            await hall.register(f"u{number}", f"t{number}")
            await hall.answer((f"u{number}", f"t{number}", DATED))
        first = await a_desk(hall).page(APP, START, 2, Filter(user="u5"))
        assert (first.deaths, first.more) == ([], True)
        second = await a_desk(hall).page(APP, first.cursor, 2, Filter(user="u5"))
        assert [one.user for one in second.deaths] == ["u5"]

    in_hall(redis_url, scenario)


def test_the_log_keeps_about_as_much_as_was_set(redis_url: str) -> None:
    async def scenario(hall: Hall) -> None:
        told = [(f"token-{number}", "x", None) for number in range(3_000)]
        await hall.deaths.report(APP, *ACCOUNT, told)
        assert 1_000 <= await hall.link.call("XLEN", f"{PREFIX}:{{deaths:{APP}}}") < 1_200

    in_hall(redis_url, scenario, kept_max=1_000)


def test_entries_that_are_none_of_ours_hold_up_nobody(redis_url: str) -> None:
    async def scenario(hall: Hall) -> None:
        key = f"{PREFIX}:{{deaths:{APP}}}"
        await hall.link.call("XADD", key, "*", "colour", "red")
        await hall.link.call("XADD", key, "*", b"\xff", b"\xfe")
        await hall.register("ann", "t1")
        await hall.answer(("ann", "t1", DATED))
        page = await a_desk(hall).page(APP, START, 1, ALL)
        assert [one.user for one in page.deaths] == ["ann"]

    in_hall(redis_url, scenario)


# ---- accounts


async def wave(hall: Hall, count: int = 6) -> None:
    for number in range(count):
        await hall.register(f"u{number}", f"w{number}")
        await hall.answer((f"u{number}", f"w{number}", DEAD))


async def another_millisecond(hall: Hall) -> None:
    """By Redis' clock, which the log and the window go by."""

    async def now_ms() -> int:
        seconds, micros = await hall.link.call("TIME")
        return int(seconds) * 1000 + int(micros) // 1000

    before = await now_ms()
    while await now_ms() == before:
        pass


async def left(hall: Hall, count: int = 6) -> list[str]:
    return [f"u{number}" for number in range(count) if await hall.tokens(f"u{number}")]


def test_a_guarded_account_is_shown(redis_url: str) -> None:
    async def scenario(hall: Hall) -> None:
        await wave(hall)
        (shown,) = await a_desk(hall).accounts([ACCOUNT, ("huawei", "main")])
        assert (shown.vendor, shown.credential, shown.quarantined) == ("apns", "main", 3)
        assert (shown.window_deaths, shown.window_accepted) == (6, 0)
        assert shown.guarded_since_ms

    in_hall(redis_url, scenario)


def test_to_confirm_drops_what_is_passed_over_and_resets_the_guard(redis_url: str) -> None:
    async def scenario(hall: Hall) -> None:
        await wave(hall)
        assert await left(hall) == ["u3", "u4", "u5"]
        assert await a_desk(hall).decide(APP, *ACCOUNT, "confirm", 1_000) == Decided(dropped=3)
        assert await left(hall) == []
        assert not (await hall.watch.weigh(*ACCOUNT)).guarded_since_ms
        assert await a_desk(hall).accounts([ACCOUNT]) == []
        # They can still be brought back.
        assert await restored(hall) == RestoreDone(restored=6)

    in_hall(redis_url, scenario)


def test_to_lift_brings_back_what_is_passed_over_and_what_the_wave_took_before(redis_url: str) -> None:
    async def scenario(hall: Hall) -> None:
        await hall.register("dated", "t-dated")
        await hall.answer(("dated", "t-dated", DATED))
        await wave(hall)
        assert await a_desk(hall).decide(APP, *ACCOUNT, "lift", 1_000) == Decided(restored=6)
        assert await left(hall) == [f"u{number}" for number in range(6)]
        assert {one for number in range(6) for one in await hall.until(f"u{number}")} == {0}
        assert await hall.tokens("dated") == [], "its vendor was sure"
        assert not (await hall.watch.weigh(*ACCOUNT)).guarded_since_ms

    in_hall(redis_url, scenario)


def test_to_lift_leaves_alone_what_died_before_the_wave(redis_url: str) -> None:
    async def scenario(hall: Hall) -> None:
        await hall.register("old", "t-old")
        await hall.answer(("old", "t-old", DEAD))
        await hall.watch.release(*ACCOUNT)
        await another_millisecond(hall)
        await wave(hall)
        await a_desk(hall).decide(APP, *ACCOUNT, "lift", 1_000)
        assert await hall.tokens("old") == []

    in_hall(redis_url, scenario)


@pytest.mark.parametrize("decision", ["confirm", "lift"])
def test_a_decision_in_several_goes_holds_the_guard_until_the_last(redis_url: str, decision: Any) -> None:
    async def scenario(hall: Hall) -> None:
        await wave(hall, 9)
        goes, more = 0, True
        while more:
            assert (await hall.watch.weigh(*ACCOUNT)).guarded_since_ms
            more = (await a_desk(hall).decide(APP, *ACCOUNT, decision, 2)).more
            goes += 1
        assert goes >= 3
        assert not (await hall.watch.weigh(*ACCOUNT)).guarded_since_ms

    in_hall(redis_url, scenario)


def test_a_device_that_registered_its_token_anew_survives_a_confirmation(redis_url: str) -> None:
    async def scenario(hall: Hall) -> None:
        await wave(hall)
        await hall.store.register(APP, "u5", "d1", a_registration("w5", at_ms=NOW_MS + 1))
        assert await a_desk(hall).decide(APP, *ACCOUNT, "confirm", 1_000) == Decided(dropped=2, other=1)
        (channel,) = (await hall.device("u5")).channels
        assert channel == Channel("apns", "main", "w5", NOW_MS + 1)

    in_hall(redis_url, scenario)
