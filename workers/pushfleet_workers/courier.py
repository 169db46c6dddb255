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
from dataclasses import dataclass, field
from typing import Any

from msgspec import json

from pushfleet.message import LANES, Lane
from pushfleet_workers.clock import FleetClock
from pushfleet_workers.credentials import Authorization, AuthRefused
from pushfleet_workers.errors import NoAnswer, RedisUnusable, where_raised
from pushfleet_workers.exchange import Exchange
from pushfleet_workers.hooks import metrics
from pushfleet_workers.hooks.tally import AnswerTally, SecondsTally
from pushfleet_workers.ledger import Claim, Entry, GateNews, Ledger, Settlement, pack
from pushfleet_workers.ledger.entry import parcel_id
from pushfleet_workers.ledger.ledger import Want
from pushfleet_workers.outcome import Outcome, Remedy, Scope, Verdict
from pushfleet_workers.push import Delivery, Parcel, Push
from pushfleet_workers.redis_link import ReplyError
from pushfleet_workers.retry import SENT, End, Later, RetryPolicy, next_step
from pushfleet_workers.transports.base import Transport
from pushfleet_workers.vendor import Vendor

__all__ = ["Courier", "Feedback", "Move", "Recheck"]

log = logging.getLogger(__name__)

Feedback = Callable[[str, Delivery, Outcome], Awaitable[None]]
"""Tells the token state what a vendor said of a device: app, delivery, outcome."""

Recheck = Callable[[Sequence[Entry]], Awaitable[dict[bytes, str]]]
"""Decides again on entries that waited: delivery id to the reason it must not be sent. May renew its tokens."""

Move = Callable[[Push, Lane, Sequence[Delivery]], Awaitable[set[bytes]]]
"""Puts deliveries into the ledgers of their devices' next channels; the ids of those that went."""

CLAIM_PARCELS = 100
_LOW_WATER = 50
_BULK_WINDOW_SHARE = 0.7
_PARTIAL_AFTER_S = 0.25
_REDIS_RETRY_S = 0.2
_LAST_SETTLE_S = 3.0
_CLASS_PAUSE_MS = 30_000
_VENDOR_WORKS = frozenset({Verdict.OK, Verdict.DROP_TOKEN, Verdict.MUTE_DEVICE, Verdict.BAD_PAYLOAD})
_UNREACHABLE = Outcome(Verdict.RETRY, Scope.ACCOUNT, code="unreachable")
_NO_ANSWER = Outcome(Verdict.RETRY, Scope.DEVICE, code="no_answer")
_ELSEWHERE_EVERY_S = 0.2
_ELSEWHERE_MS = 2_000
"""An account that is shut for at least this long sends its work another way, where there is one."""


@dataclass(slots=True, eq=False)
class _Held:
    """A leased entry in hand."""

    entry: Entry
    settlement: Settlement
    claimed_at: float
    open: int
    """Deliveries without a result so far."""

    done: set[bytes] = field(default_factory=set)


_Chunk = tuple[_Held, list[Delivery]]


