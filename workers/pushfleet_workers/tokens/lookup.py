"""Reading many users in one pipelined round trip: the commands, and what their replies mean. No connection in here."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from itertools import chain
from typing import Any

from msgspec import Struct

from pushfleet_workers.redis_link import ReplyError
from pushfleet_workers.redis_replies import good, is_damaged
from pushfleet_workers.scripts import Script, load
from pushfleet_workers.tokens.keys import UserKeys, device_field
from pushfleet_workers.tokens.preferences import PREFERENCES_FIELD, Preferences, read_preferences
from pushfleet_workers.tokens.record import Device, read_devices

__all__ = ["BadgeCall", "Counted", "Lookup", "Receive", "UserState", "pack_option", "read_badges", "read_option"]

Receive = str
"""``all``, ``mentions`` or ``none``."""

_MUTES = frozenset({"mentions", "none"})
_BADGE = load("pushfleet_workers.tokens", "badge")
BADGE_LIFE_S = 30 * 86_400
_BADGE_TICK_MS = 16
"""As in ``common.lua``."""

_BADGES = 100
"""Pushes counted by one call: a call for each costs Redis and its caller 5 µs more, and many more hold up others."""

_MESSAGE = blake2b(digest_size=4)

BadgeCall = tuple[Script, Sequence[str], Sequence[str | bytes | int]]


class Counted(Struct, frozen=True):
    """A push that counts in a device's badge."""

    app: str
    user: str
    device: str
    message_id: str
    sent_at_ms: int


class UserState(Struct):
    """A user's devices, and what they want from one conversation and altogether."""

    devices: dict[str, Device] = {}
    option: bytes | None = None
    preferences: Preferences | None = None
    """None for a user who never said anything."""

    def receive_at(self, now_ms: int) -> Receive:
        """The receive option that holds at *now_ms*."""
        if self.option is None:
            return "all"
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
        if not conversation:
            return ("HGETALL", keys.devices), ("HMGET", keys.options, PREFERENCES_FIELD)
        return ("HGETALL", keys.devices), ("HMGET", keys.options, PREFERENCES_FIELD, conversation)

    def read(self, replies: Sequence[Any]) -> UserState:
        """The user in *replies*; a device whose record cannot be read is left out.

        Raises the :class:`ReplyError` among them.
        """
        fields, options = replies
        if isinstance(fields, ReplyError):
            raise fields
        if isinstance(options, ReplyError):
            raise options
        stored = options[0]
        return UserState(
            read_devices(fields),
            options[1] if len(options) > 1 else None,
            None if stored is None else read_preferences(stored),
        )

    def badge_calls(self, pushes: Sequence[Counted]) -> list[BadgeCall]:
        """The script calls that count *pushes* for badges, see :func:`read_badges` for what they answer.

        The badge to show is the device's ``unread`` plus what is counted. The same message counts once, as long as it
        is among the last 63 of the device; a new base does not change that. It ends the count of what was written
        until then, not of what was written after it.
        """
        return [self._badge_call(pushes[first : first + _BADGES]) for first in range(0, len(pushes), _BADGES)]

    def _badge_call(self, pushes: Sequence[Counted]) -> BadgeCall:
        keys: list[str] = []
        arguments: list[str | bytes | int] = [BADGE_LIFE_S]
        for push in pushes:
            keys.append(UserKeys(self._prefix, push.app, push.user).badges)
            digest = _MESSAGE.copy()
            digest.update(push.message_id.encode(errors="surrogatepass"))
            written = push.sent_at_ms // _BADGE_TICK_MS % 2**32
            arguments += device_field(push.device), digest.digest() + written.to_bytes(4, "big")
        return _BADGE, keys, arguments

    def counted(self, app: str, user: str, device: str) -> tuple[str | bytes, ...]:
        """The command whose reply :meth:`read_counted` takes."""
        return "HGET", UserKeys(self._prefix, app, user).badges, device_field(device)

    @staticmethod
    def read_counted(reply: bytes | None) -> int:
        """The pushes counted since the base."""
        return int.from_bytes(reply[:4], "big") if reply is not None else 0


def read_badges(answers: Sequence[Any]) -> list[int | None]:
    """For each push the pushes counted since its device's base, from the answers to :meth:`Lookup.badge_calls`.

    None: the key of its user is not what it should be. Raises another :class:`ReplyError` among them.
    """
    counts = list(chain.from_iterable(good(answers)))
    return [None if isinstance(count, ReplyError) and is_damaged(count) else count for count in counts]


def pack_option(receive: Receive, until_ms: int = 0) -> str:
    """The stored form of a receive option."""
    return f"{receive}:{until_ms}" if until_ms else receive


def read_option(stored: bytes) -> tuple[Receive, int]:
    """The receive option in *stored*, and when it ends (0: never); a damaged one is as good as none: ``all``."""
    receive, _, until = stored.decode(errors="replace").partition(":")
    if receive not in ("none", "mentions"):
        return "all", 0
    return receive, int(until) if until.isdecimal() else 0
