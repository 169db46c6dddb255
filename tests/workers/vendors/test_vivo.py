from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from tests.workers.vendors.samples import AUTH, KINDS, NOW_MS, a_delivery, a_push, an_account, content, token

from pushfleet.message import OfflinePush, VivoOptions
from pushfleet_workers.errors import CredentialError
from pushfleet_workers.outcome import DayHour, Outcome, Remedy, Scope, Verdict
from pushfleet_workers.push import Delivery
from pushfleet_workers.vendor import Response
from pushfleet_workers.vendors.vivo import CODES, Vivo, VivoAccount

vivo = Vivo()

FINE = (Verdict.OK, Scope.DEVICE, None, None)
AGAIN = (Verdict.RETRY, Scope.ACCOUNT, None, None)
SLOWER = (Verdict.RATE_LIMITED, Scope.ACCOUNT, None, None)
REFRESH = (Verdict.REFRESH_AUTH, Scope.ACCOUNT, None, None)
CONFIG = (Verdict.MISCONFIGURED, Scope.ACCOUNT, None, None)
CLASS = (Verdict.MISCONFIGURED, Scope.CLASS, None, None)
BAD = (Verdict.BAD_PAYLOAD, Scope.DEVICE, None, None)
SHRINK = (Verdict.BAD_PAYLOAD, Scope.DEVICE, None, Remedy.SHRINK)
NEUTRAL = (Verdict.BAD_PAYLOAD, Scope.DEVICE, None, Remedy.NEUTRAL_TEXT)
SINGLE = (Verdict.BAD_PAYLOAD, Scope.DEVICE, None, Remedy.SINGLE_SEND)
MIDNIGHT = (Verdict.QUOTA_EXHAUSTED, Scope.CLASS, DayHour(0, 8), None)
DEAD = (Verdict.DROP_TOKEN, Scope.DEVICE, None, None)

# vivo's list, written down a second time: code -> (verdict, scope, until, remedy).
ERRORS = {
    "0": FINE,
    "10000": REFRESH,
    "10040": AGAIN,
    **dict.fromkeys(("10043", "10045", "10094"), CONFIG),
    **{str(code): CONFIG for code in range(10_200, 10_208)},
    **dict.fromkeys(("10050", "10054", "10055", "10057", "10065", "10066", "10067", "11000"), BAD),
    **dict.fromkeys(("10060", "10061", "10062", "10063", "10064", "10068", "10069"), BAD),
    **dict.fromkeys(("10301", "10305", "10306", "10352", "10353", "10471", "10473"), BAD),
    **dict.fromkeys(("10056", "10058"), SHRINK),
    **dict.fromkeys(("10085", "10104"), NEUTRAL),
    **dict.fromkeys(("10059", "10150", "10151", "10153", "10154"), SINGLE),
    "10252": (Verdict.BAD_PAYLOAD, Scope.DEVICE, DayHour(0, 8), Remedy.SINGLE_SEND),
    **dict.fromkeys(("10070", "10073", "10254"), MIDNIGHT),
    "10071": (Verdict.QUOTA_EXHAUSTED, Scope.CLASS, DayHour(7, 8), None),
    **dict.fromkeys(("10072", "10093"), SLOWER),
    **dict.fromkeys(("10096", "10097"), CLASS),
    "10302": DEAD,
}
USERS = {
    1: (Verdict.DROP_TOKEN, Scope.DEVICE),
    2: (Verdict.DROP_TOKEN, Scope.DEVICE),
    3: (Verdict.DROP_TOKEN, Scope.DEVICE),
    4: (Verdict.MISCONFIGURED, Scope.DEVICE),
    9: (Verdict.BAD_PAYLOAD, Scope.DEVICE),
}


@pytest.fixture
def account(keys: Path) -> VivoAccount:
    account = an_account("vivo", keys)
    assert isinstance(account, VivoAccount)
    return account


def answer(status: int = 200, **body: Any) -> Response:
    return Response(status, {}, json.dumps(body).encode())


