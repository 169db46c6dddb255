"""The command line, run in this process as the entry point runs it."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.workers.commands import settings_file

from pushfleet_workers.cli import main
from pushfleet_workers.cli.context import console, errors


@dataclass
class Said:
    """What a command wrote, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def refusal(self) -> str:
        """The one sentence of a command that refused."""
        assert self.code == 2, self
        assert self.out == ""
        (line,) = self.err.splitlines()
        assert line.startswith("pushfleet: ")
        return line.removeprefix("pushfleet: ")


Cli = Callable[..., Said]


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    """`pushfleet` with these words, in an empty folder and without settings in the environment.

    Its lines are as long as *columns* say, whatever terminal the tests run in, if any.
    """
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("PUSHFLEET_")]:
        monkeypatch.delenv(name)

    def run(*words: str | Path, stdin: bytes = b"", columns: int = 200) -> Said:
        for one in (console, errors):
            monkeypatch.setattr(one, "_width", columns)
            monkeypatch.setattr(one, "_height", 50)
        monkeypatch.setattr(sys, "argv", ["pushfleet", *map(str, words)])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        capsys.readouterr()
        with pytest.raises(SystemExit) as left:
            main()
        said = capsys.readouterr()
        return Said(int(left.value.code or 0), said.out, said.err)

    return run


@pytest.fixture
def fleet_file(tmp_path: Path, redis_url: str) -> Path:
    """Settings with an empty Redis and one app."""
    return settings_file(tmp_path, redis_url)
