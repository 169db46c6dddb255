"""The preferences of users in Redis: read, and changed without losing what somebody else changes meanwhile."""

from __future__ import annotations

from collections.abc import Callable

from pushfleet_workers.redis_link import Link
from pushfleet_workers.scripts import load
from pushfleet_workers.tokens.keys import UserKeys
from pushfleet_workers.tokens.preferences import (
    PREFERENCES_FIELD,
    Preferences,
    read_preferences,
    repack_preferences,
)
from pushfleet_workers.tokens.store import LIFE_S

__all__ = ["PreferenceStore"]

_PREFERENCES = load("pushfleet_workers.tokens", "preferences")


class PreferenceStore:
    """The preferences of all users.

    All methods raise :class:`RedisUnusable` when Redis does not answer and :class:`ReplyError` when it refuses.
    """

    def __init__(self, link: Link, prefix: str) -> None:
        self._link = link
        self._prefix = prefix

    async def get(self, app: str, user: str) -> Preferences:
        """What *user* wants; the defaults for one who never said anything."""
        return read_preferences(await self._link.call("HGET", self._key(app, user), PREFERENCES_FIELD)) or Preferences()

    async def change(self, app: str, user: str, changed: Callable[[Preferences], Preferences]) -> Preferences:
        """Have *changed* say what the preferences become; what it raises changes nothing.

        It is asked again when somebody else changed them meanwhile.
        """
        key = self._key(app, user)
        while True:
            stored: bytes | None = await self._link.call("HGET", key, PREFERENCES_FIELD)
            wanted = changed(read_preferences(stored) or Preferences())
            packed = repack_preferences(stored, wanted)
            # Each round that is lost is one that another change has won: they cannot all wait for each other.
            if await self._link.run(_PREFERENCES, (key,), (PREFERENCES_FIELD, stored or b"", packed, LIFE_S)):
                return wanted

    def _key(self, app: str, user: str) -> str:
        return UserKeys(self._prefix, app, user).options
