"""Makers of ledger entries for tests."""

from __future__ import annotations

import time

from pushfleet.message import Lane
from pushfleet_workers.ledger import AccountKeys, Entry, Ledger, pack
from pushfleet_workers.ledger.entry import parcel_id
from pushfleet_workers.ledger.ledger import Rate, Want
from pushfleet_workers.push import Delivery, Parcel, Push, delivery_id
from pushfleet_workers.redis_link import Link

KEYS = AccountKeys("t", "apns", "main")
PLENTY = Want(parcels=1_000, deliveries=100_000, bulk_deliveries=100_000)


def an_entry(name: str, *, deliveries: int = 1, lane: Lane = "normal", ttl_s: float = 60, put_ms: float = 0) -> Entry:
    now_ms = int(time.time() * 1000)
    push = Push("demo", name, "chat", lane, "Ann", "hi", int(now_ms + ttl_s * 1000), now_ms, now_ms)
    parcel = Parcel(
        push,
        [
            Delivery(delivery_id("demo", name, f"u{number}", "d"), f"u{number}", "d", f"token-{number}", now_ms)
            for number in range(deliveries)
        ],
    )
    return Entry(parcel_id(name.encode()), parcel, lane, put_ms or now_ms)


async def put(link: Link, *entries: Entry, bucket: int = 1, share_max: int = 0) -> list[int]:
    """Put each entry as a part of its own; returns the deliveries of each first write."""
    return await put_at(link, KEYS, *entries, bucket=bucket, share_max=share_max)


async def put_at(link: Link, keys: AccountKeys, *entries: Entry, bucket: int = 1, share_max: int = 0) -> list[int]:
    """As :func:`put`, into the ledger of another account."""
    parts = [(entry.id, [pack(entry)]) for entry in entries]
    (answer,) = await link.run_many([Ledger.put_call(keys, bucket, parts, share_max)])
    if isinstance(answer, Exception):
        raise answer
    return list(answer[2])


def a_ledger(link: Link, owner: str = "w1", rate: Rate | None = None) -> Ledger:
    return Ledger(link, KEYS, owner, rate=rate)


async def books(link: Link) -> dict[str, int]:
    """The account's books as the scripts keep them."""
    flat = await link.call("HGETALL", KEYS.books)
    return {flat[at].decode(): int(flat[at + 1]) for at in range(0, len(flat), 2)}
