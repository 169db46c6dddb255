from __future__ import annotations

import json
import shutil
import uuid
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.workers.vendors.conftest import pem
from tests.workers.vendors.samples import AUTH, KINDS, NOW_MS, a_delivery, a_push, an_account, token

from pushfleet.message import ApnsOptions, OfflinePush
from pushfleet_workers.errors import CredentialError
from pushfleet_workers.outcome import Outcome, Remedy, Scope, Verdict
from pushfleet_workers.push import Push
from pushfleet_workers.vendor import Request, Response
from pushfleet_workers.vendors.apns import CODES, Apns, ApnsAccount

apns = Apns()

# Apple's list, written down a second time: reason -> (status, verdict).
REASONS = {
    "BadCollapseId": (400, Verdict.BAD_PAYLOAD),
    "BadDeviceToken": (400, Verdict.DROP_TOKEN),
    "BadExpirationDate": (400, Verdict.BAD_PAYLOAD),
    "BadMessageId": (400, Verdict.BAD_PAYLOAD),
    "BadPriority": (400, Verdict.BAD_PAYLOAD),
    "BadTopic": (400, Verdict.MISCONFIGURED),
    "DeviceTokenNotForTopic": (400, Verdict.DROP_TOKEN),
    "DuplicateHeaders": (400, Verdict.BAD_PAYLOAD),
    "IdleTimeout": (400, Verdict.RETRY),
    "InvalidPushType": (400, Verdict.BAD_PAYLOAD),
    "MissingDeviceToken": (400, Verdict.BAD_PAYLOAD),
    "MissingTopic": (400, Verdict.MISCONFIGURED),
    "PayloadEmpty": (400, Verdict.BAD_PAYLOAD),
    "TopicDisallowed": (400, Verdict.MISCONFIGURED),
    "BadCertificate": (403, Verdict.MISCONFIGURED),
    "BadCertificateEnvironment": (403, Verdict.MISCONFIGURED),
    "BadEnvironmentKeyIdInToken": (403, Verdict.MISCONFIGURED),
    "BadEnvironmentKeyInToken": (403, Verdict.MISCONFIGURED),
    "ExpiredProviderToken": (403, Verdict.REFRESH_AUTH),
    "Forbidden": (403, Verdict.MISCONFIGURED),
    "InvalidProviderToken": (403, Verdict.MISCONFIGURED),
    "MissingProviderToken": (403, Verdict.MISCONFIGURED),
    "UnrelatedKeyIdInToken": (403, Verdict.RETRY),
    "BadPath": (404, Verdict.MISCONFIGURED),
    "MethodNotAllowed": (405, Verdict.MISCONFIGURED),
    "ExpiredToken": (410, Verdict.DROP_TOKEN),
    "Unregistered": (410, Verdict.DROP_TOKEN),
    "PayloadTooLarge": (413, Verdict.BAD_PAYLOAD),
    "TooManyProviderTokenUpdates": (429, Verdict.RATE_LIMITED),
    "TooManyRequests": (429, Verdict.RATE_LIMITED),
    "InternalServerError": (500, Verdict.RETRY),
    "ServiceUnavailable": (503, Verdict.RETRY),
    "Shutdown": (503, Verdict.RETRY),
    "BadChannelId": (400, Verdict.BAD_PAYLOAD),
    "BadRequestParams": (400, Verdict.BAD_PAYLOAD),
    "BadRequestPayload": (400, Verdict.BAD_PAYLOAD),
    "CannotCreateChannelConfig": (400, Verdict.BAD_PAYLOAD),
    "ChannelNotRegistered": (400, Verdict.BAD_PAYLOAD),
    "FeatureNotEnabled": (400, Verdict.BAD_PAYLOAD),
    "MissingChannelId": (400, Verdict.BAD_PAYLOAD),
    "MissingPushType": (400, Verdict.BAD_PAYLOAD),
    "TopicMismatch": (403, Verdict.MISCONFIGURED),
}
ONE_DEVICE = {"IdleTimeout", "Shutdown", "TooManyRequests"}


