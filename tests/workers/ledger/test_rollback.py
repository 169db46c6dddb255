"""Redis forgets the last moments, as after a failover to a replica that lags: the ledger goes on from where it is."""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any

import pytest
import redis
from tests.workers.doubles import Bench, Cloud, a_bench, until
from tests.workers.ledger.support import KEYS, PLENTY, a_ledger, an_entry, books, put

from pushfleet_workers.audit import read_books
from pushfleet_workers.errors import RedisUnusable
from pushfleet_workers.ledger import Entry, Settlement
from pushfleet_workers.ledger.ledger import LEASE_MS, Want
from pushfleet_workers.ledger.recent import Recent, Sent
from pushfleet_workers.push import sent_id
from pushfleet_workers.redis_connection import Command, LinkLost, RedisConnection
from pushfleet_workers.redis_link import Link, ReplyError


class History:
    """Lets Redis go back to a moment: what was written since is gone, and who comes back finds another history."""

    def __init__(self, client: redis.Redis) -> None:
        self.number = 0
        self._client = client

    def moment(self) -> list[bytes]:
        """All there is."""
        return list(self._client.eval(_ALL, 0))

    def back_to(self, moment: list[bytes]) -> None:
        """All connections end, and everything is as it was at *moment*."""
        with self._client.pipeline(transaction=True) as pipeline:
            # Killed by the server, they leave no command behind that it would carry out later.
            pipeline.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            pipeline.flushall()
            for key, ttl_ms, value in zip(moment[::3], moment[1::3], moment[2::3], strict=True):
                pipeline.restore(key, int(ttl_ms), value)
            pipeline.execute()
        self.number += 1


_ALL = """
    local found = {}
    for _, key in ipairs(redis.call('KEYS', '*')) do
      table.insert(found, key)
      table.insert(found, math.max(0, redis.call('PTTL', key)))
      table.insert(found, redis.call('DUMP', key))
    end
    return found
"""


