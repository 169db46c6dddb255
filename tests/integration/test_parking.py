"""A foreground report that outlives its connection, in a whole fleet: real processes, a real Redis, the fake vendor."""

from __future__ import annotations

import time
import urllib.request
from pathlib import Path

import pytest
import redis
from tests.integration.stage import PREFIX, Stage, eventually, running_stage

from pushfleet import Channel, Confirmation, Conversation, OfflineMessage, Registration, StateReport, TokenState
from pushfleet.message import Kind
from pushfleet_workers.supervisor import Child

LEASE_S = 6
PARKS = 'foreground_ack = "park"\npark_urgent_s = 0.5\n'


def enqueue(stage: Stage, user: str, kind: Kind = "chat", name: str = "") -> None:
    """A message to *user*, named after them."""
    stage.producer.enqueue(
        OfflineMessage(
            id=name or user,
            app="demo",
            kind=kind,
            conversation=Conversation(id=f"c-{user}"),
            recipients=(user,),
            body="hi",
            sent_at_ms=int(time.time() * 1000),
        )
    )


def metrics(child: Child) -> bytes:
    """What a process tells of itself."""
    with urllib.request.urlopen(child.ready_url.replace("/readyz", "/metrics")) as answer:
        told: bytes = answer.read()
    return told


def open_apps(tokens: TokenState, users: list[str]) -> None:
    """Each of *users* has a phone, where the app has just come to the foreground."""
    for number, user in enumerate(users):
        registration = Registration(channels=(Channel(vendor="apns", token=f"{number:064x}"),), state="foreground")
        tokens.register(user, "phone", registration)


@pytest.mark.timeout(120)
def test_a_dead_connection_loses_nothing_and_a_live_one_is_left_in_peace(
    tmp_path: Path, redis_url: str, redis_client: redis.Redis
) -> None:
    users = ["dead", "leaving", "told", "streamed", "called"]
    with (
        running_stage(tmp_path, redis_url, app=PARKS, settings=f"[api]\nforeground_lease_s = {LEASE_S}") as stage,
        TokenState(stage.start_api(), app="demo") as tokens,
    ):
        stage.start("router")
        stage.start("worker", "--vendor", "apns")
        open_apps(tokens, users)
        opened = time.monotonic()
        for user in users:
            enqueue(stage, user, "call" if user == "called" else "chat")
        now_ms = int(time.time() * 1000)
        tokens.confirm_delivery([Confirmation(user="told", device="phone", conversation="c-told", up_to_ms=now_ms)])
        entry = {"app": "demo", "user": "streamed", "device": "phone", "up_to_ms": str(now_ms)}
        redis_client.xadd(f"{PREFIX}:{{reports}}", entry)
        eventually(lambda: stage.books().accounts["apns:main"].put == len(users), what="all of them are parked")
        tokens.report(StateReport(user="leaving", device="phone", state="background"))

        eventually(lambda: stage.received() == {"called": 1, "leaving": 1}, timeout_s=LEASE_S, what="two are pushed")
        assert time.monotonic() - opened < LEASE_S, "no lease has run out yet"
        eventually(lambda: stage.received()["dead"] == 1, timeout_s=LEASE_S + 4, what="its lease runs out")
        assert time.monotonic() - opened > LEASE_S - 1

        books = stage.wait_until_idle()
        assert stage.received() == {"called": 1, "leaving": 1, "dead": 1}
        assert books.balanced
        assert books.accounts["apns:main"].ends == {
            "urgent:sent:": 1,
            "normal:sent:": 2,
            "normal:suppressed:delivered": 2,
        }
        assert sum(lane.deliveries for lane in books.lanes.values()) == len(users)


@pytest.mark.timeout(120)
def test_a_killed_worker_loses_nothing_of_what_is_parked(tmp_path: Path, redis_url: str) -> None:
    users = [f"u{number}" for number in range(40)]
    with (
        running_stage(tmp_path, redis_url, account='on_unknown = "drop"', app=PARKS) as stage,
        TokenState(stage.start_api(), app="demo") as tokens,
    ):
        stage.start("router")
        worker = stage.start("worker", "--vendor", "apns")
        open_apps(tokens, users)
        for user in users:
            for number in range(5):
                enqueue(stage, user, name=f"{user}-{number}")
        eventually(lambda: b"pushfleet_parked_total{" in metrics(worker), what="it looks")
        stage.kill(worker)
        stage.start("worker", "--vendor", "apns")
        tokens.report_many(StateReport(user=user, device="phone", state="killed") for user in users[::2])
        now_ms = int(time.time() * 1000)
        tokens.confirm_delivery(Confirmation(user=user, device="phone", up_to_ms=now_ms) for user in users[1::2])
        books = stage.wait_until_idle()
        assert books.balanced
        assert books.accounts["apns:main"].ends == {"normal:sent:": 100, "normal:suppressed:delivered": 100}
        assert set(stage.received()) == {f"{user}-{number}" for user in users[::2] for number in range(5)}
