"""Finding what a test has started, however deep: by a mark in its environment, or by where it works."""

from __future__ import annotations

import os
import socket
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

PROC = Path("/proc")
MARK = "E2E_MARK"


def new_mark() -> str:
    """A mark of its own for each test."""
    return uuid.uuid4().hex


def marked(mark: str, *words: str, folder: Path | None = None) -> list[int]:
    """The living processes with *mark*, or at work in *folder*; where given, with *words* in their command line."""
    # A Redis writes its title over its environment.
    found = []
    for process in PROC.iterdir():
        if not process.name.isdecimal() or int(process.name) == os.getpid():
            continue
        try:
            environment = (process / "environ").read_bytes()
            command = (process / "cmdline").read_bytes().decode(errors="replace").split("\0")
            state = (process / "stat").read_text().rpartition(")")[2].split()[0]
            at_work = folder is not None and (process / "cwd").readlink().is_relative_to(folder)
        except OSError:
            continue
        ours = at_work or f"{MARK}={mark}".encode() in environment
        if ours and state != "Z" and all(word in command for word in words):
            found.append(int(process.name))
    return found


def listens(url: str) -> bool:
    """Whether something takes connections at *url*."""
    parts = urlsplit(url)
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((parts.hostname, parts.port)) == 0


def until(condition: Callable[[], object], timeout_s: float = 30, *, what: str = "it") -> None:
    """Wait until *condition* holds."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not come in {timeout_s} s"
        time.sleep(0.02)
