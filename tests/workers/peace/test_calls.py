"""A call that is over does not ring."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
from tests.workers.routing import PREFIX, RECALLS, Stage, chat, group, now_ms, play

from pushfleet import OfflinePush, Recipient
from pushfleet_workers.clock import FleetClock
from pushfleet_workers.ledger import Entry
from pushfleet_workers.recheck import Rechecker
from pushfleet_workers.tokens.keys import UserKeys
from pushfleet_workers.tokens.reads import CALLS_MAX, Call, call_over
from pushfleet_workers.tokens.record import Channel
from pushfleet_workers.tokens.store import TokenStore

BOB = UserKeys(PREFIX, "demo", "bob")


def on(url: str, scenario: Callable[[Stage], Awaitable[None]]) -> None:
    """Play with a phone of Bob's that has a VoIP token."""

    async def run(stage: Stage) -> None:
        channels = [Channel("apns", "main", "alert", 1), Channel("apns", "main", "voip", 1, "voip")]
        await stage.device(channels=channels)
        await scenario(stage)

    play(url, run)


async def reasons(stage: Stage, entries: list[Entry]) -> dict[str, str]:
    """What a worker finds that claims *entries* together: message id to reason; empty: it is sent."""
    refused = (await Rechecker(stage.queue, PREFIX, FleetClock(), "apns", "main").recheck(entries)).refused
    return {
        entry.parcel.push.message_id: refused.get(one.id, "") for entry in entries for one in entry.parcel.deliveries
    }


def over(name: str, sent_at_ms: int) -> Call:
    """The end of a call of Bob's, as his backend dates it."""
    return call_over(PREFIX, "demo", "bob", name, sent_at_ms=sent_at_ms, enqueued_at_ms=5_000)


