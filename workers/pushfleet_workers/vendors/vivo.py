"""vivo (VPush): OriginOS and iQOO, tokens by md5 signature, one device a request, or stored content for up to 1,000.

Facts are vivo's (its push pages 362 and 896) and those of its Java server SDK 2.2.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from hashlib import blake2b, md5
from pathlib import Path
from typing import Any, ClassVar, Literal
from urllib.parse import quote

from pydantic import Field, SecretStr

from pushfleet.message import Kind, VivoOptions
from pushfleet_workers.account import AccountSettings, KindSettings
from pushfleet_workers.errors import CredentialError
from pushfleet_workers.outcome import OK, DayHour, Outcome, Remedy, Row, Verdict
from pushfleet_workers.push import Delivery, Push, sent_id
from pushfleet_workers.vendor import AuthAnswer, Request, Response, Staged, VendorDefaults
from pushfleet_workers.vendors._answers import BAD_PAYLOAD, CHINA_DAY, auth_refused, judge, parse_object, plain
from pushfleet_workers.vendors._files import read_secret
from pushfleet_workers.vendors._ids import notify_id
from pushfleet_workers.vendors._receipts import ReceiptAccount, callback, receipt_flaws
from pushfleet_workers.vendors._sounds import android_sound
from pushfleet_workers.vendors._text import char_count, clip_chars, encode
from pushfleet_workers.vendors._vivo_codes import CODES, OTHER, USER

__all__ = ["CODES", "Vivo", "VivoAccount", "VivoKind"]

HOST = "https://api-push.vivo.com.cn"
TOKEN_LIFE_S = 7_200
"""vivo's lasts a day; it wants a new one every hour or two."""

TTL_S_MIN, TTL_S_MAX = 60, 86_400
TITLE_COLUMNS_MAX, CONTENT_COLUMNS_MAX = 40, 100
EXTRAS_CHARS_MAX = 1_024
CALLBACK_CHARS_MAX = 128

WITH_SOUND = frozenset({2, 4})
SYSTEM = frozenset({"IM", "ACCOUNT", "TODO", "DEVICE_REMINDER", "ORDER", "SUBSCRIPTION"})
OPERATION = frozenset({"NEWS", "CONTENT", "MARKETING", "SOCIAL"})

_BRACKETS = dict.fromkeys(map(ord, "[]{}"))


class VivoKind(KindSettings):
    """How vivo's messages of one kind travel."""

    category: str | None = Field(
        None,
        max_length=64,
        description="Message class: IM, ACCOUNT, TODO, DEVICE_REMINDER, ORDER, SUBSCRIPTION are system messages, NEWS, "
        "CONTENT, MARKETING, SOCIAL operation messages; empty: classification alone.",
    )
    classification: Literal[0, 1] | None = Field(
        None, description="0 operation, 1 system: only where there is no category, which says it better."
    )
    notify_type: Literal[1, 2, 3, 4] | None = Field(
        None, description="1 silent, 2 sound, 3 vibration, 4 both; newer Androids go by the system's channel."
    )


class VivoAccount(ReceiptAccount):
    """An app in the vivo push console."""

    kind_defaults: ClassVar[Mapping[Kind, KindSettings]] = {
        "chat": VivoKind(category="IM", notify_type=4),
        "system": VivoKind(category="ACCOUNT", notify_type=4),
        "official": VivoKind(category="MARKETING", notify_type=4),
        "marketing": VivoKind(category="MARKETING", notify_type=4),
    }

    app_id: int = Field(gt=0, description="APP ID of the app, a number.")
    app_key: str = Field(pattern=r"^[A-Za-z0-9_-]{1,64}$", description="APP key of the app.")
    app_secret: SecretStr | None = Field(None, description="APP secret of the app.")
    app_secret_file: Path | None = Field(None, description="File that holds the APP secret, instead of it.")
    receipt_id: str = Field(
        "",
        max_length=64,
        pattern=r"^[A-Za-z0-9_-]*$",
        description="Id that the console shows for the receipt address registered there; empty: the address travels "
        "with each push, and lists of devices bring no receipts.",
    )
    environment: Literal["development", "production"] = Field(
        "production",
        description="development: test messages, for test devices of the push console only; all that an app may send "
        "before vivo has released it.",
    )
    kinds: dict[Kind, VivoKind] = Field(
        {}, description="How the messages of a kind travel; what chat is told holds for all that people cause."
    )
    click_intent: str = Field(
        "",
        max_length=512,
        pattern=r"^(intent:.*;end)?$",
        description="Intent URI of the page that a tap opens, e.g. "
        "intent:#Intent;component=com.example.im/.ChatActivity;end; mid, cid and ext are added as S.mid, S.cid, S.ext. "
        "Empty: the app is opened.",
    )
    neutral_title: str = Field(
        "新消息",
        min_length=1,
        max_length=20,
        description="Stands in for a missing title, and for one that vivo's text rules refused.",
    )
    neutral_text: str = Field(
        "您有一条新消息",
        min_length=1,
        max_length=50,
        description="Stands in for a missing text, and for one that vivo's text rules refused.",
    )
    rate_per_s: float | None = Field(
        3_000, gt=0, description="Most devices a second, over the whole fleet; 3,000 is what every app has."
    )


