"""What must become of a delivery, its token and its account when a row of a vendor's table befalls it. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from pushfleet_workers.outcome import Outcome, Scope, Verdict

__all__ = ["SHORT_TTL_S", "TTL_S", "Fate", "fate", "shuts", "ttl_s"]

TTL_S = 300
SHORT_TTL_S = 45
"""Of messages that meet a longer wait: they expire at once instead of being waited for."""


@dataclass(frozen=True)
class Fate:
    """How a delivery ends, and what the token state then says of where it went."""

    end: str
    """``end:reason``, as the books name it."""

    token: str = "kept"
    """``kept``, ``gone``, ``quarantined``, or ``muted`` for the whole device."""


SENT = Fate("sent:")


def ttl_s(outcome: Outcome) -> int:
    """Time to live of the message that awaits *outcome*: waits of seconds are met, those of a minute or a day not."""
    return SHORT_TTL_S if _waits_long(outcome) else TTL_S


def fate(outcome: Outcome) -> Fate:
    """The fate of a delivery that gets *outcome* until somebody mends the cause."""
    match outcome.verdict:
        case Verdict.OK:
            return SENT
        case Verdict.DROP_TOKEN:
            # So little is sent with its account that nothing confirms a doubtful death.
            return Fate("dropped:token_dead", "quarantined" if outcome.doubtful else "gone")
        case Verdict.MUTE_DEVICE:
            return Fate("dropped:device_muted", "muted")
        case Verdict.BAD_PAYLOAD:
            return Fate("dead:bad_payload") if outcome.remedy is None else SENT
    if outcome.unknown:
        # Each attempt may have been shown, so they have an end.
        return Fate("dead:attempts")
    return Fate("dropped:expired") if _waits_long(outcome) else SENT


def shuts(outcome: Outcome) -> bool:
    """Whether *outcome*, when it goes on, stops the whole account."""
    return outcome.scope is Scope.ACCOUNT


def _waits_long(outcome: Outcome) -> bool:
    return outcome.until is not None or (outcome.wait_s or 0) > SHORT_TTL_S
