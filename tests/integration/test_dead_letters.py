"""Real processes make dead letters, operators put them back and pause: three independent books are compared."""

from __future__ import annotations

import asyncio
import json
import subprocess
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from tests.integration.stage import PREFIX, Stage, eventually, logs, running_stage

from pushfleet_workers.audit import AccountBook
from pushfleet_workers.ledger import AccountKeys
from pushfleet_workers.ledger.pause import pause, resume
from pushfleet_workers.redis_link import Link
from pushfleet_workers.up import pushfleet_command

SLOW_BREAKER = "[breaker]\nopen_first_s = 60\n"


def command(stage: Stage, *words: str) -> subprocess.Popen[str]:
    full = pushfleet_command("--config", str(stage.config), *words)
    return subprocess.Popen(full, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def said(running: subprocess.Popen[str]) -> Any:
    out, err = running.communicate(timeout=30)
    assert running.returncode == 0, out + err
    return json.loads(out)


def account(stage: Stage) -> AccountBook:
    return stage.books().accounts["apns:main"]


def operate(redis_url: str, work: Callable[[Link, AccountKeys], Awaitable[object]]) -> None:
    """Pause or resume the account from here: a command takes a second to start."""

    async def run() -> None:
        link = Link(redis_url)
        try:
            await work(link, AccountKeys(PREFIX, "apns", "main"))
        finally:
            await link.close()

    asyncio.run(run())


def changes(stage: Stage, *rows: dict[str, Any]) -> None:
    """What becomes of users' only devices."""
    file = stage.folder / "changed.jsonl"
    file.write_text("".join(json.dumps({"app": "demo", "device": "phone", **row}) + "\n" for row in rows))
    said(command(stage, "devices", "import", str(file), "--json"))


@pytest.mark.timeout(180)
def test_what_a_vendor_refused_is_mended_replayed_decided_anew_and_sent_once(tmp_path: Path, redis_url: str) -> None:
    with running_stage(tmp_path, redis_url) as stage:
        rule = stage.cloud.rule("apns", "refuse", code="BadPriority")
        stage.register(20)
        stage.start("router")
        stage.start("worker", "--vendor", "apns")
        stage.enqueue("m", 40, 20)
        assert stage.wait_until_idle().balanced
        assert account(stage).ends == {"normal:dead:bad_payload": 40}
        assert account(stage).dead_letters == 40
        assert not stage.received()

        stage.cloud.clear_rules("apns", rule)
        old, new = ({"vendor": "apns", "token": token} for token in (f"{1:064x}", "ab" * 32))
        changes(
            stage,
            {"user": "user-1", "state": "foreground", "channels": [old]},
            {"user": "user-2", "state": "background", "channels": [new]},
        )
        # Two operators at once.
        both = [command(stage, "dlq", "replay", "--code", "BadPriority", "--json") for _ in range(2)]
        assert sum(said(one)["replayed"] for one in both) == 40
        books = stage.wait_until_idle()
        assert books.balanced
        assert books.accounts["apns:main"].dead_letters == 0
        assert {end: count for end, count in books.accounts["apns:main"].ends.items() if count} == {
            "normal:sent:": 38,
            "normal:suppressed:foreground": 2,
        }
        received = stage.received()
        assert set(received) == {name for name in stage.accepted if name not in ("m-1", "m-21")}
        assert max(received.values()) == 1
        assert {push.message_id for push in stage.cloud.received("apns", "ab" * 32)} == {"m-2", "m-22"}
        audit = said(command(stage, "audit", "--json"))
        assert (audit["balanced"], audit["dead"], audit["sent"]) == (True, 0, 38)
        assert "ab" * 32 not in logs(stage)


@pytest.mark.timeout(180)
def test_after_a_wrong_credential_there_is_nothing_to_replay_and_a_resume_spares_the_wait(
    tmp_path: Path, redis_url: str
) -> None:
    with running_stage(tmp_path, redis_url, settings=SLOW_BREAKER) as stage:
        rule = stage.cloud.rule("apns", "refuse", code="InvalidProviderToken")
        stage.register(10)
        stage.start("router")
        stage.start("worker", "--vendor", "apns")
        stage.enqueue("m", 30, 10)
        eventually(lambda: account(stage).open and account(stage).put == 30, what="the breaker is open")
        stage.cloud.clear_rules("apns", rule)
        assert account(stage).dead_letters == 0
        started = time.monotonic()
        said(command(stage, "resume", "apns", "--force", "--json"))
        assert stage.wait_until_idle(30).balanced
        assert time.monotonic() - started < 30
        assert account(stage).ends == {"normal:sent:": 30}
        assert set(stage.received()) == set(stage.accepted)


@pytest.mark.timeout(180)
def test_a_pause_under_load_stops_the_fleet_within_a_second_and_loses_nothing(tmp_path: Path, redis_url: str) -> None:
    answered_within_s = 0.2
    with running_stage(tmp_path, redis_url, account="in_flight_max = 40") as stage:
        stage.cloud.rule("apns", "answer", delay_s=answered_within_s)
        stage.register(50)
        stage.start("router")
        for _ in range(2):
            stage.start("worker", "--vendor", "apns")
        stage.enqueue("m", 800, 50)
        eventually(lambda: sum(stage.received().values()) > 80, what="it is under way")
        operate(redis_url, lambda link, keys: pause(link, keys, span_ms=0, reason="wrong text", elsewhere=False))
        paused_at = time.monotonic()
        last = [sum(stage.received().values()), paused_at]

        def quiet() -> bool:
            count = sum(stage.received().values())
            if count != last[0]:
                last[:] = count, time.monotonic()
            return time.monotonic() - last[1] > 1.5

        eventually(quiet, what="nothing leaves any more")
        assert last[1] - paused_at < 1.0 + answered_within_s
        held = account(stage)
        assert held.balanced
        assert held.leased == 0, "what waited in the workers went back"
        assert held.ready + held.delayed == 800 - last[0] > 0
        assert (held.operator_pause, held.operator_reason) == (True, "wrong text")
        operate(redis_url, lambda link, keys: resume(link, keys, force=False))
        assert stage.wait_until_idle().balanced
        received = stage.received()
        assert set(received) == set(stage.accepted)
        assert sum(received.values()) == 800, "nothing was sent twice"
        assert account(stage).unknown == 0
