"""What becomes of a token that its vendor calls dead: dropped, passed over, or kept; and the guard against waves."""

from __future__ import annotations

import logging
from dataclasses import replace

import pytest
from tests.workers.tokens.deaths_support import ACCOUNT, DATED, DEAD, DOUBTFUL, OK, Hall, in_hall
from tests.workers.tokens.support import APP, NOW_MS, PREFIX, a_registration

from pushfleet_workers.ledger import AccountKeys
from pushfleet_workers.outcome import Outcome, Verdict
from pushfleet_workers.push import Delivery, fingerprint
from pushfleet_workers.tokens.death_log import token_digest
from pushfleet_workers.tokens.tombstones import LIFE_S

SECRET = "a-token-that-nobody-may-read-0123456789"


def a_delivery(user: str = "ann", registered_at_ms: int = 100) -> Delivery:
    return Delivery(b"x" * 16, user, "d1", "t1", registered_at_ms)


@pytest.mark.parametrize(
    ("outcome", "tokens", "permitted"),
    [
        (Outcome(Verdict.DROP_TOKEN), ["t2"], True),
        (Outcome(Verdict.DROP_TOKEN, since_ms=101), ["t2"], True),
        (Outcome(Verdict.DROP_TOKEN, since_ms=100), ["t1", "t2"], True),
        (Outcome(Verdict.DROP_TOKEN, doubtful=True), ["t1", "t2"], True),
        (Outcome(Verdict.MUTE_DEVICE), ["t1", "t2"], False),
        (Outcome(Verdict.RETRY), ["t1", "t2"], True),
        (Outcome(Verdict.OK), ["t1", "t2"], True),
    ],
)
def test_the_courier_tells_what_vendors_say_of_a_device(
    redis_url: str, outcome: Outcome, tokens: list[str], permitted: bool
) -> None:
    async def scenario(hall: Hall) -> None:
        await hall.store.register(APP, "ann", "d1", a_registration("t1", "t2", at_ms=100))
        await hall.feedback.tell(*ACCOUNT, APP, [a_delivery()], [outcome])
        assert await hall.tokens() == tokens
        assert (await hall.device()).permitted is permitted

    in_hall(redis_url, scenario)


@pytest.mark.parametrize("verdict", [Verdict.DROP_TOKEN, Verdict.MUTE_DEVICE])
@pytest.mark.parametrize("delivery", [a_delivery(user=""), a_delivery(user="nobody"), a_delivery(registered_at_ms=99)])
def test_feedback_about_strangers_or_out_of_date_changes_nothing(
    redis_url: str, verdict: Verdict, delivery: Delivery
) -> None:
    async def scenario(hall: Hall) -> None:
        await hall.store.register(APP, "ann", "d1", a_registration("t1", at_ms=100))
        before = await hall.device()
        await hall.feedback.tell(*ACCOUNT, APP, [delivery], [Outcome(verdict)])
        assert await hall.device() == before
        assert await hall.store.user(APP, "nobody") == await hall.store.user(APP, "")

    in_hall(redis_url, scenario)


def test_an_answer_without_deaths_asks_nothing_of_redis(redis_url: str) -> None:
    async def scenario(hall: Hall) -> None:
        await hall.link.call("CONFIG", "RESETSTAT")
        await hall.answer(("ann", "t1", OK), ("bob", "t2", Outcome(Verdict.RETRY)))
        calls = await hall.link.call("INFO", "commandstats")
        assert b"evalsha" not in calls
        assert b"hget" not in calls

    in_hall(redis_url, scenario)


# ---- what is told


