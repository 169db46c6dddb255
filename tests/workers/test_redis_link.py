import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Awaitable, Callable, Iterator
from hashlib import sha1
from pathlib import Path

import pytest
import redis
from tests.workers.doubles import until

from pushfleet_workers import redis_link
from pushfleet_workers.errors import RedisUnusable
from pushfleet_workers.redis_address import RedisAddress
from pushfleet_workers.redis_link import Link, LinkLost, ReplyError
from pushfleet_workers.redis_server import EmbeddedRedis, free_port
from pushfleet_workers.scripts import Script

SECRET = "s3cret/with:odd@signs"


def a_script(text: str) -> Script:
    return Script("made-up", text, sha1(text.encode()).hexdigest())


def on_link(url: str, scenario: Callable[[Link], Awaitable[None]], **options: float) -> None:
    async def run() -> None:
        link = Link(url, **options)  # type: ignore[arg-type]
        try:
            await scenario(link)
        finally:
            await link.close()

    asyncio.run(run())


@pytest.fixture
def server(tmp_path: Path) -> Iterator[EmbeddedRedis]:
    """A server that a test may stop, freeze and kill."""
    socket = tmp_path / "redis.sock"
    with EmbeddedRedis(tmp_path, config={"appendfsync": "always", "unixsocket": str(socket)}) as one:
        yield one


@contextlib.contextmanager
def frozen(server: EmbeddedRedis) -> Iterator[None]:
    os.kill(server.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(server.pid, signal.SIGCONT)


# ---- addresses


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://", ("127.0.0.1", 6379, "", "", "", 0, False)),
        ("redis://example.com:7000/3", ("example.com", 7000, "", "", "", 3, False)),
        ("redis://example.com?db=4", ("example.com", 6379, "", "", "", 4, False)),
        ("redis://:pw@h/", ("h", 6379, "", "", "pw", 0, False)),
        ("redis://me:p%40%2Fw@h:1/2", ("h", 1, "", "me", "p@/w", 2, False)),
        ("redis://[::1]:7000", ("::1", 7000, "", "", "", 0, False)),
        ("rediss://h:6380", ("h", 6380, "", "", "", 0, True)),
        ("unix:///run/redis.sock?db=5", ("127.0.0.1", 6379, "/run/redis.sock", "", "", 5, False)),
        ("unix:///run/my%20redis.sock", ("127.0.0.1", 6379, "/run/my redis.sock", "", "", 0, False)),
        ("unix://me:pw@/run/redis.sock", ("127.0.0.1", 6379, "/run/redis.sock", "me", "pw", 0, False)),
    ],
)
def test_an_address_is_read_from_its_url(url: str, expected: tuple[object, ...]) -> None:
    address = RedisAddress.from_url(url)
    read = (address.host, address.port, address.path, address.username, address.password, address.database, address.tls)
    assert read == expected
    assert not address.password or address.password not in address.shown


def test_the_authorities_of_a_tls_server_are_named_in_the_url() -> None:
    assert RedisAddress.from_url("rediss://h?ssl_ca_certs=/etc/ca.pem").ca_file == "/etc/ca.pem"


@pytest.mark.parametrize(
    "url",
    ["http://h", "h:6379", "", f"redis://:{SECRET}@h:port/0", "redis://:s3cret@h/zero", "unix:///s?db=s3cret",
     "redis://[s3cret"],
)  # fmt: skip
def test_what_is_no_redis_url_is_refused_in_a_sentence_without_secrets(url: str) -> None:
    with pytest.raises(RedisUnusable, match="a Redis URL") as refusal:
        RedisAddress.from_url(url)
    assert "s3cret" not in str(refusal.value)


# ---- commands and replies


def test_replies_come_in_the_order_of_the_commands_and_errors_stand_in_their_place(redis_url: str) -> None:
    async def scenario(link: Link) -> None:
        replies = await link.pipeline(
            [("SET", "k", "text"), ("INCR", "k"), ("GET", "k"), ("NO-SUCH-COMMAND",), ("RPUSH", "l", 1, 2.5, b"\x00")]
        )
        assert replies[0] == b"OK"
        assert isinstance(replies[1], ReplyError)
        assert replies[2] == b"text"
        assert isinstance(replies[3], ReplyError)
        assert replies[4] == 3
        assert await link.call("LRANGE", "l", 0, -1) == [b"1", b"2.5", b"\x00"]
        assert await link.pipeline([]) == []

    on_link(redis_url, scenario)


