"""FCM: Firebase's HTTP v1 API with a service account, one push a request.

Facts are Google's (the REST reference of ``projects.messages``, ``ErrorCode``, the guides on message types, scaling,
quotas) and those of the Firebase Admin SDKs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal
from urllib.parse import urlencode

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa
from pydantic import Field

from pushfleet.message import Kind
from pushfleet_workers.account import AccountSettings, KindSettings
from pushfleet_workers.errors import CredentialError
from pushfleet_workers.outcome import OK, Outcome, Row, Scope
from pushfleet_workers.push import Delivery, Push, TokenKind
from pushfleet_workers.vendor import AuthAnswer, Request, Response, VendorDefaults
from pushfleet_workers.vendors._answers import (
    BAD_PAYLOAD,
    DOUBTFUL_TOKEN,
    DROP_TOKEN,
    MISCONFIGURED,
    RATE_LIMITED,
    REFRESH_AUTH,
    RETRY,
    STATUS_ROWS,
    judge,
    parse_object,
    read_token,
    table,
)
from pushfleet_workers.vendors._files import ParsedFiles, service_key
from pushfleet_workers.vendors._sounds import android_sound
from pushfleet_workers.vendors._text import BARE, FULL, encode, within

__all__ = ["CODES", "Fcm", "FcmAccount", "FcmKind"]

HOST = "https://fcm.googleapis.com"
TTL_S_MAX = 2_419_200
ASSERTION_LIFE_S = 3_600
GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"
SCOPES = (
    "https://www.googleapis.com/auth/cloud-platform",
    "https://www.googleapis.com/auth/firebase.messaging",
)

_RETRY = replace(RETRY, wait_s=10.0)
"""The scaling guide asks for ten seconds before the first repeat."""

_RATE_LIMITED = replace(RATE_LIMITED, wait_s=60.0)
"""Without ``retry-after``: quotas are counted by the minute."""

_OTHER_KEY = replace(MISCONFIGURED, scope=Scope.DEVICE)
"""Only devices that Google reaches through another cloud feel it: one of them must not hold up all Android devices."""

UNSPECIFIED = "UNSPECIFIED_ERROR"

CODES = table(
    *STATUS_ROWS,
    ("HTTP 401", "401", REFRESH_AUTH, "The access token is missing, has expired or is for another audience."),
    (
        "HTTP 403",
        "403",
        MISCONFIGURED,
        "No fault of the token: switch the FCM API on in the project, and give the service account its role.",
    ),
    ("HTTP 404", "404", MISCONFIGURED, "No fault of the token, there is no such project: correct project_id."),
    ("HTTP 429", "429", _RATE_LIMITED, "Overload, with no word on which quota."),
    ("HTTP 5xx", "5xx", _RETRY, "Google's servers, or what stands before them, have a fault."),
    ("UNREGISTERED", "404", DROP_TOKEN, "The app is gone from the device, or its token has changed or expired."),
    (
        "SENDER_ID_MISMATCH",
        "403",
        DOUBTFUL_TOKEN,
        "The token belongs to another project; if that befalls many at once: give the service account of theirs.",
    ),
    ("INVALID_ARGUMENT:token", "400", DROP_TOKEN, "INVALID_ARGUMENT, and its message says that this is no token."),
    ("INVALID_ARGUMENT", "400", BAD_PAYLOAD, "A field is wrong or the message too large: no fault of the token."),
    ("QUOTA_EXCEEDED", "429", _RATE_LIMITED, "The project sends faster than its quota."),
    (
        "QUOTA_EXCEEDED:device",
        "429",
        replace(_RATE_LIMITED, scope=Scope.DEVICE),
        "QUOTA_EXCEEDED, and the quota named is that of the device.",
    ),
    ("UNAVAILABLE", "503", _RETRY, "FCM is overloaded."),
    ("INTERNAL", "500", _RETRY, "FCM has a fault."),
    (
        "THIRD_PARTY_AUTH_ERROR",
        "401",
        _OTHER_KEY,
        "The APNs or web-push key in the Firebase project is no good: upload a new one in its console.",
    ),
    ("APNS_AUTH_ERROR", "401", _OTHER_KEY, "Older name of THIRD_PARTY_AUTH_ERROR."),
    (
        UNSPECIFIED,
        "5xx",
        _RETRY,
        "Google tells no more: the HTTP status decides, so that with another one its own row holds.",
    ),
)
"""Codes of the FcmError detail; ``:`` sets apart what Google tells by other parts of the answer. A code that is missing
here goes by the HTTP status, and so does an answer without the detail: a bare 403 or 404 speaks of the credential,
whatever some SDKs make of it."""

_NO_TOKEN = "not a valid fcm registration token"
_FIELDS = ("type", "project_id", "private_key_id", "private_key", "client_email", "token_uri")


class FcmKind(KindSettings):
    """How the messages of one kind travel through FCM."""

    form: Literal["data", "notification"] | None = Field(
        None, description="data: the app draws the push; notification: Android draws and shows the newest only."
    )
    priority: Literal["high", "normal"] | None = Field(
        None, description="high wakes a sleeping device; normal waits until it wakes by itself."
    )
    channel_id: str | None = Field(
        None, max_length=200, description="Android notification channel; empty: the app's own default."
    )


class FcmAccount(AccountSettings):
    """A Google service account that may send for one Firebase project."""

    kind_defaults: ClassVar[Mapping[Kind, KindSettings]] = {
        "chat": FcmKind(form="data", priority="high"),
        "system": FcmKind(form="data", priority="high"),
        "official": FcmKind(form="data", priority="high"),
        "marketing": FcmKind(form="data", priority="normal"),
    }

    service_account_file: Path = Field(description="The service account's JSON key, as downloaded from Google.")
    project_id: str = Field(
        "",
        pattern=r"^[a-z0-9.:-]{0,100}$",
        description="Firebase project to send for, where it is not the service account's own.",
    )
    scope: str = Field(
        SCOPES[0],
        min_length=1,
        description="OAuth scope of the access token; https://www.googleapis.com/auth/firebase.messaging is narrower.",
    )
    environment: Literal["development", "production"] = Field(
        "production", description="development: Google checks every push in full and delivers none."
    )
    kinds: dict[Kind, FcmKind] = Field(
        {}, description="How the messages of a kind travel; what chat is told holds for all that people cause."
    )
    rate_per_s: float | None = Field(
        9_000,
        gt=0,
        description="Most pushes a second, over the whole fleet; a project's own quota is 600,000 a minute.",
    )


class Fcm(VendorDefaults):
    """Google's push cloud."""

    name: ClassVar[str] = "fcm"
    account_type: ClassVar[type[AccountSettings]] = FcmAccount
    codes: ClassVar[Mapping[str, Row]] = CODES
    batch_size: ClassVar[int] = 1
    payload_limit: ClassVar[int] = 4_096
    http2: ClassVar[bool] = True
    exact_badge: ClassVar[bool] = True
    token_kinds: ClassVar[frozenset[TokenKind]] = frozenset({"alert", "fid"})

    def build(self, account: FcmAccount, push: Push, deliveries: Sequence[Delivery], auth: str, now_ms: int) -> Request:
        """The request for the one delivery, at most 4,096 bytes in all.

        What exactly Google counts is not written anywhere: the whole request is the careful reading.
        """
        delivery = deliveries[0]
        project_id = account.project_id or _service_accounts.get(account.service_account_file).project_id
        ttl = f"{min(max((push.expires_at_ms - now_ms) // 1_000, 0), TTL_S_MAX)}s"
        body = _message(account, push, delivery, ttl, push.title, push.body, FULL)
        if len(body) > self.payload_limit or delivery.remedy == "shrink":
            form = partial(_message, account, push, delivery, ttl)
            body = within(self.payload_limit, push.title, push.body, delivery.remedy == "shrink", form)
        headers = {"authorization": f"Bearer {auth}", "content-type": "application/json"}
        return Request(f"{account.base_url.rstrip('/') or HOST}/v1/projects/{project_id}/messages:send", headers, body)

    def read(self, deliveries: Sequence[Delivery], response: Response) -> list[Outcome]:
        """OK for 200, else the outcome of the FcmError detail, else of the status."""
        # A success has a body: an HTML page with status 200 comes from something else than FCM.
        if response.status == 200 and response.body.lstrip()[:1] == b"{":
            return [OK] * len(deliveries)
        code = _code(response)
        outcome = judge(CODES, "" if code == UNSPECIFIED else code, response)
        return [replace(outcome, code=code) if code == UNSPECIFIED else outcome] * len(deliveries)

    def auth_request(self, account: FcmAccount, now_s: float) -> Request:
        """The JWT bearer grant (RFC 7523) for the service account; raises :class:`CredentialError`."""
        service = _service_accounts.get(account.service_account_file)
        claims = {
            "iss": service.client_email,
            "scope": account.scope,
            "aud": service.token_uri,
            "iat": int(now_s),
            "exp": int(now_s) + ASSERTION_LIFE_S,
        }
        assertion = jwt.encode(claims, service.private_key, algorithm="RS256", headers={"kid": service.private_key_id})
        headers = {"content-type": "application/x-www-form-urlencoded"}
        body = urlencode({"grant_type": GRANT, "assertion": assertion}).encode()
        return Request(account.auth_url or service.token_uri, headers, body)

    def read_auth(self, response: Response) -> AuthAnswer:
        """The access token; a refused grant (wrong key, deleted account, wrong clock) is MISCONFIGURED."""
        return read_token(response)

    def check(self, account: FcmAccount, now_s: float) -> list[str]:
        """What is wrong with the scope and the service-account file."""
        problems = []
        if not set(SCOPES) & set(account.scope.split()):
            problems.append(f"scope {account.scope} lets nobody send: name {' or '.join(SCOPES)}")
        try:
            _service_accounts.load(account.service_account_file)
        except CredentialError as problem:
            problems.append(str(problem))
        return problems


