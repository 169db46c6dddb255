"""APNs: Apple's HTTP/2 provider API with a signing key (.p8) or a client certificate (.p12, .pem), one push a request.

Facts are Apple's ("Sending notification requests to APNs", "Handling notification responses from APNs",
"Establishing a token-based connection to APNs", "Establishing a certificate-based connection to APNs", "Generating a
remote notification").
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import Any, ClassVar, Literal
from urllib.parse import quote

import jwt
from cryptography.hazmat.primitives.asymmetric import ec
from pydantic import Field, SecretStr

from pushfleet.message import ApnsOptions, Kind
from pushfleet_workers.account import AccountSettings, KindSettings
from pushfleet_workers.errors import CredentialError
from pushfleet_workers.outcome import OK, Outcome, Remedy, Row, Scope, Verdict
from pushfleet_workers.push import Delivery, Push, TokenKind, sent_id
from pushfleet_workers.vendor import AuthAnswer, Identity, Request, Response, VendorDefaults
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
    table,
)
from pushfleet_workers.vendors._apns_certificate import PushCertificate, certificates
from pushfleet_workers.vendors._files import ParsedFiles, private_key, read_secret
from pushfleet_workers.vendors._text import BARE, FULL, clip, encode, within

__all__ = ["CODES", "Apns", "ApnsAccount", "ApnsKind"]

HOSTS: Mapping[str, str] = {
    "production": "https://api.push.apple.com",
    "development": "https://api.sandbox.push.apple.com",
}
VOIP_PAYLOAD_LIMIT = 5_120
COLLAPSE_ID_BYTES_MAX = 64
SUBTITLE_BYTES_MAX = 256
"""Ours: iOS shows one line."""

CERTIFICATE_LIFE_S = 60.0
"""How long a certificate counts as looked at: a changed file, or its end, is noticed within a minute."""

JWT_LIFE_S = 3_000.0
"""Apple takes a token for an hour from its ``iat`` and a new one every 20 minutes at most: 50 minutes leave room on
both sides for clocks that differ."""

JWT_REST_S = 1_200.0
"""Apple takes no newer one of a key earlier; what it refuses before that, the connection or a clock is at fault for."""

TOKEN_UPDATES_WAIT_S = 60.0
"""Apple's complaint about new tokens ends within 20 minutes by itself; a try a minute mints nothing."""

_DEVICE_RETRY = Outcome(Verdict.RETRY, reconnect=True)

