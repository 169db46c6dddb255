"""Both producers against a real server."""

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

import pytest
import redis
import redis.asyncio

from pushfleet import (
    AsyncProducer,
    Backpressure,
    BatchReceipt,
    InvalidMessage,
    OfflineMessage,
    Producer,
    PushfleetError,
    QueueUnavailable,
    Receipt,
    transfer,
    wire,
)
from pushfleet_workers.redis_server import EmbeddedRedis, free_port


class Door(Protocol):
    """A producer of either kind, called without await."""

    def enqueue(self, message: OfflineMessage) -> Receipt: ...

    def enqueue_many(
        self, messages: Iterable[OfflineMessage], *, on_progress: Callable[[BatchReceipt], object] | None = None
    ) -> BatchReceipt: ...

    def close(self) -> None: ...


class AsyncDoor:
    def __init__(self, url: str, **settings: Any) -> None:
        self._runner = asyncio.Runner()
        self._producer = AsyncProducer(url, **settings)

    def enqueue(self, message: OfflineMessage) -> Receipt:
        return self._runner.run(self._producer.enqueue(message))

    def enqueue_many(
        self, messages: Iterable[OfflineMessage], *, on_progress: Callable[[BatchReceipt], object] | None = None
    ) -> BatchReceipt:
        return self._runner.run(self._producer.enqueue_many(messages, on_progress=on_progress))

    def close(self) -> None:
        self._runner.run(self._producer.aclose())
        self._runner.close()


Opener = Callable[..., Door]


@pytest.fixture(params=["sync", "async"])
def opened(request: pytest.FixtureRequest) -> Iterator[Opener]:
    """Makes producers of one kind, and closes them."""
    doors: list[Door] = []

    def make(url: str, **settings: Any) -> Door:
        door: Door = Producer(url, **settings) if request.param == "sync" else AsyncDoor(url, **settings)
        doors.append(door)
        return door

    yield make
    for door in doors:
        door.close()


@pytest.fixture(scope="module")
def own_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedRedis]:
    """A server whose settings a test may change."""
    with EmbeddedRedis(Path(tmp_path_factory.mktemp("own"))) as server:
        yield server


@pytest.fixture
def own_client(own_server: EmbeddedRedis) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(own_server.url) as client:
        client.flushall()
        yield client
        client.replicaof("NO", "ONE")
        client.config_set("maxmemory", 0)


@pytest.fixture
def mortal_server(tmp_path: Path) -> Iterator[EmbeddedRedis]:
    """A server that a test may kill; what it confirmed is on disk."""
    with EmbeddedRedis(tmp_path, config={"appendfsync": "always"}) as server:
        yield server


def a_message(number: int = 0, *, kind: Any = "chat", people: int = 1, **fields: Any) -> OfflineMessage:
    users = tuple(f"u{one}" for one in range(people))
    return OfflineMessage(id=f"m{number}", app="chat", kind=kind, recipients=users, body="Lunch?", **fields)


def stream(client: redis.Redis, lane: Any) -> list[OfflineMessage]:
    entries: Any = client.xrange(wire.ingress_key("pushfleet", lane))
    assert all(set(fields) == {b"v", b"m"} and fields[b"v"] == b"1" for _, fields in entries)
    return [wire.decode(fields[b"m"]) for _, fields in entries]


def names(messages: Iterable[OfflineMessage]) -> list[str]:
    return [message.id for message in messages]


def scripts_run(client: redis.Redis) -> int:
    stats: Any = client.info("commandstats")
    return int(stats.get("cmdstat_evalsha", {}).get("calls", 0))


def connections_made(client: redis.Redis) -> int:
    stats: Any = client.info("stats")
    return int(stats["total_connections_received"])


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.002)


# What lies in the stream afterwards


def test_a_message_lies_in_the_stream_of_its_lane_as_the_contract_says(
    opened: Opener, redis_url: str, redis_client: redis.Redis
) -> None:
    message = a_message(1, kind="mention")
    assert opened(redis_url).enqueue(message) == Receipt(id="m1", lane="urgent", parts=1)
    found: Any = redis_client.xrange("pushfleet:{ingress:urgent}")
    ((_, fields),) = found
    assert fields == {
        b"v": b"1",
        b"m": b'{"id":"m1","app":"chat","kind":"mention","recipients":["u0"],"body":"Lunch?"}',
    }


