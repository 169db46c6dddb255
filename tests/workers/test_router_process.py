"""The router as a process: what it takes over, survives and refuses, and how it ends."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import redis
from tests.workers.commands import (
    NOTHING_LISTENS,
    apns_account,
    old_redis,
    pushfleet,
    refusal,
    settings_file,
    started,
    until,
)
from tests.workers.routing import PREFIX, Stage, chat, now_ms, settings, staged

from pushfleet import Producer
from pushfleet.message import LANES
from pushfleet_workers import clock, router_process
from pushfleet_workers.audit import accounts_key
from pushfleet_workers.errors import FleetError
from pushfleet_workers.ingress import GROUP, IngressStream, Raw
from pushfleet_workers.ledger import AccountKeys
from pushfleet_workers.ledger.keys import MARK_BUCKET_MS
from pushfleet_workers.redis_link import LinkLost, ReplyError
from pushfleet_workers.router import Router
from pushfleet_workers.router_process import run_router


@asynccontextmanager
async def routing(stage: Stage) -> AsyncIterator[None]:
    """A router process, but in this one."""
    stop = asyncio.Event()
    process = asyncio.create_task(run_router(stage.settings, stop))
    try:
        yield
    finally:
        stop.set()
        await process


async def until_true(condition: Callable[[], Awaitable[bool]], timeout_s: float = 10) -> None:
    async with asyncio.timeout(timeout_s):
        while not await condition():
            await asyncio.sleep(0.02)


async def until_put(stage: Stage, number: int) -> None:
    async def all_there() -> bool:
        return len(await stage.deliveries()) >= number

    await until_true(all_there)


def with_router(url: str, scenario: Callable[[Stage], Awaitable[None]], **router: Any) -> None:
    async def run() -> None:
        async with staged(settings(url, router=router)) as stage:
            await stage.device()
            await scenario(stage)

    asyncio.run(run())


@pytest.fixture(autouse=True)
def at_home_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is quick to stop, and leaves the collector of this process alone."""
    monkeypatch.setattr(router_process, "_READ_WAIT_MS", 100)
    monkeypatch.setattr(router_process, "calm_the_collector", lambda: None)


# ---- what it does


