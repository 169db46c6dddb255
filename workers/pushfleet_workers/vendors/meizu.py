"""Meizu (Flyme) push: every request signed with the app's secret, up to 100 tokens a request.

Facts are Meizu's (its API description of April 2025 and its server SDK for Java 1.2.11).
"""

from __future__ import annotations

from base64 import urlsafe_b64encode
from collections.abc import Mapping, Sequence
from dataclasses import replace
from hashlib import blake2b, md5
from pathlib import Path
from typing import Any, ClassVar, Literal
from urllib.parse import urlencode

from pydantic import Field, SecretStr

from pushfleet.message import Kind, MeizuOptions
from pushfleet_workers.account import AccountSettings, KindSettings
from pushfleet_workers.errors import CredentialError
from pushfleet_workers.outcome import OK, DayHour, Outcome, Remedy, Row, Scope, Verdict
from pushfleet_workers.push import Delivery, Push
from pushfleet_workers.vendor import AuthAnswer, Request, Response, VendorDefaults
from pushfleet_workers.vendors._answers import (
    BAD_PAYLOAD,
    CHINA_DAY,
    DROP_TOKEN,
    MISCONFIGURED,
    QUOTA_EXHAUSTED,
    RATE_LIMITED,
    RETRY,
    STATUS_ROWS,
    judge,
    parse_object,
    plain,
    table,
)
from pushfleet_workers.vendors._files import fixed_secret
from pushfleet_workers.vendors._receipts import ReceiptAccount, callback, receipt_flaws
from pushfleet_workers.vendors._sounds import android_sound
from pushfleet_workers.vendors._text import BARE, FULL, NO_EXT, clip, clip_chars, encode

__all__ = ["CODES", "Meizu", "MeizuAccount", "MeizuKind", "notify_key", "sign"]

HOST = "https://server-api-push.meizu.com"
PATH = "/garcia/api/server/push/varnished/pushByPushId"
TITLE_CHARS_MAX = 32
CONTENT_CHARS_MAX = 100
EXPANDED_BYTES_MAX = 1_000
"""What is shown when a notification is opened up; Meizu names no limit."""

HOURS_MAX = 72
CALLBACK_CHARS_MAX = 128
DELIVERED_AND_TAPPED = 3
PUBLIC, PRIVATE = 0, 1
_HOUR_MS = 3_600_000
_FOLDED_WAIT_S = 60.0
_OVERLOAD_WAIT_S = 5.0
_DEVICE_QUOTA = replace(QUOTA_EXHAUSTED, scope=Scope.DEVICE)
_ACCOUNT_QUOTA = replace(QUOTA_EXHAUSTED, scope=Scope.ACCOUNT)
_ALONE = replace(BAD_PAYLOAD, remedy=Remedy.SINGLE_SEND)