def read(result: object, count: int = 1, status: int = 200, **fields: Any) -> list[Outcome]:
    deliveries = [a_delivery(number) for number in range(count)]
    return vivo.read(deliveries, answer(status, result=result, desc="", **fields))


def user(number: int, status: object) -> dict[str, Any]:
    return {"status": status, "userid": token(number)}


def sent(account: Any, push: Any = None, **delivery: Any) -> dict[str, Any]:
    made = content(vivo.build(account, push or a_push(), [a_delivery(**delivery)], AUTH, NOW_MS))
    assert isinstance(made, dict)
    return made


def some(count: int, **changes: Any) -> list[Delivery]:
    return [a_delivery(number, **changes) for number in range(count)]


def asking(**changes: Any) -> Any:
    return a_push(options=OfflinePush(vivo=VivoOptions(**changes)))


# ---- answers


def test_the_table_has_vivos_codes_and_no_others() -> None:
    assert {code for code in CODES if code.isdigit()} == ERRORS.keys()


@pytest.mark.parametrize("code", ERRORS)
@pytest.mark.parametrize("as_text", [False, True])
def test_a_code_becomes_its_verdict(code: str, as_text: bool) -> None:
    row = CODES[code].outcome
    assert (row.verdict, row.scope, row.until, row.remedy) == ERRORS[code]
    (found,) = read(code if as_text else int(code))
    assert (found.verdict, found.scope, found.until, found.remedy) == ERRORS[code]
    assert found.code == ("" if code == "0" else code)


@pytest.mark.parametrize("status", USERS)
def test_what_is_said_of_a_device_goes_before_the_code(status: int) -> None:
    expected = (*USERS[status], f"user {status}" if status < 9 else "user other")
    for result in (0, 10302, 10085, 19999):
        (single,) = read(result, invalidUser=user(0, status))
        assert (single.verdict, single.scope, single.code) == expected
        first, second, third = read(result, 3, invalidUsers=[user(1, str(status)), None, {"userid": 7}])
        assert (second.verdict, second.scope, second.code) == expected
        assert first == third
        assert (first.verdict is Verdict.OK) == (result == 0)


def test_a_device_named_otherwise_is_not_ours() -> None:
    assert read(0, invalidUser={"status": 1, "userid": "another"})[0].verdict is Verdict.OK
    assert read(0, invalidUser={"status": 1})[0].verdict is Verdict.OK
    for users in (None, 7, {}, "x", [[]]):
        assert [outcome.verdict for outcome in read(0, 2, invalidUsers=users)] == [Verdict.OK] * 2


@pytest.mark.parametrize("status", [None, {}, "one", 1.5, True])
def test_a_status_that_cannot_be_read_drops_nothing(status: object) -> None:
    assert read(0, invalidUser=user(0, status))[0] == Outcome(Verdict.BAD_PAYLOAD, code="user other")


def test_no_device_of_many_dies_unnamed() -> None:
    outcomes = read(10302, 3, invalidUsers=[user(1, 2)])
    assert [(outcome.verdict, outcome.remedy) for outcome in outcomes] == [
        (Verdict.BAD_PAYLOAD, Remedy.SINGLE_SEND),
        (Verdict.DROP_TOKEN, None),
        (Verdict.BAD_PAYLOAD, Remedy.SINGLE_SEND),
    ]
    twins = [a_delivery(0), a_delivery(1, token=token(0))]
    outcomes = vivo.read(twins, answer(result=10302))
    assert [outcome.verdict for outcome in outcomes] == [Verdict.DROP_TOKEN] * 2


@pytest.mark.parametrize("code", [19999, 10101, 10102, 10103, 10303, 1])
def test_a_code_that_nobody_knows_ends_the_push_and_drops_nothing(code: int) -> None:
    assert read(code, 2) == [Outcome(Verdict.BAD_PAYLOAD, code=str(code))] * 2
    assert read(code, status=500)[0].verdict is Verdict.RETRY


