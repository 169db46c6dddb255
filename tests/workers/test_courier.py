import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any

import msgspec
import pytest
from prometheus_client import REGISTRY
from tests.workers.doubles import QUICK, Bench, Cloud, a_bench, until
from tests.workers.ledger.support import PLENTY, a_ledger, an_entry, put

from pushfleet.message import ApnsOptions, Lane, OfflinePush
from pushfleet_workers.courier import Courier
from pushfleet_workers.errors import Distrusted, NoAnswer, NotInTime, RedisUnusable
from pushfleet_workers.ledger import AccountKeys, Entry, Ledger, pack, unpack
from pushfleet_workers.ledger.ledger import Breaker, Rate, Want
from pushfleet_workers.outcome import OK, Outcome, Remedy, Scope, Verdict
from pushfleet_workers.push import Delivery, Parcel, Push
from pushfleet_workers.recheck import Rechecked
from pushfleet_workers.redis_link import Link, LinkLost
from pushfleet_workers.redis_server import EmbeddedRedis
from pushfleet_workers.vendor import AuthAnswer, Request

RETRY = Outcome(Verdict.RETRY, code="Busy")
DEAD_TOKEN = Outcome(Verdict.DROP_TOKEN, code="Unregistered", since_ms=5)
BAD = Outcome(Verdict.BAD_PAYLOAD, code="BadPayload")
STALE_AUTH = Outcome(Verdict.REFRESH_AUTH, Scope.ACCOUNT, code="Expired")
UNREACHABLE = NoAnswer("no connection could be made", maybe_delivered=False)
UNKNOWN = NoAnswer("reset", maybe_delivered=True)


def on_bench(url: str, scenario: Callable[[Bench], Awaitable[None]], **options: object) -> None:
    async def run() -> None:
        async with a_bench(url, **options) as bench:  # type: ignore[arg-type]
            await scenario(bench)

    asyncio.run(run())


def token_of(entry: Entry, number: int = 0) -> str:
    return entry.parcel.deliveries[number].token


def named(name: str, *, deliveries: int = 1, lane: Lane = "normal", ttl_s: float = 60, put_ms: float = 0) -> Entry:
    """An entry whose tokens name it."""
    entry = an_entry(name, deliveries=deliveries, lane=lane, ttl_s=ttl_s, put_ms=put_ms)
    for number, delivery in enumerate(entry.parcel.deliveries):
        delivery.token = f"{name}-{number}"
    return entry


async def dead_letters(bench: Bench) -> list[dict[bytes, bytes]]:
    letters = await bench.link.call("XRANGE", bench.keys.dead, "-", "+")
    return [dict(zip(fields[::2], fields[1::2], strict=True)) for _, fields in letters]


# ---- the good way


@pytest.mark.parametrize("batch_size", [1, 7, 1_000])
def test_everything_is_sent_once_and_the_books_balance(redis_url: str, batch_size: int) -> None:
    async def scenario(bench: Bench) -> None:
        entries = [named(f"m{number}", deliveries=number % 9 + 1) for number in range(120)]
        await put(bench.link, *entries)
        tokens = sorted(one.token for entry in entries for one in entry.parcel.deliveries)
        assert await bench.finish() == {"sent": len(tokens)}
        assert sorted(bench.cloud.tokens) == tokens
        assert max(map(len, bench.cloud.requests)) <= batch_size
        assert bench.cloud.auth_calls == 1
        assert await bench.link.call("EXISTS", bench.keys.oks) == 0

    on_bench(redis_url, scenario, cloud=Cloud(batch_size))


def test_no_more_requests_are_under_way_than_the_window_allows(redis_url: str) -> None:
    async def scenario(bench: Bench) -> None:
        await put(bench.link, *[named(f"m{number}", deliveries=5) for number in range(30)])
        await bench.finish()
        assert bench.cloud.most_under_way == 7

    on_bench(redis_url, scenario, in_flight_max=7)


def test_bulk_never_takes_the_whole_window_and_urgent_work_overtakes_it(redis_url: str) -> None:
    async def scenario(bench: Bench) -> None:
        bench.cloud.held.clear()
        await put(bench.link, *[named(f"b{number}", lane="bulk") for number in range(200)])
        await bench.courier.claim()
        await until(lambda: bench.cloud.under_way == 7)
        await put(bench.link, named("u", lane="urgent"), named("n"))
        await bench.courier.claim()
        await until(lambda: bench.cloud.under_way == 9)
        assert bench.cloud.tokens[7:] == ["u-0", "n-0"]
        await bench.courier.claim()
        assert bench.cloud.under_way == 9, "what is left of the window is not for bulk"
        bench.cloud.held.set()
        assert await bench.finish() == {"sent": 202}

    on_bench(redis_url, scenario, in_flight_max=10)


def test_bulk_alone_is_claimed_no_faster_than_it_leaves(redis_url: str) -> None:
    async def scenario(bench: Bench) -> None:
        bench.cloud.held.clear()
        await put(bench.link, *[named(f"b{number}", lane="bulk") for number in range(300)])
        for _ in range(5):
            await bench.courier.claim()
        assert (await bench.book()).leased <= 7 + 55, "the bulk window and the high water mark"

    on_bench(redis_url, scenario, in_flight_max=10)


# ---- outcomes


def test_only_what_failed_is_tried_again(redis_url: str) -> None:
    async def scenario(bench: Bench) -> None:
        entry = named("m", deliveries=5)
        bench.cloud.answer("m-2", RETRY, RETRY, OK)
        await put(bench.link, entry)
        assert await bench.finish() == {"sent": 5}
        assert bench.cloud.requests[1:] == [["m-2"], ["m-2"]]

    on_bench(redis_url, scenario, cloud=Cloud(batch_size=10))


def test_a_delivery_is_tried_as_often_as_the_account_allows_and_lies_in_the_dead_letters(redis_url: str) -> None:
    async def scenario(bench: Bench) -> None:
        bench.cloud.answer("m-0", RETRY)
        await put(bench.link, named("m", deliveries=2))
        assert await bench.finish() == {"sent": 1, "dead:attempts": 1}
        assert bench.cloud.tokens.count("m-0") == QUICK.attempts_max
        (letter,) = await dead_letters(bench)
        assert (letter[b"reason"], letter[b"code"], letter[b"attempts"]) == (b"attempts", b"Busy", b"4")
        assert [one.token for one in unpack(letter[b"entry"]).parcel.deliveries] == ["m-0"]

    on_bench(redis_url, scenario)


