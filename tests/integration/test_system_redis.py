"""The ledger on the server that the system's packages bring, not on the one inside the wheel.

Skipped where there is none, unless the environment says that there must be one.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.workers.ledger.support import KEYS, PLENTY, a_ledger, an_entry, books, put

from pushfleet_workers import redis_server
from pushfleet_workers.audit import read_books
from pushfleet_workers.checks import check_redis, refuse_old_redis
from pushfleet_workers.ledger import Settlement
from pushfleet_workers.redis_link import Link
from pushfleet_workers.redis_server import EmbeddedRedis

REQUIRED = "REQUIRE_SYSTEM_REDIS"


@pytest.fixture(scope="module")
def system_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server from PATH."""
    paths = [path for name in ("redis-server", "valkey-server") if (path := shutil.which(name)) is not None]
    usable = [path for path in paths if redis_server._new_enough(path)]
    if not usable:
        why = f"too old: {paths[0]}" if paths else "no redis-server or valkey-server on PATH"
        if os.environ.get(REQUIRED):
            pytest.fail(f"{REQUIRED} is set, and there is {why}")
        pytest.skip(why)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(redis_server, "find_server", lambda: usable[0])
        with EmbeddedRedis(Path(tmp_path_factory.mktemp("system-redis"))) as server:
            yield server.url


def test_it_is_new_enough_and_well_configured(system_redis: str) -> None:
    async def look() -> None:
        link = Link(system_redis)
        try:
            await refuse_old_redis(link)
            findings = await check_redis(link, "redis.queue")
            assert [finding.level for finding in findings] == ["ok"]
        finally:
            await link.close()

    asyncio.run(look())


def test_work_goes_through_the_ledger_and_the_books_balance(system_redis: str) -> None:
    async def work() -> None:
        link = Link(system_redis)
        try:
            sent_entry, late_entry = an_entry("m1", deliveries=3), an_entry("m2", deliveries=2)
            assert await put(link, sent_entry, late_entry) == [3, 2]
            assert await put(link, sent_entry) == [3], "a repeat changes nothing"
            ledger = a_ledger(link)
            claim = await ledger.claim(PLENTY)
            assert len(claim.entries) == 2
            first = claim.entries[0]
            assert await ledger.settle([Settlement(first.id, first.fence, 3, ended=3, ends={"normal:sent:": 3})]) == []
            await ledger.beat(1)
            assert await ledger.reap() == 0, "its process lives"
            told = await books(link)
            assert (told["put"], told["leased"], told["ended"]) == (5, 2, 3)
            whole = await read_books(link, "t", [(KEYS.vendor, KEYS.credential)])
            assert whole.accounts["apns:main"].balanced
            assert whole.accounts["apns:main"].recounted == (0, 2, 0)
        finally:
            await link.close()

    asyncio.run(work())
