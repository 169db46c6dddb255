"""What all vendors' answers have in common: tables of codes, bodies that may be anything, waits, access tokens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any

import msgspec

from pushfleet_workers.outcome import DayHour, Outcome, Remedy, Row, Scope, Verdict
from pushfleet_workers.vendor import AuthAnswer, Response

__all__ = [
    "BAD_PAYLOAD",
    "CHINA_DAY",
    "CLASS_MISCONFIGURED",
    "DOUBTFUL_TOKEN",
    "DROP_TOKEN",
    "MISCONFIGURED",
    "QUOTA_EXHAUSTED",
    "RATE_LIMITED",
    "REFRESH_AUTH",
    "RETRY",
    "STATUS_ROWS",
    "auth_refused",
    "judge",
    "parse_object",
    "plain",
    "read_token",
    "retry_after_s",
    "table",
]

BAD_PAYLOAD = Outcome(Verdict.BAD_PAYLOAD)
DROP_TOKEN = Outcome(Verdict.DROP_TOKEN)
DOUBTFUL_TOKEN = Outcome(Verdict.DROP_TOKEN, doubtful=True)
"""What a live token gets as well, when it is sent to with another app's, project's or environment's account."""

MISCONFIGURED = Outcome(Verdict.MISCONFIGURED, Scope.ACCOUNT)
RATE_LIMITED = Outcome(Verdict.RATE_LIMITED, Scope.ACCOUNT)
REFRESH_AUTH = Outcome(Verdict.REFRESH_AUTH, Scope.ACCOUNT)
RETRY = Outcome(Verdict.RETRY, Scope.ACCOUNT)
"""A fault of the vendor's servers: account scope, so that the breaker counts it."""

UNREADABLE = replace(RETRY, unknown=True)
"""Of a push: it may have been taken."""

CLASS_MISCONFIGURED = Outcome(Verdict.MISCONFIGURED, Scope.CLASS)
"""A right, template or channel that one class of messages lacks: the others go on. Where the message itself asked for
that class, it is the message's fault alone."""

CHINA_DAY = DayHour(0, 8)
"""Vendors in China count by the day in Beijing."""

QUOTA_EXHAUSTED = Outcome(Verdict.QUOTA_EXHAUSTED, Scope.CLASS, until=CHINA_DAY)
"""A daily quota of such a vendor: it opens at midnight there."""

WAIT_S_MAX = 86_400.0
"""No answer holds anything for longer than a day, whatever it asks for."""

TOKEN_LIFE_S = 3_600.0
"""Life of an access token whose answer names none."""

_CODE_LENGTH_MAX = 40


def table(*rows: tuple[str, str, Outcome, str]) -> dict[str, Row]:
    """The table of *rows* (code, status, outcome, meaning), by code; a later row replaces an earlier one."""
    return {code: Row(status, replace(outcome, code=code), meaning) for code, status, outcome, meaning in rows}


STATUS_ROWS: tuple[tuple[str, str, Outcome, str], ...] = (
    ("HTTP 400", "400", BAD_PAYLOAD, "Refused as malformed, with no code that we know."),
    ("HTTP 401", "401", REFRESH_AUTH, "Refused as unauthenticated, with no code that we know."),
    ("HTTP 403", "403", MISCONFIGURED, "Forbidden, with no code that we know: never a reason to drop a token."),
    ("HTTP 404", "404", MISCONFIGURED, "Wrong address, with no code that we know: never a reason to drop a token."),
    ("HTTP 405", "405", MISCONFIGURED, "The address takes no POST: it belongs to something else."),
    ("HTTP 407", "407", MISCONFIGURED, "The proxy wants credentials."),
    ("HTTP 408", "408", RETRY, "The request took too long to arrive."),
    ("HTTP 413", "413", replace(BAD_PAYLOAD, remedy=Remedy.SHRINK), "Too large."),
    ("HTTP 429", "429", RATE_LIMITED, "Too fast."),
    ("HTTP 4xx", "4xx", BAD_PAYLOAD, "Any other refusal: this push ends, nothing else is touched."),
    ("HTTP 5xx", "5xx", RETRY, "The vendor's servers, or what stands before them, have a fault."),
    ("HTTP 2xx", "2xx", UNREADABLE, "A success that nobody can read, or a portal: it may have taken the push."),
    ("HTTP other", "other", RETRY, "A redirect, or a success with a code that nobody knows."),
)
"""What a status says by itself; no status alone ever drops a token. The last four stand for whole ranges."""

_RANGES = {2: "HTTP 2xx", 4: "HTTP 4xx", 5: "HTTP 5xx"}
_BY_STATUS = table(*STATUS_ROWS)


