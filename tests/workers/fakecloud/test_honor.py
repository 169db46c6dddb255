from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode

import msgspec
import pytest

from pushfleet_workers.fakecloud.honor import CODES, GRANT_ERRORS, LISTS, Honor
from pushfleet_workers.fakecloud.vendor import Death
from pushfleet_workers.fakecloud.wire import Call, Request, Response

NOW_S = 1_800_000_000.0
NOW_MS = 1_800_000_000_000
ISSUED = Honor.issue("", {"app_id": "104000001", "client_id": "id-1"})
STRANGER = Honor.issue("", {"app_id": "104000002", "client_id": "id-2"})
(SECRET,) = (content.decode() for content in ISSUED.files.values())
SEND = "/api/v1/104000001/sendMessage"
TOKENS = ["HNTOKEN_A", "HNTOKEN_B"]
NOTIFICATION = {
    "title": "Lin",
    "body": "See you at nine",
    "importance": "NORMAL",
    "clickAction": {"type": 3},
    "tag": "c42",
    "badge": {"addNum": 1, "badgeClass": "com.example.im.MainActivity"},
}
ANDROID = {
    "ttl": "86400s",
    "biTag": "d-1",
    "targetUserType": 0,
    "data": '{"cid":"c42","mid":"m-1"}',
    "notification": NOTIFICATION,
}


def a_message(**android: Any) -> dict[str, Any]:
    return {"token": TOKENS, "android": {**ANDROID, **android}}


def shown(**fields: Any) -> dict[str, Any]:
    return a_message(notification={**NOTIFICATION, **fields})


def hidden(name: str) -> dict[str, Any]:
    return a_message(notification={key: value for key, value in NOTIFICATION.items() if key != name})


def token_request(path: str = "/auth/token", **changes: str) -> Request:
    form = {"grant_type": "client_credentials", "client_id": "id-1", "client_secret": SECRET, **changes}
    return Request("POST", path, {}, urlencode(form).encode())


def access_token(vendor: Honor, request: Request | None = None) -> str:
    call = vendor.read(request or token_request(), NOW_S)
    assert isinstance(call, Call)
    answer = msgspec.json.decode(vendor.answer(call, {}, NOW_S).body)
    assert (answer["token_type"], answer["expires_in"]) == ("Bearer", 3_600)
    return str(answer["access_token"])


@pytest.fixture
def honor() -> Honor:
    vendor = Honor()
    vendor.register(ISSUED.public)
    vendor.register(STRANGER.public)
    return vendor


Send = Callable[..., Call | Response]


@pytest.fixture
def send(honor: Honor) -> Send:
    bearer = access_token(honor)

    def request(
        message: object = None,
        path: str = SEND,
        authorization: str = f"Bearer {bearer}",
        timestamp: str = str(NOW_MS),
        now_s: float = NOW_S,
        body: bytes | None = None,
    ) -> Call | Response:
        content = json.dumps(a_message() if message is None else message).encode() if body is None else body
        headers = {"authorization": authorization, "timestamp": timestamp}
        return honor.read(Request("POST", path, headers, content), now_s)

    return request


def coded(response: Call | Response) -> tuple[int, dict[str, Any]]:
    assert isinstance(response, Response)
    content = msgspec.json.decode(response.body)
    assert content.keys() == {"code", "message", "data"}
    return content["code"], content["data"]


@pytest.mark.parametrize(
    "message",
    [
        {"android": ANDROID},
        {**a_message(), "token": []},
        {**a_message(), "token": ["t"] * 101},
        {**a_message(), "token": ["t", 7]},
        {**a_message(), "android": []},
        {**a_message(), "data": {}},
        {"token": ["t"]},
        {"token": ["t"], "android": {}},
        {"token": ["t"], "notification": {"title": "a", "body": "b"}, "data": "x"},
        shown(body="漢" * 1_400),
        hidden("title"),
        shown(body=""),
        hidden("clickAction"),
        shown(clickAction={"type": 1}),
        shown(clickAction={"type": 2, "url": "http://example.com"}),
        shown(clickAction={"type": 4}),
        shown(importance="HIGH"),
        shown(notifyId="4"),
        shown(tag=4),
        shown(badge={"addNum": 1}),
        shown(badge={"addNum": 100, "badgeClass": "a.B"}),
        shown(badge={"setNum": -1, "badgeClass": "a.B"}),
        shown(style=1, bigTitle="only"),
        shown(style=2),
        a_message(ttl=86_400),
        a_message(ttl="1296001s"),
        a_message(biTag=7),
        a_message(targetUserType=2),
        a_message(data={}),
        a_message(notification=[]),
    ],
)
def test_a_message_that_is_not_in_order_is_refused(send: Send, message: object) -> None:
    assert coded(send(message))[0] == 400


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]"])
def test_a_body_that_is_no_object_is_refused(send: Send, body: bytes) -> None:
    assert coded(send(body=body))[0] == 400


