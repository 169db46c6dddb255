"""A work that one process of the fleet does, and another goes on with when that one is gone."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import AsyncIterator

from pushfleet_workers.errors import RedisUnusable
from pushfleet_workers.redis_link import Link, ReplyError
from pushfleet_workers.scripts import load

__all__ = ["Lease"]


_LEASE = load("pushfleet_workers", "lease")


class Lease:
    """The right to do a work, taken and renewed by :meth:`keep`.

    * **key** - where it lies in Redis.
    * **life_s** - after which a holder that is silent has it no more.
    """

    def __init__(self, link: Link, key: str, *, life_s: float = 15.0) -> None:
        self._link = link
        self._key = key
        self._life_s = life_s
        self._owner = secrets.token_hex(8)
        self._until = 0.0

    @property
    def holds(self) -> bool:
        """Whether this process has it."""
        return time.monotonic() < self._until

    async def keep(self) -> None:
        """Take and renew it until cancelled, then give it back."""
        try:
            while True:
                with contextlib.suppress(RedisUnusable, ReplyError):
                    await self.renew()
                await asyncio.sleep(self._life_s / 3)
        finally:
            await self._give_back()

    @contextlib.asynccontextmanager
    async def kept(self) -> AsyncIterator[None]:
        """Renew it meanwhile, and give it back at the end; for whoever has taken it for what may take long."""
        keeping = asyncio.create_task(self.keep())
        try:
            yield
        finally:
            keeping.cancel()
            await asyncio.wait([keeping])
            # One that was cancelled before it began has given nothing back.
            await self._give_back()

    async def renew(self) -> bool:
        """Take or renew it; False when another process has it. Raises :class:`RedisUnusable`."""
        asked = time.monotonic()
        got = await self._link.run(_LEASE, (self._key,), (self._owner, int(self._life_s * 1000)))
        # It counts from before the question: Redis began later.
        self._until = asked + self._life_s if got else 0.0
        return bool(got)

    async def _give_back(self) -> None:
        self._until = 0.0
        with contextlib.suppress(RedisUnusable, ReplyError):
            await self._link.run(_LEASE, (self._key,), (self._owner, 0))
