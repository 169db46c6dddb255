"""APNs: HTTP/2 provider API, for callers with a provider token or a client certificate, one push per request."""

from __future__ import annotations

import re
import secrets
import string
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar
from uuid import uuid4

import jwt
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from msgspec import Struct

from pushfleet_workers.fakecloud.apns_certificates import issue_certificate
from pushfleet_workers.fakecloud.certs import client_authority, pem_pair
from pushfleet_workers.fakecloud.vendor import Death, Issued
from pushfleet_workers.fakecloud.wire import Call, Request, Response, json_response, parse_object, table, text

__all__ = ["REASONS", "Apns"]

REASONS: dict[str, int] = {
    "BadCollapseId": 400,
    "BadDeviceToken": 400,
    "BadExpirationDate": 400,
    "BadMessageId": 400,
    "BadPriority": 400,
    "BadTopic": 400,
    "DeviceTokenNotForTopic": 400,
    "DuplicateHeaders": 400,
    "IdleTimeout": 400,
    "InvalidPushType": 400,
    "MissingDeviceToken": 400,
    "MissingTopic": 400,
    "PayloadEmpty": 400,
    "TopicDisallowed": 400,
    "BadCertificate": 403,
    "BadCertificateEnvironment": 403,
    "BadEnvironmentKeyIdInToken": 403,
    "BadEnvironmentKeyInToken": 403,
    "ExpiredProviderToken": 403,
    "Forbidden": 403,
    "InvalidProviderToken": 403,
    "MissingProviderToken": 403,
    "UnrelatedKeyIdInToken": 403,
    "BadPath": 404,
    "MethodNotAllowed": 405,
    "ExpiredToken": 410,
    "Unregistered": 410,
    "PayloadTooLarge": 413,
    "TooManyProviderTokenUpdates": 429,
    "TooManyRequests": 429,
    "InternalServerError": 500,
    "ServiceUnavailable": 503,
    "Shutdown": 503,
    "BadChannelId": 400,
    "BadRequestParams": 400,
    "BadRequestPayload": 400,
    "CannotCreateChannelConfig": 400,
    "ChannelNotRegistered": 400,
    "FeatureNotEnabled": 400,
    "MissingChannelId": 400,
    "MissingPushType": 400,
    "TopicMismatch": 403,
}
"""
Every reason and its status (Apple: handling notification responses). The last nine belong to the channel API, and
``BadEnvironmentKeyInToken`` stands in a client library only: a script alone brings these about.
"""

TOPIC_SUFFIXES: dict[str, str] = {
    "alert": "",
    "background": "",
    "mdm": "",
    "complication": ".complication",
    "controls": ".push-type.controls",
    "fileprovider": ".pushkit.fileprovider",
    "liveactivity": ".push-type.liveactivity",
    "location": ".location-query",
    "pushtotalk": ".voip-ptt",
    "voip": ".voip",
    "widgets": ".push-type.widgets",
}
"""Every push type and what it adds to the bundle id (Apple: sending notification requests)."""

JWT_LIFE_S = 3_600
"""How far ``iat`` may be from Apple's clock (Apple: establishing a token-based connection)."""

PAYLOAD_BYTES_MAX = 4_096
VOIP_PAYLOAD_BYTES_MAX = 5_120
COLLAPSE_ID_BYTES_MAX = 64

_PROOFS_MAX = 1_024
_APS_REQUIRED = frozenset({"alert", "background", "controls", "liveactivity", "widgets"})
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}").fullmatch
_TOKEN = re.compile(r"(?:[0-9a-fA-F]{2})+").fullmatch
_NUMBER = re.compile(r"[0-9]{1,12}").fullmatch
_PATH = "/3/device/"
_KEY_ID_LETTERS = string.ascii_uppercase + string.digits


class _Caller(Struct, frozen=True):
    """Who is asking, or why that cannot be said."""

    id: str = ""
    topics: frozenset[str] = frozenset()
    fault: str = ""


class _Key(Struct, frozen=True):
    team_id: str
    public: ec.EllipticCurvePublicKey
    caller: _Caller


class _Proof(Struct, frozen=True):
    """A provider token whose signature has been checked."""

    key_id: str
    issued_at_s: float


