"""Reading many users in one pipelined round trip: the commands, and what their replies mean. No connection in here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

from pushfleet_workers.redis_link import ReplyError
from pushfleet_workers.scripts import Script, load
from pushfleet_workers.tokens.keys import UserKeys
from pushfleet_workers.tokens.record import Device, decode_device

__all__ = ["Lookup", "Receive", "UserState", "pack_option", "read_option"]

Receive = str
"""``all``, ``mentions`` or ``none``."""

_BADGE = load("pushfleet_workers.tokens", "badge")
BADGE_LIFE_S = 30 * 86_400


@dataclass(slots=True)
class UserState:
    """A user's devices, and what they want from one conversation."""

    devices: dict[str, Device] = field(default_factory=dict)
    option: bytes | None = None

    def receive_at(self, now_ms: int) -> Receive:
        """The receive option that holds at *now_ms*."""
        receive, until_ms = read_option(self.option)
        return receive if not until_ms or now_ms < until_ms else "all"


class Lookup:
    """What to ask for a user, and how to read it."""

    width = 2
    """Commands per user."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix

    def commands(self, app: str, user: str, conversation: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The commands whose replies :meth:`read` takes."""
        keys = UserKeys(self._prefix, app, user)
        return ("HGETALL", keys.devices), ("HGET", keys.options, conversation)

    def read(self, replies: Sequence[Any]) -> UserState:
        """The user in *replies*.

        Raises the :class:`ReplyError` among them, or :class:`msgspec.DecodeError` for a damaged record.
        """
        fields, option = replies
        if isinstance(fields, ReplyError):
            raise fields
        if isinstance(option, ReplyError):
            raise option
        return UserState(
            {fields[at].decode(): decode_device(fields[at + 1]) for at in range(0, len(fields), 2)}, option
        )

    def badge_call(
        self, app: str, user: str, device: str, message_id: str
    ) -> tuple[Script, tuple[str, ...], tuple[str | bytes | int, ...]]:
        """The script call that counts a message for a device's badge; it answers the pushes counted since the base.

        The same message counts once, as long as it is among the last 16 of the device.
        """
        digest = blake2b(message_id.encode(errors="surrogatepass"), digest_size=8).digest()
        return _BADGE, (UserKeys(self._prefix, app, user).badges,), (device, digest, BADGE_LIFE_S)


def pack_option(receive: Receive, until_ms: int = 0) -> str:
    """The stored form of a receive option."""
    return f"{receive}:{until_ms}" if until_ms else receive


def read_option(stored: bytes | None) -> tuple[Receive, int]:
    """The receive option and when it ends (0: never); ``all`` where nothing is stored."""
    if stored is None:
        return "all", 0
    receive, _, until = stored.decode().partition(":")
    return receive, int(until or 0)
