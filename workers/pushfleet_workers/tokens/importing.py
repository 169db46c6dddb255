"""Registering many devices from lines of JSON: pipelined, a bad line reported and left out."""

from __future__ import annotations

from collections.abc import AsyncIterator, Container, Iterable
from dataclasses import dataclass, field

import msgspec

from pushfleet_workers.clock import FleetClock
from pushfleet_workers.redis_link import Link
from pushfleet_workers.tokens.changes import (
    DEVICE_BYTES_MAX,
    ID_BYTES_MAX,
    Accounts,
    Registration,
    check_id,
    explain,
)
from pushfleet_workers.tokens.intake import fault_in
from pushfleet_workers.tokens.store import TokenStore

__all__ = ["DeviceLine", "ImportProgress", "import_lines"]

_AT_ONCE = 500


class DeviceLine(Registration, frozen=True, kw_only=True):
    """A registration with whose it is."""

    app: str
    user: str
    """1 to 256 UTF-8 bytes."""

    device: str
    """1 to 128 UTF-8 bytes."""

    def __post_init__(self) -> None:
        Registration.__post_init__(self)
        check_id("user", self.user, ID_BYTES_MAX)
        check_id("device", self.device, DEVICE_BYTES_MAX)


@dataclass
class ImportProgress:
    """How far an import has come."""

    imported: int = 0
    refused: int = 0
    problems: list[tuple[int, str]] = field(default_factory=list)
    """Line number and sentence of those refused since the last progress."""


_decoder = msgspec.json.Decoder(DeviceLine)


async def import_lines(
    url: str, prefix: str, lines: Iterable[tuple[int, bytes]], *, known_apps: Container[str], accounts: Accounts
) -> AsyncIterator[ImportProgress]:
    """Register the device of each numbered line; gives the progress after every few hundred.

    * **accounts** - those that there are; a channel of another is refused.

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
            problem = _read(line, known_apps, accounts, clock.now_ms(), batch)
            if problem:
                progress.refused += 1
                progress.problems.append((number, problem))
            if max(len(batch), len(progress.problems)) >= _AT_ONCE:
                await _write(store, batch, progress)
                yield progress
                progress.problems = []
        await _write(store, batch, progress)
        yield progress
    finally:
        await link.close()


def _read(line: bytes, known_apps: Container[str], accounts: Accounts, now_ms: int, batch: list[DeviceLine]) -> str:
    """What is wrong with *line*; empty when it is in the batch. Never tells what the line holds, tokens are in it."""
    try:
        device = _decoder.decode(line)
    except msgspec.ValidationError as problem:
        sentence, where = explain(problem)
        return f"not a device: {sentence}" + (f" - at `{where}`" if where else "")
    except (msgspec.DecodeError, RecursionError) as problem:
        return f"not a device: {problem}"
    except UnicodeDecodeError:
        return "not a device: it is not UTF-8"
    if device.app not in known_apps:
        return f"the settings have no app {device.app[:80]!r}"
    fault = fault_in(device, device.app, accounts, now_ms)
    if fault is not None:
        return f"{fault.message} - at `{fault.field}`"
    batch.append(device)
    return ""


async def _write(store: TokenStore, batch: list[DeviceLine], progress: ImportProgress) -> None:
    await store.register_many([(one.app, one.user, one.device, one) for one in batch])
    progress.imported += len(batch)
    batch.clear()
