from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.workers.vendors.samples import AUTH, NOW_MS, a_delivery, a_push, an_account, token

from pushfleet.message import AndroidOptions, HonorOptions, OfflinePush
from pushfleet_workers.errors import CredentialError
from pushfleet_workers.outcome import Outcome, Remedy, Scope, Verdict
from pushfleet_workers.push import Push, shared_id
from pushfleet_workers.vendor import Response
from pushfleet_workers.vendors.honor import CODES, Honor, HonorAccount

honor = Honor()

# The codes that are known or read as HTTP means them, written down a second time: code -> (verdict, scope).
ERRORS = {
    "200": (Verdict.OK, Scope.DEVICE),
    "80000000": (Verdict.OK, Scope.DEVICE),
    "400": (Verdict.BAD_PAYLOAD, Scope.DEVICE),
    "401": (Verdict.REFRESH_AUTH, Scope.ACCOUNT),
    "403": (Verdict.REFRESH_AUTH, Scope.ACCOUNT),
    "404": (Verdict.MISCONFIGURED, Scope.ACCOUNT),
    "429": (Verdict.RATE_LIMITED, Scope.ACCOUNT),
    "500": (Verdict.RETRY, Scope.ACCOUNT),
    "502": (Verdict.RETRY, Scope.ACCOUNT),
    "503": (Verdict.RETRY, Scope.ACCOUNT),
    "504": (Verdict.RETRY, Scope.ACCOUNT),
}
EXPIRED = Outcome(Verdict.DROP_TOKEN, Scope.DEVICE, "expireTokens")
FAILED = Outcome(Verdict.BAD_PAYLOAD, Scope.DEVICE, "failTokens", remedy=Remedy.SINGLE_SEND)
GRANT_ERRORS = ("invalid_client", "invalid_grant", "unauthorized_client")


@pytest.fixture
def account(keys: Path) -> HonorAccount:
    return an_account_with(keys)


def an_account_with(keys: Path, **changes: Any) -> HonorAccount:
    account = an_account("honor", keys, **changes)
    assert isinstance(account, HonorAccount)
    return account


def read(code: object, status: int = 200, count: int = 3, **lists: Any) -> list[Outcome]:
    data = {"sendResult": True, "requestId": "req-1", **lists}
    body = json.dumps({"code": code, "message": "success", "data": data}).encode()
    return honor.read([a_delivery(number) for number in range(count)], Response(status, {}, body))


def android(account: HonorAccount, push: Push | None = None, **delivery: Any) -> dict[str, Any]:
    request = honor.build(account, push or a_push(), [a_delivery(**delivery)], AUTH, NOW_MS)
    content = json.loads(request.body)["android"]
    assert isinstance(content, dict)
    return content


def shown(account: HonorAccount, push: Push | None = None, **delivery: Any) -> dict[str, Any]:
    notification = android(account, push, **delivery)["notification"]
    assert isinstance(notification, dict)
    return notification


def with_options(**changes: Any) -> Push:
    return a_push(options=OfflinePush(honor=HonorOptions(**changes)))


def test_the_table_has_these_codes_and_no_others() -> None:
    assert {code for code in CODES if code.isdigit()} == ERRORS.keys()
    named = {"expireTokens", "failTokens", "802xxxxx", "8xxxxxxx", "other codes", *GRANT_ERRORS}
    assert {code for code in CODES if not code.isdigit() and not code.startswith("HTTP ")} == named


@pytest.mark.parametrize("code", ERRORS)
@pytest.mark.parametrize("form", [str, int])
@pytest.mark.parametrize("status", [200, 400, 500])
def test_a_code_becomes_its_verdict_as_number_and_as_text(code: str, form: Any, status: int) -> None:
    assert read(form(code), status) == [Outcome(*ERRORS[code], code)] * 3


