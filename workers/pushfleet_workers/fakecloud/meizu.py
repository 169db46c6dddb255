"""Meizu (Flyme) push: notifications to pushIds, every request signed with the app's secret."""

from __future__ import annotations

import hmac
import itertools
import re
import secrets
from collections.abc import Mapping
from hashlib import md5
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
    words,
)

__all__ = ["CODES", "VALUE_CODES", "Meizu"]

CODES: dict[str, str] = {
    "300": "redirect",
    "500": "failure",
    "1001": "system error",
    "1003": "server busy",
    "1005": "parameter error",
    "1006": "signature authentication failed",
    "110000": "appId is invalid",
    "110001": "appKey is invalid",
    "110002": "pushId is not registered",
    "110003": "pushId is illegal",
    "110004": "parameter is empty",
    "110009": "the app is in the blacklist",
    "110010": "the app sends too fast",
    "110019": "over the daily number of pushes",
    "110031": "packageName is illegal",
    "110032": "taskId is illegal",
    "110033": "appSecret is illegal",
    "110051": "over the number of pushes",
    "110053": "pass-through over the limit",
}
"""Every code of a whole answer with a text of ours; all come with status 200. Success is 200."""

VALUE_CODES = words("201 501 513 518 519 520 110002 110003 110005 110010 110011")
"""What tokens of an accepted request are named by; as refusals they are called ``value 201`` and so on."""

PUSH_IDS_MAX = 100

_PATH = "/garcia/api/server/push/varnished/pushByPushId"
_PARTS = words("noticeBarInfo noticeExpandInfo clickTypeInfo pushTimeInfo advanceInfo extra")
_NOTIFY_KEY = re.compile(r"[0-9A-Za-z_-]{1,8}").fullmatch
_WRONG, _EMPTY = "1005", "110004"


class _App(Struct, frozen=True):
    app_id: str
    secret: str


class Meizu:
    """Flyme push as its documents describe it; switches may be numbers or true and false, as both are in use.

    Undocumented and therefore ours: 1005 for more than 100 tokens and for fields that the documents do not have, 404
    with an empty body for an unknown address.
    """

    name: ClassVar[str] = "meizu"
    http1: ClassVar[bool] = True
    max_streams: ClassVar[int] = 128
    refusals: ClassVar[frozenset[str]] = frozenset(CODES) | {f"value {code}" for code in VALUE_CODES}
    deaths: ClassVar[frozenset[str]] = frozenset({"110002", "110003"})
    throttled: ClassVar[str] = "110010"
    address_bound: ClassVar[bool] = False

    def __init__(self) -> None:
        self._apps: dict[str, _App] = {}
        self._numbers = itertools.count(1)

    @classmethod
    def issue(cls, base_url: str, options: Mapping[str, Any]) -> Issued:
        """An app secret; option ``app_id``."""
        return _issue(**options)

    def register(self, public: Mapping[str, Any]) -> None:
        """Know an app by its id; the secret checks its signatures."""
        self._apps[public["app_id"]] = _App(public["app_id"], public["secret"].decode())

    def read(self, request: Request, now_s: float) -> Call | Response:
        """The push in *request*, or Meizu's refusal of it."""
        if request.method != "POST" or request.path != _PATH:
            return Response(404, "404")
        form = parse_form(request.body)
        app = self._apps.get(form.get("appId", ""))
        if app is None:
            return self._refusal("110000")
        if not hmac.compare_digest(_sign(form, app.secret), form.get("sign", "")):
            return self._refusal("1006")
        tokens = form.get("pushIds", "").split(",")
        message = parse_object(form.get("messageJson", "").encode())
        code = _tokens_flaw(tokens) or (_WRONG if message is None else _message_flaw(message))
        if code:
            return self._refusal(code)
        assert message is not None
        bar, click, advance = (table(message.get(name)) for name in ("noticeBarInfo", "clickTypeInfo", "advanceInfo"))
        return Call(
            account=app.app_id,
            tokens=tuple(tokens),
            title=bar["title"],
            body=bar["content"],
            replace_key=text(advance.get("notifyKey")),
            data=table(click.get("parameters")),
            callback=_callback(table(message.get("extra"))),
        )

    def answer(self, call: Call, dead: Mapping[str, Death], now_s: float) -> Response:
        """Success, with the dead tokens in ``value`` by code."""
        value: dict[str, list[str]] = {}
        for token in call.tokens:
            if token in dead:
                value.setdefault(dead[token].code or "110002", []).append(token)
        return self._accepted(value, "accepted" if len(dead) < len(call.tokens) else "110002")

    def refuse(self, code: str, call: Call, now_s: float) -> Response:
        """The refusal with *code*; ``value …`` names all tokens of the request in an answer that accepts it."""
        if code.startswith("value "):
            return self._accepted({code.removeprefix("value "): list(call.tokens)}, code)
        return self._refusal(code)

    def expire_auth(self) -> None:
        """Nothing: a secret does not expire."""

    def _accepted(self, value: Mapping[str, list[str]], result: str) -> Response:
        message_id = f"NS{next(self._numbers):012}_0_1_1_3"
        content = {"code": "200", "message": "", "value": value, "msgId": message_id, "redirect": ""}
        return json_response(200, result, content)

    def _refusal(self, code: str) -> Response:
        redirect = "http://server-api-push.example.com" if code == "300" else ""
        content = {"code": code, "message": CODES[code], "value": "", "redirect": redirect}
        return json_response(200, code, content)


