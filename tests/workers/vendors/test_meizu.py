from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.workers.vendors.samples import AUTH, NOW_MS, a_delivery, a_push, an_account, content, token

from pushfleet.message import AndroidOptions, MeizuOptions, OfflinePush
from pushfleet_workers.errors import CredentialError
from pushfleet_workers.outcome import DayHour, Outcome, Remedy, Scope, Verdict
from pushfleet_workers.push import Push
from pushfleet_workers.vendor import Response
from pushfleet_workers.vendors.meizu import CODES, Meizu, MeizuAccount, notify_key, sign

meizu = Meizu()

# Meizu's lists, written down a second time.
WHOLE: dict[str, tuple[Verdict, Scope]] = {
    "200": (Verdict.OK, Scope.DEVICE),
    "300": (Verdict.MISCONFIGURED, Scope.ACCOUNT),
    "500": (Verdict.RETRY, Scope.ACCOUNT),
    "1001": (Verdict.RETRY, Scope.ACCOUNT),
    "1003": (Verdict.RETRY, Scope.ACCOUNT),
    "1005": (Verdict.BAD_PAYLOAD, Scope.DEVICE),
    "1006": (Verdict.MISCONFIGURED, Scope.ACCOUNT),
    "110000": (Verdict.MISCONFIGURED, Scope.ACCOUNT),
    "110001": (Verdict.MISCONFIGURED, Scope.ACCOUNT),
    "110002": (Verdict.DROP_TOKEN, Scope.DEVICE),
    "110003": (Verdict.DROP_TOKEN, Scope.DEVICE),
    "110004": (Verdict.BAD_PAYLOAD, Scope.DEVICE),
    "110009": (Verdict.MISCONFIGURED, Scope.ACCOUNT),
    "110010": (Verdict.RATE_LIMITED, Scope.ACCOUNT),
    "110019": (Verdict.QUOTA_EXHAUSTED, Scope.ACCOUNT),
    "110031": (Verdict.MISCONFIGURED, Scope.ACCOUNT),
    "110032": (Verdict.BAD_PAYLOAD, Scope.DEVICE),
    "110033": (Verdict.MISCONFIGURED, Scope.ACCOUNT),
    "110051": (Verdict.QUOTA_EXHAUSTED, Scope.ACCOUNT),
    "110053": (Verdict.MISCONFIGURED, Scope.ACCOUNT),
}
BY_TOKEN: dict[str, tuple[Verdict, Scope]] = {
    "201": (Verdict.MISCONFIGURED, Scope.DEVICE),
    "501": (Verdict.RETRY, Scope.DEVICE),
    "513": (Verdict.RETRY, Scope.DEVICE),
    "518": (Verdict.RATE_LIMITED, Scope.ACCOUNT),
    "519": (Verdict.RETRY_AFTER, Scope.ACCOUNT),
    "520": (Verdict.RETRY_AFTER, Scope.DEVICE),
    "110002": (Verdict.DROP_TOKEN, Scope.DEVICE),
    "110003": (Verdict.DROP_TOKEN, Scope.DEVICE),
    "110005": (Verdict.MUTE_DEVICE, Scope.DEVICE),
    "110010": (Verdict.MUTE_DEVICE, Scope.DEVICE),
    "110011": (Verdict.QUOTA_EXHAUSTED, Scope.DEVICE),
}


@pytest.fixture
def account(keys: Path) -> MeizuAccount:
    return an_account_of(keys)


def an_account_of(keys: Path, **changes: Any) -> MeizuAccount:
    account = an_account("meizu", keys, **changes)
    assert isinstance(account, MeizuAccount)
    return account


def read(code: object, value: object = "", count: int = 3, status: int = 200) -> list[Outcome]:
    body = json.dumps({"code": code, "message": "", "value": value, "msgId": "x", "redirect": ""}).encode()
    return meizu.read([a_delivery(number) for number in range(count)], Response(status, {}, body))


def message(account: MeizuAccount, push: Push | None = None, **delivery: Any) -> dict[str, Any]:
    sent = content(meizu.build(account, push or a_push(), [a_delivery(**delivery)], AUTH, NOW_MS))["messageJson"]
    assert isinstance(sent, dict)
    return sent


# ---- answers


def test_the_table_has_meizus_codes_and_no_others() -> None:
    assert {code for code in CODES if code.isdigit()} == WHOLE.keys()
    assert {code.removeprefix("value ") for code in CODES if code.startswith("value ")} == BY_TOKEN.keys()


