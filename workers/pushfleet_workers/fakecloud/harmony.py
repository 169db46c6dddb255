"""HarmonyOS Push Kit: REST API v3 with JWTs that the sender signs, up to 1,000 tokens per request, and recalls."""

from __future__ import annotations

import itertools
import json
import re
import secrets
from collections.abc import Mapping
from typing import Any, ClassVar

import jwt
import msgspec
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from msgspec import Struct

from pushfleet_workers.fakecloud.certs import pem_pair
from pushfleet_workers.fakecloud.vendor import Death, Issued
from pushfleet_workers.fakecloud.wire import (
    Call,
    Request,
    Response,
    json_response,
    parse_object,
    table,
    text,
    whole,
    words,
)

__all__ = ["CODES", "REASONS", "Harmony"]

CODES: dict[str, tuple[int, str]] = {
    "80000000": (200, "Success"),
    "80000001": (500, "System inner error"),
    "80100001": (400, "Parameter error"),
    "80100003": (400, "Illegal payload"),
    "80100004": (400, "The expiry time is earlier than the current time"),
    "80100022": (400, "The picture has not been reviewed"),
    "80200001": (401, "Authentication error"),
    "80200003": (401, "The access token has expired"),
    "80200005": (401, "The JWT has expired"),
    "80300002": (400, "The current app does not have the permission to send messages"),
    "80300008": (400, "The message body size exceeds the default value"),
    "80300010": (400, "The number of tokens in the message body is out of range"),
    "80300017": (400, "The tokens belong to several apps"),
    "80300028": (400, "The token does not belong to the client id"),
    "80300029": (400, "Test messages are sent too frequently"),
    "80300030": (400, "Too many tokens for a test message"),
    "80300032": (400, "No right to revoke messages"),
    "80300036": (401, "The JWT lives for more than a day"),
    "80300037": (400, "The app is under a penalty"),
    "81000001": (500, "System inner error"),
    "503": (503, "Flow control"),
}
"""
Every code: HTTP status and text (Huawei: push-scenariozed-api-response, push-msg-revoke).

The pages do not say which status goes with which code beyond the obvious; a reader must go by the code. ``503`` is the
flow control, which has a status and no code of its own.
"""

REASONS = words(
    "tokenFormatError tokenPlatformNotSupport noRight noPushTypeRight atomicUnableSendUnsubscribedMsg "
    "noRightToSendThisLiveNotificationEvent countryNotSupport disableSendHuaweiMsgBecauseOfPenalty "
    "differentImgVerifyPolicy appinfoError notSupportPlayVoice"
)
"""What 80100000, 80100020 and 80300007 say of single tokens."""

PARTIAL, REVOKED_IN_PART, ALL_INVALID = "80100000", "80100020", "80300007"
AUDIENCE = "https://oauth-login.cloud.huawei.com/oauth2/v3/token"
JWT_LIFE_S_MAX = 86_400
CLOCK_SKEW_S = 300
TOKENS_MAX = 1_000
TEST_TOKENS_MAX = 10
BODY_BYTES_MAX = 4_096
TTL_S_MAX = 1_296_000
CALL_TTL_S_MAX = 60
BI_TAG_BYTES_MAX = 64
NOTIFY_ID_MAX = 2**31 - 1

CATEGORIES = words(
    "IM VOIP MISS_CALL SUBSCRIPTION TRAVEL HEALTH WORK ACCOUNT EXPRESS FINANCE DEVICE_REMINDER MAIL MARKETING"
)

_ALERT, _IN_APP_CALL = "0", "10"
_SEND = re.compile(r"/v3/([^/]+)/messages:send").fullmatch
_REVOKE = re.compile(r"/v1/([^/]+)/messages:revoke").fullmatch
_MESSAGE_ID = re.compile(r"[A-Za-z0-9+/=\-_ ]{1,64}").fullmatch
_PROOFS_MAX = 1_024
_WRONG = "80100001"
_STRUCTURE = "80100003"


