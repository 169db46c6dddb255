import random
from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pushfleet_workers.outcome import OK, Outcome, Remedy, Scope, Verdict
from pushfleet_workers.push import Delivery
from pushfleet_workers.retry import SENT, End, Later, RetryPolicy, backoff_ms, next_step

POLICY = RetryPolicy(attempts_max=3, first_s=1.0, longest_s=8.0)
NOW_MS = 1_000_000
TTL_MS = 60_000


def a_delivery(attempt: int = 0, remedy: str = "") -> Delivery:
    return Delivery(b"d" * 16, "u", "d", "token", 0, attempt=attempt, remedy=remedy)


def step_after(outcome: Outcome, *, attempt: int = 0, remedy: str = "", ttl_ms: int = TTL_MS) -> End | Later:
    return next_step(outcome, a_delivery(attempt, remedy), NOW_MS + ttl_ms, NOW_MS, POLICY, random.Random(7))


BAD = Verdict.BAD_PAYLOAD
EXHAUSTED = Verdict.QUOTA_EXHAUSTED
AGAIN, FREE = "again", "again, for free"

TABLE = [
    (OK, 0, SENT),
    (OK, 99, SENT),
    (Outcome(Verdict.DROP_TOKEN), 0, End("dropped", "token_dead")),
    (Outcome(Verdict.MUTE_DEVICE), 0, End("dropped", "device_muted")),
    (Outcome(BAD), 0, End("dead", "bad_payload")),
    (Outcome(BAD, remedy=Remedy.SHRINK), 0, Later(0, remedy="shrink")),
    (Outcome(Verdict.RETRY), 0, AGAIN),
    (Outcome(Verdict.RETRY), 1, AGAIN),
    (Outcome(Verdict.RETRY), 2, End("dead", "attempts")),
    (Outcome(Verdict.RETRY, Scope.ACCOUNT), 2, FREE),
    (Outcome(Verdict.RETRY, Scope.CLASS), 2, FREE),
    (Outcome(Verdict.RETRY, Scope.ACCOUNT, unknown=True), 1, AGAIN),
    (Outcome(Verdict.RETRY, Scope.ACCOUNT, unknown=True), 2, End("dead", "attempts")),
    (Outcome(Verdict.RETRY_AFTER, wait_s=5), 0, AGAIN),
    (Outcome(Verdict.RATE_LIMITED, Scope.DEVICE), 0, AGAIN),
    (Outcome(Verdict.RATE_LIMITED, Scope.DEVICE), 2, End("dead", "attempts")),
    (Outcome(Verdict.RATE_LIMITED, Scope.ACCOUNT, wait_s=5), 2, FREE),
    (Outcome(EXHAUSTED, Scope.CLASS, wait_s=5), 2, FREE),
    (Outcome(EXHAUSTED, Scope.ACCOUNT, wait_s=61), 0, End("dropped", "expired")),
    (Outcome(Verdict.MISCONFIGURED, Scope.ACCOUNT), 2, FREE),
    (Outcome(Verdict.REFRESH_AUTH, Scope.ACCOUNT), 0, FREE),
    (Outcome(Verdict.REFRESH_AUTH, Scope.ACCOUNT), 2, FREE),
]


def names() -> Iterator[str]:
    for outcome, attempt, _ in TABLE:
        yield f"{outcome.verdict}-{outcome.scope}-{outcome.remedy}-{outcome.wait_s}-{outcome.unknown}-{attempt}"


@pytest.mark.parametrize(("outcome", "attempt", "expected"), TABLE, ids=names())
def test_what_follows_from_an_outcome(outcome: Outcome, attempt: int, expected: object) -> None:
    step = step_after(outcome, attempt=attempt)
    if isinstance(expected, str):
        assert isinstance(step, Later)
        assert step.counts is (expected == AGAIN)
        assert step.wait_ms >= (outcome.wait_s or 0) * 1_000
    else:
        assert step == expected


def test_every_verdict_is_in_the_table() -> None:
    assert {outcome.verdict for outcome, _, _ in TABLE} == set(Verdict)


@pytest.mark.parametrize("scope", Scope)
@pytest.mark.parametrize("attempt", [0, 99])
def test_what_may_have_arrived_ends_where_the_policy_says_so_and_nothing_else(scope: Scope, attempt: int) -> None:
    strict = replace(POLICY, drop_unknown=True)
    known, unknown = Outcome(Verdict.RETRY, scope), Outcome(Verdict.RETRY, scope, unknown=True)
    steps = [
        next_step(one, a_delivery(attempt), NOW_MS + TTL_MS, NOW_MS, strict, random.Random(7))
        for one in (known, unknown)
    ]
    assert steps == [step_after(known, attempt=attempt), End("dropped", "unknown_outcome")]


