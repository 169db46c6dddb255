"""What a vendor worker says and does when something is missing at its start."""

import contextlib
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import redis
from tests.integration.stage import eventually, logs, running_stage
from tests.workers.commands import NOTHING_LISTENS, apns_account, environment, old_redis, settings_file

from pushfleet_workers.redis_server import EmbeddedRedis
from pushfleet_workers.runtime import FleetRuntime
from pushfleet_workers.settings import load


@pytest.mark.timeout(120)
def test_a_missing_key_file_holds_up_its_account_and_loses_nothing(tmp_path: Path, redis_url: str) -> None:
    with running_stage(tmp_path, redis_url) as stage:
        key_file = stage.cloud.credentials()[0].file
        key = key_file.read_bytes()
        key_file.unlink()
        stage.register(3)
        stage.start("router")
        stage.start("worker", "--vendor", "apns")
        stage.enqueue("m", 30, 3)
        eventually(lambda: stage.books().accounts["apns:main"].open, what="the account waits for its operator")
        assert "accounts.apns.main: " in logs(stage)
        assert stage.received() == {}
        key_file.write_bytes(key)
        books = stage.wait_until_idle()
        assert books.accounts["apns:main"].ends == {"normal:sent:": 30}
        assert set(stage.received()) == set(stage.accepted)


OLD_INFO = "# Server\r\nredis_version:6.2.14\r\n"


@pytest.mark.parametrize(
    "how", [("-m", "pushfleet", "worker"), ("-m", "celery", "-A", "pushfleet_workers.app", "worker")]
)
@pytest.mark.parametrize("fault", ["nobody there", "too old", "port taken"])
def test_a_worker_that_cannot_work_says_one_sentence_and_claims_nothing(
    tmp_path: Path, redis_url: str, how: tuple[str, ...], fault: str
) -> None:
    with contextlib.ExitStack() as stack:
        told, port, url = "cannot be reached", "0", NOTHING_LISTENS
        if fault == "too old":
            told, url = "is too old: pushfleet needs Redis 7.0", stack.enter_context(old_redis(OLD_INFO))
        elif fault == "port taken":
            taken = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            told, port, url = "set metrics.port", str(taken.getsockname()[1]), redis_url
        settings_file(tmp_path, url, *apns_account())
        done = subprocess.run(
            [sys.executable, *how],
            cwd=tmp_path, env=environment(PUSHFLEET_METRICS__PORT=port), capture_output=True, text=True, timeout=60,
            check=False,
        )  # fmt: skip
    assert done.returncode == 2, done
    (said,) = [line for line in done.stderr.splitlines() if line.startswith("pushfleet: ")]
    assert told in said
    assert "Traceback" not in done.stderr


def test_its_work_runs_on_one_uvloop_thread(tmp_path: Path, redis_url: str) -> None:
    with running_stage(tmp_path, redis_url) as stage:
        runtime = FleetRuntime(load(stage.config), lambda vendor: None)
        try:
            runtime.start(["apns"])
            assert type(runtime._loop).__module__.startswith("uvloop")
            assert [thread.name for thread in threading.enumerate()].count("pushfleet-loop") == 1
        finally:
            runtime.close()


def test_a_redis_that_goes_away_while_a_worker_starts_is_waited_for(tmp_path: Path) -> None:
    server = EmbeddedRedis(tmp_path / "redis")
    with running_stage(tmp_path, server.url) as stage:
        runtime = FleetRuntime(load(stage.config), lambda vendor: None)
        try:
            # What the worker looked at before it got here is gone by now.
            runtime.start(["apns"])
            with server, redis.Redis.from_url(server.url) as client:
                looking = f"pushfleet-worker-{os.getpid()}"
                eventually(lambda: looking in [one["name"] for one in client.client_list()], what="it looks for work")
        finally:
            runtime.close()
