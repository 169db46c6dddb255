"""What OPPO's answers mean, code by code."""

from __future__ import annotations

from dataclasses import replace

from pushfleet_workers.outcome import OK, Remedy
from pushfleet_workers.vendors._answers import (
    BAD_PAYLOAD,
    CLASS_MISCONFIGURED,
    DROP_TOKEN,
    MISCONFIGURED,
    QUOTA_EXHAUSTED,
    RATE_LIMITED,
    REFRESH_AUTH,
    RETRY,
    STATUS_ROWS,
    table,
)

__all__ = ["CODES", "DEAD", "DUPLICATE", "OTHER", "WRONG_ARGUMENT"]

DUPLICATE, WRONG_ARGUMENT, DEAD, OTHER = "32", "41", "10000", "other codes"

CODES = table(
    *STATUS_ROWS,
    ("HTTP 413", "413", replace(BAD_PAYLOAD, remedy=Remedy.SPLIT), "The request is too large: fewer messages a call."),
    ("0", "200", OK, "Accepted; what a batch did not take is named in it."),
    ("-1", "any", RETRY, "The service is not available."),
    ("-2", "any", RATE_LIMITED, "Flow control of OPPO's servers."),
    ("11", "any", REFRESH_AUTH, "The auth token was refused."),
    ("12", "any", MISCONFIGURED, "The address takes no POST: correct base_url."),
    ("13", "any", RATE_LIMITED, "Too many calls of the app; if it lasts, a limit of the day is used up."),
    ("14", "any", MISCONFIGURED, "The AppKey is unknown: copy app_key from the OPPO push console."),
    ("15", "any", MISCONFIGURED, "The AppKey is missing: set app_key."),
    ("16", "any", MISCONFIGURED, "The signature is wrong: give the MasterSecret, not the AppSecret."),
    ("17", "any", MISCONFIGURED, "The signature is missing: correct auth_url."),
    ("18", "any", MISCONFIGURED, "The time of the signature is missing: correct auth_url."),
    ("19", "any", MISCONFIGURED, "The signature is older than ten minutes: set the clock of the Redis server."),
    ("20", "any", MISCONFIGURED, "The method is unknown or missing: correct base_url."),
    ("21", "any", MISCONFIGURED, "The method is unknown or missing: correct base_url."),
    ("22", "any", MISCONFIGURED, "The version is unknown or missing: correct base_url."),
    ("23", "any", MISCONFIGURED, "The version is unknown or missing: correct base_url."),
    ("24", "any", MISCONFIGURED, "The version is unknown or missing: correct base_url."),
    ("25", "any", BAD_PAYLOAD, "The request is no UTF-8."),
    ("26", "any", MISCONFIGURED, "Our address is on OPPO's black list: have it struck off, or set proxy."),
    ("27", "any", MISCONFIGURED, "The app has no right to this call: apply for it in the OPPO push console."),
    ("28", "any", MISCONFIGURED, "The app is disabled: ask OPPO why."),
    ("29", "any", REFRESH_AUTH, "The auth token is missing."),
    ("30", "any", MISCONFIGURED, "The app may not push by API: apply for it in the OPPO push console."),
    ("31", "any", BAD_PAYLOAD, "The message is missing."),
    (
        DUPLICATE,
        "any",
        BAD_PAYLOAD,
        "OPPO has this message already: for one that was tried before, that is acceptance.",
    ),
    ("33", "any", QUOTA_EXHAUSTED, "The day's messages are used up."),
    ("34", "any", QUOTA_EXHAUSTED, "The day's picture uploads are used up."),
    ("40", "any", BAD_PAYLOAD, "An argument is missing."),
    (
        WRONG_ARGUMENT,
        "any",
        BAD_PAYLOAD,
        "An argument is invalid; where the answer names the registration id, that is dropped.",
    ),
    ("51", "any", BAD_PAYLOAD, "The picture is wrong."),
    (
        "54",
        "any",
        CLASS_MISCONFIGURED,
        "This category wants an approved template: name it in kinds.<kind>.template_id, with its parameters.",
    ),
    ("55", "any", RATE_LIMITED, "Too many calls of the app."),
    ("59", "any", MISCONFIGURED, "The app has no right to secondary links: apply for it in the OPPO push console."),
    (
        "67",
        "any",
        CLASS_MISCONFIGURED,
        "The app may not use this category, or not with this notify_level: apply for it, or correct both in kinds.",
    ),
    (DEAD, "any", DROP_TOKEN, "The registration id is invalid."),
    *(
        (code, "any", BAD_PAYLOAD, "Refused for this device, why is not documented; the token is kept.")
        for code in ("10001", "10002", "10003", "10004", "10005")
    ),
    (OTHER, "200", BAD_PAYLOAD, "Codes that are not listed here: this push ends, the token is kept."),
)
"""Codes of a whole answer and of one message in it; they go before the status."""