@pytest.mark.parametrize(
    "message",
    [
        {**a_message(), "token": ["t" * 130] * 100},
        {"token": ["t"], "data": "wake up"},
        {"token": ["t"], "android": {"data": "wake up"}},
        {
            "token": ["t"],
            "notification": {"title": "a", "body": "b"},
            "android": {"notification": {"clickAction": {"type": 3}}},
        },
        shown(style=1, bigTitle="a", bigBody="b", image="https://example.com/a.jpg"),
        shown(clickAction={"type": 1, "intent": "intent://x"}, notifyId=7),
    ],
)
def test_a_message_in_order_is_read(send: Send, message: object) -> None:
    assert isinstance(send(message), Call)


def test_what_is_read_is_what_was_sent(send: Send) -> None:
    assert send() == Call(
        account="104000001",
        tokens=("HNTOKEN_A", "HNTOKEN_B"),
        title="Lin",
        body="See you at nine",
        sent_id="d-1",
        callback={"param": "d-1"},
        replace_key="c42",
        data={"cid": "c42", "mid": "m-1"},
    )


@pytest.mark.parametrize(
    ("code", "changes"),
    [
        (401, {"authorization": "Bearer unknown"}),
        (401, {"authorization": ""}),
        (401, {"now_s": NOW_S + 3_600, "timestamp": str(NOW_MS + 3_600_000)}),
        (403, {"path": "/api/v1/104000002/sendMessage"}),
        (404, {"path": "/api/v1/104000009/sendMessage"}),
        (404, {"path": "/v1/104000001/messages:send"}),
        (400, {"timestamp": ""}),
        (400, {"timestamp": "1800000000"}),
        (400, {"timestamp": str(NOW_MS - 300_001)}),
    ],
)
def test_a_sender_that_does_not_count_is_refused(send: Send, code: int, changes: dict[str, Any]) -> None:
    response = send(**changes)
    assert coded(response)[0] == code
    assert isinstance(response, Response)
    assert response.status == code


def test_a_bearer_without_its_scheme_is_refused(honor: Honor, send: Send) -> None:
    assert coded(send(authorization=access_token(honor)))[0] == 401


def test_access_tokens_can_be_forgotten(honor: Honor, send: Send) -> None:
    honor.expire_auth()
    assert coded(send())[0] == 401


@pytest.mark.parametrize(
    ("error", "changes"),
    [
        ("unauthorized_client", {"client_secret": "wrong"}),
        ("invalid_client", {"client_id": "nobody"}),
        ("invalid_grant", {"grant_type": "password"}),
    ],
)
def test_wrong_client_credentials_get_no_access_token(honor: Honor, error: str, changes: dict[str, str]) -> None:
    response = honor.read(token_request(**changes), NOW_S)
    assert isinstance(response, Response)
    assert msgspec.json.decode(response.body)["error"] == error


def test_the_older_address_hands_out_access_tokens_as_well(honor: Honor) -> None:
    assert access_token(honor, token_request("/auth/realms/developer/protocol/openid-connect/token"))


def a_read(send: Send) -> Call:
    call = send()
    assert isinstance(call, Call)
    return call


@pytest.mark.parametrize("dead", [["HNTOKEN_B"], ["HNTOKEN_A", "HNTOKEN_B"], []])
def test_dead_tokens_are_expired_ones_of_a_success(honor: Honor, send: Send, dead: list[str]) -> None:
    response = honor.answer(a_read(send), dict.fromkeys(dead, Death("", 0)), NOW_S)
    code, data = coded(response)
    assert (response.status, code) == (200, 200)
    assert (data["expireTokens"], data["failTokens"], data["sendResult"]) == (dead, [], len(dead) < 2)


@pytest.mark.parametrize("code", sorted(Honor.refusals))
def test_every_code_can_be_scripted(honor: Honor, send: Send, code: str) -> None:
    response = honor.refuse(code, a_read(send), NOW_S)
    if code in LISTS:
        assert coded(response)[1][code] == TOKENS
    elif code in GRANT_ERRORS:
        assert msgspec.json.decode(response.body)["error"] == code
    else:
        assert (response.status, coded(response)[0]) == (CODES[code][0], int(code))


def test_the_public_half_holds_no_secret() -> None:
    assert SECRET not in json.dumps(ISSUED.public)
