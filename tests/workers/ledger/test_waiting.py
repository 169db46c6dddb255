"""What waits for what a vendor asked comes due before its time, on a real Redis."""

from __future__ import annotations

import asyncio
import time

from tests.workers.ledger.support import KEYS, PLENTY, a_ledger, an_entry

from pushfleet_workers.ledger import Entry, Ledger, pack
from pushfleet_workers.ledger.ledger import PutEntry
from pushfleet_workers.ledger.waiting import hasten
from pushfleet_workers.redis_link import Link

FAR_MS = 3_600_000


def waiting(name: str, number: int, *, gated: bool) -> Entry:
    entry = an_entry(name, deliveries=2, put_ms=1_000 + number)
    entry.parcel.gated = gated
    return entry


def test_all_of_it_comes_due_in_its_order_though_redis_is_full_and_something_is_damaged(redis_url: str) -> None:
    async def run() -> None:
        link = Link(redis_url)
        try:
            due_ms = int(time.time() * 1000) + FAR_MS
            some = [waiting(f"m{number}", number, gated=True) for number in range(1_300)]
            others = [waiting(f"own{number}", number, gated=False) for number in range(50)]
            entries: list[PutEntry] = [(due_ms, pack(one)) for one in [*reversed(some), *others]]
            await link.run_many([Ledger.put_call(KEYS, 1, [(b"part", entries)], 0)])
            await link.call("HSET", KEYS.delayed_entries, others[0].id, pack(others[0])[:40])
            await link.call("CONFIG", "SET", "maxmemory", 1)
            try:
                assert await hasten(link, KEYS) == 2_600
                assert await hasten(link, KEYS) == 0, "it is due already"
            finally:
                await link.call("CONFIG", "SET", "maxmemory", 0)
            ledger, found = a_ledger(link), []
            while claim := (await ledger.claim(PLENTY)).entries:
                found += [entry.parcel.push.message_id for entry in claim]
            assert found == [f"m{number}" for number in range(1_300)]
            assert await link.call("ZCARD", KEYS.delayed) == 50
        finally:
            await link.close()

    asyncio.run(run())


def test_where_nothing_waits_nothing_comes_due(redis_url: str) -> None:
    async def run() -> int:
        link = Link(redis_url)
        try:
            return await hasten(link, KEYS)
        finally:
            await link.close()

    assert asyncio.run(run()) == 0
