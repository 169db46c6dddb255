from __future__ import annotations

import json
from typing import Any
from urllib.parse import urlencode

import pytest

from pushfleet_workers.fakecloud.vendor import Death
from pushfleet_workers.fakecloud.wire import Call, Request, Response
from pushfleet_workers.fakecloud.xiaomi import CODES, Xiaomi

NOW_S = 1_800_000_000.0
ISSUED = Xiaomi.issue("", {"package_name": "com.example.im"})
STRANGER = Xiaomi.issue("", {"package_name": "com.example.other", "channels": {}})
(SECRET,) = (content.decode() for content in ISSUED.files.values())
FORM = {
    "registration_id": "REG_A,REG_B",
    "restricted_package_name": "com.example.im",
    "pass_through": "0",
    "title": "Lin",
    "description": "See you at nine",
    "notify_type": "-1",
    "notify_id": "771034",
    "time_to_live": "86400000",
    "payload": '{"mid":"m-1"}',
    "extra.notify_effect": "1",
    "extra.jobkey": "3b821665968a",
    "extra.channel_id": "100001",
    "extra.template_id": "M00001",
    "extra.template_param": '{"keywords1":"Lin","keywords2":"See you at nine"}',
}
PUBLIC = {"extra.channel_id": "100005", "extra.template_id": None, "extra.template_param": None}


def changed(**changes: Any) -> dict[str, str]:
    """The form with fields changed, left out where None; ``extra_x`` stands for ``extra.x``."""
    named = {name.replace("extra_", "extra.", 1): value for name, value in changes.items()}
    return {name: value for name, value in (FORM | named).items() if value is not None}


def filled(values: object) -> dict[str, str]:
    return changed(extra_template_param=json.dumps(values))


@pytest.fixture
def xiaomi() -> Xiaomi:
    vendor = Xiaomi()
    for issued in (ISSUED, STRANGER):
        (secret,) = issued.files.values()
        vendor.register({**issued.public, "secret": secret})
    return vendor


def send(
    vendor: Xiaomi,
    form: dict[str, Any] | None = None,
    path: str = "/v3/message/regid",
    authorization: str = f"key={SECRET}",
    content_type: str = "application/x-www-form-urlencoded;charset=UTF-8",
) -> Call | Response:
    headers = {"authorization": authorization, "content-type": content_type}
    return vendor.read(Request("POST", path, headers, urlencode(FORM if form is None else form).encode()), NOW_S)


def mixed(*messages: object, **changes: str) -> dict[str, str]:
    return {"messages": json.dumps(messages), "time_to_send": "0", **changes}


def letter(token: str = "REG_A", **changes: Any) -> dict[str, Any]:
    extra = {name.removeprefix("extra."): value for name, value in FORM.items() if name.startswith("extra.")}
    names = ("title", "description", "payload", "restricted_package_name")
    message = {name: FORM[name] for name in names} | {"notify_id": 7, "pass_through": 0, "extra": extra}
    return {"target": token, "message": message | changes}


def answer_of(response: Call | Response) -> dict[str, Any]:
    assert isinstance(response, Response)
    assert response.status == 200
    content: dict[str, Any] = json.loads(response.body)
    assert content["result"] == ("ok" if content["code"] == 0 else "error")
    return content


def call_of(vendor: Xiaomi, form: dict[str, Any] | None = None, path: str = "/v3/message/regid") -> Call:
    call = send(vendor, form, path)
    assert isinstance(call, Call), call.body
    return call


MULTI = "/v2/multi_messages/regids"


