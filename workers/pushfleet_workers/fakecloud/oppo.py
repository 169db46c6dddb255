"""OPPO push: auth tokens by sha256 signature, single messages and batches of different ones."""

from __future__ import annotations

import hmac
import itertools
import json
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
    words,
)

__all__ = ["CODES", "Oppo"]

CODES: dict[str, str] = {
    "-1": "Service is currently unavailable",
    "-2": "Service is in flow control",
    "11": "Invalid auth_token",
    "12": "Http action not allowed",
    "13": "App call limited",
    "14": "Invalid app key",
    "15": "Missing app key",
    "16": "Invalid signature",
    "17": "Missing signature",
    "18": "Missing timestamp",
    "19": "Invalid timestamp",
    "20": "Invalid method",
    "21": "Missing method",
    "22": "Invalid version",
    "23": "Missing version",
    "24": "Unsupported version",
    "25": "Invalid encoding",
    "26": "IP black list",
    "27": "Access denied",
    "28": "App disabled",
    "29": "Missing auth token",
    "30": "API permission denied",
    "31": "Data not exist",
    "32": "Data duplicate",
    "33": "The number of messages exceeds the daily limit",
    "34": "The number of uploads exceeds the daily limit",
    "40": "Missing required arguments",
    "41": "Invalid arguments",
    "51": "Invalid picture",
    "54": "private_msg_template_id is null",
    "55": "App call frequency limited",
    "59": "No right for secondary links",
    "67": "Invalid category or notify_level",
    "10000": "Invalid Registration_id",
    "10001": "Refused for this target",
    "10002": "Refused for this target",
    "10003": "Refused for this target",
    "10004": "Refused for this target",
    "10005": "Refused for this target",
    "10999": "Something new",
}
"""Codes and texts; every answer is HTTP 200. The last code stands for what is not written anywhere."""

MESSAGES_PATH = "/server/v1/message/notification/"
TOKEN_LIFE_S = 86_400
SIGNATURE_LIFE_MS = 600_000
CLOCK_SKEW_MS = 10_000
BATCH_MAX = 1_000
REMEMBERED_MAX = 100_000

SERVICE = words("IM ACCOUNT TODO DEVICE_REMINDER ORDER SUBSCRIPTION")
MARKETING = words("NEWS CONTENT MARKETING SOCIAL")

LENGTHS = {
    "title": 50,
    "sub_title": 10,
    "click_action_activity": 500,
    "click_action_url": 2_000,
    "action_parameters": 4_000,
    "call_back_url": 200,
    "call_back_parameter": 50,
    "app_message_id": 256,
    "channel_id": 256,
    "time_zone": 40,
    "category": 64,
    "private_msg_template_id": 256,
    "private_title_parameters": 4_000,
    "private_content_parameters": 4_000,
}
"""Texts of a notification and their most characters, where OPPO names none a generous number."""

RANGES = {
    "style": (1, 2),
    "show_time_type": (0, 1),
    "show_start_time": (0, 9_999_999_999_999),
    "show_end_time": (0, 9_999_999_999_999),
    "off_line_ttl": (1, 2**31 - 1),
    "network_type": (0, 1),
    "show_ttl": (0, 172_800),
    "notify_id": (0, 2**31 - 1),
    "badge_operation_type": (0, 1),
    "badge_message_count": (0, 99),
}
CONTENT_CHARS_MAX = {1: 50, 2: 128}
CLICKS = {0: "", 1: "click_action_activity", 2: "click_action_url", 4: "click_action_activity", 5: "click_action_url"}
"""What a tap does, and the field that it needs."""

JSON_TEXTS = ("action_parameters", "private_title_parameters", "private_content_parameters")
FIELDS = {*LENGTHS, *RANGES, "content", "click_action_type", "off_line", "notify_level"}

_MILLIS = re.compile(r"[0-9]{13}").fullmatch


class _App(Struct, frozen=True):
    app_key: str
    master_secret: str


class _Access(Struct, frozen=True):
    app_key: str
    expires_s: float


