"""A device as it lies in Redis: packed msgpack, one hash field per device.

Array-like on the wire: fields are only ever appended, each with a default, so that older records decode; the scripts
keep fields that they do not know (`common.lua` names the positions). States are single letters and common words single
characters, because there is a record for every device in the world.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Literal

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from pushfleet_workers.push import TokenKind
from pushfleet_workers.tokens.keys import device_name
from pushfleet_workers.tokens.words import shortened, spelled

__all__ = ["Channel", "Device", "State", "TokenKind", "channel_name", "decode_device", "encode_device", "read_devices"]

log = logging.getLogger(__name__)

State = Literal["", "f", "b", "k", "o"]
"""Unknown, foreground, background, killed (or its connection lost), logged out."""

FOREGROUND: State = "f"
BACKGROUND: State = "b"
KILLED: State = "k"
LOGGED_OUT: State = "o"


class Channel(Struct, array_like=True):
    """One way to reach a device: a token that belongs to one credential."""

    vendor: str
    credential: str
    token: str
    registered_at_ms: int
    kind: TokenKind = "alert"
    region: str = ""
    quarantined_until_ms: int = 0
    """Until when the channel is passed over, Unix milliseconds."""

    @property
    def name(self) -> str:
        """Vendor, credential and kind of token."""
        return channel_name(self.vendor, self.credential, self.kind)

    def __repr__(self) -> str:
        return f"Channel({self.vendor}:{self.credential}, {self.kind})"


def channel_name(vendor: str, credential: str, kind: str) -> str:
    """What tells a device's channels apart, whatever their tokens are at the moment."""
    return f"{vendor}:{credential}:{kind}"


class Device(Struct, array_like=True):
    """One app installation of a user; its first channel of a kind is the primary one.

    Times are Unix milliseconds, each by the clock of whoever reported it; 0: never.
    """

    channels: list[Channel] = []
    state: State = ""
    state_at_ms: int = 0
    lease_until_ms: int = 0
    """Until when a foreground report holds."""

    unread: int = 0
    """The unread number that the badge counts on from: 0 in the foreground, else as last reported."""

    unread_lag_ms: int = 0
    """How much older that number is than the state."""

    permitted: bool = True
    """Whether the device shows notifications."""

    locale: str = ""
    time_zone: str = ""
    platform: str = ""
    maker: str = ""
    os_version: str = ""
    app_version: str = ""
    registered_at_ms: int = 0
    """When it registered, once it has lost all its channels, which tell it otherwise."""

    logged_out_at_ms: int = 0
    """When its user logged out or was logged out; a registration after that sets it back. Other states do not: the
    connection may be lost after a logout."""

    @property
    def heard_at_ms(self) -> int:
        """When it registered or reported last."""
        return max(self.state_at_ms, self.registered_at_ms, *(one.registered_at_ms for one in self.channels))

    @property
    def nothing_unread_at_ms(self) -> int:
        """Until when its user had read everything, as far as it told; 0: it did not.

        What was written in the very millisecond of the report may have come after it.
        """
        return max(0, self.state_at_ms - self.unread_lag_ms - 1) if not self.unread else 0

    @property
    def logged_out(self) -> bool:
        """Whether it gets nothing until it registers again."""
        return self.logged_out_at_ms > 0 or self.state == LOGGED_OUT


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Device)


def encode_device(device: Device) -> bytes:
    """The packed form of *device*."""
    return _encoder.encode(
        replace(
            device,
            locale=shortened(device.locale),
            time_zone=shortened(device.time_zone),
            platform=shortened(device.platform),
            maker=shortened(device.maker),
        )
    )


def decode_device(data: bytes) -> Device:
    """The device in *data*; raises :class:`msgspec.DecodeError`."""
    device = _decoder.decode(data)
    # Many report only some of these.
    if device.locale:
        device.locale = spelled(device.locale)
    if device.time_zone:
        device.time_zone = spelled(device.time_zone)
    if device.platform:
        device.platform = spelled(device.platform)
    if device.maker:
        device.maker = spelled(device.maker)
    return device


def read_devices(fields: Sequence[bytes]) -> dict[str, Device]:
    """The devices in the reply to HGETALL, by id.

    A record that cannot be read (damaged, or of a newer kind) is logged and left out: it must not hold up the others.
    """
    devices = {}
    for at in range(0, len(fields), 2):
        name = device_name(fields[at])
        try:
            devices[name] = decode_device(fields[at + 1])
        except (msgspec.DecodeError, UnicodeDecodeError):
            log.warning("the record of device %r cannot be read and is left out", name)
    return devices
