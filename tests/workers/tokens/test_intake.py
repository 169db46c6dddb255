"""What only the clock, the settings and the vendor find wrong with a registration."""

from __future__ import annotations

import json
from typing import Any, get_args

import pytest
from tests.workers.tokens.support import NOW_MS, a_channel, a_registration

from pushfleet_workers import registry
from pushfleet_workers.push import TokenKind
from pushfleet_workers.tokens.changes import FUTURE_MS_MAX, PAST_MS_MAX, Registration
from pushfleet_workers.tokens.intake import fault_in

VENDORS = registry.built_in()
ACCOUNTS = {(vendor, "main"): "demo" for vendor in VENDORS} | {("apns", "lite"): "lite"}
HEX = "5ec2e7a0" * 8


def fault(given: Registration) -> tuple[str, str]:
    """Code and field; both empty where nothing is wrong."""
    found = fault_in(given, "demo", ACCOUNTS, NOW_MS)
    if found is None:
        return "", ""
    assert found.message
    for channel in given.channels:
        assert channel.token not in found.message
    return found.code, found.field


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({}, ("", "")),
        ({"at_ms": NOW_MS + FUTURE_MS_MAX}, ("", "")),
        ({"at_ms": NOW_MS + FUTURE_MS_MAX + 1}, ("time_in_future", "at_ms")),
        ({"at_ms": NOW_MS - PAST_MS_MAX}, ("", "")),
        ({"at_ms": NOW_MS - PAST_MS_MAX - 1}, ("time_too_old", "at_ms")),
        ({"time_zone": "Asia/Shanghai"}, ("", "")),
        ({"time_zone": "UTC"}, ("", "")),
        ({"time_zone": "China Standard Time"}, ("invalid_time_zone", "time_zone")),
    ],
)
def test_times_and_time_zones(more: dict[str, Any], expected: tuple[str, str]) -> None:
    assert fault(a_registration(HEX, **more)) == expected


def test_a_channel_needs_an_account_of_the_app() -> None:
    channels = (a_channel(HEX), a_channel(HEX + "00", credential="lite"))
    assert fault(a_registration(channels=channels)) == ("unknown_account", "channels[1].credential")


@pytest.mark.parametrize(
    ("vendor", "token", "good"),
    [
        ("apns", HEX, True),
        ("apns", HEX.upper(), True),
        ("apns", HEX * 3, True),
        ("apns", HEX[:-1], False),
        ("apns", f"<{HEX[:8]}-{HEX[8:]}>", False),
        ("apns", "fcm-token:APA91b", False),
        ("tpns", "x" * 36, True),
        ("tpns", "x" * 37, False),
    ],
)
def test_a_token_that_the_vendor_cannot_have_given_is_refused(vendor: str, token: str, good: bool) -> None:
    found = fault(a_registration(channels=(a_channel(token, vendor),)))
    assert found == (("", "") if good else ("invalid_token", "channels[0].token"))


@pytest.mark.parametrize("kind", get_args(TokenKind))
@pytest.mark.parametrize("vendor", VENDORS)
def test_a_kind_of_token_that_the_vendor_does_not_have_is_refused(vendor: str, kind: TokenKind) -> None:
    own = {"apns": {"voip"}, "fcm": {"fid"}}.get(vendor, set()) | {"alert"}
    found = fault(a_registration(channels=(a_channel(HEX, "apns"), a_channel("ab", vendor, kind=kind))))
    assert found == (("", "") if kind in own else ("unknown_token_kind", "channels[1].kind"))


@pytest.mark.parametrize("vendor", [vendor for vendor in VENDORS if not registry.load(vendor).token_shape])
def test_of_vendors_whose_tokens_have_no_known_shape_any_is_taken(vendor: str) -> None:
    for token in ("x", "~" * 4_096, HEX, "fcm:APA91b-_", json.dumps({"a": 1}, separators=(",", ":"))):
        assert fault(a_registration(channels=(a_channel(token, vendor),))) == ("", "")
