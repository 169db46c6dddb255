"""One multiplexed Redis connection for the hot path: many callers, their commands pipelined as they come.

redis-py's asyncio pipeline costs about twice the CPU for hundreds of small commands; everything off the hot path
uses redis-py.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import random
import time
from collections.abc import Sequence
from typing import Any

from pushfleet.sentinel import SentinelAddress
from pushfleet_workers.errors import RedisUnusable
from pushfleet_workers.redis_address import RedisAddress, read_url
from pushfleet_workers.redis_connection import (
    Argument,
    Command,
    LinkLost,
    RedisConnection,
    ReplyError,
    open_connection,
)
from pushfleet_workers.redis_sentinels import Sentinels
from pushfleet_workers.scripts import Script

__all__ = ["Argument", "Link", "LinkLost", "ReplyError", "serves_not_now"]

log = logging.getLogger(__name__)

_CONNECT_TIMEOUT_S = 5.0
_CONNECT_TO_MASTER_S = 2.0
"""One that hangs may have a successor in a moment."""

_WATCH_INTERVAL_S = 1.0
_PAUSE_FIRST_S = 0.05
_PAUSE_LONGEST_S = 1.0
_NOT_NOW = frozenset({"BUSY", "CLUSTERDOWN", "LOADING", "MASTERDOWN", "MISCONF", "NOREPLICAS", "OOM", "TRYAGAIN"})
"""Error replies that tell of the server's state, not of a fault in what was asked: it passes, like a lost link."""