@pytest.mark.parametrize(
    ("status", "body", "verdict"),
    [
        (200, b"<html>", Verdict.RETRY),
        (200, b"{}", Verdict.RETRY),
        (500, b'{"result":0}', Verdict.RETRY),
        (502, b"", Verdict.RETRY),
        (429, b"", Verdict.RATE_LIMITED),
        (404, b"", Verdict.MISCONFIGURED),
    ],
)
def test_without_a_code_the_status_decides(status: int, body: bytes, verdict: Verdict) -> None:
    (outcome,) = vivo.read([a_delivery()], Response(status, {}, body))
    assert outcome.verdict is verdict


# ---- requests to one device


def test_one_device_has_a_request_of_its_own(account: VivoAccount) -> None:
    request = vivo.build(account, a_push(), [a_delivery()], AUTH, NOW_MS)
    assert request.url == "https://api-push.vivo.com.cn/message/send"
    assert request.headers["authtoken"] == AUTH
    made = content(request)
    assert (made["appId"], made["regId"], made["pushMode"]) == (100_001, token(0), 0)
    assert made["requestId"] == a_delivery().id.hex()
    assert made["foregroundShow"] is False
    assert vivo.stage(account, a_push(), [a_delivery()], AUTH, NOW_MS) is None


def test_deliveries_that_share_a_device_are_one(account: VivoAccount) -> None:
    twins = [a_delivery(0), a_delivery(1, token=token(0))]
    assert vivo.stage(account, a_push(), twins, AUTH, NOW_MS) is None
    assert content(vivo.build(account, a_push(), twins, AUTH, NOW_MS))["regId"] == token(0)


def test_several_devices_are_never_sent_to_without_storing_first(account: VivoAccount) -> None:
    with pytest.raises(TypeError, match="call stage"):
        vivo.build(account, a_push(), some(2), AUTH, NOW_MS)


@pytest.mark.parametrize(("left_ms", "ttl_s"), [(-5, 60), (30_000, 60), (123_000, 123), (10**12, 86_400)])
def test_ttl_is_what_is_left_within_vivos_bounds(account: VivoAccount, left_ms: int, ttl_s: int) -> None:
    assert sent(account, a_push(expires_at_ms=NOW_MS + left_ms))["timeToLive"] == ttl_s


@pytest.mark.parametrize(
    ("given", "title", "text"),
    [
        (("李雷", "[图片]"), "李雷", "图片"),
        (("[群] 家人", "{1} [看] 这里"), "群 家人", "1 看 这里"),
        (("[]", " {} "), "新消息", "您有一条新消息"),
        (("", ""), "新消息", "您有一条新消息"),
        (("今" * 21, "晚" * 51), "今" * 19 + "…", "晚" * 49 + "…"),
        (("a" * 41, "b" * 101), "a" * 38 + "…", "b" * 98 + "…"),
        (("a" * 40, "👨‍👩‍👧‍👦" * 20), "a" * 40, "👨‍👩‍👧‍👦" * 7 + "…"),
    ],
)
def test_texts_follow_vivos_rules(account: VivoAccount, given: tuple[str, str], title: str, text: str) -> None:
    made = sent(account, a_push(title=given[0], body=given[1]))
    assert (made["title"], made["content"]) == (title, text)


def test_a_missing_title_is_the_senders_name(account: VivoAccount) -> None:
    assert sent(account, a_push(title="", sender_name="李雷"))["title"] == "李雷"


def test_test_messages_keep_their_brackets(keys: Path) -> None:
    account = an_account("vivo", keys, environment="development")
    made = sent(account, a_push(body="[图片]"))
    assert (made["content"], made["pushMode"]) == ("[图片]", 1)


def test_a_neutral_text_says_nothing_of_the_message(account: VivoAccount, keys: Path) -> None:
    made = sent(account, a_push(title="Li Lei", body="123"), remedy="neutral_text")
    assert (made["title"], made["content"]) == ("新消息", "您有一条新消息")
    account = an_account("vivo", keys, neutral_title="消息", neutral_text="请打开应用查看")  # type: ignore[assignment]
    made = sent(account, remedy="neutral_text")
    assert (made["title"], made["content"]) == ("消息", "请打开应用查看")


