from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode

import msgspec
import pytest

from pushfleet_workers.fakecloud.huawei import CODES, Huawei
from pushfleet_workers.fakecloud.vendor import Death
from pushfleet_workers.fakecloud.wire import Call, Request, Response

NOW_S = 1_800_000_000.0
ISSUED = Huawei.issue("", {"client_id": "100000001", "project_id": "700000001"})
STRANGER = Huawei.issue("", {"client_id": "100000002"})
(SECRET,) = (content.decode() for content in ISSUED.files.values())
NOTIFICATION = {
    "title": "Lin",
    "body": "See you at nine",
    "importance": "NORMAL",
    "tag": "c42",
    "click_action": {"type": 3},
    "badge": {"add_num": 1, "class": "com.example.im.Main"},
}
ANDROID = {
    "category": "IM",
    "ttl": "86400s",
    "collapse_key": -1,
    "bi_tag": "d-1",
    "target_user_type": 0,
    "data": '{"mid":"m-1"}',
    "notification": NOTIFICATION,
}


def a_message(**android: Any) -> dict[str, Any]:
    return {"token": ["HWTOKEN_A", "HWTOKEN_B"], "android": {**ANDROID, **android}}


def shown(**fields: Any) -> dict[str, Any]:
    return a_message(notification={**NOTIFICATION, **fields})


def hidden(*names: str) -> dict[str, Any]:
    return a_message(notification={name: value for name, value in NOTIFICATION.items() if name not in names})


def token_request(path: str = "/oauth2/v3/token", **changes: str) -> Request:
    form = {"grant_type": "client_credentials", "client_id": "100000001", "client_secret": SECRET, **changes}
    return Request("POST", path, {}, urlencode(form).encode())


def access_token(vendor: Huawei, request: Request | None = None) -> str:
    call = vendor.read(request or token_request(), NOW_S)
    assert isinstance(call, Call)
    answer = msgspec.json.decode(vendor.answer(call, {}, NOW_S).body)
    assert (answer["token_type"], answer["expires_in"]) == ("Bearer", 3_600)
    return str(answer["access_token"])


@pytest.fixture
def huawei() -> Huawei:
    vendor = Huawei()
    vendor.register(ISSUED.public)
    vendor.register(STRANGER.public)
    return vendor


Send = Callable[..., Call | Response]


@pytest.fixture
def send(huawei: Huawei) -> Send:
    bearer = access_token(huawei)

    def request(
        message: object = None,
        path: str = "/v1/100000001/messages:send",
        token: str = bearer,
        now_s: float = NOW_S,
        body: bytes | None = None,
        **envelope: Any,
    ) -> Call | Response:
        content = json.dumps({"message": message or a_message(), **envelope}).encode() if body is None else body
        return huawei.read(Request("POST", path, {"authorization": f"Bearer {token}"}, content), now_s)

    return request


def coded(response: Call | Response) -> dict[str, str]:
    assert isinstance(response, Response)
    content: dict[str, str] = msgspec.json.decode(response.body)
    assert set(content) == {"code", "msg", "requestId"}
    assert all(isinstance(value, str) for value in content.values())
    return content


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("80300010", {"android": ANDROID}),
        ("80300010", {**a_message(), "token": []}),
        ("80300010", {**a_message(), "token": ["t"] * 1_001}),
        ("80100001", {**a_message(), "token": ["t", 7]}),
        ("80100001", {**a_message(), "topic": "news"}),
        ("80300008", shown(body="漢" * 1_400)),
        ("80300008", {**a_message(data="x" * 4_096), "token": ["t" * 130] * 1_000}),
        ("80100003", {**a_message(), "android": []}),
        ("80100003", {"token": ["t"]}),
        ("80100003", {"token": ["t"], "notification": {"title": "a", "body": "b"}}),
        ("80100001", {"token": ["t"], "data": {"mid": "m-1"}}),
        ("80100001", hidden("title")),
        ("80100001", hidden("body")),
        ("80100003", hidden("click_action")),
        ("80100001", shown(click_action={"type": 9})),
        ("80100001", shown(click_action={"type": 1})),
        ("80100001", shown(click_action={"type": 2, "url": "http://example.com"})),
        ("80100001", shown(badge={"add_num": 1})),
        ("80100001", shown(badge={"add_num": 0, "class": "a.B"})),
        ("80100001", shown(badge={"set_num": 100, "class": "a.B"})),
        ("80300011", shown(importance="HIGH")),
        ("80100001", shown(importance="LOUD")),
        ("80100001", shown(tag=4)),
        ("80100001", shown(notify_id="4")),
        ("80100001", shown(color="red")),
        ("80100001", shown(style=2)),
        ("80100001", shown(style=1, big_title="only")),
        ("80100013", a_message(collapse_key=101)),
        ("80100013", a_message(collapse_key=-2)),
        ("80100013", a_message(collapse_key="c-1")),
        ("80100001", a_message(category="GOSSIP")),
        ("80100001", a_message(ttl=86_400)),
        ("80100001", a_message(ttl="1296001s")),
        ("80100001", a_message(urgency="NOW")),
        ("80100001", a_message(target_user_type=2)),
        ("80100001", a_message(bi_tag=7)),
    ],
)
def test_a_message_that_is_not_in_order_is_refused_by_code(send: Send, code: str, message: object) -> None:
    assert coded(send(message))["code"] == code


