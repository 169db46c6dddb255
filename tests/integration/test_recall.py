"""Messages are taken back by real processes from real screens: replaced, withdrawn, or left as they are."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pytest
from tests.integration.every_vendor import Accounts
from tests.integration.stage import PREFIX, Stage, eventually

from pushfleet import Conversation, OfflineMessage, Producer, Sender
from pushfleet_workers.audit import Books
from pushfleet_workers.fakecloud import FakeCloudThread
from pushfleet_workers.supervisor import Supervisor

REPLACING = ("apns", "fcm", "huawei", "oppo", "harmony-plain")
"""Users, each named after how their device is reached."""

KNOW_REPEATS = ("apns", "oppo", "harmony-plain")
"""Their vendors are told an id of the push, by which they may tell a repeat."""

EVERYBODY = (*REPLACING, "harmony", "tpns")


def channel_of(user: str) -> dict[str, str]:
    vendor, _, name = user.partition("-")
    token = f"{EVERYBODY.index(user) + 1:064x}" if vendor != "tpns" else f"{EVERYBODY.index(user) + 1:036x}"
    return {"vendor": vendor, "credential": name or "main", "token": token}


class Shown(NamedTuple):
    """What a vendor was given to show on a device."""

    message: str
    title: str
    body: str
    replace_key: str
    sent_id: str


@dataclass
class Fleet:
    """A stage with a device for each user."""

    stage: Stage

    @property
    def cloud(self) -> FakeCloudThread:
        return self.stage.cloud

    def idle(self) -> Books:
        books = self.stage.wait_until_idle()
        assert books.balanced
        decided = sum(lane.deliveries for lane in books.lanes.values())
        assert decided == sum(account.put for account in books.accounts.values())
        return books

    def send(self, identity: str, *users: str, conversation: str = "c1") -> None:
        self.stage.producer.enqueue(
            OfflineMessage(
                id=identity,
                app="demo",
                sender=Sender(id="ann", name="Ann"),
                conversation=Conversation(id=conversation),
                recipients=users,
                body=f"text of {identity}",
            )
        )
        self.idle()

    def recall(self, identity: str) -> Books:
        self.stage.producer.recall("demo", identity)
        return self.idle()

    def received(self, user: str) -> list[Shown]:
        channel = channel_of(user)
        return [
            # FCM hands its texts to the app.
            Shown(
                push.message_id,
                push.title or push.data.get("title", ""),
                push.body or push.data.get("body", ""),
                push.replace_key or push.data.get("tag", ""),
                push.sent_id,
            )
            for push in self.cloud.received(channel["vendor"], channel["token"])
        ]

    def withdrawn(self) -> int:
        return self.cloud.ask(lambda cloud: cloud.book.pages["harmony"].results["withdrawn"])


def ends(books: Books) -> dict[str, dict[str, int]]:
    """By account how its deliveries ended, without the lane."""
    return {
        name: {end.partition(":")[2].rstrip(":"): count for end, count in account.ends.items()}
        for name, account in books.accounts.items()
    }


@pytest.fixture
def fleet(tmp_path: Path, redis_url: str) -> Iterator[Fleet]:
    with contextlib.ExitStack() as stack:
        channels = {user: channel_of(user) for user in EVERYBODY}
        names = [(channel["vendor"], channel["credential"]) for channel in channels.values()]
        cloud = stack.enter_context(FakeCloudThread(vendors=sorted({vendor for vendor, _ in names})))
        made = Accounts(cloud)
        # Without the client id HarmonyOS cannot be asked to withdraw anything.
        accounts = [made.make(*name, **({"client_id": ""} if name[1] == "plain" else {}))[0] for name in names]
        config = tmp_path / "pushfleet.toml"
        config.write_text(
            f'[redis]\nurl = "{redis_url}"\n[log]\nlevel = "warning"\n'
            "[worker]\nrecheck_s = 0\n"  # nothing is too young to be asked about
            "[apps.demo]\nrecall_window_s = 120\n" + "\n".join(accounts)
        )
        supervisor = stack.enter_context(Supervisor(tmp_path / "logs"))
        producer = stack.enter_context(Producer(redis_url, prefix=PREFIX))
        stage = Stage(tmp_path, redis_url, cloud, supervisor, config, producer, names)
        stage.register_channels(channels)
        stage.start("router")
        yield Fleet(stage)


@pytest.mark.timeout(180)
def test_what_is_shown_is_taken_back_as_each_vendor_allows(fleet: Fleet) -> None:
    fleet.stage.start("worker")
    fleet.send("m1", *EVERYBODY)
    fleet.send("m2", *EVERYBODY, conversation="c2")
    fleet.send("m3", *EVERYBODY, conversation="c2")
    books = fleet.recall("m1")
    for user in REPLACING:
        shown = [push for push in fleet.received(user) if push.message == "m1"]
        assert [push.body for push in shown] == ["text of m1", "Ann recalled a message"], user
        first, second = shown
        assert (first.title, first.replace_key) == (second.title, second.replace_key), user
        assert first.replace_key, user
        if user in KNOW_REPEATS:
            assert first.sent_id, user
            assert second.sent_id not in ("", first.sent_id), f"{user}: a replacement is no repeat"
    assert [push.body for push in fleet.received("harmony")] == ["text of m1", "text of m2", "text of m3"]
    assert fleet.withdrawn() == 1
    assert [push.body for push in fleet.received("tpns")] == ["text of m1", "text of m2", "text of m3"]
    assert ends(books)["tpns:main"] == {"sent": 3, "dropped:not_recallable": 1}
    for name in ("apns:main", "harmony:main", "harmony:plain", "oppo:main"):
        assert ends(books)[name] == {"sent": 4}, name

    # What a newer message of the conversation has replaced is gone already: not even HarmonyOS is told.
    before = {user: len(fleet.received(user)) for user in EVERYBODY}
    books = fleet.recall("m2")
    assert {user: len(fleet.received(user)) for user in EVERYBODY} == before
    assert fleet.withdrawn() == 1
    assert books.lanes["urgent"].suppressed == {"demo:not_shown": len(EVERYBODY)}

    # Once more changes nothing.
    assert ends(fleet.recall("m1")) == ends(books)


@pytest.mark.timeout(180)
def test_what_is_queued_is_stopped_and_nobody_hears_of_it(fleet: Fleet) -> None:
    producer = fleet.stage.producer
    producer.enqueue(
        OfflineMessage(id="m1", app="demo", conversation=Conversation(id="c1"), recipients=EVERYBODY, body="secret")
    )
    eventually(lambda: sum(account.put for account in fleet.stage.books().accounts.values()) == len(EVERYBODY))
    producer.recall("demo", "m1")
    eventually(lambda: sum(account.put for account in fleet.stage.books().accounts.values()) == 2 * len(EVERYBODY))
    fleet.stage.start("worker")
    books = fleet.idle()
    assert fleet.cloud.received() == []
    assert fleet.withdrawn() == 0
    for name, found in ends(books).items():
        assert found == {"suppressed:recalled": 1, "suppressed:not_shown": 1}, name


@pytest.mark.timeout(180)
def test_a_recall_that_overtakes_its_message_stops_it(fleet: Fleet) -> None:
    fleet.stage.start("worker")
    fleet.recall("m1")
    fleet.send("m1", *EVERYBODY)
    fleet.send("m2", *EVERYBODY)
    assert {push.body for user in EVERYBODY for push in fleet.received(user)} == {"text of m2"}
    assert fleet.stage.books().lanes["normal"].suppressed == {"demo:recalled": len(EVERYBODY)}
