from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from tests.workers.vendors.conftest import pem
from tests.workers.vendors.samples import AUTH, KINDS, NOW_MS, a_delivery, a_push, an_account, token

from pushfleet.message import AndroidOptions, FcmOptions, OfflinePush
from pushfleet_workers.errors import CredentialError
from pushfleet_workers.outcome import OK, Outcome, Scope, Verdict
from pushfleet_workers.vendor import Response
from pushfleet_workers.vendors.fcm import CODES, Fcm, FcmAccount

fcm = Fcm()

TYPE = "type.googleapis.com/google.firebase.fcm.v1.FcmError"
NO_TOKEN = "The registration token is not a valid FCM registration token"

# Google's list, written down a second time: code -> (status, verdict, scope, wait).
ERRORS = {
    "UNREGISTERED": (404, Verdict.DROP_TOKEN, Scope.DEVICE, None),
    "SENDER_ID_MISMATCH": (403, Verdict.DROP_TOKEN, Scope.DEVICE, None),
    "INVALID_ARGUMENT": (400, Verdict.BAD_PAYLOAD, Scope.DEVICE, None),
    "QUOTA_EXCEEDED": (429, Verdict.RATE_LIMITED, Scope.ACCOUNT, 60.0),
    "UNAVAILABLE": (503, Verdict.RETRY, Scope.ACCOUNT, 10.0),
    "INTERNAL": (500, Verdict.RETRY, Scope.ACCOUNT, 10.0),
    "THIRD_PARTY_AUTH_ERROR": (401, Verdict.MISCONFIGURED, Scope.DEVICE, None),
    "APNS_AUTH_ERROR": (401, Verdict.MISCONFIGURED, Scope.DEVICE, None),
}


@pytest.fixture
def account(keys: Path) -> FcmAccount:
    account = an_account("fcm", keys)
    assert isinstance(account, FcmAccount)
    return account


def refusal(status: int, code: str | None = None, message: str = "", details: Any = ()) -> bytes:
    listed = [*([{"@type": TYPE, "errorCode": code}] if code else []), *details]
    return json.dumps({"error": {"code": status, "message": message, "status": "X", "details": listed}}).encode()


def read(status: int, body: bytes, **headers: str) -> Outcome:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    (outcome,) = fcm.read([a_delivery()], Response(status, named, body))
    return outcome


def message(account: FcmAccount, push: Any = None, **delivery: Any) -> dict[str, Any]:
    request = fcm.build(account, push or a_push(), [a_delivery(**delivery)], AUTH, NOW_MS)
    content = json.loads(request.body)["message"]
    assert isinstance(content, dict)
    return content


def test_the_table_has_googles_codes_and_no_others() -> None:
    own = {code for code in CODES if not code.startswith("HTTP ")}
    assert own == ERRORS.keys() | {"INVALID_ARGUMENT:token", "QUOTA_EXCEEDED:device", "UNSPECIFIED_ERROR"}


@pytest.mark.parametrize("code", ERRORS)
def test_a_code_becomes_its_verdict(code: str) -> None:
    status, verdict, scope, wait_s = ERRORS[code]
    doubtful = code == "SENDER_ID_MISMATCH"
    assert read(status, refusal(status, code)) == Outcome(verdict, scope, code, wait_s, doubtful=doubtful)
    assert CODES[code].status == str(status)


def test_a_success_has_a_name() -> None:
    assert read(200, b'{"name":"projects/demo-im/messages/0:1767312000000000%fake"}') is OK


def test_a_page_with_status_200_is_no_success() -> None:
    assert read(200, b"<html>Please log in</html>").verdict is Verdict.RETRY


@pytest.mark.parametrize(
    ("fields", "verdict"),
    [
        ([], Verdict.DROP_TOKEN),
        (["message.token"], Verdict.DROP_TOKEN),
        (["message.data[0]"], Verdict.BAD_PAYLOAD),
        (["message.token", "message.android.ttl"], Verdict.BAD_PAYLOAD),
    ],
)
def test_an_invalid_argument_is_the_token_only_where_google_says_so(fields: list[str], verdict: Verdict) -> None:
    detail = {"@type": "x/google.rpc.BadRequest", "fieldViolations": [{"field": field} for field in fields]}
    assert read(400, refusal(400, "INVALID_ARGUMENT", NO_TOKEN, [detail])).verdict is verdict


