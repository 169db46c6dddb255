from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.workers.vendors.conftest import pem
from tests.workers.vendors.samples import AUTH, NOW_MS, a_delivery, a_push, an_account, token

from pushfleet.message import AndroidOptions, HarmonyOptions, OfflinePush
from pushfleet_workers.outcome import DayHour, Outcome, Remedy, Scope, Verdict
from pushfleet_workers.push import Push, shared_id
from pushfleet_workers.vendor import Request, Response
from pushfleet_workers.vendors._harmony_codes import CODES, REASONS
from pushfleet_workers.vendors._ids import notify_id
from pushfleet_workers.vendors.harmony import AUDIENCE, Harmony, HarmonyAccount

harmony = Harmony()
MIDNIGHT = DayHour(0, 8)

# Huawei's lists, written down a second time: code -> (verdict, scope, remedy).
ERRORS = {
    "80000000": (Verdict.OK, Scope.DEVICE, None),
    "80000001": (Verdict.RETRY, Scope.ACCOUNT, None),
    "80100000": (Verdict.OK, Scope.DEVICE, None),
    "80100001": (Verdict.BAD_PAYLOAD, Scope.DEVICE, None),
    "80100003": (Verdict.BAD_PAYLOAD, Scope.DEVICE, None),
    "80100004": (Verdict.BAD_PAYLOAD, Scope.DEVICE, None),
    "80100020": (Verdict.OK, Scope.DEVICE, None),
    "80100022": (Verdict.BAD_PAYLOAD, Scope.DEVICE, Remedy.NO_IMAGE),
    "80200001": (Verdict.REFRESH_AUTH, Scope.ACCOUNT, None),
    "80200003": (Verdict.REFRESH_AUTH, Scope.ACCOUNT, None),
    "80200005": (Verdict.REFRESH_AUTH, Scope.ACCOUNT, None),
    "80300002": (Verdict.MISCONFIGURED, Scope.ACCOUNT, None),
    "80300007": (Verdict.RETRY, Scope.DEVICE, None),
    "80300008": (Verdict.BAD_PAYLOAD, Scope.DEVICE, Remedy.SHRINK),
    "80300010": (Verdict.BAD_PAYLOAD, Scope.DEVICE, Remedy.SPLIT),
    "80300017": (Verdict.BAD_PAYLOAD, Scope.DEVICE, Remedy.SINGLE_SEND),
    "80300028": (Verdict.MISCONFIGURED, Scope.DEVICE, None),
    "80300029": (Verdict.RATE_LIMITED, Scope.ACCOUNT, None),
    "80300030": (Verdict.BAD_PAYLOAD, Scope.DEVICE, Remedy.SINGLE_SEND),
    "80300032": (Verdict.MISCONFIGURED, Scope.DEVICE, None),
    "80300036": (Verdict.MISCONFIGURED, Scope.ACCOUNT, None),
    "80300037": (Verdict.QUOTA_EXHAUSTED, Scope.ACCOUNT, None),
    "81000001": (Verdict.RETRY, Scope.ACCOUNT, None),
}
TOKENS = {
    "tokenFormatError": (Verdict.DROP_TOKEN, Scope.DEVICE, None),
    "tokenPlatformNotSupport": (Verdict.DROP_TOKEN, Scope.DEVICE, None),
    "noRight": (Verdict.DROP_TOKEN, Scope.DEVICE, None),
    "noPushTypeRight": (Verdict.MISCONFIGURED, Scope.CLASS, None),
    "atomicUnableSendUnsubscribedMsg": (Verdict.MISCONFIGURED, Scope.CLASS, None),
    "noRightToSendThisLiveNotificationEvent": (Verdict.MISCONFIGURED, Scope.CLASS, None),
    "countryNotSupport": (Verdict.MUTE_DEVICE, Scope.DEVICE, None),
    "disableSendHuaweiMsgBecauseOfPenalty": (Verdict.QUOTA_EXHAUSTED, Scope.ACCOUNT, None),
    "differentImgVerifyPolicy": (Verdict.BAD_PAYLOAD, Scope.DEVICE, Remedy.NO_IMAGE),
    "appinfoError": (Verdict.MISCONFIGURED, Scope.ACCOUNT, None),
    "notSupportPlayVoice": (Verdict.BAD_PAYLOAD, Scope.DEVICE, None),
}
SETTLED_BY_TOKEN = {"80100000", "80100020", "80300007"}
PENALTIES = {"80300037", "disableSendHuaweiMsgBecauseOfPenalty"}