def test_the_prefix_is_the_callers(opened: Opener, redis_url: str, redis_client: redis.Redis) -> None:
    opened(redis_url, prefix="im-eu").enqueue(a_message())
    assert redis_client.keys() == [b"im-eu:{ingress:normal}"]


def test_many_messages_keep_their_order_within_a_lane(
    opened: Opener, redis_url: str, redis_client: redis.Redis
) -> None:
    kinds = ["chat", "call", "marketing"]
    messages = [a_message(number, kind=kinds[number % 3], people=1 + number % 2) for number in range(3_000)]
    progress: list[BatchReceipt] = []

    receipt = opened(redis_url).enqueue_many(iter(messages), on_progress=progress.append)

    assert receipt == BatchReceipt(messages=3_000, parts=3_000, recipients=4_500)
    assert stream(redis_client, "normal") == messages[0::3]
    assert stream(redis_client, "urgent") == messages[1::3]
    assert stream(redis_client, "bulk") == messages[2::3]
    assert len(progress) > 1
    assert progress[-1] == receipt
    assert [one.messages for one in progress] == sorted(one.messages for one in progress)


def test_a_large_message_travels_in_parts_that_a_repeat_makes_again(
    opened: Opener, redis_url: str, redis_client: redis.Redis
) -> None:
    door = opened(redis_url)
    message = a_message(1, people=1_234)
    assert door.enqueue(message) == Receipt(id="m1", lane="bulk", parts=3)
    assert door.enqueue_many([message]) == BatchReceipt(messages=1, parts=3, recipients=1_234)
    entries = stream(redis_client, "bulk")
    assert [(entry.part, len(entry.recipients), entry.lane) for entry in entries[:3]] == [
        (0, 500, "bulk"),
        (1, 500, "bulk"),
        (2, 234, "bulk"),
    ]
    assert Counter(map(wire.part_id, entries)) == {wire.part_id(part): 2 for part in wire.parts(message)}


def test_nothing_to_enqueue_is_no_error(opened: Opener, redis_url: str, redis_client: redis.Redis) -> None:
    assert opened(redis_url).enqueue_many([]) == BatchReceipt()
    assert redis_client.keys() == []


def test_one_bad_message_refuses_the_whole_call(opened: Opener, redis_url: str, redis_client: redis.Redis) -> None:
    messages = [a_message(number) for number in range(9_000)]
    messages[8_123] = a_message(8_123, ttl_s=-5)
    with pytest.raises(InvalidMessage, match=r"^messages\[8123\]: .*`int` >= 0 - at `\$\.ttl_s`$") as problem:
        opened(redis_url).enqueue_many(messages)
    assert problem.value.index == 8_123
    assert redis_client.keys() == []


def test_a_bad_single_message_is_refused(opened: Opener, redis_url: str, redis_client: redis.Redis) -> None:
    with pytest.raises(InvalidMessage, match=r"^not an OfflineMessage: Invalid enum value 'telegram'"):
        opened(redis_url).enqueue(a_message(kind="telegram"))
    assert redis_client.keys() == []


def test_an_error_of_the_callers_own_iterable_or_callback_reaches_the_caller(opened: Opener, redis_url: str) -> None:
    def broken() -> Iterator[OfflineMessage]:
        yield a_message()
        raise OSError("my file")

    def on_progress(receipt: BatchReceipt) -> None:
        raise BrokenPipeError("my terminal")

    door = opened(redis_url)
    with pytest.raises(OSError, match="my file"):
        door.enqueue_many(broken())
    with pytest.raises(BrokenPipeError, match="my terminal"):
        door.enqueue_many([a_message()], on_progress=on_progress)
    assert door.enqueue(a_message(2)).id == "m2"


# Backpressure


def test_a_stream_at_its_length_refuses_its_lane_only(
    opened: Opener, redis_url: str, redis_client: redis.Redis
) -> None:
    door = opened(redis_url, ingress_max=4)
    door.enqueue_many(map(a_message, range(4)))
    with pytest.raises(Backpressure, match=r"pushfleet:\{ingress:normal\} holds 4 entries") as problem:
        door.enqueue(a_message(5))
    assert problem.value.accepted == ()
    assert door.enqueue(a_message(6, kind="call")).lane == "urgent"
    assert names(stream(redis_client, "normal")) == ["m0", "m1", "m2", "m3"]