CODES = table(
    *STATUS_ROWS,
    ("BadCollapseId", "400", BAD_PAYLOAD, "The replace key is longer than 64 bytes."),
    (
        "BadDeviceToken",
        "400",
        DOUBTFUL_TOKEN,
        "No token, or one of the other environment; Apple gives no time of death, and one answer alone proves none.",
    ),
    ("BadExpirationDate", "400", BAD_PAYLOAD, "The expiry is no Unix time in seconds."),
    ("BadMessageId", "400", BAD_PAYLOAD, "The message id is no UUID."),
    ("BadPriority", "400", BAD_PAYLOAD, "The priority does not go with the push type."),
    ("BadTopic", "400", MISCONFIGURED, "There is no such topic."),
    ("DeviceTokenNotForTopic", "400", DOUBTFUL_TOKEN, "The token belongs to another app."),
    ("DuplicateHeaders", "400", BAD_PAYLOAD, "A header came twice."),
    ("IdleTimeout", "400", _DEVICE_RETRY, "The connection had been idle for too long."),
    ("InvalidPushType", "400", BAD_PAYLOAD, "There is no such push type."),
    ("MissingDeviceToken", "400", BAD_PAYLOAD, "The token is empty."),
    ("MissingTopic", "400", MISCONFIGURED, "The topic is missing."),
    ("PayloadEmpty", "400", BAD_PAYLOAD, "The payload is empty."),
    ("TopicDisallowed", "400", MISCONFIGURED, "The key may not push to this topic."),
    ("BadCertificate", "403", MISCONFIGURED, "The client certificate is no good."),
    ("BadCertificateEnvironment", "403", MISCONFIGURED, "The client certificate is for the other environment."),
    ("BadEnvironmentKeyIdInToken", "403", MISCONFIGURED, "The key is for the other environment."),
    ("BadEnvironmentKeyInToken", "403", MISCONFIGURED, "Taken for the one above; seen in one client library only."),
    (
        "ExpiredProviderToken",
        "403",
        replace(REFRESH_AUTH, reconnect=True),
        "The JWT is older than an hour; the connection that said so stays useless.",
    ),
    ("Forbidden", "403", MISCONFIGURED, "The account may not do this."),
    ("InvalidProviderToken", "403", MISCONFIGURED, "Key, key id and team id do not belong together."),
    ("MissingProviderToken", "403", MISCONFIGURED, "The request carried no JWT."),
    (
        "UnrelatedKeyIdInToken",
        "403",
        replace(RETRY, reconnect=True),
        "The connection is pinned to another key; a new one is not.",
    ),
    ("BadPath", "404", MISCONFIGURED, "The address has a wrong path."),
    ("MethodNotAllowed", "405", MISCONFIGURED, "The request was no POST."),
    ("ExpiredToken", "410", DROP_TOKEN, "The token has expired."),
    ("Unregistered", "410", DROP_TOKEN, "The app is gone from the device, or its token has changed."),
    ("PayloadTooLarge", "413", replace(BAD_PAYLOAD, remedy=Remedy.SHRINK), "The payload is above the limit."),
    (
        "TooManyProviderTokenUpdates",
        "429",
        replace(RATE_LIMITED, wait_s=TOKEN_UPDATES_WAIT_S),
        "The JWT was renewed too often: go on with the old one.",
    ),
    ("TooManyRequests", "429", replace(RATE_LIMITED, scope=Scope.DEVICE), "Too many pushes to this one device."),
    ("InternalServerError", "500", RETRY, "Apple has a fault."),
    ("ServiceUnavailable", "503", RETRY, "Apple is overloaded."),
    ("Shutdown", "503", _DEVICE_RETRY, "This one server is going away."),
    *(
        (reason, "400", BAD_PAYLOAD, "Of the channel API, which is not used.")
        for reason in (
            "BadChannelId",
            "BadRequestParams",
            "BadRequestPayload",
            "CannotCreateChannelConfig",
            "ChannelNotRegistered",
            "FeatureNotEnabled",
            "MissingChannelId",
            "MissingPushType",
        )
    ),
    ("TopicMismatch", "403", MISCONFIGURED, "Of the channel API, which is not used."),
)
"""Every reason of Apple's lists. A reason that is missing here goes by its status."""

_NO_WISHES = ApnsOptions()
_TOPIC_FAULTS = frozenset({"BadTopic", "MissingTopic", "TopicDisallowed"})
_APPLE_ID = re.compile(r"[A-Z0-9]{10}").fullmatch
_DOWNLOAD_NAME = re.compile(r"AuthKey_([A-Z0-9]{10})\.p8").fullmatch


class ApnsKind(KindSettings):
    """How the pushes of one kind look and sound; what a message asks for wins."""

    sound: str | None = Field(
        None, max_length=64, description='File in the app bundle with its suffix; "" is silence; absent: "default".'
    )
    category: str | None = Field(None, max_length=64, description="Actions that the app registered under this name.")
    interruption_level: Literal["passive", "active", "time-sensitive", "critical"] | None = Field(
        None, description="How much it may interrupt; time-sensitive and critical need Apple's entitlement."
    )


