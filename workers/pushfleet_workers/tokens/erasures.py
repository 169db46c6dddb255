"""Which users are being erased: until nothing of them is left, and so that none of their old messages reaches them.

A user may register again at once. What came for them before that, by the clock of the queue, is not theirs any more.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from pushfleet_workers.redis_link import Link
from pushfleet_workers.scripts import load
from pushfleet_workers.tokens.keys import UserKeys, owner_named

__all__ = ["Erasures", "Owner", "Pending", "erasures_key"]

Owner = tuple[str, str]
"""App and user."""

_AT_ONCE = 1_000
_AGAIN = "again "
"""Before an owner, which has no space: an erasure that began while an earlier one was not done."""

_ERASING = load("pushfleet_workers.tokens", "erasing")
_FORGOTTEN = load("pushfleet_workers.tokens", "forgotten")
_ERASED = load("pushfleet_workers.tokens", "erased")


def erasures_key(prefix: str) -> str:
    """The sorted set of users that are being erased, by when."""
    return f"{prefix}:{{erasures}}"


class Pending(NamedTuple):
    """Erasures that are not done."""

    until_ms: dict[Owner, int]
    """Whose token state is gone: messages that came until then are to go."""

    begun: dict[Owner, int]
    """Of whom nobody knows whether the token state is gone, and when that began; some are among the others as well."""


class Erasures:
    """Erasures that are under way, in the token state; every method raises :class:`RedisUnusable`."""

    def __init__(self, link: Link, prefix: str) -> None:
        self._link = link
        self._prefix = prefix
        self._key = erasures_key(prefix)

    async def begin(self, app: str, user: str, now_ms: int) -> None:
        """Note that a user's token state is about to go: whatever happens, somebody brings it to its end."""
        await self._link.run(_ERASING, (self._key,), (-now_ms, *self._names(app, user)))

    async def forgotten(self, app: str, user: str, begun_ms: int, until_ms: int) -> None:
        """Note that it is gone: what came until then, by the clock of the queue, is to go as well.

        * **begun_ms** - what :meth:`begin` was told.
        """
        await self._link.run(_FORGOTTEN, (self._key,), (-begun_ms, *self._names(app, user), until_ms))

    async def pending(self) -> Pending:
        """Those that are not done, at most a thousand, begun ones first and then those that wait the longest."""
        flat = await self._link.call("ZRANGE", self._key, 0, _AT_ONCE - 1, "WITHSCORES")
        pending = Pending({}, {})
        for at in range(0, len(flat), 2):
            owner, at_ms = owner_named(flat[at].decode().removeprefix(_AGAIN)), int(flat[at + 1])
            if at_ms >= 0:
                pending.until_ms[owner] = at_ms
            else:
                # The one that began last comes first.
                pending.begun.setdefault(owner, -at_ms)
        return pending

    async def waiting(self) -> tuple[int, int]:
        """How many are not done, and since when the first of them is not, Unix milliseconds; 0 where there are none."""
        flat = await self._link.call("ZRANGE", self._key, 0, -1, "WITHSCORES")
        owners = {name.removeprefix(_AGAIN.encode()) for name in flat[::2]}
        return len(owners), min((abs(int(at_ms)) for at_ms in flat[1::2]), default=0)

    async def erased(self, asked: Iterable[tuple[Owner, int]]) -> set[tuple[Owner, int]]:
        """Those of the *asked*, users and when something came for them, that are to go.

        One round trip, and another where something came before the newest erasure.
        """
        newest_ms = self.read_newest(await self._link.call(*self.newest_command()))
        older = [one for one in asked if one[1] <= newest_ms]
        until_ms = await self.until_ms(owner for owner, _ in older)
        return {(owner, came_ms) for owner, came_ms in older if came_ms <= until_ms.get(owner, 0)}

    def newest_command(self) -> tuple[str | int, ...]:
        """The command whose reply :meth:`read_newest` takes."""
        return "ZRANGE", self._key, 0, 0, "REV", "WITHSCORES"

    @staticmethod
    def read_newest(reply: list[bytes]) -> int:
        """Of all users that are being erased, until when messages are to go; 0: there are none."""
        return max(0, int(reply[1])) if reply else 0

    async def until_ms(self, owners: Iterable[Owner]) -> dict[Owner, int]:
        """Those of *owners* that are being erased, and until when their messages are to go."""
        asked = list(dict.fromkeys(owners))
        if not asked:
            return {}
        found = await self._link.call("ZMSCORE", self._key, *(self._owner(*one) for one in asked))
        return {
            one: int(at_ms) for one, at_ms in zip(asked, found, strict=True) if at_ms is not None and int(at_ms) > 0
        }

    async def done(self, until_ms: Mapping[Owner, int]) -> None:
        """Nothing of these is left that came until then; one that was erased once more meanwhile stays."""
        told = [part for owner, at_ms in until_ms.items() for part in (*self._names(*owner), at_ms)]
        if told:
            await self._link.run(_ERASED, (self._key,), told)

    def _names(self, app: str, user: str) -> tuple[str, str]:
        owner = self._owner(app, user)
        return owner, _AGAIN + owner

    def _owner(self, app: str, user: str) -> str:
        return UserKeys(self._prefix, app, user).owner
