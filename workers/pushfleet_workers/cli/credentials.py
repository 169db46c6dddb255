"""Commands for credentials that are added while the fleet runs."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import click
import msgspec

from pushfleet_workers import registry
from pushfleet_workers.cli.context import Context, console, json_option, pass_context
from pushfleet_workers.cli.times import Duration
from pushfleet_workers.credential_store.contents import file_settings
from pushfleet_workers.credential_store.management import (
    FILE_BYTES_MAX,
    OVERLAP_S,
    OVERLAP_S_MAX,
    CredentialManager,
    CredentialShown,
    Given,
)
from pushfleet_workers.credential_store.secret_files import SecretFile
from pushfleet_workers.credential_store.store import Name
from pushfleet_workers.errors import SettingsError
from pushfleet_workers.redis_link import Link

__all__ = ["credentials"]

T = TypeVar("T")


class _Pair(click.ParamType[tuple[str, str]]):
    name = "pair"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        if isinstance(value, tuple):
            return value
        name, equals, given = str(value).partition("=")
        if not (name and equals):
            self.fail(f"{value.partition('=')[0]!r} is no NAME=VALUE")
        return name, given


_set = click.option(
    "--set", "pairs", type=_Pair(), multiple=True, metavar="NAME=VALUE",
    help="A setting as in pushfleet.toml; dots go one level down: kinds.chat.category=IM. Repeat for more.",
)  # fmt: skip
_file = click.option(
    "--file", "paths", type=_Pair(), multiple=True, metavar="NAME=PATH",
    help="A file, or a secret that is read from a file; - reads standard input. Repeat for more.",
)  # fmt: skip
_unset = click.option(
    "--unset", "dropped", multiple=True, metavar="NAME", help="A setting or file to take away. Repeat for more."
)
_vendor = click.argument("vendor")
_id = click.argument("credential", metavar="ID")


@click.group()
def credentials() -> None:
    """Credentials that are added while the fleet runs: sealed in Redis, taken up without a restart."""


@credentials.command()
@_vendor
@_id
@click.option("--app", required=True, help="The app, as in the messages, that its devices belong to.")
@_set
@_file
@json_option
@pass_context
def add(
    context: Context,
    vendor: str,
    credential: str,
    app: str,
    pairs: Sequence[tuple[str, str]],
    paths: Sequence[tuple[str, str]],
    as_json: bool,
) -> None:
    """Check credential ID of VENDOR and store it sealed; routers and workers take it up within seconds."""
    name, given = Name(vendor, credential), _given(vendor, pairs, paths)
    shown = _managed(context, lambda manager: manager.add(name, app, given))
    _say(shown, as_json, f"{name} is stored, key {shown.key_fingerprint}. Does the vendor take it? "
                         f"pushfleet credentials test {vendor} {credential} --probe")  # fmt: skip


@credentials.command("list")
@json_option
@pass_context
def list_(context: Context, as_json: bool) -> None:
    """List all credentials, those of the settings included; nothing of them is secret."""
    shown = _managed(context, lambda manager: manager.every())
    if as_json:
        click.echo(json.dumps(msgspec.to_builtins(shown)))
        return
    for one in shown:
        console.print(_line(one), markup=False, highlight=False, soft_wrap=True)


@credentials.command()
@_vendor
@_id
@click.option("--probe", is_flag=True, help="Also send one push to a token that cannot exist.")
@json_option
@pass_context
def test(context: Context, vendor: str, credential: str, probe: bool, as_json: bool) -> None:
    """Obtain an authorization for real and say what the vendor answered; exit code 1 when it refuses."""
    trial = _managed(context, lambda manager: manager.test(Name(vendor, credential), probe=probe))
    _say(trial, as_json, f"{vendor}:{credential}: {trial.sentence}")
    if trial.good is False:
        raise SystemExit(1)


@credentials.command()
@_vendor
@_id
@_set
@_file
@_unset
@click.option(
    "--overlap", "overlap_s", type=Duration(OVERLAP_S_MAX), default=f"{OVERLAP_S // 3_600}h", show_default=True,
    help="How long the secret before is kept, should the vendor refuse the new one; 0s: not at all.",
)  # fmt: skip
@json_option
@pass_context
def rotate(
    context: Context,
    vendor: str,
    credential: str,
    pairs: Sequence[tuple[str, str]],
    paths: Sequence[tuple[str, str]],
    dropped: Sequence[str],
    overlap_s: int,
    as_json: bool,
) -> None:
    """Replace settings and secrets of a stored credential; what is not named stays."""
    name, given = Name(vendor, credential), _given(vendor, pairs, paths, dropped)
    shown = _managed(context, lambda manager: manager.rotate(name, given, overlap_s))
    kept = f"; the one before is kept until {_date(shown.overlap_until_ms)}" if shown.overlap_until_ms else ""
    _say(shown, as_json, f"{name} is rotated to key {shown.key_fingerprint}{kept}.")


@credentials.command()
@_vendor
@_id
@click.option("--force", is_flag=True, help="Even if deliveries or devices of it are stranded.")
@json_option
@pass_context
def remove(context: Context, vendor: str, credential: str, force: bool, as_json: bool) -> None:
    """Forget a stored credential; refused while it has deliveries to send or devices."""
    name = Name(vendor, credential)
    _managed(context, lambda manager: manager.remove(name, force=force))
    _say({"removed": str(name)}, as_json, f"{name} is gone.")


@credentials.command()
@json_option
@pass_context
def reseal(context: Context, as_json: bool) -> None:
    """Seal all stored credentials under the first master key, so that the other keys can go."""
    count = _managed(context, lambda manager: manager.reseal())
    _say({"resealed": count}, as_json, f"{count} credentials are sealed under the first master key.")


def _managed(context: Context, work: Callable[[CredentialManager], Awaitable[T]]) -> T:
    """What *work* gives with a manager on the Redis of the settings."""
    settings, queue_url, state_url = context.settings, context.queue_url, context.state_url

    async def run() -> T:
        queue = Link(queue_url, name="pushfleet-cli")
        state = queue if state_url == queue_url else Link(state_url, name="pushfleet-cli")
        try:
            return await work(CredentialManager(settings, queue, state))
        finally:
            for link in {queue, state}:
                await link.close()

    return asyncio.run(run())


def _given(
    vendor: str, pairs: Sequence[tuple[str, str]], paths: Sequence[tuple[str, str]], dropped: Sequence[str] = ()
) -> Given:
    settings: dict[str, Any] = dict.fromkeys(dropped)
    files = file_settings(registry.load(vendor).account_type)
    for name, value in pairs:
        if name in files:
            # What was given is not repeated: it may be the content.
            raise SettingsError(f"--set {name}: {name} is a file, so write --file {name}=PATH")
        *tables, last = name.split(".")
        table = settings
        for part in tables:
            table = table.setdefault(part, {})
            if not isinstance(table, dict):
                raise SettingsError(f"--set {name}: {part} is set to a value already")
        table[last] = value
    return Given(settings, {name: _read(name, path) for name, path in paths})


def _read(name: str, path: str) -> SecretFile:
    if path == "-":
        return SecretFile(name, sys.stdin.buffer.read(FILE_BYTES_MAX + 1))
    with Path(path).open("rb") as file:
        return SecretFile(Path(path).name, file.read(FILE_BYTES_MAX + 1))


def _say(shown: object, as_json: bool, sentence: str) -> None:
    if as_json:
        click.echo(json.dumps(msgspec.to_builtins(shown)))
    else:
        console.print(sentence, markup=False, highlight=False, soft_wrap=True)


def _line(one: CredentialShown) -> str:
    facts = [
        f"app {one.app}",
        one.environment,
        one.source,
        f"key {one.key_fingerprint}" if one.key_fingerprint else "no key",
        f"created {_date(one.created_at_ms)}" if one.created_at_ms else "",
        f"expires {_date(one.expires_at_ms)}" if one.expires_at_ms else "",
        _rotation(one),
    ]
    return f"{one.vendor}:{one.id}: {', '.join([fact for fact in facts if fact])}"


def _date(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M UTC") if at_ms else ""


def _rotation(shown: CredentialShown) -> str:
    if shown.refused:
        return f"new key refused ({shown.refused}): old one in use until {_date(shown.overlap_until_ms)}"
    return f"old key kept until {_date(shown.overlap_until_ms)}" if shown.overlap_until_ms else ""
