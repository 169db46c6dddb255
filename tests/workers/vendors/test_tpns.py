from __future__ import annotations

import json
from base64 import b64decode
from hashlib import sha256
from hmac import new as hmac_new
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.workers.vendors.samples import KINDS, NOW_MS, a_delivery, a_push, an_account, token

from pushfleet.message import (
    AndroidOptions,
    ApnsOptions,
    FcmOptions,
    HuaweiOptions,
    OfflinePush,
    OppoOptions,
    VivoOptions,
    XiaomiOptions,
)
from pushfleet_workers.errors import CredentialError
from pushfleet_workers.outcome import Outcome, Remedy, Scope, Verdict
from pushfleet_workers.push import Push, shared_id
from pushfleet_workers.vendor import Request, Response
from pushfleet_workers.vendors.tpns import CODES, Tpns, TpnsAccount, sign

tpns = Tpns()
SECRET = "tpns-secret-for-tests"

# TPNS' list, written down a second time: code -> verdict; what speaks of one token stands below.
ERRORS = {
    "0": Verdict.OK,
    "10010018": Verdict.OK,
    "1008003": Verdict.REFRESH_AUTH,
    "1008004": Verdict.RETRY,
    "1008028": Verdict.RATE_LIMITED,
} | dict.fromkeys(
    ["1008001", "1008002", "1008007", "1008015", "1008016", "1008019", "1008026", "1008027", "10010012"],
    Verdict.BAD_PAYLOAD,
)
ERRORS |= dict.fromkeys(
    ["1008011", "1008012", "1008013", "1008020", "1008021", "1008022", "1008023", "1008025", "1008030", "1008031"],
    Verdict.MISCONFIGURED,
)
ERRORS |= dict.fromkeys(
    ["1008035", "1010001", "10030002", "-1", "-2", "-3", "-4", "-100", "10100", "10101"], Verdict.MISCONFIGURED
)
OF_ONE_TOKEN = ["1008006", "1008029", "10010005", "10110008"]
AT_LARGE = {Verdict.MISCONFIGURED, Verdict.REFRESH_AUTH, Verdict.RATE_LIMITED, Verdict.RETRY}


@pytest.fixture
def account(keys: Path) -> TpnsAccount:
    return an_app(keys)


def an_app(keys: Path, **changes: Any) -> TpnsAccount:
    account = an_account("tpns", keys, **changes)
    assert isinstance(account, TpnsAccount)
    return account


def read(code: object, count: int = 3, status: int = 200, **more: Any) -> list[Outcome]:
    body = json.dumps({"seq": 0, "push_id": "4100000001", "ret_code": code, "err_msg": "", **more}).encode()
    return tpns.read([a_delivery(number) for number in range(count)], Response(status, {}, body))


def a_request(account: TpnsAccount, push: Push | None = None, count: int = 1, **delivery: Any) -> Request:
    deliveries = [a_delivery(number, **delivery) for number in range(count)]
    return tpns.build(account, push or a_push(), deliveries, SECRET, NOW_MS)


def content(account: TpnsAccount, push: Push | None = None, **delivery: Any) -> dict[str, Any]:
    found = json.loads(a_request(account, push, **delivery).body)
    assert isinstance(found, dict)
    return found


def android(account: TpnsAccount, push: Push | None = None, **delivery: Any) -> dict[str, Any]:
    found = content(account, push, **delivery)["message"]["android"]
    assert isinstance(found, dict)
    return found


def aps(account: TpnsAccount, push: Push | None = None, **delivery: Any) -> dict[str, Any]:
    found = content(account, push, **delivery)["message"]["ios"]["aps"]
    assert isinstance(found, dict)
    return found