CODES = table(
    *STATUS_ROWS,
    ("200", "any", OK, "Accepted, but for the tokens that `value` names."),
    ("300", "any", MISCONFIGURED, "Meizu has moved: set base_url to the new address once Meizu has announced it."),
    ("500", "any", RETRY, "Any other fault at Meizu."),
    ("1001", "any", RETRY, "Meizu has a fault."),
    ("1003", "any", RETRY, "Meizu is busy."),
    ("1005", "any", BAD_PAYLOAD, "A parameter is wrong."),
    ("1006", "any", MISCONFIGURED, "The signature was refused: copy the app's secret from the Flyme push console."),
    ("110000", "any", MISCONFIGURED, "app_id is wrong: copy it from the Flyme push console."),
    ("110001", "any", MISCONFIGURED, "The app key is wrong: copy app_id and secret of one app from the console."),
    ("110002", "any", DROP_TOKEN, "The token is not registered any more, in a request for it alone."),
    ("110002 of many", "any", _ALONE, "A token is not registered any more, in a request for several."),
    ("110003", "any", DROP_TOKEN, "The token is none of Meizu's, in a request for it alone."),
    ("110003 of many", "any", _ALONE, "A token is none of Meizu's, in a request for several."),
    ("110004", "any", BAD_PAYLOAD, "A parameter is empty."),
    ("110009", "any", MISCONFIGURED, "The app is on Meizu's black list: have it taken off in the console."),
    ("110010", "any", RATE_LIMITED, "The app sends too fast."),
    ("110019", "any", _ACCOUNT_QUOTA, "The app's pushes of the day are used up."),
    ("110031", "any", MISCONFIGURED, "The package name is wrong: check which app app_id belongs to."),
    ("110032", "any", BAD_PAYLOAD, "The id of a task is wrong; we send none."),
    ("110033", "any", MISCONFIGURED, "The secret is wrong: copy the app's secret from the Flyme push console."),
    ("110051", "any", _ACCOUNT_QUOTA, "The app has pushed as often as it may."),
    ("110053", "any", MISCONFIGURED, "Above the limit of pass-through messages, which we do not send."),
    (
        "other codes",
        "any",
        Outcome(Verdict.RETRY),
        "A number that is not listed here, of the request or of a token: tried again, the token is kept.",
    ),
    (
        "value 201",
        "200",
        replace(MISCONFIGURED, scope=Scope.DEVICE),
        "Meizu refuses to serve this token: look in the console whether the app may push.",
    ),
    ("value 501", "200", Outcome(Verdict.RETRY), "Meizu's database failed for this token."),
    ("value 513", "200", Outcome(Verdict.RETRY), "Meizu failed for this token."),
    ("value 518", "200", RATE_LIMITED, "Above the speed set for the app."),
    (
        "value 519",
        "200",
        Outcome(Verdict.RETRY_AFTER, Scope.ACCOUNT, wait_s=_OVERLOAD_WAIT_S),
        "Meizu is overloaded.",
    ),
    (
        "value 520",
        "200",
        Outcome(Verdict.RETRY_AFTER, wait_s=_FOLDED_WAIT_S),
        "Folded: the device got more than about five within a minute.",
    ),
    ("value 110002", "200", DROP_TOKEN, "The token is not subscribed any more."),
    ("value 110003", "200", DROP_TOKEN, "The token is none of Meizu's."),
    ("value 110005", "200", Outcome(Verdict.MUTE_DEVICE), "The alias is not subscribed or switched off; we use none."),
    (
        "value 110010",
        "200",
        Outcome(Verdict.MUTE_DEVICE),
        "The user has switched the app's messages off: nothing is sent until the device registers anew.",
    ),
    ("value 110011", "200", _DEVICE_QUOTA, "The device has had its public messages of the day."),
)
"""Codes of the answer, and as ``value …`` those by which it names single tokens: 110010 is both, with two meanings."""

_UNKNOWN = CODES["other codes"].outcome


class MeizuKind(KindSettings):
    """How Meizu's messages of one kind travel."""

    notice_type: Literal[0, 1] | None = Field(
        None, description="1 private, without a limit; 0 public, three a day for a device (five for news)."
    )


class MeizuAccount(ReceiptAccount):
    """An app in the Flyme push console."""

    kind_defaults: ClassVar[Mapping[Kind, KindSettings]] = {
        "chat": MeizuKind(notice_type=PRIVATE),
        **{kind: MeizuKind(notice_type=PUBLIC) for kind in ("system", "official", "marketing")},
    }

    app_id: str = Field(pattern=r"^[0-9]{1,20}$", description="App id of the Flyme push console, a number.")
    app_secret: SecretStr | None = Field(None, description="App secret of the console.")
    app_secret_file: Path | None = Field(None, description="File that holds the app secret, instead of it.")
    kinds: dict[Kind, MeizuKind] = Field(
        {}, description="How the messages of a kind travel; what chat is told holds for all that people cause."
    )
    receipt_token: SecretStr | None = Field(
        None, description="Token that the console was told for receipts; absent: only what they bring back is checked."
    )
    receipt_token_file: Path | None = Field(None, description="File that holds that token, instead of it.")
    numeric_switches: bool = Field(
        False,
        description="Write switches as 1 and 0, as Meizu's documents do; absent: true and false, as its SDK does.",
    )
    default_text: str = Field(
        "New message",
        min_length=1,
        max_length=32,
        description="Stands in for a missing title or body: Meizu insists on both.",
    )
    rate_per_s: float | None = Field(
        200, gt=0, description="Most tokens a second, over the whole fleet; sources name 200 and 500 for every app."
    )


