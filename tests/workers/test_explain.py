"""What the fleet would do, in words: whatever retry, gate and token state do has its words here."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from tests.workers.vendors.samples import NOW_MS, a_delivery, a_push

from pushfleet_workers import registry
from pushfleet_workers.explain import answered, consequence
from pushfleet_workers.outcome import Outcome, Remedy, Scope, Verdict
from pushfleet_workers.retry import End, RetryPolicy, next_step

POLICY = RetryPolicy(attempts_max=8, first_s=1, longest_s=300)
AGAIN = "send it again within 2 h unless the device has another channel"
NEXT = ", and try the device's next channel where it has one"


def told(outcome: Outcome, policy: RetryPolicy = POLICY, kind: str = "chat", ttl_s: int = 86_400) -> str:
    push = a_push(kind=kind, expires_at_ms=NOW_MS + ttl_s * 1_000)
    return consequence(outcome, push, a_delivery(), NOW_MS, policy)


@pytest.mark.parametrize(
    ("outcome", "expected"),
    [
        (Outcome(Verdict.OK), "count it as sent"),
        (Outcome(Verdict.DROP_TOKEN), f"drop the token{NEXT}"),
        (
            Outcome(Verdict.DROP_TOKEN, since_ms=1_767_225_600_000),
            f"drop the token if it was registered before 2026-01-01 00:00:00 UTC{NEXT}",
        ),
        (
            Outcome(Verdict.DROP_TOKEN, doubtful=True),
            f"set the token aside, and drop it only once it is sure that the account is not at fault{NEXT}",
        ),
        (Outcome(Verdict.MUTE_DEVICE), "end it, and send nothing to this device until it registers anew"),
        (Outcome(Verdict.BAD_PAYLOAD), "put it among the dead letters, since the vendor refuses the payload"),
        (Outcome(Verdict.BAD_PAYLOAD, remedy=Remedy.SHRINK), "send it once more at once, with its texts cut to half"),
        (Outcome(Verdict.RETRY), "send it again within 1 s, 8 times at most"),
        (Outcome(Verdict.RETRY_AFTER, wait_s=600), "send it again within 10 min, 8 times at most"),
        (Outcome(Verdict.MISCONFIGURED), "send it again within 1 s, 8 times at most"),
        (
            Outcome(Verdict.RETRY, Scope.ACCOUNT),
            "count a failure, a row of which holds the account's work, and send it again within 1 s",
        ),
        (
            Outcome(Verdict.RETRY, Scope.ACCOUNT, unknown=True),
            "count a failure, a row of which holds the account's work, and send it again within 1 s, 8 times at most",
        ),
        (
            Outcome(Verdict.RETRY_AFTER, Scope.ACCOUNT, wait_s=60),
            "hold the account's work for 60 s, and send it again within 61 s",
        ),
        (
            Outcome(Verdict.RATE_LIMITED, Scope.ACCOUNT),
            "hold the account's work for a moment and then send more slowly, and send it again within 1 s",
        ),
        (Outcome(Verdict.REFRESH_AUTH, Scope.ACCOUNT), "obtain a new authorization, and send it again at once"),
        (
            Outcome(Verdict.MISCONFIGURED, Scope.ACCOUNT),
            "hold the account's work until the fault is mended, trying one push now and then",
        ),
        (
            Outcome(Verdict.MISCONFIGURED, Scope.CLASS),
            "hold the account's messages of kind chat until the fault is mended, trying one push now and then",
        ),
        (
            Outcome(Verdict.QUOTA_EXHAUSTED, Scope.CLASS, wait_s=7_200),
            f"hold the account's messages of kind chat for 2 h, and {AGAIN}",
        ),
    ],
)
def test_what_the_fleet_would_do(outcome: Outcome, expected: str) -> None:
    assert told(outcome) == expected


def test_what_the_time_to_live_and_the_attempts_leave_no_room_for() -> None:
    assert (
        told(Outcome(Verdict.RETRY_AFTER, wait_s=600), ttl_s=30) == "let it expire, as its time to live is over by then"
    )
    strict = replace(POLICY, drop_unknown=True)
    assert told(Outcome(Verdict.RETRY, unknown=True), strict) == "drop it, as it may have arrived"
    once = replace(POLICY, attempts_max=1)
    assert told(Outcome(Verdict.RETRY), once).startswith("put it among the dead letters, since it failed as often")


@pytest.mark.parametrize("name", registry.names())
def test_every_row_of_every_table_is_told(name: str) -> None:
    for code, row in registry.load(name).codes.items():
        sentence = told(row.outcome)
        assert sentence
        step = next_step(row.outcome, a_delivery(), NOW_MS + 86_400_000, NOW_MS, POLICY, random.Random(1))
        assert sentence.startswith("put it among the dead letters") == (step == End("dead", "bad_payload")), code
        assert (sentence == "count it as sent") == (row.outcome.verdict is Verdict.OK), code


def test_the_answer_is_told_with_the_meaning_of_its_code() -> None:
    codes = registry.load("apns").codes
    assert answered(codes["HTTP 413"].outcome, codes, 413) == "HTTP 413: Too large; HTTP 413"
    assert answered(Outcome(Verdict.RETRY, code="New"), codes, 500) == "New; HTTP 500"
    assert answered(Outcome(Verdict.OK), codes, 200) == "HTTP 200"
    assert answered(Outcome(Verdict.RETRY, code="New"), codes, 0) == "New"
