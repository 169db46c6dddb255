"""Whether an account's deaths can be believed: what the fleet heard of it lately, and the guard that a wave trips.

Nothing is counted while no token dies: acceptances are read from the account's books when a death is weighed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pushfleet_workers.ledger import AccountKeys
from pushfleet_workers.redis_link import Link
from pushfleet_workers.scripts import load
from pushfleet_workers.settings import DeathsSettings
from pushfleet_workers.tokens.tombstones import LIFE_S

__all__ = ["DeathWatch", "Standing"]

_JUDGE = load("pushfleet_workers.tokens", "judge")


@dataclass(frozen=True, slots=True)
class Standing:
    """What is known of an account's deaths. Times are Unix milliseconds."""

    guarded_since_ms: int
    """When its guard tripped; 0: it has not."""

    tripped: bool
    """Whether that was just now."""

    window_since_ms: int
    """What is counted in the window was heard since then."""

    window_deaths: int
    """Undated deaths in the window."""

    window_accepted: int
    deaths: int
    """Undated deaths since ever."""

    accepted: int
    """Acceptances since ever."""


class DeathWatch:
    """The standing of all accounts, in the Redis of the queue; every method raises :class:`RedisUnusable`."""

    def __init__(self, link: Link, prefix: str, settings: DeathsSettings) -> None:
        self._link = link
        self._prefix = prefix
        self._settings = settings

    async def weigh(self, vendor: str, credential: str, undated: int = 0, accepted: int = 0) -> Standing:
        """The account's standing after *undated* deaths that were heard together with *accepted* acceptances."""
        keys, limits = AccountKeys(self._prefix, vendor, credential), self._settings
        guard, tripped, *rest = await self._link.run(
            _JUDGE,
            (keys.books, keys.deaths),
            (undated, accepted, int(limits.window_s * 1000), limits.guard_floor, limits.guard_share, LIFE_S),
        )
        return Standing(guard, bool(tripped), *rest)

    async def wave_since_ms(self, vendor: str, credential: str) -> int:
        """Since when the deaths came that tripped the account's guard; 0: it is not tripped."""
        return int(await self._link.call("HGET", AccountKeys(self._prefix, vendor, credential).deaths, "wave") or 0)

    async def guarded(self, accounts: Sequence[str]) -> set[str]:
        """Those of *accounts* (``vendor:credential``) whose guard has tripped."""
        keys = [AccountKeys(self._prefix, *account.split(":", 1)).deaths for account in accounts]
        answers = await self._link.pipeline([("HEXISTS", key, "guard") for key in keys])
        return {account for account, answer in zip(accounts, answers, strict=True) if answer == 1}

    async def release(self, vendor: str, credential: str) -> None:
        """Reset the guard, and begin a new window."""
        key = AccountKeys(self._prefix, vendor, credential).deaths
        fields = await self._link.call("HKEYS", key)
        gone = [name for name in fields if name in (b"guard", b"wave") or name.startswith(b"b:")]
        if gone:
            await self._link.call("HDEL", key, *gone)
            await self._link.call("EXPIRE", key, LIFE_S)