@pytest.fixture
def account(keys: Path) -> HarmonyAccount:
    return an_account_with(keys)


def an_account_with(keys: Path, **changes: Any) -> HarmonyAccount:
    account = an_account("harmony", keys, **changes)
    assert isinstance(account, HarmonyAccount)
    return account


def read(code: object, msg: object = "", status: int = 200, count: int = 3) -> list[Outcome]:
    body = json.dumps({"code": code, "msg": msg, "requestId": "170000000000000001"}).encode()
    return harmony.read([a_delivery(number) for number in range(count)], Response(status, {}, body))


def illegal(**reasons: list[str]) -> str:
    return json.dumps({"illegalTokens": reasons, "success": 1, "failure": 1})


def build(account: HarmonyAccount, push: Push | None = None, **delivery: Any) -> Request:
    return harmony.build(account, push or a_push(), [a_delivery(**delivery)], AUTH, NOW_MS)


def sent(account: HarmonyAccount, push: Push | None = None, **delivery: Any) -> dict[str, Any]:
    content = json.loads(build(account, push, **delivery).body)
    assert isinstance(content, dict)
    return content


def shown(account: HarmonyAccount, push: Push | None = None, **delivery: Any) -> dict[str, Any]:
    notification = sent(account, push, **delivery)["payload"]["notification"]
    assert isinstance(notification, dict)
    return notification


def with_options(**changes: Any) -> Push:
    return a_push(options=OfflinePush(harmony=HarmonyOptions(**changes)))


def test_the_tables_have_huaweis_codes_and_reasons_and_no_others() -> None:
    assert {code for code in CODES if code.isdigit()} == ERRORS.keys()
    assert {reason for reason in REASONS if ":" not in reason} == TOKENS.keys()


@pytest.mark.parametrize("code", ERRORS)
@pytest.mark.parametrize("status", [200, 400, 401])
def test_a_code_becomes_its_verdict_whatever_the_status(code: str, status: int) -> None:
    verdict, scope, remedy = ERRORS[code]
    until = MIDNIGHT if code in PENALTIES else None
    assert read(code, status=status) == [Outcome(verdict, scope, code, until=until, remedy=remedy)] * 3
    assert read(int(code), status=status)[0].verdict is verdict


@pytest.mark.parametrize("reason", TOKENS)
def test_where_all_tokens_were_refused_each_goes_by_its_reason(reason: str) -> None:
    verdict, scope, remedy = TOKENS[reason]
    until = MIDNIGHT if reason in PENALTIES else None
    first, second, third = read("80300007", illegal(**{reason: [token(1), token(2)]}), status=400)
    assert first == Outcome(Verdict.RETRY, Scope.DEVICE, "80300007")
    doubtful = reason == "noRight"
    assert second == third == Outcome(verdict, scope, reason, until=until, remedy=remedy, doubtful=doubtful)


@pytest.mark.parametrize("reason", TOKENS)
@pytest.mark.parametrize("code", ["80100000", "80100020"])
def test_where_others_were_served_no_reason_speaks_of_more_than_its_device(code: str, reason: str) -> None:
    first, second, third = read(code, illegal(**{reason: [token(1)]}))
    assert (first.verdict, third.verdict) == (Verdict.OK, Verdict.OK)
    assert (second.verdict, second.scope, second.code) == (TOKENS[reason][0], Scope.DEVICE, reason)


@pytest.mark.parametrize("msg", ["", "{", None, 7, [], {"illegalTokens": 7}, '{"illegalTokens":[]}'])
def test_a_partial_success_without_names_resends_nothing(msg: object) -> None:
    assert [outcome.verdict for outcome in read("80100000", msg)] == [Verdict.OK] * 3


