"""FCM: HTTP v1 API with its OAuth token endpoint, one push per request."""

from __future__ import annotations

import itertools
import re
import secrets
from collections.abc import Callable, Iterator, Mapping
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
    parse_form,
    parse_object,
    table,
    text,
    words,
)

__all__ = ["CODES", "Fcm"]

CODES: dict[str, tuple[int, str, bool]] = {
    "INVALID_ARGUMENT": (400, "INVALID_ARGUMENT", True),
    "INVALID_TOKEN": (400, "INVALID_ARGUMENT", True),
    "THIRD_PARTY_AUTH_ERROR": (401, "UNAUTHENTICATED", True),
    "APNS_AUTH_ERROR": (401, "UNAUTHENTICATED", True),
    "UNAUTHENTICATED": (401, "UNAUTHENTICATED", False),
    "PERMISSION_DENIED": (403, "PERMISSION_DENIED", False),
    "SENDER_ID_MISMATCH": (403, "PERMISSION_DENIED", True),
    "NOT_FOUND": (404, "NOT_FOUND", False),
    "UNREGISTERED": (404, "NOT_FOUND", True),
    "QUOTA_EXCEEDED": (429, "RESOURCE_EXHAUSTED", True),
    "DEVICE_QUOTA_EXCEEDED": (429, "RESOURCE_EXHAUSTED", True),
    "RESOURCE_EXHAUSTED": (429, "RESOURCE_EXHAUSTED", False),
    "INTERNAL": (500, "INTERNAL", True),
    "UNSPECIFIED_ERROR": (500, "UNKNOWN", True),
    "UNAVAILABLE": (503, "UNAVAILABLE", True),
}
"""
Every refusal: HTTP status, ``error.status``, and whether an FcmError detail carries the code (FCM: ErrorCode).

``INVALID_TOKEN`` is our name for INVALID_ARGUMENT with the message about the registration token, and
``DEVICE_QUOTA_EXCEEDED`` for QUOTA_EXCEEDED with the quota of one device; the rows without detail are what Google's
front end says by itself.
"""

MESSAGES = {
    "INVALID_TOKEN": "The registration token is not a valid FCM registration token",
    "UNAUTHENTICATED": "Request had invalid authentication credentials.",
    "THIRD_PARTY_AUTH_ERROR": "Auth error from APNS or Web Push Service",
    "UNREGISTERED": "Requested entity was not found.",
    "NOT_FOUND": "Requested entity was not found.",
    "SENDER_ID_MISMATCH": "SenderId mismatch",
    "PERMISSION_DENIED": "Permission 'cloudmessaging.messages.create' denied.",
    "APNS_AUTH_ERROR": "Auth error from APNS or Web Push Service",
    "QUOTA_EXCEEDED": "Quota exceeded.",
    "DEVICE_QUOTA_EXCEEDED": "Quota exceeded.",
}

SCOPES = frozenset(
    {
        "https://www.googleapis.com/auth/firebase.messaging",
        "https://www.googleapis.com/auth/cloud-platform",
    }
)
GOOGLE_TOKEN_URI = "https://oauth2.googleapis.com/token"
GRANT_TYPE = "urn:ietf:params:oauth:grant-type:jwt-bearer"
ACCESS_TOKEN_LIFE_S = 3_599
ASSERTION_LIFE_S = 3_600
CLOCK_SKEW_S = 300
PAYLOAD_BYTES_MAX = 4_096
TTL_S_MAX = 2_419_200

