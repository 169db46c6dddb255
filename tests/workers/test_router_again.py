"""What comes to a router again: repeats, and what another router read and died with."""

from __future__ import annotations

import pytest
from prometheus_client import REGISTRY
from tests.workers.routing import PREFIX, Stage, chat, group, now_ms, play

from pushfleet_workers.redis_link import ReplyError
from pushfleet_workers.tokens.keys import UserKeys
from pushfleet_workers.tokens.record import FOREGROUND


def test_an_entry_routed_again_changes_nothing_and_counts_once(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.device("a")
        await stage.device("b", vendor="fcm")
        stage.enqueue(group("m1", "a", "b", "nobody"))
        raws = await stage.read()
        await stage.put_and_die(*raws)
        assert not await stage.joined(), "put, and not yet acknowledged"
        (again,) = await stage.read_again()
        assert again.again
        await stage.router.route(stage.streams["normal"], [again])
        # The first router was only slow.
        await stage.router.route(stage.streams["normal"], raws)
        lane = (await stage.books()).lanes["normal"]
        assert (lane.routed, lane.present, lane.deliveries, lane.recipients) == (1, 0, 2, 3)
        assert await stage.suppressed() == {"no_device": 1}
        assert len(await stage.deliveries("apns")) == len(await stage.deliveries("fcm")) == 1
        assert await stage.joined()

    play(redis_url, scenario)


@pytest.mark.parametrize("change", ["muted", "gone", "moved", "came", "unmuted"])
def test_the_books_join_when_the_state_changed_before_the_second_routing(redis_url: str, change: str) -> None:
    async def scenario(stage: Stage) -> None:
        devices = UserKeys(PREFIX, "demo", "b").devices
        await stage.device("a")
        if change != "came":
            await stage.device("b", vendor="fcm")
        if change == "unmuted":
            await stage.option("b", "g1", "none")
        stage.enqueue(group("m1", "a", "b"))
        await stage.put_and_die(*await stage.read())
        if change == "muted":
            await stage.option("a", "g1", "none")
            await stage.option("b", "g1", "none")
        elif change == "unmuted":
            await stage.option("b", "g1", "all")
        elif change == "gone":
            await stage.queue.call("DEL", devices)
        elif change == "moved":
            await stage.device("b", vendor="huawei")
        else:
            await stage.device("b", vendor="fcm")
        await stage.router.route(stage.streams["normal"], await stage.read_again())
        assert await stage.joined()
        assert len(await stage.deliveries("apns")) == 1

    play(redis_url, scenario)


def test_a_message_enqueued_twice_is_a_repeat(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.device()
        await stage.route(chat("m1"), chat("m1"), chat("m2"))
        await stage.route(chat("m1"))
        lane = (await stage.books()).lanes["normal"]
        assert (lane.routed, lane.repeated, lane.deliveries, lane.recipients) == (4, 2, 2, 2)
        assert sorted(entry.parcel.push.message_id for entry in await stage.entries()) == ["m1", "m2"]
        assert await stage.joined()

    play(redis_url, scenario)


def test_the_first_decision_holds_for_a_repeat(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.device(state=FOREGROUND, lease_until_ms=now_ms() + 60_000)
        await stage.route(chat("m1"))
        await stage.device()
        await stage.route(chat("m1"))
        assert await stage.deliveries() == []
        assert await stage.suppressed() == {"foreground": 1}
        assert (await stage.books()).lanes["normal"].repeated == 1
        assert await stage.joined()

    play(redis_url, scenario)


def test_a_repeat_does_not_follow_a_user_to_another_vendor(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.device()
        await stage.route(chat("m1"))
        await stage.device(vendor="fcm")
        await stage.route(chat("m1"))
        assert (len(await stage.deliveries("apns")), await stage.deliveries("fcm")) == (1, [])
        assert await stage.joined()

    play(redis_url, scenario)


def test_the_books_join_when_a_repeat_overtook_a_router_that_died(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.device("a")
        await stage.device("b", vendor="fcm")
        stage.enqueue(group("m1", "a", "b"))
        await stage.put_and_die(*await stage.read())
        await stage.device("b", vendor="huawei")
        await stage.route(group("m1", "a", "b"))
        await stage.router.route(stage.streams["normal"], await stage.read_again())
        lane = (await stage.books()).lanes["normal"]
        assert (lane.routed, lane.repeated) == (2, 1)
        assert await stage.joined()

    play(redis_url, scenario)


def test_whoever_was_put_is_not_suppressed_as_well_when_the_next_router_would_refuse(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        for user in ("a", "b", "c"):
            await stage.device(user)
        stage.enqueue(group("m1", "a", "b", "c", "nobody"))
        await stage.put_and_die(*await stage.read())
        await stage.device("a", state=FOREGROUND, lease_until_ms=now_ms() + 60_000)
        await stage.device("b", channels=[])
        await stage.router.route(stage.streams["normal"], await stage.read_again())
        assert len(await stage.deliveries()) == 3
        assert sum((await stage.suppressed()).values()) == 1, "of four recipients three were put"
        assert await stage.joined()

    play(redis_url, scenario)


def test_whoever_a_dead_router_refused_ends_although_the_next_one_would_not(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.device("a")
        await stage.device("b", state=FOREGROUND, lease_until_ms=now_ms() + 60_000)
        stage.enqueue(group("m1", "a", "b"))
        await stage.put_and_die(*await stage.read())
        await stage.device("b")
        await stage.router.route(stage.streams["normal"], await stage.read_again())
        assert [one.user for one in await stage.deliveries()] == ["a"], "the first write is the decision"
        assert await stage.suppressed() == {"decided_before": 1}
        assert await stage.joined()

    play(redis_url, scenario)


def test_a_router_whose_redis_breaks_in_between_does_it_all_again(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.device()
        stage.enqueue(chat("m1", "bob", "nobody"))
        raws = await stage.read()
        stage.router = stage.new_router()
        run_many, before = stage.queue.run_many, suppressed("no_device")

        async def full(*_: object) -> list[object]:
            return [ReplyError("OOM command not allowed when used memory > 'maxmemory'.")]

        monkeypatch.setattr(stage.queue, "run_many", full)
        with pytest.raises(ReplyError):
            await stage.router.route(stage.streams["normal"], raws)
        monkeypatch.setattr(stage.queue, "run_many", run_many)
        await stage.router.route(stage.streams["normal"], raws)
        assert [one.badge for one in await stage.deliveries()] == [1]
        assert suppressed("no_device") - before == 1, "a decision counts once"
        assert await stage.joined()

    play(redis_url, scenario)


def suppressed(reason: str) -> float:
    """What this process has told of it so far."""
    return REGISTRY.get_sample_value("pushfleet_suppressed_total", {"reason": reason}) or 0
