"""Xiaomi MiPush: static secret, up to 1,000 tokens a request, a channel and a text template per kind of message.

Facts are Xiaomi's (dev.mi.com, its server SDK for Java and the pages on limits, templates and error codes); what only
practice knows is marked in the documentation.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal
from unicodedata import category
from urllib.parse import urlencode

from pydantic import BaseModel, ConfigDict, Field, SecretStr

from pushfleet.message import Kind, XiaomiOptions
from pushfleet_workers.account import AccountSettings, KindSettings
from pushfleet_workers.errors import CredentialError
from pushfleet_workers.outcome import OK, DayHour, Outcome, Row
from pushfleet_workers.push import Delivery, Push, shared_id
from pushfleet_workers.vendor import AuthAnswer, Request, Response, VendorDefaults
from pushfleet_workers.vendors._answers import CHINA_DAY, judge, parse_object, plain
from pushfleet_workers.vendors._files import fixed_secret
from pushfleet_workers.vendors._ids import notify_id
from pushfleet_workers.vendors._receipts import ReceiptAccount, callback, receipt_flaws
from pushfleet_workers.vendors._sounds import android_sound
from pushfleet_workers.vendors._templates import TemplateParams, filled, texts_for
from pushfleet_workers.vendors._text import BARE, FULL, NO_EXT, clip_chars, encode
from pushfleet_workers.vendors._xiaomi_codes import CODES

__all__ = ["CODES", "Xiaomi", "XiaomiAccount", "XiaomiKind", "template_text"]

HOSTS = {
    "cn": "https://api.xmpush.xiaomi.com",
    "ru": "https://ru-api.xmpush.global.xiaomi.com",
    "in": "https://idmb-api.xmpush.global.xiaomi.com",
    "eu": "https://fr-api.xmpush.global.xiaomi.com",
    "sg": "https://sgp-api.xmpush.global.xiaomi.com",
}
TITLE_CHARS_MAX = 49
DESCRIPTION_CHARS_MAX = 127
VALUE_CHARS_MAX = 128
VARIABLES_MAX = 9
TTL_MS_MAX = 864_000_000
PUBLIC_TTL_MS_MAX = 86_400_000
NOTIFY_ALL = -1
SOUND, ALL_OF_THEM = 1, 7
CALLBACK_CHARS_MAX = 128
EVERY_RECEIPT = 1 + 2 + 16 + 32 + 64 + 128 + 1_024
_BARE_VALUE_CHARS_MAX = 32

_PUBLIC = frozenset({"system", "official", "marketing"})
"""Kinds that nobody writes to anybody: never taken for private messages."""

_NO_VALID_TARGET = re.compile(r"\b(no valid|not valid|invalid)\s+(target|reg_?id|registration|device)", re.IGNORECASE)
_REFUSED = re.compile(r":\s*([0-9]{1,9})\b")
# What a template takes no more than other symbols: variation selectors, keycaps, skin tones, tags of flags, and the two
# emoji that Unicode files under mathematics.
_EMOJI_PARTS = re.compile("[\u25fd\u25fe\ufe0e\ufe0f\u20e3\U0001f3fb-\U0001f3ff\U000e0020-\U000e007f]")
_UNFIT = frozenset({"So", "Cn", "Co", "Cs"})
_JOINER, _AS_EMOJI = "\u200d", "\ufe0f"

Params = Annotated[TemplateParams, Field(max_length=VARIABLES_MAX)]


class XiaomiRoute(BaseModel):
    """A channel with its template."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)
    channel_id: str = Field(max_length=64, description="Channel, as approved in the developer console.")
    template_id: str | None = Field(None, max_length=64, description="Text template of the channel; empty: none.")
    template_params: Params | None = Field(None, description="What fills the template, by the names of its variables.")


class XiaomiKind(KindSettings):
    """How Xiaomi's messages of one kind travel."""

    channel_id: str | None = Field(
        None,
        max_length=64,
        description="Channel, as approved in the developer console; empty: none, which Xiaomi may refuse.",
    )
    template_id: str | None = Field(
        None,
        max_length=64,
        description="Text template of the channel; private channels take nothing else since 2026; empty: none.",
    )
    template_params: Params | None = Field(
        None,
        description="What fills the template, by the names of its variables: a text with {title}, {body}, {sender} or "
        "{group} in it.",
    )
    notify_type: int | None = Field(
        None, ge=-1, le=7, description="Sum of 1 sound, 2 vibration, 4 light; 0 none; absent or -1: all."
    )
    group: XiaomiRoute | None = Field(
        None,
        description="Channel, template and parameters in groups, where they are others: a table of the same names.",
    )


