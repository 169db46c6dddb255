"""What a user wants of pushes as a whole: on or off, when not, how they sound, whether they show the text. Pure.

The record lies in the user's options, under the name that no conversation has. It is packed msgpack, array-like:
fields are only ever appended, each with a default, and whoever writes keeps those that it does not know.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import UTC, datetime, tzinfo
from functools import lru_cache
from typing import Annotated
from zoneinfo import ZoneInfo

import msgspec
from msgspec import Meta, Struct
from msgspec.structs import astuple

__all__ = [
    "DAY_S",
    "PREFERENCES_FIELD",
    "Preferences",
    "Window",
    "find_overlap",
    "find_zone",
    "is_quiet",
    "read_preferences",
    "repack_preferences",
]

log = logging.getLogger(__name__)

PREFERENCES_FIELD = ""
"""The field of the user's options that holds them: no conversation has an empty id."""

DAY_S = 86_400
_ZONE_CHARS_MAX = 40
_NO_PLACES = frozenset({"localtime", "posixrules", "Factory"})
"""Files beside the time zones, which are those of the machine or of none."""


class Window(Struct, frozen=True, array_like=True):
    """A part of each day, by the clock on the wall; a stored one out of its bounds makes a record that nobody wrote."""

    start_s: Annotated[int, Meta(ge=0, lt=DAY_S)]
    """Seconds since midnight."""

    length_s: Annotated[int, Meta(ge=1, le=DAY_S)]
    """1 to a day; it may reach into the next day."""


class Preferences(Struct, frozen=True, array_like=True):
    """What holds for all conversations of a user; the defaults are those of a user who never said anything."""

    push: bool = True
    hide_text: bool = False
    single_sound: str | None = None
    """The sound of messages in single chats: a file of the app; empty: silence; None: as the account has it."""

    group_sound: str | None = None
    """The same in groups and channels."""

    quiet_until_ms: int = 0
    """Do not disturb until then, Unix milliseconds; 0: no such time."""

    quiet_daily: tuple[Window, ...] = ()
    """Do not disturb in these parts of each day."""

    time_zone: str = ""
    """Whose clock the parts of the day go by; empty: the device's."""

    calls_pass: bool = True
    mentions_pass: bool = False

    def sound_in(self, *, group: bool) -> str | None:
        """The sound of a message, in a group or channel or in a single chat."""
        return self.group_sound if group else self.single_sound


_DEFAULT = Preferences()
_FIELDS = len(Preferences.__struct_fields__)
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Preferences).decode
_decode_raw = msgspec.msgpack.Decoder(list).decode


def read_preferences(stored: bytes | None) -> Preferences | None:
    """The preferences in *stored*; None where there are none, and where they cannot be read, which is logged."""
    if stored is None:
        return None
    try:
        return _decode(stored)
    except (msgspec.DecodeError, UnicodeDecodeError):
        log.warning("the preferences of a user cannot be read and are left out")
        return None


def repack_preferences(stored: bytes | None, wanted: Preferences) -> bytes:
    """What to store for *wanted* in place of *stored*; empty where there is nothing to store.

    Fields that a newer process appended stay, and so does whatever *wanted* leaves as it was.
    """
    before = read_preferences(stored)
    raw = _decode_raw(stored) if before is not None and stored is not None else []
    if wanted == _DEFAULT and len(raw) <= _FIELDS:
        return b""
    fields = [
        raw[number] if number < len(raw) and value == was else value
        for number, (value, was) in enumerate(zip(astuple(wanted), astuple(before or _DEFAULT), strict=True))
    ]
    return _encode([*fields, *raw[_FIELDS:]])


@lru_cache(maxsize=1_024)
def find_zone(name: str) -> tzinfo | None:
    """The time zone of an IANA name, such as ``Asia/Shanghai``; None where there is none."""
    if not 0 < len(name) <= _ZONE_CHARS_MAX or name in _NO_PLACES or name.startswith(("posix/", "right/")):
        return None
    try:
        return ZoneInfo(name)
    except (ValueError, LookupError, OSError):
        # Besides names that are unknown: paths that lead out, folders, characters that no name has.
        return None


def is_quiet(preferences: Preferences, device_zone: str, now_ms: int) -> bool:
    """Whether the user is not to be disturbed at *now_ms*.

    Parts of the day go by the clock on the wall: in the zone of the preferences, else in *device_zone*, the zone of
    the device, else in UTC. An hour that a change of the clock skips is not there, one that it repeats counts twice.
    """
    if now_ms < preferences.quiet_until_ms:
        return True
    if not preferences.quiet_daily:
        return False
    zone = find_zone(preferences.time_zone or device_zone) or UTC
    wall = datetime.fromtimestamp(now_ms // 1000, zone)
    second = wall.hour * 3600 + wall.minute * 60 + wall.second
    return any((second - window.start_s) % DAY_S < window.length_s for window in preferences.quiet_daily)


def find_overlap(windows: Sequence[Window]) -> int | None:
    """The number of the first window that shares a time of day with one before it; None where none does."""
    for number, one in enumerate(windows):
        for other in windows[:number]:
            if (one.start_s - other.start_s) % DAY_S < other.length_s:
                return number
            if (other.start_s - one.start_s) % DAY_S < one.length_s:
                return number
    return None
