"""What every row runs on: an embedded Redis, a vendor that says yes at once, an APNs credential, settings."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from pushfleet_workers.fakecloud.certs import make_certificates
from pushfleet_workers.redis_server import EmbeddedRedis, free_port

ROOT = Path(__file__).resolve().parent.parent
TOPIC = "com.example.bench"


@dataclass
class Stage:
    """Addresses and files of a running stage."""

    folder: Path
    redis: EmbeddedRedis
    sink_url: str
    ca_file: Path
    key_file: Path

    def write_settings(self, base_url: str, *, ca_file: Path | None = None) -> Path:
        """A settings file for a fleet with one APNs account whose vendor is at *base_url*."""
        path = self.folder / f"pushfleet-{time.monotonic_ns()}.toml"
        path.write_text(
            f"""
data_dir = "data"
[redis]
url = "{self.redis.url}"
[log]
level = "warning"
[apps.bench]
[accounts.apns.main]
app = "bench"
team_id = "TEAM000001"
key_id = "KEY0000001"
key_file = "{self.key_file}"
topic = "{TOPIC}"
base_url = "{base_url}"
ca_bundle = "{ca_file or self.ca_file}"
"""
        )
        return path


@contextlib.contextmanager
def stage(folder: Path) -> Iterator[Stage]:
    """A stage that is gone afterwards."""
    certificates = make_certificates(folder)
    key_file = folder / "key.p8"
    key = ec.generate_private_key(ec.SECP256R1())
    key_file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    with EmbeddedRedis(folder / "redis") as redis, _sink(certificates.server_file, folder) as url:
        yield Stage(folder, redis, url, certificates.ca_file, key_file)


@contextlib.contextmanager
def _sink(certificate: Path, folder: Path) -> Iterator[str]:
    port = free_port()
    command = [
        str(Path(sys.executable).parent / "granian"), "--interface", "rsgi", "--http", "2", "--host", "127.0.0.1",
        "--port", str(port), "--ssl-certificate", str(certificate), "--ssl-keyfile", str(certificate), "--no-ws",
        "--log-level", "warning", "--loop", "uvloop", "--http2-max-concurrent-streams", "1000", "bench.sink:app",
    ]  # fmt: skip
    with (folder / "sink.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)
    try:
        # It stands for machines elsewhere: being sent something must not take the core from whoever sent it. Its
        # workers inherit this.
        os.sched_setscheduler(process.pid, os.SCHED_BATCH, os.sched_param(0))
        deadline = time.monotonic() + 30
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                break
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the sink did not start: {(folder / 'sink.log').read_text()[-500:]}")
            time.sleep(0.05)
        yield f"https://localhost:{port}"
    finally:
        process.terminate()
        process.wait(10)
