import asyncio
import time
from collections.abc import Awaitable, Callable

import pytest
from tests.workers.doubles import Bench, Cloud, a_bench, neighbour, until
from tests.workers.ledger.support import KEYS, an_entry, put, put_at

from pushfleet_workers import drain as drain_module
from pushfleet_workers.errors import RedisUnusable
from pushfleet_workers.ledger import GateNews, VendorKeys, pack
from pushfleet_workers.ledger.ledger import Rate
from pushfleet_workers.outcome import OK, Outcome, Verdict
from pushfleet_workers.redis_link import Link, ReplyError
from pushfleet_workers.redis_server import EmbeddedRedis
from pushfleet_workers.wake import ring_call

VENDOR = VendorKeys("t", "apns")


def on_bench(url: str, scenario: Callable[[Bench], Awaitable[None]], **options: object) -> None:
    async def run() -> None:
        async with a_bench(url, **options) as bench:  # type: ignore[arg-type]
            await scenario(bench)

    asyncio.run(run())


async def deliver(link: Link, *names: str, lane: str = "normal") -> int:
    """Put and ring, as a router does; whether a trigger was wanted."""
    await put(link, *[an_entry(name, lane=lane) for name in names])  # type: ignore[arg-type]
    return int(await link.run(*ring_call(VENDOR)))


def count_claims(bench: Bench) -> list[float]:
    claims: list[float] = []
    claim = bench.courier.claim

    async def counted():  # type: ignore[no-untyped-def]
        claims.append(time.monotonic())
        return await claim()

    bench.courier.claim = counted  # type: ignore[method-assign]
    return claims


def test_it_drains_all_and_leaves_when_dry(redis_url: str) -> None:
    async def scenario(bench: Bench) -> None:
        assert await deliver(bench.link, *[f"m{number}" for number in range(100)]) == 1
        await bench.drain.run()
        assert await bench.ends() == {"sent": 100}
        assert await bench.link.call("ZCARD", VENDOR.listeners) == 0
        assert await bench.link.call("EXISTS", VENDOR.trigger) == 0

    on_bench(redis_url, scenario)


def test_a_second_run_returns_at_once(redis_url: str) -> None:
    async def scenario(bench: Bench) -> None:
        first = asyncio.create_task(bench.drain.run())
        await until(lambda: bench.drain.running)
        claims = count_claims(bench)
        await bench.drain.run()
        assert not first.done()
        assert claims == []
        await first

    on_bench(redis_url, scenario, linger_s=0.3)


def test_without_lingering_an_empty_queue_is_left_at_once(redis_url: str) -> None:
    async def scenario(bench: Bench) -> None:
        started = time.monotonic()
        await bench.drain.run(linger=False)
        assert time.monotonic() - started < 1

    on_bench(redis_url, scenario, linger_s=4)


def test_work_that_comes_while_it_lingers_is_sent_without_a_trigger(redis_url: str) -> None:
    async def scenario(bench: Bench) -> None:
        running = asyncio.create_task(bench.drain.run())
        for number in range(5):
            await until_listening(bench)
            wanted = await deliver(bench.link, f"m{number}")
            assert wanted == 0, "somebody listens"
            put_at = time.monotonic()
            await until(lambda number=number: len(bench.cloud.requests) == number + 1)
            assert time.monotonic() - put_at < 0.5, "the bell wakes it"
            await bench.settled()
        await running
        assert await bench.ends() == {"sent": 5}

    on_bench(redis_url, scenario, linger_s=1.0)


async def until_listening(bench: Bench) -> None:
    async def listens() -> bool:
        return bool(await bench.link.call("ZCARD", VENDOR.listeners))

    await until(listens)


def test_a_run_soon_after_another_is_heard_of_again(redis_url: str) -> None:
    async def scenario(bench: Bench) -> None:
        await bench.drain.run(linger=False)
        running = asyncio.create_task(bench.drain.run())
        await until_listening(bench)
        assert await deliver(bench.link, "m") == 0
        await running
        assert await bench.ends() == {"sent": 1}

    on_bench(redis_url, scenario, linger_s=0.2)


def test_work_that_comes_while_it_leaves_is_not_left_behind(redis_url: str) -> None:
    async def scenario(bench: Bench) -> None:
        leave = bench.bell.leave

        async def just_then(*, at_once: bool = False) -> bool:
            bench.bell.leave = leave  # type: ignore[method-assign]
            assert await deliver(bench.link, "m") == 0
            return await leave(at_once=at_once)

        bench.bell.leave = just_then  # type: ignore[method-assign]
        await bench.drain.run(linger=False)
        assert await bench.ends() == {"sent": 1}

    on_bench(redis_url, scenario)


