"""A device as it lies in Redis: packed msgpack, one hash field per device.

Array-like on the wire: fields are only ever appended, each with a default, so that older records decode. Names of
vendors and states are short on purpose: there is a record for every device in the world.
"""

from __future__ import annotations

from typing import Literal

import msgspec
from msgspec import Struct

__all__ = ["Channel", "Device", "State", "TokenKind", "decode_device", "encode_device"]

State = Literal["", "f", "b", "k", "o"]
"""Unknown, foreground, background, killed (or its connection lost), logged out."""

TokenKind = Literal["alert", "voip", "fid"]

FOREGROUND: State = "f"
BACKGROUND: State = "b"
KILLED: State = "k"
LOGGED_OUT: State = "o"


class Channel(Struct, array_like=True, omit_defaults=True):
    """One way to reach a device: a token that belongs to one credential."""

    vendor: str
    credential: str
    token: str
    registered_at_ms: int
    kind: TokenKind = "alert"
    region: str = ""
    quarantined_until_ms: int = 0

    def __repr__(self) -> str:
        return f"Channel({self.vendor}:{self.credential}, {self.kind})"


class Device(Struct, array_like=True, omit_defaults=True):
    """One app installation of a user; its first channel of a kind is the primary one."""

    channels: list[Channel] = []
    state: State = ""
    state_at_ms: int = 0
    """The state's own time, by the clock of whoever reported it."""

    lease_until_ms: int = 0
    """Until when a foreground report holds."""

    unread: int = 0
    """The unread number when the app went to the background: what the badge counts on from."""

    permitted: bool = True
    """Whether the device shows notifications."""

    locale: str = ""
    time_zone: str = ""
    platform: str = ""
    maker: str = ""
    os_version: str = ""
    app_version: str = ""


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Device)


def encode_device(device: Device) -> bytes:
    """The packed form of *device*."""
    return _encoder.encode(device)


def decode_device(data: bytes) -> Device:
    """The device in *data*; raises :class:`msgspec.DecodeError`."""
    return _decoder.decode(data)
