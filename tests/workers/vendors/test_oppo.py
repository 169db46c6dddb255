from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest
from tests.workers.vendors.samples import AUTH, KINDS, NOW_MS, a_delivery, a_push, an_account, content, token

from pushfleet.message import AndroidOptions, OfflinePush, OppoOptions
from pushfleet_workers.errors import CredentialError
from pushfleet_workers.outcome import DayHour, Outcome, Remedy, Scope, Verdict
from pushfleet_workers.push import Delivery, sent_id
from pushfleet_workers.vendor import Response
from pushfleet_workers.vendors.oppo import CODES, Oppo, OppoAccount

oppo = Oppo()

FINE = (Verdict.OK, Scope.DEVICE, None)
AGAIN = (Verdict.RETRY, Scope.ACCOUNT, None)
SLOWER = (Verdict.RATE_LIMITED, Scope.ACCOUNT, None)
REFRESH = (Verdict.REFRESH_AUTH, Scope.ACCOUNT, None)
CONFIG = (Verdict.MISCONFIGURED, Scope.ACCOUNT, None)
CLASS = (Verdict.MISCONFIGURED, Scope.CLASS, None)
QUOTA = (Verdict.QUOTA_EXHAUSTED, Scope.CLASS, DayHour(0, 8))
BAD = (Verdict.BAD_PAYLOAD, Scope.DEVICE, None)
DEAD = (Verdict.DROP_TOKEN, Scope.DEVICE, None)

# OPPO's list, written down a second time: code -> (verdict, scope, until).
ERRORS = {
    "0": FINE,
    "-1": AGAIN,
    **dict.fromkeys(("-2", "13", "55"), SLOWER),
    **dict.fromkeys(("11", "29"), REFRESH),
    **dict.fromkeys(("12", "14", "15", "16", "17", "18", "19", "20", "21", "22", "23", "24"), CONFIG),
    **dict.fromkeys(("26", "27", "28", "30", "59"), CONFIG),
    **dict.fromkeys(("25", "31", "32", "40", "41", "51"), BAD),
    **dict.fromkeys(("33", "34"), QUOTA),
    **dict.fromkeys(("54", "67"), CLASS),
    "10000": DEAD,
    **dict.fromkeys(("10001", "10002", "10003", "10004", "10005"), BAD),
}


@pytest.fixture
def account(keys: Path) -> OppoAccount:
    account = an_account("oppo", keys)
    assert isinstance(account, OppoAccount)
    return account


def answer(status: int = 200, **body: Any) -> Response:
    return Response(status, {}, json.dumps(body).encode())


def read_one(code: object, message: object = "", status: int = 200, **delivery: Any) -> Outcome:
    (outcome,) = oppo.read([a_delivery(**delivery)], answer(status, code=code, message=message))
    return outcome


def read_items(*items: dict[str, Any], deliveries: list[Delivery] | None = None) -> list[Outcome]:
    deliveries = deliveries or [a_delivery(number) for number in range(3)]
    return oppo.read(deliveries, answer(code=0, message="", data=list(items)))


def item(number: int, code: object = None, message: str = "") -> dict[str, Any]:
    fields = {"messageId": f"x{number}", "registrationId": token(number)}
    return fields if code is None else {**fields, "errorCode": code, "errorMessage": message}


def message(account: OppoAccount, push: Any = None, **delivery: Any) -> dict[str, Any]:
    body = content(oppo.build(account, push or a_push(), [a_delivery(**delivery)], AUTH, NOW_MS))
    assert set(body) == {"auth_token", "message"}
    made = body["message"]
    assert isinstance(made, dict)
    return made


def shown(account: OppoAccount, push: Any = None, **delivery: Any) -> dict[str, Any]:
    notification = message(account, push, **delivery)["notification"]
    assert isinstance(notification, dict)
    return notification


def asking(**changes: Any) -> Any:
    return a_push(options=OfflinePush(oppo=OppoOptions(**changes)))


# ---- answers


