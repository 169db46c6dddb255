"""An operator's pause of an account beside what the vendor and the breaker say: neither ends the other."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest
from tests.workers.ledger.support import KEYS, PLENTY, a_ledger, an_entry, put

from pushfleet_workers.audit import AccountBook, read_books
from pushfleet_workers.ledger import GateNews, Settlement, pack
from pushfleet_workers.ledger.pause import GateState, pause, read_gate, resume
from pushfleet_workers.redis_link import Link

ELSEWHERE = replace(PLENTY, elsewhere=True)


class Account:
    def __init__(self, link: Link) -> None:
        self.link = link
        self.ledger = a_ledger(link)

    async def pause(self, span_ms: int = 0, reason: str = "", *, elsewhere: bool = False) -> None:
        await pause(self.link, KEYS, span_ms=span_ms, reason=reason, elsewhere=elsewhere)

    async def resume(self, *, force: bool = False) -> bool:
        return await resume(self.link, KEYS, force=force)

    async def gate(self) -> GateState:
        return await read_gate(self.link, KEYS)

    async def book(self) -> AccountBook:
        book = (await read_books(self.link, "t", [("apns", "main")])).accounts["apns:main"]
        assert book.balanced
        return book

    async def claims(self) -> int:
        return len((await self.ledger.claim(PLENTY)).entries)


def on_account(url: str, scenario: Callable[[Account], Awaitable[None]]) -> None:
    async def run() -> None:
        link = Link(url)
        try:
            await scenario(Account(link))
        finally:
            await link.close()

    asyncio.run(run())


def test_nothing_is_claimed_until_it_is_resumed(redis_url: str) -> None:
    async def scenario(account: Account) -> None:
        await put(account.link, an_entry("m1"), an_entry("late", ttl_s=-1))
        await account.pause(reason="wrong text")
        claim = await account.ledger.claim(PLENTY)
        assert (claim.entries, claim.left, claim.paused, claim.shut) == ([], 2, True, False)
        assert claim.wait_ms > 86_400_000
        gate = await account.gate()
        assert gate.operator is not None
        assert (gate.operator.until_ms, gate.operator.reason, gate.operator.elsewhere) == (0, "wrong text", False)
        assert gate.operator.since_ms > 0
        assert not gate.shut
        book = await account.book()
        assert (book.operator_pause, book.operator_until_ms, book.operator_reason, book.open) == (
            True, 0, "wrong text", False,
        )  # fmt: skip
        assert await account.resume()
        assert not await account.resume(), "once is enough"
        assert (await account.gate()).operator is None
        assert await account.claims() == 2
        assert (await account.book()).operator_pause is False

    on_account(redis_url, scenario)


def test_it_may_end_by_itself(redis_url: str) -> None:
    async def scenario(account: Account) -> None:
        await put(account.link, an_entry("m1"))
        await account.pause(80)
        claim = await account.ledger.claim(PLENTY)
        assert claim.entries == []
        assert 0 < claim.wait_ms <= 80
        gate = await account.gate()
        assert gate.operator is not None
        assert gate.operator.until_ms == gate.operator.since_ms + 80
        await asyncio.sleep((claim.wait_ms + 5) / 1000)
        assert (await account.gate()).operator is None
        assert not (await account.book()).operator_pause
        assert await account.claims() == 1
        assert not await account.resume()

    on_account(redis_url, scenario)


def test_the_last_word_counts(redis_url: str) -> None:
    async def scenario(account: Account) -> None:
        await account.pause(reason="a", elsewhere=True)
        await account.pause(60_000, reason="b")
        operator = (await account.gate()).operator
        assert operator is not None
        assert (operator.until_ms - operator.since_ms, operator.reason, operator.elsewhere) == (60_000, "b", False)

    on_account(redis_url, scenario)


def test_with_nothing_ready_a_claim_tells_of_it_all_the_same(redis_url: str) -> None:
    async def scenario(account: Account) -> None:
        await account.pause()
        assert (await account.ledger.claim(PLENTY)).paused
        await account.resume()
        assert not (await account.ledger.claim(PLENTY)).paused

    on_account(redis_url, scenario)


def test_good_answers_do_not_end_it_and_it_does_not_end_what_the_vendor_asked_for(redis_url: str) -> None:
    async def scenario(account: Account) -> None:
        await put(account.link, an_entry("m1"))
        await account.ledger.tell_gate(GateNews(pause_ms=60_000, reason="429", class_pauses_ms={"marketing": 9_000}))
        await account.pause()
        await account.ledger.tell_gate(GateNews(good=5))
        gate = await account.gate()
        assert gate.operator is not None
        assert gate.vendor_until_ms
        assert (gate.reason, list(gate.kinds_until_ms)) == ("429", ["marketing"])
        assert await account.resume()
        gate = await account.gate()
        assert gate.operator is None
        assert gate.shut
        assert await account.claims() == 0, "the vendor's word stands"
        assert not await account.resume(force=True)
        gate = await account.gate()
        assert not gate.shut
        assert not gate.kinds_until_ms
        assert await account.claims() == 1

    on_account(redis_url, scenario)


def test_a_vendors_pause_does_not_end_the_operators(redis_url: str) -> None:
    async def scenario(account: Account) -> None:
        await put(account.link, an_entry("m1"))
        await account.pause()
        await account.ledger.tell_gate(GateNews(pause_ms=30, reason="429"))
        await asyncio.sleep(0.04)
        assert await account.claims() == 0

    on_account(redis_url, scenario)


def test_by_force_an_open_breaker_probes_at_once(redis_url: str) -> None:
    async def scenario(account: Account) -> None:
        await put(account.link, *[an_entry(f"m{number}") for number in range(3)])
        await account.ledger.tell_gate(GateNews(open_now=True, reason="InvalidProviderToken"))
        await account.pause()
        gate = await account.gate()
        assert gate.breaker_until_ms
        assert gate.reason == "InvalidProviderToken"
        await account.resume()
        assert await account.claims() == 0
        await account.resume(force=True)
        claim = await account.ledger.claim(PLENTY)
        assert (len(claim.entries), claim.probe) == (1, True)
        assert (await account.gate()).shut, "half open until something good is heard"
        await account.ledger.tell_gate(GateNews(good=1))
        assert not (await account.gate()).shut
        assert await account.claims() == 2

    on_account(redis_url, scenario)


def test_no_probe_leaves_while_an_operator_pauses(redis_url: str) -> None:
    async def scenario(account: Account) -> None:
        await put(account.link, an_entry("m1"))
        await account.link.call("HSET", KEYS.gate, "open_until", 1, "open_ms", 1_000, "fails", 20)
        await account.pause()
        claim = await account.ledger.claim(PLENTY)
        assert (claim.entries, claim.probe) == ([], False)
        await account.resume()
        assert (await account.ledger.claim(PLENTY)).probe

    on_account(redis_url, scenario)


@pytest.mark.parametrize("vendor_pauses", [False, True])
def test_whether_work_goes_another_way_is_the_operators_word(redis_url: str, vendor_pauses: bool) -> None:
    async def scenario(account: Account) -> None:
        await put(account.link, an_entry("m1"), an_entry("m2"))
        if vendor_pauses:
            await account.ledger.tell_gate(GateNews(pause_ms=60_000, reason="429"))
            assert (await account.ledger.claim(PLENTY)).shut
        await account.pause()
        assert not (await account.ledger.claim(PLENTY)).shut
        claim = await account.ledger.claim(ELSEWHERE)
        assert (claim.entries, claim.shut) == ([], False)
        await account.pause(elsewhere=True)
        assert (await account.ledger.claim(PLENTY)).shut
        claim = await account.ledger.claim(ELSEWHERE)
        assert (len(claim.entries), claim.shut, claim.paused) == (2, True, True)

    on_account(redis_url, scenario)


def test_what_becomes_due_meanwhile_waits(redis_url: str) -> None:
    async def scenario(account: Account) -> None:
        await put(account.link, an_entry("m1"))
        (entry,) = (await account.ledger.claim(PLENTY)).entries
        await account.pause()
        await account.ledger.settle([Settlement(entry.id, entry.fence, 1, later=[(0, pack(entry))])])
        await asyncio.sleep(0.002)
        assert await account.claims() == 0
        assert (await account.book()).ready == 1

    on_account(redis_url, scenario)


def test_an_account_of_which_nothing_is_known_is_open(redis_url: str) -> None:
    async def scenario(account: Account) -> None:
        assert await account.gate() == GateState(
            operator=None, vendor_until_ms=0, breaker_until_ms=0, reason="", kinds_until_ms={}
        )
        assert await account.ledger.operator_until_ms() == 0
        assert not await account.resume(force=True)
        assert not (await account.gate()).shut

    on_account(redis_url, scenario)


def test_it_can_be_paused_and_resumed_in_a_full_redis(redis_url: str) -> None:
    async def scenario(account: Account) -> None:
        await put(account.link, an_entry("m1"))
        await account.ledger.tell_gate(GateNews(open_now=True, reason="x"))
        try:
            await account.link.call("CONFIG", "SET", "maxmemory", 1)
            await account.pause()
            assert await account.claims() == 0
            assert await account.resume(force=True)
        finally:
            await account.link.call("CONFIG", "SET", "maxmemory", 0)
        assert await account.claims() == 1

    on_account(redis_url, scenario)
