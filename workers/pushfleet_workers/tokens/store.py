"""The token state in Redis. Each change of a record is one script, which also decides by time whether it applies.

A user's keys share a hash tag, the index of tokens lies elsewhere, so a registration is several scripts: claim the
tokens in the index, take them from their owners before, write the record, settle the claims. Doing it again, after a
crash anywhere in between or beside somebody else, ends with one owner of each token.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

from pushfleet_workers.errors import FleetError
from pushfleet_workers.redis_link import Argument, Link
from pushfleet_workers.redis_replies import good
from pushfleet_workers.scripts import Script, load
from pushfleet_workers.tokens.changes import STATES, Registration, Report, new_device
from pushfleet_workers.tokens.erasures import erasures_key
from pushfleet_workers.tokens.keys import UserKeys, device_field, device_name, devices_of, token_place
from pushfleet_workers.tokens.lookup import Lookup, Receive, UserState, pack_option, read_option
from pushfleet_workers.tokens.preferences import PREFERENCES_FIELD
from pushfleet_workers.tokens.record import Channel, Device, decode_device, encode_device, read_devices
from pushfleet_workers.tokens.words import spellings

__all__ = ["OptionsFull", "Registered", "Reported", "StoredUser", "TokenStore"]

_PACKAGE = "pushfleet_workers.tokens"
_REGISTER = load(_PACKAGE, "register", preamble="common")
_REPORT = load(_PACKAGE, "report", preamble="common")
_DROP = load(_PACKAGE, "drop", preamble="common")
_MUTE = load(_PACKAGE, "mute", preamble="common")
_REMOVE = load(_PACKAGE, "remove")
_OPTION = load(_PACKAGE, "option")
_LOGIN = load(_PACKAGE, "login", preamble="common")
_EXPIRE = load(_PACKAGE, "expire", preamble="common")
_ERASE = load(_PACKAGE, "erase")
_LEAVINGS = load(_PACKAGE, "leavings")
_CLAIM = load(_PACKAGE, "claim", preamble="index")
_SETTLE = load(_PACKAGE, "settle", preamble="index")
_DISOWN = load(_PACKAGE, "disown", preamble="index")

LIFE_S = 270 * 86_400
"""A user of whom nothing is heard for this long is forgotten, preferences included."""

DEVICES_MAX = 32
"""Most devices of a user; one more replaces the one that was silent the longest."""

OPTIONS_MAX = 2_000
"""Most conversations with a receive option of a user."""

_NO_CONVERSATIONS = PREFERENCES_FIELD.encode(), b"\xff"
"""Fields of the options that hold something else: the user's preferences, and in ``login.lua`` their logins."""

_STRAY_AFTER_MS = 3_600_000
"""Age from which an index entry whose owner does not have the token is a stray, not a registration under way."""

_REPORTS = 50
"""Reports applied by one call: a call for each costs Redis more than the report does, and many more hold up others."""

_ASIDE_S = 30 * 86_400
"""For how long the devices of an erased user may be set aside: a moment, unless nobody brings it to its end."""

ScriptCall = tuple[Script, tuple[str, ...], tuple[Argument, ...]]


class OptionsFull(FleetError):
    """The user has receive options for too many conversations."""


@dataclass(frozen=True, slots=True)
class Registered:
    """What became of a registration."""

    applied: bool
    """False when the device had registered later already; then only older truths were filled in."""

    device: Device


@dataclass(frozen=True, slots=True)
class Reported:
    """What became of reports; the counts add up to the reports given."""

    applied: int = 0
    outdated: int = 0
    """Older than what was known."""

    unknown: int = 0
    """Of devices that are not registered."""


@dataclass(frozen=True, slots=True)
class StoredUser:
    """What is known of a user."""

    devices: dict[str, Device]
    options: dict[str, tuple[Receive, int]]
    """Conversation to receive option and its end (0: none)."""

    erasing_since_ms: int = 0
    """Since when the user is being erased, Unix milliseconds; 0: they are not."""


@dataclass(frozen=True, slots=True)
class _Claim:
    """One token of one registration of a batch."""

    number: int
    """Which registration."""

    owner: str
    channel: Channel
    key: str
    field: bytes
    until_ms: Sequence[int] = ()
    """Until when each owner before may have claimed the token: later claims of theirs are not ours to undo."""


