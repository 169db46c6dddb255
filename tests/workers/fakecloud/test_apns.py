from __future__ import annotations

import json
from hashlib import sha256
from typing import Any

import jwt
import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.hazmat.primitives.serialization.pkcs12 import load_pkcs12

from pushfleet_workers.fakecloud.apns import REASONS, Apns
from pushfleet_workers.fakecloud.vendor import Death, Issued
from pushfleet_workers.fakecloud.wire import Call, Request, Response

NOW_S = 1_800_000_000.0
TOKEN = "0a1b2c3d" * 8
ID = "5e0c7c2e-1f44-4c2c-9f0e-2b8a35d0a111"
ISSUED = Apns.issue("", {"team_id": "TEAM000001", "key_id": "KEY0000001", "topics": ["com.example.im"]})
STRANGER = Apns.issue("", {"team_id": "TEAM000002", "key_id": "KEY0000002", "topics": ["com.example.other"]})
CERTIFICATE = Apns.issue("", {"certificate": True, "topics": ["com.example.im", "com.example.lite"]})
SANDBOX = Apns.issue("", {"certificate": True, "environments": ["development"]})
UNKNOWN = Apns.issue("", {"certificate": True})
VOIP = {"apns_push_type": "voip", "apns_topic": "com.example.im.voip"}
PAYLOAD = {"aps": {"alert": {"title": "Li Lei", "body": "See you at 8?"}}, "mid": "m-1", "cid": "c-1"}


def provider_token(issued: Any = ISSUED, **changes: Any) -> str:
    claims = {"iss": issued.settings["team_id"], "iat": int(NOW_S), **changes}
    claims = {name: value for name, value in claims.items() if value is not None}
    (key,) = issued.files.values()
    return jwt.encode(claims, key, "ES256", headers={"kid": issued.id})


FRESH = provider_token()


def a_request(
    path: str = f"/3/device/{TOKEN}",
    method: str = "POST",
    payload: object = PAYLOAD,
    session: dict[str, str] | None = None,
    doubled: bool = False,
    **headers: str | None,
) -> Request:
    defaults: dict[str, str | None] = {
        "authorization": f"bearer {FRESH}",
        "apns-id": ID,
        "apns-topic": "com.example.im",
        "apns-push-type": "alert",
        "apns-priority": "10",
        "apns-expiration": "1800003600",
        "apns-collapse-id": "c-1",
    }
    merged = {**defaults, **{name.replace("_", "-"): value for name, value in headers.items()}}
    body = payload if isinstance(payload, bytes) else json.dumps(payload, ensure_ascii=False).encode()
    present = {name: value for name, value in merged.items() if value is not None}
    return Request(method, path, present, body, doubled=doubled, session={} if session is None else session)


@pytest.fixture
def apns() -> Apns:
    vendor = Apns()
    vendor.register(ISSUED.public)
    vendor.register(STRANGER.public)
    vendor.register(CERTIFICATE.public)
    vendor.register(SANDBOX.public)
    return vendor


def read(vendor: Apns, request: Request) -> str:
    """The reason of the refusal, or nothing."""
    outcome = vendor.read(request, NOW_S)
    if isinstance(outcome, Call):
        return ""
    reason = msgspec.json.decode(outcome.body)["reason"]
    assert outcome.status == REASONS[reason]
    assert outcome.result == reason
    return str(reason)


def payload_of(size: int) -> dict[str, Any]:
    frame = len(json.dumps({"aps": {"alert": ""}}).encode())
    return {"aps": {"alert": "x" * (size - frame)}}