def test_a_death_is_told_with_all_that_a_backend_needs_and_without_the_token(redis_url: str) -> None:
    async def scenario(hall: Hall) -> None:
        await hall.register("张伟", SECRET)
        await hall.answer(("张伟", SECRET, DATED))
        (one,) = await hall.told()
        assert (one.fate, one.user, one.device, one.vendor, one.credential) == (
            "dropped", "张伟", "d1", "apns", "main",
        )  # fmt: skip
        assert (one.kind, one.code, one.since_ms, one.at_ms) == ("alert", "Unregistered", NOW_MS + 1, NOW_MS)
        assert (one.token_fingerprint, one.token_sha256) == (fingerprint(SECRET), token_digest(SECRET))
        raw = await hall.link.call("XRANGE", f"{PREFIX}:{{deaths:{APP}}}", "-", "+")
        assert SECRET.encode() not in repr(raw).encode()

    in_hall(redis_url, scenario)


def test_a_token_that_was_addressed_directly_is_only_told_of(redis_url: str) -> None:
    async def scenario(hall: Hall) -> None:
        await hall.answer(("", SECRET, replace(DEAD, since_ms=7)))
        (one,) = await hall.told()
        assert (one.fate, one.user, one.token_sha256, one.since_ms) == ("reported", "", token_digest(SECRET), 7)
        assert await hall.link.call("KEYS", f"{PREFIX}:{{u:*") == []

    in_hall(redis_url, scenario)


def test_a_death_that_several_answers_tell_is_told_once(redis_url: str) -> None:
    async def scenario(hall: Hall) -> None:
        await hall.register("ann", "t1", "t2")
        for _ in range(3):
            await hall.answer(("ann", "t1", DATED))
            await hall.answer(("ann", "t2", DOUBTFUL))
        assert await hall.fates() == [("ann", "dropped"), ("ann", "quarantined")]

    in_hall(redis_url, scenario)


