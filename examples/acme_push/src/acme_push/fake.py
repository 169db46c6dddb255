"""Acme for the fake cloud: as strict as the real one would be, and scriptable per token."""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Mapping
from typing import Any, ClassVar

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

__all__ = ["FakeAcme"]

STATUS = {"bad_request": 400, "too_large": 400, "expired_token": 401, "wrong_template": 403, "too_fast": 429}
OF_TOKENS = frozenset({"gone", "muted"})
TEMPLATES = frozenset({"message"})
TOKEN_LIFE_S = 3_600
TOKENS_MAX = 100
MESSAGE_BYTES_MAX = 4_096
_FIELDS = {"tokens", "title", "body", "ttl_s", "tag", "data", "priority", "template"}


class FakeAcme:
    """Acme's push cloud, faked."""

    name: ClassVar[str] = "acme"
    http1: ClassVar[bool] = True
    max_streams: ClassVar[int] = 128
    refusals: ClassVar[frozenset[str]] = frozenset(STATUS) | OF_TOKENS
    deaths: ClassVar[frozenset[str]] = frozenset({"gone"})
    throttled: ClassVar[str] = "too_fast"
    address_bound: ClassVar[bool] = False

    def __init__(self) -> None:
        self._secrets: dict[str, str] = {}
        self._access: dict[str, tuple[str, float]] = {}

    @classmethod
    def issue(cls, base_url: str, options: Mapping[str, Any]) -> Issued:
        """A client id and secret; option ``client_id``."""
        return _issue(**options)

    def register(self, public: Mapping[str, Any]) -> None:
        """Know an app by its client id and secret."""
        self._secrets[public["client_id"]] = public["secret"].decode()

    def read(self, request: Request, now_s: float) -> Call | Response:
        """The push or the token request in *request*, or Acme's refusal of it."""
        if request.method == "POST" and request.path == "/oauth/token":
            return self._read_auth(parse_form(request.body))
        if request.method != "POST" or request.path != "/v1/push":
            return Response(404, "404")
        bearer = request.headers.get("authorization", "").removeprefix("Bearer ")
        client_id, expires_s = self._access.get(bearer, ("", 0.0))
        if expires_s <= now_s:
            return _refusal("expired_token")
        message = parse_object(request.body) or {}
        code = _flaw(message, len(request.body))
        return _refusal(code) if code else _call(message, client_id)

    def answer(self, call: Call, dead: Mapping[str, Death], now_s: float) -> Response:
        """An access token, or success with the dead tokens in ``failed``."""
        if call.endpoint == "auth":
            value = secrets.token_urlsafe(24)
            self._access[value] = (call.account, now_s + TOKEN_LIFE_S)
            return json_response(200, "accepted", {"access_token": value, "expires_in": TOKEN_LIFE_S})
        return _sent({token: dead[token].code or "gone" for token in call.tokens if token in dead})

    def refuse(self, code: str, call: Call, now_s: float) -> Response:
        """The refusal with *code*; what is said of tokens is said of all in the request."""
        return _sent(dict.fromkeys(call.tokens, code)) if code in OF_TOKENS else _refusal(code)

    def expire_auth(self) -> None:
        """Forget all access tokens."""
        self._access.clear()

    def _read_auth(self, form: Mapping[str, str]) -> Call | Response:
        client_id = form.get("client_id", "")
        known = self._secrets.get(client_id, "")
        if not known or not hmac.compare_digest(known.encode(), form.get("client_secret", "").encode()):
            return json_response(401, "invalid_client", {"error": "invalid_client"})
        return Call(client_id, endpoint="auth")


def _issue(client_id: str = "demo") -> Issued:
    known = {"client_id": client_id}
    return Issued(client_id, known, known, {f"{client_id}.secret": secrets.token_hex(16).encode()})


def _flaw(message: Mapping[str, Any], size: int) -> str:
    tokens = message.get("tokens")
    if not isinstance(tokens, list) or not 1 <= len(tokens) <= TOKENS_MAX or not all(map(text, tokens)):
        return "bad_request"
    if size - sum(len(token) + 3 for token in tokens) > MESSAGE_BYTES_MAX:
        return "too_large"
    priority = message.get("priority", "notice")
    if not message.keys() <= _FIELDS or priority not in ("talk", "notice"):
        return "bad_request"
    if not whole(message.get("ttl_s"), 1, 86_400):
        return "bad_request"
    template = message.get("template", "")
    needed = priority == "talk" or bool(template)
    return "wrong_template" if needed and template not in TEMPLATES else ""


def _call(message: Mapping[str, Any], client_id: str) -> Call:
    return Call(
        account=client_id,
        tokens=tuple(message["tokens"]),
        title=text(message.get("title")),
        body=text(message.get("body")),
        replace_key=text(message.get("tag")),
        data=table(message.get("data")),
    )


def _sent(failed: Mapping[str, str]) -> Response:
    return json_response(200, next(iter(failed.values()), "accepted"), {"code": 0, "failed": failed})


def _refusal(code: str) -> Response:
    return json_response(STATUS[code], code, {"code": code})
