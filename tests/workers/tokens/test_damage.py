"""Whatever lies in Redis damaged stays alone: other users, and the rest of the same user, are served."""

import logging
from typing import Any

import msgspec
import pytest
from tests.workers.tokens.support import (
    APP,
    NOW_MS,
    PREFIX,
    Stage,
    a_registration,
    a_report,
    drop_token,
    on_redis,
    quarantine,
)

from pushfleet_workers.redis_link import ReplyError
from pushfleet_workers.tokens.keys import UserKeys, device_field, token_place
from pushfleet_workers.tokens.lookup import Counted, Lookup, read_badges, read_option
from pushfleet_workers.tokens.record import Channel

SECRET = "secret-token"


def packed(*values: Any) -> bytes:
    return msgspec.msgpack.encode(values)


RECORDS = {
    "nothing": b"",
    "noise": b"\xc1\xff\x00",
    "text": SECRET.encode(),
    "cut off": packed([["apns", "main", SECRET, 5]], "b", 5)[:-4],
    "a number": msgspec.msgpack.encode(5),
    "a map": msgspec.msgpack.encode({"token": SECRET}),
    "an empty array": packed(),
    "channels are a text": packed(SECRET, "b", 5),
    "channels are numbers": packed([1, 2], "b", 5),
    "a channel is a text": packed([SECRET], "b", 5),
    "a channel is empty": packed([[]], "b", 5),
    "a channel lacks its time": packed([["apns", "main", SECRET]], "b", 5),
    "a channel's time is a text": packed([["apns", "main", SECRET, "x"]], "b", 5),
    "a channel's token is a number": packed([["apns", "main", 5, 5]], "b", 5),
    "a channel is nil": packed([None], "b", 5),
    "the state is a number": packed([], 7, 5),
    "the state is of a newer kind": packed([["apns", "main", SECRET, 5]], "zzz", 5),
    "the state's time is a text": packed([["apns", "main", SECRET, 5]], "b", "x"),
    "the unread number is nil": packed([["apns", "main", SECRET, 5]], "b", 5, 0, None),
    "not UTF-8": packed([["apns", "main", SECRET, 5]], "b", 5).replace(b"main", b"ma\xff\xfe"),
}
damaged = pytest.mark.parametrize("record", RECORDS.values(), ids=RECORDS.keys())


