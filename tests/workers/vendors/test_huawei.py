from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote

import pytest
from tests.workers.vendors.samples import AUTH, NOW_MS, a_delivery, a_push, an_account, token

from pushfleet.message import AndroidOptions, HuaweiOptions, OfflinePush
from pushfleet_workers.errors import CredentialError
from pushfleet_workers.outcome import Outcome, Remedy, Scope, Verdict
from pushfleet_workers.push import shared_id
from pushfleet_workers.vendor import Response
from pushfleet_workers.vendors.huawei import CATEGORIES, CODES, Huawei, HuaweiAccount

huawei = Huawei()

# Huawei's list, written down a second time: code -> (verdict, scope, remedy).
ERRORS = {
    "80000000": (Verdict.OK, Scope.DEVICE, None),
    "80100000": (Verdict.DROP_TOKEN, Scope.DEVICE, None),
    "80100001": (Verdict.BAD_PAYLOAD, Scope.DEVICE, None),
    "80100002": (Verdict.BAD_PAYLOAD, Scope.DEVICE, Remedy.SINGLE_SEND),
    "80100003": (Verdict.BAD_PAYLOAD, Scope.DEVICE, None),
    "80100004": (Verdict.BAD_PAYLOAD, Scope.DEVICE, None),
    "80100013": (Verdict.BAD_PAYLOAD, Scope.DEVICE, None),
    "80100016": (Verdict.BAD_PAYLOAD, Scope.DEVICE, None),
    "80100017": (Verdict.RATE_LIMITED, Scope.ACCOUNT, None),
    "80100018": (Verdict.BAD_PAYLOAD, Scope.DEVICE, None),
    "80200001": (Verdict.REFRESH_AUTH, Scope.ACCOUNT, None),
    "80200003": (Verdict.REFRESH_AUTH, Scope.ACCOUNT, None),
    "80200005": (Verdict.REFRESH_AUTH, Scope.ACCOUNT, None),
    "80300002": (Verdict.MISCONFIGURED, Scope.ACCOUNT, None),
    "80300007": (Verdict.DROP_TOKEN, Scope.DEVICE, None),
    "80300008": (Verdict.BAD_PAYLOAD, Scope.DEVICE, Remedy.SHRINK),
    "80300010": (Verdict.BAD_PAYLOAD, Scope.DEVICE, Remedy.SPLIT),
    "80300011": (Verdict.MISCONFIGURED, Scope.CLASS, None),
    "80300013": (Verdict.MISCONFIGURED, Scope.ACCOUNT, None),
    "80600003": (Verdict.RETRY, Scope.ACCOUNT, None),
    "81000001": (Verdict.RETRY, Scope.ACCOUNT, None),
    **{str(code): (Verdict.BAD_PAYLOAD, Scope.DEVICE, None) for code in range(82_000_001, 82_000_014)},
}
SETTLED_APART = {"80000000", "80100000"}


@pytest.fixture
def account(keys: Path) -> HuaweiAccount:
    account = an_account("huawei", keys)
    assert isinstance(account, HuaweiAccount)
    return account


def read(code: object, msg: object = "", status: int = 200, count: int = 3) -> list[Outcome]:
    body = json.dumps({"code": code, "msg": msg, "requestId": "170000000000000001"}).encode()
    return huawei.read([a_delivery(number) for number in range(count)], Response(status, {}, body))


def android(account: HuaweiAccount, push: Any = None, **delivery: Any) -> dict[str, Any]:
    request = huawei.build(account, push or a_push(), [a_delivery(**delivery)], AUTH, NOW_MS)
    content = json.loads(request.body)["message"]["android"]
    assert isinstance(content, dict)
    return content


def with_options(**changes: Any) -> Any:
    return a_push(options=OfflinePush(huawei=HuaweiOptions(**changes)))


def test_the_table_has_huaweis_codes_and_no_others() -> None:
    assert {code for code in CODES if code.isdigit()} == ERRORS.keys()


