from __future__ import annotations

import json
from collections.abc import Callable
from hashlib import sha256
from typing import Any
from urllib.parse import quote, urlencode

import pytest

from pushfleet_workers.fakecloud.oppo import CODES, MESSAGES_PATH, Oppo
from pushfleet_workers.fakecloud.vendor import Death
from pushfleet_workers.fakecloud.wire import Call, Request, Response

NOW_S = 1_800_000_000.0
KEY = "oppo-key-1"
ISSUED = Oppo.issue("", {"app_key": KEY})
(SECRET,) = (content.decode() for content in ISSUED.files.values())
NOTIFICATION = {
    "app_message_id": "d-1",
    "style": 1,
    "title": "Lin",
    "content": "See you at nine",
    "click_action_type": 0,
    "action_parameters": '{"mid":"m-1"}',
    "off_line": True,
    "off_line_ttl": 86_400,
    "channel_id": "im",
    "category": "IM",
    "notify_level": 2,
    "notify_id": 1_042,
}


def a_message(token: str = "OPPO_CN_1", **changes: Any) -> dict[str, Any]:
    shown = {name: value for name, value in (NOTIFICATION | changes).items() if value is not None}
    return {"target_type": 2, "target_value": token, "verify_registration_id": True, "notification": shown}


def auth_request(now_s: float = NOW_S, **changes: str) -> Request:
    stamp = str(int(now_s * 1_000))
    sign = sha256(f"{KEY}{stamp}{SECRET}".encode()).hexdigest()
    form = {
        name: value for name, value in {"app_key": KEY, "timestamp": stamp, "sign": sign, **changes}.items() if value
    }
    return Request("POST", "/server/v1/auth", {}, urlencode(form).encode())


def auth_token(vendor: Oppo) -> str:
    call = vendor.read(auth_request(), NOW_S)
    assert isinstance(call, Call)
    answer = json.loads(vendor.answer(call, {}, NOW_S).body)
    assert (answer["code"], answer["data"]["create_time"]) == (0, NOW_S * 1_000)
    return str(answer["data"]["auth_token"])


@pytest.fixture
def oppo() -> Oppo:
    vendor = Oppo()
    vendor.register({**ISSUED.public, "secret": SECRET.encode()})
    return vendor


Send = Callable[..., Call | Response]


@pytest.fixture
def send(oppo: Oppo) -> Send:
    good = auth_token(oppo)

    def request(
        message: object = None, path: str = "unicast", token: str = good, now_s: float = NOW_S, raw: str | None = None
    ) -> Call | Response:
        field = "messages" if path == "unicast_batch" else "message"
        value = json.dumps(message if message is not None else a_message()) if raw is None else raw
        body = f"auth_token={token}&{field}={quote(value, safe='')}".encode()
        return oppo.read(Request("POST", MESSAGES_PATH + path, {}, body), now_s)

    return request


def code_of(response: Call | Response) -> str:
    assert isinstance(response, Response)
    assert response.status == 200
    content = json.loads(response.body)
    assert "data" not in content
    return str(content["code"])


def items_of(response: Response) -> list[dict[str, Any]]:
    content = json.loads(response.body)
    assert content["code"] == 0
    return [{name: value for name, value in item.items() if name != "messageId"} for item in content["data"]]


@pytest.mark.parametrize(
    ("code", "changes"),
    [
        ("15", {"app_key": ""}),
        ("14", {"app_key": "another"}),
        ("18", {"timestamp": ""}),
        ("17", {"sign": ""}),
        ("19", {"timestamp": "1800000000"}),
        ("19", {"timestamp": str(int(NOW_S * 1_000) - 600_001)}),
        ("19", {"timestamp": str(int(NOW_S * 1_000) + 60_000)}),
        ("16", {"sign": "0" * 64}),
        ("16", {"timestamp": str(int(NOW_S * 1_000) - 1)}),
    ],
)
def test_a_signature_that_does_not_hold_is_refused(oppo: Oppo, code: str, changes: dict[str, str]) -> None:
    assert code_of(oppo.read(auth_request(**changes), NOW_S)) == code


def test_a_message_in_order_is_read(send: Send) -> None:
    call = send()
    assert isinstance(call, Call)
    assert (call.account, call.tokens, call.title, call.body) == (KEY, ("OPPO_CN_1",), "Lin", "See you at nine")
    assert (call.sent_id, call.replace_key, call.data) == ("d-1", "1042", {"mid": "m-1"})


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("40", {**a_message(), "target_value": ""}),
        ("40", {**a_message(), "target_type": None}),
        ("41", {**a_message(), "target_type": 3}),
        ("41", {**a_message(), "verify_registration_id": "true"}),
        ("40", {"target_type": 2, "target_value": "t"}),
        ("41", {"target_type": 2, "target_value": "t", "notification": "hi"}),
        ("41", a_message(clickActionType=0)),
        ("40", a_message(title="")),
        ("40", a_message(content=None)),
        ("41", a_message(title="字" * 51)),
        ("41", a_message(content="字" * 51)),
        ("41", a_message(style=2, content="字" * 129)),
        ("41", a_message(style=3)),
        ("41", a_message(action_parameters={"mid": "m-1"})),
        ("41", a_message(action_parameters="mid=1")),
        ("41", a_message(action_parameters=json.dumps({"ext": "x" * 4_000}))),
        ("41", a_message(private_content_parameters={"name": "Lin"})),
        ("41", a_message(click_action_type=3)),
        ("40", a_message(click_action_type=4)),
        ("41", a_message(off_line="true")),
        ("41", a_message(off_line_ttl=0)),
        ("41", a_message(notify_id="7")),
        ("41", a_message(notify_id=2**31)),
        ("41", a_message(badge_operation_type=2)),
        ("40", a_message(show_time_type=1)),
        ("67", a_message(category="GOSSIP")),
        ("67", a_message(notify_level=3)),
        ("67", a_message(category=None)),
    ],
)
def test_a_message_that_is_not_in_order_is_refused_by_code(send: Send, code: str, message: object) -> None:
    assert code_of(send(message)) == code


