"""A dead letter as operators see it: where it lies, what it is about, and which ones a filter means. Pure."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import msgspec
from msgspec import Struct

from pushfleet.errors import InvalidMessage
from pushfleet.message import Lane, OfflineMessage, OfflinePush, Recall
from pushfleet.wire import read_entry
from pushfleet_workers.ingress.refused import RefusedEntry
from pushfleet_workers.ledger import DeadLetter, Entry, unpack
from pushfleet_workers.ledger.entry import head_of

__all__ = ["INGRESS", "About", "Letter", "LetterFilter", "LetterName", "letter_of_entry", "letter_of_parcel"]

INGRESS = "ingress"
"""Stands for the vendor in the names of refused entries, with the lane for a credential."""

_NAME = re.compile(r"([^:/]{1,64}):([^:/]{1,64}):(\d{1,15}-\d{1,15})", re.ASCII)
_TEXT_MAX = 256


class LetterName(NamedTuple):
    """Where a letter lies; written as ``vendor:credential:place``."""

    vendor: str
    credential: str
    place: str

    @classmethod
    def read(cls, text: str) -> LetterName | None:
        """The name that *text* is; None where it is none."""
        found = _NAME.fullmatch(text)
        return cls(*found.groups()) if found is not None else None

    def __str__(self) -> str:
        return ":".join(self)

    @property
    def order(self) -> tuple[int, int, str, str]:
        """Sorts letters by when they came, whatever they are of."""
        at_ms, _, number = self.place.partition("-")
        return int(at_ms), int(number), self.vendor, self.credential

    @property
    def at_ms(self) -> int:
        """When it became one, Unix milliseconds by Redis' clock."""
        return self.order[0]


@dataclass(frozen=True, slots=True)
class About:
    """What a letter is about, as far as it can be read."""

    app: str = ""
    message_id: str = ""
    kind: str = ""
    conversation_id: str = ""
    sent_at_ms: int = 0
    expires_at_ms: int = 0
    users: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Letter:
    """What waits for somebody to look: a parcel that is dead, or an entry that no router took."""

    name: LetterName
    reason: str
    code: str
    attempts: int
    lane: str
    deliveries: int
    about: About
    problem: str = ""
    """Of a refused entry: what is wrong with it."""

    parcel: Entry | None = None
    """Of a dead parcel: what was to be sent; None where it cannot be read."""

    refused: RefusedEntry | None = None


class LetterFilter(Struct, frozen=True, kw_only=True):
    """Which letters are meant; what is empty or 0 leaves all in."""

    vendor: str = ""
    credential: str = ""
    app: str = ""
    reason: str = ""
    code: str = ""
    lane: str = ""
    message_id: str = ""
    user: str = ""
    since_ms: int = 0
    until_ms: int = 0

    @property
    def everything(self) -> bool:
        """Whether nothing is left out."""
        return self == LetterFilter()

    def visits(self, vendor: str, credential: str) -> bool:
        """Whether letters of this account may be meant."""
        return self.vendor in ("", vendor) and self.credential in ("", credential)

    def takes(self, letter: Letter) -> bool:
        """Whether *letter* is meant, its account and its time left aside."""
        about = letter.about
        return (
            self.app in ("", about.app)
            and self.reason in ("", letter.reason)
            and self.code in ("", letter.code)
            and self.lane in ("", letter.lane)
            and self.message_id in ("", about.message_id)
            and (not self.user or self.user in about.users)
        )

    @property
    def bounds(self) -> tuple[str, str]:
        """The first and the last place that are meant, as `XRANGE` takes them."""
        return str(self.since_ms or "-"), str(self.until_ms or "+")


def letter_of_parcel(vendor: str, credential: str, app: str, dead: DeadLetter) -> Letter:
    """The letter that *dead* is, in the ledger of an account of *app*."""
    try:
        deliveries, lane, _ = head_of(dead.entry)
    except (struct.error, IndexError):
        deliveries, lane = 0, ""  # type: ignore[assignment]
    entry = _readable(dead.entry)
    return Letter(
        LetterName(vendor, credential, dead.place),
        dead.reason,
        dead.code,
        dead.attempts,
        lane,
        deliveries,
        _about_parcel(entry) if entry is not None else About(app=app),
        parcel=entry,
    )


def letter_of_entry(lane: Lane, refused: RefusedEntry) -> Letter:
    """The letter that a *refused* entry of *lane* is."""
    return Letter(
        LetterName(INGRESS, lane, refused.place),
        refused.reason,
        "",
        0,
        lane,
        0,
        _about_entry(refused),
        problem=refused.problem,
        refused=refused,
    )


def message_of(refused: RefusedEntry) -> OfflineMessage | Recall:
    """What a *refused* entry says; raises :class:`InvalidMessage` where it breaks the contract, still."""
    return read_entry({b"v": refused.version, refused.name.encode(): refused.payload})


def overrides_of(options: OfflinePush | None) -> list[str]:
    """The names of what a message sets for its push, such as ``apns.push_type``; never what it sets them to."""
    return list(_names(msgspec.to_builtins(options), "")) if options is not None else []


def _names(given: dict[str, Any], above: str) -> Iterable[str]:
    for name, value in given.items():
        if isinstance(value, dict) and not above:
            yield from _names(value, f"{name}.")
        else:
            yield f"{above}{name}"


def _readable(data: bytes) -> Entry | None:
    try:
        return unpack(data)
    except (msgspec.DecodeError, UnicodeDecodeError, struct.error, IndexError):
        return None


def _about_parcel(entry: Entry) -> About:
    push = entry.parcel.push
    return About(
        app=push.app,
        message_id=push.message_id,
        kind=push.kind,
        conversation_id=push.conversation_id,
        sent_at_ms=push.sent_at_ms,
        expires_at_ms=push.expires_at_ms,
        users=frozenset(one.user for one in entry.parcel.deliveries if one.user),
    )


def _about_entry(refused: RefusedEntry) -> About:
    try:
        said = message_of(refused)
    except InvalidMessage:
        return _guessed(refused.payload)
    if isinstance(said, Recall):
        return About(
            app=said.app, message_id=said.id, kind="recall", sent_at_ms=refused.written_ms,
            users=frozenset(said.recipients),
        )  # fmt: skip
    sent_at_ms = said.sent_at_ms or refused.written_ms
    return About(
        app=said.app,
        message_id=said.id,
        kind=said.kind,
        conversation_id=said.conversation.id if said.conversation is not None else "",
        sent_at_ms=sent_at_ms,
        expires_at_ms=sent_at_ms + said.effective_ttl_s * 1000,
        users=frozenset(one if isinstance(one, str) else one.id for one in said.recipients),
    )


def _guessed(payload: bytes) -> About:
    """Of what breaks the contract: the ids that it names, where they can be made out."""
    try:
        fields = msgspec.json.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return About()
    if not isinstance(fields, dict):
        return About()
    app, message_id = (
        value if isinstance(value, str) and len(value) <= _TEXT_MAX else ""
        for value in (fields.get("app"), fields.get("id"))
    )
    return About(app=app, message_id=message_id)
