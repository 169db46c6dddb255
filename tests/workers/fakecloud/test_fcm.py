from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode

import jwt
import msgspec
import pytest

from pushfleet_workers.fakecloud.fcm import CODES, GOOGLE_TOKEN_URI, GRANT_TYPE, Fcm
from pushfleet_workers.fakecloud.vendor import Death
from pushfleet_workers.fakecloud.wire import Call, Request, Response

NOW_S = 1_800_000_000.0
ISSUED = Fcm.issue("https://127.0.0.1:1", {"project_id": "demo-im"})
STRANGER = Fcm.issue("https://127.0.0.1:1", {"project_id": "other-im"})
SCOPE = "https://www.googleapis.com/auth/firebase.messaging"
(ACCOUNT_FILE,) = ISSUED.files.values()
ACCOUNT = json.loads(ACCOUNT_FILE)
MESSAGE = {
    "token": "fK3x:APA91bFAKE",
    "data": {"mid": "m-1", "title": "Li Lei", "body": "See you at 8?"},
    "android": {"priority": "high", "ttl": "259200s"},
}


def assertion(**changes: Any) -> str:
    claims = {
        "iss": ACCOUNT["client_email"],
        "scope": SCOPE,
        "aud": ACCOUNT["token_uri"],
        "iat": int(NOW_S),
        "exp": int(NOW_S) + 3_600,
        **changes,
    }
    return jwt.encode(claims, ACCOUNT["private_key"], "RS256", headers={"kid": ACCOUNT["private_key_id"]})


def token_request(grant: str = "", grant_type: str = GRANT_TYPE) -> Request:
    form = urlencode({"grant_type": grant_type, "assertion": grant or assertion()})
    return Request("POST", "/token", {}, form.encode())


def access_token(vendor: Fcm) -> str:
    call = vendor.read(token_request(), NOW_S)
    assert isinstance(call, Call)
    answer = msgspec.json.decode(vendor.answer(call, {}, NOW_S).body)
    assert (answer["token_type"], answer["expires_in"]) == ("Bearer", 3_599)
    return str(answer["access_token"])


@pytest.fixture
def fcm() -> Fcm:
    vendor = Fcm()
    vendor.register(ISSUED.public)
    vendor.register(STRANGER.public)
    return vendor


@pytest.fixture
def send(fcm: Fcm) -> Callable[..., Call | Response]:
    bearer = access_token(fcm)

    def request(
        message: object = MESSAGE,
        body: bytes | None = None,
        project_id: str = "demo-im",
        token: str = bearer,
        now_s: float = NOW_S,
        **envelope: Any,
    ) -> Call | Response:
        content = json.dumps({"message": message, **envelope}).encode() if body is None else body
        headers = {"authorization": f"Bearer {token}"}
        return fcm.read(Request("POST", f"/v1/projects/{project_id}/messages:send", headers, content), now_s)

    return request


def error(response: Call | Response) -> dict[str, Any]:
    assert isinstance(response, Response)
    content: dict[str, Any] = msgspec.json.decode(response.body)["error"]
    assert content["code"] == response.status
    return content


def error_code(content: dict[str, Any]) -> str:
    return next((str(detail["errorCode"]) for detail in content.get("details", ()) if "errorCode" in detail), "")


def violated(content: dict[str, Any]) -> str:
    details = (detail for detail in content.get("details", ()) if "fieldViolations" in detail)
    return next((str(detail["fieldViolations"][0]["field"]) for detail in details), "")


def without(*names: str) -> dict[str, Any]:
    return {name: value for name, value in MESSAGE.items() if name not in names}