class ApnsAccount(AccountSettings):
    """A signing key of an Apple developer team, or a client certificate, for one app."""

    kind_defaults: ClassVar[Mapping[Kind, KindSettings]] = {
        # It replaces the ringing call on screen, and must not ring itself.
        "call_cancel": ApnsKind(sound="", interruption_level="passive"),
        "marketing": ApnsKind(sound="", interruption_level="passive"),
    }

    team_id: str = Field("", description="Team ID of the Apple developer account, ten letters and digits.")
    key_id: str = Field("", description="Key ID of the signing key, ten letters and digits.")
    key_file: Path | None = Field(
        None, description="The signing key as downloaded from Apple: AuthKey_<key id>.p8; or a certificate, see below."
    )
    certificate_file: Path | None = Field(
        None,
        description="Client certificate with its private key, .p12 or .pem, in place of team_id, key_id and key_file.",
    )
    certificate_password: SecretStr | None = Field(
        None, description="What opens the certificate file; absent: nothing needs to."
    )
    certificate_password_file: Path | None = Field(
        None, description="File that holds the certificate's password, instead of it."
    )
    topic: str = Field(
        pattern=r"^[A-Za-z0-9.-]{1,155}$", description="Bundle ID of the app; suffixes such as .voip are added by us."
    )
    environment: Literal["development", "production"] = Field(
        "production", description="Which of Apple's two services: debug builds get tokens of development."
    )
    thread: Literal["conversation", "app"] = Field(
        "conversation", description="What iOS stacks in the notification centre: each conversation, or the whole app."
    )
    mutable_content: bool = Field(
        False, description="Run the app's notification service extension for every push, asked for or not."
    )
    kinds: dict[Kind, ApnsKind] = Field(
        {}, description="How the pushes of a kind look and sound; what chat is told holds for all that people cause."
    )


