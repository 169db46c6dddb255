"""What would become of a push now: device by device, as the router decides."""

from __future__ import annotations

from typing import Any

import pytest

from pushfleet_workers.reasons import SUPPRESSED
from pushfleet_workers.tokens.lookup import UserState
from pushfleet_workers.tokens.record import BACKGROUND, FOREGROUND, KILLED, LOGGED_OUT, Channel, Device
from pushfleet_workers.verdict import verdicts

NOW = 1_000_000
ALERT = Channel("apns", "main", "t1", 1)
VOIP = Channel("apns", "main", "t2", 1, "voip")
ELSEWHERE = Channel("fcm", "sold", "t3", 1)


def judge(state: UserState, **asked: Any) -> dict[str, tuple[str, str]]:
    judged = verdicts(state, "demo", "bob", NOW, lambda vendor, _, app: (vendor, app) == ("apns", "demo"), **asked)
    return {name: (one.channel.name if one.channel else "", one.reason) for name, one in judged.items()}


DEVICES = {
    "idle": (Device([ALERT], BACKGROUND), ("apns:main:alert", "")),
    "killed": (Device([VOIP, ALERT], KILLED), ("apns:main:alert", "")),
    "open": (Device([ALERT], FOREGROUND, lease_until_ms=NOW + 1), ("", "foreground")),
    "dead while open": (Device([ALERT], FOREGROUND, lease_until_ms=NOW), ("apns:main:alert", "")),
    "left": (Device([ALERT], LOGGED_OUT), ("", "logged_out")),
    "quiet": (Device([ALERT], BACKGROUND, permitted=False), ("", "notifications_off")),
    "tokenless": (Device([], BACKGROUND), ("", "no_channel")),
    "sold": (Device([ELSEWHERE], BACKGROUND), ("", "unknown_account")),
}


def test_each_device_has_a_verdict_of_its_own() -> None:
    state = UserState({name: device for name, (device, _) in DEVICES.items()})
    assert judge(state) == {name: verdict for name, (_, verdict) in DEVICES.items()}


def test_a_call_goes_by_the_channel_for_calls() -> None:
    state = UserState({"phone": Device([ALERT, VOIP], BACKGROUND)})
    assert judge(state, kind="call") == {"phone": ("apns:main:voip", "")}


@pytest.mark.parametrize(
    ("option", "asked", "reason"),
    [
        (b"none", {}, "muted"),
        (b"mentions", {}, "mentions_only"),
        (b"mentions", {"mention": True}, ""),
        (b"mentions", {"kind": "mention"}, ""),
        (b"none:%d" % NOW, {}, ""),
    ],
)
def test_what_the_receiver_wants_counts_for_all_devices(option: bytes, asked: dict[str, Any], reason: str) -> None:
    state = UserState({"a": Device([ALERT], BACKGROUND), "b": Device([ALERT], KILLED)}, option)
    assert {one for _, one in judge(state, **asked).values()} == {reason}


def test_a_refusal_is_told_in_words() -> None:
    (verdict,) = verdicts(UserState({"a": Device()}), "demo", "bob", NOW, lambda *_: True).values()
    assert verdict.sentence == SUPPRESSED["no_channel"].sentence
    (verdict,) = verdicts(UserState({"a": Device([ALERT])}), "demo", "bob", NOW, lambda *_: True).values()
    assert verdict.sentence == ""