@dataclass(frozen=True, slots=True)
class _Entry:
    """What the token index says: whose a token is, and since when."""

    owner: str
    key: str
    field: bytes
    at_ms: int


class TokenStore:
    """Devices, states and preferences of all users.

    * **now_ms** - the clock for whatever comes without a time of its own: Redis' time, as :class:`FleetClock` has it.
    * **lease_s** - how long a foreground report holds.

    All methods raise :class:`RedisUnusable` when Redis does not answer and :class:`ReplyError` when it refuses;
    repeating them is safe.
    """

    def __init__(self, link: Link, prefix: str, now_ms: Callable[[], int], *, lease_s: int = 400) -> None:
        self._link = link
        self._prefix = prefix
        self._now_ms = now_ms
        self._lease_ms = lease_s * 1000
        self._lookup = Lookup(prefix)

    async def register(self, app: str, user: str, device: str, given: Registration) -> Registered:
        """The device after registering; a token that another device had is taken from it.

        A token that another device registered later than this is left out.
        """
        (done,) = await self.register_many([(app, user, device, given)])
        return done

    async def register_many(self, given: Sequence[tuple[str, str, str, Registration]]) -> list[Registered]:
        """The devices after registering each, in a few round trips for all."""
        now_ms = self._now_ms()
        batch = [
            _Registering(UserKeys(self._prefix, app, user), device, one, one.at_ms or now_ms)
            for app, user, device, one in given
        ]
        claims, before, strays = await self._claim(batch)
        await self._run(
            [
                self._take_call(owner.decode(errors="replace"), claim.channel, until_ms)
                for claim, owners in zip(claims, before, strict=True)
                for owner, until_ms in zip(owners, claim.until_ms, strict=True)
            ]
        )
        done, gone = await self._write(batch)
        lost = await self._settle(claims, before)
        # What an outdated registration claimed, the device has no use for.
        unused = [
            _Entry(claim.owner, claim.key, claim.field, claim.channel.registered_at_ms)
            for claim in claims
            if not done[claim.number].applied
            and not _holds(done[claim.number].device, claim.channel.vendor, claim.channel.token)
        ]
        await self._disown([*gone, *strays, *unused])
        for claim in lost:
            device = done[claim.number].device
            device.channels = [one for one in device.channels if one.token != claim.channel.token]
        return done

    async def remove(self, app: str, user: str, device: str) -> bool:
        """Forget a device; False when it was not there."""
        keys = UserKeys(self._prefix, app, user)
        packed = await self._link.run(_REMOVE, (keys.devices, keys.badges), (device_field(device),))
        if packed is None:
            return False
        gone = [
            self._entry(keys.owner, channel.vendor, channel.token, channel.registered_at_ms)
            for record in read_devices((b"", packed)).values()
            for channel in record.channels
        ]
        await self._disown(gone)
        return True

    async def expire(self, users: Sequence[tuple[str, str, int]]) -> int:
        """Forget devices that were heard of last before a time, by app and user; gives how many went."""
        keys = [UserKeys(self._prefix, app, user) for app, user, _ in users]
        calls: list[ScriptCall] = [
            (_EXPIRE, (one.devices, one.badges), (before_ms, LIFE_S))
            for one, (_, _, before_ms) in zip(keys, users, strict=True)
        ]
        answers = await self._run(calls)
        await self._disown(
            [
                self._entry(one.owner, gone[at].decode(), gone[at + 1].decode(), gone[at + 2])
                for one, (_, gone) in zip(keys, answers, strict=True)
                for at in range(0, len(gone), 3)
            ]
        )
        return sum(count for count, _ in answers)

    async def forget_user(self, app: str, user: str) -> bool:
        """Forget all that is known of a user but their dead tokens; False when nothing was.

        Repeating it after it broke off anywhere takes the rest.
        """
        keys = UserKeys(self._prefix, app, user)
        known, devices = await self._link.run(
            _ERASE, (keys.devices, keys.gone, keys.options, keys.reads, *keys.put_down), (_ASIDE_S,)
        )
        await self._disown(
            [
                self._entry(keys.owner, channel.vendor, channel.token, channel.registered_at_ms)
                for device in read_devices(devices).values()
                for channel in device.channels
            ]
        )
        await self._link.call("UNLINK", keys.gone)
        return bool(known)

    async def forget_leavings(self, users: Sequence[tuple[str, str]]) -> None:
        """Forget what was put down of users (app, user) since they were forgotten; not of those who are back."""
        keys = [UserKeys(self._prefix, *one) for one in users]
        await self._run([(_LEAVINGS, (one.devices, *one.put_down), ()) for one in keys])

    async def logout(self, app: str, user: str, device: str, at_ms: int = 0) -> bool:
        """Stop all pushes to a device until it registers again; False when it is not known, or registered later."""
        done = await self.report(app, [Report(user=user, device=device, state="logged_out", at_ms=at_ms)])
        return done.applied == 1

    async def login(self, app: str, user: str, device: str, at_ms: int = 0, platform: str = "") -> list[str]:
        """Log out the user's other devices as of *at_ms*, those of *platform* or all; gives those that it logged out.

        Capitals make no other platform.
        A registration after that ends it, as it ends a logout.
        """
        keys = UserKeys(self._prefix, app, user)
        args = (device_field(device), at_ms or self._now_ms(), LIFE_S, *(spellings(platform) if platform else ()))
        return [
            device_name(name) for name in await self._link.run(_LOGIN, (keys.devices, keys.options, keys.badges), args)
        ]

    async def report(self, app: str, reports: Sequence[Report]) -> Reported:
        """Apply *reports* in one round trip, each as of its own time; in whatever order they come, the end is the same.

        A foreground report takes a lease; it and any ``unread`` set the base that the badge counts on from.
        """
        now_ms = self._now_ms()
        parts = [reports[first : first + _REPORTS] for first in range(0, len(reports), _REPORTS)]
        answers = good(chain.from_iterable(await self._run([self._report_call(app, part, now_ms) for part in parts])))
        return Reported(answers.count(1), answers.count(0), answers.count(-1))

    def _report_call(self, app: str, reports: Sequence[Report], now_ms: int) -> ScriptCall:
        names: list[str] = []
        arguments: list[Argument] = [self._lease_ms, LIFE_S]
        for one in reports:
            keys = UserKeys(self._prefix, app, one.user)
            names += keys.devices, keys.options, keys.badges
            unread = "" if one.unread is None else one.unread
            arguments += device_field(one.device), STATES[one.state], one.at_ms or now_ms, unread
        return _REPORT, tuple(names), tuple(arguments)

    async def set_receive_option(
        self, app: str, user: str, conversation: str, receive: Receive, until_ms: int = 0
    ) -> None:
        """What *user* wants from *conversation* (``all``, ``mentions``, ``none``), until a time where one is given.

        Raises :class:`OptionsFull` above :data:`OPTIONS_MAX` conversations.
        """
        key = UserKeys(self._prefix, app, user).options
        if receive == "all":
            await self._link.call("HDEL", key, conversation)
            return
        option = pack_option(receive, until_ms)
        args = (conversation, option, self._now_ms(), OPTIONS_MAX, LIFE_S)
        if not await self._link.run(_OPTION, (key,), args):
            raise OptionsFull(f"a user has receive options for {OPTIONS_MAX} conversations at most")

    async def user(self, app: str, user: str) -> StoredUser:
        """What is known of *user*; empty for one that was never heard of."""
        keys = UserKeys(self._prefix, app, user)
        erasing = ("ZSCORE", erasures_key(self._prefix), keys.owner)
        devices, options, since = good(
            await self._link.pipeline([("HGETALL", keys.devices), ("HGETALL", keys.options), erasing])
        )
        named = [at for at in range(0, len(options), 2) if options[at] not in _NO_CONVERSATIONS]
        return StoredUser(
            read_devices(devices),
            {options[at].decode(errors="replace"): read_option(options[at + 1]) for at in named},
            abs(int(since or 0)),
        )

    async def state_of(self, app: str, user: str, conversation: str) -> UserState:
        """What the router reads of *user* to decide on a message of *conversation*; empty: of none."""
        return self._lookup.read(await self._link.pipeline(self._lookup.commands(app, user, conversation)))

    async def mute_device(self, app: str, user: str, device: str, registered_at_ms: int) -> bool:
        """Note that a device showed no notifications when it was sent to as registered then.

        False when it has registered since, and so said itself whether that still holds, or is not known.
        """
        key = UserKeys(self._prefix, app, user).devices
        return bool(await self._link.run(_MUTE, (key,), (device_field(device), registered_at_ms)))

    async def owner(self, app: str, vendor: str, token: str) -> str | None:
        """Who has *token* in *app*, as the index names them; None when nobody has it."""
        place = self._place(UserKeys(self._prefix, app, "").owner, vendor, token)
        value = await self._link.call("HGET", *place)
        entry = _entry_in(*place, value) if value is not None else None
        return entry.owner if entry is not None else None

    async def give_up(self, tokens: Sequence[tuple[str, str, str, int]]) -> None:
        """Take tokens that went (owner, vendor, token, registered at) out of the index; claimed ones stay."""
        await self._disown([self._entry(*one) for one in tokens])

    async def take_back(self, owner: str, channel: Channel, put: Callable[[], Awaitable[bool]]) -> bool:
        """Claim a token for *owner* as of its own registration, and have *put* write it.

        False, and nothing is changed, when somebody else has registered it since, or *put* says that it did not.
        """
        at_ms = channel.registered_at_ms
        claim = _Claim(0, owner, channel, *self._place(owner, channel.vendor, channel.token))
        won, before, until_ms, _ = await self._link.run(_CLAIM, (claim.key,), (claim.field, owner, at_ms))
        if not won:
            return False
        takes = [
            self._take_call(one.decode(errors="replace"), channel, end)
            for one, end in zip(before, until_ms, strict=True)
        ]
        await self._run(takes)
        done = await put()
        lost = await self._settle([claim], [before])
        if not done:
            await self._disown([_Entry(owner, claim.key, claim.field, at_ms)])
        return done and not lost

    # ---- the steps of a registration

    async def _claim(self, batch: Sequence[_Registering]) -> tuple[list[_Claim], list[list[bytes]], list[_Entry]]:
        """The claims that were won, the owners before of each, and strays; channels that are not won go from *batch*.

        Each token that is new to the index has two of its neighbours looked at. Entries whose owners faded away
        unheard so go as fast as new ones come, without anybody walking the index.
        """
        claims = [
            _Claim(number, one.keys.owner, channel, *self._place(one.keys.owner, channel.vendor, channel.token))
            for number, one in enumerate(batch)
            for channel in one.record.channels
        ]
        answers = await self._run(
            [(_CLAIM, (one.key,), (one.field, one.owner, one.channel.registered_at_ms)) for one in claims]
        )
        won: list[_Claim] = []
        before: list[list[bytes]] = []
        neighbours: list[_Entry] = []
        for claim, (is_won, owners, until_ms, pairs) in zip(claims, answers, strict=True):
            found = (_entry_in(claim.key, pairs[at], pairs[at + 1]) for at in range(0, len(pairs), 2))
            neighbours += [entry for entry in found if entry is not None]
            if is_won:
                won.append(replace(claim, until_ms=until_ms))
                before.append(owners)
            else:
                batch[claim.number].record.channels.remove(claim.channel)
        return won, before, await self._strays(neighbours)

    async def _strays(self, neighbours: Sequence[_Entry]) -> list[_Entry]:
        youngest_ms = self._now_ms() - _STRAY_AFTER_MS
        return await self._not_held([one for one in neighbours if one.at_ms < youngest_ms])

    async def _not_held(self, entries: Sequence[_Entry]) -> list[_Entry]:
        """The entries whose owner has the token on no device."""
        replies = await self._link.pipeline([("HGETALL", devices_of(self._prefix, one.owner)) for one in entries])
        return [entry for entry, fields in zip(entries, good(replies), strict=True) if not self._is_held(entry, fields)]

    def _is_held(self, entry: _Entry, fields: Sequence[bytes]) -> bool:
        devices = read_devices(fields)
        # Of a record that cannot be read nobody knows what it holds.
        return 2 * len(devices) < len(fields) or any(
            self._place(entry.owner, channel.vendor, channel.token) == (entry.key, entry.field)
            for device in devices.values()
            for channel in device.channels
        )

    async def _write(self, batch: Sequence[_Registering]) -> tuple[list[Registered], list[_Entry]]:
        """What each registration came to, and the tokens that went with it."""
        calls: list[ScriptCall] = []
        for one in batch:
            state = STATES[one.given.state] if one.given.state is not None else ""
            unread = "" if one.given.unread is None else one.given.unread
            record = encode_device(one.record)
            args = (device_field(one.device), record, one.at_ms, state, unread, self._lease_ms, LIFE_S, DEVICES_MAX)
            calls.append((_REGISTER, (one.keys.devices, one.keys.options, one.keys.badges), args))
        done: list[Registered] = []
        gone: list[_Entry] = []
        for one, (holds, packed, lost) in zip(batch, await self._run(calls), strict=True):
            done.append(Registered(bool(holds), decode_device(packed)))
            gone += [
                # Up to that very registration: another device of the user may have claimed the token since.
                self._entry(one.keys.owner, lost[at].decode(), lost[at + 1].decode(), lost[at + 2])
                for at in range(0, len(lost), 3)
            ]
        return done, gone

    async def _settle(self, claims: Sequence[_Claim], before: Sequence[Sequence[bytes]]) -> list[_Claim]:
        """Close the claims; gives those that somebody else has won meanwhile, their tokens taken back."""
        answers = await self._run(
            [
                (_SETTLE, (claim.key,), (claim.field, claim.owner, *owners))
                for claim, owners in zip(claims, before, strict=True)
            ]
        )
        lost = [claim for claim, ours in zip(claims, answers, strict=True) if not ours]
        await self._run([self._take_call(claim.owner, claim.channel, claim.channel.registered_at_ms) for claim in lost])
        return lost

    def _take_call(self, owner: str, channel: Channel, until_ms: int) -> ScriptCall:
        """Take the token from *owner*, unless they registered it after *until_ms*."""
        args = ("", channel.vendor, channel.token, 0, until_ms + 1)
        return _DROP, (devices_of(self._prefix, owner),), args

    async def _disown(self, entries: Sequence[_Entry]) -> None:
        """Take those out of the index that nobody has claimed since, and whose owner has the token on no device.

        An entry is read first and goes only unchanged. So a claim beside this is safe: it changes the entry once when
        it begins and once when its device is written, and if neither falls in between, the device is there to be seen.
        """
        if not entries:
            return
        values = good(await self._link.pipeline([("HGET", one.key, one.field) for one in entries]))
        still = {
            entry: value
            for entry, value in zip(entries, values, strict=True)
            if value is not None and _is_of(entry, _entry_in(entry.key, entry.field, value))
        }
        unheld = await self._not_held(list(still))
        await self._run([(_DISOWN, (one.key,), (one.field, still[one])) for one in unheld])

    def _place(self, owner: str, vendor: str, token: str) -> tuple[str, bytes]:
        return token_place(self._prefix, owner, vendor, token)

    def _entry(self, owner: str, vendor: str, token: str, at_ms: int) -> _Entry:
        return _Entry(owner, *self._place(owner, vendor, token), at_ms)

    async def _run(self, calls: Sequence[ScriptCall]) -> list[Any]:
        return good(await self._link.run_many(calls)) if calls else []


class _Registering:
    """A registration of a batch."""

    __slots__ = ("at_ms", "device", "given", "keys", "record")

    def __init__(self, keys: UserKeys, device: str, given: Registration, at_ms: int) -> None:
        self.keys = keys
        self.device = device
        self.given = given
        self.at_ms = at_ms
        self.record = new_device(given, at_ms)


def _holds(device: Device, vendor: str, token: str) -> bool:
    return any((channel.vendor, channel.token) == (vendor, token) for channel in device.channels)


def _entry_in(key: str, field: bytes, value: bytes) -> _Entry | None:
    """The entry that `index.lua` wrote; None for a damaged one, which is overwritten when its token comes again."""
    owner = value[8:].split(b" ")[0]
    if not owner or not owner.isascii():
        return None
    return _Entry(owner.decode(), key, field, int.from_bytes(value[:6], "big"))


def _is_of(entry: _Entry, found: _Entry | None) -> bool:
    return found is not None and found.owner == entry.owner and found.at_ms <= entry.at_ms
