"""A token state that answers more slowly than permits live: nothing leaves without a permit, and everything leaves."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec
import pytest
from tests.workers.courier_play import named, on_bench
from tests.workers.doubles import Bench
from tests.workers.ledger.support import put
from tests.workers.test_carriers import a_carrier, most_in_a_second, tell_of_others

from pushfleet_workers.errors import NotInTime, RedisUnusable
from pushfleet_workers.ledger import Entry
from pushfleet_workers.ledger.ledger import Rate
from pushfleet_workers.outcome import OK, Outcome, Verdict
from pushfleet_workers.peace.device_day import Answer, Asked, DeviceDays, day_command, read_day
from pushfleet_workers.push import PutOff
from pushfleet_workers.recheck import Rechecked
from pushfleet_workers.retry import RetryPolicy

QUICKLY_VOID = Rate(200.0, 6)
"""Its permits live for 15 ms."""

SLOW_S = 0.03


def slow_recheck(bench: Bench, problem: Exception | None = None) -> None:
    """From now on the token state takes its time, and then perhaps has a *problem*."""
    at_once = bench.courier._still_wanted._recheck

    async def slow(entries: Sequence[Entry]) -> Rechecked:
        await asyncio.sleep(SLOW_S)
        found = await at_once(entries)
        if problem is not None:
            raise problem
        return found

    bench.courier._still_wanted._recheck = slow


def old(name: str, **more: Any) -> Entry:
    """An entry that is asked about before it leaves."""
    return named(name, put_ms=1, **more)


@pytest.mark.parametrize("problem", [None, RedisUnusable("silent")])
def test_what_is_asked_about_for_longer_than_permits_live_leaves(redis_url: str, problem: Exception | None) -> None:
    async def scenario(bench: Bench) -> None:
        slow_recheck(bench, problem)
        await put(bench.link, *[old(f"m{number}") for number in range(12)])
        assert await bench.finish() == {"sent": 12}
        assert len(bench.rechecked) == 12, "each of them once"
        assert most_in_a_second(bench.cloud.sent_at) <= QUICKLY_VOID.rate_per_s + QUICKLY_VOID.burst

    on_bench(redis_url, scenario, rate=QUICKLY_VOID, recheck_s=2.0)


def test_what_a_process_died_with_leaves_as_well(redis_url: str) -> None:
    async def scenario(bench: Bench) -> None:
        slow_recheck(bench)
        once, twice = old("once"), old("twice")
        once.lost, twice.lost = 1, 2
        await put(bench.link, once, twice)
        assert await bench.finish() == {"sent": 2}

    on_bench(redis_url, scenario, rate=QUICKLY_VOID, recheck_s=2.0, policy=RetryPolicy())


def test_a_carrier_leaves_with_what_it_was_found_to_tell(redis_url: str) -> None:
    async def scenario(bench: Bench) -> None:
        slow_recheck(bench)
        carrier, decided = a_carrier("m"), a_carrier("decided")
        tell_of_others(bench, carrier)
        decided.parcel.put_off = PutOff(int(time.time() * 1000))
        await put(bench.link, carrier, decided)
        assert await bench.finish() == {"sent": 1, "dropped:expired": 1}
        assert bench.cloud.bodies == ["3"]

    on_bench(redis_url, scenario, rate=QUICKLY_VOID, recheck_s=2.0)


def test_what_was_decided_long_ago_or_before_a_process_died_is_decided_again(redis_url: str) -> None:
    async def scenario(bench: Bench) -> None:
        now_ms = int(time.time() * 1000)
        fresh, stale, lost, tried = old("fresh"), old("stale"), old("lost"), old("tried")
        fresh.parcel.put_off = PutOff(now_ms)
        stale.parcel.put_off = PutOff(now_ms - 1_100)
        lost.parcel.put_off, lost.lost = PutOff(now_ms), 1
        tried.parcel.put_off = PutOff(now_ms)
        bench.cloud.answer("tried-0", Outcome(Verdict.RETRY), OK)
        await put(bench.link, fresh, stale, lost, tried)
        assert await bench.finish() == {"sent": 4}
        assert set(bench.rechecked[:2]) == {stale.id, lost.id}
        assert len(bench.rechecked) == 3, "and the second try"

    on_bench(redis_url, scenario, recheck_s=2.0)


# ---- caps of devices


@pytest.fixture
def slow_days(monkeypatch: pytest.MonkeyPatch) -> Callable[[Exception | None], None]:
    """Makes counting what devices get slow, and perhaps fail."""

    def make_slow(problem: Exception | None) -> None:
        at_once = DeviceDays.ask

        async def ask(self: DeviceDays, asked: Iterable[tuple[Asked, bool]], *, joins: bool) -> list[Answer | None]:
            await asyncio.sleep(SLOW_S)
            if problem is not None:
                raise problem
            return await at_once(self, asked, joins=joins)

        monkeypatch.setattr(DeviceDays, "ask", ask)

    return make_slow


async def counted(bench: Bench, entry: Entry) -> int:
    """How many pushes of today the first device of *entry* got, as far as was counted."""
    push, (delivery, *_) = entry.parcel.push, entry.parcel.deliveries
    days = bench.courier._caps._days
    cap = days.cap_of(push)
    assert cap is not None
    day = read_day(await bench.link.call(*day_command("t", push.app, delivery.user, days.place(delivery, cap))))
    return day.ordinary + day.important if day is not None else 0


@pytest.mark.parametrize("batch_size", [1, 10])
def test_what_is_counted_for_longer_than_permits_live_leaves_and_counts_once(
    redis_url: str, slow_days: Callable[[Exception | None], None], batch_size: int
) -> None:
    async def scenario(bench: Bench) -> None:
        bench.cloud.batch_size = batch_size
        slow_days(None)
        entry = named("m", deliveries=3)
        await put(bench.link, entry)
        assert await bench.finish() == {"sent": 3}
        assert await counted(bench, entry) == 1

    on_bench(redis_url, scenario, rate=QUICKLY_VOID, device_caps={"all": 5})


def test_what_nobody_can_count_in_time_leaves_uncounted(
    redis_url: str, slow_days: Callable[[Exception | None], None]
) -> None:
    async def scenario(bench: Bench) -> None:
        slow_days(RedisUnusable("silent"))
        entry = named("m")
        await put(bench.link, entry)
        assert await bench.finish() == {"sent": 1}
        assert await counted(bench, entry) == 0

    on_bench(redis_url, scenario, rate=QUICKLY_VOID, device_caps={"all": 5})


def test_what_expires_while_it_is_counted_does_not_count(
    redis_url: str, slow_days: Callable[[Exception | None], None]
) -> None:
    async def scenario(bench: Bench) -> None:
        slow_days(None)
        entry = named("m", ttl_s=SLOW_S / 2)
        await put(bench.link, entry)
        assert await bench.finish() == {"dropped:expired": 1}
        assert await counted(bench, entry) == 0

    on_bench(redis_url, scenario, rate=Rate(20, 20), device_caps={"all": 5})


def test_what_waits_for_a_connection_after_it_was_counted_counts_once(
    redis_url: str, slow_days: Callable[[Exception | None], None]
) -> None:
    async def scenario(bench: Bench) -> None:
        slow_days(None)
        entry = named("m")
        bench.cloud.answer("m-0", NotInTime("it waited", maybe_delivered=False), OK)
        await put(bench.link, entry)
        assert await bench.finish() == {"sent": 1}
        assert await counted(bench, entry) == 1

    on_bench(redis_url, scenario, rate=QUICKLY_VOID, device_caps={"all": 5})


def test_what_was_counted_yesterday_or_before_a_process_died_counts_again(redis_url: str) -> None:
    async def scenario(bench: Bench) -> None:
        entries = [named(name) for name in ("today", "yesterday", "lost")]
        days = bench.courier._caps._days
        cap = days.cap_of(entries[0].parcel.push)
        assert cap is not None
        today = cap.day_at(time.time() * 1000)
        for number, (entry, day) in enumerate(zip(entries, (today, today - 1, today), strict=True)):
            entry.parcel.deliveries[0].user = f"u{number}"
            entry.parcel.put_off = PutOff(counted_day=day)
        entries[2].lost = 1
        await put(bench.link, *entries)
        assert await bench.finish() == {"sent": 3}
        assert [await counted(bench, entry) for entry in entries] == [0, 1, 1]

    on_bench(redis_url, scenario, device_caps={"all": 5})


def test_what_was_counted_and_says_something_else_by_now_does_not_count_again(redis_url: str) -> None:
    async def scenario(bench: Bench) -> None:
        entry = named("m", deliveries=2, put_ms=1)
        cap = bench.courier._caps._days.cap_of(entry.parcel.push)
        assert cap is not None
        entry.parcel.put_off = PutOff(counted_day=cap.day_at(time.time() * 1000))
        news = msgspec.structs.replace(entry.parcel.push, body="3 new messages")
        bench.rendered = {entry.parcel.deliveries[1].id: news}
        await put(bench.link, entry)
        assert await bench.finish() == {"sent": 2}
        assert bench.cloud.bodies == ["hi", "3 new messages"]
        for delivery in entry.parcel.deliveries:
            alone = Entry(entry.id, msgspec.structs.replace(entry.parcel, deliveries=[delivery]), "normal", 1)
            assert await counted(bench, alone) == 0

    on_bench(redis_url, scenario, recheck_s=2.0, device_caps={"all": 5})


def test_what_was_counted_and_waits_for_its_kind_does_not_count_again(redis_url: str) -> None:
    async def scenario(bench: Bench) -> None:
        entry = named("m")
        cap = bench.courier._caps._days.cap_of(entry.parcel.push)
        assert cap is not None
        entry.parcel.put_off = PutOff(int(time.time() * 1000), 0, cap.day_at(time.time() * 1000))
        bench.courier._gate._class_pauses_ms["chat"] = time.time() * 1000 + 100
        await put(bench.link, entry)
        await bench.courier.claim()
        await bench.settled()
        assert (await bench.book()).delayed == 1
        assert await bench.finish() == {"sent": 1}
        assert await counted(bench, entry) == 0

    on_bench(redis_url, scenario, device_caps={"all": 5})