class Courier:
    """The deliveries of one account in one process.

    * **recheck** - asked about entries older than *recheck_s*, retried ones included.
    * **move** - the way to a device's next channel; None where no device could have one.
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
        move: Move | None = None,
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
        self._mixes = vendor.mixes(account)
        self._settle_s = settle_s
        self._rng = rng or random.Random()  # noqa: S311
        self._window: int = account.in_flight_max
        self._bulk_window = max(1, int(self._window * _BULK_WINDOW_SHARE))
        self._queues: dict[Lane, deque[_Chunk]] = {lane: deque() for lane in LANES}
        self._waiting = 0
        self._in_flight: dict[Lane, int] = dict.fromkeys(LANES, 0)
        self._senders: set[asyncio.Task[None]] = set()
        self._held: dict[bytes, _Held] = {}
        self._suspect_in_hand = False
        self._suspects_turn = True
        self._clearing = False
        """A suspect waits: nothing more is claimed until nothing is in hand, since it travels alone."""

        self._results: list[Settlement] = []
        self._settling: list[Settlement] = []
        self._flushing: asyncio.Task[None] | None = None
        self._news = GateNews()
        self._gate_listens = True
        self._class_pauses_ms: dict[str, float] = {}
        self._classes = b""
        """What the gate said of them last."""

        self._elsewhere_at = 0.0
        self._refused_auth_at = -1e9
        self._partial_at = 0.0
        self._claim_answer_lost = False
        self._claiming = asyncio.Lock()
        self._stopping = False
        labels = (vendor.name, credential)
        self._request_seconds = SecondsTally(metrics.VENDOR_REQUEST_SECONDS.labels(*labels))
        self._delivery_seconds = {
            lane: SecondsTally(metrics.DELIVERY_SECONDS.labels(vendor.name, lane)) for lane in LANES
        }
        self._exchange = Exchange(vendor, account, transport, clock, self._request_seconds.observe)
        self._answers = AnswerTally(metrics.ANSWERS, *labels)
        self._unknown = metrics.UNKNOWN_OUTCOMES.labels(*labels)
        self._late = metrics.LATE_RESULTS.labels(*labels)
        self._breaker_open = metrics.BREAKER_OPEN.labels(*labels)
        metrics.IN_FLIGHT.labels(*labels).set_function(lambda: float(len(self._senders)))

    # ---- what the drain asks and tells

    @property
    def busy(self) -> bool:
        """Whether anything is in hand or not yet settled."""
        return bool(self._held or self._results or self._flushing)

    @property
    def has_room(self) -> bool:
        """Whether a claim would be served."""
        if self._stopping or self._suspect_in_hand or self._clearing:
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
            # What is sent and not yet settled is leased as well.
            known = {*self._held, *(one.id for one in self._results), *(one.id for one in self._settling)}
            await self._take_in(await self.ledger.recover(known), frozenset())
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
        self._gate_listens = self._gate_listens or claim.gate_listens
        if claim.classes != self._classes:
            self._classes = claim.classes
            self._class_pauses_ms = json.decode(claim.classes) if claim.classes else {}
        # Suspects and the rest take turns: many suspects would otherwise hold up everybody.
        self._suspects_turn = not any(entry.lost > 1 for entry in claim.entries)
        await self._take_in(claim.entries, claim.late_oks)
        if claim.shut and claim.left and claim.wait_ms >= _ELSEWHERE_MS:
            await self._send_elsewhere(claim.wait_ms)
        self._clearing = bool(claim.suspects and self.busy and not self._suspect_in_hand)
        return claim

    async def beat(self) -> None:
        """Keep the leases, if there are any."""
        if self._held:
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
        for held in list(self._held.values()):
            left = [one for one in held.entry.parcel.deliveries if one.id not in held.done]
            self._apply_no_answer(held, left, maybe_delivered=True)
        while (self._results or self._flushing) and (left_s := deadline + _LAST_SETTLE_S - time.monotonic()) > 0:
            self._flush_soon()
            assert self._flushing is not None
            await asyncio.wait([self._flushing], timeout=left_s)

    # ---- from a claim to requests

    async def _take_in(self, entries: Sequence[Entry], late_oks: frozenset[bytes]) -> None:
        aged: list[_Chunk] = []
        for entry in entries:
            held = self._hold(entry)
            deliveries = entry.parcel.deliveries
            if late_oks:
                deliveries = self._end_late_oks(held, deliveries, late_oks)
            if entry.lost and self._policy.drop_unknown:
                self._finish(held, deliveries, End("dropped", "unknown_outcome"))
                continue
            now_ms = self._clock.now_ms()
            if entry.parcel.push.expires_at_ms <= now_ms:
                self._finish(held, deliveries, End("dropped", "expired"))
            elif now_ms - entry.put_ms > self._recheck_ms:
                aged.append((held, deliveries))
            else:
                self._queue(held, deliveries)
        self._go_on()
        if aged:
            for held, deliveries in await self._still_wanted(aged):
                self._queue(held, deliveries)
            self._go_on()

    def _hold(self, entry: Entry) -> _Held:
        size = len(entry.parcel.deliveries)
        held = _Held(entry, Settlement(entry.id, entry.fence, size), time.monotonic(), size)
        self._held[entry.id] = held
        if entry.lost > 1:
            self._suspect_in_hand = True
        return held

    def _go_on(self) -> None:
        if self._stopping:
            self._give_back_waiting()
        else:
            self._pump()

    def _end_late_oks(self, held: _Held, deliveries: list[Delivery], late_oks: frozenset[bytes]) -> list[Delivery]:
        accepted = [one for one in deliveries if one.id in late_oks]
        self._finish(held, accepted, End("sent"))
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
                self._finish(held, refusals, End("suppressed", reason))
            wanted.append((held, [one for one in deliveries if one.id not in refused]))
        return wanted

    def _queue(self, held: _Held, deliveries: list[Delivery]) -> None:
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
        if not self._senders:
            self._on_change()

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

    def _void(self, held: _Held) -> bool:
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
                    self._postpone(*chunk, Later(0, counts=False))
                    continue
                load = [chunk]
                if self._mixes:
                    self._fill(load, queue)
                return load
        return []

    def _take(self, queue: deque[_Chunk]) -> _Chunk:
        self._waiting -= 1
        if _LOW_WATER - 1 in (self._waiting, self._waiting - len(self._queues["bulk"])):
            self._on_change()
        return queue.popleft()

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
        paused_ms = self._class_pauses_ms.get(first.kind, 0.0) - self._clock.now_ms() if self._class_pauses_ms else 0.0
        if paused_ms > 0:
            for held, deliveries in load:
                left = deliveries
                if paused_ms >= _ELSEWHERE_MS:
                    left = await self._moved_on(held, deliveries, "class_paused")
                self._postpone(held, left, Later(int(paused_ms) + 1, counts=False))
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
                self._tell_gate(outcomes, held.entry.parcel.push)
                deliveries, outcomes = await self._without_moved(held, deliveries, outcomes)
            self._apply(held, deliveries, outcomes)

    async def _without_moved(
        self, held: _Held, deliveries: list[Delivery], outcomes: list[Outcome]
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

    async def _moved_on(self, held: _Held, deliveries: list[Delivery], reason: str) -> list[Delivery]:
        """Let the devices' other channels have *deliveries*; those that stay here."""
        if self._move is None or held.entry.parcel.push.recall or held.entry.lost:
            return deliveries
        try:
            moved = await self._move(held.entry.parcel.push, held.entry.lane, deliveries)
        except (RedisUnusable, ReplyError) as problem:
            log.warning("deliveries of %s found no other channel: %s", self.name, problem)
            return deliveries
        self._finish(held, [one for one in deliveries if one.id in moved], End("moved", reason))
        return [one for one in deliveries if one.id not in moved] if moved else deliveries

    async def _send_elsewhere(self, shut_ms: int) -> None:
        """Work that a shut gate holds up goes to other channels; what has none waits until the gate opens."""
        if self._move is None or time.monotonic() - self._elsewhere_at < _ELSEWHERE_EVERY_S:
            return
        self._elsewhere_at = time.monotonic()
        size = self._vendor.batch_size
        want = Want(CLAIM_PARCELS, CLAIM_PARCELS * size, CLAIM_PARCELS * size, suspect=False, elsewhere=True)
        claim = await self.ledger.claim(want)
        if not claim.shut:
            await self._take_in(claim.entries, claim.late_oks)
            return
        for entry in claim.entries:
            held = self._hold(entry)
            deliveries = self._end_late_oks(held, entry.parcel.deliveries, claim.late_oks)
            left = await self._moved_on(held, deliveries, "account_shut")
            self._postpone(held, left, Later(shut_ms, counts=False))

    async def _obtain_auth(self, load: list[_Chunk]) -> str:
        """The authorization; empty when there is none, and the *load* has been dealt with."""
        outcome = _UNREACHABLE
        try:
            auth = await self._authorization.obtain()
            if not self._void(load[0][0]):
                return auth
            # All that waited for it would leave at once.
            for held, deliveries in load:
                self._postpone(held, deliveries, Later(0, counts=False))
            return ""
        except AuthRefused as refused:
            outcome = refused.outcome
        except (RedisUnusable, ReplyError):
            pass
        for held, deliveries in load:
            self._tell_gate([outcome], held.entry.parcel.push)
            self._apply(held, deliveries, [outcome] * len(deliveries))
        return ""

    def _log_failure(self, step: str, problem: Exception) -> None:
        log.error("%s of %s raised %s", step, self.name, where_raised(problem))

    async def _heed(self, push: Push, deliveries: list[Delivery], outcomes: list[Outcome], auth: str) -> None:
        """Act on what an answer says beyond its deliveries: dead tokens, worn-out authorization and connections."""
        for delivery, outcome in zip(deliveries, outcomes, strict=True):
            if outcome.verdict in (Verdict.DROP_TOKEN, Verdict.MUTE_DEVICE):
                try:
                    await self._feedback(push.app, delivery, outcome)
                except Exception as problem:  # noqa: BLE001 - the answer to the others must not get lost by it
                    self._log_failure("token feedback", problem)
        first = outcomes[0]
        if first.reconnect:
            await self._transport.renew()
        if first.verdict is Verdict.REFRESH_AUTH:
            if time.monotonic() - self._refused_auth_at < 60 and self._authorization.current() == auth:
                # A fresh authorization was refused as well: not its age is the fault.
                outcomes[:] = [Outcome(Verdict.MISCONFIGURED, Scope.ACCOUNT, first.code)] * len(outcomes)
            elif self._authorization.current() == auth:
                self._refused_auth_at = time.monotonic()
            try:
                await self._authorization.reject(auth)
            except (RedisUnusable, ReplyError):
                log.warning("the refused authorization of %s could not be withdrawn", self.name)

    def _apply_no_answer(self, held: _Held, deliveries: list[Delivery], *, maybe_delivered: bool) -> None:
        self._news.bad += 1
        self._news.reason = "unreachable"
        if not maybe_delivered:
            self._tell_gate([_UNREACHABLE], held.entry.parcel.push)
            self._apply(held, deliveries, [_UNREACHABLE] * len(deliveries))
            return
        self._unknown.inc(len(deliveries))
        held.settlement.unknown += len(deliveries)
        for delivery in deliveries:
            delivery.unknown += 1
        if self._policy.drop_unknown:
            self._finish(held, deliveries, End("dropped", "unknown_outcome"))
        else:
            self._tell_gate([_NO_ANSWER], held.entry.parcel.push)
            self._apply(held, deliveries, [_NO_ANSWER] * len(deliveries))

    def _apply(self, held: _Held, deliveries: list[Delivery], outcomes: Sequence[Outcome]) -> None:
        if not deliveries:
            return
        push = held.entry.parcel.push
        now_ms = self._clock.now_ms()
        if all(outcome.verdict is Verdict.OK for outcome in outcomes):
            self._answers.count(outcomes[0].verdict, outcomes[0].code, len(deliveries))
            self._news.good += 1
            self._finish(held, deliveries, SENT)
            return
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
                self._finish(held, some, step, code=code)
            else:
                self._postpone(held, some, step, tried=True)

    def _tell_gate(self, outcomes: Sequence[Outcome], push: Push) -> None:
        """What a request's answer means for more than its own deliveries."""
        news = self._news
        for outcome in {outcomes[0], outcomes[-1]}:
            asked_ms = int(outcome.asked_ms(self._clock.now_ms()))
            verdict, scope = outcome.verdict, outcome.scope
            if verdict in _VENDOR_WORKS:
                news.good += 1
            elif scope is Scope.CLASS:
                self._pause_class(push.kind, outcome, asked_ms or _CLASS_PAUSE_MS)
            elif scope is not Scope.ACCOUNT:
                continue
            elif verdict is Verdict.MISCONFIGURED:
                news.open_now, news.reason = True, outcome.code or "misconfigured"
                log.error("account %s is misconfigured, its work waits: %s", self.name, self._told(outcome))
            elif verdict in (Verdict.RATE_LIMITED, Verdict.QUOTA_EXHAUSTED):
                news.pause_ms = max(news.pause_ms, asked_ms or 1_000)
                news.rate_limited = news.rate_limited or verdict is Verdict.RATE_LIMITED
                news.reason = outcome.code or verdict.value
            elif outcome is not _UNREACHABLE and verdict is not Verdict.REFRESH_AUTH:
                news.bad += 1
                news.pause_ms = max(news.pause_ms, asked_ms if verdict is Verdict.RETRY_AFTER else 0)
                news.reason = outcome.code or verdict.value

    def _pause_class(self, kind: str, outcome: Outcome, wait_ms: int) -> None:
        """No process of the fleet sends this kind of message until then."""
        self._class_pauses_ms[kind] = self._clock.now_ms() + wait_ms
        self._news.class_pauses_ms[kind] = wait_ms
        if outcome.verdict is Verdict.MISCONFIGURED:
            log.error("account %s cannot send messages of kind %s: %s", self.name, kind, self._told(outcome))

    def _told(self, outcome: Outcome) -> str:
        """The code with what the vendor's table says of it, the mend included."""
        row = self._vendor.codes.get(outcome.code)
        return f"{outcome.code}: {row.meaning}" if row is not None else outcome.code

    # ---- from results to the ledger

    def _finish(self, held: _Held, deliveries: Sequence[Delivery], end: End, *, code: str = "") -> None:
        if not deliveries:
            return
        settlement = held.settlement
        settlement.ended += len(deliveries)
        name = f"{held.entry.lane}:{end.end}:{end.reason}"
        settlement.ends[name] = settlement.ends.get(name, 0) + len(deliveries)
        if end.end == "sent":
            settlement.accepted += tuple([one.id for one in deliveries])
            took_s = max(0, self._clock.now_ms() - held.entry.parcel.push.enqueued_at_ms) / 1000
            for _ in deliveries:
                self._delivery_seconds[held.entry.lane].observe(took_s)
        elif end.end == "dead":
            letter = self._entry_of(held, list(deliveries))
            settlement.dead.append((pack(letter), end.reason, code, deliveries[0].attempt + 1))
        self._resolved(held, deliveries)

    def _postpone(self, held: _Held, deliveries: list[Delivery], step: Later, *, tried: bool = False) -> None:
        if step.remedy:
            for delivery in deliveries:
                delivery.remedy = step.remedy
        size = len(deliveries)
        if step.remedy == Remedy.SPLIT:
            size = max(1, size // 2)
        elif step.remedy == Remedy.SINGLE_SEND:
            size = 1
        for first in range(0, len(deliveries), size):
            entry = self._entry_of(held, deliveries[first : first + size])
            if tried:
                # What we survived is no suspect.
                entry.lost = min(entry.lost, 1)
            held.settlement.later.append((step.wait_ms, pack(entry)))
        self._resolved(held, deliveries)

    def _entry_of(self, held: _Held, deliveries: list[Delivery]) -> Entry:
        old = held.entry
        new_id = parcel_id(old.id, deliveries[0].id, deliveries[0].attempt, old.fence)
        return Entry(new_id, Parcel(old.parcel.push, deliveries), old.lane, old.put_ms, old.lost)

    def _resolved(self, held: _Held, deliveries: Sequence[Delivery]) -> None:
        held.open -= len(deliveries)
        if held.open > 0:
            held.done.update([one.id for one in deliveries])
        else:
            if self._held.get(held.entry.id) is held:
                del self._held[held.entry.id]
            if held.entry.lost > 1:
                self._suspect_in_hand = False
            self._results.append(held.settlement)
        self._flush_soon()

    def _flush_soon(self) -> None:
        if self._flushing is None:
            self._flushing = asyncio.get_running_loop().create_task(self._flush())

    async def _flush(self) -> None:
        try:
            await asyncio.sleep(self._settle_s)
            while self._results or self._news:
                self._add_partial_results()
                self._settling, self._results = self._results, []
                news, self._news = self._news, GateNews()
                try:
                    # The gate first: what is settled as due at once must not leave before it knows.
                    if news or (news.good and self._gate_listens):
                        await self._report(news)
                    if self._settling:
                        self._late.inc(len(await self.ledger.settle(self._settling)))
                        self._settling = []
                except (RedisUnusable, ReplyError) as problem:
                    # Settling twice is safe: what was settled has lost its lease.
                    metrics.REDIS_LOST.labels("worker").inc()
                    log.warning("results of %s wait for Redis: %s", self.name, problem)
                    self._results = self._settling + self._results
                    self._settling = []
                    await asyncio.sleep(_REDIS_RETRY_S)
        finally:
            self._flushing = None
            self._news.good = 0
            self._answers.flush()
            for tally in (self._request_seconds, *self._delivery_seconds.values()):
                tally.flush()
            if not self.busy:
                self._clearing = False
                self._on_change()

    def _add_partial_results(self) -> None:
        """Settle the finished part of parcels that have been in hand for long: a crash then repeats less."""
        horizon = time.monotonic() - _PARTIAL_AFTER_S
        if self._partial_at > horizon:
            return
        self._partial_at = time.monotonic()
        for held in self._held.values():
            if held.claimed_at > horizon or not held.done:
                continue
            old = held.entry
            deliveries = [one for one in old.parcel.deliveries if one.id not in held.done]
            held.entry = Entry(old.id, Parcel(old.parcel.push, deliveries), old.lane, old.put_ms, old.lost, old.fence)
            held.settlement.rest = pack(held.entry)
            self._results.append(held.settlement)
            held.settlement = Settlement(old.id, old.fence, len(deliveries))
            held.done = set()

    async def _report(self, news: GateNews) -> None:
        state, wait_ms = await self.ledger.tell_gate(news)
        self._gate_listens = state == "open" or news.rate_limited or (self._gate_listens and not news.good)
        self._breaker_open.set(1 if wait_ms else 0)
        if wait_ms or news.pause_ms:
            self._give_back_waiting()

    def _give_back_waiting(self) -> None:
        for queue in self._queues.values():
            while queue:
                held, deliveries = queue.popleft()
                self._waiting -= 1
                if len(deliveries) == len(held.entry.parcel.deliveries):
                    held.settlement.give_back = True
                    self._resolved(held, deliveries)
                else:
                    self._postpone(held, deliveries, Later(0, counts=False))
