"""TPNS (Tencent Push Notification Service), REST v3: signed requests to up to 1,000 of its own tokens.

It hands pushes on to the channels of the makers. Facts are Tencent's (its pages on the push API, signatures, request
structure, error codes and the makers' message classes).
"""

from __future__ import annotations

import hmac
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any, ClassVar, Literal
from urllib.parse import quote, urlencode

from pydantic import Field, SecretStr

from pushfleet.message import Kind, OfflinePush
from pushfleet_workers.account import AccountSettings, KindSettings
from pushfleet_workers.errors import CredentialError
from pushfleet_workers.outcome import OK, Outcome, Row
from pushfleet_workers.push import Delivery, Push, shared_id
from pushfleet_workers.vendor import AuthAnswer, Request, Response, VendorDefaults
from pushfleet_workers.vendors._answers import judge, parse_object, plain
from pushfleet_workers.vendors._files import fixed_secret
from pushfleet_workers.vendors._sounds import android_sound
from pushfleet_workers.vendors._text import BARE, FULL, clip, encode, within
from pushfleet_workers.vendors._tpns_codes import CODES, OF_ONE_TOKEN, PARTIAL

__all__ = ["CODES", "Tpns", "TpnsAccount", "TpnsKind", "sign"]

HOSTS: Mapping[str, str] = {
    "guangzhou": "https://api.tpns.tencent.com",
    "shanghai": "https://api.tpns.sh.tencent.com",
    "hongkong": "https://api.tpns.hk.tencent.com",
    "singapore": "https://api.tpns.sgp.tencent.com",
}
PATH = "/v3/push/app"
EXPIRE_S_MIN, EXPIRE_S_MAX = 800, 259_200
"""TPNS keeps a push at least 800 s, and up to three days; 0 is now or never."""

SUBTITLE_BYTES_MAX = 256
"""Ours, as for APNs."""

BADGE_PLUS_ONE = -2
HIDDEN_IN_FRONT = 1
_IMPORTANCE = {"LOW": 1, "NORMAL": 2}
_UNKNOWN = CODES["other codes"].outcome


class TpnsKind(KindSettings):
    """How the messages of one kind travel through the makers' channels; the last three are for iOS."""

    channel_id: str | None = Field(None, max_length=64, description="Android notification channel on TPNS itself.")
    huawei_channel_id: str | None = Field(None, max_length=64, description="Android notification channel on Huawei.")
    huawei_category: str | None = Field(
        None,
        max_length=64,
        description="Huawei's message class, as IM or VOIP; needs its right to classify; empty: Huawei classifies.",
    )
    huawei_importance: Literal[1, 2] | None = Field(
        None, description="2 for service and communication; 1 is quiet, and for marketing."
    )
    xiaomi_channel_id: str | None = Field(None, max_length=64, description="Channel registered at Xiaomi.")
    oppo_channel_id: str | None = Field(None, max_length=64, description="Channel registered at OPPO as private.")
    vivo_classification: Literal[0, 1] | None = Field(None, description="At vivo: 1 system, 0 operation message.")
    fcm_channel_id: str | None = Field(None, max_length=64, description="Android notification channel on FCM.")
    sound: str | None = Field(
        None, max_length=64, description='File in the iOS app with its suffix; "" is silence; absent: "default".'
    )
    category: str | None = Field(None, max_length=64, description="Actions that the iOS app registered.")
    interruption_level: Literal["passive", "active", "time-sensitive", "critical"] | None = Field(
        None, description="How much it may interrupt on iOS; the last two need Apple's entitlement."
    )


class TpnsAccount(AccountSettings):
    """An app for one platform in the TPNS console."""

    kind_defaults: ClassVar[Mapping[Kind, KindSettings]] = {
        "chat": TpnsKind(huawei_category="IM", huawei_importance=2, vivo_classification=1),
        "call_cancel": TpnsKind(sound="", interruption_level="passive"),
        "system": TpnsKind(huawei_importance=2, vivo_classification=1),
        "official": TpnsKind(huawei_category="MARKETING", huawei_importance=1, vivo_classification=0),
        "marketing": TpnsKind(
            huawei_category="MARKETING",
            huawei_importance=1,
            vivo_classification=0,
            sound="",
            interruption_level="passive",
        ),
    }

    access_id: str = Field(pattern=r"^[0-9]{1,20}$", description="Access ID of the app in the TPNS console, a number.")
    secret_key: SecretStr | None = Field(None, description="Secret key of the app.")
    secret_key_file: Path | None = Field(None, description="File that holds the secret key, instead of it.")
    access_point: Literal["guangzhou", "shanghai", "hongkong", "singapore"] = Field(
        "guangzhou", description="Where the app lives: each access point knows its own apps only."
    )
    platform: Literal["android", "ios"] = Field("android", description="Which platform's app this is.")
    environment: Literal["development", "production"] = Field(
        "production", description="For iOS: which of Apple's two services the tokens are of."
    )
    kinds: dict[Kind, TpnsKind] = Field(
        {}, description="How the messages of a kind travel; what chat is told holds for all that people cause."
    )
    click_url: str = Field(
        "",
        max_length=512,
        pattern=r"^([A-Za-z][A-Za-z0-9+.-]*://[!-~]*)?$",
        description="For Android: scheme URL of the page that a tap opens, e.g. chat://push/open; mid, cid and ext are "
        "added to its query, as Huawei's channel carries nothing else to the app.",
    )
    default_text: str = Field(
        "New message", min_length=1, max_length=64, description="Stands in for a missing title or body."
    )
    rate_per_s: float | None = Field(
        100, gt=0, description="Most tokens a second, over the whole fleet; TPNS publishes no limit."
    )


