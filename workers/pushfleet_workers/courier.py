"""One account's deliveries in one process: claimed from the ledger, sent, read, settled.

Everything here runs on one event loop. The pure parts live elsewhere: `vendors` build and read, `retry` decides.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from pushfleet.message import LANES, Lane
from pushfleet_workers.clock import FleetClock
from pushfleet_workers.credentials import Authorization, AuthRefused
from pushfleet_workers.errors import NoAnswer, RedisUnusable, where_raised
from pushfleet_workers.exchange import Exchange
from pushfleet_workers.gate import NO_ANSWER, UNREACHABLE, AccountGate
from pushfleet_workers.hand import Hand, Held
from pushfleet_workers.hooks import metrics
from pushfleet_workers.hooks.tally import AnswerTally, SecondsTally
from pushfleet_workers.ledger import Claim, Entry, Ledger
from pushfleet_workers.ledger.ledger import Want
from pushfleet_workers.outcome import Outcome, Scope, Verdict
from pushfleet_workers.push import Delivery, Push
from pushfleet_workers.redis_link import ReplyError
from pushfleet_workers.retry import SENT, End, Later, RetryPolicy, next_step
from pushfleet_workers.transports.base import Transport
from pushfleet_workers.vendor import Vendor

__all__ = ["Courier", "Feedback", "Move", "Recheck"]

log = logging.getLogger(__name__)

Feedback = Callable[[str, Sequence[Delivery], Sequence[Outcome]], Awaitable[None]]
"""Tells the token state what one answer says of devices: app, all deliveries that it answers, their outcomes."""

Recheck = Callable[[Sequence[Entry]], Awaitable[dict[bytes, str]]]
"""Decides again on entries that waited: delivery id to the reason it must not be sent. May renew its tokens."""

Move = Callable[[Push, Lane, Sequence[Delivery]], Awaitable[set[bytes]]]
"""Puts deliveries into the ledgers of their devices' next channels; the ids of those that went."""

CLAIM_PARCELS = 100
_LOW_WATER = 50
_BULK_WINDOW_SHARE = 0.7
_LAST_SETTLE_S = 3.0
_ELSEWHERE_EVERY_S = 0.2
_ELSEWHERE_MS = 2_000
"""An account that is shut for at least this long sends its work another way, where there is one."""


_Chunk = tuple[Held, list[Delivery]]


