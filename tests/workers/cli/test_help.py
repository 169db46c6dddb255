from __future__ import annotations

from collections.abc import Iterator

import click
import pytest
from tests.workers.cli.conftest import Cli

from pushfleet_workers.cli.main import cli as root


def commands(group: click.Group, *before: str) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    yield before, group
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, *before, name)
        else:
            yield (*before, name), command


COMMANDS = list(commands(root))


def test_these_are_the_commands() -> None:
    assert {" ".join(words) for words, _ in COMMANDS} == {
        "", "up", "api", "router", "worker", "fakecloud", "enqueue", "devices", "devices import", "devices export",
        "audit", "check", "users", "users show", "users erase",
        "credentials", "credentials add", "credentials list", "credentials test", "credentials rotate",
        "credentials remove", "credentials reseal", "vendors", "pause", "resume", "receipts", "send",
        "dlq", "dlq list", "dlq show", "dlq replay", "dlq drop",
        "tokens", "tokens dead", "tokens restore", "tokens guards", "tokens confirm", "tokens lift",
    }  # fmt: skip


@pytest.mark.parametrize("option", ["--help", "-h"])
@pytest.mark.parametrize(("words", "command"), COMMANDS, ids=[" ".join(words) or "pushfleet" for words, _ in COMMANDS])
def test_every_command_explains_itself(cli: Cli, words: tuple[str, ...], command: click.Command, option: str) -> None:
    said = cli(*words, option)
    assert said.code == 0
    assert said.out.startswith(f"Usage: {' '.join(('pushfleet', *words))} ")
    assert said.err == ""
    assert command.help
    assert command.get_short_help_str(200).strip()
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, f"{parameter.name} says nothing"


def test_the_version_is_told(cli: Cli) -> None:
    said = cli("--version")
    assert (said.code, said.err) == (0, "")
    assert said.out.startswith("pushfleet, version ")


def test_an_unknown_command_is_refused(cli: Cli) -> None:
    said = cli("fly")
    assert said.code == 2
    assert "No such command 'fly'" in said.err