@pytest.mark.parametrize(
    ("code", "form"),
    [
        (10016, changed(registration_id=None)),
        (10017, changed(registration_id="A,,B")),
        (10017, changed(registration_id=",".join(["t"] * 1_001))),
        (10016, changed(title=None)),
        (10016, changed(description=None)),
        (10016, changed(restricted_package_name=None)),
        (22022, changed(restricted_package_name="com.example.other")),
        (10017, changed(title="今" * 50)),
        (10017, changed(title="😀" * 25)),
        (10017, changed(title="  ")),
        (10017, changed(description="今" * 128)),
        (10017, changed(pass_through="1")),
        (10017, changed(notify_type="8")),
        (10017, changed(notify_type="loud")),
        (10017, changed(notify_id="1792345678901")),
        (10017, changed(notify_id="-1")),
        (10017, changed(time_to_live="864000001")),
        (10017, changed(time_to_live="0")),
        (10017, changed(extra_notify_effect=None)),
        (10017, changed(extra_notify_effect="4")),
        (10016, changed(extra_notify_effect="2")),
        (10016, changed(extra_notify_effect="3")),
        (10017, changed(extra_notify_foreground="yes")),
        (10017, changed(extra_jobkey="_abc")),
        (10017, changed(extra_jobkey="a" * 21)),
        (10017, changed(extra_sound_uri="android.resource://com.example.other/raw/ding")),
        (27001, changed(extra_channel_id=None)),
        (27001, changed(extra_channel_id="999")),
        (27001, changed(extra_template_id="M00002")),
        (27001, changed(extra_template_id=None)),
        (27001, changed(extra_channel_id="100005")),
        (10017, changed(extra_template_param=None)),
        (10017, filled({"keywords1": "Lin"})),
        (10017, filled({"keywords1": "Lin", "keywords2": "a", "keywords3": "b"})),
        (10017, filled({"keywords1": "Lin", "keywords2": ""})),
        (10017, filled({"keywords1": "Lin", "keywords2": "x" * 129})),
        (10017, filled({"keywords1": "Lin", "keywords2": "hi 😀"})),
        (10017, filled({"keywords1": "Lin", "keywords2": "hi 1\ufe0f"})),
        (10017, filled({"keywords1": "Lin", "keywords2": "\u0378"})),
        (10017, filled({"keywords1": "Lin", "keywords2": 7})),
        (65014, FORM | {f"extra.own{number}": "x" for number in range(11)}),
        (65015, FORM | {"extra.own": "x" * 1_024}),
        (65036, FORM | {"extra.callback": "https://example.com/cb", "extra.callback.param": "x" * 65}),
        (65037, FORM | {"extra.callback": "https://example.com/" + "x" * 109}),
        (65038, FORM | {"extra.callback": "example.com"}),
        (10017, FORM | {"extra.callback": "https://example.com/cb", "extra.callback.type": "4"}),
        (10017, FORM | {"extra.callback": "https://example.com/cb", "extra.callback.type": "all"}),
    ],
)
def test_a_message_that_is_not_in_order_is_refused_by_code(xiaomi: Xiaomi, code: int, form: dict[str, str]) -> None:
    assert answer_of(send(xiaomi, form))["code"] == code


@pytest.mark.parametrize(
    "form",
    [
        FORM,
        changed(**PUBLIC),
        changed(registration_id=",".join(["t"] * 1_000)),
        changed(title="今" * 49, description="今" * 127, time_to_live="864000000"),
        filled({"keywords1": "x" * 128, "keywords2": "5€ + 1"}),
        changed(extra_sound_uri="android.resource://com.example.im/raw/ding", extra_notify_foreground="0"),
        changed(extra_notify_effect="3", **{"extra.web_uri": "https://example.com"}),
        FORM | {f"extra.own{number}": "x" for number in range(10)},
        FORM | {"extra.callback": "https://example.com/cb", "extra.callback.type": "1267"},
    ],
)
def test_a_message_in_order_is_read(xiaomi: Xiaomi, form: dict[str, str]) -> None:
    assert isinstance(send(xiaomi, form), Call)
    assert isinstance(send(xiaomi, form, path="/v2/message/regid"), Call)


def test_what_is_read_is_what_was_sent(xiaomi: Xiaomi) -> None:
    assert call_of(xiaomi) == Call(
        account="com.example.im",
        tokens=("REG_A", "REG_B"),
        title="Lin",
        body="See you at nine",
        sent_id="3b821665968a",
        replace_key="771034",
        data={"mid": "m-1"},
    )


@pytest.mark.parametrize(
    "authorization",
    ["", SECRET, f"Key={SECRET}", "key=wrong", f"Bearer {SECRET}"],
    ids=["none", "no scheme", "scheme in capitals", "another secret", "another scheme"],
)
def test_a_secret_that_does_not_count_is_refused(xiaomi: Xiaomi, authorization: str) -> None:
    assert answer_of(send(xiaomi, authorization=authorization))["code"] == 21301


