"""Pausing and resuming on the command line, and where it shows."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from tests.workers.cli.conftest import Cli, Said
from tests.workers.commands import settings_file

from pushfleet_workers.ledger import AccountKeys, GateNews, Ledger
from pushfleet_workers.redis_link import Link

NAMES = ("huawei.main", "huawei.lite", "honor.main")
SECRETS = ('app = "demo"', 'client_id = "1"', 'client_secret = "x"')
ACCOUNTS = (*(line for name in NAMES for line in (f"[accounts.{name}]", *SECRETS)), 'app_id = "1"')


@pytest.fixture
def fleet(tmp_path: Path, redis_url: str) -> str:
    settings_file(tmp_path, redis_url, *ACCOUNTS)
    return redis_url


def vendor_pauses(url: str, code: str = "80300013") -> None:
    async def run() -> None:
        link = Link(url)
        try:
            ledger = Ledger(link, AccountKeys("t", "huawei", "main"), "w1")
            await ledger.tell_gate(GateNews(pause_ms=60_000, reason=code, class_pauses_ms={"marketing": 60_000}))
            await ledger.tell_gate(GateNews(open_now=True, reason=code))
        finally:
            await link.close()

    asyncio.run(run())


def states(said: Said) -> dict[str, Any]:
    assert (said.code, said.err) == (0, ""), said
    return {f"{one['vendor']}:{one['credential']}": one["state"] for one in json.loads(said.out)}


def test_all_accounts_of_a_vendor_pause_until_they_are_resumed(cli: Cli, fleet: str) -> None:
    said = cli("pause", "huawei", "--reason", "wrong text").out.splitlines()
    assert [line.partition(": paused by an operator since ")[0] for line in said] == ["huawei:lite", "huawei:main"]
    assert all(line.endswith(" until resumed: wrong text") for line in said)
    assert cli("resume", "huawei").out == "huawei:lite: open\nhuawei:main: open\n"
    assert states(cli("resume", "huawei", "--json")) == {"huawei:lite": "open", "huawei:main": "open"}


def test_one_account_pauses_for_a_time(cli: Cli, fleet: str) -> None:
    said = cli("pause", "huawei", "--account", "lite", "--for", "2h", "--elsewhere", "--json")
    assert states(said) == {"huawei:lite": "paused"}
    operator = json.loads(said.out)[0]["gate"]["operator"]
    assert operator["until_ms"] - operator["since_ms"] == 7_200_000
    assert "its work goes by other channels" in cli("pause", "huawei", "--credential", "lite", "--elsewhere").out


def test_the_vendors_word_stands_unless_it_is_forced(cli: Cli, fleet: str) -> None:
    vendor_pauses(fleet)
    said = cli("pause", "huawei", "--account", "main").out
    assert "paused by an operator" in said
    assert "paused by the vendor until" in said
    said = cli("resume", "huawei", "--account", "main").out
    assert "operator" not in said
    for told in ("paused by the vendor until", "breaker open, next probe", "(80300013)", "kind marketing paused until"):
        assert told in said
    said = cli("resume", "huawei", "--account", "main", "--force").out
    assert "by the vendor" not in said
    assert "breaker open, next probe" in said, "half open until a good answer is heard"


def test_it_shows_in_the_audit_and_among_the_vendors(cli: Cli, fleet: str) -> None:
    cli("pause", "huawei", "--account", "main", "--for", "2h", "--reason", "wrong text")
    vendor_pauses(fleet)
    said = cli("audit")
    assert said.code == 0
    assert "huawei:main is paused by an operator until 20" in said.out
    assert ": wrong text." in said.out
    assert "huawei:main is shut: 80300013." in said.out
    assert "huawei:lite is" not in said.out
    book = json.loads(cli("audit", "--json").out)["accounts"]["huawei:main"]
    assert (book["operator_pause"], book["operator_reason"], book["open"]) == (True, "wrong text", True)
    said = cli("vendors")
    (line,) = [line for line in said.out.splitlines() if line.startswith("  main: ") and "paused" in line]
    assert "paused by an operator since" in line
    cli("pause", "honor")
    assert "honor:main is paused by an operator until it is resumed." in cli("audit").out


def test_why_nobody_is_trusted_is_said_in_a_sentence(cli: Cli, fleet: str) -> None:
    vendor_pauses(fleet, "certificate_untrusted")
    said = cli("resume", "huawei", "--account", "main").out
    assert (
        "(certificate_untrusted: the certificate shown for the vendor is signed by nobody who is trusted here" in said
    )
    assert "huawei:main is shut: certificate_untrusted." in cli("audit").out


@pytest.mark.parametrize("command", ["pause", "resume"])
def test_of_what_is_not_there_it_says_what_is(cli: Cli, fleet: str, command: str) -> None:
    for words, named in (
        (("nobody",), "of nobody"),
        (("huawei", "--account", "nobody"), "huawei:nobody"),
    ):
        refusal = cli(command, *words).refusal
        assert refusal == f"there is no account {named}; there are: honor:main, huawei:lite, huawei:main"


@pytest.mark.parametrize("command", ["pause", "resume"])
@pytest.mark.parametrize("words", [[""], ["huawei", "--credential", ""], ["", "--account", "main"]])
def test_an_empty_name_stands_for_nobody(cli: Cli, fleet: str, command: str, words: list[str]) -> None:
    """What a variable that is not set leaves in its place must not stop, or start, everything."""
    cli("pause", "honor")
    said = cli(command, *words)
    assert said.code == 2
    assert "it is empty; give a name" in said.err
    standing = states(cli("resume", "huawei", "--json")) | states(cli("pause", "honor", "--json"))
    assert standing == {"huawei:lite": "open", "huawei:main": "open", "honor:main": "paused"}


@pytest.mark.parametrize(
    "words", [["--for", "0s"], ["--for", "soon"], ["--reason", "a\nb"], ["--reason", "x" * 201], ["--for", "400d"]]
)
def test_a_wrong_pause_is_refused_and_nothing_happens(cli: Cli, fleet: str, words: list[str]) -> None:
    assert cli("pause", "huawei", *words).code == 2
    assert set(states(cli("resume", "huawei", "--json")).values()) == {"open"}
