"""HarmonyOS 5 and later: Push Kit v3 with a JWT that is signed here, up to 1,000 tokens a request.

Facts are Huawei's (the HarmonyOS pages "push-scenariozed-api-request-param", "push-scenariozed-api-response",
"push-jwt-token" and "push-msg-revoke").
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa
from pydantic import Field

from pushfleet.message import HarmonyOptions, Kind
from pushfleet_workers.account import AccountSettings, KindSettings
from pushfleet_workers.errors import CredentialError
from pushfleet_workers.outcome import DayHour, Outcome, Remedy, Row, Scope
from pushfleet_workers.push import Delivery, Push, shared_id
from pushfleet_workers.vendor import AuthAnswer, Request, Response, VendorDefaults
from pushfleet_workers.vendors._answers import CHINA_DAY, MISCONFIGURED, judge, parse_object, plain
from pushfleet_workers.vendors._files import ParsedFiles, service_key
from pushfleet_workers.vendors._harmony_codes import ALL_INVALID, CODES, PARTIAL, REASONS, REVOKED_IN_PART
from pushfleet_workers.vendors._ids import notify_id
from pushfleet_workers.vendors._receipts import HuaweiReceiptAccount, callback, receipt_flaws
from pushfleet_workers.vendors._text import BARE, FULL, encode, within

__all__ = ["CODES", "Harmony", "HarmonyAccount", "HarmonyKind"]

HOST = "https://push-api.cloud.huawei.com"
AUDIENCE = "https://oauth-login.cloud.huawei.com/oauth2/v3/token"
"""What the JWT names as its audience, wherever it is sent to."""

JWT_LIFE_S = 3_600
TTL_S_MAX = 1_296_000
CALL_TTL_S = (30, 60)
MANY_TOKENS = 10
"""From so many tokens on, all of them lost at once are no chance: the project is the wrong one."""

ALERT, IN_APP_CALL = 0, 10
MARKETING = "MARKETING"

CATEGORIES = frozenset(
    {
        *("IM", "VOIP", "MISS_CALL", "SUBSCRIPTION", "TRAVEL", "HEALTH", "WORK", "ACCOUNT", "EXPRESS", "FINANCE"),
        *("DEVICE_REMINDER", "MAIL", MARKETING),
    }
)
"""Message classes of notifications. PLAY_VOICE is for spoken messages only."""

_UNKNOWN = CODES["other codes"].outcome
_CALLS = frozenset({"call", "call_cancel"})
_FIELDS = ("project_id", "key_id", "private_key", "sub_account")


class HarmonyKind(KindSettings):
    """How HarmonyOS messages of one kind travel."""

    category: str | None = Field(
        None,
        min_length=1,
        max_length=64,
        description="Message class, as IM, VOIP, MISS_CALL, WORK or MARKETING; without Huawei's right to it, a message "
        "counts as marketing.",
    )
    push_type: Literal[0, 10] | None = Field(
        None,
        description="0 shows a notification; 10 rings inside the app, for calls only, and needs a right of its own.",
    )
    collapse_key: int | None = Field(
        None,
        ge=-1,
        le=100,
        description="Of the notifications with the same number, 0 to 100, a device that is offline keeps the newest; "
        "-1: all.",
    )
    sound: str | None = Field(
        None,
        max_length=256,
        description="File in the app's resources/rawfile, with its suffix; empty: the system's own.",
    )
    sound_duration_s: int | None = Field(None, ge=1, le=60, description="How long the sound is played.")


class HarmonyAccount(HuaweiReceiptAccount):
    """A service account of a project in AppGallery Connect, for the project's HarmonyOS app."""

    kind_defaults: ClassVar[Mapping[Kind, KindSettings]] = {
        "chat": HarmonyKind(category="IM"),
        "system": HarmonyKind(category="MARKETING"),
        "official": HarmonyKind(category="MARKETING"),
        "marketing": HarmonyKind(category="MARKETING"),
    }

    service_account_file: Path = Field(
        description="The service account's JSON key, as downloaded from Huawei's API console."
    )
    client_id: str = Field(
        "",
        pattern=r"^[A-Za-z0-9_-]{0,64}$",
        description="OAuth 2.0 client id of the app, by which pushes are recalled; empty: they can only be replaced.",
    )
    environment: Literal["development", "production"] = Field(
        "production",
        description="development: test messages, which no daily cap of a device counts; Huawei takes 1,000 a day, each "
        "for at most ten tokens.",
    )
    kinds: dict[Kind, HarmonyKind] = Field(
        {}, description="How the messages of a kind travel; what chat is told holds for all that people cause."
    )
    default_text: str = Field(
        "New message",
        min_length=1,
        max_length=64,
        description="Stands in for a missing title or body: Huawei insists on both.",
    )
    rate_per_s: float | None = Field(
        6_000,
        gt=0,
        description="Most tokens a second, over the whole fleet; AppGallery Connect shows the app's own limit.",
    )


