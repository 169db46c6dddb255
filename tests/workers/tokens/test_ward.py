from __future__ import annotations

from tests.workers.tokens.support import APP, NOW_MS, PREFIX, Stage, on_redis

from pushfleet_workers.tokens.tombstones import LIFE_S, Grave
from pushfleet_workers.tokens.ward import Ward, ward_key

ACCOUNT = ("apns", "main")
KEY = ward_key(PREFIX, *ACCOUNT)


def grave(number: int, user: str = "ann") -> Grave:
    return Grave(APP, user, f"{number:024x}")


def test_who_came_first_is_looked_at_first_whatever_their_name(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        ward = Ward(stage.link, PREFIX, 100)
        graves = [grave(3, "ann: {1}"), grave(2, "张伟"), grave(1, "bob")]
        for number, one in enumerate(graves):
            await ward.admit(*ACCOUNT, [one], NOW_MS + number)
        assert await ward.oldest(*ACCOUNT, 2) == graves[:2]
        await ward.leave(*ACCOUNT, graves[:2])
        assert await ward.oldest(*ACCOUNT, 9) == graves[2:]

    on_redis(redis_url, scenario)


def test_beyond_the_limit_and_after_thirty_days_the_oldest_go(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        ward = Ward(stage.link, PREFIX, 3)
        await ward.admit(*ACCOUNT, [grave(0)], NOW_MS)
        await ward.admit(*ACCOUNT, [grave(number) for number in range(1, 5)], NOW_MS + 1)
        assert await ward.oldest(*ACCOUNT, 9) == [grave(2), grave(3), grave(4)]
        await ward.admit(*ACCOUNT, [grave(5)], NOW_MS + 2 + LIFE_S * 1000)
        assert await ward.oldest(*ACCOUNT, 9) == [grave(5)]
        assert LIFE_S - 5 < await stage.link.call("TTL", KEY) <= LIFE_S

    on_redis(redis_url, scenario)
