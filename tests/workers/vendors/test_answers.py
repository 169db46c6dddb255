from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pushfleet_workers.outcome import Scope, Verdict
from pushfleet_workers.vendor import Response
from pushfleet_workers.vendors._answers import (
    STATUS_ROWS,
    judge,
    parse_object,
    plain,
    read_token,
    retry_after_s,
    table,
)

DATE = "Wed, 21 Oct 2026 07:28:00 GMT"
CODES = table(*STATUS_ROWS)


@pytest.mark.parametrize(
    ("headers", "wait_s"),
    [
        ({}, None),
        ({"retry-after": ""}, None),
        ({"retry-after": "37"}, 37.0),
        ({"retry-after": " 0 "}, 0.0),
        ({"retry-after": "-5"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "³"}, None),
        ({"retry-after": "9" * 5_000}, 86_400.0),
        ({"retry-after": "Wed, 21 Oct 2026 07:28:30 GMT"}, None),
        ({"retry-after": "Wed, 21 Oct 2026 07:28:30 GMT", "date": DATE}, 30.0),
        ({"retry-after": "Wed, 21 Oct 2026 07:27:30 GMT", "date": DATE}, 0.0),
        ({"retry-after": "Wed, 21 Oct 2037 07:28:00 GMT", "date": DATE}, 86_400.0),
        ({"retry-after": "Wed, 21 Oct 2026 07:28:30 -0000", "date": DATE}, None),
        ({"retry-after": DATE, "date": "today"}, None),
    ],
)
def test_retry_after_is_seconds_or_a_date_against_the_answers_own(
    headers: dict[str, str], wait_s: float | None
) -> None:
    assert retry_after_s(headers) == wait_s


@given(st.dictionaries(st.sampled_from(["retry-after", "date"]), st.text(max_size=40)))
def test_no_header_is_too_strange(headers: dict[str, str]) -> None:
    wait_s = retry_after_s(headers)
    assert wait_s is None or 0 <= wait_s <= 86_400


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"null", b'{"a":', b"\xff\xfe", b"[" * 100_000])
def test_what_is_no_object_is_an_empty_one(body: bytes) -> None:
    assert parse_object(body) == {}


def test_an_object_is_itself() -> None:
    assert parse_object('{"code":"80000000"}') == {"code": "80000000"}


@pytest.mark.parametrize(
    ("given", "code"),
    [
        ("BadTopic", "BadTopic"),
        ("NOT_FOUND", "NOT_FOUND"),
        (1101, "1101"),
        ("", ""),
        (True, ""),
        (None, ""),
        ("___", ""),
        ("two words", ""),
        ("ünicode", ""),
        ("a" * 41, ""),
        (10**60, ""),
    ],
)
def test_only_what_looks_like_a_code_is_kept(given: object, code: str) -> None:
    assert plain(given) == code


@pytest.mark.parametrize(
    ("status", "verdict", "scope"),
    [
        (400, Verdict.BAD_PAYLOAD, Scope.DEVICE),
        (401, Verdict.REFRESH_AUTH, Scope.ACCOUNT),
        (402, Verdict.BAD_PAYLOAD, Scope.DEVICE),
        (403, Verdict.MISCONFIGURED, Scope.ACCOUNT),
        (404, Verdict.MISCONFIGURED, Scope.ACCOUNT),
        (405, Verdict.MISCONFIGURED, Scope.ACCOUNT),
        (407, Verdict.MISCONFIGURED, Scope.ACCOUNT),
        (408, Verdict.RETRY, Scope.ACCOUNT),
        (410, Verdict.BAD_PAYLOAD, Scope.DEVICE),
        (413, Verdict.BAD_PAYLOAD, Scope.DEVICE),
        (429, Verdict.RATE_LIMITED, Scope.ACCOUNT),
        (500, Verdict.RETRY, Scope.ACCOUNT),
        (504, Verdict.RETRY, Scope.ACCOUNT),
        (302, Verdict.RETRY, Scope.ACCOUNT),
        (0, Verdict.RETRY, Scope.ACCOUNT),
        (999, Verdict.RETRY, Scope.ACCOUNT),
    ],
)
def test_a_code_that_nobody_knows_goes_by_its_status(status: int, verdict: Verdict, scope: Scope) -> None:
    known = judge(CODES, "", Response(status, {}, b""))
    assert (known.verdict, known.scope, known.code) == (verdict, scope, f"HTTP {status}")
    assert judge(CODES, "NewCode", Response(status, {}, b"")).code == "NewCode"