@pytest.mark.parametrize("code", WHOLE)
@pytest.mark.parametrize("status", [200, 400, 500])
def test_a_code_becomes_its_verdict_whatever_the_status(code: str, status: int) -> None:
    (outcome,) = read(code, count=1, status=status)
    assert (outcome.verdict, outcome.scope) == WHOLE[code]
    if code not in ("200", "110002", "110003"):
        assert read(code, status=status) == [CODES[code].outcome] * 3
        assert read(int(code), status=status) == [CODES[code].outcome] * 3


@pytest.mark.parametrize("code", BY_TOKEN)
def test_a_token_that_is_named_has_the_outcome_of_its_code(code: str) -> None:
    outcomes = read("200", {code: [token(1)]})
    assert [outcome.verdict for outcome in outcomes] == [Verdict.OK, BY_TOKEN[code][0], Verdict.OK]
    assert outcomes[1] == CODES[f"value {code}"].outcome
    assert outcomes[1].scope is BY_TOKEN[code][1]


def test_what_one_code_means_depends_on_where_it_stands() -> None:
    assert read("110010")[0].verdict is Verdict.RATE_LIMITED
    assert read("200", {"110010": [token(0)]})[0].verdict is Verdict.MUTE_DEVICE


def test_a_folded_push_waits_for_a_minute_and_quotas_for_midnight_in_china() -> None:
    assert CODES["value 520"].outcome.wait_s == 60
    for code in ("110019", "110051", "value 110011"):
        assert CODES[code].outcome.until == DayHour(0, 8)


def test_several_tokens_of_one_answer_each_have_their_own() -> None:
    named = {"110002": [token(0), 7, None], "520": [token(2)], "110003": token(1), "999": [token(3)]}
    outcomes = read("200", json.dumps(named), count=5)
    assert [outcome.verdict for outcome in outcomes] == [
        Verdict.DROP_TOKEN,
        Verdict.OK,
        Verdict.RETRY_AFTER,
        Verdict.RETRY,
        Verdict.OK,
    ]
    assert (outcomes[3].code, outcomes[3].scope) == ("value 999", Scope.DEVICE)


@pytest.mark.parametrize("value", ["", {}, "{}", None, 7, [], "no json", {"110002": []}, {"110002": "x"}])
def test_an_acceptance_that_names_nobody_is_one_for_all(value: object) -> None:
    assert [outcome.verdict for outcome in read("200", value)] == [Verdict.OK] * 3


@pytest.mark.parametrize("code", ["110002", "110003"])
def test_a_dead_token_among_several_is_looked_for_one_by_one(code: str) -> None:
    alone = Outcome(Verdict.BAD_PAYLOAD, code=f"{code} of many", remedy=Remedy.SINGLE_SEND)
    assert read(code) == [alone] * 3
    assert [outcome.verdict for outcome in read(code, count=1)] == [Verdict.DROP_TOKEN]


@pytest.mark.parametrize("code", ["110099", 999])
def test_a_code_that_nobody_knows_is_tried_again(code: object) -> None:
    assert read(code) == [Outcome(Verdict.RETRY, Scope.DEVICE, str(code))] * 3


@pytest.mark.parametrize("code", ["value 110002", "other codes", "110002 of many", None, True, "x", -5])
def test_what_is_no_number_is_no_code(code: object) -> None:
    assert [outcome.code for outcome in read(code, count=1)] == ["HTTP 200"]


@pytest.mark.parametrize(
    ("status", "verdict"),
    [(400, Verdict.BAD_PAYLOAD), (404, Verdict.MISCONFIGURED), (429, Verdict.RATE_LIMITED), (503, Verdict.RETRY)],
)
def test_without_a_code_that_we_know_the_status_decides(status: int, verdict: Verdict) -> None:
    assert [outcome.verdict for outcome in read("99", status=status)] == [verdict] * 3
    (outcome,) = meizu.read([a_delivery()], Response(status, {}, b"<html>"))
    assert (outcome.verdict, outcome.code) == (verdict, f"HTTP {status}")


# ---- signature


