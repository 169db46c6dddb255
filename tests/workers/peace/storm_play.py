"""A group that storms on Bob's phone, and what is known of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from tests.workers.routing import PREFIX, Stage, group, play

from pushfleet import Sender
from pushfleet_workers.clock import FleetClock
from pushfleet_workers.ledger import Entry
from pushfleet_workers.peace.storms import (
    Storm,
    read_storm,
    storm_command,
    storm_place,
)
from pushfleet_workers.push import Delivery
from pushfleet_workers.recheck import Rechecked, Rechecker
from pushfleet_workers.tokens.keys import UserKeys

WAITS: dict[str, Any] = {"demo": {"name": "Demo", "storm_waits_s": [10, 20, 40, 80, 160, 300], "reads": True}}
APPS = {**WAITS, "lite": {}}
RECALLED: dict[str, Any] = {"demo": {**APPS["demo"], "recall_window_s": 120}, "lite": {}}
BOB = UserKeys(PREFIX, "demo", "bob")


def on(url: str, scenario: Callable[[Stage], Awaitable[None]]) -> None:
    """Play with storms switched on for the app, and a phone of Bob's."""

    async def run(stage: Stage) -> None:
        await stage.device()
        await scenario(stage)

    play(url, run, apps=APPS)


def field(conversation: str = "g1", device: str = "phone", vendor: str = "apns") -> str:
    """What the storm of a place is kept under."""
    place = storm_place(Delivery(b"", "bob", device, "", 0), vendor, "main")
    return storm_command(PREFIX, "demo", "bob", conversation, place)[2]


def play_with(url: str, waits_s: list[float], scenario: Callable[[Stage], Awaitable[None]]) -> None:
    """The same with other waits."""

    async def run(stage: Stage) -> None:
        await stage.device()
        await scenario(stage)

    play(url, run, apps={"demo": {**WAITS["demo"], "storm_waits_s": waits_s}, "lite": {}})


async def storm(stage: Stage, conversation: str = "g1") -> Storm:
    """What is known of the storm on Bob's phone."""
    found = read_storm(await stage.queue.call("HGET", BOB.storms, field(conversation)))
    assert found is not None
    return found


async def pass_time(stage: Stage, ms: int, conversation: str = "g1") -> None:
    """As if everything that was put down had been so earlier."""
    fields = msgspec.msgpack.decode(await stage.queue.call("HGET", BOB.storms, field(conversation)))
    fields[1:3] = [at_ms - ms for at_ms in fields[1:3]]
    await stage.queue.call("HSET", BOB.storms, field(conversation), msgspec.msgpack.encode(fields))


async def recheck(stage: Stage, *entries: Entry, vendor: str = "apns") -> Rechecked:
    """What a worker finds when it claims *entries*."""
    has: dict[str, Any] = {"reads": True, "recall_window_s": 120, "app_name": "Demo"}
    return await Rechecker(stage.queue, PREFIX, FleetClock(), vendor, "main", **has).recheck(entries)


async def bodies(stage: Stage, *entries: Entry) -> list[str]:
    """What the deliveries of *entries* say, or why they are not sent."""
    found = await recheck(stage, *entries)
    return [
        found.refused.get(one.id) or found.rendered[one.id].body for entry in entries for one in entry.parcel.deliveries
    ]


def said(number: int, name: str = "", **changes: Any) -> Any:
    """A message of somebody's in the group."""
    sender = Sender(id=f"u{number}", name=name or f"User {number}")
    return group(f"m{number}", "bob", **{"sender": sender, **changes})
