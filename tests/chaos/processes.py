"""The processes of a scenario: started, killed, paused, ended; whoever ends by itself is noticed."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from tests.chaos.nursery import Born, spawn

from pushfleet_workers.redis_server import free_port

__all__ = ["Fleet", "Process", "until"]

READY_S = 90.0
_direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def until(condition: Callable[[], object], timeout_s: float = 60.0, *, what: str, every_s: float = 0.02) -> None:
    """Wait until *condition* holds; raises :class:`TimeoutError` that says *what* did not come."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {timeout_s:.0f} s: {what}")
        time.sleep(every_s)


@dataclass(eq=False)
class Process:
    """One process of the fleet."""

    role: str
    running: Born | subprocess.Popen[bytes]
    ready_url: str
    log: Path
    env: Mapping[str, str] = field(default_factory=dict)
    """What was given to it beyond the fleet's settings."""

    expected_to_end: bool = False

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        return self.running.poll() is None

    @property
    def ready(self) -> bool:
        """Whether it says that it can work."""
        with contextlib.suppress(OSError), _direct.open(self.ready_url, timeout=1) as answer:
            return bool(answer.status == 200)
        return False

    def kill(self) -> None:
        """End it as a crash would."""
        self.expected_to_end = True
        self.running.kill()
        self.running.wait()

    def ask_to_end(self) -> None:
        """Send SIGTERM."""
        self.expected_to_end = True
        self.running.terminate()

    def ends(self, within_s: float) -> int:
        """Its exit code, once it has ended; raises :class:`TimeoutError`."""
        self.expected_to_end = True
        try:
            return self.running.wait(within_s)
        except subprocess.TimeoutExpired:
            raise TimeoutError(f"the {self.role} did not end within {within_s:.0f} s: {self.said()[-500:]}") from None

    def pause(self) -> None:
        """Let it hang (SIGSTOP)."""
        os.kill(self.running.pid, signal.SIGSTOP)

    def go_on(self) -> None:
        """End a pause (SIGCONT)."""
        os.kill(self.running.pid, signal.SIGCONT)

    def metrics(self) -> str:
        """What it tells Prometheus."""
        with _direct.open(self.ready_url.replace("readyz", "metrics"), timeout=10) as answer:
            return str(answer.read().decode())

    def said(self) -> str:
        """Its log."""
        return self.log.read_text(errors="replace")


@dataclass
class Fleet:
    """The processes of a fleet with these settings.

    * **config** - the settings file.
    * **env** - further settings.
    * **seams** - by role, seams that each of its processes has.
    """

    folder: Path
    config: Path
    env: Mapping[str, str] = field(default_factory=dict)
    seams: Mapping[str, Sequence[str]] = field(default_factory=dict)
    processes: list[Process] = field(default_factory=list)

    def start(
        self,
        role: str,
        *words: str,
        seams: Sequence[str] = (),
        env: Mapping[str, str] = MappingProxyType({}),
        ready: bool = True,
    ) -> Process:
        """`pushfleet ROLE WORDS`, changed by *seams* (see :mod:`tests.chaos.seams`); waits until it is ready.

        With a ``PYTHONPATH`` in *env* it is a process of another version, and none of its role's usual seams is open.
        """
        port = free_port()
        log = self.folder / f"{role}-{len(self.processes)}.log"
        foreign = "PYTHONPATH" in env
        opened = [*(() if foreign else self.seams.get(role, ())), *seams]
        through = ["tests.chaos.seams", *opened, "--"] if opened else ["pushfleet"]
        own = {"PUSHFLEET_CONFIG": str(self.config), **self.env, **env}
        own |= {"PUSHFLEET_API__PORT" if role == "api" else "PUSHFLEET_METRICS__PORT": str(port)}
        running = spawn([*through, role, *words], log, fresh=foreign, **own)
        process = Process(role, running, f"http://127.0.0.1:{port}/readyz", log, env)
        self.processes.append(process)
        if ready:
            self.wait_ready(process)
        return process

    def start_all(self, *roles: str) -> list[Process]:
        """A process for each of *roles*, side by side; waits until all are ready."""
        started = [self.start(role, ready=False) for role in roles]
        self.wait_ready(*started)
        return started

    def wait_ready(self, *processes: Process) -> None:
        """Wait until those, or all that live, are ready."""
        for process in processes or self.living():
            until(
                lambda process=process: process.ready or not process.alive,  # type: ignore[misc]
                READY_S, what=f"the {process.role} is ready: {process.said()[-500:]}",
            )  # fmt: skip
            if not process.alive and not process.expected_to_end:
                raise RuntimeError(f"the {process.role} ended at its start: {process.said()[-800:]}")

    def living(self, role: str = "") -> list[Process]:
        """Those that run, of one role or of all."""
        return [process for process in self.processes if process.alive and role in ("", process.role)]

    def ended_by_themselves(self) -> list[Process]:
        """Those that nobody ended."""
        return [process for process in self.processes if not process.alive and not process.expected_to_end]

    def said(self) -> str:
        """All logs."""
        return "".join(process.said() for process in self.processes)

    def close(self) -> None:
        """End all of it at once."""
        for process in self.living():
            process.kill()