def test_the_app_gets_ids_and_ext_twice(account: VivoAccount, keys: Path) -> None:
    made = sent(account)
    extras = {"mid": "m-9f3c1d", "cid": "c-1001", "ext": a_push().ext}
    assert made["clientCustomMap"] == {**extras, "ext": a_push().ext}
    assert made["skipType"] == 4
    start, *params, end = made["skipContent"].split(";")
    assert (start, params[0], end) == ("intent:#Intent", "component=com.example.im/.ChatActivity", "end")
    assert {pair.split("=")[0]: unquote(pair.split("=")[1]) for pair in params[1:]} == {
        f"S.{name}": value for name, value in extras.items()
    }
    plain = sent(an_account("vivo", keys, click_intent=""))
    assert plain["skipType"] == 1
    assert "skipContent" not in plain
    assert plain["clientCustomMap"] == made["clientCustomMap"]


def test_an_ext_is_left_out_whole_where_it_does_not_fit(account: VivoAccount) -> None:
    room = 1_024 - len("midm-9f3c1dcidc-1001ext")
    made = sent(account, a_push(ext="字" * room))
    assert made["clientCustomMap"]["ext"] == "字" * room
    assert "S.ext" not in made["skipContent"]
    assert "S.cid=c-1001;end" in made["skipContent"]
    made = sent(account, a_push(ext="字" * (room + 1)))
    assert made["clientCustomMap"] == {"mid": "m-9f3c1d", "cid": "c-1001"}
    made = sent(account, a_push(ext="x" * 900))
    assert len(made["skipContent"]) <= 1_024
    assert "S.ext=xxx" in made["skipContent"]
    made = sent(account, a_push(message_id="会" * 85, conversation_id="会" * 85))
    assert "S.cid" not in made["skipContent"]
    assert len(made["skipContent"]) <= 1_024


def test_pushes_of_a_conversation_replace_each_other(account: VivoAccount) -> None:
    first = sent(account)["notifyId"]
    assert 1 <= first < 2**31
    assert sent(account, a_push(message_id="m-2"))["notifyId"] == first
    assert sent(account, a_push(replace_key="c-2"))["notifyId"] != first


def test_a_revision_has_another_request_id(account: VivoAccount) -> None:
    assert sent(account, attempt=2)["requestId"] == sent(account)["requestId"]
    assert sent(account, a_push(revision=1))["requestId"] != sent(account)["requestId"]


# ---- requests to several devices


def test_several_devices_share_content_that_is_stored_first(account: VivoAccount) -> None:
    ahead = vivo.stage(account, a_push(), some(3), AUTH, NOW_MS)
    assert ahead is not None
    assert ahead.url == "https://api-push.vivo.com.cn/message/saveListPayload"
    stored = content(ahead)
    assert not {"regId", "alias", "extra"} & stored.keys()
    assert {name: value for name, value in stored.items() if name != "requestId"} == {
        name: value for name, value in sent(account).items() if name not in ("regId", "requestId", "extra")
    }
    deliveries = [*some(3), a_delivery(3, token=token(0))]
    request = vivo.build_staged(account, a_push(), deliveries, AUTH, NOW_MS, "900000000000000002")
    assert request.url == "https://api-push.vivo.com.cn/message/pushToList"
    assert request.headers["authtoken"] == AUTH
    made = content(request)
    assert made == {
        "appId": 100_001,
        "regIds": [token(0), token(1), token(2)],
        "taskId": "900000000000000002",
        "requestId": made["requestId"],
        "pushMode": 0,
    }