class XiaomiAccount(ReceiptAccount):
    """An app in Xiaomi's developer console, for the devices of one region."""

    kind_defaults: ClassVar[Mapping[Kind, KindSettings]] = {"chat": XiaomiKind()}

    package_name: str = Field(
        max_length=256,
        pattern=r"^[A-Za-z][A-Za-z0-9_]*(\.[A-Za-z][A-Za-z0-9_]*)+$",
        description="Android package of the app, e.g. com.example.chat.",
    )
    app_secret: SecretStr | None = Field(None, description="AppSecret of the app.")
    app_secret_file: Path | None = Field(None, description="File that holds the AppSecret, instead of it.")
    region: Literal["cn", "ru", "in", "eu", "sg"] = Field(
        "cn", description="Where the devices are: mainland China, Russia, India, EEA and UK, or sg for all the rest."
    )
    kinds: dict[Kind, XiaomiKind] = Field(
        {}, description="How the messages of a kind travel; what chat is told holds for all that people cause."
    )
    multi_messages: bool = Field(
        False,
        description="Send messages of their own to many tokens in one request; Xiaomi then tells no token's result.",
    )
    multi_messages_path: Literal["/v2/multi_messages/regids", "/v3/multi_messages/regids"] = Field(
        "/v2/multi_messages/regids",
        description="Where such requests go: /v2/multi_messages/regids, or /v3/multi_messages/regids as Xiaomi's newer "
        "SDK has it.",
    )
    payload_bytes_max: int = Field(
        2_048,
        ge=1_600,
        le=3_072,
        description="Most bytes of the data for the app, ext included; Xiaomi names no limit.",
    )
    default_text: str = Field(
        "New message",
        min_length=1,
        max_length=40,
        description="Stands in for a text that is missing, or of which nothing but emoji was there.",
    )
    rate_per_s: float | None = Field(
        500,
        gt=0,
        description="Most tokens a second, over the whole fleet; every app has 500 requests, large ones up to 3,000.",
    )