@pytest.mark.parametrize(
    ("code", "verdict", "scope"),
    [
        (80200001, Verdict.REFRESH_AUTH, Scope.ACCOUNT),
        ("80200005", Verdict.REFRESH_AUTH, Scope.ACCOUNT),
        (80300007, Verdict.BAD_PAYLOAD, Scope.DEVICE),
        ("80100000", Verdict.BAD_PAYLOAD, Scope.DEVICE),
        (8001003, Verdict.RETRY, Scope.DEVICE),
        (0, Verdict.RETRY, Scope.DEVICE),
        ("E77", Verdict.RETRY, Scope.DEVICE),
        ("expireTokens", Verdict.RETRY, Scope.DEVICE),
        ("invalid_client", Verdict.RETRY, Scope.DEVICE),
    ],
)
def test_a_code_that_is_not_listed_goes_by_its_family_and_drops_nothing(
    code: object, verdict: Verdict, scope: Scope
) -> None:
    assert read(code) == [Outcome(verdict, scope, str(code))] * 3


@pytest.mark.parametrize("code", [80200001, 99, "E77", None])
@pytest.mark.parametrize(("status", "verdict"), [(429, Verdict.RATE_LIMITED), (503, Verdict.RETRY)])
def test_flow_control_and_faults_are_their_status_where_the_code_is_unknown(
    code: object, status: int, verdict: Verdict
) -> None:
    assert read(code, status) == [Outcome(verdict, Scope.ACCOUNT, f"HTTP {status}")] * 3


@pytest.mark.parametrize(
    ("status", "verdict"),
    [
        (200, Verdict.RETRY),
        (400, Verdict.BAD_PAYLOAD),
        (401, Verdict.REFRESH_AUTH),
        (403, Verdict.REFRESH_AUTH),
        (404, Verdict.MISCONFIGURED),
        (429, Verdict.RATE_LIMITED),
        (500, Verdict.RETRY),
        (504, Verdict.RETRY),
    ],
)
def test_without_a_code_the_status_decides(status: int, verdict: Verdict) -> None:
    (outcome,) = honor.read([a_delivery()], Response(status, {}, b"<html>"))
    assert (outcome.verdict, outcome.code) == (verdict, f"HTTP {status}")


def test_tokens_that_the_answer_names_have_their_own_outcome() -> None:
    outcomes = read(200, expireTokens=[token(1)], failTokens=[token(1), token(2)])
    assert outcomes == [Outcome(Verdict.OK, code="200"), EXPIRED, FAILED]


@pytest.mark.parametrize("code", [*ERRORS, "80200001", "80300007", "77"])
def test_the_lists_are_read_whatever_the_code(code: str) -> None:
    plain = read(code)[0]
    outcomes = read(code, expireTokens=[token(0)], failTokens=[token(1)])
    assert outcomes == [EXPIRED, plain if plain.scope is Scope.ACCOUNT else FAILED, plain]


@pytest.mark.parametrize("lists", [{}, {"expireTokens": None}, {"expireTokens": token(0), "failTokens": {token(0): 1}}])
def test_a_success_without_lists_is_ok_for_all(lists: dict[str, Any]) -> None:
    assert [outcome.verdict for outcome in read(200, **lists)] == [Verdict.OK] * 3


_tokens = [token(number) for number in range(4)]
_lists = st.one_of(st.none(), st.lists(st.one_of(st.sampled_from(_tokens), st.none()), max_size=5))


@settings(deadline=None, max_examples=200)
@given(
    code=st.one_of(st.sampled_from(sorted(ERRORS)), st.integers(), st.text(max_size=9)),
    status=st.sampled_from([200, 400, 401, 404, 429, 500]),
    expired=_lists,
    failed=_lists,
)
def test_a_token_dies_only_where_it_is_named_as_expired(code: object, status: int, expired: Any, failed: Any) -> None:
    outcomes = read(code, status, 4, expireTokens=expired, failTokens=failed)
    for number, outcome in enumerate(outcomes):
        assert (outcome.verdict is Verdict.DROP_TOKEN) == (token(number) in (expired or []))


