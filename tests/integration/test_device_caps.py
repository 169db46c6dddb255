"""A phone that gets five pushes a day, and real processes in front of it: the mentions and the call are among them."""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from tests.integration.every_vendor import Accounts
from tests.integration.stage import PREFIX, Stage, eventually

from pushfleet import Conversation, OfflineMessage, Producer, Recipient, Sender
from pushfleet_workers.fakecloud import FakeCloudThread
from pushfleet_workers.supervisor import Supervisor
from pushfleet_workers.up import pushfleet_command

XIAOMI, APNS = {"vendor": "xiaomi", "token": "bob"}, {"vendor": "apns", "token": "c" * 64}
DEVICES = {"bob": [XIAOMI], "carol": [{**XIAOMI, "token": "carol"}, APNS], "dave": [{**APNS, "token": "d" * 64}]}
SHORT_S = 7
"""A gathered push is due before the first of its messages expires, and that is soon."""


def said(number: int, *users: str, **changes: Any) -> OfflineMessage:
    fields: dict[str, Any] = {
        "id": f"m{number}",
        "app": "demo",
        "sender": Sender(id=f"u{number}", name=f"User {number}"),
        "conversation": Conversation(id="g1", kind="group", name="Team"),
        "recipients": users,
        "body": "Lunch?",
        "ttl_s": SHORT_S,
    }
    return OfflineMessage(**{**fields, **changes})


@pytest.mark.timeout(120)
def test_what_is_important_gets_through_to_a_phone_that_gets_five_a_day(tmp_path: Path, redis_url: str) -> None:
    with contextlib.ExitStack() as stack:
        cloud = stack.enter_context(FakeCloudThread(vendors=["apns", "xiaomi"]))
        made, names = Accounts(cloud), [("xiaomi", "main"), ("apns", "main")]
        accounts = "\n".join(made.make(*name)[0] for name in names)
        config = tmp_path / "pushfleet.toml"
        config.write_text(f'[redis]\nurl = "{redis_url}"\n[log]\nlevel = "warning"\n[apps.demo]\n{accounts}')
        supervisor = stack.enter_context(Supervisor(tmp_path / "logs"))
        producer = stack.enter_context(Producer(redis_url, prefix=PREFIX))
        stage = Stage(tmp_path, redis_url, cloud, supervisor, config, producer, names)
        register(stage)
        stage.start("router")
        stage.start("worker")

        def bodies(vendor: str, token: str) -> list[str]:
            return [push.body for push in cloud.received(vendor, token)]

        def bob() -> list[str]:
            return bodies("xiaomi", "bob")

        producer.enqueue(said(0, "bob"))
        eventually(lambda: len(bob()) == 1, what="the first goes at once")
        producer.enqueue_many([said(number, "bob", "dave") for number in range(1, 30)])
        eventually(lambda: len(bob()) == 2, what="then one tells of all")
        producer.enqueue(said(40, Recipient(id="bob", mention=True)))  # type: ignore[arg-type]
        eventually(lambda: len(bob()) == 3, what="a mention goes at once")
        producer.enqueue_many([said(number, "bob") for number in range(50, 60)])
        eventually(lambda: len(bob()) == 4, what="and another one tells of all")
        producer.enqueue_many([said(number, "bob", ttl_s=86_400) for number in range(60, 70)])
        producer.enqueue(said(70, "bob", kind="call", body="Ring", ttl_s=60))
        eventually(lambda: len(bob()) == 5, what="a call takes the last one")
        producer.enqueue_many([said(number, Recipient(id="bob", mention=True)) for number in range(71, 75)])  # type: ignore[arg-type]
        books = stage.wait_until_idle()
        assert books.balanced
        assert bob() == [
            "User 0: Lunch?",
            "User 29 and 28 others in Team",
            "[Mentioned you] User 40: Lunch?",
            "User 59 and 9 others in Team",
            "User 70: Ring",
        ]
        assert len(bodies("apns", "d" * 64)) == 29, "nobody else is held up"

        producer.enqueue_many([said(number, "carol") for number in range(100, 112)])
        stage.wait_until_idle()
        assert len(bodies("xiaomi", "carol")) == 1
        assert len(bodies("apns", "c" * 64)) == 11, "what would have to wait goes by the other token"

        books = stage.books()
        ended: Counter[str] = Counter()
        for lane in books.lanes.values():
            ended.update({name.partition(":")[2]: count for name, count in lane.suppressed.items()})
        for end, count in books.accounts["xiaomi:main"].ends.items():
            ended[end.partition(":")[2].rstrip(":").removeprefix("suppressed:")] += count
        assert ended == {"sent": 5 + 1, "gathered": 28 + 9, "device_cap": 10 + 4, "moved:device_cap": 11}


def register(stage: Stage) -> None:
    lines = stage.folder / "devices.jsonl"
    rows = [
        {"app": "demo", "user": user, "device": "phone", "state": "background", "channels": channels}
        for user, channels in DEVICES.items()
    ]
    lines.write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = pushfleet_command("--config", str(stage.config), "devices", "import", str(lines), "--json")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
