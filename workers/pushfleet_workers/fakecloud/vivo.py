"""vivo push: auth tokens by md5 signature, single pushes, and stored content for up to 1,000 devices."""

from __future__ import annotations

import hmac
import itertools
import secrets
from collections import deque
from collections.abc import Mapping
from hashlib import md5
from typing import Any, ClassVar

from msgspec import Struct
from msgspec.structs import replace

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

__all__ = ["CODES", "Vivo"]

CODES: dict[str, str] = {
    "10000": "authentication failed",
    "10040": "system resources are limited, please try again",
    "10043": "configuration error",
    "10045": "configuration error",
    "10050": "regId and alias are both empty",
    "10054": "notifyType is invalid",
    "10055": "title is empty",
    "10056": "title is too long",
    "10057": "content is empty",
    "10058": "content is too long",
    "10059": "timeToLive is invalid",
    "10060": "skipType is invalid",
    "10061": "skipContent is empty",
    "10062": "skipContent is too long",
    "10063": "skipContent is invalid",
    "10064": "skipContent is invalid",
    "10065": "networkType is invalid",
    "10066": "clientCustomMap has too many entries",
    "10067": "clientCustomMap is invalid",
    "10068": "skipContent is invalid",
    "10069": "skipContent is invalid",
    "10070": "the total of operation messages is over the limit",
    "10071": "outside the permitted sending hours",
    "10072": "sending too fast",
    "10073": "the total of system messages is over the limit",
    "10085": "the text breaks the content rules",
    "10093": "too many auth calls",
    "10094": "appId does not match the token",
    "10096": "category is invalid",
    "10097": "category and classification disagree",
    "10104": "the text breaks the content rules",
    "10150": "regIds and aliases are both empty",
    "10151": "taskId is empty or unknown",
    "10153": "regIds must be 2 to 1000",
    "10154": "aliases must be 2 to 1000",
    **{str(code): "auth parameter is missing or invalid" for code in range(10_200, 10_208)},
    "10252": "saveListPayload is over the limit",
    "10254": "the times of all are used up",
    "10301": "alias is too long",
    "10302": "regId is invalid",
    "10305": "callback is too long",
    "10306": "callback.param is too long",
    "10352": "requestId is empty",
    "10353": "requestId is too long",
    "10471": "too many taskIds",
    "10473": "no taskIds",
    "11000": "classification is invalid",
    "19999": "something new",
}
"""Codes and texts; every answer is HTTP 200. The last code stands for what is not written anywhere."""

STATUSES = {f"status {number}": number for number in range(1, 6)}
"""Refusals of single devices by the status in ``invalidUser``; 5 stands for what is not written anywhere."""

TOKEN_LIFE_S = 86_400
CLOCK_SKEW_MS = 600_000
AUTH_CALLS_PER_S = 10
LIST_MIN, LIST_MAX = 2, 1_000
TTL_S_MIN, TTL_S_MAX = 60, 86_400
SKIP_CONTENT_MAX = 1_024
EXTRAS_CHARS_MAX, EXTRAS_MAX = 1_024, 10

SYSTEM = words("IM ACCOUNT TODO DEVICE_REMINDER ORDER SUBSCRIPTION")
OPERATION = words("NEWS CONTENT MARKETING SOCIAL")


class _App(Struct, frozen=True):
    app_id: int
    app_key: str
    app_secret: str
    test_devices: frozenset[str]
    auth_calls_s: deque[float]
    """When its latest auth tokens were asked for."""


class _Access(Struct, frozen=True):
    app_id: int
    expires_s: float