def test_a_push_has_the_form_of_the_downlink_message(keys: Path) -> None:
    account = an_account_with(keys, receipt_url="")
    deliveries = [a_delivery(0), a_delivery(1), a_delivery(2, token=token(0))]
    request = honor.build(account, a_push(), deliveries, AUTH, NOW_MS)
    assert request.url == "https://push-api.cloud.honor.com/api/v1/104000001/sendMessage"
    assert request.headers["timestamp"] == str(NOW_MS)
    assert request.headers["authorization"] == f"Bearer {AUTH}"
    content = json.loads(request.body)
    assert content.keys() == {"token", "android"}
    assert content["token"] == [token(0), token(1)]
    data = json.loads(content["android"].pop("data"))
    assert data == {"mid": "m-9f3c1d", "cid": "c-1001", "ext": a_push().ext}
    assert content["android"] == {
        "ttl": "86400s",
        "biTag": shared_id(a_push()).hex(),
        "targetUserType": 0,
        "notification": {
            "title": "Li Lei",
            "body": a_push().body,
            "clickAction": {"type": 3},
            "importance": "NORMAL",
            "badge": {"addNum": 1, "badgeClass": "com.example.im.MainActivity"},
            "tag": "c-1001",
        },
    }


def test_a_full_batch_stays_within_the_limit_without_its_tokens(account: HonorAccount) -> None:
    deliveries = [a_delivery(number) for number in range(100)]
    request = honor.build(account, a_push(body="今👨‍👩‍👧‍👦" * 400), deliveries, AUTH, NOW_MS)
    tokens = json.dumps([delivery.token for delivery in deliveries], separators=(",", ":"))
    assert 4_060 < len(request.body) - len(tokens) + len("[]") <= 4_096


@pytest.mark.parametrize(
    ("kind", "importance"),
    [
        ("chat", "NORMAL"),
        ("mention", "NORMAL"),
        ("call", "NORMAL"),
        ("call_cancel", "NORMAL"),
        ("missed_call", "NORMAL"),
        ("summary", "NORMAL"),
        ("system", "LOW"),
        ("official", "LOW"),
        ("marketing", "LOW"),
    ],
)
def test_the_kind_decides_about_the_importance(account: HonorAccount, kind: Any, importance: str) -> None:
    assert shown(account, a_push(kind=kind))["importance"] == importance


def test_the_importance_of_a_kind_is_a_setting(keys: Path) -> None:
    account = an_account_with(keys, kinds={"system": {"importance": "NORMAL"}, "chat": {"importance": "LOW"}})
    assert shown(account, a_push(kind="system"))["importance"] == "NORMAL"
    assert shown(account, a_push(kind="mention"))["importance"] == "LOW"


def test_overrides_win_over_the_account(account: HonorAccount) -> None:
    changed = shown(account, with_options(importance="LOW", image="https://example.com/a.jpg"))
    assert (changed["importance"], changed["image"]) == ("LOW", "https://example.com/a.jpg")
    big = shown(account, a_push(options=OfflinePush(android=AndroidOptions(style="big_text"))))
    assert (big["style"], big["bigTitle"], big["bigBody"]) == (1, "Li Lei", a_push().body)
    assert big["importance"] == "NORMAL"


@pytest.mark.parametrize("remedy", ["", "shrink"])
def test_big_text_stays_within_the_limit(account: HonorAccount, remedy: str) -> None:
    push = a_push(body="今" * 3_000, options=OfflinePush(android=AndroidOptions(style="big_text")))
    request = honor.build(account, push, [a_delivery(token="t", remedy=remedy)], AUTH, NOW_MS)
    assert len(request.body) <= 4_096 + len('"t"')
    assert (len(request.body) > 4_060) == (not remedy)


@pytest.mark.parametrize(("left_ms", "ttl"), [(-5, "1s"), (123_000, "123s"), (10**12, "1296000s")])
def test_ttl_is_what_is_left_but_never_nothing(account: HonorAccount, left_ms: int, ttl: str) -> None:
    assert android(account, a_push(expires_at_ms=NOW_MS + left_ms))["ttl"] == ttl


