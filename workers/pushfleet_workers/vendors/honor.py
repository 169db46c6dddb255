"""Honor Push: Magic UI and MagicOS, OAuth 2 client credentials, up to 100 tokens a request.

Facts are those of Honor's guide to downlink messages and of public clients that agree; Honor's page of answer codes was
not at hand, so the table is a careful reading: no token dies of a code, only of being named as expired.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal
from urllib.parse import urlencode

from pydantic import Field, SecretStr

from pushfleet.message import HonorOptions, Kind
from pushfleet_workers.account import AccountSettings, KindSettings
from pushfleet_workers.errors import CredentialError
from pushfleet_workers.outcome import OK, DayHour, Outcome, Remedy, Row, Scope, Verdict
from pushfleet_workers.push import Delivery, Push, shared_id
from pushfleet_workers.vendor import AuthAnswer, Request, Response, VendorDefaults
from pushfleet_workers.vendors._answers import (
    BAD_PAYLOAD,
    CHINA_DAY,
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
from pushfleet_workers.vendors._receipts import ReceiptAccount, callback, receipt_flaws
from pushfleet_workers.vendors._text import BARE, FULL, encode, within

__all__ = ["CODES", "Honor", "HonorAccount", "HonorKind"]

HOST = "https://push-api.cloud.honor.com"
TOKEN_URL = "https://iam.developer.honor.com/auth/token"
TTL_S_MAX = 1_296_000

_MEND_ID_AND_SECRET = "correct client_id and client_secret, which are not the app's id and secret"
_FORBIDDEN = f"The access token was refused; if a fresh one is refused as well: {_MEND_ID_AND_SECRET}."
_NO_ADDRESS = "There is no such app or address: correct app_id or base_url."

CODES = table(
    *STATUS_ROWS,
    ("HTTP 403", "403", REFRESH_AUTH, _FORBIDDEN),
    ("HTTP 404", "404", MISCONFIGURED, _NO_ADDRESS),
    ("200", "any", OK, "Accepted, but for the tokens that the answer names."),
    ("80000000", "any", OK, "Accepted, but for the tokens that the answer names."),
    ("400", "any", BAD_PAYLOAD, "A parameter is wrong: look at the message's overrides."),
    ("401", "any", REFRESH_AUTH, _FORBIDDEN),
    ("403", "any", REFRESH_AUTH, _FORBIDDEN),
    ("404", "any", MISCONFIGURED, _NO_ADDRESS),
    ("429", "any", RATE_LIMITED, "Too fast."),
    *((code, "any", RETRY, "Honor has a fault.") for code in ("500", "502", "503", "504")),
    ("expireTokens", "any", DROP_TOKEN, "The answer names the token as expired."),
    (
        "failTokens",
        "any",
        replace(BAD_PAYLOAD, remedy=Remedy.SINGLE_SEND),
        "The answer names the token as failed, without a reason: tried once more by itself, then given up and kept.",
    ),
    ("802xxxxx", "any", REFRESH_AUTH, "Eight digits that begin so: of the authorization, as with Huawei."),
    ("8xxxxxxx", "any", BAD_PAYLOAD, "Eight other digits: this push ends, nothing else is touched."),
    (
        "other codes",
        "any",
        Outcome(Verdict.RETRY),
        "Codes that are not listed here: this push alone is tried again, the token is kept.",
    ),
    *(
        (error, "any", MISCONFIGURED, f"No access token: {_MEND_ID_AND_SECRET}.")
        for error in ("invalid_client", "invalid_grant", "unauthorized_client")
    ),
)
"""Codes of the body, which go before the status; what its lists say of a token; errors of the token endpoint."""

_EXPIRED, _FAILED = CODES["expireTokens"].outcome, CODES["failTokens"].outcome
_GRANT_ERRORS = frozenset({"invalid_client", "invalid_grant", "unauthorized_client"})


class HonorKind(KindSettings):
    """How Honor's messages of one kind travel."""

    importance: Literal["LOW", "NORMAL"] | None = Field(
        None,
        description="Message class: NORMAL for service and communication, which needs Honor's right to classify; LOW "
        "for news and marketing, two a day for a device.",
    )


