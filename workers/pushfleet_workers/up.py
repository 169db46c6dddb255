"""Everything on one machine: Redis if none is configured, API, router, workers for all vendors that have accounts."""

from __future__ import annotations

import fcntl
import itertools
import os
import socket
import sys
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from pushfleet_workers import registry
from pushfleet_workers.errors import FleetError
from pushfleet_workers.redis_server import REDIS_FOLDER, EmbeddedRedis, free_port
from pushfleet_workers.settings import CONFIG_VARIABLE, Settings
from pushfleet_workers.supervisor import Child, Supervisor
from pushfleet_workers.topology import queue_of

__all__ = ["Fleet", "celery_worker_argv", "pushfleet_command", "vendors_to_serve"]

_SHUTDOWN_MARGIN_S = 20.0
"""What settling and closing may take after a worker's own budget; then it is killed."""


def pushfleet_command(*words: str) -> list[str]:
    """The command line that runs `pushfleet` with this interpreter."""
    return [sys.executable, "-m", "pushfleet", *words]


@dataclass
class Fleet:
    """The processes of one machine; a context manager.

    * **config** - the settings file that the children read; None where the environment says it all.
    * **processes** - routers, and workers for each group of vendors; there are as many groups as cores.
    * **tick** - called again and again while the start waits; what it raises ends the start.
    """

    settings: Settings
    config: Path | None
    processes: int = 1
    env: Mapping[str, str] = field(default_factory=dict)
    tick: Callable[[], None] = lambda: None

    def __post_init__(self) -> None:
        self.folder = self.settings.data_dir
        self.redis: EmbeddedRedis | None = None
        self.supervisor = Supervisor(self.folder / "logs")
        self.api_url = ""
        self.metrics_urls: dict[str, str] = {}
        self._stop_timeout_s = self.settings.worker.shutdown_s + _SHUTDOWN_MARGIN_S
        self._kept = ExitStack()

    @property
    def redis_url(self) -> str:
        """Where producers enqueue."""
        return self.redis.url if self.redis is not None else self.settings.redis.queue_url

    def start(self) -> None:
        """Start all of it and wait until all of it is ready; raises :class:`FleetError`."""
        env = {**self.env, CONFIG_VARIABLE: str(self.config or "")}
        if not self.settings.redis.queue_url:
            self._own_the_folder()
            self.redis = EmbeddedRedis(self.folder / REDIS_FOLDER)
            self.redis.start()
            env["PUSHFLEET_REDIS__URL"] = self.redis.url
        api_port = self.settings.api.port or free_port()
        self._refuse_taken(self.settings.api.host, api_port)
        self.api_url = f"http://{self.settings.api.host}:{api_port}"
        env["PUSHFLEET_API__PORT"] = str(api_port)
        self.supervisor.start(
            Child("api", pushfleet_command("api"), env, f"{self.api_url}/readyz", self._stop_timeout_s)
        )
        for number in range(self.processes):
            self._start_probed(f"router-{number}", pushfleet_command("router"), env)
        cores = itertools.count()
        for vendors in _spread(list(vendors_to_serve(self.settings)), max(2, os.cpu_count() or 1)):
            for number in range(self.processes):
                words = [word for vendor in vendors for word in ("--vendor", vendor)]
                core = {"PUSHFLEET_WORKER__CORE": str(next(cores))} if self.settings.worker.core == "dealt" else {}
                name = f"worker-{'-'.join(vendors)}-{number}"
                self._start_probed(name, pushfleet_command("worker", *words), {**env, **core})
        self.supervisor.wait_ready(tick=self.tick)

    def _own_the_folder(self) -> None:
        """Two servers that append to the same files would ruin them."""
        self.folder.mkdir(parents=True, exist_ok=True)
        lock = self._kept.enter_context((self.folder / "lock").open("w"))
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise FleetError(
                f"another fleet runs on {self.folder}: end it, or set data_dir to another folder"
            ) from None

    def _refuse_taken(self, host: str, port: int) -> None:
        """Whoever listens there would answer in our api's place, and devices would be registered with them."""
        try:
            socket.create_server((host, port)).close()
        except OSError as problem:
            raise FleetError(
                f"the api cannot listen on {host}:{port}: end what listens there, or set api.port ({problem.strerror})"
            ) from None

    def _start_probed(self, name: str, command: list[str], env: Mapping[str, str]) -> None:
        port = free_port()
        url = f"http://127.0.0.1:{port}"
        self.metrics_urls[name] = f"{url}/metrics"
        own = {**env, "PUSHFLEET_METRICS__HOST": "127.0.0.1", "PUSHFLEET_METRICS__PORT": str(port)}
        self.supervisor.start(Child(name, command, own, f"{url}/readyz", self._stop_timeout_s))

    def close(self) -> None:
        """End all of it, Redis last."""
        with self._kept:
            try:
                self.supervisor.close()
            finally:
                if self.redis is not None:
                    self.redis.stop()

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def vendors_to_serve(settings: Settings) -> tuple[str, ...]:
    """The vendors that have accounts; all there are, where credentials may come while the fleet runs."""
    return registry.names() if settings.credentials.may_come else tuple(settings.accounts)


def _spread(vendors: list[str], groups: int) -> list[list[str]]:
    """*vendors* over at most so many worker processes: more processes than cores only wait for each other."""
    return [vendors[first::groups] for first in range(min(groups, len(vendors)))]


def celery_worker_argv(vendors: tuple[str, ...], name: str, level: str) -> list[str]:
    """The arguments of `celery worker` for the queues of *vendors*."""
    queues = ",".join(queue_of(vendor) for vendor in vendors)
    return [
        "worker", "--queues", queues, "--hostname", f"{name}-{os.getpid()}@%h", "--loglevel", level.upper(),
        "--without-gossip", "--without-mingle", "--without-heartbeat",
    ]  # fmt: skip
