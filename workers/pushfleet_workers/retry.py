"""What follows from an outcome for one delivery: an end, another attempt, or waiting for the account. Pure."""

from __future__ import annotations

import random
from dataclasses import dataclass

from pushfleet_workers.outcome import NOT_RECALLABLE, Outcome, Scope, Verdict
from pushfleet_workers.push import Delivery

__all__ = ["SENT", "End", "Later", "RetryPolicy", "backoff_ms", "next_step"]


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often and how far apart failed deliveries are tried again."""

    attempts_max: int = 8
    first_s: float = 1.0
    longest_s: float = 300.0
    drop_unknown: bool = False
    """Whether what the vendor may have taken ends instead of being tried again."""


@dataclass(frozen=True, slots=True)
class End:
    """The delivery is over."""

    end: str
    """``sent``, ``dropped`` or ``dead``; ``moved`` for what goes on in another account's ledger."""

    reason: str = ""


@dataclass(frozen=True, slots=True)
class Later:
    """The delivery is tried again."""

    wait_ms: int
    counts: bool = True
    """Whether it costs one of the delivery's attempts; waiting for an account does not."""

    remedy: str = ""


SENT = End("sent")


def backoff_ms(attempt: int, policy: RetryPolicy, rng: random.Random) -> int:
    """How long to wait after failed attempt *attempt* (from 0): exponential, full jitter, in milliseconds."""
    longest_s = min(policy.longest_s, policy.first_s * 2.0 ** min(attempt, 30))
    return int(rng.uniform(0, longest_s) * 1000)


def next_step(
    outcome: Outcome, delivery: Delivery, expires_at_ms: int, now_ms: int, policy: RetryPolicy, rng: random.Random
) -> End | Later:
    """The next step of *delivery* after *outcome*.

    What would only come up again after the message expired ends now as ``dropped(expired)``.
    """
    verdict = outcome.verdict
    if verdict is Verdict.OK:
        return SENT
    if verdict is Verdict.DROP_TOKEN:
        return End("dropped", "token_dead")
    if verdict is Verdict.MUTE_DEVICE:
        return End("dropped", "device_muted")
    if outcome is NOT_RECALLABLE:
        return End("dropped", NOT_RECALLABLE.code)
    if verdict is Verdict.BAD_PAYLOAD:
        if outcome.remedy is not None and not delivery.remedy:
            return Later(0, remedy=outcome.remedy.value)
        return End("dead", "bad_payload")
    if outcome.unknown and policy.drop_unknown:
        return End("dropped", "unknown_outcome")
    step = _wait_for(outcome, delivery, now_ms, policy, rng)
    if step.counts and delivery.attempt + 1 >= policy.attempts_max:
        return End("dead", "attempts")
    if now_ms + step.wait_ms >= expires_at_ms:
        return End("dropped", "expired")
    return step


def _wait_for(outcome: Outcome, delivery: Delivery, now_ms: int, policy: RetryPolicy, rng: random.Random) -> Later:
    # A fault of the account or class is not the delivery's: it waits at the gate and costs no attempt. But where each
    # attempt may show it once more, they have to be few.
    counts = outcome.scope is Scope.DEVICE or outcome.unknown
    if outcome.verdict is Verdict.REFRESH_AUTH:
        return Later(0, counts=counts)
    return Later(int(outcome.asked_ms(now_ms)) + backoff_ms(delivery.attempt, policy, rng), counts=counts)