class Harmony(VendorDefaults):
    """Huawei's push cloud for devices that run HarmonyOS apps."""

    name: ClassVar[str] = "harmony"
    account_type: ClassVar[type[AccountSettings]] = HarmonyAccount
    codes: ClassVar[Mapping[str, Row]] = CODES
    batch_size: ClassVar[int] = 1_000
    payload_limit: ClassVar[int] = 4_096
    http2: ClassVar[bool] = False
    exact_badge: ClassVar[bool] = False
    day: ClassVar[DayHour] = CHINA_DAY

    def build(
        self, account: HarmonyAccount, push: Push, deliveries: Sequence[Delivery], auth: str, now_ms: int
    ) -> Request:
        """The request for up to 1,000 deliveries, each token once; at most 4,096 bytes without the tokens."""
        kind: HarmonyKind = account.by_kind[push.kind]
        remedies = {delivery.remedy for delivery in deliveries}
        # What replaces a push was counted with it.
        counts = not push.revision and any(delivery.badge >= 0 for delivery in deliveries)
        left_s = (push.expires_at_ms - now_ms) // 1_000
        title, body = push.title or push.sender_name or account.default_text, push.body or account.default_text
        if kind.push_type == IN_APP_CALL:
            # JSON inside JSON: a character takes at most twice its bytes.
            form, copies = partial(_in_app_call, account, push, left_s), 2
        else:
            form, copies = partial(_alert, account, push, kind, left_s, counts, Remedy.NO_IMAGE in remedies), 1
        limit = self.payload_limit - len(_TARGET % b"[]")
        message = form(title, body, FULL)
        if len(message) > limit or Remedy.SHRINK in remedies:
            message = within(limit, title, body, Remedy.SHRINK in remedies, form, copies)
        url = f"{_host(account)}/v3/{_service_accounts.get(account.service_account_file).project_id}/messages:send"
        target = _TARGET % encode(_tokens(deliveries))
        return Request(url, _headers(auth, kind.push_type or ALERT), message[:-1] + target + b"}")

    def read(self, deliveries: Sequence[Delivery], response: Response) -> list[Outcome]:
        """The outcome of the business code, of a token's own reason where it names one; else of the status."""
        content = parse_object(response.body)
        code = plain(content.get("code"))
        if code in (PARTIAL, REVOKED_IN_PART, ALL_INVALID):
            return _by_reason(deliveries, code, _reasons(content.get("msg")))
        if not _is_business(code):
            code = ""
        elif code not in CODES and response.status != 503:
            return [replace(_UNKNOWN, code=code)] * len(deliveries)
        return [judge(CODES, code, response)] * len(deliveries)

    def mint(self, account: HarmonyAccount, now_s: float) -> AuthAnswer:
        """A JWT signed with PS256 that counts from *now_s* and lives for an hour.

        Each process signs its own: Huawei does not count them.
        """
        try:
            service = _service_accounts.get(account.service_account_file)
        except CredentialError:
            return AuthAnswer(failure=replace(MISCONFIGURED, code="KeyFile"))
        issued_s = int(now_s)
        claims = {"iss": service.sub_account, "aud": AUDIENCE, "iat": issued_s, "exp": issued_s + JWT_LIFE_S}
        value = jwt.encode(claims, service.private_key, algorithm="PS256", headers={"kid": service.key_id})
        return AuthAnswer(value, JWT_LIFE_S, shared=False)

    def withdraw(
        self, account: HarmonyAccount, push: Push, deliveries: Sequence[Delivery], auth: str, now_ms: int
    ) -> Request | None:
        """The request that takes back the notification that *push* showed, up to 1,000 tokens.

        None without a ``client_id``, and for what rang inside the app.
        """
        if not account.client_id or account.by_kind[push.kind].push_type == IN_APP_CALL:
            return None
        body = encode({"notifyId": notify_id(push), "token": _tokens(deliveries)})
        return Request(f"{_host(account)}/v1/{account.client_id}/messages:revoke", _headers(auth, ALERT), body)

    def device_caps(self, account: HarmonyAccount) -> Mapping[str, int]:
        """Two of marketing; Huawei names no number for services."""
        return {"marketing": 2, "service": 0}

    def class_of(
        self, account: HarmonyAccount, kind: Kind, *, group: bool = False, own: HarmonyOptions | None = None
    ) -> str:
        """By the category; test messages count in none."""
        if account.environment == "development":
            return ""
        told: HarmonyKind = account.by_kind[kind]
        category = own.category if own is not None and own.category else told.category
        return "marketing" if category == MARKETING else "service"

    def check(self, account: HarmonyAccount, now_s: float) -> list[str]:
        """What is wrong with the key file, the message classes, the push types and the receipts."""
        problems = [
            f"kinds.{kind}.category {told.category} is no message class of HarmonyOS notifications: write one of "
            f"{', '.join(sorted(CATEGORIES))}"
            for kind, told in account.kinds.items()
            if told.category and told.category not in CATEGORIES
        ]
        problems += [
            f"kinds.{kind}.push_type 10 rings like a call: set it for call and call_cancel only"
            for kind, told in account.kinds.items()
            if told.push_type == IN_APP_CALL and kind not in _CALLS
        ]
        problems += receipt_flaws(account)
        try:
            _service_accounts.load(account.service_account_file)
        except CredentialError as problem:
            problems.append(str(problem))
        return problems