_CODES_SENT = {"INVALID_TOKEN": "INVALID_ARGUMENT", "DEVICE_QUOTA_EXCEEDED": "QUOTA_EXCEEDED"}
_QUOTAS = {"QUOTA_EXCEEDED": "Message rate of the project", "DEVICE_QUOTA_EXCEEDED": "Message rate of the device"}
_FCM_ERROR = "type.googleapis.com/google.firebase.fcm.v1.FcmError"
_BAD_REQUEST = "type.googleapis.com/google.rpc.BadRequest"
_QUOTA_FAILURE = "type.googleapis.com/google.rpc.QuotaFailure"
_PATH = re.compile(r"/v1/projects/([^/]+)/messages:send").fullmatch
_TOKEN = re.compile(r"[\x21-\x7e]{1,4096}").fullmatch
_DURATION = re.compile(r"([0-9]+)(\.[0-9]{1,9})?s").fullmatch
_LABEL = re.compile(r"[a-zA-Z0-9\-_.~%]{1,50}").fullmatch
_COLOR = re.compile(r"#[0-9a-fA-F]{6}").fullmatch
_CAPITAL = re.compile(r"[A-Z]")

_TARGETS = ("token", "topic", "condition", "fid")
_NAMES: dict[str, frozenset[str]] = {
    "message": frozenset({*_TARGETS, "name", "data", "notification", "android", "apns", "webpush", "fcm_options"}),
    "message.notification": frozenset({"title", "body", "image"}),
    "message.android": words(
        "collapse_key priority ttl restricted_package_name data notification fcm_options direct_boot_ok"
        " bandwidth_constrained_ok restricted_satellite_ok"
    ),
    "message.android.notification": words(
        "title body icon color sound tag click_action channel_id body_loc_key body_loc_args title_loc_key"
        " title_loc_args ticker sticky event_time local_only notification_priority default_sound"
        " default_vibrate_timings default_light_settings vibrate_timings light_settings visibility"
        " notification_count image proxy bypass_proxy_notification"
    ),
    "message.apns": frozenset({"headers", "payload", "fcm_options", "live_activity_token"}),
}
"""The fields of each object, in snake case; the API takes lowerCamelCase as well, and refuses unknown names."""


class _Account(Struct, frozen=True):
    project_id: str
    key_id: str
    public: rsa.RSAPublicKey
    token_uri: str


class _Access(Struct, frozen=True):
    project_id: str
    expires_s: float


class _Flaw(Struct, frozen=True):
    field: str
    description: str


