"""What was dropped is told once the ledger has it, and nothing waits for that."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

import pytest
from tests.workers.courier_play import named

from pushfleet_workers.ledger import Entry, Settlement
from pushfleet_workers.push import Delivery
from pushfleet_workers.redis_link import LinkLost
from pushfleet_workers.unshown import Unshown


class Memory:
    """Whoever is told, and cannot be reached as long as *trouble* says so."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.trouble: Exception | None = None
        self.calls = 0

    async def __call__(self, dropped: Sequence[tuple[Entry, Sequence[Delivery]]]) -> None:
        self.calls += 1
        await asyncio.sleep(0)
        if self.trouble is not None:
            raise self.trouble
        self.told += [one.token for _, deliveries in dropped for one in deliveries]


def drop(unshown: Unshown, name: str) -> Settlement:
    """A push that was dropped, and what the ledger is to be told of it."""
    entry = named(name)
    settlement = Settlement(entry.id, 1, 1)
    unshown.dropped(settlement, entry, entry.parcel.deliveries)
    return settlement


def test_only_what_the_ledger_took_is_told() -> None:
    async def scenario() -> None:
        memory = Memory()
        unshown = Unshown(memory, "apns:main")
        first, late, waits = drop(unshown, "first"), drop(unshown, "late"), drop(unshown, "waits")
        unshown.settled([first, late], [late])
        await unshown.told(1)
        assert memory.told == ["first-0"]
        unshown.settled([waits], [])
        await unshown.told(1)
        assert memory.told == ["first-0", "waits-0"]
        unshown.settled([first, waits], [])
        await unshown.told(1)
        assert memory.calls == 2

    asyncio.run(scenario())


def test_what_comes_while_others_are_told_is_told_next() -> None:
    async def scenario() -> None:
        memory = Memory()
        unshown = Unshown(memory, "apns:main")
        unshown.settled([drop(unshown, "one")], [])
        while not memory.calls:
            await asyncio.sleep(0)
        unshown.settled([drop(unshown, "two"), drop(unshown, "three")], [])
        await unshown.told(1)
        assert (memory.told, memory.calls) == (["one-0", "two-0", "three-0"], 2)

    asyncio.run(scenario())


@pytest.mark.parametrize("trouble", [LinkLost("gone"), KeyError("t0ken")])
def test_who_cannot_be_told_holds_up_nobody(trouble: Exception, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        memory = Memory()
        memory.trouble = trouble
        unshown = Unshown(memory, "apns:main")
        with caplog.at_level(logging.WARNING):
            unshown.settled([drop(unshown, "one")], [])
            while not memory.calls:
                await asyncio.sleep(0)
            unshown.settled([drop(unshown, "meanwhile")], [])
            await unshown.told(1)
        assert "apns:main" in caplog.text
        assert "t0ken" not in caplog.text
        memory.trouble = None
        unshown.settled([drop(unshown, "two")], [])
        await unshown.told(1)
        assert memory.told == ["two-0"]

    asyncio.run(scenario())