@pytest.mark.parametrize(("code", "body"), [("80100003", b""), ("80100003", b"<html>"), ("80300010", b"{}")])
def test_a_body_without_a_message_is_refused(send: Send, code: str, body: bytes) -> None:
    assert coded(send(body=body))["code"] == code


@pytest.mark.parametrize(
    "message",
    [
        a_message(),
        {**a_message(), "token": ["t" * 130] * 1_000},
        {"token": ["t"], "data": "wake up"},
        {"token": ["t"], "android": {"data": "wake up", "urgency": "HIGH"}},
        {
            "token": ["t"],
            "notification": {"title": "a", "body": "b"},
            "android": {"notification": {"click_action": {"type": 1, "intent": "intent://x"}}},
        },
        a_message(collapse_key=100, ttl="1296000"),
        shown(badge={"set_num": 0, "class": "a.B"}, notify_id=7, color="#00ff00", style=3),
    ],
)
def test_a_message_in_order_is_read(send: Send, message: object) -> None:
    assert isinstance(send(message), Call)


def test_what_is_read_is_what_was_sent(send: Send) -> None:
    call = send(validate_only=True)

    assert call == Call(
        account="100000001",
        tokens=("HWTOKEN_A", "HWTOKEN_B"),
        title="Lin",
        body="See you at nine",
        sent_id="d-1",
        callback={"param": "d-1"},
        replace_key="c42",
        data={"mid": "m-1"},
        dry_run=True,
    )


def test_a_custom_payload_that_is_plain_text_is_kept(send: Send) -> None:
    call = send(a_message(data="wake up"))

    assert isinstance(call, Call)
    assert call.data == {"": "wake up"}


def test_the_second_version_goes_by_the_project(send: Send) -> None:
    assert isinstance(send(path="/v2/700000001/messages:send"), Call)
    assert coded(send(path="/v2/100000001/messages:send"))["code"] == "80200001"


@pytest.mark.parametrize(
    ("code", "changes"),
    [
        ("80200001", {"token": "unknown"}),
        ("80200001", {"token": ""}),
        ("80200001", {"path": "/v1/100000002/messages:send"}),
        ("80200003", {"now_s": NOW_S + 3_600}),
    ],
)
def test_a_bearer_that_does_not_count_is_refused(send: Send, code: str, changes: dict[str, Any]) -> None:
    response = send(**changes)

    assert isinstance(response, Response)
    assert response.status == 401
    assert coded(response)["code"] == code


def test_expired_access_tokens_say_so(huawei: Huawei, send: Send) -> None:
    huawei.expire_auth()

    assert coded(send())["code"] == "80200003"


def test_an_unknown_address_is_404(send: Send) -> None:
    response = send(path="/v3/100000001/messages:send")

    assert isinstance(response, Response)
    assert response.status == 404


@pytest.mark.parametrize(
    "changes", [{"client_secret": "wrong"}, {"client_id": "100000009"}, {"grant_type": "password"}]
)
def test_wrong_client_credentials_get_no_access_token(huawei: Huawei, changes: dict[str, str]) -> None:
    response = huawei.read(token_request(**changes), NOW_S)

    assert isinstance(response, Response)
    assert response.status == 400


def test_the_slash_of_an_access_token_is_escaped_and_counts_unescaped(huawei: Huawei, send: Send) -> None:
    call = huawei.read(token_request(), NOW_S)
    assert isinstance(call, Call)
    raw = huawei.answer(call, {}, NOW_S).body

    assert rb"\/" in raw
    assert isinstance(send(token=msgspec.json.decode(raw)["access_token"]), Call)


def test_more_than_a_thousand_access_tokens_in_five_minutes_are_refused(huawei: Huawei) -> None:
    for _ in range(1_000):
        access_token(huawei)

    refused = huawei.read(token_request(), NOW_S + 299)

    assert isinstance(refused, Response)
    assert refused.status == 503
    assert isinstance(huawei.read(token_request(), NOW_S + 300), Call)


def test_some_dead_tokens_make_a_partial_success_with_json_text(huawei: Huawei, send: Send) -> None:
    call = send()
    assert isinstance(call, Call)

    response = huawei.answer(call, {"HWTOKEN_B": Death("", 0)}, NOW_S)

    assert (response.status, coded(response)["code"]) == (200, "80100000")
    assert json.loads(coded(response)["msg"]) == {"success": 1, "failure": 1, "illegal_tokens": ["HWTOKEN_B"]}


def test_all_tokens_dead_is_a_refusal(huawei: Huawei, send: Send) -> None:
    call = send()
    assert isinstance(call, Call)

    response = huawei.answer(call, dict.fromkeys(call.tokens, Death("", 0)), NOW_S)

    assert coded(response)["code"] == "80300007"


def test_an_accepted_message_is_success_with_a_request_id(huawei: Huawei, send: Send) -> None:
    call = send()
    assert isinstance(call, Call)

    response = huawei.answer(call, {}, NOW_S)

    assert (response.status, coded(response)["code"], response.result) == (200, "80000000", "accepted")


@pytest.mark.parametrize("code", sorted(Huawei.refusals))
def test_every_code_can_be_scripted(huawei: Huawei, send: Send, code: str) -> None:
    call = send()
    assert isinstance(call, Call)

    response = huawei.refuse(code, call, NOW_S)

    assert response.status == CODES[code][0]
    assert coded(response)["code"] == code


def test_the_public_half_holds_no_secret() -> None:
    assert SECRET not in json.dumps(ISSUED.public)
