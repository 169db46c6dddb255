"""Who shares a producer: a ready client, a forked child, threads and tasks; and its end."""

import asyncio
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import redis
import redis.asyncio
from tests.producers.messages import a_message, names, scripts_run, stream, until

from pushfleet import (
    AsyncProducer,
    Backpressure,
    InvalidMessage,
    Producer,
    PushfleetError,
    QueueUnavailable,
    Receipt,
    transfer,
)

# A ready client, the end, other processes


def test_a_ready_client_is_used_and_left_open(redis_url: str, redis_client: redis.Redis) -> None:
    with redis.Redis.from_url(redis_url, decode_responses=True) as ready:
        with Producer(ready) as producer:
            producer.enqueue(a_message(1))
        assert ready.ping()

    async def with_async() -> None:
        async with redis.asyncio.Redis.from_url(redis_url, decode_responses=True) as ready:
            async with AsyncProducer(ready) as producer:
                await producer.enqueue(a_message(2))
            assert await ready.ping()

    asyncio.run(with_async())
    assert names(stream(redis_client, "normal")) == ["m1", "m2"]


def test_the_idle_connections_of_a_ready_client_are_left_to_its_owner(
    redis_url: str, redis_client: redis.Redis
) -> None:
    """Also where the server turned into a replica, and a client of our own would begin anew."""

    async def scenario() -> None:
        async with (
            redis.asyncio.Redis.from_url(redis_url, client_name="owners") as ready,
            AsyncProducer(ready) as producer,
        ):
            some = [await ready.connection_pool.get_connection() for _ in range(3)]
            for one in some:
                await ready.connection_pool.release(one)
            redis_client.replicaof("127.0.0.1", "1")
            with pytest.raises(QueueUnavailable, match="replica"):
                await producer.enqueue(a_message(1))
            assert sum(one["name"] == "owners" for one in redis_client.client_list()) == 3

    try:
        asyncio.run(scenario())
    finally:
        redis_client.replicaof("NO", "ONE")


def test_a_client_of_the_other_kind_is_refused_at_once(redis_url: str) -> None:
    with pytest.raises(TypeError, match=r"a URL or a redis\.Redis, not redis\.asyncio"):
        Producer(redis.asyncio.Redis.from_url(redis_url))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"a URL or a redis\.asyncio\.Redis, not redis\.client"):
        AsyncProducer(redis.Redis.from_url(redis_url))  # type: ignore[arg-type]


def test_a_wrong_setting_is_named(redis_url: str) -> None:
    for producer in (Producer, AsyncProducer):
        with pytest.raises(ValueError, match="memory_mark must be above 0 and at most 1, not 70"):
            producer(redis_url, memory_mark=70)


def test_a_closed_producer_refuses(redis_url: str) -> None:
    producer = Producer(redis_url)
    producer.close()
    producer.close()
    with pytest.raises(QueueUnavailable, match="this Producer is closed"):
        producer.enqueue(a_message())

    async def with_async() -> None:
        producer = AsyncProducer(redis_url)
        await producer.aclose()
        await producer.aclose()
        with pytest.raises(QueueUnavailable, match="this AsyncProducer is closed"):
            await producer.enqueue(a_message())

    asyncio.run(with_async())


def test_closing_within_a_call_lets_the_call_finish(redis_url: str, redis_client: redis.Redis) -> None:
    producer = Producer(redis_url)
    producer.enqueue_many(map(a_message, range(2_000)), on_progress=lambda receipt: producer.close())
    assert redis_client.xlen("pushfleet:{ingress:normal}") == 2_000


def test_an_async_producer_belongs_to_one_event_loop(redis_url: str) -> None:
    producer = AsyncProducer(redis_url)

    async def once() -> None:
        async with producer:
            await producer.enqueue(a_message())

    asyncio.run(once())
    with pytest.raises(PushfleetError, match="belongs to another event loop"):
        asyncio.run(once())


