"""A folder of throw-away credentials, with a ``registry.json`` of what the fake must know of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from pushfleet_workers.fakecloud.files import write_private
from pushfleet_workers.fakecloud.vendor import FakeVendor

__all__ = ["Credential", "CredentialFolder", "Entry"]

REGISTRY = "registry.json"


class Credential(Struct, frozen=True):
    """What the holder of a credential is given."""

    vendor: str
    id: str
    settings: dict[str, str]
    """Plain values, e.g. ``team_id``, ``key_id``, ``topic``; ``project_id``; ``client_id``."""

    file: Path
    """The secret: APNs ``.p8`` or ``.p12``, FCM and HarmonyOS service-account JSON, of all others plain text."""


class Entry(Struct, frozen=True):
    """A row of the registry. No secret."""

    vendor: str
    id: str
    base_url: str
    """The fake's address when it was issued."""

    options: dict[str, Any]
    public: dict[str, Any]
    settings: dict[str, str]
    file: str
    """Relative to the folder."""


class _Registry(Struct):
    credentials: list[Entry] = []


class CredentialFolder:
    """The credentials in *folder*, which is made when needed.

    Layout: ``registry.json`` and one folder per vendor. Not for two fakes that issue at the same time.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def issue(self, vendor: type[FakeVendor], base_url: str, options: Mapping[str, Any]) -> Entry:
        """A new credential of *vendor*, on disk and in the registry; replaces one of the same id.

        Raises :class:`TypeError` for an option that the vendor does not know.
        """
        issued = vendor.issue(base_url, options)
        ((name, content),) = issued.files.items()
        file = f"{vendor.name}/{name}"
        write_private(self.folder / file, content)
        entry = Entry(vendor.name, issued.id, base_url, dict(options), issued.public, issued.settings, file)
        others = [old for old in self.entries() if (old.vendor, old.id) != (entry.vendor, entry.id)]
        self._write([*others, entry])
        return entry

    def entries(self) -> list[Entry]:
        """The registry, in order of issue; empty where there is none."""
        try:
            raw = (self.folder / REGISTRY).read_bytes()
        except FileNotFoundError:
            return []
        return msgspec.json.decode(raw, type=_Registry).credentials

    def credential(self, entry: Entry) -> Credential:
        """What the holder of *entry* is given."""
        return Credential(entry.vendor, entry.id, entry.settings, self.folder / entry.file)

    def known(self, entry: Entry) -> dict[str, Any]:
        """What the vendor is told of *entry*: its public half, and its file as ``secret``."""
        return {**entry.public, "secret": (self.folder / entry.file).read_bytes()}

    def _write(self, entries: list[Entry]) -> None:
        content = msgspec.json.format(msgspec.json.encode(_Registry(entries)))
        write_private(self.folder / REGISTRY, content)
