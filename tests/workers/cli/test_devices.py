from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest
import redis
from tests.workers.cli.conftest import Cli
from tests.workers.commands import apns_account, settings_file

from pushfleet_workers.tokens.keys import UserKeys
from pushfleet_workers.tokens.record import decode_device

ROOT = Path(__file__).parents[3]
SECRET = "a1b2c3d4" * 8


def line(user: str = "bob", **fields: object) -> str:
    channel = {"vendor": "apns", "token": SECRET}
    return json.dumps({"app": "demo", "user": user, "device": "phone", "channels": [channel], **fields})


@pytest.fixture(autouse=True)
def fleet(tmp_path: Path, redis_url: str) -> None:
    settings_file(tmp_path, redis_url, *apns_account())


def test_the_devices_of_a_file_are_registered(cli: Cli, tmp_path: Path, redis_client: redis.Redis) -> None:
    file = tmp_path / "devices.jsonl"
    channel = [{"vendor": "apns", "token": f"{number:064x}"} for number in range(1_100)]
    file.write_text("\n".join(line(f"u{n}", channels=[one], locale="zh-CN") for n, one in enumerate(channel)))
    said = cli("devices", "import", file)
    assert (said.code, said.out, said.err) == (0, "1100 imported, 0 refused\n", "")
    record = redis_client.hget(UserKeys("t", "demo", "u1099").devices, "phone")
    assert isinstance(record, bytes)
    assert decode_device(record).channels[0].token == f"{1099:064x}"
    assert decode_device(record).locale == "zh-CN"


def test_bad_lines_are_told_by_number_and_no_token_is_told(cli: Cli, redis_client: redis.Redis) -> None:
    lines = [
        line("u1"),
        "nonsense " + SECRET,
        line("u2", app="unheard"),
        line("u3", channels=[]),
        line("u4", tokens=[SECRET]),
        line("u5", channels=[{"vendor": "apns", "token": SECRET + " "}]),
        line(""),
        line("u7", channels=[{"vendor": "apns", "token": SECRET, "credential": "sold"}]),
        line("u8"),
    ]
    said = cli("devices", "import", "-", "--json", stdin="\n".join(lines).encode())
    assert said.code == 1
    assert json.loads(said.out) == {"imported": 2, "refused": 7}
    assert [told.partition(":")[0] for told in said.err.splitlines()] == [f"line {number}" for number in range(2, 9)]
    assert SECRET not in said.err
    assert redis_client.exists(UserKeys("t", "demo", "u8").devices) == 1


def im_hour() -> ModuleType:
    spec = importlib.util.spec_from_file_location("im_hour", ROOT / "examples" / "im_hour.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["im_hour"] = module
    spec.loader.exec_module(module)
    return module


def test_the_made_up_hour_can_be_imported_and_enqueued(
    cli: Cli, tmp_path: Path, redis_url: str, redis_client: redis.Redis
) -> None:
    hour = im_hour()
    hour.main(tmp_path / "hour")
    lite = [one.replace("apns.main", "apns.lite").replace('"demo"', '"lite"') for one in apns_account()]
    samples = Path(__file__).parents[1] / "vendors" / "accounts"
    others = []
    for vendor in hour.MAKERS:
        if vendor != "apns":
            fields = json.loads((samples / f"{vendor}.json").read_text())
            plain = [f"{name} = {json.dumps(value)}" for name, value in fields.items() if isinstance(value, str | int)]
            others += [f"[accounts.{vendor}.main]", *plain]
    settings_file(tmp_path, redis_url, "[apps.lite]", *apns_account(), *lite, *others)
    devices = cli("devices", "import", "hour/devices.jsonl")
    assert (devices.code, devices.err) == (0, "")
    messages = cli("enqueue", "hour/messages.jsonl")
    assert (messages.code, messages.out) == (0, f"{hour.MESSAGES} accepted, 0 refused\n")
    assert sum(redis_client.xlen(key) for key in redis_client.scan_iter("t:{ingress:*}")) == hour.MESSAGES