def test_content_is_stored_once_for_all_lists_of_a_minute(account: VivoAccount) -> None:
    def ahead(push: Any, now_ms: int, *numbers: int, **changes: Any) -> dict[str, Any]:
        request = vivo.stage(account, push, [a_delivery(one, **changes) for one in numbers], AUTH, now_ms)
        assert request is not None
        made = content(request)
        assert isinstance(made, dict)
        return made

    push = a_push(expires_at_ms=NOW_MS + 179_000)
    first = ahead(push, NOW_MS, 0, 1)
    assert first["timeToLive"] == 120
    assert ahead(push, NOW_MS + 59_000, 2, 3, 4) == first
    later = ahead(push, NOW_MS + 60_000, 0, 1)
    assert later["timeToLive"] == 60
    neutral = ahead(push, NOW_MS, 0, 1, remedy="neutral_text")
    other = ahead(a_push(message_id="m-2", expires_at_ms=NOW_MS + 179_000), NOW_MS, 0, 1)
    assert len({one["requestId"] for one in (first, later, neutral, other)}) == 4


def test_different_devices_never_share_a_request_id(account: VivoAccount) -> None:
    def id_for(deliveries: list[Delivery]) -> str:
        return str(content(vivo.build_staged(account, a_push(), deliveries, AUTH, NOW_MS, "1"))["requestId"])

    assert id_for(some(3)) == id_for(some(3, attempt=1)) != id_for(some(2))
    assert len(id_for(some(3))) == 32


def test_the_first_remedy_holds_for_the_stored_content(account: VivoAccount) -> None:
    ahead = vivo.stage(account, a_push(), some(2, remedy="neutral_text"), AUTH, NOW_MS)
    assert ahead is not None
    assert content(ahead)["content"] == "您有一条新消息"


@pytest.mark.parametrize("task_id", ["900000000000000002", 900000000000000002])
def test_stored_content_has_an_id(task_id: object) -> None:
    staged = vivo.read_staged(answer(result=0, desc="ok", taskId=task_id))
    assert (staged.value, staged.failure) == ("900000000000000002", None)


@pytest.mark.parametrize("code", [code for code in ERRORS if code not in ("0", "10302")])
def test_content_that_is_not_stored_fails_as_the_code_says(code: str) -> None:
    failure = vivo.read_staged(answer(result=int(code))).failure
    assert failure is not None
    assert (failure.verdict, failure.scope, failure.until, failure.remedy) == ERRORS[code]


@pytest.mark.parametrize("body", [{"result": 0}, {"result": 0, "taskId": ""}, {"result": 0, "taskId": {}}, {}])
def test_a_success_without_an_id_is_tried_again(body: dict[str, Any]) -> None:
    failure = vivo.read_staged(answer(**body)).failure
    assert failure is not None
    assert failure.verdict is Verdict.RETRY


def test_no_device_dies_of_content_that_was_not_stored() -> None:
    failure = vivo.read_staged(answer(result=10302)).failure
    assert failure == Outcome(Verdict.BAD_PAYLOAD, code="10302", remedy=Remedy.SINGLE_SEND)


# ---- classes


@pytest.mark.parametrize("kind", KINDS)
def test_the_kind_decides_about_the_class(kind: str) -> None:
    account = VivoAccount(app="demo", app_id=1, app_key="k")
    made = sent(account, a_push(kind=kind))
    expected = {"system": ("ACCOUNT", 1), "official": ("MARKETING", 0), "marketing": ("MARKETING", 0)}
    assert (made["category"], made["classification"]) == expected.get(kind, ("IM", 1))
    assert made["notifyType"] == 4


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"category": "NEWS", "notify_type": 1}, ("NEWS", 0, 1)),
        ({"category": "", "classification": 1}, (None, 1, 4)),
        ({"category": ""}, (None, None, 4)),
        ({"category": "IM", "classification": 0}, ("IM", 1, 4)),
        ({"category": "BRAND_NEW"}, ("BRAND_NEW", None, 4)),
    ],
)
def test_kinds_are_settings(keys: Path, settings: dict[str, Any], expected: tuple[Any, ...]) -> None:
    made = sent(an_account("vivo", keys, kinds={"chat": settings}))
    assert (made.get("category"), made.get("classification"), made["notifyType"]) == expected