@pytest.mark.parametrize("remedy", list(Remedy))
def test_a_remedy_is_used_once_and_no_second_one_after_it(remedy: Remedy) -> None:
    outcome = Outcome(BAD, remedy=remedy)
    assert step_after(outcome) == Later(0, remedy=remedy.value)
    for used in Remedy:
        assert step_after(outcome, remedy=used.value) == End("dead", "bad_payload")


def test_a_fresh_authorization_is_tried_at_once() -> None:
    step = step_after(Outcome(Verdict.REFRESH_AUTH, Scope.ACCOUNT))
    assert step == Later(0, counts=False)


def test_what_would_come_up_after_its_time_ends_now() -> None:
    asked = Outcome(Verdict.RETRY_AFTER, wait_s=10)
    assert step_after(asked, ttl_ms=10_000) == End("dropped", "expired")
    assert step_after(Outcome(Verdict.REFRESH_AUTH, Scope.ACCOUNT), ttl_ms=0) == End("dropped", "expired")


@given(
    attempt=st.integers(0, 10_000),
    first_s=st.floats(0.001, 1_000),
    longest_s=st.floats(0.001, 100_000),
    seed=st.integers(),
)
def test_the_wait_is_at_most_the_doubled_one_and_never_above_the_longest(
    attempt: int, first_s: float, longest_s: float, seed: int
) -> None:
    policy = RetryPolicy(first_s=first_s, longest_s=longest_s)
    wait_ms = backoff_ms(attempt, policy, random.Random(seed))
    assert 0 <= wait_ms <= longest_s * 1_000
    assert wait_ms <= first_s * 1_000 * 2.0 ** min(attempt, 30)


def test_the_waits_are_spread_over_the_whole_of_it() -> None:
    rng = random.Random(1)
    waits = [backoff_ms(3, POLICY, rng) for _ in range(300)]
    assert min(waits) < 800
    assert max(waits) > 7_200


outcomes = st.builds(
    Outcome,
    verdict=st.sampled_from(Verdict),
    scope=st.sampled_from(Scope),
    wait_s=st.none() | st.floats(-10, 100_000),
    remedy=st.none() | st.sampled_from(Remedy),
)


@given(
    outcome=outcomes,
    attempt=st.integers(0, 20),
    remedy=st.sampled_from(["", *Remedy]),
    ttl_ms=st.integers(-5, 200_000),
    seed=st.integers(),
)
def test_whatever_happens_the_step_is_within_ttl_and_attempts(
    outcome: Outcome, attempt: int, remedy: str, ttl_ms: int, seed: int
) -> None:
    step = next_step(outcome, a_delivery(attempt, remedy), NOW_MS + ttl_ms, NOW_MS, POLICY, random.Random(seed))
    if isinstance(step, End):
        assert step.end in ("sent", "dropped", "dead")
        assert (step == SENT) is (outcome.verdict is Verdict.OK)
        return
    assert step.wait_ms >= 0
    if step.remedy:
        assert not remedy
        return
    assert step.wait_ms < ttl_ms
    assert step.wait_ms <= max(0.0, outcome.wait_s or 0.0) * 1_000 + POLICY.longest_s * 1_000
    if step.counts:
        assert attempt + 1 < POLICY.attempts_max
        assert outcome.scope is Scope.DEVICE


@given(script=st.lists(outcomes, min_size=60, max_size=60), seed=st.integers())
def test_a_delivery_ends_after_so_many_answers_of_its_own(script: list[Outcome], seed: int) -> None:
    delivery, rng, now_ms, answers = a_delivery(), random.Random(seed), NOW_MS, 0
    expires_at_ms = NOW_MS + TTL_MS
    for outcome in script:
        step = next_step(outcome, delivery, expires_at_ms, now_ms, POLICY, rng)
        if isinstance(step, End):
            break
        if step.counts:
            delivery.attempt += 1
            answers += 1
        delivery.remedy = step.remedy or delivery.remedy
        now_ms += step.wait_ms
        assert now_ms <= expires_at_ms
    # A remedy is one attempt more.
    assert answers <= POLICY.attempts_max