def test_the_table_has_oppos_codes_and_no_others() -> None:
    assert {code for code in CODES if code.lstrip("-").isdigit()} == ERRORS.keys()


@pytest.mark.parametrize("code", ERRORS)
def test_a_code_becomes_its_verdict(code: str) -> None:
    verdict, scope, until = ERRORS[code]
    row = CODES[code].outcome
    assert (row.verdict, row.scope, row.until) == (verdict, scope, until)
    read = read_one(int(code))
    assert (read.verdict, read.scope, read.until) == (verdict, scope, until)
    assert read.code == ("" if code == "0" else code)


@pytest.mark.parametrize("code", [code for code in ERRORS if code != "0"])
def test_a_code_of_one_message_is_that_messages(code: str) -> None:
    first, second, third = read_items(item(0), item(2), item(1, int(code)))
    assert (first.verdict, third.verdict) == (Verdict.OK, Verdict.OK)
    assert (second.verdict, second.code) == (ERRORS[code][0], code)


@pytest.mark.parametrize("code", [10_999, 77])
def test_a_code_that_nobody_knows_ends_the_push_and_drops_nothing(code: int) -> None:
    assert read_one(code) == Outcome(Verdict.BAD_PAYLOAD, code=str(code))
    assert read_items(item(0, code))[0] == Outcome(Verdict.BAD_PAYLOAD, code=str(code))
    assert read_one(code, status=502).verdict is Verdict.RETRY


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize(
    ("status", "body", "verdict"),
    [
        (200, b"<html>", Verdict.RETRY),
        (200, b"{}", Verdict.RETRY),
        (500, b'{"code":0}', Verdict.RETRY),
        (502, b"", Verdict.RETRY),
        (429, b"", Verdict.RATE_LIMITED),
        (403, b"", Verdict.MISCONFIGURED),
    ],
)
def test_without_a_code_the_status_decides(count: int, status: int, body: bytes, verdict: Verdict) -> None:
    outcomes = oppo.read([a_delivery(number) for number in range(count)], Response(status, {}, body))
    assert [outcome.verdict for outcome in outcomes] == [verdict] * count


@pytest.mark.parametrize("code", [10_000, 40, 41, 32, 10_999])
def test_a_batch_that_is_refused_for_one_is_sent_one_by_one(code: int) -> None:
    deliveries = [a_delivery(number, attempt=number) for number in range(3)]
    outcomes = oppo.read(deliveries, answer(code=code, message="invalid registration_id"))
    assert outcomes == [Outcome(Verdict.BAD_PAYLOAD, code=str(code), remedy=Remedy.SINGLE_SEND)] * 3


def test_a_form_that_is_too_large_is_split() -> None:
    outcomes = oppo.read([a_delivery(0), a_delivery(1)], Response(413, {}, b""))
    assert [(outcome.verdict, outcome.remedy) for outcome in outcomes] == [(Verdict.BAD_PAYLOAD, Remedy.SPLIT)] * 2


@pytest.mark.parametrize("tried", [{"tries": 1}, {"unknown": 1}])
def test_what_oppo_has_already_is_sent_when_it_was_tried_before(tried: dict[str, int]) -> None:
    assert read_one(32, **tried) == Outcome(Verdict.OK, code="32")
    assert read_one(32).verdict is Verdict.BAD_PAYLOAD
    deliveries = [a_delivery(0, **tried), a_delivery(1)]
    outcomes = read_items(item(0, 32), item(1, 32), deliveries=deliveries)
    assert [outcome.verdict for outcome in outcomes] == [Verdict.OK, Verdict.BAD_PAYLOAD]


