from __future__ import annotations

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest

from pushfleet_workers.fakecloud.book import Book
from pushfleet_workers.fakecloud.desk import Desk
from pushfleet_workers.fakecloud.journal import Journal, Met, read_journal
from pushfleet_workers.fakecloud.rules import RuleBook, make_rule
from pushfleet_workers.fakecloud.vendor import Death, Issued
from pushfleet_workers.fakecloud.wire import Call, Fault, Request, Response


class Acme:
    """The smallest vendor: the body is a list of tokens."""

    name: ClassVar[str] = "acme"
    http1: ClassVar[bool] = True
    max_streams: ClassVar[int] = 10
    refusals: ClassVar[frozenset[str]] = frozenset({"busy", "gone"})
    deaths: ClassVar[frozenset[str]] = frozenset({"gone"})
    throttled: ClassVar[str] = "busy"
    address_bound: ClassVar[bool] = False

    @classmethod
    def issue(cls, base_url: str, options: Mapping[str, Any]) -> Issued:
        return Issued("1", {}, {}, {"key": b""})

    def register(self, public: Mapping[str, Any]) -> None: ...

    def expire_auth(self) -> None: ...

    def read(self, request: Request, now_s: float) -> Call | Response:
        if not request.body:
            return Response(400, "empty")
        tokens = tuple(request.body.decode().split())
        parts = tuple(Call("account", tokens=(one,), title=f"for {one}", dry_run=one == "d") for one in tokens)
        mixed = parts if request.query == "mixed" else ()
        endpoint = "stage" if request.query == "stage" else "send"
        named = request.query != "unnamed"
        dry = "dry" in request.query
        return Call("account", endpoint, tokens, echo=(("x-id", "1"),), dry_run=dry, parts=mixed, names_dead=named)

    def answer(self, call: Call, dead: Mapping[str, Death], now_s: float) -> Response:
        return Response(200, "partial" if dead else "accepted", " ".join(dead).encode(), call.echo)

    def refuse(self, code: str, call: Call, now_s: float) -> Response:
        return Response(418, code, code.encode(), call.echo)


class Shop:
    """A desk with everything around it."""

    def __init__(self) -> None:
        self.rules = RuleBook(itertools.count(1))
        self.book = Book(("acme",))
        self.desk = Desk(Acme(), self.rules, self.book, wall=lambda: 100.0, monotonic=lambda: 1.0)

    @property
    def accepted(self) -> dict[str, int]:
        return dict(self.book.pages["acme"].by_token)

    @property
    def results(self) -> dict[str, int]:
        return dict(self.book.pages["acme"].results)

    def rule(self, action: str, **fields: Any) -> None:
        self.rules.add(make_rule({"vendor": "acme", "action": action, "since_ms": 7, **fields}))

    def ask(self, body: str, query: str = "") -> Any:
        return self.desk(Request("POST", "/", {}, body.encode(), query))


@pytest.fixture
def shop() -> Shop:
    return Shop()


def test_a_request_in_order_is_answered_and_booked(shop: Shop) -> None:
    reply = shop.ask("a b")

    assert (reply.response.status, reply.fault) == (200, Fault.NONE)
    assert (shop.accepted, shop.results) == ({"a": 1, "b": 1}, {"accepted": 1})


def test_a_refused_request_is_booked_under_its_code_and_meets_no_rule(shop: Shop) -> None:
    shop.rule("silent", times=1)

    assert shop.ask("").response.status == 400
    assert shop.ask("a").fault is Fault.SILENT
    assert shop.results == {"empty": 1, "silent": 1}


def test_a_dry_run_is_answered_and_not_booked(shop: Shop) -> None:
    assert shop.ask("a", "dry").response.status == 200
    assert shop.accepted == {}


def test_of_a_batch_only_the_living_are_booked(shop: Shop) -> None:
    shop.rule("dead", token="b")

    reply = shop.ask("a b")

    assert reply.response.body == b"b"
    assert shop.accepted == {"a": 1}
    assert shop.book.pages["acme"].dead_targets == 1


def test_a_sender_that_was_not_told_which_token_is_dead_need_not_know(shop: Shop) -> None:
    shop.rule("dead", token="b")
    shop.ask("a b", "unnamed")
    shop.ask("a b", "unnamed")
    page = shop.book.pages["acme"]
    assert (page.dead_targets, page.after_death, shop.accepted) == (0, 0, {"a": 2})
    shop.ask("b", "unnamed")
    shop.ask("b", "unnamed")
    assert (page.dead_targets, page.after_death) == (2, 1)


def test_a_push_to_a_token_that_was_refused_as_dead_is_counted(shop: Shop) -> None:
    shop.rule("dead", token="b")
    shop.rule("refuse", token="c", code="gone")

    for body in ("b", "c", "a b", "c"):
        shop.ask(body)

    assert shop.book.pages["acme"].after_death == 2


def test_a_slow_answer_counts_as_received_at_once(shop: Shop) -> None:
    shop.rule("answer", delay_s=30)

    reply = shop.ask("a")

    assert (reply.delay_s, reply.response.status) == (30, 200)
    assert shop.accepted == {"a": 1}