@pytest.mark.parametrize(
    ("reason", "changes"),
    [
        ("BadPath", {"path": "/4/device/00ff"}),
        ("BadPath", {"path": "/"}),
        ("MethodNotAllowed", {"method": "GET"}),
        ("MissingDeviceToken", {"path": "/3/device/"}),
        ("DuplicateHeaders", {"doubled": True}),
        ("BadDeviceToken", {"path": "/3/device/not-hex"}),
        ("BadDeviceToken", {"path": "/3/device/abc"}),
        ("MissingProviderToken", {"authorization": None}),
        ("MissingProviderToken", {"authorization": "Basic eDp5"}),
        ("InvalidProviderToken", {"authorization": "bearer nonsense"}),
        ("InvalidProviderToken", {"authorization": f"bearer {provider_token(iss='TEAM000009')}"}),
        ("InvalidProviderToken", {"authorization": f"bearer {provider_token(iat=None)}"}),
        ("InvalidProviderToken", {"authorization": f"bearer {FRESH[:-6]}AAAAAA"}),
        ("ExpiredProviderToken", {"authorization": f"bearer {provider_token(iat=int(NOW_S) - 3_601)}"}),
        ("ExpiredProviderToken", {"authorization": f"bearer {provider_token(iat=int(NOW_S) + 3_601)}"}),
        ("MissingTopic", {"apns_topic": None}),
        ("TopicDisallowed", {"apns_topic": "com.example.other"}),
        ("BadTopic", {"apns_topic": "com.example.im.voip"}),
        ("BadTopic", {"apns_push_type": "voip"}),
        ("InvalidPushType", {"apns_push_type": None}),
        ("InvalidPushType", {"apns_push_type": "shout"}),
        ("BadPriority", {"apns_priority": "7"}),
        ("BadPriority", {"apns_push_type": "background", "apns_priority": "10"}),
        ("BadPriority", {"apns_push_type": "background", "apns_priority": None}),
        ("BadExpirationDate", {"apns_expiration": "tomorrow"}),
        ("BadExpirationDate", {"apns_expiration": "-1"}),
        ("BadMessageId", {"apns_id": "42"}),
        ("BadCollapseId", {"apns_collapse_id": "x" * 65}),
        ("PayloadEmpty", {"payload": b""}),
        ("PayloadEmpty", {"payload": b"{}"}),
        ("PayloadEmpty", {"payload": b'{"aps":'}),
        ("PayloadEmpty", {"payload": b"[" * 4_000}),
        ("PayloadEmpty", {"payload": {"mid": "m-1"}}),
        ("PayloadTooLarge", {"payload": payload_of(4_097)}),
        ("PayloadTooLarge", {"payload": payload_of(5_121), **VOIP}),
    ],
)
def test_a_request_that_is_not_in_order_is_refused(apns: Apns, reason: str, changes: dict[str, Any]) -> None:
    assert read(apns, a_request(**changes)) == reason


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"apns_id": None, "apns_priority": None, "apns_expiration": None, "apns_collapse_id": None},
        {"apns_priority": "1", "apns_expiration": "0"},
        {"apns_collapse_id": "x" * 64},
        {"apns_push_type": "background", "apns_priority": "5"},
        {"payload": payload_of(5_120), **VOIP},
        {"payload": payload_of(4_096)},
        {"authorization": f"bearer {provider_token(iat=int(NOW_S) - 3_599)}"},
        {"path": f"/3/device/{'ab' * 100}"},
    ],
)
def test_a_request_in_order_is_read(apns: Apns, changes: dict[str, Any]) -> None:
    assert read(apns, a_request(**changes)) == ""


def test_what_is_read_is_what_was_sent(apns: Apns) -> None:
    call = apns.read(a_request(path=f"/3/device/{TOKEN.upper()}"), NOW_S)

    assert call == Call(
        account="KEY0000001",
        tokens=(TOKEN,),
        title="Li Lei",
        body="See you at 8?",
        sent_id=ID,
        replace_key="c-1",
        data={"mid": "m-1", "cid": "c-1"},
        echo=(("apns-id", ID),),
    )


def test_a_plain_text_alert_is_read_as_body(apns: Apns) -> None:
    call = apns.read(a_request(payload={"aps": {"alert": "See you"}}), NOW_S)

    assert isinstance(call, Call)
    assert (call.title, call.body) == ("", "See you")


def test_every_answer_carries_the_id_that_was_sent(apns: Apns) -> None:
    refused = apns.read(a_request(apns_topic=None), NOW_S)
    call = apns.read(a_request(), NOW_S)
    assert isinstance(refused, Response)
    assert isinstance(call, Call)

    assert ("apns-id", ID) in refused.headers
    assert ("apns-id", ID) in apns.answer(call, {}, NOW_S).headers
    assert ("apns-id", ID) in apns.refuse("Shutdown", call, NOW_S).headers


def test_an_id_is_made_where_none_was_sent(apns: Apns) -> None:
    call = apns.read(a_request(apns_id=None), NOW_S)

    assert isinstance(call, Call)
    assert len(call.sent_id) == 36


