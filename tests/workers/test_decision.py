"""The rules, each with its reason; and that the tables of reasons are complete."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path
from typing import Any, get_args

import pytest

import pushfleet_workers
from pushfleet import OfflineMessage, OfflinePush, Recipient
from pushfleet.message import Kind
from pushfleet_workers import reasons
from pushfleet_workers.decision import (
    channel_for,
    reach,
    refuse_device,
    refuse_hour,
    refuse_message,
    refuse_recall,
    refuse_receiver,
)
from pushfleet_workers.outcome import NOT_RECALLABLE
from pushfleet_workers.tokens.preferences import DAY_S, Preferences, Window
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


OFF = Preferences(push=False)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("receive", ["all", "mentions", "none"])
def test_who_switched_pushes_off_gets_none_but_forced_ones(kind: Kind, receive: str) -> None:
    assert refuse_receiver(kind, MENTIONED, receive, OFF) == "push_off"
    assert refuse_receiver(kind, FORCED, receive, OFF) == ""
    assert refuse_receiver(kind, NEVER, receive, OFF) == "push_never"
    assert refuse_receiver(kind, MENTIONED, receive, Preferences()) == refuse_receiver(kind, MENTIONED, receive)


# ---- the hour

ALL_DAY = (Window(0, DAY_S),)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("recipient", [AUTO, MENTIONED, FORCED])
@pytest.mark.parametrize("calls_pass", [True, False])
@pytest.mark.parametrize("mentions_pass", [True, False])
def test_what_passes_when_the_receiver_is_not_to_be_disturbed(
    kind: Kind, recipient: Recipient, calls_pass: bool, mentions_pass: bool
) -> None:
    quiet = Preferences(quiet_daily=ALL_DAY, calls_pass=calls_pass, mentions_pass=mentions_pass)
    mentioned = recipient.mention or kind == "mention"
    passes = recipient is FORCED or (kind in CALLS and calls_pass) or (mentioned and mentions_pass)
    assert refuse_hour(kind, recipient, quiet, "", NOW) == ("" if passes else "do_not_disturb")
    assert refuse_hour(kind, recipient, None, "", NOW) == ""
    assert refuse_hour(kind, recipient, Preferences(), "", NOW) == ""


def test_calls_pass_and_mentions_do_not_unless_the_receiver_says_otherwise() -> None:
    assert refuse_hour("call", AUTO, Preferences(quiet_daily=ALL_DAY), "", NOW) == ""
    assert refuse_hour("mention", MENTIONED, Preferences(quiet_daily=ALL_DAY), "", NOW) == "do_not_disturb"


def test_the_hour_is_that_of_the_device_unless_the_receiver_names_a_zone() -> None:
    midnight_to_one = Preferences(quiet_daily=(Window(0, 3_600),))
    # NOW is a quarter of an hour after midnight in UTC, a quarter past eight in Shanghai.
    assert refuse_hour("chat", AUTO, midnight_to_one, "", NOW) == "do_not_disturb"
    assert refuse_hour("chat", AUTO, midnight_to_one, "Asia/Shanghai", NOW) == ""
    named = Preferences(quiet_daily=(Window(0, 3_600),), time_zone="UTC")
    assert refuse_hour("chat", AUTO, named, "Asia/Shanghai", NOW) == "do_not_disturb"


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


# ---- the whole table

ONE = Channel("apns", "main", "t1", 1)


def decide(
    given: OfflineMessage,
    *,
    has_text: bool = True,
    receive: str = "all",
    preferences: Preferences | None = None,
    recipient: Recipient = AUTO,
    device: Device | None = None,
) -> str:
    """As the router asks: the message, the receiver, the hour, the device; the reason of the first no."""
    device = device or Device([ONE], BACKGROUND)
    reason = refuse_message(given, NOW, NOW, has_text=has_text)
    reason = reason or refuse_receiver(given.kind, recipient, receive, preferences)
    reason = reason or refuse_hour(given.kind, recipient, preferences, device.time_zone, NOW)
    if reason:
        return reason
    reached = reach(device, given.app, given.kind, NOW, lambda *_: True, forced=recipient.push == "force")
    return reached if isinstance(reached, str) else ""


OPEN = Device([ONE], FOREGROUND, lease_until_ms=NOW + 1)
QUIET = Preferences(quiet_until_ms=NOW + 1)

TABLE: dict[str, tuple[str, dict[str, Any]]] = {
    # What kinds of messages are never pushed.
    "for online users only": ("online_only", {"given": message(online_only=True)}),
    "push switched off by the message": ("push_disabled", {"given": message(offline_push=DISABLED)}),
    "a custom element without a text": ("empty_text", {"has_text": False}),
    "older than its time to live": ("expired", {"given": message(ttl_s=0)}),
    # What the receiver wants of the conversation.
    "receive all": ("", {"receive": "all"}),
    "receive without notifying": ("muted", {"receive": "none"}),
    "receive without notifying, and mentioned": ("muted", {"receive": "none", "recipient": MENTIONED}),
    "notify only of mentions": ("mentions_only", {"receive": "mentions"}),
    "notify only of mentions, and mentioned": ("", {"receive": "mentions", "recipient": MENTIONED}),
    "notify only of mentions, and everybody is": ("", {"receive": "mentions", "given": message(kind="mention")}),
    "notify only of mentions, and called": ("", {"receive": "mentions", "given": message(kind="call")}),
    "muted, and called": ("muted", {"receive": "none", "given": message(kind="call")}),
    # What the backend says of the receiver.
    "never by the backend": ("push_never", {"recipient": NEVER}),
    "muted, but forced": ("", {"receive": "none", "recipient": FORCED}),
    "in front, but forced": ("", {"device": OPEN, "recipient": FORCED}),
    "switched off, but forced": ("", {"preferences": OFF, "recipient": FORCED}),
    "at night, but forced": ("", {"preferences": QUIET, "recipient": FORCED}),
    "logged out, and forced": ("logged_out", {"device": Device([ONE], LOGGED_OUT), "recipient": FORCED}),
    "without text, and forced": ("empty_text", {"has_text": False, "recipient": FORCED}),
    # What the receiver wants altogether.
    "switched off": ("push_off", {"preferences": OFF}),
    "switched off, and called": ("push_off", {"preferences": OFF, "given": message(kind="call")}),
    "at night": ("do_not_disturb", {"preferences": QUIET}),
    "at night, and mentioned": ("do_not_disturb", {"preferences": QUIET, "recipient": MENTIONED}),
    "at night, and called": ("", {"preferences": QUIET, "given": message(kind="call")}),
    # What the device does.
    "in the background": ("", {}),
    "killed, or its connection lost": ("", {"device": Device([ONE], KILLED)}),
    "never heard of since it registered": ("", {"device": Device([ONE])}),
    "in front": ("foreground", {"device": OPEN}),
    "in front, and called": ("foreground", {"device": OPEN, "given": message(kind="call")}),
    "in front until its lease ran out": ("", {"device": Device([ONE], FOREGROUND, lease_until_ms=NOW)}),
    "logged out": ("logged_out", {"device": Device([ONE], LOGGED_OUT)}),
    "kicked by another login": ("logged_out", {"device": Device([ONE], LOGGED_OUT, unread=3)}),
    "notifications off in its settings": ("notifications_off", {"device": Device([ONE], permitted=False)}),
    "without a token": ("no_channel", {"device": Device([], BACKGROUND)}),
    "its token quarantined": ("no_channel", {"device": Device([RESTING], BACKGROUND)}),
    "a token for calls only": ("no_channel", {"device": Device([VOIP], BACKGROUND)}),
    "a token for calls only, and called": ("", {"device": Device([VOIP]), "given": message(kind="call")}),
    # Which no is told where there are several: the message's, then the receiver's, then the device's.
    "online only, muted, in front": (
        "online_only",
        {"given": message(online_only=True), "receive": "none", "device": OPEN},
    ),
    "muted, at night, in front": ("muted", {"receive": "none", "preferences": QUIET, "device": OPEN}),
    "at night, in front": ("do_not_disturb", {"preferences": QUIET, "device": OPEN}),
}


@pytest.mark.parametrize(("reason", "case"), TABLE.values(), ids=TABLE.keys())
def test_the_decision(reason: str, case: dict[str, Any]) -> None:
    assert decide(**{"given": message(), **case}) == reason


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
    decided = returned_by(
        "refuse_message",
        "refuse_recall",
        "refuse_receiver",
        "refuse_read",
        "refuse_delivered",
        "refuse_hour",
        "refuse_device",
        "_refuse",
        "_refuse_telling",
    )
    counted = given_to("suppress", 0) | given_to("suppress_everybody", 0) | given_to("End", 1, "suppressed")
    assert decided | counted == set(reasons.SUPPRESSED)


@pytest.mark.parametrize(("end", "table"), [("dropped", reasons.DROPPED), ("dead", reasons.DEAD)])
def test_every_other_end_is_in_its_table_and_none_else(end: str, table: dict[str, reasons.Reason]) -> None:
    told = {NOT_RECALLABLE.code} if end == "dropped" else set()
    assert given_to("End", 1, end) | in_books(end) | told == set(table)


def test_every_refusal_of_an_entry_is_in_the_table_and_none_else() -> None:
    assert given_to("_refuse", 2) == set(reasons.REFUSED_ENTRIES)


def test_every_reason_has_a_sentence_and_an_example() -> None:
    tables = (reasons.SUPPRESSED, reasons.DROPPED, reasons.MOVED, reasons.DEAD, reasons.REFUSED_ENTRIES)
    told = [text for table in tables for reason in table.values() for text in reason]
    for text in told:
        assert len(text) > 20
        assert not text.endswith(".")
    assert all(re.fullmatch(r"[a-z_]+", reason) for table in tables for reason in table)
    examples = [reason.example for table in tables for reason in table.values()]
    assert len(set(examples)) == len(examples)
