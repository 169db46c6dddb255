"""The rules, each with its reason; and that the tables of reasons are complete."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path
from typing import get_args

import pytest

import pushfleet_workers
from pushfleet import OfflineMessage, OfflinePush, Recipient
from pushfleet.message import Kind
from pushfleet_workers import reasons
from pushfleet_workers.decision import channel_for, refuse_device, refuse_message, refuse_recall, refuse_receiver
from pushfleet_workers.outcome import NOT_RECALLABLE
from pushfleet_workers.tokens.record import BACKGROUND, FOREGROUND, KILLED, LOGGED_OUT, Channel, Device, State

PACKAGE = Path(next(iter(pushfleet_workers.__path__)))
NOW = 1_000_000
KINDS: tuple[Kind, ...] = get_args(Kind)
CALLS = {"call", "call_cancel"}


def message(**fields: object) -> OfflineMessage:
    return OfflineMessage(**{"id": "m1", "app": "demo", "recipients": ("bob",), "body": "Lunch?", **fields})  # type: ignore[arg-type]


# ---- the message

DISABLED = OfflinePush(disabled=True)


@pytest.mark.parametrize(
    ("given", "sent_at_ms", "has_text", "reason"),
    [
        (message(), NOW, True, ""),
        (message(online_only=True), NOW, True, "online_only"),
        (message(offline_push=DISABLED), NOW, True, "push_disabled"),
        (message(offline_push=OfflinePush()), NOW, True, ""),
        (message(online_only=True, offline_push=DISABLED), 0, False, "online_only"),
        (message(ttl_s=10), NOW - 9_999, True, ""),
        (message(ttl_s=10), NOW - 10_000, True, "expired"),
        (message(ttl_s=0), NOW, True, "expired"),
        (message(ttl_s=0), NOW + 1, True, ""),
        (message(), NOW - 86_400_000, True, "expired"),
        (message(), NOW - 86_399_999, True, ""),
        (message(kind="call"), NOW - 30_000, True, "expired"),
        (message(kind="call_cancel"), NOW - 29_999, True, ""),
        (message(kind="missed_call"), NOW - 30_000, True, ""),
        (message(), NOW, False, "empty_text"),
        (message(ttl_s=0), 0, False, "expired"),
    ],
)
def test_what_the_message_allows(given: OfflineMessage, sent_at_ms: int, has_text: bool, reason: str) -> None:
    assert refuse_message(given, sent_at_ms, NOW, has_text=has_text) == reason


# ---- the receiver

AUTO, NEVER, FORCED = (Recipient(id="bob", push=push) for push in ("auto", "never", "force"))
MENTIONED = Recipient(id="bob", mention=True)


@pytest.mark.parametrize(
    ("recipient", "receive", "reason"),
    [
        (AUTO, "all", ""),
        (AUTO, "none", "muted"),
        (AUTO, "mentions", "mentions_only"),
        (MENTIONED, "mentions", ""),
        (MENTIONED, "none", "muted"),
        (FORCED, "none", ""),
        (FORCED, "mentions", ""),
        (NEVER, "all", "push_never"),
        (NEVER, "none", "push_never"),
    ],
)
def test_what_the_receiver_wants_of_a_chat(recipient: Recipient, receive: str, reason: str) -> None:
    assert refuse_receiver("chat", recipient, receive) == reason


@pytest.mark.parametrize("kind", KINDS)
def test_calls_and_mentions_pass_mentions_only_and_nothing_passes_mute(kind: Kind) -> None:
    passes = kind in CALLS or kind == "mention"
    assert refuse_receiver(kind, AUTO, "mentions") == ("" if passes else "mentions_only")
    assert refuse_receiver(kind, AUTO, "none") == "muted"
    assert refuse_receiver(kind, NEVER, "all") == "push_never"


# ---- the device


@pytest.mark.parametrize(
    ("state", "lease_until_ms", "reason", "reason_when_forced"),
    [
        ("", 0, "", ""),
        (BACKGROUND, 0, "", ""),
        (KILLED, 0, "", ""),
        (LOGGED_OUT, 0, "logged_out", "logged_out"),
        (FOREGROUND, NOW + 1, "foreground", ""),
        (FOREGROUND, NOW, "", ""),
        (FOREGROUND, 0, "", ""),
        (BACKGROUND, NOW + 1, "", ""),
    ],
)
def test_what_the_device_is_doing(state: State, lease_until_ms: int, reason: str, reason_when_forced: str) -> None:
    device = Device(state=state, lease_until_ms=lease_until_ms)
    assert refuse_device(device, NOW) == reason
    assert refuse_device(device, NOW, forced=True) == reason_when_forced


@pytest.mark.parametrize("state", get_args(State))
def test_a_device_without_permission_gets_nothing_whatever_it_does(state: State) -> None:
    reason = "logged_out" if state == LOGGED_OUT else "notifications_off"
    for forced in (False, True):
        assert refuse_device(Device(state=state, permitted=False), NOW, forced=forced) == reason


# ---- the channel

ALERT = Channel("apns", "main", "alert", 1)
VOIP = Channel("apns", "main", "voip", 2, "voip")
FID = Channel("fcm", "main", "fid", 3, "fid")
RESTING = Channel("apns", "main", "resting", 4, quarantined_until_ms=NOW + 1)
RESTING_VOIP = Channel("apns", "main", "resting-voip", 5, "voip", quarantined_until_ms=NOW + 1)
RESTED = Channel("apns", "main", "rested", 6, quarantined_until_ms=NOW)


@pytest.mark.parametrize(
    ("channels", "for_chat", "for_call"),
    [
        ([], None, None),
        ([ALERT], ALERT, ALERT),
        ([VOIP], None, VOIP),
        ([ALERT, VOIP], ALERT, VOIP),
        ([VOIP, ALERT], ALERT, VOIP),
        ([FID, ALERT], FID, FID),
        ([RESTING, FID], FID, FID),
        ([RESTING], None, None),
        ([RESTED, ALERT], RESTED, RESTED),
        ([RESTING_VOIP, ALERT], ALERT, ALERT),
    ],
)
def test_which_channel_a_message_takes(
    channels: list[Channel], for_chat: Channel | None, for_call: Channel | None
) -> None:
    device = Device(channels=channels)
    for kind in KINDS:
        assert channel_for(device, kind, NOW) == (for_call if kind == "call" else for_chat)
        assert channel_for(device, kind, NOW, "voip") == for_call
        assert channel_for(device, kind, NOW, "alert") == for_chat
        assert channel_for(device, kind, NOW, "background") == for_chat


# ---- a recall


@pytest.mark.parametrize(
    ("kind", "window_s", "people", "expires_at_ms", "reason"),
    [
        ("chat", 120, 1, NOW + 1, ""),
        ("call_cancel", 120, 1, NOW + 1, ""),
        ("call", 120, 1, NOW + 1, "not_shown"),
        ("chat", 0, 1, NOW + 1, "recalls_off"),
        ("chat", 120, 0, NOW + 1, "recall_unknown"),
        ("chat", 120, 1, NOW, "expired"),
    ],
)
def test_a_message_that_is_taken_back(kind: str, window_s: int, people: int, expires_at_ms: int, reason: str) -> None:
    assert refuse_recall(kind, window_s, people, expires_at_ms, NOW) == reason


# ---- the tables of reasons


@cache
def trees() -> list[ast.Module]:
    return [ast.parse(file.read_text(encoding="utf-8")) for file in PACKAGE.rglob("*.py")]


def texts_in(node: ast.AST | None) -> set[str]:
    """The texts that an expression may come to."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return {node.value}
    if isinstance(node, ast.IfExp):
        return texts_in(node.body) | texts_in(node.orelse)
    if isinstance(node, ast.BoolOp):
        return {text for value in node.values for text in texts_in(value)}
    return set()


