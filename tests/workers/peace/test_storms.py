"""A group in which everybody talks at once rings now and then, and says how much was said."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from msgspec.structs import replace
from tests.workers.ledger.support import an_entry
from tests.workers.peace.storm_play import (
    BOB,
    RECALLED,
    bodies,
    field,
    on,
    pass_time,
    play_with,
    recheck,
    said,
    storm,
)
from tests.workers.routing import PREFIX, Stage, chat, group, now_ms, play

from pushfleet import Conversation, Recipient
from pushfleet_workers.peace.storms import (
    STORMS_MAX,
    Storm,
    Telling,
    read_storm,
    told,
    told_by,
)
from pushfleet_workers.recall.keys import message_digest
from pushfleet_workers.tokens.reads import ReadStore
from pushfleet_workers.tokens.record import FOREGROUND
from pushfleet_workers.tokens.store import TokenStore


def test_three_hundred_messages_a_minute_ring_four_times(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        rung: dict[str, str] = {}
        for number in range(0, 300, 3):
            await stage.route(*(said(number + more) for more in range(3)))
            await pass_time(stage, 600)
            known = await storm(stage)
            for _, entry in await stage.delayed():
                carrier = entry.parcel.push.message_id
                # It may have become due since the last look, and the next wait begun.
                is_due = known.until_ms <= now_ms() or known.before.message == message_digest("demo", carrier)
                if carrier not in rung and is_due:
                    (rung[carrier],) = await bodies(stage, entry)
        (at_once,) = await stage.entries()
        assert at_once.parcel.push.message_id == "m0"
        assert [entry.parcel.push.later for _, entry in await stage.delayed()] == ["storm"] * 3
        told_so_far = list(rung.values())
        assert len(told_so_far) == 2, "after ten seconds and twenty more; the next one waits for forty"
        counts = [int(text.split(" and ")[1].split()[0]) + 1 for text in told_so_far]
        waiting = (await storm(stage)).waiting.count
        assert 1 + sum(counts) + waiting == 300, "none is left untold"
        assert (await stage.suppressed())["stormed"] == 300 - 4
        assert [one.badge for one in await stage.deliveries()] == [1]
        books = await stage.books()
        assert await stage.joined()
        assert sum(lane.deliveries for lane in books.lanes.values()) + 296 == 300

    on(redis_url, scenario)


def test_the_push_that_waited_says_how_many_there_are_and_has_the_badge_of_now(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.device(name="pad", vendor="huawei", locale="zh-CN")
        await stage.route(*(said(number) for number in range(13)), said(13, "Alice"))
        ((due_ms, phone),) = await stage.delayed()
        ((_, pad),) = await stage.delayed("huawei")
        assert phone.parcel.push.message_id == pad.parcel.push.message_id == "m1"
        assert now_ms() + 5_000 < due_ms < now_ms() + 11_000
        assert await bodies(stage, phone) == ["Alice and 12 others in Team"]
        assert [one.badge for one in phone.parcel.deliveries] == [14]
        found = await recheck(stage, pad, vendor="huawei")
        (push,) = found.rendered.values()
        assert (push.title, push.body) == ("Team", "Alice等13条新消息（Team）")
        assert await stage.suppressed() == {"stormed": 2 * 12}
        assert await stage.joined()

    on(redis_url, scenario)


def test_what_waits_alone_says_what_it_is(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.route(said(0), said(1, "Alice"))
        ((_, entry),) = await stage.delayed()
        assert await bodies(stage, entry) == ["Alice: Lunch?"]
        await stage.queue.call("DEL", BOB.storms)
        assert await bodies(stage, entry) == ["Alice: Lunch?"], "of what was forgotten it tells itself"

    on(redis_url, scenario)


def test_the_unread_number_of_the_latest_message_is_the_badge(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.route(*(said(n, recipients=(Recipient(id="bob", unread=10 + n),)) for n in range(4)))
        ((_, entry),) = await stage.delayed()
        await bodies(stage, entry)
        assert [one.badge for one in entry.parcel.deliveries] == [13]

    on(redis_url, scenario)


def test_mentions_calls_and_what_is_urgent_or_forced_pass(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.route(
            said(0),
            said(1, recipients=(Recipient(id="bob", mention=True),)),
            said(2, recipients=(Recipient(id="bob", push="force"),)),
            said(3, kind="call"),
            said(4, kind="mention"),
            said(5, lane="urgent"),
            said(6, kind="system"),
            chat("m7"),
            chat("m8", conversation=None, replace_key="x"),
        )
        at_once = {entry.parcel.push.message_id for entry in await stage.entries()}
        assert at_once == {f"m{number}" for number in range(9)}
        assert await stage.delayed() == []
        assert (await storm(stage)).waiting.count == 0

    on(redis_url, scenario)


def test_waits_grow_while_it_storms_and_shrink_when_it_calms(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        waits = []
        for number in range(9):
            await stage.route(said(number))
            known = await storm(stage)
            waits.append(round((known.until_ms - now_ms()) / 1000))
            await pass_time(stage, known.until_ms - now_ms() + 1 if number % 2 else 1_000)
        assert waits[0] == 10
        assert sorted(waits[1::2]) == waits[1::2]
        assert waits[7] > 60
        calm = []
        for number in range(20, 28):
            await pass_time(stage, 400_000)
            await stage.route(said(number))
            calm.append(round(((await storm(stage)).until_ms - now_ms()) / 1000))
        assert calm[1:] == [160, 80, 40, 20, 10, 10, 10], "the first one still met what waited"
        await stage.route(said(30))
        await pass_time(stage, 601_000)
        await stage.route(said(31))
        assert (await storm(stage)).pushes == 1, "after a quiet time the first one counts anew"

    on(redis_url, scenario)


def test_parcels_that_wait_equally_long_for_other_reasons_are_not_one(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.device("eve")
        stage.enqueue(group("m1", "bob", "eve"))
        (raw,) = await stage.read()
        job = await stage.router._job(stage.streams["normal"], raw)
        assert job is not None
        await stage.router._decide(stage.streams["normal"], [job])
        due_ms = now_ms() + 60_000
        job.holds["bob"] = due_ms
        job.carriers |= {one.id: due_ms for some in job.planned.values() for one in some if one.user == "eve"}
        await stage.router._put([job])
        waiting = await stage.delayed()
        assert {(at_ms, entry.parcel.push.later) for at_ms, entry in waiting} == {(due_ms, "held"), (due_ms, "storm")}
        book = (await stage.books()).accounts["apns:main"]
        assert book.balanced
        assert book.delayed == 2

    on(redis_url, scenario)


def test_a_device_that_the_carrier_does_not_go_to_has_a_storm_of_its_own(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.device(name="pad", vendor="huawei", state=FOREGROUND, lease_until_ms=now_ms() + 60_000)
        await stage.route(said(0), said(1))
        await stage.device(name="pad", vendor="huawei")
        await stage.route(said(2), said(3), said(4))
        assert [entry.parcel.push.message_id for _, entry in await stage.delayed()] == ["m1"]
        assert [entry.parcel.push.message_id for entry in await stage.entries("huawei")] == ["m2"]
        ((_, pad),) = await stage.delayed("huawei")
        (push,) = (await recheck(stage, pad, vendor="huawei")).rendered.values()
        assert (pad.parcel.push.message_id, push.body) == ("m3", "User 4 and 1 others in Team")
        assert await stage.joined()

    on(redis_url, scenario)


def test_a_device_that_is_reached_another_way_since_is_not_left_to_the_carrier(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.route(said(0), said(1))
        await stage.device(vendor="huawei")
        await stage.route(said(2), said(3))
        ((_, entry),) = await stage.delayed()
        assert await bodies(stage, entry) == ["no_channel"]
        assert [one.parcel.push.message_id for one in await stage.entries("huawei")] == ["m2"]
        assert [one.parcel.push.message_id for _, one in await stage.delayed("huawei")] == ["m3"]

    on(redis_url, scenario)


def test_a_carrier_that_was_handed_on_needs_no_storm_there(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.route(said(0), said(1), said(2))
        ((_, entry),) = await stage.delayed()
        await stage.device(vendor="huawei")
        await stage.route(said(3))
        entry.parcel.deliveries[0].tried = ["apns:main"]
        found = await recheck(stage, entry, vendor="huawei")
        assert (found.refused, found.rendered) == ({}, {}), "it says what was composed before it was handed on"

    on(redis_url, scenario)


def test_a_read_of_everything_ends_the_storm_and_one_of_less_does_not(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        reads, start_ms = ReadStore(stage.queue, PREFIX, now_ms), now_ms()
        await stage.route(*(said(number, sent_at_ms=start_ms + number) for number in range(4)))
        ((_, entry),) = await stage.delayed()
        await reads.mark("demo", "bob", "g1", start_ms + 1)
        assert await bodies(stage, entry) == ["User 3 and 1 others in Team"], "the latest two are not read"
        await reads.mark("demo", "bob", "g1", start_ms + 3)
        assert await bodies(stage, entry) == ["read"]
        assert await stage.queue.call("EXISTS", BOB.storms) == 0
        await stage.route(said(9, sent_at_ms=start_ms + 9))
        assert [one.parcel.push.message_id for one in await stage.entries()] == ["m0", "m9"]

    on(redis_url, scenario)


def test_what_is_read_meanwhile_is_not_counted(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        reads, start_ms = ReadStore(stage.queue, PREFIX, now_ms), now_ms()
        await stage.route(*(said(number, sent_at_ms=start_ms + number) for number in range(30)))
        ((_, entry),) = await stage.delayed()
        for read, text in [
            (3, "User 29 and 27 others in Team"),  # all but the carrier longer ago than is known by message
            (25, "User 29 and 3 others in Team"),
            (28, "You have a new message"),
            (29, "read"),
        ]:
            await reads.mark("demo", "bob", "g1", start_ms + read)
            assert await bodies(stage, entry) == [text]

    on(redis_url, scenario)


def test_the_carrier_that_alone_is_not_read_says_what_it_is(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        start_ms = now_ms()
        await stage.route(said(0, sent_at_ms=start_ms), said(1, sent_at_ms=start_ms + 9))
        await stage.route(said(2, sent_at_ms=start_ms + 3))
        await ReadStore(stage.queue, PREFIX, now_ms).mark("demo", "bob", "g1", start_ms + 5)
        ((_, entry),) = await stage.delayed()
        assert await bodies(stage, entry) == ["User 1: Lunch?"]

    on(redis_url, scenario)


def test_of_carriers_that_are_claimed_late_the_last_one_is_sent(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.route(said(0), said(1), said(2))
        await pass_time(stage, 10_500)
        await stage.route(said(3), said(4))
        entries = [entry for _, entry in await stage.delayed()]
        assert await bodies(stage, *entries) == ["User 2 and 1 others in Team", "User 4 and 1 others in Team"]
        await pass_time(stage, 20_500)
        assert await bodies(stage, *entries) == ["stormed", "User 4 and 1 others in Team"]

    on(redis_url, scenario)


@pytest.mark.parametrize(
    ("becomes", "text"),
    [("recalled", "User 2 and 1 others in Team"), ("expired", "User 2 and 1 others in Team"), ("read", "read")],
)
def test_where_the_newest_carrier_has_nothing_to_tell_the_one_before_does(
    redis_url: str, becomes: str, text: str
) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.device()
        await stage.route(said(0), said(1), said(2))
        await pass_time(stage, 10_500)
        await stage.route(said(3))
        await pass_time(stage, 20_500)
        entries = [entry for _, entry in await stage.delayed()]
        assert (await bodies(stage, *entries))[0] == "stormed"
        if becomes == "recalled":
            await stage.recall("m3")
        elif becomes == "read":
            await ReadStore(stage.queue, PREFIX, now_ms).mark("demo", "bob", "g1", now_ms())
        else:
            packed = msgspec.msgpack.decode(await stage.queue.call("HGET", BOB.storms, field()))
            packed[5][5] = now_ms() - 1
            await stage.queue.call("HSET", BOB.storms, field(), msgspec.msgpack.encode(packed))
        assert (await bodies(stage, *entries))[0] == text

    play(redis_url, scenario, apps=RECALLED)


def test_a_router_that_died_changes_nothing_of_what_was_decided(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        stage.enqueue(*(said(number) for number in range(5)))
        await stage.put_and_die(*await stage.read())
        before = await storm(stage)
        await stage.router.route(stage.streams["normal"], await stage.read_again())
        after = await storm(stage)
        assert (after.waiting, after.shown, after.until_ms) == (before.waiting, before.shown, before.until_ms)
        assert (len(await stage.entries()), len(await stage.delayed())) == (1, 1)
        assert await stage.suppressed() == {"stormed": 3}
        assert await stage.joined()

    on(redis_url, scenario)


def test_what_would_expire_while_it_waits_goes_by_itself(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.route(said(0), said(1, ttl_s=5), said(2), said(3, ttl_s=5))
        ((_, entry),) = await stage.delayed()
        assert entry.parcel.push.message_id == "m2"
        assert [one.parcel.push.message_id for one in await stage.entries()] == ["m0", "m1", "m3"]
        assert await bodies(stage, entry) == ["User 2: Lunch?"]

    on(redis_url, scenario)


def test_the_carrier_holds_as_long_as_any_message_that_it_tells_of(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.route(said(0), said(1, ttl_s=15), said(2, ttl_s=600), said(3, ttl_s=60))
        ((_, entry),) = await stage.delayed()
        (push,) = (await recheck(stage, entry)).rendered.values()
        assert now_ms() + 590_000 < push.expires_at_ms <= now_ms() + 600_000

    on(redis_url, scenario)


def test_a_message_that_comes_late_is_not_the_latest(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        start_ms = now_ms()
        newest, older = (Recipient(id="bob", unread=unread) for unread in (7, 6))
        await stage.route(said(0), said(1), said(2, "Alice", sent_at_ms=start_ms + 9_000, recipients=(newest,)))
        await stage.route(said(3, sent_at_ms=start_ms - 9, recipients=(older,)))
        known = (await storm(stage)).waiting
        assert (known.count, known.sender, known.sent_at_ms, known.unread) == (3, "Alice", start_ms + 9_000, 7)

    on(redis_url, scenario)


def test_the_shortest_wait_is_back_as_soon_as_after_a_short_storm(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        for number in range(30):
            await stage.route(said(number))
            await pass_time(stage, (await storm(stage)).until_ms - now_ms() + 1 if number % 2 else 500)
        assert (await storm(stage)).pushes == 3, "as many as there are waits"
        await pass_time(stage, 700_000)
        await stage.route(said(30))
        assert (await storm(stage)).pushes == 1, "after a quiet time all of them are forgotten"

    play_with(redis_url, [10, 20, 300], scenario)


def test_what_could_not_be_sent_in_time_still_knows_what_it_tells_of(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        start_ms = now_ms()
        await stage.route(*(said(number, sent_at_ms=start_ms + number) for number in range(6)))
        ((_, entry),) = await stage.delayed()
        assert await stage.queue.call("PTTL", BOB.storms) > 3_600_000, "as long as its messages make sense"
        await pass_time(stage, 700_000)
        await ReadStore(stage.queue, PREFIX, now_ms).mark("demo", "bob", "g1", start_ms + 3)
        assert (await bodies(stage, entry))[0].startswith("User 5 and ")
        await stage.route(said(6, sent_at_ms=start_ms + 6))
        assert [one.parcel.push.message_id for one in await stage.entries()] == ["m0", "m6"], "the counting is anew"
        assert (await bodies(stage, entry))[0].startswith("User 5 and ")

    on(redis_url, scenario)


@pytest.mark.parametrize(("state", "later_ms"), [("", 0), ("redis://state.example", 1_000)])
def test_where_two_clocks_count_the_carrier_goes_a_little_later(redis_url: str, state: str, later_ms: int) -> None:
    async def scenario(stage: Stage) -> None:
        redis = stage.settings.redis.model_copy(update={"state": state})
        stage.router = stage.new_router(stage.settings.model_copy(update={"redis": redis}))
        await stage.route(said(0), said(1))
        ((due_ms, _),) = await stage.delayed()
        assert due_ms == (await storm(stage)).until_ms + later_ms

    on(redis_url, scenario)


def test_no_more_than_some_conversations_storm_at_once(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        for _ in range(2):
            await stage.route(
                *(chat(f"m{n}-{_}", conversation=Conversation(id=f"c{n}")) for n in range(STORMS_MAX + 3))
            )
        assert await stage.queue.call("HLEN", BOB.storms) == STORMS_MAX
        assert len(await stage.entries()) == STORMS_MAX + 3 + 3
        await pass_time(stage, 700_000, "c0")
        await stage.route(chat("last", conversation=Conversation(id="c-new")))
        assert await stage.queue.call("HEXISTS", BOB.storms, field("c0")) == 0, "one that is over makes room"
        assert await stage.queue.call("HEXISTS", BOB.storms, field("c-new")) == 1

    on(redis_url, scenario)


def test_who_is_forgotten_leaves_no_name_behind(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.route(said(0), said(1))
        assert 0 < await stage.queue.call("TTL", BOB.storms) <= 86_400
        await TokenStore(stage.queue, PREFIX, now_ms).forget_user("demo", "bob")
        assert await stage.queue.call("EXISTS", BOB.storms) == 0

    on(redis_url, scenario)


def test_a_damaged_record_is_as_good_as_none(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.route(said(0), said(1))
        await stage.queue.call("HSET", BOB.storms, field(), b"\xc1 nothing")
        ((_, entry),) = await stage.delayed()
        assert await bodies(stage, entry) == ["User 1: Lunch?"]
        await stage.route(said(2))
        assert (await storm(stage)).pushes == 1

    on(redis_url, scenario)


def test_where_storms_are_off_nothing_is_kept(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.device()
        await stage.route(said(0), said(1))
        assert len(await stage.entries()) == 2
        assert await stage.queue.call("EXISTS", BOB.storms) == 0

    play(redis_url, scenario)


PUSH = replace(an_entry("m1").parcel.push, title="Team", body="Lunch?", group=True)


@pytest.mark.parametrize(
    ("locale", "changes", "text"),
    [
        ("en", {}, "A {title} and 2 others in Team"),
        ("zh-Hant", {}, "A {title}等3条新消息（Team）"),
        ("fr", {}, "A {title}等3条新消息（Team）"),
        ("en", {"group": False}, "3 new messages"),
        ("en", {"hidden": True}, "3 new messages"),
        ("en", {"title": "{sender}"}, "A {title} and 2 others in {sender}"),
    ],
)
def test_the_text_says_how_many_in_the_languages_way(locale: str, changes: dict[str, Any], text: str) -> None:
    push = replace(PUSH, **changes)
    assert told(push, Telling("d", 3, "A {title}"), locale, "zh").body == text
    own = Telling("d", 1, "A", messages=(message_digest(push.app, push.message_id),))
    assert told(push, own, locale, "zh") is push
    counted = told(push, Telling("d", 3, "A"), locale, "zh")
    assert told(counted, own, locale, "zh").body != counted.body, "a text that is gone is not taken for its own"


def test_a_carrier_is_told_of_itself_where_the_storm_is_unknown() -> None:
    telling = told_by(None, PUSH)
    assert telling is not None
    assert (telling.count, telling.sent_at_ms) == (1, PUSH.sent_at_ms)
    assert told_by(Storm(1, 2, 3, 4, "", Telling(), Telling()), PUSH) is None


def test_what_is_no_storm_is_none() -> None:
    assert read_storm(None) is None
    assert read_storm(b"") is None