@pytest.mark.parametrize(
    ("wishes", "expected"),
    [
        ({"category": "TODO", "classification": 0, "notify_type": 1}, ("TODO", 1, 1)),
        ({"category": "MARKETING"}, ("MARKETING", 0, 4)),
        ({"classification": 0}, (None, 0, 4)),
        ({"notify_type": 2}, ("IM", 1, 2)),
        ({"category": "im"}, ("im", None, 4)),
    ],
)
def test_overrides_win_over_the_account(
    account: VivoAccount, wishes: dict[str, Any], expected: tuple[Any, ...]
) -> None:
    made = sent(account, asking(**wishes))
    assert (made.get("category"), made.get("classification"), made["notifyType"]) == expected


def test_an_override_that_fits_in_no_request_is_left_out(account: VivoAccount) -> None:
    assert sent(account, asking(category="C" * 20_000))["category"] == "IM"


# ---- authorization


def test_the_sign_is_vivos(account: VivoAccount) -> None:
    request = vivo.auth_request(account, 1_767_225_600.0)
    assert request.url == "https://api-push.vivo.com.cn/message/auth"
    assert content(request) == {
        "appId": 100_001,
        "appKey": "vivo-demo-key",
        "timestamp": 1_767_225_600_000,
        "sign": "121785e390dad953ec529c060422df9f",
    }
    assert "vivo-demo-secret" not in repr(request) + repr(account)
    assert vivo.mint(account, 0) is None


def test_an_auth_token_is_used_for_two_hours() -> None:
    found = vivo.read_auth(answer(result=0, desc="ok", authToken="vt-demo"))
    assert (found.value, found.life_s, found.shared) == ("vt-demo", 7_200, True)


@pytest.mark.parametrize(
    ("body", "verdict", "code"),
    [
        ({"result": 10000}, Verdict.MISCONFIGURED, "10000"),
        ({"result": 10200}, Verdict.MISCONFIGURED, "10200"),
        ({"result": 10302}, Verdict.MISCONFIGURED, "10302"),
        ({"result": 10073}, Verdict.MISCONFIGURED, "10073"),
        ({"result": 10093}, Verdict.RATE_LIMITED, "10093"),
        ({"result": 10040}, Verdict.RETRY, "10040"),
        ({"result": 0}, Verdict.RETRY, "HTTP 200"),
        ({"result": 0, "authToken": "a\nb"}, Verdict.RETRY, "HTTP 200"),
        ({"result": 0, "authToken": "令牌"}, Verdict.RETRY, "HTTP 200"),
    ],
)
def test_a_refused_auth_token_is_a_fault_of_the_account(body: dict[str, Any], verdict: Verdict, code: str) -> None:
    failure = vivo.read_auth(answer(**body)).failure
    assert failure is not None
    assert (failure.verdict, failure.scope, failure.code) == (verdict, Scope.ACCOUNT, code)


def test_the_secret_may_lie_in_a_file(keys: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("vivo-demo-secret\n")
    account = an_account("vivo", keys, app_secret=None, app_secret_file=str(tmp_path / "secret"))
    assert vivo.check(account, 0) == []
    assert b"121785e390dad953ec529c060422df9f" in vivo.auth_request(account, 1_767_225_600.0).body


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"app_secret": None}, "are both missing: give one"),
        ({"app_secret": ""}, "app_secret is empty: copy the secret"),
        ({"kinds": {"chat": {"category": "im"}}}, "kinds.chat.category im is no class of vivo's: write one of ACCOUNT"),
        (
            {"kinds": {"chat": {"category": "IM", "classification": 0}}},
            "kinds.chat.classification contradicts its category: ",
        ),
    ],
)
def test_a_wrong_setting_is_found_with_its_mend(keys: Path, changes: dict[str, Any], problem: str) -> None:
    (found,) = vivo.check(an_account("vivo", keys, **changes), 0)
    assert problem in found
    assert "vivo-demo-secret" not in found


def test_no_secret_no_request(keys: Path) -> None:
    with pytest.raises(CredentialError, match="are both missing"):
        vivo.auth_request(an_account("vivo", keys, app_secret=None), 0)
