import asyncio
import time
from collections.abc import Awaitable, Callable

import pytest
import redis
from tests.chaos.proxy import RedisProxy
from tests.workers.doubles import until

from pushfleet_workers import stream_group
from pushfleet_workers.audit import LaneBook, read_books
from pushfleet_workers.errors import RedisUnusable
from pushfleet_workers.ingress import GROUP, IngressStream, Raw, Routed
from pushfleet_workers.ledger.keys import MARK_BUCKET_MS
from pushfleet_workers.ledger.ledger import trim_marks
from pushfleet_workers.redis_connection import RedisConnection
from pushfleet_workers.redis_link import Link
from pushfleet_workers.redis_server import EmbeddedRedis


class Door:
    """Routers at one lane."""

    def __init__(self, url: str) -> None:
        self.links = [Link(url) for _ in range(4)]
        self.link = self.links[0]
        self.one, self.other = (
            IngressStream(self.link, self.links[number], "t", "normal", f"router-{number}") for number in (1, 2)
        )

    async def add(self, *texts: str, at_ms: int | None = None) -> None:
        for text in texts:
            name = f"{at_ms}-*" if at_ms is not None else "*"
            await self.link.call("XADD", self.one.keys.stream, name, "v", "1", "m", text)

    async def book(self) -> LaneBook:
        """The lane's book; it balances or the test fails here."""
        book = (await read_books(self.link, "t", [])).lanes["normal"]
        assert book.balanced, book
        return book


def at_door(url: str, scenario: Callable[[Door], Awaitable[None]]) -> None:
    async def run() -> None:
        door = Door(url)
        await door.one.prepare()
        try:
            await scenario(door)
        finally:
            for link in door.links:
                await link.close()

    asyncio.run(run())


def routed(raw: Raw, part: bytes = b"", deliveries: int = 1, **counts: int) -> Routed:
    return Routed(raw, part or raw.id, deliveries, counts)


def texts(raws: list[Raw]) -> list[bytes]:
    return [raw.fields[b"m"] for raw in raws]


# ---- reading


def test_entries_come_in_order_each_to_one_router(redis_url: str) -> None:
    async def scenario(door: Door) -> None:
        await door.other.prepare()
        await door.add("a", "b", "c", "d")
        assert texts(await door.one.read(3, 10)) == [b"a", b"b", b"c"]
        assert texts(await door.other.read(3, 10)) == [b"d"]
        assert await door.one.read(3, 1) == []

    at_door(redis_url, scenario)


def test_what_was_there_before_the_first_router_is_read(redis_url: str) -> None:
    async def scenario(door: Door) -> None:
        await door.link.call("XGROUP", "DESTROY", door.one.keys.stream, GROUP)
        await door.add("early")
        await door.one.prepare()
        assert texts(await door.one.read(10, 10)) == [b"early"]

    at_door(redis_url, scenario)


def test_a_reader_that_waits_is_woken_by_an_entry(redis_url: str) -> None:
    async def scenario(door: Door) -> None:
        reading = asyncio.create_task(door.one.read(10, 30_000))
        await asyncio.sleep(0.02)
        started = time.monotonic()
        await door.add("a")
        assert texts(await reading) == [b"a"]
        assert time.monotonic() - started < 15

    at_door(redis_url, scenario)


# ---- the books


def test_the_book_is_exact_at_every_step(redis_url: str) -> None:
    async def scenario(door: Door) -> None:
        assert (await door.book()).added == 0
        await door.add("a", "b", "c")
        book = await door.book()
        assert (book.added, book.present, book.routed) == (3, 3, 0)
        assert book.oldest_ms > 0
        one, two, three = await door.one.read(10, 10)
        assert (await door.book()).present == 3, "read is not routed"
        counts = {"recipients": 5, "suppressed:demo:muted": 2}
        assert await door.one.acknowledge([routed(one, deliveries=3, **counts)]) == 0
        await door.one.refuse(two, "malformed", "no JSON")
        await door.one.acknowledge([routed(three, deliveries=0, recipients=1)])
        book = await door.book()
        assert (book.added, book.present, book.routed, book.malformed) == (3, 0, 2, 1)
        assert (book.deliveries, book.recipients, book.suppressed) == (3, 6, {"demo:muted": 2})
        assert book.oldest_ms == 0

    at_door(redis_url, scenario)


def test_whatever_the_entries_of_a_batch_count_is_added_up_for_each(redis_url: str) -> None:
    async def scenario(door: Door) -> None:
        await door.add(*"abcdefgh")
        raws = await door.one.read(10, 10)
        kinds: list[dict[str, int]] = [{"recipients": 1}, {"recipients": 500, "suppressed:demo:muted": 70_000}, {}]
        batch = [routed(raw, deliveries=70_000 * number, **kinds[number % 3]) for number, raw in enumerate(raws)]
        # A repeat counts nothing, whatever it says of itself.
        batch[6] = routed(raws[6], batch[0].part, 0, **kinds[1])
        assert await door.one.acknowledge(batch) == 1
        book = await door.book()
        assert (book.routed, book.deliveries) == (8, 70_000 * (0 + 1 + 2 + 3 + 4 + 5 + 7))
        assert (book.recipients, book.suppressed) == (2 * 1 + 3 * 500, {"demo:muted": 3 * 70_000})

    at_door(redis_url, scenario)


