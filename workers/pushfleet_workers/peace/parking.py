"""Parking: pushes to devices in the foreground, which wait until it is sure whether the app has the message.

A foreground report may outlive the connection that it came over. So the push lies among the delayed of its account and
is looked at now and then: the backend has confirmed that the device has the message, or the app has left the
foreground, or neither, and it goes on waiting. Only when it is to leave does it meet what other pushes met when they
were routed: it counts in the badge, and may wait for others of its conversation.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple
from zlib import crc32

from msgspec.structs import replace

from pushfleet.message import Lane
from pushfleet_workers.peace.storms import (
    ABSORBED,
    AT_ONCE,
    CARRIES,
    StormCall,
    is_stormy_push,
    storm_call_of_push,
    storm_place,
)
from pushfleet_workers.push import Delivery, Push
from pushfleet_workers.redis_link import Link
from pushfleet_workers.redis_replies import is_damaged
from pushfleet_workers.settings import AppSettings
from pushfleet_workers.tokens.confirmations import confirmed_command
from pushfleet_workers.tokens.lookup import Counted, Lookup, read_badges
from pushfleet_workers.tokens.record import Device

__all__ = ["FIRST_LOOK_MS", "LOOK_MS_MAX", "Going", "Parking", "Released", "first_look_ms", "next_look_ms"]

FIRST_LOOK_MS = 2_000
"""A device confirms within a second of the message where its connection lives: nearly all end at the first look."""

LOOK_MS_MAX = 15_000
"""How long after a report that the app left the foreground a push may still wait, at most."""

_WHOLE_MS = 1_000
"""Leases that run out in the same second are looked at together."""


def first_look_ms(lane: Lane, urgent_s: float, entered_ms: int, expires_at_ms: int) -> int:
    """When a push that is parked as it is routed is looked at first.

    What is urgent goes then without a confirmation: after *urgent_s*, and with half of its life left at least.
    """
    if lane != "urgent":
        return min(entered_ms + FIRST_LOOK_MS, expires_at_ms)
    return min(entered_ms + int(urgent_s * 1000), (entered_ms + expires_at_ms) // 2)


def next_look_ms(push: Push, delivery: Delivery, lease_until_ms: int, urgent_s: float, now_ms: int) -> int:
    """How long *delivery* is parked (on) before it is looked at: as long as it has waited, or until something ends it.

    What a device has waited for longer is looked at together, so that it leaves in its order.

    * **lease_until_ms** - until when the foreground report of its device holds.
    """
    if push.lane == "urgent":
        wait_ms = min(int(urgent_s * 1000), (push.expires_at_ms - now_ms) // 2)
    elif push.parking == "parked":
        phase_ms = crc32(f"{delivery.user} {delivery.device}".encode(errors="surrogatepass")) % LOOK_MS_MAX
        together_ms = LOOK_MS_MAX - (now_ms - phase_ms) % LOOK_MS_MAX
        wait_ms = min(max(FIRST_LOOK_MS, now_ms - push.enqueued_at_ms), together_ms)
    else:
        wait_ms = FIRST_LOOK_MS
    lease_ms = -(-lease_until_ms // _WHOLE_MS) * _WHOLE_MS - now_ms
    return max(1, min(wait_ms, lease_ms, push.expires_at_ms - now_ms))


class Going(NamedTuple):
    """A parked delivery that is to leave."""

    push: Push
    """What it carries then."""

    delivery: Delivery
    device: Device
    again: bool
    """It may have been here before, in a process that died."""


@dataclass(slots=True)
class Released:
    """What became of deliveries that were to leave, by their ids."""

    absorbed: set[bytes] = field(default_factory=set)
    """Another push tells of the message."""

    later: dict[bytes, tuple[int, Push]] = field(default_factory=dict)
    """How long the others wait for their turn or for messages to tell of, in milliseconds, and what they carry then."""


class Parking:
    """Parked pushes of one account.

    * **app** - the account's app; whether it parks pushes is asked of it.
    * **clocks_apart_ms** - how far the state's clock may be from the ledger's.
    """

    def __init__(
        self, state: Link, prefix: str, app: AppSettings, vendor: str, credential: str, *, clocks_apart_ms: int = 0
    ) -> None:
        self.parks = app.parks
        self._state = state
        self._prefix = prefix
        self._app = app
        self._vendor = vendor
        self._credential = credential
        self._clocks_apart_ms = clocks_apart_ms
        self._lookup = Lookup(prefix)

    def question(self, push: Push, delivery: Delivery) -> tuple[str | bytes, ...]:
        """The command that asks until when the device has everything; see :func:`read_confirmed`."""
        return confirmed_command(self._prefix, push.app, delivery.user, delivery.device, push.conversation_id)

    def wait_ms(self, push: Push, delivery: Delivery, device: Device, now_ms: int) -> int:
        """How long *delivery* waits before it is looked at again."""
        return next_look_ms(push, delivery, device.lease_until_ms, self._app.park_urgent_s, now_ms)

    async def release(self, going: Sequence[Going], now_ms: int) -> Released:
        """Let *going* meet what they did not meet when they were routed; counts their badges.

        What a device gets leaves in the order in which it was written. Raises :class:`RedisUnusable`; doing it again
        changes nothing.
        """
        going = sorted(going, key=lambda one: one.push.sent_at_ms)
        counted = [one for one in going if one.delivery.counted]
        stormy = [one for one in going if is_stormy_push(self._app, one.push, one.delivery)]
        calls = self._lookup.badge_calls([_counted(one) for one in counted])
        counting = len(calls)
        answers = await self._state.run_many([*calls, *map(self._storm_call, stormy)])
        for one, number in zip(counted, read_badges(answers[:counting]), strict=True):
            if number is not None:
                one.delivery.badge = one.device.unread + number
        told = {
            one.delivery.id: answer
            for one, answer in zip(stormy, answers[counting:], strict=True)
            if not is_damaged(answer)
        }
        released = Released()
        before: Counter[tuple[str, str]] = Counter()
        for push, delivery, *_ in going:
            verdict, *until_ms = told.get(delivery.id, (AT_ONCE,))
            if verdict == ABSORBED:
                released.absorbed.add(delivery.id)
            elif verdict == CARRIES:
                wait_ms = max(0, until_ms[0] + self._clocks_apart_ms - now_ms)
                released.later[delivery.id] = wait_ms, replace(push, later="storm")
            else:
                place = delivery.user, delivery.device
                released.later[delivery.id] = before[place], push
                before[place] += 1
        return released

    def _storm_call(self, one: Going) -> StormCall:
        place = storm_place(one.delivery, self._vendor, self._credential)
        return storm_call_of_push(self._prefix, self._app, one.push, one.delivery, place, again=one.again)


def _counted(one: Going) -> Counted:
    push, delivery = one.push, one.delivery
    return Counted(push.app, delivery.user, delivery.device, push.message_id, push.sent_at_ms)