class Xiaomi(VendorDefaults):
    """Xiaomi's push cloud."""

    name: ClassVar[str] = "xiaomi"
    account_type: ClassVar[type[AccountSettings]] = XiaomiAccount
    codes: ClassVar[Mapping[str, Row]] = CODES
    batch_size: ClassVar[int] = 1_000
    payload_limit: ClassVar[int] = 4_096
    http2: ClassVar[bool] = False
    exact_badge: ClassVar[bool] = False
    day: ClassVar[DayHour] = CHINA_DAY

    def build(
        self, account: XiaomiAccount, push: Push, deliveries: Sequence[Delivery], auth: str, now_ms: int
    ) -> Request:
        """The request for up to 1,000 deliveries, each token once; its values have at most 4,096 bytes without them."""
        halve = any(delivery.remedy == "shrink" for delivery in deliveries)
        message, extra = self._content(account, push, now_ms, halve)
        # A token that stands there twice may get the message twice.
        tokens = ",".join(dict.fromkeys([delivery.token for delivery in deliveries]))
        form: dict[str, str | int] = {"registration_id": tokens, **message}
        form |= {f"extra.{name}": value for name, value in extra.items()}
        return _request(account, "/v3/message/regid", form, auth)

    def mixes(self, account: XiaomiAccount) -> bool:
        """Whether the account says so: such an answer tells no token's result."""
        return account.multi_messages

    def build_mixed(
        self, account: XiaomiAccount, letters: Sequence[tuple[Push, Delivery]], auth: str, now_ms: int
    ) -> Request:
        """The request for up to 1,000 deliveries, each with a message of its own."""
        messages = []
        for push, delivery in letters:
            message, extra = self._content(account, push, now_ms, delivery.remedy == "shrink")
            messages.append({"target": delivery.token, "message": {**message, "extra": extra}})
        form: dict[str, str | int] = {"messages": encode(messages).decode(), "time_to_send": 0}
        return _request(account, account.multi_messages_path, form, auth)

    def read(self, deliveries: Sequence[Delivery], response: Response) -> list[Outcome]:
        """The outcome of the code, from which that of named tokens differs; else of the status."""
        content = parse_object(response.body)
        code = plain(content.get("code"))
        if not code.removeprefix("-").isdecimal():
            return [judge(CODES, "", response)] * len(deliveries)
        if code == "0":
            return _accepted(deliveries, content)
        several = len({delivery.token for delivery in deliveries}) > 1
        if several and (code == "10029" or (code == "20301" and not _names_targets(content))):
            return [CODES[f"{code} of many"].outcome] * len(deliveries)
        if code not in CODES and response.status == 200:
            return [replace(CODES["other codes"].outcome, code=code)] * len(deliveries)
        return [judge(CODES, code, response)] * len(deliveries)

    def mint(self, account: XiaomiAccount, now_s: float) -> AuthAnswer:
        """The AppSecret, read again within a minute; raises :class:`CredentialError`."""
        return fixed_secret("app_secret", account.app_secret, account.app_secret_file)

    def device_caps(self, account: XiaomiAccount) -> Mapping[str, int]:
        """Five public messages in mainland China; private ones have no limit, what has no channel a number of its own.

        That is one, where Xiaomi takes it at all: no number to count on by itself.
        """
        return {"public": 5 if account.region == "cn" else 0, "private": 0, "default": 0}

    def class_of(
        self, account: XiaomiAccount, kind: Kind, *, group: bool = False, own: XiaomiOptions | None = None
    ) -> str:
        """By channel and template: one without a template is public where the settings say so, or the kind is."""
        route = _route(account, kind, group)
        channel_id, template_id = route.channel_id, route.template_id
        if own is not None and (own.channel_id or own.template_id):
            channel_id, template_id = own.channel_id or channel_id, own.template_id
        if not channel_id:
            return "default"
        is_public = template_id == "" or (template_id is None and kind in _PUBLIC)
        return "public" if is_public else "private"

    def check(self, account: XiaomiAccount, now_s: float) -> list[str]:
        """What is wrong with the secret, channels and templates, the text that stands in, and the receipts."""
        problems = receipt_flaws(account, CALLBACK_CHARS_MAX)
        try:
            self.mint(account, now_s)
        except CredentialError as problem:
            problems.append(str(problem))
        kinds: Mapping[Kind, XiaomiKind] = account.by_kind
        lacking = [kind for kind, told in kinds.items() if told.channel_id is None]
        if lacking:
            problems.append(
                f"kinds: {', '.join(lacking)} without a channel_id, which Xiaomi refuses: write the id of an approved "
                'channel, or "" for kinds that are to be sent without'
            )
        problems += [
            f"{where} names a channel and no template: private channels take nothing else since 2026; write "
            'template_id and template_params, or template_id = "" where the channel is a public one'
            for where, route in _private_routes(account)
            if route.channel_id and route.template_id is None
        ]
        problems += [
            f"{where} has a template_id and no template_params: write what fills each variable of the template"
            for where, route in _routes(account)
            if route.template_id and not route.template_params
        ]
        if not template_text(account.default_text):
            problems.append("default_text has nothing that a template takes: write letters, not only emoji")
        return problems

    def _content(
        self, account: XiaomiAccount, push: Push, now_ms: int, halve: bool
    ) -> tuple[dict[str, str | int], dict[str, str]]:
        """The message's fields and its extras, within the limit."""
        for detail in (FULL, NO_EXT, BARE):
            message, extra = _fields(account, push, now_ms, halve, detail)
            size = sum(len(str(value).encode()) for value in (*message.values(), *extra.values()))
            if size <= self.payload_limit and len(str(message["payload"]).encode()) <= account.payload_bytes_max:
                break
        return message, extra


def template_text(text: str) -> str:
    """*text* without what Xiaomi takes in no template: emoji, other symbols, code points that stand for nothing.

    White space becomes one blank each; empty where nothing is left.
    """
    if text.isascii():
        return " ".join(text.split())
    kept: list[str] = []
    dropped = False
    for character, following in zip(text, f"{text[1:]} ", strict=True):
        dropped = (
            category(character) in _UNFIT
            or _EMOJI_PARTS.match(character) is not None
            or (following == _AS_EMOJI and not character.isascii())
            or (character == _JOINER and dropped)
        )
        if not dropped:
            kept.append(character)
    return " ".join("".join(kept).split())


def _request(account: XiaomiAccount, path: str, form: Mapping[str, str | int], auth: str) -> Request:
    headers = {
        "authorization": f"key={auth}",
        "content-type": "application/x-www-form-urlencoded;charset=UTF-8",
    }
    host = account.base_url.rstrip("/") or HOSTS[account.region]
    return Request(host + path, headers, urlencode(form, errors="replace").encode())


