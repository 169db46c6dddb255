"""One account's deliveries in one process: claimed from the ledger, sent, read, settled.

Everything here runs on one event loop. The pure parts live elsewhere: `vendors` build and read, `retry` decides.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from pushfleet_workers.clock import FleetClock
from pushfleet_workers.credentials import Authorization, AuthRefused
from pushfleet_workers.elsewhere import SHUT_MS, Elsewhere, Mover
from pushfleet_workers.errors import NoAnswer, NotInTime, RedisUnusable, where_raised
from pushfleet_workers.exchange import Exchange
from pushfleet_workers.gate import NO_ANSWER, UNREACHABLE, AccountGate
from pushfleet_workers.hand import Hand, Held, unresolved
from pushfleet_workers.hooks import metrics
from pushfleet_workers.hooks.tally import AnswerTally, SecondsTally
from pushfleet_workers.ledger import Claim, Entry, Ledger
from pushfleet_workers.ledger.ledger import Want
from pushfleet_workers.outcome import Outcome, Scope, Verdict
from pushfleet_workers.overtaking import Overtaking
from pushfleet_workers.peace.cap_sending import CapSending
from pushfleet_workers.peace.device_day import Counted, DeviceDays
from pushfleet_workers.push import Delivery, Push
from pushfleet_workers.redis_link import ReplyError
from pushfleet_workers.retry import SENT, End, Later, RetryPolicy, next_step
from pushfleet_workers.still_wanted import Recheck, StillWanted
from pushfleet_workers.transports.base import Transport
from pushfleet_workers.triage import Chunk, Triage
from pushfleet_workers.unshown import Forget, Unshown
from pushfleet_workers.vendor import Vendor
from pushfleet_workers.waiting import CLAIM_PARCELS, Waiting

__all__ = ["Courier", "Feedback"]

log = logging.getLogger(__name__)

Feedback = Callable[[str, Sequence[Delivery], Sequence[Outcome]], Awaitable[None]]
"""Tells the token state what one answer says of devices: app, all deliveries that it answers, their outcomes."""

_DECISION_STANDS_S = 1.0
"""What has not left so long after it was decided on goes back: its token may be dead by now, its message read."""

_LONG_S = 1.0
"""After so long in hand a push is as good as one that is tried again: something newer may leave meanwhile."""

_LAST_SETTLE_S = 3.0
_LAST_WORD_S = 1.0
_AUTH_DOUBT_S = 60.0


class Courier:
    """The deliveries of one account in one process.

    * **recheck** - asked about entries older than *recheck_s*, about what was tried before, and about recalls.
    * **mover** - knows the next channels of devices.
    * **days** - what devices got of the account's caps.
    * **on_change** - called when there is room for another claim, or nothing is left in hand.
    * **forget** - told what was dropped before it reached its devices.
    * **on_misconfigured** - told the vendor's code when it does not take the account.
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
        mover: Mover,
        days: DeviceDays,
        forget: Forget,
        on_misconfigured: Callable[[str], None] = lambda code: None,
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
        self._on_change = on_change
        self._mixes = vendor.mixes(account)
        self._rng = rng or random.Random()  # noqa: S311
        self._window: int = account.in_flight_max
        self._waiting = Waiting(vendor, self._window, void=self._void, put_off=self._put_off, on_low=on_change)
        self._senders: set[asyncio.Task[None]] = set()
        self._starting = 0
        """Senders that have not looked for work yet: some that still counts as waiting is meant for each."""

        self._suspects_turn = True
        self._clearing = False
        """A suspect waits: nothing more is claimed until nothing is in hand, since it travels alone."""

        self._refused_auth_at = -1e9
        self._paused_at = -math.inf
        """When an operator's pause was heard of last: what was claimed before it and has not left goes back."""

        self._claiming = asyncio.Lock()
        self._stopping = False
        self._gate = AccountGate(self.name, vendor.codes, ledger, clock, on_misconfigured)
        self._overtaking = Overtaking(ledger.link, ledger.keys, vendor)
        self._unshown = Unshown(forget, self.name)
        self._hand = Hand(
            ledger,
            clock,
            self.name,
            overtaking=self._overtaking,
            unshown=self._unshown,
            settle_s=settle_s,
            first=self._tell_gate,
            has_news=lambda: self._gate.has_news(in_hand=self._hand.holds),
            on_written=self._written,
        )
        self._still_wanted = StillWanted(recheck, self._overtaking, self._hand, clock, self.name)
        self._elsewhere = Elsewhere(self._hand, mover, clock, self.name, self._claim_portion, self._perhaps_sent)
        self._triage = Triage(
            self._hand,
            self._elsewhere,
            self._still_wanted,
            clock,
            queue=self._queue,
            recheck_s=recheck_s,
            drop_unknown=policy.drop_unknown,
        )
        labels = (vendor.name, credential)
        self._request_seconds = SecondsTally(metrics.VENDOR_REQUEST_SECONDS.labels(*labels))
        self._exchange = Exchange(vendor, account, transport, clock, self._request_seconds.observe)
        self._caps = CapSending(
            days, self._hand, self._elsewhere, clock, self.name, withdraws=self._exchange.withdraws, void=self._void
        )
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
        return self._waiting.is_low

    async def claim(self) -> Claim:
        """Claim what fits and start sending it.

        Raises :class:`RedisUnusable` when Redis does not answer; nothing is lost by it.
        """
        async with self._claiming:
            if self._stopping:
                return Claim(self._clock.now_ms(), 0, 0)
            return await self._claim()

    async def _claim(self) -> Claim:
        if await self.ledger.lost_track():
            for entry in await self.ledger.regain(self._hand.leases):
                # Its permits are old, if it has any, and the gate may have shut since.
                held = self._hand.take(entry)
                self._hand.give_back(held, held.left)
        room, bulk_room = self._waiting.room(len(self._senders))
        size = self._vendor.batch_size
        want = Want(
            min(CLAIM_PARCELS, room), room * size, bulk_room * size, suspect=self._suspects_turn and not self.busy
        )
        claim = await self.ledger.claim(want)
        self._clock.heard(claim.now_ms)
        self._gate.heard(claim)
        self._overtaking.heard(retries_wait=claim.retrying)
        # Suspects and the rest take turns: many suspects would otherwise hold up everybody.
        self._suspects_turn = not any(entry.lost > 1 for entry in claim.entries)
        await self._take_in(claim.entries, claim.late_oks)
        if claim.paused:
            self._hold_back_everything()
        self._elsewhere.evacuate(claim)
        self._clearing = bool(claim.suspects and self.busy and not self._hand.suspect)
        return claim

    async def _claim_portion(self) -> tuple[Claim, list[Held]] | None:
        """What a shut gate holds up, in hand, to be sent another way; None: there is no more, or the gate opened."""
        size = CLAIM_PARCELS * self._vendor.batch_size
        async with self._claiming:
            if self._stopping or self._hand.suspect:
                return None
            claim = await self.ledger.claim(Want(CLAIM_PARCELS, size, size, suspect=False, elsewhere=True))
            if not claim.entries:
                return None
            held = [self._hand.take(entry) for entry in claim.entries]
        for one in held:
            if claim.late_oks:
                self._triage.without_accepted(one, one.left, claim.late_oks)
        return claim, held

    async def heed_operator(self) -> None:
        """Give back what has not left while an operator pauses the account; with full hands no claim hears of it."""
        if self._hand.holds and await self.ledger.operator_until_ms() > self._clock.now_ms():
            self._hold_back_everything()

    async def heed_slow_answers(self) -> None:
        """Let what is newer than work that has been in hand for long say so; meant for once a second.

        Bulk is left out: a slow vendor may have a hundred thousand of it in hand. Raises :class:`RedisUnusable`.
        """
        long_ago = time.monotonic() - _LONG_S
        in_hand = self._hand.everything()
        slow = [held for held in in_hand if held.claimed_at < long_ago and held.entry.lane != "bulk"]
        for held in slow:
            self._overtaking.unanswered(held.entry.parcel.push, held.left)
        if slow:
            await self._overtaking.write()

    async def beat(self) -> None:
        """Keep the leases, if there are any."""
        if self._hand.holds:
            await self.ledger.beat(len({identity for identity, _, _ in self._hand.leases}))

    async def stop(self, budget_s: float) -> None:
        """Give back what has not left, wait for what has, settle all.

        What is still without an answer after *budget_s* goes back as an unknown outcome; what waits for an
        authorization, or is asked about, as it was.
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
        gone_perhaps = await self._elsewhere.stop(deadline)
        for held in self._hand.everything():
            if held.entry.id in gone_perhaps:
                continue
            if held.under_way and held.entry.parcel.push.parking != "parked":
                self._apply_no_answer(held, held.left, maybe_delivered=True)
            else:
                self._hand.give_back(held, held.left)
        await self._hand.written(deadline + _LAST_SETTLE_S)
        await self._unshown.told(_LAST_WORD_S)

    # ---- from a claim to requests

    async def _take_in(self, entries: Sequence[Entry], late_oks: frozenset[bytes]) -> None:
        doubts = self._triage.take(entries, late_oks)
        self._go_on()
        if doubts:
            await self._triage.queue_what_is_wanted(doubts)
            self._go_on()

    def _go_on(self) -> None:
        if self._stopping:
            self._give_back_waiting()
        else:
            self._pump()

    def _queue(self, held: Held, deliveries: list[Delivery]) -> None:
        held.queued_at = time.monotonic()
        held.leave_by = self._leave_by(held)
        self._waiting.add(held, deliveries)

    def _pump(self) -> None:
        wanted = min(len(self._waiting) - self._starting, self._window - len(self._senders))
        if wanted <= 0:
            return
        # Of a vendor that mixes nobody knows how many requests will carry what waits: each sender calls the next one.
        wanted = 1 if self._mixes else wanted
        loop = asyncio.get_running_loop()
        self._starting += wanted
        for _ in range(wanted):
            sender = loop.create_task(self._send_until_dry())
            self._senders.add(sender)
            sender.add_done_callback(self._sender_ended)

    def _sender_ended(self, sender: asyncio.Task[None]) -> None:
        self._senders.discard(sender)
        if not sender.cancelled() and (problem := sender.exception()) is not None:
            log.error("a sender of %s failed: %s", self.name, type(problem).__name__)
        # What came in after the sender looked for the last time counted on it still.
        if self._waiting.may_go:
            self._pump()
        if not self._senders:
            self._on_change()

    async def _send_until_dry(self) -> None:
        self._starting -= 1
        while load := self._waiting.next(mixes=self._mixes):
            lane = load[0][0].entry.lane
            self._waiting.began(lane)
            if self._mixes and self._waiting.may_go:
                self._pump()
            try:
                await self._send(load)
            except Exception as problem:  # noqa: BLE001 - whatever it was, these deliveries must not stay in hand
                self._log_failure("sending", problem)
                self._gate.unanswered()
                for held, deliveries in load:
                    self._apply_no_answer(held, deliveries, maybe_delivered=True)
            finally:
                self._waiting.ended(lane)

    def _leave_by(self, held: Held) -> float:
        """Until when *held* makes sense, and what was decided and granted stands; monotonic seconds."""
        if held.claimed_at <= self._paused_at:
            return -math.inf
        left_ms = held.entry.parcel.push.expires_at_ms - self._clock.now_ms()
        leave_by = held.queued_at + min(_DECISION_STANDS_S, left_ms / 1000)
        rate = self.ledger.rate
        return leave_by if rate is None else min(leave_by, held.claimed_at + rate.permit_life_s)

    def _void(self, held: Held) -> bool:
        """Whether it must not leave any more: it is claimed again, and ends there where it has expired."""
        return time.monotonic() > held.leave_by

    def _put_off(self, load: list[Chunk], *, counted_day: int | None = None) -> None:
        """Nothing of *load* has left: it is claimed again, with new permits."""
        parcels: dict[Held, list[Delivery]] = {}
        for held, deliveries in load:
            parcels.setdefault(held, []).extend(deliveries)
        for held, deliveries in parcels.items():
            self._hand.put_off(held, deliveries, counted_day=counted_day)

    # ---- from a request to results

    async def _send(self, load: list[Chunk]) -> None:
        first = load[0][0].entry.parcel.push
        paused_ms = self._gate.paused_ms(first.kind)
        if paused_ms:
            await self._hold_back(load, int(paused_ms) + 1)
            return
        auth = self._authorization.current() or await self._obtain_auth(load)
        counted: dict[bytes, Counted] = {}
        if not auth:
            return
        _set_out(load)
        if self._caps:
            load, counted = await self._caps.admit(load)
            if not load:
                return
        asked_at = time.monotonic()
        try:
            letters = [(held.entry.parcel.push, deliveries) for held, deliveries in load]
            answers = await self._exchange(letters, auth, min([held.leave_by for held, _ in load]))
        except NotInTime:
            await self._caps.never_left(counted)
            self._put_off(load, counted_day=0)
            return
        except NoAnswer as problem:
            self._gate.unanswered()
            if not problem.maybe_delivered:
                await self._caps.never_left(counted)
            for held, deliveries in load:
                self._apply_no_answer(held, deliveries, maybe_delivered=problem.maybe_delivered)
            return
        everything = answers[0] if len(answers) == 1 else [one for outcomes in answers for one in outcomes]
        if all(outcome.verdict is Verdict.OK for outcome in everything):
            self._taken(load, everything[0].code)
            return
        await self._caps.heed(counted, load, answers)
        for (held, deliveries), outcomes in zip(load, answers, strict=True):
            await self._heed(held.entry.parcel.push, deliveries, outcomes, auth, asked_at)
        self._gate.heed([outcome for outcomes in answers for outcome in outcomes], first)
        for (held, deliveries), outcomes in zip(load, answers, strict=True):
            left = await self._elsewhere.without_moved(held, deliveries, outcomes, self._count)
            self._apply(held, *self._caps.without_full(held, left, counted, self._count))

    def _taken(self, load: list[Chunk], code: str) -> None:
        self._gate.good()
        for held, deliveries in load:
            self._answers.count(Verdict.OK, code, len(deliveries))
            self._hand.finish(held, deliveries, SENT)

    async def _hold_back(self, load: list[Chunk], wait_ms: int) -> None:
        """The class of *load* pauses: it goes another way, or waits, or has expired by then."""
        now_ms = self._clock.now_ms()
        for held, deliveries in load:
            held.under_way = True
            left: list[Delivery] | None = deliveries
            if wait_ms >= SHUT_MS:
                left = await self._elsewhere.moved_on(held, deliveries, "class_paused")
            if left is None:
                left, wait_ms = deliveries, min(wait_ms, SHUT_MS)
            if now_ms + wait_ms >= held.entry.parcel.push.expires_at_ms:
                self._hand.finish(held, left, End("dropped", "expired"))
            else:
                self._hand.postpone(held, left, Later(wait_ms, counts=False))

    def _count(self, outcome: Outcome) -> None:
        self._answers.count(outcome.verdict, outcome.code, 1)

    async def _obtain_auth(self, load: list[Chunk]) -> str:
        """The authorization; empty when there is none, and the *load* has been dealt with."""
        outcome = UNREACHABLE
        try:
            auth = await self._authorization.obtain()
            if auth and not self._void(load[0][0]):
                return auth
            # All that waited for it would leave at once; or it was refused while it was being stored.
            self._put_off(load)
            return ""
        except AuthRefused as refused:
            outcome = refused.outcome
        except (RedisUnusable, ReplyError):
            pass
        self._gate.heed([outcome], load[0][0].entry.parcel.push)
        for held, deliveries in load:
            self._apply(held, deliveries, [outcome] * len(deliveries))
        return ""

    def _log_failure(self, step: str, problem: Exception) -> None:
        log.error("%s of %s raised %s", step, self.name, where_raised(problem))

    async def _heed(
        self, push: Push, deliveries: list[Delivery], outcomes: list[Outcome], auth: str, asked_at: float
    ) -> None:
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
            now = time.monotonic()
            current = self._authorization.current() == auth
            if current and now - self._refused_auth_at >= _AUTH_DOUBT_S:
                self._refused_auth_at = now
            elif current and asked_at > self._refused_auth_at:
                # Whatever the refusal was answered with was refused as well: not the authorization's age is the fault.
                refused = Outcome(Verdict.MISCONFIGURED, Scope.ACCOUNT, first.code)
                outcomes[:] = [refused if one.verdict is Verdict.REFRESH_AUTH else one for one in outcomes]
            try:
                await self._authorization.reject(auth)
            except (RedisUnusable, ReplyError):
                log.warning("the refused authorization of %s could not be withdrawn", self.name)

    def _perhaps_sent(self, held: Held, deliveries: list[Delivery]) -> None:
        self._apply_no_answer(held, deliveries, maybe_delivered=True)

    def _apply_no_answer(self, held: Held, deliveries: list[Delivery], *, maybe_delivered: bool) -> None:
        deliveries = unresolved(held, deliveries)
        self._apply(held, deliveries, [NO_ANSWER if maybe_delivered else UNREACHABLE] * len(deliveries))

    def _count_unknown(self, held: Held, deliveries: list[Delivery]) -> None:
        deliveries = unresolved(held, deliveries)
        self._unknown.inc(len(deliveries))
        held.settlement.unknown += len(deliveries)
        for delivery in deliveries:
            delivery.unknown += 1

    def _apply(self, held: Held, deliveries: list[Delivery], outcomes: Sequence[Outcome]) -> None:
        if any(outcome.unknown for outcome in outcomes):
            pairs = zip(deliveries, outcomes, strict=True)
            self._count_unknown(held, [delivery for delivery, outcome in pairs if outcome.unknown])
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
        if await self._gate.report(in_hand=self._hand.holds):
            self._give_back_waiting()

    def _written(self) -> None:
        self._gate.forget_good()
        self._answers.flush()
        self._request_seconds.flush()
        if not self.busy:
            self._clearing = False
        # No bell rings for what is ready again.
        if not self.busy or self._hand.some_is_due:
            self._hand.some_is_due = False
            self._on_change()

    def _hold_back_everything(self) -> None:
        """Nothing leaves any more that is in hand: what has a sender may wait for an answer other than the vendor's."""
        self._give_back_waiting()
        self._paused_at = time.monotonic()
        for held in self._hand.everything():
            held.leave_by, held.decided_ms = -math.inf, 0
        self._exchange.hold_back()

    def _give_back_waiting(self) -> None:
        for held, deliveries in self._waiting.drain():
            self._hand.give_back(held, deliveries)


def _set_out(load: list[Chunk]) -> None:
    for held, _ in load:
        held.under_way = True
