"""Credentials that come, change and go while router and worker run: nobody is restarted, nothing is lost."""

from __future__ import annotations

import base64
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from tests.integration.stage import PREFIX, TOPIC, Stage, eventually, logs

from pushfleet import Producer
from pushfleet_workers.fakecloud import FakeCloudThread
from pushfleet_workers.supervisor import Supervisor
from pushfleet_workers.up import pushfleet_command

MASTER_KEY = base64.b64encode(b"k" * 32).decode()


@pytest.fixture
def stage(tmp_path: Path, redis_url: str) -> Iterator[Stage]:
    """A fleet without any account."""
    with FakeCloudThread(vendors=["apns"]) as cloud:
        config = tmp_path / "pushfleet.toml"
        config.write_text(
            f'[redis]\nurl = "{redis_url}"\n[log]\nlevel = "info"\n[apps.demo]\n'
            f'[breaker]\nopen_first_s = 0.2\nopen_longest_s = 1\n[credentials]\nmaster_key = "{MASTER_KEY}"\n'
        )
        with Supervisor(tmp_path / "logs") as supervisor, Producer(redis_url, prefix=PREFIX) as producer:
            yield Stage(tmp_path, redis_url, cloud, supervisor, config, producer)


def credentials(stage: Stage, *words: object) -> Any:
    command = pushfleet_command("--config", str(stage.config), "credentials", *map(str, words), "--json")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_credential_comes_changes_and_goes_without_a_restart(stage: Stage) -> None:
    stage.start("router")
    stage.start("worker", "--vendor", "apns")
    given = stage.cloud.credential("apns", topics=[TOPIC])
    pairs = {**given.settings, "topic": TOPIC, "base_url": stage.cloud.url("apns")}
    words = [word for name, value in pairs.items() for word in ("--set", f"{name}={value}")]
    files = ["--file", f"key_file={given.file}", "--file", f"ca_bundle={stage.cloud.ca_file}"]
    credentials(stage, "add", "apns", "main", "--app", "demo", *words, *files)
    eventually(lambda: logs(stage).count("apns:main is taken up") == 2, what="router and worker have it")
    stage.register(5)
    stage.enqueue("first", 20, 5)
    assert stage.wait_until_idle().ends()["sent"] == 20

    wrong = stage.folder / given.file.name
    key = ec.generate_private_key(ec.SECP256R1())
    wrong.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    credentials(stage, "rotate", "apns", "main", "--file", f"key_file={wrong}")
    eventually(lambda: logs(stage).count("apns:main is taken up") == 4, what="router and worker have the new key")
    stage.enqueue("second", 20, 5)
    assert stage.wait_until_idle().ends()["sent"] == 40, "the fleet goes back to the key before"
    assert credentials(stage, "list")[0]["refused"] == "InvalidProviderToken"

    credentials(stage, "remove", "apns", "main", "--force")
    eventually(lambda: logs(stage).count("apns:main is gone") == 2, what="router and worker let it go")
    stage.enqueue("third", 20, 5)
    books = stage.wait_until_idle()
    assert (books.ends()["sent"], books.ends()["suppressed"], books.balanced) == (40, 20, True)
    assert set(stage.received()) == {identity for identity in stage.accepted if not identity.startswith("third")}
    assert "Traceback" not in logs(stage)
    assert "PRIVATE KEY" not in logs(stage)