def test_it_routes_all_lanes_and_publishes_a_trigger(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        async with routing(stage):
            stage.enqueue(chat("m1"), chat("m2", kind="mention"), chat("m3", kind="marketing"))
            await until_put(stage, 3)

            async def triggered() -> bool:
                return bool(await stage.queue.call("LLEN", f"{PREFIX}:celery:push.apns"))

            await until_true(triggered)
        assert [entry.lane for entry in await stage.entries()] == ["urgent", "normal", "bulk"]
        assert await stage.joined()

    with_router(redis_url, scenario)


def test_it_takes_over_what_a_dead_router_had_in_hand(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        messages = [chat(f"m{number}") for number in range(250)]
        stage.enqueue(*messages)
        dead = await stage.read()
        await stage.put_and_die(*dead[:10])
        async with routing(stage):
            await until_put(stage, 250)

            async def done() -> bool:
                return bool((await stage.books()).pending == 250)

            await until_true(done)
        assert len(await stage.deliveries()) == 250
        assert (await stage.books()).lanes["normal"].routed == 250
        assert await stage.joined()

    with_router(redis_url, scenario, takeover_s=0.1)


def test_it_heals_after_redis_was_flushed(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        async with routing(stage):
            stage.enqueue(chat("m1"))
            await until_put(stage, 1)
            await stage.queue.call("FLUSHALL")
            await stage.queue.call("SCRIPT", "FLUSH")
            await stage.device()
            stage.enqueue(chat("m2"))
            await until_put(stage, 1)
        assert [entry.parcel.push.message_id for entry in await stage.entries()] == ["m2"]
        assert await stage.joined()

    with_router(redis_url, scenario)


def broken(monkeypatch: pytest.MonkeyPatch, problem: Exception, *, times: int, marked: str = "") -> list[list[Raw]]:
    """Routing fails *times* for batches with *marked* in them; gives the batches it was asked for."""
    asked: list[list[Raw]] = []
    route = Router.route

    async def fail(router: Router, stream: IngressStream, raws: Sequence[Raw]) -> None:
        asked.append(list(raws))
        if any(marked.encode() in raw.fields[b"m"] for raw in raws) and len(asked) <= times:
            raise problem
        await route(router, stream, raws)

    monkeypatch.setattr(Router, "route", fail)
    return asked


@pytest.mark.parametrize("problem", [LinkLost("gone"), ReplyError("OOM command not allowed")])
def test_a_batch_that_redis_broke_is_done_again_soon(
    redis_url: str, monkeypatch: pytest.MonkeyPatch, problem: Exception
) -> None:
    asked = broken(monkeypatch, problem, times=1)

    async def scenario(stage: Stage) -> None:
        async with routing(stage):
            stage.enqueue(chat("m1"))
            await until_put(stage, 1)
        first, second = asked
        assert [raw.id for raw in first] == [raw.id for raw in second]
        assert [raw.again for raw in first + second] == [False, True], "part of it may have been put"
        assert await stage.joined()

    with_router(redis_url, scenario, takeover_s=60)


def test_a_batch_that_never_gets_through_does_not_hold_up_the_lane(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken(monkeypatch, ReplyError("WRONGTYPE of some account's key"), times=1_000_000, marked="stuck")

    async def scenario(stage: Stage) -> None:
        async with routing(stage):
            stage.enqueue(chat("stuck"))

            async def in_hand() -> bool:
                return bool((await stage.queue.call("XPENDING", stage.streams["normal"].keys.stream, GROUP))[0])

            await until_true(in_hand)
            stage.enqueue(chat("m1"))
            await until_put(stage, 1)
        assert (await stage.books()).lanes["normal"].present == 1, "it waits for better times"

    with_router(redis_url, scenario, takeover_s=0.2, readers=1)


def test_its_own_clock_may_be_wrong(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = SimpleNamespace(time=lambda: now_ms() / 1000 + 3_600)
    monkeypatch.setattr(clock, "time", wrong)

    async def scenario(stage: Stage) -> None:
        async with routing(stage):
            stage.enqueue(chat("m1", kind="call", body=None))
            await until_put(stage, 1)
        assert await stage.suppressed() == {}

    with_router(redis_url, scenario)


def test_an_urgent_entry_does_not_wait_for_those_before_it_in_other_lanes(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        with Producer(redis_url, prefix=PREFIX) as producer:
            producer.enqueue_many([chat(f"b{number}", lane="bulk") for number in range(2_000)])
            producer.enqueue_many([chat(f"n{number}") for number in range(8_000)])
            producer.enqueue(chat("now", kind="mention"))
        books = {lane: stage.streams[lane].keys.books for lane in LANES}  # type: ignore[index]

        async def routed(lane: str) -> int:
            return int(await stage.queue.call("HGET", books[lane], "routed") or 0)

        async def urgent_routed() -> bool:
            return await routed("urgent") == 1

        async with routing(stage):
            await until_true(urgent_routed)
            assert await routed("normal") < 8_000
            assert await routed("bulk") < 2_000

    with_router(redis_url, scenario)


def test_it_forgets_markers_that_nobody_can_ask_for_any_more(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        account = AccountKeys(PREFIX, "apns", "main")
        ingress = stage.streams["normal"].keys
        bucket = now_ms() // MARK_BUCKET_MS
        for keys in (account, ingress):
            for one in (bucket, bucket - 1, bucket - 4):
                await stage.queue.call("HSET", keys.marks(one), "part", 1)
                await stage.queue.call("ZADD", keys.mark_index, one, one)

        async def trimmed() -> bool:
            old = [keys.marks(bucket - 4) for keys in (account, ingress)]
            return bool(await stage.queue.call("EXISTS", *old) == 0)

        async with routing(stage):
            await until_true(trimmed)
        kept = [keys.marks(one) for keys in (account, ingress) for one in (bucket, bucket - 1)]
        assert await stage.queue.call("EXISTS", *kept) == 4

    with_router(redis_url, scenario)


def test_it_forgets_letters_that_nobody_came_for_those_of_accounts_that_are_gone_as_well(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        gone = AccountKeys(PREFIX, "fcm", "gone")
        await stage.queue.call("SADD", accounts_key(PREFIX), "fcm:gone")
        streams = [AccountKeys(PREFIX, "apns", "main").dead, gone.dead, stage.streams["bulk"].keys.refused]
        kept_ms = stage.settings.dead_letters.kept_ms
        for stream in streams:
            for age_ms in (kept_ms + 1_000, kept_ms - 60_000):
                await stage.queue.call("XADD", stream, f"{now_ms() - age_ms}-0", "reason", "x")

        async def trimmed() -> bool:
            return [await stage.queue.call("XLEN", stream) for stream in streams] == [1, 1, 1]

        async with routing(stage):
            await until_true(trimmed)

    with_router(redis_url, scenario)


# ---- what it refuses, and what it warns of


def test_without_redis_it_says_one_sentence(tmp_path: Path) -> None:
    settings_file(tmp_path, NOTHING_LISTENS)
    said = refusal(pushfleet("router", folder=tmp_path))
    assert said.startswith("Redis at 127.0.0.1:1/0 cannot be reached")


def test_without_the_token_states_redis_as_well(redis_url: str, tmp_path: Path) -> None:
    settings_file(tmp_path, redis_url)
    assert "127.0.0.1:1/5" in refusal(
        pushfleet("router", folder=tmp_path, PUSHFLEET_REDIS__STATE="redis://127.0.0.1:1/5")
    )


@pytest.mark.parametrize(
    ("info", "told"),
    [
        ("# Server\r\nredis_version:6.2.14\r\n", "redis 6.2"),
        ("# Server\r\nredis_version:7.2.4\r\nserver_name:valkey\r\nvalkey_version:7.1.9\r\n", "valkey 7.1"),
    ],
)
def test_below_the_floor_it_says_one_sentence(tmp_path: Path, info: str, told: str) -> None:
    with old_redis(info) as url:
        settings_file(tmp_path, url)
        said = refusal(pushfleet("router", folder=tmp_path))
    assert said.startswith(told)
    assert "Redis 7.0 or Valkey 7.2" in said


def test_a_taken_metrics_port_is_one_sentence(redis_url: str, tmp_path: Path) -> None:
    settings_file(tmp_path, redis_url)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        said = refusal(pushfleet("router", folder=tmp_path, PUSHFLEET_METRICS__PORT=port))
    assert f"127.0.0.1:{port}" in said
    assert "metrics.port" in said


def test_a_prepare_that_fails_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        with pytest.raises(FleetError):
            await run_router(settings(NOTHING_LISTENS), asyncio.Event())
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(scenario())


def test_a_redis_that_evicts_is_warned_of(redis_url: str, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.queue.call("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
        try:
            async with routing(stage):
                stage.enqueue(chat())
                await until_put(stage, 1)
        finally:
            await stage.queue.call("CONFIG", "SET", "maxmemory-policy", "noeviction")

    with_router(redis_url, scenario)
    assert "CONFIG SET maxmemory-policy noeviction" in caplog.text


# ---- how it ends


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_with_its_batches_done(redis_url: str, tmp_path: Path, number: signal.Signals) -> None:
    settings_file(tmp_path, redis_url, *apns_account())
    with (
        started("router", folder=tmp_path) as process,
        redis.Redis.from_url(redis_url) as client,
        Producer(redis_url, prefix=PREFIX) as producer,
    ):
        producer.enqueue_many([chat(f"m{number}", *[f"u{n}" for n in range(20)]) for number in range(3_000)])
        until(lambda: client.hget(f"{PREFIX}:{{ingress:normal}}:books", "routed"))
        process.send_signal(number)
        assert process.wait(20) == 0, (tmp_path / "output.log").read_text()
        pending: Any = client.xpending(f"{PREFIX}:{{ingress:normal}}", GROUP)
        assert pending["pending"] == 0
        left = client.xlen(f"{PREFIX}:{{ingress:normal}}")
        routed = int(client.hget(f"{PREFIX}:{{ingress:normal}}:books", "routed") or 0)
        assert routed + left == 3_000
    assert "Traceback" not in (tmp_path / "output.log").read_text()
