"""What a vendor worker process runs beside Celery: one event loop in a thread, and in it the drains of its vendors.

Celery's slots only wait for it. The order of the end: stop claiming, let what is in flight finish, settle, close the
connections, stop the loop, join its thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import socket
import threading
from collections.abc import Coroutine, Iterator, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Any

import uvloop

from pushfleet_workers import registry
from pushfleet_workers.account import AccountSettings
from pushfleet_workers.callers import Caller, Callers
from pushfleet_workers.catalogue import Catalogue
from pushfleet_workers.clock import FleetClock
from pushfleet_workers.courier import Courier
from pushfleet_workers.credential_store import Accounts, Change
from pushfleet_workers.drain import Drain
from pushfleet_workers.erasure import RecheckErased
from pushfleet_workers.errors import FleetError, RedisUnusable, where_raised
from pushfleet_workers.ledger import AccountKeys, Ledger, VendorKeys
from pushfleet_workers.ledger.ledger import BEAT_S, Breaker, Rate
from pushfleet_workers.next_channel import NextChannel
from pushfleet_workers.peace import Parking
from pushfleet_workers.peace.caps import AccountCaps
from pushfleet_workers.peace.device_day import DeviceDays
from pushfleet_workers.recheck import Rechecker
from pushfleet_workers.redis_link import Link, ReplyError
from pushfleet_workers.retry import RetryPolicy
from pushfleet_workers.settings import Settings
from pushfleet_workers.token_feedback import TokenFeedback
from pushfleet_workers.tokens.erasures import Erasures
from pushfleet_workers.wake import Bell, Trigger

__all__ = ["FleetRuntime", "rate_of"]

log = logging.getLogger(__name__)

_LOOK_S = 1.0
_RUN_OUT_S = 5.0


def rate_of(account: AccountSettings) -> Rate | None:
    """The account's limit, its burst filled in; None where it has none."""
    if account.rate_per_s is None:
        return None
    return Rate(account.rate_per_s, account.burst or max(1, int(account.rate_per_s / 2)))