@pytest.fixture
def history(redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> History:
    made = History(redis_client)
    monkeypatch.setattr(RedisConnection, "history", property(lambda _: f"h{made.number}"))
    return made


def on_redis(url: str, scenario: Callable[[Link], Awaitable[None]]) -> None:
    async def run() -> None:
        link = Link(url)
        try:
            await scenario(link)
        finally:
            await link.close()

    asyncio.run(run())


async def go_back(link: Link, history: History, moment: list[bytes]) -> None:
    history.back_to(moment)
    await until(lambda: link._connection is None or link._connection.lost)


async def balanced(link: Link) -> dict[str, int]:
    """The books, recounted."""
    account = (await read_books(link, "t", [("apns", "main")])).accounts["apns:main"]
    assert account.balanced, account
    return await books(link)


def sent(entry: Entry, fence: int) -> Settlement:
    ids = tuple(sent_id(entry.parcel.push, one) for one in entry.parcel.deliveries)
    size = len(ids)
    return Settlement(entry.id, fence, size, ended=size, ends={"normal:sent:": size}, accepted=ids)


def test_what_was_settled_and_forgotten_is_not_sent_again(redis_url: str, history: History) -> None:
    async def scenario(link: Link) -> None:
        await put(link, an_entry("a", deliveries=2), an_entry("b"), an_entry("c"))
        ledger = a_ledger(link)
        a, b, c = (await ledger.claim(PLENTY)).entries
        moment = history.moment()
        assert await ledger.settle([sent(a, a.fence), sent(b, b.fence)]) == []
        await go_back(link, history, moment)
        assert await ledger.lost_track()
        assert await ledger.regain([(c.id, c.fence, 1)]) == []
        assert not await ledger.lost_track()
        now = await balanced(link)
        assert (now["leased"], now["ready"], now.get("ended", 0)) == (1, 3, 0)
        assert now["unknown"] == 3, "for all that anybody knows they are sent twice"
        claim = await a_ledger(link, "w2").claim(PLENTY)
        assert {entry.id for entry in claim.entries} == {a.id, b.id}
        assert all(entry.lost == 1 for entry in claim.entries)
        assert claim.late_oks == {*sent(a, 0).accepted, *sent(b, 0).accepted}
        assert await ledger.settle([sent(c, c.fence)]) == [], "its lease stands"

    on_redis(redis_url, scenario)


@pytest.mark.parametrize("breaks_at", range(4))
def test_what_was_forgotten_is_not_sent_again_wherever_reconciling_breaks_off(
    redis_url: str, history: History, monkeypatch: pytest.MonkeyPatch, breaks_at: int
) -> None:
    """Its call may have been carried out: only the answer is lost."""

    async def scenario(link: Link) -> None:
        await put(link, an_entry("a"), an_entry("b"))
        ledger = a_ledger(link)
        (a,) = (await ledger.claim(Want(1, 1, 0))).entries
        moment = history.moment()
        (b,) = (await ledger.claim(PLENTY)).entries
        await ledger.settle([sent(a, a.fence), sent(b, b.fence)])
        await go_back(link, history, moment)
        assert await ledger.lost_track()
        carry_out, calls = link.pipeline, 0

        async def pipeline(commands: Sequence[Command]) -> list[Any]:
            nonlocal calls
            replies = await carry_out(commands)
            if not any(isinstance(reply, ReplyError) for reply in replies):
                calls += 1
                if calls == breaks_at + 1:
                    raise LinkLost("the connection broke")
            return replies

        monkeypatch.setattr(link, "pipeline", pipeline)
        broken_off = False
        while await ledger.lost_track():
            try:
                await ledger.regain([])
            except LinkLost:
                broken_off = True
        assert broken_off
        claim = await a_ledger(link, "w2").claim(PLENTY)
        assert {entry.id for entry in claim.entries} == {a.id, b.id}
        assert claim.late_oks == {*sent(a, 0).accepted, *sent(b, 0).accepted}
        await balanced(link)

    on_redis(redis_url, scenario)


def test_what_was_forgotten_is_known_in_a_full_redis(redis_url: str, history: History) -> None:
    async def scenario(link: Link) -> None:
        await put(link, an_entry("a"))
        ledger = a_ledger(link)
        (a,) = (await ledger.claim(PLENTY)).entries
        moment = history.moment()
        await ledger.settle([sent(a, a.fence)])
        await go_back(link, history, moment)
        assert await ledger.lost_track()
        await link.call("CONFIG", "SET", "maxmemory", 1)
        try:
            await ledger.regain([])
            assert (await a_ledger(link, "w2").claim(PLENTY)).late_oks == {*sent(a, 0).accepted}
        finally:
            await link.call("CONFIG", "SET", "maxmemory", 0)

    on_redis(redis_url, scenario)


def test_a_claim_that_was_forgotten_and_settled_is_not_sent_again(redis_url: str, history: History) -> None:
    async def scenario(link: Link) -> None:
        await put(link, an_entry("a"), an_entry("b"))
        ledger = a_ledger(link)
        await ledger.claim(Want(1, 1, 0))
        moment = history.moment()
        (b,) = (await ledger.claim(PLENTY)).entries
        await ledger.settle([sent(b, b.fence)])
        await go_back(link, history, moment)
        assert await ledger.lost_track()
        await ledger.regain([])
        claim = await a_ledger(link, "w2").claim(PLENTY)
        assert len(claim.entries) == 2
        assert claim.late_oks == {*sent(b, 0).accepted}
        await balanced(link)

    on_redis(redis_url, scenario)


def test_a_claim_that_was_forgotten_and_is_settled_late_is_counted_and_not_sent_again(
    redis_url: str, history: History
) -> None:
    async def scenario(link: Link) -> None:
        await put(link, an_entry("a", deliveries=3))
        ledger = a_ledger(link)
        await ledger.claim(Want(0, 0, 0))
        moment = history.moment()
        (a,) = (await ledger.claim(PLENTY)).entries
        await go_back(link, history, moment)
        assert await ledger.lost_track()
        await ledger.regain([(a.id, a.fence, 3)])
        assert await balanced(link) | {"fence": 0} == {"put": 3, "ready": 3, "fence": 0}
        (late,) = await ledger.settle([sent(a, a.fence)])
        assert late.id == a.id
        assert (await balanced(link))["unknown"] == 3
        claim = await a_ledger(link, "w2").claim(PLENTY)
        assert claim.late_oks == {*sent(a, 0).accepted}
        assert claim.entries[0].fence > a.fence + 1, "no fence is given twice"

    on_redis(redis_url, scenario)


def test_half_a_parcel_whose_other_half_was_forgotten_goes_back_as_a_whole(redis_url: str, history: History) -> None:
    async def scenario(link: Link) -> None:
        await put(link, an_entry("a", deliveries=4))
        ledger = a_ledger(link)
        (a,) = (await ledger.claim(PLENTY)).entries
        await go_back(link, history, history.moment())
        # It has settled one delivery since, as far as it knows.
        assert await ledger.lost_track()
        await ledger.regain([(a.id, a.fence, 3)])
        now = await balanced(link)
        assert (now["ready"], now["leased"], now["unknown"]) == (4, 0, 4)

    on_redis(redis_url, scenario)


def test_where_nothing_was_forgotten_nothing_goes_back(redis_url: str, history: History) -> None:
    async def scenario(link: Link) -> None:
        await put(link, an_entry("a", deliveries=4), an_entry("b"))
        ledger = a_ledger(link)
        a, b = (await ledger.claim(PLENTY)).entries
        await ledger.settle([sent(b, b.fence)])
        await go_back(link, history, history.moment())
        # Two settlements of one parcel wait to be written: the lease may be as before either.
        assert await ledger.lost_track()
        await ledger.regain([(a.id, a.fence, 4), (a.id, a.fence, 1)])
        now = await balanced(link)
        assert (now["ready"], now["leased"], now["ended"], now.get("unknown", 0)) == (0, 4, 1, 0)
        assert await ledger.settle([sent(a, a.fence)]) == []
        assert await link.call("EXISTS", KEYS.oks) == 0

    on_redis(redis_url, scenario)


def test_what_was_settled_is_remembered_for_a_while_and_during_an_outage() -> None:
    now_s = 0.0
    recent = Recent(lambda: now_s)

    def known() -> list[bytes]:
        return [delivery for one in recent.of_claims_between([(0, 99)]) for delivery in one.deliveries]

    recent.add([Sent(b"a", 1, (b"a1", b"a2")), Sent(b"b", 2, (b"b1",))])
    now_s = 9.0
    recent.add([Sent(b"c", 3, (b"c1",))])
    assert [one.id for one in recent.of_claims_between([(1, 3), (7, 9)])] == [b"b"]
    assert [one.id for one in recent.of_claims_between([(0, 2), (2, 4)])] == [b"a", b"c"]
    assert [one.id for one in recent.of_leases({b"a", b"x"})] == [b"a"]
    now_s = 11.0
    recent.add([])
    assert known() == [b"c1"]
    now_s = 1_000.0
    assert known() == [b"c1"], "nothing was settled since"
    recent.add(Sent(b"d%d" % number, 9, (b"x",)) for number in range(30_000))
    assert len(known()) == 20_000


@asynccontextmanager
async def benches(url: str, count: int) -> AsyncIterator[list[Bench]]:
    async with AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(a_bench(url, cloud=Cloud(), owner=f"w{number}", in_flight_max=10))
            for number in range(count)
        ]