def test_a_dead_letter_names_its_own_code_and_not_its_neighbours(redis_url: str) -> None:
    async def scenario(bench: Bench) -> None:
        bench.cloud.answer("m-0", DEAD_TOKEN)
        bench.cloud.answer("m-1", BAD)
        bench.cloud.answer("m-2", Outcome(Verdict.BAD_PAYLOAD, code="TooRude"))
        await put(bench.link, named("m", deliveries=3))
        assert await bench.finish() == {"dead:bad_payload": 2, "dropped:token_dead": 1}
        assert {letter[b"code"] for letter in await dead_letters(bench)} == {b"BadPayload", b"TooRude"}

    on_bench(redis_url, scenario, cloud=Cloud(batch_size=10))


def test_dead_tokens_inside_a_partial_success_are_reported_once_each(redis_url: str) -> None:
    async def scenario(bench: Bench) -> None:
        bench.cloud.answer("m-1", DEAD_TOKEN)
        bench.cloud.answer("m-3", Outcome(Verdict.MUTE_DEVICE))
        await put(bench.link, named("m", deliveries=5))
        assert await bench.finish() == {"sent": 3, "dropped:token_dead": 1, "dropped:device_muted": 1}
        assert [(app, token) for app, token, _ in bench.feedback] == [("demo", "m-1"), ("demo", "m-3")]
        assert bench.feedback[0][2].since_ms == 5

    on_bench(redis_url, scenario, cloud=Cloud(batch_size=10))


def test_while_no_token_dies_nothing_is_told(redis_url: str) -> None:
    async def scenario(bench: Bench) -> None:
        async def unwanted(app: str, deliveries: object, outcomes: object) -> None:
            told.append(app)

        told: list[str] = []
        bench.courier._feedback = unwanted
        bench.cloud.answer("m-0", RETRY, OK)
        await put(bench.link, named("m", deliveries=50))
        assert await bench.finish() == {"sent": 50}
        assert told == []
        assert await bench.link.call("EXISTS", bench.keys.deaths) == 0

    on_bench(redis_url, scenario, cloud=Cloud(batch_size=10))


def test_an_answer_is_told_as_a_whole(redis_url: str) -> None:
    async def scenario(bench: Bench) -> None:
        async def counting(app: str, deliveries: Sequence[Delivery], outcomes: Sequence[Outcome]) -> None:
            told.append([outcome.verdict for outcome in outcomes])

        told: list[list[Verdict]] = []
        bench.courier._feedback = counting
        bench.cloud.answer("m-1", DEAD_TOKEN)
        await put(bench.link, named("m", deliveries=3))
        assert await bench.finish() == {"sent": 2, "dropped:token_dead": 1}
        assert told == [[Verdict.OK, Verdict.DROP_TOKEN, Verdict.OK]], "the share of deaths is that of the answer"

    on_bench(redis_url, scenario, cloud=Cloud(batch_size=10))