class FleetRuntime:
    """The drains of some vendors in this process; all methods may be called from any thread."""

    def __init__(self, settings: Settings, trigger: Trigger) -> None:
        self._settings = settings
        self._trigger = trigger
        self.owner = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._drains: dict[str, Drain] = {}
        self._links: list[Link] = []
        self._chores: list[asyncio.Task[None]] = []
        self._called: dict[Courier, Caller] = {}
        self._accounts = {(vendor, name): account for vendor, name, account in settings.each_account()}
        self._kept = contextlib.ExitStack()
        self._couriers_made = 0
        self._clock = FleetClock()
        self._stopped: Future[None] | None = None

    def start(self, vendors: Sequence[str]) -> None:
        """Start the loop, and look for work of *vendors* by ourselves once a second.

        Redis may be away meanwhile. Raises :class:`FleetError` for settings or credentials that cannot be used.
        """
        started = threading.Event()

        def own_the_loop() -> None:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                self._loop = runner.get_loop()
                self._loop.call_soon(started.set)
                self._loop.run_forever()

        self._thread = threading.Thread(target=own_the_loop, name="pushfleet-loop", daemon=True)
        self._thread.start()
        started.wait()
        self._submit(self._start(vendors)).result()

    def drain(self, vendor: str) -> None:
        """Drain *vendor* until it is dry; blocks. Returns at once where a drain of it runs already."""
        drain = self._drains.get(vendor)
        if drain is not None:
            self._submit(drain.run()).result()

    def stop(self) -> None:
        """Claim nothing any more, and begin to finish or give back what is in hand; returns at once."""
        if self._stopped is None and self._loop is not None:
            self._stopped = self._submit(self._stop())

    def close(self) -> None:
        """Wait for :meth:`stop`, close the connections and end the loop."""
        self.stop()
        if self._stopped is None or self._loop is None or self._thread is None:
            return
        try:
            self._stopped.result(self._settings.worker.shutdown_s + _RUN_OUT_S)
            self._submit(self._close()).result(_RUN_OUT_S)
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(_RUN_OUT_S)

    def _submit(self, work: Coroutine[Any, Any, None]) -> Future[None]:
        assert self._loop is not None
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    # ---- in the loop

    def _link(self, url: str, *, waits_s: float = 0.0) -> Link:
        """A connection; *waits_s* is how long its commands may block before they answer at all."""
        timeout_s = self._settings.redis.timeout_s + waits_s
        link = Link(url, name=f"pushfleet-worker-{os.getpid()}", timeout_s=timeout_s)
        self._links.append(link)
        return link

    async def _start(self, vendors: Sequence[str]) -> None:
        redis = self._settings.redis
        queue = self._link(redis.queue_url)
        state = queue if redis.state_url == redis.queue_url else self._link(redis.state_url)
        self._queue, self._state = queue, state
        self._callers = Callers(queue, redis.prefix, self._clock)
        self._feedback = TokenFeedback(state, queue, redis.prefix, self._settings.deaths, self._clock.now_ms)
        self._credentials = Accounts(self._settings, queue, secrets=True)
        self._kept.callback(self._credentials.close)
        for vendor in vendors:
            bell = Bell(
                queue,
                self._link(redis.queue_url, waits_s=self._settings.worker.linger_s),
                VendorKeys(redis.prefix, vendor),
                self.owner,
            )
            drain = Drain(
                vendor,
                [],
                bell,
                self._trigger,
                linger_s=self._settings.worker.linger_s,
                drains_max=self._settings.worker.drains_max,
            )
            for credential, account in self._settings.accounts.get(vendor, {}).items():
                drain.couriers.append(self._courier(vendor, credential, account, drain))
            self._drains[vendor] = drain
            self._chores += [asyncio.create_task(self._look(drain)), asyncio.create_task(self._watch(drain))]
        try:
            for change in await self._credentials.refresh():
                await self._take_up(change)
        except (RedisUnusable, ReplyError) as problem:
            # It was there a moment ago, and will be again.
            log.warning("the stored credentials were not looked at: %s", problem)
        self._chores += [asyncio.create_task(self._beat()), asyncio.create_task(self._follow())]

    async def _follow(self) -> None:
        """Take up what changes among the stored credentials."""
        async for changes in self._credentials.changes():
            for change in changes:
                try:
                    await self._take_up(change)
                except Exception as problem:  # noqa: BLE001 - the changes after it must not go unheard
                    log.error("taking up %s:%s raised %s", change.vendor, change.credential, where_raised(problem))

    async def _take_up(self, change: Change) -> None:
        name = change.vendor, change.credential
        drain = self._drains.get(change.vendor)
        if drain is not None:
            await self._dismiss(drain, f"{change.vendor}:{change.credential}")
        if change.account is None:
            del self._accounts[name]
            log.info("credential %s:%s is gone", *name)
            return
        self._accounts[name] = change.account
        if drain is None or self._stopped is not None:
            return
        try:
            drain.couriers.append(self._courier(*name, change.account, drain))
        except FleetError as problem:
            # A stored credential that cannot be used holds up nobody else.
            log.error("credential %s:%s cannot be used: %s", *name, problem)
            return
        drain.changed()
        log.info("credential %s:%s is taken up", *name)

    async def _dismiss(self, drain: Drain, name: str) -> None:
        """Let the courier of an account finish what is in its hand; its leases are kept until then."""
        for courier in [courier for courier in drain.couriers if courier.name == name]:
            await courier.stop(self._settings.worker.shutdown_s)
            drain.couriers.remove(courier)
            await self._callers.leave(self._called.pop(courier))

    def _courier(self, vendor_name: str, credential: str, account: AccountSettings, drain: Drain) -> Courier:
        settings, queue, state = self._settings, self._queue, self._state
        self._couriers_made += 1
        vendor = registry.load(vendor_name)
        keys = AccountKeys(settings.redis.prefix, vendor_name, credential)
        ledger = Ledger(
            queue,
            keys,
            # What a dismissed courier could not settle any more comes back as from a process that died.
            f"{self.owner}-{self._couriers_made}",
            rate=rate_of(account),
            breaker=Breaker(
                settings.breaker.failures,
                int(settings.breaker.open_first_s * 1000),
                int(settings.breaker.open_longest_s * 1000),
            ),
            letters_max=settings.dead_letters.kept_max,
        )
        apart_ms = settings.redis.clocks_apart_ms
        caps = AccountCaps(vendor_name, account)
        days = DeviceDays(state, settings.redis.prefix, vendor_name, credential, caps, apart_ms)
        caller = self._callers.enter(vendor, credential, account)
        mover = NextChannel(
            state, queue, self._accounts, settings.redis.prefix, (vendor_name, credential), self._clock, self._trigger
        )
        app, prefix = settings.apps[account.app], settings.redis.prefix
        parking = Parking(state, prefix, app, vendor_name, credential, clocks_apart_ms=settings.redis.clocks_apart_ms)
        rechecker = Rechecker(
            state,
            prefix,
            self._clock,
            vendor_name,
            credential,
            queue=queue,
            recall_window_s=app.recall_window_s,
            reads=app.reads,
            parking=parking,
            days=days,
            app_name=app.name,
            locale=app.locale,
            catalogue=Catalogue(settings.texts),
        )
        courier = Courier(
            vendor=vendor,
            credential=credential,
            account=account,
            ledger=ledger,
            transport=caller.transport,
            authorization=caller.authorization,
            clock=self._clock,
            policy=RetryPolicy(
                attempts_max=account.attempts_max,
                first_s=settings.retry.first_s,
                longest_s=settings.retry.longest_s,
                drop_unknown=account.on_unknown == "drop",
            ),
            feedback=partial(self._feedback.tell, vendor_name, credential),
            recheck=RecheckErased(rechecker.recheck, Erasures(state, prefix)),
            on_change=drain.changed,
            mover=mover,
            days=days,
            forget=rechecker.forget_dropped,
            on_misconfigured=partial(self._credentials.refused, vendor_name, credential, account),
            settle_s=settings.worker.settle_ms / 1000,
            recheck_s=settings.worker.recheck_s,
        )
        self._called[courier] = caller
        return courier

    async def _look(self, drain: Drain) -> None:
        """Hints may be lost: once a second this process looks for work by itself."""
        while True:
            if drain.couriers:
                await drain.run(linger=False)
            await asyncio.sleep(_LOOK_S)

    async def _watch(self, drain: Drain) -> None:
        """Give back the work of processes that died, and of accounts that an operator pauses; heed what is slow."""
        while True:
            for courier in [courier for courier in drain.couriers if courier.ledger.knows_the_dead]:
                # One account's trouble is no other's.
                with self._told_of_trouble("nobody looks for dead processes and pauses of", courier):
                    await courier.heed_operator()
                    given_back = await courier.ledger.reap()
                    if given_back:
                        log.warning("%d deliveries of %s came back from a dead process", given_back, courier.name)
                    await courier.heed_slow_answers()
            await asyncio.sleep(_LOOK_S)

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(BEAT_S)
            for courier in [courier for drain in self._drains.values() for courier in drain.couriers]:
                with self._told_of_trouble("the leases were not renewed of", courier):
                    await courier.beat()

    @contextlib.contextmanager
    def _told_of_trouble(self, what: str, courier: Courier) -> Iterator[None]:
        try:
            yield
        except (RedisUnusable, ReplyError) as problem:
            log.warning("%s %s: %s", what, courier.name, problem)

    async def _stop(self) -> None:
        for drain in self._drains.values():
            drain.stop()
        couriers = [courier for drain in self._drains.values() for courier in drain.couriers]
        await asyncio.gather(*(courier.stop(self._settings.worker.shutdown_s) for courier in couriers))

    async def _close(self) -> None:
        for chore in self._chores:
            chore.cancel()
        await asyncio.gather(*self._chores, return_exceptions=True)
        for caller in self._called.values():
            await self._callers.leave(caller)
        self._kept.close()
        for link in self._links:
            await link.close()
