"""Huawei Push Kit v1 and v2: EMUI and HarmonyOS up to 4, OAuth 2 client credentials, up to 1,000 tokens a request.

Facts are Huawei's (the Push Kit pages "https-send-api" and "token-flow-control", its server samples).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal
from urllib.parse import quote, urlencode

from pydantic import Field, SecretStr

from pushfleet.message import HuaweiOptions, Kind
from pushfleet_workers.account import AccountSettings, KindSettings
from pushfleet_workers.errors import CredentialError
from pushfleet_workers.outcome import OK, DayHour, Outcome, Remedy, Row, Verdict
from pushfleet_workers.push import Delivery, Push, shared_id
from pushfleet_workers.vendor import AuthAnswer, Request, Response, VendorDefaults
from pushfleet_workers.vendors._answers import (
    BAD_PAYLOAD,
    CHINA_DAY,
    CLASS_MISCONFIGURED,
    DOUBTFUL_TOKEN,
    DROP_TOKEN,
    MISCONFIGURED,
    RATE_LIMITED,
    REFRESH_AUTH,
    RETRY,
    STATUS_ROWS,
    judge,
    parse_object,
    plain,
    read_token,
    table,
)
from pushfleet_workers.vendors._files import read_secret
from pushfleet_workers.vendors._receipts import HuaweiReceiptAccount, callback, receipt_flaws
from pushfleet_workers.vendors._sounds import android_sound
from pushfleet_workers.vendors._text import BARE, FULL, encode, within

__all__ = ["CODES", "Huawei", "HuaweiAccount", "HuaweiKind"]

HOST = "https://push-api.cloud.huawei.com"
TOKEN_URL = "https://oauth-login.cloud.huawei.com/oauth2/v3/token"
TTL_S_MAX = 1_296_000
PARTIAL = "80100000"
MARKETING = "MARKETING"

CATEGORIES = frozenset(
    {
        *("IM", "VOIP", "SUBSCRIPTION", "TRAVEL", "HEALTH", "WORK", "ACCOUNT", "EXPRESS", "FINANCE"),
        *("DEVICE_REMINDER", "SYSTEM_REMINDER", "MAIL", MARKETING),
    }
)
"""Message classes of notifications. SYSTEM_REMINDER is on a reseller's list only; PLAY_VOICE is for data messages."""

_OF_GROUPS = "A fault with a group or a topic, which we do not use."

CODES = table(
    *STATUS_ROWS,
    ("HTTP 404", "404", MISCONFIGURED, "There is no such address: correct client_id, project_id or base_url."),
    ("HTTP 503", "503", RATE_LIMITED, "Flow control, of the app or of the whole service."),
    ("80000000", "any", OK, "Accepted for all tokens."),
    (PARTIAL, "any", DROP_TOKEN, "Accepted, but for the tokens that the answer names."),
    (
        "80100001",
        "any",
        BAD_PAYLOAD,
        "A parameter is wrong: look at the message's overrides and at the account's kinds.",
    ),
    (
        "80100002",
        "any",
        replace(BAD_PAYLOAD, remedy=Remedy.SINGLE_SEND),
        "A message of this kind goes to one token at a time.",
    ),
    ("80100003", "any", BAD_PAYLOAD, "The structure of the message is wrong."),
    ("80100004", "any", BAD_PAYLOAD, "The message had expired when it arrived."),
    ("80100013", "any", BAD_PAYLOAD, "The collapse key is out of range."),
    ("80100016", "any", BAD_PAYLOAD, "The content was found sensitive: sending it again makes it worse."),
    ("80100017", "any", RATE_LIMITED, "Too many topic tasks at once."),
    ("80100018", "any", BAD_PAYLOAD, "The signature of reviewed content does not fit."),
    (
        "80200001",
        "any",
        REFRESH_AUTH,
        "The access token was refused; if a fresh one is as well: give id and secret of the tokens' own app.",
    ),
    ("80200003", "any", REFRESH_AUTH, "The access token has expired."),
    ("80200005", "any", REFRESH_AUTH, "The JWT has expired."),
    (
        "80300002",
        "any",
        MISCONFIGURED,
        "The app may not push to these tokens: switch Push Kit on for it, and give the client id of their app.",
    ),
    (
        "80300007",
        "any",
        DOUBTFUL_TOKEN,
        "All tokens of the request are invalid; if that befalls many at once: check client_id and project_id.",
    ),
    ("80300008", "any", replace(BAD_PAYLOAD, remedy=Remedy.SHRINK), "The message is above 4,096 bytes."),
    ("80300010", "any", replace(BAD_PAYLOAD, remedy=Remedy.SPLIT), "Too many tokens, or none."),
    (
        "80300011",
        "any",
        CLASS_MISCONFIGURED,
        "The app has no right to messages of this importance: apply for it at Huawei, or set LOW or NORMAL.",
    ),
    (
        "80300013",
        "any",
        MISCONFIGURED,
        "The receipt address is wrong, or its certificate has expired: correct it in AppGallery Connect.",
    ),
    (
        "80600003",
        "any",
        RETRY,
        "Huawei could not ask its own OAuth service; if it lasts: check client id and secret.",
    ),
    ("81000001", "any", RETRY, "Huawei has a fault."),
    *((str(code), "any", BAD_PAYLOAD, _OF_GROUPS) for code in range(82_000_001, 82_000_014)),
    (
        "other codes",
        "any",
        Outcome(Verdict.RETRY),
        "Eight digits that are not listed here: this push alone is tried again, the token is kept.",
    ),
)
"""Business codes; they come with any status and go before it."""