class Tpns(VendorDefaults):
    """Tencent's push cloud, for apps that have its SDK; it takes no new ones."""

    name: ClassVar[str] = "tpns"
    account_type: ClassVar[type[AccountSettings]] = TpnsAccount
    codes: ClassVar[Mapping[str, Row]] = CODES
    batch_size: ClassVar[int] = 1_000
    payload_limit: ClassVar[int] = 4_096
    http2: ClassVar[bool] = False
    exact_badge: ClassVar[bool] = False
    replaces: ClassVar[bool] = False
    token_shape: ClassVar[str] = ".{1,36}"

    def build(
        self, account: TpnsAccount, push: Push, deliveries: Sequence[Delivery], auth: str, now_ms: int
    ) -> Request:
        """The signed request for up to 1,000 deliveries, each token once; at most 4,096 bytes without the tokens."""
        tokens = encode(list(dict.fromkeys([delivery.token for delivery in deliveries])))
        # What replaces a push was counted with it.
        counts = not push.revision and any(delivery.badge >= 0 for delivery in deliveries)
        halve = any(delivery.remedy == "shrink" for delivery in deliveries)
        limit = self.payload_limit - len(_envelope(b"[]", b"{}")) + len(b"{}")
        form = partial(_content, account, push, counts, _expire_s(push, now_ms))
        content = within(limit, *_texts(account, push), halve, form)
        # What is signed is what is sent, to the byte.
        body = _envelope(tokens, content)
        stamp = str(now_ms // 1_000)
        headers = {
            "accessid": account.access_id,
            "timestamp": stamp,
            "sign": sign(stamp, account.access_id, body, auth),
            "content-type": "application/json",
        }
        return Request((account.base_url.rstrip("/") or HOSTS[account.access_point]) + PATH, headers, body)

    def read(self, deliveries: Sequence[Delivery], response: Response) -> list[Outcome]:
        """The outcome of the code, of which that of the tokens named as invalid differs; else of the status."""
        content = parse_object(response.body)
        code = plain(content.get("ret_code"))
        if not code.removeprefix("-").isdecimal():
            return [judge(CODES, "", response)] * len(deliveries)
        if code == "0":
            invalid = content.get(PARTIAL)
            named = frozenset(one for one in invalid if isinstance(one, str)) if isinstance(invalid, list) else ()
            return [CODES[PARTIAL].outcome if delivery.token in named else OK for delivery in deliveries]
        if code in OF_ONE_TOKEN and len({delivery.token for delivery in deliveries}) > 1:
            return [CODES[f"{code} of many"].outcome] * len(deliveries)
        if code not in CODES:
            return [replace(_UNKNOWN, code=code)] * len(deliveries)
        return [judge(CODES, code, response)] * len(deliveries)

    def mint(self, account: TpnsAccount, now_s: float) -> AuthAnswer:
        """The secret key, read again within a minute; raises :class:`CredentialError`."""
        return fixed_secret("secret_key", account.secret_key, account.secret_key_file)

    def check(self, account: TpnsAccount, now_s: float) -> list[str]:
        """What is wrong with the secret key, and with what a tap opens."""
        problems = []
        if account.platform == "android" and not account.click_url:
            problems.append(
                "click_url is empty, and through Huawei's channel the app then learns nothing of the message: "
                "give the scheme URL of the page that a tap opens"
            )
        try:
            self.mint(account, now_s)
        except CredentialError as problem:
            problems.append(str(problem))
        return problems


def sign(stamp: str, access_id: str, body: bytes, secret: str) -> str:
    """The signature of *body*: Base64 of the hexadecimal text of its HMAC, 88 characters."""
    text = f"{stamp}{access_id}".encode() + body
    return b64encode(hmac.new(secret.encode(), text, sha256).hexdigest().encode()).decode()


def _envelope(tokens: bytes, content: bytes) -> bytes:
    return b'{"audience_type":"token_list","ignore_invalid_token":1,"token_list":' + tokens + b"," + content[1:]


def _texts(account: TpnsAccount, push: Push) -> tuple[str, str]:
    title = push.title
    if account.platform == "ios" and push.options is not None and push.options.apns is not None:
        title = push.options.apns.title or title
    return title or push.sender_name or account.default_text, push.body or account.default_text


def _expire_s(push: Push, now_ms: int) -> int:
    left_s = (push.expires_at_ms - now_ms) // 1_000
    if push.kind == "call" and left_s < EXPIRE_S_MIN:
        # TPNS would keep it for 800 s: better now or never than ringing when the call is over.
        return 0
    return min(max(left_s, EXPIRE_S_MIN), EXPIRE_S_MAX)


def _content(
    account: TpnsAccount, push: Push, counts: bool, expire_s: int, title: str, body: str, detail: int
) -> bytes:
    """The JSON of everything but the audience."""
    wishes = push.options if push.options is not None and detail != BARE else OfflinePush()
    kind: TpnsKind = account.by_kind[push.kind]
    message: dict[str, Any] = {"title": title, "content": body}
    if push.conversation_id and detail != BARE:
        message["thread_id"] = push.conversation_id
    content: dict[str, Any] = {
        "message_type": "notify",
        "expire_time": expire_s,
        "seq": int.from_bytes(shared_id(push)[:4]) >> 1,
    }
    data = _data(push, detail)
    if account.platform == "android":
        sound = android_sound(push) if detail != BARE else None
        message["android"] = _android(account, kind, wishes, data, counts, sound)
    else:
        content["environment"] = "dev" if account.environment == "development" else "product"
        message["show_type"] = HIDDEN_IN_FRONT
        if wishes.apns is not None and wishes.apns.image:
            message["xg_media_resources"] = wishes.apns.image
        aps = _aps(push, kind, wishes, counts)
        message["ios"] = {"aps": aps, "custom_content": encode(data).decode()}
    return encode(content | {"message": message})


def _data(push: Push, detail: int) -> dict[str, str]:
    """What the app gets."""
    data = {"mid": push.message_id}
    if push.conversation_id and detail != BARE:
        data["cid"] = push.conversation_id
    if push.ext and detail == FULL:
        data["ext"] = push.ext
    return data


def _android(
    account: TpnsAccount,
    kind: TpnsKind,
    wishes: OfflinePush,
    data: dict[str, str],
    counts: bool,
    sound: str | None,
) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "n_ch_id": kind.channel_id,
        "hw_ch_id": kind.huawei_channel_id,
        "hw_category": kind.huawei_category,
        "hw_importance": kind.huawei_importance,
        "xm_ch_id": kind.xiaomi_channel_id,
        "oppo_ch_id": kind.oppo_channel_id,
        "vivo_ch_id": None if kind.vivo_classification is None else str(kind.vivo_classification),
        "fcm_ch_id": kind.fcm_channel_id,
        "ring_raw": sound,
    }
    fields |= {name: value for name, value in _asked(wishes).items() if value}
    android = {name: value for name, value in fields.items() if value}
    android["show_type"] = HIDDEN_IN_FRONT
    if sound == "":
        android["ring"] = 0
    if counts:
        android["badge_type"] = BADGE_PLUS_ONE
    if account.click_url:
        joint = "&" if "?" in account.click_url else "?"
        query = urlencode(data, quote_via=quote, safe="", errors="replace")
        android["action"] = {"action_type": 3, "intent": f"{account.click_url}{joint}{query}"}
    else:
        android |= {"action": {"action_type": 1}, "custom_content": encode(data).decode()}
    return android