@pytest.mark.parametrize(
    ("said", "verdict"),
    [
        ("Invalid RegistrationId", Verdict.DROP_TOKEN),
        ("invalid registration_id", Verdict.DROP_TOKEN),
        ("Invalid Registration id", Verdict.DROP_TOKEN),
        ("Invalid arguments", Verdict.BAD_PAYLOAD),
        ("", Verdict.BAD_PAYLOAD),
        (None, Verdict.BAD_PAYLOAD),
        (["registration_id"], Verdict.BAD_PAYLOAD),
    ],
)
def test_a_wrong_argument_drops_the_token_only_where_it_is_named(said: Any, verdict: Verdict) -> None:
    assert read_one(41, said) == Outcome(verdict, code="41")
    assert read_items(item(0, 41, said))[0] == Outcome(verdict, code="41")


def test_a_device_that_is_not_named_was_served() -> None:
    assert [outcome.verdict for outcome in read_items(item(1, 10_000))] == [
        Verdict.OK,
        Verdict.DROP_TOKEN,
        Verdict.OK,
    ]
    for data in (None, {}, "x", [None, 7, {"registrationId": 7}]):
        outcomes = oppo.read([a_delivery(0), a_delivery(1)], answer(code="0", data=data))
        assert [outcome.verdict for outcome in outcomes] == [Verdict.OK] * 2


@pytest.mark.parametrize("code", [0, "0", None])
def test_a_zero_of_one_message_is_no_error(code: object) -> None:
    assert read_items(item(0, code))[0].verdict is Verdict.OK


@pytest.mark.parametrize("code", ["what is this?", {}, True, ""])
def test_an_unreadable_code_of_one_message_is_an_error(code: object) -> None:
    assert read_items(item(0, code))[0] == Outcome(Verdict.BAD_PAYLOAD, code="other codes")


def test_messages_to_one_device_have_an_answer_each_or_all_the_same() -> None:
    twins = [a_delivery(0), a_delivery(1, token=token(0)), a_delivery(2)]
    outcomes = read_items(item(0), item(0, 33), deliveries=twins)
    assert [outcome.verdict for outcome in outcomes] == [Verdict.OK, Verdict.QUOTA_EXHAUSTED, Verdict.OK]
    outcomes = read_items(item(0, 10_000), deliveries=twins)
    assert [outcome.verdict for outcome in outcomes] == [Verdict.DROP_TOKEN, Verdict.DROP_TOKEN, Verdict.OK]


# ---- requests


def test_one_delivery_is_a_unicast_and_several_are_a_batch(account: OppoAccount) -> None:
    alone = oppo.build(account, a_push(), [a_delivery()], AUTH, NOW_MS)
    assert alone.url == "https://api.push.oppomobile.com/server/v1/message/notification/unicast"
    assert content(alone)["message"]["target_value"] == token(0)
    batch = oppo.build(account, a_push(), [a_delivery(0), a_delivery(1)], AUTH, NOW_MS)
    assert batch.url == "https://api.push.oppomobile.com/server/v1/message/notification/unicast_batch"
    body = content(batch)
    assert set(body) == {"auth_token", "messages"}
    assert [one["target_value"] for one in body["messages"]] == [token(0), token(1)]


def test_a_batch_mixes_pushes(account: OppoAccount) -> None:
    assert oppo.mixes(account)
    letters = [(a_push(message_id=f"m-{number}", title=f"Title {number}"), a_delivery(number)) for number in range(100)]
    request = oppo.build_mixed(account, letters, AUTH, NOW_MS)
    messages = content(request)["messages"]
    for (push, delivery), made in zip(letters, messages, strict=True):
        assert made["target_value"] == delivery.token
        assert made["notification"]["title"] == push.title
        assert made["notification"]["app_message_id"] == sent_id(push, delivery).hex()


@pytest.mark.parametrize("ext", ['{"k":"' + "%" * 1_900 + '"}', "字" * 682, '"' * 2_048, "\x01" * 2_048])
def test_a_full_batch_stays_below_a_million_bytes(account: OppoAccount, ext: str) -> None:
    push = a_push(ext=ext, title="字" * 99, body="👨‍👩‍👧‍👦" * 99, message_id="\x01" * 256, conversation_id='"' * 256)
    deliveries = [a_delivery(number) for number in range(oppo.batch_size)]
    request = oppo.build(account, push, deliveries, AUTH, NOW_MS)
    assert len(request.body) < 1_000_000
    for made in content(request)["messages"]:
        parameters = json.loads(made["notification"]["action_parameters"])
        assert parameters["mid"] == push.message_id
        assert parameters.get("ext", ext) == ext


