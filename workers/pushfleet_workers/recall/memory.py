"""What is remembered of messages so that they can be taken back: the commands, and what their replies mean.

No connection in here. Three things are remembered, all in the token state's Redis and for the app's window: whom a
message went to, that it was taken back, and by replace key and device what was pushed, the last in front: that is what
is shown. What it hides is shown still where it turns out that the one in front never left.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from typing import Any

from pushfleet.message import DEFAULT_TTL_S, OfflinePush
from pushfleet_workers.push import Delivery
from pushfleet_workers.recall.keys import digest_key, message_digest, message_key, packed, screen_key
from pushfleet_workers.scripts import Script, load

__all__ = ["DEVICES_MAX", "PARTS_MAX", "Call", "Message", "RecallMemory", "is_visible"]

PARTS_MAX = 20
"""Parts of a message that are kept, of 500 recipients each; whoever takes back a larger one names the rest."""

DEVICES_MAX = 20_000
"""Devices of one replace key whose last push is remembered; of what others show nothing can be taken back."""

HIDDEN_MAX = 7
"""Messages beneath the one that a device shows that are remembered."""

_KEEP = load("pushfleet_workers.recall", "keep")
_MARK = load("pushfleet_workers.recall", "mark")
_SHOW = load("pushfleet_workers.recall", "show")
_CHANGE = load("pushfleet_workers.recall", "change")
_TIME = struct.Struct(">d")
_LAYER_BYTES = 13
_ITSELF, _COUNT, _RECALL = b"m", b"c", b"r"
"""What is shown of a message: what it said, how many there are, or that it was recalled."""

Message = tuple[str, str, str]
"""App, message and replace key."""

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
        return _MARK, (key,), (window_s * 1000, DEFAULT_TTL_S * 1000, message_id)

    def keep_call(self, app: str, message_id: str, part: int, kept: bytes, window_s: int, expires_at_ms: int) -> Call:
        """The script call that keeps a part for the window; it answers 1 when the message was taken back before."""
        key = message_key(self._prefix, app, message_id)
        return _KEEP, (key,), (part, kept, window_s * 1000, expires_at_ms, PARTS_MAX)

    def show_call(
        self,
        message: Message,
        places: Sequence[bytes],
        window_s: int,
        entry: bytes,
        *,
        again: bool,
        nobodys: bool = False,
    ) -> Call:
        """The script call that remembers a message as what *places* show, for the window.

        * **places** - devices, as :meth:`place_of` names them.
        * **entry** - the id of its stream entry.
        * **again** - it may have been put before, and something newer since.
        * **nobodys** - they show something in its place that no recall takes back.
        """
        pushed = _TIME.pack(_time_of(entry)) + (_COUNT if nobodys else _ITSELF) + _digest(message)
        key = self.screen(message)
        return _SHOW, (key,), (pushed, window_s * 1000, DEVICES_MAX, HIDDEN_MAX + 1, int(again), *places)

    def shown(self, message: Message, places: Sequence[bytes]) -> tuple[str | bytes, ...]:
        """The command whose reply says, for each of *places*, what was pushed; see :meth:`shows` and :meth:`layers`."""
        return "HMGET", self.screen(message), *places

    def forget_call(self, message: Message, places: Iterable[bytes], *, lost: bool = False) -> Call:
        """The script call that forgets that *places* show the message, which never got there.

        It answers with what comes to the front by that: see :meth:`uncovered`. *lost*: it may have got there, and
        nothing is forgotten; the answer says what another process uncovered that forgot it, and died.
        """
        return self._change(message, _ITSELF + _COUNT + _RECALL, b"?" if lost else b"", places)

    def recalled_call(self, message: Message, places: Iterable[bytes], *, undone: bool = False) -> Call:
        """The script call after which *places* say that the message was recalled; *undone*: they do not after all."""
        was, becomes = (_RECALL, _ITSELF) if undone else (_ITSELF, _RECALL)
        return self._change(message, was, becomes, places)

    def _change(self, message: Message, was: bytes, becomes: bytes, places: Iterable[bytes]) -> Call:
        return _CHANGE, (self.screen(message),), (_digest(message), was, becomes, *places)

    def screen(self, message: Message) -> str:
        """The key of what devices show under the replace key of *message*."""
        return screen_key(self._prefix, *message)

    @staticmethod
    def layers(reply: Any) -> list[bytes]:
        """What a place shows by its reply to :meth:`shown`, and what that hides."""
        return [reply[at : at + _LAYER_BYTES] for at in range(_TIME.size, len(reply or b""), _LAYER_BYTES)]

    @staticmethod
    def layer(message: Message) -> bytes:
        """The message itself among :meth:`layers`."""
        return _ITSELF + _digest(message)

    @staticmethod
    def recalled_layer(message: Message) -> bytes:
        """That it was recalled, among :meth:`layers`."""
        return _RECALL + _digest(message)

    @staticmethod
    def digest_in(layer: bytes) -> bytes:
        """The digest of the message that *layer* is about."""
        return layer[1:]

    @staticmethod
    def uncovered(front: bytes) -> bytes | None:
        """The digest of the message that came to the *front*; None where there is none that can be taken back."""
        return front[1:] if front[:1] == _ITSELF else None

    def shows(self, message: Message, replies: Sequence[Any], *, or_recall: bool = False) -> list[bool]:
        """Of the places asked about with :meth:`shown`, whether each shows the message.

        *or_recall*: or says that it was recalled.
        """
        wanted = {self.layer(message), self.recalled_layer(message)} if or_recall else {self.layer(message)}
        return [bool(wanted.intersection(self.layers(reply)[:1])) for reply in replies]

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


def _digest(message: Message) -> bytes:
    return packed(message_digest(*message[:2]))
