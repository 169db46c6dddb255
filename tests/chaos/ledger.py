"""The fleet's own book, as it stands in Redis, and the devices that it is to know."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from tests.chaos.books import LedgerBook
from tests.chaos.people import APP, People

from pushfleet_workers.audit import Books as Audit
from pushfleet_workers.audit import read_books
from pushfleet_workers.redis_link import Link
from pushfleet_workers.tokens.death_log import DeathLog, Filter
from pushfleet_workers.tokens.importing import import_lines

__all__ = ["ledger_book", "read_audit", "register", "settled_deaths_s"]

T = TypeVar("T")


def read_audit(redis_url: str, prefix: str, accounts: Sequence[tuple[str, str]]) -> Audit:
    """What `pushfleet audit` reads; raises :class:`RedisUnusable`."""
    return _asked(redis_url, lambda link: read_books(link, prefix, accounts))


def register(redis_url: str, prefix: str, people: People) -> None:
    """Enter their devices into the token state."""
    accounts = {(vendor, "main"): APP for vendor in people.vendors}

    async def write() -> None:
        lines = enumerate(json.dumps(row).encode() for row in people.devices())
        async for progress in import_lines(redis_url, prefix, lines, known_apps={APP}, accounts=accounts):
            assert not progress.refused, progress.problems

    asyncio.run(write())


def ledger_book(audit: Audit) -> LedgerBook:
    """The ends of all accounts and lanes together."""
    ends: Counter[str] = Counter()
    for account in audit.accounts.values():
        for name, count in account.ends.items():
            ends[name.partition(":")[2]] += count
    for lane in audit.lanes.values():
        for name, count in lane.suppressed.items():
            ends[f"suppressed:{name.partition(':')[2]}"] += count
    # It has another end in the account where it went on.
    ends = Counter({name: count for name, count in ends.items() if not name.startswith("moved:")})
    unknown = sum(account.unknown for account in audit.accounts.values())
    return LedgerBook(dict(+ends), unknown, audit.pending, audit.balanced)


def settled_deaths_s(redis_url: str, prefix: str) -> dict[str, float]:
    """By user, when the fleet first knew that their token is dead."""

    async def read(link: Link) -> dict[str, float]:
        log = DeathLog(link, prefix, kept_max=0)
        return {told.user: told.at_ms / 1000 async for told in log.newest_first(APP, Filter())}

    return _asked(redis_url, read)


def _asked(redis_url: str, question: Callable[[Link], Awaitable[T]]) -> T:
    async def ask() -> T:
        link = Link(redis_url)
        try:
            return await question(link)
        finally:
            await link.close()

    return asyncio.run(ask())
