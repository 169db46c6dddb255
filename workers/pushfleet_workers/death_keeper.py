"""Ends the quarantine of doubtful tokens: they are dropped once others of their account live, else come back."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping

from pushfleet_workers.errors import RedisUnusable
from pushfleet_workers.lease import Lease
from pushfleet_workers.redis_link import Link, ReplyError
from pushfleet_workers.settings import DeathsSettings
from pushfleet_workers.tokens.death_watch import DeathWatch, Standing
from pushfleet_workers.tokens.deaths import Deaths
from pushfleet_workers.tokens.tombstones import Fate, Grave, Tombstone

__all__ = ["DeathKeeper", "keeper_key"]

log = logging.getLogger(__name__)

_EVERY_S = 5.0
_PAGE = 200


def keeper_key(prefix: str) -> str:
    """The lease of the process that does this, and sends to webhooks."""
    return f"{prefix}:{{deaths}}:keeper"


class DeathKeeper:
    """Looks after the wards of all accounts; one process of the fleet does.

    * **accounts** - vendor and credential to the app they belong to.
    """

    def __init__(
        self,
        state: Link,
        queue: Link,
        prefix: str,
        settings: DeathsSettings,
        accounts: Mapping[tuple[str, str], str],
        now_ms: Callable[[], int],
        lease: Lease,
    ) -> None:
        self._deaths = Deaths(state, prefix, settings, now_ms)
        self._watch = DeathWatch(queue, prefix, settings)
        self._settings = settings
        self._accounts = accounts
        self._now_ms = now_ms
        self._lease = lease

    async def run(self) -> None:
        """Look again and again until cancelled, while the lease is ours."""
        while True:
            try:
                if self._lease.holds:
                    await self.look()
            except (RedisUnusable, ReplyError) as problem:
                log.warning("doubtful tokens are not looked at: %s", problem)
            await asyncio.sleep(_EVERY_S)

    async def look(self) -> None:
        """Confirm or lift what is due in every ward; raises :class:`RedisUnusable`."""
        for account in await self._deaths.ward.occupied(list(self._accounts)):
            while await self._look_at(*account):
                pass

    async def _look_at(self, vendor: str, credential: str) -> bool:
        """Look at those who have been there the longest; whether there may be more that are due."""
        standing = await self._watch.weigh(vendor, credential)
        if standing.guarded_since_ms:
            return False
        graves = await self._deaths.ward.oldest(vendor, credential, _PAGE)
        stones = await self._deaths.find(graves)
        gone = [grave for grave, stone in zip(graves, stones, strict=True) if not _is_held(stone)]
        await self._deaths.ward.leave(vendor, credential, gone)
        held = [(grave, stone) for grave, stone in zip(graves, stones, strict=True) if stone and _is_held(stone)]
        due = [await self._end(grave, stone, standing) for grave, stone in held]
        return len(graves) == _PAGE and (bool(gone) or any(due))

    async def _end(self, grave: Grave, stone: Tombstone, standing: Standing) -> bool:
        if self._is_confirmed(stone, standing):
            await self._deaths.confirm(grave, stone)
        elif self._now_ms() >= stone.at_ms + self._settings.quarantine_s * 1000:
            await self._deaths.restore(grave)
        else:
            return False
        return True

    def _is_confirmed(self, stone: Tombstone, standing: Standing) -> bool:
        accepted = standing.accepted - stone.accepted
        deaths = standing.deaths - stone.deaths + 1
        limits = self._settings
        return accepted >= limits.confirm_accepted and deaths <= limits.confirm_share * (accepted + deaths)


def _is_held(stone: Tombstone | None) -> bool:
    return stone is not None and stone.fate is Fate.QUARANTINED
