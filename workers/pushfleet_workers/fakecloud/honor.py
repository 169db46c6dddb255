"""Honor Push: downlink messages with their OAuth token endpoint, up to 100 tokens per request."""

from __future__ import annotations

import hmac
import itertools
import re
import secrets
from collections.abc import Mapping
from hashlib import sha256
from typing import Any, ClassVar

from msgspec import Struct

from pushfleet_workers.fakecloud.vendor import Death, Issued
from pushfleet_workers.fakecloud.wire import (
    Call,
    Request,
    Response,
    json_response,
    parse_form,
    parse_object,
    table,
    text,
    whole,
)

__all__ = ["CODES", "Honor"]

CODES: dict[str, tuple[int, str]] = {
    "400": (400, "Bad request"),
    "401": (401, "Unauthorized"),
    "403": (403, "The access token is invalid"),
    "404": (404, "Not found"),
    "429": (429, "Too many requests"),
    "500": (500, "Internal error"),
    "502": (502, "Bad gateway"),
    "503": (503, "Unavailable"),
    "504": (504, "Gateway timeout"),
    "80100003": (200, "Illegal payload"),
    "80200001": (200, "Authentication error"),
    "99999": (200, "Something new"),
}
"""Code of the body to HTTP status and text. The last three stand for what is not written anywhere."""

LISTS = frozenset({"expireTokens", "failTokens"})
"""Refusals of single tokens; the code is then 200 all the same."""

GRANT_ERRORS = frozenset({"invalid_client", "unauthorized_client", "invalid_grant"})
TOKEN_PATHS = frozenset({"/auth/token", "/auth/realms/developer/protocol/openid-connect/token"})
ACCESS_TOKEN_LIFE_S = 3_600
TOKENS_MAX = 100
BODY_BYTES_MAX = 4_096
TTL_S_MAX = 1_296_000
CLOCK_SKEW_MS = 300_000

_PATH = re.compile(r"/api/v1/([^/]+)/sendMessage").fullmatch
_DURATION = re.compile(r"([0-9]{1,9})s").fullmatch
_MILLIS = re.compile(r"[0-9]{13}").fullmatch


class _App(Struct, frozen=True):
    app_id: str
    client_id: str
    secret_sha256: str


class _Access(Struct, frozen=True):
    app_id: str
    expires_s: float


class Honor:
    """Honor Push as its guide and its public clients describe it.

    Undocumented and therefore ours: that a code is also the HTTP status, at most 100 tokens and 4,096 bytes without
    them, a clock at most five minutes off, and which of the OAuth errors a wrong id or secret gets.
    """

    name: ClassVar[str] = "honor"
    http1: ClassVar[bool] = True
    max_streams: ClassVar[int] = 128
    refusals: ClassVar[frozenset[str]] = frozenset(CODES) | LISTS | GRANT_ERRORS
    deaths: ClassVar[frozenset[str]] = frozenset({"expireTokens"})
    throttled: ClassVar[str] = "429"
    address_bound: ClassVar[bool] = False

    def __init__(self) -> None:
        self._apps: dict[str, _App] = {}
        self._access: dict[str, _Access] = {}
        self._numbers = itertools.count(1)

    @classmethod
    def issue(cls, base_url: str, options: Mapping[str, Any]) -> Issued:
        """A client id and secret; options ``app_id``, ``client_id``."""
        return _issue(**options)

    def register(self, public: Mapping[str, Any]) -> None:
        """Know an app by its ids and by the digest of its secret."""
        app = _App(public["app_id"], public["client_id"], public["secret_sha256"])
        self._apps[app.client_id] = app

    def read(self, request: Request, now_s: float) -> Call | Response:
        """The push or the token request in *request*, or Honor's refusal of it."""
        if request.path in TOKEN_PATHS and request.method == "POST":
            return self._read_auth(request)
        path = _PATH(request.path)
        if path is None or request.method != "POST":
            return self._refusal("404")
        code = self._sender_flaw(request, path[1], now_s)
        if code:
            return self._refusal(code)
        content = parse_object(request.body)
        if content is None or _message_flaw(content, request.body):
            return self._refusal("400")
        return _call(content, path[1])

    def answer(self, call: Call, dead: Mapping[str, Death], now_s: float) -> Response:
        """An access token, or success with the dead tokens as expired."""
        if call.endpoint == "auth":
            return self._grant(call, now_s)
        return self._sent(call, expired=[token for token in call.tokens if token in dead])

    def refuse(self, code: str, call: Call, now_s: float) -> Response:
        """The refusal with *code*; the name of a list puts every token there."""
        if code in GRANT_ERRORS or call.endpoint == "auth":
            return _oauth_error(code, CODES[code][0] if code in CODES else 400)
        if code == "expireTokens":
            return self._sent(call, expired=list(call.tokens))
        if code == "failTokens":
            return self._sent(call, failed=list(call.tokens))
        return self._refusal(code)

    def expire_auth(self) -> None:
        """Forget all access tokens."""
        self._access.clear()

    def _read_auth(self, request: Request) -> Call | Response:
        form = parse_form(request.body)
        if form.get("grant_type") != "client_credentials":
            return _oauth_error("invalid_grant", 400)
        app = self._apps.get(form.get("client_id", ""))
        if app is None:
            return _oauth_error("invalid_client", 401)
        digest = sha256(form.get("client_secret", "").encode()).hexdigest()
        if not hmac.compare_digest(app.secret_sha256, digest):
            return _oauth_error("unauthorized_client", 401)
        return Call(app.app_id, endpoint="auth")

    def _grant(self, call: Call, now_s: float) -> Response:
        token = secrets.token_urlsafe(60)
        self._access[token] = _Access(call.account, now_s + ACCESS_TOKEN_LIFE_S)
        content = {"access_token": token, "expires_in": ACCESS_TOKEN_LIFE_S, "token_type": "Bearer"}
        return json_response(200, "accepted", content)

    def _sender_flaw(self, request: Request, app_id: str, now_s: float) -> str:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        access = self._access.get(token) if scheme == "Bearer" else None
        if access is None or access.expires_s <= now_s:
            return "401"
        if all(app.app_id != app_id for app in self._apps.values()):
            return "404"
        if access.app_id != app_id:
            return "403"
        stamp = request.headers.get("timestamp", "")
        return "" if _MILLIS(stamp) and abs(int(stamp) - now_s * 1_000) <= CLOCK_SKEW_MS else "400"

    def _sent(self, call: Call, *, expired: list[str] | None = None, failed: list[str] | None = None) -> Response:
        named = [*(expired or ()), *(failed or ())]
        data = {
            "sendResult": len(named) < len(call.tokens),
            "requestId": f"{next(self._numbers):016d}",
            "failTokens": failed or [],
            "expireTokens": expired or [],
        }
        result = "accepted" if not named else "expireTokens" if expired else "failTokens"
        return json_response(200, result, {"code": 200, "message": "success", "data": data})

    def _refusal(self, code: str) -> Response:
        status, message = CODES[code]
        return json_response(status, code, {"code": int(code), "message": message, "data": {"sendResult": False}})


