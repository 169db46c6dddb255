"""A scenario for a courier on a bench, and what such scenarios have in common."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import msgspec
from tests.workers.doubles import Bench, a_bench, until
from tests.workers.ledger.support import PLENTY, a_ledger, an_entry

from pushfleet.message import Lane
from pushfleet_workers.errors import NoAnswer
from pushfleet_workers.ledger import Entry
from pushfleet_workers.outcome import Outcome, Scope, Verdict

RETRY = Outcome(Verdict.RETRY, code="Busy")
DEAD_TOKEN = Outcome(Verdict.DROP_TOKEN, code="Unregistered", since_ms=5)
BAD = Outcome(Verdict.BAD_PAYLOAD, code="BadPayload")
STALE_AUTH = Outcome(Verdict.REFRESH_AUTH, Scope.ACCOUNT, code="Expired")
UNREACHABLE = NoAnswer("no connection could be made", maybe_delivered=False)
UNKNOWN = NoAnswer("reset", maybe_delivered=True)


def on_bench(url: str, scenario: Callable[[Bench], Awaitable[None]], **options: object) -> None:
    async def run() -> None:
        async with a_bench(url, **options) as bench:  # type: ignore[arg-type]
            await scenario(bench)

    asyncio.run(run())


def token_of(entry: Entry, number: int = 0) -> str:
    return entry.parcel.deliveries[number].token


def named(name: str, *, deliveries: int = 1, lane: Lane = "normal", ttl_s: float = 60, put_ms: float = 0) -> Entry:
    """An entry whose tokens name it."""
    entry = an_entry(name, deliveries=deliveries, lane=lane, ttl_s=ttl_s, put_ms=put_ms)
    for number, delivery in enumerate(entry.parcel.deliveries):
        delivery.token = f"{name}-{number}"
    return entry


async def dead_letters(bench: Bench) -> list[dict[bytes, bytes]]:
    letters = await bench.link.call("XRANGE", bench.keys.dead, "-", "+")
    return [dict(zip(fields[::2], fields[1::2], strict=True)) for _, fields in letters]


def replaced(entry: Entry, **changes: object) -> Entry:
    entry.parcel.push = msgspec.structs.replace(entry.parcel.push, **changes)
    return entry


async def lose(bench: Bench, owner: str) -> None:
    """A process claims and dies."""
    await a_ledger(bench.link, owner).claim(PLENTY)
    await bench.link.call("ZADD", bench.keys.owners, 1, owner)
    await bench.courier.ledger.reap()


async def grown_old(bench: Bench) -> None:
    """Wait until what waits in hand must not leave any more."""
    waiting = [held for held in bench.courier._hand.everything() if not held.under_way]
    assert waiting
    await until(lambda: all(bench.courier._void(held) for held in waiting))
