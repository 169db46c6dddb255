"""A fake cloud, a settings file that points at it, and commands whose processes can be found again."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import ProxyHandler, Request, build_opener

import pytest
from tests.e2e.processes import MARK, PROC, listens, marked, new_mark, until
from tests.workers.commands import environment

from pushfleet_workers.fakecloud import FakeCloudThread

TOKEN = "0a1b2c3d" * 8
direct = build_opener(ProxyHandler({}))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if item.path.is_relative_to(here):
            item.add_marker(pytest.mark.e2e)
            item.add_marker(pytest.mark.skipif(not PROC.exists(), reason="needs /proc to find processes"))


@pytest.fixture(scope="package")
def running_cloud() -> Iterator[FakeCloudThread]:
    with FakeCloudThread(vendors=["apns"]) as cloud:
        yield cloud


@pytest.fixture
def cloud(running_cloud: FakeCloudThread) -> FakeCloudThread:
    running_cloud.reset()
    return running_cloud


def fleet_lines(cloud: FakeCloudThread) -> list[str]:
    """Settings of a fleet with one APNs account at *cloud*, without its Redis."""
    issued = cloud.credential("apns")
    fields = {
        **{name: issued.settings[name] for name in ("team_id", "key_id", "topic")},
        "key_file": str(issued.file),
        "app": "demo",
        "base_url": cloud.url("apns"),
        "ca_bundle": str(cloud.ca_file),
    }
    account = [f"{name} = {json.dumps(value)}" for name, value in fields.items()]
    return ["[api]", "port = 0", "[apps.demo]", "[accounts.apns.main]", *account]


@dataclass
class Command:
    """A command that runs."""

    process: subprocess.Popen[bytes]
    output: Path
    mark: str

    def said(self) -> str:
        return self.output.read_text(errors="replace")

    def told(self, what: str) -> str:
        """What stands behind *what* at the beginning of a line, once it is there."""

        def find() -> re.Match[str] | None:
            assert self.process.poll() is None, self.said()
            return re.search(rf"^{what} +(\S+)$", self.said(), re.MULTILINE)

        until(find, 60, what=what)
        found = find()
        assert found is not None
        return found[1]

    def ends(self, number: signal.Signals, timeout_s: float = 30) -> int:
        """The exit code after that signal."""
        self.process.send_signal(number)
        return self.process.wait(timeout_s)

    def left(self) -> list[int]:
        """Its processes that still live, after a moment for those that are on their way out."""
        folder = self.output.parent
        try:
            until(lambda: not marked(self.mark, folder=folder), 2)
        except AssertionError:
            return marked(self.mark, folder=folder)
        return []


Run = Callable[..., Command]


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    """Starts a command in *tmp_path*; whatever it leaves behind is killed at the end."""
    commands: list[Command] = []

    def start(*words: str, **variables: str) -> Command:
        mark = new_mark()
        output = tmp_path / f"output-{len(commands)}.log"
        with output.open("wb") as file:
            process = subprocess.Popen(
                [sys.executable, *words],
                cwd=tmp_path, env=environment(**{MARK: mark, **variables}), stdin=subprocess.DEVNULL,
                stdout=file, stderr=file, start_new_session=True,
            )  # fmt: skip
        commands.append(Command(process, output, mark))
        return commands[-1]

    yield start
    for command in commands:
        for pid in marked(command.mark, folder=tmp_path):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        command.process.wait()


def put(url: str, body: Any) -> Any:
    """What an HTTP API answers."""
    request = Request(url, json.dumps(body).encode(), {"content-type": "application/json"}, method="PUT")
    with direct.open(request, timeout=10) as answer:
        return json.loads(answer.read() or b"null")


__all__ = ["TOKEN", "Command", "Run", "fleet_lines", "listens", "put"]