def test_without_the_detail_the_text_alone_drops_no_token() -> None:
    assert read(400, refusal(400, None, NO_TOKEN)).verdict is Verdict.BAD_PAYLOAD


@pytest.mark.parametrize("key", ["subject", "description"])
def test_the_quota_of_a_device_is_its_own(key: str) -> None:
    quota = {"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": [{key: "Device message rate"}]}
    outcome = read(429, refusal(429, "QUOTA_EXCEEDED", details=[quota]), retry_after="5")
    assert outcome == Outcome(Verdict.RATE_LIMITED, Scope.DEVICE, "QUOTA_EXCEEDED:device", 5.0)


def test_a_named_wait_replaces_the_minute() -> None:
    assert read(429, refusal(429, "QUOTA_EXCEEDED"), retry_after="37").wait_s == 37.0


@pytest.mark.parametrize(("asked", "wait_s"), [("3", 10.0), ("45", 45.0)])
def test_an_overload_is_waited_out_ten_seconds_or_more(asked: str, wait_s: float) -> None:
    outcome = read(503, refusal(503, "UNAVAILABLE"), retry_after=asked)
    assert (outcome.verdict, outcome.wait_s) == (Verdict.RETRY_AFTER, wait_s)


@pytest.mark.parametrize(
    ("status", "verdict", "wait_s"),
    [
        (400, Verdict.BAD_PAYLOAD, None),
        (401, Verdict.REFRESH_AUTH, None),
        (403, Verdict.MISCONFIGURED, None),
        (404, Verdict.MISCONFIGURED, None),
        (429, Verdict.RATE_LIMITED, 60.0),
        (500, Verdict.RETRY, 10.0),
        (502, Verdict.RETRY, 10.0),
        (504, Verdict.RETRY, 10.0),
    ],
)
@pytest.mark.parametrize("code", [None, "UNSPECIFIED_ERROR", "NEWER_ERROR"])
def test_without_a_known_code_the_status_decides(
    status: int, verdict: Verdict, wait_s: float | None, code: str | None
) -> None:
    outcome = read(status, refusal(status, code))
    assert (outcome.verdict, outcome.wait_s, outcome.code) == (verdict, wait_s, code or f"HTTP {status}")


def test_the_row_of_the_unspecified_error_is_what_its_usual_status_says() -> None:
    assert read(500, refusal(500, "UNSPECIFIED_ERROR")) == CODES["UNSPECIFIED_ERROR"].outcome


@pytest.mark.parametrize("error", [None, [], "x", {"details": 7}, {"details": [7, {"@type": 3}, {"errorCode": "X"}]}])
def test_a_strange_error_goes_by_its_status(error: object) -> None:
    assert read(403, json.dumps({"error": error}).encode()).verdict is Verdict.MISCONFIGURED


def test_the_request_goes_to_the_service_accounts_project(account: FcmAccount, keys: Path) -> None:
    request = fcm.build(account, a_push(), [a_delivery()], AUTH, NOW_MS)
    assert request.url == "https://fcm.googleapis.com/v1/projects/demo-im/messages:send"
    assert request.headers["authorization"] == f"Bearer {AUTH}"
    other = an_account("fcm", keys, project_id="other-im")
    assert "/projects/other-im/" in fcm.build(other, a_push(), [a_delivery()], AUTH, NOW_MS).url


def test_by_default_the_app_draws_the_push(account: FcmAccount) -> None:
    assert message(account) == {
        "token": token(0),
        "data": {
            "mid": "m-9f3c1d",
            "cid": "c-1001",
            "ext": a_push().ext,
            "title": "Li Lei",
            "body": a_push().body,
            "channel_id": "im",
            "tag": "c-1001",
            "badge": "3",
        },
        "android": {"priority": "high", "ttl": "86400s"},
    }


def drawn_by_the_system(keys: Path) -> FcmAccount:
    told = {"form": "notification", "channel_id": "im"}
    account = an_account("fcm", keys, kinds=dict.fromkeys(("chat", "system", "official", "marketing"), told))
    assert isinstance(account, FcmAccount)
    return account


