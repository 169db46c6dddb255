"""The rows of the token state: what reports from the stream cost, and what a device takes in Redis."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from hashlib import blake2b
from uuid import UUID

import redis
from bench.cpu import cpu_s
from bench.rows import Figures, rates, wait_until
from bench.stage import Stage

from pushfleet_workers.redis_link import Link
from pushfleet_workers.redis_server import EmbeddedRedis, free_port
from pushfleet_workers.reports import ReportKeys
from pushfleet_workers.settings import CONFIG_VARIABLE
from pushfleet_workers.supervisor import Child, Supervisor
from pushfleet_workers.tokens.changes import ChannelGiven, Registration
from pushfleet_workers.tokens.store import TokenStore
from pushfleet_workers.up import pushfleet_command

REPORTS = 100_000
REPORTS_OF_AN_ENTRY = 500
REPORTING = 20_000
FEW, MANY = 100_000, 1_000_000
AT_ONCE, UNDER_WAY = 250, 4


def state_reports(stage: Stage) -> Figures:
    """Reports that lie in the stream when the API goes on; each is news of its device."""
    stream = ReportKeys("pushfleet").stream
    with redis.Redis.from_url(stage.redis.url) as client, _api(stage) as process:
        client.flushall()
        asyncio.run(_register(stage.redis.url, REPORTING))
        wait_until(lambda: bool(client.exists(stream)))
        os.kill(process, signal.SIGSTOP)
        for fields in _entries():
            client.xadd(stream, fields)
        pids = [process, stage.redis.pid]
        started, cpu = time.perf_counter(), cpu_s(pids)
        os.kill(process, signal.SIGCONT)
        wait_until(lambda: client.xlen(stream) == 0, every_s=0.05)
        return rates(REPORTS, time.perf_counter() - started, cpu_s(pids) - cpu)


def state_memory(stage: Stage) -> Figures:
    """Bytes of a device with one token of 160 characters, index of tokens included: the most of 100,000 and 1,000,000.

    ``per_s`` is how fast they are registered.
    """
    with (
        EmbeddedRedis(stage.folder / "memory", config={"appendonly": "no"}) as server,
        redis.Redis.from_url(server.url) as client,
    ):
        empty = _used(client)
        started = time.perf_counter()
        asyncio.run(_register(server.url, FEW))
        few = (_used(client) - empty) / FEW
        asyncio.run(_register(server.url, MANY, FEW))
        many = (_used(client) - empty) / MANY
        seconds = time.perf_counter() - started
    return {"per_s": MANY / seconds, "bytes_per_device": max(few, many)}


def _used(client: redis.Redis) -> int:
    return int(client.info("memory")["used_memory"])  # type: ignore[index]


@contextlib.contextmanager
def _api(stage: Stage) -> Iterator[int]:
    """An API process; gives its id."""
    port = free_port()
    env = {CONFIG_VARIABLE: str(stage.write_settings(stage.sink_url)), "PUSHFLEET_API__PORT": str(port)}
    with Supervisor(stage.folder / "logs") as supervisor:
        supervisor.start(Child("api", pushfleet_command("api"), env, ready_url=f"http://127.0.0.1:{port}/readyz"))
        supervisor.wait_ready()
        process = supervisor.child("api").process
        assert isinstance(process, subprocess.Popen)
        yield process.pid


async def _register(url: str, until: int, first: int = 0) -> None:
    """Users *first* to *until*, each with a device that tells all that devices tell."""
    link = Link(url)
    store = TokenStore(link, "pushfleet", lambda: int(time.time() * 1000))
    starts = iter(range(first, until, AT_ONCE))

    async def work() -> None:
        for start in starts:
            await store.register_many(
                [
                    ("bench", f"user-{number}", _device(number), _registration(number))
                    for number in range(start, min(until, start + AT_ONCE))
                ]
            )

    try:
        await asyncio.gather(*(work() for _ in range(UNDER_WAY)))
    finally:
        await link.close()


def _device(number: int) -> str:
    return str(UUID(bytes=blake2b(b"%d" % number, digest_size=16).digest()))


def _registration(number: int) -> Registration:
    token = blake2b(b"%d" % number).hexdigest() + blake2b(b"%d" % number, digest_size=16).hexdigest()
    return Registration(
        channels=(ChannelGiven(vendor="huawei", token=token),),
        platform="android",
        maker="HUAWEI",
        os_version="12.0.1",
        app_version="10.20.30",
        locale="zh-Hans-CN",
        time_zone="Asia/Shanghai",
        state="background",
        unread=3,
    )


def _entries() -> Iterator[dict[str, str]]:
    """The reports in batches, as IM connection servers write them."""
    dice = random.Random(0)
    at_ms = int(time.time() * 1000)
    for first in range(0, REPORTS, REPORTS_OF_AN_ENTRY):
        reports = []
        for number in range(first, first + REPORTS_OF_AN_ENTRY):
            user = number * 7_919 % REPORTING
            state = dice.choice(("foreground", "background", "killed"))
            reports.append(
                {
                    "user": f"user-{user}",
                    "device": _device(user),
                    "state": state,
                    "unread": number % 9,
                    "at_ms": at_ms + number,
                }
            )
        yield {"app": "bench", "reports": json.dumps(reports)}
