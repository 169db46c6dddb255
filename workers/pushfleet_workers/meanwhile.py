"""What became of messages that waited while they did: what to ask of the token state, and what its replies mean."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pushfleet_workers.clock import FleetClock
from pushfleet_workers.peace.calls import never_rang, never_rang_command
from pushfleet_workers.peace.device_day import DeviceDays
from pushfleet_workers.peace.gathers import Gathered, Gathers
from pushfleet_workers.peace.parking import Parking
from pushfleet_workers.peace.storms import Telling, newer_than, read_storm, storm_command, storm_place, told_by
from pushfleet_workers.push import Delivery, Push
from pushfleet_workers.redis_link import Link
from pushfleet_workers.redis_replies import is_damaged
from pushfleet_workers.tokens.confirmations import read_confirmed
from pushfleet_workers.tokens.lookup import Lookup
from pushfleet_workers.tokens.reads import Done, done_command, read_done

__all__ = ["Learned", "Meanwhile"]


@dataclass(slots=True)
class Learned:
    """What was found out for a delivery, besides the state of its user."""

    done: Done
    count: int | None = None
    """Pushes counted since its device's base; None: its badge is not counted, or nobody knows."""

    never_rang: bool = False
    """It ends a call that was stopped before its device rang."""

    storm: bool = False
    """Whether it may tell of other messages."""

    telling: Telling | None = None
    """What it tells of then; None: another push does."""

    newer: Telling | None = None
    """What a newer push tells of, which is due as well."""

    confirmed_ms: int = 0
    """Until when its device has everything; 0: nobody knows. See :meth:`confirmed_of`."""

    gathered: Gathered | None = None
    """What it tells of because its device gets only so many pushes a day."""

    def confirmed_of(self, push: Push, *, alone: bool = False) -> int:
        """Until when confirmations count for what *push* tells of; *alone*: for its own message and no other.

        Once it was released it may tell of messages that were never parked, which a device in the background has got
        and not shown.
        """
        counts = alone or push.parking == "parked"
        return max(self.confirmed_ms, push.confirmed_ms) if counts else push.confirmed_ms

    @property
    def messages(self) -> Iterator[str]:
        """Digests of the messages that it tells of."""
        for telling in (self.telling, self.newer):
            yield from telling.messages if telling is not None else ()
        yield from self.gathered.messages if self.gathered is not None else ()


class Meanwhile:
    """Asks about deliveries of one account, besides the state of their users.

    * **reads** - whether the app counts how far users have read.
    * **parking** - what becomes of pushes to devices in the foreground.
    * **days** - what devices got of the account's caps.
    """

    def __init__(
        self,
        state: Link,
        prefix: str,
        clock: FleetClock,
        vendor: str,
        credential: str,
        parking: Parking,
        *,
        reads: bool,
        days: DeviceDays | None,
    ) -> None:
        self._prefix = prefix
        self._lookup = Lookup(prefix)
        self._clock = clock
        self._vendor = vendor
        self._credential = credential
        self._parking = parking
        self._reads = reads
        self._gathers = Gathers(state, prefix, days, reads=reads) if days else None

    def commands(self, push: Push, delivery: Delivery) -> dict[str, tuple[str | bytes, ...]]:
        """What to ask for a delivery, by what it is for; :meth:`read` takes the replies, by the same names."""
        commands: dict[str, tuple[str | bytes, ...]] = {}
        place = (push.app, delivery.user)
        if delivery.counted:
            commands["badge"] = self._lookup.counted(*place, delivery.device)
        if (self._reads or push.kind == "call") and not push.recall:
            done = done_command(self._prefix, *place, push.kind, push.conversation_id, push.replace_key)
            if done is not None:
                commands["done"] = done
        if push.parking:
            commands["confirmed"] = self._parking.question(push, delivery)
        if push.later == "storm" and not delivery.tried:
            # What was handed on from another account has been told there, and of that place alone something is known.
            there = storm_place(delivery, self._vendor, self._credential)
            commands["storm"] = storm_command(self._prefix, *place, push.conversation_id, there)
        silent = never_rang_command(self._prefix, push, delivery)
        if silent is not None:
            commands["never_rang"] = silent
        day = self._gathers.command(push, delivery) if self._gathers is not None else None
        if day is not None:
            commands["day"] = day
        return commands

    async def read(self, asked: Sequence[tuple[Push, Delivery]], answers: Sequence[Mapping[str, Any]]) -> list[Learned]:
        """What the *answers* to :meth:`commands` say; a round trip more for what was gathered of several conversations.

        Raises :class:`RedisUnusable`.
        """
        learned = [self._learned(push, some) for (push, _), some in zip(asked, answers, strict=True)]
        await self._learn_what_was_gathered(asked, answers, learned)
        return learned

    def _learned(self, push: Push, answers: Mapping[str, Any]) -> Learned:
        learned = Learned(read_done(answers.get("done")), storm="storm" in answers)
        learned.never_rang = never_rang(push, answers.get("never_rang"))
        if "badge" in answers and not is_damaged(answers["badge"]):
            learned.count = self._lookup.read_counted(answers["badge"])
        if "confirmed" in answers:
            learned.confirmed_ms = read_confirmed(answers["confirmed"])
        if learned.storm:
            storm = read_storm(answers["storm"])
            learned.telling, learned.newer = told_by(storm, push), newer_than(storm, push, self._clock.now_ms())
        return learned

    async def _learn_what_was_gathered(
        self,
        asked: Sequence[tuple[Push, Delivery]],
        answers: Sequence[Mapping[str, Any]],
        learned: Sequence[Learned],
    ) -> None:
        waited = [(*one, some["day"]) for one, some in zip(asked, answers, strict=True) if "day" in some]
        if self._gathers is not None and waited:
            gathered = await self._gathers.read(waited, self._clock.now_ms())
            for (_, delivery), one in zip(asked, learned, strict=True):
                one.gathered = gathered.get(delivery.id)
