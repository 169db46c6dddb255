from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from pushfleet_workers.lease import Lease
from pushfleet_workers.redis_link import Link


def on_redis(url: str, scenario: Callable[[Link], Awaitable[None]]) -> None:
    async def run() -> None:
        link = Link(url)
        try:
            await scenario(link)
        finally:
            await link.close()

    asyncio.run(run())


def test_one_process_has_it_and_keeps_it(redis_url: str) -> None:
    async def scenario(link: Link) -> None:
        one, other = Lease(link, "work"), Lease(link, "work")
        assert not one.holds
        assert [await one.renew(), await other.renew(), await one.renew()] == [True, False, True]
        assert [one.holds, other.holds] == [True, False]
        assert 14_000 < await link.call("PTTL", "work") <= 15_000

    on_redis(redis_url, scenario)


def test_who_gives_it_back_lets_the_next_one_in_and_nobody_else_can_give_it_back(redis_url: str) -> None:
    async def scenario(link: Link) -> None:
        one, other = Lease(link, "work"), Lease(link, "work")
        await one.renew()
        for lease in (other, one):
            keeping = asyncio.create_task(lease.keep())
            await asyncio.sleep(0.02)
            assert one.holds
            keeping.cancel()
            await asyncio.gather(keeping, return_exceptions=True)
        assert [one.holds, await other.renew()] == [False, True]

    on_redis(redis_url, scenario)


def test_a_holder_that_hears_nothing_of_redis_stops_in_time(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(link: Link) -> None:
        lease = Lease(link, "work", life_s=15)
        now_s = 100.0
        monkeypatch.setattr("pushfleet_workers.lease.time.monotonic", lambda: now_s)
        await lease.renew()
        now_s = 114.9
        assert lease.holds
        now_s = 115.0
        assert not lease.holds

    on_redis(redis_url, scenario)