def android(**fields: Any) -> dict[str, Any]:
    return {**MESSAGE, "android": fields}


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ("message", "text"),
        ("message", without("token")),
        ("message", {**MESSAGE, "topic": "news"}),
        ("message.token", {**MESSAGE, "token": 7}),
        ("message", {**MESSAGE, "colour": "red"}),
        ("message.data[0].value", {**MESSAGE, "data": {"badge": 3}}),
        ("message.data[1].value", {**MESSAGE, "data": {"mid": "m-1", "badge": None}}),
        ("message.data[0].key", {**MESSAGE, "data": {"from": "x"}}),
        ("message.data[0].key", {**MESSAGE, "data": {"message_type": "x"}}),
        ("message.data[0].key", {**MESSAGE, "data": {"google.ttl": "x"}}),
        ("message.data[0].key", {**MESSAGE, "data": {"gcm": "x"}}),
        ("message.data", {**MESSAGE, "data": []}),
        ("message.notification", {**MESSAGE, "notification": {"headline": "x"}}),
        ("message.android", {**MESSAGE, "android": []}),
        ("message.android", android(prio="high")),
        ("message.android.priority", android(priority="urgent")),
        ("message.android.ttl", android(ttl=300)),
        ("message.android.ttl", android(ttl="300")),
        ("message.android.ttl", android(ttl="2419201s")),
        ("message.android.collapse_key", android(collapse_key=4)),
        ("message.android.data[0].value", android(data={"n": 1})),
        ("message.android.notification", android(notification={"headline": "x"})),
        ("message.android.notification.title", android(notification={"title": 1})),
        ("message.android.notification.color", android(notification={"color": "red"})),
        ("message.android.notification.notification_count", android(notification={"notification_count": "3"})),
        ("message.android.notification.visibility", android(notification={"visibility": "HIDDEN"})),
        ("message.android.fcm_options.analytics_label", android(fcm_options={"analytics_label": "a b"})),
        ("message.apns", {**MESSAGE, "apns": {"header": {}}}),
        ("message.apns.headers", {**MESSAGE, "apns": {"headers": {"apns-priority": 10}}}),
        ("message.apns.payload", {**MESSAGE, "apns": {"payload": "x"}}),
        ("message.fcm_options.analytics_label", {**MESSAGE, "fcm_options": {"analytics_label": "x" * 51}}),
        ("message", {**MESSAGE, "data": {"text": "x" * 4_093}}),
        ("message", {**MESSAGE, "data": {"text": "漢" * 1_365}}),
    ],
)
def test_a_message_that_is_not_in_order_is_refused_by_field(
    send: Callable[..., Call | Response], field: str, message: object
) -> None:
    content = error(send(message))

    assert (content["code"], content["status"]) == (400, "INVALID_ARGUMENT")
    assert error_code(content) == "INVALID_ARGUMENT"
    assert violated(content) == field


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"<html>", b'{"message":"\xff"}'])
def test_a_body_that_is_no_json_object_is_refused(send: Callable[..., Call | Response], body: bytes) -> None:
    assert error_code(error(send(body=body))) == "INVALID_ARGUMENT"


@pytest.mark.parametrize(
    "message",
    [
        MESSAGE,
        {**MESSAGE, "data": {"text": "x" * 4_092}},
        android(priority="HIGH", ttl="3.5s", collapseKey="c-1", directBootOk=True),
        android(ttl="0s", notification={"channelId": "im", "notification_count": 3, "color": "#00ff00"}),
        {"topic": "news", "notification": {"title": "a", "body": "b"}},
        {"fid": "cXy", "data": {"mid": "m-1"}},
    ],
)
def test_a_message_in_order_is_read(send: Callable[..., Call | Response], message: object) -> None:
    assert isinstance(send(message), Call)


def test_what_is_read_is_what_was_sent(send: Callable[..., Call | Response]) -> None:
    call = send({**MESSAGE, "notification": {"title": "Li Lei", "body": "Hi"}}, validate_only=True)

    assert isinstance(call, Call)
    assert (call.account, call.tokens) == ("demo-im", ("fK3x:APA91bFAKE",))
    assert (call.title, call.body, call.data["mid"]) == ("Li Lei", "Hi", "m-1")
    assert call.dry_run


def test_a_malformed_registration_token_is_named_in_the_message_only(send: Callable[..., Call | Response]) -> None:
    content = error(send({**MESSAGE, "token": "has a space"}))

    assert error_code(content) == "INVALID_ARGUMENT"
    assert "registration token" in content["message"]


@pytest.mark.parametrize(
    "changes",
    [{"token": "ya29.unknown"}, {"token": ""}, {"now_s": NOW_S + 3_599}],
)
def test_a_bearer_that_does_not_count_is_unauthenticated_without_detail(
    send: Callable[..., Call | Response], changes: dict[str, Any]
) -> None:
    content = error(send(**changes))

    assert (content["code"], content["status"]) == (401, "UNAUTHENTICATED")
    assert "details" not in content


