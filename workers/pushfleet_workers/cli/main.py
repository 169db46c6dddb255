"""The root command, and errors as one sentence with exit code 2."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NoReturn

import click

from pushfleet.errors import PushfleetError
from pushfleet_workers.cli import books, produce, run
from pushfleet_workers.cli.context import Context, errors
from pushfleet_workers.cli.credentials import credentials
from pushfleet_workers.cli.dlq import dlq
from pushfleet_workers.cli.pause import pause, resume
from pushfleet_workers.cli.receipts import receipts
from pushfleet_workers.cli.send import send
from pushfleet_workers.cli.tokens import tokens
from pushfleet_workers.cli.users import users
from pushfleet_workers.cli.vendors import vendors
from pushfleet_workers.errors import FleetError
from pushfleet_workers.redis_link import ReplyError

__all__ = ["cli", "main"]


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--config",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Settings file; default: $PUSHFLEET_CONFIG, else pushfleet.toml here.",
)
@click.version_option(package_name="pushfleet")
@click.pass_context
def cli(context: click.Context, config: Path | None) -> None:
    """Offline pushes for instant messaging: run the fleet, feed it, look into it."""
    context.obj = Context(config)


for command in (run.up, run.api, run.router, run.worker, run.fakecloud):
    cli.add_command(command)
for command in (
    produce.enqueue,
    produce.devices,
    users,
    tokens,
    dlq,
    credentials,
    vendors,
    pause,
    resume,
    receipts,
    send,
    books.audit,
    books.check,
):
    cli.add_command(command)


def main() -> None:
    """Run the command line; a refusal is one sentence on standard error and exit code 2."""
    try:
        cli(prog_name="pushfleet")
    except (FleetError, PushfleetError, OSError) as problem:
        _refuse(str(problem))
    except ReplyError as problem:
        _refuse(f"Redis refuses a command: {problem}")


def _refuse(sentence: str) -> NoReturn:
    errors.print(f"pushfleet: {sentence}", style="red", markup=False, soft_wrap=True, highlight=False)
    sys.exit(2)
