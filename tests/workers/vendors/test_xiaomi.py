from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from unicodedata import category

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.workers.vendors.samples import AUTH, NOW_MS, a_delivery, a_push, an_account, content, token

from pushfleet.message import AndroidOptions, OfflinePush, XiaomiOptions
from pushfleet_workers.errors import CredentialError
from pushfleet_workers.outcome import DayHour, Outcome, Remedy, Scope, Verdict
from pushfleet_workers.push import Push
from pushfleet_workers.vendor import Response
from pushfleet_workers.vendors._text import char_count
from pushfleet_workers.vendors.xiaomi import CODES, Xiaomi, XiaomiAccount, template_text

xiaomi = Xiaomi()

# Xiaomi's list, written down a second time: verdict, scope, remedy -> codes.
ERRORS: dict[str, tuple[Verdict, Scope, Remedy | None]] = {
    code: (verdict, scope, remedy)
    for verdict, scope, remedy, codes in [
        (Verdict.OK, Scope.DEVICE, None, "0 65003"),
        (Verdict.DROP_TOKEN, Scope.DEVICE, None, "10029 20301"),
        (Verdict.RETRY, Scope.ACCOUNT, None, "-1 1 10001 10002 10003 20607 26003 65029 65030"),
        (Verdict.RETRY, Scope.DEVICE, None, "10037 22102"),
        (Verdict.RATE_LIMITED, Scope.ACCOUNT, None, "10027 26004 200002"),
        (Verdict.QUOTA_EXHAUSTED, Scope.CLASS, None, "200001"),
        (Verdict.QUOTA_EXHAUSTED, Scope.ACCOUNT, None, "10034"),
        (Verdict.MISCONFIGURED, Scope.CLASS, None, "27001"),
        (
            Verdict.MISCONFIGURED,
            Scope.ACCOUNT,
            None,
            "10031 10036 21301 21302 21303 22000 22006 22007 22022",
        ),
        (Verdict.BAD_PAYLOAD, Scope.DEVICE, Remedy.SHRINK, "65009"),
        (
            Verdict.BAD_PAYLOAD,
            Scope.DEVICE,
            None,
            "10008 10012 10016 10017 10030 10032 10033 10035 10038 10039 21305 26006",
        ),
        (
            Verdict.BAD_PAYLOAD,
            Scope.DEVICE,
            None,
            "65006 65007 65008 65010 65011 65012 65013 65014 65015 65016 65017 65035 65036 65037 65038",
        ),
    ]
    for code in codes.split()
}


@pytest.fixture
def account(keys: Path) -> XiaomiAccount:
    return an_account_of(keys)


def an_account_of(keys: Path, **changes: Any) -> XiaomiAccount:
    account = an_account("xiaomi", keys, **changes)
    assert isinstance(account, XiaomiAccount)
    return account


def read(count: int = 3, status: int = 200, **answer: Any) -> list[Outcome]:
    body = json.dumps(answer).encode()
    return xiaomi.read([a_delivery(number) for number in range(count)], Response(status, {}, body))


def verdicts(count: int = 3, **answer: Any) -> list[Verdict]:
    return [outcome.verdict for outcome in read(count, **answer)]


def form(account: XiaomiAccount, push: Push | None = None, **delivery: Any) -> dict[str, Any]:
    fields = content(xiaomi.build(account, push or a_push(), [a_delivery(**delivery)], AUTH, NOW_MS))
    assert isinstance(fields, dict)
    return fields


def route(account: XiaomiAccount, push: Push) -> tuple[Any, Any, Any]:
    fields = form(account, push)
    return fields.get("extra.channel_id"), fields.get("extra.template_id"), fields.get("extra.template_param")


def with_options(**changes: Any) -> Push:
    return a_push(sender_name="Li Lei", options=OfflinePush(xiaomi=XiaomiOptions(**changes)))


# ---- answers


def test_the_table_has_xiaomis_codes_and_no_others() -> None:
    assert {code for code in CODES if code.removeprefix("-").isdigit()} == ERRORS.keys()


@pytest.mark.parametrize("code", ERRORS)
@pytest.mark.parametrize("status", [200, 400, 401, 500])
def test_a_code_becomes_its_verdict_whatever_the_status(code: str, status: int) -> None:
    verdict, scope, remedy = ERRORS[code]
    (outcome,) = read(1, status, result="error", code=int(code))
    assert (outcome.verdict, outcome.scope, outcome.remedy) == (verdict, scope, remedy)
    if code != "0":
        assert outcome == CODES[code].outcome


