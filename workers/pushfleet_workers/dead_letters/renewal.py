"""What a dead letter becomes when it is replayed, or why it stays where it is. Pure."""

from __future__ import annotations

import enum
from collections.abc import Container
from dataclasses import dataclass, field

from msgspec.structs import replace

from pushfleet.errors import InvalidMessage
from pushfleet.message import OfflineMessage
from pushfleet.wire import encode
from pushfleet_workers.dead_letters.letter import Letter, message_of
from pushfleet_workers.ingress.refused import Readmission
from pushfleet_workers.ledger import Entry, pack
from pushfleet_workers.ledger.entry import parcel_id
from pushfleet_workers.push import Delivery, Parcel

__all__ = ["LEFT", "TTL_S_MAX", "Left", "Renewed", "Terms", "readmitted", "renewed"]

TTL_S_MAX = 2_419_200
_CALLS = frozenset({"call", "call_cancel"})
_SUSPECT = 2
_SURVIVED = 1


class Left(enum.StrEnum):
    """Why a replay leaves a letter where it is."""

    EXPIRED = "expired"
    CALL = "call"
    MAYBE_RECALLED = "maybe_recalled"
    UNREADABLE = "unreadable"
    CUT = "cut"
    STILL_REFUSED = "still_refused"
    NO_ACCOUNT = "no_account"
    GONE = "gone"


LEFT = {
    Left.EXPIRED: "its time to live has run out; a new one can be given to it",
    Left.CALL: "it is of a call whose time to live has run out, and nothing is to ring for it any more",
    Left.MAYBE_RECALLED: "its time to live has run out, and with it what the fleet knew of recalls: its message may "
    "have been taken back",
    Left.UNREADABLE: "it cannot be read",
    Left.CUT: "only the beginning of it was kept: let its producer send it again",
    Left.STILL_REFUSED: "routers would refuse it again",
    Left.NO_ACCOUNT: "its account is gone: nobody would send it",
    Left.GONE: "it is not there any more: somebody was faster, or it was dropped",
}
"""Each as a sentence without a full stop."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What holds for a replay."""

    now_ms: int
    ttl_s: int = 0
    """A new time to live from now on; 0: the letters keep what they have left."""


@dataclass(frozen=True, slots=True)
class Renewed:
    """A letter as it goes back into the ledger."""

    entry: bytes = field(repr=False)
    left_ms: int
    """How long it makes sense from now on."""


def renewed(letter: Letter, terms: Terms, *, recalls: bool) -> Renewed | Left:
    """The parcel of *letter* with its attempts forgotten, or why it stays.

    * **recalls** - whether messages of its app can be taken back. That is remembered until they expire, so nothing of
      them gets a longer life.

    It counts as tried once, and as put for later: whoever claims it decides again before it is sent, and then says that
    devices show it, which was forgotten when it died.
    """
    old = letter.parcel
    if old is None:
        return Left.UNREADABLE
    expires_at_ms = _new_end(letter, terms, recalls=recalls)
    if isinstance(expires_at_ms, Left):
        return expires_at_ms
    push = replace(old.parcel.push, expires_at_ms=expires_at_ms)
    if not (push.later or push.recall):
        push = replace(push, later="held")
    entry = Entry(
        # The letter's own id may be in the ledger: its message may have been enqueued once more.
        parcel_id(old.id, letter.name.place.encode(), b"replay"),
        Parcel(push, [_fresh(one) for one in old.parcel.deliveries]),
        old.lane,
        # Waiting counts from now on.
        terms.now_ms,
        _SUSPECT if letter.reason == "poison" else min(old.lost, _SURVIVED),
    )
    return Renewed(pack(entry), expires_at_ms - terms.now_ms)


def readmitted(letter: Letter, terms: Terms, apps: Container[str], *, recalls: bool) -> Readmission | Left:
    """The refused entry of *letter* for the routers once more, or why it stays; *apps* are those that there are."""
    refused = letter.refused
    if refused is None:
        return Left.UNREADABLE
    if refused.cut:
        return Left.CUT
    try:
        said = message_of(refused)
    except InvalidMessage:
        return Left.STILL_REFUSED
    if said.app not in apps:
        return Left.STILL_REFUSED
    payload = refused.payload
    if isinstance(said, OfflineMessage):
        expires_at_ms = _new_end(letter, terms, recalls=recalls)
        if isinstance(expires_at_ms, Left):
            return expires_at_ms
        # Its time counts from when it was written, not from the new entry.
        sent_at_ms = letter.about.sent_at_ms
        ttl_s = min(TTL_S_MAX, (expires_at_ms - sent_at_ms) // 1000)
        payload = encode(replace(said, sent_at_ms=sent_at_ms, ttl_s=ttl_s))
    return Readmission(refused.place, refused.came_ms, refused.version, refused.name, payload)


def _new_end(letter: Letter, terms: Terms, *, recalls: bool) -> int | Left:
    """Until when what *letter* is about makes sense from now on, or why it does not."""
    about = letter.about
    renewed_ms = terms.now_ms + terms.ttl_s * 1000
    if about.expires_at_ms > terms.now_ms:
        if not terms.ttl_s or about.kind in _CALLS:
            return about.expires_at_ms
        return min(renewed_ms, about.expires_at_ms) if recalls else renewed_ms
    if not terms.ttl_s:
        return Left.EXPIRED
    if about.kind in _CALLS:
        return Left.CALL
    return Left.MAYBE_RECALLED if recalls else renewed_ms


def _fresh(delivery: Delivery) -> Delivery:
    return replace(delivery, attempt=0, remedy="", tries=max(1, delivery.tries))
