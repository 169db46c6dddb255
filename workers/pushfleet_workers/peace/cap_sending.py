"""Caps at the worker: a push to a device that has one is counted as it leaves, and not where the vendor refuses it.

What may not leave goes by the device's next channel, where it has one of another account; else it waits and tells of
others then, is told of by another push, or ends.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from msgspec.structs import replace

from pushfleet_workers.clock import FleetClock
from pushfleet_workers.elsewhere import AFTER_TROUBLE_MS, Elsewhere
from pushfleet_workers.errors import where_raised
from pushfleet_workers.hand import Hand, Held
from pushfleet_workers.outcome import Outcome, Scope, Verdict
from pushfleet_workers.peace.device_day import Answer, Asked, Counted, DeviceDays
from pushfleet_workers.peace.device_day import Verdict as Said
from pushfleet_workers.push import Delivery, Push
from pushfleet_workers.retry import End, Later

__all__ = ["CapSending"]

log = logging.getLogger(__name__)

_FULL = End("suppressed", "device_cap")
_GATHERED = End("suppressed", "gathered")

Load = list[tuple[Held, list[Delivery]]]
"""What one request carries."""


class _Letter(NamedTuple):
    """A delivery that has a cap."""

    held: Held
    delivery: Delivery
    asked: Asked


class CapSending:
    """The caps of one account, in one process.

    * **name** - its name, for logs.
    * **withdraws** - whether a push is none, since the vendor takes back what it showed by means of its own.
    * **void** - whether an entry has waited for longer than its permits live.
    """

    def __init__(
        self,
        days: DeviceDays,
        hand: Hand,
        elsewhere: Elsewhere,
        clock: FleetClock,
        name: str,
        *,
        withdraws: Callable[[Push, list[Delivery]], bool],
        void: Callable[[Held], bool],
    ) -> None:
        self._days = days
        self._hand = hand
        self._elsewhere = elsewhere
        self._clock = clock
        self._name = name
        self._withdraws = withdraws
        self._void = void

    def __bool__(self) -> bool:
        """Whether the account has any."""
        return bool(self._days)

    async def admit(self, load: Load) -> tuple[Load, dict[bytes, Counted]]:
        """What of *load* leaves now, and what was counted of that, by delivery id; the rest has been dealt with."""
        counted: dict[bytes, Counted] = {}
        letters = [
            letter
            for held, deliveries in load
            for letter in self._capped(held, deliveries)
            if not self._asked_before(letter, counted)
        ]
        if not letters:
            return load, counted
        letters, answers = await self._told_before(letters)
        stays = not self._elsewhere.other_accounts
        answers |= await self._ask(letters, counted, joins=stays)
        stuck = [one for one in letters if answers[one.delivery.id] in (Said.FULL, Said.WAITS)]
        if stuck and not stays:
            left = await self._moved_on(stuck)
            waiting = [one for one in left if answers[one.delivery.id] is Said.WAITS]
            answers |= await self._ask(waiting, counted, joins=True)
            stuck = [one for one in left if answers[one.delivery.id] is Said.FULL]
        await self._end(stuck, _FULL)
        leaving = [
            (held, [one for one in deliveries if answers.get(one.id, Said.LEAVES) is Said.LEAVES])
            for held, deliveries in load
        ]
        leaving = [(held, deliveries) for held, deliveries in leaving if deliveries]
        if any(self._void(held) for held, _ in leaving):
            # Asking took longer than the permits live.
            await self._put_off(leaving, counted)
            return [], {}
        return leaving, counted

    def _asked_before(self, letter: _Letter, counted: dict[bytes, Counted]) -> bool:
        """Whether it was asked about today and could not leave in time: it is as *counted* as it was then."""
        entry = letter.held.entry
        put_off = entry.parcel.put_off
        if put_off is None or not put_off.counted_day or put_off.lost != entry.lost:
            return False
        today = letter.asked.cap.day_at(self._clock.now_ms())
        if put_off.counted_day == today:
            counted[letter.delivery.id] = Counted(letter.asked, today)
        return abs(put_off.counted_day) == today

    async def _put_off(self, load: Load, counted: Mapping[bytes, Counted]) -> None:
        """Let *load* be claimed again, and leave then without being asked about: else it might never leave."""
        now_ms = self._clock.now_ms()
        expired: dict[bytes, Counted] = {}
        for held, deliveries in load:
            push = held.entry.parcel.push
            cap = self._days.cap_of(push)
            if push.expires_at_ms <= now_ms:
                expired |= {one.id: counted[one.id] for one in deliveries if one.id in counted}
                self._hand.put_off(held, deliveries, counted_day=0)
                continue
            uncounted = -cap.day_at(now_ms) if cap is not None else 0
            by_day: dict[int, list[Delivery]] = {}
            for one in deliveries:
                day = counted[one.id].day if one.id in counted else uncounted
                by_day.setdefault(day, []).append(one)
            for day, some in by_day.items():
                self._hand.put_off(held, some, counted_day=day)
        await self.never_left(expired)

    def _capped(self, held: Held, deliveries: list[Delivery]) -> list[_Letter]:
        push = held.entry.parcel.push
        cap = self._days.cap_of(push)
        if cap is None or (push.recall and self._withdraws(push, deliveries)):
            return []
        # Of a device that was addressed directly nobody knows the user.
        return [_Letter(held, one, self._days.asked(push, one, cap)) for one in deliveries if one.user]

    async def _ask(
        self, letters: Sequence[_Letter], counted: dict[bytes, Counted], *, joins: bool
    ) -> dict[bytes, Said]:
        """The verdicts by delivery id; what waits or is told of has been put away, what leaves is *counted*."""
        if not letters:
            return {}
        try:
            # What may have left before may have been counted by the vendor as well.
            asked = [(one.asked, bool(one.delivery.unknown or one.held.entry.lost)) for one in letters]
            answers = await self._days.ask(asked, joins=joins)
        except Exception as problem:  # noqa: BLE001 - without the state all of them leave: a push too many beats a push lost
            self._log_trouble("nobody counts what devices get", problem)
            return {one.delivery.id: Said.LEAVES for one in letters}
        gathered: list[_Letter] = []
        carriers: list[tuple[_Letter, Answer]] = []
        for letter, answer in zip(letters, answers, strict=True):
            if answer is None:
                continue
            if answer.verdict is Said.LEAVES:
                counted[letter.delivery.id] = Counted(letter.asked, answer.day)
            elif answer.verdict is Said.GATHERED:
                gathered.append(letter)
            elif answer.verdict is Said.CARRIES:
                carriers.append((letter, answer))
        await self._end(gathered, _GATHERED)
        await self._let_wait(carriers)
        return {
            letter.delivery.id: answer.verdict if answer is not None else Said.LEAVES
            for letter, answer in zip(letters, answers, strict=True)
        }

    async def _told_before(self, letters: list[_Letter]) -> tuple[list[_Letter], dict[bytes, Said]]:
        """*letters* without those that a process was told to let wait for others, and died; with the verdicts on these.

        It had not written down yet that they wait, while others were told to count on them.
        """
        doubtful = [one for one in letters if one.held.entry.lost and one.held.entry.parcel.push.later != "cap"]
        if not doubtful:
            return letters, {}
        try:
            answers = await self._days.foretell([one.asked for one in doubtful])
        except Exception as problem:  # noqa: BLE001 - a push that tells of itself alone beats a push lost
            self._log_trouble("nobody knows what pushes tell of", problem)
            return letters, {}
        carriers = {
            letter.delivery.id: answer
            for letter, answer in zip(doubtful, answers, strict=True)
            if answer is not None and answer.verdict is Said.CARRIES
        }
        await self._let_wait([(one, answer) for one in doubtful if (answer := carriers.get(one.delivery.id))])
        return [one for one in letters if one.delivery.id not in carriers], dict.fromkeys(carriers, Said.CARRIES)

    async def _let_wait(self, carriers: Iterable[tuple[_Letter, Answer]]) -> None:
        """Let *carriers* wait, and tell of others then."""
        waiting: dict[int, list[_Letter]] = {}
        for letter, answer in carriers:
            waiting.setdefault(self._days.wait_ms(answer), []).append(letter)
        for wait_ms, some in waiting.items():
            for held, deliveries in _by_held(some):
                await self._elsewhere.never_shown(held, deliveries)
                later = replace(held.entry.parcel.push, later="cap")
                self._hand.postpone(held, deliveries, Later(wait_ms, counts=False), push=later)

    async def _end(self, letters: Sequence[_Letter], end: End) -> None:
        for held, deliveries in _by_held(letters):
            await self._elsewhere.never_shown(held, deliveries)
            self._hand.finish(held, deliveries, end)

    async def _moved_on(self, stuck: Sequence[_Letter]) -> list[_Letter]:
        """Those of *stuck* that no other account's channel takes."""
        staying: set[bytes] = set()
        for held, deliveries in _by_held(stuck):
            left = await self._elsewhere.moved_on(held, deliveries, "device_cap")
            if left is None:
                # Ending what another channel may take would be wrong: it is asked about again.
                self._hand.postpone(held, deliveries, Later(AFTER_TROUBLE_MS, counts=False))
            else:
                staying.update(one.id for one in left)
        return [one for one in stuck if one.delivery.id in staying]

    # ---- what came of it

    async def heed(self, counted: Mapping[bytes, Counted], load: Load, answers: Sequence[Sequence[Outcome]]) -> None:
        """What the *answers* to *load* say of what was *counted*: what the vendor refused does not count."""
        back: list[tuple[Counted, bool]] = []
        for (_, deliveries), outcomes in zip(load, answers, strict=True):
            for delivery, outcome in zip(deliveries, outcomes, strict=True):
                one = counted.get(delivery.id)
                if one is not None and outcome.verdict is not Verdict.OK and not outcome.unknown:
                    back.append((one, _is_full(outcome)))
        await self._give_back(back)

    async def never_left(self, counted: Mapping[bytes, Counted]) -> None:
        """The vendor got none of what was *counted*."""
        await self._give_back([(one, False) for one in counted.values()])

    async def _give_back(self, back: list[tuple[Counted, bool]]) -> None:
        if not back:
            return
        try:
            await self._days.give_back(back)
        except Exception as problem:  # noqa: BLE001 - the answer itself must not get lost by it
            self._log_trouble("what was refused counts all the same", problem)

    def without_full(
        self,
        held: Held,
        left: tuple[list[Delivery], list[Outcome]],
        counted: Mapping[bytes, Counted],
        count: Callable[[Outcome], None],
    ) -> tuple[list[Delivery], list[Outcome]]:
        """Deliveries and outcomes without those whose device is full, as the vendor says; *count* hears of these."""
        pairs = list(zip(*left, strict=True))
        full = [(one, outcome) for one, outcome in pairs if one.id in counted and _is_full(outcome)]
        if not full:
            return left
        for _, outcome in full:
            count(outcome)
        self._hand.finish(held, [one for one, _ in full], _FULL)
        pairs = [pair for pair in pairs if pair not in full]
        return [one for one, _ in pairs], [outcome for _, outcome in pairs]

    def _log_trouble(self, what: str, problem: BaseException) -> None:
        log.warning("%s with %s: %s", what, self._name, where_raised(problem))


def _is_full(outcome: Outcome) -> bool:
    """Whether the vendor says that the device has had what it gets today."""
    return outcome.verdict is Verdict.QUOTA_EXHAUSTED and outcome.scope is Scope.DEVICE


def _by_held(letters: Iterable[_Letter]) -> list[tuple[Held, list[Delivery]]]:
    found: dict[int, tuple[Held, list[Delivery]]] = {}
    for one in letters:
        found.setdefault(id(one.held), (one.held, []))[1].append(one.delivery)
    return list(found.values())