def test_the_intl_region_has_a_host_of_its_own(keys: Path) -> None:
    account = an_account("oppo", keys, region="intl")
    assert oppo.build(account, a_push(), [a_delivery()], AUTH, NOW_MS).url.startswith(
        "https://api-intl.push.oppomobile.com/server/"
    )
    assert oppo.auth_request(account, 0).url == "https://api-intl.push.oppomobile.com/server/v1/auth"


def test_a_repeat_has_the_same_id_and_a_revision_another(account: OppoAccount) -> None:
    first = shown(account)["app_message_id"]
    assert first == a_delivery().id.hex() == shown(account, attempt=3, unknown=1)["app_message_id"]
    assert shown(account, a_push(revision=1))["app_message_id"] != first


def test_what_every_message_says(account: OppoAccount) -> None:
    made = message(account)
    assert (made["target_type"], made["verify_registration_id"]) == (2, True)
    notification = made["notification"]
    assert notification["off_line"] is True
    assert json.loads(notification["action_parameters"]) == {"mid": "m-9f3c1d", "cid": "c-1001", "ext": a_push().ext}
    assert 0 < notification["notify_id"] < 2**31
    assert (notification["click_action_type"], notification["click_action_activity"]) == (
        4,
        "com.example.im.ChatActivity",
    )


def test_without_a_page_the_app_is_opened(keys: Path) -> None:
    account = an_account("oppo", keys, click_activity="")
    notification = content(oppo.build(account, a_push(), [a_delivery()], AUTH, NOW_MS))["message"]["notification"]
    assert notification["click_action_type"] == 0
    assert "click_action_activity" not in notification


def test_pushes_of_a_conversation_replace_each_other(account: OppoAccount) -> None:
    first, second = shown(account), shown(account, a_push(message_id="m-2"))
    assert first["notify_id"] == second["notify_id"]
    assert shown(account, a_push(replace_key="c-2"))["notify_id"] != first["notify_id"]


@pytest.mark.parametrize(("left_ms", "ttl_s"), [(-5, 1), (123_000, 123), (10**12, 864_000)])
def test_ttl_is_what_is_left_but_never_nothing(account: OppoAccount, left_ms: int, ttl_s: int) -> None:
    assert shown(account, a_push(expires_at_ms=NOW_MS + left_ms))["off_line_ttl"] == ttl_s


def test_texts_have_fifty_characters_and_large_ones_more(account: OppoAccount) -> None:
    long = a_push(title="今" * 60, body="晚" * 200)
    assert shown(account, long)["title"] == "今" * 49 + "…"
    assert shown(account, long)["content"] == "晚" * 49 + "…"
    assert shown(account, long)["style"] == 1
    large = a_push(body="晚" * 200, options=OfflinePush(android=AndroidOptions(style="big_text")))
    assert shown(account, large)["content"] == "晚" * 127 + "…"
    assert shown(account, large)["style"] == 2
    emoji = shown(account, a_push(body="👨‍👩‍👧‍👦" * 20))["content"]
    assert emoji == "👨‍👩‍👧‍👦" * 4 + "…"
    assert shown(account, a_push(body="今" * 60), remedy="shrink")["content"] == "今" * 24 + "…"


def test_a_missing_text_is_stood_in_for(account: OppoAccount) -> None:
    bare = shown(account, a_push(title="", body=""))
    assert (bare["title"], bare["content"]) == ("New message", "New message")
    assert shown(account, a_push(title="", sender_name="Li Lei"))["title"] == "Li Lei"


