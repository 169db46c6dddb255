from __future__ import annotations

import json
from pathlib import Path

import pytest
import redis
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from tests.workers.cli.conftest import Cli
from tests.workers.commands import NOTHING_LISTENS, apns_account, settings_file

from pushfleet_workers.redis_server import REDIS_FOLDER, EmbeddedRedis


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    file = tmp_path / "AuthKey_F6G7H8J9K0.p8"
    key = ec.generate_private_key(ec.SECP256R1())
    file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return file


def test_all_is_well(cli: Cli, tmp_path: Path, redis_url: str, key_file: Path) -> None:
    settings_file(tmp_path, redis_url, *apns_account(key_file.name))
    said = cli("check")
    assert (said.code, said.err) == (0, "")
    assert said.out.endswith("2 good, 0 to mend\n")
    assert key_file.read_text().splitlines()[1] not in said.out


def test_a_key_file_is_missing(cli: Cli, tmp_path: Path, redis_url: str) -> None:
    settings_file(tmp_path, redis_url, *apns_account("missing.p8"))
    said = cli("check")
    assert said.code == 1
    assert "accounts.apns.main" in said.out
    assert "missing.p8" in said.out
    (finding,) = [one for one in json.loads(cli("check", "--json").out) if one["about"] == "accounts.apns.main"]
    assert finding["level"] == "error"


def test_a_redis_is_not_there(cli: Cli, tmp_path: Path, key_file: Path) -> None:
    settings_file(tmp_path, NOTHING_LISTENS, *apns_account(key_file.name))
    said = cli("check")
    assert said.code == 1
    assert "127.0.0.1:1/0 cannot be reached" in said.out
    assert "is it running" in said.out


def test_a_redis_that_evicts_is_a_warning_with_its_mend(
    cli: Cli, tmp_path: Path, redis_url: str, key_file: Path, redis_client: redis.Redis
) -> None:
    settings_file(tmp_path, redis_url, *apns_account(key_file.name))
    redis_client.config_set("maxmemory-policy", "allkeys-lru")
    try:
        said, as_json = cli("check"), cli("check", "--json")
    finally:
        redis_client.config_set("maxmemory-policy", "noeviction")
    assert (said.code, as_json.code) == (0, 0), "it works for now"
    assert "CONFIG SET maxmemory-policy noeviction" in said.out
    assert "1 to mend" in said.out
    assert [one["level"] for one in json.loads(as_json.out)] == ["ok", "warning"]


def test_it_looks_at_the_redis_of_the_fleet_that_is_up(cli: Cli, tmp_path: Path) -> None:
    with EmbeddedRedis(tmp_path / ".pushfleet" / REDIS_FOLDER):
        said = cli("check")
    assert said.code == 0
    assert "no URL is set" not in said.out


def test_nothing_is_configured_at_all(cli: Cli) -> None:
    said = cli("check")
    assert said.code == 0
    assert "no vendor account is configured" in said.out
    assert said.out.count("pushfleet up") == 3
