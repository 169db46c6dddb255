"""What a courier needs to send: an authorization, and permits that have not grown old."""

import asyncio
from dataclasses import replace

import pytest
from tests.workers.courier_play import RETRY, STALE_AUTH, grown_old, named, on_bench
from tests.workers.doubles import Bench, until
from tests.workers.ledger.support import put

from pushfleet_workers.errors import NotInTime
from pushfleet_workers.ledger.ledger import Breaker, Rate
from pushfleet_workers.outcome import OK, Outcome, Scope, Verdict
from pushfleet_workers.vendor import AuthAnswer, Request, Response

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
    monkeypatch.setattr("pushfleet_workers.courier._DECISION_STANDS_S", 0.4)
    monkeypatch.setattr("pushfleet_workers.triage._DECISION_HOLDS_MS", 50)

    async def scenario(bench: Bench) -> None:
        bench.cloud.held.clear()
        first, second = named("first", put_ms=1), named("second", put_ms=1)
        await put(bench.link, first, second)
        await bench.courier.claim()
        await until(lambda: bench.cloud.under_way == 1)
        assert bench.rechecked == [first.id, second.id]
        await grown_old(bench)
        for delivery in second.parcel.deliveries:
            bench.refused[delivery.id] = "token_dead"
        bench.cloud.held.set()
        assert await bench.finish() == {"sent": 1, "suppressed:token_dead": 1}
        assert bench.cloud.tokens == ["first-0"]

    on_bench(redis_url, scenario, in_flight_max=1, recheck_s=2.0)


def test_what_was_put_off_is_claimed_at_once_although_others_are_under_way(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pushfleet_workers.courier._DECISION_STANDS_S", 0.4)

    async def scenario(bench: Bench) -> None:
        answers = {name: asyncio.Event() for name in ("slow-0", "first-0")}
        send = bench.courier._transport.send

        async def when_told(request: Request) -> Response:
            for name, told in answers.items():
                if name.encode() in request.body:
                    await told.wait()
            return await send(request)

        bench.courier._transport.send = when_told  # type: ignore[method-assign]
        await put(bench.link, named("slow"), named("first"), named("second"))
        await bench.courier.claim()
        await grown_old(bench)
        bench.drain._changed.clear()
        answers["first-0"].set()
        await until(bench.drain._changed.is_set)
        assert bench.courier.busy
        await bench.courier.claim()
        await until(lambda: bench.cloud.tokens == ["first-0", "second-0"])
        answers["slow-0"].set()
        assert await bench.finish() == {"sent": 3}

    on_bench(redis_url, scenario, in_flight_max=2)


@pytest.mark.parametrize("decided", [False, True])
def test_what_is_put_off_leaves_in_its_old_order(
    redis_url: str, monkeypatch: pytest.MonkeyPatch, *, decided: bool
) -> None:
    monkeypatch.setattr("pushfleet_workers.courier._DECISION_STANDS_S", 0.4)

    async def scenario(bench: Bench) -> None:
        bench.cloud.held.clear()
        await put(bench.link, *[named(f"m{number}", put_ms=1 if decided else 0) for number in range(20)])
        await bench.courier.claim()
        await until(lambda: bench.cloud.under_way == 1)
        await grown_old(bench)
        bench.cloud.held.set()
        assert await bench.finish() == {"sent": 20}
        assert bench.cloud.tokens == [f"m{number}-0" for number in range(20)]

    on_bench(redis_url, scenario, in_flight_max=1, recheck_s=2.0)


def test_what_expires_while_it_waits_in_hand_is_not_sent(redis_url: str) -> None:
    async def scenario(bench: Bench) -> None:
        bench.cloud.held.clear()
        short = named("short", ttl_s=0.3)
        await put(bench.link, named("first"), short, named("long"))
        await bench.courier.claim()
        await until(lambda: bench.cloud.under_way == 1)
        await until(lambda: bench.courier._clock.now_ms() > short.parcel.push.expires_at_ms)
        bench.cloud.held.set()
        assert await bench.finish() == {"sent": 2, "dropped:expired": 1}
        assert sorted(bench.cloud.tokens) == ["first-0", "long-0"]
        assert await bench.link.call("HGET", bench.keys.gate, "fails") is None

    on_bench(redis_url, scenario, in_flight_max=1)