def judge(codes: Mapping[str, Row], code: str, response: Response) -> Outcome:
    """The outcome of *code*, or of the status where *codes* lacks it, with the wait that the answer asks for."""
    row = codes.get(code)
    if row is not None:
        return _with_wait(row.outcome, response.headers)
    status = response.status
    name = f"HTTP {status}"
    row = codes.get(name)
    if row is None:
        # A success with a code that nobody knows is none, whatever the code.
        kind = "HTTP other" if code and status // 100 == 2 else _RANGES.get(status // 100, "HTTP other")
        row = codes.get(kind) or _BY_STATUS[kind]
    return _with_wait(replace(row.outcome, code=plain(code) or name), response.headers)


def plain(code: object) -> str:
    """*code* where it looks like one (up to 40 ASCII letters, digits, underscores), else nothing.

    What a vendor sends where a code should be ends in metrics and traces: no token or text may slip through, and
    no vendor has tokens that short.
    """
    if isinstance(code, int) and not isinstance(code, bool) and abs(code) < 10**_CODE_LENGTH_MAX:
        return str(code)
    if isinstance(code, str) and len(code) <= _CODE_LENGTH_MAX and code.isascii() and code.replace("_", "").isalnum():
        return code
    return ""


def parse_object(body: bytes | str) -> dict[str, Any]:
    """The JSON object in *body*; an empty one where there is anything else."""
    try:
        content = msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """How long ``retry-after`` asks to wait, from 0 s to a day; None where it is absent or unreadable.

    A date counts from the answer's own ``date``: the vendor's clock against itself, ours is not asked.
    """
    value = headers.get("retry-after", "").strip()
    if not value:
        return None
    if value.isascii() and value.isdecimal():
        # More digits than these are more than a day.
        return min(float(value[:12]), WAIT_S_MAX)
    until, now = _date(value), _date(headers.get("date", ""))
    if until is None or now is None:
        return None
    return min(max((until - now).total_seconds(), 0.0), WAIT_S_MAX)


def read_token(response: Response) -> AuthAnswer:
    """The access token in an OAuth 2 answer (RFC 6749 section 5), or why there is none.

    Refusals are MISCONFIGURED with the endpoint's own ``error``; faults of its servers are RETRY, 429 RATE_LIMITED.
    """
    content = parse_object(response.body)
    value = content.get("access_token")
    # The token becomes a header: what cannot be one is no token.
    if response.status == 200 and isinstance(value, str) and value.isascii() and value.isprintable() and value.strip():
        life_s = content.get("expires_in")
        if isinstance(life_s, int | float) and 0 < life_s <= WAIT_S_MAX:
            return AuthAnswer(value, float(life_s))
        return AuthAnswer(value, TOKEN_LIFE_S)
    outcome = judge(_AUTH_CODES, "", response)
    return AuthAnswer(failure=replace(outcome, code=plain(content.get("error")) or outcome.code))


def auth_refused(codes: Mapping[str, Row], code: str, response: Response) -> AuthAnswer:
    """Why there is no access token, where the endpoint answers in the vendor's own *codes*.

    Faults of its servers and limits are what *codes* say; any other refusal is MISCONFIGURED, with its code.
    """
    outcome = judge(codes, code, response)
    if outcome.verdict in (Verdict.RETRY, Verdict.RETRY_AFTER, Verdict.RATE_LIMITED):
        return AuthAnswer(failure=outcome)
    return AuthAnswer(failure=replace(MISCONFIGURED, code=outcome.code))


_AUTH_CODES = table(
    *STATUS_ROWS,
    *((f"HTTP {status}", status, MISCONFIGURED, "Refused.") for status in ("400", "401", "4xx", "413")),
)


def _with_wait(outcome: Outcome, headers: Mapping[str, str]) -> Outcome:
    if outcome.verdict is Verdict.RATE_LIMITED:
        asked_s = retry_after_s(headers)
        return outcome if asked_s is None else replace(outcome, wait_s=asked_s)
    if outcome.verdict is Verdict.RETRY:
        asked_s = retry_after_s(headers)
        if asked_s is not None:
            # What the table demands is a minimum.
            return replace(outcome, verdict=Verdict.RETRY_AFTER, wait_s=max(asked_s, outcome.wait_s or 0.0))
    return outcome


def _date(value: str) -> datetime | None:
    try:
        date = parsedate_to_datetime(value)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    # Without a zone it is no HTTP date, and could not be compared with one.
    return date if date.tzinfo is not None else None
