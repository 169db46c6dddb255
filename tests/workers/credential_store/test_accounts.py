"""Accounts of settings and store, as the processes of a fleet see them."""

from __future__ import annotations

import asyncio
import json
import logging
from pathlib import Path
from typing import Any

import pytest
from tests.workers.credential_store.support import (
    APNS,
    APNS_FIELDS,
    HUAWEI,
    KEYS,
    MASTER_KEY,
    OTHER_KEY,
    OTHER_P8,
    P8,
    SECRET,
    Play,
    Stage,
    apns,
    huawei,
    settings,
)

from pushfleet_workers.credential_store import Accounts, Change
from pushfleet_workers.credential_store.management import Given
from pushfleet_workers.credential_store.store import Name

IN_SETTINGS = {"huawei": {"main": {"app": "demo", "client_id": "7", "client_secret": "of-the-settings"}}}


def names(accounts: Accounts) -> set[str]:
    return {f"{vendor}:{credential}" for vendor, credential, _ in accounts.each()}


def one(accounts: Accounts, name: Name) -> Any:
    (found,) = [account for vendor, credential, account in accounts.each() if (vendor, credential) == name]
    return found


async def ended_overlap(stage: Stage, name: Name) -> None:
    """As if the overlap were over."""
    record = json.loads(await stage.link.call("HGET", KEYS.records, str(name)))
    record["overlap_until_ms"] = 1
    await stage.link.call("HSET", KEYS.records, str(name), json.dumps(record, separators=(",", ":")))
    await stage.link.call("INCR", KEYS.version)


def test_a_fleet_without_a_store_has_the_accounts_of_its_settings(play: Play, memory: Path) -> None:
    async def scenario(stage: Stage) -> None:
        accounts = stage.accounts()
        assert accounts.apps == {HUAWEI: "demo"}
        assert await accounts.refresh() == []
        assert names(accounts) == {"huawei:main"}
        assert list(memory.iterdir()) == []

    play(scenario, accounts=IN_SETTINGS, credentials={})


def test_a_credential_is_added_changed_and_removed_while_processes_run(play: Play, memory: Path) -> None:
    async def scenario(stage: Stage) -> None:
        sender, router = stage.accounts(), stage.accounts(secrets=False)
        assert await sender.refresh() == await router.refresh() == []
        await stage.manager.add(APNS, "demo", apns())
        for accounts in (sender, router):
            (change,) = await accounts.refresh()
            assert change[:2] == APNS
            assert change.account is not None
            assert (change.account.app, accounts.apps) == ("demo", {APNS: "demo"})
            assert await accounts.refresh() == [], "it is told once"
        old = one(sender, APNS).key_file
        assert (old.read_bytes(), old.name) == (P8, "AuthKey_F6G7H8J9K0.p8")
        assert not one(router, APNS).key_file.exists(), "who sends nothing has no key"

        await stage.manager.rotate(APNS, Given({"rate_per_s": "7"}))
        (change,) = await sender.refresh()
        new = one(sender, APNS)
        assert (new.rate_per_s, new.key_file.read_bytes()) == (7, P8)
        assert old.exists(), "whoever is told may still use it"
        assert await sender.refresh() == []
        assert not old.exists()

        await stage.manager.remove(APNS)
        for accounts in (sender, router):
            assert await accounts.refresh() == [Change("apns", "main", None)]
            assert names(accounts) == set()
            assert accounts.apps == {}
        await sender.refresh()
        assert list(memory.rglob("*.p8")) == []

    play(scenario)


def test_changes_come_by_themselves_and_the_files_of_before_stay_until_they_are_dealt_with(play: Play) -> None:
    async def scenario(stage: Stage) -> None:
        accounts = stage.accounts()
        changes = accounts.changes(every_s=0.01)
        await stage.manager.add(APNS, "demo", apns())
        async with asyncio.timeout(10):
            (added,) = await anext(changes)
            await stage.manager.rotate(APNS, apns(OTHER_P8))
            (rotated,) = await anext(changes)
            before: Any = added.account
            assert before.key_file.read_bytes() == P8
            after: Any = rotated.account
            assert after.key_file.read_bytes() == OTHER_P8
            await stage.manager.remove(APNS)
            assert await anext(changes) == [Change("apns", "main", None)]
            assert not before.key_file.exists()
        await changes.aclose()

    play(scenario)