@pytest.mark.parametrize("seed", range(3))
def test_whatever_is_forgotten_under_load_the_books_balance_and_nothing_is_stuck(
    redis_url: str, history: History, seed: int
) -> None:
    chance = random.Random(seed)

    async def work(bench: Bench) -> None:
        while True:
            with suppress(RedisUnusable):
                await bench.drain.run()
            await asyncio.sleep(0.001)

    async def slow(bench: Bench) -> None:
        """Answers come in bursts."""
        while True:
            bench.cloud.held.clear()
            await asyncio.sleep(chance.uniform(0, 0.01))
            bench.cloud.held.set()
            await asyncio.sleep(chance.uniform(0, 0.01))

    async def run() -> None:
        async with benches(redis_url, 3) as some:
            entries = [an_entry(f"m{number}", deliveries=chance.randint(1, 4)) for number in range(300)]
            size = sum(len(entry.parcel.deliveries) for entry in entries)
            await put(some[0].link, *entries)
            # Whoever was about to fetch an authorization would be waited for.
            for bench in some:
                await bench.courier.claim()
            await until(lambda: all(bench.cloud.tokens for bench in some))
            tasks = [asyncio.create_task(chore(bench)) for bench in some for chore in (work, slow)]
            for _ in range(6):
                await asyncio.sleep(chance.uniform(0, 0.02))
                moment = history.moment()
                await asyncio.sleep(chance.uniform(0.01, 0.03))
                history.back_to(moment)

            async def all_ended() -> bool:
                try:
                    book = await some[0].book()
                except RedisUnusable:
                    return False
                return book.ended == size and not any(bench.courier.busy for bench in some)

            await until(all_ended, 20)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            book = await some[0].book()
            assert book.ends == {"normal:sent:": size}
            sent_times = Counter(token for bench in some for token in bench.cloud.tokens)
            doubles = sum(sent_times.values()) - size
            assert doubles <= book.unknown

    asyncio.run(run())


def test_nobody_is_taken_for_dead_before_the_living_could_speak(redis_url: str) -> None:
    async def scenario(link: Link) -> None:
        ledger = a_ledger(link)
        assert not ledger.knows_the_dead, "it has not reached Redis yet"
        await link.call("PING")
        assert not ledger.knows_the_dead
        link._opened_at -= LEASE_MS / 1000
        assert ledger.knows_the_dead

    on_redis(redis_url, scenario)
