"""The Redis clients that producers make for themselves, from the URL of one server or of Sentinels."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import redis
import redis.asyncio
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from pushfleet.sentinel import (
    Answer,
    NoMaster,
    Place,
    SentinelAddress,
    is_sentinel_url,
    master_in,
    questions,
    read_sighting,
)

__all__ = ["ask_all", "connect", "connect_async"]

CONNECTIONS_MAX = 32
"""Most connections of one producer; further callers wait for a free one."""

_SENTINEL_TIMEOUT_S = 0.5
_GRACE_S = 0.1
"""How long the last Sentinels are waited for once most have answered."""


def connect(url: str, timeout_s: float) -> redis.Redis:
    """A client of the server, or of the master that the Sentinels name, whoever that is at the time.

    Raises ``ValueError`` for what is no URL of a Redis. *timeout_s* bounds connecting, each answer, and the wait for a
    free connection.
    """
    options = _options(timeout_s, Retry(NoBackoff(), 0))
    if not is_sentinel_url(url):
        return redis.Redis(connection_pool=redis.BlockingConnectionPool.from_url(url, **options))
    address = SentinelAddress.from_url(url)
    options |= _to_master(address, _Sentinels(address), _enter)
    kind = _SecureMasterConnection if address.tls else _MasterConnection
    pool: Any = redis.BlockingConnectionPool
    return redis.Redis(connection_pool=pool(connection_class=kind, **options))


def connect_async(url: str, timeout_s: float) -> redis.asyncio.Redis:
    """As :func:`connect`, for asyncio."""
    options = _options(timeout_s, AsyncRetry(NoBackoff(), 0))
    if not is_sentinel_url(url):
        return redis.asyncio.Redis.from_pool(redis.asyncio.BlockingConnectionPool.from_url(url, **options))
    address = SentinelAddress.from_url(url)
    options |= _to_master(address, _AsyncSentinels(address), _enter_async)
    kind = _AsyncSecureMasterConnection if address.tls else _AsyncMasterConnection
    return redis.asyncio.Redis.from_pool(redis.asyncio.BlockingConnectionPool(connection_class=kind, **options))


def _options(timeout_s: float, retry: Retry | AsyncRetry) -> dict[str, Any]:
    return {
        "max_connections": CONNECTIONS_MAX,
        "timeout": timeout_s,
        "socket_timeout": timeout_s,
        "socket_connect_timeout": timeout_s,
        # Repeating is ours: once, at once, and only what is missing.
        "retry": retry,
    }


def _to_master(address: SentinelAddress, sentinels: object, enter: Callable[[Any], object]) -> dict[str, Any]:
    return {
        "sentinels": sentinels,
        "redis_connect_func": enter,
        "db": address.database,
        "username": address.username or None,
        "password": address.password or None,
        **_trust(address),
    }


def _trust(address: SentinelAddress) -> dict[str, Any]:
    return {"ssl_ca_certs": address.ca_file or None} if address.tls else {}


def _to_sentinel(address: SentinelAddress, place: Place) -> dict[str, Any]:
    return {
        "host": place.host,
        "port": place.port,
        "username": address.sentinel_username or None,
        "password": address.sentinel_password or None,
        "socket_timeout": _SENTINEL_TIMEOUT_S,
        "socket_connect_timeout": _SENTINEL_TIMEOUT_S,
        # Replies as read_sighting() reads them.
        "protocol": 2,
        **_trust(address),
    }


def _said(problem: Exception) -> str:
    return str(problem) or type(problem).__name__


def _elected(address: SentinelAddress, answers: dict[Place, Answer]) -> Place:
    try:
        return master_in(address, answers).place
    except NoMaster as problem:
        raise redis.ConnectionError(str(problem)) from None


def _check_role(place: Place, info: bytes | str) -> None:
    """A master that Sentinels have not heard of lately may be none any more."""
    said = info.decode() if isinstance(info, bytes) else info
    if "role:master" not in said.splitlines():
        raise redis.ConnectionError(
            f"{place} is a replica, not the master as the Sentinels say: a failover is under way"
        )


class _Sentinels:
    """Whom a connection asks where to go; each question opens connections of its own."""

    def __init__(self, address: SentinelAddress) -> None:
        self._address = address
        self._silent: frozenset[Place] = frozenset()
        """Those that gave no answer the last time."""

    def find_master(self) -> Place:
        """Where the master is; raises ``redis.ConnectionError``."""
        places = sorted(self._address.sentinels, key=self._silent.__contains__)
        answers: dict[Place, Answer] = {}
        for place in places:
            if place in self._silent and _enough(answers, len(places)):
                continue
            answers[place] = self._ask(place)
        self._silent = frozenset(place for place in places if isinstance(answers.get(place, ""), str))
        return _elected(self._address, answers)

    def _ask(self, place: Place) -> Answer:
        options = _to_sentinel(self._address, place)
        kind: Any = redis.SSLConnection if self._address.tls else redis.Connection
        connection = kind(**options)
        where, state = questions(self._address.master)
        try:
            connection.connect()
            connection.send_command(*where)
            known = connection.read_response()
            if known is None:
                return None
            connection.send_command(*state)
            return read_sighting(known, connection.read_response())
        except (RedisError, OSError, ValueError) as problem:
            return _said(problem)
        finally:
            connection.disconnect()


class _AsyncSentinels:
    def __init__(self, address: SentinelAddress) -> None:
        self._address = address

    async def find_master(self) -> Place:
        """Where the master is; raises ``redis.ConnectionError``."""
        return _elected(self._address, await ask_all(self._address.sentinels, self._ask))

    async def _ask(self, place: Place) -> Answer:
        options = _to_sentinel(self._address, place)
        kind: Any = redis.asyncio.SSLConnection if self._address.tls else redis.asyncio.Connection
        connection = kind(**options)
        where, state = questions(self._address.master)
        try:
            await connection.connect()
            await connection.send_command(*where)
            known = await connection.read_response()
            if known is None:
                return None
            await connection.send_command(*state)
            return read_sighting(known, await connection.read_response())
        except (RedisError, OSError, ValueError) as problem:
            return _said(problem)
        finally:
            await connection.disconnect(nowait=True)


async def ask_all(places: Sequence[Place], ask: Callable[[Place], Awaitable[Answer]]) -> dict[Place, Answer]:
    """What all Sentinels answer, asked at once. When most have, the others get a moment; what is missing is a text."""
    tasks = {asyncio.ensure_future(ask(place)): place for place in places}
    answers: dict[Place, Answer] = dict.fromkeys(places, "no answer in time")
    pending = set(tasks)
    try:
        while pending:
            patience_s = _GRACE_S if _enough(answers, len(places)) else None
            done, pending = await asyncio.wait(pending, timeout=patience_s, return_when=asyncio.FIRST_COMPLETED)
            if not done:
                break
            answers |= {tasks[task]: task.result() for task in done}
    finally:
        for task in pending:
            task.cancel()
    return answers


def _enough(answers: Mapping[Place, Answer], places: int) -> bool:
    """Whether most have answered."""
    return 2 * sum(not isinstance(answer, str) for answer in answers.values()) > places


class _ToMaster:
    """Makes a connection ask, whenever it is opened, where to."""

    def __init__(self, *, sentinels: _Sentinels, **options: Any) -> None:
        super().__init__(**options)
        self._sentinels = sentinels

    def _connect(self) -> Any:
        self.host, self.port = self._sentinels.find_master()
        return super()._connect()  # type: ignore[misc]


class _AsyncToMaster:
    def __init__(self, *, sentinels: _AsyncSentinels, **options: Any) -> None:
        super().__init__(**options)
        self._sentinels = sentinels

    async def _connect(self) -> None:
        self.host, self.port = await self._sentinels.find_master()
        await super()._connect()  # type: ignore[misc]


class _MasterConnection(_ToMaster, redis.Connection):
    pass


class _SecureMasterConnection(_ToMaster, redis.SSLConnection):
    pass


class _AsyncMasterConnection(_AsyncToMaster, redis.asyncio.Connection):
    pass


class _AsyncSecureMasterConnection(_AsyncToMaster, redis.asyncio.SSLConnection):
    pass


def _enter(connection: Any) -> None:
    connection.on_connect()
    connection.send_command("INFO", "replication")
    _check_role(Place(connection.host, connection.port), connection.read_response())


async def _enter_async(connection: Any) -> None:
    await connection.on_connect()
    await connection.send_command("INFO", "replication")
    _check_role(Place(connection.host, connection.port), await connection.read_response())
