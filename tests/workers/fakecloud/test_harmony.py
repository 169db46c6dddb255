from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import jwt
import msgspec
import pytest

from pushfleet_workers.fakecloud.harmony import AUDIENCE, CODES, REASONS, Harmony
from pushfleet_workers.fakecloud.vendor import Death
from pushfleet_workers.fakecloud.wire import Call, Request, Response

NOW_S = 1_800_000_000.0
ISSUED = Harmony.issue("", {"project_id": "388421840000000001", "client_id": "110000001"})
STRANGER = Harmony.issue("", {"project_id": "388421840000000002"})
(KEY,) = (json.loads(content) for content in ISSUED.files.values())
(OTHER_KEY,) = (json.loads(content) for content in STRANGER.files.values())
SEND = "/v3/388421840000000001/messages:send"
REVOKE = "/v1/110000001/messages:revoke"
NOTIFICATION = {
    "category": "IM",
    "title": "Lin",
    "body": "See you at nine",
    "clickAction": {"actionType": 0, "data": {"cid": "c42", "mid": "m-1"}},
    "appMessageId": "d-1",
    "notifyId": 420_017,
    "badge": {"addNum": 1},
    "foregroundShow": False,
}
OPTIONS = {"ttl": 86_400, "biTag": "job-1", "collapseKey": -1, "testMessage": False}
TOKENS = ["HMTOKEN_A", "HMTOKEN_B"]


def a_message(tokens: object = TOKENS, **options: Any) -> dict[str, Any]:
    return {
        "payload": {"notification": NOTIFICATION},
        "target": {"token": tokens},
        "pushOptions": {**OPTIONS, **options},
    }


def shown(**fields: Any) -> dict[str, Any]:
    return {**a_message(), "payload": {"notification": {**NOTIFICATION, **fields}}}


def hidden(name: str) -> dict[str, Any]:
    rest = {key: value for key, value in NOTIFICATION.items() if key != name}
    return {**a_message(), "payload": {"notification": rest}}


def a_call(**options: Any) -> dict[str, Any]:
    extra = json.dumps({"mid": "m-1", "title": "Lin", "body": "calls"})
    return {"payload": {"extraData": extra}, "target": {"token": TOKENS}, "pushOptions": {"ttl": 30, **options}}


def proof(key: dict[str, str] = KEY, algorithm: str = "PS256", header: Any = None, **claims: Any) -> str:
    told = {"iss": key["sub_account"], "aud": AUDIENCE, "iat": int(NOW_S), "exp": int(NOW_S) + 3_600, **claims}
    told = {name: value for name, value in told.items() if value is not None}
    return jwt.encode(told, key["private_key"], algorithm, headers={"kid": key["key_id"], **(header or {})})


VALID = proof()


@pytest.fixture
def harmony() -> Harmony:
    vendor = Harmony()
    vendor.register(ISSUED.public)
    vendor.register(STRANGER.public)
    return vendor


Send = Callable[..., Call | Response]


@pytest.fixture
def send(harmony: Harmony) -> Send:
    def request(
        message: object = None,
        path: str = SEND,
        token: str = VALID,
        push_type: str | None = "0",
        now_s: float = NOW_S,
        body: bytes | None = None,
    ) -> Call | Response:
        content = json.dumps(a_message() if message is None else message).encode() if body is None else body
        headers = {"authorization": f"Bearer {token}"}
        if push_type is not None:
            headers["push-type"] = push_type
        return harmony.read(Request("POST", path, headers, content), now_s)

    return request


def coded(response: Call | Response) -> dict[str, str]:
    assert isinstance(response, Response)
    content: dict[str, str] = msgspec.json.decode(response.body)
    assert set(content) == {"code", "msg", "requestId"}
    assert all(isinstance(value, str) for value in content.values())
    return content


