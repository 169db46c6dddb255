"""Reading letters: names, what they are about, filters. Pure."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis import given
from tests.workers.dead_letters.support import TEXT, TOKEN, an_entry

from pushfleet import OfflineMessage
from pushfleet.message import ApnsOptions, OfflinePush, Recall, XiaomiOptions
from pushfleet.wire import encode
from pushfleet_workers.dead_letters.letter import (
    Letter,
    LetterFilter,
    LetterName,
    letter_of_entry,
    letter_of_parcel,
    overrides_of,
)
from pushfleet_workers.ingress.refused import RefusedEntry, payload_of
from pushfleet_workers.ledger import DeadLetter, pack


def parcel(*users: str, reason: str = "bad_payload", code: str = "400", **fields: object) -> Letter:
    entry = an_entry("m1", *users, **fields)  # type: ignore[arg-type]
    return letter_of_parcel("apns", "main", "demo", DeadLetter("5-1", pack(entry), reason, code, 3))


def refused(payload: bytes, *, name: str = "m", version: bytes = b"1") -> Letter:
    return letter_of_entry("bulk", RefusedEntry("7-0", 6_000, version, name, payload, "malformed", "id is empty"))


def test_a_letter_says_what_it_is_about() -> None:
    letter = parcel("bob", "eve", conversation_id="c1", kind="mention", lane="urgent")
    assert str(letter.name) == "apns:main:5-1"
    assert letter.name.at_ms == 5
    assert (letter.lane, letter.deliveries, letter.attempts) == ("urgent", 2, 3)
    about = letter.about
    assert (about.app, about.message_id, about.kind, about.conversation_id) == ("demo", "m1", "mention", "c1")
    assert about.users == {"bob", "eve"}
    assert about.expires_at_ms > about.sent_at_ms > 0


@pytest.mark.parametrize("cut", [0, 10, 36, 40, -1])
def test_what_cannot_be_read_is_a_letter_all_the_same(cut: int) -> None:
    data = pack(an_entry())[:cut]
    letter = letter_of_parcel("apns", "main", "demo", DeadLetter("5-1", data, "undecodable", "", 0))
    assert letter.parcel is None
    assert (letter.about.app, letter.about.message_id) == ("demo", "")
    assert letter.deliveries == (1 if len(data) >= 36 else 0)


def test_a_lane_that_there_is_not_makes_it_unreadable() -> None:
    data = bytearray(pack(an_entry()))
    data[2] = 9
    assert letter_of_parcel("a", "b", "demo", DeadLetter("5-1", bytes(data), "undecodable", "", 0)).parcel is None


def test_a_refused_message_and_a_refused_recall_say_whom_they_are_for() -> None:
    said = OfflineMessage(id="m1", app="gone", recipients=("bob",), kind="call", body="x")
    about = refused(encode(said)).about
    assert (about.app, about.message_id, about.kind, about.users) == ("gone", "m1", "call", {"bob"})
    assert (about.sent_at_ms, about.expires_at_ms) == (6_000, 36_000)
    about = refused(encode(Recall(id="m1", app="gone", recipients=("bob",))), name="r").about
    assert (about.app, about.message_id, about.kind, about.users) == ("gone", "m1", "recall", {"bob"})


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        (b'{"id": "m1", "app": "demo", "recipients": "bob"}', ("demo", "m1")),
        (b'{"id": 7, "app": {"x": 1}}', ("", "")),
        (b'{"id": "' + b"x" * 300 + b'"}', ("", "")),
        (b'["id"]', ("", "")),
        (b'{"id": "m1", "ap', ("", "")),
        (b"\xff", ("", "")),
        (b"[" * 10_000, ("", "")),
        (b"", ("", "")),
    ],
)
def test_of_what_breaks_the_contract_the_ids_are_made_out_where_they_can(
    payload: bytes, expected: tuple[str, str]
) -> None:
    about = refused(payload).about
    assert (about.app, about.message_id) == expected


@given(st.binary(max_size=200), st.sampled_from(["m", "r", ""]))
def test_whatever_was_refused_it_can_be_looked_at(payload: bytes, name: str) -> None:
    letter = refused(payload, name=name)
    assert letter.problem == "id is empty"
    assert letter.parcel is None


@given(st.binary(max_size=200))
def test_whatever_lies_among_the_dead_it_can_be_looked_at(data: bytes) -> None:
    letter_of_parcel("apns", "main", "demo", DeadLetter("5-1", data, "undecodable", "", 0))


@pytest.mark.parametrize(
    ("fields", "kept"),
    [
        ({b"v": b"1", b"m": b"{}"}, (b"1", "m", b"{}")),
        ({b"r": b"{}"}, (b"1", "r", b"{}")),
        ({b"v": b"2", b"m": b"a", b"r": b"b"}, (b"2", "", b"a")),
        ({b"x": b"y"}, (b"1", "", b"")),
        ({b"v": b"9" * 100, b"m": b"z" * 70_000}, (b"9" * 16, "m", b"z" * 65_536)),
    ],
)
def test_what_is_kept_of_a_refused_entry(fields: dict[bytes, bytes], kept: tuple[bytes, str, bytes]) -> None:
    assert payload_of(fields) == kept


def test_nothing_of_a_letter_shows_a_token_or_a_text() -> None:
    said = encode(OfflineMessage(id="m1", app="gone", recipients=("bob",), body=TEXT))
    for letter in (parcel("bob"), refused(said)):
        assert TOKEN not in repr(letter)
        assert TEXT not in repr(letter)


# ---- names


@pytest.mark.parametrize("name", ["apns:main:17-0", "ingress:bulk:1-12", "huawei:a.b_c-1:999999999999999-1"])
def test_a_name_is_read_as_it_is_written(name: str) -> None:
    read = LetterName.read(name)
    assert read is not None
    assert str(read) == name


@pytest.mark.parametrize(
    "text", ["", "apns", "apns:main", "apns:main:17", "apns::17-0", "a:b:c:17-0", "a:b:1-1 ", "a:b:١-٢", "*"]
)
def test_what_is_no_name(text: str) -> None:
    assert LetterName.read(text) is None


def test_names_sort_by_when_they_came() -> None:
    names = ["b:x:9-1", "a:x:10-0", "b:x:10-0", "a:x:10-2"]
    read = [LetterName.read(name) for name in names]
    assert sorted(read, key=lambda one: one.order if one else ()) == read


# ---- filters


@pytest.mark.parametrize(
    ("wanted", "takes"),
    [
        ({}, True),
        ({"app": "demo"}, True),
        ({"app": "lite"}, False),
        ({"reason": "bad_payload", "code": "400"}, True),
        ({"reason": "poison"}, False),
        ({"code": "410"}, False),
        ({"lane": "normal"}, True),
        ({"lane": "bulk"}, False),
        ({"message_id": "m1", "user": "eve"}, True),
        ({"message_id": "m2"}, False),
        ({"user": "ann"}, False),
    ],
)
def test_a_filter_takes_what_fits_in_everything_that_it_says(wanted: dict[str, str], takes: bool) -> None:
    assert LetterFilter(**wanted).takes(parcel("bob", "eve")) is takes  # type: ignore[arg-type]


def test_a_filter_visits_accounts_and_has_bounds() -> None:
    assert LetterFilter().visits("apns", "main")
    assert LetterFilter(vendor="apns").visits("apns", "other")
    assert not LetterFilter(vendor="apns", credential="main").visits("apns", "other")
    assert not LetterFilter(vendor="fcm").visits("apns", "main")
    assert LetterFilter().bounds == ("-", "+")
    assert LetterFilter(since_ms=5, until_ms=9).bounds == ("5", "9")
    assert LetterFilter().everything
    assert not LetterFilter(until_ms=1).everything


# ---- overrides


def test_overrides_are_names_alone() -> None:
    options = OfflinePush(title=TEXT, ext="data", apns=ApnsOptions(push_type="alert"), xiaomi=XiaomiOptions())
    assert overrides_of(options) == ["title", "ext", "apns.push_type"]
    assert overrides_of(None) == []
