"""Whatever happens in whatever order: a token is on one device, and the index names its user and nobody else's."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.workers.tokens.support import APP, PREFIX, Stage, a_registration, a_report, drop_token, on_redis

from pushfleet_workers.redis_server import EmbeddedRedis
from pushfleet_workers.tokens.keys import token_place

USERS = ["ann", "bob", "eve"]
DEVICES = ["d1", "d2"]
TOKENS = ["t1", "t2", "t3"]


@dataclass(frozen=True)
class Step:
    """One call, or a batch of registrations."""

    name: str
    values: tuple[Any, ...]

    async def take(self, stage: Stage, number: int = 0) -> None:
        store = stage.a_store(stage.links[number % len(stage.links)])
        values = self.values
        if self.name == "register":
            await store.register_many(
                [(APP, user, device, a_registration(*tokens, at_ms=at_ms)) for user, device, tokens, at_ms in values]
            )
        elif self.name == "remove":
            await store.remove(APP, *values)
        elif self.name == "drop":
            await drop_token(store, APP, *values)
        else:
            user, device, state, at_ms = values
            await store.report(APP, [a_report(state, at_ms, user=user, device=device)])


PLACES = st.tuples(st.sampled_from(USERS), st.sampled_from(DEVICES))
TIMES = st.integers(1, 12)
REGISTRATION = st.tuples(
    st.sampled_from(USERS),
    st.sampled_from(DEVICES),
    st.lists(st.sampled_from(TOKENS), min_size=1, max_size=3, unique=True),
    TIMES,
)
STEPS = st.one_of(
    st.builds(Step, st.just("register"), st.lists(REGISTRATION, min_size=1, max_size=4).map(tuple)),
    st.builds(Step, st.just("remove"), PLACES),
    st.builds(
        Step,
        st.just("drop"),
        st.tuples(st.sampled_from(USERS), st.sampled_from(DEVICES), st.sampled_from(TOKENS), TIMES, st.none() | TIMES),
    ),
    st.builds(
        Step,
        st.just("report"),
        st.tuples(
            st.sampled_from(USERS), st.sampled_from(DEVICES), st.sampled_from(["background", "logged_out"]), TIMES
        ),
    ),
)


async def check(stage: Stage, *, strays: bool) -> None:
    """What must hold when nobody is at work."""
    holders: dict[str, list[str]] = {token: [] for token in TOKENS}
    for user in USERS:
        for device in (await stage.store.user(APP, user)).devices.values():
            for token, count in Counter(channel.token for channel in device.channels).items():
                assert count == 1
                holders[token].append(user)
    for token, users in holders.items():
        assert len(users) <= 1, f"{token} is on devices of {users}"
        owner = await stage.owner(token)
        if users:
            assert owner == users[0], f"{token}: {users[0]} has it, the index says {owner}"
        elif not strays:
            assert owner is None, f"nobody has {token}, the index says {owner}"


async def clean(stage: Stage) -> None:
    await stage.link.pipeline([("DEL", f"{PREFIX}:{{u:{APP}:{user}}}") for user in USERS])
    await stage.link.pipeline([("DEL", token_place(PREFIX, APP, "apns", token)[0]) for token in TOKENS])


@settings(deadline=None, max_examples=60)
@given(st.lists(STEPS, max_size=8))
def test_one_after_the_other(redis_server: EmbeddedRedis, steps: list[Step]) -> None:
    async def scenario(stage: Stage) -> None:
        await clean(stage)
        for step in steps:
            await step.take(stage)
            await check(stage, strays=True)

    on_redis(redis_server.url, scenario)


@settings(deadline=None, max_examples=60)
@given(st.lists(STEPS, max_size=4), st.lists(STEPS, min_size=2, max_size=6))
def test_all_at_once(redis_server: EmbeddedRedis, before: list[Step], steps: list[Step]) -> None:
    async def scenario(stage: Stage) -> None:
        await clean(stage)
        for _ in range(3):
            stage.a_store()
        for step in before:
            await step.take(stage)
        await asyncio.gather(*(step.take(stage, number) for number, step in enumerate(steps)))
        await check(stage, strays=True)

    on_redis(redis_server.url, scenario)