class _Account(Struct, frozen=True):
    project_id: str
    client_id: str
    key_id: str
    public: rsa.RSAPublicKey
    sub_account: str


class _Proof(Struct, frozen=True):
    """A JWT whose signature has been checked."""

    key_id: str
    issued_s: float
    expires_s: float


class Harmony:
    """Push Kit v3 as its pages describe it, for push types 0 (notification) and 10 (call inside the app).

    Undocumented and therefore ours: which status goes with which code, how far ``iat`` may be ahead, and 404 with an
    empty body for an unknown address. Other push types are refused as a parameter error.
    """

    name: ClassVar[str] = "harmony"
    http1: ClassVar[bool] = True
    max_streams: ClassVar[int] = 128
    refusals: ClassVar[frozenset[str]] = (frozenset(CODES) - {"80000000"}) | REASONS
    deaths: ClassVar[frozenset[str]] = frozenset({"tokenFormatError", "tokenPlatformNotSupport", "noRight"})
    throttled: ClassVar[str] = "503"
    address_bound: ClassVar[bool] = False

    def __init__(self) -> None:
        self._accounts: dict[str, _Account] = {}
        self._proofs: dict[str, _Proof] = {}
        self._numbers = itertools.count(1)

    @classmethod
    def issue(cls, base_url: str, options: Mapping[str, Any]) -> Issued:
        """A service account's key file; options ``project_id``, ``client_id``."""
        return _issue(**options)

    def register(self, public: Mapping[str, Any]) -> None:
        """Know a service account by its public half."""
        key = load_pem_public_key(public["public_key"].encode())
        assert isinstance(key, rsa.RSAPublicKey)
        names = ("project_id", "client_id", "key_id", "sub_account")
        self._accounts[public["key_id"]] = _Account(public=key, **{name: public[name] for name in names})

    def read(self, request: Request, now_s: float) -> Call | Response:
        """The push or the recall in *request*, or Huawei's refusal of it."""
        send, revoke = _SEND(request.path), _REVOKE(request.path)
        if request.method != "POST" or not (send or revoke):
            return Response(404, "404")
        account = self._sender(request, now_s)
        if isinstance(account, str):
            return self._refusal(account)
        push_type = request.headers.get("push-type", "")
        if not push_type or (send and send[1] != account.project_id):
            return self._refusal("80200001")
        content = parse_object(request.body)
        if content is None:
            return self._refusal(_STRUCTURE)
        if revoke:
            return self._read_recall(content, push_type, revoke[1], account)
        code = _message_flaw(content, request.body, push_type)
        return self._refusal(code) if code else _call(content, account.project_id)

    def answer(self, call: Call, dead: Mapping[str, Death], now_s: float) -> Response:
        """Success, or the dead tokens by reason: 80100000 where others were served, 80300007 where none was."""
        if not dead:
            return self._coded(200, "80000000", "Success", "withdrawn" if call.endpoint == "withdraw" else "accepted")
        reasons: dict[str, list[str]] = {}
        for token in call.tokens:
            if token in dead:
                reasons.setdefault(dead[token].code or "tokenFormatError", []).append(token)
        return self._by_reason(call, reasons)

    def refuse(self, code: str, call: Call, now_s: float) -> Response:
        """The refusal with *code*; a reason is that of every token."""
        return self._by_reason(call, {code: list(call.tokens)}) if code in REASONS else self._refusal(code)

    def expire_auth(self) -> None:
        """Make every JWT that was shown so far look expired."""
        self._proofs = {
            token: msgspec.structs.replace(proof, expires_s=min(proof.expires_s, proof.issued_s))
            for token, proof in self._proofs.items()
        }

    def _sender(self, request: Request, now_s: float) -> _Account | str:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme != "Bearer":
            return "80200001"
        proof = self._proofs.get(token) or self._prove(token)
        if proof is None or proof.issued_s > now_s + CLOCK_SKEW_S:
            return "80200001"
        if proof.expires_s - proof.issued_s > JWT_LIFE_S_MAX:
            return "80300036"
        return "80200005" if proof.expires_s <= now_s else self._accounts[proof.key_id]

    def _prove(self, token: str) -> _Proof | None:
        try:
            header = jwt.get_unverified_header(token)
            account = self._accounts[header["kid"]]
            claims = jwt.decode(
                token,
                account.public,
                algorithms=["PS256"],
                audience=AUDIENCE,
                options={"verify_iat": False, "verify_exp": False, "require": ["iss", "aud", "iat", "exp"]},
            )
            issued_s, expires_s = float(claims["iat"]), float(claims["exp"])
        except (jwt.PyJWTError, KeyError, TypeError, ValueError):
            return None
        if claims["iss"] != account.sub_account or header.get("typ") != "JWT":
            return None
        if len(self._proofs) >= _PROOFS_MAX:
            del self._proofs[next(iter(self._proofs))]
        proof = self._proofs[token] = _Proof(account.key_id, issued_s, expires_s)
        return proof

    def _read_recall(
        self, content: Mapping[str, Any], push_type: str, client_id: str, account: _Account
    ) -> Call | Response:
        if client_id != account.client_id:
            return self._refusal("80300028")
        notify_id = content.get("notifyId")
        if push_type != _ALERT or not whole(notify_id, 0, NOTIFY_ID_MAX):
            return self._refusal(_WRONG)
        tokens = content.get("token")
        code = _token_flaw(tokens, TOKENS_MAX, "80300010")
        if code:
            return self._refusal(code)
        return Call(account.project_id, "withdraw", tuple(tokens or ()), replace_key=str(notify_id))

    def _by_reason(self, call: Call, reasons: Mapping[str, list[str]]) -> Response:
        failure = sum(len(tokens) for tokens in reasons.values())
        if failure == len(call.tokens):
            return self._coded(400, ALL_INVALID, json.dumps({"illegalTokens": reasons}), ALL_INVALID)
        code = REVOKED_IN_PART if call.endpoint == "withdraw" else PARTIAL
        msg = {"illegalTokens": reasons, "success": len(call.tokens) - failure, "failure": failure}
        return self._coded(200, code, json.dumps(msg), code)

    def _refusal(self, code: str) -> Response:
        status, msg = CODES[code]
        return self._coded(status, code, msg, code)

    def _coded(self, status: int, code: str, msg: str, result: str) -> Response:
        request_id = f"17{next(self._numbers):016d}"
        return json_response(status, result, {"code": code, "msg": msg, "requestId": request_id})