def _issue(app_id: str = "100999") -> Issued:
    known = {"app_id": app_id}
    return Issued(app_id, known, known, {f"{app_id}.secret": secrets.token_hex(16).encode()})


def _sign(form: Mapping[str, str], secret: str) -> str:
    pairs = sorted((name, value) for name, value in form.items() if name != "sign")
    text_signed = "".join(f"{name}={value}" for name, value in pairs) + secret
    return md5(text_signed.encode(), usedforsecurity=False).hexdigest()


def _tokens_flaw(tokens: list[str]) -> str:
    if not all(tokens):
        return _EMPTY
    return _WRONG if len(tokens) > PUSH_IDS_MAX else ""


def _message_flaw(message: Mapping[str, Any]) -> str:
    bar = table(message.get("noticeBarInfo"))
    if not text(bar.get("title")).strip() or not text(bar.get("content")).strip():
        return _EMPTY
    flawless = (
        message.keys() <= _PARTS
        and all(isinstance(part, dict) for part in message.values())
        and _chars(bar["title"]) <= 32
        and _chars(bar["content"]) <= 100
        and _number(bar.get("noticeMsgType", 0), 0, 1)
        and bar.get("noticeBarType", 0) in (0, 2)
        and _expands(table(message.get("noticeExpandInfo")))
        and _opens(table(message.get("clickTypeInfo")))
        and _lasts(table(message.get("pushTimeInfo")))
        and _shows(table(message.get("advanceInfo")))
        and _calls_back(table(message.get("extra")))
    )
    return "" if flawless else _WRONG


def _expands(expand: Mapping[str, Any]) -> bool:
    # Big pictures are for apps with a contract.
    match expand.get("noticeExpandType", 0):
        case 0:
            return True
        case 1:
            return bool(text(expand.get("noticeExpandContent")))
    return False


def _opens(click: Mapping[str, Any]) -> bool:
    if not isinstance(click.get("parameters", {}), dict):
        return False
    match click.get("clickType", 0):
        case 0:
            return True
        case 1:
            return bool(text(click.get("activity")))
        case 2:
            return bool(text(click.get("url")))
    return False


def _lasts(time: Mapping[str, Any]) -> bool:
    return _switch(time.get("offLine", 1)) and _number(time.get("validTime", 24), 1, 72)


def _shows(advance: Mapping[str, Any]) -> bool:
    kinds = advance.get("notificationType", {})
    if not isinstance(kinds, dict) or not kinds.keys() <= {"vibrate", "lights", "sound"}:
        return False
    switches = [advance[name] for name in ("suspend", "clearNoticeBar") if name in advance]
    if not all(_switch(value) for value in (*switches, *kinds.values())):
        return False
    return "notifyKey" not in advance or _NOTIFY_KEY(text(advance["notifyKey"])) is not None


def _calls_back(extra: Mapping[str, Any]) -> bool:
    return len(text(extra.get("callback")).encode()) <= 128 and len(text(extra.get("callback.param")).encode()) <= 64


def _callback(extra: Mapping[str, Any]) -> dict[str, str]:
    """What asks for receipts; empty where nothing does."""
    if not text(extra.get("callback")):
        return {}
    return {
        "url": text(extra.get("callback")),
        "param": text(extra.get("callback.param")),
        "type": text(extra.get("callback.type")) or "3",
    }


def _switch(value: object) -> bool:
    return isinstance(value, int) and value in (0, 1)


def _number(value: object, least: int, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def _chars(value: str) -> int:
    """How many characters *value* has, as Java counts them."""
    return len(value.encode("utf-16-le", errors="surrogatepass")) // 2
