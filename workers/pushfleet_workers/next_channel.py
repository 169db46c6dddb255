"""The next channel of a device whose first could not deliver: another token, of another vendor or credential.

A move is a put into the other account's ledger, done before the first account's books say that the delivery went. Its
part is made of delivery and channel: a process that dies in between repeats it without effect, and whoever has the
delivery after that finds that it went.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any

from msgspec.structs import replace

from pushfleet.message import Lane
from pushfleet_workers import registry
from pushfleet_workers.account import AccountSettings
from pushfleet_workers.clock import FleetClock
from pushfleet_workers.decision import channel_for, refuse_device
from pushfleet_workers.errors import MoveUnheard, RedisUnusable, where_raised
from pushfleet_workers.ledger import AccountKeys, Entry, Ledger, VendorKeys, pack
from pushfleet_workers.ledger.entry import parcel_id
from pushfleet_workers.ledger.keys import MARK_BUCKET_MS
from pushfleet_workers.push import Delivery, Parcel, Push
from pushfleet_workers.recall import RecallMemory
from pushfleet_workers.recall.screens import At, Screens
from pushfleet_workers.redis_link import Link, LinkLost, ReplyError, serves_not_now
from pushfleet_workers.redis_replies import good
from pushfleet_workers.tokens.erasures import Erasures
from pushfleet_workers.tokens.lookup import Counted, Lookup, read_badges
from pushfleet_workers.tokens.record import Channel, Device, channel_name
from pushfleet_workers.wake import Trigger, ring_call

__all__ = ["Moving", "NextChannel"]

log = logging.getLogger(__name__)

Moving = tuple[Push, Lane, Sequence[Delivery]]
"""Deliveries of one push, and the lane they travel in."""

_ASK_FOR_S = 4.0
"""How long the answer to a put is asked for again; no lease is over by then that stood when the put was sent."""

_ASK_AGAIN_S = 0.2

_Put = tuple[bytes, list[bytes], bytes]
"""A part with its packed entries, and the delivery that it carries."""


class NextChannel:
    """Moves deliveries of one account to what else their devices have.

    * **accounts** - all accounts, by vendor and credential.
    * **here** - the account whose deliveries are moved.
    """

    def __init__(
        self,
        state: Link,
        queue: Link,
        accounts: Mapping[tuple[str, str], AccountSettings],
        prefix: str,
        here: tuple[str, str],
        clock: FleetClock,
        trigger: Trigger,
    ) -> None:
        self._state = state
        self._queue = queue
        self._accounts = accounts
        self._prefix = prefix
        self._here = here
        self._clock = clock
        self._trigger = trigger
        self._lookup = Lookup(prefix)
        self._screens = Screens(state, queue, prefix)
        self._erasures = Erasures(state, prefix)

    @property
    def other_accounts(self) -> bool:
        """Whether the app has another account: only then can an account's work go elsewhere as a whole."""
        app = self._accounts[self._here].app
        return any(name != self._here and account.app == app for name, account in self._accounts.items())

    async def move(self, moving: Sequence[Moving], *, same_account: bool) -> set[bytes]:
        """The ids of those deliveries that went on; two round trips for all that is asked, one for all that is put.

        *same_account* lets another channel of this account serve, which helps where only the token was at fault. Left
        alone are those that were addressed directly, those of users who were erased since, those whose outcome is
        unknown (the first channel may have delivered), and those without another channel. Raises :class:`MoveUnheard`
        where nobody knows whether some went. With any other error, as :class:`RedisUnusable`, none did.
        """
        asked = [(push, lane, one) for push, lane, some in moving for one in some if one.user and not one.unknown]
        devices = await self._devices([(push, one) for push, _, one in asked])
        # Not before: who is back by then was erased before that.
        erased = await self._erasures.erased(((push.app, one.user), push.enqueued_at_ms) for push, _, one in asked)
        puts: dict[tuple[str, str], list[_Put]] = {}
        elsewhere: list[tuple[Push, Delivery]] = []
        for push, lane, delivery in asked:
            device = devices.get((push.app, delivery.user, delivery.device))
            if device is None or ((push.app, delivery.user), push.enqueued_at_ms) in erased:
                continue
            channel = self._next(push, delivery, device, same_account)
            if channel is not None:
                moved = await self._addressed(push, delivery, device, channel)
                part = self._part(push, lane, moved, channel.name)
                puts.setdefault((channel.vendor, channel.credential), []).append(part)
                if push.replace_key and not same_account:
                    elsewhere.append((push, delivery))
        went = await self._put(puts) if puts else set()
        try:
            await self.forget([(push, delivery) for push, delivery in elsewhere if delivery.id in went])
        except Exception as problem:  # noqa: BLE001 - they went all the same, and must not be sent from here as well
            log.warning("what went on from %s:%s may be recalled in vain: %s", *self._here, where_raised(problem))
        return went

    async def went(self, moving: Sequence[Moving]) -> set[bytes]:
        """The ids of deliveries that were moved before, by a process that died before it could say so.

        Raises :class:`RedisUnusable`.
        """
        asked = [(push, one) for push, _, some in moving for one in some if one.user]
        devices = await self._devices(asked)
        bucket = int(self._clock.now_ms() // MARK_BUCKET_MS)
        named: list[bytes] = []
        commands: list[tuple[Any, ...]] = []
        for push, delivery in asked:
            device = devices.get((push.app, delivery.user, delivery.device))
            for channel in device.channels if device is not None else ():
                keys = AccountKeys(self._prefix, channel.vendor, channel.credential)
                part = _part_id(push, delivery, channel.name)
                commands += [("HEXISTS", key, part) for key in keys.marks_around(bucket)]
                named += [delivery.id] * 3
        found = good(await self._queue.pipeline(commands))
        return {identity for identity, marked in zip(named, found, strict=True) if marked == 1}

    async def forget(self, elsewhere: Sequence[tuple[Push, Delivery]]) -> None:
        """A recall goes by the device's first channel, which shows nothing of these: it would add what it replaces.

        Raises :class:`RedisUnusable`.
        """
        await self._screens.change(
            forget=[
                At(
                    (push.app, push.message_id, push.replace_key),
                    RecallMemory.place_of(delivery, *self._here),
                    delivery.user,
                )
                for push, delivery in elsewhere
            ]
        )

    async def _devices(self, asked: Sequence[tuple[Push, Delivery]]) -> dict[tuple[str, str, str], Device]:
        """By app, user and device: the devices of every user who is asked about."""
        users = list(dict.fromkeys((push.app, one.user) for push, one in asked))
        commands: list[tuple[Any, ...]] = []
        for app, user in users:
            commands += self._lookup.commands(app, user, "")
        replies = await self._state.pipeline(commands)
        width = self._lookup.width
        found: dict[tuple[str, str, str], Device] = {}
        for number, (app, user) in enumerate(users):
            try:
                state = self._lookup.read(replies[number * width : (number + 1) * width])
            except ReplyError as problem:
                if not str(problem).startswith("WRONGTYPE"):
                    raise
                continue
            found |= {(app, user, name): device for name, device in state.devices.items()}
        return found

    def _next(self, push: Push, delivery: Delivery, device: Device, same_account: bool) -> Channel | None:
        now_ms = self._clock.now_ms()
        if refuse_device(device, now_ms, forced=delivery.forced or push.passes_foreground):
            return None
        apns = push.options.apns if push.options is not None else None
        passed = {*delivery.tried, channel_name(*self._here, delivery.token_kind)}
        passed |= {one.name for one in device.channels if not self._serves(one, push.app, same_account)}
        return channel_for(device, push.kind, now_ms, apns.push_type if apns is not None else None, passing_over=passed)

    def _serves(self, channel: Channel, app: str, same_account: bool) -> bool:
        name = channel.vendor, channel.credential
        account = self._accounts.get(name)
        return account is not None and account.app == app and (same_account or name != self._here)

    async def _addressed(self, push: Push, delivery: Delivery, device: Device, channel: Channel) -> Delivery:
        badge = delivery.badge
        exact = registry.load(channel.vendor).exact_badge
        if badge == 0 and exact and not registry.load(self._here[0]).exact_badge:
            # The first vendor counts by itself; this one wants to be told, and the message counts once. What was given
            # with the message stays.
            counted = Counted(push.app, delivery.user, delivery.device, push.message_id, push.sent_at_ms)
            (count,) = read_badges(await self._state.run_many(self._lookup.badge_calls([counted])))
            badge = device.unread + count if count is not None else -1
        return replace(
            delivery,
            token=channel.token,
            registered_at_ms=channel.registered_at_ms,
            token_kind=channel.kind,
            badge=badge,
            attempt=0,
            remedy="",
            tried=[*delivery.tried, channel_name(*self._here, delivery.token_kind)],
            tries=0,
        )

    def _part(self, push: Push, lane: Lane, moved: Delivery, channel: str) -> _Put:
        identity = _part_id(push, moved, channel)
        now_ms = self._clock.now_ms()
        # What was moved the same way before its marker was forgotten may still be there.
        entry = Entry(parcel_id(identity, int(now_ms)), Parcel(push, [moved]), lane, now_ms)
        return identity, [pack(entry)], moved.id

    async def _put(self, puts: Mapping[tuple[str, str], list[_Put]]) -> set[bytes]:
        """What reached its ledger counts, whatever became of the others."""
        moved: set[bytes] = set()
        rung: set[str] = set()
        for ((vendor, credential), some), answer in zip(puts.items(), await self._answers(puts), strict=True):
            if isinstance(answer, ReplyError):
                log.warning("nothing could be moved to %s:%s: %s", vendor, credential, answer)
                continue
            moved.update(identity for _, _, identity in some)
            rung.add(vendor)
        await self._ring(sorted(rung))
        return moved

    async def _answers(self, puts: Mapping[tuple[str, str], list[_Put]]) -> list[Any]:
        """What each ledger says to what is put there.

        What went and whose answer was lost would be sent from here as well. So it is put again until an answer comes:
        a part is put once. But not after our lease may be over, nor into data that may have lost our claim.
        """
        bucket = int(self._clock.now_ms() // MARK_BUCKET_MS)
        calls = [
            Ledger.put_call(AccountKeys(self._prefix, *name), bucket, [(part, entries) for part, entries, _ in some], 0)
            for name, some in puts.items()
        ]
        until, history, lost = time.monotonic() + _ASK_FOR_S, "", False
        while True:
            asked = False
            try:
                await self._queue.ready()
                if lost and (self._queue.history != history or time.monotonic() > until):
                    raise self._unheard(puts, f"Redis at {self._queue.shown} was away, or has other data since")
                history, asked = self._queue.history, True
                answers = await self._queue.run_many(calls)
                if not all(map(serves_not_now, answers)):
                    return answers
                raise RedisUnusable(f"Redis at {self._queue.shown} cannot serve now: {answers[0]}")
            except RedisUnusable as problem:
                lost = lost or (asked and isinstance(problem, LinkLost))
                if not lost:
                    raise
                if time.monotonic() > until:
                    raise self._unheard(puts, str(problem)) from problem
            await asyncio.sleep(_ASK_AGAIN_S)

    def _unheard(self, puts: Mapping[tuple[str, str], list[_Put]], why: str) -> MoveUnheard:
        perhaps = frozenset(delivery for some in puts.values() for _, _, delivery in some)
        return MoveUnheard(f"{len(perhaps)} deliveries may have gone to another account: {why}", perhaps)

    async def _ring(self, vendors: Sequence[str]) -> None:
        calls = [ring_call(VendorKeys(self._prefix, vendor)) for vendor in vendors]
        try:
            for vendor, wanted in zip(vendors, await self._queue.run_many(calls), strict=True):
                if wanted == 1:
                    self._trigger(vendor)
        except Exception as problem:  # noqa: BLE001 - what was put has gone, whoever hears of it
            # A bell that cannot be rung costs a second: workers look by themselves.
            log.warning("no bell could be rung for what went on from %s:%s: %s", *self._here, where_raised(problem))


def _part_id(push: Push, delivery: Delivery, channel: str) -> bytes:
    """Names a move: the same for a repeat, another for each channel and revision."""
    return parcel_id(delivery.id, channel.encode(), push.revision)