def illegal(response: Call | Response) -> dict[str, list[str]]:
    content = json.loads(coded(response)["msg"])["illegalTokens"]
    assert isinstance(content, dict)
    return content


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("80100003", {**a_message(), "payload": []}),
        ("80100003", {"payload": {}, "target": {"token": TOKENS}}),
        ("80100003", {"payload": {"notification": NOTIFICATION}}),
        ("80100003", {**a_message(), "pushOptions": []}),
        ("80300010", a_message([])),
        ("80300010", a_message(None)),
        ("80300010", a_message(["t"] * 1_001)),
        ("80300030", a_message(["t"] * 11, testMessage=True)),
        ("80100001", a_message(["t", 7])),
        ("80300008", shown(body="漢" * 1_400)),
        ("80100001", a_message(ttl="86400s")),
        ("80100001", a_message(ttl=0)),
        ("80100001", a_message(ttl=1_296_001)),
        ("80100001", a_message(biTag="x" * 65)),
        ("80100001", a_message(collapseKey=101)),
        ("80100001", a_message(testMessage=1)),
        ("80100001", hidden("category")),
        ("80100001", shown(category="GOSSIP")),
        ("80100001", shown(category="PLAY_VOICE")),
        ("80100001", hidden("title")),
        ("80100001", shown(body="")),
        ("80100003", hidden("clickAction")),
        ("80100001", shown(clickAction={"actionType": 1})),
        ("80100001", shown(clickAction={"actionType": 3})),
        ("80100001", shown(clickAction={"actionType": 0, "data": "{}"})),
        ("80100001", shown(notifyId=2**31)),
        ("80100001", shown(notifyId="4")),
        ("80100001", shown(appMessageId="")),
        ("80100001", shown(appMessageId="x" * 65)),
        ("80100001", shown(appMessageId="ä")),
        ("80100001", shown(badge={"addNum": 0})),
        ("80100001", shown(badge={})),
        ("80100001", shown(badge={"setNum": 100})),
        ("80100001", shown(foregroundShow=0)),
        ("80100001", shown(sound=7)),
        ("80100001", shown(soundDuration=61)),
        ("80100001", shown(image="http://example.com/a.jpg")),
        ("80100001", shown(style=2)),
    ],
)
def test_a_message_that_is_not_in_order_is_refused_by_code(send: Send, code: str, message: object) -> None:
    assert coded(send(message))["code"] == code


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]"])
def test_a_body_that_is_no_object_is_refused(send: Send, body: bytes) -> None:
    assert coded(send(body=body))["code"] == "80100003"


@pytest.mark.parametrize(
    "message",
    [
        a_message(["t" * 130] * 1_000),
        a_message(["t"] * 10, testMessage=True),
        a_message(collapseKey=100, ttl=1_296_000),
        {"payload": {"notification": NOTIFICATION}, "target": {"token": TOKENS}},
        hidden("notifyId"),
        shown(badge={"setNum": 0}, sound="ring.mp3", soundDuration=30, style=3, image="https://example.com/a.jpg"),
        shown(clickAction={"actionType": 1, "uri": "app://chat"}),
    ],
)
def test_a_message_in_order_is_read(send: Send, message: object) -> None:
    assert isinstance(send(message), Call)


def test_what_is_read_is_what_was_sent(send: Send) -> None:
    assert send() == Call(
        account="388421840000000001",
        tokens=("HMTOKEN_A", "HMTOKEN_B"),
        title="Lin",
        body="See you at nine",
        sent_id="d-1",
        callback={"param": "job-1"},
        replace_key="420017",
        data={"cid": "c42", "mid": "m-1"},
    )


def test_a_call_inside_the_app_is_data_alone(send: Send) -> None:
    call = send(a_call(biTag="d-1"), push_type="10")
    assert isinstance(call, Call)
    assert (call.title, call.body, call.sent_id, call.data["mid"]) == ("Lin", "calls", "d-1", "m-1")
    assert coded(send(a_call(ttl=61), push_type="10"))["code"] == "80100001"
    assert coded(send(a_call(collapseKey=-1), push_type="10"))["code"] == "80100001"
    assert coded(send(a_message(ttl=60), push_type="10"))["code"] == "80100001"
    assert coded(send({**a_call(), "payload": {}}, push_type="10"))["code"] == "80100003"


@pytest.mark.parametrize(
    ("code", "changes"),
    [
        ("80200001", {"token": ""}),
        ("80200001", {"token": "a.b.c"}),
        ("80200001", {"token": proof({**KEY, "private_key": OTHER_KEY["private_key"]})}),
        ("80200001", {"token": proof(algorithm="RS256")}),
        ("80200001", {"token": proof(header={"kid": "nobody"})}),
        ("80200001", {"token": proof(header={"typ": "JOSE"})}),
        ("80200001", {"token": proof(iss="somebody")}),
        ("80200001", {"token": proof(aud="https://example.com")}),
        ("80200001", {"token": proof(iat=None)}),
        ("80200001", {"token": proof(iat=int(NOW_S) + 301)}),
        ("80200005", {"now_s": NOW_S + 3_600}),
        ("80300036", {"token": proof(exp=int(NOW_S) + 86_401)}),
        ("80200001", {"token": proof(OTHER_KEY)}),
        ("80200001", {"push_type": None}),
        ("80200001", {"path": "/v3/388421840000000002/messages:send"}),
        ("80100001", {"push_type": "7"}),
    ],
)
def test_a_jwt_or_an_address_that_does_not_count_is_refused(send: Send, code: str, changes: dict[str, Any]) -> None:
    response = send(**changes)
    assert coded(response)["code"] == code
    assert isinstance(response, Response)
    assert (response.status == 401) == (code != "80100001")