@pytest.mark.parametrize("code", sorted(ERRORS.keys() - {"10029", "20301"}))
def test_a_code_is_the_same_for_all_tokens_of_a_request(code: str) -> None:
    assert len(set(read(3, result="error", code=int(code)))) == 1
    assert read(3, code=int(code))[0] == read(1, code=int(code))[0]


def test_daily_quotas_open_at_midnight_in_china() -> None:
    assert {CODES[code].outcome.until for code in ("200001", "10034", "channel_exceed_quota")} == {DayHour(0, 8)}


@pytest.mark.parametrize("name", ["bad_regids", "bad_regIds"])
@pytest.mark.parametrize("bad", [token(1), f"{token(1)},{token(7)}", f"{token(7)}, {token(1)}"])
def test_a_bad_regid_is_dropped_and_the_others_are_served(name: str, bad: str) -> None:
    outcomes = read(3, result="ok", code=0, data={"id": "x", name: bad, "day_quota": "20000"})
    assert [outcome.verdict for outcome in outcomes] == [Verdict.OK, Verdict.DROP_TOKEN, Verdict.OK]
    assert outcomes[1].code == "bad_regids"


@pytest.mark.parametrize("data", [None, 7, [], "x", {}, {"bad_regids": ""}, {"bad_regids": 7}, {"bad_regids": None}])
def test_an_acceptance_that_names_nobody_is_one_for_all(data: object) -> None:
    assert verdicts(3, result="ok", code=0, data=data) == [Verdict.OK] * 3


@pytest.mark.parametrize(
    "reason", ["No valid targets!", "invalid regid", "Invalid reg_id in request", "not valid target", "INVALID TARGETS"]
)
def test_a_failure_that_speaks_of_targets_drops_all(reason: str) -> None:
    assert verdicts(3, code=20301, reason=reason) == [Verdict.DROP_TOKEN] * 3


@pytest.mark.parametrize("reason", ["", "send failed", "invalid title", "target class busy", None, 7])
def test_a_failure_that_does_not_drops_the_token_of_a_request_for_one_only(reason: object) -> None:
    outcomes = read(3, code=20301, reason=reason)
    assert outcomes == [Outcome(Verdict.BAD_PAYLOAD, code="20301 of many")] * 3
    assert verdicts(1, code=20301, reason=reason) == [Verdict.DROP_TOKEN]
    twice = [a_delivery(0), a_delivery(1, token=token(0))]
    dropped = xiaomi.read(twice, Response(200, {}, b'{"code":20301}'))
    assert [outcome.verdict for outcome in dropped] == [Verdict.DROP_TOKEN] * 2


def test_an_invalid_device_among_several_is_looked_for_one_by_one() -> None:
    alone = Outcome(Verdict.BAD_PAYLOAD, code="10029 of many", remedy=Remedy.SINGLE_SEND)
    assert read(2, code=10029) == [alone] * 2


@pytest.mark.parametrize(
    ("refused", "name", "verdict"),
    [
        ("a:3", "channel_exceed_quota", Verdict.QUOTA_EXHAUSTED),
        ("no_channel:2 a:1", "channel_exceed_quota", Verdict.QUOTA_EXHAUSTED),
        ("no_channel:1 a:1", "channel_exceed_quota in part", Verdict.OK),
        ("a: 2", "channel_exceed_quota in part", Verdict.OK),
    ],
)
def test_a_mixed_request_above_the_quota_waits_only_where_all_of_it_was_refused(
    refused: str, name: str, verdict: Verdict
) -> None:
    outcomes = read(3, code=0, data={"id": "x", "channel_exceed_quota": refused})
    assert {(outcome.verdict, outcome.code) for outcome in outcomes} == {(verdict, name)}


@pytest.mark.parametrize("refused", ["", 7, None, {}])
def test_a_mixed_request_within_the_quota_is_accepted(refused: object) -> None:
    assert read(2, code=0, data={"channel_exceed_quota": refused}) == [Outcome(Verdict.OK)] * 2


@pytest.mark.parametrize("code", [27002, 99999, "70000"])
def test_a_code_that_nobody_knows_ends_the_push_and_keeps_the_token(code: object) -> None:
    assert read(2, result="error", code=code) == [Outcome(Verdict.BAD_PAYLOAD, code=str(code))] * 2


