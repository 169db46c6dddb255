"""What a vendor's answer means for one delivery: the only words that retry, pauses and metrics speak."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import NamedTuple

__all__ = ["NOT_RECALLABLE", "OK", "DayHour", "Outcome", "Remedy", "Row", "Scope", "Verdict"]

_HOUR_MS = 3_600_000
_DAY_MS = 24 * _HOUR_MS


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
    NO_IMAGE = "no_image"


@dataclass(frozen=True, slots=True)
class DayHour:
    """An hour of the day in the vendor's own time zone, at which what it refused is open again."""

    hour: int
    utc_offset_h: int

    @property
    def shift_ms(self) -> int:
        """How long after midnight UTC it is this hour there, in milliseconds; negative: before it."""
        return (self.hour - self.utc_offset_h) * _HOUR_MS

    def next_ms(self, now_ms: float) -> float:
        """The next time that it is this hour there, Unix milliseconds."""
        return ((now_ms - self.shift_ms) // _DAY_MS + 1) * _DAY_MS + self.shift_ms

    def __str__(self) -> str:
        return f"{self.hour:02}:00 UTC{self.utc_offset_h:+d}"


@dataclass(frozen=True, slots=True)
class Outcome:
    """The reading of a vendor's answer for one delivery."""

    verdict: Verdict
    scope: Scope = Scope.DEVICE
    code: str = ""
    """The vendor's own code or reason, for metrics and traces; never a token or a text."""

    wait_s: float | None = None
    """How long the vendor asks to wait, where it says so."""

    until: DayHour | None = None
    """When the vendor opens again, where it goes by the day: daily quotas, hours of silence."""

    since_ms: int | None = None
    """For DROP_TOKEN: when the vendor noticed the death. A token registered later lives on."""

    doubtful: bool = False
    """For DROP_TOKEN: the code may speak of the account (its environment, app or project) rather than of the token."""

    remedy: Remedy | None = None
    unknown: bool = False
    """The vendor may have taken it all the same: another attempt may show it twice."""

    reconnect: bool = False
    """The connection that gave this answer is worn out; the next attempt needs a new one."""

    def asked_ms(self, now_ms: float) -> float:
        """How long the vendor wants to be left alone from *now_ms* on, in milliseconds; 0: it does not say."""
        until_ms = self.until.next_ms(now_ms) - now_ms if self.until is not None else 0.0
        return max(until_ms, (self.wait_s or 0.0) * 1000)


class Row(NamedTuple):
    """One line of a vendor's table of codes."""

    status: str
    """The HTTP status that it comes with, or ``any``."""

    outcome: Outcome
    meaning: str
    """For operators, with the mend where they can mend it; in the vendor's page of the documentation word for word."""


OK = Outcome(Verdict.OK)
NOT_RECALLABLE = Outcome(Verdict.BAD_PAYLOAD, code="not_recallable")
"""The vendor has no means to take back what it showed."""
