"""Messages to enqueue, and what lies in Redis of them afterwards."""

import time
from collections.abc import Callable, Iterable
from typing import Any

import redis
import redis.asyncio

from pushfleet import (
    OfflineMessage,
    wire,
)


def a_message(number: int = 0, *, kind: Any = "chat", people: int = 1, **fields: Any) -> OfflineMessage:
    users = tuple(f"u{one}" for one in range(people))
    return OfflineMessage(id=f"m{number}", app="chat", kind=kind, recipients=users, body="Lunch?", **fields)


def stream(client: redis.Redis, lane: Any) -> list[OfflineMessage]:
    entries: Any = client.xrange(wire.ingress_key("pushfleet", lane))
    assert all(set(fields) == {b"v", b"m"} and fields[b"v"] == b"1" for _, fields in entries)
    return [wire.decode(fields[b"m"]) for _, fields in entries]


def names(messages: Iterable[OfflineMessage]) -> list[str]:
    return [message.id for message in messages]


def scripts_run(client: redis.Redis) -> int:
    stats: Any = client.info("commandstats")
    return int(stats.get("cmdstat_evalsha", {}).get("calls", 0))


def connections_made(client: redis.Redis) -> int:
    stats: Any = client.info("stats")
    return int(stats["total_connections_received"])


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.002)
