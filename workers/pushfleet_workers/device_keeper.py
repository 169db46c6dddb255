"""Removes devices that nobody uses any more: a slow walk through all users, who have no time to live of their own."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence

from pushfleet_workers.errors import RedisUnusable
from pushfleet_workers.lease import Lease
from pushfleet_workers.redis_link import Link, ReplyError
from pushfleet_workers.settings import AppSettings
from pushfleet_workers.tokens.keys import owner_of
from pushfleet_workers.tokens.store import LIFE_S, TokenStore

__all__ = ["DeviceKeeper"]

log = logging.getLogger(__name__)

_EVERY_S = 6 * 3_600.0
_PAGE = 500
_PAUSE_S = 0.1
"""Between pages: the walk leaves Redis to the pushes, and a million users take some minutes."""


class DeviceKeeper:
    """Applies each app's `device_unused_days`; one process of the fleet does.

    Where that is 0, and for apps that are no longer in the settings, devices go after :data:`LIFE_S`.

    * **link** - the Redis of the token state.
    * **now_ms** - Redis' time.
    """

    def __init__(
        self,
        link: Link,
        prefix: str,
        store: TokenStore,
        apps: Mapping[str, AppSettings],
        now_ms: Callable[[], int],
        lease: Lease,
    ) -> None:
        self._link = link
        self._prefix = prefix
        self._store = store
        self._unused_ms = {name: app.device_unused_ms for name, app in apps.items() if app.device_unused_ms}
        self._now_ms = now_ms
        self._lease = lease

    async def run(self) -> None:
        """Walk again and again until cancelled, while the lease is ours."""
        while True:
            wait_s = 5.0
            if self._lease.holds:
                try:
                    gone = await self.look(_PAUSE_S)
                    log.info("devices that nobody used for long were removed: %d", gone)
                    wait_s = _EVERY_S
                except (RedisUnusable, ReplyError) as problem:
                    log.warning("devices that nobody uses are not looked for: %s", type(problem).__name__)
            await asyncio.sleep(wait_s)

    async def look(self, pause_s: float = 0.0) -> int:
        """Remove what has expired; gives how many devices did. Raises :class:`RedisUnusable`."""
        gone, cursor = 0, b"0"
        while True:
            pattern = f"{self._prefix}:{{u:*}}"
            cursor, keys = await self._link.call("SCAN", cursor, "MATCH", pattern, "COUNT", _PAGE, "TYPE", "hash")
            gone += await self._store.expire(self._due(keys))
            if cursor == b"0":
                return gone
            await asyncio.sleep(pause_s)

    def _due(self, keys: Sequence[bytes]) -> list[tuple[str, str, int]]:
        """App and user of *keys*, with the time before which their devices must have been heard of to go."""
        now_ms = self._now_ms()
        owners = [owner_of(self._prefix, key.decode()) for key in keys]
        return [(app, user, now_ms - self._unused_ms.get(app, LIFE_S * 1000)) for app, user in owners]