@pytest.fixture
def account(keys: Path) -> ApnsAccount:
    account = an_account("apns", keys)
    assert isinstance(account, ApnsAccount)
    return account


def read(status: int, content: object, **delivery: Any) -> Outcome:
    (outcome,) = apns.read([a_delivery(**delivery)], Response(status, {}, json.dumps(content).encode()))
    return outcome


def options(**changes: Any) -> OfflinePush:
    return OfflinePush(apns=ApnsOptions(**changes))


def payload(request: Request) -> dict[str, Any]:
    content = json.loads(request.body)
    assert isinstance(content, dict)
    return content


def test_the_table_has_apples_reasons_and_no_others() -> None:
    assert {code for code in CODES if not code.startswith("HTTP ")} == REASONS.keys()


@pytest.mark.parametrize("reason", REASONS)
def test_a_reason_becomes_its_verdict(reason: str) -> None:
    status, verdict = REASONS[reason]
    outcome = read(status, {"reason": reason})
    at_large = verdict in {Verdict.MISCONFIGURED, Verdict.REFRESH_AUTH, Verdict.RATE_LIMITED, Verdict.RETRY}
    assert outcome.verdict is verdict
    assert outcome.scope is (Scope.ACCOUNT if at_large and reason not in ONE_DEVICE else Scope.DEVICE)
    assert (outcome.code, CODES[reason].status) == (reason, str(status))
    fresh = {"ExpiredProviderToken", "IdleTimeout", "Shutdown", "UnrelatedKeyIdInToken"}
    assert outcome.reconnect == (reason in fresh)
    assert outcome.remedy is (Remedy.SHRINK if reason == "PayloadTooLarge" else None)
    assert outcome.wait_s == (60.0 if reason == "TooManyProviderTokenUpdates" else None)


def test_a_dead_token_died_when_apple_says() -> None:
    assert read(410, {"reason": "Unregistered", "timestamp": 1_766_001_234_567}).since_ms == 1_766_001_234_567


@pytest.mark.parametrize("timestamp", [None, "1766001234567", 1.5, True, -1, 0, []])
def test_a_strange_time_of_death_is_none(timestamp: object) -> None:
    outcome = read(410, {"reason": "Unregistered", "timestamp": timestamp})
    assert (outcome.verdict, outcome.since_ms) == (Verdict.DROP_TOKEN, None)


@pytest.mark.parametrize("reason", ["BadTopic", "BadDeviceToken", "DeviceTokenNotForTopic"])
def test_only_a_410_dates_a_death(reason: str) -> None:
    assert read(400, {"reason": reason, "timestamp": 1_766_001_234_567}).since_ms is None


@pytest.mark.parametrize(
    ("status", "verdict"), [(400, Verdict.BAD_PAYLOAD), (410, Verdict.BAD_PAYLOAD), (503, Verdict.RETRY)]
)
def test_a_new_reason_goes_by_its_status(status: int, verdict: Verdict) -> None:
    outcome = read(status, {"reason": "SomethingNew"})
    assert (outcome.verdict, outcome.code) == (verdict, "SomethingNew")


@pytest.mark.parametrize("reason", ["BadTopic", "MissingTopic", "TopicDisallowed"])
def test_a_key_without_the_voip_topic_still_serves_alerts(reason: str) -> None:
    assert read(400, {"reason": reason}, token_kind="voip").scope is Scope.CLASS


