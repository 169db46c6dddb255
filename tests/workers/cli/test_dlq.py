"""Dead letters on the command line."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest
from rich.console import Console
from tests.workers.cli.conftest import Cli, Said
from tests.workers.commands import settings_file
from tests.workers.dead_letters.support import TEXT, TOKEN, Stage, an_entry, fleet_settings

from pushfleet import OfflineMessage
from pushfleet.wire import entry
from pushfleet_workers.cli import dlq
from pushfleet_workers.push import fingerprint
from pushfleet_workers.redis_link import Link

T = TypeVar("T")

ACCOUNT = ("[accounts.huawei.main]", 'app = "demo"', 'client_id = "1"', 'client_secret = "x"')


@pytest.fixture
def fleet(tmp_path: Path, redis_url: str) -> str:
    """Settings with one app and one account; the URL of their Redis."""
    settings_file(tmp_path, redis_url, *ACCOUNT)
    return redis_url


def staged(url: str, work: Callable[[Stage], Awaitable[T]]) -> T:
    """What *work* gives with that fleet."""

    async def run() -> T:
        link = Link(url)
        try:
            return await work(Stage(link, fleet_settings()))
        finally:
            await link.close()

    return asyncio.run(run())


def letters(url: str, *messages: str, **fields: Any) -> list[str]:
    """A dead letter for each message, to bob; their names."""

    async def work(stage: Stage) -> list[str]:
        return [await stage.dies(an_entry(message, "bob", **fields)) for message in messages]

    return staged(url, work)


def listed(cli: Cli, *words: str) -> list[str]:
    said = cli("dlq", "list", "--json", *words)
    assert said.code == 0, said
    return [json.loads(line)["letter"] for line in said.out.splitlines()]


def done(said: Said) -> dict[str, Any]:
    assert (said.code, said.err) == (0, ""), said
    counts: dict[str, Any] = json.loads(said.out)
    return {name: value for name, value in counts.items() if name != "until_ms"}


def test_letters_are_listed_the_newest_first(cli: Cli, fleet: str, monkeypatch: pytest.MonkeyPatch) -> None:
    names = letters(fleet, "m1", "m2", "m3")
    assert listed(cli) == names[::-1]
    assert listed(cli, "--limit", "2") == names[:0:-1]
    monkeypatch.setattr(dlq, "_PAGE", 1)
    assert listed(cli) == names[::-1]
    said = cli("dlq", "list")
    for shown in (names[0], "bad_payload", "80100003", "m1"):
        assert shown in said.out


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["--vendor", "huawei"], 2),
        (["--vendor", "huawei", "--credential", "main"], 2),
        (["--account", "other"], 0),
        (["--vendor", "ingress"], 1),
        (["--app", "demo"], 2),
        (["--reason", "bad_payload"], 2),
        (["--reason", "malformed"], 1),
        (["--code", "80100003"], 2),
        (["--lane", "bulk"], 0),
        (["--message", "m1"], 1),
        (["--user", "bob"], 2),
        (["--user", "eve"], 0),
        (["--older-than", "1h"], 0),
        (["--newer-than", "1h"], 3),
        (["--newer-than", "1h", "--older-than", "0s", "--message", "m2"], 1),
    ],
)
def test_filters(cli: Cli, fleet: str, words: list[str], found: int) -> None:
    letters(fleet, "m1", "m2")
    staged(fleet, lambda stage: stage.refuses({b"m": b"{}"}))
    assert len(listed(cli, *words)) == found
    assert done(cli("dlq", "drop", "--dry-run", "--json", *words))["dropped"] == found


def test_a_letter_is_shown_with_all_that_helps_and_neither_token_nor_text(cli: Cli, fleet: str) -> None:
    (name,) = letters(fleet, "m1", conversation_id="c1")
    said = cli("dlq", "show", name)
    assert (said.code, said.err) == (0, "")
    for shown in (
        name, "m1", "c1", "chat", "bob", "d1", fingerprint(f"{TOKEN}-bob"),
        "bad_payload: the vendor refuses the payload", "80100003: ", "A replay would decide on it anew and send it.",
    ):  # fmt: skip
        assert shown in said.out
    for secret in (TOKEN, TEXT):
        assert secret not in said.out + cli("dlq", "show", name, "--json").out


def test_of_a_large_letter_some_deliveries_are_shown(cli: Cli, fleet: str) -> None:
    users = [f"user-{number}-" for number in range(30)]
    name = staged(fleet, lambda stage: stage.dies(an_entry("m1", *users)))
    said = cli("dlq", "show", name).out
    assert sum(user in said for user in users) == 20
    assert "and 10 more" in said
    assert len(json.loads(cli("dlq", "show", name, "--json").out)["parcel"]) == 30


def test_a_refused_entry_is_shown_with_what_is_wrong(cli: Cli, fleet: str) -> None:
    said = entry(OfflineMessage(id="m1", app="gone", recipients=("bob",), body=TEXT))
    name = staged(fleet, lambda stage: stage.refuses(said, "unknown_app", problem="no app 'gone'"))
    shown = cli("dlq", "show", name).out
    assert "problem:      no app 'gone'" in shown
    assert "routers would refuse it again" in shown
    assert TEXT not in shown


def test_what_is_not_there_is_told(cli: Cli, fleet: str) -> None:
    assert cli("dlq", "show", "huawei:main:1-1").refusal.startswith("there is no letter huawei:main:1-1: ")
    said = cli("dlq", "show", "huawei:main")
    assert (said.code, "is no name of a letter" in said.err) == (2, True)


def test_a_replay_says_what_went_back_and_what_stayed_and_why(cli: Cli, fleet: str) -> None:
    letters(fleet, "m1", "m2")
    letters(fleet, "old", ttl_s=-1)
    said = cli("dlq", "replay", "--all", "--dry-run")
    assert "2 letters would go back, with 2 deliveries." in said.out
    assert "1 letter would stay (expired): its time to live has run out" in said.out
    assert len(listed(cli)) == 3
    said = cli("dlq", "replay", "--vendor", "huawei")
    assert "2 letters went back, with 2 deliveries." in said.out
    assert "1 letter stayed (expired)" in said.out
    counts = done(cli("dlq", "replay", "--all", "--ttl", "10m", "--per-second", "5", "--json"))
    assert counts == {"replayed": 1, "deliveries": 1, "left": {}, "more": False}
    assert done(cli("dlq", "replay", "--all", "--json"))["replayed"] == 0
    # All that was put waits; none of it came through a router here.
    assert json.loads(cli("audit", "--json").out)["accounts"]["huawei:main"]["delayed"] == 3


def test_letters_can_be_named_and_limited(cli: Cli, fleet: str) -> None:
    names = letters(fleet, "m1", "m2", "m3", "m4")
    counts = done(cli("dlq", "replay", names[1], names[1], "huawei:main:1-1", "--json"))
    assert (counts["replayed"], counts["left"]) == (1, {"gone": 1})
    assert "The limit left some out." in cli("dlq", "replay", "--all", "--limit", "1").out
    assert listed(cli) == names[:1:-1]


def test_dropped_letters_are_gone(cli: Cli, fleet: str) -> None:
    names = letters(fleet, "m1", "m2", "m3")
    assert cli("dlq", "drop", "--message", "m2", "--dry-run").out == "Would drop 1 letter.\n"
    assert cli("dlq", "drop", "--message", "m2").out == "Dropped 1 letter.\n"
    assert listed(cli) == [names[2], names[0]]
    said = cli("dlq", "drop", names[0], names[1]).out
    assert "1 letter: it is not there any more" in said
    assert done(cli("dlq", "drop", "--all", "--json", "--limit", "5")) == {"dropped": 1, "gone": 0, "more": False}
    assert json.loads(cli("audit", "--json").out)["dead"] == 3


@pytest.mark.parametrize("command", ["replay", "drop"])
@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "say which: letters, filters such as --vendor and --reason, or --all"),
        (["--limit", "5"], "say which"),
        (["huawei:main:1-1", "--vendor", "huawei"], "not both"),
        (["huawei:main:1-1", "--all"], "not both"),
        (["--older-than", "soon"], "write 90s, 30m, 24h or 7d"),
        (["--lane", "slow"], "is not one of"),
        (["--reason", "bad"], "is not one of"),
    ],
)
def test_what_makes_no_sense_is_refused_and_nothing_happens(
    cli: Cli, fleet: str, command: str, words: list[str], told: str
) -> None:
    names = letters(fleet, "m1")
    said = cli("dlq", command, *words)
    assert (said.code, told in said.err) == (2, True), said
    assert listed(cli) == names


def test_a_new_life_has_an_end(cli: Cli, fleet: str) -> None:
    said = cli("dlq", "replay", "--all", "--ttl", "29d")
    assert (said.code, "no time from 0s to 28d" in said.err) == (2, True), said


def test_somebody_who_looks_sees_a_bar(cli: Cli, fleet: str, monkeypatch: pytest.MonkeyPatch) -> None:
    letters(fleet, "m1", "m2")
    monkeypatch.setattr(dlq, "errors", Console(stderr=True, force_terminal=True, _environ={"TERM": "xterm"}))
    said = cli("dlq", "replay", "--all")
    assert "2/2" in said.err
    assert "2 letters went back" in said.out
