"""OPPO (HeytapPush): ColorOS, realme and OnePlus, tokens by sha256 signature, up to 100 different messages a request.

Facts are OPPO's (its push pages 11234 to 11239) and those of its Java server SDK 1.0.6.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any, ClassVar, Literal
from urllib.parse import quote, urlencode

from pydantic import Field, SecretStr

from pushfleet.message import Kind, OppoOptions
from pushfleet_workers.account import AccountSettings, KindSettings
from pushfleet_workers.errors import CredentialError
from pushfleet_workers.outcome import OK, DayHour, Outcome, Remedy, Row, Verdict
from pushfleet_workers.push import Delivery, Push, sent_id
from pushfleet_workers.vendor import AuthAnswer, Request, Response, VendorDefaults
from pushfleet_workers.vendors._answers import BAD_PAYLOAD, CHINA_DAY, auth_refused, judge, parse_object, plain
from pushfleet_workers.vendors._files import read_secret
from pushfleet_workers.vendors._ids import notify_id
from pushfleet_workers.vendors._oppo_codes import CODES, DEAD, DUPLICATE, OTHER, WRONG_ARGUMENT
from pushfleet_workers.vendors._receipts import ReceiptAccount, callback, receipt_flaws
from pushfleet_workers.vendors._templates import TemplateParams, filled, texts_for
from pushfleet_workers.vendors._text import BARE, FULL, NO_EXT, char_count, clip_chars, encode

__all__ = ["CODES", "Oppo", "OppoAccount", "OppoKind"]

HOSTS = {"cn": "https://api.push.oppomobile.com", "intl": "https://api-intl.push.oppomobile.com"}
MESSAGES_PATH = "/server/v1/message/notification/"
TOKEN_LIFE_S = 86_400
TTL_S_MAX = 864_000
TITLE_CHARS_MAX = 50
CONTENT_CHARS_MAX = {"default": 50, "big_text": 128}
PARAMETERS_CHARS_MAX = 4_000
CALLBACK_CHARS_MAX, ECHO_CHARS_MAX = 200, 50
MESSAGE_BYTES_MAX = 9_900
"""A message as it stands in the form: a full batch of them stays below a million bytes."""

SERVICE = frozenset({"IM", "ACCOUNT", "TODO", "DEVICE_REMINDER", "ORDER", "SUBSCRIPTION"})
MARKETING = frozenset({"NEWS", "CONTENT", "MARKETING", "SOCIAL"})

_STYLES = {"default": 1, "big_text": 2}
_NAMES_ID = re.compile(r"registration.?id", re.IGNORECASE)


class OppoKind(KindSettings):
    """How OPPO's messages of one kind travel."""

    category: str | None = Field(
        None,
        max_length=64,
        description="Message class: IM, ACCOUNT and other services each need a right from OPPO; NEWS, CONTENT, "
        "MARKETING and SOCIAL count against the daily quota; empty: the app's old classes.",
    )
    notify_level: Literal[1, 2, 16] | None = Field(
        None,
        description="1 tray, 2 lock screen as well, 16 banner, sound and vibration as well, which needs a right; only "
        "where there is a category.",
    )
    channel_id: str | None = Field(
        None, max_length=200, description="Android notification channel, which the app has created."
    )
    template_id: str | None = Field(None, max_length=200, description="Private-message template that OPPO approved.")
    title_params: TemplateParams | None = Field(None, description="What fills the variables of the template's title.")
    content_params: TemplateParams | None = Field(None, description="What fills the variables of the template's text.")