class Oppo:
    """OPPO push as its pages and its server SDK describe it.

    A message that was answered is remembered by its ``app_message_id``; a repeat to the same device is answered 32.
    Undocumented and therefore ours: that answer, 404 for an unknown address, a clock ten seconds ahead, and that a
    message of a batch that is not in order fails alone.
    """

    name: ClassVar[str] = "oppo"
    http1: ClassVar[bool] = True
    max_streams: ClassVar[int] = 128
    refusals: ClassVar[frozenset[str]] = frozenset(CODES)
    deaths: ClassVar[frozenset[str]] = frozenset({"10000"})
    throttled: ClassVar[str] = "13"
    address_bound: ClassVar[bool] = False

    def __init__(self) -> None:
        self._apps: dict[str, _App] = {}
        self._access: dict[str, _Access] = {}
        self._taken: dict[tuple[str, str], None] = {}
        self._numbers = itertools.count(1)

    @classmethod
    def issue(cls, base_url: str, options: Mapping[str, Any]) -> Issued:
        """An AppKey and a MasterSecret; option ``app_key``."""
        return _issue(**options)

    def register(self, public: Mapping[str, Any]) -> None:
        """Know an app by its key; the secret checks its signatures."""
        self._apps[public["app_key"]] = _App(public["app_key"], public["secret"].decode())

    def read(self, request: Request, now_s: float) -> Call | Response:
        """The messages or the token request in *request*, or OPPO's refusal of it."""
        if request.method != "POST":
            return self._refusal("12")
        try:
            request.body.decode()
        except UnicodeDecodeError:
            return self._refusal("25")
        form = parse_form(request.body)
        if request.path == "/server/v1/auth":
            return self._read_auth(form, now_s)
        kind = request.path.removeprefix(MESSAGES_PATH)
        if request.path == kind or kind not in ("unicast", "unicast_batch"):
            return Response(404, "404")
        if not form.get("auth_token"):
            return self._refusal("29")
        access = self._access.get(form["auth_token"])
        if access is None or access.expires_s <= now_s:
            return self._refusal("11")
        if kind == "unicast":
            return self._read_one(form.get("message", ""), access.app_key)
        return self._read_batch(form.get("messages", ""), access.app_key)

    def answer(self, call: Call, dead: Mapping[str, Death], now_s: float) -> Response:
        """An auth token, the id of the message, or what became of each message of a batch."""
        if call.endpoint == "auth":
            return self._grant(call, now_s)
        if not call.parts:
            if dead:
                return self._refusal("10000")
            self._remember(call)
            return self._done({"messageId": self._message_id(call)})
        return self._done([self._item(part, dead) for part in call.parts])

    def refuse(self, code: str, call: Call, now_s: float) -> Response:
        """The refusal of the whole request with *code*."""
        return self._refusal(code)

    def expire_auth(self) -> None:
        """Forget all auth tokens."""
        self._access.clear()

    def _read_auth(self, form: Mapping[str, str], now_s: float) -> Call | Response:
        app = self._apps.get(form.get("app_key", ""))
        code = _auth_flaw(form, app, now_s)
        return self._refusal(code) if app is None or code else Call(app.app_key, endpoint="auth")

    def _grant(self, call: Call, now_s: float) -> Response:
        token = secrets.token_hex(32)
        self._access[token] = _Access(call.account, now_s + TOKEN_LIFE_S)
        return self._done({"auth_token": token, "create_time": int(now_s * 1_000)})

    def _read_one(self, raw: str, account: str) -> Call | Response:
        message = parse_object(raw.encode())
        if message is None:
            return self._refusal("41" if raw else "31")
        code = _message_flaw(message) or self._repeated(message)
        return self._refusal(code) if code else _call(message, account)

    def _read_batch(self, raw: str, account: str) -> Call | Response:
        try:
            messages = json.loads(raw)
        except ValueError:
            return self._refusal("41" if raw else "31")
        if not isinstance(messages, list) or not 1 <= len(messages) <= BATCH_MAX:
            return self._refusal("41")
        if any(not text(table(message).get("target_value")) for message in messages):
            return self._refusal("40")
        parts = []
        for message in messages:
            code = _message_flaw(message) or self._repeated(message)
            token = message["target_value"]
            # Who is refused alone gets nothing, and the answer says why.
            failed = Call(account, tokens=(token,), data={"errorCode": code}, dry_run=True)
            parts.append(failed if code else _call(message, account))
        return Call(account, tokens=tuple(message["target_value"] for message in messages), parts=tuple(parts))

    def _item(self, part: Call, dead: Mapping[str, Death]) -> dict[str, Any]:
        (token,) = part.tokens
        code = part.data["errorCode"] if part.dry_run else "10000" if token in dead else ""
        item = {"messageId": self._message_id(part), "registrationId": token}
        if code:
            return {**item, "errorCode": int(code), "errorMessage": CODES[code]}
        self._remember(part)
        return item

    def _repeated(self, message: Mapping[str, Any]) -> str:
        sent_id = message["notification"].get("app_message_id", "")
        return "32" if sent_id and (message["target_value"], sent_id) in self._taken else ""

    def _remember(self, part: Call) -> None:
        if part.sent_id:
            self._taken[part.tokens[0], part.sent_id] = None
            if len(self._taken) > REMEMBERED_MAX:
                del self._taken[next(iter(self._taken))]

    def _message_id(self, call: Call) -> str:
        return f"{call.account}-1-1-{next(self._numbers):024x}"

    def _done(self, data: object) -> Response:
        return json_response(200, "accepted", {"code": 0, "message": "success", "data": data})

    def _refusal(self, code: str) -> Response:
        return json_response(200, code, {"code": int(code), "message": CODES[code]})


