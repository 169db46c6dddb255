"""Huawei Push Kit: REST API v1 and v2 with its OAuth token endpoint, up to 1,000 tokens per request."""

from __future__ import annotations

import hmac
import itertools
import json
import re
import secrets
from collections import deque
from collections.abc import Mapping
from hashlib import sha256
from typing import Any, ClassVar

from msgspec import Struct

from pushfleet_workers.fakecloud.vendor import Death, Issued
from pushfleet_workers.fakecloud.wire import (
    JSON,
    Call,
    Request,
    Response,
    json_response,
    parse_form,
    parse_object,
    table,
    text,
    whole,
    words,
)

__all__ = ["CODES", "Huawei"]

CODES: dict[str, tuple[int, str]] = {
    "80000000": (200, "Success"),
    "80100001": (400, "Parameter error"),
    "80100002": (400, "The number of tokens must be 1 when a system message is sent"),
    "80100003": (400, "Incorrect message structure"),
    "80100004": (400, "TTL is less than the current time"),
    "80100013": (400, "The collapse_key field is invalid"),
    "80100016": (400, "Sensitive information is included"),
    "80100017": (400, "A maximum of 100 topic-based messages can be sent at the same time"),
    "80100018": (400, "Signature of the reviewed content does not match"),
    "80200001": (401, "OAuth authentication error"),
    "80200003": (401, "The access token in OAuth has expired"),
    "80200005": (401, "The JWT has expired"),
    "80300002": (400, "The current app does not have the permission to send messages"),
    "80300007": (200, "All tokens are invalid"),
    "80300008": (400, "The message body size exceeds the default value"),
    "80300010": (400, "The number of tokens in the message body exceeds the default value"),
    "80300011": (400, "You are not authorized to send high-priority notification messages"),
    "80300013": (400, "The receipt address is invalid"),
    "80600003": (500, "Failed to request the OAuth service"),
    "81000001": (500, "System inner error"),
    **{str(code): (400, "Group or topic error") for code in range(82_000_001, 82_000_014)},
    "503": (503, "Flow control"),
}
"""
Every code: HTTP status and text (Huawei: send API, error codes).

The page gives one table of codes and one of statuses, but not which goes with which beyond 400 and 401; a
reader must go by the code. ``503`` is the flow control, which has a status and no code of its own.
"""

PARTIAL = "80100000"
ACCESS_TOKEN_LIFE_S = 3_600
GRANTS_MAX = 1_000
GRANTS_WINDOW_S = 300
TOKENS_MAX = 1_000
BODY_BYTES_MAX = 4_096
TTL_S_MAX = 1_296_000

CATEGORIES = words(
    "IM VOIP SUBSCRIPTION TRAVEL HEALTH WORK ACCOUNT EXPRESS FINANCE DEVICE_REMINDER MAIL PLAY_VOICE MARKETING"
)

_PATH = re.compile(r"/(v[12])/([^/]+)/messages:send").fullmatch
_DURATION = re.compile(r"([0-9]+)(\.[0-9]{1,9})?[sS]?").fullmatch
_COLOR = re.compile(r"#[0-9a-fA-F]{6}").fullmatch
_WRONG = "80100001"
_STRUCTURE = "80100003"


class _App(Struct, frozen=True):
    client_id: str
    project_id: str
    secret_sha256: str
    grants_s: deque[float]
    """When its latest access tokens were handed out."""


class _Access(Struct, frozen=True):
    client_id: str
    expires_s: float