def test_many_callers_share_the_connection_and_each_gets_its_own(redis_url: str) -> None:
    async def scenario(link: Link) -> None:
        async def caller(number: int) -> None:
            for turn in range(20):
                sent = f"{number}:{turn}"
                assert await link.pipeline([("ECHO", sent), ("ECHO", sent + "b")]) == [
                    sent.encode(),
                    sent.encode() + b"b",
                ]

        await asyncio.gather(*(caller(number) for number in range(50)))
        clients = await link.call("CLIENT", "LIST")
        assert clients.count(b"name=pushfleet ") == 1

    on_link(redis_url, scenario)


def test_a_caller_that_goes_away_does_not_shift_the_replies_of_others(redis_url: str) -> None:
    async def scenario(link: Link) -> None:
        await link.call("PING")
        impatient = asyncio.ensure_future(link.call("ECHO", "a"))
        patient = asyncio.ensure_future(link.call("ECHO", "b"))
        await asyncio.sleep(0)
        impatient.cancel()
        assert await patient == b"b"
        assert await link.call("ECHO", "c") == b"c"

    on_link(redis_url, scenario)


def test_what_cannot_be_packed_does_not_shift_the_replies_of_others(redis_url: str) -> None:
    async def scenario(link: Link) -> None:
        assert await link.call("ECHO", "before") == b"before"
        with pytest.raises((TypeError, UnicodeEncodeError)):
            await link.call("ECHO", "\ud800")
        assert await link.call("ECHO", "after") == b"after"

    on_link(redis_url, scenario)


def test_large_replies_arrive_whole(redis_url: str) -> None:
    async def scenario(link: Link) -> None:
        large = b"x" * 3_000_000
        await link.call("SET", "large", large)
        first, second = await asyncio.gather(link.call("GET", "large"), link.call("ECHO", "after"))
        assert first == large
        assert second == b"after"

    on_link(redis_url, scenario)


def test_an_error_reply_is_raised_by_call_and_run(redis_url: str) -> None:
    async def scenario(link: Link) -> None:
        with pytest.raises(ReplyError, match="unknown command"):
            await link.call("NO-SUCH-COMMAND")
        with pytest.raises(ReplyError, match="mine"):
            await link.run(a_script("return redis.error_reply('ERR mine')"), (), ())

    on_link(redis_url, scenario)


@pytest.mark.parametrize("state", ["LOADING Redis is loading", "NOREPLICAS too few", "OOM full", "BUSY now"])
def test_a_server_that_cannot_serve_now_is_unusable_and_not_wrong(redis_url: str, state: str) -> None:
    async def scenario(link: Link) -> None:
        failing = a_script(f'return redis.error_reply("{state}")')
        with pytest.raises(RedisUnusable, match="cannot serve now"):
            await link.run(failing, (), ())
        (reply,) = await link.run_many([(failing, (), ())])
        assert isinstance(reply, ReplyError), "of many, it stands in its place"
        assert await link.call("PING") == b"PONG"

    on_link(redis_url, scenario)


DEMOTED = "return redis.error_reply('READONLY you')"


@pytest.mark.parametrize(
    "ask",
    [
        lambda link: link.run(a_script(DEMOTED), (), ()),
        lambda link: link.run_many([(a_script("return 1"), (), ()), (a_script(DEMOTED), (), ())]),
        lambda link: link.pipeline([("PING",), ("EVAL", DEMOTED, 0), ("PING",)]),
    ],
    ids=["run", "run_many", "pipeline"],
)
def test_a_demoted_master_is_left(redis_url: str, ask: Callable[[Link], Awaitable[object]]) -> None:
    async def scenario(link: Link) -> None:
        before = await link.call("CLIENT", "ID")
        with pytest.raises(LinkLost, match="is a replica and takes no writes"):
            await ask(link)
        assert await link.call("CLIENT", "ID") != before

    on_link(redis_url, scenario)


def test_whoever_waits_behind_a_refusal_of_a_replica_is_told_of_it(redis_url: str) -> None:
    async def scenario(link: Link) -> None:
        await link.call("PING")
        asked = [link.pipeline([("EVAL", DEMOTED, 0)]), link.call("PING"), link.pipeline([("PING",), ("PING",)])]
        answers = await asyncio.gather(*asked, return_exceptions=True)
        assert [type(answer) for answer in answers] == [LinkLost] * 3

    on_link(redis_url, scenario)


