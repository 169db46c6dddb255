"""A courier that stops, beside others or alone."""

import asyncio
from dataclasses import replace

import pytest
from tests.workers.courier_play import named, on_bench, token_of
from tests.workers.doubles import QUICK, Bench, a_bench, until
from tests.workers.ledger.support import PLENTY, a_ledger, put

from pushfleet_workers.ledger import AccountKeys
from pushfleet_workers.ledger.ledger import Want
from pushfleet_workers.redis_link import Link
from pushfleet_workers.redis_server import EmbeddedRedis


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