class Apns(VendorDefaults):
    """Apple's push cloud."""

    name: ClassVar[str] = "apns"
    account_type: ClassVar[type[AccountSettings]] = ApnsAccount
    codes: ClassVar[Mapping[str, Row]] = CODES
    batch_size: ClassVar[int] = 1
    payload_limit: ClassVar[int] = 4_096
    http2: ClassVar[bool] = True
    exact_badge: ClassVar[bool] = True
    token_kinds: ClassVar[frozenset[TokenKind]] = frozenset({"alert", "voip"})
    # Apple says to assume no length.
    token_shape: ClassVar[str] = "(?:[0-9A-Fa-f]{2})+"

    def build(
        self, account: ApnsAccount, push: Push, deliveries: Sequence[Delivery], auth: str, now_ms: int
    ) -> Request:
        """The request for the one delivery; its payload is at most 4,096 bytes, 5,120 for VoIP."""
        delivery = deliveries[0]
        token, topic, push_type, priority, limit = delivery.token, account.topic, "alert", "10", self.payload_limit
        options = push.options.apns if push.options is not None else None
        # The kind of the token decides about VoIP, not the message: a wrong guess would cost a good token its life.
        if delivery.token_kind == "voip":
            topic, push_type, limit = topic + ".voip", "voip", VOIP_PAYLOAD_LIMIT
        elif options is not None and options.push_type == "background":
            push_type, priority = "background", "5"
        if not (token.isalnum() and token.isascii()):
            # It came from a client: it must not become another path. With the dash it is nobody's token.
            token = quote(token, safe="").replace(".", "-")
        title = push.title if options is None or options.title is None else options.title
        quiet = push_type == "background"
        body = _payload(account, push, delivery, options, quiet, title, push.body, FULL)
        if len(body) > limit or delivery.remedy == "shrink":
            form = partial(_payload, account, push, delivery, options, quiet)
            texts = ("", "") if quiet else (title, push.body)
            body = within(limit, *texts, delivery.remedy == "shrink", form)
        number = sent_id(push, delivery).hex()
        headers = {
            "apns-topic": topic,
            "apns-push-type": push_type,
            "apns-priority": priority,
            # Absolute seconds; 0 means "now or never", which is what a ringing call wants.
            "apns-expiration": "0" if push.kind == "call" else str(push.expires_at_ms // 1_000),
            "apns-id": f"{number[:8]}-{number[8:12]}-{number[12:16]}-{number[16:20]}-{number[20:]}",
            # Without a key of its own it replaces itself: a repeat does not show twice.
            "apns-collapse-id": _collapse_id(push.replace_key or push.message_id),
        }
        if account.certificate_file is None:
            headers["authorization"] = f"bearer {auth}"
        return Request(f"{account.base_url.rstrip('/') or HOSTS[account.environment]}/3/device/{token}", headers, body)

    def read(self, deliveries: Sequence[Delivery], response: Response) -> list[Outcome]:
        """OK for 200, else the outcome of the reason in the body."""
        if response.status == 200:
            return [OK] * len(deliveries)
        content = parse_object(response.body)
        reason = content.get("reason")
        outcome = judge(CODES, reason if isinstance(reason, str) else "", response)
        since_ms = content.get("timestamp")
        if response.status == 410 and outcome.verdict is Verdict.DROP_TOKEN and type(since_ms) is int and since_ms > 0:
            outcome = replace(outcome, since_ms=since_ms)
        return [_for(delivery, outcome) for delivery in deliveries]

    def mint(self, account: ApnsAccount, now_s: float) -> AuthAnswer:
        """A JWT signed with ES256 that counts from *now_s*, to be used for 50 minutes; with a certificate, a word.

        A certificate that cannot be read, or has expired, is a failure here: its handshake would only be refused.
        """
        code = "Credential"
        try:
            file = _credential(account)
            if file == account.certificate_file:
                code = "CertificateFile"
                if _certificate(account).expired(now_s):
                    return AuthAnswer(failure=replace(MISCONFIGURED, code="CertificateExpired"))
                return AuthAnswer("certificate", CERTIFICATE_LIFE_S, shared=False)
            code = "KeyFile"
            key = _keys.get(file)
        except CredentialError:
            return AuthAnswer(failure=replace(MISCONFIGURED, code=code))
        # Apple documents alg and kid alone, and iat as an integer.
        claims = {"iss": account.team_id, "iat": int(now_s)}
        value = jwt.encode(claims, key, algorithm="ES256", headers={"kid": account.key_id, "typ": None})
        return AuthAnswer(value, JWT_LIFE_S, JWT_REST_S)

    def same_caller(self, account: ApnsAccount) -> str:
        """Accounts of one signing key that reach Apple the same way: Apple pins a connection to its key, not its topic.

        Opaque, as a proxy's address may hold a password. Accounts with certificates share nothing.
        """
        if account.certificate_file is not None:
            return ""
        way = (account.base_url, account.proxy, str(account.ca_bundle), account.transport)
        return blake2b(encode([account.team_id, account.key_id, account.environment, *way]), digest_size=16).hexdigest()

    def identity(self, account: ApnsAccount) -> Identity | None:
        """The client certificate, where the account has one; raises :class:`CredentialError`."""
        return _certificate(account).identity if account.certificate_file is not None else None

    def check(self, account: ApnsAccount, now_s: float) -> list[str]:
        """What is wrong with topic and key, or with the certificate; its end is told 30 days ahead."""
        problems = []
        if account.topic.endswith(".voip"):
            problems.append(f"topic {account.topic} names the VoIP topic: give the bundle id, .voip is added by us")
        try:
            file = _credential(account)
            if file == account.certificate_file:
                found = certificates(_password(account)).load(file)
                about = found.problems(account.topic.removesuffix(".voip"), account.environment, now_s)
                return problems + [f"certificate_file {file} {problem}" for problem in about]
            problems += _key_problems(account, file)
            _keys.load(file)
        except CredentialError as problem:
            problems.append(str(problem))
        return problems


def _credential(account: ApnsAccount) -> Path:
    """The file that proves who we are; raises :class:`CredentialError` unless there is exactly one."""
    files = [file for file in (account.key_file, account.certificate_file) if file is not None]
    if len(files) == 1:
        return files[0]
    raise CredentialError(f"key_file and certificate_file are both {'set' if files else 'missing'}: give one of them")


def _certificate(account: ApnsAccount) -> PushCertificate:
    assert account.certificate_file is not None
    return certificates(_password(account)).get(account.certificate_file)


def _password(account: ApnsAccount) -> str:
    value, file = account.certificate_password, account.certificate_password_file
    return read_secret("certificate_password", value, file) if value is not None or file is not None else ""


def _key_problems(account: ApnsAccount, key_file: Path) -> list[str]:
    problems = [
        f"{setting} must be ten capital letters and digits and has {len(value)} characters: copy it from the "
        "membership and keys pages of the Apple developer account"
        for setting, value in (("team_id", account.team_id), ("key_id", account.key_id))
        if not _APPLE_ID(value)
    ]
    download = _DOWNLOAD_NAME(key_file.name)
    if download and download[1] != account.key_id:
        problems.append(
            f"key_file {key_file} is named after key {download[1]}, but key_id is {account.key_id}: "
            "let both speak of the same key"
        )
    return problems


def _payload(
    account: ApnsAccount,
    push: Push,
    delivery: Delivery,
    options: ApnsOptions | None,
    quiet: bool,
    title: str,
    body: str,
    detail: int,
) -> bytes:
    """The JSON of one push; *quiet* is the form of background pushes, which wake the app and show nothing."""
    aps: dict[str, Any] = {"content-available": 1}
    payload: dict[str, Any] = {"aps": aps, "mid": push.message_id}
    conversation = push.conversation_id if detail != BARE else ""
    if not quiet:
        wishes = options if options is not None and detail != BARE else _NO_WISHES
        payload["aps"] = aps = _alert(account, push, wishes, title, body)
        if delivery.badge >= 0:
            aps["badge"] = delivery.badge
        if wishes.thread_id:
            aps["thread-id"] = wishes.thread_id
        elif conversation and account.thread == "conversation":
            aps["thread-id"] = conversation
        if wishes.image:
            payload["image"] = wishes.image
    if conversation:
        payload["cid"] = conversation
    if detail == FULL and push.ext:
        payload["ext"] = push.ext
    return encode(payload)


def _alert(account: ApnsAccount, push: Push, wishes: ApnsOptions, title: str, body: str) -> dict[str, Any]:
    """What is shown and how it knocks: the message's own wishes, the user's, else what its kind has in the settings."""
    kind: ApnsKind = account.by_kind[push.kind]
    aps: dict[str, Any] = {"alert": _texts(wishes, title, body)}
    chosen = [one for one in (wishes.sound, push.sound, kind.sound) if one is not None]
    sound = chosen[0] if chosen else "default"
    level = wishes.interruption_level or kind.interruption_level
    if push.recall:
        # Taking something back is no news.
        sound, level = "", "passive"
    if sound and level == "critical":
        # A critical alert sounds through the mute switch only in this form.
        volume = 1.0 if wishes.critical_volume is None else wishes.critical_volume
        aps["sound"] = {"critical": 1, "name": sound, "volume": volume}
    elif sound:
        aps["sound"] = sound
    if category := kind.category if wishes.category is None else wishes.category:
        aps["category"] = category
    if level:
        aps["interruption-level"] = level
    if account.mutable_content or wishes.mutable_content or wishes.image:
        aps["mutable-content"] = 1
    if wishes.relevance_score is not None:
        aps["relevance-score"] = wishes.relevance_score
    return aps


def _texts(wishes: ApnsOptions, title: str, body: str) -> dict[str, Any]:
    """The texts, or where the message names one of the app's own, that name and what fills it."""
    if wishes is _NO_WISHES:
        return {"title": title, "body": body} if title else {"body": body}
    subtitle = clip(wishes.subtitle, SUBTITLE_BYTES_MAX) if wishes.subtitle else ""
    alert: dict[str, Any] = {}
    for field, prefix, text, key, values in (
        ("title", "title-loc", title, wishes.title_loc_key, wishes.title_loc_args),
        ("subtitle", "subtitle-loc", subtitle, wishes.subtitle_loc_key, wishes.subtitle_loc_args),
        ("body", "loc", body, wishes.loc_key, wishes.loc_args),
    ):
        if key:
            alert[f"{prefix}-key"] = key
            if values:
                alert[f"{prefix}-args"] = values
        elif text or field == "body":
            alert[field] = text
    return alert


def _collapse_id(key: str) -> str:
    """*key*, or a hash of it where it is too long for Apple or no header value."""
    if len(key) <= COLLAPSE_ID_BYTES_MAX and key.isascii() and key.isprintable() and key == key.strip():
        return key
    return blake2b(key.encode(), digest_size=16).hexdigest()


def _for(delivery: Delivery, outcome: Outcome) -> Outcome:
    # A key that lacks the VoIP topic still serves all alerts.
    if delivery.token_kind == "voip" and outcome.code in _TOPIC_FAULTS:
        return replace(outcome, scope=Scope.CLASS)
    return outcome


def _signing_key(data: bytes) -> ec.EllipticCurvePrivateKey:
    key = private_key(data)
    if isinstance(key, ec.EllipticCurvePrivateKey) and isinstance(key.curve, ec.SECP256R1):
        return key
    raise ValueError("holds no P-256 private key in PEM form: use the .p8 file as it came from Apple")


_keys = ParsedFiles("key_file", _signing_key)
