"""TPNS: REST v3 with signed requests, up to 1,000 of its own tokens per request."""

from __future__ import annotations

import hmac
import itertools
import secrets
from base64 import b64encode
from collections.abc import Mapping
from hashlib import sha256
from typing import Any, ClassVar
from urllib.parse import urlsplit

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

__all__ = ["CODES", "Tpns"]

CODES: dict[str, str] = {
    "0": "",
    "1008001": "parse error",
    "1008002": "missing parameter",
    "1008003": "authentication failed",
    "1008004": "internal call failed",
    "1008006": "invalid token",
    "1008007": "invalid parameter",
    "1008011": "app creation failed",
    "1008012": "app creation failed",
    "1008013": "upload failed",
    "1008015": "unknown push id",
    "1008016": "wrong date",
    "1008019": "content not compliant",
    "1008020": "certificate error",
    "1008021": "certificate error",
    "1008022": "certificate error",
    "1008023": "certificate expired",
    "1008025": "upload failed",
    "1008026": "partly failed",
    "1008027": "failed",
    "1008028": "too fast",
    "1008029": "token not valid",
    "1008030": "app not paid",
    "1008031": "resources destroyed",
    "1008035": "wrong access id or host",
    "1010001": "no resources deployed",
    "10010005": "push target does not exist",
    "10010012": "illegal push time",
    "10010018": "push repeat",
    "10030002": "access id and key do not match",
    "10110008": "token not found",
    "-1": "parameter error",
    "-2": "timestamp error",
    "-3": "sign error",
    "-4": "internal error",
    "-100": "http error",
    "10100": "provider link error",
    "10101": "provider timeout",
    "1009999": "something new",
}
"""``ret_code`` to a text in our words. The last stands for what is not listed; the seven before it are of the former
generation of hosts, and a script alone brings them about."""

INVALID_LIST = "invalid_targe_list"
"""A refusal of single tokens; the code is then 0 all the same."""

TOKENS_MAX = 1_000
TOKEN_CHARS_MAX = 36
EXPIRE_S_MAX = 259_200
CLOCK_SKEW_S = 300

_PATH = "/v3/push/app"
_MISSING, _WRONG = "1008002", "1008007"
_CHANNELS = ("n_ch_id", "hw_ch_id", "hw_category", "xm_ch_id", "oppo_ch_id", "vivo_ch_id", "fcm_ch_id", "ring_raw")
_LEVELS = ("passive", "active", "time-sensitive", "critical")


class _App(Struct, frozen=True):
    access_id: str
    secret_key: str
    ios: bool


class _Push(Call, frozen=True):
    seq: int = 0
    tolerant: bool = False
    """Whether bad tokens are left out and named; else one fails all."""


class Tpns:
    """TPNS as its pages describe it, for tokens; other audiences are wrong parameters here.

    Undocumented and therefore ours: a clock at most five minutes off, status 200 for every answer, and that a request
    whose tokens are all invalid is accepted.
    """

    name: ClassVar[str] = "tpns"
    http1: ClassVar[bool] = True
    max_streams: ClassVar[int] = 128
    refusals: ClassVar[frozenset[str]] = (frozenset(CODES) | {INVALID_LIST}) - {"0"}
    deaths: ClassVar[frozenset[str]] = frozenset({INVALID_LIST, "1008006", "1008029", "10010005", "10110008"})
    throttled: ClassVar[str] = "1008028"
    address_bound: ClassVar[bool] = False

    def __init__(self) -> None:
        self._apps: dict[str, _App] = {}
        self._numbers = itertools.count(4_100_000_001)

    @classmethod
    def issue(cls, base_url: str, options: Mapping[str, Any]) -> Issued:
        """An Access ID with its secret key; options ``access_id``, ``platform`` (``android``, ``ios``)."""
        return _issue(**options)

    def register(self, public: Mapping[str, Any]) -> None:
        """Know an app by its id; the secret key checks its signatures."""
        secret_key = public["secret"].decode()
        self._apps[public["access_id"]] = _App(public["access_id"], secret_key, public["platform"] == "ios")

    def read(self, request: Request, now_s: float) -> Call | Response:
        """The push in *request*, or TPNS' refusal of it."""
        if request.path != _PATH or request.method != "POST":
            return Response(404, "404")
        app = self._apps.get(request.headers.get("accessid", ""))
        if app is None:
            return self._coded("1008035")
        if not _signed(request, app, now_s):
            return self._coded("1008003")
        content = parse_object(request.body)
        if content is None:
            return self._coded("1008001")
        code = _audience_flaw(content) or _push_flaw(content, app.ios) or _message_flaw(content["message"], app.ios)
        return self._coded(code, content.get("seq", 0)) if code else _push(content, app)

    def answer(self, call: Call, dead: Mapping[str, Death], now_s: float) -> Response:
        """Accepted, the dead tokens named; refused where one may not fail alone."""
        if dead and not (isinstance(call, _Push) and call.tolerant):
            return self.refuse("1008029", call, now_s)
        return self._accepted(call, [token for token in call.tokens if token in dead])

    def refuse(self, code: str, call: Call, now_s: float) -> Response:
        """The refusal with *code*; the name of the list puts every token there."""
        if code == INVALID_LIST:
            return self._accepted(call, list(call.tokens))
        return self._coded(code, call.seq if isinstance(call, _Push) else 0)

    def expire_auth(self) -> None:
        """Nothing to forget: every request is signed anew."""

    def _accepted(self, call: Call, invalid: list[str]) -> Response:
        named = {INVALID_LIST: invalid} if invalid else {}
        code = INVALID_LIST if invalid else "0"
        return self._coded(code, call.seq if isinstance(call, _Push) else 0, push_id=str(next(self._numbers)), **named)

    def _coded(self, code: str, seq: int = 0, push_id: str = "", **more: object) -> Response:
        number, said = (int(code), CODES[code]) if code in CODES else (0, "")
        content = {"seq": seq, "push_id": push_id, "ret_code": number, "environment": "", "err_msg": said, "result": ""}
        return json_response(200, "accepted" if code == "0" else code, {**content, **more})


