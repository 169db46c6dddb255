"""What a vendor's answer means for one delivery: the only words that retry, pauses and metrics speak."""

from __future__ import annotations

import enum
from dataclasses import dataclass

__all__ = ["OK", "Outcome", "Remedy", "Scope", "Verdict"]


class Verdict(enum.StrEnum):
    """What to do with the delivery."""

    OK = "ok"
    DROP_TOKEN = "drop_token"
    MUTE_DEVICE = "mute_device"
    RETRY = "retry"
    RETRY_AFTER = "retry_after"
    REFRESH_AUTH = "refresh_auth"
    RATE_LIMITED = "rate_limited"
    BAD_PAYLOAD = "bad_payload"
    MISCONFIGURED = "misconfigured"
    QUOTA_EXHAUSTED = "quota_exhausted"


class Scope(enum.StrEnum):
    """How far the verdict reaches: this device, a message class of the account, or the whole account."""

    DEVICE = "device"
    CLASS = "class"
    ACCOUNT = "account"


class Remedy(enum.StrEnum):
    """A change to the request that may cure it; tried at most once per delivery."""

    SHRINK = "shrink"
    NEUTRAL_TEXT = "neutral_text"
    SPLIT = "split"
    SINGLE_SEND = "single_send"


@dataclass(frozen=True, slots=True)
class Outcome:
    """The reading of a vendor's answer for one delivery."""

    verdict: Verdict
    scope: Scope = Scope.DEVICE
    code: str = ""
    """The vendor's own code or reason, for metrics and traces; never a token or a text."""

    wait_s: float | None = None
    """How long the vendor asks to wait, where it says so."""

    since_ms: int | None = None
    """For DROP_TOKEN: when the vendor noticed the death. A token registered later lives on."""

    remedy: Remedy | None = None
    reconnect: bool = False
    """The connection that gave this answer is worn out; the next attempt needs a new one."""


OK = Outcome(Verdict.OK)