class Vivo(VendorDefaults):
    """vivo's push cloud."""

    name: ClassVar[str] = "vivo"
    account_type: ClassVar[type[AccountSettings]] = VivoAccount
    codes: ClassVar[Mapping[str, Row]] = CODES
    batch_size: ClassVar[int] = 1_000
    payload_limit: ClassVar[int] = 10_240
    """vivo limits fields only; this is more than they can hold together."""

    http2: ClassVar[bool] = False
    exact_badge: ClassVar[bool] = False
    day: ClassVar[DayHour] = CHINA_DAY

    def build(
        self, account: VivoAccount, push: Push, deliveries: Sequence[Delivery], auth: str, now_ms: int
    ) -> Request:
        """The request for the deliveries of one device; several need :meth:`stage`, or :class:`TypeError` is raised."""
        tokens = _tokens(deliveries)
        if len(tokens) != 1:
            raise TypeError("vivo takes the content for several devices ahead of them: call stage and build_staged")
        content = _content(account, push, deliveries, _ttl_s(push, now_ms), self.payload_limit)
        content = {"regId": tokens[0], **content, "requestId": _request_id(push, deliveries)}
        if not account.receipt_id:
            content |= _old_receipts(account, push)
        return _request(account, "/message/send", content, auth)

    def stage(
        self, account: VivoAccount, push: Push, deliveries: Sequence[Delivery], auth: str, now_ms: int
    ) -> Request | None:
        """The request that stores the content; None for one device, for which vivo refuses to.

        The same for whatever devices for the rest of a minute, so that it need not be stored for each list of them.
        """
        if len(_tokens(deliveries)) == 1:
            return None
        ttl_s = _ttl_s(push, now_ms) // TTL_S_MIN * TTL_S_MIN
        content = _content(account, push, deliveries, ttl_s, self.payload_limit)
        request_id = blake2b(encode(content), digest_size=16).hexdigest()
        return _request(account, "/message/saveListPayload", {**content, "requestId": request_id}, auth)

    def read_staged(self, response: Response) -> Staged:
        """The task id of the content, or why vivo did not store it."""
        content = parse_object(response.body)
        code, task_id = plain(content.get("result")), content.get("taskId")
        if code == "0" and response.status == 200 and isinstance(task_id, str | int) and task_id:
            return Staged(str(task_id))
        return Staged(failure=_of_many(_outcome(code if code != "0" else "", response)))

    def build_staged(
        self, account: VivoAccount, push: Push, deliveries: Sequence[Delivery], auth: str, now_ms: int, staged: str
    ) -> Request:
        """The request for 2 to 1,000 devices, each once, of content that lies with vivo."""
        content = {
            "appId": account.app_id,
            "regIds": _tokens(deliveries),
            "taskId": staged,
            "requestId": _request_id(push, deliveries),
            "pushMode": _push_mode(account),
        }
        return _request(account, "/message/pushToList", content, auth)

    def read(self, deliveries: Sequence[Delivery], response: Response) -> list[Outcome]:
        """What the answer says of a device, else the outcome of its code; who is not named in a list was served."""
        content = parse_object(response.body)
        code = plain(content.get("result"))
        if code == "0" and response.status == 200:
            outcome = OK
        else:
            outcome = _outcome(code if code != "0" else "", response)
            if len(_tokens(deliveries)) > 1:
                outcome = _of_many(outcome)
        named = _named(content) if code else {}
        return [named.get(delivery.token, outcome) for delivery in deliveries]

    def auth_request(self, account: VivoAccount, now_s: float) -> Request:
        """The request for an auth token, signed with the APP secret; raises :class:`CredentialError`."""
        secret = read_secret("app_secret", account.app_secret, account.app_secret_file)
        timestamp = int(now_s * 1_000)
        signed = f"{account.app_id}{account.app_key}{timestamp}{secret}"
        content = {
            "appId": account.app_id,
            "appKey": account.app_key,
            "timestamp": timestamp,
            "sign": md5(signed.encode(), usedforsecurity=False).hexdigest(),
        }
        url = account.auth_url or f"{_host(account)}/message/auth"
        return Request(url, {"content-type": "application/json"}, encode(content))

    def read_auth(self, response: Response) -> AuthAnswer:
        """The auth token; refusals are MISCONFIGURED unless they are limits or vivo's own faults."""
        content = parse_object(response.body)
        code, value = plain(content.get("result")), content.get("authToken")
        # The token becomes a header: what cannot be one is no token.
        good = isinstance(value, str) and value.isascii() and value.isprintable() and value.strip()
        if code == "0" and response.status == 200 and isinstance(value, str) and good:
            return AuthAnswer(value, TOKEN_LIFE_S)
        return auth_refused(CODES, code if code != "0" else "", response)

    def device_caps(self, account: VivoAccount) -> Mapping[str, int]:
        """Two operation messages; system messages have no limit."""
        return {"operation": 2, "system": 0}

    def class_of(self, account: VivoAccount, kind: Kind, *, group: bool = False, own: VivoOptions | None = None) -> str:
        """By the category, else by the classification, which is operation unless told; test messages count in none."""
        if account.environment == "development":
            return ""
        told = _class(account.by_kind[kind], own or VivoOptions(), silent=False)
        return "system" if told.get("classification") == 1 else "operation"

    def check(self, account: VivoAccount, now_s: float) -> list[str]:
        """What is wrong with the APP secret, the kinds and the receipts."""
        problems = receipt_flaws(account, 0 if account.receipt_id else CALLBACK_CHARS_MAX)
        try:
            read_secret("app_secret", account.app_secret, account.app_secret_file)
        except CredentialError as problem:
            problems.append(str(problem))
        for name, kind in account.kinds.items():
            problems += _flaws(name, kind)
        return problems