class Huawei:
    """Push Kit as its pages describe it.

    Undocumented and therefore ours: the bodies of the token endpoint's refusals, and 404 with an empty body for
    an unknown address. An expired access token is told from an unknown one for as long as the fake runs.
    """

    name: ClassVar[str] = "huawei"
    http1: ClassVar[bool] = True
    max_streams: ClassVar[int] = 128
    refusals: ClassVar[frozenset[str]] = frozenset(CODES) - {"80000000"}
    deaths: ClassVar[frozenset[str]] = frozenset({"80300007"})
    throttled: ClassVar[str] = "503"
    address_bound: ClassVar[bool] = False

    def __init__(self) -> None:
        self._apps: dict[str, _App] = {}
        self._access: dict[str, _Access] = {}
        self._numbers = itertools.count(1)

    @classmethod
    def issue(cls, base_url: str, options: Mapping[str, Any]) -> Issued:
        """A client id and secret; options ``client_id``, ``project_id``."""
        return _issue(**options)

    def register(self, public: Mapping[str, Any]) -> None:
        """Know an app by its ids and by the digest of its secret."""
        client_id = public["client_id"]
        self._apps[client_id] = _App(client_id, public["project_id"], public["secret_sha256"], deque())

    def read(self, request: Request, now_s: float) -> Call | Response:
        """The push or the token request in *request*, or Huawei's refusal of it."""
        if request.path in ("/oauth2/v3/token", "/oauth2/v2/token"):
            return self._read_auth(request, now_s)
        path = _PATH(request.path)
        if path is None or request.method != "POST":
            return Response(404, "404")
        app = self._sender(request, now_s)
        if isinstance(app, str):
            return self._refusal(app)
        if path[2] != (app.client_id if path[1] == "v1" else app.project_id):
            return self._refusal("80200001")
        return self._read_message(request.body, app.client_id)

    def answer(self, call: Call, dead: Mapping[str, Death], now_s: float) -> Response:
        """Success, partial success with the dead tokens in ``msg``, or 80300007 when all are dead."""
        if call.endpoint == "auth":
            return self._grant(call, now_s)
        if not dead:
            return self._coded(200, "80000000", "Success", "accepted")
        illegal = [token for token in call.tokens if token in dead]
        if len(illegal) == len(call.tokens):
            return self._refusal("80300007")
        msg = {"success": len(call.tokens) - len(illegal), "failure": len(illegal), "illegal_tokens": illegal}
        return self._coded(200, PARTIAL, json.dumps(msg), PARTIAL)

    def refuse(self, code: str, call: Call, now_s: float) -> Response:
        """The refusal with *code*."""
        return self._refusal(code)

    def expire_auth(self) -> None:
        """Make all access tokens look expired."""
        self._access = {token: _Access(access.client_id, 0.0) for token, access in self._access.items()}

    def _read_auth(self, request: Request, now_s: float) -> Call | Response:
        form = parse_form(request.body)
        if form.get("grant_type") != "client_credentials":
            return json_response(400, "1101", {"error": 1101, "error_description": "invalid grant type"})
        app = self._apps.get(form.get("client_id", ""))
        digest = sha256(form.get("client_secret", "").encode()).hexdigest()
        if app is None or not hmac.compare_digest(app.secret_sha256, digest):
            return json_response(400, "1101", {"error": 1101, "error_description": "invalid client"})
        while app.grants_s and app.grants_s[0] <= now_s - GRANTS_WINDOW_S:
            app.grants_s.popleft()
        if len(app.grants_s) >= GRANTS_MAX:
            return self._refusal("503")
        return Call(app.client_id, endpoint="auth")

    def _grant(self, call: Call, now_s: float) -> Response:
        self._apps[call.account].grants_s.append(now_s)
        token = f"DAEAA{secrets.token_urlsafe(60)}/{secrets.token_urlsafe(20)}=="
        self._access[token] = _Access(call.account, now_s + ACCESS_TOKEN_LIFE_S)
        # Huawei escapes the slash; a sender that cuts the token out by hand keeps the backslash and is refused.
        escaped = token.replace("/", "\\/")
        body = f'{{"access_token":"{escaped}","expires_in":{ACCESS_TOKEN_LIFE_S},"token_type":"Bearer"}}'
        return Response(200, "accepted", body.encode(), (JSON,))

    def _sender(self, request: Request, now_s: float) -> _App | str:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        access = self._access.get(token) if scheme.lower() == "bearer" else None
        if access is None:
            return "80200001"
        return "80200003" if access.expires_s <= now_s else self._apps[access.client_id]

    def _read_message(self, body: bytes, client_id: str) -> Call | Response:
        envelope = parse_object(body)
        message = (envelope or {}).get("message")
        if envelope is None or not isinstance(message, dict):
            return self._refusal(_STRUCTURE if envelope is None else "80300010")
        code = _token_flaw(message) or _size_flaw(body, message["token"]) or _message_flaw(message)
        if code:
            return self._refusal(code)
        android = table(message.get("android"))
        shown = {**table(message.get("notification")), **table(android.get("notification"))}
        return Call(
            account=client_id,
            tokens=tuple(message["token"]),
            title=text(shown.get("title")),
            body=text(shown.get("body")),
            sent_id=text(android.get("bi_tag")),
            callback={"param": text(android.get("bi_tag"))},
            replace_key=text(shown.get("tag")),
            data=_custom(android.get("data", message.get("data"))),
            dry_run=envelope.get("validate_only") is True,
        )

    def _refusal(self, code: str) -> Response:
        status, msg = CODES[code]
        return self._coded(status, code, msg, code)

    def _coded(self, status: int, code: str, msg: str, result: str) -> Response:
        request_id = f"17{next(self._numbers):016d}"
        return json_response(status, result, {"code": code, "msg": msg, "requestId": request_id})