def test_what_got_in_before_the_stream_was_full_is_told(
    opened: Opener, redis_url: str, redis_client: redis.Redis
) -> None:
    door = opened(redis_url, ingress_max=500)
    with pytest.raises(Backpressure, match="holds 400 entries and has no room for 200 more") as problem:
        door.enqueue_many(a_message(number, kind="call" if number == 600 else "chat") for number in range(601))
    assert names(stream(redis_client, "normal")) == [f"m{number}" for number in range(400)]
    assert problem.value.accepted == (*(f"m{number}" for number in range(400)), "m600")
    assert names(stream(redis_client, "urgent")) == ["m600"]


def test_a_large_message_gets_in_whole_or_not_at_all(
    opened: Opener, redis_url: str, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer, "_SCRIPT_ENTRIES", 2)
    door = opened(redis_url, ingress_max=6)
    door.enqueue_many(a_message(number, kind="marketing") for number in range(3))
    with pytest.raises(Backpressure, match="holds 3 entries and has no room for 4 more"):
        door.enqueue(a_message(9, people=1_800))
    assert redis_client.xlen("pushfleet:{ingress:bulk}") == 3
    assert door.enqueue(a_message(9, people=1_500)).parts == 3


def test_a_full_memory_refuses_before_redis_has_to(
    opened: Opener, own_server: EmbeddedRedis, own_client: redis.Redis
) -> None:
    used = int(own_client.info("memory")["used_memory"])
    own_client.config_set("maxmemory", int(used * 1.25))
    with pytest.raises(Backpressure, match=r"Redis uses \d+% of its maxmemory, the mark is 70%"):
        opened(own_server.url).enqueue(a_message())
    assert opened(own_server.url, memory_mark=0.99).enqueue(a_message()).parts == 1


def test_a_server_out_of_memory_is_backpressure_too(
    opened: Opener, own_server: EmbeddedRedis, own_client: redis.Redis
) -> None:
    own_client.config_set("maxmemory", 1_000_000)
    with pytest.raises(Backpressure, match="Redis is out of memory") as problem:
        opened(own_server.url, memory_mark=1.0).enqueue_many([a_message(1), a_message(2, kind="call")])
    assert problem.value.accepted == ()
    assert own_client.keys() == []


# Redis in trouble


def test_an_unreachable_redis_is_one_clear_error(opened: Opener) -> None:
    door = opened(f"redis://127.0.0.1:{free_port()}/0")
    with pytest.raises(QueueUnavailable, match="Redis could not be reached") as problem:
        door.enqueue(a_message())
    assert problem.value.accepted == ()
    with pytest.raises(QueueUnavailable):
        door.enqueue_many([a_message()])


def test_a_password_never_shows(opened: Opener) -> None:
    door = opened(f"redis://fleet:s3cret@127.0.0.1:{free_port()}/0")
    with pytest.raises(QueueUnavailable) as problem:
        door.enqueue(a_message())
    assert "s3cret" not in f"{problem.value}{problem.value.__cause__}{door!r}"


def test_what_a_killed_redis_had_confirmed_is_there_and_repeating_brings_the_rest(
    opened: Opener, mortal_server: EmbeddedRedis
) -> None:
    door = opened(mortal_server.url)
    messages = [a_message(number, kind="marketing" if number % 2 else "chat") for number in range(4_000)]

    def kill_in_mid_call(receipt: BatchReceipt) -> None:
        if receipt.messages == 1_600:
            mortal_server.kill()

    with pytest.raises(QueueUnavailable) as problem:
        door.enqueue_many(messages, on_progress=kill_in_mid_call)

    mortal_server.start()
    with redis.Redis.from_url(mortal_server.url) as client:
        there = names(stream(client, "normal")) + names(stream(client, "bulk"))
        assert sorted(problem.value.accepted) == sorted(there)
        assert len(there) == 1_600
        door.enqueue_many(messages)
        entries = stream(client, "normal") + stream(client, "bulk")
    assert set(map(wire.part_id, entries)) == set(map(wire.part_id, messages))


def test_a_redis_that_does_not_answer_in_time_may_have_the_message_all_the_same(
    opened: Opener, mortal_server: EmbeddedRedis
) -> None:
    door = opened(mortal_server.url, socket_timeout_s=0.25, memory_mark=1.0)
    door.enqueue(a_message(1))
    os.kill(mortal_server.pid, signal.SIGSTOP)
    try:
        with pytest.raises(QueueUnavailable, match="may be in the queue all the same, repeating it is safe") as problem:
            door.enqueue(a_message(2))
    finally:
        os.kill(mortal_server.pid, signal.SIGCONT)
    assert problem.value.accepted == ()
    with redis.Redis.from_url(mortal_server.url) as client:
        until(lambda: "m2" in names(stream(client, "normal")))
        door.enqueue(a_message(2))
        assert set(map(wire.part_id, stream(client, "normal"))) == {wire.part_id(a_message(n)) for n in (1, 2)}