@pytest.mark.parametrize("msg", ["", "{", None, 7, {"illegalTokens": {"noRight": "x"}}])
def test_all_invalid_without_names_drops_nothing(msg: object) -> None:
    assert read("80300007", msg) == [Outcome(Verdict.RETRY, Scope.DEVICE, "80300007")] * 3


def test_a_reason_that_nobody_knows_is_tried_again_and_drops_nothing() -> None:
    outcomes = read("80300007", illegal(moodOfTheDay=[token(0)], **{"80000000": [token(1)], token(9): [token(2)]}))
    assert [outcome.verdict for outcome in outcomes] == [Verdict.RETRY] * 3
    assert [outcome.code for outcome in outcomes] == ["moodOfTheDay", "80000000", "80300007"]


@pytest.mark.parametrize(
    ("count", "verdict"), [(1, Verdict.DROP_TOKEN), (9, Verdict.DROP_TOKEN), (10, Verdict.MISCONFIGURED)]
)
def test_many_tokens_without_right_at_once_are_the_accounts_fault(count: int, verdict: Verdict) -> None:
    tokens = [token(number) for number in range(count)]
    outcomes = read("80300007", illegal(noRight=tokens), status=400, count=count)
    assert {outcome.verdict for outcome in outcomes} == {verdict}
    assert {outcome.scope is Scope.ACCOUNT for outcome in outcomes} == {verdict is Verdict.MISCONFIGURED}


def test_many_tokens_lost_beside_others_die_one_by_one() -> None:
    tokens = [token(number) for number in range(12)]
    partial = read("80100000", illegal(noRight=tokens[:11]), count=12)
    assert [outcome.verdict for outcome in partial] == [Verdict.DROP_TOKEN] * 11 + [Verdict.OK]
    mixed = read("80300007", illegal(noRight=tokens[:11], tokenFormatError=tokens[11:]), count=12)
    assert {outcome.verdict for outcome in mixed} == {Verdict.DROP_TOKEN}


@pytest.mark.parametrize("status", [200, 400, 500])
def test_a_code_that_nobody_knows_is_tried_again_and_drops_nothing(status: int) -> None:
    assert read("80600005", status=status) == [Outcome(Verdict.RETRY, Scope.DEVICE, "80600005")] * 3


@pytest.mark.parametrize("code", ["tokenFormatError", "noRight:all", "503", 7])
def test_only_business_codes_are_looked_up(code: object) -> None:
    assert read(code, status=404) == [Outcome(Verdict.MISCONFIGURED, Scope.ACCOUNT, "HTTP 404")] * 3


@pytest.mark.parametrize(
    ("status", "verdict"),
    [
        (200, Verdict.RETRY),
        (400, Verdict.BAD_PAYLOAD),
        (401, Verdict.REFRESH_AUTH),
        (404, Verdict.MISCONFIGURED),
        (500, Verdict.RETRY),
        (502, Verdict.RETRY),
        (503, Verdict.RATE_LIMITED),
    ],
)
def test_without_a_code_the_status_decides(status: int, verdict: Verdict) -> None:
    (outcome,) = harmony.read([a_delivery()], Response(status, {"retry-after": "7"}, b"<html>"))
    expected = Verdict.RETRY_AFTER if verdict is Verdict.RETRY else verdict
    assert (outcome.verdict, outcome.code) == (expected, f"HTTP {status}")
    assert outcome.wait_s == (7.0 if expected in (Verdict.RETRY_AFTER, Verdict.RATE_LIMITED) else None)


reasons = st.dictionaries(
    st.one_of(st.sampled_from(sorted(TOKENS)), st.text(max_size=50)),
    st.one_of(st.lists(st.sampled_from([token(n) for n in range(4)]), max_size=4), st.none(), st.text(max_size=3)),
    max_size=4,
)


