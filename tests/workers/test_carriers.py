"""Pushes that tell of other messages too: they hold longer than their own does, and take permits as any other."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from msgspec.structs import replace
from tests.workers.courier_play import named, on_bench
from tests.workers.doubles import Bench, until
from tests.workers.ledger.support import PLENTY, a_ledger, put

from pushfleet_workers.ledger import Entry, GateNews
from pushfleet_workers.ledger.ledger import Breaker, Rate
from pushfleet_workers.push import Parcel, Wait
from pushfleet_workers.retry import RetryPolicy

LONG = GateNews(pause_ms=60_000, reason="x")


def a_carrier(name: str, later: Wait = "storm") -> Entry:
    """A push whose own message has expired, and which waited for others to tell of."""
    entry = named(name, ttl_s=-1)
    entry.parcel = Parcel(replace(entry.parcel.push, later=later), entry.parcel.deliveries)
    return entry


def tell_of_others(bench: Bench, *carriers: Entry) -> None:
    """From now on *carriers* are found to tell of messages that make sense for a minute."""
    for entry in carriers:
        push = entry.parcel.push
        told = replace(push, body="3", expires_at_ms=push.expires_at_ms + 60_000)
        bench.rendered |= {one.id: told for one in entry.parcel.deliveries}


def most_in_a_second(sent_at: Sequence[float]) -> int:
    """The most requests that left in any sliding second."""
    return max(sum(start <= one < start + 1 for one in sent_at) for start in sent_at)


@pytest.mark.parametrize("later", ["storm", "cap"])
def test_carriers_leave_at_the_account_s_rate_whatever_became_of_their_own_message(redis_url: str, later: Wait) -> None:
    async def scenario(bench: Bench) -> None:
        carriers = [a_carrier(f"m{number}", later) for number in range(40)]
        tell_of_others(bench, *carriers)
        await put(bench.link, *carriers)
        assert await bench.finish() == {"sent": 40}
        assert most_in_a_second(bench.cloud.sent_at) <= 20 + 8

    on_bench(redis_url, scenario, rate=Rate(20, 8))


def test_one_carrier_probes_and_the_others_wait_for_what_it_finds(redis_url: str) -> None:
    async def scenario(bench: Bench) -> None:
        await put(bench.link, *[a_carrier(f"m{number}") for number in range(5)])
        ledger = a_ledger(bench.link)
        ledger.breaker = Breaker(failures=1, open_min_ms=20, open_max_ms=20)
        await ledger.tell_gate(GateNews(bad=1, reason="unreachable"))
        await asyncio.sleep(0.03)
        assert len((await ledger.claim(PLENTY)).entries) == 1

    on_bench(redis_url, scenario)


def test_of_one_parcel_each_delivery_holds_as_long_as_what_it_tells_of(redis_url: str) -> None:
    async def scenario(bench: Bench) -> None:
        carrier = named("m", deliveries=3, ttl_s=-1)
        carrier.parcel = Parcel(replace(carrier.parcel.push, later="storm"), carrier.parcel.deliveries)
        tell_of_others(bench, carrier)
        second = carrier.parcel.deliveries[1]
        bench.rendered[second.id] = replace(bench.rendered[second.id], expires_at_ms=1)
        await put(bench.link, carrier)
        assert await bench.finish() == {"sent": 2, "dropped:expired": 1}
        assert sorted(bench.cloud.tokens) == ["m-0", "m-2"]

    on_bench(redis_url, scenario)


def test_a_carrier_that_a_process_died_with_still_tells_of_the_others(redis_url: str) -> None:
    async def scenario(bench: Bench) -> None:
        carrier = a_carrier("m")
        carrier.lost = 1
        tell_of_others(bench, carrier)
        await put(bench.link, carrier)
        assert await bench.finish() == {"sent": 1}

    on_bench(redis_url, scenario, policy=RetryPolicy())


def test_a_carrier_waits_for_an_account_that_is_shut(redis_url: str) -> None:
    async def scenario(bench: Bench) -> None:
        carrier, alone = a_carrier("m"), named("alone", ttl_s=-1)
        tell_of_others(bench, carrier)
        await bench.courier.ledger.tell_gate(LONG)
        await put(bench.link, carrier, alone)
        await bench.courier.claim()

        async def all_put_away() -> bool:
            book = await bench.book()
            return (book.ready, book.leased) == (0, 0)

        await until(all_put_away)
        assert await bench.ends() == {"dropped:expired": 1}
        assert (await bench.book()).delayed == 1
        assert bench.mover.asked == [], "another account knows nothing of the others"

    on_bench(redis_url, scenario, elsewhere=True)
