"""Commands that feed the fleet from files, and write devices to one."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import click
from rich.progress import BarColumn, DownloadColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from pushfleet import OfflineMessage, Producer
from pushfleet.errors import EnqueueError, InvalidMessage
from pushfleet.wire import decode_message
from pushfleet_workers.cli.context import Context, console, errors, json_option, pass_context, with_link
from pushfleet_workers.credential_store import Accounts
from pushfleet_workers.errors import FleetError
from pushfleet_workers.redis_link import Link
from pushfleet_workers.settings import Settings

__all__ = ["devices", "enqueue"]

_CHUNK = 500
_CHUNK_BYTES = 8 * 1024 * 1024
"""Below what the producer sends in one go, so that a call is accepted as a whole or not at all."""


@click.command()
@click.argument("file", type=click.Path(path_type=Path, allow_dash=True, exists=True, dir_okay=False))
@json_option
@pass_context
def enqueue(context: Context, file: Path, as_json: bool) -> None:
    """Enqueue the messages of FILE, one JSON object a line; `-` reads standard input.

    A line that breaks the contract is reported with its number and left out; the exit code is then 1.
    """
    settings = context.settings
    url = context.queue_url
    accepted = refused = 0

    def refuse(number: int, problem: InvalidMessage) -> None:
        nonlocal refused
        refused += 1
        errors.print(f"line {number}: {problem.problem}", markup=False, highlight=False, soft_wrap=True)

    with (
        Producer(
            url,
            prefix=settings.redis.prefix,
            ingress_max=settings.ingress.length_max,
            memory_mark=settings.ingress.memory_mark,
            wait_replicas=settings.ingress.wait_replicas,
            wait_timeout_ms=settings.ingress.wait_timeout_ms,
        ) as producer,
        _lines(file, "enqueue") as lines,
    ):
        chunk: dict[int, OfflineMessage] = {}
        size = 0
        try:
            for number, line in lines:
                try:
                    chunk[number] = decode_message(line)
                except InvalidMessage as problem:
                    refuse(number, problem)
                size += len(line)
                if len(chunk) >= _CHUNK or size >= _CHUNK_BYTES:
                    accepted += _enqueue(producer, chunk, refuse)
                    chunk, size = {}, 0
            accepted += _enqueue(producer, chunk, refuse)
        except EnqueueError as problem:
            accepted += len(problem.accepted)
            errors.print(
                f"{accepted} accepted so far; enqueueing all of them again is safe for ten minutes",
                highlight=False, soft_wrap=True,
            )  # fmt: skip
            raise
    _report({"accepted": accepted, "refused": refused}, as_json)


def _enqueue(
    producer: Producer, chunk: dict[int, OfflineMessage], refuse: Callable[[int, InvalidMessage], None]
) -> int:
    """How many of *chunk* were accepted; what only the producer finds wrong (too long, too many parts) is left out."""
    while chunk:
        try:
            return producer.enqueue_many(chunk.values()).messages
        except InvalidMessage as problem:
            number = list(chunk)[problem.index or 0]
            refuse(number, problem)
            del chunk[number]
    return 0


@click.group()
def devices() -> None:
    """Devices of users."""


@devices.command("import")
@click.argument("file", type=click.Path(path_type=Path, allow_dash=True, exists=True, dir_okay=False))
@json_option
@pass_context
def import_devices(context: Context, file: Path, as_json: bool) -> None:
    """Register the devices of FILE, one JSON object a line: a registration with `app`, `user` and `device`.

    A line that is wrong is reported with its number and left out; the exit code is then 1.
    """
    from pushfleet_workers.tokens.importing import import_lines

    settings = context.settings
    url = context.state_url
    accounts = with_link(context.queue_url, lambda link: _apps(settings, link))
    imported = refused = 0
    with _lines(file, "import") as lines:

        async def run() -> None:
            nonlocal imported, refused
            reading = import_lines(url, settings.redis.prefix, lines, known_apps=settings.apps, accounts=accounts)
            async for progress in reading:
                imported, refused = progress.imported, progress.refused
                for number, problem in progress.problems:
                    errors.print(f"line {number}: {problem}", markup=False, highlight=False, soft_wrap=True)

        asyncio.run(run())
    _report({"imported": imported, "refused": refused}, as_json)


@devices.command("export")
@click.argument("file", type=click.Path(path_type=Path, allow_dash=True, dir_okay=False))
@click.option("--app", help="Only the devices of this app.")
@pass_context
def export_devices(context: Context, file: Path, app: str | None) -> None:
    """Write all devices to FILE, one JSON object a line, as the import takes them; `-` writes to standard output.

    Their push tokens are in it: FILE is made readable for its owner alone.
    """
    from pushfleet_workers.tokens.exporting import export_lines

    settings, url = context.settings, context.state_url
    if app is not None and app not in settings.apps:
        raise FleetError(f"there is no app {app}; there are: {', '.join(sorted(settings.apps)) or 'none'}")
    exported = 0
    bar = Progress(
        TextColumn("export"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn(), console=errors,
        disable=not errors.is_terminal, transient=True,
    )  # fmt: skip

    async def run(target: IO[bytes]) -> None:
        nonlocal exported
        task = bar.add_task("export", total=None)
        async for page in export_lines(url, settings.redis.prefix, app):
            target.writelines(line + b"\n" for line in page.lines)
            exported += len(page.lines)
            bar.update(task, advance=page.keys, total=page.keys_max)

    with _target(file) as target, bar:
        asyncio.run(run(target))
    errors.print(f"{exported} exported", highlight=False)


@contextmanager
def _target(file: Path) -> Iterator[IO[bytes]]:
    if str(file) == "-":
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    with open(file, "wb", opener=lambda path, flags: os.open(path, flags, 0o600)) as target:
        yield target


async def _apps(settings: Settings, link: Link) -> Mapping[tuple[str, str], str]:
    """Vendor and credential to their app, those of the store included."""
    accounts = Accounts(settings, link, secrets=False)
    await accounts.refresh()
    return accounts.apps


def _report(counts: dict[str, int], as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(counts))
    else:
        console.print(", ".join(f"{count} {name}" for name, count in counts.items()))
    if counts["refused"]:
        raise SystemExit(1)


@contextmanager
def _lines(file: Path, what: str) -> Iterator[Iterator[tuple[int, bytes]]]:
    """Numbered non-empty lines, with a progress bar by bytes where the size is known and somebody looks."""
    source: IO[bytes] = sys.stdin.buffer if str(file) == "-" else file.open("rb")
    total = file.stat().st_size if str(file) != "-" else None
    bar = Progress(
        TextColumn(what), BarColumn(), DownloadColumn(), TimeRemainingColumn(), console=errors,
        disable=not errors.is_terminal, transient=True,
    )  # fmt: skip

    def numbered() -> Iterator[tuple[int, bytes]]:
        task = bar.add_task(what, total=total)
        for number, line in enumerate(source, start=1):
            bar.advance(task, len(line))
            if line.strip():
                yield number, line

    try:
        with bar:
            yield numbered()
    finally:
        if source is not sys.stdin.buffer:
            source.close()