class HonorAccount(ReceiptAccount):
    """An app on Honor's console with its OAuth 2.0 client."""

    kind_defaults: ClassVar[Mapping[Kind, KindSettings]] = {
        "chat": HonorKind(importance="NORMAL"),
        "system": HonorKind(importance="LOW"),
        "official": HonorKind(importance="LOW"),
        "marketing": HonorKind(importance="LOW"),
    }

    app_id: str = Field(pattern=r"^[A-Za-z0-9_-]{1,64}$", description="App ID of the app's push service.")
    client_id: str = Field(
        pattern=r"^[A-Za-z0-9_-]{1,64}$", description="Client ID on the push page of Honor's console; not the App ID."
    )
    client_secret: SecretStr | None = Field(None, description="Client Secret from the same page; not the App Secret.")
    client_secret_file: Path | None = Field(None, description="File that holds the Client Secret, instead of it.")
    environment: Literal["development", "production"] = Field(
        "production",
        description="development: test messages, which no daily cap of a device counts; Honor takes 1,000 a day.",
    )
    kinds: dict[Kind, HonorKind] = Field(
        {}, description="How the messages of a kind travel; what chat is told holds for all that people cause."
    )
    badge_class: str = Field(
        "",
        max_length=256,
        description="Full name of the launcher activity, e.g. com.example.im.MainActivity; empty: no badge.",
    )
    default_text: str = Field(
        "New message",
        min_length=1,
        max_length=64,
        description="Stands in for a missing title or body: Honor insists on both.",
    )
    rate_per_s: float | None = Field(
        3_000, gt=0, description="Most tokens a second, over the whole fleet; 3,000 is what every app has."
    )


class Honor(VendorDefaults):
    """Honor's push cloud."""

    name: ClassVar[str] = "honor"
    account_type: ClassVar[type[AccountSettings]] = HonorAccount
    codes: ClassVar[Mapping[str, Row]] = CODES
    batch_size: ClassVar[int] = 100
    payload_limit: ClassVar[int] = 4_096
    http2: ClassVar[bool] = False
    exact_badge: ClassVar[bool] = False
    day: ClassVar[DayHour] = CHINA_DAY

    def build(
        self, account: HonorAccount, push: Push, deliveries: Sequence[Delivery], auth: str, now_ms: int
    ) -> Request:
        """The request for up to 100 deliveries, each token once; at most 4,096 bytes without the tokens."""
        # A token that stands there twice might get the message twice.
        tokens = encode(list(dict.fromkeys([delivery.token for delivery in deliveries])))
        # What replaces a push was counted with it.
        counts = not push.revision and any(delivery.badge >= 0 for delivery in deliveries)
        halve = any(delivery.remedy == Remedy.SHRINK for delivery in deliveries)
        ttl = f"{min(max((push.expires_at_ms - now_ms) // 1_000, 1), TTL_S_MAX)}s"
        limit = self.payload_limit - len(_envelope(b"[]", b""))
        title, body = push.title or push.sender_name or account.default_text, push.body or account.default_text
        android = _android(account, push, counts, ttl, title, body, FULL)
        if len(android) > limit or halve:
            form = partial(_android, account, push, counts, ttl)
            android = within(limit, title, body, halve, form, copies=2 if _big_text(push) else 1)
        headers = {
            "authorization": f"Bearer {auth}",
            "content-type": "application/json; charset=UTF-8",
            "timestamp": str(now_ms),
        }
        url = f"{account.base_url.rstrip('/') or HOST}/api/v1/{account.app_id}/sendMessage"
        return Request(url, headers, _envelope(tokens, android))

    def read(self, deliveries: Sequence[Delivery], response: Response) -> list[Outcome]:
        """The outcome of the code, else of the status; a token that the answer names has its own, whatever the code."""
        content = parse_object(response.body)
        shared = _shared(plain(content.get("code")), response)
        data = content.get("data")
        lists = data if isinstance(data, Mapping) else {}
        expired, failed = _named(lists.get("expireTokens")), _named(lists.get("failTokens"))
        # What befell the whole account says why they failed.
        own = shared if shared.scope is Scope.ACCOUNT else _FAILED
        return [
            _EXPIRED if delivery.token in expired else own if delivery.token in failed else shared
            for delivery in deliveries
        ]

    def auth_request(self, account: HonorAccount, now_s: float) -> Request:
        """The client credentials grant (RFC 6749 section 4.4); raises :class:`CredentialError`."""
        form = {
            "grant_type": "client_credentials",
            "client_id": account.client_id,
            "client_secret": read_secret("client_secret", account.client_secret, account.client_secret_file),
        }
        headers = {"content-type": "application/x-www-form-urlencoded"}
        return Request(account.auth_url or TOKEN_URL, headers, urlencode(form).encode())

    def read_auth(self, response: Response) -> AuthAnswer:
        """The access token; a refusal is MISCONFIGURED, by its ``error`` whatever the status."""
        answer = read_token(response)
        if answer.failure is not None and answer.failure.code in _GRANT_ERRORS:
            return AuthAnswer(failure=CODES[answer.failure.code].outcome)
        return answer

    def device_caps(self, account: HonorAccount) -> Mapping[str, int]:
        """Two of news and marketing; service and communication have no limit."""
        return {"marketing": 2, "service": 0}

    def class_of(
        self, account: HonorAccount, kind: Kind, *, group: bool = False, own: HonorOptions | None = None
    ) -> str:
        """By the importance, which is Honor's message class; test messages count in none."""
        if account.environment == "development":
            return ""
        told: HonorKind = account.by_kind[kind]
        importance = own.importance if own is not None and own.importance else told.importance
        return "marketing" if importance == "LOW" else "service"

    def check(self, account: HonorAccount, now_s: float) -> list[str]:
        """What is wrong with the client secret, the launcher activity and the receipts."""
        problems = receipt_flaws(account)
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