@settings(deadline=None, max_examples=200)
@given(code=st.sampled_from(sorted(SETTLED_BY_TOKEN)), reasons=reasons)
def test_a_token_dies_only_of_a_reason_that_says_so(code: str, reasons: dict[str, Any]) -> None:
    deadly = {reason for reason, row in TOKENS.items() if row[0] is Verdict.DROP_TOKEN}
    named = {one for reason, tokens in reasons.items() if reason in deadly for one in tokens or ()}
    outcomes = read(code, json.dumps({"illegalTokens": reasons}), count=4)
    for number, outcome in enumerate(outcomes):
        assert outcome.verdict is not Verdict.DROP_TOKEN or token(number) in named
        assert token(number) not in repr(outcome)


def test_a_push_has_the_form_of_the_third_version(keys: Path) -> None:
    account = an_account_with(keys, receipt_url="")
    deliveries = [a_delivery(0), a_delivery(1), a_delivery(2, token=token(0))]
    request = harmony.build(account, a_push(), deliveries, AUTH, NOW_MS)
    assert request.url == "https://push-api.cloud.huawei.com/v3/388421840000000001/messages:send"
    assert request.headers["push-type"] == "0"
    assert request.headers["authorization"] == f"Bearer {AUTH}"
    content = json.loads(request.body)
    assert content["target"] == {"token": [token(0), token(1)]}
    message_id = shared_id(a_push()).hex()
    assert content["payload"]["notification"] == {
        "category": "IM",
        "title": "Li Lei",
        "body": a_push().body,
        "clickAction": {"actionType": 0, "data": {"mid": "m-9f3c1d", "cid": "c-1001", "ext": a_push().ext}},
        "notifyId": notify_id(a_push()),
        "appMessageId": message_id,
        "foregroundShow": False,
        "badge": {"addNum": 1},
    }
    assert content["pushOptions"] == {"ttl": 86_400, "biTag": message_id, "collapseKey": -1}


def test_a_full_batch_stays_within_the_limit_without_its_tokens(account: HarmonyAccount) -> None:
    deliveries = [a_delivery(number) for number in range(1_000)]
    request = harmony.build(account, a_push(body="今👨‍👩‍👧‍👦" * 400), deliveries, AUTH, NOW_MS)
    tokens = json.dumps([delivery.token for delivery in deliveries], separators=(",", ":"))
    assert 4_060 < len(request.body) - len(tokens) + len("[]") <= 4_096


@pytest.mark.parametrize(
    ("kind", "category"),
    [
        ("chat", "IM"),
        ("mention", "IM"),
        ("summary", "IM"),
        ("call", "IM"),
        ("call_cancel", "IM"),
        ("missed_call", "MISS_CALL"),
        ("system", "MARKETING"),
        ("official", "MARKETING"),
        ("marketing", "MARKETING"),
    ],
)
def test_the_kind_decides_about_the_category(account: HarmonyAccount, kind: Any, category: str) -> None:
    assert shown(account, a_push(kind=kind))["category"] == category


def test_a_missed_call_is_a_chat_unless_told_otherwise(keys: Path) -> None:
    assert shown(an_account_with(keys, kinds={}), a_push(kind="missed_call"))["category"] == "IM"


def test_sound_and_offline_cache_are_settings_of_the_kind(account: HarmonyAccount) -> None:
    call = shown(account, a_push(kind="call"))
    assert (call["sound"], call["soundDuration"]) == ("ring.mp3", 30)
    assert not {"sound", "soundDuration"} & shown(account).keys()
    assert sent(account, a_push(kind="marketing"))["pushOptions"]["collapseKey"] == 1


def test_overrides_win_over_the_account(account: HarmonyAccount) -> None:
    changed = shown(account, with_options(category="WORK", image="https://example.com/a.jpg", ignore_badge=True))
    assert (changed["category"], changed["image"]) == ("WORK", "https://example.com/a.jpg")
    assert "badge" not in changed
    android = a_push(options=OfflinePush(android=AndroidOptions(sound="ding", style="big_text")))
    assert shown(account, android) == shown(account)


def test_a_picture_that_was_refused_is_left_out(account: HarmonyAccount) -> None:
    push = with_options(category="WORK", image="https://example.com/a.jpg")
    again = shown(account, push, remedy="no_image")
    assert again == {name: value for name, value in shown(account, push).items() if name != "image"}


