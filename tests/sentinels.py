"""A master, replicas and three Sentinels on loopback, to be killed and frozen, with short times.

with SentinelCluster(folder) as cluster:
    client = cluster.client()
    cluster.kill(cluster.master)
    cluster.wait_switched()
    cluster.rejoin(cluster.dead[0])
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import redis

from pushfleet_workers.process import die_with_parent
from pushfleet_workers.redis_server import EmbeddedRedis, find_server, free_port

__all__ = ["MASTER", "Sentinel", "SentinelCluster"]

MASTER = "fleet"
"""The name of the master, as Sentinels know it."""

DOWN_AFTER_MS = 500
_SERVER = {"repl-diskless-sync-delay": "0", "repl-timeout": "5"}
_READY_S = 15.0
_PUBLISH_MS = 400
"""Four times as long Sentinels look on before they mend what somebody else has done to a server."""


class Sentinel:
    """One Sentinel, in a process of its own."""

    def __init__(self, folder: Path, *, number: int, password: str) -> None:
        self.folder = folder
        self.port = free_port()
        self.number = number
        self.password = password
        self.process: subprocess.Popen[bytes] | None = None

    def write_config(self, master: EmbeddedRedis, quorum: int, password: str) -> None:
        """Its file; it writes what it learns into it."""
        self.folder.mkdir(parents=True)
        lines = [
            f"port {self.port}",
            "bind 127.0.0.1",
            f"logfile {self.folder / 'sentinel.log'}",
            f"sentinel monitor {MASTER} 127.0.0.1 {master.port} {quorum}",
            f"sentinel down-after-milliseconds {MASTER} {DOWN_AFTER_MS}",
            f"sentinel failover-timeout {MASTER} 1000",
        ]
        lines += [f'sentinel auth-pass {MASTER} "{password}"'] if password else []
        lines += [f'requirepass "{self.password}"'] if self.password else []
        (self.folder / "sentinel.conf").write_text("\n".join([*lines, ""]))

    def start(self) -> None:
        """Start it and hurry it up."""
        self.process = subprocess.Popen(
            [find_server(), str(self.folder / "sentinel.conf"), "--sentinel"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            preexec_fn=die_with_parent(),  # noqa: PLW1509
        )
        _until(self._hurries, f"Sentinel {self.number} answers")

    def _hurries(self) -> bool:
        # One is ahead of the others in asking for votes: three that stand for election at once elect nobody.
        periods = {"ping": 200, "info": 200, "publish": _PUBLISH_MS, "ask": 50 + 450 * self.number}
        words = [str(part) for name, value in periods.items() for part in (f"{name}-period", value)]
        try:
            self.ask("DEBUG", *words)
        except redis.ConnectionError:
            return False
        return True

    def ask(self, *words: str) -> Any:
        """The reply to `SENTINEL WORDS`."""
        with redis.Redis(port=self.port, password=self.password or None, protocol=2, decode_responses=True) as client:
            client.response_callbacks.clear()
            return client.execute_command("SENTINEL", *words)

    def names(self) -> int:
        """The port of the master that it names."""
        return int(self.ask("GET-MASTER-ADDR-BY-NAME", MASTER)[1])

    def knows(self) -> dict[str, str]:
        """What it knows of the master."""
        told = self.ask("MASTER", MASTER)
        return dict(zip(told[::2], told[1::2], strict=True))

    def kill(self) -> None:
        """End it as a crash would."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.process.pid, signal.SIGCONT)
            self.process.kill()
            self.process.wait()
            self.process = None


