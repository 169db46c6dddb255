"""What an entry of the stream of reports may be, and that nothing else passes."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pushfleet_workers.reports import InvalidEntry, read_entry
from pushfleet_workers.tokens.changes import Report
from pushfleet_workers.tokens.confirmations import Confirmation

NOW_MS = 1_750_000_000_000
FLAT = {b"app": b"demo", b"user": b"ann", b"device": b"d1", b"state": b"background"}


def many(*reports: dict[str, object]) -> dict[bytes, bytes]:
    return {b"app": b"demo", b"reports": json.dumps(reports).encode()}


ONE = {"user": "ann", "device": "d1", "state": "killed"}


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        (FLAT, [Report(user="ann", device="d1", state="background", at_ms=NOW_MS - 7)]),
        (
            {**FLAT, b"user": b"12", b"unread": b"3", b"at_ms": b"1750000000001"},
            [Report(user="12", device="d1", state="background", unread=3, at_ms=NOW_MS + 1)],
        ),
        (
            many(ONE, {**ONE, "unread": 0, "at_ms": NOW_MS - 5}),
            [
                Report(user="ann", device="d1", state="killed", at_ms=NOW_MS - 7),
                Report(user="ann", device="d1", state="killed", unread=0, at_ms=NOW_MS - 5),
            ],
        ),
    ],
)
def test_an_entry_is_one_report_in_fields_or_many_in_json(fields: dict[bytes, bytes], expected: list[Report]) -> None:
    assert read_entry(fields, NOW_MS - 7, NOW_MS) == ("demo", tuple(expected), (), "")


GOT = {"user": "ann", "device": "d1", "up_to_ms": NOW_MS - 9}


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        (
            {b"app": b"demo", b"user": b"ann", b"device": b"d1", b"up_to_ms": b"1749999999991", b"conversation": b"7"},
            (Confirmation(user="ann", device="d1", up_to_ms=NOW_MS - 9, conversation="7"),),
        ),
        (
            {b"app": b"demo", b"confirmations": json.dumps([GOT, {**GOT, "up_to_ms": 1}]).encode()},
            (Confirmation(**GOT), Confirmation(user="ann", device="d1", up_to_ms=1)),
        ),
    ],
)
def test_an_entry_may_confirm_what_devices_have(fields: dict[bytes, bytes], expected: tuple[Confirmation, ...]) -> None:
    assert read_entry(fields, NOW_MS - 7, NOW_MS) == ("demo", (), expected, "")


def test_an_entry_may_tell_both() -> None:
    told = read_entry({**many(ONE), b"confirmations": json.dumps([GOT]).encode()}, NOW_MS, NOW_MS)
    assert (len(told.reports), len(told.confirmations)) == (1, 1)


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({}, "no field app"),
        ({b"app": b"demo"}, "missing required field `user`"),
        ({**FLAT, b"state": b"asleep"}, "none of the values that are allowed - at `state`"),
        ({**FLAT, b"unread": b"many"}, "at `unread`"),
        ({**FLAT, b"unread": b"-1"}, "at `unread`"),
        ({**FLAT, b"colour": b"red"}, "unknown field"),
        ({**FLAT, b"user": b""}, "the user id has 0 bytes"),
        ({**FLAT, b"user": b"\xff"}, "not text in UTF-8"),
        ({**FLAT, b"app": b"\xff"}, "not text in UTF-8"),
        ({**FLAT, b"at_ms": b"1750000300001"}, "more than five minutes in the future"),
        ({**FLAT, b"reports": b"[]"}, "other fields"),
        ({**FLAT, b"confirmations": b"[]"}, "other fields"),
        ({**FLAT, b"up_to_ms": b"1"}, "unknown field `state`"),
        ({b"app": b"demo", b"confirmations": b"[]"}, "length >= 1"),
        ({b"app": b"demo", b"confirmations": json.dumps([{**GOT, "up_to_ms": 0}]).encode()}, "at `[0].up_to_ms`"),
        ({**many(ONE, {**ONE, "state": "?"}), b"confirmations": json.dumps([GOT]).encode()}, "at `[1].state`"),
        ({**many(ONE), b"confirmations": b"[]", b"x": b""}, "other fields"),
        (
            {b"app": b"demo", b"confirmations": json.dumps([GOT, {**GOT, "up_to_ms": NOW_MS + 300_001}]).encode()},
            "confirmation 1: the time lies more than five minutes in the future",
        ),
        (
            {b"app": b"demo", b"confirmations": json.dumps([{**GOT, "device": ""}]).encode()},
            "the device id has 0 bytes",
        ),
        (many(), "length >= 1"),
        (many(*[ONE] * 1_001), "length <= 1000"),
        (many(ONE, {**ONE, "at_ms": NOW_MS + 300_001}), "report 1: the time lies more than five minutes in the future"),
        ({**FLAT, b"at_ms": b"1750000000"}, "is it in milliseconds?"),
        (many(ONE, {"user": "ann"}), "at `[1].device`"),
        ({b"app": b"demo", b"reports": b"nonsense"}, "not JSON"),
        ({b"app": b"demo", b"reports": b"[" * 60_000}, "at `[0]`"),
    ],
)
def test_what_breaks_the_form_is_told_without_what_it_held(fields: dict[bytes, bytes], told: str) -> None:
    with pytest.raises(InvalidEntry) as refused:
        read_entry(fields, NOW_MS, NOW_MS)
    assert told in str(refused.value)


@pytest.mark.parametrize(
    ("confirmations", "problem"),
    [
        (b"[]", "length >= 1"),
        (b"nonsense", "not JSON"),
        (json.dumps([{**GOT, "up_to_ms": 0}]).encode(), "at `[0].up_to_ms`"),
        (json.dumps([{**GOT, "up_to_ms": NOW_MS + 300_001}]).encode(), "confirmation 0: the time lies more than"),
    ],
)
def test_wrong_confirmations_spoil_no_reports(confirmations: bytes, problem: str) -> None:
    told = read_entry({**many(ONE), b"confirmations": confirmations}, NOW_MS, NOW_MS)
    assert (len(told.reports), told.confirmations) == (1, ())
    assert problem in told.problem


NAMES = [b"app", b"user", b"device", b"state", b"reports", b"confirmations", b"up_to_ms", b"at_ms", b"x"]


@given(st.dictionaries(st.sampled_from(NAMES), st.binary()))
def test_whatever_comes_is_read_or_refused(fields: dict[bytes, bytes]) -> None:
    try:
        app, reports, confirmations, _ = read_entry(fields, NOW_MS, NOW_MS)
    except InvalidEntry:
        return
    assert app == fields[b"app"].decode()
    assert reports or confirmations