def _issue(client_id: str = "100000001", project_id: str = "") -> Issued:
    secret = secrets.token_hex(32)
    project_id = project_id or f"{client_id}9"
    known = {
        "client_id": client_id,
        "project_id": project_id,
        "secret_sha256": sha256(secret.encode()).hexdigest(),
    }
    settings = {"client_id": client_id, "project_id": project_id}
    return Issued(client_id, known, settings, {f"{client_id}.secret": secret.encode()})


def _token_flaw(message: Mapping[str, Any]) -> str:
    if "topic" in message or "condition" in message:
        return _WRONG
    tokens = message.get("token")
    if not isinstance(tokens, list) or not 1 <= len(tokens) <= TOKENS_MAX:
        return "80300010"
    return "" if all(isinstance(token, str) and token for token in tokens) else _WRONG


def _size_flaw(body: bytes, tokens: list[str]) -> str:
    # A token on the wire also has two quotes, and a comma before the next.
    on_wire = sum(len(token.encode()) + 3 for token in tokens) - 1
    return "80300008" if len(body) - on_wire > BODY_BYTES_MAX else ""


def _message_flaw(message: Mapping[str, Any]) -> str:
    android = message.get("android", {})
    if not isinstance(android, dict) or not isinstance(message.get("notification", {}), dict):
        return _STRUCTURE
    if not isinstance(message.get("data", ""), str) or not isinstance(android.get("data", ""), str):
        return _WRONG
    return _android_flaw(android) or _content_flaw(message, android)


def _content_flaw(message: Mapping[str, Any], android: Mapping[str, Any]) -> str:
    if "notification" not in message and "notification" not in android:
        return "" if message.get("data") or android.get("data") else _STRUCTURE
    notification = android.get("notification")
    if not isinstance(notification, dict):
        return _STRUCTURE
    shown = {**table(message.get("notification")), **notification}
    if not text(shown.get("title")) or not text(shown.get("body")):
        return _WRONG
    return (
        _click_flaw(notification.get("click_action"))
        or _badge_flaw(notification.get("badge"))
        or _display_flaw(notification)
    )


def _android_flaw(android: Mapping[str, Any]) -> str:
    if not whole(android.get("collapse_key", -1), -1, 100):
        return "80100013"
    ttl = _DURATION(text(android.get("ttl", "86400s")))
    if ttl is None or int(ttl[1]) > TTL_S_MAX:
        return _WRONG
    if "category" in android and android["category"] not in CATEGORIES:
        return _WRONG
    if android.get("urgency", "NORMAL") not in ("HIGH", "NORMAL"):
        return _WRONG
    if not isinstance(android.get("bi_tag", ""), str) or not isinstance(android.get("receipt_id", ""), str):
        return _WRONG
    return "" if whole(android.get("target_user_type", 0), 0, 1) else _WRONG


def _click_flaw(click_action: object) -> str:
    if not isinstance(click_action, dict):
        return _STRUCTURE
    match click_action.get("type"):
        case 1:
            sound = bool(text(click_action.get("intent")) or text(click_action.get("action")))
        case 2:
            sound = text(click_action.get("url")).startswith("https://")
        case 3:
            sound = True
        case _:
            sound = False
    return "" if sound else _WRONG


def _badge_flaw(badge: object) -> str:
    if badge is None:
        return ""
    if not isinstance(badge, dict) or not text(badge.get("class")):
        return _WRONG
    sound = whole(badge.get("add_num", 1), 1, 99) and whole(badge.get("set_num", 0), 0, 99)
    return "" if sound else _WRONG


def _display_flaw(notification: Mapping[str, Any]) -> str:
    if notification.get("importance", "NORMAL") == "HIGH":
        return "80300011"
    if notification.get("importance", "NORMAL") not in ("LOW", "NORMAL"):
        return _WRONG
    if any(not isinstance(notification.get(name, ""), str) for name in ("tag", "group", "channel_id", "sound")):
        return _WRONG
    if not whole(notification.get("notify_id", -1), -1, 2**31 - 1):
        return _WRONG
    if "color" in notification and not _COLOR(text(notification["color"])):
        return _WRONG
    return _style_flaw(notification)


def _style_flaw(notification: Mapping[str, Any]) -> str:
    style = notification.get("style", 0)
    if style not in (0, 1, 3):
        return _WRONG
    if style == 1 and not (text(notification.get("big_title")) and text(notification.get("big_body"))):
        return _WRONG
    return ""


def _custom(data: object) -> Mapping[str, Any]:
    """The custom payload as an object; text that is no JSON object stands under ``""``."""
    raw = text(data)
    return (parse_object(raw.encode()) or {"": raw}) if raw else {}
