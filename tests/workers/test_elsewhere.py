"""What an account cannot deliver goes on by the devices' next channels: once, and whatever breaks meanwhile."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import msgspec
import pytest
from tests.workers.courier_play import DEAD_TOKEN, UNKNOWN, named, on_bench
from tests.workers.doubles import QUICK, Bench, Cloud, OtherChannels, a_bench, neighbour, until
from tests.workers.ledger.support import a_ledger, put, put_at

from pushfleet_workers.errors import MoveUnheard
from pushfleet_workers.ledger import GateNews
from pushfleet_workers.next_channel import Moving
from pushfleet_workers.outcome import Outcome, Scope, Verdict
from pushfleet_workers.push import Parking
from pushfleet_workers.redis_link import LinkLost
from pushfleet_workers.wake import ring_call

QUOTA = Outcome(Verdict.QUOTA_EXHAUSTED, Scope.DEVICE, code="quota", wait_s=30)
LONG = GateNews(pause_ms=60_000, reason="x")


class Troubled(OtherChannels):
    """Raises *problem* when it is asked first, after *slow_s*."""

    def __init__(self, cloud: Cloud, problem: Exception | None = None, slow_s: float = 0.0, times: int = 1) -> None:
        super().__init__(cloud, True)
        self.problem = problem
        self.slow_s = slow_s
        self.times = times

    async def move(self, moving: Sequence[Moving], *, same_account: bool) -> set[bytes]:
        await asyncio.sleep(self.slow_s)
        if self.problem is not None and self.times:
            self.times -= 1
            raise self.problem
        return await super().move(moving, same_account=same_account)


# ---- after an answer


@pytest.mark.parametrize(("outcome", "reason"), [(DEAD_TOKEN, "token_dead"), (QUOTA, "quota_exhausted")])
def test_what_another_channel_takes_ends_as_moved(redis_url: str, outcome: Outcome, reason: str) -> None:
    async def scenario(bench: Bench) -> None:
        bench.cloud.answer("m-0", outcome)
        bench.cloud.answer("m-1", outcome)
        bench.cloud.moves = {"m-0"}
        await put(bench.link, named("m", deliveries=3, ttl_s=20))
        ends = await bench.finish()
        left = {"dropped:token_dead": 1} if outcome is DEAD_TOKEN else {"dropped:expired": 1}
        assert ends == {"sent": 1, f"moved:{reason}": 1, **left}
        assert bench.cloud.moved == ["m-0"]
        assert bench.mover.asked == [outcome is DEAD_TOKEN], "only a dead token leaves the account itself good"

    on_bench(redis_url, scenario, cloud=Cloud(10))


def test_an_unknown_outcome_is_never_moved(redis_url: str) -> None:
    async def scenario(bench: Bench) -> None:
        bench.cloud.answer("m-0", UNKNOWN, DEAD_TOKEN)
        bench.cloud.moves = {"m-0"}
        await put(bench.link, named("m"))
        assert await bench.finish() == {"dropped:token_dead": 1}
        assert bench.cloud.moved == []

    on_bench(redis_url, scenario)


@pytest.mark.parametrize("problem", [LinkLost("away for a moment"), KeyError("defect")])
def test_a_dead_token_is_not_dropped_because_nobody_could_tell(redis_url: str, problem: Exception) -> None:
    async def scenario(bench: Bench) -> None:
        bench.cloud.answer("m-0", DEAD_TOKEN)
        bench.cloud.moves = {"m-0"}
        await put(bench.link, named("m"))
        assert await bench.finish() == {"moved:token_dead": 1}

    cloud = Cloud()
    on_bench(redis_url, scenario, cloud=cloud, mover=Troubled(cloud, problem))


@pytest.mark.parametrize(("drop", "end"), [(False, "dropped:token_dead"), (True, "dropped:unknown_outcome")])
def test_of_whom_nobody_knows_whether_it_went_is_an_unknown_outcome(redis_url: str, drop: bool, end: str) -> None:
    async def scenario(bench: Bench) -> None:
        bench.cloud.answer("m-0", DEAD_TOKEN)
        bench.cloud.answer("m-1", DEAD_TOKEN)
        bench.cloud.moves = {"m-0"}
        bench.mover.problem = MoveUnheard("lost", frozenset({entry.parcel.deliveries[0].id}))
        await put(bench.link, entry)
        assert await bench.finish() == ({end: 2} if not drop else {end: 1, "dropped:token_dead": 1})
        assert (await bench.book()).unknown == 1
        assert "m-0" not in bench.cloud.moved, "what may have gone is not moved again"

    entry, cloud = named("m", deliveries=2), Cloud(10)
    policy = replace(QUICK, drop_unknown=drop)
    on_bench(redis_url, scenario, cloud=cloud, mover=Troubled(cloud), policy=policy)


def test_a_shut_account_whose_moves_nobody_knows_of_keeps_what_did_not_go(redis_url: str) -> None:
    async def scenario(bench: Bench) -> None:
        await bench.courier.ledger.tell_gate(LONG)
        bench.mover.problem = MoveUnheard("lost", frozenset({perhaps.parcel.deliveries[0].id}))
        await put(bench.link, perhaps, stays)
        await bench.courier.claim()

        async def both_wait() -> bool:
            book = await bench.book()
            return (book.ready, book.leased, book.delayed, book.ended) == (0, 0, 2, 0)

        await until(both_wait)
        assert (await bench.book()).unknown == 1

    perhaps, stays, cloud = named("a"), named("b"), Cloud()
    on_bench(redis_url, scenario, cloud=cloud, mover=Troubled(cloud))


def test_answers_are_counted_once_each(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(bench: Bench) -> None:
        counted: list[tuple[str, int]] = []
        monkeypatch.setattr(bench.courier._answers, "count", lambda verdict, code, n: counted.append((code, n)))
        bench.cloud.answer("m-0", Outcome(Verdict.DROP_TOKEN, code="A"))
        bench.cloud.answer("m-1", Outcome(Verdict.DROP_TOKEN, code="B"))
        bench.cloud.moves = {"m-0", "m-1"}
        await put(bench.link, named("m", deliveries=2))
        await bench.finish()
        assert sorted(counted) == [("A", 1), ("B", 1)]

    on_bench(redis_url, scenario, cloud=Cloud(10))


# ---- a shut account


def test_an_account_that_is_shut_for_long_sends_its_work_another_way(redis_url: str) -> None:
    async def scenario(bench: Bench) -> None:
        await bench.courier.ledger.tell_gate(LONG)
        bench.cloud.moves = {"a-0", "b-0"}
        await put(bench.link, named("a"), named("stays"), named("b", lane="bulk"))
        await bench.courier.claim()

        async def gone() -> bool:
            book = await bench.book()
            return (book.ready, book.leased, book.delayed) == (0, 0, 1)

        await until(gone)
        assert await bench.ends() == {"moved:account_shut": 2}
        assert bench.cloud.requests == []
        assert bench.mover.asked == [False]

    on_bench(redis_url, scenario, elsewhere=True)


def test_all_of_a_large_backlog_goes_soon(redis_url: str) -> None:
    async def scenario(bench: Bench) -> None:
        await bench.courier.ledger.tell_gate(LONG)
        entries = [named(f"m{number}") for number in range(600)]
        bench.cloud.moves = {one.token for entry in entries for one in entry.parcel.deliveries}
        await put(bench.link, *entries)
        draining = asyncio.create_task(bench.drain.run())

        async def all_gone() -> bool:
            return await bench.ends() == {"moved:account_shut": 600}

        await until(all_gone)
        bench.drain.stop()
        await draining

    on_bench(redis_url, scenario, elsewhere=True, linger_s=1.0)


def test_a_short_pause_moves_nothing(redis_url: str) -> None:
    async def scenario(bench: Bench) -> None:
        await bench.courier.ledger.tell_gate(GateNews(pause_ms=300, reason="x"))
        bench.cloud.moves = {"a-0"}
        await put(bench.link, named("a"))
        await bench.courier.claim()
        assert bench.cloud.moved == []
        assert await bench.finish() == {"sent": 1}

    on_bench(redis_url, scenario, elsewhere=True)


def test_while_a_probe_is_out_everybody_waits_for_what_it_finds(redis_url: str) -> None:
    async def scenario(bench: Bench) -> None:
        await put(bench.link, *[named(f"m{number}", lane="urgent") for number in range(30)])
        await bench.link.call("HSET", bench.keys.gate, "open_until", 1, "open_ms", 1_000, "fails", 20)
        bench.cloud.held.clear()
        draining = asyncio.create_task(bench.drain.run())
        await until(lambda: bench.cloud.under_way == 1)
        await bench.courier.claim()
        bench.cloud.held.set()

        async def all_sent() -> bool:
            return await bench.ends() == {"sent": 30}

        await until(all_sent, 3)
        bench.drain.stop()
        await draining

    on_bench(redis_url, scenario, elsewhere=True, linger_s=0.5)


def test_expired_work_of_a_shut_account_ends(redis_url: str) -> None:
    async def scenario(bench: Bench) -> None:
        await bench.courier.ledger.tell_gate(LONG)
        await put(bench.link, named("late", ttl_s=-1))
        await bench.courier.claim()

        async def ended() -> bool:
            return await bench.ends() == {"dropped:expired": 1}

        await until(ended)

    on_bench(redis_url, scenario, elsewhere=True)


# ---- what breaks meanwhile


def test_a_lost_answer_to_an_elsewhere_claim_leaves_nothing_leased(redis_url: str) -> None:
    async def scenario(bench: Bench) -> None:
        await bench.courier.ledger.tell_gate(GateNews(pause_ms=3_000, reason="x"))
        await put(bench.link, named("a"), named("b"))
        claim = bench.courier.ledger._claim_now

        async def lost(want: Any) -> Any:
            got = await claim(want)
            if want.elsewhere:
                bench.courier.ledger._claim_now = claim  # type: ignore[method-assign]
                raise LinkLost("broke")
            return got

        bench.courier.ledger._claim_now = lost  # type: ignore[method-assign]
        await bench.courier.claim()

        async def leased() -> bool:
            return (await bench.book()).leased == 2

        await until(leased)
        await bench.link.call("DEL", bench.keys.gate)
        assert await bench.finish() == {"sent": 2}

    on_bench(redis_url, scenario, elsewhere=True)


@pytest.mark.parametrize("problem", [LinkLost("away"), KeyError("defect")])
def test_a_move_that_raises_leaves_nothing_in_hand(redis_url: str, problem: Exception) -> None:
    async def scenario(bench: Bench) -> None:
        await bench.courier.ledger.tell_gate(LONG)
        await put(bench.link, named("a"), named("b"))
        await bench.courier.claim()

        async def waits() -> bool:
            book = await bench.book()
            return (book.ready, book.leased, book.delayed) == (0, 0, 2)

        await until(waits)

    cloud = Cloud()
    on_bench(redis_url, scenario, cloud=cloud, mover=Troubled(cloud, problem))


def test_what_went_before_its_process_died_is_not_sent_as_well(redis_url: str) -> None:
    async def scenario(bench: Bench) -> None:
        await bench.courier.ledger.tell_gate(GateNews(pause_ms=2_300, reason="x"))
        bench.cloud.moves = {"a-0"}
        await put(bench.link, named("a"), named("b"))
        settle = bench.courier.ledger.settle

        async def never(settlements: Any) -> Any:
            raise LinkLost("away")

        bench.courier.ledger.settle = never  # type: ignore[method-assign]
        await bench.courier.claim()
        await until(lambda: bench.cloud.moved == ["a-0"])
        await bench.link.call("ZADD", bench.keys.owners, 1, "w1")
        await a_ledger(bench.link, "other").reap()
        bench.courier.ledger.settle = settle  # type: ignore[method-assign]
        async with a_bench(redis_url, owner="w2", elsewhere=True) as other:
            other.cloud.moved = ["a-0"]
            assert await other.finish() == {"moved:process_died": 1, "sent": 1}
            assert other.cloud.tokens == ["b-0"]

    on_bench(redis_url, scenario, elsewhere=True)


@pytest.mark.parametrize("parking", ["", "parked"])
def test_stopping_in_the_middle_of_a_move_leaves_the_lease_to_run_out(redis_url: str, parking: Parking) -> None:
    async def scenario(bench: Bench) -> None:
        await bench.courier.ledger.tell_gate(LONG)
        entry = named("a")
        entry.parcel.push = msgspec.structs.replace(entry.parcel.push, parking=parking)
        await put(bench.link, entry)
        await bench.courier.claim()

        async def in_hand() -> bool:
            return (await bench.book()).leased == 1

        await until(in_hand)
        await bench.courier.stop(0.1)
        book = await bench.book()
        assert (book.leased, book.ended, book.delayed) == (1, 0, 0), "nobody knows whether it went"

    cloud = Cloud()
    on_bench(redis_url, scenario, cloud=cloud, mover=Troubled(cloud, slow_s=60))


def test_stopping_in_the_middle_of_a_move_after_an_answer_counts_an_unknown_outcome(redis_url: str) -> None:
    async def scenario(bench: Bench) -> None:
        bench.cloud.answer("a-0", DEAD_TOKEN)
        await put(bench.link, named("a"))
        unknown = bench.courier._unknown._value.get()
        await bench.courier.claim()
        await until(lambda: bench.cloud.tokens == ["a-0"])
        await bench.courier.stop(0.1)
        book = await bench.book()
        assert (book.leased, book.ended, book.delayed) == (0, 0, 1)
        assert bench.courier._unknown._value.get() == unknown + 1
        assert book.unknown == 1, "it may be sent by both"

    cloud = Cloud()
    on_bench(redis_url, scenario, cloud=cloud, mover=Troubled(cloud, slow_s=60))


def test_a_slow_evacuation_holds_up_no_neighbour(redis_url: str) -> None:
    async def scenario(bench: Bench) -> None:
        courier, cloud, keys = await neighbour(bench)
        await bench.courier.ledger.tell_gate(LONG)
        await put(bench.link, *[named(f"m{number}") for number in range(100)])
        draining = asyncio.create_task(bench.drain.run())

        async def evacuating() -> bool:
            return (await bench.book()).leased > 0

        await until(evacuating)
        entry = named("s")
        started = time.monotonic()
        await put_at(bench.link, keys, entry)
        await bench.link.run(*ring_call(bench.vendor_keys))
        await until(lambda: cloud.tokens == ["s-0"])
        assert time.monotonic() - started < 1.0
        bench.drain.stop()
        await draining
        await courier.stop(1)

    cloud = Cloud()
    on_bench(redis_url, scenario, cloud=cloud, mover=Troubled(cloud, slow_s=3), linger_s=2.0)


def test_a_defect_after_part_of_a_load_was_settled_keeps_the_books(redis_url: str) -> None:
    async def scenario(bench: Bench) -> None:
        bench.cloud.answer("q-0", DEAD_TOKEN)
        await put(bench.link, named("p", deliveries=150), named("q"))
        ends = await bench.finish()
        assert sum(ends.values()) == 151

    cloud = Cloud(100)
    cloud.mixing = True
    on_bench(redis_url, scenario, cloud=cloud, mover=Troubled(cloud, KeyError("defect"), slow_s=0.5, times=3))


def test_a_late_ok_does_not_swallow_the_recall_of_the_same_message(redis_url: str) -> None:
    async def scenario(bench: Bench) -> None:
        settle = bench.courier.ledger.settle

        async def after(settlements: Any) -> Any:
            bench.courier.ledger.settle = settle  # type: ignore[method-assign]
            await settle(settlements)
            raise LinkLost("broke after it was written")

        bench.courier.ledger.settle = after  # type: ignore[method-assign]
        await put(bench.link, named("m"))
        assert await bench.finish() == {"sent": 1}
        recall = named("m")
        recall.parcel.push = msgspec.structs.replace(recall.parcel.push, revision=1, recall=True, replace_key="k")
        recall.id = b"r" * 16
        await put(bench.link, recall)
        await bench.finish()
        assert len(bench.cloud.tokens) == 2

    on_bench(redis_url, scenario)