class Meizu(VendorDefaults):
    """Meizu's push cloud."""

    name: ClassVar[str] = "meizu"
    account_type: ClassVar[type[AccountSettings]] = MeizuAccount
    codes: ClassVar[Mapping[str, Row]] = CODES
    batch_size: ClassVar[int] = 100
    payload_limit: ClassVar[int] = 4_096
    http2: ClassVar[bool] = False
    exact_badge: ClassVar[bool] = False
    day: ClassVar[DayHour] = CHINA_DAY

    def build(
        self, account: MeizuAccount, push: Push, deliveries: Sequence[Delivery], auth: str, now_ms: int
    ) -> Request:
        """The request for up to 100 deliveries, each token once, signed; at most 4,096 bytes without the tokens."""
        halve = any(delivery.remedy == "shrink" for delivery in deliveries)
        form = {"appId": account.app_id, "messageJson": "", "pushIds": ""}
        limit = self.payload_limit - len(account.app_id) - len(sign(form, auth))
        for detail in (FULL, NO_EXT, BARE):
            message = encode(_message(account, push, now_ms, halve, detail))
            if len(message) <= limit:
                break
        # The text that is signed is the text that is sent. A token that stands there twice may get the message twice.
        form["messageJson"] = message.decode()
        form["pushIds"] = ",".join(dict.fromkeys([delivery.token for delivery in deliveries]))
        form["sign"] = sign(form, auth)
        headers = {"content-type": "application/x-www-form-urlencoded;charset=UTF-8"}
        host = account.base_url.rstrip("/") or HOST
        return Request(host + PATH, headers, urlencode(form, errors="replace").encode())

    def read(self, deliveries: Sequence[Delivery], response: Response) -> list[Outcome]:
        """The outcome of the code, of which that of tokens named in `value` differs; else of the status."""
        content = parse_object(response.body)
        code = plain(content.get("code"))
        if not code.isdecimal():
            return [judge(CODES, "", response)] * len(deliveries)
        if code == "200":
            named = _named(content.get("value"))
            return [named.get(delivery.token, OK) for delivery in deliveries]
        if code in ("110002", "110003") and len({delivery.token for delivery in deliveries}) > 1:
            return [CODES[f"{code} of many"].outcome] * len(deliveries)
        if code not in CODES and response.status == 200:
            return [replace(_UNKNOWN, code=code)] * len(deliveries)
        return [judge(CODES, code, response)] * len(deliveries)

    def mint(self, account: MeizuAccount, now_s: float) -> AuthAnswer:
        """The app secret, read again within a minute; raises :class:`CredentialError`."""
        return fixed_secret("app_secret", account.app_secret, account.app_secret_file)

    def device_caps(self, account: MeizuAccount) -> Mapping[str, int]:
        """Three public messages; private ones have no limit."""
        return {"public": 3, "private": 0}

    def class_of(
        self, account: MeizuAccount, kind: Kind, *, group: bool = False, own: MeizuOptions | None = None
    ) -> str:
        """By the notice type."""
        told: MeizuKind = account.by_kind[kind]
        notice_type = own.notice_type if own is not None and own.notice_type is not None else told.notice_type
        return "private" if notice_type == PRIVATE else "public"

    def check(self, account: MeizuAccount, now_s: float) -> list[str]:
        """What is wrong with the app secret, with classes that would be punished, and with the receipts."""
        problems = [
            f"kinds.{kind}.notice_type is private, which Meizu keeps for messages between people and to one user: "
            "write 0, or leave it out"
            for kind in ("official", "marketing")
            if account.by_kind[kind].notice_type == PRIVATE
        ]
        problems += receipt_flaws(account, CALLBACK_CHARS_MAX)
        try:
            self.mint(account, now_s)
        except CredentialError as problem:
            problems.append(str(problem))
        return problems