class OppoAccount(ReceiptAccount):
    """An app in the OPPO push console."""

    kind_defaults: ClassVar[Mapping[Kind, KindSettings]] = {
        "chat": OppoKind(category="IM", notify_level=2),
        "system": OppoKind(category="ACCOUNT"),
        "official": OppoKind(category="MARKETING"),
        "marketing": OppoKind(category="MARKETING"),
    }

    app_key: str = Field(pattern=r"^[A-Za-z0-9_-]{1,64}$", description="AppKey of the app.")
    master_secret: SecretStr | None = Field(None, description="MasterSecret of the app, not its AppSecret.")
    master_secret_file: Path | None = Field(None, description="File that holds the MasterSecret, instead of it.")
    region: Literal["cn", "intl"] = Field(
        "cn", description="cn for devices sold in mainland China, intl for all others: each has servers of its own."
    )
    kinds: dict[Kind, OppoKind] = Field(
        {}, description="How the messages of a kind travel; what chat is told holds for all that people cause."
    )
    click_activity: str = Field(
        "",
        max_length=500,
        pattern=r"^([A-Za-z0-9_$]+\.)*[A-Za-z0-9_$]*$",
        description="Full class name of the page that a tap opens, e.g. com.example.im.ChatActivity; empty: the app.",
    )
    badge: bool = Field(False, description="Each push that counts adds one to the badge; Android 11 and later.")
    default_text: str = Field(
        "New message",
        min_length=1,
        max_length=50,
        description="Stands in for a missing title or body: OPPO insists on both.",
    )
    rate_per_s: float | None = Field(
        5_000, gt=0, description="Most messages a second, over the whole fleet; 5,000 is what every app has."
    )


class Oppo(VendorDefaults):
    """OPPO's push cloud."""

    name: ClassVar[str] = "oppo"
    account_type: ClassVar[type[AccountSettings]] = OppoAccount
    codes: ClassVar[Mapping[str, Row]] = CODES
    batch_size: ClassVar[int] = 100
    payload_limit: ClassVar[int] = 1_000_000
    http2: ClassVar[bool] = False
    exact_badge: ClassVar[bool] = False
    day: ClassVar[DayHour] = CHINA_DAY

    def mixes(self, account: OppoAccount) -> bool:
        """True: a batch is a list of messages that have nothing in common."""
        return True

    def build(
        self, account: OppoAccount, push: Push, deliveries: Sequence[Delivery], auth: str, now_ms: int
    ) -> Request:
        """The request for up to 100 deliveries of one push."""
        return self.build_mixed(account, [(push, delivery) for delivery in deliveries], auth, now_ms)

    def build_mixed(
        self, account: OppoAccount, letters: Sequence[tuple[Push, Delivery]], auth: str, now_ms: int
    ) -> Request:
        """The request for up to 100 deliveries, each with a push of its own; a form of at most a million bytes."""
        messages = [_message(account, push, delivery, now_ms) for push, delivery in letters]
        if len(messages) == 1:
            path, field = "unicast", f"message={messages[0]}"
        else:
            path, field = "unicast_batch", f"messages=%5B{'%2C'.join(messages)}%5D"
        headers = {"content-type": "application/x-www-form-urlencoded"}
        body = f"auth_token={quote(auth, safe='')}&{field}".encode("ascii")
        return Request(_host(account) + MESSAGES_PATH + path, headers, body)

    def read(self, deliveries: Sequence[Delivery], response: Response) -> list[Outcome]:
        """The outcome of the code; where a batch was accepted, that of each message in it."""
        content = parse_object(response.body)
        code = plain(content.get("code"))
        if code == "0" and response.status == 200:
            return _each(deliveries, content.get("data"), response)
        outcome = _outcome(code if code != "0" else "", content.get("message"), response)
        if len(deliveries) == 1:
            return [_known(outcome, deliveries[0])]
        if outcome.verdict in (Verdict.BAD_PAYLOAD, Verdict.DROP_TOKEN):
            # Whose fault it was is not said: each is tried alone.
            outcome = replace(BAD_PAYLOAD, code=outcome.code, remedy=outcome.remedy or Remedy.SINGLE_SEND)
        return [outcome] * len(deliveries)

    def auth_request(self, account: OppoAccount, now_s: float) -> Request:
        """The request for an auth token, signed with the MasterSecret; raises :class:`CredentialError`."""
        secret = read_secret("master_secret", account.master_secret, account.master_secret_file)
        timestamp = str(int(now_s * 1_000))
        sign = sha256(f"{account.app_key}{timestamp}{secret}".encode()).hexdigest()
        form = {"app_key": account.app_key, "timestamp": timestamp, "sign": sign}
        headers = {"content-type": "application/x-www-form-urlencoded"}
        return Request(account.auth_url or f"{_host(account)}/server/v1/auth", headers, urlencode(form).encode())

    def read_auth(self, response: Response) -> AuthAnswer:
        """The auth token, good for a day; refusals are MISCONFIGURED unless they are limits or OPPO's own faults."""
        content = parse_object(response.body)
        code, data = plain(content.get("code")), content.get("data")
        value = data.get("auth_token") if isinstance(data, Mapping) else None
        if code == "0" and response.status == 200 and isinstance(value, str) and value.strip():
            return AuthAnswer(value, TOKEN_LIFE_S)
        return auth_refused(CODES, code if code != "0" else "", response)

    def device_caps(self, account: OppoAccount) -> Mapping[str, int]:
        """Two of content and marketing in mainland China; services have no limit."""
        return {"marketing": 2 if account.region == "cn" else 0, "service": 0}

    def class_of(self, account: OppoAccount, kind: Kind, *, group: bool = False, own: OppoOptions | None = None) -> str:
        """By the category; without one nobody knows, and it counts as a service."""
        told: OppoKind = account.by_kind[kind]
        category = own.category if own is not None and own.category else told.category
        return "marketing" if category in MARKETING else "service"

    def check(self, account: OppoAccount, now_s: float) -> list[str]:
        """What is wrong with the MasterSecret, the kinds and the receipts."""
        problems = receipt_flaws(account, CALLBACK_CHARS_MAX)
        try:
            read_secret("master_secret", account.master_secret, account.master_secret_file)
        except CredentialError as problem:
            problems.append(str(problem))
        if not account.by_kind["chat"].channel_id:
            problems.append(
                "kinds.chat has no channel_id: from Android 8 on nothing is shown without one, so create a channel in "
                "the app and name it there, and for every other kind that you send"
            )
        for name, kind in account.by_kind.items():
            problems += _flaws(name, kind) if name in account.kinds else []
        return problems


