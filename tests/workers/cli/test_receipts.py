from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.workers.cli.conftest import Cli
from tests.workers.commands import settings_file
from tests.workers.credential_store.support import MASTER_KEY

from pushfleet_workers.vendors._receipts import secret_path

KEY = "a-key-of-the-receipts"
OPPO = (
    "[accounts.oppo.main]",
    'app = "demo"',
    'app_key = "1"',
    'master_secret = "x"',
)
ADDED = ("--set", "client_id=1", "--set", "app_id=1", "--set", f"receipt_key={KEY}", "--set", "client_secret=x")


def address(vendor: str, credential: str) -> str:
    own = f"/v1/receipts/{vendor}/{credential}"
    return f"https://push.example.com{own}/{secret_path(KEY.encode(), f'{vendor}/{credential}')}"


@pytest.fixture
def fleet(tmp_path: Path, redis_url: str) -> Path:
    return settings_file(
        tmp_path,
        redis_url,
        "[credentials]",
        f'master_key = "{MASTER_KEY}"',
        *OPPO,
        'receipt_url = "https://push.example.com/v1/receipts/oppo/main"',
        f'receipt_key = "{KEY}"',
        "[accounts.honor.silent]",
        'app = "demo"',
        'app_id = "1"',
        'client_id = "1"',
        'client_secret = "x"',
    )


@pytest.mark.usefixtures("fleet")
def test_the_addresses_are_those_that_consoles_want(cli: Cli) -> None:
    said = cli("receipts")
    assert (said.code, said.out.strip()) == (0, f"oppo:main  {address('oppo', 'main')}")
    url = ("--set", "receipt_url=https://push.example.com/v1/receipts/honor/two")
    assert cli("credentials", "add", "honor", "two", "--app", "demo", *ADDED, *url).code == 0
    assert json.loads(cli("receipts", "--json").out) == {
        "oppo:main": address("oppo", "main"),
        "honor:two": address("honor", "two"),
    }


def test_a_key_that_will_not_do_is_said_in_its_place(cli: Cli, tmp_path: Path, redis_url: str) -> None:
    settings_file(
        tmp_path,
        redis_url,
        *OPPO,
        'receipt_url = "https://push.example.com/v1/receipts/oppo/main"',
        'receipt_key = "short"',
    )
    assert "oppo:main  none: receipt_key has fewer than 16 characters" in cli("receipts").out


def test_where_nobody_asks_for_receipts_it_says_so(cli: Cli, tmp_path: Path, redis_url: str) -> None:
    settings_file(tmp_path, redis_url, *OPPO)
    assert cli("receipts").out.strip() == "No account has a receipt_url."


def test_the_address_of_another_account_is_found(cli: Cli, tmp_path: Path, redis_url: str) -> None:
    settings_file(
        tmp_path,
        redis_url,
        *OPPO,
        'kinds = { chat = { channel_id = "im" } }',
        'receipt_url = "https://push.example.com/v1/receipts/oppo/other"',
        f'receipt_key = "{KEY}"',
    )
    said = cli("check")
    assert said.code == 1
    assert "receipt_url is the address of another account" in said.out.replace("\n", " ")
    assert "/v1/receipts/oppo/main" in said.out
