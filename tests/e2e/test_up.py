"""`pushfleet up`: everything on one machine, from registering a device to the vendor, and nothing left behind."""

from __future__ import annotations

import os
import re
import signal
import socket
from pathlib import Path

import pytest
from tests.e2e.conftest import TOKEN, Command, Run, fleet_lines, put
from tests.e2e.processes import listens, marked, until

from pushfleet import OfflineMessage, Producer
from pushfleet_workers.fakecloud import FakeCloudThread

UP = ("-m", "pushfleet", "up")


@pytest.fixture
def settings_file(tmp_path: Path, cloud: FakeCloudThread) -> Path:
    file = tmp_path / "fleet.toml"
    file.write_text("\n".join(['data_dir = "data"', *fleet_lines(cloud)]))
    return file


def message(identity: str) -> OfflineMessage:
    return OfflineMessage(id=identity, app="demo", recipients=("bob",), body="Lunch?")


def received(cloud: FakeCloudThread) -> list[str]:
    return [push.message_id for push in cloud.received("apns", TOKEN)]


def replaced(up: Command, role: str) -> None:
    """Kill a child and wait until another one stands in its place."""
    (old,) = marked(up.mark, role)
    os.kill(old, signal.SIGKILL)
    until(lambda: marked(up.mark, role) not in ([], [old]), what=f"another {role}")


def test_the_whole_way_with_children_that_die(cloud: FakeCloudThread, settings_file: Path, run: Run) -> None:
    up = run(*UP, PUSHFLEET_CONFIG=str(settings_file))
    api, redis_url = up.told("api").removesuffix("/docs"), up.told("redis")
    until(lambda: "Ctrl-C ends it." in up.said(), what="readiness")
    device = {"channels": [{"vendor": "apns", "token": TOKEN}], "state": "background"}
    assert put(f"{api}/v1/apps/demo/users/bob/devices/phone", device)
    with Producer(redis_url) as producer:
        producer.enqueue(message("m1"))
        until(lambda: received(cloud) == ["m1"], what="m1")
        replaced(up, "worker")
        producer.enqueue(message("m2"))
        until(lambda: received(cloud) == ["m1", "m2"], what="m2")
        replaced(up, "router")
        producer.enqueue(message("m3"))
        until(lambda: received(cloud) == ["m1", "m2", "m3"], what="m3")
    audit = run("-m", "pushfleet", "audit", PUSHFLEET_CONFIG=str(settings_file))
    assert audit.process.wait(20) == 0
    assert "The books balance." in audit.said(), "a command finds the Redis of the fleet that runs here by itself"
    (worker,), (router,) = marked(up.mark, "worker"), marked(up.mark, "router")
    assert len(os.sched_getaffinity(worker)) == 1, "a core is dealt to each worker"
    assert os.sched_getaffinity(router) == os.sched_getaffinity(0)
    addresses = [api, redis_url, *re.findall(r"^metrics +(\S+)", up.said(), re.MULTILINE)]
    assert len(addresses) == 4
    assert all(map(listens, addresses))
    assert up.ends(signal.SIGINT) == 0
    assert up.left() == []
    assert not any(map(listens, addresses))
    assert "Traceback" not in up.said()
    assert TOKEN not in up.said() + "".join(log.read_text() for log in (settings_file.parent / "data/logs").iterdir())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_it_can_be_ended_while_it_starts(settings_file: Path, run: Run, number: signal.Signals) -> None:
    up = run(*UP, PUSHFLEET_CONFIG=str(settings_file))
    until(lambda: marked(up.mark, "api"), what="the first child")
    assert up.ends(number, 10) == 0
    assert up.left() == []
    assert "Ctrl-C" not in up.said()


def test_a_port_of_the_api_that_is_taken_is_refused(cloud: FakeCloudThread, tmp_path: Path, run: Run) -> None:
    file = tmp_path / "taken.toml"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        lines = "\n".join(['data_dir = "data"', *fleet_lines(cloud)])
        file.write_text(lines.replace("port = 0", f"port = {port}", 1))
        up = run(*UP, PUSHFLEET_CONFIG=str(file))
        assert up.process.wait(20) == 2
    assert f"the api cannot listen on 127.0.0.1:{port}: end what listens there, or set api.port" in up.said()
    assert up.left() == []


def test_a_second_one_on_the_same_data_is_refused(settings_file: Path, run: Run) -> None:
    first = run(*UP, PUSHFLEET_CONFIG=str(settings_file))
    until(lambda: marked(first.mark, "api"), what="the first child")
    second = run(*UP, PUSHFLEET_CONFIG=str(settings_file))
    assert second.process.wait(20) == 2
    assert second.said().startswith("pushfleet: another fleet runs on ")
    assert first.process.poll() is None


def test_a_child_that_cannot_start_is_told_with_its_reason(settings_file: Path, run: Run) -> None:
    up = run(*UP, PUSHFLEET_CONFIG=str(settings_file), PUSHFLEET_REDIS__URL="redis://user:hunter2@127.0.0.1:1/0")
    assert up.process.wait(30) == 2
    assert "cannot be reached" in up.said()
    assert "Traceback" not in up.said()
    assert "hunter2" not in up.said()
    assert up.left() == []
