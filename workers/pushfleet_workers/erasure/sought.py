"""What is whose: which parts of parcels and messages belong to users who are being erased. Pure."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping

import msgspec
from msgspec.structs import replace

from pushfleet.errors import InvalidMessage
from pushfleet.message import OfflineMessage, Recall
from pushfleet.wire import encode
from pushfleet_workers.ledger import Entry, pack, unpack
from pushfleet_workers.push import Delivery, Push
from pushfleet_workers.tokens.erasures import Owner

__all__ = ["Sought"]


class Sought:
    """The users that are being erased.

    * **until_ms** - until when messages to them are to go, Unix milliseconds by the clock of the queue.
    """

    def __init__(self, until_ms: Mapping[Owner, int]) -> None:
        self._until_ms = until_ms
        self.apps = frozenset(app for app, _ in until_ms)

    def takes(self, app: str, user: str, came_ms: int) -> bool:
        """Whether what came for *user* at that time is to go."""
        until_ms = self._until_ms.get((app, user))
        return until_ms is not None and came_ms <= until_ms

    # ---- parcels

    def owners_in(self, packed: bytes) -> set[Owner]:
        """Whose deliveries are to leave a packed entry; none where it cannot be read."""
        entry = _readable(packed)
        if entry is None:
            return set()
        push = entry.parcel.push
        return {(push.app, one.user) for one in entry.parcel.deliveries if self._is_meant(push, one)}

    def without(self, packed: bytes) -> bytes | None:
        """A packed entry without their deliveries; empty: nothing is left, None: none of it is theirs."""
        entry = _readable(packed)
        return self._without(entry) if entry is not None else None

    def without_of_letter(self, packed: bytes, died_ms: int) -> bytes | None:
        """The same of a dead letter; one that cannot be read is theirs where it has an id of theirs as a text."""
        entry = _readable(packed)
        if entry is not None:
            return self._without(entry)
        named = (msgspec.msgpack.encode(user) for (_, user), until_ms in self._until_ms.items() if died_ms <= until_ms)
        return b"" if any(one in packed for one in named) else None

    def _without(self, entry: Entry) -> bytes | None:
        push = entry.parcel.push
        left = [one for one in entry.parcel.deliveries if not self._is_meant(push, one)]
        if len(left) == len(entry.parcel.deliveries):
            return None
        return pack(replace(entry, parcel=replace(entry.parcel, deliveries=left))) if left else b""

    def _is_meant(self, push: Push, delivery: Delivery) -> bool:
        return self.takes(push.app, delivery.user, push.enqueued_at_ms)

    # ---- messages

    def without_recipients(self, said: OfflineMessage | Recall, came_ms: int) -> bytes | None:
        """A message or recall that came then as JSON, without them; empty and None as for :meth:`without`."""
        left = [
            one for one in said.recipients if not self.takes(said.app, one if isinstance(one, str) else one.id, came_ms)
        ]
        if len(left) == len(said.recipients):
            return None
        if not left and not (isinstance(said, OfflineMessage) and said.targets):
            return b""
        try:
            return encode(replace(said, recipients=tuple(left)))
        except InvalidMessage:
            return b""

    def named_in_json(self, damaged: bytes, came_ms: int) -> bool:
        """Whether what came then, and is no message, has one of their ids as a text."""
        for (_, user), until_ms in self._until_ms.items():
            spelled = (json.dumps(user, ensure_ascii=ascii_only).encode() for ascii_only in (True, False))
            if came_ms <= until_ms and any(one in damaged for one in spelled):
                return True
        return False


def _readable(packed: bytes) -> Entry | None:
    try:
        return unpack(packed)
    except (msgspec.DecodeError, UnicodeDecodeError, struct.error, IndexError):
        return None
