"""A running API reads the stream of state reports, unless told not to."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import redis
from tests.workers.api.process import SETTINGS, USER, started

STREAM = "pushfleet:{reports}"


@pytest.mark.parametrize(("reads", "state"), [(True, "killed"), (False, "background")])
def test_a_report_from_the_stream_reaches_the_device(
    tmp_path: Path, redis_url: str, redis_client: redis.Redis, reads: bool, state: str
) -> None:
    with started(tmp_path, redis_url, SETTINGS + ("" if reads else "[reports]\nstream = false\n")) as api:
        body = {
            "channels": [{"vendor": "huawei", "token": "t1"}],
            "state": "background",
            "at_ms": int(time.time() * 1000) - 1_000,
        }
        assert api.put(f"{USER}/devices/d1", body).status_code == 200
        redis_client.xadd(STREAM, {"app": "demo", "user": "ann", "device": "d1", "state": "killed"})
        if reads:
            api.until(lambda: redis_client.xlen(STREAM) == 0, "the report")
        device = api.known()["devices"]["d1"]
        assert (device["state"], redis_client.xlen(STREAM)) == (state, int(not reads))
