"""The API's process: the application on granian, in this process, with the totals of Redis among its metrics."""

from __future__ import annotations

import asyncio
import contextlib
import logging

from granian.constants import Interfaces
from granian.server.embed import Server
from prometheus_client import REGISTRY

from pushfleet_workers.api import create_app
from pushfleet_workers.checks import refuse_old_redis
from pushfleet_workers.clock import FleetClock
from pushfleet_workers.errors import RedisUnusable
from pushfleet_workers.redis_link import Link
from pushfleet_workers.redis_server import free_port
from pushfleet_workers.settings import Settings
from pushfleet_workers.stock import Stock
from pushfleet_workers.tokens.store import TokenStore

__all__ = ["run_api"]

log = logging.getLogger(__name__)

_CLOCK_EVERY_S = 10.0


async def run_api(settings: Settings, stop: asyncio.Event) -> None:
    """Serve the API until *stop* is set.

    Raises :class:`RedisUnusable` when Redis is not there at the start, or too old.
    """
    redis = settings.redis
    queue = Link(redis.queue_url, name="pushfleet-api", timeout_s=redis.timeout_s)
    state = queue if redis.state_url == redis.queue_url else Link(redis.state_url, name="pushfleet-api")
    clock = FleetClock()
    stock = Stock(settings, queue)
    chores: list[asyncio.Task[None]] = []
    try:
        await refuse_old_redis(queue)
        await refuse_old_redis(state)
        REGISTRY.register(stock)
        chores = [asyncio.create_task(stock.keep_reading()), asyncio.create_task(_keep_time(clock, state))]
        await _serve(settings, TokenStore(state, redis.prefix, clock.now_ms, lease_s=settings.api.foreground_lease_s),
                     clock, state, stop)  # fmt: skip
    finally:
        with contextlib.suppress(KeyError):
            REGISTRY.unregister(stock)
        for chore in chores:
            chore.cancel()
        await asyncio.gather(*chores, return_exceptions=True)
        for link in {queue, state}:
            await link.close()


async def _serve(settings: Settings, store: TokenStore, clock: FleetClock, state: Link, stop: asyncio.Event) -> None:
    async def ready() -> bool:
        try:
            return bool(await state.call("PING") == b"PONG")
        except RedisUnusable:
            return False

    key = settings.api.key.get_secret_value() if settings.api.key is not None else ""
    app = create_app(
        store,
        apps=settings.apps,
        accounts={(vendor, credential): account.app for vendor, credential, account in settings.each_account()},
        now_ms=clock.now_ms,
        ready=ready,
        key=key,
    )
    port = settings.api.port or free_port()
    server = Server(app, address=settings.api.host, port=port, interface=Interfaces.ASGI, log_enabled=False)
    serving = asyncio.create_task(server.serve())
    stopping = asyncio.create_task(stop.wait())
    log.info("the API listens on %s:%d", settings.api.host, port)
    await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    server.stop()  # type: ignore[no-untyped-call]
    await serving


async def _keep_time(clock: FleetClock, link: Link) -> None:
    while True:
        with contextlib.suppress(RedisUnusable):
            seconds, micros = await link.call("TIME")
            clock.heard(int(seconds) * 1000 + int(micros) / 1000)
        await asyncio.sleep(_CLOCK_EVERY_S)