class SentinelCluster:
    """The instances; a context manager that starts and ends them.

    * **replicas** - how many there are beside the master.
    * **password**, **sentinel_password** - what Redis and the Sentinels ask for; empty: nothing.
    """

    def __init__(
        self, folder: Path, *, replicas: int = 1, password: str = "", sentinel_password: str = "", **config: str
    ) -> None:
        self.password = password
        self.sentinel_password = sentinel_password
        self.servers = [
            EmbeddedRedis(folder / f"redis-{number}", config={**_SERVER, **config}) for number in range(1 + replicas)
        ]
        self.sentinels = [
            Sentinel(folder / f"sentinel-{number}", number=number, password=sentinel_password) for number in range(3)
        ]
        self._dead: set[int] = set()

    # ---- who is who

    @property
    def url(self) -> str:
        """The address by which the fleet knows it."""
        login = f":{quote(self.password, safe='')}@" if self.password else ""
        hosts = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in self.sentinels)
        query = f"?sentinel_password={quote(self.sentinel_password)}" if self.sentinel_password else ""
        return f"redis+sentinel://{login}{hosts}/{MASTER}/0{query}"

    @property
    def master(self) -> EmbeddedRedis:
        """The one that most Sentinels name."""
        named = [sentinel.names() for sentinel in self.sentinels if sentinel.process is not None]
        return self.at(max(named, key=named.count))

    @property
    def replicas(self) -> list[EmbeddedRedis]:
        """Those that live and are not the master."""
        master = self.master
        return [one for one in self.servers if one is not master and one.port not in self._dead]

    @property
    def dead(self) -> list[EmbeddedRedis]:
        """Those that were killed and have not come back."""
        return [one for one in self.servers if one.port in self._dead]

    def at(self, port: int) -> EmbeddedRedis:
        """The server on *port*."""
        return next(one for one in self.servers if one.port == port)

    def client(self, server: EmbeddedRedis | None = None) -> redis.Redis:
        """A client of *server*, else of whoever is the master now."""
        return redis.Redis(port=(server or self.master).port, password=self.password or None)

    # ---- what befalls them

    def kill(self, server: EmbeddedRedis) -> None:
        """End *server* as a crash would."""
        server.kill()
        self._dead.add(server.port)

    @contextlib.contextmanager
    def frozen(self, server: EmbeddedRedis) -> Iterator[None]:
        """*server* hangs; it goes on at the end, still in the belief that it is what it was."""
        os.kill(server.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(server.pid, signal.SIGCONT)

    def detach(self, replica: EmbeddedRedis) -> None:
        """*replica* hears nothing of its master, for a second and a half at least: then the Sentinels mend it."""
        with self.client(replica) as client:
            client.replicaof("127.0.0.1", str(free_port()))

    def lag_bytes(self, replica: EmbeddedRedis) -> int:
        """By how much *replica* is behind its master."""
        with self.client() as ours, self.client(replica) as theirs:
            return int(ours.info("replication")["master_repl_offset"] - theirs.info("replication")["slave_repl_offset"])

    def rejoin(self, server: EmbeddedRedis) -> None:
        """Start a *server* that was killed, as a replica of the master of now; returns when it has caught up."""
        self._start(server)
        self._dead.discard(server.port)
        self._follow(server, self.master)

    def wait_switched(self, away_from: EmbeddedRedis, timeout_s: float = 20.0) -> EmbeddedRedis:
        """The new master, once all living Sentinels name it and it takes writes."""
        living = [one for one in self.sentinels if one.process is not None]
        _until(lambda: all(one.names() != away_from.port for one in living), "the Sentinels switch", timeout_s)
        master = self.master
        _until(lambda: self._role(master) == "master", "the new master takes over")
        return master

    def wait_in_sync(self, server: EmbeddedRedis) -> None:
        """Wait until *server* has all that its master had when this was called."""
        with self.client() as ours, self.client(server) as theirs:
            offset = ours.info("replication")["master_repl_offset"]
            _until(lambda: theirs.info("replication")["slave_repl_offset"] >= offset, "a replica catches up")

    def _role(self, server: EmbeddedRedis) -> str:
        with self.client(server) as client:
            return str(client.info("replication")["role"])

    def _follow(self, server: EmbeddedRedis, master: EmbeddedRedis) -> None:
        with self.client(server) as client:
            client.replicaof("127.0.0.1", str(master.port))
            _until(lambda: client.info("replication")["master_link_status"] == "up", "a replica is linked")

    # ---- beginning and end

    def start(self) -> None:
        """Start all, and wait until the Sentinels know each other and the replicas."""
        for server in self.servers:
            self._start(server)
        master, *replicas = self.servers
        for replica in replicas:
            self._follow(replica, master)
        for sentinel in self.sentinels:
            sentinel.write_config(master, 2, self.password)
            sentinel.start()
        _until(self._acquainted, "the Sentinels know each other")

    def _start(self, server: EmbeddedRedis) -> None:
        server.start()
        if self.password:
            with redis.Redis(port=server.port) as client:
                client.config_set("masterauth", self.password, "requirepass", self.password)

    def _acquainted(self) -> bool:
        wanted = {"num-other-sentinels": len(self.sentinels) - 1, "num-slaves": len(self.servers) - 1}
        known = [sentinel.knows() for sentinel in self.sentinels]
        return all(int(one[name]) == count for one in known for name, count in wanted.items())

    def stop(self) -> None:
        """End all."""
        for sentinel in self.sentinels:
            sentinel.kill()
        for server in self.servers:
            with contextlib.suppress(Exception):
                os.kill(server.pid, signal.SIGCONT)
            server.kill()

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def _until(condition: Callable[[], object], what: str, timeout_s: float = _READY_S) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout_s:.0f} s: {what}"
        time.sleep(0.01)
