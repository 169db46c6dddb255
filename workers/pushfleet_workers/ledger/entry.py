"""A ledger entry: the header that scripts read, and the parcel that only Python reads."""

from __future__ import annotations

import struct
from hashlib import blake2b

from msgspec import Struct

from pushfleet.message import LANES, Lane
from pushfleet_workers.push import Parcel, Push, decode_parcel, encode_parcel

__all__ = ["Entry", "pack", "parcel_id", "unpack"]

_HEADER = struct.Struct(">HBBdd16s")
_NEVER_MS = 2.0**53
_PARCEL = blake2b(digest_size=16, person=b"pushfleet-parcel")
_LANE_NUMBERS = {lane: number for number, lane in enumerate(LANES, start=1)}


class Entry(Struct):
    """A parcel with its place in the ledger."""

    id: bytes
    """Sixteen bytes, unique in the account's ledger."""

    parcel: Parcel
    lane: Lane
    put_ms: float
    """When it was first put, by Redis' clock."""

    lost: int = 0
    """How often a process died with it in hand."""

    fence: int = 0
    """Of the claim that leased it; only that claim may settle it."""


def pack(entry: Entry) -> bytes:
    """The bytes that lie in the ledger."""
    parcel, push = entry.parcel, entry.parcel.push
    head = _HEADER.pack(
        len(parcel.deliveries),
        _LANE_NUMBERS[entry.lane],
        entry.lost,
        push.expires_at_ms if not (push.later or push.parking) else _free_from_ms(push),
        entry.put_ms,
        entry.id,
    )
    return head + encode_parcel(parcel)


def _free_from_ms(push: Push) -> float:
    """From when on a claim asks no permits for *push*: since it has expired, or cannot leave as it is."""
    if push.parking == "parked":
        return 0
    return _NEVER_MS if push.tells_of_others else push.expires_at_ms


def unpack(data: bytes, fence: int = 0) -> Entry:
    """The entry in *data*; raises :class:`msgspec.DecodeError` or :class:`struct.error` when it is damaged."""
    _, lane, lost, _, put_ms, entry_id = _HEADER.unpack_from(data)
    return Entry(entry_id, decode_parcel(data[_HEADER.size :]), LANES[lane - 1], put_ms, lost, fence)


def head_of(data: bytes) -> tuple[int, Lane, bytes]:
    """How many deliveries a packed entry holds, its lane and its id, without reading the parcel."""
    head = _HEADER.unpack_from(data)
    return head[0], LANES[head[1] - 1], head[5]


def parcel_id(*parts: bytes | int) -> bytes:
    """Sixteen bytes made of *parts*, the same for the same parts."""
    digest = _PARCEL.copy()
    digest.update(b"\0".join([part if isinstance(part, bytes) else b"%d" % part for part in parts]))
    return digest.digest()
