from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import pytest

from pushfleet_workers.fakecloud.apns import Apns
from pushfleet_workers.fakecloud.rules import Action, RuleBook, check_rule, make_rule


@pytest.fixture
def book() -> RuleBook:
    return RuleBook(itertools.count(1))


def add(book: RuleBook, action: str, **fields: Any) -> int:
    return book.add(make_rule({"vendor": "apns", "action": action, **fields}))


def acts(book: RuleBook, *tokens: str, endpoint: str = "send") -> str:
    """The action on a request for *tokens*, or nothing."""
    rule = book.judge(endpoint, tokens or ("t",)).rule
    return rule.action.value if rule else ""


def pattern(book: RuleBook, calls: int) -> str:
    """One letter per call: x where a rule acted."""
    letters: Iterator[str] = ("x" if acts(book) else "." for _ in range(calls))
    return "".join(letters)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, "xxxxxxxx"),
        ({"times": 2}, "xx......"),
        ({"after": 3}, "...xxxxx"),
        ({"after": 2, "times": 3}, "..xxx..."),
        ({"every": 3}, "..x..x.."),
        ({"every": 2, "times": 2}, ".x.x...."),
        ({"every": 2, "after": 1, "times": 2}, "..x.x..."),
    ],
)
def test_a_rule_acts_by_call_number(book: RuleBook, fields: dict[str, int], expected: str) -> None:
    add(book, "silent", **fields)

    assert pattern(book, 8) == expected


def test_a_rule_for_a_token_leaves_other_tokens_alone(book: RuleBook) -> None:
    add(book, "reset", token="busy")

    assert acts(book, "busy") == "reset"
    assert acts(book, "idle") == ""


def test_a_rule_for_a_text_meets_bodies_with_it(book: RuleBook) -> None:
    add(book, "silent", contains="MARKETING")
    add(book, "dead", prefix="t", contains="MARKETING")

    met, other = (book.judge("send", ("t1",), body=b'{"category":"%s"}' % one) for one in (b"MARKETING", b"IM"))

    assert met.rule is not None
    assert list(met.dead) == ["t1"]
    assert (other.rule, other.dead) == (None, {})


def test_a_rule_for_a_prefix_meets_every_token_that_begins_so(book: RuleBook) -> None:
    add(book, "reset", prefix="00")

    assert acts(book, "00ff") == "reset"
    assert acts(book, "ff00") == ""


def test_in_a_batch_one_matching_token_is_enough(book: RuleBook) -> None:
    add(book, "drop", token="b")
    add(book, "reset", prefix="z")

    assert acts(book, "a", "b") == "drop"
    assert acts(book, "a", "zz") == "reset"


def test_the_oldest_due_rule_acts_and_the_others_do_not_count(book: RuleBook) -> None:
    add(book, "silent", times=1)
    add(book, "reset", token="t", times=1)
    add(book, "drop", times=1)

    assert [acts(book) for _ in range(4)] == ["silent", "reset", "drop", ""]


def test_a_rule_of_the_token_endpoint_leaves_pushes_alone(book: RuleBook) -> None:
    add(book, "silent", endpoint="auth")

    assert acts(book) == ""
    assert book.judge("auth", ()).rule is not None


def test_a_rule_for_an_account_leaves_the_others_alone(book: RuleBook) -> None:
    add(book, "silent", endpoint="auth", account="mine")
    add(book, "dead", token="a", account="mine")

    assert book.judge("auth", (), "mine").rule is not None
    assert book.judge("auth", (), "theirs").rule is None
    assert set(book.judge("send", ("a",), "mine").dead) == {"a"}
    assert book.judge("send", ("a",), "theirs").dead == {}


def test_dead_tokens_of_a_batch_are_found_one_by_one(book: RuleBook) -> None:
    add(book, "dead", token="a")
    add(book, "dead", prefix="dead-")

    verdict = book.judge("send", ("a", "b", "dead-1", "a"))

    assert set(verdict.dead) == {"a", "dead-1"}
    assert verdict.rule is None


def test_a_revived_token_loses_its_own_death_only(book: RuleBook) -> None:
    add(book, "dead", token="a")
    add(book, "reset", token="a")

    assert book.revive("a")
    assert not book.revive("a")
    assert book.judge("send", ("a",)).dead == {}
    assert acts(book, "a") == "reset"


def test_a_removed_rule_is_gone(book: RuleBook) -> None:
    wide, narrow = add(book, "silent"), add(book, "reset", token="t")

    assert book.remove(wide)
    assert book.remove(narrow)
    assert not book.remove(wide)
    assert book.listing() == []
    assert acts(book) == ""


def test_the_listing_shows_number_and_count(book: RuleBook) -> None:
    add(book, "refuse", code="Unregistered", after=1)
    acts(book)

    assert book.listing() == [
        {"id": 1, "matches": 1, "vendor": "apns", "action": "refuse", "code": "Unregistered", "after": 1}
    ]


@pytest.mark.parametrize(
    "fields",
    [
        {"action": "refuse"},
        {"action": "refuse", "code": "NoSuchReason"},
        {"action": "dead", "code": "BadTopic"},
        {"action": "raw"},
        {"action": "raw", "status": 100},
        {"action": "silent", "token": "a", "prefix": "b"},
        {"action": "explode"},
        {"action": "silent", "times": -1},
        {"action": "silent", "every": 0},
        {"action": "silent", "tiems": 1},
    ],
)
def test_a_rule_that_makes_no_sense_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        check_rule(make_rule({"vendor": "apns", **fields}), Apns)


@pytest.mark.parametrize(
    ("action", "accepts", "takes"),
    [("silent", None, True), ("silent", False, False), ("reset", None, False), ("reset", True, True)],
)
def test_silence_takes_the_push_and_other_faults_do_not_unless_told(
    action: str, accepts: bool | None, takes: bool
) -> None:
    assert make_rule({"vendor": "apns", "action": action, "accepts": accepts}).takes is takes


def test_every_action_makes_a_rule() -> None:
    for action in Action:
        assert make_rule({"vendor": "apns", "action": action.value}).action is action