def test_a_script_that_the_server_does_not_know_is_loaded(redis_url: str, redis_client: redis.Redis) -> None:
    async def scenario(link: Link) -> None:
        first, second = a_script("return {KEYS[1], ARGV[1]}"), a_script("return 2")
        assert await link.run(first, ("k",), ("v",)) == [b"k", b"v"]
        redis_client.script_flush()
        await link.run(second, (), ())
        calls = [(second, (), ()), (first, ("a",), (1,)), (second, (), ()), (first, ("b",), (2,))]
        assert await link.run_many(calls) == [2, [b"a", b"1"], 2, [b"b", b"2"]]
        assert await link.run_many([]) == []

    on_link(redis_url, scenario)


# ---- getting in


def test_database_name_and_unix_socket(server: EmbeddedRedis) -> None:
    async def scenario(link: Link) -> None:
        await link.call("SET", "k", "v")
        listed = await link.call("CLIENT", "LIST")
        assert b"name=pushfleet" in listed
        assert b"db=7" in listed

    on_link(server.url.replace("/0", "/7"), scenario)
    on_link(f"unix://{server.folder / 'redis.sock'}?db=7", scenario)


def test_a_wrong_password_is_a_sentence_that_does_not_repeat_it(server: EmbeddedRedis) -> None:
    with redis.Redis.from_url(server.url) as client:
        client.config_set("requirepass", "right")

    async def refused(link: Link) -> None:
        for _ in range(2):
            with pytest.raises(RedisUnusable, match=r"refuses us") as refusal:
                await link.call("PING")
            assert not isinstance(refusal.value, LinkLost)
            assert "s3cret" not in str(refusal.value)

    async def welcome(link: Link) -> None:
        assert await link.call("PING") == b"PONG"

    at = f"127.0.0.1:{server.port}"
    on_link(f"redis://:s3cret@{at}", refused)
    on_link(f"redis://nobody:s3cret@{at}", refused)
    on_link(f"redis://{at}", refused)
    on_link(f"redis://:right@{at}", welcome)
    on_link(f"redis://default:right@{at}", welcome)


@pytest.mark.parametrize("url", ["redis://127.0.0.1:{port}/2", "rediss://127.0.0.1:{port}", "unix:///no/such.sock"])
def test_an_unreachable_server_is_a_sentence(url: str) -> None:
    async def scenario(link: Link) -> None:
        with pytest.raises(LinkLost, match=r"Redis at \S+ cannot be reached .*is it running"):
            await link.call("PING")

    on_link(url.format(port=free_port()), scenario)


def test_a_ca_file_that_is_not_there_is_a_sentence() -> None:
    async def scenario(link: Link) -> None:
        with pytest.raises(LinkLost, match="No such file"):
            await link.call("PING")

    on_link(f"rediss://127.0.0.1:{free_port()}?ssl_ca_certs=/no/such.pem", scenario)


def test_a_server_that_speaks_no_tls_is_a_sentence(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_link, "_CONNECT_TIMEOUT_S", 0.3)

    async def scenario(link: Link) -> None:
        with pytest.raises(LinkLost, match="cannot be reached"):
            await link.call("PING")

    on_link(redis_url.replace("redis://", "rediss://"), scenario)


# ---- a link that breaks


def test_what_is_under_way_when_the_server_dies_is_lost_and_the_next_call_finds_the_new_one(
    server: EmbeddedRedis,
) -> None:
    async def scenario(link: Link) -> None:
        await link.call("SET", "k", "v")
        blocked = asyncio.ensure_future(link.call("BLPOP", "nothing", 0))
        behind = asyncio.ensure_future(link.pipeline([("PING",), ("PING",)]))
        await asyncio.sleep(0)
        server.kill()
        for under_way in (blocked, behind):
            with pytest.raises(LinkLost, match="broke"):
                await under_way
        with pytest.raises(LinkLost, match="cannot be reached"):
            await link.call("PING")
        server.start()
        assert await link.call("GET", "k") == b"v"

    on_link(server.url, scenario)


def test_a_connection_that_the_server_closes_is_opened_again(redis_url: str, redis_client: redis.Redis) -> None:
    async def scenario(link: Link) -> None:
        for _ in range(3):
            number = await link.call("CLIENT", "ID")
            redis_client.client_kill_filter(_id=number)
            await until(lambda: link._connection is None or link._connection.lost)
            assert await link.call("PING") == b"PONG"

    on_link(redis_url, scenario)