def _issue(project_id: str = "388421840000000001", client_id: str = "110000001") -> Issued:
    private, public = pem_pair(rsa.generate_private_key(public_exponent=65_537, key_size=2_048))
    known = {"project_id": project_id, "key_id": secrets.token_hex(16), "sub_account": secrets.token_hex(8)}
    content = msgspec.json.format(msgspec.json.encode({**known, "private_key": private.decode()}))
    return Issued(
        project_id,
        {**known, "client_id": client_id, "public_key": public.decode()},
        {"client_id": client_id},
        {f"{project_id}.json": content},
    )


def _call(content: Mapping[str, Any], project_id: str) -> Call:
    payload = content["payload"]
    shown = table(payload.get("notification"))
    extra = parse_object(text(payload.get("extraData")).encode()) or {}
    options = table(content.get("pushOptions"))
    notify_id = shown.get("notifyId", -1)
    return Call(
        account=project_id,
        tokens=tuple(content["target"]["token"]),
        title=text(shown.get("title")) or text(extra.get("title")),
        body=text(shown.get("body")) or text(extra.get("body")),
        sent_id=text(shown.get("appMessageId")) or text(options.get("biTag")),
        callback={"param": text(options.get("biTag"))},
        replace_key="" if notify_id == -1 else str(notify_id),
        data=table(table(shown.get("clickAction")).get("data")) or extra,
    )


