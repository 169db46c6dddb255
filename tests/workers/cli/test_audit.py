from __future__ import annotations

import json
from pathlib import Path

import pytest
import redis
from tests.workers.cli.conftest import Cli
from tests.workers.commands import apns_account, settings_file
from tests.workers.routing import Stage, chat, play

INGRESS = "t:{ingress:normal}:books"
LEDGER = "t:{apns:main}:books"


@pytest.fixture
def routed(tmp_path: Path, redis_url: str) -> None:
    """One delivery waits, one recipient had no device, one entry was refused."""

    async def scenario(stage: Stage) -> None:
        await stage.device()
        await stage.route(chat("m1"), chat("m2", "nobody"))
        await stage.xadd("v", "1", "m", "nonsense")
        await stage.route()

    play(redis_url, scenario)
    settings_file(tmp_path, redis_url, *apns_account())


def test_an_empty_fleet_balances(cli: Cli, tmp_path: Path, redis_url: str) -> None:
    settings_file(tmp_path, redis_url)
    said = cli("audit")
    assert (said.code, said.err) == (0, "")
    assert said.out.endswith("The books balance.\n")


@pytest.mark.usefixtures("routed")
def test_balanced_books_are_printed(cli: Cli) -> None:
    said = cli("audit")
    assert said.code == 0
    rows = [row.strip(" │").split(" │ ") for row in said.out.splitlines()]
    table = {row[0].strip(): [cell.strip() for cell in row[1:]] for row in rows if len(row) > 5}
    assert table["normal"] == ["3", "0", "2", "1", "True"]
    assert table["apns:main"] == ["1", "1", "0", "0", "0", "0", "True"]


@pytest.mark.usefixtures("routed")
def test_balanced_books_as_json(cli: Cli) -> None:
    said = cli("audit", "--json")
    assert (said.code, said.err) == (0, "")
    books = json.loads(said.out)
    assert (books["balanced"], books["pending"], books["suppressed"], books["sent"]) == (True, 1, 1, 0)
    assert books["lanes"]["normal"]["suppressed"] == {"demo:no_device": 1}
    assert books["accounts"]["apns:main"]["ready"] == 1


@pytest.mark.usefixtures("routed")
@pytest.mark.parametrize(
    ("key", "field"),
    [(INGRESS, "routed"), (INGRESS, "malformed"), (LEDGER, "put"), (LEDGER, "ready"), (LEDGER, "ended")],
)
@pytest.mark.parametrize("by", [1, -1])
def test_a_counter_that_is_off_by_one_is_found(
    cli: Cli, redis_client: redis.Redis, key: str, field: str, by: int
) -> None:
    redis_client.hincrby(key, field, by)
    said = cli("audit")
    assert said.code == 1
    assert "do NOT balance" in said.out
    as_json = cli("audit", "--json")
    assert as_json.code == 1
    assert json.loads(as_json.out)["balanced"] is False


@pytest.mark.usefixtures("routed")
def test_a_delivery_that_vanished_is_found(cli: Cli, redis_client: redis.Redis) -> None:
    redis_client.delete("t:{apns:main}:ready:normal")
    assert cli("audit").code == 1


@pytest.mark.usefixtures("routed")
def test_an_idle_fleet_whose_stages_disagree_is_told_the_numbers(cli: Cli, redis_client: redis.Redis) -> None:
    # As if the delivery had been sent, and another one that nobody decided on.
    redis_client.delete("t:{apns:main}:ready:normal")
    redis_client.hset(LEDGER, mapping={"put": 2, "ready": 0, "ended": 2, "end:normal:sent:": 2})
    said = cli("audit")
    assert said.code == 1
    assert "Routers decided on 1 deliveries, the ledgers were given 2." in said.out