def test_what_is_no_form_or_goes_elsewhere_is_refused(xiaomi: Xiaomi) -> None:
    assert answer_of(send(xiaomi, content_type="application/json"))["code"] == 10008
    for path in ("/v3/message/all", "/v1/message/regid"):
        response = send(xiaomi, path=path)
        assert isinstance(response, Response)
        assert response.status == 404


@pytest.mark.parametrize(
    ("code", "form"),
    [
        (10016, {}),
        (10016, mixed()),
        (10016, {"messages": "no json", "time_to_send": "0"}),
        (10017, mixed(*[letter()] * 1_001)),
        (10017, mixed(letter(), time_to_send="5")),
        (10016, mixed(letter(""))),
        (10016, mixed("x")),
        (10016, mixed(letter(), letter(restricted_package_name=None))),
        (22022, mixed(letter(restricted_package_name="com.example.other"))),
        (10017, mixed(letter(notify_id=2**31))),
        (10017, mixed(letter(extra={"notify_effect": 1}))),
        (27001, mixed(letter(extra={"notify_effect": "1"}))),
    ],
)
def test_messages_that_are_not_in_order_are_refused_together(xiaomi: Xiaomi, code: int, form: dict[str, str]) -> None:
    assert answer_of(send(xiaomi, form, MULTI))["code"] == code


@pytest.mark.parametrize("path", [MULTI, "/v3/multi_messages/regids"])
def test_messages_of_their_own_are_read_by_target(xiaomi: Xiaomi, path: str) -> None:
    call = call_of(xiaomi, mixed(letter("REG_A"), letter("REG_B", title="Han")), path)
    assert call.tokens == ("REG_A", "REG_B")
    assert [(part.tokens, part.title, part.replace_key) for part in call.parts] == [
        (("REG_A",), "Lin", "7"),
        (("REG_B",), "Han", "7"),
    ]


def test_a_dead_token_is_named_where_all_get_the_same(xiaomi: Xiaomi) -> None:
    call = call_of(xiaomi)
    answer = answer_of(xiaomi.answer(call, {"REG_B": Death("", 0)}, NOW_S))
    assert (answer["code"], answer["data"]["bad_regids"]) == (0, "REG_B")
    assert "bad_regids" not in answer_of(xiaomi.answer(call, {}, NOW_S))["data"]
    refused = answer_of(xiaomi.answer(call, dict.fromkeys(call.tokens, Death("", 0)), NOW_S))
    assert (refused["code"], refused["reason"]) == (20301, "No valid targets!")


def test_a_dead_token_is_not_named_among_messages_of_their_own(xiaomi: Xiaomi) -> None:
    call = call_of(xiaomi, mixed(letter("REG_A"), letter("REG_B")), MULTI)
    assert not call.names_dead
    answer = answer_of(xiaomi.answer(call, {"REG_B": Death("", 0)}, NOW_S))
    assert answer["code"] == 0
    assert "bad_regids" not in answer["data"]


@pytest.mark.parametrize("code", sorted(Xiaomi.refusals))
def test_every_code_can_be_scripted(xiaomi: Xiaomi, code: str) -> None:
    answer = answer_of(xiaomi.refuse(code, call_of(xiaomi), NOW_S))
    assert (answer["code"], answer["description"]) == (int(code), CODES[code])


def test_messages_above_the_quota_are_counted_and_not_named(xiaomi: Xiaomi) -> None:
    call = call_of(xiaomi, mixed(letter("REG_A"), letter("REG_B")), MULTI)
    answer = answer_of(xiaomi.refuse("200001", call, NOW_S))
    assert (answer["code"], answer["data"]["channel_exceed_quota"]) == (0, "a:2")
    assert answer_of(xiaomi.refuse("200002", call, NOW_S))["code"] == 200002


def test_the_public_half_holds_no_secret_and_secrets_do_not_expire(xiaomi: Xiaomi) -> None:
    assert SECRET not in json.dumps(ISSUED.public)
    xiaomi.expire_auth()
    assert isinstance(send(xiaomi), Call)
