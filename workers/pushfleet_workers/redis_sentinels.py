"""Asking Sentinels which server is the master, and noticing when it is another one."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

from pushfleet.connections import ask_all
from pushfleet.sentinel import (
    Answer,
    NoMaster,
    Place,
    SentinelAddress,
    Sighting,
    master_in,
    questions,
    read_facts,
    read_sighting,
)
from pushfleet_workers.errors import RedisUnusable
from pushfleet_workers.redis_address import RedisAddress, master_address, sentinel_address
from pushfleet_workers.redis_connection import Command, LinkLost, RedisConnection, ReplyError, open_connection

__all__ = ["Sentinels", "troubles_in"]

_ANSWER_S = 1.0


class Sentinels:
    """The Sentinels of one master, over connections that stay open; bound to one event loop."""

    def __init__(self, address: SentinelAddress, name: str) -> None:
        self._address = address
        self._name = name
        self._connections: dict[Place, RedisConnection] = {}
        self._found: Sighting | None = None

    @property
    def shown(self) -> str:
        """Which master, and where it was last found, for texts."""
        if self._found is None:
            return self._address.shown
        return f"{self._found.place}/{self._address.database} (master {self._address.master!r})"

    async def find(self) -> RedisAddress:
        """Where the master is. Raises :class:`LinkLost` when no Sentinel names one."""
        try:
            self._found = master_in(self._address, await self.ask())
        except NoMaster as problem:
            raise LinkLost(str(problem)) from None
        return master_address(self._address, self._found.place)

    async def moved(self) -> bool:
        """Whether they name another master by now than :meth:`find` found; False where they do not answer."""
        try:
            now = master_in(self._address, await self.ask())
        except NoMaster:
            return False
        found = self._found
        return found is not None and now.place != found.place and now.epoch >= found.epoch

    async def ask(self) -> dict[Place, Answer]:
        """What each of them says."""
        return await ask_all(self._address.sentinels, self._ask)

    async def troubles(self) -> list[str]:
        """What should be mended before the next failover, a sentence each."""
        answers = await self.ask()
        views: dict[Place, list[Any]] = {}
        for place, answer in answers.items():
            if isinstance(answer, Sighting):
                with contextlib.suppress(RedisUnusable, TimeoutError):
                    name = self._address.master
                    commands = [("SENTINEL", "MASTER", name), ("SENTINEL", "CKQUORUM", name)]
                    views[place] = await self._submit(place, commands)
        return troubles_in(self._address, answers, views)

    async def _ask(self, place: Place) -> Answer:
        try:
            where, state = await self._submit(place, questions(self._address.master))
        except TimeoutError:
            return "no answer in time"
        except RedisUnusable as problem:
            return str(problem.__cause__ or problem) or "timed out"
        refused = next((reply for reply in (where, state) if isinstance(reply, ReplyError)), None)
        return str(refused) if refused is not None and where is not None else read_sighting(where, state)

    async def _submit(self, place: Place, commands: Sequence[Command]) -> list[Any]:
        try:
            async with asyncio.timeout(_ANSWER_S):
                connection = self._connections.get(place)
                if connection is None or connection.lost:
                    address = sentinel_address(self._address, place)
                    connection = await open_connection(
                        address, name=self._name, timeout_s=_ANSWER_S, what="the Sentinel"
                    )
                    self._connections[place] = connection
                return await connection.submit(commands)
        except (TimeoutError, asyncio.CancelledError):
            # Most have answered, and this one is not waited for: what is asked of it next would wait behind this.
            self._hang_up(place)
            raise

    def _hang_up(self, place: Place) -> None:
        connection = self._connections.pop(place, None)
        if connection is not None:
            connection.abort()

    def close(self) -> None:
        """Close the connections; they open again when somebody asks."""
        for place in list(self._connections):
            self._hang_up(place)


def troubles_in(
    address: SentinelAddress, answers: Mapping[Place, Answer], views: Mapping[Place, Sequence[Any]]
) -> list[str]:
    """A sentence for each thing that is wrong with the Sentinels of *address*, by what they answered.

    *views*: the replies to `SENTINEL MASTER` and `SENTINEL CKQUORUM`.
    """
    troubles = []
    for place, answer in answers.items():
        if answer is None:
            troubles.append(f"the Sentinel at {place} watches no master named {address.master!r}")
        elif isinstance(answer, str):
            troubles.append(f"the Sentinel at {place} does not answer ({answer}): start it, or take it out of the URL")
    named = {answer.place for answer in answers.values() if isinstance(answer, Sighting)}
    if len(named) > 1:
        places = ", ".join(sorted(map(str, named)))
        troubles.append(f"the Sentinels name {places}: a failover is under way, or they do not hear of each other")
    for place, (state, quorum) in views.items():
        if isinstance(quorum, ReplyError) and str(quorum).startswith("NOQUORUM"):
            troubles.append(f"the Sentinel at {place} finds no majority for a failover: {quorum}")
        facts = read_facts(state)
        others = int(facts.get("num-other-sentinels", 0))
        if others + 1 > len(address.sentinels):
            troubles.append(
                f"the URL names {len(address.sentinels)} of {others + 1} Sentinels: name all, or nobody finds the "
                f"master while those are away"
            )
    return list(dict.fromkeys(troubles))