def test_a_connection_that_was_cut_is_made_anew(opened: Opener, redis_url: str, redis_client: redis.Redis) -> None:
    door = opened(redis_url)
    door.enqueue(a_message(1))
    redis_client.client_kill_filter(_type="normal", skipme=True)
    door.enqueue(a_message(2))
    assert names(stream(redis_client, "normal")) == ["m1", "m2"]


def test_a_server_that_lost_the_script_gets_it_again(opened: Opener, redis_url: str, redis_client: redis.Redis) -> None:
    door = opened(redis_url)
    door.enqueue(a_message(1))
    redis_client.script_flush()
    door.enqueue_many([a_message(2), a_message(3, kind="call")])
    assert names(stream(redis_client, "normal")) == ["m1", "m2"]


def test_a_demoted_master_is_an_error_until_it_is_master_again(
    opened: Opener, own_server: EmbeddedRedis, own_client: redis.Redis
) -> None:
    door = opened(own_server.url)
    door.enqueue(a_message(1))
    own_client.replicaof("127.0.0.1", str(free_port()))
    before = connections_made(own_client)
    with pytest.raises(QueueUnavailable, match="the server has become a replica"):
        door.enqueue(a_message(2))
    # The address may lead to another server by now: the second try dialled anew.
    assert connections_made(own_client) > before
    own_client.replicaof("NO", "ONE")
    door.enqueue(a_message(2))
    assert names(stream(own_client, "normal")) == ["m1", "m2"]


def test_a_user_without_the_rights_is_told_which_ones(
    opened: Opener, own_server: EmbeddedRedis, own_client: redis.Redis
) -> None:
    own_client.acl_setuser("weak", enabled=True, nopass=True, keys=["*"], commands=["+ping", "+client", "+hello"])
    url = own_server.url.replace("redis://", "redis://weak:x@")
    with pytest.raises(QueueUnavailable, match=r"the Redis user needs \+evalsha \+script\|load \+xadd \+xlen \+info"):
        opened(url).enqueue(a_message())


def test_the_rights_that_the_error_names_are_enough(
    opened: Opener, own_server: EmbeddedRedis, own_client: redis.Redis
) -> None:
    rights = ["+evalsha", "+script|load", "+xadd", "+xlen", "+info", "+client", "+hello", "+ping"]
    own_client.acl_setuser("enough", enabled=True, nopass=True, keys=["pushfleet:*"], commands=rights)
    assert opened(own_server.url.replace("redis://", "redis://enough:x@")).enqueue(a_message()).parts == 1


def test_a_key_of_another_type_is_refused_with_redis_words(
    opened: Opener, redis_url: str, redis_client: redis.Redis
) -> None:
    redis_client.set("pushfleet:{ingress:normal}", "x")
    with pytest.raises(QueueUnavailable, match=r"Redis refused: .*WRONGTYPE"):
        opened(redis_url).enqueue(a_message())


def test_without_the_replicas_asked_for_accepted_is_not_said(
    opened: Opener, redis_url: str, redis_client: redis.Redis
) -> None:
    door = opened(redis_url, wait_replicas=1, wait_timeout_ms=10)
    with pytest.raises(QueueUnavailable, match="0 of 1 replicas confirmed within 10 ms") as problem:
        door.enqueue_many([a_message(1)])
    assert problem.value.accepted == ()
    assert names(stream(redis_client, "normal")) == ["m1"]


def test_a_replica_that_confirms_makes_a_receipt(tmp_path: Path, opened: Opener) -> None:
    with (
        EmbeddedRedis(tmp_path / "master", config={"repl-diskless-sync-delay": "0"}) as master,
        EmbeddedRedis(tmp_path / "replica") as replica,
        redis.Redis.from_url(replica.url) as client,
    ):
        client.replicaof("127.0.0.1", str(master.port))
        until(lambda: client.info("replication")["master_link_status"] == "up")
        opened(master.url, wait_replicas=1, wait_timeout_ms=4_000).enqueue(a_message(1))
        assert names(stream(client, "normal")) == ["m1"]


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
