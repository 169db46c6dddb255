"""The next channel of a device whose first could not deliver: another token, of another vendor or credential.

A move is a put into the other account's ledger, done before the first account's books say that the delivery went. Its
part is made of the delivery and the channel: a process that dies in between repeats it without effect.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from msgspec.structs import replace

from pushfleet.message import Lane
from pushfleet_workers import registry
from pushfleet_workers.account import AccountSettings
from pushfleet_workers.clock import FleetClock
from pushfleet_workers.decision import channel_for, refuse_device
from pushfleet_workers.ledger import AccountKeys, Entry, Ledger, VendorKeys, pack
from pushfleet_workers.ledger.entry import parcel_id
from pushfleet_workers.ledger.keys import MARK_BUCKET_MS
from pushfleet_workers.push import Delivery, Parcel, Push
from pushfleet_workers.redis_link import Link, ReplyError
from pushfleet_workers.tokens.lookup import Lookup
from pushfleet_workers.tokens.record import Channel, Device, channel_name
from pushfleet_workers.wake import Trigger, ring_call

__all__ = ["NextChannel"]


class NextChannel:
    """Moves deliveries of one account to what else their devices have.

    * **accounts** - all accounts, by vendor and credential.
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

    @property
    def other_accounts(self) -> bool:
        """Whether the app has another account: only then can an account's work go elsewhere as a whole."""
        app = self._accounts[self._here].app
        return any(name != self._here and account.app == app for name, account in self._accounts.items())

    async def move(self, push: Push, lane: Lane, deliveries: Sequence[Delivery]) -> set[bytes]:
        """The ids of those *deliveries* that went into another account's ledger.

        Left alone are those that were addressed directly, those whose outcome is unknown (the first channel may have
        delivered), and those without another channel. Raises :class:`RedisUnusable`.
        """
        asked = [one for one in deliveries if one.user and not one.unknown]
        devices = await self._devices(push, asked)
        puts: dict[tuple[str, str], list[Delivery]] = {}
        for delivery in asked:
            device = devices.get((delivery.user, delivery.device))
            channel = self._next(push, delivery, device)
            if device is not None and channel is not None:
                moved = await self._addressed(push, delivery, device, channel)
                puts.setdefault((channel.vendor, channel.credential), []).append(moved)
        if not puts:
            return set()
        return await self._put(push, lane, puts)

    async def _devices(self, push: Push, deliveries: Sequence[Delivery]) -> dict[tuple[str, str], Device]:
        users = list(dict.fromkeys(one.user for one in deliveries))
        commands: list[tuple[Any, ...]] = []
        for user in users:
            commands += self._lookup.commands(push.app, user, push.conversation_id)
        replies = await self._state.pipeline(commands)
        width = self._lookup.width
        found: dict[tuple[str, str], Device] = {}
        for number, user in enumerate(users):
            try:
                state = self._lookup.read(replies[number * width : (number + 1) * width])
            except ReplyError as problem:
                if not str(problem).startswith("WRONGTYPE"):
                    raise
                continue
            found |= {(user, name): device for name, device in state.devices.items()}
        return found

    def _next(self, push: Push, delivery: Delivery, device: Device | None) -> Channel | None:
        now_ms = self._clock.now_ms()
        if device is None or refuse_device(device, now_ms, forced=delivery.forced):
            return None
        apns = push.options.apns if push.options is not None else None
        tried = {*delivery.tried, channel_name(*self._here, delivery.token_kind)}
        foreign = {channel.name for channel in device.channels if not self._serves(channel, push.app)}
        push_type = apns.push_type if apns is not None else None
        return channel_for(device, push.kind, now_ms, push_type, passing_over=tried | foreign)

    def _serves(self, channel: Channel, app: str) -> bool:
        account = self._accounts.get((channel.vendor, channel.credential))
        return account is not None and account.app == app

    async def _addressed(self, push: Push, delivery: Delivery, device: Device, channel: Channel) -> Delivery:
        badge = delivery.badge
        exact = registry.load(channel.vendor).exact_badge
        if badge >= 0 and exact and not registry.load(self._here[0]).exact_badge:
            # The first vendor counts by itself; this one wants to be told, and the message counts once.
            script, keys, arguments = self._lookup.badge_call(push.app, delivery.user, delivery.device, push.message_id)
            badge = device.unread + await self._state.run(script, keys, arguments)
        return replace(
            delivery,
            token=channel.token,
            registered_at_ms=channel.registered_at_ms,
            token_kind=channel.kind,
            badge=badge,
            attempt=0,
            remedy="",
            tried=[*delivery.tried, channel_name(*self._here, delivery.token_kind)],
        )

    async def _put(self, push: Push, lane: Lane, puts: Mapping[tuple[str, str], list[Delivery]]) -> set[bytes]:
        now_ms = self._clock.now_ms()
        calls = []
        for (vendor, credential), deliveries in puts.items():
            parts = []
            for delivery in deliveries:
                identity = parcel_id(
                    delivery.id, f"{vendor}:{credential}:{delivery.token_kind}".encode(), push.revision
                )
                entry = Entry(identity, Parcel(push, [delivery]), lane, now_ms)
                parts.append((identity, [pack(entry)]))
            keys = AccountKeys(self._prefix, vendor, credential)
            calls.append(Ledger.put_call(keys, int(now_ms // MARK_BUCKET_MS), parts, 0))
        vendors = list(dict.fromkeys(vendor for vendor, _ in puts))
        calls += [ring_call(VendorKeys(self._prefix, vendor)) for vendor in vendors]
        answers = await self._queue.run_many(calls)
        for answer in answers:
            if isinstance(answer, ReplyError):
                raise answer
        for vendor, wanted in zip(vendors, answers[len(puts) :], strict=True):
            if wanted == 1:
                self._trigger(vendor)
        return {delivery.id for deliveries in puts.values() for delivery in deliveries}
