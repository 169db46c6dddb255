"""The end of a quarantine: confirmed while others of the account live, else lifted."""

from __future__ import annotations

import pytest
from tests.workers.tokens.deaths_support import ACCOUNT, DOUBTFUL, Hall, in_hall
from tests.workers.tokens.support import APP, NOW_MS, PREFIX, a_registration

from pushfleet_workers.death_keeper import DeathKeeper, keeper_key
from pushfleet_workers.lease import Lease

ACCOUNTS = {ACCOUNT: APP, ("huawei", "main"): APP}


def a_keeper(hall: Hall) -> DeathKeeper:
    lease = Lease(hall.link, keeper_key(PREFIX))
    return DeathKeeper(hall.link, hall.link, PREFIX, hall.limits, ACCOUNTS, lambda: hall.now_ms, lease)


async def doubted(hall: Hall, count: int = 1) -> None:
    for number in range(count):
        await hall.register(f"u{number}", f"t{number}")
        await hall.answer((f"u{number}", f"t{number}", DOUBTFUL))


@pytest.mark.parametrize(
    ("dead", "accepted", "confirmed"),
    # At least 5 accepted since, and at most a fifth of the answers since are deaths.
    [(1, 0, 0), (1, 4, 0), (1, 5, 1), (2, 5, 1), (2, 8, 2), (3, 8, 2), (3, 12, 3)],
)
def test_a_doubtful_death_is_confirmed_once_enough_others_live(
    redis_url: str, dead: int, accepted: int, confirmed: int
) -> None:
    async def scenario(hall: Hall) -> None:
        await hall.accept(1_000)
        await doubted(hall, dead)
        await hall.accept(accepted)
        await a_keeper(hall).look()
        # The last one to die has the fewest deaths beside it since.
        dropped = {user for user, fate in await hall.fates() if fate == "dropped"}
        assert dropped == {f"u{number}" for number in range(dead - confirmed, dead)}
        assert (await hall.deaths.ward.occupied([ACCOUNT])).get(ACCOUNT, 0) == dead - confirmed

    in_hall(redis_url, scenario, guard_floor=100)


def test_what_was_accepted_before_says_nothing_of_the_account_now(redis_url: str) -> None:
    async def scenario(hall: Hall) -> None:
        await hall.accept(1_000)
        await doubted(hall)
        await a_keeper(hall).look()
        assert await hall.fates() == [("u0", "quarantined")]

    in_hall(redis_url, scenario)


def test_a_quarantine_that_nothing_confirms_is_lifted_in_the_end(redis_url: str) -> None:
    async def scenario(hall: Hall) -> None:
        await doubted(hall)
        hall.now_ms += 89_999
        await a_keeper(hall).look()
        assert await hall.fates() == [("u0", "quarantined")]
        hall.now_ms += 1
        await a_keeper(hall).look()
        assert await hall.fates() == [("u0", "quarantined"), ("u0", "restored")]
        assert await hall.until("u0") == [0]
        assert await hall.deaths.ward.occupied([ACCOUNT]) == {}

    in_hall(redis_url, scenario, quarantine_s=90)


def test_a_token_that_registered_since_is_not_dropped_but_used_again(redis_url: str) -> None:
    async def scenario(hall: Hall) -> None:
        await doubted(hall)
        await hall.store.register(APP, "u0", "d1", a_registration("t0", at_ms=NOW_MS + 1))
        assert await hall.until("u0") != [0]
        await hall.accept(5)
        await a_keeper(hall).look()
        assert (await hall.tokens("u0"), await hall.until("u0")) == (["t0"], [0])

    in_hall(redis_url, scenario)


def test_nothing_is_decided_while_the_guard_holds(redis_url: str) -> None:
    async def scenario(hall: Hall) -> None:
        await doubted(hall, 5)
        await hall.accept(1_000)
        hall.now_ms += 10**9
        await a_keeper(hall).look()
        assert {fate for _, fate in await hall.fates()} == {"quarantined"}

    in_hall(redis_url, scenario)


def test_those_who_are_gone_leave_the_ward(redis_url: str) -> None:
    async def scenario(hall: Hall) -> None:
        await doubted(hall, 3)
        await hall.link.call("DEL", f"{PREFIX}:{{u:{APP}:u0}}:dead")
        await hall.store.remove(APP, "u1", "d1")
        await hall.accept(100)
        await a_keeper(hall).look()
        assert await hall.deaths.ward.occupied([ACCOUNT]) == {}

    in_hall(redis_url, scenario)


def test_many_are_looked_at_in_pages(redis_url: str) -> None:
    async def scenario(hall: Hall) -> None:
        await doubted(hall, 420)
        await hall.accept(100_000)
        await a_keeper(hall).look()
        assert await hall.deaths.ward.occupied([ACCOUNT]) == {}
        assert [fate for _, fate in await hall.fates()].count("dropped") == 420

    in_hall(redis_url, scenario, guard_floor=10_000)
