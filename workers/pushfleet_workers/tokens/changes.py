"""What apps and backends say of devices: the shapes of registrations and reports, and their limits.

The same shapes are HTTP bodies and lines of an import. Late truth wins by its own time, not by its arrival.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from pushfleet_workers.tokens.record import (
    BACKGROUND,
    FOREGROUND,
    KILLED,
    LOGGED_OUT,
    Channel,
    Device,
    State,
    TokenKind,
)

__all__ = [
    "DEVICE_BYTES_MAX",
    "FUTURE_MS_MAX",
    "ID_BYTES_MAX",
    "STATES",
    "STATE_NAMES",
    "Accounts",
    "ChannelGiven",
    "DeviceId",
    "Registration",
    "Report",
    "StateName",
    "UnixMs",
    "Unread",
    "UserId",
    "WrongField",
    "check_id",
    "explain",
    "in_future",
    "new_device",
    "no_account",
    "wrong_time",
]

ID_BYTES_MAX = 256
"""Longest id of a user or conversation, in UTF-8 bytes, as in messages."""

DEVICE_BYTES_MAX = 128
"""Longest installation id, in UTF-8 bytes."""

FUTURE_MS_MAX = 300_000
"""How far ahead of the fleet's clock a time may lie; later ones would shut out the truth until then."""

PAST_MS_MAX = 5 * 365 * 86_400_000
"""How old a time may be; nothing that old is worth keeping, and seconds taken for milliseconds are of 1970."""

Accounts = Mapping[tuple[str, str], str]
"""Vendor and credential to the app they belong to."""

_AT = re.compile(r" - at `\$?\.?(?P<field>.*)`$", re.DOTALL)
_NAMED_FIELD = re.compile(r"Object (?P<what>contains unknown|missing required) field `(?P<name>.*)`", re.DOTALL)
_FIELD_NAME = re.compile(r"[a-z_]{1,24}")

StateName = Literal["foreground", "background", "killed", "logged_out"]
STATES: dict[StateName, State] = {
    "foreground": FOREGROUND,
    "background": BACKGROUND,
    "killed": KILLED,
    "logged_out": LOGGED_OUT,
}
STATE_NAMES: dict[State, StateName] = {short: name for name, short in STATES.items()}

# Ids are limited in bytes, which `check_id` counts; JSON Schema counts characters, and its bound is the wider one.
UserId = Annotated[
    str,
    Meta(description="1 to 256 bytes of UTF-8.", extra_json_schema={"minLength": 1, "maxLength": ID_BYTES_MAX}),
]
DeviceId = Annotated[
    str,
    Meta(
        description="The installation's id, 1 to 128 bytes of UTF-8.",
        extra_json_schema={"minLength": 1, "maxLength": DEVICE_BYTES_MAX},
    ),
]

# In Python a lone "$" also matches before a last newline.
Name = Annotated[str, Meta(max_length=64)]
VendorName = Annotated[
    str, Meta(pattern=r"^[a-z][a-z0-9_-]{0,31}$(?!\n)", description="Lower-case vendor name, for example `apns`.")
]
CredentialName = Annotated[
    str,
    Meta(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$(?!\n)",
        description="The account of that vendor that the token belongs to, as in the settings.",
    ),
]
Token = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=4_096,
        pattern=r"^[\x21-\x7e]+$(?!\n)",
        description="As the vendor's SDK gave it: printable ASCII, at most 4,096 characters.",
    ),
]
Unread = Annotated[
    int, Meta(ge=0, le=1_000_000, description="The unread number that the badge counts on from, as of the same time.")
]
UnixMs = Annotated[
    int,
    Meta(
        ge=0,
        le=253_402_300_799_999,
        description="When this was true, Unix milliseconds; 0: now. At most five minutes ahead of the server's clock.",
    ),
]


