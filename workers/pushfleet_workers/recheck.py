"""Deciding again on work that waited: what was read from the token state may no longer hold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pushfleet.message import Recipient
from pushfleet_workers.clock import FleetClock
from pushfleet_workers.decision import refuse_device, refuse_receiver
from pushfleet_workers.ledger import Entry
from pushfleet_workers.push import Delivery
from pushfleet_workers.redis_link import Link, ReplyError
from pushfleet_workers.tokens.lookup import Lookup, UserState

__all__ = ["Rechecker"]


class Rechecker:
    """Asks the token state about the deliveries of entries, in one round trip."""

    def __init__(self, state: Link, prefix: str, clock: FleetClock, vendor: str, credential: str) -> None:
        self._state = state
        self._lookup = Lookup(prefix)
        self._clock = clock
        self._vendor = vendor
        self._credential = credential

    async def refused(self, entries: Sequence[Entry]) -> dict[bytes, str]:
        """Delivery ids to the reason why they must not be sent any more; renews tokens that changed meanwhile.

        Devices that were addressed directly are not asked about. Raises :class:`RedisUnusable`.
        """
        asked = [
            (entry.parcel.push, delivery) for entry in entries for delivery in entry.parcel.deliveries if delivery.user
        ]
        commands: list[tuple[Any, ...]] = []
        for push, delivery in asked:
            commands += self._lookup.commands(push.app, delivery.user, push.conversation_id)
        replies = await self._state.pipeline(commands)
        width = self._lookup.width
        refused = {}
        for number, (push, delivery) in enumerate(asked):
            try:
                state = self._lookup.read(replies[number * width : (number + 1) * width])
            except ReplyError as problem:
                if not str(problem).startswith("WRONGTYPE"):
                    raise
                # Keys that are not what they should be: for this user alone the first decision stands.
                continue
            reason = self._refuse(push.kind, delivery, state)
            if reason:
                refused[delivery.id] = reason
        return refused

    def _refuse(self, kind: str, delivery: Delivery, state: UserState) -> str:
        now_ms = self._clock.now_ms()
        if not delivery.forced:
            recipient = Recipient(id=delivery.user, mention=delivery.mention)
            reason = refuse_receiver(kind, recipient, state.receive_at(now_ms))
            if reason:
                return reason
        device = state.devices.get(delivery.device)
        if device is None:
            return "no_device"
        reason = refuse_device(device, now_ms, forced=delivery.forced)
        if reason:
            return reason
        here = (self._vendor, self._credential, delivery.token_kind)
        channels = [
            channel
            for channel in device.channels
            if (channel.vendor, channel.credential, channel.kind) == here and channel.quarantined_until_ms <= now_ms
        ]
        if not channels:
            return "no_channel"
        channel = next((one for one in channels if one.token == delivery.token), channels[0])
        delivery.token, delivery.registered_at_ms = channel.token, channel.registered_at_ms
        return ""
