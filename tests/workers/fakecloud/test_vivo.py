from __future__ import annotations

import json
from collections.abc import Callable
from hashlib import md5
from typing import Any

import pytest

from pushfleet_workers.fakecloud.vendor import Death
from pushfleet_workers.fakecloud.vivo import CODES, STATUSES, Vivo
from pushfleet_workers.fakecloud.wire import Call, Request, Response

NOW_S = 1_800_000_000.0
ISSUED = Vivo.issue("", {"app_id": 100_001, "test_devices": ("t1",)})
STRANGER = Vivo.issue("", {"app_id": 100_002})
(SECRET,) = (content.decode() for content in ISSUED.files.values())
KEY = ISSUED.settings["app_key"]
CONTENT = {
    "appId": 100_001,
    "notifyType": 4,
    "title": "李雷",
    "content": "晚上六点见",
    "timeToLive": 86_400,
    "skipType": 1,
    "classification": 1,
    "category": "IM",
    "clientCustomMap": {"mid": "m-1"},
    "requestId": "d-1",
    "pushMode": 0,
    "notifyId": 1_042,
    "foregroundShow": False,
}


def changed(**changes: Any) -> dict[str, Any]:
    return {name: value for name, value in (CONTENT | changes).items() if value is not None}


def auth_request(app_id: object = 100_001, **changes: Any) -> Request:
    stamp = int(NOW_S * 1_000)
    sign = md5(f"100001{KEY}{stamp}{SECRET}".encode()).hexdigest()
    content = {"appId": app_id, "appKey": KEY, "timestamp": stamp, "sign": sign, **changes}
    body = {name: value for name, value in content.items() if value is not None}
    return Request("POST", "/message/auth", {}, json.dumps(body).encode())


def auth_token(vendor: Vivo) -> str:
    call = vendor.read(auth_request(), NOW_S)
    assert isinstance(call, Call)
    answer = json.loads(vendor.answer(call, {}, NOW_S).body)
    assert answer["result"] == 0
    return str(answer["authToken"])


@pytest.fixture
def vivo() -> Vivo:
    vendor = Vivo()
    vendor.register({**ISSUED.public, "secret": SECRET.encode()})
    vendor.register({**STRANGER.public, "secret": b"another"})
    return vendor


Ask = Callable[..., Call | Response]


@pytest.fixture
def ask(vivo: Vivo) -> Ask:
    good = auth_token(vivo)

    def request(path: str, content: object, token: str = good, now_s: float = NOW_S) -> Call | Response:
        return vivo.read(Request("POST", path, {"authtoken": token}, json.dumps(content).encode()), now_s)

    return request


@pytest.fixture
def send(ask: Ask) -> Ask:
    def request(token: str = "t1", **changes: Any) -> Call | Response:
        return ask("/message/send", {"regId": token, **changed(**changes)})

    return request


@pytest.fixture
def to_list(vivo: Vivo, ask: Ask) -> Ask:
    def request(tokens: object, stored: Any = None, **changes: Any) -> Call | Response:
        call = ask("/message/saveListPayload", stored or CONTENT)
        assert isinstance(call, Call)
        assert (call.endpoint, call.tokens) == ("stage", ())
        task_id = json.loads(vivo.answer(call, {}, NOW_S).body)["taskId"]
        content = {"appId": 100_001, "regIds": tokens, "taskId": task_id, "requestId": "b-1", "pushMode": 0}
        return ask("/message/pushToList", content | changes)

    return request


def code_of(response: Call | Response) -> str:
    assert isinstance(response, Response)
    assert response.status == 200
    return str(json.loads(response.body)["result"])