_TARGET = b',"target":{"token":%b}'


def _host(account: HarmonyAccount) -> str:
    return account.base_url.rstrip("/") or HOST


def _headers(auth: str, push_type: int) -> dict[str, str]:
    return {
        "authorization": f"Bearer {auth}",
        "content-type": "application/json; charset=UTF-8",
        "push-type": str(push_type),
    }


def _tokens(deliveries: Sequence[Delivery]) -> list[str]:
    # A token that stands there twice gets the message twice.
    return list(dict.fromkeys([delivery.token for delivery in deliveries]))


def _alert(
    account: HarmonyAccount,
    push: Push,
    kind: HarmonyKind,
    left_s: int,
    counts: bool,
    no_image: bool,
    title: str,
    body: str,
    detail: int,
) -> bytes:
    """The JSON of a notification, everything but the tokens."""
    own = push.options.harmony if push.options is not None and push.options.harmony is not None else HarmonyOptions()
    notification: dict[str, Any] = {
        "category": kind.category,
        "title": title,
        "body": body,
        "clickAction": {"actionType": 0, "data": _data(push, detail)},
        "notifyId": notify_id(push),
        "appMessageId": shared_id(push).hex(),
        "foregroundShow": False,
    }
    if counts and not own.ignore_badge:
        notification["badge"] = {"addNum": 1}
    sound = kind.sound if push.sound is None else push.sound
    if sound:
        notification["sound"] = sound
    if kind.sound_duration_s:
        notification["soundDuration"] = kind.sound_duration_s
    if detail != BARE:
        notification["category"] = own.category or kind.category
        if own.image and not no_image:
            notification["image"] = own.image
    options = _push_options(account, push, min(max(left_s, 1), TTL_S_MAX))
    options["collapseKey"] = -1 if kind.collapse_key is None else kind.collapse_key
    return encode({"payload": {"notification": notification}, "pushOptions": options})


