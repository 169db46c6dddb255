"""A user is erased from a whole fleet while their work waits and flies, and is back at once."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import redis
from tests.integration.stage import PREFIX, Stage, eventually, logs, running_stage

from pushfleet_workers.audit import AccountBook
from pushfleet_workers.up import pushfleet_command

NEW_TOKEN = "ab" * 32
ERASURES = f"{PREFIX}:{{erasures}}"


def said(stage: Stage, *words: str) -> Any:
    full = pushfleet_command("--config", str(stage.config), *words)
    done = subprocess.run(full, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)


def account(stage: Stage) -> AccountBook:
    return stage.books().accounts["apns:main"]


@pytest.mark.timeout(180)
def test_what_waited_is_not_sent_to_who_is_back_and_an_api_takes_the_rest(
    tmp_path: Path, redis_url: str, redis_client: redis.Redis
) -> None:
    with running_stage(tmp_path, redis_url, settings="[breaker]\nfailures = 10000") as stage:
        stage.register(4)
        said(stage, "pause", "apns", "--json")
        stage.start("router")
        worker = stage.start("worker", "--vendor", "apns")
        stage.enqueue("old", 8, 4)
        eventually(lambda: account(stage).put == 8, what="all of it is in the ledger")
        erased = said(stage, "users", "erase", "demo", "user-0", "--wait", "0s", "--json")
        assert (erased["known"], erased["done"]) == (True, False)
        stage.register_channels({"user-0": {"vendor": "apns", "token": NEW_TOKEN}})
        eventually(lambda: account(stage).oldest_ms < time.time() * 1000 - 2_500, what="claims decide anew")
        said(stage, "resume", "apns", "--json")
        assert stage.wait_until_idle().balanced
        assert account(stage).ends == {"normal:sent:": 6, "normal:suppressed:user_erased": 2}
        assert set(stage.received()) == {f"old-{number}" for number in range(8) if number % 4}

        # What is due much later, with an api that takes it.
        stage.cloud.rule("apns", "refuse", code="ServiceUnavailable")
        stage.enqueue("new", 4, 4)
        stage.start_api()
        eventually(lambda: not redis_client.zcard(ERASURES), what="the first erasure is done")
        assert account(stage).put == 12
        stage.kill(worker)
        said(stage, "users", "erase", "demo", "user-1", "--wait", "0s", "--json")
        # Another worker takes the work of the dead one over, and nothing is held up by it.
        stage.start("worker", "--vendor", "apns")
        eventually(lambda: not redis_client.zcard(ERASURES), what="the second erasure is done")
        assert account(stage).ready + account(stage).delayed + account(stage).leased == 3
        stage.cloud.clear_rules("apns")
        assert stage.wait_until_idle().balanced
        assert not [key for key in redis_client.keys("*") if b"user-1" in redis_client.dump(key)]
        assert {push.message_id for push in stage.cloud.received("apns", NEW_TOKEN)} == {"new-0"}
        assert NEW_TOKEN not in logs(stage)