@pytest.mark.parametrize(("left_ms", "ttl"), [(-5, 1), (123_000, 123), (10**12, 1_296_000)])
def test_ttl_is_what_is_left_but_never_nothing(account: HarmonyAccount, left_ms: int, ttl: int) -> None:
    assert sent(account, a_push(expires_at_ms=NOW_MS + left_ms))["pushOptions"]["ttl"] == ttl


def test_only_a_push_that_counts_adds_one_to_the_badge(account: HarmonyAccount) -> None:
    assert shown(account)["badge"] == {"addNum": 1}
    assert "badge" not in shown(account, badge=-1)
    assert "badge" not in shown(account, a_push(revision=1))
    mixed = harmony.build(account, a_push(), [a_delivery(0, badge=-1), a_delivery(1)], AUTH, NOW_MS)
    assert json.loads(mixed.body)["payload"]["notification"]["badge"] == {"addNum": 1}


def test_a_repeat_is_known_by_its_id_and_a_revision_replaces(account: HarmonyAccount) -> None:
    first, again, revised = shown(account), shown(account, attempt=3), shown(account, a_push(revision=1))
    assert first["appMessageId"] == again["appMessageId"] != revised["appMessageId"]
    assert first["notifyId"] == revised["notifyId"]
    assert first["notifyId"] != shown(account, a_push(replace_key="c-2"))["notifyId"]


def test_a_missing_text_is_stood_in_for(account: HarmonyAccount) -> None:
    bare = shown(account, a_push(title="", body=""))
    assert (bare["title"], bare["body"]) == ("New message", "New message")
    assert shown(account, a_push(title="", sender_name="Li Lei"))["title"] == "Li Lei"


def test_development_sends_test_messages(account: HarmonyAccount, keys: Path) -> None:
    assert sent(an_account_with(keys, environment="development"))["pushOptions"]["testMessage"] is True
    assert "testMessage" not in sent(account)["pushOptions"]


def ringing(keys: Path) -> HarmonyAccount:
    kinds = {"call": {"push_type": 10}, "call_cancel": {"push_type": 10}}
    return an_account_with(keys, kinds=kinds)


@pytest.mark.parametrize(("left_ms", "ttl"), [(-5, 30), (45_000, 45), (86_400_000, 60)])
def test_a_call_rings_inside_the_app_where_told_to(keys: Path, left_ms: int, ttl: int) -> None:
    account = ringing(keys).model_copy(update={"receipt_url": ""})
    request = build(account, a_push(kind="call", expires_at_ms=NOW_MS + left_ms))
    assert request.headers["push-type"] == "10"
    content = json.loads(request.body)
    assert content["pushOptions"] == {"ttl": ttl, "biTag": shared_id(a_push()).hex()}
    assert json.loads(content["payload"].pop("extraData")) == {
        "mid": "m-9f3c1d",
        "cid": "c-1001",
        "ext": a_push().ext,
        "kind": "call",
        "title": "Li Lei",
        "body": a_push().body,
    }
    assert content["payload"] == {}
    assert build(account).headers["push-type"] == "0"


@settings(deadline=None, max_examples=60)
@given(
    body=st.sampled_from(["今晚八点见", "👨‍👩‍👧‍👦", 'say "\\" \n', "\x01", "a"]),
    ext=st.sampled_from(["", '"' * 2_048, "字" * 682]),
    remedy=st.sampled_from(["", "shrink"]),
)
def test_a_ringing_call_stays_within_the_limit(keys: Path, body: str, ext: str, remedy: str) -> None:
    push = a_push(kind="call", title=body * 2_000, body=body * 2_000, ext=ext)
    request = build(ringing(keys), push, token="t", remedy=remedy)
    assert len(request.body) <= 4_096 + len('"t"')
    assert json.loads(json.loads(request.body)["payload"]["extraData"])["mid"] == "m-9f3c1d"


