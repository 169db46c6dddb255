"""The totals that live in Redis, as Prometheus metrics: exported by the API process alone.

Read in the background once in a while, so that a scrape never waits for Redis and many scrapers cost no more than one.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Mapping, Sequence

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from pushfleet_workers.audit import AccountBook, Books, read_books
from pushfleet_workers.clock import FleetClock
from pushfleet_workers.errors import RedisUnusable
from pushfleet_workers.receipts.book import read_counts
from pushfleet_workers.redis_link import Link, ReplyError
from pushfleet_workers.settings import Settings
from pushfleet_workers.tokens.death_watch import DeathWatch

__all__ = ["METRICS", "Stock"]

log = logging.getLogger(__name__)

_EVERY_S = 2.0

METRICS: dict[str, tuple[type[CounterMetricFamily | GaugeMetricFamily], str, tuple[str, ...]]] = {
    "pushfleet_accepted_entries_total": (CounterMetricFamily, "Entries that producers added.", ("lane",)),
    "pushfleet_malformed_entries_total": (CounterMetricFamily, "Entries that could not be routed.", ("lane",)),
    "pushfleet_ingress_backlog": (GaugeMetricFamily, "Entries that no router is done with.", ("lane",)),
    "pushfleet_ingress_oldest_age_seconds": (GaugeMetricFamily, "Age of the oldest such entry.", ("lane",)),
    "pushfleet_ends_total": (
        CounterMetricFamily,
        "Deliveries by how they ended; those that never had a vendor have empty labels for it.",
        ("vendor", "account", "app", "lane", "end", "reason"),
    ),
    "pushfleet_backlog": (GaugeMetricFamily, "Deliveries that have not ended.", ("vendor", "account", "state")),
    "pushfleet_oldest_age_seconds": (GaugeMetricFamily, "Age of the oldest ready delivery.", ("vendor", "account")),
    "pushfleet_dead_letters": (GaugeMetricFamily, "Dead letters that wait for somebody.", ("vendor", "account")),
    "pushfleet_replayed_deliveries_total": (
        CounterMetricFamily,
        "Deliveries that were dead and that an operator put back; they count as dead in pushfleet_ends_total still.",
        ("vendor", "account", "lane", "reason"),
    ),
    "pushfleet_unknown_attempts_total": (
        CounterMetricFamily,
        "Attempts whose outcome nobody knows: no answer came, or none that can be read, or the process died.",
        ("vendor", "account"),
    ),
    "pushfleet_receipts_total": (
        CounterMetricFamily,
        "Receipts by what they tell; those that apps report themselves have empty labels for the vendor.",
        ("vendor", "account", "app", "event"),
    ),
    "pushfleet_account_paused": (
        GaugeMetricFamily,
        "1 while an account's gate is shut: its breaker is open or the vendor asked for a pause.",
        ("vendor", "account"),
    ),
    "pushfleet_account_operator_pause": (
        GaugeMetricFamily,
        "1 while an operator pauses an account.",
        ("vendor", "account"),
    ),
    "pushfleet_death_guard": (
        GaugeMetricFamily,
        "1 while an account's dead tokens are only passed over: somebody must look.",
        ("vendor", "account"),
    ),
    "pushfleet_books_balanced": (GaugeMetricFamily, "1 while every book balances.", ()),
}
"""Name to kind, help and labels."""


class Stock(Collector):
    """What Redis held when it was last read; nothing before the first reading.

    * **apps** - vendor and credential to the app they belong to.
    """

    def __init__(self, settings: Settings, link: Link, apps: Mapping[tuple[str, str], str]) -> None:
        self._settings = settings
        self._link = link
        self._clock = FleetClock()
        self._books: Books | None = None
        self._guarded: set[str] = set()
        self._receipts: dict[str, dict[tuple[str, str, str], int]] = {}
        self._apps = apps
        self._highest: dict[tuple[str, ...], float] = {}

    async def keep_reading(self) -> None:
        """Read again and again until cancelled."""
        while True:
            try:
                await self.read()
            except (RedisUnusable, ReplyError) as problem:
                log.warning("the totals were not read: %s", problem)
                self._books = None
            await asyncio.sleep(_EVERY_S)

    async def read(self) -> None:
        """Read once; raises :class:`RedisUnusable`."""
        seconds, micros = await self._link.call("TIME")
        self._clock.heard(int(seconds) * 1000 + int(micros) / 1000)
        prefix = self._settings.redis.prefix
        self._receipts = {app: await read_counts(self._link, prefix, app) for app in self._settings.apps}
        books = await read_books(self._link, prefix, list(self._apps), recount=False)
        self._guarded = await DeathWatch(self._link, prefix, self._settings.deaths).guarded(list(books.accounts))
        self._books = books

    def collect(self) -> Iterator[CounterMetricFamily | GaugeMetricFamily]:
        """The metrics, for prometheus-client."""
        books = self._books
        if books is None:
            return
        families = {
            name: kind(name.removesuffix("_total"), text, labels=labels)
            for name, (kind, text, labels) in METRICS.items()
        }
        for name, labels, value in self._samples(books):
            shown = self._held(name, labels, value) if METRICS[name][0] is CounterMetricFamily else value
            families[name].add_metric(labels, shown)
        yield from families.values()

    def _held(self, name: str, labels: Sequence[str], value: float) -> float:
        """A failover takes the last moments back: a total that fell a little would be taken for one that began anew."""
        highest = self._highest.get((name, *labels), 0.0)
        shown = highest if highest / 2 < value < highest else value
        self._highest[name, *labels] = shown
        return shown

    def _samples(self, books: Books) -> Iterator[tuple[str, list[str], float]]:
        now_ms = self._clock.now_ms()
        for lane, book in books.lanes.items():
            yield "pushfleet_accepted_entries_total", [lane], book.added
            yield "pushfleet_malformed_entries_total", [lane], book.malformed
            yield "pushfleet_ingress_backlog", [lane], book.present
            yield "pushfleet_ingress_oldest_age_seconds", [lane], _age_s(book.oldest_ms, now_ms)
            for name, count in book.suppressed.items():
                app, reason = name.split(":")
                yield "pushfleet_ends_total", ["", "", app, lane, "suppressed", reason], count
        for name, account in books.accounts.items():
            yield from self._account_samples(name, account, now_ms)
        for app, counts in self._receipts.items():
            for (vendor, credential, event), count in counts.items():
                yield "pushfleet_receipts_total", [vendor, credential, app, event], count
        yield "pushfleet_books_balanced", [], float(books.balanced)

    def _account_samples(self, name: str, account: AccountBook, now_ms: int) -> Iterator[tuple[str, list[str], float]]:
        vendor, _, credential = name.partition(":")
        owner = [vendor, credential]
        for state, count in (("ready", account.ready), ("leased", account.leased), ("delayed", account.delayed)):
            yield "pushfleet_backlog", [*owner, state], count
        yield "pushfleet_oldest_age_seconds", owner, _age_s(account.oldest_ms, now_ms)
        yield "pushfleet_dead_letters", owner, account.dead_letters
        yield "pushfleet_unknown_attempts_total", owner, account.unknown
        yield "pushfleet_account_paused", owner, float(account.open)
        yield "pushfleet_account_operator_pause", owner, float(account.operator_pause)
        yield "pushfleet_death_guard", owner, float(name in self._guarded)
        for dead, count in account.replayed.items():
            yield "pushfleet_replayed_deliveries_total", [*owner, *dead.split(":")], count
        for end, count in account.ends_ever.items():
            yield "pushfleet_ends_total", [*owner, self._apps.get((vendor, credential), ""), *end.split(":")], count


def _age_s(since_ms: int, now_ms: int) -> float:
    return max(0.0, (now_ms - since_ms) / 1000) if since_ms else 0.0
