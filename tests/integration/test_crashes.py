"""Processes are killed in mid-run; three independent books are compared: producer, ledger, vendor."""

from pathlib import Path

import pytest
from tests.integration.stage import Stage, eventually, logs, running_stage

USERS = 200
MESSAGES = 1_500


def assert_nothing_lost(stage: Stage) -> None:
    books = stage.wait_until_idle()
    received = stage.received()
    assert books.balanced
    assert set(received) == set(stage.accepted), "what was accepted and what the vendor took"
    account = books.accounts["apns:main"]
    assert account.put == len(stage.accepted)
    assert account.ends == {"normal:sent:": len(stage.accepted)}
    doubles = sum(received.values()) - len(received)
    assert doubles <= account.unknown, "a double comes only from an unknown outcome"


@pytest.mark.timeout(180)
def test_a_killed_vendor_worker_loses_nothing(tmp_path: Path, redis_url: str) -> None:
    with running_stage(tmp_path, redis_url, account="in_flight_max = 40") as stage:
        stage.cloud.rule("apns", "answer", delay_s=0.05)
        stage.register(USERS)
        stage.start("router")
        worker = stage.start("worker", "--vendor", "apns")
        stage.enqueue("m", MESSAGES, USERS)
        eventually(lambda: sum(stage.received().values()) > MESSAGES // 10)
        stage.kill(worker)
        in_hand = stage.books().accounts["apns:main"].leased
        assert in_hand, "it was killed with work in hand"
        stage.start("worker", "--vendor", "apns")
        assert_nothing_lost(stage)
        assert stage.books().accounts["apns:main"].unknown == in_hand
        assert "came back from a dead process" in logs(stage)


@pytest.mark.timeout(180)
def test_killed_routers_lose_nothing_and_decide_once(tmp_path: Path, redis_url: str) -> None:
    settings = "[router]\ntakeover_s = 1.0\nbatch = 50"
    with running_stage(tmp_path, redis_url, settings=settings) as stage:
        stage.register(USERS)
        stage.start("worker", "--vendor", "apns")
        in_hand = []
        for turn in range(4):
            router = stage.start("router")
            before = stage.books().accounts["apns:main"].put
            stage.enqueue(f"m{turn}", MESSAGES // 4, USERS)
            eventually(lambda before=before: stage.books().accounts["apns:main"].put > before)  # type: ignore[misc]
            stage.kill(router)
            in_hand.append(stage.books().lanes["normal"].present)
        assert any(in_hand), "at least one was killed with entries in hand"
        stage.start("router")
        assert_nothing_lost(stage)
