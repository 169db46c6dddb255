"""Dead letters in the ledger: back once, dropped, trimmed, and the books of it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from tests.workers.ledger.support import KEYS, PLENTY, a_ledger, an_entry, books, put

from pushfleet_workers.audit import AccountBook, read_books
from pushfleet_workers.ledger import DeadLetter, DeadLetters, Entry, Ledger, Return, Settlement, pack, unpack
from pushfleet_workers.ledger.letters import trim_letters
from pushfleet_workers.redis_link import Link, ReplyError


def on_redis(url: str, scenario: Callable[[Link, DeadLetters], Awaitable[None]]) -> None:
    async def run() -> None:
        link = Link(url)
        try:
            await scenario(link, DeadLetters(link, KEYS))
        finally:
            await link.close()

    asyncio.run(run())


async def die(link: Link, *entries: Entry, ledger: Ledger | None = None, reason: str = "bad_payload") -> None:
    """Put *entries*, and end them as dead."""
    ledger = ledger or a_ledger(link)
    await put(link, *entries)
    settlements = []
    for entry in (await ledger.claim(PLENTY)).entries:
        size = len(entry.parcel.deliveries)
        end = {f"{entry.lane}:dead:{reason}": size}
        letter = (pack(entry), reason, "400", entry.parcel.deliveries[0].attempt + 1)
        settlements.append(Settlement(entry.id, entry.fence, size, ended=size, ends=end, dead=[letter]))
    assert await ledger.settle(settlements) == []


async def lying(letters: DeadLetters) -> list[DeadLetter]:
    return [one async for page in letters.oldest_first() for one in page]


def returns(letters: list[DeadLetter], wait_ms: int = 0) -> list[Return]:
    """As an operator's replay would, with ids of their own."""
    found = []
    for number, letter in enumerate(letters):
        old = unpack(letter.entry)
        entry = Entry(b"%016d" % number, old.parcel, old.lane, old.put_ms, min(old.lost, 2))
        found.append(Return(letter.place, wait_ms, pack(entry)))
    return found


async def balanced(link: Link) -> AccountBook:
    book = (await read_books(link, "t", [("apns", "main")])).accounts["apns:main"]
    assert book.balanced, book
    return book


def test_a_letter_tells_what_became_of_its_parcel(redis_url: str) -> None:
    async def scenario(link: Link, letters: DeadLetters) -> None:
        await die(link, an_entry("m1", deliveries=3))
        (letter,) = await lying(letters)
        assert (letter.reason, letter.code, letter.attempts) == ("bad_payload", "400", 1)
        assert unpack(letter.entry).parcel.push.message_id == "m1"
        assert "token" not in repr(letter)
        assert await letters.count() == 1

    on_redis(redis_url, scenario)


def test_pages_come_in_order_from_either_end(redis_url: str) -> None:
    async def scenario(link: Link, letters: DeadLetters) -> None:
        await die(link, *[an_entry(f"m{number}") for number in range(250)])
        found = await lying(letters)
        assert len({one.place for one in found}) == 250
        newest = [one async for page in letters.newest_first() for one in page]
        assert newest == found[::-1]
        first, last = found[10].place, found[19].place
        assert [one async for page in letters.oldest_first(first, last) for one in page] == found[10:20]
        assert [one async for page in letters.newest_first(first, f"({last}") for one in page] == found[18:9:-1]

    on_redis(redis_url, scenario)


def test_a_replayed_letter_is_delayed_work_again_and_the_books_follow(redis_url: str) -> None:
    async def scenario(link: Link, letters: DeadLetters) -> None:
        await die(link, an_entry("m1", deliveries=3), an_entry("m2", lane="bulk"))
        before = await balanced(link)
        assert (before.ended, before.ends) == (4, {"normal:dead:bad_payload": 3, "bulk:dead:bad_payload": 1})
        assert await letters.replay(returns(await lying(letters), wait_ms=60_000)) == []
        after = await balanced(link)
        assert (after.ended, after.delayed, after.dead_letters) == (0, 4, 0)
        assert sum(after.ends.values()) == 0
        assert after.replayed == {"normal:bad_payload": 3, "bulk:bad_payload": 1}
        assert after.ends_ever == before.ends, "what Prometheus counts never goes down"
        assert (await a_ledger(link).claim(PLENTY)).entries == [], "it is not due yet"
        await link.call("ZADD", KEYS.delayed, "XX", 1, b"%016d" % 0)
        (entry,) = (await a_ledger(link).claim(PLENTY)).entries
        assert entry.parcel.push.message_id == "m1"
        assert (await balanced(link)).leased == 3

    on_redis(redis_url, scenario)


def test_two_replays_at_once_and_a_drop_beside_them_move_each_letter_once(redis_url: str) -> None:
    async def scenario(link: Link, letters: DeadLetters) -> None:
        await die(link, *[an_entry(f"m{number}") for number in range(60)])
        back = returns(await lying(letters))
        other = Link(redis_url)
        try:
            *gone, dropped = await asyncio.gather(
                letters.replay(back[:40]),
                DeadLetters(other, KEYS).replay(back[20:]),
                letters.drop([one.place for one in back[30:35]]),
            )
        finally:
            await other.close()
        moved = 40 + 40 - sum(map(len, gone))
        assert moved + dropped == 60
        book = await balanced(link)
        assert (book.delayed, book.ended) == (moved, dropped)
        assert len((await a_ledger(link).claim(PLENTY)).entries) == moved

    on_redis(redis_url, scenario)


