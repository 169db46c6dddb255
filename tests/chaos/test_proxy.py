"""The proxy before Redis does to connections what scenarios ask of it."""

import threading
import time
from collections.abc import Iterator

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from tests.chaos.processes import until
from tests.chaos.proxy import RedisProxy

from pushfleet_workers.redis_server import EmbeddedRedis


@pytest.fixture
def way(redis_server: EmbeddedRedis) -> Iterator[RedisProxy]:
    with RedisProxy(redis_server.port) as proxy:
        yield proxy


@pytest.fixture
def client(way: RedisProxy, redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(way.url, retry=Retry(NoBackoff(), 0), socket_timeout=10) as client:
        client.ping()
        yield client


def test_it_passes_everything_on(client: redis.Redis) -> None:
    value = b"x" * 3_000_000
    client.set("a", value)
    assert client.get("a") == value
    with client.pipeline() as pipeline:
        for _ in range(500):
            pipeline.incr("n")
        assert pipeline.execute() == list(range(1, 501))


def test_a_reset_breaks_what_is_open_and_nothing_later(way: RedisProxy, client: redis.Redis) -> None:
    connection = client.connection_pool.get_connection()
    connection.send_command("PING")
    assert connection.read_response() == b"PONG"
    assert way.reset() == 1
    with pytest.raises(redis.ConnectionError):
        connection.read_response()
    client.connection_pool.release(connection)
    assert client.ping()


def test_what_is_slow_comes_in_its_order(way: RedisProxy, client: redis.Redis) -> None:
    way.delay_s = 0.05
    began = time.monotonic()
    client.ping()
    assert time.monotonic() - began >= 0.1
    connection = client.connection_pool.get_connection()
    for number in range(20):
        connection.send_command("ECHO", str(number))
        way.delay_s = max(0.0, way.delay_s - 0.005)
    assert [connection.read_response() for _ in range(20)] == [str(number).encode() for number in range(20)]
    client.connection_pool.release(connection)


def test_in_silence_nothing_arrives_and_afterwards_all_of_it(
    way: RedisProxy, client: redis.Redis, redis_client: redis.Redis
) -> None:
    asking = threading.Thread(target=client.set, args=("a", "1"))
    with way.silent():
        asking.start()
        asking.join(0.1)
        assert asking.is_alive()
        assert redis_client.get("a") is None
    asking.join(5)
    assert redis_client.get("a") == b"1"


def test_what_was_asked_by_those_who_gave_up_is_done_after_the_silence(
    way: RedisProxy, client: redis.Redis, redis_client: redis.Redis
) -> None:
    with way.silent():
        connection = client.connection_pool.get_connection()
        connection.send_command("SET", "a", "1")
        connection.disconnect()
        client.connection_pool.release(connection)
    until(lambda: redis_client.get("a") == b"1", what="it is done")
    assert client.ping()
    assert way.reset() == 1, "the other one is closed"


def test_what_is_swallowed_has_been_done(way: RedisProxy, client: redis.Redis, redis_client: redis.Redis) -> None:
    told: list[object] = []

    def ask() -> None:
        try:
            told.append(client.incr("n"))
        except redis.ConnectionError:
            told.append("broken")

    asking = threading.Thread(target=ask)
    with way.swallowing_answers():
        asking.start()
        until(lambda: way.swallowed, what="an answer is swallowed")
        assert redis_client.get("n") == b"1"
    asking.join(5)
    assert told == ["broken"]
    assert client.incr("n") == 2


def test_without_a_server_nobody_gets_through(redis_server: EmbeddedRedis) -> None:
    with (
        RedisProxy(1) as nowhere,
        redis.Redis.from_url(nowhere.url, retry=Retry(NoBackoff(), 0)) as client,
        pytest.raises(redis.ConnectionError),
    ):
        client.ping()