def test_the_signature_is_the_one_that_meizu_expects() -> None:
    text = (
        '{"noticeBarInfo":{"noticeMsgType":1,"noticeBarType":0,"title":"Li Lei","content":"lunch?"},'
        '"clickTypeInfo":{"clickType":0,"parameters":{"cid":"c42"}},"pushTimeInfo":{"offLine":1,"validTime":24},'
        '"advanceInfo":{"notifyKey":"c42"}}'
    )
    form = {"pushIds": "FAKEPUSHID0001,FAKEPUSHID0002", "messageJson": text, "appId": "100999"}
    assert sign(form, "fake-app-secret") == "90e862dd8e5eea87bdc88b559aad673b"


@given(st.text(max_size=200))
def test_what_is_signed_is_what_is_sent(body: str) -> None:
    account = MeizuAccount(app="demo", app_id="100999")
    deliveries = [a_delivery(0), a_delivery(1)]
    request = meizu.build(account, a_push(body=body), deliveries, "secret", NOW_MS)
    form = dict(parse_qsl(request.body.decode("ascii"), strict_parsing=True))
    assert form.pop("sign") == sign(form, "secret")
    assert form.keys() == {"appId", "messageJson", "pushIds"}


# ---- requests


def test_a_token_stands_in_a_request_once(account: MeizuAccount) -> None:
    deliveries = [a_delivery(0), a_delivery(1), a_delivery(2, token=token(0))]
    request = meizu.build(account, a_push(), deliveries, AUTH, NOW_MS)
    assert content(request)["pushIds"] == f"{token(0)},{token(1)}"
    assert request.url == "https://server-api-push.meizu.com/garcia/api/server/push/varnished/pushByPushId"
    assert AUTH not in request.body.decode()


@pytest.mark.parametrize(
    ("left_ms", "hours"),
    [(-5, 1), (30_000, 1), (3_600_000, 1), (3_600_001, 2), (86_400_000, 24), (259_200_000, 72), (10**10, 72)],
)
def test_the_life_is_in_whole_hours(account: MeizuAccount, left_ms: int, hours: int) -> None:
    assert message(account, a_push(expires_at_ms=NOW_MS + left_ms))["pushTimeInfo"]["validTime"] == hours


@pytest.mark.parametrize(
    ("kind", "private"),
    [
        ("chat", 1),
        ("mention", 1),
        ("call", 1),
        ("call_cancel", 1),
        ("missed_call", 1),
        ("summary", 1),
        ("system", 0),
        ("official", 0),
        ("marketing", 0),
    ],
)
def test_what_people_write_is_private_and_the_rest_public(account: MeizuAccount, kind: str, private: int) -> None:
    assert message(account, a_push(kind=kind))["noticeBarInfo"]["noticeMsgType"] == private


def test_account_and_message_may_say_otherwise(keys: Path) -> None:
    account = an_account_of(keys, kinds={"system": {"notice_type": 1}, "chat": {"notice_type": 0}})
    assert message(account, a_push(kind="system"))["noticeBarInfo"]["noticeMsgType"] == 1
    assert message(account, a_push(kind="call"))["noticeBarInfo"]["noticeMsgType"] == 0
    push = a_push(options=OfflinePush(meizu=MeizuOptions(notice_type=1)))
    assert message(account, push)["noticeBarInfo"]["noticeMsgType"] == 1


def test_texts_are_within_meizus_bounds_and_never_blank(account: MeizuAccount) -> None:
    bar = message(account, a_push(title="今" * 33, body="😀" * 51))["noticeBarInfo"]
    assert (bar["title"], bar["content"]) == ("今" * 31 + "…", "😀" * 49 + "…")
    bar = message(account, a_push(title="今" * 32, body="点" * 100))["noticeBarInfo"]
    assert (bar["title"], bar["content"]) == ("今" * 32, "点" * 100)
    bar = message(account, a_push(title=" ", body="\u3000"))["noticeBarInfo"]
    assert (bar["title"], bar["content"]) == ("New message", "New message")
    assert message(account, a_push(title="", sender_name="Li Lei"))["noticeBarInfo"]["title"] == "Li Lei"


def test_shrinking_halves_every_text(account: MeizuAccount) -> None:
    push = a_push(title="t" * 20, body="b" * 2_000, options=OfflinePush(android=AndroidOptions(style="big_text")))
    shrunk = message(account, push, remedy="shrink")
    assert shrunk["noticeBarInfo"]["title"] == "t" * 9 + "…"
    assert shrunk["noticeBarInfo"]["content"] == "b" * 49 + "…"
    assert len(shrunk["noticeExpandInfo"]["noticeExpandContent"].encode()) == 500


