"""What the fake cloud met, written to a file as it happens: a book that can be read while it grows, and afterwards."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

import msgspec
from msgspec import Struct

from pushfleet_workers.fakecloud.book import message_id_of
from pushfleet_workers.fakecloud.wire import Call

__all__ = ["Glance", "Journal", "Met", "read_journal"]

_GLANCE_S = 0.005


class Met(Struct, frozen=True, omit_defaults=True):
    """One token in one request that was in order, of what was not refused by itself."""

    at_s: float
    """When the request was read, Unix seconds."""

    since_s: float
    """It may have lain unread since then, and no longer: where the fake itself was held up, that is a while."""

    vendor: str
    account: str
    token: str
    message_id: str = ""
    """``mid`` or ``message_id`` of the custom payload, where it is text."""

    sent_id: str = ""
    """The vendor's own place for an id of the sender."""

    taken: bool = False
    """The vendor took the push for this token."""

    dead: bool = False
    """The answer says that the token is dead."""

    def __repr__(self) -> str:
        return f"Met({self.vendor!r}, account={self.account!r}, message_id={self.message_id!r}, taken={self.taken})"


class Glance:
    """Knows when the event loop looked at its sockets last: whatever it reads now came after that."""

    def __init__(self, wall: Callable[[], float]) -> None:
        self._wall = wall
        self._latest_s = self.since_s = wall()

    async def keep_looking(self) -> None:
        """Run beside everything else in the loop, until cancelled."""
        while True:
            await asyncio.sleep(_GLANCE_S)
            # A loop reads its sockets after its timers: what is read in this turn was not there in the one before.
            self.since_s, self._latest_s = self._latest_s, self._wall()


class Journal:
    """Appends a line of JSON for every token of every request; one write a request, so a reader misses nothing."""

    def __init__(self, path: Path, since_s: Callable[[], float]) -> None:
        self._since_s = since_s
        self._file = path.open("ab", buffering=0)
        self._encoder = msgspec.json.Encoder()

    def enter(
        self, vendor: str, call: Call, at_s: float, taken: Collection[str] = (), dead: Collection[str] = ()
    ) -> None:
        """Write down the tokens of *call*; *taken* and *dead* are those of which that is true."""
        since_s = self._since_s()
        lines = [
            Met(
                at_s=at_s,
                since_s=min(at_s, since_s),
                vendor=vendor,
                account=part.account,
                token=token,
                message_id=message_id_of(part.data),
                sent_id=part.sent_id,
                taken=token in taken,
                dead=token in dead,
            )
            for part in call.parts or (call,)
            if not part.dry_run
            for token in part.tokens
        ]
        self._file.write(self._encoder.encode_lines(lines))

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def read_journal(path: Path) -> Iterator[Met]:
    """What stands in the journal at *path* so far; nothing where there is none yet."""
    if not path.exists():
        return
    decoder = msgspec.json.Decoder(Met)
    with path.open("rb") as file:
        for line in file:
            if line.endswith(b"\n"):
                yield decoder.decode(line)
