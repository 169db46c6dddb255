"""The tokens of an account that are passed over for now: an index of their tombstones, by when they were taken in."""

from __future__ import annotations

from collections.abc import Sequence

from pushfleet_workers.redis_link import Link
from pushfleet_workers.redis_replies import good
from pushfleet_workers.tokens.keys import UserKeys, owner_named
from pushfleet_workers.tokens.tombstones import LIFE_S, Grave

__all__ = ["Ward", "ward_key"]


def ward_key(prefix: str, vendor: str, credential: str) -> str:
    """The sorted set of an account's quarantined tokens."""
    return f"{prefix}:{{ward:{vendor}:{credential}}}"


class Ward:
    """The quarantined tokens of all accounts; every method raises :class:`RedisUnusable`.

    * **kept_max** - most of an account. Beyond, and after thirty days, the oldest go: nobody confirms them any more.
    """

    def __init__(self, link: Link, prefix: str, kept_max: int) -> None:
        self._link = link
        self._prefix = prefix
        self._kept_max = kept_max

    async def admit(self, vendor: str, credential: str, graves: Sequence[Grave], now_ms: int) -> None:
        """Take in tokens that have just been quarantined."""
        key = ward_key(self._prefix, vendor, credential)
        members = [part for grave in graves for part in (now_ms, self._member(grave))]
        await self._link.call("ZADD", key, *members)
        await self._link.call("ZREMRANGEBYSCORE", key, "-inf", now_ms - LIFE_S * 1000)
        await self._link.call("ZREMRANGEBYRANK", key, 0, -self._kept_max - 1)
        await self._link.call("EXPIRE", key, LIFE_S)

    async def oldest(self, vendor: str, credential: str, count: int) -> list[Grave]:
        """The tombstones of at most *count* tokens that have been here the longest."""
        key = ward_key(self._prefix, vendor, credential)
        return [_grave(member.decode()) for member in await self._link.call("ZRANGE", key, 0, count - 1)]

    async def leave(self, vendor: str, credential: str, graves: Sequence[Grave]) -> None:
        """Let tokens go."""
        if graves:
            key = ward_key(self._prefix, vendor, credential)
            await self._link.call("ZREM", key, *[self._member(grave) for grave in graves])

    async def occupied(self, accounts: Sequence[tuple[str, str]]) -> dict[tuple[str, str], int]:
        """Those of *accounts* (vendor, credential) that have any, and how many."""
        counts = await self._link.pipeline([("ZCARD", ward_key(self._prefix, *account)) for account in accounts])
        return {account: count for account, count in zip(accounts, good(counts), strict=True) if count}

    def _member(self, grave: Grave) -> str:
        return f"{grave.id} {UserKeys(self._prefix, grave.app, grave.user).owner}"


def _grave(member: str) -> Grave:
    identity, _, owner = member.partition(" ")
    return Grave(*owner_named(owner), identity)
