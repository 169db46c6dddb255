import asyncio
import time
from collections.abc import Awaitable, Callable

import pytest

from pushfleet_workers.ledger import VendorKeys
from pushfleet_workers.redis_link import Link
from pushfleet_workers.wake import Bell, ring_call

KEYS = VendorKeys("t", "apns")


class Fleet:
    """Routers that ring and drains that listen."""

    def __init__(self, url: str) -> None:
        self.links = [Link(url) for _ in range(4)]
        self.link = self.links[0]
        self.one, self.other = (Bell(self.link, self.links[number], KEYS, f"drain-{number}") for number in (1, 2))

    async def ring(self) -> int:
        return int(await self.link.run(*ring_call(KEYS)))


def in_fleet(url: str, scenario: Callable[[Fleet], Awaitable[None]]) -> None:
    async def run() -> None:
        fleet = Fleet(url)
        try:
            await scenario(fleet)
        finally:
            for link in fleet.links:
                await link.close()

    asyncio.run(run())


def test_when_nobody_listens_many_rings_want_one_trigger(redis_url: str) -> None:
    async def scenario(fleet: Fleet) -> None:
        assert sum([await fleet.ring() for _ in range(50)]) == 1
        assert await fleet.link.call("LLEN", KEYS.bell) == 1, "the bell does not grow"
        assert 0 < await fleet.link.call("PTTL", KEYS.trigger) <= 5_000
        assert 0 < await fleet.link.call("PTTL", KEYS.bell) <= 10_000

    in_fleet(redis_url, scenario)


def test_a_trigger_that_was_lost_is_followed_by_another(redis_url: str) -> None:
    async def scenario(fleet: Fleet) -> None:
        assert await fleet.ring() == 1
        await fleet.link.call("PEXPIRE", KEYS.trigger, 0)
        assert await fleet.ring() == 1

    in_fleet(redis_url, scenario)


def test_whoever_listens_hears_the_bell_and_no_trigger_is_wanted(redis_url: str) -> None:
    async def scenario(fleet: Fleet) -> None:
        await fleet.one.listen()
        waiting = asyncio.create_task(fleet.one.wait(4))
        await asyncio.sleep(0.01)
        assert await fleet.ring() == 0
        started = time.monotonic()
        assert await waiting
        assert time.monotonic() - started < 1

    in_fleet(redis_url, scenario)


def test_a_ring_before_the_waiting_is_heard(redis_url: str) -> None:
    async def scenario(fleet: Fleet) -> None:
        await fleet.one.listen()
        await fleet.ring()
        assert await fleet.one.wait(4)
        assert not await fleet.one.wait(0.01), "once"

    in_fleet(redis_url, scenario)


def test_listening_answers_the_trigger(redis_url: str) -> None:
    async def scenario(fleet: Fleet) -> None:
        assert await fleet.ring() == 1
        await fleet.one.listen()
        assert await fleet.one.wait(1)
        assert await fleet.one.leave()
        assert await fleet.ring() == 1, "the next work wants a trigger of its own"

    in_fleet(redis_url, scenario)


def test_nobody_leaves_past_a_ring_and_a_ring_holds_nobody_for_ever(redis_url: str) -> None:
    async def scenario(fleet: Fleet) -> None:
        await fleet.one.listen()
        await fleet.ring()
        assert not await fleet.one.leave()
        assert await fleet.link.call("ZCARD", KEYS.listeners) == 1
        assert await fleet.one.leave(), "it has heard the ring and looked again"
        assert await fleet.link.call("ZCARD", KEYS.listeners) == 0

    in_fleet(redis_url, scenario)


def test_who_must_leave_leaves_the_ring_to_the_others(redis_url: str) -> None:
    async def scenario(fleet: Fleet) -> None:
        await fleet.one.listen()
        await fleet.other.listen()
        await fleet.ring()
        assert await fleet.one.leave(at_once=True)
        assert await fleet.other.wait(1)

    in_fleet(redis_url, scenario)


@pytest.mark.parametrize("by_time", [True, False])
def test_a_listener_that_died_does_not_count(redis_url: str, *, by_time: bool) -> None:
    async def scenario(fleet: Fleet) -> None:
        await fleet.one.listen()
        assert await fleet.ring() == 0
        if by_time:
            await fleet.link.call("ZADD", KEYS.listeners, 1, "drain-1")
        else:
            await fleet.one.leave(at_once=True)
        assert await fleet.ring() == 1

    in_fleet(redis_url, scenario)


def test_company_is_wanted_up_to_a_number_and_once_at_a_time(redis_url: str) -> None:
    async def scenario(fleet: Fleet) -> None:
        await fleet.one.listen()
        assert not await fleet.one.wants_company(1)
        assert await fleet.one.wants_company(2)
        assert not await fleet.one.wants_company(2), "one was just called"
        await fleet.other.listen()
        assert not await fleet.one.wants_company(2)
        assert await fleet.one.wants_company(3)
        await fleet.link.call("ZADD", KEYS.listeners, 1, "drain-2")
        await fleet.link.call("DEL", KEYS.trigger)
        assert await fleet.one.wants_company(2), "the dead are no company"

    in_fleet(redis_url, scenario)


def test_hints_of_one_vendor_do_not_reach_another(redis_url: str) -> None:
    async def scenario(fleet: Fleet) -> None:
        await fleet.one.listen()
        other = VendorKeys("t", "huawei")
        assert await fleet.link.run(*ring_call(other)) == 1
        assert not await fleet.one.wait(0.01)

    in_fleet(redis_url, scenario)