class Apns:
    """APNs as its pages describe it.

    Two points that Apple leaves open are decided here: a payload that is no JSON object with ``aps`` is
    ``PayloadEmpty``, a topic whose suffix does not fit the push type is ``BadTopic``. A push type is required.

    It stands for both of Apple's services as far as tokens go, but for certificates it is production. Certificates of
    other authorities than its own do not pass the handshake; those of its own that nobody registered are
    ``BadCertificate``.
    """

    name: ClassVar[str] = "apns"
    http1: ClassVar[bool] = False
    max_streams: ClassVar[int] = 1_000
    refusals: ClassVar[frozenset[str]] = frozenset(REASONS)
    deaths: ClassVar[frozenset[str]] = frozenset(
        {"BadDeviceToken", "DeviceTokenNotForTopic", "ExpiredToken", "Unregistered"}
    )
    throttled: ClassVar[str] = "TooManyRequests"
    address_bound: ClassVar[bool] = False

    def __init__(self) -> None:
        self._keys: dict[str, _Key] = {}
        self._certificates: dict[str, _Caller] = {}
        self._proofs: dict[str, _Proof] = {}

    @classmethod
    def issue(cls, base_url: str, options: Mapping[str, Any]) -> Issued:
        """A signing key; options ``team_id``, ``key_id``, ``topics`` (bundle ids without suffix).

        With ``certificate`` true it is a .p12 instead; options ``topics``, ``environments``.
        """
        asked = dict(options)
        return issue_certificate(**asked) if asked.pop("certificate", False) else _issue(**asked)

    def register(self, public: Mapping[str, Any]) -> None:
        """Know a signing key by its public half, a certificate by its digest."""
        topics = frozenset(public["topics"])
        if "certificate" in public:
            fault = "" if "production" in public["environments"] else "BadCertificateEnvironment"
            self._certificates[public["certificate"]] = _Caller(public["id"], topics, fault)
            return
        key = load_pem_public_key(public["public_key"].encode())
        assert isinstance(key, ec.EllipticCurvePublicKey)
        self._keys[public["key_id"]] = _Key(public["team_id"], key, _Caller(public["key_id"], topics))

    def client_authority(self) -> bytes:
        """That of every fake: which certificates count is known by their digests."""
        return client_authority()

    def read(self, request: Request, now_s: float) -> Call | Response:
        """The push in *request*, or Apple's refusal of it."""
        headers = request.headers
        sent_id = headers.get("apns-id", "")
        echo = (("apns-id", sent_id if _UUID(sent_id) else str(uuid4())),)
        payload = parse_object(request.body)
        caller = self._caller(request, now_s)
        reason = (
            _path_fault(request)
            or caller.fault
            or _header_fault(headers)
            or _topic_fault(headers, caller.topics)
            or _payload_fault(headers["apns-push-type"], request.body, payload)
            or ("" if _TOKEN(request.path, len(_PATH)) else "BadDeviceToken")
        )
        if reason:
            return _refusal(reason, echo)
        payload = payload or {}
        title, body = _shown(table(payload.get("aps")).get("alert"))
        return Call(
            account=caller.id,
            tokens=(request.path[len(_PATH) :].lower(),),
            title=title,
            body=body,
            sent_id=echo[0][1],
            replace_key=headers.get("apns-collapse-id", ""),
            data={name: value for name, value in payload.items() if name != "aps"},
            echo=echo,
        )

    def answer(self, call: Call, dead: Mapping[str, Death], now_s: float) -> Response:
        """200 without a body, or 410 for a dead token."""
        for death in dead.values():
            return _refusal(death.code or "Unregistered", call.echo, death.since_ms)
        return Response(200, "accepted", headers=call.echo)

    def refuse(self, code: str, call: Call, now_s: float) -> Response:
        """The refusal with the reason *code*."""
        return _refusal(code, call.echo, int(now_s * 1_000))

    def expire_auth(self) -> None:
        """Nothing to forget: provider tokens are made by the sender."""

    def _caller(self, request: Request, now_s: float) -> _Caller:
        shown = request.session.get("certificate")
        if shown is not None:
            # Apple does not look at the provider token of such a connection.
            return self._certificates.get(shown, _Caller(fault="BadCertificate"))
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            return _Caller(fault="MissingProviderToken")
        proof = self._proofs.get(token) or self._prove(token)
        if proof is None:
            return _Caller(fault="InvalidProviderToken")
        if abs(now_s - proof.issued_at_s) > JWT_LIFE_S:
            return _Caller(fault="ExpiredProviderToken")
        # Apple pins a connection to the key of its first push.
        if request.session.setdefault("key_id", proof.key_id) != proof.key_id:
            return _Caller(fault="UnrelatedKeyIdInToken")
        return self._keys[proof.key_id].caller

    def _prove(self, token: str) -> _Proof | None:
        try:
            key_id = jwt.get_unverified_header(token).get("kid", "")
            key = self._keys[key_id]
            claims = jwt.decode(
                token, key.public, algorithms=["ES256"], options={"verify_iat": False, "require": ["iat", "iss"]}
            )
            issued_at_s = float(claims["iat"])
        except (jwt.PyJWTError, KeyError, TypeError, ValueError):
            return None
        if claims["iss"] != key.team_id:
            return None
        if len(self._proofs) >= _PROOFS_MAX:
            del self._proofs[next(iter(self._proofs))]
        proof = self._proofs[token] = _Proof(key_id, issued_at_s)
        return proof


