"""A foreground report that outlives its connection, in a whole fleet: real processes, a real Redis, the fake vendor."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import redis
from tests.integration.stage import PREFIX, Stage, eventually, running_stage

from pushfleet import Channel, Confirmation, Conversation, OfflineMessage, Registration, StateReport, TokenState
from pushfleet.message import Kind

LEASE_S = 6
PARKS = 'foreground_ack = "park"\npark_urgent_s = 0.5\n'


def enqueue(stage: Stage, user: str, kind: Kind = "chat") -> None:
    """A message to *user*, named after them."""
    stage.producer.enqueue(
        OfflineMessage(
            id=user,
            app="demo",
            kind=kind,
            conversation=Conversation(id=f"c-{user}"),
            recipients=(user,),
            body="hi",
            sent_at_ms=int(time.time() * 1000),
        )
    )


def open_apps(tokens: TokenState, users: list[str]) -> None:
    """Each of *users* has a phone, where the app has just come to the foreground."""
    for number, user in enumerate(users):
        registration = Registration(channels=(Channel(vendor="apns", token=f"{number:064x}"),), state="foreground")
        tokens.register(user, "phone", registration)


def ended(stage: Stage) -> int:
    """How many deliveries have ended."""
    return sum(stage.books().accounts["apns:main"].ends.values())


@pytest.mark.timeout(120)
def test_neither_a_dead_connection_nor_a_dead_worker_loses_anything(
    tmp_path: Path, redis_url: str, redis_client: redis.Redis
) -> None:
    users = ["dead", "leaving", "told", "streamed", "called"]
    with (
        running_stage(tmp_path, redis_url, app=PARKS, settings=f"[api]\nforeground_lease_s = {LEASE_S}") as stage,
        TokenState(stage.start_api(), app="demo") as tokens,
    ):
        stage.start("router")
        worker = stage.start("worker", "--vendor", "apns")
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
        # What waits on does not wait in a process; all else has been settled.
        eventually(lambda: ended(stage) == len(users) - 1, what="one waits")
        stage.kill(worker)
        stage.start("worker", "--vendor", "apns")
        eventually(lambda: stage.received()["dead"] == 1, what="its lease runs out")
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
