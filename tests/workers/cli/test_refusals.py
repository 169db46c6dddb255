"""Whatever is wrong is told in one sentence on standard error, with exit code 2 and without a traceback."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from tests.workers.cli.conftest import Cli
from tests.workers.commands import NOTHING_LISTENS, apns_account, environment, settings_file

from pushfleet_workers.redis_server import EmbeddedRedis

NEED_REDIS = [("router",), ("worker",), ("api",), ("enqueue", "-"), ("devices", "import", "-"), ("audit",)]
MESSAGE = b'{"id": "m1", "app": "demo", "recipients": ["bob"], "body": "Lunch?"}\n'
DEVICE = b'{"app": "demo", "user": "bob", "device": "d", "channels": [{"vendor": "apns", "token": "5ec2e7"}]}\n'


def inputs(words: tuple[str, ...]) -> bytes:
    return {"enqueue": MESSAGE, "devices": DEVICE}.get(words[0], b"")


@pytest.mark.parametrize("words", NEED_REDIS)
def test_no_redis_is_configured(cli: Cli, tmp_path: Path, words: tuple[str, ...]) -> None:
    settings_file(tmp_path, "", *apns_account())
    said = cli(*words, stdin=inputs(words)).refusal
    assert said.startswith("no Redis is configured")
    assert "PUSHFLEET_REDIS__URL" in said
    assert "pushfleet up" in said


@pytest.mark.parametrize("words", [("router",), ("worker",), ("api",)])
def test_only_one_redis_of_three_is_configured(
    cli: Cli, tmp_path: Path, words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings_file(tmp_path, "", *apns_account())
    monkeypatch.setenv("PUSHFLEET_REDIS__QUEUE", NOTHING_LISTENS)
    assert "configured for broker" in cli(*words).refusal
    monkeypatch.setenv("PUSHFLEET_REDIS__BROKER", NOTHING_LISTENS)
    assert "configured for state" in cli(*words).refusal


@pytest.mark.parametrize("url", ["http://127.0.0.1", "localhost:6379", "redis://127.0.0.1:many", "redis://h/db-name"])
@pytest.mark.parametrize("words", NEED_REDIS)
def test_the_url_of_redis_is_none(cli: Cli, tmp_path: Path, words: tuple[str, ...], url: str) -> None:
    settings_file(tmp_path, url, *apns_account())
    said = cli(*words, stdin=inputs(words)).refusal
    assert said.startswith("redis.url: a Redis URL ")


@pytest.mark.parametrize("words", [("enqueue", "-"), ("devices", "import", "-"), ("audit",)])
def test_nothing_listens_there(cli: Cli, tmp_path: Path, words: tuple[str, ...]) -> None:
    settings_file(tmp_path, NOTHING_LISTENS, *apns_account())
    said = cli(*words, stdin=inputs(words))
    assert said.code == 2
    assert said.err.splitlines()[-1].startswith("pushfleet: Redis ")
    assert "127.0.0.1:1" in said.err
    assert "Traceback" not in said.err


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("[redis]\nurll = 'x'\n", "redis.urll is no setting: did you mean url?"),
        ("[router]\nbatch = 0\n", "router.batch"),
        ("[redis\n", "cannot be read as TOML"),
        ("[accounts.pigeon.main]\napp = 'demo'\n", "there is no vendor 'pigeon': known are apns, fcm, "),
        ("[accounts.apns.main]\napp = 'demo'\n", "accounts.apns.main.topic is missing"),
    ],
)
def test_the_settings_are_wrong(cli: Cli, tmp_path: Path, content: str, told: str) -> None:
    (tmp_path / "pushfleet.toml").write_text(content)
    for words in (("audit",), ("check",), ("router",), ("up",), ("enqueue", "-")):
        assert told in cli(*words).refusal


def test_the_settings_file_is_not_there(cli: Cli, tmp_path: Path) -> None:
    assert cli("--config", "nowhere.toml", "check").refusal.startswith("there is no settings file nowhere.toml")
    assert cli("--config", tmp_path, "check").code == 2


def test_a_variable_is_no_setting(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PUSHFLEET_REDDIS__URL", "x")
    assert cli("check").refusal.startswith("PUSHFLEET_REDDIS__URL is no setting")


def test_a_worker_for_a_vendor_that_is_not_there(cli: Cli, tmp_path: Path) -> None:
    settings_file(tmp_path, NOTHING_LISTENS, *apns_account())
    assert cli("worker", "--vendor", "pigeon").refusal.startswith("there is no vendor 'pigeon'")
    assert cli("worker", "--vendor", "apns", "--vendor", "fcm").refusal.startswith("vendor fcm has no account")


def test_no_account_is_there(cli: Cli, tmp_path: Path) -> None:
    settings_file(tmp_path, NOTHING_LISTENS)
    assert cli("worker").refusal.startswith("no vendor account is configured")
    assert "make demo" in cli("up").refusal


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--port", "apns"), "VENDOR=PORT"),
        (("--port", "apns=99999"), "VENDOR=PORT"),
        (("--port", "apns=x"), "VENDOR=PORT"),
        (("--port", "pigeon=8000"), "no vendor 'pigeon'"),
        (("--vendor", "fcm", "--port", "apns=8000"), "no vendor 'apns', only fcm"),
        (("--vendor", "pigeon"), "has only apns, fcm"),
    ],
)
def test_the_fake_cloud_is_given_a_wrong_port_or_vendor(cli: Cli, words: tuple[str, ...], told: str) -> None:
    assert told in cli("fakecloud", *words).refusal


def test_a_port_of_the_fake_cloud_is_taken(cli: Cli) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert str(port) in cli("fakecloud", "--control-port", str(port)).refusal


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[str]:
    """A Redis that lets nobody in without a password, and whose user `low` may do next to nothing."""
    with EmbeddedRedis(tmp_path / "guarded") as server, redis.Redis.from_url(server.url) as client:
        client.acl_setuser("low", enabled=True, passwords=["+hunter2"], commands=["+ping", "+client", "+select"])
        client.config_set("requirepass", "hunter2")
        yield f"127.0.0.1:{server.port}/0"


@pytest.mark.parametrize("words", [*NEED_REDIS[3:], ("check",)])
def test_redis_lets_us_not_in_and_no_password_is_told(
    cli: Cli, tmp_path: Path, words: tuple[str, ...], guarded: str
) -> None:
    for login in ("", ":hunter3@", "low:hunter2@"):
        settings_file(tmp_path, f"redis://{login}{guarded}", *apns_account())
        said = cli(*words, stdin=inputs(words))
        assert said.code == (1 if words == ("check",) else 2), said
        assert "redis" in (said.out + said.err).lower()
        assert "Traceback" not in said.err
        assert "hunter" not in said.out + said.err
    settings_file(tmp_path, f"redis://:hunter2@{guarded}", *apns_account())
    assert cli(*words, stdin=inputs(words)).code == (1 if words == ("check",) else 0)
    assert "hunter" not in cli(*words, stdin=inputs(words)).out


# ---- without the fleet


@pytest.mark.parametrize("absent", ["click", "hiredis", "rich", "pydantic_settings"])
def test_without_the_extra_it_says_how_to_get_the_fleet(tmp_path: Path, absent: str) -> None:
    script = f"import sys; sys.modules[{absent!r}] = None; from pushfleet.__main__ import main; main()"
    said = subprocess.run(
        [sys.executable, "-c", script, "router"],
        cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert said.returncode == 2, said
    assert said.stdout == ""
    (line,) = said.stderr.splitlines()
    assert "pip install 'pushfleet[fleet]'" in line
    assert absent in line


def test_a_defect_of_the_fleet_does_not_look_like_a_missing_extra(tmp_path: Path) -> None:
    script = "import sys; sys.modules['pushfleet_workers.cli'] = None; from pushfleet.__main__ import main; main()"
    said = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert said.returncode == 1
    assert "ModuleNotFoundError" in said.stderr
