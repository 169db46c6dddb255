"""What a vendor worker says and does when something is missing at its start."""

from pathlib import Path

import pytest
from tests.integration.stage import eventually, logs, running_stage

from pushfleet_workers import checks
from pushfleet_workers.errors import RedisUnusable
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


def test_a_redis_below_the_floor_is_refused_in_a_sentence(
    tmp_path: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checks, "FLOORS", {"redis": (99, 0), "valkey": (99, 0)})
    with running_stage(tmp_path, redis_url) as stage:
        runtime = FleetRuntime(load(stage.config), lambda vendor: None)
        try:
            with pytest.raises(RedisUnusable, match=r"is too old: pushfleet needs Redis 99\.0 or Valkey 99\.0"):
                runtime.start(["apns"])
        finally:
            runtime.close()