def test_a_recall_names_the_number_of_the_push_that_it_takes_back(account: HarmonyAccount) -> None:
    recall = a_push(revision=1, recall=True, body="taken back")
    deliveries = [a_delivery(0), a_delivery(1), a_delivery(2, token=token(0))]
    request = harmony.withdraw(account, recall, deliveries, AUTH, NOW_MS)
    assert request is not None
    assert request.url == "https://push-api.cloud.huawei.com/v1/110000001/messages:revoke"
    assert request.headers["push-type"] == "0"
    assert request.headers["authorization"] == f"Bearer {AUTH}"
    assert json.loads(request.body) == {"notifyId": shown(account)["notifyId"], "token": [token(0), token(1)]}
    moved = account.model_copy(update={"base_url": "https://127.0.0.1:1/"})
    request = harmony.withdraw(moved, recall, deliveries, AUTH, NOW_MS)
    assert request is not None
    assert request.url == "https://127.0.0.1:1/v1/110000001/messages:revoke"


def test_there_is_no_recall_without_client_id_or_of_a_ringing_call(keys: Path) -> None:
    recall = a_push(revision=1, recall=True)
    assert harmony.withdraw(an_account_with(keys, client_id=""), recall, [a_delivery()], AUTH, NOW_MS) is None
    call = a_push(kind="call", revision=1, recall=True)
    assert harmony.withdraw(ringing(keys), call, [a_delivery()], AUTH, NOW_MS) is None
    assert harmony.withdraw(ringing(keys), recall, [a_delivery()], AUTH, NOW_MS) is not None


def test_the_jwt_is_signed_with_ps256_and_stays_in_the_process(
    account: HarmonyAccount, harmony_key: dict[str, str]
) -> None:
    minted = harmony.mint(account, 1_700_000_000.9)
    assert (minted.life_s, minted.shared) == (3_600, False)
    assert jwt.get_unverified_header(minted.value) == {"kid": "0123abcd", "typ": "JWT", "alg": "PS256"}
    public = load_pem_private_key(harmony_key["private_key"].encode(), None).public_key()
    claims = jwt.decode(minted.value, public, algorithms=["PS256"], audience=AUDIENCE, options={"verify_exp": False})
    assert claims == {"iss": "110000002", "aud": AUDIENCE, "iat": 1_700_000_000, "exp": 1_700_003_600}


def test_a_key_file_that_is_gone_mints_nothing(keys: Path) -> None:
    minted = harmony.mint(an_account_with(keys, service_account_file="/nowhere/key.json"), 0)
    assert minted.failure == Outcome(Verdict.MISCONFIGURED, Scope.ACCOUNT, "KeyFile")


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"private_key": ""}, "lacks private_key: download"),
        ({"sub_account": None, "key_id": 7}, "lacks key_id, sub_account: download"),
        ({"project_id": "a/b"}, "has a project_id that is none: download"),
        ({"private_key": "-----BEGIN"}, "has no RSA private key of 2048 bits or more in private_key: download"),
        (
            {"private_key": pem(ec.generate_private_key(ec.SECP256R1())).decode()},
            "has no RSA private key of 2048 bits or more in private_key: download",
        ),
    ],
)
def test_a_wrong_key_file_is_found_with_its_mend(
    keys: Path, tmp_path: Path, harmony_key: dict[str, str], changes: dict[str, Any], problem: str
) -> None:
    file = tmp_path / "key.json"
    file.write_text(json.dumps(harmony_key | changes))
    (found,) = harmony.check(an_account_with(keys, service_account_file=str(file)), 0)
    assert problem in found
    assert "BEGIN" not in found


@pytest.mark.parametrize(
    ("kinds", "problem"),
    [
        ({"chat": {"category": "GOSSIP"}}, "kinds.chat.category GOSSIP is no message class"),
        ({"chat": {"category": "PLAY_VOICE"}}, "kinds.chat.category PLAY_VOICE is no message class"),
        ({"chat": {"push_type": 10}}, "kinds.chat.push_type 10 rings like a call: set it for call"),
    ],
)
def test_a_wrong_kind_is_found_with_its_mend(keys: Path, kinds: dict[str, Any], problem: str) -> None:
    (found,) = harmony.check(an_account_with(keys, kinds=kinds), 0)
    assert problem in found
    assert harmony.check(ringing(keys), 0) == []
