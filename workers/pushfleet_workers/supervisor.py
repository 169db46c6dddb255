"""Child processes of one machine: started, watched, restarted with back-off, ended in order.

Nothing outlives the supervisor: children are in sessions of their own, so that Ctrl-C reaches only it, and on Linux
they are told to end when it dies.
"""

from __future__ import annotations

import contextlib
import logging
import os
import subprocess
import time
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path
from typing import Self

from pushfleet_workers.errors import FleetError
from pushfleet_workers.process import die_with_parent

__all__ = ["Child", "Supervisor"]

log = logging.getLogger(__name__)

_RESTART_FIRST_S = 0.5
_RESTART_LONGEST_S = 30.0
_STEADY_S = 60.0
"""After running this long a child's next restart is quick again."""


@dataclass(slots=True)
class Child:
    """One process to keep running."""

    name: str
    command: Sequence[str]
    env: Mapping[str, str] = field(default_factory=dict)
    ready_url: str = ""
    """Answers 200 once the process can work; empty: not asked."""

    stop_timeout_s: float = 30.0
    process: subprocess.Popen[bytes] | None = None
    started_at: float = 0.0
    failures: int = 0
    restart_at: float = 0.0


class Supervisor:
    """Keeps children running until it is closed; a context manager.

    * **log_dir** - each child's output goes to ``<name>.log`` there.
    """

    def __init__(self, log_dir: Path) -> None:
        self._log_dir = log_dir
        self._children: list[Child] = []
        self._closing = False

    def start(self, child: Child) -> None:
        """Start *child*; it is stopped before those that were started earlier."""
        self._log_dir.mkdir(parents=True, exist_ok=True)
        self._children.append(child)
        self._spawn(child)

    def wait_ready(self, timeout_s: float = 60.0, tick: Callable[[], None] = lambda: None) -> None:
        """Wait until every child that can say so is ready.

        Raises :class:`FleetError` with the end of its log for a child that ended or is not ready in time.
        """
        deadline = time.monotonic() + timeout_s
        for child in self._children:
            while child.ready_url and not _answers(child.ready_url):
                ended = child.process is None or child.process.poll() is not None
                if ended or time.monotonic() > deadline:
                    how = "ended" if ended else f"was not ready within {timeout_s:.0f} s"
                    raise FleetError(f"{child.name} {how}: {self._log_end(child)}")
                tick()
                time.sleep(0.05)

    def watch(self) -> None:
        """Restart what ended by itself and is due; call it often."""
        now = time.monotonic()
        for child in self._children:
            if child.process is not None and child.process.poll() is not None:
                lived_s = now - child.started_at
                child.failures = 0 if lived_s > _STEADY_S else child.failures + 1
                wait_s = min(_RESTART_LONGEST_S, _RESTART_FIRST_S * 2 ** min(child.failures, 10))
                log.warning(
                    "%s ended with code %s; it starts again in %.1f s", child.name, child.process.returncode, wait_s
                )
                child.restart_at, child.process = now + wait_s, None
            if child.process is None and now >= child.restart_at and not self._closing:
                self._spawn(child)

    def child(self, name: str) -> Child:
        """The child called *name*."""
        return next(child for child in self._children if child.name == name)

    def forget(self, child: Child) -> None:
        """Neither restart nor end *child* any more."""
        self._children.remove(child)

    def close(self) -> None:
        """End all children, the last started first; one that does not go in time is killed."""
        self._closing = True
        for child in reversed(self._children):
            if child.process is not None and child.process.poll() is None:
                child.process.terminate()
        for child in reversed(self._children):
            if child.process is None:
                continue
            try:
                child.process.wait(child.stop_timeout_s)
            except subprocess.TimeoutExpired:
                log.warning("%s did not stop within %.0f s and is killed", child.name, child.stop_timeout_s)
                child.process.kill()
                child.process.wait()

    def _spawn(self, child: Child) -> None:
        with (self._log_dir / f"{child.name}.log").open("ab") as output:
            child.process = subprocess.Popen(
                child.command,
                env={**os.environ, **child.env},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=die_with_parent(),  # noqa: PLW1509 - one system call
            )
        child.started_at = time.monotonic()

    def _log_end(self, child: Child) -> str:
        path = self._log_dir / f"{child.name}.log"
        return path.read_text(errors="replace")[-800:].strip() or f"{path} is empty"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


# Children listen on this machine; a proxy in the environment has nothing to do with them.
_direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def _answers(url: str) -> bool:
    with contextlib.suppress(OSError, HTTPException), _direct.open(url, timeout=1) as answer:
        return bool(answer.status == 200)
    return False
