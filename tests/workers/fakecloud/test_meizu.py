from __future__ import annotations

import json
from hashlib import md5
from typing import Any
from urllib.parse import urlencode

import pytest

from pushfleet_workers.fakecloud.meizu import CODES, VALUE_CODES, Meizu
from pushfleet_workers.fakecloud.vendor import Death
from pushfleet_workers.fakecloud.wire import Call, Request, Response

NOW_S = 1_800_000_000.0
ISSUED = Meizu.issue("", {"app_id": "100999"})
STRANGER = Meizu.issue("", {"app_id": "100998"})
(SECRET,) = (content.decode() for content in ISSUED.files.values())
BAR = {"noticeBarType": 0, "title": "Lin", "content": "See you at nine", "noticeMsgType": 1}
MESSAGE = {
    "noticeBarInfo": BAR,
    "clickTypeInfo": {"clickType": 0, "parameters": {"mid": "m-1"}},
    "pushTimeInfo": {"offLine": True, "validTime": 24},
    "advanceInfo": {"suspend": True, "notificationType": {"sound": True}, "notifyKey": "c42"},
}


def shown(**changes: Any) -> dict[str, Any]:
    return MESSAGE | {"noticeBarInfo": BAR | changes}


def signed(form: dict[str, str], secret: str = SECRET) -> dict[str, str]:
    text = "".join(f"{name}={form[name]}" for name in sorted(form))
    return {**form, "sign": md5(f"{text}{secret}".encode()).hexdigest()}


def a_form(message: object = None, **changes: str) -> dict[str, str]:
    text = json.dumps(MESSAGE if message is None else message)
    return {"appId": "100999", "messageJson": text, "pushIds": "PUSH_A,PUSH_B", **changes}


@pytest.fixture
def meizu() -> Meizu:
    vendor = Meizu()
    for issued in (ISSUED, STRANGER):
        (secret,) = issued.files.values()
        vendor.register({**issued.public, "secret": secret})
    return vendor


def read(vendor: Meizu, form: dict[str, str], path: str = "") -> Call | Response:
    path = path or "/garcia/api/server/push/varnished/pushByPushId"
    return vendor.read(Request("POST", path, {}, urlencode(form).encode()), NOW_S)


def send(vendor: Meizu, message: object = None, **changes: str) -> Call | Response:
    return read(vendor, signed(a_form(message, **changes)))


def answer_of(response: Call | Response) -> dict[str, Any]:
    assert isinstance(response, Response)
    assert response.status == 200
    content: dict[str, Any] = json.loads(response.body)
    assert isinstance(content["code"], str)
    return content


def call_of(vendor: Meizu) -> Call:
    call = send(vendor)
    assert isinstance(call, Call)
    return call


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("1005", []),
        ("110004", {}),
        ("110004", shown(title="")),
        ("110004", shown(content=" ")),
        ("110004", shown(content=7)),
        ("1005", shown(title="今" * 33)),
        ("1005", shown(title="😀" * 17)),
        ("1005", shown(content="今" * 101)),
        ("1005", shown(noticeMsgType=2)),
        ("1005", shown(noticeMsgType="1")),
        ("1005", shown(noticeBarType=1)),
        ("1005", MESSAGE | {"noticeChannel": "im"}),
        ("1005", MESSAGE | {"advanceInfo": []}),
        ("1005", MESSAGE | {"clickTypeInfo": {"clickType": 3}}),
        ("1005", MESSAGE | {"clickTypeInfo": {"clickType": 1}}),
        ("1005", MESSAGE | {"clickTypeInfo": {"clickType": 2}}),
        ("1005", MESSAGE | {"clickTypeInfo": {"parameters": "x"}}),
        ("1005", MESSAGE | {"pushTimeInfo": {"validTime": 73}}),
        ("1005", MESSAGE | {"pushTimeInfo": {"validTime": 0}}),
        ("1005", MESSAGE | {"pushTimeInfo": {"validTime": 1.5}}),
        ("1005", MESSAGE | {"pushTimeInfo": {"offLine": "1"}}),
        ("1005", MESSAGE | {"advanceInfo": {"notifyKey": "conversation"}}),
        ("1005", MESSAGE | {"advanceInfo": {"notifyKey": "a b"}}),
        ("1005", MESSAGE | {"advanceInfo": {"suspend": 2}}),
        ("1005", MESSAGE | {"advanceInfo": {"notificationType": {"ring": 1}}}),
        ("1005", MESSAGE | {"advanceInfo": {"notificationType": 1}}),
        ("1005", MESSAGE | {"noticeExpandInfo": {"noticeExpandType": 1}}),
        ("1005", MESSAGE | {"noticeExpandInfo": {"noticeExpandType": 2}}),
        ("1005", MESSAGE | {"extra": {"callback": "x" * 129}}),
        ("1005", MESSAGE | {"extra": {"callback.param": "x" * 65}}),
    ],
)
def test_a_message_that_is_not_in_order_is_refused_by_code(meizu: Meizu, code: str, message: object) -> None:
    answer = answer_of(send(meizu, message))
    assert (answer["code"], answer["value"]) == (code, "")