def sign(form: Mapping[str, str], secret: str) -> str:
    """The signature of *form*, values as they are before they are encoded: 32 hexadecimal digits."""
    text = "".join(f"{name}={form[name]}" for name in sorted(form))
    return md5(f"{text}{secret}".encode(errors="replace"), usedforsecurity=False).hexdigest()


def notify_key(push: Push) -> str:
    """What *push* replaces on screen and is replaced by: 8 letters, digits, ``-`` or ``_``, from its replace key.

    Without one it is made from the message, so that a repeat or a new revision replaces what the message showed.
    """
    name = push.replace_key or f"{push.app}\0{push.message_id}"
    return urlsafe_b64encode(blake2b(name.encode(errors="surrogatepass"), digest_size=6).digest()).decode()


def _message(account: MeizuAccount, push: Push, now_ms: int, halve: bool, detail: int) -> dict[str, Any]:
    on, off = (1, 0) if account.numeric_switches else (True, False)
    title = push.title.strip() or push.sender_name.strip() or account.default_text
    body = push.body.strip() or account.default_text
    options = push.options
    notice_type: int = account.by_kind[push.kind].notice_type
    if options is not None and options.meizu is not None and options.meizu.notice_type is not None:
        notice_type = options.meizu.notice_type
    # The app reads every value as text.
    data = {"mid": push.message_id}
    if push.conversation_id and detail != BARE:
        data["cid"] = push.conversation_id
    if push.ext and detail == FULL:
        data["ext"] = push.ext
    hours = -((now_ms - push.expires_at_ms) // _HOUR_MS)
    message: dict[str, Any] = {
        "noticeBarInfo": {
            "noticeBarType": 0,
            "title": clip_chars(title, TITLE_CHARS_MAX, halve=halve),
            "content": clip_chars(body, CONTENT_CHARS_MAX, halve=halve),
            "noticeMsgType": notice_type,
        },
        "clickTypeInfo": {"clickType": 0, "parameters": data},
        "pushTimeInfo": {"offLine": on, "validTime": min(max(hours, 1), HOURS_MAX)},
        "advanceInfo": {
            "suspend": on,
            "clearNoticeBar": on,
            "notificationType": {"vibrate": on, "lights": on, "sound": off if android_sound(push) == "" else on},
            "notifyKey": notify_key(push),
        },
    }
    asked = callback(account, push)
    if asked is not None:
        message["extra"] = {
            "callback": asked.url,
            "callback.param": asked.echo,
            "callback.type": str(DELIVERED_AND_TAPPED),
        }
    if options is not None and options.android is not None and options.android.style == "big_text" and detail != BARE:
        whole = clip(body, EXPANDED_BYTES_MAX // 2 if halve else EXPANDED_BYTES_MAX)
        message["noticeExpandInfo"] = {"noticeExpandType": 1, "noticeExpandContent": whole}
    return message


def _named(value: object) -> dict[str, Outcome]:
    """The outcomes of the tokens that an accepted request names: an object of lists by code, or its JSON text."""
    content = parse_object(value) if isinstance(value, str) else value
    if not isinstance(content, Mapping):
        return {}
    found: dict[str, Outcome] = {}
    for key, tokens in content.items():
        code = f"value {plain(key)}"
        row = CODES.get(code)
        outcome = row.outcome if row is not None else replace(_UNKNOWN, code=code.strip())
        if isinstance(tokens, list):
            found |= {token: outcome for token in tokens if isinstance(token, str)}
    return found
