import asyncio
from collections.abc import Awaitable, Callable

import pytest
from tests.workers.ledger.support import KEYS, PLENTY, a_ledger, an_entry, put

from pushfleet_workers import audit
from pushfleet_workers.audit import AccountBook, Books, LaneBook, read_books
from pushfleet_workers.errors import RedisUnusable
from pushfleet_workers.ledger import GateNews, Settlement
from pushfleet_workers.redis_link import Link


def on_redis(url: str, scenario: Callable[[Link], Awaitable[None]]) -> None:
    async def run() -> None:
        link = Link(url)
        try:
            await scenario(link)
        finally:
            await link.close()

    asyncio.run(run())


async def read(link: Link, *, recount: bool = True) -> Books:
    return await read_books(link, "t", [("apns", "main")], recount=recount)


async def account(link: Link) -> AccountBook:
    return (await read(link)).accounts["apns:main"]


def a_lane_book(**changes: object) -> LaneBook:
    fields: dict[str, object] = dict.fromkeys(
        ("added", "present", "routed", "malformed", "repeated", "deliveries", "recipients", "oldest_ms"), 0
    )
    return LaneBook(**(fields | {"suppressed": {}} | changes))  # type: ignore[arg-type]


def an_account_book(**changes: object) -> AccountBook:
    fields: dict[str, object] = dict.fromkeys(
        ("put", "ready", "leased", "delayed", "ended", "unknown", "dead_letters", "oldest_ms"), 0
    )
    fields |= {"open": False, "pause_reason": "", "ends": {}, "recounted": None}
    return AccountBook(**(fields | changes))  # type: ignore[arg-type]


def test_an_empty_redis_balances(redis_url: str) -> None:
    async def scenario(link: Link) -> None:
        books = await read(link)
        assert books.balanced
        assert books.pending == 0
        assert books.ends() == {"sent": 0, "suppressed": 0, "dropped": 0, "dead": 0}

    on_redis(redis_url, scenario)


def test_work_in_all_places_is_recounted(redis_url: str) -> None:
    async def scenario(link: Link) -> None:
        await put(link, *[an_entry(f"m{number}", deliveries=number + 1) for number in range(4)])
        ledger = a_ledger(link)
        one, two, three = (await ledger.claim(PLENTY)).entries[:3]
        await ledger.settle(
            [
                Settlement(one.id, one.fence, 1, ended=1, ends={"normal:sent:": 1}),
                Settlement(two.id, two.fence, 2, give_back=True),
            ]
        )
        book = await account(link)
        assert book.balanced
        assert book.recounted == (book.ready, book.leased, book.delayed) == (2, 7, 0)
        assert book.oldest_ms > 0
        assert three

    on_redis(redis_url, scenario)


@pytest.mark.parametrize(
    "damage",
    [
        ("LPOP", KEYS.ready[1]),
        ("HINCRBY", KEYS.books, "put", "1"),
        ("HINCRBY", KEYS.books, "ready", "-1"),
        ("HINCRBY", KEYS.books, "ended", "1"),
        ("HINCRBY", KEYS.books, "end:normal:sent:", "1"),
        ("DEL", KEYS.leased("w1")),
    ],
)
def test_whatever_is_lost_or_counted_twice_shows(redis_url: str, damage: tuple[str, ...]) -> None:
    async def scenario(link: Link) -> None:
        await put(link, an_entry("m1"))
        await a_ledger(link).claim(PLENTY)
        await put(link, an_entry("m2"))
        assert (await read(link)).balanced
        await link.call(*damage)
        assert not (await read(link)).balanced

    on_redis(redis_url, scenario)


def test_without_a_recount_only_the_counters_are_compared(redis_url: str) -> None:
    async def scenario(link: Link) -> None:
        await put(link, an_entry("m1"))
        await link.call("DEL", KEYS.ready[1])
        books = await read(link, recount=False)
        assert books.balanced
        assert books.accounts["apns:main"].recounted is None

    on_redis(redis_url, scenario)


def test_too_much_to_recount_is_not_recounted(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "_RECOUNT_ENTRIES_MAX", 2)

    async def scenario(link: Link) -> None:
        await put(link, an_entry("m1"), an_entry("m2"))
        assert (await account(link)).recounted == (2, 0, 0)
        await put(link, an_entry("m3"))
        assert (await account(link)).recounted is None

    on_redis(redis_url, scenario)


def test_a_shut_gate_is_shown_with_its_reason(redis_url: str) -> None:
    async def scenario(link: Link) -> None:
        assert not (await account(link)).open
        await a_ledger(link).tell_gate(GateNews(pause_ms=60_000, reason="TooManyRequests"))
        book = await account(link)
        assert (book.open, book.pause_reason) == (True, "TooManyRequests")

    on_redis(redis_url, scenario)


def test_an_idle_fleet_must_have_put_what_it_decided() -> None:
    put_three = {"a": an_account_book(put=3, ended=3, ends={"normal:sent:": 3})}
    lane = {"added": 1, "routed": 1}
    assert Books(lanes={"normal": a_lane_book(**lane, deliveries=3)}, accounts=put_three).balanced
    assert not Books(lanes={"normal": a_lane_book(**lane, deliveries=2)}, accounts=put_three).balanced
    busy = {"a": an_account_book(put=3, ended=2, ready=1, ends={"normal:sent:": 2})}
    assert Books(lanes={"normal": a_lane_book(**lane, deliveries=2)}, accounts=busy).balanced, "one is on its way"


def test_the_ends_of_all_stages_are_summed() -> None:
    books = Books(
        lanes={"normal": a_lane_book(suppressed={"demo:muted": 2}), "bulk": a_lane_book(suppressed={"demo:x": 1})},
        accounts={
            "a": an_account_book(ends={"normal:sent:": 5, "bulk:dropped:expired": 1}),
            "b": an_account_book(ends={"urgent:dead:poison": 1, "normal:suppressed:recalled": 4}),
        },
    )
    assert books.ends() == {"sent": 5, "suppressed": 7, "dropped": 1, "dead": 1}


def test_owners_that_change_all_the_time_are_a_sentence(redis_url: str) -> None:
    class Restless(Link):
        async def run(self, script, keys, args):  # type: ignore[no-untyped-def]
            if script.name == "recount":
                return []
            return await super().run(script, keys, args)

    async def run() -> None:
        link = Restless(redis_url)
        with pytest.raises(RedisUnusable, match="changed 20 times"):
            await read(link)
        await link.close()

    asyncio.run(run())


def test_a_process_that_comes_while_it_is_counted_does_not_unbalance_it(redis_url: str) -> None:
    class Busy(Link):
        claimed = False

        async def run(self, script, keys, args):  # type: ignore[no-untyped-def]
            if script.name == "recount" and not self.claimed:
                self.claimed = True
                await a_ledger(self, "w9").claim(PLENTY)
            return await super().run(script, keys, args)

    async def run() -> None:
        link = Busy(redis_url)
        await put(link, an_entry("m"))
        books = await read(link)
        assert books.balanced
        assert books.accounts["apns:main"].recounted == (0, 1, 0)
        await link.close()

    asyncio.run(run())