def test_an_ext_that_does_not_fit_is_left_out_whole(account: OppoAccount) -> None:
    assert json.loads(shown(account, a_push(ext="x" * 2_048))["action_parameters"])["ext"] == "x" * 2_048
    kept = shown(account, a_push(ext='"' * 2_048))["action_parameters"]
    assert json.loads(kept) == {"mid": "m-9f3c1d", "cid": "c-1001"}


def test_an_override_that_fits_in_no_request_is_left_out(account: OppoAccount) -> None:
    assert shown(account, asking(channel_id="c" * 20_000))["channel_id"] == "im"


def test_a_push_that_counts_adds_one_to_the_badge_where_asked_for(account: OppoAccount, keys: Path) -> None:
    assert shown(account)["badge_operation_type"] == 1
    assert "badge_operation_type" not in shown(account, badge=-1)
    plain = an_account("oppo", keys, badge=False)
    assert b"badge" not in oppo.build(plain, a_push(), [a_delivery()], AUTH, NOW_MS).body


# ---- classes


@pytest.mark.parametrize("kind", KINDS)
def test_the_kind_decides_about_the_class(kind: str) -> None:
    account = OppoAccount(app="demo", app_key="k")
    fields = shown(account, a_push(kind=kind))
    expected = {
        "system": ("ACCOUNT", None),
        "official": ("MARKETING", None),
        "marketing": ("MARKETING", None),
    }.get(kind, ("IM", 2))
    assert (fields["category"], fields.get("notify_level")) == expected
    assert "channel_id" not in fields
    assert "private_msg_template_id" not in fields


def test_kinds_are_settings(account: OppoAccount, keys: Path) -> None:
    call = shown(account, a_push(kind="call"))
    assert (call["category"], call["notify_level"], call["channel_id"]) == ("IM", 16, "calls")
    assert shown(account, a_push(kind="mention"))["channel_id"] == "im"
    old = an_account("oppo", keys, kinds={"chat": {"category": "", "channel_id": "im"}})
    fields = content(oppo.build(old, a_push(), [a_delivery()], AUTH, NOW_MS))["message"]["notification"]
    assert "category" not in fields
    assert "notify_level" not in fields


def test_a_template_is_filled_with_json_text(account: OppoAccount) -> None:
    fields = shown(account, a_push(kind="system", body="今" * 60))
    assert fields["private_msg_template_id"] == "T-77"
    assert json.loads(fields["private_content_parameters"]) == {"text": "今" * 49 + "…"}
    assert "private_title_parameters" not in fields


def test_overrides_win_over_the_account(account: OppoAccount) -> None:
    fields = shown(
        account,
        asking(
            channel_id="vip",
            category="TODO",
            notify_level=1,
            template_id="T1",
            title_params={"name": "Li Lei"},
            content_params={"text": "8?"},
        ),
    )
    assert (fields["channel_id"], fields["category"], fields["notify_level"]) == ("vip", "TODO", 1)
    assert fields["private_msg_template_id"] == "T1"
    assert json.loads(fields["private_title_parameters"]) == {"name": "Li Lei"}
    assert json.loads(fields["private_content_parameters"]) == {"text": "8?"}


def test_another_category_leaves_level_and_template_behind(account: OppoAccount) -> None:
    fields = shown(account, asking(category="MARKETING"))
    assert (fields["category"], fields["channel_id"]) == ("MARKETING", "im")
    assert "notify_level" not in fields
    service = a_push(kind="system", options=OfflinePush(oppo=OppoOptions(category="TODO")))
    assert not any(name.startswith("private") for name in shown(account, service))
    other = a_push(kind="system", options=OfflinePush(oppo=OppoOptions(template_id="T2")))
    assert shown(account, other)["private_msg_template_id"] == "T2"
    assert "private_content_parameters" not in shown(account, other)


def test_a_level_goes_with_a_category_only(keys: Path) -> None:
    account = an_account("oppo", keys, kinds={"chat": {"category": "", "channel_id": "im"}})
    assert isinstance(account, OppoAccount)
    assert "notify_level" not in shown(account, asking(notify_level=16))
    assert shown(account, asking(notify_level=16, category="IM"))["notify_level"] == 16


