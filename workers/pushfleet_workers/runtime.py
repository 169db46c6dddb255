"""What a vendor worker process runs beside Celery: one event loop in a thread, and in it the drains of its vendors.

Celery's slots only wait for it. The order of the end: stop claiming, let what is in flight finish, settle, close the
connections, stop the loop, join its thread.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import socket
import threading
from collections.abc import Coroutine, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Any

import uvloop

from pushfleet_workers import registry
from pushfleet_workers.account import AccountSettings
from pushfleet_workers.callers import Caller, Callers
from pushfleet_workers.checks import refuse_old_redis
from pushfleet_workers.clock import FleetClock
from pushfleet_workers.courier import Courier
from pushfleet_workers.drain import Drain
from pushfleet_workers.errors import RedisUnusable
from pushfleet_workers.ledger import AccountKeys, Ledger, VendorKeys
from pushfleet_workers.ledger.ledger import BEAT_S, Breaker, Rate
from pushfleet_workers.next_channel import NextChannel
from pushfleet_workers.recheck import Rechecker
from pushfleet_workers.redis_link import Link, ReplyError
from pushfleet_workers.retry import RetryPolicy
from pushfleet_workers.settings import Settings
from pushfleet_workers.token_feedback import TokenFeedback
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
        self._called: list[Caller] = []
        self._accounts = {(vendor, name): account for vendor, name, account in settings.each_account()}
        self._clock = FleetClock()
        self._stopped: Future[None] | None = None

    def start(self, vendors: Sequence[str]) -> None:
        """Start the loop, and look for work of *vendors* by ourselves once a second."""
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
        for link in {queue, state}:
            await refuse_old_redis(link)
        self._callers = Callers(queue, redis.prefix, self._clock)
        feedback = TokenFeedback(state, queue, redis.prefix, self._settings.deaths, self._clock.now_ms)
        for vendor in vendors:
            accounts = self._settings.accounts.get(vendor, {})
            bell = Bell(
                queue,
                self._link(redis.queue_url, waits_s=self._settings.worker.linger_s),
                VendorKeys(redis.prefix, vendor),
                self.owner,
            )
            couriers: list[Courier] = []
            drain = Drain(
                vendor,
                couriers,
                bell,
                self._trigger,
                linger_s=self._settings.worker.linger_s,
                drains_max=self._settings.worker.drains_max,
            )
            for credential, account in accounts.items():
                couriers.append(self._courier(vendor, credential, account, queue, state, drain, feedback))
            self._drains[vendor] = drain
            self._chores += [asyncio.create_task(self._look(drain)), asyncio.create_task(self._reap(drain))]
        self._chores.append(asyncio.create_task(self._beat()))

    def _courier(
        self,
        vendor_name: str,
        credential: str,
        account: AccountSettings,
        queue: Link,
        state: Link,
        drain: Drain,
        feedback: TokenFeedback,
    ) -> Courier:
        settings = self._settings
        vendor = registry.load(vendor_name)
        keys = AccountKeys(settings.redis.prefix, vendor_name, credential)
        ledger = Ledger(
            queue,
            keys,
            self.owner,
            rate=rate_of(account),
            breaker=Breaker(
                settings.breaker.failures,
                int(settings.breaker.open_first_s * 1000),
                int(settings.breaker.open_longest_s * 1000),
            ),
        )
        caller = self._callers.enter(vendor, credential, account)
        self._called.append(caller)
        next_channel = NextChannel(
            state, queue, self._accounts, settings.redis.prefix, (vendor_name, credential), self._clock, self._trigger
        )
        return Courier(
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
            feedback=partial(feedback.tell, vendor_name, credential),
            recheck=Rechecker(state, settings.redis.prefix, self._clock, vendor_name, credential).refused,
            on_change=drain.changed,
            move=next_channel.move,
            elsewhere=next_channel.other_accounts,
            settle_s=settings.worker.settle_ms / 1000,
            recheck_s=settings.worker.recheck_s,
        )

    async def _look(self, drain: Drain) -> None:
        """Hints may be lost: once a second this process looks for work by itself."""
        while True:
            await drain.run(linger=False)
            await asyncio.sleep(_LOOK_S)

    async def _reap(self, drain: Drain) -> None:
        """Give back the work of processes that died."""
        while True:
            try:
                for courier in drain.couriers:
                    given_back = await courier.ledger.reap()
                    if given_back:
                        log.warning("%d deliveries of %s came back from a dead process", given_back, courier.name)
            except (RedisUnusable, ReplyError) as problem:
                log.warning("nobody looks for dead processes of %s: %s", drain.vendor, problem)
            await asyncio.sleep(_LOOK_S)

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(BEAT_S)
            try:
                for drain in self._drains.values():
                    for courier in drain.couriers:
                        await courier.beat()
            except (RedisUnusable, ReplyError) as problem:
                log.warning("the leases were not renewed: %s", problem)

    async def _stop(self) -> None:
        for drain in self._drains.values():
            drain.stop()
        couriers = [courier for drain in self._drains.values() for courier in drain.couriers]
        await asyncio.gather(*(courier.stop(self._settings.worker.shutdown_s) for courier in couriers))

    async def _close(self) -> None:
        for chore in self._chores:
            chore.cancel()
        await asyncio.gather(*self._chores, return_exceptions=True)
        for caller in self._called:
            await self._callers.leave(caller)
        for link in self._links:
            await link.close()