def test_only_a_push_that_counts_adds_one_to_the_badge(account: HonorAccount, keys: Path) -> None:
    assert shown(account)["badge"] == {"addNum": 1, "badgeClass": "com.example.im.MainActivity"}
    assert "badge" not in shown(account, badge=-1)
    assert "badge" not in shown(account, a_push(revision=1))
    assert "badge" not in shown(an_account_with(keys, badge_class=""))


def test_a_repeat_without_a_replace_key_replaces_itself(account: HonorAccount) -> None:
    assert shown(account, a_push(replace_key=""))["tag"] == "m-9f3c1d"


def test_a_missing_text_is_stood_in_for(account: HonorAccount) -> None:
    bare = shown(account, a_push(title="", body=""))
    assert (bare["title"], bare["body"]) == ("New message", "New message")
    assert shown(account, a_push(title="", sender_name="Li Lei"))["title"] == "Li Lei"


def test_development_sends_test_messages(keys: Path) -> None:
    assert android(an_account_with(keys, environment="development"))["targetUserType"] == 1


def test_what_was_shown_can_only_be_replaced(account: HonorAccount) -> None:
    recall = a_push(revision=1, recall=True)
    assert honor.withdraw(account, recall, [a_delivery()], AUTH, NOW_MS) is None
    assert shown(account, recall)["tag"] == shown(account)["tag"]


def test_the_grant_is_client_credentials(account: HonorAccount) -> None:
    request = honor.auth_request(account, 0)
    assert request.url == "https://iam.developer.honor.com/auth/token"
    assert parse_qs(request.body.decode()) == {
        "grant_type": ["client_credentials"],
        "client_id": ["9d0b2c7ae5c34cf2a1ee7f0c1c7a2c11"],
        "client_secret": ["honor-secret-for-tests"],
    }
    assert "secret-for" not in repr(request) + repr(account)
    assert honor.mint(account, 0) is None


@pytest.mark.parametrize("error", GRANT_ERRORS)
@pytest.mark.parametrize("status", [200, 400, 401, 500])
def test_an_error_of_the_grant_is_a_fault_of_the_configuration(error: str, status: int) -> None:
    body = json.dumps({"error": error, "error_description": "Invalid client or client credentials"}).encode()
    answer = honor.read_auth(Response(status, {}, body))
    assert answer.failure == CODES[error].outcome == Outcome(Verdict.MISCONFIGURED, Scope.ACCOUNT, error)


def test_an_access_token_lives_as_long_as_it_says_or_an_hour() -> None:
    for life, expected_s in ((7_200, 7_200), (None, 3_600)):
        body = json.dumps({"access_token": "FAKEAT", "expires_in": life, "token_type": "Bearer"}).encode()
        answer = honor.read_auth(Response(200, {}, body))
        assert (answer.value, answer.life_s, answer.shared) == ("FAKEAT", expected_s, True)


def test_the_secret_may_lie_in_a_file(keys: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("from-file\n")
    account = an_account_with(keys, client_secret=None, client_secret_file=str(tmp_path / "secret"))
    assert honor.check(account, 0) == []
    assert b"client_secret=from-file" in honor.auth_request(account, 0).body


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"client_secret": None}, "are both missing: give one"),
        ({"client_secret": ""}, "client_secret is empty: copy the secret"),
        ({"client_secret": None, "client_secret_file": "/nowhere/secret"}, "does not exist: "),
        ({"badge_class": "MainActivity"}, "no full class name: "),
    ],
)
def test_a_wrong_setting_is_found_with_its_mend(keys: Path, changes: dict[str, Any], problem: str) -> None:
    (found,) = honor.check(an_account_with(keys, **changes), 0)
    assert problem in found
    assert "honor-secret" not in found


def test_a_missing_secret_asks_for_no_token(keys: Path) -> None:
    with pytest.raises(CredentialError, match="are both missing"):
        honor.auth_request(an_account_with(keys, client_secret=None), 0)
