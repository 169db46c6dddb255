"""The token index: one owner of each token, whatever happens beside or in the middle of a registration."""

import asyncio
from typing import Any

import msgspec
import pytest
from tests.workers.tokens.support import APP, NOW_MS, PREFIX, Stage, a_registration, drop_token, on_redis

from pushfleet_workers.redis_link import Link, LinkLost
from pushfleet_workers.tokens import keys
from pushfleet_workers.tokens.keys import UserKeys, token_place
from pushfleet_workers.tokens.store import TokenStore

HOUR_MS = 3_600_000


class DyingLink(Link):
    """Carries out a number of calls, then every further one is lost on the way."""

    def __init__(self, url: str, calls: int) -> None:
        super().__init__(url)
        self.left = calls

    async def run_many(self, calls: Any) -> list[Any]:
        if not self.left:
            raise LinkLost("gone")
        self.left -= 1
        return await super().run_many(calls)


async def holders(stage: Stage, token: str, *users: str) -> list[str]:
    return [user for user in users if token in await stage.tokens(user)]


def test_of_many_who_register_a_token_at_once_one_has_it(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        users = [f"u{number}" for number in range(12)]
        stores = [stage.a_store() for _ in users]
        for turn in range(10):
            stage.now_ms += 1
            await asyncio.gather(
                *(
                    store.register(APP, user, "d1", a_registration(f"t{turn}"))
                    for store, user in zip(stores, users, strict=True)
                )
            )
            (holder,) = await holders(stage, f"t{turn}", *users)
            await stage.store.register(APP, "next", "d1", a_registration(f"t{turn}"))
            assert await holders(stage, f"t{turn}", holder, "next") == ["next"], "the index knew who had it"

    on_redis(redis_url, scenario)


@pytest.mark.parametrize("calls", range(6))
def test_a_registration_that_dies_in_the_middle_leaves_one_owner_after_the_next(redis_url: str, calls: int) -> None:
    async def scenario(stage: Stage) -> None:
        users = ["ann", "bob", "eve"]
        await stage.store.register(APP, "ann", "d1", a_registration("shared"))
        dying = DyingLink(stage.url, calls)
        stage.links.append(dying)
        stage.now_ms += 1
        try:
            await stage.a_store(dying).register(APP, "bob", "d1", a_registration("shared"))
        except LinkLost:
            pass
        else:
            assert calls >= 4
        stage.now_ms += 1
        for user in ("eve", "bob"):
            await stage.store.register(APP, user, "d1", a_registration("shared"))
            assert await holders(stage, "shared", *users) == [user]

    on_redis(redis_url, scenario)


def test_entries_of_owners_that_faded_away_go_as_new_tokens_come(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keys, "_BUCKET_DIGITS", 0)

    async def scenario(stage: Stage) -> None:
        for number in range(20):
            await stage.store.register(APP, f"gone{number}", "d1", a_registration(f"gone{number}"))
            await stage.link.call("DEL", UserKeys(PREFIX, APP, f"gone{number}").devices)
        await stage.store.register(APP, "stays", "d1", a_registration("stays"))
        stage.now_ms += 2 * HOUR_MS
        for number in range(60):
            await stage.store.register(APP, "new", "d1", a_registration(f"new{number}"))
        left = await stage.index_size()
        assert left < 12, "each new token has two neighbours looked at"
        assert await stage.link.call("HEXISTS", *token_place(PREFIX, APP, "apns", "stays"))

    on_redis(redis_url, scenario)


def test_an_entry_that_may_be_a_registration_under_way_is_left_alone(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keys, "_BUCKET_DIGITS", 0)

    async def scenario(stage: Stage) -> None:
        dying = DyingLink(stage.url, 1)
        stage.links.append(dying)
        with pytest.raises(LinkLost):
            await stage.a_store(dying).register(APP, "ann", "d1", a_registration("claimed"))
        for number in range(20):
            await stage.store.register(APP, "new", "d1", a_registration(f"new{number}"))
        assert await stage.link.call("HEXISTS", *token_place(PREFIX, APP, "apns", "claimed"))

    on_redis(redis_url, scenario)


def test_no_key_and_no_value_of_the_index_shows_the_token(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.store.register(APP, "ann", "d1", a_registration("secret-token"))
        for key in await stage.link.call("KEYS", f"{PREFIX}:{{t:*"):
            assert b"secret-token" not in key + b"".join(await stage.link.call("HGETALL", key))

    on_redis(redis_url, scenario)


def test_an_older_process_keeps_what_a_newer_one_wrote(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.store.register(APP, "ann", "d1", a_registration("t1", app_version="1"))
        key = UserKeys(PREFIX, APP, "ann").devices
        record = msgspec.msgpack.decode(await stage.link.call("HGET", key, "d1"))
        record += [*[""] * (13 - len(record)), 0, 0, "of a newer version", [1, 2]]
        await stage.link.call("HSET", key, "d1", msgspec.msgpack.encode(record))
        stage.now_ms += 1
        await stage.store.logout(APP, "ann", "d1")
        await stage.store.mute_device(APP, "ann", "d1", stage.now_ms)
        await stage.store.register(APP, "ann", "d1", a_registration("t2"))
        await drop_token(stage.store, APP, "ann", "d1", "t2", NOW_MS + 1, None)
        after = msgspec.msgpack.decode(await stage.link.call("HGET", key, "d1"))
        assert after[15:] == ["of a newer version", [1, 2]]

    on_redis(redis_url, scenario)


def test_every_store_call_repeats_safely_after_a_flush_of_scripts(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        store: TokenStore = stage.store
        for _ in range(2):
            await stage.link.call("SCRIPT", "FLUSH")
            await store.register(APP, "ann", "d1", a_registration("t1"))
            assert await stage.tokens() == ["t1"]

    on_redis(redis_url, scenario)