def _asked(wishes: OfflinePush) -> dict[str, Any]:
    """What the message asks of single makers' channels."""
    asked: dict[str, Any] = {}
    if (huawei := wishes.huawei) is not None:
        asked |= {
            "hw_ch_id": huawei.channel_id,
            "hw_category": huawei.category,
            "hw_importance": _IMPORTANCE.get(huawei.importance or ""),
        }
    if (vivo := wishes.vivo) is not None and vivo.classification is not None:
        asked["vivo_ch_id"] = str(vivo.classification)
    for name, maker in (("xm_ch_id", wishes.xiaomi), ("oppo_ch_id", wishes.oppo), ("fcm_ch_id", wishes.fcm)):
        asked[name] = maker.channel_id if maker is not None else None
    return asked


def _aps(push: Push, kind: TpnsKind, wishes: OfflinePush, counts: bool) -> dict[str, Any]:
    own = wishes.apns
    # TPNS puts title and content into it.
    alert = {"subtitle": clip(own.subtitle or "", SUBTITLE_BYTES_MAX) if own is not None else ""}
    asked = own.sound if own is not None else None
    sound = next((one for one in (asked, push.sound, kind.sound) if one is not None), "default")
    level = kind.interruption_level if own is None else own.interruption_level or kind.interruption_level
    if push.recall:
        # Taking something back is no news.
        sound, level = "", "passive"
    aps: dict[str, Any] = {"alert": alert, "sound": sound}
    if counts:
        aps["badge_type"] = BADGE_PLUS_ONE
    if category := kind.category if own is None or own.category is None else own.category:
        aps["category"] = category
    if level:
        aps["interruption-level"] = level
    if own is not None and (own.mutable_content or own.image):
        aps["mutable-content"] = 1
    return aps