@pytest.mark.parametrize("status", [200, 202, 204])
def test_of_a_success_that_nobody_can_read_it_is_not_known_whether_it_was_one(status: int) -> None:
    outcome = judge(CODES, "", Response(status, {}, b"<html>"))
    assert (outcome.verdict, outcome.scope, outcome.unknown) == (Verdict.RETRY, Scope.ACCOUNT, True)
    assert outcome.code == f"HTTP {status}"


def test_whoever_names_a_code_has_not_taken_the_push() -> None:
    outcome = judge(CODES, "NewCode", Response(200, {}, b""))
    assert (outcome.verdict, outcome.unknown, outcome.code) == (Verdict.RETRY, False, "NewCode")


@pytest.mark.parametrize("status", [0, 302, 408, 500, 503, 999])
def test_any_other_status_says_that_it_was_not_taken(status: int) -> None:
    assert not judge(CODES, "", Response(status, {}, b"")).unknown


@pytest.mark.parametrize("status", [200, 302, 418, 500])
def test_a_table_without_the_rows_of_statuses_goes_by_ours(status: int) -> None:
    assert judge({}, "", Response(status, {}, b"")) == judge(CODES, "", Response(status, {}, b""))


def test_a_fault_with_a_wait_is_retried_after_it() -> None:
    outcome = judge(CODES, "", Response(503, {"retry-after": "12"}, b""))
    assert (outcome.verdict, outcome.wait_s) == (Verdict.RETRY_AFTER, 12.0)


def test_a_limit_waits_as_long_as_it_says() -> None:
    outcome = judge(CODES, "", Response(429, {"retry-after": "12"}, b""))
    assert (outcome.verdict, outcome.wait_s) == (Verdict.RATE_LIMITED, 12.0)


def test_a_refusal_does_not_wait() -> None:
    assert judge(CODES, "", Response(403, {"retry-after": "12"}, b"")).wait_s is None


def test_an_access_token_comes_with_its_life() -> None:
    answer = read_token(Response(200, {}, b'{"access_token":"a\\/b","expires_in":3599,"token_type":"Bearer"}'))
    assert (answer.value, answer.life_s, answer.failure) == ("a/b", 3_599.0, None)


@pytest.mark.parametrize("life", [b'"3599"', b"null", b"-1", b"1e30", b"[]"])
def test_a_strange_life_is_an_hour(life: bytes) -> None:
    assert read_token(Response(200, {}, b'{"access_token":"a","expires_in":%b}' % life)).life_s == 3_600.0


@pytest.mark.parametrize(
    ("status", "body", "verdict", "code"),
    [
        (400, b'{"error":"invalid_grant","error_description":"x"}', Verdict.MISCONFIGURED, "invalid_grant"),
        (400, b'{"error":1101,"sub_error":20044}', Verdict.MISCONFIGURED, "1101"),
        (401, b'{"error":"invalid_client"}', Verdict.MISCONFIGURED, "invalid_client"),
        (403, b"<html>", Verdict.MISCONFIGURED, "HTTP 403"),
        (404, b"", Verdict.MISCONFIGURED, "HTTP 404"),
        (429, b"", Verdict.RATE_LIMITED, "HTTP 429"),
        (503, b"", Verdict.RETRY, "HTTP 503"),
        (200, b"<html>", Verdict.RETRY, "HTTP 200"),
        (200, b'{"access_token":""}', Verdict.RETRY, "HTTP 200"),
        (200, b'{"access_token":"a\\nb"}', Verdict.RETRY, "HTTP 200"),
        (200, b'{"access_token":7}', Verdict.RETRY, "HTTP 200"),
    ],
)
def test_without_a_token_the_answer_says_why(status: int, body: bytes, verdict: Verdict, code: str) -> None:
    answer = read_token(Response(status, {}, body))
    assert answer.value == ""
    assert answer.failure is not None
    assert (answer.failure.verdict, answer.failure.code) == (verdict, code)
    assert answer.failure.scope is Scope.ACCOUNT
