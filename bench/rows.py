"""The rows: each runs once a round and gives its figures."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import redis
from bench.cpu import cpu_s
from bench.stage import ROOT, Stage
from celery import Celery

from pushfleet import Conversation, Element, OfflineMessage, OfflinePush, Producer, Sender
from pushfleet_workers.fakecloud import FakeCloudThread
from pushfleet_workers.ledger import AccountKeys
from pushfleet_workers.redis_server import free_port
from pushfleet_workers.settings import CONFIG_VARIABLE
from pushfleet_workers.supervisor import Child, Supervisor
from pushfleet_workers.up import pushfleet_command

Figures = dict[str, float]

USERS = 20_000
WARM_UP = 400
SINGLE_CHATS = 20_000
NAIVE_PUSHES = 1_500
IDLE_MESSAGES = 200
NAME, TEXT = "Ann", "See you at eight in front of the cinema? I have the tickets."
EXT = '{"page":"chat","conversation":"42"}'
RAW_REQUESTS = {"pyreqwest": 15_000, "httpx": 2_000, "aioapns": 3_000}


def raw(stage: Stage, engine: str) -> Figures:
    """The transport alone."""
    command = [sys.executable, "-m", "bench.transport_loop", engine, stage.sink_url, str(stage.ca_file)]
    done = subprocess.run(
        [*command, str(RAW_REQUESTS[engine])], cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
    )
    if done.returncode:
        raise RuntimeError(f"the loop of {engine} failed: {done.stderr[-800:]}")
    figures: Figures = json.loads(done.stdout)
    return figures


def naive_aioapns(stage: Stage) -> Figures:
    """One Celery task a push with aioapns; the publisher is not counted."""
    broker = f"redis://127.0.0.1:{stage.redis.port}/1"
    env = {
        "NAIVE_BROKER": broker,
        "NAIVE_CA": str(stage.ca_file),
        "NAIVE_KEY": str(stage.key_file),
        "NAIVE_PORT": str(urlsplit(stage.sink_url).port),
        "PYTHONPATH": str(ROOT),
    }
    command = [
        sys.executable, "-m", "celery", "-A", "bench.naive", "worker", "-P", "threads", "-c", "16", "-l", "warning",
        "--without-gossip", "--without-mingle", "--without-heartbeat",
    ]  # fmt: skip
    with (
        redis.Redis.from_url(broker) as client,
        Celery("producer", broker=broker, set_as_current=False) as app,
        Supervisor(stage.folder / "logs") as supervisor,
    ):
        app.conf.task_ignore_result = True
        supervisor.start(Child("naive", command, env))

        def publish(count: int) -> None:
            for number in range(count):
                words = NAME, TEXT, f"chat-{number}", f"conversation-{number}", EXT
                app.send_task("naive.push", (f"{number:064x}", *words), queue="naive")

        def left() -> int:
            return int(client.llen("naive")) + int(client.hlen("unacked"))  # type: ignore[arg-type]

        publish(WARM_UP // 4)
        wait_until(lambda: left() == 0)
        process = supervisor.child("naive").process
        assert process is not None
        os.kill(process.pid, signal.SIGSTOP)
        publish(NAIVE_PUSHES)
        pids = [process.pid, stage.redis.pid]
        started, cpu = time.perf_counter(), cpu_s(pids)
        os.kill(process.pid, signal.SIGCONT)
        wait_until(lambda: left() == 0)
        return rates(NAIVE_PUSHES, time.perf_counter() - started, cpu_s(pids) - cpu)


def single_chat(stage: Stage) -> Figures:
    """Our whole path, saturated: the backlog lies in the ingress when router and worker go on."""
    with fleet(stage, stage.write_settings(stage.sink_url)) as (producer, client, processes):
        producer.enqueue_many(chats("warm", WARM_UP))
        wait_until(lambda: sent(client) >= WARM_UP)
        for process in processes:
            os.kill(process, signal.SIGSTOP)
        producer.enqueue_many(chats("chat", SINGLE_CHATS))
        pids = [*processes, stage.redis.pid]
        started, cpu = time.perf_counter(), cpu_s(pids)
        for process in processes:
            os.kill(process, signal.SIGCONT)
        wait_until(lambda: sent(client) >= WARM_UP + SINGLE_CHATS, every_s=0.05)
        return rates(SINGLE_CHATS, time.perf_counter() - started, cpu_s(pids) - cpu)


def idle(stage: Stage) -> Figures:
    """One message at a time through an idle fleet, from before the enqueue to the vendor's reading the request."""
    with FakeCloudThread(vendors=["apns"], folder=stage.folder / f"cloud-{time.monotonic_ns()}") as cloud:
        credential = cloud.credential("apns", team_id="TEAM000001", key_id="KEY0000001", topics=["com.example.bench"])
        stage.key_file.write_bytes(credential.file.read_bytes())
        settings = stage.write_settings(cloud.url("apns"), ca_file=cloud.ca_file)
        with fleet(stage, settings) as (producer, _, _):
            producer.enqueue_many(chats("warm", 20))
            wait_until(lambda: len(cloud.received("apns")) >= 20)
            latencies_ms = []
            for number, message in enumerate(chats("idle", IDLE_MESSAGES), start=21):
                started = time.time()
                producer.enqueue(message)
                wait_until(lambda number=number: len(cloud.received("apns")) >= number, every_s=0.005)  # type: ignore[misc]
                latencies_ms.append((cloud.received("apns")[-1].at_unix_s - started) * 1000)
                time.sleep(0.02)
    return {"p50_ms": statistics.median(latencies_ms), "p99_ms": sorted(latencies_ms)[int(len(latencies_ms) * 0.99)]}


