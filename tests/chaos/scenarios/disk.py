"""The disk that Redis writes to."""

from __future__ import annotations

import contextlib
import os
import resource
import time
from collections.abc import Iterator

from tests.chaos.processes import until
from tests.chaos.scenario import scenario
from tests.chaos.stage import Stage

from pushfleet_workers.redis_server import find_server

FULL_FOR_S = 5.0


@scenario(redis={"appendfsync": "everysec"})
def disk_full(stage: Stage) -> None:
    """Redis' disk is full: producers are refused, nothing that was accepted is lost, and all go on by themselves."""
    _restart_one_that_survives_it(stage)
    stage.cloud.rule("apns", "answer", delay_s=0.1)
    stage.fleet.start_all("router", "router", "worker", "worker", "api")
    with stage.load(per_s=stage.size(full=150, short=100)):
        stage.until_taken(100)
        with _no_room_for_more(stage):
            until(lambda: stage.client.info("persistence")["aof_last_write_status"] == "err", what="Redis notices")
            time.sleep(stage.size(full=int(4 * FULL_FOR_S), short=1))
        stage.healed()
        stage.until_taken(stage.cloud.taken() + 100)
    refused = sum(one.refusals > 0 for one in stage.told())
    stage.measured("refused", refused)
    stage.expect(refused, "producers are told that there is no room")


def _restart_one_that_survives_it(stage: Stage) -> None:
    """Python gives its children back the signal that ends them when a file grows too large; a full disk sends none."""
    stage.redis.stop()
    folder = stage.folder / "bin"
    folder.mkdir()
    server = folder / "redis-server"
    server.write_text(f"#!/bin/sh\ntrap '' XFSZ\nexec {find_server()} \"$@\"\n")
    server.chmod(0o755)
    path = os.environ["PATH"]
    os.environ["PATH"] = f"{folder}:{path}"
    try:
        stage.redis.start()
    finally:
        os.environ["PATH"] = path


@contextlib.contextmanager
def _no_room_for_more(stage: Stage) -> Iterator[None]:
    """No file of Redis may grow."""
    _, most = resource.prlimit(stage.redis.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(stage.redis.pid, resource.RLIMIT_FSIZE, (1, most))
    try:
        yield
    finally:
        resource.prlimit(stage.redis.pid, resource.RLIMIT_FSIZE, (most, most))