def test_the_signature_is_the_base64_of_hexadecimal_text() -> None:
    body = (
        b'{"audience_type":"token_list","token_list":["0000aaaa1111bbbb2222cccc3333dddd4444"],'
        b'"message_type":"notify","message":{"title":"Alice","content":"hi"}}'
    )
    signature = sign("1700000000", "1500000001", body, "00112233445566778899aabbccddeeff")
    assert signature == ("Yjc3OWY2ZmMxY2QzNTQ4NWE1ZGJhMTgyNTEyYTk3MGRlYzRkNzE5ZTFmZDU3MzMwNmZiMDk1ZGQ0YTUzNTM5NA==")
    assert b64decode(signature) == b"b779f6fc1cd35485a5dba182512a970dec4d719e1fd573306fb095dd4a535394"


def test_what_is_signed_is_what_is_sent(account: TpnsAccount) -> None:
    request = a_request(account, a_push(title="李雷 \U0001f35c"))
    text = f"{NOW_MS // 1_000}1500000001".encode() + request.body
    assert request.headers["timestamp"] == str(NOW_MS // 1_000)
    assert request.headers["accessid"] == "1500000001"
    assert b64decode(request.headers["sign"]).decode() == hmac_new(SECRET.encode(), text, sha256).hexdigest()
    assert request.headers["content-type"] == "application/json"


@pytest.mark.parametrize(
    ("access_point", "host"),
    [
        ("guangzhou", "https://api.tpns.tencent.com"),
        ("shanghai", "https://api.tpns.sh.tencent.com"),
        ("hongkong", "https://api.tpns.hk.tencent.com"),
        ("singapore", "https://api.tpns.sgp.tencent.com"),
    ],
)
def test_each_access_point_has_its_host(keys: Path, access_point: str, host: str) -> None:
    assert a_request(an_app(keys, access_point=access_point)).url == f"{host}/v3/push/app"


def test_the_table_has_tpns_codes_and_no_others() -> None:
    numbers = {code for code in CODES if code.removeprefix("-").isdigit()}
    assert numbers == ERRORS.keys() | set(OF_ONE_TOKEN)
    assert set(CODES) - numbers - {code for code in CODES if code.startswith("HTTP ")} == {
        "invalid_targe_list",
        "other codes",
        *(f"{code} of many" for code in OF_ONE_TOKEN),
    }


@pytest.mark.parametrize("code", ERRORS)
@pytest.mark.parametrize("status", [200, 400, 403])
def test_a_code_becomes_its_verdict_whatever_the_status(code: str, status: int) -> None:
    for written in (int(code), int(code) if code.startswith("-") else code):
        for outcome in read(written, status=status):
            assert outcome.verdict is ERRORS[code]
            assert outcome.scope is (Scope.ACCOUNT if outcome.verdict in AT_LARGE else Scope.DEVICE)
            assert outcome.code == ("" if code == "0" else code)
            assert outcome.wait_s == (1.0 if code == "1008028" else None)


@pytest.mark.parametrize("code", OF_ONE_TOKEN)
def test_a_code_about_a_token_names_it_only_where_there_is_one(code: str) -> None:
    assert read(int(code), count=1) == [Outcome(Verdict.DROP_TOKEN, code=code)]
    alone = Outcome(Verdict.BAD_PAYLOAD, code=f"{code} of many", remedy=Remedy.SINGLE_SEND)
    assert read(int(code)) == [alone] * 3
    body = json.dumps({"ret_code": int(code)}).encode()
    same = tpns.read([a_delivery(0), a_delivery(1, token=token(0))], Response(200, {}, body))
    assert [outcome.verdict for outcome in same] == [Verdict.DROP_TOKEN] * 2


def test_the_tokens_that_an_accepted_request_names_are_dropped_and_no_others() -> None:
    outcomes = read(0, invalid_targe_list=[token(1), 7, None])
    assert [outcome.verdict for outcome in outcomes] == [Verdict.OK, Verdict.DROP_TOKEN, Verdict.OK]
    assert outcomes[1].code == "invalid_targe_list"


@pytest.mark.parametrize("named", [None, "", {}, 7, [], [[]], "t"])
def test_a_list_that_is_none_drops_nothing(named: object) -> None:
    assert [outcome.verdict for outcome in read(0, invalid_targe_list=named)] == [Verdict.OK] * 3


@pytest.mark.parametrize("status", [200, 400, 500])
def test_a_code_that_nobody_knows_is_tried_again_and_drops_nothing(status: int) -> None:
    assert read(1_009_999, status=status) == [Outcome(Verdict.RETRY, Scope.DEVICE, "1009999")] * 3


@pytest.mark.parametrize(
    ("status", "body", "verdict"),
    [
        (200, b"", Verdict.RETRY),
        (200, b'{"retCode":0}', Verdict.RETRY),
        (200, b'{"ret_code":"ok"}', Verdict.RETRY),
        (400, b"{}", Verdict.BAD_PAYLOAD),
        (404, b"<html>", Verdict.MISCONFIGURED),
        (502, b"<html>", Verdict.RETRY),
    ],
)
def test_without_a_code_the_status_decides(status: int, body: bytes, verdict: Verdict) -> None:
    (outcome,) = tpns.read([a_delivery()], Response(status, {}, body))
    assert (outcome.verdict, outcome.code) == (verdict, f"HTTP {status}")


def test_a_request_names_each_token_once_and_skips_bad_ones(account: TpnsAccount) -> None:
    deliveries = [a_delivery(0), a_delivery(1), a_delivery(2, token=token(0))]
    found = json.loads(tpns.build(account, a_push(), deliveries, SECRET, NOW_MS).body)
    assert found["audience_type"] == "token_list"
    assert found["token_list"] == [token(0), token(1)]
    assert found["ignore_invalid_token"] == 1
    assert found["message_type"] == "notify"
    assert found["seq"] == int.from_bytes(shared_id(a_push())[:4]) >> 1
    assert "environment" not in found


def test_a_full_batch_stays_within_the_limit_without_its_tokens(account: TpnsAccount) -> None:
    request = a_request(account, a_push(body="今" * 4_000), count=1_000)
    tokens = json.dumps(json.loads(request.body)["token_list"], separators=(",", ":"))
    assert 4_090 < len(request.body) - len(tokens) + len("[]") <= 4_096


@given(
    body=st.text(max_size=3_000),
    ext=st.text(max_size=600),
    platform=st.sampled_from(["android", "ios"]),
    url=st.sampled_from(["", "chat://push/open", "chat://push/open?from=push"]),
    remedy=st.sampled_from(["", "shrink"]),
)
@settings(deadline=None, max_examples=100)
def test_no_payload_is_above_the_limit_on_either_platform(
    body: str, ext: str, platform: Any, url: str, remedy: str
) -> None:
    account = TpnsAccount(app="demo", access_id="1", platform=platform, click_url=url)
    request = a_request(account, a_push(title=body[:400], body=body, ext=ext), remedy=remedy)
    assert len(request.body) - len(f'"{token(0)}"') <= 4_096
    assert json.loads(request.body)["message"]["content"]


@pytest.mark.parametrize(
    ("kind", "left_s", "kept_s"),
    [
        ("chat", -5, 800),
        ("chat", 799, 800),
        ("chat", 801, 801),
        ("chat", 10**7, 259_200),
        ("call", 30, 0),
        ("call", 799, 0),
        ("call", 900, 900),
        ("call_cancel", 30, 800),
    ],
)
def test_a_push_is_kept_as_long_as_tpns_takes_and_a_call_rings_now_or_never(
    account: TpnsAccount, kind: str, left_s: int, kept_s: int
) -> None:
    push = a_push(kind=kind, expires_at_ms=NOW_MS + left_s * 1_000)
    assert content(account, push)["expire_time"] == kept_s


def test_by_default_chats_and_calls_have_the_classes_of_im_and_adverts_have_not(account: TpnsAccount) -> None:
    look = {kind: android(account, a_push(kind=kind)) for kind in KINDS}
    classes = {kind: (one.get("hw_category"), one["hw_importance"], one["vivo_ch_id"]) for kind, one in look.items()}
    chat, advert = ("IM", 2, "1"), ("MARKETING", 1, "0")
    assert classes == {
        "chat": chat,
        "mention": chat,
        "missed_call": chat,
        "summary": chat,
        "call": chat,
        "call_cancel": chat,
        "system": (None, 2, "1"),
        "official": advert,
        "marketing": advert,
    }


def test_every_maker_gets_its_channel(keys: Path) -> None:
    told = {
        "channel_id": "im",
        "huawei_channel_id": "hw-im",
        "huawei_category": "WORK",
        "huawei_importance": 1,
        "xiaomi_channel_id": "104086",
        "oppo_channel_id": "im_private",
        "vivo_classification": 0,
        "fcm_channel_id": "fcm-im",
    }
    found = android(an_app(keys, kinds={"chat": told}))
    names = ("n_ch_id", "hw_ch_id", "hw_category", "hw_importance", "xm_ch_id", "oppo_ch_id", "vivo_ch_id", "fcm_ch_id")
    assert [found[name] for name in names] == ["im", "hw-im", "WORK", 1, "104086", "im_private", "0", "fcm-im"]
    assert "hw_category" not in android(an_app(keys, kinds={"chat": {"huawei_category": ""}}))


def test_what_a_message_asks_of_a_maker_wins(account: TpnsAccount) -> None:
    push = a_push(
        options=OfflinePush(
            android=AndroidOptions(sound="ding"),
            huawei=HuaweiOptions(channel_id="calls", category="WORK", importance="LOW"),
            xiaomi=XiaomiOptions(channel_id="x"),
            oppo=OppoOptions(channel_id="o"),
            vivo=VivoOptions(classification=0),
            fcm=FcmOptions(channel_id="f"),
        )
    )
    found = android(account, push)
    names = (
        "ring_raw",
        "hw_ch_id",
        "hw_category",
        "hw_importance",
        "xm_ch_id",
        "oppo_ch_id",
        "vivo_ch_id",
        "fcm_ch_id",
    )
    assert [found[name] for name in names] == ["ding", "calls", "WORK", 1, "x", "o", "0", "f"]


@pytest.mark.parametrize("url", ["chat://push/open", "chat://push/open?from=push"])
def test_a_tap_tells_the_app_everything_through_its_url(keys: Path, url: str) -> None:
    push = a_push(ext='{"a":"b&c=d #?%","字":1}')
    action = android(an_app(keys, click_url=url), push)["action"]
    assert action["action_type"] == 3
    assert action["intent"].startswith(url)
    query = parse_qs(urlsplit(action["intent"]).query, strict_parsing=True)
    query.pop("from", None)
    assert query == {"mid": ["m-9f3c1d"], "cid": ["c-1001"], "ext": [push.ext]}


def test_without_a_url_the_app_is_opened_with_custom_content(keys: Path) -> None:
    found = android(an_app(keys, click_url=""))
    assert found["action"] == {"action_type": 1}
    assert json.loads(found["custom_content"]) == {"mid": "m-9f3c1d", "cid": "c-1001", "ext": a_push().ext}


def test_a_push_that_counts_adds_one_to_the_badge(account: TpnsAccount, keys: Path) -> None:
    assert android(account)["badge_type"] == -2
    assert "badge_type" not in android(account, badge=-1)
    assert "badge_type" not in android(account, a_push(revision=1))
    ios = an_app(keys, platform="ios")
    assert aps(ios)["badge_type"] == -2
    assert "badge_type" not in aps(ios, badge=-1)


def test_a_missing_text_is_stood_in_for(account: TpnsAccount) -> None:
    message = content(account, a_push(title="", body=""))["message"]
    assert (message["title"], message["content"]) == ("New message", "New message")
    assert content(account, a_push(title="", sender_name="Li Lei"))["message"]["title"] == "Li Lei"


@pytest.mark.parametrize(("environment", "sent"), [("production", "product"), ("development", "dev")])
def test_an_ios_app_says_which_environment(keys: Path, environment: str, sent: str) -> None:
    found = content(an_app(keys, platform="ios", environment=environment))
    assert found["environment"] == sent
    message = found["message"]
    assert "android" not in message
    assert message["thread_id"] == "c-1001"
    assert json.loads(message["ios"]["custom_content"]) == {"mid": "m-9f3c1d", "cid": "c-1001", "ext": a_push().ext}
    assert message["ios"]["aps"] == {"alert": {"subtitle": ""}, "sound": "default", "badge_type": -2}


def test_an_ios_push_has_what_its_kind_and_its_message_ask_for(keys: Path) -> None:
    account = an_app(keys, platform="ios", kinds={"chat": {"sound": "a.caf", "category": "MESSAGE"}})
    kept = aps(account)
    assert (kept["sound"], kept["category"]) == ("a.caf", "MESSAGE")
    own = ApnsOptions(
        title="On iOS",
        subtitle="Family",
        sound="b.caf",
        category="GIFT",
        interruption_level="active",
        image="https://example.com/a.jpg",
    )
    message = content(account, a_push(options=OfflinePush(apns=own)))["message"]
    assert (message["title"], message["xg_media_resources"]) == ("On iOS", "https://example.com/a.jpg")
    assert message["ios"]["aps"] == {
        "alert": {"subtitle": "Family"},
        "sound": "b.caf",
        "badge_type": -2,
        "category": "GIFT",
        "interruption-level": "active",
        "mutable-content": 1,
    }


@pytest.mark.parametrize("changes", [{"kind": "call_cancel"}, {"kind": "marketing"}, {"recall": True, "revision": 1}])
def test_ends_adverts_and_recalls_are_quiet_on_ios(keys: Path, changes: dict[str, Any]) -> None:
    found = aps(an_app(keys, platform="ios"), a_push(**changes))
    assert (found["sound"], found["interruption-level"]) == ("", "passive")


def test_nothing_is_replaced_or_taken_back(account: TpnsAccount) -> None:
    assert not tpns.replaces
    assert tpns.withdraw(account, a_push(recall=True), [a_delivery()], SECRET, NOW_MS) is None
    assert "collapse_id" not in content(account)


def test_the_secret_is_the_authorization_and_stays_in_the_process(account: TpnsAccount) -> None:
    answer = tpns.mint(account, 0)
    assert (answer.value, answer.shared) == (SECRET, False)
    assert answer.life_s <= 60
    assert SECRET not in repr(account) + repr(answer)


def test_the_secret_may_lie_in_a_file(keys: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("from-file\n")
    account = an_app(keys, secret_key=None, secret_key_file=str(tmp_path / "secret"))
    assert tpns.check(account, 0) == []
    assert tpns.mint(account, 0).value == "from-file"


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"secret_key": None}, "are both missing: give one"),
        ({"secret_key_file": "/nowhere/secret"}, "are both set: give one"),
        ({"secret_key": ""}, "secret_key is empty: copy the secret"),
        ({"secret_key": None, "secret_key_file": "/nowhere/secret"}, "does not exist: "),
        ({"click_url": ""}, "click_url is empty, and through Huawei's channel"),
    ],
)
def test_a_wrong_setting_is_found_with_its_mend(keys: Path, changes: dict[str, Any], problem: str) -> None:
    (found,) = tpns.check(an_app(keys, **changes), 0)
    assert problem in found
    assert SECRET not in found


def test_an_ios_app_needs_no_url(keys: Path) -> None:
    assert tpns.check(an_app(keys, platform="ios", click_url=""), 0) == []


def test_without_a_secret_there_is_no_authorization(keys: Path) -> None:
    with pytest.raises(CredentialError, match="both missing"):
        tpns.mint(an_app(keys, secret_key=None), 0)
