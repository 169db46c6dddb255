"""Devices that are exported can be imported, and are the same then."""

from __future__ import annotations

import json
import stat
import time
from pathlib import Path

import pytest
import redis
from tests.workers.cli.conftest import Cli
from tests.workers.commands import apns_account, settings_file

from pushfleet_workers.tokens.keys import UserKeys, device_field
from pushfleet_workers.tokens.record import Channel, Device, decode_device, encode_device

HEARD = int(time.time() * 1000) - 5_000
WHOLE = Device(
    channels=[
        Channel("apns", "main", "70ce01", HEARD, "voip", "cn"),
        Channel("apns", "main", "70ce02", HEARD),
    ],
    state="b",
    state_at_ms=HEARD,
    unread=3,
    permitted=False,
    locale="zh-CN",
    time_zone="Asia/Shanghai",
    platform="ios",
    maker="Apple",
    os_version="18.1",
    app_version="1.2.3",
)


@pytest.fixture(autouse=True)
def fleet(tmp_path: Path, redis_url: str) -> None:
    lite = [one.replace("apns.main", "apns.lite").replace('"demo"', '"lite"') for one in apns_account()]
    settings_file(tmp_path, redis_url, "[apps.lite]", *apns_account(), *lite)


def put(client: redis.Redis, user: str, device: str, record: Device, app: str = "demo") -> None:
    client.hset(UserKeys("t", app, user).devices, device_field(device), encode_device(record))


def get(client: redis.Redis, user: str, device: str) -> Device:
    record = client.hget(UserKeys("t", "demo", user).devices, device_field(device))
    assert isinstance(record, bytes)
    return decode_device(record)


def test_what_was_exported_is_the_same_when_it_is_imported(cli: Cli, tmp_path: Path, redis_client: redis.Redis) -> None:
    user, device = "用户 }:1", "8E8A1C9D-5B1C-4C50-9B0A-4E7F3D2C1B0A"
    put(redis_client, user, device, WHOLE)
    put(
        redis_client,
        "out",
        "d1",
        Device([Channel("apns", "main", "70ce03", HEARD)], "k", HEARD + 3, logged_out_at_ms=HEARD + 2),
    )
    put(redis_client, "silent", "d1", Device([Channel("apns", "main", "70ce04", HEARD)]))
    put(redis_client, "tokenless", "d1", Device(registered_at_ms=HEARD))
    said = cli("devices", "export", "devices.jsonl")
    assert (said.code, said.out, said.err) == (0, "", "3 exported\n")
    assert stat.S_IMODE((tmp_path / "devices.jsonl").stat().st_mode) == 0o600
    redis_client.flushdb()
    assert cli("devices", "import", "devices.jsonl").out == "3 imported, 0 refused\n"
    assert get(redis_client, user, device) == WHOLE
    out = get(redis_client, "out", "d1")
    assert (out.logged_out, out.heard_at_ms) == (True, HEARD + 3)
    assert get(redis_client, "silent", "d1") == Device([Channel("apns", "main", "70ce04", HEARD)])


def test_one_app_is_exported_to_standard_output(cli: Cli, redis_client: redis.Redis) -> None:
    put(redis_client, "ann", "d1", WHOLE)
    put(redis_client, "eve", "d1", Device([Channel("apns", "lite", "t9", 5)]), app="lite")
    redis_client.set(UserKeys("t", "lite", "broken").devices, "x")
    said = cli("devices", "export", "--app", "lite", "-")
    assert said.code == 0
    (line,) = said.out.splitlines()
    assert json.loads(line)["user"] == "eve"
    assert cli("devices", "export", "--app", "other", "-").refusal == "there is no app other; there are: demo, lite"