class Courier:
    """The deliveries of one account in one process.

    * **recheck** - asked about entries older than *recheck_s*, retried ones included.
    * **move** - the way to a device's next channel.
    * **elsewhere** - whether the app has another account, to which the work of a shut one may go.
    * **on_change** - called when there is room for another claim, or nothing is left in hand.
    """

    def __init__(
        self,
        *,
        vendor: Vendor,
        credential: str,
        account: Any,
        ledger: Ledger,
        transport: Transport,
        authorization: Authorization,
        clock: FleetClock,
        policy: RetryPolicy,
        feedback: Feedback,
        recheck: Recheck,
        on_change: Callable[[], None],
        move: Move,
        elsewhere: bool = False,
        settle_s: float = 0.01,
        recheck_s: float = 2.0,
        rng: random.Random | None = None,
    ) -> None:
        self.ledger = ledger
        self.name = f"{vendor.name}:{credential}"
        self._vendor = vendor
        self._transport = transport
        self._authorization = authorization
        self._clock = clock
        self._policy = policy
        self._feedback = feedback
        self._recheck = recheck
        self._recheck_ms = recheck_s * 1000
        self._on_change = on_change
        self._move = move
        self._elsewhere = elsewhere
        self._mixes = vendor.mixes(account)
        self._rng = rng or random.Random()  # noqa: S311
        self._window: int = account.in_flight_max
        self._bulk_window = max(1, int(self._window * _BULK_WINDOW_SHARE))
        self._queues: dict[Lane, deque[_Chunk]] = {lane: deque() for lane in LANES}
        self._waiting = 0
        self._in_flight: dict[Lane, int] = dict.fromkeys(LANES, 0)
        self._senders: set[asyncio.Task[None]] = set()
        self._suspects_turn = True
        self._clearing = False
        """A suspect waits: nothing more is claimed until nothing is in hand, since it travels alone."""

        self._elsewhere_at = 0.0
        self._refused_auth_at = -1e9
        self._claim_answer_lost = False
        self._claiming = asyncio.Lock()
        self._stopping = False
        self._gate = AccountGate(self.name, vendor.codes, ledger, clock)
        self._hand = Hand(
            ledger,
            clock,
            self.name,
            settle_s=settle_s,
            first=self._tell_gate,
            has_news=lambda: self._gate.has_news,
            on_written=self._written,
        )
        labels = (vendor.name, credential)
        self._request_seconds = SecondsTally(metrics.VENDOR_REQUEST_SECONDS.labels(*labels))
        self._exchange = Exchange(vendor, account, transport, clock, self._request_seconds.observe)
        self._answers = AnswerTally(metrics.ANSWERS, *labels)
        self._unknown = metrics.UNKNOWN_OUTCOMES.labels(*labels)
        metrics.IN_FLIGHT.labels(*labels).set_function(lambda: float(len(self._senders)))

    # ---- what the drain asks and tells

    @property
    def busy(self) -> bool:
        """Whether anything is in hand or not yet settled."""
        return self._hand.busy

    @property
    def has_room(self) -> bool:
        """Whether a claim would be served."""
        if self._stopping or self._hand.suspect or self._clearing:
            return False
        return self._waiting - len(self._queues["bulk"]) < _LOW_WATER

    async def claim(self) -> Claim:
        """Claim what fits and start sending it.

        Raises :class:`RedisUnusable` when Redis does not answer; nothing is lost by it.
        """
        async with self._claiming:
            if self._stopping:
                return Claim(self._clock.now_ms(), 0, 0)
            return await self._claim()

    async def _claim(self) -> Claim:
        if self._claim_answer_lost:
            await self._take_in(await self.ledger.recover(self._hand.known), frozenset())
            self._claim_answer_lost = False
        bulk_waiting = len(self._queues["bulk"])
        room = max(1, self._window + _LOW_WATER - self._waiting + bulk_waiting - len(self._senders))
        bulk_room = max(0, self._bulk_window + _LOW_WATER - bulk_waiting - self._in_flight["bulk"])
        size = self._vendor.batch_size
        want = Want(
            min(CLAIM_PARCELS, room), room * size, bulk_room * size, suspect=self._suspects_turn and not self.busy
        )
        try:
            claim = await self.ledger.claim(want)
        except RedisUnusable:
            self._claim_answer_lost = True
            raise
        self._clock.heard(claim.now_ms)
        self._gate.heard(claim)
        # Suspects and the rest take turns: many suspects would otherwise hold up everybody.
        self._suspects_turn = not any(entry.lost > 1 for entry in claim.entries)
        await self._take_in(claim.entries, claim.late_oks)
        if self._elsewhere and claim.shut and claim.left and claim.wait_ms >= _ELSEWHERE_MS:
            await self._send_elsewhere(claim.wait_ms)
        self._clearing = bool(claim.suspects and self.busy and not self._hand.suspect)
        return claim

    async def beat(self) -> None:
        """Keep the leases, if there are any."""
        if self._hand.holds:
            await self.ledger.beat()

    async def stop(self, budget_s: float) -> None:
        """Give back what has not left, wait for what has, settle all.

        What is still without an answer after *budget_s* goes back as an unknown outcome.
        """
        self._stopping = True
        self._give_back_waiting()
        deadline = time.monotonic() + budget_s
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(budget_s), self._claiming:
                # What a claim under way brings goes back as well.
                pass
        while self._senders and time.monotonic() < deadline:
            await asyncio.wait(self._senders, timeout=deadline - time.monotonic())
        for sender in self._senders:
            sender.cancel()
        if self._senders:
            await asyncio.wait(self._senders)
        for held in self._hand.everything():
            self._apply_no_answer(held, held.left, maybe_delivered=True)
        await self._hand.written(deadline + _LAST_SETTLE_S)

    # ---- from a claim to requests

    async def _take_in(self, entries: Sequence[Entry], late_oks: frozenset[bytes]) -> None:
        aged: list[_Chunk] = []
        for entry in entries:
            held = self._hand.take(entry)
            deliveries = entry.parcel.deliveries
            if entry.lost:
                for delivery in deliveries:
                    delivery.tries = max(1, delivery.tries)
            if late_oks:
                deliveries = self._end_late_oks(held, deliveries, late_oks)
            if entry.lost and self._policy.drop_unknown:
                self._hand.finish(held, deliveries, End("dropped", "unknown_outcome"))
                continue
            now_ms = self._clock.now_ms()
            if entry.parcel.push.expires_at_ms <= now_ms:
                self._hand.finish(held, deliveries, End("dropped", "expired"))
            elif now_ms - entry.put_ms > self._recheck_ms:
                aged.append((held, deliveries))
            else:
                self._queue(held, deliveries)
        self._go_on()
        if aged:
            for held, deliveries in await self._still_wanted(aged):
                self._queue(held, deliveries)
            self._go_on()

    def _go_on(self) -> None:
        if self._stopping:
            self._give_back_waiting()
        else:
            self._pump()

    def _end_late_oks(self, held: Held, deliveries: list[Delivery], late_oks: frozenset[bytes]) -> list[Delivery]:
        accepted = [one for one in deliveries if one.id in late_oks]
        self._hand.finish(held, accepted, End("sent"))
        return [one for one in deliveries if one.id not in late_oks] if accepted else deliveries

    async def _still_wanted(self, aged: list[_Chunk]) -> list[_Chunk]:
        """What of *aged* is still to be sent; asked about all at once."""
        try:
            refused = await self._recheck([held.entry for held, _ in aged])
        except Exception as problem:  # noqa: BLE001
            # Without the state the first decision stands: a push too many beats a push lost.
            self._log_failure("recheck", problem)
            return aged
        if not refused:
            return aged
        wanted = []
        for held, deliveries in aged:
            for reason in sorted({refused[one.id] for one in deliveries if one.id in refused}):
                refusals = [one for one in deliveries if refused.get(one.id) == reason]
                self._hand.finish(held, refusals, End("suppressed", reason))
            wanted.append((held, [one for one in deliveries if one.id not in refused]))
        return wanted

    def _queue(self, held: Held, deliveries: list[Delivery]) -> None:
        queue = self._queues[held.entry.lane]
        size = self._vendor.batch_size
        if size == 1:
            queue.extend([(held, [one]) for one in deliveries])
            self._waiting += len(deliveries)
            return
        for first in range(0, len(deliveries), size):
            queue.append((held, deliveries[first : first + size]))
            self._waiting += 1

    def _pump(self) -> None:
        loads = -(-self._waiting // self._vendor.batch_size) if self._mixes else self._waiting
        for _ in range(min(loads, self._window - len(self._senders))):
            sender = asyncio.get_running_loop().create_task(self._send_until_dry())
            self._senders.add(sender)
            sender.add_done_callback(self._sender_ended)

    def _sender_ended(self, sender: asyncio.Task[None]) -> None:
        self._senders.discard(sender)
        if not sender.cancelled() and (problem := sender.exception()) is not None:
            log.error("a sender of %s failed: %s", self.name, type(problem).__name__)
        # What came in after the sender looked for the last time counted on it still.
        if self._waiting and self._may_go:
            self._pump()
        if not self._senders:
            self._on_change()

    @property
    def _may_go(self) -> bool:
        """Whether anything waits that a free sender would take."""
        bulk_goes = self._in_flight["bulk"] < self._bulk_window
        return any(queue and (lane != "bulk" or bulk_goes) for lane, queue in self._queues.items())

    async def _send_until_dry(self) -> None:
        while load := self._next():
            lane = load[0][0].entry.lane
            self._in_flight[lane] += 1
            try:
                await self._send(load)
            except Exception as problem:  # noqa: BLE001 - whatever it was, these deliveries must not stay in hand
                self._log_failure("sending", problem)
                for held, deliveries in load:
                    left = [one for one in deliveries if one.id not in held.done]
                    if held.open and left:
                        self._apply_no_answer(held, left, maybe_delivered=True)
            finally:
                self._in_flight[lane] -= 1

    def _void(self, held: Held) -> bool:
        """Whether the permits of *held* have waited for too long."""
        rate = self.ledger.rate
        return rate is not None and time.monotonic() - held.claimed_at > rate.permit_life_s

    def _next(self) -> list[_Chunk]:
        """What the next request carries: a chunk, or several where the vendor mixes pushes; empty: nothing may go."""
        for lane, queue in self._queues.items():
            if lane == "bulk" and self._in_flight["bulk"] >= self._bulk_window:
                continue
            while queue:
                chunk = self._take(queue)
                if self._void(chunk[0]):
                    self._hand.postpone(*chunk, Later(0, counts=False))
                    continue
                load = [chunk]
                if self._mixes:
                    self._fill(load, queue)
                return load
        return []

    def _take(self, queue: deque[_Chunk]) -> _Chunk:
        chunk = queue.popleft()
        self._waiting -= 1
        if _LOW_WATER - 1 in (self._waiting, self._waiting - len(self._queues["bulk"])):
            self._on_change()
        return chunk

    def _fill(self, load: list[_Chunk], queue: deque[_Chunk]) -> None:
        """Let what waits behind *load* travel along, as far as it fits and what is said of one holds for all."""
        name = self._vendor.name

        def nature(chunk: _Chunk) -> object:
            held, deliveries = chunk
            push = held.entry.parcel.push
            alone = held.entry.lost or push.recall or any(one.remedy for one in deliveries)
            return (push.kind, getattr(push.options, name, None)) if not alone else None

        shared = nature(load[0])
        size = len(load[0][1])
        while queue and shared is not None and nature(queue[0]) == shared and not self._void(queue[0][0]):
            size += len(queue[0][1])
            if size > self._vendor.batch_size:
                return
            load.append(self._take(queue))

    # ---- from a request to results

    async def _send(self, load: list[_Chunk]) -> None:
        first = load[0][0].entry.parcel.push
        paused_ms = self._gate.paused_ms(first.kind)
        if paused_ms:
            for held, deliveries in load:
                left = deliveries
                if paused_ms >= _ELSEWHERE_MS:
                    left = await self._moved_on(held, deliveries, "class_paused")
                self._hand.postpone(held, left, Later(int(paused_ms) + 1, counts=False))
            return
        auth = self._authorization.current() or await self._obtain_auth(load)
        if not auth:
            return
        try:
            answers = await self._exchange([(held.entry.parcel.push, deliveries) for held, deliveries in load], auth)
        except NoAnswer as problem:
            for held, deliveries in load:
                self._apply_no_answer(held, deliveries, maybe_delivered=problem.maybe_delivered)
            return
        for (held, deliveries), outcomes in zip(load, answers, strict=True):
            if any(outcome.verdict is not Verdict.OK for outcome in outcomes):
                await self._heed(held.entry.parcel.push, deliveries, outcomes, auth)
                self._gate.heed(outcomes, held.entry.parcel.push)
                deliveries, outcomes = await self._without_moved(held, deliveries, outcomes)
            self._apply(held, deliveries, outcomes)

    async def _without_moved(
        self, held: Held, deliveries: list[Delivery], outcomes: list[Outcome]
    ) -> tuple[list[Delivery], list[Outcome]]:
        """Those that no other channel takes; the account's fault must last to send its deliveries elsewhere."""
        now_ms = self._clock.now_ms()
        for verdict, reason in ((Verdict.DROP_TOKEN, "token_dead"), (Verdict.QUOTA_EXHAUSTED, "quota_exhausted")):
            asked = [
                delivery
                for delivery, outcome in zip(deliveries, outcomes, strict=True)
                if outcome.verdict is verdict
                and (verdict is Verdict.DROP_TOKEN or outcome.asked_ms(now_ms) >= _ELSEWHERE_MS)
            ]
            if not asked:
                continue
            left = {one.id for one in await self._moved_on(held, asked, reason)}
            gone = {one.id for one in asked} - left
            kept = [pair for pair in zip(deliveries, outcomes, strict=True) if pair[0].id not in gone]
            for outcome in {outcome for one, outcome in zip(deliveries, outcomes, strict=True) if one.id in gone}:
                self._answers.count(outcome.verdict, outcome.code, len(gone))
            deliveries, outcomes = [one for one, _ in kept], [outcome for _, outcome in kept]
        return deliveries, outcomes

    async def _moved_on(self, held: Held, deliveries: list[Delivery], reason: str) -> list[Delivery]:
        """Let the devices' other channels have *deliveries*; those that stay here."""
        if held.entry.parcel.push.recall or held.entry.lost:
            return deliveries
        try:
            moved = await self._move(held.entry.parcel.push, held.entry.lane, deliveries)
        except (RedisUnusable, ReplyError) as problem:
            log.warning("deliveries of %s found no other channel: %s", self.name, problem)
            return deliveries
        self._hand.finish(held, [one for one in deliveries if one.id in moved], End("moved", reason))
        return [one for one in deliveries if one.id not in moved] if moved else deliveries

    async def _send_elsewhere(self, shut_ms: int) -> None:
        """Work that a shut gate holds up goes to other channels; what has none waits until the gate opens."""
        if time.monotonic() - self._elsewhere_at < _ELSEWHERE_EVERY_S:
            return
        self._elsewhere_at = time.monotonic()
        size = self._vendor.batch_size
        want = Want(CLAIM_PARCELS, CLAIM_PARCELS * size, CLAIM_PARCELS * size, suspect=False, elsewhere=True)
        claim = await self.ledger.claim(want)
        if not claim.shut:
            await self._take_in(claim.entries, claim.late_oks)
            return
        for entry in claim.entries:
            held = self._hand.take(entry)
            deliveries = self._end_late_oks(held, entry.parcel.deliveries, claim.late_oks)
            left = await self._moved_on(held, deliveries, "account_shut")
            self._hand.postpone(held, left, Later(shut_ms, counts=False))

    async def _obtain_auth(self, load: list[_Chunk]) -> str:
        """The authorization; empty when there is none, and the *load* has been dealt with."""
        outcome = UNREACHABLE
        try:
            auth = await self._authorization.obtain()
            if not self._void(load[0][0]):
                return auth
            # All that waited for it would leave at once.
            for held, deliveries in load:
                self._hand.postpone(held, deliveries, Later(0, counts=False))
            return ""
        except AuthRefused as refused:
            outcome = refused.outcome
        except (RedisUnusable, ReplyError):
            pass
        for held, deliveries in load:
            self._gate.heed([outcome], held.entry.parcel.push)
            self._apply(held, deliveries, [outcome] * len(deliveries))
        return ""

    def _log_failure(self, step: str, problem: Exception) -> None:
        log.error("%s of %s raised %s", step, self.name, where_raised(problem))

    async def _heed(self, push: Push, deliveries: list[Delivery], outcomes: list[Outcome], auth: str) -> None:
        """Act on what an answer says beyond its deliveries: dead tokens, worn-out authorization and connections."""
        if any(outcome.verdict in (Verdict.DROP_TOKEN, Verdict.MUTE_DEVICE) for outcome in outcomes):
            try:
                await self._feedback(push.app, deliveries, outcomes)
            except Exception as problem:  # noqa: BLE001 - the answer itself must not get lost by it
                self._log_failure("token feedback", problem)
        if any(outcome.reconnect for outcome in outcomes):
            await self._transport.renew()
        first = next((outcome for outcome in outcomes if outcome.verdict is Verdict.REFRESH_AUTH), None)
        if first is not None:
            if time.monotonic() - self._refused_auth_at < 60 and self._authorization.current() == auth:
                # A fresh authorization was refused as well: not its age is the fault.
                refused = Outcome(Verdict.MISCONFIGURED, Scope.ACCOUNT, first.code)
                outcomes[:] = [refused if one.verdict is Verdict.REFRESH_AUTH else one for one in outcomes]
            elif self._authorization.current() == auth:
                self._refused_auth_at = time.monotonic()
            try:
                await self._authorization.reject(auth)
            except (RedisUnusable, ReplyError):
                log.warning("the refused authorization of %s could not be withdrawn", self.name)

    def _apply_no_answer(self, held: Held, deliveries: list[Delivery], *, maybe_delivered: bool) -> None:
        self._gate.unanswered()
        if not maybe_delivered:
            self._apply(held, deliveries, [UNREACHABLE] * len(deliveries))
            return
        self._unknown.inc(len(deliveries))
        held.settlement.unknown += len(deliveries)
        for delivery in deliveries:
            delivery.unknown += 1
        if self._policy.drop_unknown:
            self._hand.finish(held, deliveries, End("dropped", "unknown_outcome"))
        else:
            self._apply(held, deliveries, [NO_ANSWER] * len(deliveries))

    def _apply(self, held: Held, deliveries: list[Delivery], outcomes: Sequence[Outcome]) -> None:
        if not deliveries:
            return
        if all(outcome.verdict is Verdict.OK for outcome in outcomes):
            self._answers.count(outcomes[0].verdict, outcomes[0].code, len(deliveries))
            self._gate.good()
            self._hand.finish(held, deliveries, SENT)
            return
        push = held.entry.parcel.push
        now_ms = self._clock.now_ms()
        groups: dict[tuple[Later | End, str], list[Delivery]] = {}
        waits: dict[tuple[Outcome, int, str], Later | End] = {}
        for delivery, outcome in zip(deliveries, outcomes, strict=True):
            self._answers.count(outcome.verdict, outcome.code, 1)
            # Deliveries that failed together are tried together: one jittered wait for the request.
            same = (outcome, delivery.attempt, delivery.remedy)
            step = waits.get(same) or next_step(outcome, delivery, push.expires_at_ms, now_ms, self._policy, self._rng)
            waits[same] = step
            if isinstance(step, Later) and step.counts:
                delivery.attempt += 1
            code = outcome.code if isinstance(step, End) and step.end == "dead" else ""
            groups.setdefault((step, code), []).append(delivery)
        for (step, code), some in groups.items():
            if isinstance(step, End):
                self._hand.finish(held, some, step, code=code)
            else:
                self._hand.postpone(held, some, step, tried=True)

    # ---- what is told while results are written

    async def _tell_gate(self) -> None:
        if await self._gate.report():
            self._give_back_waiting()

    def _written(self) -> None:
        self._gate.forget_good()
        self._answers.flush()
        self._request_seconds.flush()
        if not self.busy:
            self._clearing = False
            self._on_change()

    def _give_back_waiting(self) -> None:
        for queue in self._queues.values():
            while queue:
                held, deliveries = queue.popleft()
                self._waiting -= 1
                self._hand.give_back(held, deliveries)