_UNKNOWN = CODES["other codes"].outcome


class HuaweiKind(KindSettings):
    """How Huawei's messages of one kind travel."""

    category: str | None = Field(
        None,
        max_length=64,
        description="Message class, as IM, VOIP, WORK or MARKETING; needs Huawei's right to classify; empty: Huawei "
        "classifies.",
    )
    importance: Literal["LOW", "NORMAL"] | None = Field(
        None, description="LOW is silent; NORMAL rings as far as the message class may."
    )
    channel_id: str | None = Field(
        None, max_length=200, description="Android notification channel; empty: the app's own default."
    )


class HuaweiAccount(HuaweiReceiptAccount):
    """An app in AppGallery Connect with its OAuth 2.0 client."""

    kind_defaults: ClassVar[Mapping[Kind, KindSettings]] = {
        "chat": HuaweiKind(category="IM", importance="NORMAL"),
        "official": HuaweiKind(category="MARKETING"),
        "marketing": HuaweiKind(category="MARKETING"),
    }

    client_id: str = Field(
        pattern=r"^[A-Za-z0-9_-]{1,64}$", description="OAuth 2.0 client id of the app (AppGallery: the app id)."
    )
    client_secret: SecretStr | None = Field(None, description="OAuth 2.0 client secret.")
    client_secret_file: Path | None = Field(None, description="File that holds the client secret, instead of it.")
    project_id: str = Field(
        "",
        pattern=r"^[A-Za-z0-9_-]{0,64}$",
        description="Project in AppGallery Connect to send for, where several projects send to one app; empty: the "
        "app's own.",
    )
    environment: Literal["development", "production"] = Field(
        "production",
        description="development: test messages, which no daily cap of a device counts; Huawei takes 500 a day.",
    )
    kinds: dict[Kind, HuaweiKind] = Field(
        {}, description="How the messages of a kind travel; what chat is told holds for all that people cause."
    )
    badge_class: str = Field(
        "",
        max_length=256,
        description="Full name of the launcher activity, e.g. com.example.im.MainActivity; empty: no badge.",
    )
    click_intent: str = Field(
        "",
        max_length=512,
        pattern=r"^(intent:.*;end)?$",
        description="Intent URI of the page that a tap opens when a message wants its ext as intent parameter, e.g. "
        "intent:#Intent;component=com.example.im/.ChatActivity;end; ext is added as S.ext. Empty: the app is opened.",
    )
    default_text: str = Field(
        "New message",
        min_length=1,
        max_length=64,
        description="Stands in for a missing title or body: Huawei insists on both.",
    )
    rate_per_s: float | None = Field(
        6_000, gt=0, description="Most tokens a second, over the whole fleet; 6,000 is what every app has."
    )