def _message(
    account: FcmAccount, push: Push, delivery: Delivery, ttl: str, title: str, body: str, detail: int
) -> bytes:
    """The JSON of one push. Data values are strings, their keys ours: none is reserved by FCM."""
    options = push.options.fcm if push.options is not None and detail != BARE else None
    kind: FcmKind = account.by_kind[push.kind]
    priority, form, channel_id = kind.priority, kind.form, kind.channel_id
    shown = {"title": title, "body": body}
    if options is not None:
        priority, form = options.priority or priority, options.form or form
        channel_id = options.channel_id or channel_id
        if options.image:
            shown["image"] = options.image
    if channel_id:
        shown["channel_id"] = channel_id
    if detail != BARE:
        # Without a key a repeat or a new revision still replaces what the message itself showed.
        shown["tag"] = push.replace_key or push.message_id
    sound = android_sound(push) if detail != BARE else None
    if sound or (sound == "" and form == "data"):
        shown["sound"] = sound
    data = {"mid": push.message_id}
    if push.conversation_id and detail != BARE:
        data["cid"] = push.conversation_id
    if push.ext and detail == FULL:
        data["ext"] = push.ext
    android: dict[str, Any] = {"priority": priority, "ttl": ttl}
    if form == "data":
        data |= shown
        if delivery.badge >= 0:
            data["badge"] = str(delivery.badge)
    else:
        # Zero would let the launcher count by itself, so only a number is sent.
        count = {"notification_count": delivery.badge} if delivery.badge > 0 else {}
        loud = {} if sound == "" else {"sound": "default"}
        android["notification"] = {**loud, **shown, **count}
    target = "fid" if delivery.token_kind == "fid" else "token"
    envelope: dict[str, Any] = {"message": {target: delivery.token, "data": data, "android": android}}
    if account.environment == "development":
        envelope["validate_only"] = True
    return encode(envelope)


