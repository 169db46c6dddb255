"""What vivo's answers mean, code by code."""

from __future__ import annotations

from dataclasses import replace

from pushfleet_workers.outcome import OK, DayHour, Outcome, Remedy, Scope, Verdict
from pushfleet_workers.vendors._answers import (
    BAD_PAYLOAD,
    CLASS_MISCONFIGURED,
    DOUBTFUL_TOKEN,
    DROP_TOKEN,
    MISCONFIGURED,
    QUOTA_EXHAUSTED,
    RATE_LIMITED,
    REFRESH_AUTH,
    RETRY,
    STATUS_ROWS,
    table,
)

__all__ = ["CODES", "OTHER", "USER"]

USER, OTHER = "user ", "other codes"
"""The first stands before the status of an ``invalidUser``."""

_SINGLE_SEND = replace(BAD_PAYLOAD, remedy=Remedy.SINGLE_SEND)
_NEUTRAL_TEXT = replace(BAD_PAYLOAD, remedy=Remedy.NEUTRAL_TEXT)
_SHRINK = replace(BAD_PAYLOAD, remedy=Remedy.SHRINK)
_CREDENTIALS = "Authorization has a fault that is not documented: correct app_id, app_key and app_secret."

CODES = table(
    *STATUS_ROWS,
    ("0", "200", OK, "Accepted, but for the devices that the answer names."),
    (f"{USER}1", "any", DOUBTFUL_TOKEN, "A named device: its regId is unknown to this app."),
    (f"{USER}2", "any", DROP_TOKEN, "A named device: uninstalled, unsubscribed, or its data was cleared."),
    (f"{USER}3", "any", DROP_TOKEN, "A named device: away for 90 days."),
    (
        f"{USER}4",
        "any",
        Outcome(Verdict.MISCONFIGURED, Scope.DEVICE),
        "A named device is no test device: add it in the vivo push console, or set environment to production.",
    ),
    (f"{USER}other", "any", BAD_PAYLOAD, "A named device with a status that is not listed here; the token is kept."),
    ("10000", "any", REFRESH_AUTH, "The auth token was refused; at the token endpoint: the credentials are wrong."),
    ("10040", "any", RETRY, "vivo is short of resources."),
    ("10043", "any", MISCONFIGURED, _CREDENTIALS),
    ("10045", "any", MISCONFIGURED, _CREDENTIALS),
    ("10050", "any", BAD_PAYLOAD, "regId and alias are both empty."),
    ("10054", "any", BAD_PAYLOAD, "notifyType is invalid."),
    ("10055", "any", BAD_PAYLOAD, "The title is empty."),
    ("10056", "any", _SHRINK, "The title is too long."),
    ("10057", "any", BAD_PAYLOAD, "The content is empty."),
    ("10058", "any", _SHRINK, "The content is too long."),
    ("10059", "any", _SINGLE_SEND, "timeToLive is invalid: older rules want more of it for many devices at once."),
    *(
        (code, "any", BAD_PAYLOAD, "skipType or skipContent is invalid.")
        for code in ("10060", "10061", "10062", "10063", "10064", "10068", "10069")
    ),
    ("10065", "any", BAD_PAYLOAD, "networkType is invalid."),
    ("10066", "any", BAD_PAYLOAD, "clientCustomMap has too many entries."),
    ("10067", "any", BAD_PAYLOAD, "clientCustomMap is invalid."),
    ("10070", "any", QUOTA_EXHAUSTED, "The day's operation messages are used up; to go on lowers the next quota."),
    (
        "10071",
        "any",
        replace(QUOTA_EXHAUSTED, until=DayHour(7, 8)),
        "Operation messages go out from 7 to 23 h: vivo did not take the message for one of the system class.",
    ),
    ("10072", "any", RATE_LIMITED, "Too fast."),
    ("10073", "any", QUOTA_EXHAUSTED, "The day's system messages are used up; to go on lowers the next quota."),
    ("10085", "any", _NEUTRAL_TEXT, "The text breaks vivo's rules."),
    ("10093", "any", RATE_LIMITED, "Too many calls of the token endpoint."),
    ("10094", "any", MISCONFIGURED, "app_id is not the one that the auth token was made for: correct app_id."),
    (
        "10096",
        "any",
        CLASS_MISCONFIGURED,
        "The category is unknown: correct kinds.<kind>.category, which is in capitals.",
    ),
    (
        "10097",
        "any",
        CLASS_MISCONFIGURED,
        "Category and classification disagree: set kinds.<kind>.category alone.",
    ),
    ("10104", "any", _NEUTRAL_TEXT, "The text breaks vivo's rules."),
    ("10150", "any", _SINGLE_SEND, "A list push without devices."),
    ("10151", "any", _SINGLE_SEND, "A list push without stored content."),
    ("10153", "any", _SINGLE_SEND, "A list push to fewer than 2 or more than 1,000 regIds."),
    ("10154", "any", _SINGLE_SEND, "A list push to fewer than 2 or more than 1,000 aliases."),
    *((str(code), "any", MISCONFIGURED, _CREDENTIALS) for code in range(10_200, 10_208)),
    (
        "10252",
        "any",
        replace(_SINGLE_SEND, until=DayHour(0, 8)),
        "The day's stored contents are used up: devices are sent to one by one.",
    ),
    ("10254", "any", QUOTA_EXHAUSTED, "The day's pushes to everybody are used up."),
    ("10301", "any", BAD_PAYLOAD, "The alias is too long."),
    ("10302", "any", DOUBTFUL_TOKEN, "The regId is invalid, unless the answer names another reason."),
    ("10305", "any", BAD_PAYLOAD, "The receipt address is longer than 128 characters."),
    ("10306", "any", BAD_PAYLOAD, "The receipt parameter is longer than 64 characters."),
    ("10352", "any", BAD_PAYLOAD, "requestId is empty."),
    ("10353", "any", BAD_PAYLOAD, "requestId is longer than 64 characters."),
    ("10471", "any", BAD_PAYLOAD, "Too many task ids."),
    ("10473", "any", BAD_PAYLOAD, "No task id."),
    ("11000", "any", BAD_PAYLOAD, "classification is invalid."),
    (OTHER, "200", BAD_PAYLOAD, "Codes that are not listed here: this push ends, the token is kept."),
)
"""Codes of an answer, and what it says of single devices, which goes before its code."""
