"""Plain Celery commands do what the documentation says."""

import subprocess
import sys
from pathlib import Path

import redis
from tests.integration.stage import PREFIX, eventually, running_stage

from pushfleet_workers.settings import CONFIG_VARIABLE


def test_a_plain_celery_worker_delivers(tmp_path: Path, redis_url: str) -> None:
    with running_stage(tmp_path, redis_url) as stage:
        stage.register(5)
        stage.start("router")
        worker = stage.start_celery("-Q", "push.apns")
        stage.enqueue("m", 20, 5)
        eventually(lambda: len(stage.received()) == 20)
        assert stage.wait_until_idle().balanced
        assert stage.terminate(worker) == 0


def test_an_idle_worker_is_woken_through_celery(tmp_path: Path, redis_url: str) -> None:
    with running_stage(tmp_path, redis_url, settings="[worker]\nlinger_s = 0.1") as stage:
        stage.register(1)
        stage.start("router")
        stage.start_celery("-Q", "push.apns")
        with redis.Redis.from_url(redis_url) as client:
            for number in range(3):
                eventually(lambda: client.zcard(f"{PREFIX}:{{apns}}:listeners") == 0, what="the drain has left")
                stage.enqueue(f"m{number}", 1, 1)
                eventually(lambda number=number: len(stage.received()) == number + 1)  # type: ignore[misc]
            assert client.llen(f"{PREFIX}:celery:push.apns") == 0


def test_another_pool_is_refused_with_a_sentence(tmp_path: Path, redis_url: str) -> None:
    with running_stage(tmp_path, redis_url) as stage:
        command = [
            sys.executable,
            "-m",
            "celery",
            "-A",
            "pushfleet_workers.app",
            "worker",
            "-Q",
            "push.apns",
            "-P",
            "solo",
        ]
        done = subprocess.run(
            command, env={CONFIG_VARIABLE: str(stage.config), "PATH": "/usr/bin:/bin"}, capture_output=True, text=True,
            timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == 2
        assert "runs on Celery's threads pool, not on solo" in done.stderr