class Vivo:
    """vivo push as its pages and its server SDK describe it.

    Of its text rules it has those on brackets, on the word for test, and on texts without any letter; the one on
    texts of Latin letters alone would refuse most foreign names. Undocumented and therefore ours: the codes of
    missing auth parameters, 10067 for a wrong ``notifyId`` or ``foregroundShow``, and 404 for an unknown address.
    """

    name: ClassVar[str] = "vivo"
    http1: ClassVar[bool] = True
    max_streams: ClassVar[int] = 128
    refusals: ClassVar[frozenset[str]] = frozenset(CODES) | frozenset(STATUSES)
    deaths: ClassVar[frozenset[str]] = frozenset({"10302", "status 1", "status 2", "status 3"})
    throttled: ClassVar[str] = "10072"
    address_bound: ClassVar[bool] = False

    def __init__(self) -> None:
        self._apps: dict[int, _App] = {}
        self._access: dict[str, _Access] = {}
        self._stored: dict[str, Call] = {}
        self._numbers = itertools.count(900_000_000_000_000_001)

    @classmethod
    def issue(cls, base_url: str, options: Mapping[str, Any]) -> Issued:
        """An app id, key and secret; options ``app_id``, ``test_devices``."""
        return _issue(**options)

    def register(self, public: Mapping[str, Any]) -> None:
        """Know an app by its ids and its test devices; the secret checks its signatures."""
        app_id = public["app_id"]
        devices = frozenset(public["test_devices"])
        self._apps[app_id] = _App(app_id, public["app_key"], public["secret"].decode(), devices, deque())

    def read(self, request: Request, now_s: float) -> Call | Response:
        """The push, the content or the token request in *request*, or vivo's refusal of it."""
        paths = ("/message/auth", "/message/send", "/message/saveListPayload", "/message/pushToList")
        if request.method != "POST" or request.path not in paths:
            return Response(404, "404")
        content = parse_object(request.body) or {}
        if request.path == paths[0]:
            return self._read_auth(content, now_s)
        access = self._access.get(request.headers.get("authtoken", ""))
        if access is None or access.expires_s <= now_s:
            return self._refusal("10000")
        app = self._apps[access.app_id]
        if content.get("appId") != app.app_id:
            return self._refusal("10094")
        if request.path == paths[3]:
            return self._read_list(content, app)
        single = request.path == paths[1]
        code = _target_flaw(content) if single else ""
        code = code or _content_flaw(content)
        if code:
            return self._refusal(code)
        call = _call(content, app)
        return self._to(call, (content["regId"],), content, app) if single else replace(call, endpoint="stage")

    def answer(self, call: Call, dead: Mapping[str, Death], now_s: float) -> Response:
        """An auth token, the id of stored content, or acceptance with the devices that are refused."""
        if call.endpoint == "auth":
            return self._grant(call, now_s)
        if call.endpoint == "stage":
            task_id = str(next(self._numbers))
            self._stored[task_id] = replace(call, endpoint="send")
            return self._done(taskId=task_id)
        refused = {token: STATUSES.get(death.code, 1) for token, death in dead.items()}
        refused |= {token: 4 for part in call.parts if part.dry_run for token in part.tokens}
        return self._sent(call, refused)

    def refuse(self, code: str, call: Call, now_s: float) -> Response:
        """The refusal with *code*; a status refuses every device with it."""
        if code in STATUSES:
            return self._sent(call, dict.fromkeys(call.tokens, STATUSES[code]))
        return self._refusal(code)

    def expire_auth(self) -> None:
        """Forget all auth tokens."""
        self._access.clear()

    def _read_auth(self, content: Mapping[str, Any], now_s: float) -> Call | Response:
        code = _auth_flaw(content, now_s)
        app = self._apps.get(_number(content.get("appId")))
        if code or app is None:
            return self._refusal(code or "10000")
        while app.auth_calls_s and app.auth_calls_s[0] <= now_s - 1:
            app.auth_calls_s.popleft()
        if len(app.auth_calls_s) >= AUTH_CALLS_PER_S:
            return self._refusal("10093")
        app.auth_calls_s.append(now_s)
        signed = f"{app.app_id}{app.app_key}{content['timestamp']}{app.app_secret}"
        expected = md5(signed.encode(), usedforsecurity=False).hexdigest()
        good = content["appKey"] == app.app_key and hmac.compare_digest(expected.encode(), content["sign"].encode())
        return Call(str(app.app_id), endpoint="auth") if good else self._refusal("10000")

    def _grant(self, call: Call, now_s: float) -> Response:
        token = secrets.token_hex(32)
        self._access[token] = _Access(int(call.account), now_s + TOKEN_LIFE_S)
        return self._done(authToken=token)

    def _read_list(self, content: Mapping[str, Any], app: _App) -> Call | Response:
        tokens = content.get("regIds", [])
        stored = self._stored.get(text(content.get("taskId")))
        code = _list_flaw(tokens) or _frame_flaw(content)
        if code or stored is None or stored.account != str(app.app_id):
            return self._refusal(code or "10151")
        return self._to(replace(stored, sent_id=content["requestId"]), tuple(tokens), content, app)

    def _to(self, call: Call, tokens: tuple[str, ...], content: Mapping[str, Any], app: _App) -> Call:
        """*call* for *tokens*; of a test message only the app's test devices get anything."""
        call = replace(call, tokens=tokens)
        if content.get("pushMode", 0) == 0:
            return call
        known = tuple(token for token in tokens if token in app.test_devices)
        others = tuple(token for token in tokens if token not in app.test_devices)
        return replace(call, parts=(replace(call, tokens=known), Call(call.account, tokens=others, dry_run=True)))

    def _sent(self, call: Call, refused: Mapping[str, int]) -> Response:
        users = [{"status": refused[token], "userid": token} for token in call.tokens if token in refused]
        if len(call.tokens) > 1:
            return self._done(requestId=call.sent_id, **({"invalidUsers": users} if users else {}))
        if users:
            return json_response(200, "10302", {"result": 10302, "desc": CODES["10302"], "invalidUser": users[0]})
        return self._done(taskId=str(next(self._numbers)))

    def _done(self, **fields: Any) -> Response:
        return json_response(200, "accepted", {"result": 0, "desc": "success", **fields})

    def _refusal(self, code: str) -> Response:
        return json_response(200, code, {"result": int(code), "desc": CODES[code]})