def _issue(app_id: str = "104000001", client_id: str = "") -> Issued:
    secret = secrets.token_hex(32)
    client_id = client_id or secrets.token_hex(16)
    settings = {"app_id": app_id, "client_id": client_id}
    known = {**settings, "secret_sha256": sha256(secret.encode()).hexdigest()}
    return Issued(app_id, known, settings, {f"{app_id}.secret": secret.encode()})


def _oauth_error(error: str, status: int) -> Response:
    return json_response(status, error, {"error": error, "error_description": "Invalid client or client credentials"})


def _call(content: Mapping[str, Any], app_id: str) -> Call:
    android = table(content.get("android"))
    shown = {**table(content.get("notification")), **table(android.get("notification"))}
    custom = text(android.get("data", content.get("data")))
    return Call(
        account=app_id,
        tokens=tuple(content["token"]),
        title=text(shown.get("title")),
        body=text(shown.get("body")),
        sent_id=text(android.get("biTag")),
        callback={"param": text(android.get("biTag"))},
        replace_key=text(shown.get("tag")),
        data=(parse_object(custom.encode()) or {"": custom}) if custom else {},
    )


def _message_flaw(content: Mapping[str, Any], body: bytes) -> bool:
    """Whether anything in a push is not in order; Honor's words for it are not known."""
    tokens, android = content.get("token"), content.get("android", {})
    if not isinstance(tokens, list) or not 1 <= len(tokens) <= TOKENS_MAX:
        return True
    if not all(isinstance(token, str) and token for token in tokens) or not isinstance(android, dict):
        return True
    # A token on the wire also has two quotes, and a comma before the next.
    if len(body) - sum(len(token.encode()) + 3 for token in tokens) + 1 > BODY_BYTES_MAX:
        return True
    if not all(isinstance(part.get("data", ""), str) for part in (content, android)):
        return True
    general, own = content.get("notification", {}), android.get("notification")
    if own is None and not (content.get("data") or android.get("data")):
        return True
    return _android_flaw(android) or _notification_flaw(general, own)


def _android_flaw(android: Mapping[str, Any]) -> bool:
    ttl = _DURATION(text(android.get("ttl", "86400s")))
    if ttl is None or int(ttl[1]) > TTL_S_MAX:
        return True
    return not isinstance(android.get("biTag", ""), str) or not whole(android.get("targetUserType", 0), 0, 1)


def _notification_flaw(general: object, own: object) -> bool:
    if not isinstance(general, dict) or not isinstance(own, dict):
        # A notification needs its clickAction, which is Android's; data alone needs neither.
        return own is not None or bool(general)
    shown = {**general, **own}
    if not text(shown.get("title")) or not text(shown.get("body")) or _click_flaw(own.get("clickAction")):
        return True
    if own.get("importance", "NORMAL") not in ("LOW", "NORMAL") or not whole(own.get("notifyId", -1), -1, 2**31 - 1):
        return True
    if any(not isinstance(own.get(name, ""), str) for name in ("tag", "group", "when", "image")):
        return True
    return _badge_flaw(own.get("badge")) or _style_flaw(own)


def _click_flaw(click_action: object) -> bool:
    match table(click_action).get("type"):
        case 1:
            return not (text(table(click_action).get("intent")) or text(table(click_action).get("action")))
        case 2:
            return not text(table(click_action).get("url")).startswith("https://")
        case 3:
            return False
        case _:
            return True


def _badge_flaw(badge: object) -> bool:
    if badge is None:
        return False
    if not isinstance(badge, dict) or "." not in text(badge.get("badgeClass")):
        return True
    return not (whole(badge.get("addNum", 1), 0, 99) and whole(badge.get("setNum", 0), 0, 99))


def _style_flaw(notification: Mapping[str, Any]) -> bool:
    style = notification.get("style", 0)
    if style == 1:
        return not (text(notification.get("bigTitle")) and text(notification.get("bigBody")))
    return bool(style != 0)