def test_a_large_form_shows_more_of_the_text(account: MeizuAccount) -> None:
    push = a_push(body="今" * 800, options=OfflinePush(android=AndroidOptions(style="big_text")))
    large = message(account, push)["noticeExpandInfo"]
    assert large["noticeExpandType"] == 1
    assert large["noticeExpandContent"] == "今" * 332 + "…"
    assert "noticeExpandInfo" not in message(account)


def test_the_app_gets_ids_and_ext(account: MeizuAccount) -> None:
    click = message(account)["clickTypeInfo"]
    assert click == {"clickType": 0, "parameters": {"mid": "m-9f3c1d", "cid": "c-1001", "ext": a_push().ext}}


def test_an_ext_that_does_not_fit_is_left_out_whole(account: MeizuAccount) -> None:
    push = a_push(ext="\x01" * 700)
    assert message(account, push)["clickTypeInfo"]["parameters"] == {"mid": "m-9f3c1d", "cid": "c-1001"}
    crowded = {"conversation_id": "\x01" * 256, "message_id": "\x01" * 256, "body": "今" * 900}
    assert message(account, a_push(**crowded))["clickTypeInfo"]["parameters"].keys() == {"mid", "cid", "ext"}
    large = OfflinePush(android=AndroidOptions(style="big_text"))
    sent = message(account, a_push(**crowded, options=large))
    assert sent["clickTypeInfo"]["parameters"].keys() == {"mid"}
    assert "noticeExpandInfo" not in sent


@given(st.text(max_size=40), st.text(min_size=1, max_size=40))
def test_a_notify_key_is_what_meizu_takes(key: str, message_id: str) -> None:
    assert re.fullmatch("[0-9A-Za-z_-]{8}", notify_key(a_push(replace_key=key, message_id=message_id)))


def test_a_newer_push_replaces_by_its_key(account: MeizuAccount) -> None:
    first = message(account)["advanceInfo"]["notifyKey"]
    assert message(account, a_push(message_id="m-2"))["advanceInfo"]["notifyKey"] == first
    assert notify_key(a_push(replace_key="c-2")) != first
    bare = notify_key(a_push(replace_key=""))
    assert bare == notify_key(a_push(replace_key="", revision=1)) != first
    assert bare != notify_key(a_push(replace_key="", message_id="m-2"))


@pytest.mark.parametrize(("numeric", "on"), [(False, True), (True, 1)])
def test_switches_are_written_as_the_sdk_or_the_documents_do(keys: Path, numeric: bool, on: object) -> None:
    sent = message(an_account_of(keys, numeric_switches=numeric))
    advance = sent["advanceInfo"]
    switches = [sent["pushTimeInfo"]["offLine"], advance["suspend"], advance["clearNoticeBar"]]
    switches += advance["notificationType"].values()
    assert [(type(one), one) for one in switches] == [(type(on), on)] * 6


# ---- secret and check


def test_the_secret_is_minted_for_this_process_alone(account: MeizuAccount, keys: Path, tmp_path: Path) -> None:
    answer = meizu.mint(account, 0)
    assert (answer.value, answer.shared) == ("meizu-secret-for-tests", False)
    assert answer.life_s <= 60
    (tmp_path / "secret").write_text("from-file\n")
    told = an_account_of(keys, app_secret=None, app_secret_file=str(tmp_path / "secret"))
    assert meizu.mint(told, 0).value == "from-file"
    with pytest.raises(CredentialError):
        meizu.auth_request(account, 0)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"app_secret": None}, "app_secret and app_secret_file are both missing: give one"),
        ({"app_secret": "sécret"}, "app_secret holds more than a secret: copy it alone"),
        ({"kinds": {"marketing": {"notice_type": 1}}}, "kinds.marketing.notice_type is private"),
        ({"kinds": {"official": {"notice_type": 1}}}, "kinds.official.notice_type is private"),
    ],
)
def test_a_wrong_setting_is_found_with_its_mend(keys: Path, changes: dict[str, Any], problem: str) -> None:
    (found,) = meizu.check(an_account_of(keys, **changes), 0)
    assert found.startswith(problem)
    assert ": " in found
    assert "sécret" not in found


@pytest.mark.parametrize("app_id", ["", "abc", "1" * 21, "12 3"])
def test_an_app_id_is_a_number(keys: Path, app_id: str) -> None:
    with pytest.raises(ValueError, match="app_id"):
        an_account_of(keys, app_id=app_id)
