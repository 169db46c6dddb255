"""The router's process: a reader per lane, urgent first by having one of its own, and the chores of the streams."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import socket
import time
from collections.abc import Awaitable, Callable
from functools import partial

from msgspec.structs import replace

from pushfleet.message import LANES, Lane
from pushfleet_workers.app import make_app
from pushfleet_workers.audit import accounts_key
from pushfleet_workers.checks import check_redis, refuse_old_redis
from pushfleet_workers.clock import FleetClock
from pushfleet_workers.credential_store import Accounts
from pushfleet_workers.credential_store.accounts import LOOK_S
from pushfleet_workers.errors import RedisUnusable
from pushfleet_workers.hooks import metrics
from pushfleet_workers.hooks.probes import open_probes
from pushfleet_workers.ingress import IngressStream, Raw
from pushfleet_workers.ledger.keys import MARK_BUCKET_MS, AccountKeys
from pushfleet_workers.ledger.ledger import trim_marks
from pushfleet_workers.ledger.letters import trim_letters
from pushfleet_workers.process import calm_the_collector
from pushfleet_workers.redis_link import Link, ReplyError
from pushfleet_workers.router import Router
from pushfleet_workers.settings import Settings
from pushfleet_workers.tasks import publish_drain
from pushfleet_workers.trigger import Publisher

__all__ = ["run_router"]

log = logging.getLogger(__name__)

_READ_WAIT_MS = 1_000
_REDIS_RETRY_S = 0.5
_CHORES_S = 60.0
_TAKE_OVER_AT_ONCE = 100


async def run_router(settings: Settings, stop: asyncio.Event) -> None:
    """Route until *stop* is set, then finish the batches in hand.

    Raises :class:`RedisUnusable` when Redis is not there at the start, or too old, and :class:`FleetError` when the
    port for metrics is taken.
    """
    calm_the_collector()
    process = _RouterProcess(settings)
    try:
        await process.prepare()
        await process.run(stop)
    finally:
        await process.close()


class _RouterProcess:
    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._links: list[Link] = []
        self._queue = self._link(settings.redis.queue_url)
        same = settings.redis.state_url == settings.redis.queue_url
        self._state = state = self._queue if same else self._link(settings.redis.state_url)
        self._clock = FleetClock()
        app = make_app(settings)
        self._publisher = Publisher(lambda vendor: publish_drain(app, vendor))
        self._router = Router(settings, self._queue, state, self._publisher.trigger, self._clock)
        self._credentials = Accounts(settings, self._queue, secrets=False)
        self._consumer = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
        self._waiting = {lane: self._link(settings.redis.queue_url, waits_s=_READ_WAIT_MS / 1000) for lane in LANES}
        self._streams: dict[Lane, IngressStream] = {lane: self._stream(lane) for lane in LANES}
        self._stopping = asyncio.Event()
        self._reading = False
        self._probes = open_probes(settings.metrics, role="router", ready=lambda: self._reading)

    def _link(self, url: str, *, waits_s: float = 0.0) -> Link:
        """A connection; *waits_s* is how long its commands may block before they answer at all."""
        timeout_s = self._settings.redis.timeout_s + waits_s
        link = Link(url, name=f"pushfleet-router-{os.getpid()}", timeout_s=timeout_s)
        self._links.append(link)
        return link

    def _stream(self, lane: Lane, reader: str = "") -> IngressStream:
        """A lane as one of our readers sees it, or whoever takes over what others left."""
        name = f"{self._consumer}-{reader}" if reader else self._consumer
        return IngressStream(self._queue, self._waiting[lane], self._settings.redis.prefix, lane, name)

    async def prepare(self) -> None:
        for about, link in {"redis.queue": self._queue, "redis.state": self._state}.items():
            await refuse_old_redis(link)
            for finding in await check_redis(link, about):
                if finding.wrong:
                    log.warning("%s: %s", finding.about, finding.sentence)
        await self._keep_time()
        for stream in self._streams.values():
            await stream.prepare()
        await self._take_up()
        names = [f"{vendor}:{credential}" for vendor, credential in self._credentials.apps]
        if names:
            await self._queue.call("SADD", accounts_key(self._settings.redis.prefix), *names)

    async def run(self, stop: asyncio.Event) -> None:
        router = self._settings.router
        # Bulk takes one entry at a time: what it costs a chat is one entry's work.
        readers = {"urgent": (1, router.batch), "normal": (router.readers, router.batch), "bulk": (1, 1)}
        tasks = [
            asyncio.create_task(self._again(self._chores, _CHORES_S)),
            asyncio.create_task(self._again(self._take_up, LOOK_S)),
        ]
        for lane, stream in self._streams.items():
            count, batch = readers[lane]
            one_at_a_time = asyncio.Lock()
            for number in range(count):
                reader = self._stream(lane, str(number))
                tasks.append(asyncio.create_task(self._read(reader, batch, one_at_a_time)))
            every_s = router.takeover_s / 3
            tasks.append(asyncio.create_task(self._again(partial(self._take_over, stream), every_s)))
        self._reading = True
        stopped = asyncio.create_task(stop.wait())
        await asyncio.wait({stopped, *tasks}, return_when=asyncio.FIRST_COMPLETED)
        self._reading = False
        self._stopping.set()
        stopped.cancel()
        for task in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(task, Exception):
                raise task

    async def _read(self, stream: IngressStream, batch: int, one_at_a_time: asyncio.Lock) -> None:
        """Readers of a lane take turns at the stream and overlap in everything after it."""
        raws: list[Raw] = []
        read_at = 0.0
        while not self._stopping.is_set():
            try:
                if not raws:
                    async with one_at_a_time:
                        raws = await stream.missed(batch) or await stream.read(batch, _READ_WAIT_MS)
                    read_at = time.monotonic()
                if raws:
                    await self._router.route(stream, raws)
                    raws = []
            except (RedisUnusable, ReplyError) as problem:
                metrics.REDIS_LOST.labels("router").inc()
                log.warning("the router waits for Redis, lane %s: %s", stream.lane, problem)
                await self._pause(_REDIS_RETRY_S)
                # A flushed Redis has no group any more.
                await self._prepare_again(stream)
                # Part of the batch may have been put. What does not get through in time must not hold up the lane.
                late = time.monotonic() - read_at > self._settings.router.takeover_s
                raws = [] if late else [replace(raw, again=True) for raw in raws]

    async def _prepare_again(self, stream: IngressStream) -> None:
        try:
            await stream.prepare()
        except (RedisUnusable, ReplyError) as problem:
            log.warning("lane %s cannot be prepared: %s", stream.lane, problem)

    async def _take_over(self, stream: IngressStream) -> None:
        idle_ms = int(self._settings.router.takeover_s * 1000)
        while raws := await stream.take_over(idle_ms, _TAKE_OVER_AT_ONCE):
            log.warning("%d entries of lane %s come from a router that is gone", len(raws), stream.lane)
            await self._router.route(stream, raws)

    async def _chores(self) -> None:
        """Forget the markers of parts that no entry of the streams can name, and what nobody came to look at."""
        await self._keep_time()
        await self._trim_letters()
        horizon = self._clock.now_ms() - 2 * MARK_BUCKET_MS
        for stream in self._streams.values():
            oldest = await stream.oldest_ms()
            horizon = min(horizon, oldest - MARK_BUCKET_MS if oldest is not None else horizon)
        for stream in self._streams.values():
            await trim_marks(self._queue, stream.keys, horizon)
            await stream.forget_idle_consumers()
        for vendor, credential in list(self._credentials.apps):
            await trim_marks(self._queue, AccountKeys(self._settings.redis.prefix, vendor, credential), horizon)

    async def _trim_letters(self) -> None:
        """Of accounts that are gone as well."""
        prefix = self._settings.redis.prefix
        known = [name.decode().split(":", 1) for name in await self._queue.call("SMEMBERS", accounts_key(prefix))]
        streams = [AccountKeys(prefix, *name).dead for name in known]
        streams += [stream.keys.refused for stream in self._streams.values()]
        await trim_letters(self._queue, streams, self._clock.now_ms() - self._settings.dead_letters.kept_ms)

    async def _take_up(self) -> None:
        """Take up what changed among the stored credentials."""
        for change in await self._credentials.refresh():
            self._router.learn(*change)
            what = "gone" if change.account is None else "taken up"
            log.info("credential %s:%s is %s", change.vendor, change.credential, what)

    async def _keep_time(self) -> None:
        """What is decided before the first put goes by Redis' clock as well."""
        seconds, micros = await self._queue.call("TIME")
        self._clock.heard(int(seconds) * 1000 + int(micros) / 1000)

    async def _again(self, chore: Callable[[], Awaitable[None]], every_s: float) -> None:
        while not self._stopping.is_set():
            try:
                await chore()
            except (RedisUnusable, ReplyError) as problem:
                log.warning("a chore of the router failed: %s", problem)
            await self._pause(every_s)

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            pass

    async def close(self) -> None:
        self._probes.close()
        self._publisher.close()
        for link in self._links:
            await link.close()