def _message_flaw(content: Mapping[str, Any], body: bytes, push_type: str) -> str:
    """The code for the first thing wrong with a push, empty for none."""
    payload, target, options = content.get("payload"), content.get("target"), content.get("pushOptions", {})
    if not (isinstance(payload, dict) and isinstance(target, dict) and isinstance(options, dict)):
        return _STRUCTURE
    test = options.get("testMessage", False)
    if not isinstance(test, bool):
        return _WRONG
    most, too_many = (TEST_TOKENS_MAX, "80300030") if test else (TOKENS_MAX, "80300010")
    return (
        _token_flaw(target.get("token"), most, too_many)
        or _size_flaw(body, target["token"])
        or _options_flaw(options, push_type)
        or _payload_flaw(payload, push_type)
    )


def _token_flaw(tokens: object, most: int, too_many: str) -> str:
    if not isinstance(tokens, list) or not tokens:
        return "80300010"
    if len(tokens) > most:
        return too_many
    return "" if all(isinstance(token, str) and token for token in tokens) else _WRONG


def _size_flaw(body: bytes, tokens: list[str]) -> str:
    # A token on the wire also has two quotes, and a comma before the next.
    on_wire = sum(len(token.encode()) + 3 for token in tokens) - 1
    return "80300008" if len(body) - on_wire > BODY_BYTES_MAX else ""


def _options_flaw(options: Mapping[str, Any], push_type: str) -> str:
    if not whole(options.get("ttl", 60), 1, CALL_TTL_S_MAX if push_type == _IN_APP_CALL else TTL_S_MAX):
        return _WRONG
    if "collapseKey" in options and not (push_type == _ALERT and whole(options["collapseKey"], -1, 100)):
        return _WRONG
    bi_tag = options.get("biTag", "")
    return "" if isinstance(bi_tag, str) and len(bi_tag.encode()) <= BI_TAG_BYTES_MAX else _WRONG


def _payload_flaw(payload: Mapping[str, Any], push_type: str) -> str:
    if push_type == _IN_APP_CALL:
        return "" if text(payload.get("extraData")) else _STRUCTURE
    if push_type != _ALERT:
        return _WRONG
    notification = payload.get("notification")
    return _notification_flaw(notification) if isinstance(notification, dict) else _STRUCTURE


def _notification_flaw(notification: Mapping[str, Any]) -> str:
    if notification.get("category") not in CATEGORIES:
        return _WRONG
    if not text(notification.get("title")) or not text(notification.get("body")):
        return _WRONG
    if not whole(notification.get("notifyId", -1), -1, NOTIFY_ID_MAX):
        return _WRONG
    if "appMessageId" in notification and not _MESSAGE_ID(text(notification["appMessageId"])):
        return _WRONG
    return (
        _click_flaw(notification.get("clickAction"))
        or _badge_flaw(notification.get("badge"))
        or _display_flaw(notification)
    )


def _click_flaw(click_action: object) -> str:
    if not isinstance(click_action, dict):
        return _STRUCTURE
    if not isinstance(click_action.get("data", {}), dict):
        return _WRONG
    match click_action.get("actionType"):
        case 0:
            sound = True
        case 1:
            sound = bool(text(click_action.get("action")) or text(click_action.get("uri")))
        case _:
            sound = False
    return "" if sound else _WRONG


def _badge_flaw(badge: object) -> str:
    if badge is None:
        return ""
    if not isinstance(badge, dict) or not badge.keys() & {"addNum", "setNum"}:
        return _WRONG
    sound = whole(badge.get("addNum", 1), 1, 99) and whole(badge.get("setNum", 0), 0, 99)
    return "" if sound else _WRONG


def _display_flaw(notification: Mapping[str, Any]) -> str:
    if not isinstance(notification.get("foregroundShow", True), bool):
        return _WRONG
    if not isinstance(notification.get("sound", ""), str) or not whole(notification.get("soundDuration", 1), 1, 60):
        return _WRONG
    if not text(notification.get("image", "https://")).startswith("https://"):
        return _WRONG
    return "" if notification.get("style", 0) in (0, 1, 3) else _WRONG