class Fcm:
    """FCM HTTP v1 as its pages describe it.

    Google does not say which bytes its 4,096 count: here it is keys and values, in UTF-8, of ``data`` and of
    both ``notification`` objects.
    """

    name: ClassVar[str] = "fcm"
    http1: ClassVar[bool] = True
    max_streams: ClassVar[int] = 100
    refusals: ClassVar[frozenset[str]] = frozenset(CODES)
    deaths: ClassVar[frozenset[str]] = frozenset({"INVALID_TOKEN", "SENDER_ID_MISMATCH", "UNREGISTERED"})
    throttled: ClassVar[str] = "QUOTA_EXCEEDED"
    address_bound: ClassVar[bool] = True

    def __init__(self) -> None:
        self._accounts: dict[str, _Account] = {}
        self._projects: set[str] = set()
        self._access: dict[str, _Access] = {}
        self._numbers = itertools.count(1)

    @classmethod
    def issue(cls, base_url: str, options: Mapping[str, Any]) -> Issued:
        """A service-account file whose ``token_uri`` is the fake's; option ``project_id``."""
        return _issue(base_url, **options)

    def register(self, public: Mapping[str, Any]) -> None:
        """Know a service account by its public half."""
        key = load_pem_public_key(public["public_key"].encode())
        assert isinstance(key, rsa.RSAPublicKey)
        account = _Account(public["project_id"], public["private_key_id"], key, public["token_uri"])
        self._accounts[public["client_email"]] = account
        self._projects.add(account.project_id)

    def read(self, request: Request, now_s: float) -> Call | Response:
        """The push or the token request in *request*, or Google's refusal of it."""
        if request.path == "/token":
            return self._read_auth(request, now_s)
        path = _PATH(request.path)
        if path is None or request.method != "POST":
            return _refusal("NOT_FOUND")
        return self._send_fault(request, path[1], now_s) or _read_message(request.body, path[1])

    def answer(self, call: Call, dead: Mapping[str, Death], now_s: float) -> Response:
        """The message's name, a new access token, or the refusal of a dead token."""
        for death in dead.values():
            return _refusal(death.code or "UNREGISTERED")
        if call.endpoint == "auth":
            return self._grant(call, now_s)
        name = f"projects/{call.account}/messages/0:{int(now_s * 1e6)}%{next(self._numbers):08x}"
        return json_response(200, "accepted", {"name": name})

    def refuse(self, code: str, call: Call, now_s: float) -> Response:
        """The refusal called *code*; on the token endpoint always in the form of OAuth."""
        if call.endpoint == "auth":
            return json_response(CODES[code][0], code, {"error": code.lower()})
        return _refusal(code)

    def expire_auth(self) -> None:
        """Forget all access tokens."""
        self._access.clear()

    def _read_auth(self, request: Request, now_s: float) -> Call | Response:
        form = parse_form(request.body)
        if form.get("grant_type") != GRANT_TYPE:
            return _oauth_error("unsupported_grant_type", "Invalid grant_type")
        account = self._assertion_account(form.get("assertion", ""), now_s)
        return account if isinstance(account, Response) else Call(account.project_id, endpoint="auth")

    def _assertion_account(self, assertion: str, now_s: float) -> _Account | Response:
        try:
            # Read before it is proved, only to find the key that proves it.
            issuer = jwt.decode(assertion, options={"verify_signature": False})["iss"]
            account = self._accounts[issuer]
            claims = jwt.decode(
                assertion,
                account.public,
                algorithms=["RS256"],
                options={"verify_iat": False, "verify_exp": False, "verify_aud": False},
            )
            issued_s, expires_s = float(claims["iat"]), float(claims["exp"])
        except (jwt.PyJWTError, KeyError, TypeError, ValueError):
            return _oauth_error("invalid_grant", "Invalid JWT Signature.")
        if jwt.get_unverified_header(assertion).get("kid", account.key_id) != account.key_id:
            return _oauth_error("invalid_grant", "Invalid JWT Signature.")
        if claims.get("aud") not in (GOOGLE_TOKEN_URI, account.token_uri):
            return _oauth_error("invalid_grant", "Invalid JWT: aud is not the token endpoint.")
        if issued_s > now_s + CLOCK_SKEW_S or not now_s < expires_s <= issued_s + ASSERTION_LIFE_S:
            return _oauth_error("invalid_grant", "Invalid JWT: Token must be a short-lived token (60 minutes).")
        if SCOPES.isdisjoint(text(claims.get("scope")).split()):
            return _oauth_error("invalid_scope", "Invalid OAuth scope or ID token audience provided.")
        return account

    def _grant(self, call: Call, now_s: float) -> Response:
        self._access = {token: access for token, access in self._access.items() if access.expires_s > now_s}
        token = f"ya29.{secrets.token_urlsafe(90)}"
        self._access[token] = _Access(call.account, now_s + ACCESS_TOKEN_LIFE_S)
        content = {"access_token": token, "expires_in": ACCESS_TOKEN_LIFE_S, "token_type": "Bearer"}
        return json_response(200, "accepted", content)

    def _send_fault(self, request: Request, project_id: str, now_s: float) -> Response | None:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        access = self._access.get(token) if scheme.lower() == "bearer" else None
        if access is None or access.expires_s <= now_s:
            return _refusal("UNAUTHENTICATED")
        if project_id not in self._projects:
            return _refusal("NOT_FOUND")
        return None if access.project_id == project_id else _refusal("PERMISSION_DENIED")


def _issue(base_url: str, project_id: str = "demo-im") -> Issued:
    private, public = pem_pair(rsa.generate_private_key(public_exponent=65_537, key_size=2_048))
    client_email = f"push@{project_id}.iam.gserviceaccount.com"
    known = {
        "project_id": project_id,
        "private_key_id": secrets.token_hex(20),
        "client_email": client_email,
        "token_uri": f"{base_url}/token",
    }
    file = {"type": "service_account", **known, "private_key": private.decode()}
    content = msgspec.json.format(msgspec.json.encode(file))
    return Issued(
        project_id,
        {**known, "public_key": public.decode()},
        {"project_id": project_id},
        {f"{project_id}.json": content},
    )


