"""An account's gate as one process sees it: what its answers mean for the whole account, and what it was told.

The gate itself lies in the account's ledger and holds for the fleet.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence

from msgspec import json

from pushfleet_workers.clock import FleetClock
from pushfleet_workers.distrust import certificate_sentence
from pushfleet_workers.hooks import metrics
from pushfleet_workers.ledger import Claim, GateNews, Ledger
from pushfleet_workers.outcome import Outcome, Row, Scope, Verdict
from pushfleet_workers.push import Push

__all__ = ["NO_ANSWER", "UNREACHABLE", "AccountGate"]

log = logging.getLogger(__name__)

UNREACHABLE = Outcome(Verdict.RETRY, Scope.ACCOUNT, code="unreachable")
"""The request provably never reached the vendor."""

NO_ANSWER = Outcome(Verdict.RETRY, Scope.DEVICE, code="no_answer", unknown=True)
"""The request left and no answer came: the vendor may have taken the push."""

_VENDOR_WORKS = frozenset({Verdict.OK, Verdict.DROP_TOKEN, Verdict.MUTE_DEVICE, Verdict.BAD_PAYLOAD})
_CLASS_PAUSE_MS = 30_000
_PAUSE_MS = 1_000
_SAID_AGAIN_S = 60.0


class AccountGate:
    """What one process has to tell an account's gate.

    * **name** - the account's, for logs.
    * **codes** - the vendor's table, which tells operators what to mend.
    * **on_misconfigured** - told the vendor's code when it does not take the account.
    """

    def __init__(
        self,
        name: str,
        codes: Mapping[str, Row],
        ledger: Ledger,
        clock: FleetClock,
        on_misconfigured: Callable[[str], None] = lambda code: None,
    ) -> None:
        self._name = name
        self._on_misconfigured = on_misconfigured
        self._codes = codes
        self._ledger = ledger
        self._clock = clock
        self._news = GateNews()
        self._listens = True
        self._probing = False
        """A claim of ours was the half-open breaker's probe; the gate waits to hear what came of it."""

        self._distrusted_at = -math.inf
        self._paused = False
        self._classes = b""
        self._class_pauses_ms: dict[str, float] = {}
        self._breaker_open = metrics.BREAKER_OPEN.labels(*name.split(":", 1))

    def has_news(self, *, in_hand: bool) -> bool:
        """Whether the gate must be told something; that a probe found nothing is known once nothing is *in_hand*."""
        return bool(self._news) or (self._probing and not in_hand)

    def heard(self, claim: Claim) -> None:
        """What a claim said of the gate."""
        self._listens = self._listens or claim.gate_listens
        self._probing = self._probing or claim.probe
        if claim.paused != self._paused:
            self._paused = claim.paused
            log.info("account %s is %s by an operator", self._name, "paused" if claim.paused else "resumed")
        if claim.classes != self._classes:
            self._classes = claim.classes
            self._class_pauses_ms = json.decode(claim.classes) if claim.classes else {}

    def paused_ms(self, kind: str) -> float:
        """How long messages of *kind* wait from now on; 0 when they do not."""
        if not self._class_pauses_ms:
            return 0.0
        return max(0.0, self._class_pauses_ms.get(kind, 0.0) - self._clock.now_ms())

    def good(self) -> None:
        """An answer shows that the vendor works."""
        self._news.good += 1

    def unanswered(self) -> None:
        """A request got no answer."""
        self._news.bad += 1
        self._news.reason = "unreachable"

    def heed(self, outcomes: Sequence[Outcome], push: Push) -> None:
        """What the *outcomes* of a request mean for more than its own deliveries."""
        for outcome in set(outcomes):
            if outcome.verdict in _VENDOR_WORKS:
                self.good()
            elif outcome.scope is Scope.CLASS:
                self._pause_class(push.kind, outcome)
            elif outcome.scope is Scope.ACCOUNT and outcome is not UNREACHABLE:
                self._heed_account(outcome)

    def _heed_account(self, outcome: Outcome) -> None:
        news, verdict = self._news, outcome.verdict
        asked_ms = int(outcome.asked_ms(self._clock.now_ms()))
        if verdict is Verdict.REFRESH_AUTH:
            return
        news.reason = outcome.code or verdict.value
        if verdict is Verdict.MISCONFIGURED:
            news.open_now = True
            self._on_misconfigured(outcome.code)
            log.error("account %s is misconfigured, its work waits: %s", self._name, self._told(outcome))
        elif verdict in (Verdict.RATE_LIMITED, Verdict.QUOTA_EXHAUSTED):
            news.pause_ms = max(news.pause_ms, asked_ms or _PAUSE_MS)
            news.rate_limited = news.rate_limited or verdict is Verdict.RATE_LIMITED
        else:
            self._say_distrusted(outcome.code)
            news.bad += 1
            news.pause_ms = max(news.pause_ms, asked_ms if verdict is Verdict.RETRY_AFTER else 0)

    def _say_distrusted(self, code: str) -> None:
        """Every request meets the same certificate: one line a minute."""
        sentence = certificate_sentence(code)
        if sentence and time.monotonic() - self._distrusted_at > _SAID_AGAIN_S:
            self._distrusted_at = time.monotonic()
            log.error("account %s reaches nobody it trusts, its work waits: %s: %s", self._name, code, sentence)

    def _pause_class(self, kind: str, outcome: Outcome) -> None:
        """No process of the fleet sends this kind of message until then."""
        now_ms = self._clock.now_ms()
        wait_ms = int(outcome.asked_ms(now_ms)) or _CLASS_PAUSE_MS
        self._class_pauses_ms[kind] = now_ms + wait_ms
        self._news.class_pauses_ms[kind] = wait_ms
        if outcome.verdict is Verdict.MISCONFIGURED:
            log.error("account %s cannot send messages of kind %s: %s", self._name, kind, self._told(outcome))

    def _told(self, outcome: Outcome) -> str:
        """The code with what the vendor's table says of it, the mend included."""
        row = self._codes.get(outcome.code)
        return f"{outcome.code}: {row.meaning}" if row is not None else outcome.code

    async def report(self, *, in_hand: bool) -> bool:
        """Tell the gate what it must hear; whether what waits in this process must go back.

        Raises :class:`RedisUnusable`; the news is kept then.
        """
        news = self._news
        # A probe that was suppressed, or told to wait, says nothing of the vendor: the next one may go at once.
        news.release = self._probing and not in_hand and not (news.good or news.bad or news.open_now)
        if not news and not (news.good and self._listens):
            return False
        self._news = GateNews()
        try:
            state, wait_ms = await self._ledger.tell_gate(news)
        except BaseException:
            self._news.add(news)
            raise
        self._probing = self._probing and not (news.good or news.bad or news.open_now or news.release)
        self._listens = state == "open" or news.rate_limited or (not news.good and (news.bad > 0 or self._listens))
        self._breaker_open.set(1 if wait_ms else 0)
        return bool(wait_ms or news.pause_ms)

    def forget_good(self) -> None:
        """Good answers that the gate did not ask for are not kept for later."""
        self._news.good = 0
