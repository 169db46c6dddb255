"""Applies the reports of the stream, batch by batch: a batch is read when the one before is done."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TypeVar

from prometheus_client import Counter, Gauge

from pushfleet_workers.errors import RedisUnusable
from pushfleet_workers.redis_link import ReplyError
from pushfleet_workers.reports.entry import InvalidEntry, Told, read_entry
from pushfleet_workers.reports.stream import Entry, ReportStream
from pushfleet_workers.settings import AppSettings
from pushfleet_workers.tokens.changes import Report
from pushfleet_workers.tokens.confirmations import Confirmation, ConfirmationStore, Confirmed
from pushfleet_workers.tokens.store import Reported, TokenStore

__all__ = ["CONFIRMATIONS", "REPORTS", "WAITING", "ReportConsumer"]

T = TypeVar("T", Report, Confirmation)

log = logging.getLogger(__name__)

REPORTS = Counter(
    "pushfleet_state_reports",
    "State reports from the stream: applied, outdated, unknown (no such device), malformed and dropped (entries).",
    ["result"],
)
CONFIRMATIONS = Counter(
    "pushfleet_delivery_confirmations",
    "Confirmations from the stream that devices have messages: applied, outdated, unknown (no such device), malformed, "
    "and parking_off (their app waits for none).",
    ["result"],
)
WAITING = Gauge("pushfleet_state_reports_waiting", "Entries in the stream of state reports.")

_ENTRIES_AT_ONCE = 500
_AT_ONCE = 1_000
_WAIT_MS = 1_000
_TAKE_OVER_AFTER_MS = 15_000
_BOUND_EVERY_S = 5.0


class ReportConsumer:
    """Moves reports and confirmations from the stream into the token state.

    Confirmations that are of no use never cost the reports beside them: the state would be wrong until the next ones.

    * **apps** - those that there are; an entry of another is put aside.
    * **now_ms** - Redis' time.
    """

    def __init__(
        self,
        stream: ReportStream,
        store: TokenStore,
        confirmations: ConfirmationStore,
        apps: Mapping[str, AppSettings],
        now_ms: Callable[[], int],
    ) -> None:
        self._stream = stream
        self._store = store
        self._confirmations = confirmations
        self._apps = apps
        self._now_ms = now_ms
        self._bound_at = 0.0

    async def run(self) -> None:
        """Work until cancelled; what breaks off is done again, which changes nothing."""
        while True:
            try:
                await self._stream.prepare()
                while True:
                    await self.step(_WAIT_MS)
            except (RedisUnusable, ReplyError) as problem:
                log.warning("state reports are not read for a moment: %s", type(problem).__name__)
                await asyncio.sleep(1)

    async def step(self, wait_ms: int = 0) -> int:
        """Apply what is there, or comes within *wait_ms* (0: whatever time it takes); gives how many entries."""
        if time.monotonic() - self._bound_at > _BOUND_EVERY_S:
            self._bound_at = time.monotonic()
            waiting, dropped = await self._stream.bound()
            WAITING.set(waiting)
            if dropped:
                REPORTS.labels("dropped").inc(dropped)
                log.error("the stream of state reports is full: its %d oldest entries were dropped", dropped)
            await self.apply(await self._stream.take_over(_TAKE_OVER_AFTER_MS, _ENTRIES_AT_ONCE))
        entries = await self._stream.read(_ENTRIES_AT_ONCE, wait_ms)
        await self.apply(entries)
        return len(entries)

    async def apply(self, entries: Sequence[Entry]) -> None:
        """Apply *entries* and take them out; raises :class:`RedisUnusable`, and then all of it can be repeated."""
        if not entries:
            return
        reports: dict[str, list[Report]] = {}
        confirmations: dict[str, list[Confirmation]] = {}
        for entry in entries:
            told = self._read(entry)
            if isinstance(told, str):
                await self._stream.put_aside(entry, told)
                REPORTS.labels("malformed").inc()
                continue
            if told.problem:
                await self._stream.put_aside(entry, told.problem)
                CONFIRMATIONS.labels("malformed").inc()
            reports.setdefault(told.app, []).extend(told.reports)
            confirmations.setdefault(told.app, []).extend(told.confirmations)
        for app, some in reports.items():
            await self._apply(app, some, self._store.report, REPORTS)
        for app, others in confirmations.items():
            await self._apply(app, others, self._confirmations.confirm, CONFIRMATIONS)
        await self._stream.end(entries)

    async def _apply(
        self,
        app: str,
        given: Sequence[T],
        take_down: Callable[[str, Sequence[T]], Awaitable[Reported | Confirmed]],
        counter: Counter,
    ) -> None:
        if len(given) > _AT_ONCE:
            for first in range(0, len(given), _AT_ONCE):
                await self._apply(app, given[first : first + _AT_ONCE], take_down, counter)
            return
        try:
            done = await take_down(app, given)
        except ReplyError as problem:
            if not str(problem).startswith(("ERR", "WRONGTYPE")):
                raise
            # A user's keys are not what they should be: nobody else is to wait for that.
            if len(given) == 1:
                log.error("what is told of a device cannot be applied: the token state of its user is damaged")
                counter.labels("malformed").inc()
                return
            middle = len(given) // 2
            await self._apply(app, given[:middle], take_down, counter)
            await self._apply(app, given[middle:], take_down, counter)
            return
        for result in ("applied", "outdated", "unknown"):
            counter.labels(result).inc(getattr(done, result))

    def _read(self, entry: Entry) -> Told | str:
        """What *entry* tells, or what is wrong with it."""
        try:
            told = read_entry(entry.fields, entry.time_ms, self._now_ms())
        except InvalidEntry as problem:
            return str(problem)
        if told.app not in self._apps:
            return "the settings have no such app"
        if self._apps[told.app].parks or not told.confirmations:
            return told
        if not told.reports:
            return "nothing is parked for the app: its foreground_ack is not park"
        CONFIRMATIONS.labels("parking_off").inc(len(told.confirmations))
        return told._replace(confirmations=())
