from __future__ import annotations

import hmac
import json
from base64 import b64encode
from hashlib import sha256
from typing import Any

import msgspec
import pytest

from pushfleet_workers.fakecloud.tpns import CODES, Tpns
from pushfleet_workers.fakecloud.vendor import Death, Issued
from pushfleet_workers.fakecloud.wire import Call, Request, Response

NOW_S = 1_800_000_000.0
ANDROID = Tpns.issue("", {"access_id": "1500000001"})
IOS = Tpns.issue("", {"access_id": "1600000001", "platform": "ios"})
DEAD, ALIVE = "0000aaaa1111bbbb2222cccc3333dddd4444", "eeee5555ffff66660000777711118888ffff"
CLICK = {"action_type": 3, "intent": "chat://push/open?mid=m-1&ext=%7B%22a%22%3A1%7D"}
MESSAGE = {
    "title": "Alice",
    "content": "dinner at 7?",
    "thread_id": "c-1",
    "android": {
        "hw_category": "IM",
        "hw_importance": 2,
        "xm_ch_id": "104086",
        "vivo_ch_id": "1",
        "badge_type": -2,
        "show_type": 1,
        "action": CLICK,
    },
}
IOS_MESSAGE = {
    "title": "Alice",
    "content": "dinner at 7?",
    "ios": {
        "aps": {"alert": {"subtitle": ""}, "badge_type": -2, "sound": "default", "mutable-content": 1},
        "custom_content": '{"mid":"m-1"}',
    },
}
PUSH = {
    "audience_type": "token_list",
    "ignore_invalid_token": 1,
    "token_list": [DEAD, ALIVE],
    "message_type": "notify",
    "expire_time": 86_400,
    "seq": 7,
    "message": MESSAGE,
}


def secret_of(issued: Issued) -> bytes:
    (secret,) = issued.files.values()
    return secret


@pytest.fixture
def tpns() -> Tpns:
    vendor = Tpns()
    for issued in (ANDROID, IOS):
        vendor.register({**issued.public, "secret": secret_of(issued)})
    return vendor


def a_request(content: object = PUSH, issued: Issued = ANDROID, path: str = "/v3/push/app", **headers: str) -> Request:
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    stamp = headers.get("timestamp", str(int(NOW_S)))
    text = f"{stamp}{issued.id}".encode() + body
    signature = b64encode(hmac.new(secret_of(issued), text, sha256).hexdigest().encode()).decode()
    return Request("POST", path, {"accessid": issued.id, "timestamp": stamp, "sign": signature, **headers}, body)


def ret(response: Call | Response) -> str:
    assert isinstance(response, Response)
    assert response.status == 200
    content = msgspec.json.decode(response.body)
    assert {"seq", "push_id", "ret_code", "environment", "err_msg", "result"} <= content.keys()
    return str(content["ret_code"])


def a_message(**changes: Any) -> dict[str, Any]:
    return PUSH | {"message": {**MESSAGE, **changes}}


def an_android(**changes: Any) -> dict[str, Any]:
    return a_message(android={**MESSAGE["android"], **changes})  # type: ignore[dict-item]


def an_ios(environment: object = "product", **aps: Any) -> dict[str, Any]:
    ios: Any = IOS_MESSAGE["ios"]
    message = {**IOS_MESSAGE, "ios": {**ios, "aps": {**ios["aps"], **aps}}}
    return PUSH | {"message": message, "environment": environment}


def without(*names: str) -> dict[str, Any]:
    return {name: value for name, value in PUSH.items() if name not in names}


def test_what_is_read_is_what_was_sent(tpns: Tpns) -> None:
    call = tpns.read(a_request(), NOW_S)
    assert isinstance(call, Call)
    assert (call.account, call.tokens) == ("1500000001", (DEAD, ALIVE))
    assert (call.title, call.body, call.sent_id) == ("Alice", "dinner at 7?", "7")
    assert call.data == {"mid": "m-1", "ext": '{"a":1}'}


def test_a_single_token_is_the_first_of_the_list(tpns: Tpns) -> None:
    call = tpns.read(a_request(PUSH | {"audience_type": "token"}), NOW_S)
    assert isinstance(call, Call)
    assert call.tokens == (DEAD,)


def test_an_ios_app_reads_its_custom_content(tpns: Tpns) -> None:
    call = tpns.read(a_request(an_ios(), IOS), NOW_S)
    assert isinstance(call, Call)
    assert (call.account, call.data) == ("1600000001", {"mid": "m-1"})


def test_the_raw_digest_is_no_signature(tpns: Tpns) -> None:
    body = json.dumps(PUSH).encode()
    text = f"{int(NOW_S)}1500000001".encode() + body
    raw = b64encode(hmac.new(secret_of(ANDROID), text, sha256).digest()).decode()
    assert ret(tpns.read(a_request(sign=raw), NOW_S)) == "1008003"


