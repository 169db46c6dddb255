"""What is remembered for recalls: the names, the scripts, the shape of the push."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pushfleet.message import (
    ApnsOptions,
    FcmOptions,
    HarmonyOptions,
    HonorOptions,
    HuaweiOptions,
    MeizuOptions,
    OfflinePush,
    OppoOptions,
    VivoOptions,
    XiaomiOptions,
)
from pushfleet_workers.push import Delivery
from pushfleet_workers.recall import RecallMemory, message_key, overrides_of_recall, screen_key
from pushfleet_workers.recall.memory import HIDDEN_MAX
from pushfleet_workers.redis_link import Link

MEMORY = RecallMemory("t")
M1, M2, M3 = ("demo", "m1", "c1"), ("demo", "m2", "c1"), ("demo", "m3", "c1")


def on_redis(url: str, scenario: Callable[[Link], Awaitable[None]]) -> None:
    async def run() -> None:
        link = Link(url)
        try:
            await scenario(link)
        finally:
            await link.close()

    asyncio.run(run())


def a_place(name: str) -> bytes:
    return MEMORY.place_of(Delivery(b"", name, "phone", "", 0), "apns", "main")


async def shown(link: Link, message: tuple[str, str, str], *places: bytes) -> list[bool]:
    return MEMORY.shows(message, await link.call(*MEMORY.shown(message, places)))


# ---- names

ids = st.text(min_size=1, max_size=12)


@given(st.tuples(ids, ids, ids), st.tuples(ids, ids, ids))
@example(("a", "b\x001:c", "d"), ("a\x001:b", "c", "d"))
@example(("a", "message", "x"), ("a", "x", "message"))
def test_two_messages_share_keys_only_when_they_should(one: tuple[str, str, str], two: tuple[str, str, str]) -> None:
    assert (message_key("t", *one[:2]) == message_key("t", *two[:2])) == (one[:2] == two[:2])
    same = (one[0], one[2]) == (two[0], two[2])
    assert (screen_key("t", *one) == screen_key("t", *two)) == same
    alone = screen_key("t", *one[:2], ""), screen_key("t", *two[:2], "")
    assert (alone[0] == alone[1]) == (one[:2] == two[:2])
    assert not set(alone) & {screen_key("t", *one), screen_key("t", *two), message_key("t", *one[:2])}


@given(st.tuples(ids, ids), st.tuples(ids, ids))
@example(("1", "1:a"), ("11", ":a"))
def test_two_devices_are_one_place_only_when_they_are_one(one: tuple[str, str], two: tuple[str, str]) -> None:
    places = [MEMORY.place_of(Delivery(b"", user, device, "token", 0), "v", "c") for user, device in (one, two)]
    assert (places[0] == places[1]) == (one == two)


def test_a_device_that_was_addressed_directly_goes_by_its_token() -> None:
    found = {
        MEMORY.place_of(Delivery(b"", "", "", token, 0), vendor, credential)
        for vendor, credential, token in (("v", "c", "1"), ("v", "c", "2"), ("v", "d", "1"), ("w", "c", "1"))
    }
    assert len(found) == 4


# ---- marking and keeping


def test_whichever_comes_second_finds_the_other(redis_url: str) -> None:
    async def scenario(link: Link) -> None:
        assert await link.run(*MEMORY.keep_call("demo", "m1", 0, b"first part", 120, 2**41)) == 0
        assert await link.run(*MEMORY.keep_call("demo", "m1", 1, b"second part", 120, 2**41)) == 0
        assert await link.call(*MEMORY.marked("demo", "m1")) is None
        assert sorted(await link.run(*MEMORY.mark_call("demo", "m1", 120))) == [b"first part", b"second part"]
        assert await link.call(*MEMORY.marked("demo", "m1")) is not None
        assert await link.run(*MEMORY.keep_call("demo", "m1", 2, b"third part", 120, 2**41)) == 1
        # A router that died in between asks once more.
        assert sorted(await link.run(*MEMORY.mark_call("demo", "m1", 120))) == [b"first part", b"second part"]
        assert await link.run(*MEMORY.mark_call("demo", "m2", 120)) == []
        assert await link.run(*MEMORY.keep_call("demo", "m2", 0, b"late", 120, 2**41)) == 1

    on_redis(redis_url, scenario)


def test_the_scripts_are_those_of_one_key_each() -> None:
    calls: list[tuple[Any, ...]] = [
        MEMORY.keep_call("demo", "m1", 0, b"", 120, 0),
        MEMORY.mark_call("demo", "m1", 120),
        MEMORY.show_call(M1, [b"p"], 120, b"1-0", again=False),
        MEMORY.forget_call(M1, [b"p"]),
        MEMORY.recalled_call(M1, [b"p"]),
    ]
    assert all(len(keys) == 1 for _, keys, _ in calls), "so that they can live in a Cluster"


# ---- screens


def test_what_was_put_last_is_shown(redis_url: str) -> None:
    async def scenario(link: Link) -> None:
        a, b, c = (a_place(name) for name in "abc")
        assert await link.run(*MEMORY.show_call(M1, [a, b], 120, b"5-0", again=False)) == 2
        assert await shown(link, M1, a, b, c) == [True, True, False]
        await link.run(*MEMORY.show_call(M2, [b], 120, b"4-0", again=False))
        assert await shown(link, M1, a, b) == [True, False]
        assert await shown(link, M2, a, b) == [False, True]
        assert await shown(link, ("demo", "m1", "c2"), a) == [False]
        assert await shown(link, ("lite", "m1", "c1"), a) == [False]

    on_redis(redis_url, scenario)


@pytest.mark.parametrize(("entry", "wins"), [(b"4-9", False), (b"5-1", False), (b"5-2", True), (b"6-0", True)])
def test_what_may_have_been_put_before_makes_way_for_a_later_entry(redis_url: str, entry: bytes, wins: bool) -> None:
    async def scenario(link: Link) -> None:
        a = a_place("a")
        await link.run(*MEMORY.show_call(M2, [a], 120, b"5-2", again=False))
        await link.run(*MEMORY.show_call(M1, [a], 120, entry, again=True))
        assert await shown(link, M1, a) == [wins]
        assert await shown(link, M2, a) == [not wins]

    on_redis(redis_url, scenario)


def test_only_what_was_to_be_shown_is_forgotten(redis_url: str) -> None:
    async def scenario(link: Link) -> None:
        a, b = a_place("a"), a_place("b")
        await link.run(*MEMORY.show_call(M1, [a, b], 120, b"1-0", again=False))
        await link.run(*MEMORY.show_call(M2, [b], 120, b"2-0", again=False))
        assert await link.run(*MEMORY.forget_call(M1, [a, b, a_place("c")])) == [b"", b"", b""], "nothing was hidden"
        assert await shown(link, M1, a, b) == [False, False]
        assert await shown(link, M2, b) == [True]
        await link.run(*MEMORY.forget_call(M2, [b]))
        assert await link.call("EXISTS", MEMORY.screen(M1)) == 0, "what was forgotten does not come back"

    on_redis(redis_url, scenario)


def test_what_was_hidden_is_shown_again_and_goes_with_the_rest(redis_url: str) -> None:
    async def scenario(link: Link) -> None:
        a, b = a_place("a"), a_place("b")
        for message, places in ((M1, [a, b]), (M2, [a, b]), (M3, [b])):
            await link.run(*MEMORY.show_call(message, places, 120, b"1-0", again=False))
        fronts = await link.run(*MEMORY.forget_call(M2, [a, b]))
        assert [MEMORY.uncovered(front) for front in fronts] == [MEMORY.digest_in(MEMORY.layer(M1)), None]
        assert (await shown(link, M1, a, b), await shown(link, M3, a, b)) == ([True, False], [False, True])
        assert 0 < await link.call("PTTL", MEMORY.screen(M1)) <= 120_000
        await link.run(*MEMORY.forget_call(M3, [b]))
        assert await shown(link, M1, b) == [True]

    on_redis(redis_url, scenario)


def test_what_a_process_uncovered_that_died_is_found_by_the_next(redis_url: str) -> None:
    async def scenario(link: Link) -> None:
        a = a_place("a")
        await link.run(*MEMORY.show_call(M1, [a], 120, b"1-0", again=False))
        await link.run(*MEMORY.show_call(M2, [a], 120, b"2-0", again=False))
        assert await link.run(*MEMORY.forget_call(M2, [a], lost=True)) == [b""]
        assert await shown(link, M2, a) == [True], "it may have got there"
        await link.run(*MEMORY.forget_call(M2, [a]))
        assert await link.run(*MEMORY.forget_call(M2, [a], lost=True)) == [MEMORY.layer(M1)]

    on_redis(redis_url, scenario)


def test_what_says_that_a_message_was_recalled_is_not_it(redis_url: str) -> None:
    async def scenario(link: Link) -> None:
        a = a_place("a")
        await link.run(*MEMORY.show_call(M1, [a], 120, b"1-0", again=False))
        await link.run(*MEMORY.recalled_call(M1, [a]))
        assert await shown(link, M1, a) == [False]
        replies = await link.call(*MEMORY.shown(M1, [a]))
        assert MEMORY.shows(M1, replies, or_recall=True) == [True]
        await link.run(*MEMORY.show_call(M2, [a], 120, b"2-0", again=False))
        (front,) = await link.run(*MEMORY.forget_call(M2, [a]))
        assert MEMORY.uncovered(front) is None, "it is recalled but once"
        assert await link.run(*MEMORY.recalled_call(M1, [a], undone=True)) == [MEMORY.layer(M1)]
        assert await shown(link, M1, a) == [True]

    on_redis(redis_url, scenario)


def test_so_many_hidden_messages_are_remembered_each_once(redis_url: str) -> None:
    async def scenario(link: Link) -> None:
        a = a_place("a")
        messages = [("demo", f"m{number}", "c1") for number in range(12)]
        for message in [*messages, messages[8]]:
            await link.run(*MEMORY.show_call(message, [a], 120, b"1-0", again=False))
        (reply,) = await link.call(*MEMORY.shown(M1, [a]))
        newest_first = [messages[number] for number in (8, 11, 10, 9, 7, 6, 5)]
        assert MEMORY.layers(reply)[:-1] == [MEMORY.layer(message) for message in newest_first]
        assert len(MEMORY.layers(reply)) == HIDDEN_MAX + 1

    on_redis(redis_url, scenario)


def test_what_is_routed_again_stays_where_it_was_put_first(redis_url: str) -> None:
    """Its entry may be the later one all the same: lanes are read one beside the other."""

    async def scenario(link: Link) -> None:
        a = a_place("a")
        await link.run(*MEMORY.show_call(M1, [a], 120, b"9-0", again=False))
        await link.run(*MEMORY.show_call(M2, [a], 120, b"5-0", again=False))
        await link.run(*MEMORY.show_call(M1, [a], 120, b"9-0", again=True))
        assert await shown(link, M2, a) == [True]

    on_redis(redis_url, scenario)


def test_thousands_of_devices_are_one_call(redis_url: str) -> None:
    async def scenario(link: Link) -> None:
        places = [a_place(f"u{number}") for number in range(5_000)]
        assert await link.run(*MEMORY.show_call(M1, places, 120, b"1-0", again=False)) == 5_000
        assert all(await shown(link, M1, *places))

    on_redis(redis_url, scenario)


@pytest.mark.parametrize("entry", [b"0-0", b"1760000000000-4095", b"1760000000000-99999", b"%d-1" % (2**64 - 1)])
def test_any_entry_id_has_a_time(entry: bytes) -> None:
    MEMORY.show_call(M1, [b"p"], 120, entry, again=False)


# ---- the push

FULL = OfflinePush(
    title="Ann",
    desc="secret",
    ext="secret",
    apns=ApnsOptions(
        title="Ann", subtitle="secret", subtitle_loc_key="secret", subtitle_loc_args=("secret",), loc_key="secret",
        loc_args=("secret",), image="https://secret", mutable_content=True, category="secret", title_loc_key="T",
        title_loc_args=("Ann",), thread_id="t", sound="s",
    ),
    huawei=HuaweiOptions(channel_id="c", category="IM", importance="NORMAL", image="https://secret"),
    honor=HonorOptions(importance="NORMAL", image="https://secret"),
    xiaomi=XiaomiOptions(channel_id="c", template_id="secret", template_params={"a": "secret"}),
    oppo=OppoOptions(
        channel_id="c", category="IM", notify_level=16, template_id="secret", title_params={"a": "secret"},
        content_params={"a": "secret"},
    ),
    vivo=VivoOptions(category="IM", classification=1, notify_type=4),
    meizu=MeizuOptions(notice_type=1),
    harmony=HarmonyOptions(category="IM", image="https://secret", ignore_badge=True),
    fcm=FcmOptions(channel_id="c", image="https://secret", priority="high", form="data"),
)  # fmt: skip


def test_nothing_that_was_said_is_left_and_classes_and_channels_are() -> None:
    made = overrides_of_recall(FULL)
    assert b"secret" not in msgspec.json.encode(made)
    assert made.title == "Ann"
    assert made.apns == ApnsOptions(title="Ann", title_loc_key="T", title_loc_args=("Ann",), thread_id="t", sound="s")
    assert made.huawei == HuaweiOptions(channel_id="c", category="IM", importance="LOW")
    assert made.honor == HonorOptions(importance="NORMAL")
    assert made.xiaomi == XiaomiOptions(channel_id="c")
    assert made.oppo == OppoOptions(channel_id="c", category="IM", notify_level=2)
    assert made.vivo == VivoOptions(category="IM", classification=1, notify_type=1)
    assert made.meizu == MeizuOptions(notice_type=1)
    assert made.harmony == HarmonyOptions(category="IM", ignore_badge=True)
    assert made.fcm == FcmOptions(channel_id="c", priority="high", form="data")


@pytest.mark.parametrize("push", [None, OfflinePush(), FULL, OfflinePush(oppo=OppoOptions(notify_level=1))])
def test_a_recall_is_quiet_and_stays_as_it_is(push: OfflinePush | None) -> None:
    made = overrides_of_recall(push)
    assert made.huawei is not None
    assert made.vivo is not None
    assert (made.huawei.importance, made.vivo.notify_type) == ("LOW", 1)
    assert overrides_of_recall(made) == made
