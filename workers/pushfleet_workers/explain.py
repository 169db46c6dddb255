"""What a vendor's answer means and what the fleet would do with it, in words for operators. Pure."""

from __future__ import annotations

import random
from collections.abc import Mapping
from datetime import UTC, datetime

from pushfleet_workers.outcome import Outcome, Remedy, Row, Scope, Verdict
from pushfleet_workers.push import Delivery, Push
from pushfleet_workers.reasons import DEAD
from pushfleet_workers.retry import End, Later, RetryPolicy, next_step

__all__ = ["answered", "consequence"]

_REMEDIES = {
    Remedy.SHRINK: "with its texts cut to half",
    Remedy.NEUTRAL_TEXT: "with the account's neutral text",
    Remedy.SPLIT: "in two halves",
    Remedy.SINGLE_SEND: "by itself",
    Remedy.NO_IMAGE: "without its picture",
}
_NEXT_CHANNEL = ", and try the device's next channel where it has one"


class _Longest(random.Random):
    """Draws the longest wait."""

    def uniform(self, a: float, b: float) -> float:
        return b


def answered(outcome: Outcome, codes: Mapping[str, Row], status: int) -> str:
    """The vendor's code with its meaning, and the HTTP *status*; 0: there was none."""
    row = codes.get(outcome.code)
    code = f"{outcome.code}: {row.meaning.rstrip('.')}" if row is not None else outcome.code
    return "; ".join([part for part in (code, f"HTTP {status}" if status else "") if part])


def consequence(outcome: Outcome, push: Push, delivery: Delivery, now_ms: int, policy: RetryPolicy) -> str:
    """What the fleet would do with *delivery* and its account, so that it completes "the fleet would …"."""
    step = next_step(outcome, delivery, push.expires_at_ms, now_ms, policy, _Longest())
    if isinstance(step, Later) and step.remedy:
        return f"send it once more at once, {_REMEDIES[Remedy(step.remedy)]}"
    match outcome.verdict:
        case Verdict.OK:
            return "count it as sent"
        case Verdict.DROP_TOKEN:
            return _drop(outcome) + _NEXT_CHANNEL
        case Verdict.MUTE_DEVICE:
            return "end it, and send nothing to this device until it registers anew"
        case Verdict.BAD_PAYLOAD:
            return f"put it among the dead letters, since {DEAD['bad_payload'].sentence}"
    return ", and ".join(
        [part for part in (_for_all(outcome, push, now_ms), _for_itself(outcome, step, policy)) if part]
    )


def _drop(outcome: Outcome) -> str:
    if outcome.doubtful:
        return "set the token aside, and drop it only once it is sure that the account is not at fault"
    if outcome.since_ms is None:
        return "drop the token"
    since = datetime.fromtimestamp(outcome.since_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    return f"drop the token if it was registered before {since}"


def _for_all(outcome: Outcome, push: Push, now_ms: int) -> str:
    """What the answer means for more than this delivery."""
    verdict, asked_ms = outcome.verdict, outcome.asked_ms(now_ms)
    pause = f"for {_span(asked_ms)}" if asked_ms else "for a moment"
    if verdict is Verdict.REFRESH_AUTH:
        return "obtain a new authorization"
    if outcome.scope is Scope.DEVICE:
        return ""
    held = f"the account's messages of kind {push.kind}" if outcome.scope is Scope.CLASS else "the account's work"
    if verdict is Verdict.MISCONFIGURED:
        return f"hold {held} until the fault is mended, trying one push now and then"
    if outcome.scope is Scope.CLASS or verdict in (Verdict.QUOTA_EXHAUSTED, Verdict.RETRY_AFTER):
        return f"hold {held} {pause}"
    if verdict is Verdict.RATE_LIMITED:
        return f"hold {held} {pause} and then send more slowly"
    return "count a failure, a row of which holds the account's work"


def _for_itself(outcome: Outcome, step: End | Later, policy: RetryPolicy) -> str:
    if isinstance(step, End):
        if step.end == "dead":
            return f"put it among the dead letters, since {DEAD[step.reason].sentence}"
        if step.reason == "unknown_outcome":
            return "drop it, as it may have arrived"
        return "let it expire, as its time to live is over by then"
    if outcome.verdict is Verdict.MISCONFIGURED and outcome.scope is not Scope.DEVICE:
        return ""
    when = f"within {_span(step.wait_ms)}" if step.wait_ms else "at once"
    times = f", {policy.attempts_max} times at most" if step.counts else ""
    elsewhere = " unless the device has another channel" if outcome.verdict is Verdict.QUOTA_EXHAUSTED else ""
    return f"send it again {when}{times}{elsewhere}"


def _span(ms: float) -> str:
    seconds = max(1, round(ms / 1000))
    if seconds < 120:
        return f"{seconds} s"
    return f"{round(seconds / 60)} min" if seconds < 7_200 else f"{round(seconds / 3_600)} h"
