"""Xiaomi MiPush: regids with one content or each with its own, a static secret, channels with text templates."""

from __future__ import annotations

import hmac
import itertools
import json
import re
import secrets
from collections.abc import Mapping
from typing import Any, ClassVar
from unicodedata import category

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

__all__ = ["CHANNELS", "CODES", "Xiaomi"]

CODES: dict[str, str] = {
    "-1": "unknown error",
    "1": "unknown error",
    "10001": "system error",
    "10002": "system busy",
    "10003": "remote service error",
    "10008": "parameter error",
    "10012": "illegal request",
    "10016": "missing required parameter",
    "10017": "illegal parameter value",
    "10027": "API calls are too frequent",
    "10029": "invalid device",
    "10030": "feedback limit",
    "10031": "the app is in the blacklist",
    "10032": "feedback limit",
    "10033": "feedback limit",
    "10034": "too many messages today",
    "10035": "feedback limit",
    "10036": "operation forbidden",
    "10037": "request expired",
    "10038": "trace API forbidden",
    "10039": "trace API too frequent",
    "20301": "send failed",
    "20607": "database error",
    "21301": "authentication failed",
    "21302": "token authentication failed",
    "21303": "restricted request",
    "21305": "parameter error",
    "22000": "illegal app",
    "22006": "illegal app id",
    "22007": "illegal app key",
    "22022": "illegal package name",
    "22102": "failed to send app notification",
    "26003": "internal push call failed",
    "26004": "broadcasts are too frequent",
    "26006": "the message needs a review",
    "27001": "channel information mismatch",
    "65003": "device not found",
    "65006": "alias error",
    "65007": "alias error",
    "65008": "alias error",
    "65009": "message too long",
    "65010": "topic error",
    "65011": "illegal parameter",
    "65012": "topic error",
    "65013": "topic error",
    "65014": "too many extras",
    "65015": "extras too long",
    "65016": "account error",
    "65017": "account error",
    "65029": "remote service failure",
    "65030": "JSON failure",
    "65035": "account error",
    "65036": "callback param too long",
    "65037": "callback URL too long",
    "65038": "callback URL illegal",
    "200001": "daily quota exceeded",
    "200002": "QPS exceeded",
}
"""Every code with a text of ours; all come with status 200. Success is 0."""

CHANNELS: dict[str, dict[str, list[str]]] = {
    "100001": {"M00001": ["keywords1", "keywords2"]},
    "100002": {"M00002": ["keywords1", "keywords2", "keywords3"]},
    "100003": {"M00003": ["keywords1"]},
    "100004": {},
    "100005": {},
}
"""What an app has unless told otherwise: three private channels with their templates and variables, two public ones."""

REGIDS_MAX = 1_000
TTL_MS_MAX = 864_000_000
OWN_EXTRAS_MAX = 10
EVERY_RECEIPT = 1_267

_SINGLE = ("/v3/message/regid", "/v2/message/regid")
_MULTI = ("/v2/multi_messages/regids", "/v3/multi_messages/regids")
_EXTRAS = words(
    "notify_effect intent_uri web_uri notify_foreground channel_id channel_name channel_description template_id "
    "template_param sound_uri ticker flow_control jobkey only_send_once callback callback.param callback.type locale "
    "locale_not_in model model_not_in app_version app_version_not_in connpt"
)
_JOBKEY = re.compile(r"[0-9A-Za-z-][0-9A-Za-z_-]{0,19}").fullmatch
_WHOLE = re.compile(r"-?[0-9]{1,18}").fullmatch
_EMOJI = re.compile("[\ufe0f\u20e3\U0001f3fb-\U0001f3ff]")


class _App(Struct, frozen=True):
    package_name: str
    secret: str
    channels: dict[str, dict[str, list[str]]]


