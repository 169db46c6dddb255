"""Users on the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import redis
from tests.workers.cli.conftest import Cli
from tests.workers.commands import apns_account, settings_file

TOKEN = "a1b2c3d4" * 8


@pytest.fixture(autouse=True)
def fleet(tmp_path: Path, redis_url: str) -> None:
    settings_file(tmp_path, redis_url, *apns_account())


def register(cli: Cli, **fields: object) -> None:
    channel = {"vendor": "apns", "token": TOKEN}
    line = json.dumps({"app": "demo", "user": "bob", "device": "phone", "channels": [channel], **fields})
    assert cli("devices", "import", "-", stdin=line.encode()).code == 0


def test_a_user_is_shown_with_the_reason_why_no_push_goes(cli: Cli) -> None:
    register(cli, state="logged_out")
    said = cli("users", "show", "demo", "bob")
    assert (said.code, said.err) == (0, "")
    for shown in ("phone", "logged_out: the user is logged out on the device"):
        assert shown in said.out
    assert TOKEN not in said.out


def test_a_script_gets_what_the_api_tells(cli: Cli) -> None:
    register(cli, state="background")
    said = cli("users", "show", "demo", "bob", "--kind", "call", "--json")
    device = json.loads(said.out)["devices"]["phone"]
    assert device["push"] == {"goes": True, "channel": "apns:main:alert", "reason": "", "message": "", "parked": False}
    assert TOKEN not in said.out


def test_a_user_without_devices_gets_none(cli: Cli) -> None:
    said = cli("users", "show", "demo", "nobody")
    assert (said.code, said.out) == (0, "No push: the receiver has no registered device (no_device).\n")


def test_an_app_that_is_none_is_refused(cli: Cli) -> None:
    assert cli("users", "show", "dem", "bob").refusal == "there is no app dem; there are: demo"


def test_an_erased_user_is_gone_and_the_command_waits_for_what_is_queued(
    cli: Cli, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PUSHFLEET_WORKER__RECHECK_S", "0")
    register(cli, state="background")
    said = cli("users", "erase", "demo", "bob")
    assert (said.code, said.out) == (0, "User bob is erased: nothing is left.\n")
    assert [key for key in redis_client.keys("*") if b"bob" in key] == []
    said = cli("users", "erase", "demo", "bob", "--json")
    told = json.loads(said.out)
    assert (told["known"], told["done"]) == (False, True)


def test_an_erasure_that_is_held_up_says_so(cli: Cli, redis_client: redis.Redis) -> None:
    redis_client.xadd("t:{ingress:normal}", {"v": "1", "m": "{}"})
    said = cli("users", "erase", "demo", "bob", "--wait", "0s")
    assert said.code == 0
    assert "something may be left in the queues" in said.out
    assert redis_client.zcard("t:{erasures}") == 1


def test_what_is_no_user_is_not_erased(cli: Cli) -> None:
    assert cli("users", "erase", "dem", "bob").refusal == "there is no app dem; there are: demo"
    assert cli("users", "erase", "demo", "x" * 257).refusal == "the user id has 257 bytes; 1 to 256 are allowed"