def _code(response: Response) -> str:
    """The code of the FcmError detail, told apart further where one code means two things; empty without it."""
    error = parse_object(response.body).get("error")
    if not isinstance(error, dict):
        return ""
    details = error.get("details")
    items = [item for item in details if isinstance(item, dict)] if isinstance(details, list) else []
    code = next((item.get("errorCode") for item in items if _is(item, "FcmError")), None)
    if code == "INVALID_ARGUMENT":
        fields = {violation.get("field") for violation in _violations(items, "BadRequest", "fieldViolations")}
        if _NO_TOKEN in str(error.get("message")).lower() and fields <= {"message.token", "message.fid"}:
            return "INVALID_ARGUMENT:token"
    if code == "QUOTA_EXCEEDED":
        quotas = _violations(items, "QuotaFailure", "violations")
        if any("device" in f"{quota.get('subject')} {quota.get('description')}".lower() for quota in quotas):
            return "QUOTA_EXCEEDED:device"
    return code if isinstance(code, str) else ""


def _is(item: dict[str, Any], kind: str) -> bool:
    return str(item.get("@type")).endswith(f".{kind}")


def _violations(items: list[dict[str, Any]], kind: str, name: str) -> list[dict[str, Any]]:
    lists = [item.get(name) for item in items if _is(item, kind)]
    return [entry for found in lists if isinstance(found, list) for entry in found if isinstance(entry, dict)]


@dataclass(frozen=True, slots=True)
class _ServiceAccount:
    project_id: str
    private_key_id: str
    private_key: rsa.RSAPrivateKey = field(repr=False)
    client_email: str
    token_uri: str


def _service_account(data: bytes) -> _ServiceAccount:
    mend = "download a new JSON key of the service account"
    content, key = service_key(data, _FIELDS)
    if content["type"] != "service_account":
        raise ValueError(f"is a key of another type than service_account: {mend}")
    if not content["token_uri"].startswith(("https://", "http://")):
        raise ValueError(f"has a token_uri that is no web address: {mend}")
    return _ServiceAccount(
        content["project_id"], content["private_key_id"], key, content["client_email"], content["token_uri"]
    )


_service_accounts = ParsedFiles("service_account_file", _service_account)
