"""What devices have, as the backend confirms it: kept per device and conversation, the furthest holds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.workers.tokens.support import APP, NOW_MS, PREFIX, Stage, a_registration, on_redis

from pushfleet_workers.redis_link import ReplyError
from pushfleet_workers.tokens.confirmations import (
    CONFIRMED_MAX,
    LIFE_S,
    Confirmation,
    ConfirmationStore,
    Confirmed,
    confirmed_command,
    read_confirmed,
)
from pushfleet_workers.tokens.keys import UserKeys

ANN = UserKeys(PREFIX, APP, "ann")


def confirmation(up_to_ms: int = NOW_MS, conversation: str = "c1", device: str = "d1") -> Confirmation:
    return Confirmation(user="ann", device=device, up_to_ms=up_to_ms, conversation=conversation)


async def known(stage: Stage, conversation: str = "c1", device: str = "d1") -> int:
    return read_confirmed(await stage.link.call(*confirmed_command(PREFIX, APP, "ann", device, conversation)))


async def a_store(stage: Stage, *devices: str) -> ConfirmationStore:
    """A store; ann has the devices."""
    for device in devices:
        await stage.store.register(APP, "ann", device, a_registration(device))
    return ConfirmationStore(stage.link, PREFIX)


def test_of_two_the_one_that_goes_further_holds_in_any_order(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        store = await a_store(stage, "d1")
        assert await store.confirm(APP, [confirmation(5), confirmation(9), confirmation(7)]) == Confirmed(2, 1)
        assert await store.confirm(APP, [confirmation(9)]) == Confirmed(outdated=1)
        assert await known(stage) == 9
        assert 0 < await stage.link.call("TTL", ANN.delivered) <= LIFE_S

    on_redis(redis_url, scenario)


def test_it_holds_for_one_device_and_one_conversation(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        store = await a_store(stage, "d1", "d2")
        await store.confirm(APP, [confirmation(5)])
        assert [await known(stage, "c1", "d2"), await known(stage, "c2"), await known(stage, "")] == [0, 0, 0]
        assert await known(stage) == 5

    on_redis(redis_url, scenario)


def test_without_a_conversation_it_holds_for_all_of_them(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        store = await a_store(stage, "d1")
        await store.confirm(APP, [confirmation(5, ""), confirmation(3, "c1"), confirmation(8, "c2")])
        assert [await known(stage, one) for one in ("c1", "c2", "c3", "")] == [5, 8, 5, 5]

    on_redis(redis_url, scenario)


def test_an_unknown_device_is_said_to_be_unknown_and_leaves_nothing_behind(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        store = await a_store(stage, "d1")
        assert await store.confirm(APP, [confirmation(device="d2")]) == Confirmed(unknown=1)
        assert await stage.link.call("EXISTS", ANN.delivered) == 0

    on_redis(redis_url, scenario)


def test_of_too_many_those_of_the_oldest_messages_are_forgotten(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        store = await a_store(stage, "d1")
        await store.confirm(APP, [confirmation(10_000 + number, f"c{number}") for number in range(CONFIRMED_MAX)])
        assert await stage.link.call("HLEN", ANN.delivered) == CONFIRMED_MAX
        await store.confirm(APP, [confirmation(NOW_MS, "new")])
        assert await stage.link.call("HLEN", ANN.delivered) == CONFIRMED_MAX * 3 // 4 + 1
        assert [await known(stage, one) for one in ("c0", "c249", "c250", "new")] == [0, 0, 10_250, NOW_MS]

    on_redis(redis_url, scenario)


def test_who_is_forgotten_has_nothing_confirmed(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        store = await a_store(stage, "d1")
        await store.confirm(APP, [confirmation()])
        await stage.store.forget_user(APP, "ann")
        assert await known(stage) == 0

    on_redis(redis_url, scenario)


def test_damage_is_as_good_as_nothing_known(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        store = await a_store(stage, "d1")
        await store.confirm(APP, [confirmation(5)])
        (name,) = await stage.link.call("HKEYS", ANN.delivered)
        await stage.link.call("HSET", ANN.delivered, name, "nan")
        assert await known(stage) == 0
        assert await store.confirm(APP, [confirmation(4)]) == Confirmed(applied=1)
        await stage.link.call("SET", ANN.delivered, "not even a hash")
        (reply,) = await stage.link.pipeline([confirmed_command(PREFIX, APP, "ann", "d1", "c1")])
        assert read_confirmed(reply) == 0
        with pytest.raises(ReplyError):
            await store.confirm(APP, [confirmation()])

    on_redis(redis_url, scenario)


@given(st.tuples(st.text(min_size=1, max_size=20), st.text(max_size=20)), st.tuples(st.text(min_size=1), st.text()))
def test_no_two_pairs_of_device_and_conversation_share_a_name(one: tuple[str, str], other: tuple[str, str]) -> None:
    names = [confirmed_command("p", "a", "u", *pair)[-1] for pair in (one, other)]
    assert (names[0] == names[1]) == (one == other)
