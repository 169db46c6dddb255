"""The stream and the counts of receipts on a real Redis."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

from pushfleet_workers.receipts import Event
from pushfleet_workers.receipts import book as book_module
from pushfleet_workers.receipts.book import Entry, ReceiptBook, ReceiptKeys, read_counts
from pushfleet_workers.redis_link import Link, ReplyError

NOW_MS = 1_767_300_000_000
KEYS = ReceiptKeys("t", "demo")
ONE = Entry(Event.DELIVERED, NOW_MS, "oppo", "main", "push_arrive", "m-1", "", "ann", token="f-1", send_id="x1")


def on_redis(url: str, scenario: Callable[[Link, ReceiptBook], Awaitable[None]], kept: int = 1_000) -> None:
    async def run() -> None:
        link = Link(url)
        try:
            await scenario(link, ReceiptBook(link, "t", lambda: NOW_MS, kept=kept))
        finally:
            await link.close()

    asyncio.run(run())


CHANGES = [
    {"event": Event.CLICKED},
    {"vendor": "vivo"},
    {"credential": "lite"},
    {"code": "other"},
    {"message_id": "m-2"},
    {"message_sha256": "00"},
    {"token": "f-2"},
    {"send_id": "x2"},
]


@pytest.mark.parametrize("changes", CHANGES, ids=[next(iter(one)) for one in CHANGES])
def test_what_differs_in_anything_that_is_told_is_no_repeat(redis_url: str, changes: dict[str, object]) -> None:
    async def scenario(link: Link, book: ReceiptBook) -> None:
        other = replace(ONE, **changes)  # type: ignore[arg-type]
        assert await book.record("demo", [ONE, other, ONE, other]) == 2

    on_redis(redis_url, scenario)


def test_the_same_at_another_time_or_of_a_token_that_moved_is_a_repeat(redis_url: str) -> None:
    async def scenario(link: Link, book: ReceiptBook) -> None:
        assert await book.record("demo", [ONE]) == 1
        assert await book.record("demo", [replace(ONE, at_ms=1), replace(ONE, user="bob")]) == 0

    on_redis(redis_url, scenario)


def test_apps_are_apart(redis_url: str) -> None:
    async def scenario(link: Link, book: ReceiptBook) -> None:
        assert await book.record("demo", [ONE]) == await book.record("lite", [ONE]) == 1
        assert await read_counts(link, "t", "lite") == {("oppo", "main", "delivered"): 1}
        assert await read_counts(link, "t", "none") == {}

    on_redis(redis_url, scenario)


def test_any_text_can_be_recorded(redis_url: str) -> None:
    async def scenario(link: Link, book: ReceiptBook) -> None:
        odd = Entry(Event.CLICKED, NOW_MS, message_id="消\0息\ud800", user=":{}\n", device="\x01")
        assert await book.record("demo", [odd, odd]) == 1
        ((_, flat),) = await link.call("XRANGE", KEYS.stream, "-", "+")
        fields = {flat[at].decode(): flat[at + 1].decode() for at in range(0, len(flat), 2)}
        assert (fields["mid"], fields["user"], fields["device"]) == ("消\0息?", ":{}\n", "\x01")

    on_redis(redis_url, scenario)


def test_what_is_known_of_repeats_is_bounded(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(book_module, "_REPEATS_MAX", 100)

    async def scenario(link: Link, book: ReceiptBook) -> None:
        entries = [replace(ONE, send_id=f"x{number}") for number in range(2_500)]
        assert await book.record("demo", entries) == 2_500
        key = KEYS.repeats(NOW_MS // book_module.WINDOW_MS)
        assert await link.call("SCARD", key) == 100
        # A repeat beyond that is recorded once more: better than not at all.
        assert await book.record("demo", entries) == 2_400

    on_redis(redis_url, scenario)


def test_nothing_is_left_of_a_window_whose_time_is_over(redis_url: str) -> None:
    async def scenario(link: Link, book: ReceiptBook) -> None:
        await book.record("demo", [ONE])
        keys = {key.decode() for key in await link.call("KEYS", "*")}
        window = KEYS.repeats(NOW_MS // book_module.WINDOW_MS)
        assert keys == {KEYS.stream, KEYS.counts, window}
        assert 0 < await link.call("TTL", window) <= 1_200
        assert len({key[key.index("{") : key.index("}")] for key in keys}) == 1

    on_redis(redis_url, scenario)


def test_a_redis_that_refuses_is_heard(redis_url: str) -> None:
    async def scenario(link: Link, book: ReceiptBook) -> None:
        await link.call("SET", KEYS.stream, "no stream")
        with pytest.raises(ReplyError, match="WRONGTYPE"):
            await book.record("demo", [ONE])

    on_redis(redis_url, scenario)


def test_an_entry_shows_no_token() -> None:
    assert "f-1" not in repr(ONE)