@pytest.mark.parametrize("code", ERRORS)
@pytest.mark.parametrize("status", [200, 400, 401])
def test_a_code_becomes_its_verdict_whatever_the_status(code: str, status: int) -> None:
    verdict, scope, remedy = ERRORS[code]
    row = CODES[code].outcome
    assert (row.verdict, row.scope, row.remedy) == (verdict, scope, remedy)
    if code not in SETTLED_APART:
        doubtful = code == "80300007"
        assert read(code, status=status) == [Outcome(verdict, scope, code, remedy=remedy, doubtful=doubtful)] * 3


@pytest.mark.parametrize("code", ["80000000", 80000000])
def test_accepted_is_ok_for_all(code: object) -> None:
    assert [outcome.verdict for outcome in read(code)] == [Verdict.OK] * 3


@pytest.mark.parametrize(
    "msg",
    [
        json.dumps({"success": 2, "failure": 1, "illegal_tokens": [token(1)]}),
        json.dumps({"success": 2, "failure": 1, "illegalTokens": {"80300007": [token(1)]}}),
        json.dumps({"illegalTokens": [token(1)], "illegal_tokens": {"a": [token(1)], "b": 7}}),
        {"success": 2, "failure": 1, "illegal_tokens": [token(1), 7, None]},
    ],
)
def test_a_partial_success_drops_the_named_tokens_and_resends_none(msg: object) -> None:
    outcomes = read("80100000", msg)
    assert [outcome.verdict for outcome in outcomes] == [Verdict.OK, Verdict.DROP_TOKEN, Verdict.OK]
    assert outcomes[1].code == "80100000"


def test_a_token_that_two_deliveries_share_is_settled_for_both() -> None:
    body = json.dumps({"code": "80100000", "msg": json.dumps({"illegal_tokens": [token(0)]})}).encode()
    outcomes = huawei.read([a_delivery(0), a_delivery(1, token=token(0))], Response(200, {}, body))
    assert [outcome.verdict for outcome in outcomes] == [Verdict.DROP_TOKEN] * 2


@pytest.mark.parametrize("msg", ["", "{", None, 7, [], {"illegal_tokens": 7}, "illegal"])
def test_a_partial_success_without_names_resends_nothing(msg: object) -> None:
    assert [outcome.verdict for outcome in read("80100000", msg)] == [Verdict.OK] * 3


@pytest.mark.parametrize("status", [200, 400, 500])
def test_a_code_that_nobody_knows_is_tried_again_and_drops_nothing(status: int) -> None:
    assert read("80600005", status=status) == [Outcome(Verdict.RETRY, Scope.DEVICE, "80600005")] * 3


@pytest.mark.parametrize("code", ["503", "80600005", 7])
def test_flow_control_is_its_status_whatever_the_body_says(code: object) -> None:
    assert read(code, status=503) == [Outcome(Verdict.RATE_LIMITED, Scope.ACCOUNT, str(code))] * 3


@pytest.mark.parametrize(
    ("status", "verdict"),
    [
        (200, Verdict.RETRY),
        (400, Verdict.BAD_PAYLOAD),
        (401, Verdict.REFRESH_AUTH),
        (404, Verdict.MISCONFIGURED),
        (500, Verdict.RETRY),
        (502, Verdict.RETRY),
        (503, Verdict.RATE_LIMITED),
    ],
)
def test_without_a_code_the_status_decides(status: int, verdict: Verdict) -> None:
    (outcome,) = huawei.read([a_delivery()], Response(status, {}, b"<html>"))
    assert (outcome.verdict, outcome.code) == (verdict, f"HTTP {status}")


def test_a_token_stands_in_a_request_once(account: HuaweiAccount) -> None:
    deliveries = [a_delivery(0), a_delivery(1), a_delivery(2, token=token(0))]
    request = huawei.build(account, a_push(), deliveries, AUTH, NOW_MS)
    assert json.loads(request.body)["message"]["token"] == [token(0), token(1)]
    assert request.url == "https://push-api.cloud.huawei.com/v1/100000001/messages:send"


def test_a_full_batch_stays_within_the_limit_without_its_tokens(account: HuaweiAccount) -> None:
    deliveries = [a_delivery(number) for number in range(1_000)]
    request = huawei.build(account, a_push(body="今" * 4_000), deliveries, AUTH, NOW_MS)
    tokens = json.dumps([delivery.token for delivery in deliveries], separators=(",", ":"))
    assert 4_090 < len(request.body) - len(tokens) + len("[]") <= 4_096