def _issue(access_id: str = "1500000001", platform: str = "android") -> Issued:
    known = {"access_id": access_id, "platform": platform}
    return Issued(access_id, known, known, {f"{access_id}.secret": secrets.token_hex(16).encode()})


def _signed(request: Request, app: _App, now_s: float) -> bool:
    stamp = request.headers.get("timestamp", "")
    if not (stamp.isascii() and stamp.isdecimal()) or abs(now_s - int(stamp[:12])) > CLOCK_SKEW_S:
        return False
    signed = stamp.encode() + app.access_id.encode() + request.body
    digest = hmac.new(app.secret_key.encode(), signed, sha256).hexdigest()
    return hmac.compare_digest(b64encode(digest.encode()), request.headers.get("sign", "").encode())


def _audience_flaw(content: Mapping[str, Any]) -> str:
    if "audience_type" not in content or "token_list" not in content:
        return _MISSING
    tokens = content["token_list"]
    if content["audience_type"] not in ("token", "token_list") or not isinstance(tokens, list):
        return _WRONG
    if not 1 <= len(tokens) <= TOKENS_MAX or not whole(content.get("ignore_invalid_token", 0), 0, 1):
        return _WRONG
    sound = all(isinstance(token, str) and 1 <= len(token) <= TOKEN_CHARS_MAX for token in tokens)
    return "" if sound else _WRONG


def _push_flaw(content: Mapping[str, Any], ios: bool) -> str:
    if "message_type" not in content or "message" not in content or (ios and "environment" not in content):
        return _MISSING
    if content["message_type"] not in ("notify", "message") or not isinstance(content["message"], dict):
        return _WRONG
    if ios and content["environment"] not in ("product", "dev"):
        return _WRONG
    if not whole(content.get("expire_time", EXPIRE_S_MAX), 0, EXPIRE_S_MAX) or not whole(
        content.get("seq", 0), 0, 2**31 - 1
    ):
        return _WRONG
    return ""


def _message_flaw(message: Mapping[str, Any], ios: bool) -> str:
    if not text(message.get("title")) or not text(message.get("content")) or (ios and "ios" not in message):
        return _MISSING
    if not isinstance(message.get("thread_id", ""), str) or not isinstance(message.get("xg_media_resources", ""), str):
        return _WRONG
    if ios:
        return _ios_flaw(message["ios"]) or _shown_flaw(message)
    android = message.get("android", {})
    return _WRONG if not isinstance(android, dict) else _android_flaw(android) or _shown_flaw(android)


def _shown_flaw(holder: Mapping[str, Any]) -> str:
    return "" if whole(holder.get("show_type", 2), 1, 2) else _WRONG


def _android_flaw(android: Mapping[str, Any]) -> str:
    if any(not isinstance(android.get(name, ""), str) for name in (*_CHANNELS, "custom_content")):
        return _WRONG
    if android.get("vivo_ch_id", "0") not in ("0", "1") or not whole(android.get("hw_importance", 2), 1, 2):
        return _WRONG
    if not whole(android.get("badge_type", -1), -2, 99):
        return _WRONG
    action = android.get("action", {"action_type": 1})
    if not isinstance(action, dict) or not whole(action.get("action_type"), 1, 3):
        return _WRONG
    return _WRONG if action["action_type"] == 3 and not text(action.get("intent")) else ""


def _ios_flaw(ios: object) -> str:
    aps = table(table(ios).get("aps"))
    if not isinstance(aps.get("alert"), dict):
        return _MISSING
    if any(not isinstance(aps.get(name, ""), str) for name in ("sound", "category")):
        return _WRONG
    if aps.get("interruption-level", "active") not in _LEVELS or not whole(aps.get("mutable-content", 0), 0, 1):
        return _WRONG
    return "" if whole(aps.get("badge_type", -1), -2, 2**31 - 1) else _WRONG


def _push(content: Mapping[str, Any], app: _App) -> _Push:
    message = content["message"]
    tokens = content["token_list"]
    platform = table(message.get("ios" if app.ios else "android"))
    custom = parse_object(text(platform.get("custom_content")).encode()) or {}
    intent = text(table(platform.get("action")).get("intent"))
    return _Push(
        account=app.access_id,
        tokens=tuple(tokens[:1] if content["audience_type"] == "token" else tokens),
        title=message["title"],
        body=message["content"],
        sent_id=str(content.get("seq", "")),
        data={**custom, **parse_form(urlsplit(intent).query.encode())},
        seq=content.get("seq", 0),
        tolerant=content.get("ignore_invalid_token", 0) == 1,
    )
