"""A device is sent no more than its vendor takes in a day, and what is important finds something left."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from pushfleet_workers.peace.caps import DayCap, Sort
from pushfleet_workers.peace.device_day import (
    PLACES_MAX,
    Answer,
    Asked,
    DeviceDay,
    Gather,
    Verdict,
    day_call,
    day_command,
    day_drop_call,
    day_return_call,
    gather_of,
    read_answer,
    read_day,
)
from pushfleet_workers.recall.keys import message_digest
from pushfleet_workers.redis_link import Link
from pushfleet_workers.redis_server import EmbeddedRedis
from pushfleet_workers.tokens.keys import UserKeys

PREFIX = "t"
DAYS = UserKeys(PREFIX, "demo", "bob").days
DAY_MS = 86_400_000
CHAT, MENTION, NEWS = Sort.GATHERED, Sort.IMPORTANT, Sort.SINGLE


def now_ms() -> int:
    return int(time.time() * 1000)


def cap(most: int = 5, reserved: int = 2, *, left_ms: int = DAY_MS - 3_600_000) -> DayCap:
    """A cap whose day has so much left."""
    return DayCap("public", most, reserved, (now_ms() + left_ms) % DAY_MS)


@dataclass
class Device:
    """A device, its day, and what tests ask about it."""

    link: Link
    cap: DayCap
    place: str = "phone"
    asked: dict[str, Asked] = field(default_factory=dict)

    async def ask(
        self,
        message: str,
        sort: Sort = CHAT,
        *,
        leaving: bool = True,
        joins: bool = True,
        again: bool = False,
        conversation: str = "g1",
        ttl_ms: int = DAY_MS,
        **changes: Any,
    ) -> Answer:
        at_ms = now_ms()
        one = Asked(
            "demo", "bob", self.place, self.cap, sort, message, conversation, f"Who wrote {message}", at_ms,
            at_ms + ttl_ms, **changes,
        )  # fmt: skip
        self.asked[message] = one
        return read_answer(await self.link.run(*day_call(PREFIX, one, leaving=leaving, joins=joins, again=again)))

    async def verdict(self, message: str, sort: Sort = CHAT, **options: Any) -> Verdict:
        return (await self.ask(message, sort, **options)).verdict

    async def give_back(self, message: str, day: int, *, full: bool = False) -> None:
        await self.link.run(*day_return_call(PREFIX, self.asked[message], day, full=full))

    async def day(self) -> DeviceDay:
        found = read_day(await self.link.call(*day_command(PREFIX, "demo", "bob", self.place)))
        assert found is not None
        return found

    async def gather(self, message: str) -> Gather | None:
        """What its push tells of."""
        return gather_of(await self.day(), message_digest("demo", message))

    async def pass_time(self, ms: int) -> None:
        """As if everything that was put down had been so earlier, within the day."""
        fields = msgspec.msgpack.decode(await self.link.call("HGET", DAYS, self.place))
        fields[3] = max(0, fields[3] - ms)
        for gather in fields[4:]:
            if gather:
                gather[1] -= ms
        await self.link.call("HSET", DAYS, self.place, msgspec.msgpack.encode(fields))

    async def next_day(self) -> None:
        fields = msgspec.msgpack.decode(await self.link.call("HGET", DAYS, self.place))
        fields[0] -= 1
        await self.link.call("HSET", DAYS, self.place, msgspec.msgpack.encode(fields))

    async def wait_until_due(self) -> None:
        await self.pass_time((await self.day()).waiting.until_ms - now_ms() + 1)


def on(url: str, scenario: Callable[[Device], Awaitable[None]], given_cap: DayCap | None = None) -> None:
    async def run() -> None:
        link = Link(url)
        try:
            await link.call("DEL", DAYS)
            await scenario(Device(link, given_cap or cap()))
        finally:
            await link.close()

    asyncio.run(run())


def told(gather: Gather | None) -> dict[str, int]:
    """How many messages of each conversation a push tells of."""
    assert gather is not None
    return {chat.conversation: chat.count for chat in gather.chats} | ({"more": gather.more} if gather.more else {})


# ---- what leaves


def test_a_busy_morning_leaves_something_for_the_evening(redis_url: str) -> None:
    async def scenario(device: Device) -> None:
        assert await device.verdict("m0") is Verdict.LEAVES
        first = await device.ask("m1")
        assert first.verdict is Verdict.CARRIES
        hours = (first.till_ms - first.now_ms) / 3_600_000
        assert 7.6 < hours < 7.7, "a third of the 23 hours that are left: two more pushes are to come"
        for number in range(2, 200):
            assert await device.verdict(f"m{number}") is Verdict.GATHERED
        assert told(await device.gather("m1")) == {"g1": 199}
        await device.wait_until_due()
        assert await device.verdict("m1") is Verdict.LEAVES
        assert await device.verdict("m200") is Verdict.CARRIES
        await device.wait_until_due()
        assert await device.verdict("m200") is Verdict.LEAVES
        full = await device.ask("m201")
        assert full.verdict is Verdict.FULL
        assert full.till_ms == (full.day + 1) * DAY_MS + device.cap.begins_ms
        assert [await device.verdict(f"u{number}", MENTION) for number in range(3)] == [
            Verdict.LEAVES,
            Verdict.LEAVES,
            Verdict.FULL,
        ]
        await device.next_day()
        assert await device.verdict("m300") is Verdict.LEAVES

    on(redis_url, scenario)


def test_what_is_important_takes_its_own_share_first_and_then_whatever_is_left(redis_url: str) -> None:
    async def scenario(device: Device) -> None:
        assert [await device.verdict(f"u{number}", MENTION) for number in range(4)] == [Verdict.LEAVES] * 4
        assert await device.verdict("m0") is Verdict.LEAVES
        assert await device.verdict("u5", MENTION) is Verdict.FULL
        assert await device.verdict("m1") is Verdict.FULL

    on(redis_url, scenario)


def test_what_speaks_for_itself_is_not_gathered(redis_url: str) -> None:
    async def scenario(device: Device) -> None:
        verdicts = [await device.verdict(f"n{number}", NEWS) for number in range(4)]
        assert verdicts == [*[Verdict.LEAVES] * 3, Verdict.FULL]
        assert await device.verdict("u1", MENTION) is Verdict.LEAVES

    on(redis_url, scenario)


def test_of_a_large_cap_the_first_quarter_goes_as_it_comes(redis_url: str) -> None:
    async def scenario(device: Device) -> None:
        verdicts = [await device.verdict(f"m{number}") for number in range(26)]
        assert verdicts == [*[Verdict.LEAVES] * 25, Verdict.CARRIES]
        first = await device.day()
        assert 800_000 < first.waiting.until_ms - now_ms() <= 82_800_000 / 76 + 1_000

    on(redis_url, scenario, cap(100, 0))


def test_what_is_only_routed_counts_nothing(redis_url: str) -> None:
    async def scenario(device: Device) -> None:
        for number in range(9):
            assert await device.verdict(f"m{number}", leaving=False) is Verdict.LEAVES
            assert await device.verdict(f"u{number}", MENTION, leaving=False) is Verdict.LEAVES
        assert await device.link.call("EXISTS", DAYS) == 0

    on(redis_url, scenario)


# ---- what is gathered


def test_a_gathered_push_knows_its_conversations(redis_url: str) -> None:
    async def scenario(device: Device) -> None:
        await device.ask("m0")
        await device.ask("m1", conversation="g1")
        await device.ask("m2", conversation="c2", unread=7)
        await device.ask("m3", conversation="g1", unread=8)
        await device.ask("m4", conversation="c2", tells=5)
        gather = await device.gather("m1")
        assert told(gather) == {"g1": 2, "c2": 6}
        assert gather is not None
        assert [chat.sender for chat in gather.chats] == ["Who wrote m3", "Who wrote m4"]
        assert gather.unread == 8
        assert gather.chats[0].left(now_ms()).count == 0
        for number in range(20):
            await device.ask(f"g{number}", conversation="g1")
        assert gather is not None
        (busy, _) = (await device.gather("m1") or gather).chats
        assert busy.count == 22
        known = ["m1", *(f"g{number}" for number in range(11, 20))]
        assert busy.messages == tuple(message_digest("demo", one) for one in known), "the carrier's, and the latest"
        for number in range(20):
            await device.ask(f"x{number}", conversation=f"x{number}")
        gather = await device.gather("m1")
        assert gather is not None
        assert len(gather.chats) == 16
        assert gather.more == 6

    on(redis_url, scenario)


def test_a_message_is_told_of_once_however_often_it_is_routed(redis_url: str) -> None:
    async def scenario(device: Device) -> None:
        await device.ask("m0")
        first = await device.ask("m1", leaving=False)
        await device.ask("m2", leaving=False)
        for again in (False, True):
            assert (await device.ask("m1", leaving=False, again=again))[:2] == first[:2]
        for leaving, again in [(False, True), (False, False), (True, False)]:
            assert await device.verdict("m2", leaving=leaving, again=again) is Verdict.GATHERED
        assert await device.verdict("m0", leaving=False, again=True) is Verdict.GATHERED, "it has left, by all we know"
        assert told(await device.gather("m1")) == {"g1": 2}
        await device.wait_until_due()
        late = await device.ask("m1", leaving=False, again=True)
        assert late.verdict is Verdict.CARRIES
        assert late.till_ms <= late.now_ms

    on(redis_url, scenario)


def test_what_will_not_be_put_keeps_nobody_waiting(redis_url: str) -> None:
    async def scenario(device: Device) -> None:
        await device.ask("m0")
        await device.ask("m1", leaving=False)
        await device.link.run(*day_drop_call(PREFIX, "demo", "bob", "m1", ["phone"]))
        assert await device.verdict("m2", leaving=False) is Verdict.GATHERED
        await device.link.run(*day_drop_call(PREFIX, "demo", "bob", "m1", []))
        assert await device.verdict("m3", leaving=False) is Verdict.CARRIES
        assert told(await device.gather("m1")) == {"g1": 2}, "it may have been put all the same"

    on(redis_url, scenario)


def test_what_would_expire_first_is_due_before_that(redis_url: str) -> None:
    async def scenario(device: Device) -> None:
        await device.ask("m0")
        answer = await device.ask("m1", ttl_ms=60_000)
        assert answer.verdict is Verdict.CARRIES
        assert 54_000 < answer.till_ms - answer.now_ms <= 55_000
        await device.wait_until_due()
        assert await device.verdict("m1", ttl_ms=4_000) is Verdict.LEAVES
        assert await device.verdict("m2", ttl_ms=4_000) is Verdict.LEAVES, "it can wait for nothing"

    on(redis_url, scenario)


def test_the_next_one_waits_for_what_is_on_its_way(redis_url: str) -> None:
    async def scenario(device: Device) -> None:
        await device.ask("m0")
        await device.ask("m1")
        await device.wait_until_due()
        follower = await device.ask("m2", leaving=False)
        assert follower.verdict is Verdict.CARRIES
        assert follower.till_ms - follower.now_ms > 3_600_000
        assert await device.verdict("m1") is Verdict.LEAVES
        assert told(await device.gather("m1")) == {"g1": 1}

    on(redis_url, scenario)


def test_after_one_that_never_came_the_next_goes_at_once(redis_url: str) -> None:
    async def scenario(device: Device) -> None:
        await device.ask("m0")
        await device.ask("m1")
        await device.pass_time((await device.day()).waiting.until_ms - now_ms() + 60_001)
        assert await device.verdict("m2") is Verdict.LEAVES

    on(redis_url, scenario)


def test_one_that_is_late_travels_with_the_next(redis_url: str) -> None:
    async def scenario(device: Device) -> None:
        await device.ask("m0")
        await device.ask("m1")
        await device.ask("m2")
        await device.wait_until_due()
        assert await device.verdict("m3") is Verdict.CARRIES
        await device.pass_time(61_000)
        assert await device.verdict("u1", MENTION) is Verdict.LEAVES
        # What was put before is asked about at last, and something else has left meanwhile.
        fields = msgspec.msgpack.decode(await device.link.call("HGET", DAYS, "phone"))
        fields[3] = now_ms() + 3_600_000
        await device.link.call("HSET", DAYS, "phone", msgspec.msgpack.encode(fields))
        assert await device.verdict("m1") is Verdict.GATHERED
        assert told(await device.gather("m3")) == {"g1": 3}

    on(redis_url, scenario)


def test_what_is_gathered_makes_sense_as_long_as_any_of_it(redis_url: str) -> None:
    async def scenario(device: Device) -> None:
        await device.ask("m0")
        await device.ask("m1", ttl_ms=40_000_000)
        await device.ask("m2")
        gather = await device.gather("m1")
        assert gather is not None
        assert gather.expires_at_ms > now_ms() + 80_000_000
        await device.wait_until_due()
        await device.ask("m3", ttl_ms=40_000_000)
        await device.pass_time(61_000)
        fields = msgspec.msgpack.decode(await device.link.call("HGET", DAYS, "phone"))
        fields[3], fields[5][5] = now_ms() + 3_600_000, 4
        await device.link.call("HSET", DAYS, "phone", msgspec.msgpack.encode(fields))
        assert await device.verdict("m1", ttl_ms=40_000_000) is Verdict.GATHERED
        gather = await device.gather("m3")
        assert gather is not None
        assert gather.expires_at_ms > now_ms() + 80_000_000
        assert told(gather) == {"g1": 3, "more": 4}
        assert await device.gather("m1") is None

    on(redis_url, scenario)


def test_who_has_another_way_joins_nobody(redis_url: str) -> None:
    async def scenario(device: Device) -> None:
        await device.ask("m0")
        answer = await device.ask("m1", joins=False)
        assert answer.verdict is Verdict.WAITS
        assert answer.till_ms > answer.now_ms + 3_600_000
        assert (await device.day()).waiting == Gather()
        first = await device.ask("m2")
        assert (await device.ask("m3", joins=False)).till_ms == first.till_ms

    on(redis_url, scenario)


# ---- what came of it


def test_what_the_vendor_did_not_take_is_not_counted(redis_url: str) -> None:
    async def scenario(device: Device) -> None:
        for sort, message in ((CHAT, "m"), (NEWS, "n"), (MENTION, "u")):
            for number in range(9):
                answer = await device.ask(f"{message}{number}", sort)
                assert answer.verdict is Verdict.LEAVES
                await device.give_back(f"{message}{number}", answer.day)
        day = await device.day()
        assert (day.ordinary, day.important) == (0, 0)
        await device.give_back("m0", day.day - 1)
        answer = await device.ask("m10")
        await device.give_back("m10", answer.day - 1)
        assert (await device.day()).ordinary == 1, "that of another day counts no more"

    on(redis_url, scenario)


def test_a_carrier_that_was_refused_is_sent_again_with_all_it_tells(redis_url: str) -> None:
    async def scenario(device: Device) -> None:
        await device.ask("m0")
        await device.ask("m1")
        await device.ask("m2")
        await device.wait_until_due()
        answer = await device.ask("m1")
        await device.give_back("m1", answer.day)
        assert await device.verdict("m1") is Verdict.LEAVES
        assert told(await device.gather("m1")) == {"g1": 2}
        assert (await device.day()).ordinary == 2

    on(redis_url, scenario)


def test_nobody_takes_the_place_of_one_that_is_tried_again(redis_url: str) -> None:
    async def scenario(device: Device) -> None:
        await device.ask("m0")
        await device.ask("m1")
        await device.wait_until_due()
        answer = await device.ask("m1")
        await device.give_back("m1", answer.day)
        assert await device.verdict("m2") is Verdict.CARRIES
        assert await device.verdict("m1") is Verdict.LEAVES

    on(redis_url, scenario)


def test_what_is_free_again_need_not_wait_for_tomorrow(redis_url: str) -> None:
    async def scenario(device: Device) -> None:
        answer = await device.ask("u0", MENTION)
        assert await device.verdict("m0") is Verdict.LEAVES
        assert await device.verdict("m1") is Verdict.FULL
        await device.give_back("u0", answer.day)
        assert await device.verdict("m2") is Verdict.LEAVES

    on(redis_url, scenario, cap(2, 0))


def test_one_whose_outcome_is_unknown_counts_again_and_waits_for_nothing(redis_url: str) -> None:
    async def scenario(device: Device) -> None:
        assert await device.verdict("m0") is Verdict.LEAVES
        assert await device.verdict("m0", again=True) is Verdict.LEAVES
        assert await device.verdict("m0", again=True) is Verdict.LEAVES
        assert await device.verdict("m0", again=True) is Verdict.FULL

    on(redis_url, scenario)


def test_a_vendor_that_counts_more_than_we_do_is_believed(redis_url: str) -> None:
    async def scenario(device: Device) -> None:
        answer = await device.ask("m0")
        await device.give_back("m0", answer.day, full=True)
        assert await device.verdict("m1") is Verdict.FULL
        assert await device.verdict("u1", MENTION) is Verdict.FULL
        await device.next_day()
        assert await device.verdict("m2") is Verdict.LEAVES

    on(redis_url, scenario)


# ---- what is kept


def test_days_do_not_pile_up(redis_url: str) -> None:
    async def scenario(device: Device) -> None:
        for number in range(PLACES_MAX):
            device.place = f"d{number}"
            await device.ask("m0")
        device.place = "one more"
        assert await device.verdict("m0") is Verdict.LEAVES
        assert await device.link.call("HLEN", DAYS) == PLACES_MAX
        fields = msgspec.msgpack.decode(await device.link.call("HGET", DAYS, "d0"))
        fields[0] -= 3
        await device.link.call("HSET", DAYS, "d0", msgspec.msgpack.encode(fields))
        await device.link.call("HSET", DAYS, "d1", b"damaged")
        assert await device.verdict("m0") is Verdict.LEAVES
        assert await device.verdict("m1") is Verdict.CARRIES, "there was room, so it was counted"
        assert await device.link.call("HLEN", DAYS) == PLACES_MAX - 1
        assert 0 < await device.link.call("PTTL", DAYS) <= 2 * DAY_MS

    on(redis_url, scenario)


def test_a_damaged_record_is_as_good_as_none(redis_url: str) -> None:
    async def scenario(device: Device) -> None:
        for damaged in (b"", b"\xc1", msgspec.msgpack.encode([1, 2]), msgspec.msgpack.encode("x")):
            await device.link.call("HSET", DAYS, "phone", damaged)
            assert read_day(damaged) is None
            await device.link.run(*day_drop_call(PREFIX, "demo", "bob", "m0", []))
            await device.give_back("m0", 1) if "m0" in device.asked else None
            assert await device.verdict("m0") is Verdict.LEAVES

    on(redis_url, scenario)


# ---- whatever happens

steps = st.one_of(
    st.tuples(st.just("ask"), st.sampled_from(list(Sort)), st.booleans(), st.sampled_from([2_000, 60_000, DAY_MS])),
    st.tuples(st.just("back"), st.integers(0, 9)),
    st.tuples(st.just("due"), st.integers(0, 90_000)),
    st.tuples(st.just("claim"), st.integers(0, 9)),
    st.tuples(st.just("midnight")),
)


@settings(max_examples=120, deadline=None)
@given(
    most=st.integers(1, 12),
    share=st.sampled_from([0, 0.4, 0.9]),
    left_ms=st.sampled_from([90_000, 3_600_000, DAY_MS - 60_000]),
    script=st.lists(steps, max_size=60),
)
def test_never_more_than_the_cap_leaves_and_important_ones_find_their_share(
    redis_server: EmbeddedRedis, most: int, share: float, left_ms: int, script: Sequence[tuple[Any, ...]]
) -> None:
    reserved = round(most * share)

    async def scenario(device: Device) -> None:
        out: list[tuple[str, Sort, int]] = []
        carriers: dict[str, int] = {}
        number = 0
        for name, *args in script:
            if name == "ask":
                sort, leaving, ttl_ms = args
                number += 1
                message = f"m{number}"
                answer = await device.ask(message, sort, leaving=leaving, ttl_ms=ttl_ms)
            elif name == "claim" and carriers:
                message = sorted(carriers)[args[0] % len(carriers)]
                sort, leaving = CHAT, True
                answer = await device.ask(message)
                if answer.verdict in (Verdict.GATHERED, Verdict.FULL):
                    del carriers[message]
            elif name == "back" and out:
                message, sort, day = out.pop(args[0] % len(out))
                await device.give_back(message, day)
                continue
            elif name == "due" and await device.link.call("HEXISTS", DAYS, "phone"):
                until_ms = (await device.day()).waiting.until_ms
                await device.pass_time(max(1, until_ms - now_ms()) + args[0])
                continue
            elif name == "midnight" and await device.link.call("HEXISTS", DAYS, "phone"):
                await device.next_day()
                out.clear()
                continue
            else:
                continue
            important = sum(one is MENTION for _, one, _ in out)
            if answer.verdict is Verdict.LEAVES and leaving:
                carriers.pop(message, None)
                out.append((message, sort, answer.day))
            elif answer.verdict is Verdict.CARRIES:
                carriers[message] = answer.till_ms
                assert answer.now_ms < answer.till_ms < (answer.day + 1) * DAY_MS + device.cap.begins_ms
                assert await device.gather(message) is not None
            if sort is MENTION:
                assert (answer.verdict is Verdict.LEAVES) == (len(out) - int(leaving and answer.verdict == 0) < most)
                assert important >= reserved or answer.verdict is Verdict.LEAVES
            assert len(out) <= most, "so many the vendor takes"
            ordinary = sum(one is not MENTION for _, one, _ in out)
            assert ordinary <= most - reserved, "and so many of them are for anybody"

    on(redis_server.url, scenario, cap(most, reserved, left_ms=left_ms))