def returned_by(*names: str) -> set[str]:
    return {
        text
        for tree in trees()
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef) and function.name in names
        for node in ast.walk(function)
        if isinstance(node, ast.Return)
        for text in texts_in(node.value)
    } - {""}


def given_to(name: str, position: int, first: str = "") -> set[str]:
    """The texts that calls of *name* have at *position*; only of calls that begin with *first*, where it is given."""
    return {
        text
        for tree in trees()
        for call in ast.walk(tree)
        if isinstance(call, ast.Call) and len(call.args) > position
        if getattr(call.func, "attr", getattr(call.func, "id", "")) == name
        if not first or texts_in(call.args[0]) == {first}
        for text in texts_in(call.args[position])
    }


def in_books(end: str) -> set[str]:
    """The reasons that stand in names of the books, such as ``normal:dead:poison``."""
    files = [file for kind in ("*.lua", "*.py") for file in PACKAGE.rglob(kind)]
    return {name for file in files for name in re.findall(rf":{end}:(\w+)", file.read_text(encoding="utf-8"))}


def test_every_suppression_is_in_the_table_and_none_else() -> None:
    decided = returned_by("refuse_message", "refuse_recall", "refuse_receiver", "refuse_device", "_refuse")
    assert decided | given_to("suppress", 0) | given_to("End", 1, "suppressed") == set(reasons.SUPPRESSED)


@pytest.mark.parametrize(("end", "table"), [("dropped", reasons.DROPPED), ("dead", reasons.DEAD)])
def test_every_other_end_is_in_its_table_and_none_else(end: str, table: dict[str, str]) -> None:
    told = {NOT_RECALLABLE.code} if end == "dropped" else set()
    assert given_to("End", 1, end) | in_books(end) | told == set(table)


def test_every_refusal_of_an_entry_is_in_the_table_and_none_else() -> None:
    assert given_to("_refuse", 2) == set(reasons.REFUSED_ENTRIES)


def test_every_reason_has_a_sentence() -> None:
    for table in (reasons.SUPPRESSED, reasons.DROPPED, reasons.DEAD, reasons.REFUSED_ENTRIES):
        for reason, sentence in table.items():
            assert re.fullmatch(r"[a-z_]+", reason)
            assert len(sentence) > 20
            assert not sentence.endswith(".")
