"""The push that waits and tells of others: what it would have told is told by another one when it cannot go."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from tests.workers.peace.storm_play import (
    BOB,
    bodies,
    field,
    on,
    pass_time,
    said,
    storm,
)
from tests.workers.routing import PREFIX, Stage, chat, now_ms

from pushfleet_workers.ledger import AccountKeys
from pushfleet_workers.tokens.record import FOREGROUND


def tight(stage: Stage, most: int) -> None:
    """From now on accounts take so many deliveries before bulk work is dropped; 0: any number."""
    router = stage.settings.router.model_copy(update={"account_backlog_max": most})
    stage.router = stage.new_router(stage.settings.model_copy(update={"router": router}))


@pytest.mark.parametrize("late", [False, True])
def test_what_a_dropped_carrier_would_have_told_the_next_message_tells(redis_url: str, late: bool) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.device(name="pad", vendor="huawei")
        tight(stage, 1)
        await stage.route(said(0, lane="bulk"))
        await stage.queue.call("HSET", AccountKeys(PREFIX, "huawei", "main").books, "ready", 0)
        await stage.route(*(said(number, lane="bulk") for number in range(1, 4)))
        assert await stage.delayed() == []
        assert [entry.parcel.push.message_id for _, entry in await stage.delayed("huawei")] == ["m1"], "there was room"
        assert (await storm(stage)).waiting.message == ""
        await stage.route(said(4, lane="bulk"))
        assert await stage.delayed() == [], "still none"
        tight(stage, 0)
        if late:
            await pass_time(stage, 10_500)
        await stage.route(said(5, lane="bulk"), said(6, lane="bulk"))
        (due_ms, entry), *next_one = await stage.delayed()
        assert entry.parcel.push.message_id == "m5"
        # Where it came late it goes at once, and the next one waits for others.
        assert (due_ms <= now_ms(), len(next_one)) == (late, late)
        assert await bodies(stage, entry) == [f"User {6 - late} and {5 - late} others in Team"]

    on(redis_url, scenario)


def test_whoever_takes_over_lets_the_next_message_tell_what_a_dropped_carrier_would_have(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.device(name="pad", vendor="huawei")
        tight(stage, 1)
        await stage.route(said(0, lane="bulk"))
        await stage.queue.call("HSET", AccountKeys(PREFIX, "huawei", "main").books, "ready", 0)

        async def die(*_: object) -> None:
            raise KeyboardInterrupt

        stage.enqueue(*(said(number, lane="bulk") for number in range(1, 4)))
        raws = await stage.read("bulk")
        with monkeypatch.context() as patch:
            patch.setattr(stage.router._storms, "pass_on", die)
            with pytest.raises(KeyboardInterrupt):
                await stage.router.route(stage.streams["bulk"], raws)
        assert (await storm(stage)).waiting.message, "it counts on a push that there is no room for"
        tight(stage, 0)
        await stage.put_and_die(*await stage.read_again("bulk"), lane="bulk")
        assert (await storm(stage)).waiting.message == ""
        await stage.router.route(stage.streams["bulk"], await stage.read_again("bulk"))
        await stage.route(said(4, lane="bulk"))
        ((_, entry),) = await stage.delayed()
        assert await bodies(stage, entry) == ["User 4 and 3 others in Team"]
        assert [one.parcel.push.message_id for _, one in await stage.delayed("huawei")] == ["m1"], "there was room"
        assert await stage.suppressed() == {"stormed": 5}

    on(redis_url, scenario)


def test_what_a_dropped_carrier_would_have_told_too_late_is_told_no_more(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        tight(stage, 1)
        await stage.route(said(0, lane="bulk"), said(1, lane="bulk", ttl_s=60))
        packed = msgspec.msgpack.decode(await stage.queue.call("HGET", BOB.storms, field()))
        packed[5][5] = now_ms() - 1
        await stage.queue.call("HSET", BOB.storms, field(), msgspec.msgpack.encode(packed))
        tight(stage, 0)
        await stage.route(said(2, lane="bulk"))
        ((_, entry),) = await stage.delayed()
        assert await bodies(stage, entry) == ["User 2: Lunch?"]

    on(redis_url, scenario)


def test_what_comes_again_does_not_take_over_from_a_dropped_carrier(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        tight(stage, 1)
        await stage.route(said(0, lane="bulk"), said(1, lane="bulk"))
        tight(stage, 0)
        for number, ttl_s in ((2, None), (3, 5)):
            stage.enqueue(said(number, lane="bulk", ttl_s=ttl_s))
            await stage.read("bulk")
        await stage.router.route(stage.streams["bulk"], await stage.read_again("bulk"))
        await stage.route(said(4, lane="bulk", ttl_s=5))
        at_once = [one.parcel.push.message_id for one in await stage.entries()]
        assert at_once == ["m0", "m2", "m3", "m4"], "those may be in the ledger since, and this one would expire"
        assert (await storm(stage)).waiting.count == 1

    on(redis_url, scenario)


def test_a_batch_that_breaks_after_the_decision_promises_nothing_that_is_not_put(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.device("eve")
        await stage.route(said(0))
        put = stage.router._put

        async def fails_for_eve(jobs: Any) -> None:
            if any(job.message.id == "broken" for job in jobs):
                raise ValueError
            await put(jobs)

        monkeypatch.setattr(stage.router, "_put", fails_for_eve)
        await stage.route(said(1), chat("broken", "eve"), said(2))
        ((_, entry),) = await stage.delayed()
        assert await bodies(stage, entry) == ["User 2 and 1 others in Team"]
        assert [one["reason"] for one in await stage.refused()] == ["unroutable"]

    on(redis_url, scenario)


def test_nothing_waits_for_a_carrier_that_cannot_be_put(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.route(said(0))

        async def fails(_: object) -> None:
            raise ValueError

        with monkeypatch.context() as broken:
            broken.setattr(stage.router, "_put", fails)
            await stage.route(said(1))
        await stage.route(said(2))
        assert [entry.parcel.push.message_id for _, entry in await stage.delayed()] == ["m2"]

    on(redis_url, scenario)


def test_a_message_that_two_routers_have_at_once_is_decided_once(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        normal = stage.streams["normal"]
        for number in range(2):
            stage.enqueue(said(number))
            first = await stage.read()
            stage.enqueue(said(number))
            second = await stage.read()
            await stage.put_and_die(*first)
            await stage.new_router().route(normal, second)
        assert (await storm(stage)).waiting.count == 1
        await stage.route(said(2))
        assert [one.parcel.push.message_id for one in await stage.entries()] == ["m0"]
        ((_, entry),) = await stage.delayed()
        assert await bodies(stage, entry) == ["User 2 and 1 others in Team"]

    on(redis_url, scenario)


def test_a_message_that_two_routers_have_at_once_counts_once_in_the_text(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.route(said(0), said(1))
        stage.enqueue(said(2))
        first = await stage.read()
        stage.enqueue(said(2))
        second = await stage.read()
        await stage.put_and_die(*first)
        await stage.new_router().route(stage.streams["normal"], second)
        ((_, entry),) = await stage.delayed()
        assert await bodies(stage, entry) == ["User 2 and 1 others in Team"]
        await pass_time(stage, 10_500)
        await stage.route(said(3))
        await stage.router.route(stage.streams["normal"], await stage.read_again())
        assert [one.parcel.push.message_id for one in await stage.entries()] == ["m0"], "told before, it goes nowhere"

    on(redis_url, scenario)


def test_what_a_dead_router_did_not_ask_about_is_counted_by_the_next(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.route(said(0), said(1))
        stage.enqueue(said(2))
        await stage.read()
        await stage.router.route(stage.streams["normal"], await stage.read_again())
        ((_, entry),) = await stage.delayed()
        assert await bodies(stage, entry) == ["User 2 and 1 others in Team"]
        # Of more than twenty nobody knows whether it is among them.
        await stage.route(*(said(number) for number in range(3, 30)))
        stage.enqueue(said(30))
        await stage.read()
        await stage.router.route(stage.streams["normal"], await stage.read_again())
        assert (await storm(stage)).waiting.count == 29

    on(redis_url, scenario)


def test_a_message_that_comes_again_is_not_the_latest_of_its_moment(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        at_ms = now_ms()
        await stage.route(said(0, sent_at_ms=at_ms))
        stage.enqueue(*(said(number, f"User {number}", sent_at_ms=at_ms) for number in range(1, 30)))
        await stage.put_and_die(*await stage.read())
        await stage.router.route(stage.streams["normal"], await stage.read_again())
        waiting = (await storm(stage)).waiting
        assert (waiting.sender, waiting.count) == ("User 29", 29)

    on(redis_url, scenario)


def test_a_carrier_that_is_refused_when_it_is_routed_again_is_not_waited_for(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(stage: Stage) -> None:
        class Died(BaseException):
            pass

        async def die(_: object) -> None:
            raise Died

        await stage.route(said(0))
        stage.enqueue(said(1))
        raws = await stage.read()
        with monkeypatch.context() as broken:
            broken.setattr(stage.router, "_put", die)
            with pytest.raises(Died):
                await stage.router.route(stage.streams["normal"], raws)
        await stage.device(state=FOREGROUND, lease_until_ms=now_ms() + 60_000)
        await stage.router.route(stage.streams["normal"], await stage.read_again())
        assert await stage.delayed() == []
        await stage.device()
        await stage.route(said(2))
        assert [entry.parcel.push.message_id for _, entry in await stage.delayed()] == ["m2"]

    on(redis_url, scenario)


def test_what_comes_again_and_is_not_known_waits_for_nobody(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.route(said(0))
        stage.enqueue(said(1))
        await stage.read()
        await stage.router.route(stage.streams["normal"], await stage.read_again())
        assert [one.parcel.push.message_id for one in await stage.entries()] == ["m0", "m1"]
        assert (await storm(stage)).waiting.count == 0

    on(redis_url, scenario)
