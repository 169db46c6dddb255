"""What is left of a dead token: enough to tell of it, and to bring it back within thirty days.

A tombstone lies beside the devices of its user, so that one script takes the token and leaves the tombstone.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import msgspec
from msgspec import Struct

from pushfleet_workers.redis_link import Link
from pushfleet_workers.redis_replies import good
from pushfleet_workers.scripts import load
from pushfleet_workers.tokens.keys import UserKeys, device_field, device_name
from pushfleet_workers.tokens.record import Channel, TokenKind
from pushfleet_workers.tokens.store import TokenStore

__all__ = ["LIFE_S", "Buried", "Death", "Fate", "Grave", "Restored", "Tombstone", "Tombstones"]

log = logging.getLogger(__name__)

LIFE_S = 30 * 86_400
"""How long a tombstone is kept."""

GRAVES_MAX = 64
"""Most tombstones of a user: a device changes its token now and then, not every day."""

_BURY = load("pushfleet_workers.tokens", "bury", preamble="common")
_RESTORE = load("pushfleet_workers.tokens", "restore", preamble="common")


class Fate(StrEnum):
    """What became of a token that its vendor called dead."""

    DROPPED = "dropped"
    """It is gone from its device."""

    QUARANTINED = "quarantined"
    """It is passed over until it is confirmed, restored, or its time is over."""

    RESTORED = "restored"
    """It is back, or passed over no more."""

    REPORTED = "reported"
    """It was addressed directly and is in no registry: only told of."""


class Restored(StrEnum):
    """What came of restoring a token."""

    RESTORED = "restored"
    UNKNOWN = "unknown"
    """There is no tombstone any more, or it was restored before."""

    NO_DEVICE = "no_device"
    OUTDATED = "outdated"
    """The device has registered since, or has the token."""

    TAKEN = "taken"
    """Another user has registered the token since."""


class Tombstone(Struct, frozen=True, array_like=True):
    """One death. The scripts know the order of the fields: new ones are appended. Times are Unix milliseconds."""

    device_hex: str
    vendor: str
    credential: str
    token: str
    """Empty once it is restored."""

    kind: TokenKind
    region: str
    registered_at_ms: int
    place: int
    """Which of the device's channels it was, from 1."""

    code: str
    """The vendor's."""

    since_ms: int
    """When the vendor noticed the death; 0: it does not say."""

    at_ms: int
    """When we heard of it, or restored it."""

    fate: Fate
    until_ms: int
    """Until when it is passed over; 0: it is not."""

    accepted: int
    """Pushes of its account that the vendor had accepted by then, since ever."""

    deaths: int
    """Undated deaths of its account by then, since ever."""

    @property
    def device(self) -> str:
        """The installation's id."""
        return device_name(bytes.fromhex(self.device_hex))

    @property
    def channel(self) -> Channel:
        """The channel that died."""
        return Channel(self.vendor, self.credential, self.token, self.registered_at_ms, self.kind, self.region)

    def __repr__(self) -> str:
        return f"Tombstone({self.vendor}:{self.credential}, {self.fate}, {self.code!r})"


@dataclass(frozen=True, slots=True)
class Death:
    """A token that its vendor calls dead, and what is to become of it."""

    user: str
    device: str
    """Empty: whichever of the user's devices has it."""

    vendor: str
    token: str = field(repr=False)
    from_ms: int
    """It must have been registered then or later, and before the next; what registered otherwise lives on."""

    below_ms: int
    fate: Fate
    until_ms: int = 0
    code: str = ""
    since_ms: int = 0
    accepted: int = 0
    deaths: int = 0


class Grave(Struct, frozen=True):
    """Where a tombstone is."""

    app: str
    user: str
    id: str
    """24 hexadecimal digits, the same for the same token, device and registration."""


@dataclass(frozen=True, slots=True)
class Buried:
    """A death that is news, and its tombstone."""

    grave: Grave
    stone: Tombstone


_decode = msgspec.msgpack.Decoder(Tombstone).decode