def test_a_notification_has_no_texts_in_its_data(keys: Path) -> None:
    shown = message(drawn_by_the_system(keys))
    assert shown["data"] == {"mid": "m-9f3c1d", "cid": "c-1001", "ext": a_push().ext}
    assert shown["android"]["notification"] == {
        "sound": "default",
        "title": "Li Lei",
        "body": a_push().body,
        "channel_id": "im",
        "tag": "c-1001",
        "notification_count": 3,
    }


@pytest.mark.parametrize("badge", [-1, 0])
def test_a_count_of_nothing_is_not_sent_as_a_count(keys: Path, badge: int) -> None:
    shown = message(drawn_by_the_system(keys), badge=badge)
    assert "notification_count" not in shown["android"]["notification"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("form", ["data", "notification"])
def test_data_is_strings_under_keys_that_are_not_reserved(keys: Path, kind: str, form: str) -> None:
    push = a_push(kind=kind, options=OfflinePush(fcm=FcmOptions(image="i"), android=AndroidOptions(sound="s")))
    account = drawn_by_the_system(keys) if form == "notification" else an_account("fcm", keys)
    assert isinstance(account, FcmAccount)
    data = message(account, push)["data"]
    assert all(type(value) is str for value in data.values())
    assert not {"from", "message_type", "notification", "collapse_key"} & data.keys()
    assert not [key for key in data if key.startswith(("google", "gcm"))]


@pytest.mark.parametrize(("badge", "shown"), [(-1, None), (0, "0"), (7, "7")])
def test_data_carries_the_absolute_badge(account: FcmAccount, badge: int, shown: str | None) -> None:
    assert message(account, badge=badge)["data"].get("badge") == shown


@pytest.mark.parametrize(
    ("left_ms", "ttl"), [(-5, "0s"), (999, "0s"), (1_999, "1s"), (123_000, "123s"), (10**12, "2419200s")]
)
def test_ttl_is_what_is_left(account: FcmAccount, left_ms: int, ttl: str) -> None:
    assert message(account, a_push(expires_at_ms=NOW_MS + left_ms))["android"]["ttl"] == ttl


def test_an_installation_id_is_addressed_as_one(account: FcmAccount) -> None:
    shown = message(account, token_kind="fid")
    assert shown["fid"] == token(0)
    assert "token" not in shown


@pytest.mark.parametrize("kind", KINDS)
def test_only_marketing_waits_for_the_device_to_wake(account: FcmAccount, kind: str) -> None:
    shown = message(account, a_push(kind=kind))
    assert shown["android"] == {"priority": "normal" if kind == "marketing" else "high", "ttl": "86400s"}
    assert shown["data"]["body"] == a_push().body


def test_kinds_are_settings_and_a_message_has_the_last_word(keys: Path) -> None:
    kinds = {"chat": {"channel_id": "im"}, "call": {"channel_id": "calls"}, "official": {"priority": "normal"}}
    account = an_account("fcm", keys, kinds=kinds)
    assert isinstance(account, FcmAccount)
    call, mention, official = (message(account, a_push(kind=kind)) for kind in ("call", "mention", "official"))
    assert (call["data"]["channel_id"], mention["data"]["channel_id"]) == ("calls", "im")
    assert "channel_id" not in official["data"]
    assert official["android"]["priority"] == "normal"
    options = FcmOptions(priority="high", channel_id="news", form="notification")
    loud = message(account, a_push(kind="official", options=OfflinePush(fcm=options)))
    assert loud["android"]["priority"] == "high"
    assert loud["android"]["notification"]["channel_id"] == "news"


@pytest.mark.parametrize("kind", KINDS)
def test_a_repeat_replaces_by_its_tag_and_nothing_collapses(keys: Path, kind: str) -> None:
    shown = message(drawn_by_the_system(keys), a_push(kind=kind))
    assert shown["android"]["notification"]["tag"] == "c-1001"
    assert "collapse" not in json.dumps(shown).lower()


def test_without_a_replace_key_a_message_replaces_only_itself(account: FcmAccount) -> None:
    assert message(account, a_push(replace_key=""))["data"]["tag"] == "m-9f3c1d"


def test_a_development_account_only_has_its_pushes_checked(account: FcmAccount, keys: Path) -> None:
    def envelope(account: Any) -> Any:
        return json.loads(fcm.build(account, a_push(), [a_delivery()], AUTH, NOW_MS).body)

    development = an_account("fcm", keys, environment="development")
    assert envelope(development) == envelope(account) | {"validate_only": True}
    assert "validate_only" not in envelope(account)


def test_what_was_shown_can_only_be_replaced(account: FcmAccount) -> None:
    assert fcm.withdraw(account, a_push(recall=True, revision=1), [a_delivery()], AUTH, NOW_MS) is None


def test_the_whole_request_is_within_the_limit(account: FcmAccount) -> None:
    request = fcm.build(account, a_push(body="今" * 4_000), [a_delivery()], AUTH, NOW_MS)
    assert 4_090 < len(request.body) <= 4_096


def test_the_grant_is_signed_by_the_service_account(account: FcmAccount, service_account: dict[str, str]) -> None:
    request = fcm.auth_request(account, 1_767_300_000.9)
    assert request.url == "https://oauth2.googleapis.com/token"
    form = {name: values[0] for name, values in parse_qs(request.body.decode()).items()}
    assert form["grant_type"] == "urn:ietf:params:oauth:grant-type:jwt-bearer"
    public = load_pem_private_key(service_account["private_key"].encode(), None).public_key()
    assert isinstance(public, rsa.RSAPublicKey)
    unchecked = {"verify_aud": False, "verify_exp": False, "verify_iat": False}
    claims = jwt.decode(form["assertion"], public, algorithms=["RS256"], options=unchecked)
    assert claims == {
        "iss": "push@demo-im.iam.gserviceaccount.com",
        "scope": "https://www.googleapis.com/auth/cloud-platform",
        "aud": "https://oauth2.googleapis.com/token",
        "iat": 1_767_300_000,
        "exp": 1_767_303_600,
    }
    assert jwt.get_unverified_header(form["assertion"]) == {"alg": "RS256", "typ": "JWT", "kid": "0123abcd"}


def test_tokens_are_fetched_and_not_minted(account: FcmAccount) -> None:
    assert fcm.mint(account, 0) is None


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"client_email": "", "token_uri": None}, "lacks client_email, token_uri: download"),
        ({"private_key_id": 7}, "lacks private_key_id: download"),
        ({"type": "authorized_user"}, "another type than service_account: download"),
        ({"token_uri": "oauth2"}, "no web address: download"),
        ({"private_key": "no key"}, "no RSA private key"),
        ({"private_key": pem(ec.generate_private_key(ec.SECP256R1())).decode()}, "no RSA private key"),
        ({"private_key": "\ud800"}, "no RSA private key"),
    ],
)
def test_a_faulty_service_account_is_found_with_its_mend(
    keys: Path, tmp_path: Path, service_account: dict[str, str], changes: dict[str, Any], problem: str
) -> None:
    file = tmp_path / "sa.json"
    file.write_text(json.dumps(service_account | changes))
    (found,) = fcm.check(an_account("fcm", keys, service_account_file=str(file)), 0)
    assert problem in found or "is no JSON object" in found
    assert service_account["private_key"][40:80] not in found