@contextlib.contextmanager
def fleet(stage: Stage, settings: Path) -> Iterator[tuple[Producer, redis.Redis, list[int]]]:
    """A router and an APNs worker over an emptied Redis with the users' devices; gives their process ids.

    They run as `pushfleet up` starts them, which deals a core to each worker.
    """
    with redis.Redis.from_url(stage.redis.url) as client, Supervisor(stage.folder / "logs") as supervisor:
        client.flushall()
        register_users(stage, settings)
        for name, words in (("router", ["router"]), ("worker", ["worker", "--vendor", "apns"])):
            port = free_port()
            env = {CONFIG_VARIABLE: str(settings), "PUSHFLEET_METRICS__PORT": str(port), "PUSHFLEET_WORKER__CORE": "0"}
            supervisor.start(Child(name, pushfleet_command(*words), env, ready_url=f"http://127.0.0.1:{port}/readyz"))
        supervisor.wait_ready()
        processes = [supervisor.child(name).process for name in ("router", "worker")]
        with Producer(stage.redis.url) as producer:
            yield producer, client, [process.pid for process in processes if process is not None]


def register_users(stage: Stage, settings: Path) -> None:
    """Every user with one device in the background."""
    file = stage.folder / "devices.jsonl"
    if not file.exists():
        rows = (
            {"app": "bench", "user": f"user-{number}", "device": "phone", "platform": "ios", "state": "background",
             "channels": [{"vendor": "apns", "token": f"{number:064x}"}]}
            for number in range(USERS)
        )  # fmt: skip
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = pushfleet_command("--config", str(settings), "devices", "import", str(file), "--json")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"the devices were not imported: {done.stdout[-300:]} {done.stderr[-500:]}")


def chats(name: str, count: int) -> Iterator[OfflineMessage]:
    """Single-chat messages, each to another user."""
    for number in range(count):
        yield OfflineMessage(
            id=f"{name}-{number}",
            app="bench",
            sender=Sender(id=f"user-{(number * 7) % USERS}", name=NAME),
            conversation=Conversation(id=f"conversation-{number}"),
            recipients=(f"user-{number % USERS}",),
            elements=(Element(type="text", text=TEXT),),
            offline_push=OfflinePush(ext=EXT),
            sent_at_ms=int(time.time() * 1000),
        )


def sent(client: redis.Redis) -> int:
    """Deliveries that the ledger has as sent."""
    count = client.hget(AccountKeys("pushfleet", "apns", "main").books, "end:normal:sent:")
    return int(count or 0)  # type: ignore[arg-type]


def rates(count: int, seconds: float, cpu: float) -> Figures:
    """Per second by the clock, and per CPU-second."""
    return {"per_s": count / seconds, "per_cpu_s": count / cpu}


def wait_until(condition: Callable[[], bool], *, every_s: float = 0.02, timeout_s: float = 180) -> None:
    """Wait for *condition*; raises :class:`TimeoutError`."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError("the benchmark made no progress")
        time.sleep(every_s)