class Tombstones:
    """The tombstones of all users; every method raises :class:`RedisUnusable`, and may be repeated."""

    def __init__(self, link: Link, prefix: str, store: TokenStore) -> None:
        self._link = link
        self._prefix = prefix
        self._store = store

    async def bury(self, app: str, deaths: Sequence[Death], now_ms: int) -> list[Buried]:
        """Take or quarantine the tokens of *deaths* where they are still registered as was said.

        Gives what is news: not what was known already, nor what a newer registration outlives.
        """
        keys = [UserKeys(self._prefix, app, one.user) for one in deaths]
        calls = [
            (
                _BURY,
                (owner.devices, owner.dead),
                (
                    device_field(one.device), one.vendor, one.token, one.from_ms, one.below_ms, one.fate.value,
                    one.until_ms, now_ms, one.code, one.since_ms, one.accepted, one.deaths, LIFE_S, GRAVES_MAX,
                ),
            )
            for owner, one in zip(keys, deaths, strict=True)
        ]  # fmt: skip
        buried: list[Buried] = []
        for one, news in zip(deaths, good(await self._link.run_many(calls)), strict=True):
            graves = [Grave(app, one.user, identity.decode()) for identity in news[::2]]
            stones = map(_stone, graves, news[1::2])
            buried += [Buried(grave, stone) for grave, stone in zip(graves, stones, strict=True) if stone is not None]
        await self._store.give_up(
            [
                (UserKeys(self._prefix, app, one.grave.user).owner, stone.vendor, stone.token, stone.registered_at_ms)
                for one in buried
                if (stone := one.stone).fate is Fate.DROPPED
            ]
        )
        return buried

    async def told(self, graves: Sequence[Grave]) -> None:
        """Note that these deaths were told."""
        await self._all([("HDEL", self._dead(one), f"{one.id}!") for one in graves])

    async def find(self, graves: Sequence[Grave]) -> list[Tombstone | None]:
        """The tombstones; None where there is none, or a damaged one."""
        packed = await self._all([("HGET", self._dead(one), one.id) for one in graves])
        return [_stone(one, value) for one, value in zip(graves, packed, strict=True)]

    async def restore(self, grave: Grave, now_ms: int) -> tuple[Restored, Tombstone | None]:
        """Bring the token back, or lift its quarantine; with the tombstone as it was."""
        (stone,) = await self.find([grave])
        if stone is None:
            return Restored.UNKNOWN, None
        keys = UserKeys(self._prefix, grave.app, grave.user)
        said = Restored.TAKEN

        async def put() -> bool:
            nonlocal said
            said = Restored((await self._link.run(_RESTORE, (keys.devices, keys.dead), (grave.id, now_ms))).decode())
            return said is Restored.RESTORED

        if stone.fate is not Fate.DROPPED:
            await put()
        elif not await self._store.take_back(keys.owner, stone.channel, put) and said is Restored.RESTORED:
            said = Restored.TAKEN
        return said, stone

    async def of(self, app: str, user: str) -> list[Buried]:
        """All tombstones of a user."""
        flat = await self._link.call("HGETALL", UserKeys(self._prefix, app, user).dead)
        graves = [(Grave(app, user, flat[at].decode()), flat[at + 1]) for at in range(0, len(flat), 2)]
        # Beside a tombstone there may be a note that it was not told yet.
        stones = [(grave, _stone(grave, packed)) for grave, packed in graves if not grave.id.endswith("!")]
        return [Buried(grave, stone) for grave, stone in stones if stone is not None]

    async def forget(self, app: str, user: str) -> None:
        """Forget the tombstones of a user."""
        await self._link.call("UNLINK", UserKeys(self._prefix, app, user).dead)

    def _dead(self, grave: Grave) -> str:
        return UserKeys(self._prefix, grave.app, grave.user).dead

    async def _all(self, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        return good(await self._link.pipeline(commands))


def _stone(grave: Grave, packed: bytes | None) -> Tombstone | None:
    if packed is None:
        return None
    try:
        return _decode(packed)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        log.warning("tombstone %s of app %s cannot be read and is left out", grave.id, grave.app)
        return None