def test_forgotten_access_tokens_are_unauthenticated(fcm: Fcm, send: Callable[..., Call | Response]) -> None:
    fcm.expire_auth()

    assert error(send())["status"] == "UNAUTHENTICATED"


@pytest.mark.parametrize(("project_id", "status"), [("nobody", "NOT_FOUND"), ("other-im", "PERMISSION_DENIED")])
def test_a_wrong_project_is_refused_without_detail(
    send: Callable[..., Call | Response], project_id: str, status: str
) -> None:
    content = error(send(project_id=project_id))

    assert content["status"] == status
    assert "details" not in content


@pytest.mark.parametrize(
    ("word", "changes"),
    [
        ("invalid_grant", {"iss": "nobody@example.com"}),
        ("invalid_grant", {"aud": "https://example.com/token"}),
        ("invalid_grant", {"exp": int(NOW_S)}),
        ("invalid_grant", {"exp": int(NOW_S) + 3_601}),
        ("invalid_grant", {"iat": int(NOW_S) + 301, "exp": int(NOW_S) + 3_600}),
        ("invalid_scope", {"scope": "https://www.googleapis.com/auth/drive"}),
    ],
)
def test_an_assertion_that_is_not_in_order_gets_no_access_token(fcm: Fcm, word: str, changes: dict[str, Any]) -> None:
    response = fcm.read(token_request(assertion(**changes)), NOW_S)

    assert isinstance(response, Response)
    assert response.status == 400
    assert msgspec.json.decode(response.body)["error"] == word


@pytest.mark.parametrize(
    "request_",
    [token_request("nonsense"), token_request(grant_type="password"), Request("POST", "/token", {}, b"\xff")],
)
def test_a_token_request_that_is_no_jwt_grant_is_refused(fcm: Fcm, request_: Request) -> None:
    assert isinstance(fcm.read(request_, NOW_S), Response)


def test_a_signature_of_another_key_gets_no_access_token(fcm: Fcm) -> None:
    (file,) = STRANGER.files.values()
    claims = jwt.decode(assertion(), options={"verify_signature": False})
    forged = jwt.encode(claims, json.loads(file)["private_key"], "RS256")

    response = fcm.read(token_request(forged), NOW_S)

    assert isinstance(response, Response)
    assert response.result == "invalid_grant"


def test_google_s_own_audience_is_accepted_too(fcm: Fcm) -> None:
    assert isinstance(fcm.read(token_request(assertion(aud=GOOGLE_TOKEN_URI)), NOW_S), Call)


def test_an_accepted_push_has_a_name_of_its_own(fcm: Fcm, send: Callable[..., Call | Response]) -> None:
    call = send()
    assert isinstance(call, Call)

    names = [msgspec.json.decode(fcm.answer(call, {}, NOW_S).body)["name"] for _ in range(2)]

    assert names[0] != names[1]
    assert all(name.startswith("projects/demo-im/messages/") for name in names)


def test_a_dead_token_is_unregistered(fcm: Fcm, send: Callable[..., Call | Response]) -> None:
    call = send()
    assert isinstance(call, Call)

    content = error(fcm.answer(call, {call.tokens[0]: Death("", 0)}, NOW_S))

    assert (content["code"], error_code(content)) == (404, "UNREGISTERED")


@pytest.mark.parametrize("code", sorted(CODES))
def test_every_code_can_be_scripted(fcm: Fcm, code: str, send: Callable[..., Call | Response]) -> None:
    call = send()
    assert isinstance(call, Call)

    content = error(fcm.refuse(code, call, NOW_S))

    status, word, detailed = CODES[code]
    assert (content["code"], content["status"]) == (status, word)
    assert bool(error_code(content)) == detailed


@pytest.mark.parametrize(("code", "whose"), [("QUOTA_EXCEEDED", "project"), ("DEVICE_QUOTA_EXCEEDED", "device")])
def test_a_quota_says_whose_it_is(fcm: Fcm, code: str, whose: str, send: Callable[..., Call | Response]) -> None:
    call = send()
    assert isinstance(call, Call)

    content = error(fcm.refuse(code, call, NOW_S))

    assert error_code(content) == "QUOTA_EXCEEDED"
    (violation,) = next(detail["violations"] for detail in content["details"] if "violations" in detail)
    assert whose in violation["description"]


def test_the_public_half_holds_no_private_key() -> None:
    assert "PRIVATE" not in json.dumps(ISSUED.public)