def test_the_history_of_the_data_is_another_one_after_a_restart_and_not_after_a_lost_connection(
    server: EmbeddedRedis,
) -> None:
    async def scenario(link: Link) -> None:
        assert link.history == ""
        number = await link.call("CLIENT", "ID")
        first = link.history
        assert len(first) > 40
        with redis.Redis.from_url(server.url) as client:
            client.client_kill_filter(_id=number)
        await until(lambda: link._connection is None or link._connection.lost)
        await link.call("PING")
        assert link.history == first
        server.kill()
        await until(lambda: link._connection is None or link._connection.lost)
        assert link.history == first
        server.start()
        await link.call("PING")
        assert link.history != first

    on_link(server.url, scenario)


def test_all_who_wait_share_one_try_and_tries_are_spaced(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []

    def longest(least_s: float, most_s: float) -> float:
        pauses.append(most_s)
        return most_s / 10

    monkeypatch.setattr(redis_link.random, "uniform", longest)
    tries = 0

    async def run() -> None:
        async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal tries
            tries += 1
            writer.close()
            await writer.wait_closed()

        async with await asyncio.start_server(hang_up, "127.0.0.1", 0) as listener:
            link = Link(f"redis://127.0.0.1:{listener.sockets[0].getsockname()[1]}")
            began = time.monotonic()
            for turn in range(1, 8):
                answers = await asyncio.gather(*(link.call("PING") for _ in range(50)), return_exceptions=True)
                assert [type(answer) for answer in answers] == [LinkLost] * 50
                assert tries == turn
            assert time.monotonic() - began >= sum(pauses[:-1]) / 10
            await link.close()

    asyncio.run(run())
    assert pauses == [0.05, 0.1, 0.2, 0.4, 0.8, 1.0, 1.0]


def test_whoever_goes_away_while_it_is_opened_does_not_take_it_along(redis_url: str) -> None:
    async def scenario(link: Link) -> None:
        impatient = asyncio.ensure_future(link.call("PING"))
        patient = asyncio.ensure_future(link.call("ECHO", "b"))
        await asyncio.sleep(0)
        impatient.cancel()
        assert await patient == b"b"

    on_link(redis_url, scenario)


def test_a_server_that_falls_silent_breaks_the_link_and_does_not_hang_the_next_call(
    server: EmbeddedRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_link, "_WATCH_INTERVAL_S", 0.02)
    monkeypatch.setattr(redis_link, "_CONNECT_TIMEOUT_S", 0.1)

    async def scenario(link: Link) -> None:
        await link.call("PING")
        with frozen(server):
            started = time.monotonic()
            with pytest.raises(LinkLost):
                await link.call("PING")
            assert 0.2 <= time.monotonic() - started < 2
            with pytest.raises(LinkLost, match="timed out"):
                # The kernel still takes connections for it.
                await asyncio.wait_for(link.call("PING"), 2)
        assert await link.call("PING") == b"PONG"

    on_link(server.url, scenario, timeout_s=0.2)


def test_a_paused_server_within_the_timeout_is_waited_for(
    redis_url: str, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_link, "_WATCH_INTERVAL_S", 0.02)

    async def scenario(link: Link) -> None:
        await link.call("PING")
        redis_client.execute_command("CLIENT", "PAUSE", 150, "ALL")
        assert await link.call("PING") == b"PONG"

    on_link(redis_url, scenario, timeout_s=2.0)


def test_a_peer_that_is_no_redis_breaks_the_link(caplog: pytest.LogCaptureFixture) -> None:
    async def run() -> None:
        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            await writer.drain()
            await reader.read(1_000)
            writer.close()

        listener = await asyncio.start_server(talk, "127.0.0.1", 0)
        link = Link(f"redis://127.0.0.1:{listener.sockets[0].getsockname()[1]}")
        with pytest.raises(LinkLost):
            await asyncio.wait_for(link.call("PING"), 5)
        await link.close()
        listener.close()
        await listener.wait_closed()

    asyncio.run(run())


def test_close_ends_what_waits_and_the_link_can_be_used_again(redis_url: str) -> None:
    async def scenario(link: Link) -> None:
        await link.call("PING")
        waiting = asyncio.ensure_future(link.call("BLPOP", "nothing", 0))
        await asyncio.sleep(0)
        await link.close()
        with pytest.raises(LinkLost):
            await waiting
        assert await link.call("PING") == b"PONG"
        await link.close()
        await link.close()

    on_link(redis_url, scenario)