def test_a_call_rings_at_the_head_by_voip_and_not_for_long(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.route(chat("m1"), chat("ring", kind="call", sent_at_ms=now_ms()))
        call, text = await stage.entries()
        assert (call.parcel.push.message_id, call.lane, text.lane) == ("ring", "urgent", "normal")
        assert [one.token for one in call.parcel.deliveries] == ["voip"]
        assert call.parcel.push.expires_at_ms <= now_ms() + 30_000
        assert await reasons(stage, [call]) == {"ring": ""}

    on(redis_url, scenario)


def test_a_queued_call_is_stopped_and_its_end_not_told(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.route(
            chat("ring", kind="call"), chat("end", kind="call_cancel"), chat("missed", kind="missed_call")
        )
        entries = await stage.entries()
        assert await reasons(stage, entries) == {"ring": "call_over", "end": "call_over", "missed": ""}

    on(redis_url, scenario)


def test_a_redial_that_is_over_does_not_swallow_the_end_of_the_call_that_rings(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        start = now_ms() - 2_000
        await stage.route(chat("ring", kind="call", sent_at_ms=start))
        await stage.entries()
        again = [("end", "call_cancel", 10), ("redial", "call", 500), ("end2", "call_cancel", 900)]
        await stage.route(*(chat(name, kind=kind, sent_at_ms=start + after) for name, kind, after in again))
        redialled = [one for one in await stage.entries() if one.parcel.push.message_id != "ring"]
        assert await reasons(stage, redialled) == {"end": "", "redial": "call_over", "end2": "call_over"}

    on(redis_url, scenario)


def test_an_end_that_is_not_pushed_itself_stops_its_call_all_the_same(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.route(chat("ring", kind="call"))
        await stage.route(chat("end", kind="call_cancel", offline_push=OfflinePush(disabled=True)))
        assert await reasons(stage, await stage.entries()) == {"ring": "call_over"}

    on(redis_url, scenario)


@pytest.mark.parametrize("happened", ["tried", "unknown", "lost", "sent"])
def test_what_may_ring_already_is_ended(redis_url: str, happened: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.route(chat("ring", kind="call"), chat("end", kind="call_cancel"))
        ring, end = await stage.entries()
        (delivery,) = ring.parcel.deliveries
        delivery.tries, delivery.unknown = int(happened == "tried"), int(happened == "unknown")
        ring.lost = int(happened == "lost")
        claimed = [end] if happened == "sent" else [ring, end]
        assert (await reasons(stage, claimed))["end"] == ""
        assert ring.parcel.push.replace_key == end.parcel.push.replace_key, "it replaces what is shown"

    on(redis_url, scenario)


def test_a_call_that_is_forced_is_stopped_as_any_other(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.route(chat("ring", Recipient(id="bob", push="force"), kind="call"), chat("end", kind="call_cancel"))
        assert (await reasons(stage, await stage.entries()))["ring"] == "call_over"

    on(redis_url, scenario)


def test_a_call_that_comes_after_its_end_is_not_even_put(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        at_ms = now_ms()
        await stage.route(chat("end", kind="call_cancel", sent_at_ms=at_ms))
        forced = Recipient(id="bob", push="force")
        await stage.route(
            chat("ring", kind="call", sent_at_ms=at_ms), chat("r2", forced, kind="call", sent_at_ms=at_ms)
        )
        assert await stage.suppressed() == {"call_over": 2}
        assert await stage.joined()

    on(redis_url, scenario)


def test_other_calls_go_on(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        at_ms = now_ms() - 1_000
        await stage.device("eve")
        await stage.route(
            group("ring", "bob", "eve", kind="call", sent_at_ms=at_ms),
            group("end", "eve", kind="call_cancel", sent_at_ms=at_ms + 1),
            group("again", "eve", kind="call", sent_at_ms=at_ms + 2),
            chat("other", "eve", kind="call", sent_at_ms=at_ms),
        )
        entries = await stage.entries()
        refused = (await Rechecker(stage.queue, PREFIX, FleetClock(), "apns", "main").recheck(entries)).refused
        over = {
            (entry.parcel.push.message_id, one.user)
            for entry in entries
            for one in entry.parcel.deliveries
            if one.id in refused
        }
        assert over == {("ring", "eve"), ("end", "eve")}

    on(redis_url, scenario)


def test_an_end_without_a_time_stops_what_came_before_it_and_no_later_call(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        # The backend's clock is three seconds behind.
        behind = now_ms() - 3_000
        await stage.route(chat("ring", kind="call", sent_at_ms=behind), chat("end", kind="call_cancel"))
        await stage.route(chat("redial", kind="call", sent_at_ms=behind + 200))
        found = await reasons(stage, await stage.entries())
        assert found == {"ring": "call_over", "end": "call_over", "redial": ""}

    on(redis_url, scenario)


def test_a_clock_that_is_ahead_keeps_no_call_ringing(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.route(chat("ring", kind="call", sent_at_ms=now_ms() + 9_000), chat("end", kind="call_cancel"))
        assert await reasons(stage, await stage.entries()) == {"ring": "call_over", "end": "call_over"}

    on(redis_url, scenario)


def test_a_call_without_a_time_is_ended_by_what_comes_after_it_whatever_that_says(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        # The backend's clock is wrong, and only its ends say a time.
        for wrong_ms in (-3_000, 3_600_000):
            await stage.route(chat(f"ring{wrong_ms}", kind="call"))
            await stage.route(chat(f"end{wrong_ms}", kind="call_cancel", sent_at_ms=now_ms() + wrong_ms))
            found = await reasons(stage, (await stage.entries())[-2:])
            assert set(found.values()) == {"call_over"}
        await stage.route(chat("redial", kind="call"))
        assert (await reasons(stage, await stage.entries()))["redial"] == ""

    on(redis_url, scenario)


@pytest.mark.parametrize("dated", [False, True])
def test_the_end_of_a_call_that_never_rang_is_not_told_when_it_is_claimed_later(redis_url: str, dated: bool) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.route(chat("ring", kind="call", sent_at_ms=now_ms() - 9 if dated else 0))
        await stage.route(chat("end", kind="call_cancel", sent_at_ms=now_ms() - 4 if dated else 0))
        ring, end = await stage.entries()
        assert await reasons(stage, [ring]) == {"ring": "call_over"}
        assert await reasons(stage, [end]) == {"end": "call_over"}
        await stage.route(chat("redial", kind="call"), chat("end2", kind="call_cancel"))
        *_, end2 = await stage.entries()
        assert await reasons(stage, [end2]) == {"end2": ""}, "the redial may ring"

    on(redis_url, scenario)


def test_a_call_that_is_over_does_not_ring_where_that_cannot_be_noted(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.route(chat("ring", kind="call"))
        await stage.route(chat("end", kind="call_cancel"))
        ring, end = await stage.entries()
        await stage.queue.call("CONFIG", "SET", "maxmemory", 1)
        try:
            assert await reasons(stage, [ring]) == {"ring": "call_over"}
        finally:
            await stage.queue.call("CONFIG", "SET", "maxmemory", 0)
        assert await reasons(stage, [end]) == {"end": ""}, "nobody knows that nothing rang"

    on(redis_url, scenario)


def test_the_end_of_a_call_that_may_ring_is_told_when_it_is_claimed_later(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.device(name="pad")
        await stage.route(chat("ring", kind="call"), chat("end", kind="call_cancel"))
        entries = await stage.entries()
        for entry in entries:
            entry.parcel.deliveries.sort(key=lambda one: one.device)
        ring, end = entries
        ring.parcel.deliveries[0].tries = 1
        assert set((await Rechecker(stage.queue, PREFIX, FleetClock(), "apns", "main").recheck([ring])).refused) == {
            one.id for one in ring.parcel.deliveries
        }
        refused = (await Rechecker(stage.queue, PREFIX, FleetClock(), "apns", "main").recheck([end])).refused
        assert [refused.get(one.id, "") for one in end.parcel.deliveries] == ["", "call_over"]
        await stage.queue.call("DEL", BOB.calls)
        await stage.queue.call("SET", BOB.calls, "not even a hash")
        refused = (await Rechecker(stage.queue, PREFIX, FleetClock(), "apns", "main").recheck([end])).refused
        assert refused == {}

    on(redis_url, scenario)


def test_an_end_that_comes_twice_does_not_stop_the_call_in_between(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        end = chat("end", kind="call_cancel")
        await stage.route(chat("ring", kind="call"), end)
        await stage.route(chat("redial", kind="call"))
        await stage.route(end)
        assert (await reasons(stage, await stage.entries()))["redial"] == ""

    on(redis_url, scenario)


def test_an_end_that_is_taken_back_is_taken_back_whatever_calls_were_stopped(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.device()
        await stage.route(chat("ring", kind="call", replace_key="call:1"))
        await stage.route(chat("end", kind="call_cancel"))
        await stage.recall("end")
        ring, _, recall = await stage.entries()
        assert recall.parcel.push.recall
        assert await reasons(stage, [ring, recall]) == {"ring": "call_over", "end": ""}

    play(redis_url, scenario, apps=RECALLS)


def test_an_end_that_names_its_call_stops_no_other(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.route(
            chat("ring", kind="call", replace_key="call:1"),
            chat("redial", kind="call", replace_key="call:2"),
            chat("unnamed", kind="call"),
            chat("end", kind="call_cancel", replace_key="call:1"),
        )
        assert await reasons(stage, await stage.entries()) == {
            "ring": "call_over", "redial": "", "unnamed": "", "end": "call_over"
        }  # fmt: skip
        # One that names none is for all of the conversation.
        await stage.route(chat("all", kind="call_cancel"))
        found = await reasons(stage, await stage.entries())
        assert {name for name, reason in found.items() if not reason} == set()

    on(redis_url, scenario)


def test_the_end_that_names_its_call_is_the_one_that_is_not_told(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.route(
            chat("ring", kind="call", replace_key="call:2"),
            chat("other end", kind="call_cancel"),
            chat("end", kind="call_cancel", replace_key="call:2"),
        )
        found = await reasons(stage, await stage.entries())
        assert found == {"ring": "call_over", "other end": "", "end": "call_over"}

    on(redis_url, scenario)


def test_a_call_without_a_conversation_is_ended_by_its_name(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        bare = {"conversation": None, "replace_key": "call:7f3a"}
        await stage.route(chat("ring", kind="call", **bare))
        assert await reasons(stage, await stage.entries()) == {"ring": ""}
        await stage.route(chat("end", kind="call_cancel", **bare), chat("late", kind="call_cancel", conversation=None))
        found = await reasons(stage, await stage.entries())
        assert found == {"ring": "call_over", "end": "call_over", "late": ""}

    on(redis_url, scenario)


def test_a_stored_end_that_nobody_could_have_said_is_none(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.queue.call("HSET", BOB.calls, "c1", "-9:soon")
        await stage.route(chat("ring", kind="call"))
        assert await reasons(stage, await stage.entries()) == {"ring": ""}
        await stage.route(chat("end", kind="call_cancel"))
        assert (await reasons(stage, await stage.entries()))["ring"] == "call_over"

    on(redis_url, scenario)


def test_ends_are_remembered_for_an_hour_and_of_few_conversations(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        for number in range(CALLS_MAX + 1):
            await stage.queue.run(*over(f"c{number}", 1_000))
        assert await stage.queue.call("HLEN", BOB.calls) == 1
        assert 0 < await stage.queue.call("TTL", BOB.calls) <= 3_600
        assert await stage.queue.run(*over(f"c{CALLS_MAX}", 999)) == 0, "an older end is no news"
        await TokenStore(stage.queue, PREFIX, now_ms).forget_user("demo", "bob")
        assert await stage.queue.call("EXISTS", BOB.calls) == 0

    on(redis_url, scenario)
