"""Registering many devices from lines of JSON: pipelined, a bad line reported and left out."""

from __future__ import annotations

from collections.abc import AsyncIterator, Container, Iterable
from dataclasses import dataclass, field
from typing import Annotated

import msgspec
from msgspec import Meta

from pushfleet_workers.clock import FleetClock
from pushfleet_workers.redis_link import Link
from pushfleet_workers.tokens.changes import Registration
from pushfleet_workers.tokens.store import TokenStore

__all__ = ["DeviceLine", "ImportProgress", "import_lines"]

_AT_ONCE = 500


class DeviceLine(Registration, frozen=True, kw_only=True):
    """A registration with whose it is."""

    app: str
    user: Annotated[str, Meta(min_length=1, max_length=256)]
    device: Annotated[str, Meta(min_length=1, max_length=128)]


@dataclass
class ImportProgress:
    """How far an import has come."""

    imported: int = 0
    refused: int = 0
    problems: list[tuple[int, str]] = field(default_factory=list)
    """Line number and sentence of those refused since the last progress."""


_decoder = msgspec.json.Decoder(DeviceLine)


async def import_lines(
    url: str, prefix: str, lines: Iterable[tuple[int, bytes]], *, known_apps: Container[str]
) -> AsyncIterator[ImportProgress]:
    """Register the device of each numbered line; gives the progress after every few hundred.

    Raises :class:`RedisUnusable`; importing the same lines again is safe.
    """
    link = Link(url, name="pushfleet-import")
    clock = FleetClock()
    store = TokenStore(link, prefix, clock.now_ms)
    progress = ImportProgress()
    try:
        seconds, micros = await link.call("TIME")
        clock.heard(int(seconds) * 1000 + int(micros) / 1000)
        batch: list[DeviceLine] = []
        for number, line in lines:
            problem = _read(line, known_apps, batch)
            if problem:
                progress.refused += 1
                progress.problems.append((number, problem))
            if len(batch) >= _AT_ONCE:
                await _write(store, batch, progress)
                yield progress
                progress.problems = []
        await _write(store, batch, progress)
        yield progress
    finally:
        await link.close()


def _read(line: bytes, known_apps: Container[str], batch: list[DeviceLine]) -> str:
    try:
        device = _decoder.decode(line)
    except msgspec.DecodeError as problem:
        return f"not a device: {problem}"
    if device.app not in known_apps:
        return f"the settings have no app {device.app[:80]!r}"
    batch.append(device)
    return ""


async def _write(store: TokenStore, batch: list[DeviceLine], progress: ImportProgress) -> None:
    await store.register_many([(one.app, one.user, one.device, one) for one in batch])
    progress.imported += len(batch)
    batch.clear()