def test_an_entry_that_is_none_of_the_letter_stays_out(redis_url: str) -> None:
    async def scenario(link: Link, letters: DeadLetters) -> None:
        await die(link, an_entry("m1", deliveries=2))
        (letter,) = await lying(letters)
        wrong = Return(letter.place, 0, pack(an_entry("m1", deliveries=3)))
        assert await letters.replay([wrong]) == [wrong]
        assert await letters.count() == 1
        await balanced(link)

    on_redis(redis_url, scenario)


def test_poison_goes_back_alone_and_is_dead_again_after_one_more_loss(redis_url: str) -> None:
    async def scenario(link: Link, letters: DeadLetters) -> None:
        await put(link, an_entry("poison"))
        for number in range(3):
            await a_ledger(link, f"w{number}").claim(PLENTY)
            await link.call("ZADD", KEYS.owners, 1, f"w{number}")
            await a_ledger(link).reap()
        (letter,) = await lying(letters)
        assert (letter.reason, letter.attempts) == ("poison", 3)
        await letters.replay(returns([letter]))
        await put(link, an_entry("innocent"))
        claim = await a_ledger(link, "w9").claim(PLENTY)
        assert [(entry.parcel.push.message_id, entry.lost) for entry in claim.entries] == [("poison", 2)]
        await link.call("ZADD", KEYS.owners, 1, "w9")
        await a_ledger(link).reap()
        assert (await balanced(link)).ends == {"normal:dead:poison": 1}
        assert [one.reason for one in await lying(letters)] == ["poison"]

    on_redis(redis_url, scenario)


def test_dropped_letters_stay_counted(redis_url: str) -> None:
    async def scenario(link: Link, letters: DeadLetters) -> None:
        await die(link, an_entry("m1", deliveries=3), an_entry("m2"))
        first, second = await lying(letters)
        assert await letters.drop([first.place, "1-1"]) == 1
        assert await letters.drop([first.place]) == 0
        assert await letters.drop([]) == 0
        assert await lying(letters) == [second]
        book = await balanced(link)
        assert (book.ends, book.dead_letters) == ({"normal:dead:bad_payload": 4}, 1)

    on_redis(redis_url, scenario)


def test_beyond_what_is_kept_the_oldest_letters_go_and_stay_counted(redis_url: str) -> None:
    async def scenario(link: Link, letters: DeadLetters) -> None:
        ledger = Ledger(link, KEYS, "w1", letters_max=100)
        for number in range(10):
            await die(link, *[an_entry(f"m{number}-{one}") for one in range(50)], ledger=ledger)
        # Redis trims whole nodes of the stream: a few more than that are left.
        assert 100 <= await letters.count() <= 200
        left = [unpack(one.entry).parcel.push.message_id for one in await lying(letters)]
        assert left[-1] == "m9-49"
        assert "m0-0" not in left
        assert (await balanced(link)).ends == {"normal:dead:bad_payload": 500}

    on_redis(redis_url, scenario)


def test_the_reaper_keeps_to_that_as_well(redis_url: str) -> None:
    async def scenario(link: Link, letters: DeadLetters) -> None:
        await link.pipeline([("XADD", KEYS.dead, f"1-{number}", "entry", b"x" * 100) for number in range(1, 1001)])
        ledger = Ledger(link, KEYS, "w1", letters_max=10)
        await put(link, an_entry("poison"))
        for _ in range(3):
            await ledger.claim(PLENTY)
            await link.call("ZADD", KEYS.owners, 1, "w1")
            await ledger.reap()
        assert 10 <= await letters.count() < 200

    on_redis(redis_url, scenario)


def test_letters_are_trimmed_by_age(redis_url: str) -> None:
    async def scenario(link: Link, letters: DeadLetters) -> None:
        for at_ms in (1_000, 1_999, 2_000, 3_000):
            await link.call("XADD", KEYS.dead, f"{at_ms}-0", "entry", "x")
        await trim_letters(link, [KEYS.dead, "t:not-there"], 2_000)
        assert [one.place for one in await lying(letters)] == ["2000-0", "3000-0"]
        await link.call("SET", "t:text", "x")
        with pytest.raises(ReplyError, match="WRONGTYPE"):
            await trim_letters(link, ["t:text"], 1)

    on_redis(redis_url, scenario)


def test_letters_go_back_in_a_full_redis(redis_url: str) -> None:
    async def scenario(link: Link, letters: DeadLetters) -> None:
        await die(link, *[an_entry(f"m{number}") for number in range(20)])
        back = returns(await lying(letters))
        used = int((await link.call("INFO", "memory")).split(b"used_memory:")[1].split(b"\r\n")[0])
        try:
            await link.call("CONFIG", "SET", "maxmemory", used - 1)
            assert await letters.replay(back) == []
        finally:
            await link.call("CONFIG", "SET", "maxmemory", 0)
        assert (await books(link))["delayed"] == 20
        await balanced(link)

    on_redis(redis_url, scenario)