class Huawei(VendorDefaults):
    """Huawei's push cloud for devices that run Android apps."""

    name: ClassVar[str] = "huawei"
    account_type: ClassVar[type[AccountSettings]] = HuaweiAccount
    codes: ClassVar[Mapping[str, Row]] = CODES
    batch_size: ClassVar[int] = 1_000
    payload_limit: ClassVar[int] = 4_096
    http2: ClassVar[bool] = False
    exact_badge: ClassVar[bool] = False
    day: ClassVar[DayHour] = CHINA_DAY

    def build(
        self, account: HuaweiAccount, push: Push, deliveries: Sequence[Delivery], auth: str, now_ms: int
    ) -> Request:
        """The request for up to 1,000 deliveries, each token once; at most 4,096 bytes without the tokens."""
        # A token that stands there twice gets the message twice.
        tokens = encode(list(dict.fromkeys([delivery.token for delivery in deliveries])))
        # What replaces a push was counted with it.
        counts = not push.revision and any(delivery.badge >= 0 for delivery in deliveries)
        halve = any(delivery.remedy == "shrink" for delivery in deliveries)
        ttl = f"{min(max((push.expires_at_ms - now_ms) // 1_000, 1), TTL_S_MAX)}s"
        limit = self.payload_limit - len(_envelope(b"[]", b""))
        title, body = push.title or push.sender_name or account.default_text, push.body or account.default_text
        android = _android(account, push, counts, ttl, title, body, FULL)
        if len(android) > limit or halve:
            form = partial(_android, account, push, counts, ttl)
            android = within(limit, title, body, halve, form, copies=2 if _big_text(push) else 1)
        headers = {"authorization": f"Bearer {auth}", "content-type": "application/json; charset=UTF-8"}
        path = f"v2/{account.project_id}" if account.project_id else f"v1/{account.client_id}"
        url = f"{account.base_url.rstrip('/') or HOST}/{path}/messages:send"
        return Request(url, headers, _envelope(tokens, android))

    def read(self, deliveries: Sequence[Delivery], response: Response) -> list[Outcome]:
        """The outcome of the business code, which of a partial success differs by token; else of the status."""
        content = parse_object(response.body)
        code = plain(content.get("code"))
        if code == PARTIAL:
            # Whoever is not named was served: sending to them again would show the message twice.
            dead, illegal = CODES[PARTIAL].outcome, _illegal_tokens(content.get("msg"))
            return [dead if delivery.token in illegal else OK for delivery in deliveries]
        if code == "80000000":
            return [OK] * len(deliveries)
        if _is_business(code) and code not in CODES and response.status != 503:
            return [replace(_UNKNOWN, code=code)] * len(deliveries)
        return [judge(CODES, code, response)] * len(deliveries)

    def auth_request(self, account: HuaweiAccount, now_s: float) -> Request:
        """The client credentials grant (RFC 6749 section 4.4); raises :class:`CredentialError`.

        Huawei hands out 1,000 tokens in five minutes per app and wants one shared by all servers.
        """
        form = {
            "grant_type": "client_credentials",
            "client_id": account.client_id,
            "client_secret": read_secret("client_secret", account.client_secret, account.client_secret_file),
        }
        headers = {"content-type": "application/x-www-form-urlencoded"}
        return Request(account.auth_url or TOKEN_URL, headers, urlencode(form).encode())

    def read_auth(self, response: Response) -> AuthAnswer:
        """The access token; any refusal is MISCONFIGURED, as Huawei documents no codes for it."""
        return read_token(response)

    def device_caps(self, account: HuaweiAccount) -> Mapping[str, int]:
        """Two of marketing; services have no limit below 3,000."""
        return {"marketing": 2, "service": 0}

    def class_of(
        self, account: HuaweiAccount, kind: Kind, *, group: bool = False, own: HuaweiOptions | None = None
    ) -> str:
        """By the category; test messages count in none."""
        if account.environment == "development":
            return ""
        told: HuaweiKind = account.by_kind[kind]
        category = own.category if own is not None and own.category else told.category
        return "marketing" if category == MARKETING else "service"

    def check(self, account: HuaweiAccount, now_s: float) -> list[str]:
        """What is wrong with the client secret, the message classes, the launcher activity and the receipts."""
        problems = [
            f"kinds.{kind}.category {told.category} is no message class of Huawei's notifications: write one of "
            f"{', '.join(sorted(CATEGORIES))}, or nothing to let Huawei classify"
            for kind, told in account.kinds.items()
            if told.category and told.category not in CATEGORIES
        ]
        problems += receipt_flaws(account)
        if account.badge_class and "." not in account.badge_class.strip("."):
            problems.append(
                f"badge_class {account.badge_class} is no full class name: write it with its package, "
                "e.g. com.example.im.MainActivity"
            )
        try:
            read_secret("client_secret", account.client_secret, account.client_secret_file)
        except CredentialError as problem:
            problems.append(str(problem))
        return problems