def test_a_connection_belongs_to_the_key_of_its_first_push(apns: Apns) -> None:
    session: dict[str, str] = {}
    other: dict[str, Any] = {"authorization": f"bearer {provider_token(STRANGER)}", "apns_topic": "com.example.other"}

    assert read(apns, a_request(session=session)) == ""
    assert read(apns, a_request(session=session, **other)) == "UnrelatedKeyIdInToken"
    assert read(apns, a_request(session={}, **other)) == ""


def test_an_accepted_push_has_no_body(apns: Apns) -> None:
    call = apns.read(a_request(), NOW_S)
    assert isinstance(call, Call)

    answer = apns.answer(call, {}, NOW_S)

    assert (answer.status, answer.body, answer.result) == (200, b"", "accepted")


def test_a_dead_token_is_refused_with_the_time_of_its_death(apns: Apns) -> None:
    call = apns.read(a_request(), NOW_S)
    assert isinstance(call, Call)

    answer = apns.answer(call, {TOKEN: Death("", 1_766_001_234_567)}, NOW_S)

    assert answer.status == 410
    assert msgspec.json.decode(answer.body) == {"reason": "Unregistered", "timestamp": 1_766_001_234_567}


@pytest.mark.parametrize("reason", sorted(REASONS))
def test_every_reason_can_be_scripted(apns: Apns, reason: str) -> None:
    call = apns.read(a_request(), NOW_S)
    assert isinstance(call, Call)

    answer = apns.refuse(reason, call, NOW_S)

    assert answer.status == REASONS[reason]
    assert ("timestamp" in msgspec.json.decode(answer.body)) == (answer.status == 410)


def test_the_public_half_holds_no_private_key() -> None:
    assert "PRIVATE" not in json.dumps(ISSUED.public)


# ---- callers with a certificate


def showing(issued: Issued, authorization: str | None = None, **changes: Any) -> Request:
    return a_request(session={"certificate": issued.public["certificate"]}, authorization=authorization, **changes)


@pytest.mark.parametrize("authorization", [None, "bearer nonsense"])
@pytest.mark.parametrize(
    "changes", [{}, VOIP, {"apns_topic": "com.example.lite"}, {"apns_push_type": "background", "apns_priority": "5"}]
)
def test_a_certificate_is_enough_whatever_the_authorization(
    apns: Apns, authorization: str | None, changes: dict[str, Any]
) -> None:
    call = apns.read(showing(CERTIFICATE, authorization, **changes), NOW_S)
    assert isinstance(call, Call)
    assert call.account == CERTIFICATE.id


@pytest.mark.parametrize(
    ("reason", "issued", "changes"),
    [
        ("BadCertificate", UNKNOWN, {}),
        ("BadCertificateEnvironment", SANDBOX, {}),
        ("MissingTopic", CERTIFICATE, {"apns_topic": None}),
        ("TopicDisallowed", CERTIFICATE, {"apns_topic": "com.example.other"}),
        ("BadTopic", CERTIFICATE, {"apns_topic": "com.example.im.voip"}),
    ],
)
def test_a_certificate_that_does_not_count_is_refused(
    apns: Apns, reason: str, issued: Issued, changes: dict[str, Any]
) -> None:
    assert read(apns, showing(issued, f"bearer {FRESH}", **changes)) == reason


def test_a_certificate_is_a_p12_that_says_what_apples_say() -> None:
    ((name, content),) = CERTIFICATE.files.items()
    store = load_pkcs12(content, CERTIFICATE.settings["certificate_password"].encode())
    assert name.endswith(".p12")
    assert store.cert is not None
    leaf = store.cert.certificate
    assert sha256(leaf.public_bytes(Encoding.DER)).hexdigest() == CERTIFICATE.public["certificate"]
    leaf.verify_directly_issued_by(x509.load_pem_x509_certificate(Apns().client_authority()))
    assert "UID=com.example.im" in leaf.subject.rfc4514_string()
    listed = leaf.extensions.get_extension_for_oid(x509.ObjectIdentifier("1.2.840.113635.100.6.3.6"))
    assert isinstance(listed.value, x509.UnrecognizedExtension)
    for topic in (b"com.example.im", b"com.example.im.voip", b"com.example.lite.complication"):
        assert bytes([0x0C, len(topic)]) + topic in listed.value.value


@pytest.mark.parametrize("options", [{"certificate": True, "key_id": "KEY0000001"}, {"environments": ["production"]}])
def test_an_option_of_the_other_kind_of_credential_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(TypeError):
        Apns.issue("", options)
