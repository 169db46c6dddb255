"""A vendor worker is a plain Celery worker."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest
import redis
from tests.e2e.conftest import TOKEN, Run, fleet_lines
from tests.e2e.processes import marked, until

from pushfleet import OfflineMessage, Producer
from pushfleet_workers.fakecloud import FakeCloudThread
from pushfleet_workers.tokens.keys import UserKeys
from pushfleet_workers.tokens.record import BACKGROUND, Channel, Device, encode_device

CELERY = ("-m", "celery", "-A", "pushfleet_workers.app", "worker")


@pytest.fixture
def settings_file(tmp_path: Path, cloud: FakeCloudThread, redis_url: str) -> str:
    file = tmp_path / "pushfleet.toml"
    file.write_text("\n".join(["[redis]", f'url = "{redis_url}"', 'prefix = "e"', *fleet_lines(cloud)]))
    return str(file)


def test_plain_celery_delivers(
    cloud: FakeCloudThread, settings_file: str, run: Run, redis_url: str, redis_client: redis.Redis
) -> None:
    device = Device(
        channels=[Channel("apns", "main", TOKEN, 1_000)], state=BACKGROUND, state_at_ms=int(time.time() * 1000)
    )
    redis_client.hset(UserKeys("e", "demo", "bob").devices, "phone", encode_device(device))
    router = run("-m", "pushfleet", "router", PUSHFLEET_CONFIG=settings_file)
    worker = run(*CELERY, "-Q", "push.apns", PUSHFLEET_CONFIG=settings_file)
    with Producer(redis_url, prefix="e") as producer:
        producer.enqueue_many(
            [OfflineMessage(id=f"m{n}", app="demo", recipients=("bob",), body="x") for n in range(50)]
        )
    until(lambda: len(cloud.received("apns", TOKEN)) == 50, what="fifty pushes")
    assert {push.message_id for push in cloud.received("apns", TOKEN)} == {f"m{n}" for n in range(50)}
    assert worker.ends(signal.SIGTERM) == 0, worker.said()
    assert router.ends(signal.SIGTERM) == 0, router.said()
    book = redis_client.hgetall("e:{apns:main}:books")
    assert (book[b"put"], book[b"end:normal:sent:"]) == (b"50", b"50")
    assert worker.left() == router.left() == []
    assert TOKEN not in worker.said() + router.said()


def test_a_killed_workers_pushes_are_sent_by_another(
    cloud: FakeCloudThread, settings_file: str, run: Run, redis_url: str, redis_client: redis.Redis
) -> None:
    """What lies in the ledger when a worker dies needs no producer to be sent."""
    device = Device(
        channels=[Channel("apns", "main", TOKEN, 1_000)], state=BACKGROUND, state_at_ms=int(time.time() * 1000)
    )
    redis_client.hset(UserKeys("e", "demo", "bob").devices, "phone", encode_device(device))
    run("-m", "pushfleet", "router", PUSHFLEET_CONFIG=settings_file)
    first = run("-m", "pushfleet", "worker", "--vendor", "apns", PUSHFLEET_CONFIG=settings_file)
    until(lambda: "drains apns" in first.said(), what="the first worker")
    first.process.send_signal(signal.SIGKILL)
    first.process.wait()
    assert marked(first.mark) == []
    with Producer(redis_url, prefix="e") as producer:
        producer.enqueue(OfflineMessage(id="m1", app="demo", recipients=("bob",), body="x"))
    until(lambda: redis_client.hget("e:{apns:main}:books", "put") == b"1", what="the router")
    started = time.monotonic()
    run("-m", "pushfleet", "worker", PUSHFLEET_CONFIG=settings_file)
    until(lambda: cloud.received("apns", TOKEN), what="the push")
    assert time.monotonic() - started < 15, "it looked for work by itself"
