"""What the answers of one account mean for all of it: failures in a row, probes, pauses of classes."""

from __future__ import annotations

import pytest
from tests.workers.courier_play import UNKNOWN, named, on_bench
from tests.workers.doubles import Bench, Cloud, until
from tests.workers.ledger.support import put

from pushfleet_workers.ledger import GateNews
from pushfleet_workers.ledger.ledger import Breaker
from pushfleet_workers.outcome import OK, Outcome, Scope, Verdict
from pushfleet_workers.redis_link import LinkLost

HALF_OPEN = ("open_until", 1, "open_ms", 1_000, "fails", 20)


@pytest.mark.parametrize("fault", [UNKNOWN, Outcome(Verdict.RETRY, Scope.ACCOUNT, code="503")], ids=["lost", "503"])
def test_one_request_is_one_failure_however_many_pushes_it_carried(redis_url: str, fault: Outcome | Exception) -> None:
    async def scenario(bench: Bench) -> None:
        for number in range(30):
            bench.cloud.answer(f"m{number}-0", fault, OK)
        await put(bench.link, *[named(f"m{number}") for number in range(30)])
        await bench.courier.claim()
        await bench.settled()
        assert len(bench.cloud.requests) == 1
        assert not (await bench.book()).open

    cloud = Cloud(100)
    cloud.mixing = True
    on_bench(redis_url, scenario, cloud=cloud, breaker=Breaker(20, 1_000, 2_000))


def test_failures_with_good_answers_between_them_open_nothing(redis_url: str) -> None:
    async def scenario(bench: Bench) -> None:
        for number in range(5):
            bench.cloud.answer(f"bad{number}-0", UNKNOWN, OK)
            for name in (f"good{number}", f"bad{number}", f"again{number}"):
                await put(bench.link, named(name))
                await bench.courier.claim()
                await bench.settled()
            assert not (await bench.book()).open
        await bench.finish()

    on_bench(redis_url, scenario, breaker=Breaker(3, 1_000, 2_000))


@pytest.mark.parametrize(
    "first",
    [
        Outcome(Verdict.REFRESH_AUTH, Scope.ACCOUNT, code="Expired"),
        Outcome(Verdict.RATE_LIMITED, Scope.ACCOUNT, code="429", wait_s=0.2),
        Outcome(Verdict.RETRY, Scope.DEVICE, code="busy"),
    ],
    ids=["refresh_auth", "rate_limited", "busy"],
)
def test_a_probe_whose_answer_says_nothing_of_the_vendor_is_followed_by_another(redis_url: str, first: Outcome) -> None:
    async def scenario(bench: Bench) -> None:
        bench.cloud.answer("m-0", first, OK)
        await put(bench.link, named("m"), named("n"))
        await bench.link.call("HSET", bench.keys.gate, *HALF_OPEN)
        assert await bench.finish(5) == {"sent": 2}

    on_bench(redis_url, scenario)


def test_a_probe_that_is_not_wanted_any_more_is_followed_by_another(redis_url: str) -> None:
    async def scenario(bench: Bench) -> None:
        gone, wanted = named("gone", put_ms=1), named("wanted")
        bench.refused = {gone.parcel.deliveries[0].id: "muted"}
        await put(bench.link, gone, wanted)
        await bench.link.call("HSET", bench.keys.gate, *HALF_OPEN)
        assert await bench.finish(5) == {"suppressed:muted": 1, "sent": 1}

    on_bench(redis_url, scenario, recheck_s=2.0)


def test_stopping_is_no_failure_of_the_vendor(redis_url: str) -> None:
    async def scenario(bench: Bench) -> None:
        bench.cloud.held.clear()
        await put(bench.link, *[named(f"m{number}") for number in range(25)])
        await bench.courier.claim()
        await until(lambda: bench.cloud.under_way == 25)
        await bench.courier.stop(0.1)
        assert not (await bench.book()).open

    on_bench(redis_url, scenario, breaker=Breaker(20, 1_000, 2_000))


def test_a_claim_that_finds_nothing_does_not_end_a_class_pause(redis_url: str) -> None:
    async def scenario(bench: Bench) -> None:
        await bench.courier.ledger.tell_gate(GateNews(class_pauses_ms={"chat": 60_000}))
        await put(bench.link, named("a"))
        for _ in range(2):
            await bench.courier.claim()
            await bench.settled()
            assert bench.courier._gate.paused_ms("chat") > 0
        assert bench.cloud.tokens == []

    on_bench(redis_url, scenario)


def test_what_expires_within_a_class_pause_ends_at_once(redis_url: str) -> None:
    async def scenario(bench: Bench) -> None:
        await bench.courier.ledger.tell_gate(GateNews(class_pauses_ms={"chat": 60_000}))
        await put(bench.link, named("a", ttl_s=30))
        assert await bench.finish() == {"dropped:expired": 1}

    on_bench(redis_url, scenario)


def test_an_authorization_that_is_refused_while_it_is_being_stored_is_asked_for_again(redis_url: str) -> None:
    async def scenario(bench: Bench) -> None:
        authorization = bench.courier._authorization
        lock = authorization._lock
        assert lock is not None
        give_back = lock._give_back

        async def refused_meanwhile() -> None:
            await give_back()
            lock._give_back = give_back  # type: ignore[method-assign]
            await authorization.reject(authorization._value)

        lock._give_back = refused_meanwhile  # type: ignore[method-assign]
        await put(bench.link, named("m"))
        assert await bench.finish() == {"sent": 1}

    on_bench(redis_url, scenario)


def test_news_that_could_not_be_told_is_told_later(redis_url: str) -> None:
    async def scenario(bench: Bench) -> None:
        tell = bench.courier.ledger.tell_gate

        async def broken(news: GateNews) -> tuple[str, int]:
            bench.courier.ledger.tell_gate = tell  # type: ignore[method-assign]
            raise LinkLost("away")

        bench.courier.ledger.tell_gate = broken  # type: ignore[method-assign]
        bench.cloud.answer("m-0", Outcome(Verdict.RATE_LIMITED, Scope.ACCOUNT, code="429", wait_s=60))
        await put(bench.link, named("m"))
        await bench.courier.claim()
        await bench.settled()
        book = await bench.book()
        assert (book.open, book.pause_reason) == (True, "429")

    on_bench(redis_url, scenario)
