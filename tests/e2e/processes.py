"""Finding what a test has started, however deep, by a mark in its environment."""

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


def marked(mark: str, *words: str) -> list[int]:
    """The living processes with *mark* and, where given, with *words* in their command line."""
    found = []
    for folder in PROC.iterdir():
        if not folder.name.isdecimal() or int(folder.name) == os.getpid():
            continue
        try:
            environment = (folder / "environ").read_bytes()
            command = (folder / "cmdline").read_bytes().decode(errors="replace").split("\0")
            state = (folder / "stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        if f"{MARK}={mark}".encode() in environment and state != "Z" and all(word in command for word in words):
            found.append(int(folder.name))
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
