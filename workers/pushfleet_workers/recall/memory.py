"""What is remembered of messages so that they can be taken back: the commands, and what their replies mean.

No connection in here. Three things are remembered, all in the token state's Redis and for the app's window: whom a
message went to, that it was taken back, and by replace key and device what was pushed last, which is what is shown.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from typing import Any

from pushfleet.message import DEFAULT_TTL_S, OfflinePush
from pushfleet_workers.push import Delivery
from pushfleet_workers.recall.keys import digest_key, message_key, screen_key
from pushfleet_workers.scripts import Script, load

__all__ = ["DEVICES_MAX", "PARTS_MAX", "Call", "RecallMemory", "is_visible"]

PARTS_MAX = 20
"""Parts of a message that are kept, of 500 recipients each; whoever takes back a larger one names the rest."""

DEVICES_MAX = 20_000
"""Devices of one replace key whose last push is remembered; of what others show nothing can be taken back."""

_KEEP = load("pushfleet_workers.recall", "keep")
_MARK = load("pushfleet_workers.recall", "mark")
_SHOW = load("pushfleet_workers.recall", "show")
_FORGET = load("pushfleet_workers.recall", "forget")
_PUSHED = struct.Struct(">d8s")
_NOBODYS = bytes(8)

Call = tuple[Script, tuple[str, ...], tuple[str | bytes | int, ...]]


class RecallMemory:
    """What to ask and to write for one fleet, and how to read the replies."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix

    def marked(self, app: str, message_id: str) -> tuple[str, ...]:
        """The command whose reply is not None when the message was taken back."""
        return "HGET", message_key(self._prefix, app, message_id), "r"

    def marked_digest(self, digest: str) -> tuple[str, ...]:
        """The same of a message that only its :func:`message_digest` is known of."""
        return "HGET", digest_key(self._prefix, digest), "r"

    def mark_call(self, app: str, message_id: str, window_s: int) -> Call:
        """The script call that takes the message back; it answers with what :meth:`keep_call` kept, by part.

        The mark stands until the message expires, a day where that is not known, and for the window at least.
        """
        key = message_key(self._prefix, app, message_id)
        return _MARK, (key,), (window_s * 1000, DEFAULT_TTL_S * 1000)

    def keep_call(self, app: str, message_id: str, part: int, kept: bytes, window_s: int, expires_at_ms: int) -> Call:
        """The script call that keeps a part for the window; it answers 1 when the message was taken back before."""
        key = message_key(self._prefix, app, message_id)
        return _KEEP, (key,), (part, kept, window_s * 1000, expires_at_ms, PARTS_MAX)

    def show_call(
        self,
        message: tuple[str, str, str],
        places: Sequence[bytes],
        window_s: int,
        entry: bytes,
        *,
        again: bool,
        nobodys: bool = False,
    ) -> Call:
        """The script call that remembers a message as what *places* show, for the window.

        * **message** - app, message and replace key.
        * **places** - devices, as :meth:`place_of` names them.
        * **entry** - the id of its stream entry.
        * **again** - it may have been put before, and something newer since.
        * **nobodys** - they show something in its place that no recall takes back.
        """
        app, message_id, replace_key = message
        pushed = _PUSHED.pack(_time_of(entry), _NOBODYS if nobodys else _digest(message_id))
        key = screen_key(self._prefix, app, message_id, replace_key)
        return _SHOW, (key,), (pushed, window_s * 1000, DEVICES_MAX, int(again), *places)

    def shown(self, app: str, message_id: str, replace_key: str, places: Sequence[bytes]) -> tuple[str | bytes, ...]:
        """The command whose reply says, for each of *places*, what was pushed last; see :meth:`shows`."""
        return "HMGET", screen_key(self._prefix, app, message_id, replace_key), *places

    def forget_call(self, app: str, message_id: str, replace_key: str, places: Iterable[bytes]) -> Call:
        """The script call that forgets that *places* show the message; it never got there."""
        key = screen_key(self._prefix, app, message_id, replace_key)
        return _FORGET, (key,), (_digest(message_id), *places)

    @staticmethod
    def shows(message_id: str, replies: Sequence[Any]) -> list[bool]:
        """Of the places asked about with :meth:`shown`, whether each shows the message."""
        digest = _digest(message_id)
        return [reply is not None and reply[8:] == digest for reply in replies]

    @staticmethod
    def place_of(delivery: Delivery, vendor: str, credential: str) -> bytes:
        """The device of *delivery* as it is remembered; one that was addressed directly goes by its token."""
        user = delivery.user
        device = delivery.device or f"{vendor}:{credential}:{delivery.token}"
        return blake2b(f"{len(user)}:{user}{device}".encode(errors="surrogatepass"), digest_size=8).digest()


def is_visible(options: OfflinePush | None, vendor: str, delivery: Delivery) -> bool:
    """Whether the delivery becomes a notification: VoIP rings, and a background push of APNs wakes the app only.

    *options* are those of its message.
    """
    apns = options.apns if options is not None else None
    silent = vendor == "apns" and apns is not None and apns.push_type == "background"
    return delivery.token_kind != "voip" and not silent


def _time_of(entry: bytes) -> float:
    """Milliseconds, and what came in the same one in its order."""
    ms, _, number = entry.partition(b"-")
    return int(ms) + min(int(number or 0), 4_095) / 4_096


def _digest(message_id: str) -> bytes:
    return blake2b(message_id.encode(errors="surrogatepass"), digest_size=8).digest()