def test_a_jwt_that_was_shown_before_can_be_made_to_look_expired(harmony: Harmony, send: Send) -> None:
    assert isinstance(send(), Call)
    harmony.expire_auth()
    assert coded(send())["code"] == "80200005"
    assert isinstance(send(token=proof()), Call)


@pytest.mark.parametrize("path", ["/v1/388421840000000001/messages:send", "/v3/388421840000000001/messages"])
def test_an_unknown_address_is_404(send: Send, path: str) -> None:
    response = send(path=path)
    assert isinstance(response, Response)
    assert response.status == 404


def test_a_recall_names_number_and_tokens(harmony: Harmony, send: Send) -> None:
    call = send({"notifyId": 7, "token": TOKENS}, path=REVOKE)
    assert call == Call("388421840000000001", "withdraw", tuple(TOKENS), replace_key="7")
    assert harmony.answer(call, {}, NOW_S).result == "withdrawn"
    partial = harmony.answer(call, {"HMTOKEN_B": Death("noRight", 0)}, NOW_S)
    assert coded(partial)["code"] == "80100020"
    assert illegal(partial) == {"noRight": ["HMTOKEN_B"]}


@pytest.mark.parametrize(
    ("code", "message", "changes"),
    [
        ("80100001", {"token": TOKENS}, {}),
        ("80100001", {"notifyId": -1, "token": TOKENS}, {}),
        ("80100001", {"notifyId": 7, "token": TOKENS}, {"push_type": "10"}),
        ("80300010", {"notifyId": 7, "token": []}, {}),
        ("80300010", {"notifyId": 7, "token": ["t"] * 1_001}, {}),
        ("80300028", {"notifyId": 7, "token": TOKENS}, {"path": "/v1/1/messages:revoke"}),
    ],
)
def test_a_recall_that_is_not_in_order_is_refused(
    send: Send, code: str, message: object, changes: dict[str, Any]
) -> None:
    assert coded(send(message, **{"path": REVOKE, **changes}))["code"] == code


def a_read(send: Send) -> Call:
    call = send()
    assert isinstance(call, Call)
    return call


def test_dead_tokens_are_named_by_reason(harmony: Harmony, send: Send) -> None:
    call = a_read(send)
    some = harmony.answer(call, {"HMTOKEN_B": Death("", 0)}, NOW_S)
    assert (some.status, coded(some)["code"]) == (200, "80100000")
    msg = json.loads(coded(some)["msg"])
    assert msg == {"illegalTokens": {"tokenFormatError": ["HMTOKEN_B"]}, "success": 1, "failure": 1}
    every = harmony.answer(call, {"HMTOKEN_A": Death("noRight", 0), "HMTOKEN_B": Death("", 0)}, NOW_S)
    assert coded(every)["code"] == "80300007"
    assert json.loads(coded(every)["msg"]) == {
        "illegalTokens": {"noRight": ["HMTOKEN_A"], "tokenFormatError": ["HMTOKEN_B"]}
    }


def test_an_accepted_message_is_success(harmony: Harmony, send: Send) -> None:
    response = harmony.answer(a_read(send), {}, NOW_S)
    assert (response.status, coded(response)["code"], response.result) == (200, "80000000", "accepted")


@pytest.mark.parametrize("code", sorted(Harmony.refusals))
def test_every_code_and_reason_can_be_scripted(harmony: Harmony, send: Send, code: str) -> None:
    response = harmony.refuse(code, a_read(send), NOW_S)
    if code in REASONS:
        assert coded(response)["code"] == "80300007"
        assert illegal(response) == {code: TOKENS}
    else:
        assert (response.status, coded(response)["code"]) == (CODES[code][0], code)


def test_the_public_half_holds_no_secret() -> None:
    assert "PRIVATE" not in json.dumps(ISSUED.public)
    assert KEY.keys() == {"project_id", "key_id", "sub_account", "private_key"}