class WrongField(ValueError):
    """What a shape's ``__post_init__`` finds wrong; :func:`explain` adds *field* to the path of the object."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(problem)
        self.field = field


def check_id(what: str, identity: str, limit: int, field: str = "") -> None:
    """Raise :class:`WrongField` unless *identity* has 1 to *limit* UTF-8 bytes.

    * **field** - where it was given; absent: *what*.
    """
    size = len(identity.encode(errors="surrogatepass"))
    if not 0 < size <= limit:
        raise WrongField(field or what, f"the {what} id has {size} bytes; 1 to {limit} are allowed")


def explain(problem: msgspec.ValidationError) -> tuple[str, str]:
    """What is wrong with what was given and the field where, without anything that was given: it may be a token."""
    sentence = str(problem)
    at = _AT.search(sentence)
    field = at["field"] if at is not None else ""
    sentence = sentence[: at.start()] if at is not None else sentence
    if isinstance(problem.__cause__, WrongField):
        return sentence, _within(field, problem.__cause__.field)
    if sentence.startswith("Invalid enum value"):
        sentence = "this is none of the values that are allowed"
    elif (named := _NAMED_FIELD.fullmatch(sentence)) is not None:
        if named["what"] == "contains unknown" and not _FIELD_NAME.fullmatch(named["name"]):
            return "Object contains an unknown field", field
        field = _within(field, named["name"])
    return sentence, field


def _within(path: str, field: str) -> str:
    return f"{path}.{field}" if path else field


def in_future(at_ms: int, now_ms: int) -> bool:
    """Whether a time given lies too far ahead to be believed, see :data:`FUTURE_MS_MAX`."""
    return at_ms > now_ms + FUTURE_MS_MAX


def wrong_time(at_ms: int, now_ms: int) -> tuple[str, str]:
    """A code and a sentence about a time that cannot be meant; both empty for one that can, and for 0: now."""
    if in_future(at_ms, now_ms):
        return "time_in_future", "the time lies more than five minutes in the future: check the clock"
    if 0 < at_ms < now_ms - PAST_MS_MAX:
        return "time_too_old", "the time lies more than five years in the past: is it in milliseconds?"
    return "", ""


class ChannelGiven(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A push token as the app reported it."""

    vendor: VendorName
    credential: CredentialName = "main"
    token: Token
    kind: TokenKind = "alert"
    region: Name = ""

    def __repr__(self) -> str:
        return f"ChannelGiven({self.vendor}:{self.credential}, {self.kind})"


class Registration(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A device as the app reports it after login; the channels given replace those before."""

    channels: Annotated[
        tuple[ChannelGiven, ...],
        Meta(min_length=1, max_length=8, description="In order of preference; the first of a kind is the primary one."),
    ]
    platform: Annotated[
        str,
        Meta(
            max_length=64,
            description="Such as ios or android; windows, macos, mac, linux, pc, desktop and web are desktops.",
        ),
    ] = ""
    maker: Name = ""
    os_version: Name = ""
    app_version: Name = ""
    locale: Annotated[
        str, Meta(max_length=35, description="BCP 47, for example `zh-Hans-CN`; texts are composed in its language.")
    ] = ""
    time_zone: Annotated[str, Meta(max_length=40, description="IANA name, for example `Asia/Shanghai`.")] = ""
    notifications: Annotated[bool, Meta(description="Whether the user allows notifications.")] = True
    state: Annotated[StateName, Meta(description="The app's state now, as a report of the same time.")] | None = None
    unread: Unread | None = None
    """Only with a state; a registration alone says nothing of what is unread."""

    at_ms: UnixMs = 0

    def __post_init__(self) -> None:
        if self.unread is not None and self.state is None:
            raise WrongField("unread", "unread says nothing without state")
        addresses: set[tuple[str, str]] = set()
        for number, channel in enumerate(self.channels):
            if (channel.vendor, channel.token) in addresses:
                raise WrongField(f"channels[{number}].token", "the same token is given twice")
            addresses.add((channel.vendor, channel.token))


class Report(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The state of the app on a device, as of its own time."""

    user: UserId
    device: DeviceId
    state: StateName
    unread: Unread | None = None
    at_ms: UnixMs = 0

    def __post_init__(self) -> None:
        check_id("user", self.user, ID_BYTES_MAX)
        check_id("device", self.device, DEVICE_BYTES_MAX)


def no_account(app: str, channel: ChannelGiven, accounts: Accounts) -> str:
    """The sentence about a channel whose account the app does not have; repeats nothing that may be a token."""
    own = sorted(f"{vendor}/{credential}" for (vendor, credential), owner in accounts.items() if owner == app)
    known = ", ".join(own) or "none"
    if any(one.startswith(f"{channel.vendor}/") for one in own):
        return f"app {app} has no account of {channel.vendor} with that credential; it has: {known}"
    return f"app {app} has no account of that vendor; it has: {known}"


def new_device(given: Registration, at_ms: int) -> Device:
    """The record of a device that registers for the first time, without its state."""
    return Device(
        channels=[
            Channel(one.vendor, one.credential, one.token, at_ms, one.kind, one.region) for one in given.channels
        ],
        permitted=given.notifications,
        locale=given.locale,
        time_zone=given.time_zone,
        platform=given.platform,
        maker=given.maker,
        os_version=given.os_version,
        app_version=given.app_version,
    )
