"""What an operator's pause means for a process that has work of the account in hand."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from types import SimpleNamespace

import msgspec
import pytest
from tests.workers.courier_play import RETRY, named, on_bench
from tests.workers.doubles import Bench, Cloud, until
from tests.workers.ledger.support import put

from pushfleet_workers.gate_desk import GateDesk
from pushfleet_workers.ledger import AccountKeys, Claim, Entry, Ledger, pack
from pushfleet_workers.ledger.ledger import Want
from pushfleet_workers.ledger.pause import pause, resume
from pushfleet_workers.ledger.waiting import hasten
from pushfleet_workers.outcome import OK, Outcome, Scope, Verdict
from pushfleet_workers.push import PutOff
from pushfleet_workers.recheck import Rechecked
from pushfleet_workers.redis_link import LinkLost


async def pauses(bench: Bench, *, span_ms: int = 0, elsewhere: bool = False) -> None:
    await pause(bench.link, bench.keys, span_ms=span_ms, reason="", elsewhere=elsewhere)


def test_what_waits_in_a_process_goes_back_and_what_is_under_way_comes_in(redis_url: str) -> None:
    async def scenario(bench: Bench) -> None:
        bench.cloud.held.clear()
        await put(bench.link, *[named(f"m{number}") for number in range(40)])
        await bench.courier.claim()
        await until(lambda: bench.cloud.under_way == 3)
        await pauses(bench)
        await bench.courier.heed_operator()

        async def given_back() -> bool:
            book = await bench.book()
            return (book.ready, book.leased) == (37, 3)

        await until(given_back)
        bench.cloud.held.set()
        await bench.settled()
        assert await bench.ends() == {"sent": 3}
        assert len(bench.cloud.tokens) == 3
        await bench.courier.claim()
        assert len(bench.cloud.tokens) == 3
        await resume(bench.link, bench.keys, force=False)
        assert await bench.finish() == {"sent": 40}

    on_bench(redis_url, scenario, in_flight_max=3)


@pytest.mark.parametrize("elsewhere", [False, True])
def test_what_a_lost_answer_brought_does_not_leave_either(
    redis_url: str, monkeypatch: pytest.MonkeyPatch, elsewhere: bool
) -> None:
    async def scenario(bench: Bench) -> None:
        ledger = bench.courier.ledger
        claims = ledger._claim_now

        async def is_lost(want: Want) -> Claim:
            await claims(want)
            raise LinkLost("the connection to Redis broke")

        await put(bench.link, named("first"))
        assert await bench.finish() == {"sent": 1}
        await put(bench.link, *[named(f"m{number}") for number in range(5)])
        if elsewhere:
            await pauses(bench, elsewhere=True)
        monkeypatch.setattr(ledger, "_claim_now", is_lost)
        with pytest.raises(LinkLost):
            await ledger.claim(Want(10, 10, 10, elsewhere=elsewhere))
        monkeypatch.setattr(ledger, "_claim_now", claims)
        assert (await bench.book()).leased == 5
        await pauses(bench)
        await bench.courier.claim()
        await bench.settled()
        assert bench.cloud.tokens == ["first-0"]
        await resume(bench.link, bench.keys, force=False)
        assert await bench.finish() == {"sent": 6}
        assert bench.cloud.tokens[1:] == [f"m{number}-0" for number in range(5)]

    on_bench(redis_url, scenario)


@pytest.mark.parametrize("deliveries", [1, 3])
def test_what_goes_back_is_decided_again_after_it(redis_url: str, deliveries: int) -> None:
    async def scenario(bench: Bench) -> None:
        bench.cloud.held.clear()
        entries = [named(name, deliveries=deliveries, put_ms=1) for name in ("a", "b")]
        for one in entries:
            one.parcel.put_off = PutOff(int(time.time() * 1000) - 100)
        await put(bench.link, *entries)
        await bench.courier.claim()
        await until(lambda: bench.cloud.under_way == 1)
        assert bench.rechecked == [], "of what was decided on a moment ago"
        await pauses(bench)
        await bench.courier.heed_operator()
        bench.cloud.held.set()
        await bench.settled()
        bench.refused.update({delivery.id: "read" for one in entries for delivery in one.parcel.deliveries})
        await resume(bench.link, bench.keys, force=False)
        assert await bench.finish() == {"sent": 1, "suppressed:read": 2 * deliveries - 1}

    on_bench(redis_url, scenario, in_flight_max=1, recheck_s=2.0)


def test_a_claim_hears_of_it_as_well(redis_url: str, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(bench: Bench) -> None:
        caplog.set_level(logging.INFO)
        bench.cloud.held.clear()
        await put(bench.link, *[named(f"m{number}", deliveries=4) for number in range(10)])
        await bench.courier.claim()
        await until(lambda: bench.cloud.under_way == 2)
        await pauses(bench)
        await bench.courier.claim()

        async def given_back() -> bool:
            return (await bench.book()).leased <= 4

        await until(given_back)
        assert "account apns:main is paused by an operator" in caplog.text
        bench.cloud.held.set()
        await bench.settled()
        await resume(bench.link, bench.keys, force=False)
        assert await bench.finish() == {"sent": 40}
        assert "account apns:main is resumed by an operator" in caplog.text
        assert sorted(bench.cloud.tokens) == sorted(set(bench.cloud.tokens)), "nothing was sent twice"

    on_bench(redis_url, scenario, in_flight_max=2)


@pytest.mark.parametrize("hears", ["by itself", "by a claim"])
def test_what_waits_for_its_authorization_goes_back(redis_url: str, hears: str) -> None:
    """No permit runs out where the account has no rate: only the pause keeps it from leaving."""

    async def scenario(bench: Bench) -> None:
        released = asyncio.Event()
        asked = 0
        obtain = bench.courier._authorization.obtain

        async def slow() -> str:
            nonlocal asked
            asked += 1
            await released.wait()
            return await obtain()

        bench.courier._authorization.obtain = slow  # type: ignore[method-assign]
        await put(bench.link, *[named(f"m{number}") for number in range(5)])
        await bench.courier.claim()
        await until(lambda: asked == 5)
        await pauses(bench)
        if hears == "by itself":
            await bench.courier.heed_operator()
        else:
            await bench.courier.claim()
        released.set()
        await bench.settled()
        assert bench.cloud.requests == []
        await bench.courier.claim()
        assert bench.cloud.requests == []
        await resume(bench.link, bench.keys, force=False)
        assert await bench.finish() == {"sent": 5}
        assert len(bench.cloud.tokens) == 5

    on_bench(redis_url, scenario)


def test_what_is_decided_again_just_then_goes_back(redis_url: str) -> None:
    async def scenario(bench: Bench) -> None:
        async def paused_meanwhile(entries: Sequence[Entry]) -> Rechecked:
            monkeypatched.undo()
            await pauses(bench)
            await bench.courier.heed_operator()
            return Rechecked()

        monkeypatched.setattr(bench.courier._still_wanted, "_recheck", paused_meanwhile)
        old = named("old", put_ms=time.time() * 1000 - 5_000)
        await put(bench.link, old)
        await bench.courier.claim()
        await bench.settled()
        assert bench.cloud.requests == []
        assert bench.cloud.held_back == 1, "what waits for a connection does not leave either"
        await resume(bench.link, bench.keys, force=False)
        assert await bench.finish() == {"sent": 1}

    with pytest.MonkeyPatch.context() as monkeypatched:
        on_bench(redis_url, scenario, recheck_s=2.0)


def test_nothing_is_asked_while_nothing_waits(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(bench: Bench) -> None:
        async def asked() -> int:
            raise AssertionError

        monkeypatch.setattr(bench.courier.ledger, "operator_until_ms", asked)
        await bench.courier.heed_operator()

    on_bench(redis_url, scenario)


def test_what_fails_meanwhile_is_tried_again_after_it(redis_url: str) -> None:
    async def scenario(bench: Bench) -> None:
        bench.cloud.answer("m-0", RETRY, OK)
        bench.cloud.held.clear()
        await put(bench.link, named("m"))
        await bench.courier.claim()
        await until(lambda: bench.cloud.under_way == 1)
        await pauses(bench)
        bench.cloud.held.set()
        await bench.settled()
        await asyncio.sleep(0.01)
        await bench.courier.claim()
        assert len(bench.cloud.tokens) == 1
        await resume(bench.link, bench.keys, force=False)
        assert await bench.finish() == {"sent": 1}

    on_bench(redis_url, scenario)


def test_a_drain_goes_on_by_itself_once_the_pause_is_over(redis_url: str) -> None:
    async def scenario(bench: Bench) -> None:
        await put(bench.link, named("m"))
        await pauses(bench, span_ms=150)
        draining = asyncio.create_task(bench.drain.run())

        async def sent() -> bool:
            return await bench.ends() == {"sent": 1}

        await until(sent, 3)
        bench.drain.stop()
        await draining

    on_bench(redis_url, scenario, linger_s=1.0)


def test_its_neighbours_go_on(redis_url: str) -> None:
    async def scenario(bench: Bench) -> None:
        await put(bench.link, named("m"))
        await pause(bench.link, AccountKeys("t", "apns", "second"), span_ms=0, reason="", elsewhere=False)
        assert await bench.finish() == {"sent": 1}

    on_bench(redis_url, scenario)


def test_expired_work_ends_when_it_is_over(redis_url: str) -> None:
    async def scenario(bench: Bench) -> None:
        await put(bench.link, named("a", ttl_s=-1), named("b"))
        await pauses(bench)
        await bench.courier.claim()
        assert (await bench.book()).ready == 2
        await resume(bench.link, bench.keys, force=False)
        assert await bench.finish() == {"dropped:expired": 1, "sent": 1}

    on_bench(redis_url, scenario)


def test_work_stays_where_it_is_unless_the_operator_says_otherwise(redis_url: str) -> None:
    async def scenario(bench: Bench) -> None:
        bench.cloud.moves = {"a-0", "b-0"}
        await put(bench.link, named("a"), named("b"), named("stays"))
        await pauses(bench)
        await bench.courier.claim()
        await asyncio.sleep(0.05)
        assert (await bench.book()).ready == 3
        assert bench.cloud.moved == []
        await pauses(bench, elsewhere=True)
        await bench.courier.claim()

        async def gone() -> bool:
            book = await bench.book()
            return (book.ready, book.leased, book.delayed) == (0, 0, 1)

        await until(gone)
        assert await bench.ends() == {"moved:account_shut": 2}
        assert bench.cloud.requests == []

    on_bench(redis_url, scenario, elsewhere=True)


def test_by_force_what_the_vendor_put_off_goes_at_once_and_nothing_else(redis_url: str) -> None:
    spent = Outcome(Verdict.QUOTA_EXHAUSTED, Scope.ACCOUNT, code="Quota", wait_s=30)
    no_marketing = Outcome(Verdict.QUOTA_EXHAUSTED, Scope.CLASS, code="NoMore", wait_s=30)
    throttled = Outcome(Verdict.RATE_LIMITED, Scope.DEVICE, code="TooMany", wait_s=30)

    async def scenario(bench: Bench) -> None:
        bench.cloud.answer("kind-0", no_marketing, OK)
        bench.cloud.answer("account-0", spent, OK)
        bench.cloud.answer("device-0", throttled, OK)
        for name in ("kind", "alike", "device", "account"):
            entry = named(name)
            if name in ("kind", "alike"):
                entry.parcel.push = msgspec.structs.replace(entry.parcel.push, kind="marketing")
            await put(bench.link, entry)
            await bench.courier.claim()
            await bench.settled()
        storm = named("storm")
        storm.parcel.push = msgspec.structs.replace(storm.parcel.push, later="storm")
        calls = [Ledger.put_call(bench.keys, 1, [(b"storm", [(int(storm.put_ms) + 30_000, pack(storm))])], 0)]
        await bench.link.run_many(calls)
        await put(bench.link, named("waits"))
        await bench.courier.claim()
        book = await bench.book()
        assert (book.delayed, book.ready, book.ended) == (5, 1, 0)
        bench.cloud.requests.clear()
        desk = GateDesk(bench.link, "t", SimpleNamespace(apps={("apns", "main"): "demo"}))  # type: ignore[arg-type]
        await desk.resume("apns", "main")
        await bench.courier.claim()
        assert bench.cloud.tokens == [], "the vendor's word stands"
        (state,) = await desk.resume("apns", "main", force=True)
        assert state.state == "open"

        async def sent() -> bool:
            await bench.courier.claim()
            return (await bench.ends()).get("sent", 0) == 4

        await until(sent)
        assert sorted(bench.cloud.tokens) == ["account-0", "alike-0", "kind-0", "waits-0"]
        assert (await bench.book()).delayed == 2, "the storm, and the other try at the device"

    on_bench(redis_url, scenario)


def test_a_drain_finds_what_comes_due_by_force(redis_url: str) -> None:
    async def scenario(bench: Bench) -> None:
        bench.cloud.answer("m-0", Outcome(Verdict.QUOTA_EXHAUSTED, Scope.ACCOUNT, code="Quota", wait_s=30), OK)
        await put(bench.link, named("m"))
        draining = asyncio.create_task(bench.drain.run())

        async def put_off() -> bool:
            return (await bench.book()).delayed == 1

        await until(put_off)
        await resume(bench.link, bench.keys, force=True)
        assert await hasten(bench.link, bench.keys) == 1

        async def sent() -> bool:
            return await bench.ends() == {"sent": 1}

        await until(sent, 3)
        bench.drain.stop()
        await draining

    on_bench(redis_url, scenario, linger_s=5.0)


def test_a_batch_that_has_left_is_never_cut_in_two(redis_url: str) -> None:
    async def scenario(bench: Bench) -> None:
        bench.cloud.held.clear()
        await put(bench.link, named("m", deliveries=25))
        await bench.courier.claim()
        await until(lambda: bench.cloud.under_way == 1)
        await pauses(bench)
        await bench.courier.heed_operator()
        bench.cloud.held.set()
        await bench.settled()
        assert await bench.ends() == {"sent": 10}
        await resume(bench.link, bench.keys, force=False)
        assert await bench.finish() == {"sent": 25}
        assert len(set(bench.cloud.tokens)) == len(bench.cloud.tokens) == 25

    on_bench(redis_url, scenario, cloud=Cloud(10), in_flight_max=1)