def _android(account: HonorAccount, push: Push, counts: bool, ttl: str, title: str, body: str, detail: int) -> bytes:
    """The JSON of everything but the tokens."""
    kind: HonorKind = account.by_kind[push.kind]
    data = {"mid": push.message_id}
    notification: dict[str, Any] = {"title": title, "body": body, "clickAction": {"type": 3}}
    if kind.importance:
        notification["importance"] = kind.importance
    if account.badge_class and counts:
        notification["badge"] = {"addNum": 1, "badgeClass": account.badge_class}
    if detail != BARE:
        if push.conversation_id:
            data["cid"] = push.conversation_id
        # Honor knows no repeat by an id: without a replace key a repeat at least replaces itself.
        notification["tag"] = push.replace_key or push.message_id
        if _big_text(push):
            notification |= {"style": 1, "bigTitle": title, "bigBody": body}
        own = push.options.honor if push.options is not None else None
        if own is not None:
            notification |= {
                name: value for name, value in (("importance", own.importance), ("image", own.image)) if value
            }
    if push.ext and detail == FULL:
        data["ext"] = push.ext
    asked = callback(account, push)
    return encode(
        {
            "ttl": ttl,
            "biTag": asked.echo if asked is not None else shared_id(push).hex(),
            "targetUserType": 1 if account.environment == "development" else 0,
            "data": encode(data).decode(),
            "notification": notification,
        }
    )


def _envelope(tokens: bytes, android: bytes) -> bytes:
    return b'{"token":' + tokens + b',"android":' + android + b"}"


def _big_text(push: Push) -> bool:
    return push.options is not None and push.options.android is not None and push.options.android.style == "big_text"


def _shared(code: str, response: Response) -> Outcome:
    """What the answer says of the whole request: by its code where that is a number, else by its status."""
    if code.isdigit() and code in CODES:
        return judge(CODES, code, response)
    if response.status == 429 or response.status >= 500 or not code:
        return judge(CODES, "", response)
    if len(code) == 8 and code[0] == "8" and code.isdigit():
        return replace(CODES["802xxxxx" if code.startswith("802") else "8xxxxxxx"].outcome, code=code)
    if response.status == 200:
        return replace(CODES["other codes"].outcome, code=code)
    return judge(CODES, "", response)


def _named(tokens: object) -> frozenset[str]:
    return frozenset(token for token in tokens if isinstance(token, str)) if isinstance(tokens, list) else frozenset()
