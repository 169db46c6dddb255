from __future__ import annotations

import pytest

from pushfleet_workers.fakecloud.book import Book, Page, SlidingPeak
from pushfleet_workers.fakecloud.wire import Call

CALL = Call(account="a", tokens=("x", "y"), title="Li Lei", body="Hi", sent_id="d-1", data={"mid": "m-1"})


@pytest.mark.parametrize(
    ("arrivals", "peak"),
    [
        ([], 0),
        ([(0.0, 3)], 3),
        ([(0.0, 1), (0.5, 2), (0.99, 4)], 7),
        ([(0.0, 5), (1.0, 5)], 5),
        ([(0.6, 5), (1.2, 5), (1.7, 5)], 10),
        ([(0.0, 1), (10.0, 2), (10.9, 3)], 5),
    ],
)
def test_the_peak_is_that_of_any_second(arrivals: list[tuple[float, int]], peak: int) -> None:
    sliding = SlidingPeak()
    for at_s, targets in arrivals:
        sliding.add(at_s, targets)

    assert sliding.peak == peak


def test_an_accepted_batch_counts_each_token() -> None:
    book = Book(("apns",))

    book.accept("apns", CALL, CALL.tokens, 1.0, 2.0)
    book.accept("apns", CALL, ("x",), 1.5, 2.5)

    page = book.pages["apns"]
    assert (page.accepted, dict(page.by_token)) == (3, {"x": 2, "y": 1})
    assert book.peak("apns") == book.peak("apns", "a") == 3
    assert book.peak("apns", "unknown") == 0


def test_the_record_says_what_was_sent_and_when() -> None:
    book = Book(("apns",))

    book.accept("apns", CALL, ("x",), 1.0, 2.0)

    (push,) = book.received("apns", "x")
    assert (push.title, push.body, push.sent_id, push.message_id) == ("Li Lei", "Hi", "d-1", "m-1")
    assert (push.at_monotonic_s, push.at_unix_s) == (1.0, 2.0)
    assert book.received("apns", "y") == book.received("fcm") == []


def test_the_record_is_bounded_and_the_counts_are_not() -> None:
    book, none = Book(("apns",), keep=1), Book(("apns",), keep=0)

    for one in (book, none):
        one.accept("apns", CALL, CALL.tokens, 1.0, 2.0)

    assert [push.token for push in book.received()] == ["y"]
    assert none.received() == []
    assert none.pages["apns"].accepted == 2


def test_a_push_after_a_refusal_as_dead_is_counted() -> None:
    page = Page()

    page.meet(["x"])
    page.tell_dead(["x"])
    page.meet(["x", "y"])
    page.revive("x")
    page.meet(["x"])

    assert (page.dead_targets, page.after_death) == (1, 1)


def test_a_record_shows_neither_token_nor_text_in_its_repr() -> None:
    book = Book(("apns",))
    book.accept("apns", CALL, ("secret-token",), 1.0, 2.0)

    shown = repr(book.received())

    assert "secret-token" not in shown
    assert "Li Lei" not in shown
