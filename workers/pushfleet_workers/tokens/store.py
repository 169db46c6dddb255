"""The token state in Redis: every change is read, made by a pure function, and written only if nobody was faster."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec

from pushfleet_workers.errors import FleetError
from pushfleet_workers.redis_link import Argument, Link, ReplyError
from pushfleet_workers.scripts import Script, load
from pushfleet_workers.tokens.changes import (
    Registration,
    Report,
    apply_report,
    drop_channel,
    register,
    remove_channel,
)
from pushfleet_workers.tokens.keys import UserKeys, token_place
from pushfleet_workers.tokens.lookup import Receive, pack_option, read_option
from pushfleet_workers.tokens.record import BACKGROUND, Channel, Device, decode_device, encode_device

__all__ = ["StateContended", "StoredUser", "TokenStore"]

_SWAP = load("pushfleet_workers.tokens", "swap")
_DISOWN = load("pushfleet_workers.tokens", "disown")
_TRIES = 10
"""Rounds without any success after which a change is given up."""

_LIFE_S = 270 * 86_400
"""An installation that neither registers nor reports for this long is forgotten; vendors expire its token as well."""

ScriptCall = tuple[Script, tuple[str, ...], tuple[Argument, ...]]
Change = Callable[[Device | None], Device | None]
"""A record to its successor; None: leave it as it is."""


class StateContended(FleetError):
    """Others changed the same device again and again; trying later helps."""


@dataclass(frozen=True, slots=True)
class StoredUser:
    """What is known of a user."""

    devices: dict[str, Device]
    options: dict[str, tuple[Receive, int]]
    """Conversation to receive option and its end (0: none)."""


@dataclass(frozen=True, slots=True)
class _Place:
    app: str
    user: str
    device: str

    @property
    def owner(self) -> bytes:
        return msgspec.msgpack.encode((self.app, self.user, self.device))


class TokenStore:
    """Devices, states and preferences of all users.

    * **now_ms** - the clock for whatever comes without a time of its own.
    * **lease_s** - how long a foreground report holds.

    All methods raise :class:`RedisUnusable` when Redis does not answer; repeating them is safe.
    """

    def __init__(self, link: Link, prefix: str, now_ms: Callable[[], int], *, lease_s: int = 400) -> None:
        self._link = link
        self._prefix = prefix
        self._now_ms = now_ms
        self._lease_ms = lease_s * 1000

    async def register(self, app: str, user: str, device: str, given: Registration) -> Device:
        """The device after registering; a token that another device had is taken from it."""
        (done,) = await self.register_many([(app, user, device, given)])
        return done

    async def register_many(self, given: Sequence[tuple[str, str, str, Registration]]) -> list[Device]:
        """The devices after registering each, in a few round trips for all."""
        places = [_Place(app, user, device) for app, user, device, _ in given]
        changes: list[Change] = [self._registering(registration) for *_, registration in given]
        swaps = await self._swap_many(list(zip(places, changes, strict=True)))
        claimed: list[tuple[_Place, Channel]] = []
        for place, (before, after) in zip(places, swaps, strict=True):
            assert after is not None
            kept = {(channel.vendor, channel.token) for channel in after.channels}
            old = before.channels if before is not None else []
            await self._disown(place, [channel for channel in old if (channel.vendor, channel.token) not in kept])
            claimed += [(place, channel) for channel in after.channels]
        await self._own(claimed)
        reset = [place for place, (_, after) in zip(places, swaps, strict=True) if after and after.state == BACKGROUND]
        await self._reset_badges(reset)
        return [after for _, after in swaps if after is not None]

    async def remove(self, app: str, user: str, device: str) -> bool:
        """Forget a device; False when it was not there."""
        place = _Place(app, user, device)
        for _ in range(_TRIES):
            ((raw, before),) = await self._read([place])
            if before is None:
                return False
            (done,) = await self._link.run_many([self._swap_call(place, raw, None)])
            if _number(done):
                await self._disown(place, before.channels)
                await self._reset_badges([place])
                return True
        raise StateContended(f"device {device!r} changed {_TRIES} times while it was removed")

    async def report(self, app: str, reports: Sequence[Report]) -> int:
        """Apply *reports*, each as of its own time; returns how many were news, unknown devices left out."""
        now_ms = self._now_ms()
        work: list[tuple[_Place, Change]] = []
        for report in reports:

            def change(device: Device | None, report: Report = report) -> Device | None:
                return apply_report(device, report, now_ms, self._lease_ms) if device is not None else None

            work.append((_Place(app, report.user, report.device), change))
        swaps = await self._swap_many(work)
        await self._reset_badges(
            [
                place
                for (place, _), report, (_, after) in zip(work, reports, swaps, strict=True)
                if after is not None and (report.unread is not None or report.state == "foreground")
            ]
        )
        return sum(after is not None for _, after in swaps)

    async def set_receive_option(
        self, app: str, user: str, conversation: str, receive: Receive, until_ms: int = 0
    ) -> None:
        """What *user* wants from *conversation* (``all``, ``mentions``, ``none``), until a time where one is given."""
        key = UserKeys(self._prefix, app, user).options
        if receive == "all":
            await self._link.call("HDEL", key, conversation)
        else:
            await self._link.call("HSET", key, conversation, pack_option(receive, until_ms))

    async def user(self, app: str, user: str) -> StoredUser:
        """What is known of *user*; empty for one that was never heard of."""
        keys = UserKeys(self._prefix, app, user)
        devices, options = await self._link.pipeline([("HGETALL", keys.devices), ("HGETALL", keys.options)])
        for reply in (devices, options):
            if isinstance(reply, ReplyError):
                raise reply
        return StoredUser(
            {devices[at].decode(): decode_device(devices[at + 1]) for at in range(0, len(devices), 2)},
            {options[at].decode(): read_option(options[at + 1]) for at in range(0, len(options), 2)},
        )

    async def drop_token(
        self, app: str, user: str, device: str, token: str, registered_at_ms: int, since_ms: int | None
    ) -> bool:
        """Drop a token that its vendor calls dead; False when a newer registration outlives the news."""
        place = _Place(app, user, device)

        def change(current: Device | None) -> Device | None:
            return drop_channel(current, token, registered_at_ms, since_ms) if current is not None else None

        ((before, after),) = await self._swap_many([(place, change)])
        if after is None or before is None:
            return False
        await self._disown(place, [channel for channel in before.channels if channel.token == token])
        return True

    async def mute_device(self, app: str, user: str, device: str) -> bool:
        """Note that a device shows no notifications; its next registration says whether that still holds."""

        def change(current: Device | None) -> Device | None:
            return msgspec.structs.replace(current, permitted=False) if current is not None else None

        ((_, after),) = await self._swap_many([(_Place(app, user, device), change)])
        return after is not None

    # ---- reading and writing records

    def _registering(self, given: Registration) -> Change:
        return lambda device: register(device, given, self._now_ms(), self._lease_ms)

    async def _read(self, places: Sequence[_Place]) -> list[tuple[bytes, Device | None]]:
        """The record of each place as it lies there (empty for none), and as a device."""
        replies = await self._link.pipeline(
            [("HGET", UserKeys(self._prefix, place.app, place.user).devices, place.device) for place in places]
        )
        records: list[tuple[bytes, Device | None]] = []
        for reply in replies:
            if isinstance(reply, ReplyError):
                raise reply
            records.append((reply, decode_device(reply)) if reply is not None else (b"", None))
        return records

    def _swap_call(self, place: _Place, before: bytes, after: Device | None) -> ScriptCall:
        key = UserKeys(self._prefix, place.app, place.user).devices
        return _SWAP, (key,), (place.device, before, encode_device(after) if after is not None else b"", _LIFE_S)

    async def _swap_many(self, work: Sequence[tuple[_Place, Change]]) -> list[tuple[Device | None, Device | None]]:
        """What each record was and became; (record, None) where the change left it as it was."""
        results: list[tuple[Device | None, Device | None]] = [(None, None)] * len(work)
        open_: list[int] = list(range(len(work)))
        tries = 0
        while open_:
            # Two changes of one device in a batch happen one after the other.
            first: dict[_Place, int] = {}
            for number in open_:
                first.setdefault(work[number][0], number)
            turn = list(first.values())
            before = await self._read([work[number][0] for number in turn])
            writes: list[tuple[int, bytes, Device | None, Device]] = []
            done: set[int] = set()
            for number, (raw, old) in zip(turn, before, strict=True):
                new = work[number][1](old)
                if new is None:
                    results[number] = (old, None)
                    done.add(number)
                else:
                    writes.append((number, raw, old, new))
            calls = [self._swap_call(work[number][0], raw, new) for number, raw, _, new in writes]
            for (number, _, old, new), reply in zip(writes, await self._link.run_many(calls), strict=True):
                if _number(reply):
                    results[number] = (old, new)
                    done.add(number)
            open_ = [number for number in open_ if number not in done]
            tries = 0 if done else tries + 1
            if tries == _TRIES:
                raise StateContended(f"a device changed {_TRIES} times while it was written: try again")
        return results

    async def _own(self, claimed: Sequence[tuple[_Place, Channel]]) -> None:
        """Write the owners of tokens into the index, and take the tokens from those who had them."""
        at = [token_place(self._prefix, channel.vendor, channel.token) for _, channel in claimed]
        owners = await self._link.pipeline([("HGET", key, field) for key, field in at])
        moves: list[tuple[_Place, Change]] = []
        for (place, channel), owner in zip(claimed, owners, strict=True):
            if isinstance(owner, ReplyError):
                raise owner
            if owner is not None and owner != place.owner:
                moves.append((_Place(*msgspec.msgpack.decode(owner)), _taking(channel)))
        await self._swap_many(moves)
        await self._link.pipeline(
            [("HSET", key, field, place.owner) for (key, field), (place, _) in zip(at, claimed, strict=True)]
        )

    async def _disown(self, place: _Place, channels: Sequence[Channel]) -> None:
        if not channels:
            return
        calls = []
        for channel in channels:
            key, field = token_place(self._prefix, channel.vendor, channel.token)
            calls.append((_DISOWN, (key,), (field, place.owner)))
        await self._link.run_many(calls)

    async def _reset_badges(self, places: Sequence[_Place]) -> None:
        """A new base is known: what was counted on the old one is over."""
        if places:
            await self._link.pipeline(
                [("HDEL", UserKeys(self._prefix, place.app, place.user).badges, place.device) for place in places]
            )


def _taking(channel: Channel) -> Change:
    def change(device: Device | None) -> Device | None:
        return remove_channel(device, channel.vendor, channel.token) if device is not None else None

    return change


def _number(reply: object) -> int:
    if isinstance(reply, ReplyError):
        raise reply
    assert isinstance(reply, int)
    return reply