def _fields(
    account: XiaomiAccount, push: Push, now_ms: int, halve: bool, detail: int
) -> tuple[dict[str, str | int], dict[str, str]]:
    kind: XiaomiKind = account.by_kind[push.kind]
    title = push.title.strip() or push.sender_name.strip() or account.default_text
    body = push.body.strip() or account.default_text
    data = {"mid": push.message_id}
    if push.conversation_id and detail != BARE:
        data["cid"] = push.conversation_id
    if push.ext and detail == FULL:
        data["ext"] = push.ext
    sound = android_sound(push)
    longest_ms = PUBLIC_TTL_MS_MAX if push.kind in _PUBLIC else TTL_MS_MAX
    message: dict[str, str | int] = {
        "restricted_package_name": account.package_name,
        "pass_through": 0,
        "title": clip_chars(title, TITLE_CHARS_MAX, halve=halve),
        "description": clip_chars(body, DESCRIPTION_CHARS_MAX, halve=halve),
        "notify_type": _notify_type(kind, sound),
        "notify_id": notify_id(push),
        "time_to_live": min(max(push.expires_at_ms - now_ms, 1_000), longest_ms),
        "payload": encode(data).decode(),
    }
    # In front the app shows the message itself. Of the messages with one jobkey a device shows the first only.
    extra = {"notify_effect": "1", "notify_foreground": "0", "jobkey": shared_id(push).hex()[:12]}
    channel_id, template_id, values = _class(account, push)
    if channel_id:
        extra["channel_id"] = channel_id
    if template_id:
        longest = VALUE_CHARS_MAX if detail != BARE else _BARE_VALUE_CHARS_MAX
        fit = {
            name: clip_chars(template_text(value) or account.default_text, longest, halve=halve)
            for name, value in values.items()
        }
        extra |= {"template_id": template_id, "template_param": encode(fit).decode()}
    asked = callback(account, push)
    if asked is not None:
        extra |= {"callback": asked.url, "callback.param": asked.echo, "callback.type": str(EVERY_RECEIPT)}
    if sound and detail != BARE:
        extra["sound_uri"] = f"android.resource://{account.package_name}/raw/{sound}"
    return message, extra


def _notify_type(kind: XiaomiKind, sound: str | None) -> int:
    """How it knocks, without the sound where that is silence."""
    told = NOTIFY_ALL if kind.notify_type is None else kind.notify_type
    if sound != "":
        return told
    return (ALL_OF_THEM if told == NOTIFY_ALL else told) & ~SOUND


def _class(account: XiaomiAccount, push: Push) -> tuple[str | None, str | None, Mapping[str, str]]:
    """Channel, template and what fills it: the message's own, else those of its kind."""
    route = _route(account, push.kind, push.group)
    own = push.options.xiaomi if push.options is not None else None
    if own is not None and (own.channel_id or own.template_id):
        # A template belongs to a channel: one from the settings would not fit into another.
        return own.channel_id or route.channel_id, own.template_id, own.template_params or {}
    if own is not None and own.template_params:
        return route.channel_id, route.template_id, own.template_params
    params = route.template_params or {}
    return route.channel_id, route.template_id, filled(params, texts_for(params, push))


def _route(account: XiaomiAccount, kind: Kind, group: bool) -> XiaomiKind | XiaomiRoute:
    settled: XiaomiKind = account.by_kind[kind]
    if not group or settled.group is None:
        return settled
    told = account.kinds.get(kind)
    if told is not None and told.group is None and (told.channel_id or told.template_id):
        # The kind has a channel of its own: the one that chats have in groups is not meant for it.
        return settled
    return settled.group


def _routes(account: XiaomiAccount) -> Iterator[tuple[str, XiaomiKind | XiaomiRoute]]:
    """What the account itself says of channels and templates, by its name in the settings."""
    for kind, told in account.kinds.items():
        if told.channel_id or told.template_id:
            yield f"kinds.{kind}", account.by_kind[kind]
        if told.group is not None:
            yield f"kinds.{kind}.group", told.group


def _private_routes(account: XiaomiAccount) -> Iterator[tuple[str, XiaomiKind | XiaomiRoute]]:
    for where, route in _routes(account):
        if where.split(".")[1] not in _PUBLIC:
            yield where, route


def _accepted(deliveries: Sequence[Delivery], content: Mapping[str, Any]) -> list[Outcome]:
    data = content.get("data")
    if not isinstance(data, Mapping):
        return [OK] * len(deliveries)
    refused = data.get("channel_exceed_quota")
    if isinstance(refused, str) and refused:
        count = sum(int(number) for number in _REFUSED.findall(refused))
        name = "channel_exceed_quota" if count >= len(deliveries) else "channel_exceed_quota in part"
        return [CODES[name].outcome] * len(deliveries)
    bad: set[str] = set()
    for name in ("bad_regids", "bad_regIds"):
        named = data.get(name)
        if isinstance(named, str):
            bad.update(token.strip() for token in named.split(","))
    return [CODES["bad_regids"].outcome if delivery.token in bad else OK for delivery in deliveries]


def _names_targets(content: Mapping[str, Any]) -> bool:
    """Whether the refusal says that it is about the tokens."""
    reason = content.get("reason")
    return isinstance(reason, str) and _NO_VALID_TARGET.search(reason) is not None