# ---- authorization


def test_the_sign_is_oppos(account: OppoAccount) -> None:
    request = oppo.auth_request(account, 1_767_225_600.0)
    assert request.url == "https://api.push.oppomobile.com/server/v1/auth"
    assert parse_qs(request.body.decode()) == {
        "app_key": ["oppo-demo-key"],
        "timestamp": ["1767225600000"],
        "sign": ["09c788599bd8e130b41d7331145163d040fe5c336f87a46f237f6d4b4c091e94"],
    }
    assert "oppo-demo-master" not in repr(request) + repr(account)
    assert oppo.mint(account, 0) is None


def test_an_auth_token_lives_for_a_day() -> None:
    data = {"auth_token": "tok-demo", "create_time": 1_767_225_600_123}
    read = oppo.read_auth(answer(code=0, message="success", data=data))
    assert (read.value, read.life_s, read.shared) == ("tok-demo", 86_400, True)


@pytest.mark.parametrize(
    ("code", "verdict"),
    [
        (14, Verdict.MISCONFIGURED),
        (16, Verdict.MISCONFIGURED),
        (19, Verdict.MISCONFIGURED),
        (11, Verdict.MISCONFIGURED),
        (10_000, Verdict.MISCONFIGURED),
        (33, Verdict.MISCONFIGURED),
        (-1, Verdict.RETRY),
        (-2, Verdict.RATE_LIMITED),
        (13, Verdict.RATE_LIMITED),
        (0, Verdict.RETRY),
    ],
)
def test_a_refused_auth_token_is_a_fault_of_the_account(code: int, verdict: Verdict) -> None:
    failure = oppo.read_auth(answer(code=code, message="no")).failure
    assert failure is not None
    assert (failure.verdict, failure.scope) == (verdict, Scope.ACCOUNT)
    assert failure.code == (str(code) if code else "HTTP 200")


def test_the_secret_may_lie_in_a_file(keys: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("oppo-demo-master\n")
    account = an_account("oppo", keys, master_secret=None, master_secret_file=str(tmp_path / "secret"))
    assert oppo.check(account, 0) == []
    assert b"sign=09c788599bd8e130" in oppo.auth_request(account, 1_767_225_600.0).body


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"master_secret": None}, "are both missing: give one"),
        ({"master_secret": ""}, "master_secret is empty: copy the secret"),
        ({"kinds": {"chat": {"category": "IM"}}}, "kinds.chat has no channel_id: "),
        ({"kinds": {"chat": {"channel_id": "im", "category": "GOSSIP"}}}, "kinds.chat.category GOSSIP is no class"),
        ({"kinds": {"chat": {"channel_id": "im", "category": ""}}}, "kinds.chat.notify_level counts only with"),
        (
            {"kinds": {"chat": {"channel_id": "im", "content_params": {"a": "{body}"}}}},
            "kinds.chat has template parameters without a template: ",
        ),
        (
            {"kinds": {"chat": {"channel_id": "im", "template_id": "T1"}}},
            "kinds.chat has a template_id and no parameters: ",
        ),
    ],
)
def test_a_wrong_setting_is_found_with_its_mend(keys: Path, changes: dict[str, Any], problem: str) -> None:
    (found,) = oppo.check(an_account("oppo", keys, **changes), 0)
    assert problem in found
    assert "oppo-demo-master" not in found


def test_a_template_without_variables_says_so(keys: Path) -> None:
    kinds: Any = {"chat": {"channel_id": "im", "template_id": "T1", "content_params": {}}}
    assert oppo.check(an_account("oppo", keys, kinds=kinds), 0) == []


def test_no_secret_no_request(keys: Path) -> None:
    with pytest.raises(CredentialError, match="are both missing"):
        oppo.auth_request(an_account("oppo", keys, master_secret=None), 0)
