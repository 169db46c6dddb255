"""What happens to a device: registration, reports, deaths of tokens. Pure functions from a record to a record.

Late truth wins by its own time, not by its arrival.
"""

from __future__ import annotations

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

__all__ = ["ChannelGiven", "Registration", "Report", "apply_report", "drop_channel", "register", "remove_channel"]

StateName = Literal["foreground", "background", "killed", "logged_out"]
STATES: dict[StateName, State] = {
    "foreground": FOREGROUND,
    "background": BACKGROUND,
    "killed": KILLED,
    "logged_out": LOGGED_OUT,
}

Name = Annotated[str, Meta(max_length=64)]
VendorName = Annotated[str, Meta(pattern=r"^[a-z][a-z0-9_-]{0,31}$")]
CredentialName = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
Token = Annotated[str, Meta(min_length=1, max_length=4_096, pattern=r"^[\x21-\x7e]+$")]
Unread = Annotated[int, Meta(ge=0, le=1_000_000)]
UnixMs = Annotated[int, Meta(ge=0, le=253_402_300_799_999)]


class ChannelGiven(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A push token as the app reported it."""

    vendor: VendorName
    """Lower-case vendor name, for example ``apns``."""

    credential: CredentialName = "main"
    """The account of that vendor that the token belongs to, as in the settings."""

    token: Token
    """As the vendor's SDK gave it: printable ASCII, at most 4,096 characters."""

    kind: TokenKind = "alert"
    region: Name = ""

    def __repr__(self) -> str:
        return f"ChannelGiven({self.vendor}:{self.credential}, {self.kind})"


class Registration(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A device as the app reports it after login; the channels given replace those before."""

    channels: Annotated[tuple[ChannelGiven, ...], Meta(min_length=1, max_length=8)]
    """In order of preference."""

    platform: Name = ""
    maker: Name = ""
    os_version: Name = ""
    app_version: Name = ""
    locale: Annotated[str, Meta(max_length=35)] = ""
    """BCP 47, for example ``zh-Hans-CN``; texts are composed in its language."""

    time_zone: Annotated[str, Meta(max_length=40)] = ""
    notifications: bool = True
    """Whether the user allows notifications."""

    state: StateName | None = None
    """The app's state now, as a report of the same time."""

    unread: Unread = 0
    at_ms: UnixMs = 0
    """When this was true, Unix milliseconds; 0: now."""


class Report(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The state of the app on a device, as of its own time."""

    user: Annotated[str, Meta(min_length=1, max_length=256)]
    device: Annotated[str, Meta(min_length=1, max_length=128)]
    state: StateName
    unread: Unread | None = None
    """With ``background``: the unread number that the badge counts on from."""

    at_ms: UnixMs = 0
    """When this was true, Unix milliseconds; 0: now."""


def register(device: Device | None, given: Registration, now_ms: int, lease_ms: int) -> Device:
    """*device* after a registration; a channel of another vendor than before replaces the old one with it."""
    at_ms = given.at_ms or now_ms
    channels = [Channel(one.vendor, one.credential, one.token, at_ms, one.kind, one.region) for one in given.channels]
    fresh = Device(
        channels=channels,
        permitted=given.notifications,
        locale=given.locale,
        time_zone=given.time_zone,
        platform=given.platform,
        maker=given.maker,
        os_version=given.os_version,
        app_version=given.app_version,
    )
    if device is not None:
        fresh.state, fresh.state_at_ms = device.state, device.state_at_ms
        fresh.lease_until_ms, fresh.unread = device.lease_until_ms, device.unread
        if device.state == LOGGED_OUT and at_ms > device.state_at_ms:
            # Whoever registers has logged in; an older logout is over.
            fresh.state, fresh.state_at_ms = "", at_ms
    if given.state is not None:
        report = Report(user="-", device="-", state=given.state, unread=given.unread, at_ms=at_ms)
        return apply_report(fresh, report, now_ms, lease_ms) or fresh
    return fresh


def apply_report(device: Device, report: Report, now_ms: int, lease_ms: int) -> Device | None:
    """*device* after *report*; None when it knows something newer, so that nothing changes."""
    at_ms = report.at_ms or now_ms
    if at_ms < device.state_at_ms:
        return None
    state = STATES[report.state]
    changed = msgspec.structs.replace(device, state=state, state_at_ms=at_ms, lease_until_ms=0)
    if state == FOREGROUND:
        changed.lease_until_ms = at_ms + lease_ms
        changed.unread = 0
    elif report.unread is not None:
        changed.unread = report.unread
    return changed


def remove_channel(device: Device, vendor: str, token: str) -> Device | None:
    """*device* without that token, because another user has it now; None when it does not have it."""
    kept = [channel for channel in device.channels if (channel.vendor, channel.token) != (vendor, token)]
    return msgspec.structs.replace(device, channels=kept) if len(kept) < len(device.channels) else None


def drop_channel(device: Device, token: str, registered_at_ms: int, since_ms: int | None) -> Device | None:
    """*device* without a token that its vendor calls dead; None when the news is too old to apply.

    Dated news applies to a token registered before that date; undated news to the very registration that was sent to.
    """
    for channel in device.channels:
        if channel.token != token:
            continue
        if since_ms is not None:
            dead = channel.registered_at_ms < since_ms
        else:
            dead = channel.registered_at_ms == registered_at_ms
        return remove_channel(device, channel.vendor, token) if dead else None
    return None