@damaged
def test_a_damaged_record_does_not_hold_up_a_lookup(
    redis_url: str, record: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.store.register(APP, "ann", "d2", a_registration("t2"))
        await stage.store.register(APP, "bob", "d1", a_registration("t3"))
        await stage.damage(record)
        lookup = Lookup(PREFIX)
        replies = await stage.link.pipeline([one for u in ("ann", "bob") for one in lookup.commands(APP, u, "room")])
        found = [lookup.read(replies[at : at + 2]).devices for at in (0, 2)]
        assert "d2" in found[0]
        assert list(found[1]) == ["d1"]
        assert "d2" in (await stage.store.user(APP, "ann")).devices

    on_redis(redis_url, scenario)
    assert SECRET not in caplog.text


@damaged
def test_a_damaged_record_does_not_hold_up_a_batch_of_reports(redis_url: str, record: bytes) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.store.register(APP, "ann", "d2", a_registration("t2"))
        await stage.store.register(APP, "bob", "d1", a_registration("t3"))
        await stage.damage(record)
        at_ms = NOW_MS + 1
        done = await stage.store.report(
            APP,
            [
                a_report("background", at_ms, 1),
                a_report("background", at_ms, 1, device="d2"),
                a_report("background", at_ms, 1, user="bob"),
            ],
        )
        assert done.applied + done.unknown == 3
        assert (await stage.device("ann", "d2")).state == "b"
        assert (await stage.device("bob")).state == "b"

    on_redis(redis_url, scenario)


@damaged
def test_registering_mends_a_damaged_record(redis_url: str, record: bytes) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.damage(record)
        done = await stage.store.register_many(
            [
                (APP, "ann", "d1", a_registration("t1", state="background", unread=2)),
                (APP, "bob", "d1", a_registration("t3")),
            ]
        )
        assert [one.applied for one in done] == [True, True]
        device = await stage.device()
        assert device.channels == [Channel("apns", "main", "t1", NOW_MS)]
        assert device.state == "b"
        assert await stage.tokens("bob") == ["t3"]

    on_redis(redis_url, scenario)


@damaged
def test_a_damaged_record_does_not_hold_up_the_registration_of_another_device(redis_url: str, record: bytes) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.damage(record)
        assert (await stage.store.register(APP, "ann", "d2", a_registration("t2"))).applied
        stage.now_ms += 1
        assert (await stage.store.register(APP, "ann", "d3", a_registration("t2"))).applied
        assert await stage.tokens("ann", "d3") == ["t2"]
        assert await stage.tokens("ann", "d2") == []

    on_redis(redis_url, scenario)


@damaged
def test_a_token_of_a_damaged_record_moves_on(redis_url: str, record: bytes) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.store.register(APP, "ann", "d1", a_registration("t1"))
        await stage.damage(record)
        stage.now_ms += 1
        assert (await stage.store.register(APP, "bob", "d1", a_registration("t1"))).applied
        assert await stage.tokens("bob") == ["t1"]
        assert await stage.owner("t1") == "bob"

    on_redis(redis_url, scenario)


@damaged
def test_what_vendors_say_of_a_damaged_device_is_no_error(redis_url: str, record: bytes) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.damage(record)
        await drop_token(stage.store, APP, "ann", "d1", SECRET, 5, None)
        await drop_token(stage.store, APP, "ann", "d1", SECRET, 5, NOW_MS)
        await stage.store.mute_device(APP, "ann", "d1", stage.now_ms)
        await quarantine(stage.store, APP, "ann", "d1", SECRET, 9)
        assert (await stage.store.user(APP, "ann")).options == {}

    on_redis(redis_url, scenario)


@damaged
def test_a_damaged_device_can_be_removed(redis_url: str, record: bytes) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.damage(record)
        assert await stage.store.remove(APP, "ann", "d1")
        assert await stage.link.call("KEYS", "*") == []

    on_redis(redis_url, scenario)


def test_the_warning_names_the_device_and_nothing_of_its_record(
    redis_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.damage(RECORDS["the state is of a newer kind"])
        with caplog.at_level(logging.WARNING):
            assert (await stage.store.user(APP, "ann")).devices == {}

    on_redis(redis_url, scenario)
    assert "d1" in caplog.text
    assert "zzz" not in caplog.text
    assert SECRET not in caplog.text


@pytest.mark.parametrize(
    "entry", [b"", b"x", b"12345", b"123456", b"\0\0\0\0\0\1", b"\xff" * 30, b"\0\0\0\0\0\1no-user", b"\0\0\0\0\0\1 "]
)
def test_a_damaged_entry_of_the_index_does_not_hold_up_registrations(redis_url: str, entry: bytes) -> None:
    async def scenario(stage: Stage) -> None:
        key, field = token_place(PREFIX, APP, "apns", "t1")
        # The first is the token's own entry, the other a neighbour that each newcomer looks at.
        await stage.link.call("HSET", key, field, entry)
        done = await stage.store.register_many(
            [(APP, "ann", "d1", a_registration("t1")), (APP, "bob", "d1", a_registration("t2"))]
        )
        assert done[1].device.channels
        await drop_token(stage.store, APP, "ann", "d1", "t1", NOW_MS, None)
        await stage.store.remove(APP, "ann", "d1")
        await stage.link.call("DEL", key)
        await stage.link.call("HSET", key, b"a-neighbour", entry)
        stage.now_ms += 1
        await stage.store.register(APP, "eve", "d1", a_registration("t1"))
        assert await stage.owner("t1") == "eve"

    on_redis(redis_url, scenario)


@pytest.mark.parametrize("value", [b"", b"x", b"abc", b"\0\0\0\1", b"\0\0\0\1" + b"y" * 1_000])
def test_a_damaged_badge_starts_again(redis_url: str, value: bytes) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.store.register(APP, "ann", "d1", a_registration())
        key = UserKeys(PREFIX, APP, "ann").badges
        await stage.link.call("HSET", key, device_field("d1"), value)
        lookup = Lookup(PREFIX)
        pushes = [Counted(APP, user, "d1", "m1", NOW_MS) for user in ("ann", "bob")]
        counted = read_badges(await stage.link.run_many(lookup.badge_calls(pushes)))
        assert counted[0] in (1, 2)
        assert counted[1] == 1
        await stage.store.report(APP, [a_report("background", NOW_MS + 1, 4)])
        calls = lookup.badge_calls([Counted(APP, "ann", "d1", "m2", NOW_MS + 2)])
        assert read_badges(await stage.link.run_many(calls)) == [1]
        assert await stage.link.call("HSTRLEN", key, device_field("d1")) <= 512

    on_redis(redis_url, scenario)


def test_badges_that_are_none_cost_their_neighbours_nothing(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.link.call("SET", UserKeys(PREFIX, APP, "ann").badges, "no hash")
        pushes = [Counted(APP, user, "d1", "m1", NOW_MS) for user in ("bob", "ann", "eve")]
        (counted,) = await stage.link.run_many(Lookup(PREFIX).badge_calls(pushes))
        assert (counted[0], counted[2]) == (1, 1)
        assert isinstance(counted[1], ReplyError)
        assert read_badges([counted]) == [1, None, 1]

    on_redis(redis_url, scenario)


@pytest.mark.parametrize("stored", [b"", b"\xff\xfe", b"nonsense", b"nonsense:5", b":", b"all:x", "①".encode()])
def test_a_damaged_receive_option_is_as_good_as_none(stored: bytes) -> None:
    assert read_option(stored)[0] == "all"


@pytest.mark.parametrize("stored", [b"none:", b"none:x", b"none:-5", "none:²".encode(), b"none:1:2", "none:٣".encode()])
def test_a_receive_option_with_a_damaged_end_is_no_error(stored: bytes) -> None:
    receive, until_ms = read_option(stored)
    assert receive in ("none", "all")
    assert until_ms >= 0
