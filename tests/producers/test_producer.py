"""Both producers against a real server: what lands, what is refused, what breaks."""

import asyncio
import os
import signal
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Protocol

import pytest
import redis
import redis.asyncio
from tests.producers.messages import a_message, connections_made, names, stream, until

from pushfleet import (
    AsyncProducer,
    Backpressure,
    BatchReceipt,
    InvalidMessage,
    OfflineMessage,
    Producer,
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