def test_what_a_process_died_before_telling_is_told_by_the_next(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(hall: Hall) -> None:
        await hall.register("ann", "t1")
        add = hall.feedback._deaths.log.add

        async def dies(*_: object) -> None:
            raise ConnectionError

        monkeypatch.setattr(hall.feedback._deaths.log, "add", dies)
        with pytest.raises(ConnectionError):
            await hall.answer(("ann", "t1", DATED))
        assert await hall.tokens() == []
        monkeypatch.setattr(hall.feedback._deaths.log, "add", add)
        # The lease of the process runs out, and the delivery is sent again.
        hall.now_ms += 15_000
        await hall.answer(("ann", "t1", DATED))
        await hall.answer(("ann", "t1", DATED))
        assert await hall.fates() == [("ann", "dropped")]

    in_hall(redis_url, scenario)


# ---- doubt


def test_a_doubtful_death_is_passed_over_at_once_and_for_as_long_as_was_set(redis_url: str) -> None:
    async def scenario(hall: Hall) -> None:
        await hall.register("ann", "t1", "t2")
        await hall.answer(("ann", "t1", DOUBTFUL))
        assert await hall.until() == [NOW_MS + 90_000, 0]
        assert await hall.deaths.ward.occupied([ACCOUNT, ("apns", "other")]) == {ACCOUNT: 1}

    in_hall(redis_url, scenario, quarantine_s=90)


def test_a_certain_death_ends_a_quarantine(redis_url: str) -> None:
    async def scenario(hall: Hall) -> None:
        await hall.register("ann", "t1")
        await hall.answer(("ann", "t1", DOUBTFUL))
        await hall.answer(("ann", "t1", DATED))
        assert await hall.tokens() == []
        assert await hall.fates() == [("ann", "quarantined"), ("ann", "dropped")]

    in_hall(redis_url, scenario)


def test_a_quarantine_that_ran_out_begins_anew_with_the_next_doubtful_death(redis_url: str) -> None:
    async def scenario(hall: Hall) -> None:
        await hall.register("ann", "t1")
        await hall.answer(("ann", "t1", DOUBTFUL))
        hall.now_ms += 91_000
        await hall.answer(("ann", "t1", DOUBTFUL))
        assert await hall.until() == [NOW_MS + 181_000]

    in_hall(redis_url, scenario, quarantine_s=90)


# ---- the guard


async def wave(hall: Hall, count: int, outcome: Outcome = DEAD, start: int = 0) -> None:
    """That many users' tokens die, one answer each."""
    for number in range(start, start + count):
        await hall.register(f"u{number}", f"w{number}")
        await hall.answer((f"u{number}", f"w{number}", outcome))


def test_a_wave_of_undated_deaths_trips_the_guard_and_nothing_is_dropped_any_more(
    redis_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario(hall: Hall) -> None:
        await wave(hall, 6)
        assert [fate for _, fate in await hall.fates()] == ["dropped"] * 3 + ["quarantined"] * 3
        assert (await hall.watch.weigh(*ACCOUNT)).guarded_since_ms
        # Dated ones, and those of other processes, are not dropped either.
        other = Hall(redis_url)
        hall.links += other.links
        await other.register("ann", "t1")
        await other.answer(("ann", "t1", DATED))
        assert await hall.until() == [NOW_MS + LIFE_S * 1000]

    with caplog.at_level(logging.ERROR):
        in_hall(redis_url, scenario)
    (record,) = caplog.records
    assert "apns:main calls many tokens dead" in record.message
    assert "pushfleet tokens lift apns main" in record.message
    assert "w3" not in record.message


def test_other_accounts_go_on_while_one_is_guarded(redis_url: str) -> None:
    async def scenario(hall: Hall) -> None:
        await wave(hall, 5)
        await hall.register("ann", "t1")
        delivery = Delivery(b"x" * 16, "ann", "d1", "t1", NOW_MS)
        await hall.feedback.tell("apns", "other", APP, [delivery], [DEAD])
        assert await hall.tokens() == []

    in_hall(redis_url, scenario)


def test_a_batch_that_is_a_wave_by_itself_costs_no_token(redis_url: str) -> None:
    async def scenario(hall: Hall) -> None:
        for number in range(50):
            await hall.register(f"u{number}", f"w{number}")
        await hall.answer(*[(f"u{number}", f"w{number}", DEAD) for number in range(50)])
        assert {fate for _, fate in await hall.fates()} == {"quarantined"}
        assert await hall.deaths.ward.occupied([ACCOUNT]) == {ACCOUNT: 50}

    in_hall(redis_url, scenario)


def test_deaths_among_many_acceptances_of_the_same_answer_are_no_wave(redis_url: str) -> None:
    async def scenario(hall: Hall) -> None:
        for number in range(10):
            await hall.register(f"u{number}", f"w{number}")
        good = [("nobody", f"g{number}", OK) for number in range(90)]
        await hall.answer(*[(f"u{number}", f"w{number}", DEAD) for number in range(10)], *good)
        assert {fate for _, fate in await hall.fates()} == {"dropped"}

    in_hall(redis_url, scenario)


@pytest.mark.parametrize(("accepted", "tripped"), [(0, True), (11, True), (12, False), (1_000, False)])
def test_the_guard_goes_by_the_share_of_what_was_answered(redis_url: str, accepted: int, tripped: bool) -> None:
    async def scenario(hall: Hall) -> None:
        await wave(hall, 3)
        await hall.accept(accepted)
        await wave(hall, 1, start=3)
        standing = await hall.watch.weigh(*ACCOUNT)
        assert (standing.window_deaths, standing.window_accepted) == (4, accepted)
        assert bool(standing.guarded_since_ms) is tripped

    in_hall(redis_url, scenario, guard_share=0.25)


def test_up_to_the_floor_no_share_trips_the_guard(redis_url: str) -> None:
    async def scenario(hall: Hall) -> None:
        await wave(hall, 3)
        assert not (await hall.watch.weigh(*ACCOUNT)).guarded_since_ms

    in_hall(redis_url, scenario)


def test_dated_deaths_are_no_wave_however_many(redis_url: str) -> None:
    async def scenario(hall: Hall) -> None:
        await wave(hall, 20, DATED)
        assert {fate for _, fate in await hall.fates()} == {"dropped"}
        assert await hall.link.call("EXISTS", AccountKeys(PREFIX, *ACCOUNT).deaths) == 0

    in_hall(redis_url, scenario)


def test_doubtful_deaths_make_a_wave_as_well(redis_url: str) -> None:
    async def scenario(hall: Hall) -> None:
        await wave(hall, 4, DOUBTFUL)
        assert (await hall.watch.weigh(*ACCOUNT)).guarded_since_ms

    in_hall(redis_url, scenario)


def test_what_left_the_window_does_not_count(redis_url: str) -> None:
    async def scenario(hall: Hall) -> None:
        await wave(hall, 3)
        key = AccountKeys(PREFIX, *ACCOUNT).deaths
        # As if these had been heard eleven buckets ago.
        (bucket,) = [name for name in await hall.link.call("HKEYS", key) if name.startswith(b"b:")]
        value = await hall.link.call("HGET", key, bucket)
        await hall.link.call("HDEL", key, bucket)
        await hall.link.call("HSET", key, b"b:%d" % (int(bucket[2:]) - 11), value)
        await wave(hall, 1, start=3)
        standing = await hall.watch.weigh(*ACCOUNT)
        assert (standing.window_deaths, standing.deaths, standing.guarded_since_ms) == (1, 4, 0)
        assert len([name for name in await hall.link.call("HKEYS", key) if name.startswith(b"b:")]) == 1

    # A window so long that no bucket ends while the test runs.
    in_hall(redis_url, scenario, window_s=86_400)


def test_an_account_that_nobody_hears_of_is_forgotten_but_a_guard_is_not(redis_url: str) -> None:
    async def scenario(hall: Hall) -> None:
        key = AccountKeys(PREFIX, *ACCOUNT).deaths
        await wave(hall, 3)
        assert 0 < await hall.link.call("TTL", key) <= LIFE_S
        await wave(hall, 1, start=3)
        assert await hall.link.call("TTL", key) == -1
        await hall.watch.release(*ACCOUNT)
        assert 0 < await hall.link.call("TTL", key) <= LIFE_S
        assert await hall.link.call("HKEYS", key) == [b"undated"]

    in_hall(redis_url, scenario)


# ---- receipts: only the token is known


@pytest.mark.parametrize(
    ("outcome", "at_ms", "dropped"),
    [
        (DEAD, NOW_MS + 1, True),
        (DEAD, NOW_MS, False),
        (replace(DEAD, since_ms=NOW_MS + 1), NOW_MS, True),
        (replace(DEAD, since_ms=NOW_MS), NOW_MS + 9, False),
        (OK, NOW_MS + 1, False),
    ],
)
def test_a_receipt_finds_the_owner_of_its_token(redis_url: str, outcome: Outcome, at_ms: int, dropped: bool) -> None:
    async def scenario(hall: Hall) -> None:
        user = "user:{1}/张"
        await hall.register(user, "t1", "t2")
        assert await hall.feedback.tell_of_token(APP, *ACCOUNT, "t1", outcome, at_ms) is dropped
        assert await hall.tokens(user) == (["t2"] if dropped else ["t1", "t2"])
        assert await hall.fates() == ([(user, "dropped")] if dropped else [])

    in_hall(redis_url, scenario)


def test_a_receipt_of_a_token_that_nobody_has_changes_nothing(redis_url: str) -> None:
    async def scenario(hall: Hall) -> None:
        await hall.register("ann", "t1")
        assert not await hall.feedback.tell_of_token(APP, *ACCOUNT, "t9", DEAD, NOW_MS + 1)
        assert not await hall.feedback.tell_of_token("lite", *ACCOUNT, "t1", DEAD, NOW_MS + 1)
        assert await hall.told() == []

    in_hall(redis_url, scenario)


def test_the_guard_holds_for_receipts_as_well(redis_url: str) -> None:
    async def scenario(hall: Hall) -> None:
        await wave(hall, 4)
        await hall.register("ann", "t1")
        assert await hall.feedback.tell_of_token(APP, *ACCOUNT, "t1", DEAD, NOW_MS + 1)
        assert (await hall.tokens(), await hall.until()) == (["t1"], [NOW_MS + LIFE_S * 1000])

    in_hall(redis_url, scenario)