class Xiaomi:
    """MiPush as its pages describe it.

    Undocumented and therefore ours: status 200 for a refused secret, 27001 for a template of another channel, 10017 for
    what does not fill it, no names of dead tokens where each target has a message of its own.
    """

    name: ClassVar[str] = "xiaomi"
    http1: ClassVar[bool] = True
    max_streams: ClassVar[int] = 128
    refusals: ClassVar[frozenset[str]] = frozenset(CODES)
    deaths: ClassVar[frozenset[str]] = frozenset({"20301"})
    throttled: ClassVar[str] = "200002"
    address_bound: ClassVar[bool] = False

    def __init__(self) -> None:
        self._apps: dict[str, _App] = {}
        self._numbers = itertools.count(1)

    @classmethod
    def issue(cls, base_url: str, options: Mapping[str, Any]) -> Issued:
        """An AppSecret; options ``package_name``, ``channels`` (as :data:`CHANNELS`)."""
        return _issue(**options)

    def register(self, public: Mapping[str, Any]) -> None:
        """Know an app by its package, its channels and its secret."""
        app = _App(public["package_name"], public["secret"].decode(), public["channels"])
        self._apps[app.package_name] = app

    def read(self, request: Request, now_s: float) -> Call | Response:
        """The push in *request*, or Xiaomi's refusal of it."""
        if request.method != "POST" or request.path not in (*_SINGLE, *_MULTI):
            return Response(404, "404")
        app = self._sender(request.headers.get("authorization", ""))
        if app is None:
            return self._refusal("21301")
        if not request.headers.get("content-type", "").startswith("application/x-www-form-urlencoded"):
            return self._refusal("10008")
        form = parse_form(request.body)
        return self._read_multi(form, app) if request.path in _MULTI else self._read_single(form, app)

    def answer(self, call: Call, dead: Mapping[str, Death], now_s: float) -> Response:
        """Success, with the dead tokens in ``bad_regids``; 20301 when all are dead."""
        bad = [token for token in call.tokens if token in dead]
        if len(bad) == len(call.tokens):
            return self._refusal("20301")
        return self._success({"bad_regids": ",".join(bad)} if bad and call.names_dead else {})

    def refuse(self, code: str, call: Call, now_s: float) -> Response:
        """The refusal with *code*; a request of many messages never gets 200001 but counts what was above the quota."""
        if code == "200001" and call.parts:
            return self._success({"channel_exceed_quota": f"a:{len(call.tokens)}"}, code)
        return self._refusal(code)

    def expire_auth(self) -> None:
        """Nothing: a secret does not expire."""

    def _sender(self, authorization: str) -> _App | None:
        scheme, _, secret = authorization.partition("=")
        if scheme != "key":
            return None
        given = secret.encode()
        return next((app for app in self._apps.values() if hmac.compare_digest(app.secret.encode(), given)), None)

    def _read_single(self, form: Mapping[str, str], app: _App) -> Call | Response:
        tokens = form.get("registration_id", "").split(",")
        extra = {name.removeprefix("extra."): value for name, value in form.items() if name.startswith("extra.")}
        code = _tokens_flaw(tokens) or _message_flaw(form, extra, app)
        return self._refusal(code) if code else _call(app, tuple(tokens), form, extra)

    def _read_multi(self, form: Mapping[str, str], app: _App) -> Call | Response:
        listed = _list(form.get("messages", ""))
        if not listed or len(listed) > REGIDS_MAX or form.get("time_to_send") != "0":
            return self._refusal("10017" if listed else "10016")
        parts: list[Call] = []
        for one in listed:
            told = table(table(one).get("message"))
            token = text(table(one).get("target"))
            message = {name: str(value) for name, value in told.items() if isinstance(value, str | int)}
            extra = table(told.get("extra"))
            if any(not isinstance(value, str) for value in extra.values()):
                return self._refusal("10017")
            code = _tokens_flaw([token]) or _message_flaw(message, extra, app)
            if code:
                return self._refusal(code)
            parts.append(_call(app, (token,), message, extra))
        tokens = tuple(token for part in parts for token in part.tokens)
        return Call(app.package_name, tokens=tokens, parts=tuple(parts), names_dead=False)

    def _success(self, told: Mapping[str, str], result: str = "accepted") -> Response:
        number = next(self._numbers)
        content = {
            "result": "ok",
            "code": 0,
            "trace_id": f"Xfake{number:08}",
            "description": "success",
            "info": "Received push messages",
            "data": {"id": f"fakemsg{number:08}", "day_quota": "20000", "day_acked": "1200", **told},
        }
        return json_response(200, result, content)

    def _refusal(self, code: str) -> Response:
        reason = {"20301": "No valid targets!", "200001": "exceed quota, quota: 20000, have acked: 20000"}
        content = {
            "result": "error",
            "code": int(code),
            "reason": reason.get(code, CODES[code]),
            "trace_id": f"Xfake{next(self._numbers):08}",
            "description": CODES[code],
        }
        return json_response(200, code, content)


def _issue(package_name: str = "com.example.im", channels: dict[str, dict[str, list[str]]] | None = None) -> Issued:
    known = {"package_name": package_name, "channels": CHANNELS if channels is None else channels}
    secret = secrets.token_urlsafe(24).encode()
    return Issued(package_name, known, {"package_name": package_name}, {f"{package_name}.secret": secret})