def _android(account: HuaweiAccount, push: Push, counts: bool, ttl: str, title: str, body: str, detail: int) -> bytes:
    """The JSON of everything but the tokens."""
    kind: HuaweiKind = account.by_kind[push.kind]
    category = kind.category
    data = {"mid": push.message_id}
    click: dict[str, Any] = {"type": 3}
    notification: dict[str, Any] = {"title": title, "body": body, "foreground_show": False}
    if kind.importance:
        notification["importance"] = kind.importance
    if kind.channel_id:
        notification["channel_id"] = kind.channel_id
    if account.badge_class and counts:
        notification["badge"] = {"add_num": 1, "class": account.badge_class}
    if detail != BARE:
        if push.conversation_id:
            data["cid"] = push.conversation_id
        # Without a key a repeat or a new revision still replaces what the message itself showed.
        notification["tag"] = push.replace_key or push.message_id
        sound = android_sound(push)
        if sound is not None:
            notification |= ({"sound": f"/raw/{sound}"} if sound else {}) | {"default_sound": False}
        if push.options is not None:
            category = _apply(push, notification) or category
    if push.ext and detail == FULL:
        if account.click_intent and _wants_intent(push):
            intent = account.click_intent.removesuffix("end")
            click = {"type": 1, "intent": f"{intent}S.ext={quote(push.ext, safe='')};end"}
        else:
            data["ext"] = push.ext
    notification["click_action"] = click
    asked = callback(account, push)
    android: dict[str, Any] = {"category": category} if category else {}
    if account.environment == "development":
        android["target_user_type"] = 1
    android |= {
        "ttl": ttl,
        "bi_tag": asked.echo if asked is not None else shared_id(push).hex(),
        "data": encode(data).decode(),
        "notification": notification,
    }
    return encode(android)


def _envelope(tokens: bytes, android: bytes) -> bytes:
    return b'{"message":{"token":' + tokens + b',"android":' + android + b"}}"


def _apply(push: Push, notification: dict[str, Any]) -> str:
    """Put what the message asks for into *notification*; the category that it asks for, if any."""
    assert push.options is not None
    own = push.options.huawei
    if _big_text(push):
        notification |= {"style": 1, "big_title": notification["title"], "big_body": notification["body"]}
    if own is None:
        return ""
    wishes = {"channel_id": own.channel_id, "importance": own.importance, "image": own.image}
    notification |= {name: value for name, value in wishes.items() if value}
    return own.category or ""


def _big_text(push: Push) -> bool:
    return push.options is not None and push.options.android is not None and push.options.android.style == "big_text"


def _wants_intent(push: Push) -> bool:
    return push.options is not None and push.options.huawei is not None and push.options.huawei.ext_as_intent_param


def _is_business(code: str) -> bool:
    """Whether *code* is one of Huawei's own, listed or not: eight digits, the first an 8."""
    return len(code) == 8 and code[0] == "8" and code.isdigit()


def _illegal_tokens(msg: object) -> frozenset[str]:
    """The tokens that a partial success names: a list, or an object of lists by reason, as text or as it is."""
    content = parse_object(msg) if isinstance(msg, str) else msg
    if not isinstance(content, Mapping):
        return frozenset()
    found: list[object] = []
    for name in ("illegal_tokens", "illegalTokens"):
        named = content.get(name)
        for tokens in named.values() if isinstance(named, Mapping) else [named]:
            found += tokens if isinstance(tokens, list) else []
    return frozenset(token for token in found if isinstance(token, str))