def test_a_scripted_refusal_takes_no_push(shop: Shop) -> None:
    shop.rule("refuse", code="busy")

    assert shop.ask("a").response.body == b"busy"
    assert (shop.accepted, shop.results) == ({}, {"busy": 1})


def test_a_throttle_says_429_and_how_long_to_wait(shop: Shop) -> None:
    shop.rule("throttle", retry_after_s=37)

    response = shop.ask("a").response

    assert (response.status, response.body) == (429, b"busy")
    assert ("retry-after", "37") in response.headers


def test_a_throttle_can_have_another_status_and_no_time(shop: Shop) -> None:
    shop.rule("throttle", status=503)

    response = shop.ask("a").response

    assert response.status == 503
    assert "retry-after" not in dict(response.headers)


def test_a_raw_answer_is_given_as_it_is_with_the_headers_of_every_answer(shop: Shop) -> None:
    shop.rule("raw", status=502, body=b"\x00<html>", headers={"Content-Type": "text/html"})

    response = shop.ask("a").response

    assert (response.status, response.body) == (502, b"\x00<html>")
    assert response.headers == (("x-id", "1"), ("content-type", "text/html"))
    assert shop.results == {"status 502": 1}


@pytest.mark.parametrize(
    ("action", "fault", "accepted"),
    [
        ("silent", Fault.SILENT, {"a": 1}),
        ("reset", Fault.RESET, {}),
        ("goaway", Fault.GOAWAY, {}),
        ("drop", Fault.DROP, {}),
    ],
)
def test_a_fault_replaces_the_answer(shop: Shop, action: str, fault: Fault, accepted: dict[str, int]) -> None:
    shop.rule(action)

    reply = shop.ask("a")

    assert (reply.response, reply.fault) == (None, fault)
    assert (shop.accepted, shop.results) == (accepted, {action: 1})


def test_a_goaway_covers_the_request_exactly_when_the_push_was_taken(shop: Shop) -> None:
    shop.rule("goaway", times=1)
    shop.rule("goaway", times=1, accepts=True)
    shop.rule("goaway", times=1, processed=True)

    assert [shop.ask("a").processed for _ in range(3)] == [False, True, True]
    assert shop.accepted == {"a": 1}


def test_each_target_of_a_mixed_request_is_booked_with_its_own_push(shop: Shop) -> None:
    shop.rule("dead", token="b")

    # To d nothing is delivered.
    assert shop.ask("a b c d", "mixed").response.result == "partial"

    assert [(push.token, push.title) for push in shop.book.record] == [("a", "for a"), ("c", "for c")]


def test_content_that_goes_ahead_is_scripted_apart_and_booked_for_nobody(shop: Shop) -> None:
    shop.rule("refuse", code="busy", endpoint="stage", times=1)

    assert shop.ask("a").response.status == 200
    assert [shop.ask("a", "stage").response.result for _ in range(2)] == ["busy", "accepted"]
    assert shop.accepted == {"a": 1}


def test_the_journal_has_what_became_of_each_token(tmp_path: Path) -> None:
    rules, book, path = RuleBook(itertools.count(1)), Book(("acme",)), tmp_path / "journal.jsonl"
    assert list(read_journal(path)) == []
    journal = Journal(path, lambda: 99.5)
    desk = Desk(Acme(), rules, book, wall=lambda: 100.0, monotonic=lambda: 1.0, journal=journal)

    def send(tokens: str, query: str = "") -> None:
        desk(Request("POST", "/", {}, tokens.encode(), query))

    rules.add(make_rule({"vendor": "acme", "action": "dead", "token": "b"}))
    rules.add(make_rule({"vendor": "acme", "action": "refuse", "code": "busy", "token": "c"}))
    rules.add(make_rule({"vendor": "acme", "action": "silent", "token": "e"}))
    send("a b")
    send("a b", "unnamed")
    send("a b d", "mixed")
    send("c")
    send("e")
    send("")
    send("a", "stage")
    send("a", "dry")
    journal.close()

    fates = {(True, False): "taken", (False, True): "dead", (False, False): "refused"}
    assert [(met.token, fates[met.taken, met.dead]) for met in read_journal(path)] == [
        ("a", "taken"), ("b", "dead"),
        ("a", "taken"), ("b", "refused"),
        ("a", "taken"), ("b", "dead"),
        ("c", "refused"),
        ("e", "taken"),
    ]  # fmt: skip
    about = {(met.vendor, met.account, met.at_s, met.since_s) for met in read_journal(path)}
    assert about == {("acme", "account", 100.0, 99.5)}


def test_a_line_of_the_journal_that_is_still_being_written_is_left_for_later(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    journal = Journal(path, lambda: 200.0)
    journal.enter("acme", Call("account", tokens=("a",), sent_id="d-1", data={"mid": "m-1"}), 100.5, taken=("a",))
    journal.close()
    whole = path.read_bytes()
    path.write_bytes(whole + whole[:-1])

    (met,) = read_journal(path)
    assert met == Met(100.5, 100.5, "acme", "account", "a", message_id="m-1", sent_id="d-1", taken=True)
