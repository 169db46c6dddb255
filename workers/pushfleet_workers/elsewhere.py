"""Where deliveries go that an account cannot deliver: to their devices' next channels, where there are any."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from pushfleet_workers.clock import FleetClock
from pushfleet_workers.errors import MoveUnheard, where_raised
from pushfleet_workers.hand import Hand, Held, unresolved
from pushfleet_workers.ledger import Claim
from pushfleet_workers.next_channel import Moving
from pushfleet_workers.outcome import Outcome, Verdict
from pushfleet_workers.push import Delivery, Push
from pushfleet_workers.retry import End, Later

__all__ = ["AFTER_TROUBLE_MS", "Elsewhere", "Mover"]

log = logging.getLogger(__name__)

SHUT_MS = 2_000
"""An account, or a class of messages, that is shut for at least this long sends its work another way."""

_LOOK_AGAIN_MS = 60_000
"""After how long at most what has no other channel is looked at again, should the account stay shut for longer."""

AFTER_TROUBLE_MS = 1_000
"""After how long it is asked again what nobody could tell."""

_PORTION_PAUSE_S = 0.05


class Mover(Protocol):
    """Knows the next channels of devices: see :class:`pushfleet_workers.next_channel.NextChannel`."""

    @property
    def other_accounts(self) -> bool:
        """Whether the app has another account."""
        ...

    async def move(self, moving: Sequence[Moving], *, same_account: bool) -> set[bytes]:
        """The ids of those deliveries that went on.

        Raises :class:`MoveUnheard` where nobody knows of some; with any other error none did.
        """
        ...

    async def went(self, moving: Sequence[Moving]) -> set[bytes]:
        """The ids of deliveries that went on before."""
        ...

    async def forget(self, elsewhere: Sequence[tuple[Push, Delivery]]) -> None:
        """Devices show nothing of these."""
        ...


class Elsewhere:
    """The way out of one account, in one process.

    * **claim** - claims what the shut gate holds up, and takes it in hand; None when there is nothing more to take.
    * **perhaps_sent** - given deliveries of which nobody knows whether they went, it deals with them.
    """

    def __init__(
        self,
        hand: Hand,
        mover: Mover,
        clock: FleetClock,
        name: str,
        claim: Callable[[], Awaitable[tuple[Claim, list[Held]] | None]],
        perhaps_sent: Callable[[Held, list[Delivery]], None],
    ) -> None:
        self._hand = hand
        self._mover = mover
        self._clock = clock
        self._name = name
        self._claim = claim
        self._perhaps_sent = perhaps_sent
        self._evacuation: asyncio.Task[None] | None = None
        self._under_way: set[bytes] = set()
        """Ids of entries whose deliveries are being moved: whoever ends us leaves their leases to run out."""

    async def moved_on(self, held: Held, deliveries: list[Delivery], reason: str) -> list[Delivery] | None:
        """Let other channels of the devices have *deliveries*; those that stay here, or None: nobody could be asked."""
        moved = await self._move([(held, deliveries)], same_account=reason == "token_dead")
        if moved is None:
            return None
        self._hand.finish(held, [one for one in deliveries if one.id in moved], End("moved", reason))
        return unresolved(held, [one for one in deliveries if one.id not in moved] if moved else deliveries)

    async def without_moved(
        self, held: Held, deliveries: list[Delivery], outcomes: list[Outcome], counted: Callable[[Outcome], None]
    ) -> tuple[list[Delivery], list[Outcome]]:
        """Deliveries and outcomes of an answer without those that other channels take; *counted* hears of these."""
        now_ms = self._clock.now_ms()
        for verdict, reason in ((Verdict.DROP_TOKEN, "token_dead"), (Verdict.QUOTA_EXHAUSTED, "quota_exhausted")):
            asked = [
                delivery
                for delivery, outcome in zip(deliveries, outcomes, strict=True)
                if outcome.verdict is verdict and (verdict is Verdict.DROP_TOKEN or outcome.asked_ms(now_ms) >= SHUT_MS)
            ]
            if not asked:
                continue
            left = await self.moved_on(held, asked, reason)
            if left is None:
                # Dropping what another channel may take would be the wrong end: it is asked about again.
                self._hand.postpone(held, asked, Later(AFTER_TROUBLE_MS, counts=False))
                left = []
            gone = {one.id for one in asked} - {one.id for one in left}
            pairs = list(zip(deliveries, outcomes, strict=True))
            for delivery, outcome in pairs:
                if delivery.id in gone:
                    counted(outcome)
            deliveries = [one for one, _ in pairs if one.id not in gone]
            outcomes = [outcome for one, outcome in pairs if one.id not in gone]
        return deliveries, outcomes

    async def without_gone(self, lost: Sequence[tuple[Held, list[Delivery]]]) -> list[tuple[Held, list[Delivery]]]:
        """The *lost* entries' deliveries without those that went before their process died, which end as moved."""
        try:
            went = await self._mover.went(
                [(held.entry.parcel.push, held.entry.lane, deliveries) for held, deliveries in lost]
            )
        except Exception as problem:  # noqa: BLE001 - without an answer it is sent: a push too many beats a push lost
            self._log_trouble(problem)
            return list(lost)
        for held, deliveries in lost:
            self._hand.finish(held, [one for one in deliveries if one.id in went], End("moved", "process_died"))
        return [(held, [one for one in deliveries if one.id not in went]) for held, deliveries in lost]

    @property
    def other_accounts(self) -> bool:
        """Whether devices may have channels of other accounts."""
        return self._mover.other_accounts

    async def never_shown(self, held: Held, deliveries: Sequence[Delivery]) -> None:
        """A recall has nothing to replace of *deliveries*, which end here and never left."""
        push = held.entry.parcel.push
        if push.replace_key and not push.recall:
            try:
                await self._mover.forget([(push, one) for one in deliveries if not (one.unknown or held.entry.lost)])
            except Exception as problem:  # noqa: BLE001 - a recall too many is the lesser evil
                log.warning("what never left of %s may be recalled: %s", self._name, where_raised(problem))

    # ---- the work of a shut account

    def evacuate(self, claim: Claim) -> None:
        """Send what the gate holds up another way, beside everything else, where the app has another account."""
        shut_for_long = claim.shut and claim.left and claim.wait_ms >= SHUT_MS
        if shut_for_long and self._evacuation is None and self._mover.other_accounts:
            self._evacuation = asyncio.get_running_loop().create_task(self._evacuate())
            self._evacuation.add_done_callback(self._evacuated)

    def _evacuated(self, task: asyncio.Task[None]) -> None:
        self._evacuation = None
        if not task.cancelled() and (problem := task.exception()) is not None:
            self._log_trouble(problem)

    async def _evacuate(self) -> None:
        """Portion by portion, until nothing is left or the gate opens."""
        while (claimed := await self._claim()) is not None:
            claim, portion = claimed
            wait_ms = min(claim.wait_ms, _LOOK_AGAIN_MS)
            live = self._without_expired(portion, wait_ms)
            self._under_way = {held.entry.id for held in live}
            moved = await self._move([(held, held.left) for held in live], same_account=False)
            for held in live:
                left = held.left
                if moved:
                    self._hand.finish(held, [one for one in left if one.id in moved], End("moved", "account_shut"))
                    left = [one for one in left if one.id not in moved]
                self._hand.postpone(held, left, Later(wait_ms if moved is not None else AFTER_TROUBLE_MS, counts=False))
            self._under_way = set()
            await asyncio.sleep(_PORTION_PAUSE_S)

    def _without_expired(self, portion: Sequence[Held], wait_ms: int) -> list[Held]:
        """What of *portion* may go another way; the rest has expired, or waits here."""
        live, now_ms = [], self._clock.now_ms()
        for held in portion:
            push = held.entry.parcel.push
            if not held.open:
                continue
            if push.expires_at_ms > now_ms:
                live.append(held)
            elif push.tells_of_others:
                # Nobody knows elsewhere what it has left to tell of.
                self._hand.postpone(held, held.left, Later(wait_ms, counts=False))
            else:
                self._hand.finish(held, held.left, End("dropped", "expired"))
        return live

    async def stop(self, deadline: float) -> set[bytes]:
        """End the evacuation, at the latest at *deadline* (monotonic).

        Gives the ids of entries of which nobody knows whether they went: their leases must run out.
        """
        if self._evacuation is not None:
            left_s = max(0.0, deadline - time.monotonic())
            await asyncio.wait([self._evacuation], timeout=left_s)
        if self._evacuation is not None:
            self._evacuation.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._evacuation
        return self._under_way

    async def _move(self, asked: Sequence[tuple[Held, list[Delivery]]], *, same_account: bool) -> set[bytes] | None:
        """The ids of deliveries that went; None when nobody could be asked.

        What takes something back goes nowhere else. What nobody knows of has been dealt with.
        """
        moving = [
            (held.entry.parcel.push, held.entry.lane, deliveries)
            for held, deliveries in asked
            # What was in the hand of a process that died may have been delivered.
            if deliveries and not held.entry.lost and not held.entry.parcel.push.recall
        ]
        if not moving:
            return set()
        try:
            return await self._mover.move(moving, same_account=same_account)
        except MoveUnheard as problem:
            log.warning("%s, from %s", problem, self._name)
            for held, deliveries in asked:
                self._perhaps_sent(held, [one for one in deliveries if one.id in problem.deliveries])
            return set()
        except Exception as problem:  # noqa: BLE001 - whatever it was, these deliveries must not stay in hand
            self._log_trouble(problem)
            return None

    def _log_trouble(self, problem: BaseException) -> None:
        log.warning("deliveries of %s found no way to another channel: %s", self._name, where_raised(problem))
