"""What a courier has leased, and what it does when Redis goes and comes back."""

import asyncio

import pytest
from tests.workers.courier_play import RETRY, UNREACHABLE, lose, named, on_bench
from tests.workers.doubles import Bench, a_bench, until
from tests.workers.ledger.support import a_ledger, put

from pushfleet_workers.errors import RedisUnusable
from pushfleet_workers.ledger.ledger import Want
from pushfleet_workers.outcome import OK
from pushfleet_workers.redis_link import LinkLost
from pushfleet_workers.redis_server import EmbeddedRedis

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