def _issue(app_id: int = 100_001, test_devices: tuple[str, ...] = ()) -> Issued:
    app_key, secret = secrets.token_hex(16), secrets.token_hex(16)
    known = {"app_id": app_id, "app_key": app_key, "test_devices": list(test_devices)}
    settings = {"app_id": str(app_id), "app_key": app_key}
    return Issued(str(app_id), known, settings, {f"{app_id}.secret": secret.encode()})


def _number(value: object) -> int:
    """An app id, which comes as number or as text; 0: none."""
    return int(value) if whole(value, 1, 2**63) or text(value).isdecimal() else 0  # type: ignore[call-overload]


def _auth_flaw(content: Mapping[str, Any], now_s: float) -> str:
    if not _number(content.get("appId")):
        return "10200"
    for field, code in (("appKey", "10201"), ("sign", "10202")):
        if not text(content.get(field)):
            return code
    stamp = content.get("timestamp")
    if not isinstance(stamp, int) or isinstance(stamp, bool):
        return "10203"
    return "10204" if abs(now_s * 1_000 - stamp) > CLOCK_SKEW_MS else ""


def _call(content: Mapping[str, Any], app: _App) -> Call:
    number = content.get("notifyId")
    return Call(
        account=str(app.app_id),
        title=content["title"],
        body=content["content"],
        sent_id=content["requestId"],
        replace_key="" if number is None else str(number),
        data=content.get("clientCustomMap", {}),
        callback=_callback(table(content.get("extra"))),
    )


def _callback(extra: Mapping[str, Any]) -> dict[str, str]:
    """What asks for receipts: an address, or the id of one that the console knows."""
    if not text(extra.get("callback")) and not text(extra.get("callback.id")):
        return {}
    return {"url": text(extra.get("callback")), "param": text(extra.get("callback.param"))}


def _target_flaw(content: Mapping[str, Any]) -> str:
    extra = table(content.get("extra"))
    if not text(content.get("regId")):
        return "10050"
    if len(text(extra.get("callback"))) > 128:
        return "10305"
    return "10306" if len(text(extra.get("callback.param"))) > 64 else ""


def _list_flaw(tokens: object) -> str:
    if not tokens:
        return "10150"
    sound = isinstance(tokens, list) and LIST_MIN <= len(tokens) <= LIST_MAX and all(map(text, tokens))
    return "" if sound else "10153"


def _frame_flaw(content: Mapping[str, Any]) -> str:
    request_id = text(content.get("requestId"))
    if not request_id or len(request_id) > 64:
        return "10353" if request_id else "10352"
    return "" if whole(content.get("pushMode", 0), 0, 1) else "10067"


def _content_flaw(content: Mapping[str, Any]) -> str:
    if not whole(content.get("notifyType"), 1, 4):
        return "10054"
    if not whole(content.get("timeToLive", TTL_S_MAX), TTL_S_MIN, TTL_S_MAX):
        return "10059"
    if content.get("networkType", -1) not in (-1, 1):
        return "10065"
    if not whole(content.get("notifyId", 1), 1, 2**31 - 1) or not isinstance(content.get("foregroundShow", True), bool):
        return "10067"
    return (
        _text_flaw(content)
        or _skip_flaw(content)
        or _extras_flaw(content.get("clientCustomMap", {}))
        or _class_flaw(content)
        or _frame_flaw(content)
    )


def _text_flaw(content: Mapping[str, Any]) -> str:
    for field, most, empty, long in (("title", 40, "10055", "10056"), ("content", 100, "10057", "10058")):
        value = text(content.get(field))
        if not value.strip():
            return empty
        if len(value) + sum(not character.isascii() for character in value) > most:
            return long
        real = content.get("pushMode", 0) == 0
        if real and ("测试" in value or set(value) & set("[]{}") or not any(map(str.isalpha, value))):
            return "10085"
    return ""


def _skip_flaw(content: Mapping[str, Any]) -> str:
    kind, target = content.get("skipType"), text(content.get("skipContent"))
    if not whole(kind, 1, 4):
        return "10060"
    if kind != 1 and not target:
        return "10061"
    return "10062" if len(target) > SKIP_CONTENT_MAX else ""


def _extras_flaw(extras: object) -> str:
    if not isinstance(extras, dict) or not all(isinstance(value, str) for value in extras.values()):
        return "10067"
    chars = sum(len(name) + len(value) for name, value in extras.items())
    return "10066" if len(extras) > EXTRAS_MAX or chars > EXTRAS_CHARS_MAX else ""


def _class_flaw(content: Mapping[str, Any]) -> str:
    category, classification = content.get("category"), content.get("classification")
    if classification is not None and not whole(classification, 0, 1):
        return "11000"
    if category is None:
        return ""
    if category not in SYSTEM | OPERATION:
        return "10096"
    return "10097" if classification is not None and classification != (category in SYSTEM) else ""