SCRIPT_WITH_A_FORK = """
import os, sys, threading, time
from pushfleet import OfflineMessage, Producer

def enqueue(name):
    producer.enqueue(OfflineMessage(id=name, app="chat", recipients=("bob",)))

producer = Producer(sys.argv[1], linger_ms=200)
enqueue("parent-1")
lingering = threading.Thread(target=enqueue, args=["parent-2"])
lingering.start()
while producer._open is None:
    time.sleep(0.001)
child = os.fork()
enqueue("parent-3" if child else "child")
if child == 0:
    os._exit(0)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_a_forked_child_goes_on_and_leaving_without_close_loses_nothing(
    redis_url: str, redis_client: redis.Redis
) -> None:
    # Forking beside threads is what newer Pythons warn of, and what application servers do.
    warnings = ["-W", "error", "-W", "ignore::DeprecationWarning"]
    done = subprocess.run(
        [sys.executable, *warnings, "-c", SCRIPT_WITH_A_FORK, redis_url],
        capture_output=True,
        text=True,
        check=False,
        timeout=20,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(names(stream(redis_client, "normal"))) == ["child", "parent-1", "parent-2", "parent-3"]


# Many threads and tasks


def test_threads_share_a_producer(redis_url: str, redis_client: redis.Redis) -> None:
    with Producer(redis_url) as producer, ThreadPoolExecutor(40) as pool:
        receipts = list(pool.map(lambda number: producer.enqueue(a_message(number)), range(400)))
    assert [receipt.id for receipt in receipts] == [f"m{number}" for number in range(400)]
    assert sorted(names(stream(redis_client, "normal"))) == sorted(receipt.id for receipt in receipts)


def test_threads_that_linger_share_a_round_trip_and_each_gets_its_own_answer(
    redis_url: str, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer, "_SCRIPT_ENTRIES", 20)
    kinds = {3: "marketing", 7: "call"}
    before = scripts_run(redis_client)
    with Producer(redis_url, ingress_max=100, linger_ms=10_000) as producer, ThreadPoolExecutor(21) as pool:
        redis_client.eval(
            "for i = 1, 100 do redis.call('XADD', KEYS[1], '*', 'v', '1', 'm', '{}') end", 1, "pushfleet:{ingress:bulk}"
        )
        bad = pool.submit(producer.enqueue, a_message(99, ttl_s=-1))
        futures = [
            pool.submit(producer.enqueue, a_message(number, kind=kinds.get(number, "chat"))) for number in range(20)
        ]
        with pytest.raises(InvalidMessage):
            bad.result()
        with pytest.raises(Backpressure, match="bulk"):
            futures.pop(3).result()
        assert {future.result().lane for future in futures} == {"normal", "urgent"}
    # One for each lane; the first of them was sent twice if the server did not know the script yet.
    assert scripts_run(redis_client) - before in (3, 6)
    assert len(stream(redis_client, "normal")) == 18


def test_a_lone_thread_waits_no_longer_than_its_linger(redis_url: str) -> None:
    with Producer(redis_url, linger_ms=5) as producer:
        assert producer.enqueue(a_message(1)).id == "m1"
        assert producer.enqueue(a_message(2)).id == "m2"


def test_close_sends_what_lingers_at_once(redis_url: str, redis_client: redis.Redis) -> None:
    with ThreadPoolExecutor(2) as pool:
        producer = Producer(redis_url, linger_ms=10_000)
        lingering = [pool.submit(producer.enqueue, a_message(number)) for number in range(2)]
        until(lambda: producer._open is not None and len(producer._open.batch) == 2)
        producer.close()
        assert {future.result(timeout=5).id for future in lingering} == {"m0", "m1"}
    assert redis_client.xlen("pushfleet:{ingress:normal}") == 2


def test_followers_of_an_interrupted_leader_are_told(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    entered = threading.Event()

    def interrupted(self: Producer, steps: object) -> None:
        entered.set()
        raise KeyboardInterrupt

    monkeypatch.setattr(transfer, "_SCRIPT_ENTRIES", 2)
    monkeypatch.setattr(Producer, "_drive", interrupted)
    with Producer(redis_url, linger_ms=10_000) as producer, ThreadPoolExecutor(2) as pool:
        leader = pool.submit(producer.enqueue, a_message(1))
        until(lambda: producer._open is not None)
        follower = pool.submit(producer.enqueue, a_message(2))
        with pytest.raises(QueueUnavailable, match="interrupted"):
            follower.result(timeout=5)
        with pytest.raises(KeyboardInterrupt):
            leader.result(timeout=5)
    assert entered.is_set()


def test_tasks_that_linger_share_a_round_trip_and_each_gets_its_own_answer(
    redis_url: str, redis_client: redis.Redis
) -> None:
    redis_client.script_flush()
    before = scripts_run(redis_client)

    async def go() -> list[Any]:
        async with AsyncProducer(redis_url, linger_ms=5) as producer:
            messages = [a_message(number, ttl_s=-1 if number == 13 else None) for number in range(100)]
            return await asyncio.gather(*map(producer.enqueue, messages), return_exceptions=True)

    results = asyncio.run(go())
    assert isinstance(results.pop(13), InvalidMessage)
    assert [result.id for result in results] == [f"m{number}" for number in range(100) if number != 13]
    # The first run of a script that the server does not know yet counts as well.
    assert scripts_run(redis_client) - before == 2
    assert redis_client.xlen("pushfleet:{ingress:normal}") == 99


def test_a_cancelled_task_does_not_take_along_those_it_lingers_with(redis_url: str, redis_client: redis.Redis) -> None:
    async def go() -> Receipt:
        async with AsyncProducer(redis_url, linger_ms=10_000) as producer:
            first = asyncio.create_task(producer.enqueue(a_message(1)))
            second = asyncio.create_task(producer.enqueue(a_message(2)))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            first.cancel()
            with pytest.raises(asyncio.CancelledError):
                await first
            async with asyncio.timeout(5):
                await producer.aclose()
                return await second

    assert asyncio.run(go()).id == "m2"
    assert names(stream(redis_client, "normal")) == ["m1", "m2"]


def test_a_call_cancelled_while_redis_is_silent_leaves_the_producer_usable(
    redis_url: str, redis_client: redis.Redis
) -> None:
    async def go() -> None:
        async with AsyncProducer(redis_url, memory_mark=1.0) as producer:
            await producer.enqueue(a_message(1))
            redis_client.client_pause(60_000, all=False)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(producer.enqueue(a_message(2)), 0.05)
            redis_client.client_unpause()
            for number in range(3, 6):
                assert (await producer.enqueue(a_message(number))).id == f"m{number}"

    try:
        asyncio.run(go())
    finally:
        redis_client.client_unpause()
    assert {"m1", "m3", "m4", "m5"} <= set(names(stream(redis_client, "normal")))


def test_a_hundred_tasks_at_once_wait_for_a_free_connection(redis_url: str, redis_client: redis.Redis) -> None:
    async def go() -> None:
        async with AsyncProducer(redis_url) as producer:
            await asyncio.gather(*(producer.enqueue(a_message(number)) for number in range(100)))

    asyncio.run(go())
    assert len(set(names(stream(redis_client, "normal")))) == 100


def test_an_event_loop_turns_while_a_large_call_is_prepared(redis_url: str) -> None:
    async def go() -> int:
        turns = 0

        async def tick() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        async with AsyncProducer(redis_url) as producer:
            ticking = asyncio.create_task(tick())
            await producer.enqueue_many(map(a_message, range(2_000)))
            await producer.enqueue(a_message(1, people=50_000))
            ticking.cancel()
        return turns

    assert asyncio.run(go()) >= 15