@pytest.mark.parametrize(
    ("kind", "category", "importance", "channel_id"),
    [
        ("chat", "IM", "NORMAL", "im"),
        ("mention", "IM", "NORMAL", "im"),
        ("summary", "IM", "NORMAL", "im"),
        ("call", "IM", "NORMAL", "im"),
        ("call_cancel", "IM", "NORMAL", "im"),
        ("missed_call", "IM", "NORMAL", "im"),
        ("system", None, None, None),
        ("official", "MARKETING", None, None),
        ("marketing", "MARKETING", None, None),
    ],
)
def test_the_kind_decides_about_the_class(
    account: HuaweiAccount, kind: str, category: str | None, importance: str | None, channel_id: str | None
) -> None:
    content = android(account, a_push(kind=kind))
    shown = content["notification"]
    assert (content.get("category"), shown.get("importance"), shown.get("channel_id")) == (
        category,
        importance,
        channel_id,
    )


def test_classes_are_settings_and_may_be_left_to_huawei(keys: Path) -> None:
    kinds = {
        "chat": {"category": ""},
        "call": {"category": "VOIP", "channel_id": "calls"},
        "official": {"category": "SUBSCRIPTION", "importance": "LOW"},
    }
    account = an_account("huawei", keys, kinds=kinds)
    assert "category" not in android(account)
    assert "category" not in android(account, a_push(kind="mention"))
    assert android(account, with_options(category="WORK"))["category"] == "WORK"
    call, official = (android(account, a_push(kind=kind)) for kind in ("call", "official"))
    assert (call["category"], call["notification"]["channel_id"]) == ("VOIP", "calls")
    assert (official["category"], official["notification"]["importance"]) == ("SUBSCRIPTION", "LOW")


def test_a_development_account_sends_test_messages(account: HuaweiAccount, keys: Path) -> None:
    assert "target_user_type" not in android(account)
    assert android(an_account("huawei", keys, environment="development"))["target_user_type"] == 1


def test_a_project_has_an_address_of_its_own(keys: Path) -> None:
    account = an_account("huawei", keys, project_id="700000001")
    request = huawei.build(account, a_push(), [a_delivery()], AUTH, NOW_MS)
    assert request.url == "https://push-api.cloud.huawei.com/v2/700000001/messages:send"


@pytest.mark.parametrize(("left_ms", "ttl"), [(-5, "1s"), (123_000, "123s"), (10**12, "1296000s")])
def test_ttl_is_what_is_left_but_never_nothing(account: HuaweiAccount, left_ms: int, ttl: str) -> None:
    assert android(account, a_push(expires_at_ms=NOW_MS + left_ms))["ttl"] == ttl


def test_the_app_gets_ext_and_ids_when_opened(account: HuaweiAccount) -> None:
    content = android(account)
    assert json.loads(content["data"]) == {"mid": "m-9f3c1d", "cid": "c-1001", "ext": a_push().ext}
    assert content["notification"]["click_action"] == {"type": 3}
    assert content["notification"]["tag"] == "c-1001"
    assert content["notification"]["foreground_show"] is False
    silent = account.model_copy(update={"receipt_url": ""})
    assert android(silent)["bi_tag"] == shared_id(a_push()).hex()
    assert android(silent)["bi_tag"] != android(silent, a_push(revision=1))["bi_tag"]


def test_without_a_replace_key_a_message_replaces_only_itself(account: HuaweiAccount) -> None:
    assert android(account, a_push(replace_key=""))["notification"]["tag"] == "m-9f3c1d"


def test_ext_goes_into_the_intent_where_asked_for(account: HuaweiAccount, keys: Path) -> None:
    content = android(account, with_options(ext_as_intent_param=True))
    assert "ext" not in json.loads(content["data"])
    click = content["notification"]["click_action"]
    assert click["type"] == 1
    start, value = click["intent"].removesuffix(";end").split("S.ext=")
    assert start == "intent:#Intent;component=com.example.im/.ChatActivity;"
    assert unquote(value) == a_push().ext
    assert ";" not in value
    plain = an_account("huawei", keys, click_intent="")
    assert android(plain, with_options(ext_as_intent_param=True))["notification"]["click_action"] == {"type": 3}


