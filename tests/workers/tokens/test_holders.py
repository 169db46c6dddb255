"""Users by their tokens, and what is noted of a device when only its token is known."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tests.workers.tokens.support import APP, NOW_MS, PREFIX, Stage

from pushfleet_workers.tokens.changes import ChannelGiven, Registration
from pushfleet_workers.tokens.holders import Holders, _user
from pushfleet_workers.tokens.keys import token_place

TOKEN, OTHER = "t-1", "t-2"
UNTIL_MS = NOW_MS + 3_600_000


def on_stage(redis_url: str, scenario: Callable[[Stage, Holders], Awaitable[None]]) -> None:
    async def run() -> None:
        stage = Stage(redis_url)
        try:
            await scenario(stage, Holders(stage.link, PREFIX))
        finally:
            for link in stage.links:
                await link.close()

    asyncio.run(run())


async def register(stage: Stage, user: str, *tokens: str, device: str = "d1", at_ms: int = NOW_MS - 100) -> None:
    channels = tuple(ChannelGiven(vendor="oppo", token=one) for one in tokens)
    await stage.store.register(APP, user, device, Registration(channels=channels, at_ms=at_ms))


@pytest.mark.parametrize("user", ["ann", "用户 1", "a:b{c}", "x" * 256, "=", "%2F"])
def test_whose_a_token_was_at_a_time(redis_url: str, user: str) -> None:
    async def scenario(stage: Stage, holders: Holders) -> None:
        await register(stage, user, TOKEN)
        asked = [(TOKEN, NOW_MS), (TOKEN, NOW_MS - 100), (TOKEN, NOW_MS - 101), (OTHER, NOW_MS)]
        assert await holders.users(APP, "oppo", asked) == [user, user, "", ""]
        assert await holders.users(APP, "vivo", [(TOKEN, NOW_MS)]) == [""]
        assert await holders.users("other", "oppo", [(TOKEN, NOW_MS)]) == [""]
        assert await holders.users(APP, "oppo", []) == []

    on_stage(redis_url, scenario)


@given(st.binary(max_size=60))
@example(b"\0" * 8 + b"demo:=x")
@example(b"\0" * 8 + b"demo:%ff")
def test_a_damaged_entry_names_nobody_and_harms_nobody(entry: bytes) -> None:
    assert isinstance(_user(entry, NOW_MS), str)


def test_only_the_device_with_the_token_is_muted(redis_url: str) -> None:
    async def scenario(stage: Stage, holders: Holders) -> None:
        await register(stage, "ann", TOKEN)
        await register(stage, "ann", OTHER, device="d2")
        assert await holders.mute(APP, "ann", "oppo", TOKEN, NOW_MS)
        assert [(await stage.device(device=one)).permitted for one in ("d1", "d2")] == [False, True]
        await register(stage, "ann", TOKEN, at_ms=NOW_MS)
        assert (await stage.device()).permitted
        assert not await holders.mute(APP, "ann", "oppo", TOKEN, NOW_MS)
        assert (await stage.device()).permitted

    on_stage(redis_url, scenario)


def test_only_the_channel_with_the_token_is_passed_over(redis_url: str) -> None:
    async def scenario(stage: Stage, holders: Holders) -> None:
        await register(stage, "ann", TOKEN, OTHER)
        assert await holders.pass_over(APP, "ann", "oppo", TOKEN, NOW_MS, UNTIL_MS)
        assert [one.quarantined_until_ms for one in (await stage.device()).channels] == [UNTIL_MS, 0]
        # What is passed over for longer stays so.
        assert await holders.pass_over(APP, "ann", "oppo", TOKEN, NOW_MS, UNTIL_MS - 1)
        assert [one.quarantined_until_ms for one in (await stage.device()).channels] == [UNTIL_MS, 0]
        assert not await holders.pass_over(APP, "ann", "oppo", TOKEN, NOW_MS - 100, UNTIL_MS + 1)
        assert not await holders.pass_over(APP, "ann", "vivo", TOKEN, NOW_MS, UNTIL_MS)
        assert not await holders.pass_over(APP, "bob", "oppo", TOKEN, NOW_MS, UNTIL_MS)

    on_stage(redis_url, scenario)


def test_a_damaged_record_is_left_alone(redis_url: str) -> None:
    async def scenario(stage: Stage, holders: Holders) -> None:
        await register(stage, "ann", TOKEN)
        await stage.damage(b"\xc1")
        assert not await holders.mute(APP, "ann", "oppo", TOKEN, NOW_MS)
        key, field = token_place(PREFIX, APP, "oppo", TOKEN)
        await stage.link.call("HSET", key, field, b"short")
        assert await holders.users(APP, "oppo", [(TOKEN, NOW_MS)]) == [""]

    on_stage(redis_url, scenario)
