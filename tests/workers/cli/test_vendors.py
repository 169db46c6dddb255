"""The list of vendors: what each can do, and how its accounts stand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import redis
from tests.workers.cli.conftest import Cli
from tests.workers.commands import NOTHING_LISTENS, apns_account, settings_file
from tests.workers.credential_store.support import MASTER_KEY, P8

from pushfleet_workers import registry
from pushfleet_workers.callers import caller_root
from pushfleet_workers.settings import load

HUAWEI = ("[accounts.huawei.main]", 'app = "demo"', 'client_id = "1"', 'client_secret = "hunter2"')
MEIZU = ("[accounts.meizu.main]", 'app = "demo"', 'app_id = "1"', 'app_secret = "hunter2"')
XIAOMI = ("[accounts.xiaomi.main]", 'app = "demo"', 'package_name = "com.example.a"', 'app_secret = "hunter2"')


def listed(cli: Cli) -> dict[str, Any]:
    said = cli("vendors", "--json")
    assert (said.code, said.err) == (0, ""), said
    assert "hunter2" not in said.out
    return {"redis": json.loads(said.out)["redis"]} | {one["name"]: one for one in json.loads(said.out)["vendors"]}


def test_every_vendor_of_the_registry_is_there_with_what_it_can(cli: Cli) -> None:
    shown = listed(cli)
    assert list(shown)[1:] == list(registry.names())
    batches = {name: shown[name]["batch"] for name in ("apns", "huawei", "oppo", "vivo")}
    assert batches == {
        "apns": "single",
        "huawei": "shared up to 1000",
        "oppo": "mixed up to 100",
        "vivo": "shared up to 1000, staged",
    }
    for can, those in {
        "exact_badge": {"apns", "fcm"},
        "recalls": {"harmony"},
        "replaces": set(registry.built_in()) - {"tpns"},
    }.items():
        assert {name for name in registry.built_in() if shown[name][can]} == those
    assert all(shown[name]["accounts"] == [] for name in registry.names())


def test_it_works_without_redis_and_says_so(cli: Cli, tmp_path: Path) -> None:
    for url, told in (("", "no Redis is configured"), (NOTHING_LISTENS, "Redis at 127.0.0.1:1/0")):
        settings_file(tmp_path, url, *HUAWEI)
        shown = listed(cli)
        assert shown["redis"].startswith(told)
        assert shown["redis"].endswith("authorizations, pauses and stored credentials are not known")
        (account,) = shown["huawei"]["accounts"]
        assert account["auth"]["state"] == "unknown"
        text = cli("vendors").out
        assert text.endswith(f"{shown['redis']}\n")
        assert "authorization not known" in text


def test_limits_and_batch_are_those_of_the_account(cli: Cli, tmp_path: Path) -> None:
    own = ("multi_messages = true", "rate_per_s = 50", "burst = 7", "in_flight_max = 9")
    settings_file(tmp_path, "", *XIAOMI, *own, *HUAWEI, 'environment = "development"')
    shown = listed(cli)
    (account,) = shown["xiaomi"]["accounts"]
    assert shown["xiaomi"]["batch"] == "shared up to 1000"
    assert account["batch"] == "mixed up to 1000"
    assert (account["rate_per_s"], account["burst"], account["in_flight_max"]) == (50, 7, 9)
    (account,) = shown["huawei"]["accounts"]
    assert (account["rate_per_s"], account["burst"]) == (6_000, 3_000), "the vendor's, and half a second of it"
    assert (account["environment"], account["source"], account["app"]) == ("development", "settings", "demo")


def test_the_state_of_an_authorization(cli: Cli, tmp_path: Path, redis_url: str, redis_client: redis.Redis) -> None:
    (tmp_path / "k.p8").write_bytes(P8)
    file = settings_file(tmp_path, redis_url, *HUAWEI, *MEIZU, *apns_account())
    assert listed(cli)["redis"] == ""

    def state(vendor: str) -> dict[str, Any]:
        (account,) = listed(cli)[vendor]["accounts"]
        auth: dict[str, Any] = account["auth"]
        return auth

    none = {"state": "none", "until_ms": 0, "code": ""}
    assert state("huawei") == state("apns") == none
    assert state("meizu") == none | {"state": "own"}
    until_ms = 1_800_000_000_000
    accounts = load(file).accounts
    for vendor in ("huawei", "apns"):
        root = caller_root("t", registry.load(vendor), "main", accounts[vendor]["main"])
        redis_client.hset(f"{root}:auth", mapping={"value": "v", "expires_at_ms": f"{until_ms}.5"})
        assert state(vendor) == none | {"state": "fresh", "until_ms": until_ms}
    assert "authorization fresh until 2027-01-15 08:00 UTC" in cli("vendors").out
    redis_client.delete("t:{huawei:main}:auth")
    redis_client.hset("t:{huawei:main}:auth", mapping={"refused": "1101", "refused_at_ms": until_ms})
    assert state("huawei") == none | {"state": "refused", "code": "1101"}
    assert "authorization refused (1101)" in cli("vendors").out
    redis_client.hset("t:{huawei:main}:auth", "refused", "auth_certificate_expired")
    assert (
        "authorization not obtained (auth_certificate_expired: the certificate shown for the vendor has expired"
        in " ".join(cli("vendors").out.split())
    )


@pytest.mark.parametrize(
    ("lines", "vendor", "code"),
    [
        (apns_account("missing.p8"), "apns", "KeyFile"),
        ((*MEIZU[:-1], 'app_secret_file = "missing"'), "meizu", "CredentialError"),
    ],
)
def test_a_secret_that_cannot_be_used_is_told(
    cli: Cli, tmp_path: Path, lines: tuple[str, ...], vendor: str, code: str
) -> None:
    settings_file(tmp_path, "", *lines)
    (account,) = listed(cli)[vendor]["accounts"]
    assert account["auth"] == {"state": "unusable", "until_ms": 0, "code": code}
    assert f"authorization unusable ({code}; see pushfleet check)" in cli("vendors").out


@pytest.mark.parametrize("with_key", [True, False])
def test_stored_credentials_are_there_with_and_without_the_master_key(
    cli: Cli, tmp_path: Path, redis_url: str, *, with_key: bool
) -> None:
    key = ("[credentials]", f'master_key = "{MASTER_KEY}"')
    settings_file(tmp_path, redis_url, *key, *HUAWEI)
    words = ("--app", "demo", "--set", "client_id=2", "--file", "client_secret=-")
    assert cli("credentials", "add", "huawei", "second", *words, stdin=b"hunter2").code == 0
    settings_file(tmp_path, redis_url, *(key if with_key else ()), *HUAWEI)
    accounts = listed(cli)["huawei"]["accounts"]
    assert [(one["credential"], one["source"]) for one in accounts] == [("main", "settings"), ("second", "stored")]
    assert accounts[1]["auth"]["state"] == "none"