@pytest.mark.parametrize(
    "message",
    [
        a_message(title="👍" * 50),
        a_message(style=2, content="字" * 128),
        a_message(click_action_type=4, click_action_activity="com.example.im.Chat"),
        a_message(off_line_ttl=10**7),
        a_message(category=None, notify_level=None, channel_id=None),
        a_message(private_msg_template_id="T1", private_content_parameters='{"name":"Lin"}'),
    ],
)
def test_what_the_limits_allow_is_taken(send: Send, message: object) -> None:
    assert isinstance(send(message), Call)


@pytest.mark.parametrize(("raw", "code"), [("", "31"), ("{", "41"), ("[]", "41")])
def test_a_message_that_is_none_is_refused(send: Send, raw: str, code: str) -> None:
    assert code_of(send(raw=raw)) == code


def test_an_auth_token_is_a_field_and_lives_for_a_day(oppo: Oppo, send: Send) -> None:
    assert code_of(send(token="another")) == "11"
    assert code_of(send(token="")) == "29"
    assert code_of(send(now_s=NOW_S + 86_400)) == "11"
    assert isinstance(send(now_s=NOW_S + 86_399), Call)
    oppo.expire_auth()
    assert code_of(send()) == "11"


def test_other_methods_addresses_and_encodings_are_refused(oppo: Oppo, send: Send) -> None:
    assert code_of(oppo.read(Request("GET", MESSAGES_PATH + "unicast", {}, b""), NOW_S)) == "12"
    assert code_of(oppo.read(Request("POST", MESSAGES_PATH + "unicast", {}, b"\xff"), NOW_S)) == "25"
    unknown = send(path="broadcast")
    assert isinstance(unknown, Response)
    assert unknown.status == 404


def test_a_single_message_is_accepted_or_its_device_is_dead(oppo: Oppo, send: Send) -> None:
    call = send()
    assert isinstance(call, Call)
    assert code_of(oppo.answer(call, {"OPPO_CN_1": Death("", 0)}, NOW_S)) == "10000"
    accepted = oppo.answer(call, {}, NOW_S)
    assert accepted.result == "accepted"
    assert json.loads(accepted.body)["data"]["messageId"].startswith(f"{KEY}-1-1-")


def test_a_batch_tells_of_each_message(oppo: Oppo, send: Send) -> None:
    messages = [a_message("t1"), a_message("t2"), a_message("t3", title="")]
    call = send(messages, path="unicast_batch")
    assert isinstance(call, Call)
    assert call.tokens == ("t1", "t2", "t3")
    assert [(part.title, part.dry_run) for part in call.parts] == [("Lin", False), ("Lin", False), ("", True)]
    assert items_of(oppo.answer(call, {"t2": Death("", 0)}, NOW_S)) == [
        {"registrationId": "t1"},
        {"registrationId": "t2", "errorCode": 10_000, "errorMessage": "Invalid Registration_id"},
        {"registrationId": "t3", "errorCode": 40, "errorMessage": "Missing required arguments"},
    ]


@pytest.mark.parametrize(
    ("messages", "code"),
    [([], "41"), ([a_message()] * 1_001, "41"), ({"a": 1}, "41"), ([{}], "40"), ([a_message(), 7], "40")],
)
def test_a_batch_that_is_none_is_refused(send: Send, messages: object, code: str) -> None:
    assert code_of(send(messages, path="unicast_batch")) == code


def test_a_message_that_was_accepted_is_not_taken_again(oppo: Oppo, send: Send) -> None:
    first = send()
    assert isinstance(first, Call)
    oppo.answer(first, {}, NOW_S)
    assert code_of(send()) == "32"
    assert isinstance(send(a_message("another")), Call)
    assert isinstance(send(a_message(app_message_id="d-1-revised")), Call)
    batch = send([a_message(), a_message("t2")], path="unicast_batch")
    assert isinstance(batch, Call)
    assert [item.get("errorCode") for item in items_of(oppo.answer(batch, {}, NOW_S))] == [32, None]
    assert [part.dry_run for part in batch.parts] == [True, False]


def test_a_message_that_died_may_come_again(oppo: Oppo, send: Send) -> None:
    first = send()
    assert isinstance(first, Call)
    oppo.answer(first, {"OPPO_CN_1": Death("", 0)}, NOW_S)
    assert isinstance(send(), Call)


@pytest.mark.parametrize("code", CODES)
def test_every_code_can_be_scripted(oppo: Oppo, send: Send, code: str) -> None:
    call = send()
    assert isinstance(call, Call)
    assert code_of(oppo.refuse(code, call, NOW_S)) == code