def _refusal(code: str, flaw: _Flaw | None = None) -> Response:
    status, word, detailed = CODES[code]
    details: list[dict[str, object]] = []
    if detailed:
        details.append({"@type": _FCM_ERROR, "errorCode": _CODES_SENT.get(code, code)})
    if code in _QUOTAS:
        details.append({"@type": _QUOTA_FAILURE, "violations": [{"description": _QUOTAS[code]}]})
    if flaw is not None:
        violation = {"field": flaw.field, "description": flaw.description}
        details.append({"@type": _BAD_REQUEST, "fieldViolations": [violation]})
    message = flaw.description if flaw is not None else MESSAGES.get(code, word)
    error: dict[str, object] = {"code": status, "message": message, "status": word}
    if details:
        error["details"] = details
    return json_response(status, code, {"error": error})


def _oauth_error(code: str, description: str) -> Response:
    return json_response(400, code, {"error": code, "error_description": description})


def _read_message(body: bytes, project_id: str) -> Call | Response:
    envelope = parse_object(body)
    if envelope is None:
        return _refusal("INVALID_ARGUMENT", _Flaw("", "Invalid JSON payload received."))
    message = envelope.get("message")
    if not isinstance(message, dict):
        return _refusal("INVALID_ARGUMENT", _Flaw("message", "Message must be an object."))
    message = _snake(message)
    flaw = _message_flaw(message)
    if flaw is not None:
        return _refusal("INVALID_ARGUMENT", flaw)
    target = message[next(name for name in _TARGETS if name in message)]
    if "token" in message and not _TOKEN(target):
        return _refusal("INVALID_TOKEN")
    android = _snake(table(message.get("android")))
    shown = {**table(message.get("notification")), **table(android.get("notification"))}
    return Call(
        account=project_id,
        tokens=(target,),
        title=text(shown.get("title")),
        body=text(shown.get("body")),
        replace_key=text(shown.get("tag")) or text(android.get("collapse_key")),
        data={**table(message.get("data")), **table(android.get("data"))},
        dry_run=envelope.get("validate_only", envelope.get("validateOnly")) is True,
    )


def _snake(content: Mapping[str, Any]) -> dict[str, Any]:
    return {_CAPITAL.sub(lambda m: f"_{m[0].lower()}", name): value for name, value in content.items()}


def _message_flaw(message: dict[str, Any]) -> _Flaw | None:
    """The first thing wrong with *message*, its own names already in snake case."""
    android = message.get("android", {})
    checks: tuple[Callable[[], _Flaw | None], ...] = (
        lambda: _object_flaw("message", message),
        lambda: _target_flaw(message),
        lambda: _object_flaw("message.notification", message.get("notification", {})),
        lambda: _data_flaw("message.data", message.get("data", {})),
        lambda: _object_flaw("message.android", android),
        lambda: _android_flaw(_snake(android)),
        lambda: _apns_flaw(message.get("apns", {})),
        lambda: _options_flaw("message.fcm_options", message.get("fcm_options", {})),
        lambda: _size_flaw(message),
    )
    return next((flaw for check in checks if (flaw := check()) is not None), None)


def _object_flaw(path: str, value: object) -> _Flaw | None:
    if not isinstance(value, dict):
        return _Flaw(path, "Not an object.")
    for name in _snake(value):
        if name not in _NAMES[path]:
            return _Flaw(path, f"Invalid JSON payload received. Unknown name \"{name}\" at '{path}'.")
    return None


def _target_flaw(message: Mapping[str, Any]) -> _Flaw | None:
    targets = [name for name in _TARGETS if name in message]
    if len(targets) != 1:
        return _Flaw("message", "Exactly one of token, fid, topic or condition is required.")
    if not isinstance(message[targets[0]], str):
        return _Flaw(f"message.{targets[0]}", "Not a string.")
    return None