def test_an_alert_says_who_what_and_for_how_long(account: ApnsAccount) -> None:
    request = apns.build(account, a_push(), [a_delivery()], AUTH, NOW_MS)
    assert request.url == f"https://api.push.apple.com/3/device/{token(0)}"
    assert request.headers == {
        "authorization": f"bearer {AUTH}",
        "apns-topic": "com.example.im",
        "apns-push-type": "alert",
        "apns-priority": "10",
        "apns-expiration": str((NOW_MS + 86_400_000) // 1_000),
        "apns-id": str(uuid.UUID(bytes=a_delivery().id)),
        "apns-collapse-id": "c-1001",
    }


def test_development_tokens_go_to_the_sandbox(keys: Path) -> None:
    account = an_account("apns", keys, environment="development")
    assert apns.build(account, a_push(), [a_delivery()], AUTH, NOW_MS).url.startswith(
        "https://api.sandbox.push.apple.com/3/"
    )


def test_only_a_ringing_call_is_now_or_never(account: ApnsAccount) -> None:
    for kind, expiration in (("call", "0"), ("call_cancel", "1767300030"), ("missed_call", "1767300030")):
        push = a_push(kind=kind, expires_at_ms=NOW_MS + 30_000)
        assert apns.build(account, push, [a_delivery()], AUTH, NOW_MS).headers["apns-expiration"] == expiration


def test_the_kind_of_the_token_decides_about_voip(account: ApnsAccount) -> None:
    voip = apns.build(account, a_push(kind="call"), [a_delivery(token_kind="voip")], AUTH, NOW_MS)
    assert (voip.headers["apns-topic"], voip.headers["apns-push-type"]) == ("com.example.im.voip", "voip")
    assert voip.headers["apns-priority"] == "10"
    alert = apns.build(account, a_push(options=options(push_type="voip")), [a_delivery()], AUTH, NOW_MS)
    assert (alert.headers["apns-topic"], alert.headers["apns-push-type"]) == ("com.example.im", "alert")


def test_a_voip_payload_may_be_larger(account: ApnsAccount) -> None:
    push = a_push(kind="call", body="今" * 4_000)
    size = len(apns.build(account, push, [a_delivery(token_kind="voip")], AUTH, NOW_MS).body)
    assert 5_110 < size <= 5_120


def test_a_background_push_shows_nothing_and_saves_power(account: ApnsAccount) -> None:
    push = a_push(options=options(push_type="background", sound="ding.caf", subtitle="x"))
    request = apns.build(account, push, [a_delivery()], AUTH, NOW_MS)
    assert (request.headers["apns-push-type"], request.headers["apns-priority"]) == ("background", "5")
    assert payload(request) == {
        "aps": {"content-available": 1},
        "mid": "m-9f3c1d",
        "cid": "c-1001",
        "ext": a_push().ext,
    }


def test_a_background_push_with_an_ext_too_large_goes_without_it(account: ApnsAccount) -> None:
    push = a_push(ext="\x01" * 2_048, options=options(push_type="background"))
    request = apns.build(account, push, [a_delivery()], AUTH, NOW_MS)
    assert payload(request) == {"aps": {"content-available": 1}, "mid": "m-9f3c1d", "cid": "c-1001"}


@pytest.mark.parametrize(("given", "sound"), [(None, "default"), ("ding.caf", "ding.caf"), ("", None)])
def test_sound_is_default_named_or_none(account: ApnsAccount, given: str | None, sound: str | None) -> None:
    request = apns.build(account, a_push(options=options(sound=given)), [a_delivery()], AUTH, NOW_MS)
    assert payload(request)["aps"].get("sound") == sound


def test_a_silent_critical_alert_stays_silent(account: ApnsAccount) -> None:
    push = a_push(options=options(sound="", interruption_level="critical"))
    assert "sound" not in payload(apns.build(account, push, [a_delivery()], AUTH, NOW_MS))["aps"]


@pytest.mark.parametrize(
    ("volume", "sound"),
    [
        (None, {"critical": 1, "name": "siren.caf", "volume": 1.0}),
        (0.0, {"critical": 1, "name": "siren.caf", "volume": 0.0}),
        (0.25, {"critical": 1, "name": "siren.caf", "volume": 0.25}),
    ],
)
def test_a_critical_alert_sounds_through_the_mute_switch(
    account: ApnsAccount, volume: float | None, sound: dict[str, Any]
) -> None:
    push = a_push(options=options(sound="siren.caf", interruption_level="critical", critical_volume=volume))
    aps = payload(apns.build(account, push, [a_delivery()], AUTH, NOW_MS))["aps"]
    assert (aps["sound"], aps["interruption-level"]) == (sound, "critical")


def an_aps(account: ApnsAccount, push: Push) -> dict[str, Any]:
    aps = payload(apns.build(account, push, [a_delivery()], AUTH, NOW_MS))["aps"]
    assert isinstance(aps, dict)
    return aps


def test_kinds_have_sound_category_and_level(keys: Path) -> None:
    account = an_account(
        "apns",
        keys,
        kinds={
            "chat": {"category": "MESSAGE", "sound": "ding.caf"},
            "call": {"sound": "ring.caf", "interruption_level": "time-sensitive"},
            "marketing": {"sound": "soft.caf", "interruption_level": "active"},
        },
    )
    assert isinstance(account, ApnsAccount)
    look = {kind: an_aps(account, a_push(kind=kind)) for kind in KINDS}
    shown = {
        kind: [aps.get(name) for name in ("sound", "category", "interruption-level")] for kind, aps in look.items()
    }
    assert shown == {
        "chat": ["ding.caf", "MESSAGE", None],
        "mention": ["ding.caf", "MESSAGE", None],
        "call": ["ring.caf", "MESSAGE", "time-sensitive"],
        "call_cancel": [None, "MESSAGE", "passive"],
        "missed_call": ["ding.caf", "MESSAGE", None],
        "summary": ["ding.caf", "MESSAGE", None],
        "system": ["default", None, None],
        "official": ["default", None, None],
        "marketing": ["soft.caf", None, "active"],
    }


def test_the_end_of_a_call_and_marketing_are_quiet_by_default(account: ApnsAccount) -> None:
    for kind in KINDS:
        quiet = kind in ("call_cancel", "marketing")
        aps = an_aps(account, a_push(kind=kind))
        assert ("sound" not in aps, aps.get("interruption-level") == "passive") == (quiet, quiet)


def test_a_message_wins_over_its_kind(keys: Path) -> None:
    account = an_account("apns", keys, kinds={"chat": {"category": "MESSAGE", "interruption_level": "passive"}})
    assert isinstance(account, ApnsAccount)
    aps = an_aps(account, a_push(options=options(sound="a.caf", category="GIFT", interruption_level="active")))
    assert (aps["sound"], aps["category"], aps["interruption-level"]) == ("a.caf", "GIFT", "active")
    assert "category" not in an_aps(account, a_push(options=options(category="")))


def test_taking_back_makes_no_sound(account: ApnsAccount) -> None:
    push = a_push(recall=True, revision=1, options=options(sound="a.caf", interruption_level="critical"))
    aps = an_aps(account, push)
    assert ("sound" in aps, aps["interruption-level"]) == (False, "passive")
    assert apns.build(account, push, [a_delivery()], AUTH, NOW_MS).headers["apns-collapse-id"] == "c-1001"


def test_texts_of_the_app_stand_in_for_ours(account: ApnsAccount) -> None:
    push = a_push(
        options=options(
            title_loc_key="GIFT_TITLE",
            title_loc_args=("Alice",),
            subtitle="not shown",
            subtitle_loc_key="GIFT_SUBTITLE",
            loc_key="GIFT_BODY",
            loc_args=("Alice", "a rose"),
        )
    )
    assert an_aps(account, push)["alert"] == {
        "title-loc-key": "GIFT_TITLE",
        "title-loc-args": ["Alice"],
        "subtitle-loc-key": "GIFT_SUBTITLE",
        "loc-key": "GIFT_BODY",
        "loc-args": ["Alice", "a rose"],
    }


def test_a_text_without_a_key_of_its_own_stays(account: ApnsAccount) -> None:
    push = a_push(options=options(loc_key="GIFT_BODY", title_loc_args=("nothing to fill",)))
    assert an_aps(account, push)["alert"] == {"title": "Li Lei", "loc-key": "GIFT_BODY"}


def test_what_fills_a_text_is_left_out_where_it_is_too_large(account: ApnsAccount) -> None:
    push = a_push(options=options(loc_key="GIFT_BODY", loc_args=("字" * 2_000,)))
    assert an_aps(account, push)["alert"] == {"title": "Li Lei", "body": a_push().body}


@given(
    args=st.lists(st.text(max_size=700), max_size=4),
    body=st.text(max_size=3_000),
    keyed=st.sets(st.sampled_from(["title_loc_", "subtitle_loc_", "loc_"])),
    token_kind=st.sampled_from(["alert", "voip"]),
    remedy=st.sampled_from(["", "shrink"]),
)
@settings(deadline=None, max_examples=150)
def test_no_payload_with_texts_of_the_app_is_above_the_limit(
    args: list[str], body: str, keyed: set[str], token_kind: str, remedy: str
) -> None:
    account = ApnsAccount(app="demo", topic="com.example.im", key_file=Path("k.p8"))
    wishes = {f"{part}key": "KEY" for part in keyed} | {f"{part}args": tuple(args) for part in keyed}
    push = a_push(title=body[:300], body=body, options=options(subtitle=body, thread_id=body[:50], **wishes))
    delivery = a_delivery(token_kind=token_kind, remedy=remedy)
    assert len(apns.build(account, push, [delivery], AUTH, NOW_MS).body) <= (5_120 if token_kind == "voip" else 4_096)


def test_a_message_may_stack_and_rank_its_push(account: ApnsAccount) -> None:
    aps = an_aps(account, a_push(options=options(thread_id="gifts", relevance_score=0.0)))
    assert (aps["thread-id"], aps["relevance-score"]) == ("gifts", 0.0)


@pytest.mark.parametrize(("badge", "shown"), [(-1, None), (0, 0), (120, 120)])
def test_the_badge_is_absolute_or_left_alone(account: ApnsAccount, badge: int, shown: int | None) -> None:
    request = apns.build(account, a_push(), [a_delivery(badge=badge)], AUTH, NOW_MS)
    assert payload(request)["aps"].get("badge") == shown


def test_settings_of_the_account_shape_every_alert(keys: Path) -> None:
    account = an_account("apns", keys, thread="app", mutable_content=True)
    aps = payload(apns.build(account, a_push(), [a_delivery()], AUTH, NOW_MS))["aps"]
    assert aps["mutable-content"] == 1
    assert "thread-id" not in aps


@pytest.mark.parametrize("key", ["k" * 65, "会话", "a\nb", " c-1", "c-1 "])
def test_a_replace_key_that_is_no_header_is_hashed(account: ApnsAccount, key: str) -> None:
    first = apns.build(account, a_push(replace_key=key), [a_delivery()], AUTH, NOW_MS).headers["apns-collapse-id"]
    again = apns.build(account, a_push(replace_key=key), [a_delivery(1)], AUTH, NOW_MS).headers["apns-collapse-id"]
    assert first == again != key
    assert len(first) <= 64
    assert first.isalnum()


def test_without_a_replace_key_a_push_replaces_itself(account: ApnsAccount) -> None:
    request = apns.build(account, a_push(replace_key=""), [a_delivery()], AUTH, NOW_MS)
    assert request.headers["apns-collapse-id"] == "m-9f3c1d"


def test_a_replace_key_of_64_bytes_goes_as_it_is(account: ApnsAccount) -> None:
    request = apns.build(account, a_push(replace_key="k" * 64), [a_delivery()], AUTH, NOW_MS)
    assert request.headers["apns-collapse-id"] == "k" * 64


@pytest.mark.parametrize("strange", ["../4/x", "..", ".", "a/b", "a?b#c", "a%2e", "令牌", "a b"])
def test_a_strange_token_cannot_change_the_path(account: ApnsAccount, strange: str) -> None:
    url = apns.build(account, a_push(), [a_delivery(token=strange)], AUTH, NOW_MS).url
    last = url.removeprefix("https://api.push.apple.com/3/device/")
    assert last.isascii()
    assert not set("/?#. ") & set(last)
    assert "%2e" not in last.lower().replace("%252e", "")


def test_a_long_subtitle_is_cut(account: ApnsAccount) -> None:
    push = a_push(options=options(subtitle="字" * 400))
    alert = payload(apns.build(account, push, [a_delivery()], AUTH, NOW_MS))["aps"]["alert"]
    assert alert["subtitle"] == "字" * 84 + "…"
    assert alert["body"] == a_push().body


def test_the_jwt_is_es256_with_a_whole_iat(account: ApnsAccount) -> None:
    answer = apns.mint(account, 1_767_300_000.9)
    assert account.key_file is not None
    public = load_pem_private_key(account.key_file.read_bytes(), None).public_key()
    assert isinstance(public, ec.EllipticCurvePublicKey)
    claims = jwt.decode(answer.value, public, algorithms=["ES256"], options={"verify_iat": False})
    assert claims == {"iss": "TEAM000001", "iat": 1_767_300_000}
    assert type(claims["iat"]) is int
    assert jwt.get_unverified_header(answer.value) == {"alg": "ES256", "kid": "KEY0000001"}
    assert answer.life_s == 3_000


def test_without_a_key_there_is_a_failure_instead_of_a_jwt(keys: Path) -> None:
    answer = apns.mint(an_account("apns", keys, key_file=str(keys / "absent.p8")), 0)
    assert answer.value == ""
    assert answer.failure is not None
    assert (answer.failure.verdict, answer.failure.scope) == (Verdict.MISCONFIGURED, Scope.ACCOUNT)


def test_there_is_no_token_endpoint(account: ApnsAccount) -> None:
    with pytest.raises(CredentialError, match="hands out no access tokens"):
        apns.auth_request(account, 0)


def encrypted(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x"))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no key",
        pem(ec.generate_private_key(ec.SECP384R1())),
        encrypted(ec.generate_private_key(ec.SECP256R1())),
    ],
)
def test_a_file_without_a_p256_key_is_found(keys: Path, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "key.p8").write_bytes(content)
    problems = apns.check(an_account("apns", keys, key_file=str(tmp_path / "key.p8")), 0)
    assert len(problems) == 1
    assert "holds no P-256 private key" in problems[0]


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"key_id": "SHORT"}, "key_id must be ten capital letters and digits and has 5 characters"),
        ({"team_id": "team000001"}, "team_id must be ten capital letters"),
        ({"topic": "com.example.im.voip"}, "give the bundle id"),
        ({"key_file": "/nowhere/key.p8"}, "does not exist"),
    ],
)
def test_a_wrong_setting_is_found_with_its_mend(
    keys: Path, tmp_path: Path, changes: dict[str, str], problem: str
) -> None:
    shutil.copy(keys / "AuthKey_KEY0000001.p8", tmp_path / "key.p8")
    problems = apns.check(an_account("apns", keys, **{"key_file": str(tmp_path / "key.p8")} | changes), 0)
    assert len(problems) == 1
    assert problem in problems[0]
    assert ": " in problems[0]


def test_a_key_file_named_after_another_key_is_found(keys: Path, tmp_path: Path) -> None:
    shutil.copy(keys / "AuthKey_KEY0000001.p8", tmp_path / "AuthKey_KEY0000002.p8")
    problems = apns.check(an_account("apns", keys, key_file=str(tmp_path / "AuthKey_KEY0000002.p8")), 0)
    assert len(problems) == 1
    assert "named after key KEY0000002, but key_id is KEY0000001" in problems[0]
