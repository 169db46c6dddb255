"""What a user has read is not pushed: not when it is routed, and not when it waited."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from tests.workers.routing import PREFIX, Stage, chat, group, now_ms, play

from pushfleet import Recipient
from pushfleet.message import Kind
from pushfleet_workers.clock import FleetClock
from pushfleet_workers.decision import refuse_read
from pushfleet_workers.ledger import Entry
from pushfleet_workers.recheck import Rechecker
from pushfleet_workers.redis_link import Link
from pushfleet_workers.tokens.changes import Report
from pushfleet_workers.tokens.keys import UserKeys
from pushfleet_workers.tokens.reads import CONVERSATIONS_MAX, Done, ReadStore
from pushfleet_workers.tokens.store import TokenStore

READS: dict[str, Any] = {"demo": {"name": "Demo", "reads": True}, "lite": {}}
START_MS = now_ms() - 60_000
BOB = UserKeys(PREFIX, "demo", "bob")


def on(url: str, scenario: Callable[[Stage, ReadStore], Awaitable[None]]) -> None:
    """Play with reads switched on for the app."""

    async def run(stage: Stage) -> None:
        await stage.device(state="b", state_at_ms=START_MS, unread=5)
        await scenario(stage, ReadStore(stage.queue, PREFIX, now_ms))

    play(url, run, apps=READS)


async def reasons(stage: Stage, entries: list[Entry], *, reads: bool = True) -> list[str]:
    """What a recheck says of each delivery; empty: it may be sent."""
    checker = Rechecker(stage.queue, PREFIX, FleetClock(), "apns", "main", reads=reads)
    refused = (await checker.recheck(entries)).refused
    return [refused.get(one.id, "") for entry in entries for one in entry.parcel.deliveries]


@pytest.mark.parametrize(
    ("kind", "recipient", "sent_at_ms", "reason"),
    [
        ("chat", Recipient(id="bob"), 10, "read"),
        ("chat", Recipient(id="bob"), 11, ""),
        ("mention", Recipient(id="bob", mention=True), 9, "read"),
        ("missed_call", Recipient(id="bob"), 9, "read"),
        ("call", Recipient(id="bob"), 9, "call_over"),
        ("call", Recipient(id="bob"), 11, ""),
        ("call_cancel", Recipient(id="bob"), 9, ""),
        ("chat", Recipient(id="bob", push="force"), 9, ""),
    ],
)
def test_what_was_written_until_then_is_read(kind: Kind, recipient: Recipient, sent_at_ms: int, reason: str) -> None:
    assert refuse_read(kind, recipient, done=Done(10).covers(sent_at_ms, 99)) == reason


def test_what_was_read_is_not_routed_and_what_came_after_is(redis_url: str) -> None:
    async def scenario(stage: Stage, reads: ReadStore) -> None:
        at_ms = now_ms()
        assert await reads.mark("demo", "bob", "c1", at_ms)
        await stage.route(
            chat("m1", sent_at_ms=at_ms), chat("m2", sent_at_ms=at_ms + 1), group("m3", "bob", sent_at_ms=at_ms)
        )
        assert [one.parcel.push.message_id for one in await stage.entries()] == ["m2", "m3"]
        assert await stage.suppressed() == {"read": 1}
        assert [one.badge for one in await stage.deliveries()] == [6, 7], "what was read does not count"
        assert await stage.joined()

    on(redis_url, scenario)


def test_what_waits_and_is_read_meanwhile_does_not_leave(redis_url: str) -> None:
    async def scenario(stage: Stage, reads: ReadStore) -> None:
        at_ms = now_ms()
        await stage.route(chat("m1", sent_at_ms=at_ms), chat("m2", sent_at_ms=at_ms + 1), group("m3", "bob"))
        await reads.mark("demo", "bob", "c1", at_ms)
        entries = await stage.entries()
        assert await reasons(stage, entries) == ["read", "", ""]
        assert await reasons(stage, entries, reads=False) == ["", "", ""]

    on(redis_url, scenario)


def test_of_two_reports_the_one_that_read_further_holds_in_any_order(redis_url: str) -> None:
    async def scenario(stage: Stage, reads: ReadStore) -> None:
        assert await reads.mark("demo", "bob", "c1", 2_000)
        assert not await reads.mark("demo", "bob", "c1", 1_000)
        assert not await reads.mark("demo", "bob", "c1", 2_000)
        assert await stage.queue.call("HGET", BOB.reads, "c1") == b"2000"
        assert await stage.queue.call("TTL", BOB.reads) > 27 * 86_400

    on(redis_url, scenario)


def test_what_is_left_unread_is_what_badges_count_on_from(redis_url: str) -> None:
    async def scenario(stage: Stage, reads: ReadStore) -> None:
        await stage.device(name="pad", state="b", state_at_ms=START_MS, unread=5)
        await stage.route(chat("m1", sent_at_ms=START_MS + 4))
        assert [one.badge for one in await stage.deliveries()] == [6, 6]
        await reads.mark("demo", "bob", "c1", 1, unread=2, at_ms=START_MS + 5)
        assert not await reads.mark("demo", "bob", "c1", 1, unread=9, at_ms=START_MS + 4), "older than what is known"
        await stage.route(group("m2", "bob"))
        assert [one.badge for one in await stage.deliveries()] == [6, 6, 3, 3]
        store = TokenStore(stage.queue, PREFIX, now_ms)
        await store.report("demo", [Report(user="bob", device="pad", state="background", unread=7, at_ms=START_MS + 3)])
        await store.report(
            "demo", [Report(user="bob", device="phone", state="background", unread=8, at_ms=START_MS + 6)]
        )
        devices = (await store.user("demo", "bob")).devices
        assert {name: device.unread for name, device in devices.items()} == {"pad": 2, "phone": 8}

    on(redis_url, scenario)


def test_a_read_that_is_reported_late_keeps_what_was_written_after_it_in_the_badge(redis_url: str) -> None:
    async def scenario(stage: Stage, reads: ReadStore) -> None:
        await stage.device(unread=0, state_at_ms=START_MS)
        await stage.route(chat("m1", sent_at_ms=START_MS + 10_000), chat("m2"), chat("m3"))
        await reads.mark("demo", "bob", "c0", START_MS + 30_000, unread=1, at_ms=START_MS + 30_000)
        await stage.route(chat("m4"))
        assert [one.badge for one in await stage.deliveries()] == [1, 2, 3, 4]

    on(redis_url, scenario)


def test_of_too_many_conversations_the_oldest_are_forgotten(redis_url: str) -> None:
    async def run() -> None:
        link = Link(redis_url)
        reads = ReadStore(link, PREFIX, now_ms)
        for number in range(CONVERSATIONS_MAX + 1):
            await reads.mark("demo", "bob", f"c{number}", 10_000 + number)
        kept = await link.call("HKEYS", BOB.reads)
        assert len(kept) == CONVERSATIONS_MAX * 3 // 4 + 1
        assert {b"c0", b"c249"}.isdisjoint(kept)
        assert {b"c250", b"c1000"} <= set(kept)
        await link.close()

    asyncio.run(run())


def test_what_is_no_time_makes_room_first(redis_url: str) -> None:
    async def scenario(stage: Stage, reads: ReadStore) -> None:
        junk = [part for number in range(500) for part in (f"j{number}", ("junk", "nan", "")[number % 3])]
        good = [part for number in range(500) for part in (f"c{number}", 10_000 + number)]
        await stage.queue.call("HSET", BOB.reads, *junk, *good)
        assert await reads.mark("demo", "bob", "new", 20_000)
        assert await reads.mark("demo", "bob", "c7", 20_000)
        assert await stage.queue.call("HLEN", BOB.reads) == 501
        await stage.queue.call("HSET", BOB.reads, "c1", "nan")
        assert await reads.mark("demo", "bob", "c1", 1)

    on(redis_url, scenario)


def test_who_is_forgotten_has_read_nothing(redis_url: str) -> None:
    async def scenario(stage: Stage, reads: ReadStore) -> None:
        await reads.mark("demo", "bob", "c1", 1_000)
        await TokenStore(stage.queue, PREFIX, now_ms).forget_user("demo", "bob")
        assert await stage.queue.call("EXISTS", BOB.reads) == 0

    on(redis_url, scenario)


def test_a_damaged_key_is_as_good_as_none(redis_url: str) -> None:
    async def scenario(stage: Stage, reads: ReadStore) -> None:
        await stage.queue.call("SET", BOB.reads, "not even a hash")
        await stage.route(chat("m1"))
        assert await reasons(stage, await stage.entries()) == [""]

    on(redis_url, scenario)


def test_where_reads_are_off_no_command_is_spent_on_them(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.device()
        trips: list[list[str]] = []
        pipeline = stage.queue.pipeline

        async def counting(commands: Any) -> list[Any]:
            trips.append([str(command[1]) for command in commands])
            return await pipeline(commands)

        monkeypatch.setattr(stage.queue, "pipeline", counting)
        await stage.route(chat("m1"))
        assert await reasons(stage, await stage.entries(), reads=False) == [""]
        assert BOB.reads not in {key for keys in trips for key in keys}

    play(redis_url, scenario)