def _data_flaw(path: str, data: object) -> _Flaw | None:
    if not isinstance(data, dict):
        return _Flaw(path, "Not an object.")
    for number, (key, value) in enumerate(data.items()):
        if not isinstance(value, str):
            return _Flaw(f"{path}[{number}].value", "Invalid value (TYPE_STRING).")
        if key in ("from", "message_type") or key.startswith(("google", "gcm")):
            return _Flaw(f"{path}[{number}].key", f"Invalid data payload key: {key}")
    return None


def _android_flaw(android: Mapping[str, Any]) -> _Flaw | None:
    if android.get("priority", "high") not in ("high", "normal", "HIGH", "NORMAL"):
        return _Flaw("message.android.priority", "Invalid value (ENUM).")
    if "ttl" in android:
        ttl = _DURATION(text(android["ttl"]))
        if ttl is None:
            return _Flaw("message.android.ttl", "Illegal duration format; duration must end with 's'.")
        if int(ttl[1]) > TTL_S_MAX:
            return _Flaw("message.android.ttl", "Invalid ttl: must be at most four weeks.")
    if not isinstance(android.get("collapse_key", ""), str):
        return _Flaw("message.android.collapse_key", "Invalid value (TYPE_STRING).")
    return (
        _data_flaw("message.android.data", android.get("data", {}))
        or _android_notification_flaw(android.get("notification", {}))
        or _options_flaw("message.android.fcm_options", android.get("fcm_options", {}))
    )


def _android_notification_flaw(notification: object) -> _Flaw | None:
    path = "message.android.notification"
    flaw = _object_flaw(path, notification)
    if flaw is not None:
        return flaw
    fields = _snake(table(notification))
    for name in ("title", "body", "tag", "channel_id", "click_action", "icon", "sound", "image"):
        if not isinstance(fields.get(name, ""), str):
            return _Flaw(f"{path}.{name}", "Invalid value (TYPE_STRING).")
    count = fields.get("notification_count", 0)
    if not isinstance(count, int) or isinstance(count, bool) or count < 0:
        return _Flaw(f"{path}.notification_count", "Invalid value (TYPE_INT32).")
    if "color" in fields and not _COLOR(text(fields["color"])):
        return _Flaw(f"{path}.color", "Invalid color: must be #RRGGBB.")
    if fields.get("visibility", "PRIVATE") not in ("PRIVATE", "PUBLIC", "SECRET"):
        return _Flaw(f"{path}.visibility", "Invalid value (ENUM).")
    return None


def _apns_flaw(apns: object) -> _Flaw | None:
    flaw = _object_flaw("message.apns", apns)
    if flaw is not None:
        return flaw
    headers = table(apns).get("headers", {})
    if not isinstance(headers, dict) or not all(isinstance(value, str) for value in headers.values()):
        return _Flaw("message.apns.headers", "Invalid value (TYPE_STRING).")
    if not isinstance(table(apns).get("payload", {}), dict):
        return _Flaw("message.apns.payload", "Not an object.")
    return None


def _options_flaw(path: str, options: object) -> _Flaw | None:
    label = _snake(table(options)).get("analytics_label")
    if label is not None and not _LABEL(text(label)):
        return _Flaw(f"{path}.analytics_label", "Invalid analytics label.")
    return None


def _size_flaw(message: Mapping[str, Any]) -> _Flaw | None:
    android = table(message.get("android"))
    parts = (message.get("data"), android.get("data"), message.get("notification"), android.get("notification"))
    size = sum(_bytes_of(part) for part in parts if part)
    if size > PAYLOAD_BYTES_MAX:
        return _Flaw("message", "Message is too big.")
    return None


def _bytes_of(value: object) -> int:
    return sum(len(leaf.encode()) for leaf in _leaves(value))


def _leaves(value: object) -> Iterator[str]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield key
            yield from _leaves(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _leaves(inner)
    else:
        yield str(value)
