"""What waits in an account's ledger for what its vendor asked, and how it comes due before its time."""

from __future__ import annotations

import struct

import msgspec

from pushfleet_workers.ledger.entry import Entry, unpack
from pushfleet_workers.ledger.keys import AccountKeys
from pushfleet_workers.redis_link import Link
from pushfleet_workers.scripts import load

__all__ = ["hasten"]

_HASTEN = load("pushfleet_workers.ledger", "hasten", preamble="common")
_PAGE = 500


async def hasten(link: Link, keys: AccountKeys) -> int:
    """Make due what waits because of what the vendor asked of the account or of a kind; gives how many deliveries.

    What waits for a reason of its own goes on waiting: another try at a device, a storm, a cap, a confirmation.
    """
    (seconds, _), cursor, due = await link.call("TIME"), b"0", 0
    while True:
        cursor, page = await link.call("ZSCAN", keys.delayed, cursor, "COUNT", _PAGE)
        later = [
            name for name, due_ms in zip(page[::2], page[1::2], strict=True) if float(due_ms) > int(seconds) * 1000
        ]
        packed = await link.call("HMGET", keys.delayed_entries, *later) if later else []
        gated = [entry for data in packed if data is not None and (entry := _gated(data)) is not None]
        if gated:
            arguments = [part for entry in gated for part in (entry.put_ms, entry.id)]
            await link.run(_HASTEN, (keys.books, keys.delayed), arguments)
            due += sum(len(entry.parcel.deliveries) for entry in gated)
        if cursor == b"0":
            return due


def _gated(data: bytes) -> Entry | None:
    try:
        entry = unpack(data)
    except (msgspec.DecodeError, UnicodeDecodeError, struct.error):
        # Whoever claims it makes a dead letter of it.
        return None
    return entry if entry.parcel.gated else None