@pytest.mark.parametrize("code", ["bad_regids", "other codes", "HTTP 400", "channel_exceed_quota", None, True, "x"])
def test_what_is_no_number_is_no_code(code: object) -> None:
    assert [outcome.code for outcome in read(1, code=code)] == ["HTTP 200"]


@pytest.mark.parametrize(
    ("status", "verdict"),
    [(401, Verdict.REFRESH_AUTH), (403, Verdict.MISCONFIGURED), (429, Verdict.RATE_LIMITED), (502, Verdict.RETRY)],
)
def test_without_a_code_that_we_know_the_status_decides(status: int, verdict: Verdict) -> None:
    assert [outcome.verdict for outcome in read(2, status, code=99999)] == [verdict] * 2
    (outcome,) = xiaomi.read([a_delivery()], Response(status, {}, b"<html>"))
    assert (outcome.verdict, outcome.code) == (verdict, f"HTTP {status}")


# ---- requests


def test_a_token_stands_in_a_request_once(account: XiaomiAccount) -> None:
    deliveries = [a_delivery(0), a_delivery(1), a_delivery(2, token=token(0))]
    request = xiaomi.build(account, a_push(), deliveries, AUTH, NOW_MS)
    assert content(request)["registration_id"] == f"{token(0)},{token(1)}"
    assert request.headers["authorization"] == f"key={AUTH}"


@pytest.mark.parametrize(
    ("region", "host"),
    [
        ("cn", "api.xmpush.xiaomi.com"),
        ("ru", "ru-api.xmpush.global.xiaomi.com"),
        ("in", "idmb-api.xmpush.global.xiaomi.com"),
        ("eu", "fr-api.xmpush.global.xiaomi.com"),
        ("sg", "sgp-api.xmpush.global.xiaomi.com"),
    ],
)
def test_the_region_of_the_devices_decides_the_host(keys: Path, region: str, host: str) -> None:
    request = xiaomi.build(an_account_of(keys, region=region), a_push(), [a_delivery()], AUTH, NOW_MS)
    assert request.url == f"https://{host}/v3/message/regid"
    moved = an_account_of(keys, region=region, base_url="https://push.test/")
    assert xiaomi.build(moved, a_push(), [a_delivery()], AUTH, NOW_MS).url == "https://push.test/v3/message/regid"


@pytest.mark.parametrize(
    ("kind", "left_ms", "ttl"),
    [
        ("chat", -5, "1000"),
        ("chat", 30_000, "30000"),
        ("chat", 10**10, "864000000"),
        ("system", 10**10, "86400000"),
        ("marketing", 10**10, "86400000"),
    ],
)
def test_ttl_is_what_is_left_within_what_the_class_may_have(
    account: XiaomiAccount, kind: str, left_ms: int, ttl: str
) -> None:
    assert form(account, a_push(kind=kind, expires_at_ms=NOW_MS + left_ms))["time_to_live"] == ttl


def test_texts_are_shorter_than_xiaomis_bounds_and_never_blank(account: XiaomiAccount) -> None:
    long = form(account, a_push(title="今" * 50, body="😀" * 64))
    assert long["title"] == "今" * 48 + "…"
    assert long["description"] == "😀" * 63 + "…"
    assert form(account, a_push(title="今" * 49, body="点" * 127))["title"] == "今" * 49
    blank = form(account, a_push(title=" ", body="\u3000"))
    assert (blank["title"], blank["description"]) == ("New message", "New message")
    assert form(account, a_push(title="", sender_name="Li Lei"))["title"] == "Li Lei"


def test_shrinking_halves_texts_and_template(account: XiaomiAccount) -> None:
    fields = form(account, a_push(title="t" * 40, body="b" * 120), remedy="shrink")
    assert fields["title"] == "t" * 19 + "…"
    assert fields["description"] == "b" * 59 + "…"
    assert fields["extra.template_param"]["keywords2"] == "b" * 59 + "…"


def test_the_app_gets_ids_and_ext(account: XiaomiAccount) -> None:
    fields = form(account)
    assert fields["payload"] == {"mid": "m-9f3c1d", "cid": "c-1001", "ext": a_push().ext}
    assert (fields["pass_through"], fields["extra.notify_effect"]) == ("0", "1")
    assert fields["extra.notify_foreground"] == "0"


