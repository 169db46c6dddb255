"""Deliveries without an answer, and vendors that cannot be reached."""

import time
from dataclasses import replace

import msgspec
import pytest
from prometheus_client import REGISTRY
from tests.workers.courier_play import UNKNOWN, UNREACHABLE, lose, named, on_bench
from tests.workers.doubles import QUICK, Bench, until
from tests.workers.ledger.support import put

from pushfleet_workers.errors import Distrusted, NoAnswer
from pushfleet_workers.ledger import Entry
from pushfleet_workers.ledger.ledger import Breaker
from pushfleet_workers.outcome import OK, Outcome, Scope, Verdict

UNREADABLE = Outcome(Verdict.RETRY, Scope.ACCOUNT, code="HTTP 200", unknown=True)
doubtful = pytest.mark.parametrize("answer", [UNKNOWN, UNREADABLE], ids=["no answer", "a success that nobody can read"])


@doubtful
def test_an_unknown_outcome_is_counted_and_tried_again(redis_url: str, answer: NoAnswer | Outcome) -> None:
    async def scenario(bench: Bench) -> None:
        bench.cloud.answer("m-0", answer, OK)
        await put(bench.link, named("m", deliveries=2))
        assert await bench.finish() == {"sent": 2}
        assert (await bench.book()).unknown == 1

    on_bench(redis_url, scenario)


@doubtful
def test_an_unknown_outcome_is_dropped_where_the_account_says_so(redis_url: str, answer: NoAnswer | Outcome) -> None:
    async def scenario(bench: Bench) -> None:
        bench.cloud.answer("m-0", answer)
        await put(bench.link, named("m", deliveries=2))
        assert await bench.finish() == {"sent": 1, "dropped:unknown_outcome": 1}
        assert bench.cloud.tokens.count("m-0") == 1
        assert (await bench.book()).unknown == 1

    on_bench(redis_url, scenario, policy=replace(QUICK, drop_unknown=True))


def test_a_success_that_nobody_can_read_costs_an_attempt_so_that_it_is_not_shown_for_ever(redis_url: str) -> None:
    async def scenario(bench: Bench) -> None:
        bench.cloud.script = lambda token, auth: UNREADABLE
        await put(bench.link, named("m"))
        assert await bench.finish() == {"dead:attempts": 1}
        assert len(bench.cloud.tokens) == (await bench.book()).unknown == QUICK.attempts_max

    on_bench(redis_url, scenario)


def test_a_vendor_of_which_nobody_can_read_a_word_opens_the_breaker(redis_url: str) -> None:
    async def scenario(bench: Bench) -> None:
        bench.cloud.script = lambda token, auth: UNREADABLE
        await put(bench.link, *[named(f"m{number}") for number in range(20)])
        await bench.courier.claim()
        await bench.settled()
        book = await bench.book()
        assert (book.open, book.pause_reason) == (True, "HTTP 200")
        assert 0 < book.unknown <= 20

    on_bench(redis_url, scenario)


def test_what_a_dead_process_held_is_dropped_where_the_account_says_so(redis_url: str) -> None:
    async def scenario(bench: Bench) -> None:
        await put(bench.link, named("m", deliveries=2))
        await lose(bench, "dead")
        assert await bench.finish() == {"dropped:unknown_outcome": 2}
        assert bench.cloud.tokens == []

    on_bench(redis_url, scenario, policy=replace(QUICK, drop_unknown=True))


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

    return msgspec.structs.replace(entry.parcel, push=msgspec.structs.replace(entry.parcel.push, kind=kind))