def _topic_fault(headers: Mapping[str, str], allowed: frozenset[str]) -> str:
    topic = headers.get("apns-topic", "")
    if not topic:
        return "MissingTopic"
    suffix = TOPIC_SUFFIXES[headers["apns-push-type"]]
    if not topic.endswith(suffix):
        return "BadTopic"
    if topic.removesuffix(suffix) in allowed:
        return ""
    plain = (topic.removesuffix(other) for other in TOPIC_SUFFIXES.values() if other)
    return "BadTopic" if any(bundle != topic and bundle in allowed for bundle in plain) else "TopicDisallowed"


def _issue(team_id: str = "TEAM000001", key_id: str = "", topics: Sequence[str] = ("com.example.im",)) -> Issued:
    key_id = key_id or "".join(secrets.choice(_KEY_ID_LETTERS) for _ in range(10))
    private, public = pem_pair(ec.generate_private_key(ec.SECP256R1()))
    known = {"team_id": team_id, "key_id": key_id, "topics": list(topics), "public_key": public.decode()}
    settings = {"team_id": team_id, "key_id": key_id, "topic": topics[0]}
    return Issued(key_id, known, settings, {f"{key_id}.p8": private})


def _refusal(reason: str, echo: tuple[tuple[str, str], ...], since_ms: int = 0) -> Response:
    status = REASONS[reason]
    content: dict[str, object] = {"reason": reason}
    if status == 410:
        content["timestamp"] = since_ms
    return json_response(status, reason, content, echo)


def _path_fault(request: Request) -> str:
    if not request.path.startswith(_PATH):
        return "BadPath"
    if request.method != "POST":
        return "MethodNotAllowed"
    if len(request.path) == len(_PATH):
        return "MissingDeviceToken"
    return "DuplicateHeaders" if request.doubled else ""


def _header_fault(headers: Mapping[str, str]) -> str:
    push_type = headers.get("apns-push-type", "")
    if push_type not in TOPIC_SUFFIXES:
        return "InvalidPushType"
    if "apns-id" in headers and not _UUID(headers["apns-id"]):
        return "BadMessageId"
    priorities = ("5",) if push_type == "background" else ("10", "5", "1")
    if headers.get("apns-priority", "10") not in priorities:
        return "BadPriority"
    if not _NUMBER(headers.get("apns-expiration", "0")):
        return "BadExpirationDate"
    if len(headers.get("apns-collapse-id", "")) > COLLAPSE_ID_BYTES_MAX:
        return "BadCollapseId"
    return ""


def _payload_fault(push_type: str, body: bytes, payload: Mapping[str, Any] | None) -> str:
    if len(body) > (VOIP_PAYLOAD_BYTES_MAX if push_type == "voip" else PAYLOAD_BYTES_MAX):
        return "PayloadTooLarge"
    if not payload or (push_type in _APS_REQUIRED and not isinstance(payload.get("aps"), dict)):
        return "PayloadEmpty"
    return ""


def _shown(alert: object) -> tuple[str, str]:
    if isinstance(alert, dict):
        return text(alert.get("title")), text(alert.get("body"))
    return "", text(alert)