def test_a_paused_account_that_is_rung_for_is_left_and_not_asked_again_and_again(redis_url: str) -> None:
    async def scenario(bench: Bench) -> None:
        await bench.courier.ledger.tell_gate(GateNews(pause_ms=60_000, reason="TooMany"))
        claims = count_claims(bench)
        for linger in (False, True):
            await deliver(bench.link, f"m{linger}")
            await asyncio.wait_for(bench.drain.run(linger=linger), 3)
        assert len(claims) < 20
        assert (await bench.book()).ready == 2

    on_bench(redis_url, scenario)


def test_postponed_work_is_waited_for_while_it_lingers(redis_url: str) -> None:
    async def scenario(bench: Bench) -> None:
        token = an_entry("m").parcel.deliveries[0].token
        bench.cloud.answer(token, Outcome(Verdict.RETRY, wait_s=0.08), OK)
        await deliver(bench.link, "m")
        claims = count_claims(bench)
        await bench.drain.run()
        assert await bench.ends() == {"sent": 1}
        assert len(claims) < 25, "it sleeps until the work is due"

    on_bench(redis_url, scenario, linger_s=0.5)


def test_it_stays_while_anything_is_in_hand(redis_url: str) -> None:
    async def scenario(bench: Bench) -> None:
        bench.cloud.held.clear()
        await deliver(bench.link, "m")
        running = asyncio.create_task(bench.drain.run())
        await until(lambda: bench.cloud.under_way == 1)
        await asyncio.sleep(0.1)
        assert not running.done()
        bench.cloud.held.set()
        await running
        assert await bench.ends() == {"sent": 1}

    on_bench(redis_url, scenario, linger_s=0.02)


def test_room_in_the_window_brings_the_next_claim(redis_url: str) -> None:
    async def scenario(bench: Bench) -> None:
        await put(bench.link, *[an_entry(f"m{number}", deliveries=10) for number in range(100)])
        started = time.monotonic()
        await bench.drain.run()
        assert await bench.ends() == {"sent": 1_000}
        assert time.monotonic() - started < 4, "it does not wait for its own timeouts"

    on_bench(redis_url, scenario, in_flight_max=5)


def test_room_for_chats_is_seen_behind_waiting_bulk_work(redis_url: str) -> None:
    async def scenario(bench: Bench) -> None:
        bulk = an_entry("bulk", deliveries=150, lane="bulk")
        for delivery in bulk.parcel.deliveries:
            delivery.token = "bulk"
        chats = [an_entry(f"n{number}", deliveries=90) for number in range(4)]
        bulk_may_go = asyncio.Event()
        send = bench.cloud.send

        async def slow_bulk(request):  # type: ignore[no-untyped-def]
            if b"bulk" in request.body:
                await bulk_may_go.wait()
            return await send(request)

        bench.courier._transport.send = slow_bulk  # type: ignore[method-assign]
        await put(bench.link, bulk, *chats)
        running = asyncio.create_task(bench.drain.run())
        started = time.monotonic()
        await until(lambda: len(bench.cloud.requests) == 360)
        assert time.monotonic() - started < 1.5, "no two seconds until it looks again"
        bulk_may_go.set()
        await running
        assert await bench.ends() == {"sent": 510}

    on_bench(redis_url, scenario, in_flight_max=10)


@pytest.mark.parametrize("problem", [RedisUnusable("Redis cannot serve now: LOADING"), ReplyError("ERR what is that")])
def test_a_redis_that_refuses_for_a_while_does_not_end_it(
    redis_url: str, monkeypatch: pytest.MonkeyPatch, problem: Exception
) -> None:
    monkeypatch.setattr(drain_module, "_REDIS_RETRY_S", 0.01)

    async def scenario(bench: Bench) -> None:
        claim, failures = bench.courier.ledger.claim, [problem] * 3

        async def flaky(want):  # type: ignore[no-untyped-def]
            if failures:
                raise failures.pop()
            return await claim(want)

        bench.courier.ledger.claim = flaky  # type: ignore[method-assign]
        await deliver(bench.link, "m")
        await bench.drain.run(linger=False)
        assert await bench.ends() == {"sent": 1}

    on_bench(redis_url, scenario)