def test_an_ext_that_does_not_fit_is_left_out_whole(account: XiaomiAccount, keys: Path) -> None:
    push = a_push(ext="x" * 2_020)
    assert "ext" not in form(account, push)["payload"]
    assert form(account, push)["payload"]["cid"] == "c-1001"
    wide = an_account_of(keys, payload_bytes_max=3_072)
    assert form(wide, push)["payload"]["ext"] == push.ext


def test_the_template_gives_way_only_when_nothing_else_is_left(keys: Path) -> None:
    params = {f"keywords{number}": "{body}" for number in range(9)}
    kinds = {"chat": {"channel_id": "1", "template_id": "M1", "template_params": params}}
    push = a_push(body="今" * 200, message_id="\x01" * 256)
    fields = form(an_account_of(keys, kinds=kinds), push)
    assert sum(len(str(value).encode()) for value in fields.values()) < 4_200
    assert fields["extra.template_param"] == dict.fromkeys(params, "今" * 31 + "…")


def test_a_repeat_is_dropped_and_a_newer_push_replaces(account: XiaomiAccount) -> None:
    first, newer = form(account), form(account, a_push(message_id="m-2"))
    assert first["notify_id"] == newer["notify_id"]
    assert 0 < int(first["notify_id"]) < 2**31
    assert first["extra.jobkey"] != newer["extra.jobkey"]
    assert first["extra.jobkey"] == form(account, token="other")["extra.jobkey"]
    assert first["extra.jobkey"] != form(account, a_push(revision=1))["extra.jobkey"]
    assert len(first["extra.jobkey"]) == 12
    assert form(account, a_push(replace_key=""))["notify_id"] != first["notify_id"]


def test_a_sound_is_a_resource_of_the_package(account: XiaomiAccount) -> None:
    push = a_push(options=OfflinePush(android=AndroidOptions(sound="ding")))
    assert form(account, push)["extra.sound_uri"] == "android.resource://com.example.im/raw/ding"
    assert "extra.sound_uri" not in form(account)


# ---- channels and templates


@pytest.mark.parametrize(
    ("kind", "channel", "template", "sound"),
    [
        ("chat", "100001", "M00001", "-1"),
        ("mention", "100001", "M00001", "-1"),
        ("summary", "100001", "M00001", "-1"),
        ("missed_call", "100001", "M00001", "-1"),
        ("call", "100003", "M00003", "-1"),
        ("system", "100004", None, "0"),
        ("official", "100005", None, "-1"),
        ("marketing", "100005", None, "4"),
    ],
)
def test_the_kind_decides_about_channel_template_and_sound(
    account: XiaomiAccount, kind: str, channel: str, template: str | None, sound: str
) -> None:
    fields = form(account, a_push(kind=kind))
    assert (fields["extra.channel_id"], fields.get("extra.template_id")) == (channel, template)
    assert fields["notify_type"] == sound


def test_groups_have_a_template_of_their_own(account: XiaomiAccount) -> None:
    push = a_push(title="Family", body="Ann: eight?", sender_name="Ann", group=True)
    params = {"keywords1": "Family", "keywords2": "Ann", "keywords3": "eight?"}
    assert route(account, push) == ("100002", "M00002", params)
    mention = a_push(kind="mention", title="Family", body="Ann: eight?", sender_name="Ann", group=True)
    assert route(account, mention) == ("100002", "M00002", params)


def test_a_kind_with_a_channel_of_its_own_keeps_it_in_groups(account: XiaomiAccount, keys: Path) -> None:
    call = a_push(kind="call", title="Family", sender_name="Ann", group=True)
    assert route(account, call) == ("100003", "M00003", {"keywords1": "Family"})
    kinds = json.loads(account.model_dump_json(include={"kinds"}))["kinds"]
    kinds["mention"] = {"notify_type": 1, "group": {"channel_id": "9", "template_id": "", "template_params": {}}}
    told = an_account_of(keys, kinds=kinds)
    assert route(told, a_push(kind="mention", group=True)) == ("9", None, None)
    kinds["mention"] = {"notify_type": 1}
    told = an_account_of(keys, kinds=kinds)
    assert route(told, a_push(kind="mention", group=True))[0] == "100002"


def test_without_settings_no_channel_is_named(keys: Path) -> None:
    assert route(an_account_of(keys, kinds={}), a_push()) == (None, None, None)