def test_where_both_have_one_the_settings_win_and_it_is_said(play: Play, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.manager.add(HUAWEI, "demo", huawei())
        both = settings(stage.settings.redis.url, stage.settings.data_dir, accounts=IN_SETTINGS)
        accounts = stage.accounts(settings=both)
        assert await accounts.refresh() == []
        assert one(accounts, HUAWEI).client_id == "7"
        (record,) = caplog.records
        assert record.message.startswith("stored credential huawei:main cannot be used: the settings have an account")

    play(scenario)


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"credentials": {}}, "no master key is set here"),
        ({"credentials": {"master_key": OTHER_KEY}}, "sealed under a master key that is not set here"),
        ({"apps": {"lite": {}}}, "app names 'demo', which is no app"),
    ],
)
def test_one_that_cannot_be_used_holds_up_nobody(
    play: Play, caplog: pytest.LogCaptureFixture, changed: dict[str, Any], told: str
) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.manager.add(HUAWEI, "demo", huawei())
        url, home = stage.settings.redis.url, stage.settings.data_dir
        accounts = stage.accounts(settings=settings(url, home, **changed))
        assert await accounts.refresh() == []
        await stage.link.call("INCR", KEYS.version)
        assert await accounts.refresh() == []
        (record,) = caplog.records
        assert (record.levelno, told in record.message) == (logging.ERROR, True), record.message
        assert SECRET not in caplog.text

    play(scenario)


