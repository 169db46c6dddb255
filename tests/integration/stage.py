"""A whole fleet for tests: real processes, a real Redis, the fake vendors, and the three books to compare."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pushfleet import Conversation, Element, OfflineMessage, Producer, Sender
from pushfleet_workers.audit import Books, read_books
from pushfleet_workers.fakecloud import FakeCloudThread
from pushfleet_workers.redis_link import Link
from pushfleet_workers.redis_server import free_port
from pushfleet_workers.settings import CONFIG_VARIABLE
from pushfleet_workers.supervisor import Child, Supervisor
from pushfleet_workers.up import pushfleet_command

TOPIC = "com.example.test"
PREFIX = "pushfleet"


def eventually(condition: Callable[[], bool], *, timeout_s: float = 60, what: str = "") -> None:
    """Wait for *condition*; fails the test when it does not come true."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout_s:.0f} s: {what or condition}"
        time.sleep(0.02)


@dataclass
class Stage:
    """A running fleet, with one APNs account unless told otherwise."""

    folder: Path
    redis_url: str
    cloud: FakeCloudThread
    supervisor: Supervisor
    config: Path
    producer: Producer
    accounts: Sequence[tuple[str, str]] = (("apns", "main"),)
    """Vendor and credential of each account."""

    accepted: list[str] = field(default_factory=list)
    started: int = 0

    def start(self, *words: str) -> Child:
        """Start `pushfleet WORDS` and wait until it is ready."""
        self.started += 1
        port = free_port()
        child = Child(
            f"{words[0]}-{self.started}",
            pushfleet_command(*words),
            {CONFIG_VARIABLE: str(self.config), "PUSHFLEET_METRICS__PORT": str(port)},
            ready_url=f"http://127.0.0.1:{port}/readyz",
        )
        self.supervisor.start(child)
        self.supervisor.wait_ready()
        return child

    def start_api(self) -> str:
        """Start `pushfleet api` and wait until it is ready; gives its address."""
        self.started += 1
        url = f"http://127.0.0.1:{free_port()}"
        environment = {CONFIG_VARIABLE: str(self.config), "PUSHFLEET_API__PORT": url.rpartition(":")[2]}
        child = Child(f"api-{self.started}", pushfleet_command("api"), environment, ready_url=f"{url}/readyz")
        self.supervisor.start(child)
        self.supervisor.wait_ready()
        return url

    def start_celery(self, *words: str) -> Child:
        """Start a plain Celery worker."""
        self.started += 1
        command = [*pushfleet_command()[:2], "celery", "-A", "pushfleet_workers.app", "worker", *words]
        child = Child(f"celery-{self.started}", command, {CONFIG_VARIABLE: str(self.config)})
        self.supervisor.start(child)
        return child

    def kill(self, child: Child) -> None:
        """End *child* as a crash would; it is not restarted."""
        assert child.process is not None
        child.process.kill()
        child.process.wait()
        self.supervisor.forget(child)

    def terminate(self, child: Child) -> int:
        """Ask *child* to end; gives its exit code."""
        assert child.process is not None
        child.process.terminate()
        code = child.process.wait(40)
        self.supervisor.forget(child)
        return code

    def register(self, users: int) -> None:
        """Devices of that many users, all in the background."""
        channels = [{"vendor": "apns", "token": f"{number:064x}"} for number in range(users)]
        self.register_channels({f"user-{number}": channel for number, channel in enumerate(channels)})

    def register_channels(self, channels: Mapping[str, Mapping[str, str]]) -> None:
        """A device in the background for each user, which has but this channel."""
        lines = self.folder / "devices.jsonl"
        rows = [
            {"app": "demo", "user": user, "device": "phone", "state": "background", "channels": [channel]}
            for user, channel in channels.items()
        ]
        lines.write_text("".join(json.dumps(row) + "\n" for row in rows))
        command = pushfleet_command("--config", str(self.config), "devices", "import", str(lines), "--json")
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr

    def enqueue(self, name: str, count: int, users: int) -> None:
        """Single chats; the producer's book keeps their ids."""
        messages = [
            OfflineMessage(
                id=f"{name}-{number}",
                app="demo",
                sender=Sender(id="ann", name="Ann"),
                conversation=Conversation(id=f"c-{number}"),
                recipients=(f"user-{number % users}",),
                elements=(Element(type="text", text="hi"),),
            )
            for number in range(count)
        ]
        self.producer.enqueue_many(messages)
        self.accepted += [message.id for message in messages]

    def books(self) -> Books:
        """The ledger's book."""

        async def read() -> Books:
            link = Link(self.redis_url)
            try:
                return await read_books(link, PREFIX, self.accounts)
            finally:
                await link.close()

        return asyncio.run(read())

    def received(self) -> Counter[str]:
        """The vendor's book: message ids and how often each was taken."""
        return Counter(push.message_id for push in self.cloud.received("apns"))

    def wait_until_idle(self, timeout_s: float = 60) -> Books:
        """Wait until nothing is pending; the books then."""
        eventually(lambda: self.books().pending == 0, timeout_s=timeout_s, what="nothing is pending")
        return self.books()


@contextlib.contextmanager
def running_stage(
    folder: Path, redis_url: str, *, account: str = "", app: str = "", settings: str = ""
) -> Iterator[Stage]:
    """A stage without any process of the fleet yet; all that was started ends with it.

    *account*, *app* and *settings* are further settings: of the account, of the app, and sections of their own.
    """
    with FakeCloudThread(vendors=["apns"], keep=200_000) as cloud:
        credential = cloud.credential("apns", topics=[TOPIC])
        config = folder / "pushfleet.toml"
        config.write_text(
            f"""
{settings}
[redis]
url = "{redis_url}"
[log]
level = "warning"
[apps.demo]
{app}
[accounts.apns.main]
app = "demo"
team_id = "{credential.settings["team_id"]}"
key_id = "{credential.settings["key_id"]}"
key_file = "{credential.file}"
topic = "{TOPIC}"
base_url = "{cloud.url("apns")}"
ca_bundle = "{cloud.ca_file}"
{account}
"""
        )
        with Supervisor(folder / "logs") as supervisor, Producer(redis_url, prefix=PREFIX) as producer:
            yield Stage(folder, redis_url, cloud, supervisor, config, producer)


def logs(stage: Stage) -> str:
    """Everything that the processes wrote."""
    return "".join(path.read_text(errors="replace") for path in (stage.folder / "logs").iterdir())


def alive(pid: int) -> bool:
    """Whether a process runs."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
