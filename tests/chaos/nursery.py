"""Where the processes of the scenarios are born: forks of one that has imported everything, so that starts cost little.

`python -m tests.chaos.nursery` reads requests from its standard input, a line of JSON each, and answers on its standard
output: with the process id of the child, and once it has ended with its exit code. The child does what
``python -m MODULE WORDS`` does. Nothing that a process does at its start is skipped but the imports.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import json
import os
import runpy
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

from tests.workers.commands import environment

from pushfleet_workers.process import die_with_parent

__all__ = ["ROOT", "Born", "spawn"]

ROOT = Path(__file__).parents[2]
KNOWN = (
    "pushfleet_workers.cli", "pushfleet_workers.worker_process", "pushfleet_workers.router_process",
    "pushfleet_workers.api_process", "pushfleet_workers.fakecloud.serving", "pushfleet_workers.transports.httpx_engine",
    "pushfleet_workers.transports.pyreqwest_engine", "pushfleet_workers.transports.aioapns_engine",
    "celery.bin.celery", "celery.apps.worker", "celery.concurrency.thread", "celery.worker.consumer",
    "kombu.transport.redis", "tests.chaos.load",
)  # fmt: skip
"""Whatever the processes would import."""

_BIRTH_S = 120.0
"""The first child waits for all the imports."""


class Born:
    """A process of the nursery, with what :class:`subprocess.Popen` says and does."""

    def __init__(self, number: int, pid: int, nursery: _Nursery) -> None:
        self.pid = pid
        self._number = number
        self._nursery = nursery

    @property
    def returncode(self) -> int | None:
        """The exit code, or the number of the signal below zero; None while it runs."""
        return self._nursery.codes.get(self._number, -signal.SIGKILL if self._nursery.gone else None)

    def poll(self) -> int | None:
        """As :attr:`returncode`."""
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait until it has ended; raises :class:`subprocess.TimeoutExpired`."""
        with self._nursery.told:
            if not self._nursery.told.wait_for(lambda: self.returncode is not None, timeout):
                raise subprocess.TimeoutExpired(str(self.pid), timeout or 0)
        assert self.returncode is not None
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal; nothing where it has ended."""
        if self.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.send_signal(signal.SIGKILL)


class _Nursery:
    """The nursery's process, seen from a scenario."""

    def __init__(self) -> None:
        # Unbuffered: what a child prints is read while it runs.
        self._process = subprocess.Popen(
            [sys.executable, "-u", "-m", "tests.chaos.nursery"],
            cwd=ROOT, env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True,
            preexec_fn=die_with_parent(),  # noqa: PLW1509 - one system call
        )  # fmt: skip
        self.codes: dict[int, int] = {}
        """By number: a process id comes again before long where so many are born."""

        self.gone = False
        self.told = threading.Condition()
        self._pids: dict[int, int] = {}
        threading.Thread(target=self._listen, name="nursery", daemon=True).start()
        atexit.register(self.close)

    def start(self, command: Sequence[str], output: Path, env: Mapping[str, str]) -> Born:
        """A child that runs ``python -m COMMAND``."""
        assert self._process.stdin is not None
        with self.told:
            number = len(self._pids)
            request = {"number": number, "command": list(command), "output": str(output), "env": dict(env)}
            self._process.stdin.write(f"{json.dumps(request)}\n".encode())
            self._process.stdin.flush()
            self.told.wait_for(lambda: number in self._pids or self.gone, _BIRTH_S)
            assert number in self._pids, "no child was born: the nursery has ended, or hangs"
            return Born(number, self._pids[number], self)

    def close(self) -> None:
        """End it, and with it whatever is left of its children."""
        self._process.kill()
        self._process.communicate()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            said = json.loads(line)
            with self.told:
                about = self.codes if "code" in said else self._pids
                about[said["number"]] = said["code" if "code" in said else "pid"]
                self.told.notify_all()
        with self.told:
            self.gone = True
            self.told.notify_all()


_nursery: list[_Nursery] = []


def spawn(
    command: Sequence[str], output: Path, *, fresh: bool = False, **variables: str
) -> Born | subprocess.Popen[bytes]:
    """A child that runs ``python -m COMMAND`` with its output in a file; it ends when we do.

    * **fresh** - it is no fork, but imports everything by itself.
    """
    if fresh:
        with output.open("ab") as file:
            return subprocess.Popen(
                [sys.executable, "-u", "-m", *command],
                cwd=ROOT, env=environment(**variables), stdin=subprocess.DEVNULL, stdout=file, stderr=file,
                start_new_session=True, preexec_fn=die_with_parent(),  # noqa: PLW1509 - one system call
            )  # fmt: skip
    output.touch()
    if not _nursery:
        _nursery.append(_Nursery())
    return _nursery[0].start(command, output, environment(**variables))


# ---- the nursery's own process


def _bear(requests: IO[bytes]) -> list[str]:
    """Fork for each request; returns in the child, with its command."""
    wake, woken = os.pipe()
    os.set_blocking(woken, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(woken)
    living: dict[int, int] = {}
    while True:
        ready, _, _ = select.select([requests, wake], [], [])
        if wake in ready:
            os.read(wake, 4_096)
            _tell_of_the_dead(living)
        if requests in ready:
            line = requests.readline()
            if not line:
                sys.exit()
            request = json.loads(line)
            pid = os.fork()
            if not pid:
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                os.close(wake)
                os.close(woken)
                return _become(request)
            living[pid] = request["number"]
            _tell({"number": request["number"], "pid": pid})


def _become(request: Mapping[str, object]) -> list[str]:
    """Be what was asked for, but for running it."""
    os.setsid()
    ask_to_end_with_parent = die_with_parent()
    if ask_to_end_with_parent is not None:
        ask_to_end_with_parent()
    nothing = os.open(os.devnull, os.O_RDONLY)
    output = os.open(str(request["output"]), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for here, there in ((nothing, 0), (output, 1), (output, 2)):
        os.dup2(here, there)
    os.close(nothing)
    os.close(output)
    os.environ.clear()
    os.environ.update(request["env"])  # type: ignore[call-overload]
    time.tzset()
    return list(request["command"])  # type: ignore[call-overload]


def _tell_of_the_dead(living: dict[int, int]) -> None:
    """*living*: by process id the number of each child."""
    for pid, number in list(living.items()):
        gone, status = os.waitpid(pid, os.WNOHANG)
        if gone:
            del living[pid]
            _tell({"number": number, "code": os.waitstatus_to_exitcode(status)})


def _tell(what: Mapping[str, int]) -> None:
    os.write(1, f"{json.dumps(what)}\n".encode())


def _main() -> None:
    from pushfleet_workers import registry

    for name in KNOWN:
        importlib.import_module(name)
    for vendor in registry.names():
        registry.load(vendor)
    gc.freeze()
    requests = os.fdopen(os.dup(0), "rb", buffering=0)
    module, *words = _bear(requests)
    requests.close()
    sys.argv[:] = [module, *words]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    _main()