def _host(account: OppoAccount) -> str:
    return account.base_url.rstrip("/") or HOSTS[account.region]


def _message(account: OppoAccount, push: Push, delivery: Delivery, now_ms: int) -> str:
    """One message as it stands in the form: percent-encoded JSON; ``ext`` or more left out where it does not fit."""
    encoded = ""
    for detail in (FULL, NO_EXT, BARE):
        parameters = _parameters(push, detail)
        if detail != BARE and char_count(parameters) > PARAMETERS_CHARS_MAX:
            continue
        message = {
            "target_type": 2,
            "target_value": delivery.token,
            "verify_registration_id": True,
            "notification": _notification(account, push, delivery, now_ms, parameters, detail),
        }
        encoded = quote(encode(message), safe="")
        if len(encoded) <= MESSAGE_BYTES_MAX:
            break
    return encoded


def _parameters(push: Push, detail: int) -> str:
    parameters = {"mid": push.message_id}
    if push.conversation_id and detail != BARE:
        parameters["cid"] = push.conversation_id
    if push.ext and detail == FULL:
        parameters["ext"] = push.ext
    return encode(parameters).decode()


def _notification(
    account: OppoAccount, push: Push, delivery: Delivery, now_ms: int, parameters: str, detail: int
) -> dict[str, Any]:
    halve = delivery.remedy == "shrink"
    android = push.options.android if push.options is not None else None
    style = android.style if android is not None else "default"
    title, body = push.title or push.sender_name or account.default_text, push.body or account.default_text
    notification: dict[str, Any] = {
        "app_message_id": sent_id(push, delivery).hex(),
        "style": _STYLES[style],
        "title": clip_chars(title, TITLE_CHARS_MAX, halve=halve),
        "content": clip_chars(body, CONTENT_CHARS_MAX[style], halve=halve),
        "click_action_type": 4 if account.click_activity else 0,
        "action_parameters": parameters,
        "off_line": True,
        "off_line_ttl": min(max((push.expires_at_ms - now_ms) // 1_000, 1), TTL_S_MAX),
        "notify_id": notify_id(push),
    }
    if account.click_activity:
        notification["click_action_activity"] = account.click_activity
    if account.badge and delivery.badge >= 0:
        notification["badge_operation_type"] = 1
    asked = callback(account, push, ECHO_CHARS_MAX)
    if asked is not None:
        notification |= {"call_back_url": asked.url, "call_back_parameter": asked.echo}
    own = push.options.oppo if push.options is not None and detail != BARE else None
    return notification | _class(account.by_kind[push.kind], own, push, CONTENT_CHARS_MAX[style], halve)


def _class(kind: OppoKind, own: OppoOptions | None, push: Push, chars: int, halve: bool) -> dict[str, Any]:
    """Category, level, channel and template, as the message asks for, else as the kind is told."""
    own = own or OppoOptions()
    if own.category and own.category != kind.category:
        # Level and template are granted for a category.
        kind = kind.model_copy(update={"notify_level": None, "template_id": None})
    category = own.category or kind.category
    template_id = own.template_id or kind.template_id
    fields: dict[str, Any] = {
        "channel_id": own.channel_id or kind.channel_id,
        "category": category,
        "notify_level": (own.notify_level or kind.notify_level) if category else None,
        "private_msg_template_id": template_id,
    }
    if template_id:
        # The variables are the template's.
        told = kind if template_id == kind.template_id else OppoKind()
        fields["private_title_parameters"] = _filled(own.title_params, told.title_params, push, TITLE_CHARS_MAX, halve)
        fields["private_content_parameters"] = _filled(own.content_params, told.content_params, push, chars, halve)
    return {name: value for name, value in fields.items() if value}


def _filled(own: Mapping[str, str] | None, told: Mapping[str, str] | None, push: Push, chars: int, halve: bool) -> str:
    """A template's parameters as OPPO wants them: JSON text, empty where there are none."""
    params = own if own is not None else filled(told or {}, texts_for(told or {}, push))
    clipped = {name: clip_chars(value, chars, halve=halve) for name, value in params.items()}
    return encode(clipped).decode() if clipped else ""


def _outcome(code: str, message: object, response: Response) -> Outcome:
    if code and code not in CODES and response.status == 200:
        return replace(CODES[OTHER].outcome, code=code)
    if code == WRONG_ARGUMENT and isinstance(message, str) and _NAMES_ID.search(message):
        return replace(CODES[DEAD].outcome, code=code)
    return judge(CODES, code, response)


def _known(outcome: Outcome, delivery: Delivery) -> Outcome:
    """*outcome*, unless OPPO only says that it took an earlier attempt."""
    repeated = delivery.unknown or delivery.tries
    return replace(OK, code=DUPLICATE) if outcome.code == DUPLICATE and repeated else outcome


def _each(deliveries: Sequence[Delivery], data: object, response: Response) -> list[Outcome]:
    """What a batch says of each; who is not named was served: sending to them again could show it twice."""
    named: dict[str, list[Outcome]] = {}
    for item in data if isinstance(data, list) else []:
        token = item.get("registrationId") if isinstance(item, Mapping) else None
        if isinstance(token, str):
            code = item.get("errorCode")
            taken = code is None or plain(code) == "0"
            outcome = OK if taken else _outcome(plain(code) or OTHER, item.get("errorMessage"), response)
            named.setdefault(token, []).append(outcome)
    outcomes = []
    for delivery in deliveries:
        said = named.get(delivery.token, [OK])
        # Of several messages to one device each has an answer, or all have the same.
        outcomes.append(_known(said.pop(0) if len(said) > 1 else said[0], delivery))
    return outcomes


def _flaws(name: str, kind: OppoKind) -> list[str]:
    flaws = []
    if kind.category and kind.category not in SERVICE | MARKETING:
        listed = ", ".join(sorted(SERVICE | MARKETING))
        flaws.append(f"kinds.{name}.category {kind.category} is no class of OPPO's: write one of {listed}")
    if kind.notify_level and not kind.category:
        flaws.append(f"kinds.{name}.notify_level counts only with a category: set it, or leave out the level")
    if (kind.title_params or kind.content_params) and not kind.template_id:
        flaws.append(f"kinds.{name} has template parameters without a template: name it in template_id")
    if kind.template_id and kind.title_params is None and kind.content_params is None:
        flaws.append(
            f"kinds.{name} has a template_id and no parameters: write what fills each variable of the template in "
            "title_params and content_params, or content_params = {} where it has none"
        )
    return flaws
