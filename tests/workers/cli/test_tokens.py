"""Dead tokens on the command line."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.workers.cli.conftest import Cli
from tests.workers.commands import apns_account, settings_file
from tests.workers.tokens.support import a_registration

from pushfleet_workers.outcome import Outcome, Verdict
from pushfleet_workers.push import Delivery, fingerprint
from pushfleet_workers.redis_link import Link
from pushfleet_workers.settings import DeathsSettings
from pushfleet_workers.token_feedback import TokenFeedback
from pushfleet_workers.tokens.store import TokenStore

NOW_MS = 1_750_000_000_000
TOKEN = "secret-token-0123456789"
CERTAIN = Outcome(Verdict.DROP_TOKEN, code="Unregistered", since_ms=NOW_MS + 1)
UNDATED = Outcome(Verdict.DROP_TOKEN, code="Unregistered")


@pytest.fixture
def fleet(tmp_path: Path, redis_url: str) -> str:
    """Settings with one app and one account; the URL of their Redis."""
    settings_file(tmp_path, redis_url, *apns_account())
    return redis_url


def die(url: str, users: Sequence[str], outcome: Outcome) -> None:
    """Each user's token dies."""

    async def run() -> None:
        link = Link(url)
        try:
            store = TokenStore(link, "t", lambda: NOW_MS)
            feedback = TokenFeedback(link, link, "t", DeathsSettings(guard_floor=2), lambda: NOW_MS)
            for user in users:
                token = f"{TOKEN}-{user}"
                await store.register("demo", user, "d1", a_registration(token, at_ms=NOW_MS))
                delivery = Delivery(b"x" * 16, user, "d1", token, NOW_MS)
                await feedback.tell("apns", "main", "demo", [delivery], [outcome])
        finally:
            await link.close()

    asyncio.run(run())


def owners(url: str, *users: str) -> list[str]:
    """Those of *users* who have a token that is not passed over."""

    async def run() -> list[str]:
        link = Link(url)
        try:
            store = TokenStore(link, "t", lambda: NOW_MS)
            found = []
            for user in users:
                channels = (await store.user("demo", user)).devices["d1"].channels
                if any(not channel.quarantined_until_ms for channel in channels):
                    found.append(user)
            return found
        finally:
            await link.close()

    return asyncio.run(run())


def listed(cli: Cli, *words: str) -> list[dict[str, Any]]:
    said = cli("tokens", "dead", "--json", *words)
    assert said.code == 0, said
    return [json.loads(line) for line in said.out.splitlines()]


def test_dead_tokens_are_listed_and_never_shown(cli: Cli, fleet: str) -> None:
    die(fleet, ["ann", "bob"], CERTAIN)
    said = cli("tokens", "dead")
    assert (said.code, said.err) == (0, "")
    for shown in ("bob", "ann", "dropped", "apns:main", "Unregistered", fingerprint(f"{TOKEN}-ann")):
        assert shown in said.out
    assert TOKEN not in said.out
    assert [one["user"] for one in listed(cli)] == ["bob", "ann"]
    assert [one["user"] for one in listed(cli, "--limit", "1")] == ["bob"]
    assert [one["user"] for one in listed(cli, "--user", "ann", "--since", "1h", "--fate", "dropped")] == ["ann"]
    assert listed(cli, "--until", "2020-01-01") == listed(cli, "--vendor", "fcm") == []


def test_a_token_is_brought_back_after_a_dry_run(cli: Cli, fleet: str) -> None:
    die(fleet, ["ann", "bob"], CERTAIN)
    said = cli("tokens", "restore", "--code", "Unregistered", "--dry-run")
    assert (said.code, said.out) == (0, "2 can be tried\n")
    assert owners(fleet, "ann", "bob") == []
    said = cli("tokens", "restore", "--user", "ann", "--json")
    assert json.loads(said.out)["restored"] == 1
    assert owners(fleet, "ann", "bob") == ["ann"]
    assert cli("tokens", "restore", "--user", "ann").out == "1 unknown\n"


def test_restoring_everything_by_mistake_is_refused(cli: Cli, fleet: str) -> None:
    die(fleet, ["ann"], CERTAIN)
    said = cli("tokens", "restore")
    assert (said.code, "say which: --vendor" in said.err) == (2, True)


@pytest.mark.parametrize(
    ("decision", "told", "left"), [("confirm", "1 dropped", []), ("lift", "3 restored", [0, 1, 2])]
)
def test_a_guarded_account_is_shown_and_decided_on(
    cli: Cli, fleet: str, decision: str, told: str, left: list[int]
) -> None:
    users = [f"u{number}" for number in range(3)]
    die(fleet, users, UNDATED)
    said = cli("tokens", "guards")
    assert (said.code, "apns:main" in said.out, "tripped" in said.out) == (1, True, True), said
    (shown,) = json.loads(cli("tokens", "guards", "--json").out)
    assert (shown["quarantined"], shown["window_deaths"]) == (1, 3)
    said = cli("tokens", decision, "apns", "main")
    assert (said.code, said.out) == (0, f"apns:main: {told}\n")
    assert owners(fleet, *users) == [users[number] for number in left]
    assert cli("tokens", "guards", "--json").out == "[]\n"
    assert cli("tokens", "guards").code == 0


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("dead", "--app", "other"), "there is no app other; there are: demo"),
        (("lift", "apns", "other"), "there is no account apns other; there are: apns main"),
    ],
)
def test_what_is_wrong_is_one_sentence(cli: Cli, fleet: str, words: tuple[str, ...], told: str) -> None:
    assert cli("tokens", *words).refusal == told


def test_of_several_apps_one_is_to_be_named(cli: Cli, fleet: str, tmp_path: Path) -> None:
    settings_file(tmp_path, fleet, "[apps.lite]")
    assert cli("tokens", "dead").refusal == ("there are several apps: name one with --app; there are: demo, lite")
    assert listed(cli, "--app", "lite") == []


@pytest.mark.parametrize("when", ["yesterday", "5", "5w", "2026-13-01"])
def test_a_time_that_is_none_is_refused(cli: Cli, fleet: str, when: str) -> None:
    said = cli("tokens", "dead", "--since", when)
    assert (said.code, "neither an age" in said.err) == (2, True), said
