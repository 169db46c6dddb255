"""What Xiaomi's answers mean: its error codes as listed in October 2024, and those that only practice knows."""

from __future__ import annotations

from dataclasses import replace

from pushfleet_workers.outcome import OK, Outcome, Remedy, Scope, Verdict
from pushfleet_workers.vendors._answers import (
    BAD_PAYLOAD,
    CLASS_MISCONFIGURED,
    DOUBTFUL_TOKEN,
    DROP_TOKEN,
    MISCONFIGURED,
    QUOTA_EXHAUSTED,
    RATE_LIMITED,
    RETRY,
    STATUS_ROWS,
    table,
)

__all__ = ["CODES"]

_ONE_MORE_TRY = Outcome(Verdict.RETRY)
_ACCOUNT_QUOTA = replace(QUOTA_EXHAUSTED, scope=Scope.ACCOUNT)

CODES = table(
    *STATUS_ROWS,
    ("0", "any", OK, "Accepted, but for the tokens that the answer names as bad."),
    ("bad_regids", "any", DROP_TOKEN, "Accepted for others; this token is named as bad."),
    (
        "channel_exceed_quota",
        "any",
        QUOTA_EXHAUSTED,
        "A mixed request of which all went above the channel's daily quota: move to a private channel.",
    ),
    (
        "channel_exceed_quota in part",
        "any",
        OK,
        "A mixed request of which some went above the daily quota. Which is not said, so all count as sent.",
    ),
    ("-1", "any", RETRY, "Unknown fault at Xiaomi."),
    ("1", "any", RETRY, "Unknown fault at Xiaomi."),
    ("10001", "any", RETRY, "Xiaomi has a fault."),
    ("10002", "any", RETRY, "Xiaomi is busy."),
    ("10003", "any", RETRY, "A service behind Xiaomi's has a fault."),
    ("10008", "any", BAD_PAYLOAD, "A parameter is wrong."),
    ("10012", "any", BAD_PAYLOAD, "The request is illegal."),
    ("10016", "any", BAD_PAYLOAD, "A required parameter is missing."),
    ("10017", "any", BAD_PAYLOAD, "The value of a parameter is illegal: look at overrides and template parameters."),
    ("10027", "any", RATE_LIMITED, "The app calls too often."),
    ("10029", "any", DROP_TOKEN, "The device is not valid, in a request for it alone."),
    (
        "10029 of many",
        "any",
        replace(BAD_PAYLOAD, remedy=Remedy.SINGLE_SEND),
        "A device is not valid, in a request for several: each is asked alone.",
    ),
    ("10030", "any", BAD_PAYLOAD, "A limit of the feedback service, which we do not ask."),
    (
        "10031",
        "any",
        MISCONFIGURED,
        "The app is on Xiaomi's black list: have it taken off in the developer console.",
    ),
    ("10032", "any", BAD_PAYLOAD, "A limit of the feedback service, which we do not ask."),
    ("10033", "any", BAD_PAYLOAD, "A limit of the feedback service, which we do not ask."),
    ("10034", "any", _ACCOUNT_QUOTA, "The app has sent too many messages today."),
    ("10035", "any", BAD_PAYLOAD, "A limit of the feedback service, which we do not ask."),
    ("10036", "any", MISCONFIGURED, "The app may not do this: ask Xiaomi's support for which rule it was stopped."),
    ("10037", "any", _ONE_MORE_TRY, "The request had expired when it was read."),
    ("10038", "any", BAD_PAYLOAD, "The app may not use the statistics, which we do not ask for."),
    ("10039", "any", BAD_PAYLOAD, "The statistics were asked for too often; we do not ask for them."),
    ("20301", "any", DOUBTFUL_TOKEN, "None of the tokens is valid, or the only one of the request was refused."),
    (
        "20301 of many",
        "any",
        BAD_PAYLOAD,
        "Sending failed for several tokens, and the reason does not speak of them: none is dropped.",
    ),
    ("20607", "any", RETRY, "Xiaomi's database has a fault."),
    (
        "21301",
        "any",
        MISCONFIGURED,
        "The secret was refused: copy the AppSecret of this app and region from the console.",
    ),
    ("21302", "any", MISCONFIGURED, "The secret was refused: copy the AppSecret, not AppId or AppKey."),
    ("21303", "any", MISCONFIGURED, "The app may not make this request: ask for the right in the developer console."),
    ("21305", "any", BAD_PAYLOAD, "A parameter is wrong."),
    ("22000", "any", MISCONFIGURED, "No such app: check the AppSecret and the region."),
    ("22006", "any", MISCONFIGURED, "The app's id is illegal: check the AppSecret and the region."),
    ("22007", "any", MISCONFIGURED, "The app's key is illegal: check the AppSecret and the region."),
    (
        "22022",
        "any",
        MISCONFIGURED,
        "The package name does not belong to the AppSecret: correct package_name.",
    ),
    ("22102", "any", _ONE_MORE_TRY, "Handing the notification to the app failed."),
    ("26003", "any", RETRY, "Xiaomi failed to call its own push service."),
    ("26004", "any", RATE_LIMITED, "Broadcasts come too often."),
    ("26006", "any", BAD_PAYLOAD, "The message has to be reviewed: see the review list in the developer console."),
    (
        "27001",
        "any",
        CLASS_MISCONFIGURED,
        "The channel is missing, wrong or not approved, or the template is not its own: correct kinds.<kind>.",
    ),
    ("65003", "any", OK, "The device was not found, mostly since it is offline: no reason to drop the token."),
    ("65006", "any", BAD_PAYLOAD, "A fault with an alias, a topic or a user account, which we do not use."),
    ("65007", "any", BAD_PAYLOAD, "A fault with an alias, a topic or a user account, which we do not use."),
    ("65008", "any", BAD_PAYLOAD, "A fault with an alias, a topic or a user account, which we do not use."),
    ("65009", "any", replace(BAD_PAYLOAD, remedy=Remedy.SHRINK), "The message is too long."),
    ("65010", "any", BAD_PAYLOAD, "A fault with an alias, a topic or a user account, which we do not use."),
    ("65011", "any", BAD_PAYLOAD, "A parameter is illegal."),
    ("65012", "any", BAD_PAYLOAD, "A fault with an alias, a topic or a user account, which we do not use."),
    ("65013", "any", BAD_PAYLOAD, "A fault with an alias, a topic or a user account, which we do not use."),
    ("65014", "any", BAD_PAYLOAD, "Too many extra fields."),
    ("65015", "any", BAD_PAYLOAD, "The extra fields are too long."),
    ("65016", "any", BAD_PAYLOAD, "A fault with an alias, a topic or a user account, which we do not use."),
    ("65017", "any", BAD_PAYLOAD, "A fault with an alias, a topic or a user account, which we do not use."),
    ("65029", "any", RETRY, "A service behind Xiaomi's has a fault."),
    ("65030", "any", RETRY, "A service behind Xiaomi's sent what it could not read."),
    ("65035", "any", BAD_PAYLOAD, "A fault with an alias, a topic or a user account, which we do not use."),
    ("65036", "any", BAD_PAYLOAD, "The parameter of the receipts is too long."),
    ("65037", "any", BAD_PAYLOAD, "The address of the receipts is too long."),
    ("65038", "any", BAD_PAYLOAD, "The address of the receipts is illegal."),
    (
        "200001",
        "any",
        QUOTA_EXHAUSTED,
        "The channel's daily quota is used up: it waits until midnight in China, or move to a private channel.",
    ),
    ("200002", "any", RATE_LIMITED, "Above the app's requests a second."),
    (
        "other codes",
        "any",
        BAD_PAYLOAD,
        "A number that is not listed here, perhaps of templates: this push ends, the token is kept.",
    ),
)
"""Codes of the answer's body, which go before the HTTP status."""