def test_feedback_that_fails_does_not_cost_the_answer(redis_url: str, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(bench: Bench) -> None:
        async def broken(app: str, deliveries: object, outcomes: object) -> None:
            raise ValueError("m-0 is a token")

        bench.courier._feedback = broken
        bench.cloud.answer("m-0", DEAD_TOKEN)
        await put(bench.link, named("m"))
        assert await bench.finish() == {"dropped:token_dead": 1}

    on_bench(redis_url, scenario)
    assert "ValueError" in caplog.text
    assert "m-0" not in caplog.text


@pytest.mark.parametrize(("remedy", "sizes"), [(Remedy.SPLIT, [4, 2, 2]), (Remedy.SINGLE_SEND, [4, 1, 1, 1, 1]),
                                               (Remedy.SHRINK, [4, 4])])  # fmt: skip
def test_a_remedy_is_tried_once(redis_url: str, remedy: Remedy, sizes: list[int]) -> None:
    async def scenario(bench: Bench) -> None:
        wants_remedy = replace(BAD, remedy=remedy)
        bench.cloud.script = lambda token, auth: wants_remedy
        await put(bench.link, named("m", deliveries=4))
        assert await bench.finish() == {"dead:bad_payload": 4}
        assert [len(request) for request in bench.cloud.requests] == sizes

    on_bench(redis_url, scenario, cloud=Cloud(batch_size=10))


def test_what_has_expired_is_never_sent(redis_url: str) -> None:
    async def scenario(bench: Bench) -> None:
        await put(bench.link, named("old", deliveries=3, ttl_s=-1), named("new"))
        assert await bench.finish() == {"dropped:expired": 3, "sent": 1}
        assert bench.cloud.tokens == ["new-0"]

    on_bench(redis_url, scenario)


def test_what_tells_of_others_holds_as_long_as_they_do(redis_url: str) -> None:
    async def scenario(bench: Bench) -> None:
        carrier, alone = named("carrier", ttl_s=-1), named("alone", ttl_s=-1)
        for entry in (carrier, alone):
            push = msgspec.structs.replace(entry.parcel.push, later="storm")
            entry.parcel = Parcel(push, entry.parcel.deliveries)
        (one,), push = carrier.parcel.deliveries, carrier.parcel.push
        bench.rendered = {one.id: msgspec.structs.replace(push, body="3", expires_at_ms=push.expires_at_ms + 60_000)}
        await put(bench.link, carrier, alone)
        assert await bench.finish() == {"dropped:expired": 1, "sent": 1}
        assert bench.cloud.tokens == ["carrier-0"]

    on_bench(redis_url, scenario)


def test_what_waited_is_decided_again(redis_url: str) -> None:
    async def scenario(bench: Bench) -> None:
        old = named("old", deliveries=3, put_ms=time.time() * 1000 - 5_000)
        recalled = named("recalled", put_ms=time.time() * 1000 - 5_000)
        bench.refused = {old.parcel.deliveries[1].id: "recalled", recalled.parcel.deliveries[0].id: "muted"}
        await put(bench.link, old, recalled, named("fresh"))
        assert await bench.finish() == {"sent": 3, "suppressed:recalled": 1, "suppressed:muted": 1}
        assert bench.rechecked == [old.id, recalled.id]
        assert set(bench.cloud.tokens) == {"old-0", "old-2", "fresh-0"}

    on_bench(redis_url, scenario, recheck_s=2.0)


def test_what_was_put_for_later_is_decided_again_however_young(redis_url: str) -> None:
    async def scenario(bench: Bench) -> None:
        held = named("held")
        held.parcel = Parcel(msgspec.structs.replace(held.parcel.push, later="held"), held.parcel.deliveries)
        due_ms = int(time.time() * 1000) + 60
        await bench.link.run_many([Ledger.put_call(bench.keys, 1, [(held.id, [(due_ms, pack(held))])], 0)])
        await put(bench.link, named("fresh"))
        assert await bench.finish() == {"sent": 2}
        assert bench.rechecked == [held.id]
        assert bench.cloud.tokens == ["fresh-0", "held-0"]

    on_bench(redis_url, scenario)


@pytest.mark.parametrize("batch_size", [1, 10])
def test_deliveries_of_a_parcel_that_shall_say_different_things_part(redis_url: str, batch_size: int) -> None:
    async def scenario(bench: Bench) -> None:
        entry = named("m", deliveries=5, put_ms=1)
        one, two, three, four, _ = entry.parcel.deliveries
        news = msgspec.structs.replace(entry.parcel.push, body="3 new messages")
        other = msgspec.structs.replace(entry.parcel.push, body="7 new messages")
        bench.rendered = {one.id: news, two.id: other, three.id: news}
        bench.refused = {four.id: "muted"}
        await put(bench.link, entry)
        assert await bench.finish() == {"sent": 4, "suppressed:muted": 1}
        said = dict(zip(bench.cloud.tokens, bench.cloud.bodies, strict=True))
        assert said == {"m-0": news.body, "m-1": other.body, "m-2": news.body, "m-4": "hi"}

    on_bench(redis_url, scenario, recheck_s=2.0, cloud=Cloud(batch_size=batch_size))


def test_what_was_tried_and_what_takes_a_message_back_is_decided_again_however_young(redis_url: str) -> None:
    async def scenario(bench: Bench) -> None:
        failed, recall, fresh = named("failed"), named("recall"), named("fresh")
        recall.parcel = Parcel(msgspec.structs.replace(recall.parcel.push, recall=True), recall.parcel.deliveries)
        bench.cloud.answer("failed-0", Outcome(Verdict.RETRY), OK)
        await put(bench.link, failed, recall, fresh)
        # The cloud has no means of its own, and the bench's pushes no replace key.
        assert await bench.finish() == {"sent": 2, "dropped:not_recallable": 1}
        assert bench.rechecked[0] == recall.id
        assert len(bench.rechecked) == 2, "the second try of what failed"
        assert fresh.id not in bench.rechecked

    on_bench(redis_url, scenario)


@pytest.mark.parametrize("problem", [RedisUnusable("gone"), ValueError("damaged record of user u0")])
def test_without_the_state_the_first_decision_stands(
    redis_url: str, problem: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario(bench: Bench) -> None:
        async def broken(entries: Sequence[Entry]) -> Rechecked:
            raise problem

        bench.courier._still_wanted._recheck = broken
        await put(bench.link, named("a", put_ms=1), named("b", put_ms=1))
        assert await bench.finish() == {"sent": 2}

    on_bench(redis_url, scenario, recheck_s=2.0)
    assert "u0" not in caplog.text


# ---- one bad thing stays alone


def test_a_vendor_module_that_raises_costs_only_its_own_delivery(
    redis_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario(bench: Bench) -> None:
        bench.cloud.build_fails = {"bad-0"}
        await put(bench.link, named("good", deliveries=3), named("bad"), named("fine"))
        assert await bench.finish() == {"sent": 4, "dead:bad_payload": 1}
        (letter,) = await dead_letters(bench)
        assert letter[b"code"] == b"vendor_module_failed"

    on_bench(redis_url, scenario)
    assert "KeyError" in caplog.text
    assert "secret" not in caplog.text


def test_an_answer_with_too_few_outcomes_leaves_nothing_in_hand(redis_url: str) -> None:
    async def scenario(bench: Bench) -> None:
        bench.cloud.read_fails = {"m-1"}
        await put(bench.link, named("m", deliveries=3), named("n"))
        assert await bench.finish() == {"sent": 1, "dead:attempts": 3}

    on_bench(redis_url, scenario, cloud=Cloud(batch_size=3))


def test_a_transport_that_breaks_its_promise_leaves_nothing_in_hand(redis_url: str) -> None:
    async def scenario(bench: Bench) -> None:
        bench.cloud.answer("m-0", ValueError("not a NoAnswer"), OK)
        await put(bench.link, named("m", deliveries=3))
        assert await bench.finish() == {"sent": 3}
        assert (await bench.book()).unknown == 1

    on_bench(redis_url, scenario)


# ---- no answer


def test_an_unknown_outcome_is_counted_and_tried_again(redis_url: str) -> None:
    async def scenario(bench: Bench) -> None:
        bench.cloud.answer("m-0", UNKNOWN, OK)
        await put(bench.link, named("m", deliveries=2))
        assert await bench.finish() == {"sent": 2}
        assert (await bench.book()).unknown == 1

    on_bench(redis_url, scenario)


def test_an_unknown_outcome_is_dropped_where_the_account_says_so(redis_url: str) -> None:
    async def scenario(bench: Bench) -> None:
        bench.cloud.answer("m-0", UNKNOWN)
        await put(bench.link, named("m", deliveries=2))
        assert await bench.finish() == {"sent": 1, "dropped:unknown_outcome": 1}
        assert bench.cloud.tokens.count("m-0") == 1
        assert (await bench.book()).unknown == 1

    on_bench(redis_url, scenario, policy=replace(QUICK, drop_unknown=True))


def test_what_a_dead_process_held_is_dropped_where_the_account_says_so(redis_url: str) -> None:
    async def scenario(bench: Bench) -> None:
        await put(bench.link, named("m", deliveries=2))
        await lose(bench, "dead")
        assert await bench.finish() == {"dropped:unknown_outcome": 2}
        assert bench.cloud.tokens == []

    on_bench(redis_url, scenario, policy=replace(QUICK, drop_unknown=True))


async def lose(bench: Bench, owner: str) -> None:
    """A process claims and dies."""
    await a_ledger(bench.link, owner).claim(PLENTY)
    await bench.link.call("ZADD", bench.keys.owners, 1, owner)
    await bench.courier.ledger.reap()


def test_a_vendor_whose_certificate_is_not_taken_is_told_apart(
    redis_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario(bench: Bench) -> None:
        foreign = Distrusted("the certificate of the peer is not taken", "certificate_wrong_name")
        down = True
        bench.cloud.script = lambda token, auth: foreign if down else OK
        await put(bench.link, *[named(f"m{number}") for number in range(20)])
        await bench.courier.claim()
        await bench.settled()
        book = await bench.book()
        assert book.open
        assert book.pause_reason == "certificate_wrong_name"
        assert (book.leased, book.unknown, book.ended) == (0, 0, 0)
        (told,) = [one.getMessage() for one in caplog.records if "certificate" in one.getMessage()]
        assert told.startswith("account apns:main reaches nobody it trusts, its work waits: certificate_wrong_name: ")
        assert told.endswith("who answers in the vendor's place?")
        assert answers("retry", "certificate_wrong_name") == 20
        down = False
        assert await bench.finish() == {"sent": 20}

    def answers(verdict: str, code: str) -> float:
        labels = {"vendor": "apns", "account": "main", "verdict": verdict, "code": code}
        return REGISTRY.get_sample_value("pushfleet_vendor_answers_total", labels) or 0

    on_bench(redis_url, scenario, in_flight_max=20)


def test_an_unreachable_vendor_spends_no_attempts_and_opens_the_breaker(redis_url: str) -> None:
    async def scenario(bench: Bench) -> None:
        down = True
        bench.cloud.script = lambda token, auth: UNREACHABLE if down else OK
        await put(bench.link, *[named(f"m{number}") for number in range(20)])
        await bench.courier.claim()
        await bench.settled()
        before = len(bench.cloud.requests)
        claim = await bench.courier.claim()
        assert claim.entries == []
        assert claim.wait_ms > 0
        book = await bench.book()
        assert book.open
        assert book.pause_reason == "unreachable"
        assert (book.leased, book.unknown, book.ended) == (0, 0, 0)

        async def probed() -> bool:
            await bench.courier.claim()
            return len(bench.cloud.requests) > before

        await until(probed)
        await bench.settled()
        assert len(bench.cloud.requests) == before + 1, "one parcel probes"
        down = False
        assert await bench.finish() == {"sent": 20}

    on_bench(redis_url, scenario, breaker=Breaker(3, 300, 400))


def test_expired_work_does_not_use_up_the_probes_of_a_half_open_breaker(redis_url: str) -> None:
    async def scenario(bench: Bench) -> None:
        await put(bench.link, *[named(f"old{number}", lane="urgent", ttl_s=-1) for number in range(30)], named("new"))
        await bench.link.call("HSET", bench.keys.gate, "open_until", 1, "open_ms", 1_000, "fails", 20)
        assert await bench.finish() == {"dropped:expired": 30, "sent": 1}

    on_bench(redis_url, scenario)


def test_a_429_of_the_account_pauses_all_of_it_and_gives_the_waiting_back(redis_url: str) -> None:
    async def scenario(bench: Bench) -> None:
        limited = Outcome(Verdict.RATE_LIMITED, Scope.ACCOUNT, code="TooMany", wait_s=0.5)
        bench.cloud.answer("m0-0", limited, OK)
        await put(bench.link, *[named(f"m{number}") for number in range(40)])
        await bench.courier.claim()
        await bench.settled()
        paused_at = time.monotonic()
        claim = await bench.courier.claim()
        assert claim.entries == []
        assert 0 < claim.wait_ms <= 500
        book = await bench.book()
        assert (book.open, book.pause_reason, book.leased) == (True, "TooMany", 0)
        assert await bench.finish() == {"sent": 40}
        again = bench.cloud.sent_at[bench.cloud.tokens.index("m0-0", 1)]
        assert again - paused_at >= 0.4
        assert bench.cloud.tokens.count("m0-0") == 2

    on_bench(redis_url, scenario, in_flight_max=2)


def test_a_pause_of_a_class_holds_its_kind_alone(redis_url: str) -> None:
    async def scenario(bench: Bench) -> None:
        first = named("first")
        call = named("call")
        call.parcel = replace_kind(call, "call")
        bench.cloud.answer("first-0", Outcome(Verdict.QUOTA_EXHAUSTED, Scope.CLASS, code="Quota", wait_s=0.5), OK)
        await put(bench.link, first)
        await bench.courier.claim()
        await bench.settled()
        await put(bench.link, named("second"), call)
        assert await bench.finish() == {"sent": 3}
        assert bench.cloud.tokens[:2] == ["first-0", "call-0"]
        assert bench.cloud.tokens.count("second-0") == 1

    on_bench(redis_url, scenario)


def replace_kind(entry: Entry, kind: str):  # type: ignore[no-untyped-def]
    import msgspec

    return msgspec.structs.replace(entry.parcel, push=msgspec.structs.replace(entry.parcel.push, kind=kind))


# ---- authorization


def test_a_worn_out_authorization_is_renewed_once_for_all_and_nothing_is_lost(redis_url: str) -> None:
    async def scenario(bench: Bench) -> None:
        bench.cloud.script = lambda token, auth: STALE_AUTH if auth == "auth-1" else OK
        await put(bench.link, named("m", deliveries=30))
        assert await bench.finish() == {"sent": 30}
        assert bench.cloud.auth_calls == 2
        assert not (await bench.book()).open

    on_bench(redis_url, scenario)


def test_a_fresh_authorization_that_is_refused_as_well_makes_the_account_wait(redis_url: str) -> None:
    async def scenario(bench: Bench) -> None:
        refusing = True
        bench.cloud.script = lambda token, auth: STALE_AUTH if refusing else OK
        await put(bench.link, named("m"))

        async def opened() -> bool:
            await bench.courier.claim()
            return (await bench.book()).open

        await until(opened)
        assert 2 <= len(bench.cloud.requests) <= 4, "what is claimed before the gate hears of it still leaves"
        book = await bench.book()
        assert (book.ended, book.pause_reason) == (0, "Expired")
        refusing = False
        assert await bench.finish() == {"sent": 1}

    on_bench(redis_url, scenario, breaker=Breaker(20, 400, 400))


def test_what_the_vendor_wants_no_newer_one_of_is_tried_again_as_it_is(redis_url: str) -> None:
    """A refusal of all that is in flight counts once; a refusal of what was tried again makes the account wait."""

    async def scenario(bench: Bench) -> None:
        bench.cloud.auth_answers = [AuthAnswer("young", 3_600, 1_200)]
        refused: set[str] = set()

        def once(token: str, auth: str) -> Outcome:
            assert auth == "young"
            if token in refused:
                return OK
            refused.add(token)
            return STALE_AUTH

        bench.cloud.script = once
        await put(bench.link, *(named(f"m{number}") for number in range(10)))
        assert await bench.finish() == {"sent": 10}
        assert (len(refused), bench.cloud.auth_calls) == (10, 1)

    on_bench(redis_url, scenario, breaker=Breaker(20, 400, 400))


def test_without_an_authorization_nothing_leaves_and_the_work_waits(redis_url: str) -> None:
    async def scenario(bench: Bench) -> None:
        refusal = Outcome(Verdict.MISCONFIGURED, Scope.ACCOUNT, code="invalid_client")
        bench.cloud.auth_answers = [AuthAnswer(failure=refusal)]
        await put(bench.link, named("m", deliveries=20))
        await bench.courier.claim()
        await bench.settled()
        book = await bench.book()
        assert (book.open, book.pause_reason, book.ended) == (True, "invalid_client", 0)
        assert bench.cloud.requests == []
        assert bench.cloud.auth_calls == 1, "one refusal counts for all that waited"
        assert await bench.finish() == {"sent": 20}

    on_bench(redis_url, scenario, breaker=Breaker(20, 400, 400))


def test_a_worn_out_connection_is_renewed(redis_url: str) -> None:
    async def scenario(bench: Bench) -> None:
        bench.cloud.answer("m-0", replace(RETRY, reconnect=True), OK)
        await put(bench.link, named("m"))
        assert await bench.finish() == {"sent": 1}
        assert bench.cloud.renewed == 1

    on_bench(redis_url, scenario)


# ---- permits


def test_permits_that_waited_too_long_go_back(redis_url: str) -> None:
    async def scenario(bench: Bench) -> None:
        bench.cloud.held.clear()
        await put(bench.link, named("m", deliveries=10))
        await bench.courier.claim()
        await until(lambda: bench.cloud.under_way == 2)
        assert bench.courier.ledger.rate is not None
        await asyncio.sleep(bench.courier.ledger.rate.permit_life_s)
        bench.cloud.held.set()
        await bench.settled()
        book = await bench.book()
        assert (book.ended, book.delayed + book.ready) == (2, 8)
        assert await bench.finish() == {"sent": 10}
        assert sorted(bench.cloud.tokens) == sorted(f"m-{number}" for number in range(10)), "none twice"

    on_bench(redis_url, scenario, in_flight_max=2, rate=Rate(400.0, 40))


def test_permits_do_not_outlive_a_wait_for_the_authorization(redis_url: str) -> None:
    async def scenario(bench: Bench) -> None:
        released = asyncio.Event()
        obtain = bench.courier._authorization.obtain

        async def slow() -> str:
            await released.wait()
            return await obtain()

        bench.courier._authorization.obtain = slow  # type: ignore[method-assign]
        await put(bench.link, named("m", deliveries=10))
        await bench.courier.claim()
        assert bench.courier.ledger.rate is not None
        await asyncio.sleep(bench.courier.ledger.rate.permit_life_s)
        released.set()
        await bench.settled()
        assert bench.cloud.requests == []
        assert await bench.finish() == {"sent": 10}

    on_bench(redis_url, scenario, rate=Rate(400.0, 40))


def test_permits_do_not_outlive_a_wait_for_the_connection(redis_url: str) -> None:
    async def scenario(bench: Bench) -> None:
        late = NotInTime("it waited", maybe_delivered=False)
        for number in range(5):
            bench.cloud.answer(f"m-{number}", late, OK)
        await put(bench.link, named("m", deliveries=5))
        assert await bench.finish() == {"sent": 5}
        assert (await bench.book()).unknown == 0
        assert await bench.link.call("HGET", bench.keys.gate, "fails") is None, "the vendor is not to blame"

    on_bench(redis_url, scenario, rate=Rate(400.0, 40))


def test_what_waited_in_hand_for_long_is_decided_again(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pushfleet_workers.courier._DECISION_STANDS_S", 0.05)
    monkeypatch.setattr("pushfleet_workers.triage._DECISION_HOLDS_MS", 50)

    async def scenario(bench: Bench) -> None:
        bench.cloud.held.clear()
        first, second = named("first", put_ms=1), named("second", put_ms=1)
        await put(bench.link, first, second)
        await bench.courier.claim()
        await until(lambda: bench.cloud.under_way == 1)
        assert bench.rechecked == [first.id, second.id]
        await asyncio.sleep(0.06)
        for delivery in second.parcel.deliveries:
            bench.refused[delivery.id] = "token_dead"
        bench.cloud.held.set()
        assert await bench.finish() == {"sent": 1, "suppressed:token_dead": 1}
        assert bench.cloud.tokens == ["first-0"]

    on_bench(redis_url, scenario, in_flight_max=1, recheck_s=2.0)


def test_what_expires_while_it_waits_in_hand_is_not_sent(redis_url: str) -> None:
    async def scenario(bench: Bench) -> None:
        bench.cloud.held.clear()
        await put(bench.link, named("first"), named("short", ttl_s=0.3), named("long"))
        await bench.courier.claim()
        await until(lambda: bench.cloud.under_way == 1)
        await asyncio.sleep(0.35)
        bench.cloud.held.set()
        assert await bench.finish() == {"sent": 2, "dropped:expired": 1}
        assert sorted(bench.cloud.tokens) == ["first-0", "long-0"]
        assert await bench.link.call("HGET", bench.keys.gate, "fails") is None

    on_bench(redis_url, scenario, in_flight_max=1)


# ---- leases


def test_a_late_ok_ends_what_was_given_to_another(redis_url: str) -> None:
    async def scenario(bench: Bench) -> None:
        entry = named("m", deliveries=2)
        await put(bench.link, entry)
        bench.cloud.held.clear()
        await bench.courier.claim()
        await until(lambda: bench.cloud.under_way == 2)
        await bench.link.call("ZADD", bench.keys.owners, 1, "w1")
        assert await a_ledger(bench.link, "other").reap() == 2
        bench.cloud.held.set()
        await bench.settled()
        assert (await bench.book()).ended == 0
        assert await bench.finish() == {"sent": 2}
        assert len(bench.cloud.tokens) == 2, "what was accepted late is not sent again"

    on_bench(redis_url, scenario)


def test_a_suspect_that_was_answered_is_no_suspect_any_more(redis_url: str) -> None:
    async def scenario(bench: Bench) -> None:
        await put(bench.link, named("m"))
        await lose(bench, "dead1")
        await lose(bench, "dead2")
        assert await bench.link.call("LLEN", bench.keys.suspect) == 1
        bench.cloud.answer("m-0", RETRY, OK)
        await bench.courier.claim()
        await bench.settled()
        await bench.link.call(
            "ZADD", bench.keys.delayed, 1, (await bench.link.call("ZRANGE", bench.keys.delayed, 0, 0))[0]
        )
        await lose(bench, "dead3")
        assert await bench.finish() == {"sent": 1}, "an answer in between shows that it kills nobody"

    on_bench(redis_url, scenario)


def test_a_suspect_that_goes_back_untried_stays_one(redis_url: str) -> None:
    async def scenario(bench: Bench) -> None:
        await put(bench.link, named("m"))
        await lose(bench, "dead1")
        await lose(bench, "dead2")
        bench.cloud.held.clear()
        await put(bench.link, named("busy"))
        await bench.courier.claim()
        await bench.courier.stop(0.0)
        await a_ledger(bench.link, "w2").claim(Want(0, 0, 0))
        assert await bench.link.call("LLEN", bench.keys.suspect) == 1

    on_bench(redis_url, scenario, in_flight_max=1)


def test_claims_in_hand_are_kept_by_beating(redis_url: str) -> None:
    async def scenario(bench: Bench) -> None:
        bench.cloud.held.clear()
        await put(bench.link, named("m"))
        await bench.courier.claim()
        await bench.link.call("ZADD", bench.keys.owners, 1, "w1")
        await bench.courier.beat()
        assert await a_ledger(bench.link, "other").reap() == 0
        bench.cloud.held.set()
        assert await bench.finish() == {"sent": 1}
        await bench.courier.beat()

    on_bench(redis_url, scenario)


def test_leases_that_it_does_not_know_of_are_noticed_while_it_is_busy(redis_url: str) -> None:
    async def scenario(bench: Bench) -> None:
        bench.cloud.held.clear()
        await put(bench.link, named("m"))
        await bench.courier.claim()
        await put(bench.link, named("stray"))
        await a_ledger(bench.link, "w1").claim(Want(10, 10, 10))
        await bench.courier.claim()
        assert len(bench.courier._hand.leases) == 1
        await bench.courier.beat()
        bench.cloud.held.set()
        assert await bench.finish() == {"sent": 2}

    on_bench(redis_url, scenario)


def test_a_long_parcel_is_settled_in_parts(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pushfleet_workers.hand._PARTIAL_AFTER_S", 0.01)

    async def scenario(bench: Bench) -> None:
        slow = asyncio.Event()
        plain_send = bench.cloud.send

        async def send(request):  # type: ignore[no-untyped-def]
            if b"slow" in request.body:
                await slow.wait()
            return await plain_send(request)

        bench.courier._transport.send = send  # type: ignore[method-assign]
        entry = named("m", deliveries=5)
        entry.parcel.deliveries[3].token = "slow"
        await put(bench.link, entry)
        await bench.courier.claim()
        await asyncio.sleep(0.02)
        await put(bench.link, named("other"))
        await bench.courier.claim()

        async def four_ended() -> bool:
            book = await bench.book()
            return (book.ended, book.leased) == (5, 1)

        await until(four_ended)
        slow.set()
        assert await bench.finish() == {"sent": 6}
        assert len(bench.cloud.tokens) == 6

    on_bench(redis_url, scenario)


# ---- Redis comes and goes


def test_results_that_could_not_be_written_are_written_later(redis_url: str) -> None:
    async def scenario(bench: Bench) -> None:
        settle = bench.courier.ledger.settle
        failures = [LinkLost("broke before"), LinkLost("broke after"), RedisUnusable("OOM")]

        async def flaky(settlements):  # type: ignore[no-untyped-def]
            if failures:
                problem = failures.pop(0)
                if "after" in str(problem):
                    await settle(settlements)
                raise problem
            return await settle(settlements)

        bench.courier.ledger.settle = flaky  # type: ignore[method-assign]
        await put(bench.link, named("m", deliveries=5), named("n"))
        assert await bench.finish() == {"sent": 6}
        assert len(bench.cloud.tokens) == 6

    on_bench(redis_url, scenario)


def test_a_claim_whose_answer_was_lost_is_taken_up(redis_url: str) -> None:
    async def scenario(bench: Bench) -> None:
        claim = bench.courier.ledger._claim_now

        async def lost_once(want: Want):  # type: ignore[no-untyped-def]
            bench.courier.ledger._claim_now = claim  # type: ignore[method-assign]
            await claim(want)
            raise LinkLost("broke")

        bench.courier.ledger._claim_now = lost_once  # type: ignore[method-assign]
        await put(bench.link, named("m", deliveries=3), named("n"))
        with pytest.raises(LinkLost):
            await bench.courier.claim()
        assert (await bench.book()).leased == 4
        assert await bench.finish() == {"sent": 4}
        assert len(bench.cloud.tokens) == 4

    on_bench(redis_url, scenario)


def test_what_was_sent_and_not_yet_settled_is_not_taken_up_again(redis_url: str) -> None:
    async def scenario(bench: Bench) -> None:
        ledger = bench.courier.ledger
        claim, settle = ledger._claim_now, ledger.settle
        redis_is_back = asyncio.Event()

        async def blocked(settlements):  # type: ignore[no-untyped-def]
            await redis_is_back.wait()
            return await settle(settlements)

        async def lost(want: Want):  # type: ignore[no-untyped-def]
            raise LinkLost("broke")

        ledger.settle = blocked  # type: ignore[method-assign]
        await put(bench.link, named("being-settled"))
        await bench.courier.claim()
        await until(lambda: bool(bench.courier._hand._settling))
        await put(bench.link, named("to-be-settled"))
        await bench.courier.claim()
        await until(lambda: bool(bench.courier._hand._results))
        ledger._claim_now = lost  # type: ignore[method-assign]
        with pytest.raises(LinkLost):
            await bench.courier.claim()
        ledger._claim_now = claim  # type: ignore[method-assign]
        await bench.courier.claim()
        redis_is_back.set()
        assert await bench.finish() == {"sent": 2}
        assert bench.cloud.tokens == ["being-settled-0", "to-be-settled-0"]

    on_bench(redis_url, scenario)


def test_a_redis_that_is_killed_and_comes_back_loses_and_repeats_nothing(tmp_path) -> None:  # type: ignore[no-untyped-def]
    async def scenario(bench: Bench, server: EmbeddedRedis) -> None:
        bench.cloud.held.clear()
        await put(bench.link, *[named(f"m{number}", deliveries=4) for number in range(30)])
        await bench.courier.claim()
        await until(lambda: bench.cloud.under_way == 20)
        server.kill()
        bench.cloud.held.set()
        await until(lambda: not bench.cloud.under_way)
        with pytest.raises(RedisUnusable):
            await bench.courier.claim()
        server.start()

        async def answers() -> bool:
            try:
                await bench.link.call("PING")
            except RedisUnusable:
                return False
            return True

        await until(answers)
        assert await bench.finish() == {"sent": 120}
        assert len(bench.cloud.tokens) == len(set(bench.cloud.tokens)) == 120

    with EmbeddedRedis(tmp_path, config={"appendfsync": "always"}) as server:

        async def run() -> None:
            async with a_bench(server.url, in_flight_max=20) as bench:
                await scenario(bench, server)

        asyncio.run(run())


def test_a_full_redis_can_still_be_drained(tmp_path) -> None:  # type: ignore[no-untyped-def]
    async def scenario(bench: Bench) -> None:
        bench.cloud.answer("m3-0", UNREACHABLE, OK)
        await put(bench.link, *[named(f"m{number}", deliveries=2) for number in range(10)])
        await bench.link.call("CONFIG", "SET", "maxmemory", 1)
        with pytest.raises(Exception, match="OOM"):
            await put(bench.link, named("more"))
        await bench.bell.listen()
        await bench.courier.claim()
        await bench.courier.beat()
        assert await bench.finish() == {"sent": 20}
        assert await bench.bell.leave()

    with EmbeddedRedis(tmp_path) as server:

        async def run() -> None:
            async with a_bench(server.url) as bench:
                await scenario(bench)

        asyncio.run(run())


# ---- the end


def test_stop_finishes_what_is_under_way_and_gives_back_the_rest(redis_url: str) -> None:
    async def scenario(bench: Bench) -> None:
        bench.cloud.held.clear()
        await put(bench.link, named("m", deliveries=20))
        await bench.courier.claim()
        await until(lambda: bench.cloud.under_way == 3)
        stopping = asyncio.create_task(bench.courier.stop(5.0))
        await asyncio.sleep(0)
        assert not bench.courier.has_room
        bench.cloud.held.set()
        await stopping
        book = await bench.book()
        assert (book.ended, book.delayed, book.leased, book.unknown) == (3, 17, 0, 0)
        assert len(bench.cloud.requests) == 3
        assert not bench.courier.busy

    on_bench(redis_url, scenario, in_flight_max=3)


def test_what_goes_back_stands_in_its_old_order(redis_url: str) -> None:
    async def scenario(bench: Bench) -> None:
        bench.cloud.held.clear()
        await put(bench.link, *[named(f"m{number}") for number in range(6)])
        await bench.courier.claim()
        await until(lambda: bench.cloud.under_way == 1)
        stopping = asyncio.create_task(bench.courier.stop(5.0))
        await asyncio.sleep(0)
        bench.cloud.held.set()
        await stopping
        claim = await a_ledger(bench.link, "w2").claim(PLENTY)
        assert [token_of(entry) for entry in claim.entries] == [f"m{number}-0" for number in range(1, 6)]

    on_bench(redis_url, scenario, in_flight_max=1)


def test_stop_counts_what_got_no_answer_in_time_as_unknown(redis_url: str) -> None:
    async def scenario(bench: Bench) -> None:
        bench.cloud.held.clear()
        await put(bench.link, named("m", deliveries=5))
        await bench.courier.claim()
        await until(lambda: bench.cloud.under_way == 3)
        await bench.courier.stop(0.02)
        book = await bench.book()
        assert (book.ended, book.delayed, book.leased, book.unknown) == (0, 5, 0, 3)

    on_bench(redis_url, scenario, in_flight_max=3)


def test_what_waits_for_an_authorization_at_the_stop_goes_back_as_it_was(redis_url: str) -> None:
    async def scenario(bench: Bench) -> None:
        asked = asyncio.Event()

        async def never() -> str:
            asked.set()
            await asyncio.Event().wait()
            return ""

        bench.courier._authorization.obtain = never  # type: ignore[method-assign]
        await put(bench.link, named("m"))
        await bench.courier.claim()
        await asked.wait()
        await bench.courier.stop(0.05)
        book = await bench.book()
        assert (book.ready + book.delayed, book.unknown, bench.cloud.tokens) == (1, 0, [])
        assert await bench.ends() == {}

    on_bench(redis_url, scenario, policy=replace(QUICK, drop_unknown=True))


def test_a_claim_under_way_at_the_stop_goes_back_unsent(redis_url: str) -> None:
    async def scenario(bench: Bench) -> None:
        claim = bench.courier.ledger.claim
        claimed, released = asyncio.Event(), asyncio.Event()

        async def slow(want: Want):  # type: ignore[no-untyped-def]
            answer = await claim(want)
            claimed.set()
            await released.wait()
            return answer

        bench.courier.ledger.claim = slow  # type: ignore[method-assign]
        await put(bench.link, named("m", deliveries=5))
        claiming = asyncio.create_task(bench.courier.claim())
        await claimed.wait()
        stopping = asyncio.create_task(bench.courier.stop(5.0))
        await asyncio.sleep(0)
        released.set()
        await asyncio.gather(claiming, stopping)
        book = await bench.book()
        assert (book.delayed, book.leased, book.unknown) == (5, 0, 0)
        assert bench.cloud.requests == []
        assert (await bench.courier.claim()).entries == []

    on_bench(redis_url, scenario)


def test_stop_comes_to_an_end_without_redis(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr("pushfleet_workers.courier._LAST_SETTLE_S", 0.3)

    async def run(server: EmbeddedRedis) -> None:
        async with a_bench(server.url) as bench:
            await put(bench.link, named("m"))
            bench.cloud.held.clear()
            await bench.courier.claim()
            server.kill()
            bench.cloud.held.set()
            await asyncio.wait_for(bench.courier.stop(0.1), 3)
            server.start()
            await bench.settled()

    with EmbeddedRedis(tmp_path, config={"appendfsync": "always"}) as server:
        asyncio.run(run(server))


def test_two_processes_share_the_work_of_one_account(redis_url: str) -> None:
    async def run() -> None:
        async with a_bench(redis_url, owner="w1") as one, a_bench(redis_url, owner="w2") as two:
            link: Link = one.link
            assert isinstance(one.keys, AccountKeys)
            await put(link, *[named(f"m{number}") for number in range(400)])
            for bench in (one, two):
                await bench.courier.claim()
            await asyncio.gather(one.finish(), two.finish())
            assert await one.ends() == {"sent": 400}
            assert one.cloud.tokens
            assert two.cloud.tokens
            assert len({*one.cloud.tokens, *two.cloud.tokens}) == 400

    asyncio.run(run())


def test_work_that_comes_in_while_the_last_sender_goes_is_sent(redis_url: str) -> None:
    async def scenario(bench: Bench) -> None:
        look, came = bench.courier._waiting.next, []

        def look_and_miss(*, mixes: bool) -> object:
            found = look(mixes=mixes)
            if not found and not came:
                # As when a claim's answer arrives after a sender has looked, and before its end is known.
                entry = late.pop()
                came.append(entry)
                bench.courier._queue(bench.courier._hand.take(entry), entry.parcel.deliveries)
                bench.courier._pump()
            return found

        await put(bench.link, named("late"), named("first"))
        late = (await bench.courier.ledger.claim(Want(1, 1, 1))).entries
        bench.courier._waiting.next = look_and_miss  # type: ignore[method-assign,assignment]
        await bench.courier.claim()
        await until(lambda: len(bench.cloud.tokens) == 2)
        assert came
        await bench.settled()

    on_bench(redis_url, scenario, in_flight_max=1)


# ---- vendors that mix pushes in a request


def test_a_burst_of_single_chats_costs_a_mixing_vendor_few_requests(redis_url: str) -> None:
    async def scenario(bench: Bench) -> None:
        entries = [named(f"m{number}") for number in range(90)]
        await put(bench.link, *entries)
        assert await bench.finish() == {"sent": 90}
        assert sorted(bench.cloud.tokens) == sorted(token_of(entry) for entry in entries)
        assert sum(bench.cloud.mixed) + bench.cloud.requests.count(1) >= 80
        assert len(bench.cloud.requests) <= 10
        assert max(map(len, bench.cloud.requests)) <= 30

    cloud = Cloud(30)
    cloud.mixing = True
    on_bench(redis_url, scenario, cloud=cloud)


def test_only_what_is_of_one_nature_shares_a_request(redis_url: str) -> None:
    async def scenario(bench: Bench) -> None:
        calls = [replaced(named(f"c{number}"), kind="call") for number in range(4)]
        others = [
            replaced(named(f"o{number}"), options=OfflinePush(apns=ApnsOptions(category="X"))) for number in range(4)
        ]
        await put(bench.link, *calls, *others, *[named(f"m{number}") for number in range(4)])
        assert await bench.finish() == {"sent": 12}
        for tokens in bench.cloud.requests:
            assert len({token[0] for token in tokens}) == 1

    cloud = Cloud(30)
    cloud.mixing = True
    on_bench(redis_url, scenario, cloud=cloud)


def test_a_letter_that_spoils_a_mixed_request_is_found_by_itself(redis_url: str) -> None:
    async def scenario(bench: Bench) -> None:
        bad = "m7-0"
        bench.cloud.script = lambda token, auth: (
            BAD if bad in bench.cloud.requests[-1] and (len(bench.cloud.requests[-1]) > 1 or token == bad) else OK
        )
        await put(bench.link, *[named(f"m{number}") for number in range(20)])
        assert await bench.finish() == {"sent": 19, "dead:bad_payload": 1}
        (letter,) = await dead_letters(bench)
        assert token_of(unpack(letter[b"entry"])) == bad

    cloud = Cloud(30)
    cloud.mixing = True
    on_bench(redis_url, scenario, cloud=cloud, in_flight_max=1)


def test_a_mixed_request_without_an_answer_is_unknown_for_all_of_it(redis_url: str) -> None:
    async def scenario(bench: Bench) -> None:
        for number in range(5):
            bench.cloud.answer(f"m{number}-0", UNKNOWN, OK)
        await put(bench.link, *[named(f"m{number}") for number in range(5)])
        assert await bench.finish() == {"sent": 5}
        assert (await bench.book()).unknown >= 5

    cloud = Cloud(30)
    cloud.mixing = True
    on_bench(redis_url, scenario, cloud=cloud)


def test_a_mixing_vendor_uses_its_window_for_full_parcels(redis_url: str) -> None:
    async def scenario(bench: Bench) -> None:
        bench.cloud.held.clear()
        await put(bench.link, *[named(f"m{number}", deliveries=100) for number in range(40)])
        await bench.courier.claim()
        await until(lambda: bench.cloud.under_way == 40)
        bench.cloud.held.set()

    cloud = Cloud(100)
    cloud.mixing = True
    on_bench(redis_url, scenario, cloud=cloud)


# ---- classes


NO_RIGHT = Outcome(Verdict.MISCONFIGURED, Scope.CLASS, code="no_right")


def replaced(entry: Entry, **changes: object) -> Entry:
    entry.parcel.push = msgspec.structs.replace(entry.parcel.push, **changes)
    return entry


def test_a_class_pause_holds_for_every_process_of_the_fleet(redis_url: str, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(bench: Bench) -> None:
        bench.cloud.answer("first-0", NO_RIGHT)
        await put(bench.link, named("first"))
        assert (await bench.courier.claim()).entries
        await bench.settled()
        assert "no_right: The right is missing: ask for it." in caplog.text
        async with a_bench(redis_url, owner="w2") as other:
            await put(bench.link, named("chat"), replaced(named("call"), kind="call"))
            assert (await other.courier.claim()).entries
            await other.settled()
            assert other.cloud.tokens == ["call-0"], "the other kind goes on"
            assert (await other.book()).delayed == 2

    on_bench(redis_url, scenario)


def test_a_class_that_the_message_asked_for_is_its_own_fault(redis_url: str) -> None:
    async def scenario(bench: Bench) -> None:
        bench.cloud.answer("asks-0", NO_RIGHT)
        asking = replaced(named("asks"), options=OfflinePush(apns=ApnsOptions(push_type="voip")))
        await put(bench.link, asking, named("chat"))
        assert await bench.finish() == {"dead:bad_payload": 1, "sent": 1}

    on_bench(redis_url, scenario)


# ---- what it costs


def test_no_more_senders_start_than_there_is_work(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that have just ended and those that have not begun yet must not call for the same work again."""
    started = 0
    begin = Courier._send_until_dry

    async def counted(courier: Courier) -> None:
        nonlocal started
        started += 1
        await begin(courier)

    monkeypatch.setattr(Courier, "_send_until_dry", counted)

    async def scenario(bench: Bench) -> None:
        await put(bench.link, *(named(f"m{number}") for number in range(400)))
        assert await bench.finish() == {"sent": 400}
        assert 1 <= started <= 400

    on_bench(redis_url, scenario)


# ---- taking back


def test_a_recall_that_the_vendor_cannot_carry_out_is_dropped_as_such(redis_url: str) -> None:
    async def scenario(bench: Bench) -> None:
        await put(
            bench.link,
            replaced(named("bare"), recall=True, revision=1, replace_key=""),
            replaced(named("keyed"), recall=True, revision=1, replace_key="c1"),
        )
        assert await bench.finish() == {"dropped:not_recallable": 1, "sent": 1}
        assert bench.cloud.tokens == ["keyed-0"], "it is replaced where it cannot be withdrawn"

    on_bench(redis_url, scenario)


def test_the_vendor_module_hears_how_often_a_delivery_left_before(redis_url: str) -> None:
    async def scenario(bench: Bench) -> None:
        tries: list[int] = []
        build = bench.cloud.build

        def noting(account: Any, push: Push, deliveries: Sequence[Delivery], auth: str, now_ms: int) -> Request:
            tries.extend(one.tries for one in deliveries)
            return build(account, push, deliveries, auth, now_ms)

        bench.cloud.build = noting  # type: ignore[method-assign]
        bench.cloud.answer("m-0", Outcome(Verdict.RETRY, Scope.ACCOUNT, code="502"), UNKNOWN, OK)
        await put(bench.link, named("m"))
        assert await bench.finish() == {"sent": 1}
        assert tries == [0, 1, 2]
        lost = named("lost")
        lost.lost = 1
        await put(bench.link, lost)
        await bench.finish()
        assert tries[3:] == [1], "a process died with it in hand"

    on_bench(redis_url, scenario)