@pytest.mark.parametrize(
    ("code", "changes"),
    [
        ("10200", {"app_id": None}),
        ("10200", {"app_id": "a"}),
        ("10201", {"appKey": ""}),
        ("10202", {"sign": None}),
        ("10203", {"timestamp": str(int(NOW_S * 1_000))}),
        ("10204", {"timestamp": int(NOW_S * 1_000) - 600_001}),
        ("10000", {"app_id": 7}),
        ("10000", {"app_id": 100_002}),
        ("10000", {"appKey": "another"}),
        ("10000", {"sign": "0" * 32}),
        ("10000", {"timestamp": int(NOW_S * 1_000) - 1}),
    ],
)
def test_a_signature_that_does_not_hold_is_refused(vivo: Vivo, code: str, changes: dict[str, Any]) -> None:
    assert code_of(vivo.read(auth_request(**changes), NOW_S)) == code


def test_an_app_id_may_be_text_when_it_signs(vivo: Vivo) -> None:
    assert isinstance(vivo.read(auth_request("100001"), NOW_S), Call)


def test_tokens_are_asked_for_ten_times_a_second_at_most(vivo: Vivo) -> None:
    for _ in range(10):
        assert isinstance(vivo.read(auth_request(), NOW_S), Call)
    assert code_of(vivo.read(auth_request(), NOW_S + 0.9)) == "10093"
    assert isinstance(vivo.read(auth_request(), NOW_S + 1), Call)


def test_a_push_in_order_is_read(send: Ask) -> None:
    call = send()
    assert isinstance(call, Call)
    assert (call.account, call.tokens, call.title, call.body) == ("100001", ("t1",), "李雷", "晚上六点见")
    assert (call.sent_id, call.replace_key, call.data) == ("d-1", "1042", {"mid": "m-1"})


@pytest.mark.parametrize(
    ("code", "changes"),
    [
        ("10050", {"token": ""}),
        ("10054", {"notifyType": 0}),
        ("10054", {"notifyType": None}),
        ("10055", {"title": " "}),
        ("10056", {"title": "字" * 21}),
        ("10056", {"title": "a" * 41}),
        ("10057", {"content": None}),
        ("10058", {"content": "字" * 51}),
        ("10059", {"timeToLive": 59}),
        ("10059", {"timeToLive": 86_401}),
        ("10060", {"skipType": 5}),
        ("10061", {"skipType": 4}),
        ("10062", {"skipType": 4, "skipContent": "x" * 1_025}),
        ("10065", {"networkType": 2}),
        ("10066", {"clientCustomMap": {str(number): "x" for number in range(11)}}),
        ("10066", {"clientCustomMap": {"ext": "x" * 1_022}}),
        ("10067", {"clientCustomMap": {"a": 1}}),
        ("10067", {"notifyId": 0}),
        ("10067", {"foregroundShow": "no"}),
        ("10067", {"pushMode": 2}),
        ("10085", {"title": "[图片]"}),
        ("10085", {"content": "测试一下"}),
        ("10085", {"content": "123 !"}),
        ("10094", {"appId": 100_002}),
        ("10094", {"appId": None}),
        ("10096", {"category": "im"}),
        ("10097", {"category": "MARKETING"}),
        ("10097", {"classification": 0}),
        ("11000", {"classification": 2}),
        ("10305", {"extra": {"callback": "x" * 129}}),
        ("10306", {"extra": {"callback.param": "x" * 65}}),
        ("10352", {"requestId": ""}),
        ("10353", {"requestId": "x" * 65}),
    ],
)
def test_a_push_that_is_not_in_order_is_refused_by_code(send: Ask, code: str, changes: dict[str, Any]) -> None:
    assert code_of(send(**changes)) == code


@pytest.mark.parametrize(
    "changes",
    [
        {"title": "字" * 20, "content": "字" * 50},
        {"classification": None},
        {"category": None},
        {"category": None, "classification": 0},
        {"skipType": 4, "skipContent": "intent:#Intent;end"},
        {"clientCustomMap": {"ext": "x" * 1_021}},
        {"title": "[1]", "pushMode": 1},
        {"title": "Lin"},
    ],
)
def test_what_the_limits_allow_is_taken(send: Ask, changes: dict[str, Any]) -> None:
    assert isinstance(send(**changes), Call)


