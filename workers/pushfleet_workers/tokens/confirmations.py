"""Confirmations that devices have messages: the app got them over its own connection, and needs no push of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from msgspec import Meta, Struct

from pushfleet_workers.redis_link import Link
from pushfleet_workers.redis_replies import good, is_damaged
from pushfleet_workers.scripts import load
from pushfleet_workers.tokens.changes import DEVICE_BYTES_MAX, ID_BYTES_MAX, DeviceId, UserId, check_id
from pushfleet_workers.tokens.keys import UserKeys, device_field

__all__ = [
    "CONFIRMED_MAX",
    "Confirmation",
    "ConfirmationStore",
    "Confirmed",
    "confirmed_command",
    "read_confirmed",
]

LIFE_S = 3_600
"""What is parked is looked at every few seconds; an account may be shut for a while besides."""

CONFIRMED_MAX = 1_000
"""Most confirmations of a user, by device and conversation; beyond that those of the oldest messages are forgotten."""

_CONFIRM = load("pushfleet_workers.tokens", "confirm", preamble="cursors")


class Confirmation(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A device has all messages of a conversation that were written until a time."""

    user: UserId
    device: DeviceId
    up_to_ms: Annotated[
        int,
        Meta(
            ge=1,
            le=253_402_300_799_999,
            description="`sent_at_ms` of the last message that the device has, and none before it is missing there.",
        ),
    ]
    conversation: Annotated[
        str,
        Meta(
            description="As in messages, up to 256 bytes of UTF-8; absent: all of them, and what belongs to none.",
            extra_json_schema={"maxLength": ID_BYTES_MAX},
        ),
    ] = ""

    def __post_init__(self) -> None:
        check_id("user", self.user, ID_BYTES_MAX)
        check_id("device", self.device, DEVICE_BYTES_MAX)
        if self.conversation:
            check_id("conversation", self.conversation, ID_BYTES_MAX)


@dataclass(frozen=True, slots=True)
class Confirmed:
    """What became of confirmations; the counts add up to those given."""

    applied: int = 0
    outdated: int = 0
    """More was confirmed before."""

    unknown: int = 0
    """Of devices that are not registered."""


class ConfirmationStore:
    """Takes confirmations down."""

    def __init__(self, link: Link, prefix: str) -> None:
        self._link = link
        self._prefix = prefix

    async def confirm(self, app: str, confirmations: Sequence[Confirmation]) -> Confirmed:
        """Note *confirmations* in one round trip; of two the one that goes further holds, in whatever order they come.

        Raises :class:`RedisUnusable` and :class:`ReplyError`; repeating it is safe.
        """
        calls = []
        for one in confirmations:
            keys, device = UserKeys(self._prefix, app, one.user), device_field(one.device)
            name = _name(device, one.conversation)
            calls.append(
                (_CONFIRM, (keys.devices, keys.delivered), (device, name, one.up_to_ms, CONFIRMED_MAX, LIFE_S))
            )
        answers = good(await self._link.run_many(calls))
        return Confirmed(answers.count(1), answers.count(0), answers.count(-1))


def confirmed_command(prefix: str, app: str, user: str, device: str, conversation: str) -> tuple[str | bytes, ...]:
    """The command whose reply :func:`read_confirmed` takes; the conversation of a message without one is empty."""
    field = device_field(device)
    names = dict.fromkeys((_name(field, ""), _name(field, conversation)))
    return "HMGET", UserKeys(prefix, app, user).delivered, *names


def read_confirmed(reply: Any) -> int:
    """Until when the device has everything, Unix milliseconds; 0: nobody knows, or the key is not what it should be."""
    if is_damaged(reply):
        return 0
    return max(int(time) if time is not None and time.isdigit() else 0 for time in reply)


def _name(device: bytes, conversation: str) -> bytes:
    """What a confirmation is kept under; no two pairs of device and conversation have the same."""
    return bytes((len(device),)) + device + conversation.encode(errors="surrogatepass")
