"""The producer of the scenarios: what it asks for, and what it writes down."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import msgspec
from tests.chaos.load import AskedToStop, Plan, message, read_told, run
from tests.chaos.nursery import ROOT
from tests.chaos.people import People
from tests.chaos.processes import until
from tests.workers.commands import NOTHING_LISTENS

from pushfleet_workers.redis_server import EmbeddedRedis


def plan(book: Path, redis_url: str, **further: object) -> Plan:
    fields = {"name": "m", "redis_url": redis_url, "book": str(book), "vendors": ["apns", "fcm"], "per_vendor": 3}
    return Plan(**{**fields, "per_s": 1e6, **further})  # type: ignore[arg-type]


class SecondThoughts:
    """Asks to stop when it is asked for the second time."""

    asked = 0

    def check(self) -> None:
        self.asked += 1
        if self.asked > 1:
            raise AskedToStop


def test_messages_go_to_all_people_in_turn_and_now_and_then_to_a_group(tmp_path: Path) -> None:
    made = [message(plan(tmp_path, "", groups_every=4), number, 1.5) for number in range(8)]
    assert [len(one.recipients) for one in made] == [1, 1, 1, 6, 1, 1, 1, 6], "somebody who is named twice counts once"
    assert {one.sent_at_ms for one in made} == {1_500}
    everybody = {user for one in made for user in one.recipients}
    assert everybody == set(People(["apns", "fcm"], 3).users) == {f"{v}-{n}" for v in ("apns", "fcm") for n in range(3)}


def test_what_was_accepted_is_in_the_queue(tmp_path: Path, redis_url: str, redis_client: object) -> None:
    book = tmp_path / "book.jsonl"
    process = subprocess.run(
        [sys.executable, "-m", "tests.chaos.load", msgspec.json.encode(plan(book, redis_url, count=30)).decode()],
        cwd=ROOT, check=False, timeout=30,
    )  # fmt: skip
    assert process.returncode == 0
    told = list(read_told(book))
    assert [one.id for one in told] == [f"m-{number}" for number in range(30)]
    assert all(one.accepted and not one.refusals for one in told)
    assert redis_client.xlen("pushfleet:{ingress:normal}") == 30  # type: ignore[attr-defined]


def test_it_asks_again_where_it_was_refused(tmp_path: Path) -> None:
    book = tmp_path / "book.jsonl"
    with EmbeddedRedis(tmp_path / "redis") as server:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.chaos.load", msgspec.json.encode(plan(book, server.url, per_s=200)).decode()],
            cwd=ROOT,
        )
        try:
            until(lambda: any(read_told(book)), what="a message is accepted")
            server.kill()
            before = len(list(read_told(book)))
            server.start()
            until(lambda: len(list(read_told(book))) > before + 20, what="further messages are accepted")
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 0
        finally:
            process.kill()
            process.wait()
    told = list(read_told(book))
    assert any(one.refusals for one in told)
    assert all(one.accepted for one in told)
    assert [one.id for one in told] == [f"m-{number}" for number in range(len(told))]


def test_what_is_still_refused_at_the_end_is_told_as_such(tmp_path: Path) -> None:
    book = tmp_path / "book.jsonl"
    run(plan(book, NOTHING_LISTENS, count=3), SecondThoughts())
    assert [(one.id, one.accepted, one.refusals > 0) for one in read_told(book)] == [
        (f"m-{number}", False, True) for number in range(3)
    ]
