"""Applies the reports of the stream, batch by batch: a batch is read when the one before is done."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Container, Sequence

from prometheus_client import Counter, Gauge

from pushfleet_workers.errors import RedisUnusable
from pushfleet_workers.redis_link import ReplyError
from pushfleet_workers.reports.entry import InvalidEntry, read_entry
from pushfleet_workers.reports.stream import Entry, ReportStream
from pushfleet_workers.tokens.changes import Report
from pushfleet_workers.tokens.store import TokenStore

__all__ = ["REPORTS", "WAITING", "ReportConsumer"]

log = logging.getLogger(__name__)

REPORTS = Counter(
    "pushfleet_state_reports",
    "State reports from the stream: applied, outdated, unknown (no such device), malformed and dropped (entries).",
    ["result"],
)
WAITING = Gauge("pushfleet_state_reports_waiting", "Entries in the stream of state reports.")

_ENTRIES_AT_ONCE = 500
_REPORTS_AT_ONCE = 1_000
_WAIT_MS = 1_000
_TAKE_OVER_AFTER_MS = 15_000
_BOUND_EVERY_S = 5.0


class ReportConsumer:
    """Moves reports from the stream into the token state.

    * **apps** - those that there are; an entry of another is put aside.
    * **now_ms** - Redis' time.
    """

    def __init__(
        self, stream: ReportStream, store: TokenStore, apps: Container[str], now_ms: Callable[[], int]
    ) -> None:
        self._stream = stream
        self._store = store
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
        by_app: dict[str, list[Report]] = {}
        for entry in entries:
            problem = self._sort_in(entry, by_app)
            if problem:
                await self._stream.put_aside(entry, problem)
                REPORTS.labels("malformed").inc()
        for app, reports in by_app.items():
            for first in range(0, len(reports), _REPORTS_AT_ONCE):
                await self._report(app, reports[first : first + _REPORTS_AT_ONCE])
        await self._stream.end(entries)

    async def _report(self, app: str, reports: Sequence[Report]) -> None:
        try:
            done = await self._store.report(app, reports)
        except ReplyError as problem:
            if not str(problem).startswith(("ERR", "WRONGTYPE")):
                raise
            # A user's keys are not what they should be: nobody else is to wait for that.
            if len(reports) == 1:
                log.error("a report cannot be applied: the token state of its user is damaged")
                REPORTS.labels("malformed").inc()
                return
            middle = len(reports) // 2
            await self._report(app, reports[:middle])
            await self._report(app, reports[middle:])
            return
        for result in ("applied", "outdated", "unknown"):
            REPORTS.labels(result).inc(getattr(done, result))

    def _sort_in(self, entry: Entry, by_app: dict[str, list[Report]]) -> str:
        """What is wrong with *entry*; empty when its reports are in *by_app*."""
        try:
            app, reports = read_entry(entry.fields, entry.time_ms, self._now_ms())
        except InvalidEntry as problem:
            return str(problem)
        if app not in self._apps:
            return "the settings have no such app"
        by_app.setdefault(app, []).extend(reports)
        return ""
