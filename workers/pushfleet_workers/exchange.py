"""The edge to a vendor: a load of deliveries becomes requests, their answers outcomes.

What a load is, and what follows from its outcomes, others decide: `courier` and `retry`.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from pushfleet_workers.clock import FleetClock
from pushfleet_workers.errors import Distrusted, NoAnswer, NotInTime, where_raised
from pushfleet_workers.outcome import NOT_RECALLABLE, OK, Outcome, Remedy, Scope, Verdict
from pushfleet_workers.push import Delivery, Push
from pushfleet_workers.transports.base import Transport
from pushfleet_workers.vendor import Request, Response, Vendor

__all__ = ["Exchange", "Letters"]

log = logging.getLogger(__name__)

Letters = tuple[Push, list[Delivery]]
"""Deliveries of one push."""

_BROKEN_MODULE = Outcome(Verdict.BAD_PAYLOAD, code="vendor_module_failed")
_UNREADABLE = Outcome(Verdict.RETRY, Scope.DEVICE, code="no_answer")
_STAGED_LIFE_S = 600.0
_STAGED_MAX = 256


class _Content(NamedTuple):
    """What a vendor stores ahead of the targets."""

    staging: Request


class Exchange:
    """One account's requests in one process.

    * **observe** - told how many seconds each request took to be answered.
    """

    def __init__(
        self, vendor: Vendor, account: Any, transport: Transport, clock: FleetClock, observe: Callable[[float], None]
    ) -> None:
        self._vendor = vendor
        self._account = account
        self._transport = transport
        self._clock = clock
        self._observe = observe
        self._staged: OrderedDict[bytes, tuple[str, float]] = OrderedDict()
        self._staging: dict[bytes, asyncio.Lock] = {}
        self._no_staging: Outcome | None = None
        self._no_staging_until_ms = 0.0
        self._held_back = 0
        """How often what had not left was held back."""

    async def __call__(self, load: Sequence[Letters], auth: str, leave_by: float = math.inf) -> list[list[Outcome]]:
        """For each letters of *load* its outcomes, in order; nothing is sent any more after *leave_by* (monotonic).

        A load of several pushes is one request of a vendor that mixes them. A defect of a vendor module becomes an
        outcome, and so does a peer whose certificate is not taken. Raises :class:`NoAnswer`.
        """
        deliveries = load[0][1] if len(load) == 1 else [delivery for _, some in load for delivery in some]
        outcomes = await self._outcomes(load, deliveries, auth, leave_by)
        if len(load) == 1 and outcomes.count(OK) == len(outcomes):
            return [outcomes]
        if len(load) > 1:
            outcomes = [_alone(delivery, outcome) for delivery, outcome in zip(deliveries, outcomes, strict=True)]
        return [
            [self._blamed(push, outcome) for outcome in outcomes_of]
            for (push, _), outcomes_of in zip(load, _shared_out(load, outcomes), strict=True)
        ]

    def hold_back(self) -> None:
        """Let nothing leave that was asked for and has not left: it raises :class:`NotInTime`."""
        self._held_back += 1
        self._transport.hold_back()

    def withdraws(self, push: Push, deliveries: list[Delivery]) -> bool:
        """Whether *push*, which takes something back, is no push: the vendor has means of its own for that."""
        try:
            return self._vendor.withdraw(self._account, push, deliveries, "", self._clock.now_ms()) is not None
        except Exception as problem:  # noqa: BLE001 - the request will bring it out
            self._log_defect("withdraw", problem)
            return False

    async def _outcomes(
        self, load: Sequence[Letters], deliveries: list[Delivery], auth: str, leave_by: float
    ) -> list[Outcome]:
        staged = ""
        try:
            request = self._request(load, auth)
            if isinstance(request, _Content):
                held_back = self._held_back
                request, staged = await self._with_staged(request, load[0], auth)
                if self._held_back != held_back:
                    raise NotInTime("its content was stored when it was held back", maybe_delivered=False)
        except NoAnswer:
            raise
        except Exception as problem:  # noqa: BLE001 - a defect of a vendor module costs only its own deliveries
            self._log_defect("build", problem)
            return [_BROKEN_MODULE] * len(deliveries)
        if isinstance(request, Outcome):
            return [request] * len(deliveries)
        request.leave_by = leave_by
        started = time.perf_counter()
        try:
            response = await self._transport.send(request)
        except Distrusted as problem:
            return [_distrusted(problem)] * len(deliveries)
        self._observe(time.perf_counter() - started)
        outcomes = self._read(deliveries, response)
        if staged and all(outcome.verdict is not Verdict.OK for outcome in outcomes):
            self._forget_staged(staged)
        return outcomes

    def _request(self, load: Sequence[Letters], auth: str) -> Request | Outcome | _Content:
        """The request for *load*, or what keeps it from being made, or content that goes ahead of it."""
        vendor, account, now_ms = self._vendor, self._account, self._clock.now_ms()
        if len(load) > 1:
            letters = [(push, delivery) for push, some in load for delivery in some]
            return vendor.build_mixed(account, letters, auth, now_ms)
        ((push, deliveries),) = load
        if push.recall:
            withdrawal = vendor.withdraw(account, push, deliveries, auth, now_ms)
            if withdrawal is not None:
                return withdrawal
            if not (vendor.replaces and push.replace_key):
                return NOT_RECALLABLE
        staging = vendor.stage(account, push, deliveries, auth, now_ms)
        if staging is None:
            return vendor.build(account, push, deliveries, auth, now_ms)
        if self._no_staging is not None and now_ms < self._no_staging_until_ms:
            return self._no_staging
        return _Content(staging)

    async def _with_staged(self, content: _Content, letters: Letters, auth: str) -> tuple[Request | Outcome, str]:
        """The request that names *content*, and the vendor's id for it."""
        staged = await self._stage(content.staging)
        if isinstance(staged, Outcome):
            return staged, ""
        push, deliveries = letters
        now_ms = self._clock.now_ms()
        return self._vendor.build_staged(self._account, push, deliveries, auth, now_ms, staged), staged

    async def _stage(self, request: Request) -> str | Outcome:
        """The vendor's id for the content of *request*; the same content is handed over once."""
        lock = self._staging.setdefault(request.body, asyncio.Lock())
        try:
            async with lock:
                return self._known(request.body) or await self._hand_over(request)
        finally:
            if not lock.locked():
                self._staging.pop(request.body, None)

    def _known(self, content: bytes) -> str:
        value, until = self._staged.get(content, ("", 0.0))
        return value if time.monotonic() < until else ""

    async def _hand_over(self, request: Request) -> str | Outcome:
        try:
            response = await self._transport.send(request)
        except Distrusted as problem:
            return _distrusted(problem)
        except NotInTime:
            raise
        except NoAnswer as problem:
            # Content without targets reaches nobody, whether it arrived or not.
            raise NoAnswer(problem.problem, maybe_delivered=False) from None
        staged = self._vendor.read_staged(response)
        if staged.failure is not None:
            # Content without targets reaches nobody, whatever became of it.
            failure = replace(staged.failure, unknown=False)
            now_ms = self._clock.now_ms()
            wait_ms = failure.asked_ms(now_ms)
            if wait_ms > 0 and failure.remedy is not None:
                # It holds for all content, and there is another way until then.
                self._no_staging, self._no_staging_until_ms = failure, now_ms + wait_ms
            return failure
        self._staged[request.body] = staged.value, time.monotonic() + _STAGED_LIFE_S
        if len(self._staged) > _STAGED_MAX:
            self._staged.popitem(last=False)
        return staged.value

    def _forget_staged(self, value: str) -> None:
        """Whatever was at fault: the next request hands its content over anew."""
        self._staged = OrderedDict((content, known) for content, known in self._staged.items() if known[0] != value)

    def _read(self, deliveries: list[Delivery], response: Response) -> list[Outcome]:
        try:
            outcomes = self._vendor.read(deliveries, response)
            if len(outcomes) != len(deliveries):
                raise ValueError("not one outcome per delivery")
        except Exception as problem:  # noqa: BLE001
            # The vendor has answered; what it said we cannot know, beyond what its status says.
            self._log_defect("read", problem)
            return [replace(_UNREADABLE, unknown=response.status // 100 == 2)] * len(deliveries)
        return outcomes

    def _blamed(self, push: Push, outcome: Outcome) -> Outcome:
        """What befell a class that the message itself asked for befell this message, not the account's kind."""
        if outcome.scope is not Scope.CLASS:
            return outcome
        own = getattr(push.options, self._vendor.name, None)
        if own is None or not own.names_class():
            return outcome
        verdict = Verdict.BAD_PAYLOAD if outcome.verdict is Verdict.MISCONFIGURED else outcome.verdict
        return replace(outcome, verdict=verdict, scope=Scope.DEVICE)

    def _log_defect(self, step: str, problem: Exception) -> None:
        log.error("%s of %s raised %s", step, self._vendor.name, where_raised(problem))


def _shared_out(load: Sequence[Letters], outcomes: list[Outcome]) -> list[list[Outcome]]:
    parts, at = [], 0
    for _, deliveries in load:
        parts.append(outcomes[at : at + len(deliveries)])
        at += len(deliveries)
    return parts


def _distrusted(problem: Distrusted) -> Outcome:
    """As good as an answer: it says what is wrong, for the whole account."""
    return Outcome(Verdict.RETRY, Scope.ACCOUNT, code=problem.code)


def _alone(delivery: Delivery, outcome: Outcome) -> Outcome:
    """One bad letter may have cost the whole request: each is tried once more by itself."""
    if outcome.verdict is Verdict.BAD_PAYLOAD and outcome.remedy is None and not delivery.remedy:
        return replace(outcome, remedy=Remedy.SINGLE_SEND)
    return outcome