@pytest.mark.parametrize(
    "message",
    [
        MESSAGE,
        {"noticeBarInfo": {"title": "Lin", "content": "x"}},
        shown(title="今" * 32, content="今" * 100),
        MESSAGE | {"pushTimeInfo": {"offLine": 1, "validTime": 72}, "advanceInfo": {"suspend": 0}},
        MESSAGE | {"noticeExpandInfo": {"noticeExpandType": 1, "noticeExpandContent": "more"}},
        MESSAGE | {"clickTypeInfo": {"clickType": 1, "activity": "com.example.im.Main"}},
        MESSAGE | {"clickTypeInfo": {"clickType": 2, "url": "https://example.com"}},
    ],
)
def test_a_message_in_order_is_read(meizu: Meizu, message: object) -> None:
    assert isinstance(send(meizu, message), Call)


def test_what_is_read_is_what_was_sent(meizu: Meizu) -> None:
    assert call_of(meizu) == Call(
        account="100999",
        tokens=("PUSH_A", "PUSH_B"),
        title="Lin",
        body="See you at nine",
        replace_key="c42",
        data={"mid": "m-1"},
    )


@pytest.mark.parametrize(("code", "push_ids"), [("110004", ","), ("110004", "A,,B"), ("1005", ",".join(["t"] * 101))])
def test_tokens_are_one_to_a_hundred(meizu: Meizu, code: str, push_ids: str) -> None:
    assert answer_of(send(meizu, pushIds=push_ids))["code"] == code
    assert isinstance(send(meizu, pushIds=",".join(["t"] * 100)), Call)


def test_the_signature_covers_every_field_as_it_is(meizu: Meizu) -> None:
    form = signed(a_form())
    assert isinstance(read(meizu, form), Call)
    assert isinstance(send(meizu, restrictedPackageNames="com.example.im"), Call)
    for changes in ({"sign": "0" * 32}, {"pushIds": "PUSH_C"}, {"messageJson": "{}"}, {"restrictedPackageNames": "a"}):
        assert answer_of(read(meizu, form | changes))["code"] == "1006"
    assert answer_of(read(meizu, signed(a_form(), "another")))["code"] == "1006"
    assert answer_of(read(meizu, a_form()))["code"] == "1006"
    assert answer_of(send(meizu, appId="100998"))["code"] == "1006"
    assert answer_of(send(meizu, appId="1"))["code"] == "110000"


def test_the_documents_own_vector_is_accepted(meizu: Meizu) -> None:
    meizu.register({"app_id": "100999", "secret": b"fake-app-secret"})
    text = (
        '{"noticeBarInfo":{"noticeMsgType":1,"noticeBarType":0,"title":"Li Lei","content":"lunch?"},'
        '"clickTypeInfo":{"clickType":0,"parameters":{"cid":"c42"}},"pushTimeInfo":{"offLine":1,"validTime":24},'
        '"advanceInfo":{"notifyKey":"c42"}}'
    )
    form = {"appId": "100999", "messageJson": text, "pushIds": "FAKEPUSHID0001,FAKEPUSHID0002"}
    assert isinstance(read(meizu, {**form, "sign": "90e862dd8e5eea87bdc88b559aad673b"}), Call)


def test_another_address_is_404(meizu: Meizu) -> None:
    response = read(meizu, signed(a_form()), "/garcia/api/server/push/unvarnished/pushByPushId")
    assert isinstance(response, Response)
    assert response.status == 404


def test_dead_tokens_stand_in_value_by_code(meizu: Meizu) -> None:
    call = call_of(meizu)
    assert answer_of(meizu.answer(call, {}, NOW_S))["value"] == {}
    answer = answer_of(meizu.answer(call, {"PUSH_B": Death("", 0)}, NOW_S))
    assert (answer["code"], answer["value"]) == ("200", {"110002": ["PUSH_B"]})
    both = {"PUSH_A": Death("110003", 0), "PUSH_B": Death("", 0)}
    assert answer_of(meizu.answer(call, both, NOW_S))["value"] == {"110003": ["PUSH_A"], "110002": ["PUSH_B"]}
    assert meizu.answer(call, both, NOW_S).result == "110002"


@pytest.mark.parametrize("code", sorted(CODES))
def test_every_code_of_a_whole_answer_can_be_scripted(meizu: Meizu, code: str) -> None:
    answer = answer_of(meizu.refuse(code, call_of(meizu), NOW_S))
    assert (answer["code"], answer["message"], answer["value"]) == (code, CODES[code], "")
    assert bool(answer["redirect"]) == (code == "300")


@pytest.mark.parametrize("code", sorted(VALUE_CODES))
def test_every_code_of_a_token_can_be_scripted(meizu: Meizu, code: str) -> None:
    answer = answer_of(meizu.refuse(f"value {code}", call_of(meizu), NOW_S))
    assert (answer["code"], answer["value"]) == ("200", {code: ["PUSH_A", "PUSH_B"]})
    assert f"value {code}" in Meizu.refusals


def test_the_public_half_holds_no_secret_and_secrets_do_not_expire(meizu: Meizu) -> None:
    assert SECRET not in json.dumps(ISSUED.public)
    meizu.expire_auth()
    assert isinstance(send(meizu), Call)