def _call(app: _App, tokens: tuple[str, ...], message: Mapping[str, str], extra: Mapping[str, str]) -> Call:
    return Call(
        account=app.package_name,
        tokens=tokens,
        title=message["title"],
        body=message["description"],
        sent_id=extra.get("jobkey", ""),
        replace_key=message.get("notify_id", ""),
        callback=_callback(extra),
        data=parse_object(message.get("payload", "").encode()) or {},
    )


def _tokens_flaw(tokens: list[str]) -> str:
    if tokens == [""]:
        return "10016"
    return "" if len(tokens) <= REGIDS_MAX and all(tokens) else "10017"


def _message_flaw(message: Mapping[str, str], extra: Mapping[str, str], app: _App) -> str:
    if any(not message.get(name) for name in ("title", "description", "restricted_package_name")):
        return "10016"
    if message["restricted_package_name"] != app.package_name:
        return "22022"
    flawless = (
        _shorter(message["title"], 50)
        and _shorter(message["description"], 128)
        and message.get("pass_through", "0") == "0"
        and _between(message.get("notify_type", "-1"), -1, 7)
        and _between(message.get("notify_id", "0"), 0, 2**31 - 1)
        and _between(message.get("time_to_live", "1"), 1, TTL_MS_MAX)
    )
    return _extra_flaw(extra, app) if flawless else "10017"


def _extra_flaw(extra: Mapping[str, str], app: _App) -> str:
    own = {name: value for name, value in extra.items() if name not in _EXTRAS}
    if len(own) > OWN_EXTRAS_MAX:
        return "65014"
    if any(len(name) >= 1_024 or len(value) >= 1_024 for name, value in own.items()):
        return "65015"
    needed = {"1": "notify_effect", "2": "intent_uri", "3": "web_uri"}.get(extra.get("notify_effect", ""))
    if needed is None:
        return "10017"
    if not extra.get(needed):
        return "10016"
    uri = extra.get("sound_uri", f"android.resource://{app.package_name}/raw/")
    flawless = (
        extra.get("notify_foreground", "1") in ("0", "1")
        and ("jobkey" not in extra or _JOBKEY(extra["jobkey"]) is not None)
        and uri.startswith(f"android.resource://{app.package_name}/raw/")
    )
    return (_receipt_flaw(extra) or _class_flaw(extra, app)) if flawless else "10017"


def _callback(extra: Mapping[str, str]) -> dict[str, str]:
    """What asks for receipts; empty where nothing does."""
    if not extra.get("callback"):
        return {}
    param, asked = extra.get("callback.param", ""), extra.get("callback.type", "3")
    return {"url": extra["callback"], "param": param, "type": asked}


def _receipt_flaw(extra: Mapping[str, str]) -> str:
    url = extra.get("callback", "")
    if len(url.encode()) > 128:
        return "65037"
    if url and not url.startswith(("http://", "https://")):
        return "65038"
    if len(extra.get("callback.param", "").encode()) > 64:
        return "65036"
    asked = extra.get("callback.type", "3")
    return "" if asked.isdecimal() and int(asked) and not int(asked) & ~EVERY_RECEIPT else "10017"


def _class_flaw(extra: Mapping[str, str], app: _App) -> str:
    templates = app.channels.get(extra.get("channel_id", ""))
    if templates is None:
        return "27001"
    names = templates.get(extra.get("template_id", ""))
    if names is None:
        # A channel with templates takes nothing else.
        return "27001" if templates or "template_id" in extra else ""
    values = parse_object(extra.get("template_param", "").encode())
    if values is None or values.keys() != set(names):
        return "10017"
    return "" if all(_fills(value) for value in values.values()) else "10017"


def _fills(value: object) -> bool:
    """Whether a template takes *value*."""
    if not isinstance(value, str) or not _shorter(value, 129):
        return False
    return not _EMOJI.search(value) and not any(category(character) in ("So", "Cn") for character in value)


def _shorter(value: str, bound: int) -> bool:
    """Whether *value* is not blank and has fewer characters than *bound*, as Java counts them."""
    return bool(value.strip()) and len(value.encode("utf-16-le", errors="surrogatepass")) // 2 < bound


def _between(value: str, least: int, most: int) -> bool:
    return _WHOLE(value) is not None and least <= int(value) <= most


def _list(raw: str) -> list[Any]:
    try:
        listed = json.loads(raw)
    except ValueError:
        return []
    return listed if isinstance(listed, list) else []