@pytest.mark.parametrize(("content", "problem"), [("[]", "no JSON object"), ("", "no JSON object")])
def test_a_file_of_something_else_is_found(keys: Path, tmp_path: Path, content: str, problem: str) -> None:
    (tmp_path / "sa.json").write_text(content)
    account = an_account("fcm", keys, service_account_file=str(tmp_path / "sa.json"))
    assert problem in fcm.check(account, 0)[0]
    with pytest.raises(CredentialError, match=problem):
        fcm.auth_request(account, 0)


def test_a_scope_that_cannot_send_is_found(keys: Path) -> None:
    account = an_account("fcm", keys, scope="https://www.googleapis.com/auth/drive")
    (found,) = fcm.check(account, 0)
    assert "/auth/drive lets nobody send: name https://" in found
    narrow = an_account("fcm", keys, scope="openid https://www.googleapis.com/auth/firebase.messaging")
    assert fcm.check(narrow, 0) == []


def test_a_missing_file_is_found(keys: Path) -> None:
    (found,) = fcm.check(an_account("fcm", keys, service_account_file="/nowhere/sa.json"), 0)
    assert found == "service_account_file /nowhere/sa.json does not exist: put the file there or correct the setting"


def test_the_private_key_shows_in_no_repr(account: FcmAccount) -> None:
    assert "PRIVATE" not in repr(account)
