"""The API's process: the application on granian, in this process, with the totals of Redis among its metrics."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections.abc import Coroutine, Iterator
from typing import Any

from prometheus_client import REGISTRY
from starlette.types import ASGIApp

from pushfleet import AsyncProducer
from pushfleet_workers.api import create_app, serve
from pushfleet_workers.api.accounts import account_routes, account_schemas
from pushfleet_workers.api.client_receipts import client_receipt_schemas
from pushfleet_workers.api.confirmations import confirmation_routes, confirmation_schemas
from pushfleet_workers.api.credentials import credential_routes, credential_schemas
from pushfleet_workers.api.dead_letters import dead_letter_routes, dead_letter_schemas
from pushfleet_workers.api.deaths import death_routes, death_schemas
from pushfleet_workers.api.erasure import erasure_routes, erasure_schemas
from pushfleet_workers.api.preferences import preference_routes, preference_schemas
from pushfleet_workers.api.reads import read_routes, read_schemas
from pushfleet_workers.api.recalls import recall_routes, recall_schemas
from pushfleet_workers.api.receipts import opened_accounts, receipt_routers
from pushfleet_workers.checks import check_redis, refuse_old_redis
from pushfleet_workers.clock import FleetClock
from pushfleet_workers.credential_store import Accounts
from pushfleet_workers.credential_store.management import CredentialManager
from pushfleet_workers.dead_letters import LetterDesk
from pushfleet_workers.death_desk import DeathDesk
from pushfleet_workers.death_keeper import DeathKeeper, keeper_key
from pushfleet_workers.death_webhook import DeathWebhook
from pushfleet_workers.device_keeper import DeviceKeeper
from pushfleet_workers.erasure import EraseDesk, ErasureKeeper
from pushfleet_workers.errors import FleetError, RedisUnusable
from pushfleet_workers.gate_desk import GateDesk
from pushfleet_workers.lease import Lease
from pushfleet_workers.redis_link import Link, ReplyError
from pushfleet_workers.reports import ReportConsumer, ReportStream
from pushfleet_workers.settings import Settings
from pushfleet_workers.stock import Stock
from pushfleet_workers.tokens.confirmations import ConfirmationStore
from pushfleet_workers.tokens.death_log import DeathLog
from pushfleet_workers.tokens.preference_store import PreferenceStore
from pushfleet_workers.tokens.reads import ReadStore
from pushfleet_workers.tokens.store import TokenStore

__all__ = ["run_api"]

log = logging.getLogger(__name__)

_CLOCK_EVERY_S = 10.0


async def run_api(settings: Settings, stop: asyncio.Event) -> None:
    """Serve the API until *stop* is set, then answer what is under way.

    Raises :class:`RedisUnusable` when Redis is not there at the start, or too old, and :class:`FleetError` when the
    address cannot be listened on.
    """
    redis = settings.redis
    queue = Link(redis.queue_url, name="pushfleet-api", timeout_s=redis.timeout_s)
    same = redis.state_url == redis.queue_url
    waiting = Link(redis.state_url, name="pushfleet-api-reports", timeout_s=redis.timeout_s)
    state = queue if same else Link(redis.state_url, name="pushfleet-api", timeout_s=redis.timeout_s)
    clock = FleetClock()
    accounts = Accounts(settings, queue, secrets=False)
    opened = opened_accounts(settings, queue)
    stock = Stock(settings, queue, accounts.apps)
    producer = AsyncProducer(
        redis.queue_url,
        prefix=redis.prefix,
        ingress_max=settings.ingress.length_max,
        memory_mark=settings.ingress.memory_mark,
        wait_replicas=settings.ingress.wait_replicas,
        wait_timeout_ms=settings.ingress.wait_timeout_ms,
        # A socket that gave up first would take "not yet" for a lost connection.
        socket_timeout_s=max(redis.timeout_s, settings.ingress.wait_timeout_ms / 1000 + 1),
    )
    chores: list[asyncio.Task[None]] = []
    try:
        for about, link in {"redis.queue": queue, "redis.state": state}.items():
            await refuse_old_redis(link)
            for finding in await check_redis(link, about):
                if finding.wrong:
                    log.warning("%s: %s", finding.about, finding.sentence)
        await _hear_time(clock, state)
        await accounts.refresh()
        REGISTRY.register(stock)
        chores = [
            asyncio.create_task(stock.keep_reading()),
            asyncio.create_task(_keep_time(clock, state)),
            asyncio.create_task(_follow(accounts)),
            *(asyncio.create_task(chore) for chore in _look_after_tokens(settings, queue, state, accounts, clock)),
        ]
        if settings.reports.stream:
            chores.append(asyncio.create_task(_read_reports(settings, state, waiting, clock)))
        if opened is not None:
            await opened.refresh()
            chores.append(asyncio.create_task(_keep_open(opened)))
        app = _make_app(settings, queue, state, accounts, opened, clock, producer)
        await _serve(app, settings, stop)
    finally:
        with contextlib.suppress(KeyError):
            REGISTRY.unregister(stock)
        for chore in chores:
            chore.cancel()
        await asyncio.gather(*chores, return_exceptions=True)
        if opened is not None:
            opened.close()
        await producer.aclose()
        for link in {queue, state, waiting}:
            await link.close()


def _make_app(
    settings: Settings,
    queue: Link,
    state: Link,
    accounts: Accounts,
    opened: Accounts | None,
    clock: FleetClock,
    producer: AsyncProducer,
) -> ASGIApp:
    key = settings.api.key.get_secret_value() if settings.api.key is not None else ""

    async def ready() -> bool:
        try:
            return bool(await state.call("PING") == b"PONG")
        except (RedisUnusable, ReplyError):
            return False

    desk = DeathDesk(state, queue, settings.redis.prefix, settings.deaths, clock.now_ms)
    return create_app(
        TokenStore(state, settings.redis.prefix, clock.now_ms, lease_s=settings.api.foreground_lease_s),
        apps=settings.apps,
        accounts=accounts.apps,
        now_ms=clock.now_ms,
        ready=ready,
        key=key,
        routers=[
            credential_routes(CredentialManager(settings, queue, state), open_to_callers=bool(key)),
            death_routes(desk, settings.apps, accounts.apps),
            erasure_routes(
                EraseDesk(state, queue, settings.redis.prefix, settings.deaths, clock.now_ms), settings.apps
            ),
            dead_letter_routes(LetterDesk(settings, queue, accounts)),
            account_routes(GateDesk(queue, settings.redis.prefix, accounts)),
            recall_routes(producer, settings.apps),
            read_routes(ReadStore(state, settings.redis.prefix, clock.now_ms), settings.apps, clock.now_ms),
            confirmation_routes(ConfirmationStore(state, settings.redis.prefix), settings.apps, clock.now_ms),
            preference_routes(PreferenceStore(state, settings.redis.prefix), settings.apps, clock.now_ms),
            *receipt_routers(settings, queue, state, opened, clock.now_ms),
        ],
        schemas={
            **credential_schemas(),
            **death_schemas(),
            **erasure_schemas(),
            **dead_letter_schemas(),
            **account_schemas(),
            **recall_schemas(),
            **read_schemas(),
            **confirmation_schemas(),
            **preference_schemas(),
            **client_receipt_schemas(),
        },
    )


async def _serve(app: ASGIApp, settings: Settings, stop: asyncio.Event) -> None:
    host = settings.api.host
    serving = asyncio.create_task(
        serve(app, host, settings.api.port, lambda port: log.info("the API listens on %s:%d", host, port))
    )
    stopping = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        stopping.cancel()
        serving.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await serving
    if not stop.is_set():
        raise FleetError("the API's server ended without being asked to")


def _look_after_tokens(
    settings: Settings, queue: Link, state: Link, accounts: Accounts, clock: FleetClock
) -> Iterator[Coroutine[Any, Any, None]]:
    """What one of the fleet's API processes does beside answering; the others stand by."""
    prefix, deaths, now_ms = settings.redis.prefix, settings.deaths, clock.now_ms
    lease = Lease(state, keeper_key(prefix))
    yield lease.keep()
    yield DeathKeeper(state, queue, prefix, deaths, accounts.apps, now_ms, lease).run()
    store = TokenStore(state, prefix, now_ms)
    yield DeviceKeeper(state, prefix, store, settings.apps, now_ms, lease).run()
    desk = EraseDesk(state, queue, prefix, deaths, now_ms)
    yield ErasureKeeper(state, queue, settings, accounts.apps, desk, store, lease).run()
    told = DeathLog(state, prefix, deaths.kept_max)
    for name, app in settings.apps.items():
        if app.deaths_webhook and app.deaths_secret is not None:
            secret = app.deaths_secret.get_secret_value()
            yield DeathWebhook(
                state, prefix, name, app.deaths_webhook, secret, deaths=told, lease=lease, now_ms=now_ms
            ).run()


async def _read_reports(settings: Settings, state: Link, waiting: Link, clock: FleetClock) -> None:
    prefix = settings.redis.prefix
    stream = ReportStream(state, waiting, prefix, f"api-{secrets.token_hex(6)}", settings.reports.length_max)
    store = TokenStore(state, prefix, clock.now_ms, lease_s=settings.api.foreground_lease_s)
    confirmations = ConfirmationStore(state, prefix)
    await ReportConsumer(stream, store, confirmations, settings.apps, clock.now_ms).run()


async def _follow(accounts: Accounts) -> None:
    async for changes in accounts.changes():
        for change in changes:
            what = "gone" if change.account is None else "taken up"
            log.info("credential %s:%s is %s", change.vendor, change.credential, what)


async def _keep_open(opened: Accounts) -> None:
    async for _ in opened.changes():
        pass


async def _keep_time(clock: FleetClock, link: Link) -> None:
    while True:
        await asyncio.sleep(_CLOCK_EVERY_S)
        with contextlib.suppress(RedisUnusable, ReplyError):
            await _hear_time(clock, link)


async def _hear_time(clock: FleetClock, link: Link) -> None:
    seconds, micros = await link.call("TIME")
    clock.heard(int(seconds) * 1000 + int(micros) / 1000)