def test_a_push_that_counts_adds_one_to_the_badge(account: HuaweiAccount, keys: Path) -> None:
    badge = {"add_num": 1, "class": "com.example.im.MainActivity"}
    assert android(account)["notification"]["badge"] == badge
    assert "badge" not in android(account, badge=-1)["notification"]
    assert "badge" not in android(account, a_push(revision=1))["notification"]
    assert "badge" not in android(an_account("huawei", keys, badge_class=""))["notification"]


def test_a_missing_text_is_stood_in_for(account: HuaweiAccount) -> None:
    shown = android(account, a_push(title="", body=""))["notification"]
    assert (shown["title"], shown["body"]) == ("New message", "New message")
    assert android(account, a_push(title="", sender_name="Li Lei"))["notification"]["title"] == "Li Lei"


def test_overrides_win_over_the_account(account: HuaweiAccount) -> None:
    push = a_push(
        options=OfflinePush(
            huawei=HuaweiOptions(channel_id="calls", importance="LOW", image="https://example.com/a.jpg"),
            android=AndroidOptions(sound="ding", style="big_text"),
        )
    )
    shown = android(account, push)["notification"]
    assert (shown["channel_id"], shown["importance"], shown["image"]) == ("calls", "LOW", "https://example.com/a.jpg")
    assert (shown["sound"], shown["default_sound"]) == ("/raw/ding", False)
    assert (shown["style"], shown["big_title"], shown["big_body"]) == (1, "Li Lei", a_push().body)


def test_the_grant_is_client_credentials(account: HuaweiAccount) -> None:
    request = huawei.auth_request(account, 0)
    assert request.url == "https://oauth-login.cloud.huawei.com/oauth2/v3/token"
    assert parse_qs(request.body.decode()) == {
        "grant_type": ["client_credentials"],
        "client_id": ["100000001"],
        "client_secret": ["huawei-secret-for-tests"],
    }
    assert "secret-for" not in repr(request) + repr(account)


def test_the_secret_may_lie_in_a_file(keys: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("from-file\n")
    account = an_account("huawei", keys, client_secret=None, client_secret_file=str(tmp_path / "secret"))
    assert huawei.check(account, 0) == []
    assert b"client_secret=from-file" in huawei.auth_request(account, 0).body


def test_tokens_are_fetched_and_not_minted(account: HuaweiAccount) -> None:
    assert huawei.mint(account, 0) is None


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"client_secret": None}, "are both missing: give one"),
        ({"client_secret_file": "/nowhere/secret"}, "are both set: give one"),
        ({"client_secret": ""}, "client_secret is empty: copy the secret"),
        ({"client_secret": None, "client_secret_file": "/nowhere/secret"}, "does not exist: "),
        ({"badge_class": "MainActivity"}, "no full class name: "),
        ({"kinds": {"chat": {"category": "CHAT"}}}, "kinds.chat.category CHAT is no message class"),
        ({"kinds": {"call": {"category": "PLAY_VOICE"}}}, "kinds.call.category PLAY_VOICE is no message class"),
    ],
)
def test_a_wrong_setting_is_found_with_its_mend(keys: Path, changes: dict[str, Any], problem: str) -> None:
    account = an_account("huawei", keys, **changes)
    (found,) = huawei.check(account, 0)
    assert problem in found
    assert "huawei-secret" not in found


def test_every_class_of_huaweis_may_be_set(keys: Path) -> None:
    for category in ("", *CATEGORIES):
        assert huawei.check(an_account("huawei", keys, kinds={"system": {"category": category}}), 0) == []


def test_what_was_shown_can_only_be_replaced(account: HuaweiAccount) -> None:
    assert huawei.withdraw(account, a_push(recall=True, revision=1), [a_delivery()], AUTH, NOW_MS) is None
    assert android(account, a_push(recall=True, revision=1))["notification"]["tag"] == "c-1001"


def test_an_empty_secret_file_is_found(keys: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text(" \n")
    account = an_account("huawei", keys, client_secret=None, client_secret_file=str(tmp_path / "secret"))
    assert "is empty: copy" in huawei.check(account, 0)[0]
    with pytest.raises(CredentialError, match="is empty"):
        huawei.auth_request(account, 0)