def test_an_auth_token_is_a_header_and_lives_for_a_day(vivo: Vivo, ask: Ask, send: Ask) -> None:
    content = {"regId": "t1", **CONTENT}
    assert code_of(ask("/message/send", content, token="another")) == "10000"
    assert code_of(ask("/message/send", content, now_s=NOW_S + 86_400)) == "10000"
    vivo.expire_auth()
    assert code_of(send()) == "10000"


def test_an_unknown_address_is_404(ask: Ask) -> None:
    response = ask("/message/all", CONTENT)
    assert isinstance(response, Response)
    assert response.status == 404


def answer(vivo: Vivo, call: Call | Response, *dead: str, code: str = "") -> dict[str, Any]:
    assert isinstance(call, Call)
    content = json.loads(vivo.answer(call, dict.fromkeys(dead, Death(code, 0)), NOW_S).body)
    assert isinstance(content, dict)
    return content


def test_a_single_push_is_accepted_or_its_device_refused(vivo: Vivo, send: Ask) -> None:
    accepted = answer(vivo, send())
    assert (accepted["result"], accepted["taskId"].isdigit()) == (0, True)
    dead = answer(vivo, send(), "t1")
    assert (dead["result"], dead["invalidUser"]) == (10_302, {"status": 1, "userid": "t1"})
    assert answer(vivo, send(), "t1", code="status 2")["invalidUser"]["status"] == 2


def test_a_list_push_shows_what_was_stored_and_names_the_dead(vivo: Vivo, to_list: Ask) -> None:
    call = to_list(["t1", "t2", "t3"])
    assert isinstance(call, Call)
    assert (call.endpoint, call.tokens, call.title) == ("send", ("t1", "t2", "t3"), "李雷")
    assert (call.sent_id, call.replace_key) == ("b-1", "1042")
    content = answer(vivo, call, "t2")
    assert (content["result"], content["requestId"]) == (0, "b-1")
    assert content["invalidUsers"] == [{"status": 1, "userid": "t2"}]
    assert "invalidUsers" not in answer(vivo, call)


@pytest.mark.parametrize(
    ("code", "tokens", "changes"),
    [
        ("10150", [], {}),
        ("10153", ["t1"], {}),
        ("10153", ["t1", ""], {}),
        ("10153", "t1,t2", {}),
        ("10153", ["t"] * 1_001, {}),
        ("10151", ["t1", "t2"], {"taskId": "7"}),
        ("10352", ["t1", "t2"], {"requestId": ""}),
        ("10094", ["t1", "t2"], {"appId": 100_002}),
    ],
)
def test_a_list_push_that_is_not_in_order_is_refused(
    to_list: Ask, code: str, tokens: object, changes: dict[str, Any]
) -> None:
    assert code_of(to_list(tokens, **changes)) == code


def test_content_that_is_not_in_order_is_not_stored(ask: Ask) -> None:
    assert code_of(ask("/message/saveListPayload", changed(title=""))) == "10055"


def test_a_test_message_reaches_test_devices_only(vivo: Vivo, send: Ask, to_list: Ask) -> None:
    assert answer(vivo, send("t1", pushMode=1))["result"] == 0
    assert answer(vivo, send("t2", pushMode=1))["invalidUser"] == {"status": 4, "userid": "t2"}
    call = to_list(["t1", "t2"], changed(pushMode=1), pushMode=1)
    assert answer(vivo, call)["invalidUsers"] == [{"status": 4, "userid": "t2"}]
    assert isinstance(call, Call)
    assert [(part.tokens, part.dry_run) for part in call.parts] == [(("t1",), False), (("t2",), True)]


@pytest.mark.parametrize("code", CODES)
def test_every_code_can_be_scripted(vivo: Vivo, send: Ask, code: str) -> None:
    call = send()
    assert isinstance(call, Call)
    assert code_of(vivo.refuse(code, call, NOW_S)) == code


@pytest.mark.parametrize("code", STATUSES)
def test_every_status_can_be_scripted(vivo: Vivo, send: Ask, code: str) -> None:
    call = send()
    assert isinstance(call, Call)
    content = json.loads(vivo.refuse(code, call, NOW_S).body)
    assert content["invalidUser"] == {"status": int(code[-1]), "userid": "t1"}