def _issue(app_key: str = "") -> Issued:
    app_key, secret = app_key or secrets.token_hex(16), secrets.token_hex(16)
    known = {"app_key": app_key}
    return Issued(app_key, known, known, {f"{app_key}.secret": secret.encode()})


def _auth_flaw(form: Mapping[str, str], app: _App | None, now_s: float) -> str:
    for field, code in (("app_key", "15"), ("timestamp", "18"), ("sign", "17")):
        if not form.get(field):
            return code
    if app is None:
        return "14"
    stamp = form["timestamp"]
    if not _MILLIS(stamp) or not -CLOCK_SKEW_MS <= now_s * 1_000 - int(stamp) <= SIGNATURE_LIFE_MS:
        return "19"
    expected = sha256(f"{app.app_key}{stamp}{app.master_secret}".encode()).hexdigest()
    return "" if hmac.compare_digest(expected.encode(), form["sign"].encode()) else "16"


def _call(message: Mapping[str, Any], account: str) -> Call:
    notification = message["notification"]
    number = notification.get("notify_id")
    return Call(
        account=account,
        tokens=(message["target_value"],),
        title=notification["title"],
        body=notification["content"],
        sent_id=notification.get("app_message_id", ""),
        replace_key="" if number is None else str(number),
        data=parse_object(notification.get("action_parameters", "").encode()) or {},
        callback=_callback(notification),
    )


def _callback(notification: Mapping[str, Any]) -> dict[str, str]:
    """What asks for receipts; empty where nothing does."""
    if not notification.get("call_back_url"):
        return {}
    return {"url": notification["call_back_url"], "param": notification.get("call_back_parameter", "")}


def _message_flaw(message: Mapping[str, Any]) -> str:
    notification = message.get("notification")
    if message.get("target_type") is None or not text(message.get("target_value")) or notification is None:
        return "40"
    if message["target_type"] != 2 or not isinstance(message.get("verify_registration_id", False), bool):
        return "41"
    if not isinstance(notification, dict) or not notification.keys() <= FIELDS:
        return "41"
    if not notification.get("title") or not notification.get("content"):
        return "40"
    return _field_flaw(notification) or _click_flaw(notification) or _class_flaw(notification)


def _field_flaw(notification: Mapping[str, Any]) -> str:
    lengths = {**LENGTHS, "content": CONTENT_CHARS_MAX.get(notification.get("style", 1), 0)}
    for field, most in lengths.items():
        value = notification.get(field, "")
        if not isinstance(value, str) or len(value) > most:
            return "41"
    for field, (least, most) in RANGES.items():
        if field in notification and not whole(notification[field], least, most):
            return "41"
    if not isinstance(notification.get("off_line", True), bool):
        return "41"
    if notification.get("show_time_type") == 1 and not {"show_start_time", "show_end_time"} <= notification.keys():
        return "40"
    jsons = (notification[field] for field in JSON_TEXTS if notification.get(field))
    return "41" if any(parse_object(raw.encode()) is None for raw in jsons) else ""


def _click_flaw(notification: Mapping[str, Any]) -> str:
    needed = CLICKS.get(notification.get("click_action_type", 0))
    if needed is None:
        return "41"
    return "40" if needed and not notification.get(needed) else ""


def _class_flaw(notification: Mapping[str, Any]) -> str:
    category, level = notification.get("category"), notification.get("notify_level")
    if category is not None and category not in SERVICE | MARKETING:
        return "67"
    return "67" if level is not None and (level not in (1, 2, 16) or not category) else ""