class Link:
    """A connection that opens itself when first used and again after it broke; bound to one event loop.

    Behind Sentinels it goes to the server that they name, if that takes itself for the master, and leaves it when they
    name another one. After a failed try the next one waits for a random moment, longer from try to try.

    * **url** - `redis://`, `rediss://` or `unix://`; behind Sentinels `redis+sentinel://` or `rediss+sentinel://`.
    * **name** - shown in `CLIENT LIST`.
    * **timeout_s** - a reply later than this breaks the connection.
    """

    def __init__(self, url: str, *, name: str = "pushfleet", timeout_s: float = 10.0) -> None:
        address = read_url(url)
        self._where = Sentinels(address, name) if isinstance(address, SentinelAddress) else address
        self.history = ""
        """Names the data that the server has, once it was reached. When it changes (a failover, a restart), what was
        written last may be gone."""

        self._opened_at = math.inf
        self._name = name
        self._timeout_s = timeout_s
        self._connection: RedisConnection | None = None
        self._opening: asyncio.Task[RedisConnection] | None = None
        self._watch: asyncio.Task[None] | None = None
        self._failures = 0
        self._not_before = 0.0

    @property
    def shown(self) -> str:
        """Where it leads, without secrets, for texts."""
        return self._where.shown

    @property
    def sentinels(self) -> Sentinels | None:
        """Those that are asked where to go; None: it is always the same place."""
        return self._where if isinstance(self._where, Sentinels) else None

    @property
    def open_s(self) -> float:
        """How long ago the present connection was opened; negative where there is none yet."""
        return time.monotonic() - self._opened_at

    async def pipeline(self, commands: Sequence[Command]) -> list[Any]:
        """The replies to *commands*, in order; an error reply stands in its place as a :class:`ReplyError`.

        Raises :class:`LinkLost` when the connection broke meanwhile: any of them may have been carried out.
        """
        connection = self._connection
        if connection is None or connection.lost:
            connection = await self._open()
        return await connection.submit(commands)

    async def ready(self) -> None:
        """Open the connection if there is none; raises :class:`RedisUnusable`."""
        if self._connection is None or self._connection.lost:
            await self._open()

    async def call(self, *command: Argument) -> Any:
        """The reply to one command.

        Raises :class:`ReplyError`, :class:`LinkLost`, or :class:`RedisUnusable` for a server that cannot serve now:
        one that loads its data or is out of memory.
        """
        (reply,) = await self.pipeline((command,))
        return self._checked(reply)

    async def run(self, script: Script, keys: Sequence[str | bytes], args: Sequence[Argument]) -> Any:
        """What *script* returns, loaded first where the server does not know it; raises as :meth:`call` does."""
        (reply,) = await self.run_many([(script, keys, args)])
        return self._checked(reply)

    async def run_many(self, calls: Sequence[tuple[Script, Sequence[str | bytes], Sequence[Argument]]]) -> list[Any]:
        """What each of several scripts returns, in one round trip; errors stand in their place."""
        commands: list[Command] = [("EVALSHA", script.sha, len(keys), *keys, *args) for script, keys, args in calls]
        replies = await self.pipeline(commands)
        unknown = [
            number
            for number, reply in enumerate(replies)
            if isinstance(reply, ReplyError) and str(reply).startswith("NOSCRIPT")
        ]
        if unknown:
            await self.pipeline(
                [("SCRIPT", "LOAD", script.text) for script in {calls[number][0] for number in unknown}]
            )
            again = await self.pipeline([commands[number] for number in unknown])
            for number, reply in zip(unknown, again, strict=True):
                replies[number] = reply
        return replies

    def _checked(self, reply: Any) -> Any:
        if not isinstance(reply, ReplyError):
            return reply
        if not serves_not_now(reply):
            raise reply
        raise RedisUnusable(f"Redis at {self.shown} cannot serve now: {reply}")

    async def _open(self) -> RedisConnection:
        """The connection, opened by one task for all who wait for it."""
        if self._opening is None:
            self._opening = asyncio.create_task(self._try_to_open())
            self._opening.add_done_callback(self._opening_ended)
        return await asyncio.shield(self._opening)

    def _opening_ended(self, opening: asyncio.Task[RedisConnection]) -> None:
        self._opening = None
        if not opening.cancelled():
            # All who waited may have gone away.
            opening.exception()

    async def _try_to_open(self) -> RedisConnection:
        await asyncio.sleep(max(0.0, self._not_before - time.monotonic()))
        try:
            connection = await self._connect()
        except RedisUnusable:
            # The whole fleet loses a server in the same moment, and must not come back in the same moment.
            longest_s = min(_PAUSE_LONGEST_S, _PAUSE_FIRST_S * 2**self._failures)
            self._not_before = time.monotonic() + random.uniform(0, longest_s)  # noqa: S311
            self._failures = min(self._failures + 1, 10)
            raise
        self._failures = 0
        if self.history not in ("", connection.history):
            log.info("Redis at %s has another history: what was written last may be gone", self.shown)
        self.history = connection.history
        self._connection = connection
        self._opened_at = time.monotonic()
        if self._watch is None:
            self._watch = asyncio.create_task(self._keep_watch())
        return connection

    async def _connect(self) -> RedisConnection:
        if isinstance(self._where, RedisAddress):
            return await open_connection(self._where, name=self._name, timeout_s=_CONNECT_TIMEOUT_S)
        master = await self._where.find()
        connection = await open_connection(master, name=self._name, timeout_s=_CONNECT_TO_MASTER_S)
        role = connection.info.get("role")
        if role != "master":
            connection.abort()
            why = "is a replica: a failover is under way" if role else "does not tell its role: its user needs +info"
            raise LinkLost(f"Redis at {self.shown} {why}")
        return connection

    async def _keep_watch(self) -> None:
        """Leave a server that is silent, or is the master no more."""
        while True:
            await asyncio.sleep(_WATCH_INTERVAL_S)
            connection = self._connection
            if connection is None or connection.lost:
                continue
            if connection.silent_s > self._timeout_s or (self.sentinels is not None and await self.sentinels.moved()):
                connection.abort()

    async def close(self) -> None:
        """Close the connection; what still waits for a reply gets :class:`LinkLost`."""
        for task in (self._watch, self._opening):
            if task is not None:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError, RedisUnusable):
                    await task
        self._watch = None
        if self._connection is not None:
            self._connection.abort()
            self._connection = None
        if self.sentinels is not None:
            self.sentinels.close()


def serves_not_now(reply: Any) -> bool:
    """Whether *reply* is an error that tells of the server's state: nothing was done, and soon it may be."""
    return isinstance(reply, ReplyError) and str(reply).partition(" ")[0] in _NOT_NOW
