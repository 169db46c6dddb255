"""The records of stored credentials in Redis: one hash, and a counter of changes that the fleet looks at."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import NamedTuple

import msgspec
from msgspec import Raw, Struct

from pushfleet_workers.redis_link import Link
from pushfleet_workers.scripts import load

__all__ = ["CredentialKeys", "CredentialStore", "Name", "Reading", "Record", "Stored", "Version"]

log = logging.getLogger(__name__)

_SWAP = load("pushfleet_workers.credential_store", "swap")


class Name(NamedTuple):
    """Which credential."""

    vendor: str
    credential: str

    def __str__(self) -> str:
        return f"{self.vendor}:{self.credential}"


class Version(Struct, frozen=True):
    """Settings and secrets of a credential; a rotation makes another one. Times are Unix milliseconds."""

    id: str
    """Another one for other settings or secrets; the same when they are sealed under another key."""

    settings: Raw
    """What is no secret: a JSON object, its exact bytes bound to the seal."""

    secrets: dict[str, str]
    """What is sealed: the setting to ``file`` or ``value``."""

    sealed: bytes
    made_at_ms: int
    key_fingerprint: str
    expires_at_ms: int = 0
    """When its certificate does; 0: it has none."""


class Record(Struct, frozen=True):
    """One stored credential. Times are Unix milliseconds."""

    created_at_ms: int
    current: Version
    previous: Version | None = None
    """What was there before the rotation, until the overlap ends."""

    overlap_until_ms: int = 0
    refused: str = ""
    """What the vendor said to the current version during the overlap: from then on the previous one is in force."""

    def in_force(self, now_ms: float) -> Version:
        """The version that authorizations are made with."""
        return self.previous if self.previous is not None and self.refused and self.overlaps(now_ms) else self.current

    def overlaps(self, now_ms: float) -> bool:
        """Whether the version before is still at hand."""
        return self.previous is not None and now_ms < self.overlap_until_ms


@dataclass(frozen=True, slots=True)
class Stored:
    """A record as it was read."""

    record: Record
    raw: bytes


@dataclass(frozen=True, slots=True)
class Reading:
    """All records at one moment."""

    version: int
    now_ms: float
    records: dict[Name, Stored]


class CredentialKeys:
    """The names of the store's keys; they share a hash tag."""

    __slots__ = ("records", "version")

    def __init__(self, prefix: str) -> None:
        self.records = f"{prefix}:{{credentials}}"
        self.version = f"{self.records}:version"


_encode = msgspec.json.Encoder().encode
_decoder = msgspec.json.Decoder(Record)


class CredentialStore:
    """The stored credentials; every method raises :class:`RedisUnusable`."""

    def __init__(self, link: Link, prefix: str) -> None:
        self._link = link
        self._keys = CredentialKeys(prefix)

    async def version(self) -> tuple[int, float]:
        """How many changes there were, and Redis' time in Unix milliseconds."""
        version = await self._link.call("GET", self._keys.version)
        seconds, micros = await self._link.call("TIME")
        return int(version or 0), int(seconds) * 1000 + int(micros) / 1000

    async def read(self) -> Reading:
        """All records. One that cannot be read (damaged, or of a newer kind) is logged and left out."""
        # The version first: what changes in between is read once more.
        version, now_ms = await self.version()
        flat: list[bytes] = await self._link.call("HGETALL", self._keys.records)
        records = {}
        for at in range(0, len(flat), 2):
            name = Name(*flat[at].decode(errors="replace").split(":", 1))
            stored = _stored(name, flat[at + 1])
            if stored is not None:
                records[name] = stored
        return Reading(version, now_ms, records)

    async def get(self, name: Name) -> Stored | None:
        """The record of one credential."""
        raw = await self._link.call("HGET", self._keys.records, str(name))
        return _stored(name, raw) if raw is not None else None

    async def swap(self, name: Name, old: Stored | None, new: Record | None) -> bool:
        """Put *new* where *old* was read; False, and nothing is changed, where something else is there by now."""
        arguments = (str(name), old.raw if old is not None else b"", _encode(new) if new is not None else b"")
        return bool(await self._link.run(_SWAP, (self._keys.records, self._keys.version), arguments))


def _stored(name: Name, raw: bytes) -> Stored | None:
    try:
        return Stored(_decoder.decode(raw), raw)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        log.error("the record of credential %s cannot be read and is left out", name)
        return None