def _host(account: VivoAccount) -> str:
    return account.base_url.rstrip("/") or HOST


def _request(account: VivoAccount, path: str, content: Mapping[str, Any], auth: str) -> Request:
    headers = {"authtoken": auth, "content-type": "application/json"}
    return Request(_host(account) + path, headers, encode(content))


def _tokens(deliveries: Sequence[Delivery]) -> list[str]:
    """Each token once."""
    return list(dict.fromkeys([delivery.token for delivery in deliveries]))


def _push_mode(account: VivoAccount) -> int:
    return 1 if account.environment == "development" else 0


def _request_id(push: Push, deliveries: Sequence[Delivery]) -> str:
    """The same for a repeat to the same devices, another for any other: vivo may tell repeats by it."""
    ids = [sent_id(push, delivery) for delivery in deliveries]
    return (ids[0] if len(ids) == 1 else blake2b(b"".join(ids), digest_size=16).digest()).hex()


def _ttl_s(push: Push, now_ms: int) -> int:
    return min(max((push.expires_at_ms - now_ms) // 1_000, TTL_S_MIN), TTL_S_MAX)


def _content(
    account: VivoAccount, push: Push, deliveries: Sequence[Delivery], ttl_s: int, limit: int
) -> dict[str, Any]:
    """Everything but whom it is for; what the message asks for is left out where it would go above *limit* bytes."""
    title, text = _texts(account, push, {delivery.remedy for delivery in deliveries})
    content: dict[str, Any] = {
        "appId": account.app_id,
        "title": title,
        "content": text,
        "timeToLive": ttl_s,
        "skipType": 4 if account.click_intent else 1,
        "clientCustomMap": _extras(push),
        "pushMode": _push_mode(account),
        "notifyId": notify_id(push),
        "foregroundShow": False,
    }
    if account.click_intent:
        content["skipContent"] = _intent(account.click_intent, push)
    receipts = callback(account, push) if account.receipt_id else None
    if receipts is not None:
        content["extra"] = {"callback.id": account.receipt_id, "callback.param": receipts.echo}
    kind = account.by_kind[push.kind]
    own = push.options.vivo if push.options is not None else None
    silent = android_sound(push) == ""
    asked = content | _class(kind, own or VivoOptions(), silent)
    return asked if own is None or len(encode(asked)) <= limit else content | _class(kind, VivoOptions(), silent)


def _old_receipts(account: VivoAccount, push: Push) -> dict[str, Any]:
    """What asks for receipts of the old kind, which vivo has for single pushes that are no tests."""
    asked = callback(account, push)
    if asked is None or account.environment == "development":
        return {}
    return {"extra": {"callback": asked.url, "callback.param": asked.echo}}


def _texts(account: VivoAccount, push: Push, remedies: set[str]) -> tuple[str, str]:
    title, text = push.title or push.sender_name, push.body
    if "neutral_text" in remedies:
        title = text = ""
    elif account.environment == "production":
        # vivo refuses texts with brackets, as in "[image]".
        title, text = title.translate(_BRACKETS).strip(), text.translate(_BRACKETS).strip()
    halve = "shrink" in remedies
    return (
        clip_chars(title or account.neutral_title, TITLE_COLUMNS_MAX, wide=True, halve=halve),
        clip_chars(text or account.neutral_text, CONTENT_COLUMNS_MAX, wide=True, halve=halve),
    )


def _each_set(push: Push) -> list[dict[str, str]]:
    """What the app may be handed, from everything down to nothing."""
    found: list[dict[str, str]] = [{}]
    for name, value in (("mid", push.message_id), ("cid", push.conversation_id), ("ext", push.ext)):
        if value:
            found.append(found[-1] | {name: value})
    return found[::-1]


def _extras(push: Push) -> dict[str, str]:
    return next(
        extras
        for extras in _each_set(push)
        if sum(char_count(name) + char_count(value) for name, value in extras.items()) <= EXTRAS_CHARS_MAX
    )


def _intent(intent: str, push: Push) -> str:
    made = (
        intent.removesuffix("end") + "".join(f"S.{name}={quote(value, safe='')};" for name, value in extras.items())
        for extras in _each_set(push)
    )
    return next(f"{start}end" for start in made if len(start) + len("end") <= EXTRAS_CHARS_MAX)


def _class(kind: VivoKind, own: VivoOptions, silent: bool) -> dict[str, Any]:
    """Class and sound, as the message asks for, else as the kind is told; *silent* takes the sound from the latter."""
    category, classification = kind.category, kind.classification
    if own.category or own.classification is not None:
        category, classification = own.category, own.classification
    if category in SYSTEM | OPERATION:
        # They must agree.
        classification = 1 if category in SYSTEM else 0
    fields = {
        "category": category or None,
        "classification": classification,
        "notifyType": own.notify_type or _notify_type(kind, silent),
    }
    return {name: value for name, value in fields.items() if value is not None}


def _notify_type(kind: VivoKind, silent: bool) -> int | None:
    """What the kind is told; *silent* leaves the vibration of it."""
    return kind.notify_type - 1 if silent and kind.notify_type in WITH_SOUND else kind.notify_type


def _outcome(code: str, response: Response) -> Outcome:
    if code and code not in CODES and response.status == 200:
        return replace(CODES[OTHER].outcome, code=code)
    return judge(CODES, code, response)


def _of_many(outcome: Outcome) -> Outcome:
    """*outcome* of a request for several devices: none dies that is not named, each is tried alone instead."""
    if outcome.verdict is Verdict.DROP_TOKEN:
        return replace(BAD_PAYLOAD, code=outcome.code, remedy=Remedy.SINGLE_SEND)
    return outcome


def _named(content: Mapping[str, Any]) -> dict[str, Outcome]:
    """The outcomes of the devices that the answer names, by token."""
    many = content.get("invalidUsers")
    found: dict[str, Outcome] = {}
    for user in [content.get("invalidUser"), *(many if isinstance(many, list) else [])]:
        token = user.get("userid") if isinstance(user, Mapping) else None
        if isinstance(token, str):
            row = CODES.get(USER + plain(user.get("status"))) or CODES[f"{USER}other"]
            found[token] = row.outcome
    return found


def _flaws(name: str, kind: VivoKind) -> list[str]:
    flaws = []
    if kind.category and kind.category not in SYSTEM | OPERATION:
        listed = ", ".join(sorted(SYSTEM | OPERATION))
        flaws.append(f"kinds.{name}.category {kind.category} is no class of vivo's: write one of {listed}")
    if kind.category and kind.classification is not None and kind.classification != (kind.category in SYSTEM):
        flaws.append(f"kinds.{name}.classification contradicts its category: leave the classification out")
    return flaws