def test_acknowledging_twice_counts_once(redis_url: str) -> None:
    async def scenario(door: Door) -> None:
        await door.add("a")
        (raw,) = await door.one.read(10, 10)
        for _ in range(3):
            await door.one.acknowledge([routed(raw, deliveries=2, recipients=2)])
        book = await door.book()
        assert (book.routed, book.deliveries, book.recipients) == (1, 2, 2)

    at_door(redis_url, scenario)


def test_a_part_that_comes_again_is_counted_once(redis_url: str) -> None:
    async def scenario(door: Door) -> None:
        await door.add("a", "a", "a")
        first, second, third = await door.one.read(10, 10)
        assert await door.one.acknowledge([routed(first, b"part", 2, recipients=2)]) == 0
        repeats = [routed(second, b"part", 2, recipients=2), routed(third, b"part", 2, recipients=2)]
        assert await door.one.acknowledge(repeats) == 2
        book = await door.book()
        assert (book.routed, book.repeated, book.deliveries, book.recipients) == (3, 2, 2, 2)

    at_door(redis_url, scenario)


def test_a_part_that_comes_twice_in_one_batch_is_counted_once(redis_url: str) -> None:
    async def scenario(door: Door) -> None:
        await door.add("a", "a")
        raws = await door.one.read(10, 10)
        assert await door.one.acknowledge([routed(raw, b"part", 2, recipients=2) for raw in raws]) == 1
        book = await door.book()
        assert (book.routed, book.deliveries, book.recipients) == (2, 2, 2)

    at_door(redis_url, scenario)