@pytest.mark.parametrize(
    ("own", "expected"),
    [
        ({"channel_id": "7"}, ("7", None, None)),
        ({"channel_id": "7", "template_id": "M7", "template_params": {"a": "b"}}, ("7", "M7", {"a": "b"})),
        ({"template_id": "M7", "template_params": {"a": "😀b"}}, ("100001", "M7", {"a": "b"})),
        ({"template_params": {"keywords1": "x"}}, ("100001", "M00001", {"keywords1": "x"})),
        ({}, ("100001", "M00001", {"keywords1": "Li Lei", "keywords2": "See you at 8? 今晚八点见"})),
    ],
)
def test_a_message_may_name_channel_and_template(
    account: XiaomiAccount, own: dict[str, Any], expected: tuple[Any, Any, Any]
) -> None:
    assert route(account, with_options(**own)) == expected


@pytest.mark.parametrize(
    ("text", "fit"),
    [
        ("今晚八点见", "今晚八点见"),
        ("See 👨‍👩‍👧‍👦 you", "See you"),
        ("👍🏽 ok", "ok"),
        ("👩🏾‍🚀🏳️‍🌈🇨🇳🏴\U000e0067\U000e0062\U000e007f", ""),
        ("1️⃣ first", "1 first"),
        ("❤️©™✓", ""),
        ("‼️ now ↔️", "now"),
        ("a\u0378b\ue000c", "abc"),
        ("  \u3000\n", ""),
        ("a\n\tb", "a b"),
        ("क्\u200dष 1+1=2 5€", "क्\u200dष 1+1=2 5€"),
        ("\u202bمرحبا\u202c", "\u202bمرحبا\u202c"),
    ],
)
def test_a_template_gets_no_emoji_and_nothing_unassigned(text: str, fit: str) -> None:
    assert template_text(text) == fit


@given(st.text(max_size=60))
def test_whatever_a_text_holds_a_template_can_take_what_is_left(text: str) -> None:
    left = template_text(text)
    assert not {category(character) for character in left} & {"So", "Cn", "Co"}
    assert "\ufe0f" not in left
    assert left == left.strip() or not left
    assert template_text(left) == left


def test_template_values_are_bounded_and_never_blank(account: XiaomiAccount) -> None:
    values = route(account, a_push(title="😀", body="今👍" * 200, sender_name=""))[2]
    assert values == {"keywords1": "New message", "keywords2": "今" * 127 + "…"}
    assert char_count(values["keywords2"]) == 128


def test_a_template_has_nine_variables_at_most(keys: Path) -> None:
    params = {f"keywords{number}": "x" for number in range(10)}
    with pytest.raises(ValueError, match="template_params"):
        an_account_of(keys, kinds={"chat": {"template_params": params}})


# ---- requests of many messages


def test_many_messages_go_in_one_request_where_the_account_asks_for_it(account: XiaomiAccount, keys: Path) -> None:
    assert xiaomi.mixes(account)
    assert not xiaomi.mixes(an_account_of(keys, multi_messages=False))
    assert not XiaomiAccount(app="demo", package_name="com.example.im").multi_messages
    letters = [
        (a_push(message_id=f"m-{number}", body=f"Text {number}", conversation_id=f"c-{number}"), a_delivery(number))
        for number in range(3)
    ]
    request = xiaomi.build_mixed(account, letters, AUTH, NOW_MS)
    assert request.url == "https://api.xmpush.xiaomi.com/v2/multi_messages/regids"
    assert request.headers["authorization"] == f"key={AUTH}"
    fields = content(request)
    assert fields.keys() == {"messages", "time_to_send"}
    assert fields["time_to_send"] == "0"
    assert [one["target"] for one in fields["messages"]] == [token(number) for number in range(3)]
    message = fields["messages"][1]["message"]
    numbers = {name: message[name] for name in ("pass_through", "notify_type", "notify_id", "time_to_live")}
    assert all(type(value) is int for value in numbers.values())
    assert (message["description"], message["restricted_package_name"]) == ("Text 1", "com.example.im")
    assert json.loads(message["payload"])["mid"] == "m-1"
    extra = message["extra"]
    assert all(isinstance(value, str) for value in extra.values())
    assert (extra["channel_id"], extra["notify_effect"]) == ("100001", "1")
    assert json.loads(extra["template_param"])["keywords2"] == "Text 1"