def test_it_goes_on_when_redis_comes_back(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(drain_module, "_REDIS_RETRY_S", 0.02)

    async def run(server: EmbeddedRedis) -> None:
        async with a_bench(server.url, linger_s=1.0) as bench:
            running = asyncio.create_task(bench.drain.run())
            await until_listening(bench)
            server.kill()
            server.start()
            other = Link(server.url)
            await deliver(other, "m")
            await until(lambda: len(bench.cloud.requests) == 1)
            await running
            assert await bench.ends() == {"sent": 1}
            await other.close()

    with EmbeddedRedis(tmp_path, config={"appendfsync": "always"}) as server:
        asyncio.run(run(server))


def test_stop_ends_a_run_that_lingers_and_forbids_another(redis_url: str) -> None:
    async def scenario(bench: Bench) -> None:
        running = asyncio.create_task(bench.drain.run())
        await until_listening(bench)
        started = time.monotonic()
        bench.drain.stop()
        await running
        assert time.monotonic() - started < 1
        assert await bench.link.call("ZCARD", VENDOR.listeners) == 0
        await deliver(bench.link, "m")
        await bench.drain.run()
        assert bench.cloud.requests == []

    on_bench(redis_url, scenario, linger_s=4)


def test_stop_without_redis_raises_nothing(tmp_path) -> None:  # type: ignore[no-untyped-def]
    async def run(server: EmbeddedRedis) -> None:
        async with a_bench(server.url, linger_s=4) as bench:
            running = asyncio.create_task(bench.drain.run())
            await until_listening(bench)
            server.kill()
            bench.drain.stop()
            await asyncio.wait_for(running, 5)

    with EmbeddedRedis(tmp_path) as server:
        asyncio.run(run(server))


def test_a_large_backlog_calls_for_company_once(redis_url: str) -> None:
    async def scenario(bench: Bench) -> None:
        await put(bench.link, *[an_entry(f"m{number}") for number in range(600)])
        await bench.drain.run()
        assert bench.triggers == ["apns"]

    on_bench(redis_url, scenario, in_flight_max=5)


def test_a_small_one_does_not(redis_url: str) -> None:
    async def scenario(bench: Bench) -> None:
        await put(bench.link, *[an_entry(f"m{number}") for number in range(150)])
        await bench.drain.run()
        assert bench.triggers == []

    on_bench(redis_url, scenario, in_flight_max=5)


def test_two_drains_of_a_fleet_share_a_backlog(redis_url: str) -> None:
    async def run() -> None:
        async with a_bench(redis_url, owner="w1") as one, a_bench(redis_url, owner="w2") as two:
            await put(one.link, *[an_entry(f"m{number}", deliveries=2) for number in range(400)])
            await asyncio.gather(one.drain.run(), two.drain.run())
            assert await one.ends() == {"sent": 800}
            assert one.cloud.requests
            assert two.cloud.requests

    asyncio.run(run())


def test_a_broadcast_delays_a_chat_by_what_is_in_flight_and_not_by_what_is_queued(redis_url: str) -> None:
    async def scenario(bench: Bench) -> None:
        sends: list[str] = []
        send = bench.cloud.send

        async def slow(request):  # type: ignore[no-untyped-def]
            sends.append(request.body.decode())
            await asyncio.sleep(0.005)
            return await send(request)

        bench.courier._transport.send = slow  # type: ignore[method-assign]
        await put(bench.link, *[an_entry(f"b{number}", deliveries=20, lane="bulk") for number in range(100)])
        running = asyncio.create_task(bench.drain.run())
        await until(lambda: len(sends) > 100)
        chat = an_entry("chat")
        chat.parcel.deliveries[0].token = "chat"
        await bench.link.run_many([bench.courier.ledger.put_call(KEYS, 1, [(b"chat", [pack(chat)])], 0)])
        await bench.link.run(*ring_call(VENDOR))
        before = len(sends)
        await until(lambda: '["chat"]' in sends)
        assert sends.index('["chat"]') - before < 100, "of the 1,900 that waited"
        await running
        assert await bench.ends() == {"sent": 2_001}

    on_bench(redis_url, scenario, in_flight_max=20, cloud=Cloud())


# ---- neighbours


@pytest.mark.parametrize("full", [False, True])
def test_an_account_without_room_does_not_slow_its_neighbour(redis_url: str, full: bool) -> None:
    async def scenario(bench: Bench) -> None:
        courier, cloud, keys = await neighbour(bench, rate=Rate(100, 20))
        if full:
            bench.cloud.held.clear()
            await put(bench.link, *[an_entry(f"m{number}") for number in range(120)])
        await put_at(bench.link, keys, *[an_entry(f"s{number}") for number in range(150)])
        draining = asyncio.create_task(bench.drain.run())
        await until(lambda: len(cloud.tokens) >= 120, 3)
        bench.drain.stop()
        bench.cloud.held.set()
        await draining
        await courier.stop(1)

    on_bench(redis_url, scenario, in_flight_max=10, linger_s=2.0)


def test_an_account_whose_claims_fail_does_not_slow_its_neighbour(redis_url: str) -> None:
    async def scenario(bench: Bench) -> None:
        courier, cloud, keys = await neighbour(bench)
        await bench.link.call("SET", bench.keys.books, "broken")
        await put_at(bench.link, keys, *[an_entry(f"s{number}") for number in range(1_500)])
        draining = asyncio.create_task(bench.drain.run())
        await until(lambda: len(cloud.tokens) == 1_500, 3)
        await bench.link.call("DEL", bench.keys.books)
        await put(bench.link, an_entry("mended"))
        await until(lambda: len(bench.cloud.tokens) == 1)
        bench.drain.stop()
        await draining
        await courier.stop(1)

    on_bench(redis_url, scenario, linger_s=2.0)
