"""The API against its own OpenAPI document, by Schemathesis: thousands of good and bad requests to a real process."""

from __future__ import annotations

import base64
import re
import subprocess
import sys
from pathlib import Path

from tests.workers.api.process import KEY, SETTINGS, started

NOWHERE = 'client_secret = "not-a-secret"\nbase_url = "http://127.0.0.1:9"\nauth_url = "http://127.0.0.1:9"'
EVERYTHING_ON = (
    SETTINGS.replace("[apps.demo]\n", '[apps.demo]\nrecall_window_s = 120\nreads = true\nforeground_ack = "park"\n')
    # Testing a credential asks its vendor.
    .replace('client_secret = "not-a-secret"', NOWHERE)
    + f'[credentials]\nmaster_key = "{base64.b64encode(b"k" * 32).decode()}"\n'
)

# Paths that lead somewhere in most requests; chance alone would hear of nothing but unknown apps and devices.
CONFIG = """
[dictionaries]
app = { values = ["demo"] }
user = { values = ["ann"] }
device = { values = ["d1"] }
vendor = { values = ["huawei"] }
credential = { values = ["main"] }
[parameters]
"path.app" = { dictionary = "app", probability = 0.8 }
"path.user" = { dictionary = "user", probability = 0.6 }
"path.device" = { dictionary = "device", probability = 0.6 }
"path.vendor" = { dictionary = "vendor", probability = 0.6 }
"path.credential" = { dictionary = "credential", probability = 0.6 }
"body.app" = { dictionary = "app", probability = 0.8 }
"body.channels[*].vendor" = { dictionary = "vendor", probability = 0.8 }
"body.channels[*].credential" = { dictionary = "credential", probability = 0.8 }
"""

# Integers as 1.0, times in the past, vendors without an account: the schema cannot say all that is refused.
UNFIT = "positive_data_acceptance"


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            sys.executable, "-m", "schemathesis.cli", "--config-file", "schemathesis.toml", "run", *arguments,
            "--header", f"Authorization: Bearer {KEY}", "--seed", "1", "--no-shrink", "--continue-on-failure",
            # From several threads at once the parser of CPython 3.11 fails now and then.
            "--workers", "1",
        ],
        check=False, cwd=folder, capture_output=True, text=True, timeout=100,
    )  # fmt: skip


def test_the_api_keeps_to_its_document(redis_url: str, tmp_path: Path) -> None:
    (tmp_path / "schemathesis.toml").write_text(CONFIG)
    with started(tmp_path, redis_url, EVERYTHING_ON) as api:
        operations = sum(len(methods) for methods in api.known("/openapi.json")["paths"].values())
        options = ["--phases", "coverage,fuzzing,stateful", "--exclude-checks", UNFIT, "--max-examples", "12"]
        ran = run(tmp_path, f"http://127.0.0.1:{api.port}/openapi.json", *options)
        assert ran.returncode == 0, ran.stdout + ran.stderr
        assert f"Tested: {operations}\n" in ran.stdout, ran.stdout
        # Enough of it came to the core, and not only to the checks before.
        done = set(re.findall(r'method="(\w+)",route="([^"]*)",status="2', api.client.get("/metrics").text))
        assert len(done) > operations // 2, sorted(done)
        log = api.log.read_text()
        assert "Traceback" not in log
        assert "a request failed" not in log


def test_a_document_that_promises_more_is_found_out(redis_url: str, tmp_path: Path) -> None:
    (tmp_path / "schemathesis.toml").write_text(CONFIG)
    with started(tmp_path, redis_url) as api:
        told = api.client.get("/openapi.json").text
        (tmp_path / "openapi.json").write_text(told.replace('"receive_options"', '"receive_wishes"'))
        one = ["--include-path", "/v1/apps/{app}/users/{user}", "--include-method", "GET", "--max-examples", "30"]
        ran = run(tmp_path, "openapi.json", "--url", f"http://127.0.0.1:{api.port}", "--phases", "fuzzing", *one)
        assert ran.returncode == 1, ran.stdout + ran.stderr
        assert "'receive_wishes' is a required property" in ran.stdout.replace('"', "'")