def test_a_repeat_across_the_border_of_two_buckets_is_known(redis_url: str) -> None:
    async def scenario(door: Door) -> None:
        border_ms = (int(time.time() * 1_000) // MARK_BUCKET_MS - 1) * MARK_BUCKET_MS
        await door.add("a", at_ms=border_ms - 1)
        await door.add("a", at_ms=border_ms + 1)
        first, second = await door.one.read(10, 10)
        assert first.bucket + 1 == second.bucket
        assert await door.one.acknowledge([routed(first, b"part", 2), routed(second, b"part", 2)]) == 1
        assert (await door.book()).deliveries == 2

    at_door(redis_url, scenario)


def test_other_parts_are_not_taken_for_repeats(redis_url: str) -> None:
    async def scenario(door: Door) -> None:
        await door.add(*[str(number) for number in range(300)])
        raws = await door.one.read(1_000, 10)
        assert await door.one.acknowledge([routed(raw, deliveries=1) for raw in raws]) == 0
        book = await door.book()
        assert (book.routed, book.deliveries) == (300, 300)

    at_door(redis_url, scenario)


def test_nothing_to_acknowledge_is_nothing(redis_url: str) -> None:
    async def scenario(door: Door) -> None:
        assert await door.one.acknowledge([]) == 0
        await door.book()

    at_door(redis_url, scenario)


# ---- what breaks


def test_entries_of_a_router_that_died_are_taken_over_and_only_then(redis_url: str) -> None:
    async def scenario(door: Door) -> None:
        await door.add("a", "b")
        assert await door.one.oldest_ms() is not None, "a repeat that nobody has read counts as well"
        done, _ = await door.one.read(10, 10)
        await door.one.acknowledge([routed(done)])
        assert await door.other.take_over(60_000, 10) == [], "it may still be at it"
        assert await door.other.oldest_ms() is not None
        await until(lambda: idle_at_least(door, 5))
        (raw,) = await door.other.take_over(5, 10)
        assert (raw.fields[b"m"], raw.again) == (b"b", True)
        await door.other.acknowledge([routed(raw)])
        assert await door.other.take_over(0, 10) == []
        assert await door.other.oldest_ms() is None
        assert (await door.book()).routed == 2

    at_door(redis_url, scenario)


def test_what_was_read_without_being_heard_of_comes_once_more(redis_url: str, redis_server: EmbeddedRedis) -> None:
    async def scenario(door: Door) -> None:
        with RedisProxy(redis_server.port) as way:
            link = Link(way.url)
            reader = IngressStream(door.link, link, "t", "normal", "router-3")
            try:
                await door.add("a", "b", "c", "d")
                assert texts(await door.other.read(1, 10)) == [b"a"], "what others have in hand is not ours"
                assert await reader.missed(10) == []
                await link.call("PING")
                with way.swallowing_answers():
                    reading = asyncio.create_task(reader.read(3, 5_000))
                    await until(lambda: in_hand(door, 4))
                with pytest.raises(RedisUnusable):
                    await reading
                assert await reader.read(10, 1) == []
                missed = await reader.missed(2) + await reader.missed(2)
                assert texts(missed) == [b"b", b"c", b"d"]
                assert all(raw.again for raw in missed)
                assert await reader.missed(2) == []
            finally:
                await link.close()

    at_door(redis_url, scenario)


@pytest.mark.parametrize("forgets", [True, False])
def test_what_a_restarted_redis_has_forgotten_comes_once_more(
    redis_url: str, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch, forgets: bool
) -> None:
    data = ["before"]
    monkeypatch.setattr(RedisConnection, "history", property(lambda _: data[-1]))

    async def scenario(door: Door) -> None:
        await door.add("a")
        assert await door.one.missed(10) == []
        assert texts(await door.one.read(10, 10)) == [b"a"]
        if forgets:
            data.append("after")
        redis_client.execute_command("CLIENT", "KILL", "TYPE", "normal")
        await until(lambda: door.links[1]._connection.lost)  # type: ignore[union-attr]
        assert texts(await door.one.missed(10)) == [b"a"] * forgets, "its acknowledgement is among what is gone"
        assert await door.one.missed(10) == []

    at_door(redis_url, scenario)


async def in_hand(door: Door, count: int) -> bool:
    return bool((await door.link.call("XPENDING", door.one.keys.stream, GROUP))[0] == count)


async def idle_at_least(door: Door, ms: int) -> bool:
    pending = await door.link.call("XPENDING", door.one.keys.stream, GROUP, "-", "+", 10)
    return all(entry[2] >= ms for entry in pending)


def test_an_entry_that_was_deleted_meanwhile_is_passed_over(redis_url: str) -> None:
    async def scenario(door: Door) -> None:
        await door.add("a", "b")
        first, _ = await door.one.read(10, 10)
        await door.link.call("XDEL", door.one.keys.stream, first.id)
        assert texts(await door.other.take_over(0, 10)) == [b"b"]

    at_door(redis_url, scenario)


def test_what_is_refused_is_kept_with_the_reason_and_refused_once(redis_url: str) -> None:
    async def scenario(door: Door) -> None:
        await door.add("x" * 100_000)
        await door.link.call("XADD", door.one.keys.stream, "*", "strange", "fields")
        large, strange = await door.one.read(10, 10)
        for _ in range(2):
            await door.one.refuse(large, "malformed", "p" * 2_000)
            await door.one.refuse(strange, "unknown_app", "the settings have no app")
        refused = await door.link.call("XRANGE", door.one.keys.refused, "-", "+")
        assert len(refused) == 2
        fields = dict(zip(refused[0][1][::2], refused[0][1][1::2], strict=True))
        assert fields[b"entry"] == large.id
        assert fields[b"reason"] == b"malformed"
        assert len(fields[b"m"]) == 65_536
        assert len(fields[b"problem"]) == 500
        book = await door.book()
        assert (book.malformed, book.present) == (2, 0)
        assert await door.one.oldest_ms() is None

    at_door(redis_url, scenario)


# ---- nothing grows without bound


def test_routers_that_are_gone_are_forgotten_unless_they_hold_something(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(door: Door) -> None:
        await door.add("a", "b")
        (first,) = await door.one.read(1, 10)
        await door.other.read(1, 10)
        await door.one.acknowledge([routed(first)])
        assert await door.one.forget_idle_consumers() == 0, "an hour has not passed"
        await asyncio.sleep(0.01)
        monkeypatch.setattr(stream_group, "_GONE_AFTER_MS", 5)
        assert await door.one.forget_idle_consumers() == 1
        consumers = await door.link.call("XINFO", "CONSUMERS", door.one.keys.stream, GROUP)
        assert [dict(zip(one[::2], one[1::2], strict=True))[b"name"] for one in consumers] == [b"router-2"]
        await door.add("c")
        assert texts(await door.one.read(1, 10)) == [b"c"], "who was forgotten and lives reads on"

    at_door(redis_url, scenario)


def test_marks_are_trimmed_by_the_age_of_their_entries(redis_url: str) -> None:
    async def scenario(door: Door) -> None:
        first_ms = 5 * MARK_BUCKET_MS
        for number in range(4):
            await door.add("a", at_ms=first_ms + number * MARK_BUCKET_MS)
        raws = await door.one.read(10, 10)
        await door.one.acknowledge([routed(raw) for raw in raws])
        keys = door.one.keys
        assert await trim_marks(door.link, keys, first_ms + 2 * MARK_BUCKET_MS) == 2
        left = [await door.link.call("EXISTS", keys.marks(5 + number)) for number in range(4)]
        assert left == [0, 0, 1, 1]
        assert await door.link.call("ZRANGE", keys.mark_index, 0, -1) == [b"7", b"8"]
        assert 0 < await door.link.call("PTTL", keys.marks(8)) <= 7 * 86_400_000, "even where nobody trims"

    at_door(redis_url, scenario)


def test_an_empty_stream_keeps_its_count(redis_url: str) -> None:
    async def scenario(door: Door) -> None:
        await door.add(*"abcdef")
        raws = await door.one.read(10, 10)
        await door.one.acknowledge([routed(raw) for raw in raws])
        book = await door.book()
        assert (book.added, book.present, book.routed) == (6, 0, 6)

    at_door(redis_url, scenario)
