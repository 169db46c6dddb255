"""`pushfleet api` as a process of its own, for tests to start and ask."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx

from pushfleet_workers.redis_server import free_port

KEY = "the-api-key"
USER = "/v1/apps/demo/users/ann"
READY_WITHIN_S = 20.0

SETTINGS = """
[redis]
url = "{redis_url}"
timeout_s = 2
[api]
port = {port}
key = "{key}"
[log]
level = "debug"
[apps.demo]
[apps.lite]
[accounts.huawei.main]
app = "demo"
client_id = "100000001"
client_secret = "not-a-secret"
[accounts.huawei.lite]
app = "lite"
client_id = "100000002"
client_secret = "not-a-secret"
"""


class Process:
    """A running `pushfleet api`."""

    def __init__(self, folder: Path, redis_url: str, port: int = 0, template: str = SETTINGS) -> None:
        self.port = port or free_port()
        self.log = folder / "api.log"
        file = folder / "pushfleet.toml"
        file.write_text(template.format(redis_url=redis_url, port=self.port, key=KEY))
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PUSHFLEET_")}
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "pushfleet", "--config", str(file), "api"],
                cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        self.client = httpx.Client(
            base_url=f"http://127.0.0.1:{self.port}", headers={"authorization": f"Bearer {KEY}"}, timeout=10
        )

    def status(self, path: str) -> int:
        """The status of a GET; 0 when nobody listens."""
        try:
            return self.client.get(path).status_code
        except httpx.TransportError:
            return 0

    def until(self, done: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + READY_WITHIN_S
        while not done():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, f"{what} did not come: {self.log.read_text()}"
            time.sleep(0.02)

    def until_ready(self) -> None:
        self.until(lambda: self.status("/readyz") == 200, "readiness")

    def put(self, path: str, body: Any) -> httpx.Response:
        return self.client.put(path, json=body)

    def post(self, path: str, body: Any) -> httpx.Response:
        return self.client.post(path, json=body)

    def known(self, path: str = USER) -> Any:
        return self.client.get(path).raise_for_status().json()

    def end(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(10)


@contextlib.contextmanager
def started(folder: Path, redis_url: str, template: str = SETTINGS) -> Iterator[Process]:
    """A process that is ready, killed afterwards."""
    api = Process(folder, redis_url, template=template)
    try:
        api.until_ready()
        yield api
    finally:
        api.client.close()
        api.process.kill()
        api.process.wait()