def test_requests_of_many_messages_may_go_to_the_newer_path(keys: Path) -> None:
    account = an_account_of(keys, multi_messages_path="/v3/multi_messages/regids")
    request = xiaomi.build_mixed(account, [(a_push(), a_delivery())], AUTH, NOW_MS)
    assert request.url == "https://api.xmpush.xiaomi.com/v3/multi_messages/regids"
    assert xiaomi.build(account, a_push(), [a_delivery()], AUTH, NOW_MS).url.endswith("/v3/message/regid")
    with pytest.raises(ValueError, match="multi_messages_path"):
        an_account_of(keys, multi_messages_path="/v3/message/regid")


def test_one_message_says_the_same_alone_and_among_others(account: XiaomiAccount) -> None:
    alone = form(account)
    fields = content(xiaomi.build_mixed(account, [(a_push(), a_delivery())], AUTH, NOW_MS))
    (one,) = fields["messages"]
    message = one["message"]
    extras = {f"extra.{name}": value for name, value in message.pop("extra").items()}
    flat = {name: str(value) for name, value in (message | extras).items()}
    for name in ("payload", "extra.template_param"):
        flat[name] = json.loads(flat[name])
    assert {"registration_id": one["target"], **flat} == alone


# ---- secret and check


def test_the_secret_is_minted_for_this_process_alone(account: XiaomiAccount, keys: Path, tmp_path: Path) -> None:
    answer = xiaomi.mint(account, 0)
    assert (answer.value, answer.shared) == ("xiaomi-secret-for-tests", False)
    assert answer.life_s <= 60
    (tmp_path / "secret").write_text("from-file\n")
    told = an_account_of(keys, app_secret=None, app_secret_file=str(tmp_path / "secret"))
    assert xiaomi.mint(told, 0).value == "from-file"
    with pytest.raises(CredentialError):
        xiaomi.auth_request(account, 0)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"app_secret": None}, "app_secret and app_secret_file are both missing: give one"),
        ({"app_secret": "two words\n"}, ""),
        ({"app_secret": "sécret"}, "app_secret holds more than a secret: copy it alone"),
        ({"default_text": "😀"}, "default_text has nothing that a template takes: write letters"),
    ],
)
def test_a_wrong_setting_is_found_with_its_mend(keys: Path, changes: dict[str, Any], problem: str) -> None:
    found = xiaomi.check(an_account_of(keys, **changes), 0)
    assert [one[: len(problem)] for one in found] == ([problem] if problem else [])
    assert "sécret" not in str(found)


CLASSED = {"system": {"channel_id": ""}, "official": {"channel_id": ""}, "marketing": {"channel_id": "5"}}


@pytest.mark.parametrize(
    ("kinds", "problems"),
    [
        (
            {},
            ["kinds: chat, mention, call, call_cancel, missed_call, summary, system, official, marketing without a "],
        ),
        (CLASSED, ["kinds: chat, mention, call, call_cancel, missed_call, summary without a channel_id"]),
        (CLASSED | {"chat": {"channel_id": "1"}}, ["kinds.chat names a channel and no template: "]),
        (CLASSED | {"chat": {"channel_id": "1", "template_id": ""}}, []),
        (CLASSED | {"chat": {"channel_id": ""}}, []),
        (
            CLASSED | {"chat": {"channel_id": "1", "template_id": "M1"}},
            ["kinds.chat has a template_id and no template_params: "],
        ),
        (
            CLASSED | {"chat": {"channel_id": "1", "template_id": "", "group": {"channel_id": "2"}}},
            ["kinds.chat.group names a channel and no template: "],
        ),
        (
            CLASSED
            | {"chat": {"channel_id": "1", "template_id": "", "group": {"channel_id": "2", "template_id": "M"}}},
            ["kinds.chat.group has a template_id and no template_params: "],
        ),
    ],
)
def test_a_kind_without_channel_or_template_is_found(keys: Path, kinds: dict[str, Any], problems: list[str]) -> None:
    found = xiaomi.check(an_account_of(keys, kinds=kinds), 0)
    assert [one[: len(problem)] for one, problem in zip(found, problems, strict=True)] == problems
    assert all(": write" in one or "; write" in one for one in found)


@pytest.mark.parametrize("package", ["", "im", "com.example.im/.Main", "com..im", "com.example.1im"])
def test_a_package_name_is_one(keys: Path, package: str) -> None:
    with pytest.raises(ValueError, match="package_name"):
        an_account_of(keys, package_name=package)