@pytest.mark.parametrize(
    ("code", "request_"),
    [
        ("1008035", a_request(accessid="1500000009")),
        ("1008003", a_request(sign="x")),
        ("1008003", a_request(sign="")),
        ("1008003", a_request(timestamp=str(int(NOW_S) - 301))),
        ("1008003", a_request(timestamp=str(int(NOW_S) + 301))),
        ("1008003", a_request(timestamp="now")),
        ("1008003", a_request(timestamp="9" * 50)),
        ("1008001", a_request(b"{")),
        ("1008001", a_request(b"[]")),
        ("1008002", a_request(without("audience_type"))),
        ("1008002", a_request(without("token_list"))),
        ("1008002", a_request(without("message_type"))),
        ("1008002", a_request(without("message"))),
        ("1008007", a_request(PUSH | {"audience_type": "all"})),
        ("1008007", a_request(PUSH | {"token_list": []})),
        ("1008007", a_request(PUSH | {"token_list": [ALIVE] * 1_001})),
        ("1008007", a_request(PUSH | {"token_list": ["t" * 37]})),
        ("1008007", a_request(PUSH | {"token_list": ["", 7]})),
        ("1008007", a_request(PUSH | {"ignore_invalid_token": "1"})),
        ("1008007", a_request(PUSH | {"message_type": "shout"})),
        ("1008007", a_request(PUSH | {"message": "hi"})),
        ("1008007", a_request(PUSH | {"expire_time": 259_201})),
        ("1008007", a_request(PUSH | {"expire_time": -1})),
        ("1008007", a_request(PUSH | {"seq": "7"})),
        ("1008002", a_request(a_message(title=""))),
        ("1008002", a_request(a_message(content=None))),
        ("1008007", a_request(a_message(thread_id=7))),
        ("1008007", a_request(a_message(android=[]))),
        ("1008007", a_request(an_android(hw_category=7))),
        ("1008007", a_request(an_android(hw_importance=3))),
        ("1008007", a_request(an_android(vivo_ch_id="2"))),
        ("1008007", a_request(an_android(badge_type=-3))),
        ("1008007", a_request(an_android(badge_type=100))),
        ("1008007", a_request(an_android(show_type=3))),
        ("1008007", a_request(an_android(custom_content={"mid": "m-1"}))),
        ("1008007", a_request(an_android(action="open"))),
        ("1008007", a_request(an_android(action={"action_type": 4}))),
        ("1008007", a_request(an_android(action={"action_type": 3}))),
        ("1008002", a_request(PUSH, IOS)),
        ("1008002", a_request(PUSH | {"environment": "product"}, IOS)),
        ("1008007", a_request(an_ios("sandbox"), IOS)),
        ("1008002", a_request(an_ios(alert="hi"), IOS)),
        ("1008007", a_request(an_ios(sound=1), IOS)),
        ("1008007", a_request(an_ios(badge_type=-3), IOS)),
        ("1008007", a_request(an_ios(**{"interruption-level": "loud"}), IOS)),
    ],
)
def test_a_request_that_is_not_in_order_is_refused_by_code(tpns: Tpns, code: str, request_: Request) -> None:
    assert ret(tpns.read(request_, NOW_S)) == code


@pytest.mark.parametrize(
    "content",
    [
        PUSH | {"token_list": [ALIVE] * 1_000, "expire_time": 259_200},
        PUSH | {"expire_time": 0},
        without("ignore_invalid_token", "expire_time", "seq"),
        PUSH | {"message": {"title": "a", "content": "b"}},
        an_android(action={"action_type": 1}, custom_content="{}"),
    ],
)
def test_a_request_in_order_is_read(tpns: Tpns, content: dict[str, Any]) -> None:
    assert isinstance(tpns.read(a_request(content), NOW_S), Call)


@pytest.mark.parametrize("path", ["/", "/v3/push", "/v3/statistics/get_push_task_stat_channel"])
def test_another_address_is_not_found(tpns: Tpns, path: str) -> None:
    response = tpns.read(a_request(path=path), NOW_S)
    assert isinstance(response, Response)
    assert response.status == 404


def answer(vendor: Tpns, dead: dict[str, Death], **changes: Any) -> dict[str, Any]:
    call = vendor.read(a_request(PUSH | changes), NOW_S)
    assert isinstance(call, Call)
    content = msgspec.json.decode(vendor.answer(call, dead, NOW_S).body)
    assert isinstance(content, dict)
    return content


def test_dead_tokens_are_named_and_the_others_served(tpns: Tpns) -> None:
    served = answer(tpns, {DEAD: Death("", 0)})
    assert (served["ret_code"], served["invalid_targe_list"], served["seq"]) == (0, [DEAD], 7)
    assert "invalid_targe_list" not in answer(tpns, {})


def test_a_dead_token_fails_the_whole_call_where_that_is_not_waived(tpns: Tpns) -> None:
    assert answer(tpns, {DEAD: Death("", 0)}, ignore_invalid_token=0)["ret_code"] == 1_008_029


def test_each_push_has_a_number_of_its_own(tpns: Tpns) -> None:
    assert answer(tpns, {})["push_id"] != answer(tpns, {})["push_id"]


@pytest.mark.parametrize("code", sorted(Tpns.refusals))
def test_every_code_can_be_scripted(tpns: Tpns, code: str) -> None:
    call = tpns.read(a_request(), NOW_S)
    assert isinstance(call, Call)
    response = tpns.refuse(code, call, NOW_S)
    assert response.result == code
    assert ret(response) == ("0" if code == "invalid_targe_list" else code)
    assert code == "invalid_targe_list" or CODES[code]


def test_the_public_half_holds_no_secret() -> None:
    assert secret_of(ANDROID).decode() not in json.dumps(ANDROID.public)