def _in_app_call(account: HarmonyAccount, push: Push, left_s: int, title: str, body: str, detail: int) -> bytes:
    """The JSON of what rings inside the app, which draws it by itself; everything but the tokens."""
    extra = {**_data(push, detail), "kind": push.kind, "title": title, "body": body}
    options = _push_options(account, push, min(max(left_s, CALL_TTL_S[0]), CALL_TTL_S[1]))
    return encode({"payload": {"extraData": encode(extra).decode()}, "pushOptions": options})


def _data(push: Push, detail: int) -> dict[str, str]:
    data = {"mid": push.message_id}
    if push.conversation_id and detail != BARE:
        data["cid"] = push.conversation_id
    if push.ext and detail == FULL:
        data["ext"] = push.ext
    return data


def _push_options(account: HarmonyAccount, push: Push, ttl_s: int) -> dict[str, Any]:
    asked = callback(account, push)
    options: dict[str, Any] = {"ttl": ttl_s, "biTag": asked.echo if asked is not None else shared_id(push).hex()}
    if account.environment == "development":
        options["testMessage"] = True
    return options


def _is_business(code: str) -> bool:
    """Whether *code* is one of Huawei's own, listed or not: eight digits, the first an 8."""
    return len(code) == 8 and code[0] == "8" and code.isdigit()


def _reasons(msg: object) -> dict[str, str]:
    """By token, why it was refused: *msg* is JSON text, in it an object of lists by reason."""
    content = parse_object(msg) if isinstance(msg, str) else msg
    named = content.get("illegalTokens") if isinstance(content, Mapping) else None
    if not isinstance(named, Mapping):
        return {}
    return {
        token: reason
        for reason, tokens in named.items()
        for token in (tokens if isinstance(tokens, list) else [])
        if isinstance(token, str)
    }


def _by_reason(deliveries: Sequence[Delivery], code: str, reasons: Mapping[str, str]) -> list[Outcome]:
    everyone = [reasons.get(token, "") for token in _tokens(deliveries)]
    if code == ALL_INVALID and len(everyone) >= MANY_TOKENS and set(everyone) == {"noRight"}:
        return [REASONS["noRight:all"].outcome] * len(deliveries)
    return [_for(code, reasons.get(delivery.token)) for delivery in deliveries]


def _for(code: str, reason: str | None) -> Outcome:
    if reason is None:
        return CODES[code].outcome
    row = REASONS.get(reason)
    outcome = row.outcome if row is not None else replace(_UNKNOWN, code=plain(reason) or code)
    # Where other tokens were served, neither the account nor the class is at fault.
    return outcome if code == ALL_INVALID else replace(outcome, scope=Scope.DEVICE)


@dataclass(frozen=True, slots=True)
class _ServiceAccount:
    project_id: str
    key_id: str
    private_key: rsa.RSAPrivateKey = field(repr=False)
    sub_account: str


def _service_account(data: bytes) -> _ServiceAccount:
    content, key = service_key(data, _FIELDS)
    if not (content["project_id"].isascii() and content["project_id"].isalnum()):
        raise ValueError("has a project_id that is none: download a new JSON key of the service account")
    return _ServiceAccount(content["project_id"], content["key_id"], key, content["sub_account"])


_service_accounts = ParsedFiles("service_account_file", _service_account)
