"""Asking Sentinels which server is the master, and noticing when it is another one."""

from __future__ import annotations

import asyncio

from pushfleet.connections import ask_all
from pushfleet.sentinel import (
    Answer,
    NoMaster,
    Place,
    SentinelAddress,
    Sighting,
    master_in,
    questions,
    read_sighting,
)
from pushfleet_workers.errors import RedisUnusable
from pushfleet_workers.redis_address import RedisAddress, master_address, sentinel_address
from pushfleet_workers.redis_connection import LinkLost, RedisConnection, ReplyError, open_connection

__all__ = ["Sentinels"]

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

    async def _ask(self, place: Place) -> Answer:
        try:
            async with asyncio.timeout(_ANSWER_S):
                connection = self._connections.get(place)
                if connection is None or connection.lost:
                    address = sentinel_address(self._address, place)
                    connection = await open_connection(
                        address, name=self._name, timeout_s=_ANSWER_S, what="the Sentinel"
                    )
                    self._connections[place] = connection
                where, state = await connection.submit(questions(self._address.master))
        except TimeoutError:
            self._hang_up(place)
            return "no answer in time"
        except RedisUnusable as problem:
            return str(problem.__cause__ or problem) or "timed out"
        refused = next((reply for reply in (where, state) if isinstance(reply, ReplyError)), None)
        return str(refused) if refused is not None and where is not None else read_sighting(where, state)

    def _hang_up(self, place: Place) -> None:
        connection = self._connections.pop(place, None)
        if connection is not None:
            connection.abort()

    def close(self) -> None:
        """Close the connections; they open again when somebody asks."""
        for place in list(self._connections):
            self._hang_up(place)