def test_settings_that_somebody_changed_in_redis_get_no_secret(play: Play, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.manager.add(HUAWEI, "demo", huawei())
        raw = await stage.link.call("HGET", KEYS.records, str(HUAWEI))
        moved = raw.replace(b'"client_id":"100"', b'"client_id":"100","auth_url":"https://evil.test"')
        assert moved != raw
        await stage.link.call("HSET", KEYS.records, str(HUAWEI), moved, "huawei:copy", raw)
        await stage.link.call("HSET", KEYS.records, "huawei:torn", raw[:-9], "pigeon:main", raw)
        accounts = stage.accounts()
        assert await accounts.refresh() == []
        assert caplog.text.count("its seal is broken") == 3, "a copy under another name does not open either"
        assert "the record of credential huawei:torn cannot be read" in caplog.text
        router = stage.accounts(secrets=False)
        await router.refresh()
        assert names(router) == {"huawei:main", "huawei:copy"}
        assert "pigeon:main cannot be used: there is no vendor 'pigeon'" in caplog.text

    play(scenario)


def test_what_runs_goes_on_when_it_cannot_be_opened_any_more(play: Play) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.manager.add(HUAWEI, "demo", huawei())
        accounts = stage.accounts()
        await accounts.refresh()
        other = settings(stage.settings.redis.url, stage.settings.data_dir, master_key=f"{OTHER_KEY} {MASTER_KEY}")
        manager = Stage(other, stage.link).manager
        await manager.rotate(HUAWEI, huawei("another secret"))
        assert await accounts.refresh() == []
        assert one(accounts, HUAWEI).client_secret.get_secret_value() == SECRET

    play(scenario)


def test_sealing_anew_changes_nothing_for_those_that_run(play: Play) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.manager.add(HUAWEI, "demo", huawei())
        await stage.manager.rotate(HUAWEI, huawei("new"))
        accounts = stage.accounts()
        await accounts.refresh()
        url, home = stage.settings.redis.url, stage.settings.data_dir
        assert (
            await Stage(settings(url, home, master_key=f"{OTHER_KEY} {MASTER_KEY}"), stage.link).manager.reseal() == 1
        )
        assert await accounts.refresh() == []
        later = stage.accounts(settings=settings(url, home, master_key=OTHER_KEY))
        assert len(await later.refresh()) == 1
        assert one(later, HUAWEI).client_secret.get_secret_value() == "new"

    play(scenario)


# ---- rotation


def test_a_refused_secret_gives_way_to_the_one_before_for_the_whole_fleet(play: Play) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.manager.add(HUAWEI, "demo", huawei())
        here, there = stage.accounts(), stage.accounts()
        await here.refresh()
        await stage.manager.rotate(HUAWEI, huawei("wrong"))
        await here.refresh()
        await there.refresh()
        assert one(here, HUAWEI).client_secret.get_secret_value() == "wrong"
        await stage.link.call("HSET", "t:{huawei:main}:auth", "value", "made with the refused secret")
        here.refused(*HUAWEI, one(here, HUAWEI), "invalid_client")
        for accounts in (here, there):
            assert [change[:2] for change in await accounts.refresh()] == [HUAWEI]
            assert one(accounts, HUAWEI).client_secret.get_secret_value() == SECRET
        assert await stage.link.call("EXISTS", "t:{huawei:main}:auth") == 0
        (shown,) = await stage.manager.every()
        assert shown.refused == "invalid_client"
        assert "refuses the new secret (invalid_client)" in (await stage.manager.check())[HUAWEI][0]

        await stage.manager.rotate(HUAWEI, huawei("right"))
        await here.refresh()
        here.refused(*HUAWEI, one(here, HUAWEI), "down")
        await here.refresh()
        assert one(here, HUAWEI).client_secret.get_secret_value() == SECRET, "what worked is kept, not what was refused"

        await ended_overlap(stage, HUAWEI)
        await here.refresh()
        assert one(here, HUAWEI).client_secret.get_secret_value() == "right"
        assert json.loads(await stage.link.call("HGET", KEYS.records, str(HUAWEI)))["previous"] is None
        (shown,) = await stage.manager.every()
        assert (shown.refused, shown.overlap_until_ms) == ("", 0)

    play(scenario)


def test_what_is_refused_without_an_overlap_or_by_an_old_courier_changes_nothing(play: Play) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.manager.add(HUAWEI, "demo", huawei())
        accounts = stage.accounts()
        await accounts.refresh()
        first = one(accounts, HUAWEI)
        accounts.refused(*HUAWEI, first, "80300002")
        assert await accounts.refresh() == []
        await stage.manager.rotate(HUAWEI, huawei("new"))
        await accounts.refresh()
        accounts.refused(*HUAWEI, first, "80300002")
        accounts.refused("huawei", "other", first, "80300002")
        assert await accounts.refresh() == []
        assert one(accounts, HUAWEI).client_secret.get_secret_value() == "new"
        (shown,) = await stage.manager.every()
        assert shown.refused == ""

    play(scenario)


def test_a_refusal_is_told_at_once(play: Play) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.manager.add(HUAWEI, "demo", huawei())
        await stage.manager.rotate(HUAWEI, huawei("wrong"))
        accounts = stage.accounts()
        changes = accounts.changes(every_s=60)
        async with asyncio.timeout(10):
            await anext(changes)
            waiting = asyncio.ensure_future(anext(changes))
            await asyncio.sleep(0)
            accounts.refused(*HUAWEI, one(accounts, HUAWEI), "invalid_client")
            (change,) = await waiting
        account: Any = change.account
        assert account.client_secret.get_secret_value() == SECRET
        await changes.aclose()

    play(scenario)


def test_after_the_overlap_the_secret_before_is_forgotten(play: Play) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.manager.add(HUAWEI, "demo", huawei())
        await stage.manager.rotate(HUAWEI, huawei("new"))
        accounts, router = stage.accounts(), stage.accounts(secrets=False)
        await accounts.refresh()
        await ended_overlap(stage, HUAWEI)
        await router.refresh()
        assert json.loads(await stage.link.call("HGET", KEYS.records, str(HUAWEI)))["previous"] is not None
        assert await accounts.refresh() == []
        assert json.loads(await stage.link.call("HGET", KEYS.records, str(HUAWEI)))["previous"] is None

    play(scenario)


def test_a_lost_redis_is_waited_for(play: Play, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(stage: Stage) -> None:
        accounts = stage.accounts()
        changes = accounts.changes(every_s=0.01)
        waiting = asyncio.ensure_future(anext(changes))
        await stage.link.call("SET", KEYS.version, "1")
        await stage.link.call("SET", KEYS.records, "no hash")
        async with asyncio.timeout(10):
            while "were not looked at: WRONGTYPE" not in caplog.text:
                await asyncio.sleep(0.005)
            await stage.link.call("DEL", KEYS.records)
            await stage.manager.add(APNS, "demo", apns())
            assert [change[:2] for change in await waiting] == [APNS]
        await changes.aclose()

    play(scenario)


def test_the_redis_holds_no_secret_in_the_clear(play: Play) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.manager.add(HUAWEI, "demo", huawei(proxy="http://user:pass-word@proxy:3128"))
        await stage.manager.add(APNS, "demo", apns())
        await stage.manager.rotate(HUAWEI, huawei("another secret"))
        flat = b"".join(await stage.link.call("HGETALL", KEYS.records))
        body = b"".join(P8.splitlines()[1:-1])
        for secret in (SECRET.encode(), b"another secret", b"pass-word", P8, body, b"PRIVATE KEY"):
            assert secret not in flat
        assert APNS_FIELDS["team_id"].encode() in flat, "what is no secret is readable"

    play(scenario)
