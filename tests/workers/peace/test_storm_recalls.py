"""What was taken back is not told of, and takes nothing else off the screen."""

from __future__ import annotations

import pytest
from tests.workers.peace.storm_play import (
    RECALLED,
    bodies,
    recheck,
    said,
)
from tests.workers.routing import PREFIX, Stage, now_ms, play

from pushfleet import OfflinePush
from pushfleet.message import ApnsOptions
from pushfleet_workers.tokens.reads import ReadStore


@pytest.mark.parametrize(
    ("recalled", "text"),
    [
        (["m2"], "User 3 and 1 others in Team"),
        (["m3"], "2 new messages"),
        (["m2", "m3"], "User 1: Lunch?"),
        (["m1", "m2"], "You have a new message"),
        (["m1", "m2", "m3"], "recalled"),
    ],
)
def test_what_is_recalled_is_not_told(redis_url: str, recalled: list[str], text: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.device()
        await stage.route(*(said(number, sent_at_ms=now_ms() + number) for number in range(4)))
        ((_, entry),) = await stage.delayed()
        for identity in recalled:
            await stage.recall(identity)
        assert await bodies(stage, entry) == [text]

    play(redis_url, scenario, apps=RECALLED)


def test_of_very_many_messages_the_last_twenty_can_be_left_out(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        start_ms = now_ms()
        await stage.device()
        await stage.route(*(said(number, sent_at_ms=start_ms + number) for number in range(40)))
        ((_, entry),) = await stage.delayed()
        assert await bodies(stage, entry) == ["User 39 and 38 others in Team"]
        for number in (1, 2, 3, 21, 30):
            await stage.recall(f"m{number}")
        assert await bodies(stage, entry) == ["36 new messages"], "the carrier, and two of the last"
        await ReadStore(stage.queue, PREFIX, now_ms).mark("demo", "bob", "g1", start_ms + 25)
        assert await bodies(stage, entry) == ["13 new messages"]

    play(redis_url, scenario, apps=RECALLED)


def test_a_count_is_no_message_that_could_be_taken_back(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.device()
        await stage.route(said(0), said(1), said(2))
        ((_, entry),) = await stage.delayed()
        assert await bodies(stage, entry) == ["User 2 and 1 others in Team"]
        for identity in ("m0", "m1", "m2"):
            await stage.recall(identity)
        assert [one.parcel.push.recall for one in await stage.entries()] == [False]
        assert await stage.suppressed() == {"stormed": 1, "recall_unknown": 1, "not_shown": 2}

    play(redis_url, scenario, apps=RECALLED)


def test_a_carrier_that_speaks_for_itself_is_taken_back_once_it_is_sent(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.device()
        await stage.route(said(0), said(1))
        ((_, entry),) = await stage.delayed()
        assert await bodies(stage, entry) == ["User 1: Lunch?"]
        await stage.recall("m1")
        assert [one.parcel.push.recall for one in await stage.entries()] == [False, True]

    play(redis_url, scenario, apps=RECALLED)


def test_a_recall_of_what_another_push_tells_of_takes_nothing_off_the_screen(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.device()
        await stage.route(said(0), said(1), said(2))
        await stage.recall("m2", "bob", conversation="g1")
        assert [entry.parcel.push.recall for entry in await stage.entries()] == [False]
        assert await stage.suppressed() == {"stormed": 1, "not_shown": 1}

    play(redis_url, scenario, apps=RECALLED)


@pytest.mark.parametrize(("after", "text"), [(1, "You have a new message"), (3, "3 new messages")])
def test_a_carrier_that_is_recalled_still_tells_of_the_others(redis_url: str, after: int, text: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.device()
        secret = OfflinePush(title="Secret", desc="Secret", apns=ApnsOptions(subtitle="Secret"))
        await stage.route(said(0), said(1, title="Secret", offline_push=secret))
        await stage.route(*(said(2 + number) for number in range(after)))
        await stage.recall("m1", "bob", conversation="g1")
        ((_, entry),) = await stage.delayed()
        found = await recheck(stage, entry)
        (push,) = found.rendered.values()
        assert (found.refused, push.title, push.body) == ({}, "Demo", text)
        assert "Secret" not in str(push)

    play(redis_url, scenario, apps=RECALLED)


def test_a_carrier_of_itself_alone_ends_when_it_is_recalled(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.device()
        await stage.route(said(0), said(1))
        await stage.recall("m1", "bob", conversation="g1")
        ((_, entry),) = await stage.delayed()
        assert await bodies(stage, entry) == ["recalled"]
        await stage.route(said(2))
        assert await bodies(stage, entry) == ["You have a new message"], "it waits on, for what comes in time"

    play(redis_url, scenario, apps=RECALLED)
