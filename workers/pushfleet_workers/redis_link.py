"""One multiplexed Redis connection for the hot path: many callers, their commands pipelined as they come.

redis-py's asyncio pipeline costs about twice the CPU for hundreds of small commands; everything off the hot path
uses redis-py.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

import hiredis

from pushfleet_workers.errors import RedisUnusable
from pushfleet_workers.scripts import Script

__all__ = ["Argument", "Link", "LinkLost", "RedisAddress", "ReplyError"]

ReplyError = hiredis.ReplyError
Argument = str | bytes | int | float
Command = tuple[Argument, ...]

_CONNECT_TIMEOUT_S = 5.0
_WATCH_INTERVAL_S = 1.0
_NOT_NOW = frozenset(
    {"BUSY", "CLUSTERDOWN", "LOADING", "MASTERDOWN", "MISCONF", "NOREPLICAS", "OOM", "READONLY", "TRYAGAIN"}
)
"""Error replies that tell of the server's state, not of a fault in what was asked: it passes, like a lost link."""


class LinkLost(RedisUnusable):
    """The connection broke: what was under way may or may not have been carried out."""


@dataclass(frozen=True, slots=True)
class RedisAddress:
    """Where a Redis is and how to get in, read from a `redis://`, `rediss://` or `unix://` URL."""

    host: str
    port: int
    path: str
    username: str
    password: str
    database: int
    tls: bool
    ca_file: str

    @classmethod
    def from_url(cls, url: str) -> RedisAddress:
        """The address in *url*; raises :class:`RedisUnusable` when it is none, without repeating what it says."""
        try:
            return cls._from_parts(urlsplit(url))
        except ValueError:
            raise RedisUnusable(
                "a Redis URL reads redis://user:password@host:port/database; its port and database are numbers"
            ) from None

    @classmethod
    def _from_parts(cls, parts: SplitResult) -> RedisAddress:
        if parts.scheme not in ("redis", "rediss", "unix"):
            raise RedisUnusable(f"a Redis URL starts with redis://, rediss:// or unix://, not {parts.scheme!r}")
        query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
        unix = parts.scheme == "unix"
        database = query.get("db", "0") if unix else (parts.path.strip("/") or query.get("db", "0"))
        return cls(
            host=parts.hostname or "127.0.0.1",
            port=parts.port or 6379,
            path=parts.path if unix else "",
            username=unquote(parts.username or ""),
            password=unquote(parts.password or ""),
            database=int(database),
            tls=parts.scheme == "rediss",
            ca_file=query.get("ssl_ca_certs", ""),
        )

    @property
    def shown(self) -> str:
        """The address without the password, for error texts."""
        return self.path or f"{self.host}:{self.port}/{self.database}"


class _Connection(asyncio.Protocol):
    """The socket: writes packed commands, hands replies to the oldest waiting batch."""

    def __init__(self) -> None:
        self.reader = hiredis.Reader(notEnoughData=Ellipsis)
        self.waiting: deque[_Batch] = deque()
        self.transport: asyncio.Transport | None = None
        self.lost = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are no asyncio.Transport by class, only by what they do.
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        reader = self.reader
        reader.feed(data)
        waiting = self.waiting
        while True:
            reply = reader.gets()
            if reply is Ellipsis:
                return
            batch = waiting[0]
            batch.replies.append(reply)
            if len(batch.replies) == batch.size:
                waiting.popleft()
                if not batch.done.done():
                    batch.done.set_result(batch.replies)

    def connection_lost(self, problem: Exception | None) -> None:
        self.lost = True
        while self.waiting:
            batch = self.waiting.popleft()
            if not batch.done.done():
                batch.done.set_exception(
                    LinkLost(f"the connection to Redis broke: {problem or 'closed by the server'}")
                )


class _Batch:
    __slots__ = ("done", "replies", "since", "size")

    def __init__(self, size: int, done: asyncio.Future[list[Any]]) -> None:
        self.size = size
        self.done = done
        self.replies: list[Any] = []
        self.since = time.monotonic()


class Link:
    """A connection that opens itself when first used and again after it broke; bound to one event loop.

    * **url** - `redis://`, `rediss://` or `unix://`.
    * **name** - shown in `CLIENT LIST`.
    * **timeout_s** - a reply later than this breaks the connection.
    """

    def __init__(self, url: str, *, name: str = "pushfleet", timeout_s: float = 10.0) -> None:
        self.address = RedisAddress.from_url(url)
        self._name = name
        self._timeout_s = timeout_s
        self._connection: _Connection | None = None
        self._opening = asyncio.Lock()
        self._watch: asyncio.Task[None] | None = None

    async def pipeline(self, commands: Sequence[Command]) -> list[Any]:
        """The replies to *commands*, in order; an error reply stands in its place as a :class:`ReplyError`.

        Raises :class:`LinkLost` when the connection broke meanwhile: any of them may have been carried out.
        """
        connection = self._connection
        if connection is None or connection.lost:
            connection = await self._open()
        return await self._submit(connection, commands)

    async def call(self, *command: Argument) -> Any:
        """The reply to one command.

        Raises :class:`ReplyError`, :class:`LinkLost`, or :class:`RedisUnusable` for a server that cannot serve now:
        one that loads its data, is out of memory, or has become a replica.
        """
        (reply,) = await self.pipeline((command,))
        return self._checked(reply)

    async def run(self, script: Script, keys: Sequence[str | bytes], args: Sequence[Argument]) -> Any:
        """What *script* returns, loaded first where the server does not know it; raises as :meth:`call` does."""
        (reply,) = await self.run_many([(script, keys, args)])
        return self._checked(reply)

    async def run_many(self, calls: Sequence[tuple[Script, Sequence[str | bytes], Sequence[Argument]]]) -> list[Any]:
        """What each of several scripts returns, in one round trip; errors stand in their place."""
        commands: list[Command] = [("EVALSHA", script.sha, len(keys), *keys, *args) for script, keys, args in calls]
        replies = await self.pipeline(commands)
        unknown = [
            number
            for number, reply in enumerate(replies)
            if isinstance(reply, ReplyError) and str(reply).startswith("NOSCRIPT")
        ]
        if unknown:
            await self.pipeline(
                [("SCRIPT", "LOAD", script.text) for script in {calls[number][0] for number in unknown}]
            )
            again = await self.pipeline([commands[number] for number in unknown])
            for number, reply in zip(unknown, again, strict=True):
                replies[number] = reply
        return replies

    def _checked(self, reply: Any) -> Any:
        if not isinstance(reply, ReplyError):
            return reply
        state = str(reply).partition(" ")[0]
        if state not in _NOT_NOW:
            raise reply
        if state == "READONLY":
            # A demoted master: the address may lead to the new one by now.
            self._abandon()
        raise RedisUnusable(f"Redis at {self.address.shown} cannot serve now: {reply}")

    def _submit(self, connection: _Connection, commands: Sequence[Command]) -> asyncio.Future[list[Any]]:
        batch = _Batch(len(commands), asyncio.get_running_loop().create_future())
        if not commands:
            batch.done.set_result([])
            return batch.done
        if connection.lost:
            batch.done.set_exception(LinkLost("the connection to Redis broke: closed by the server"))
            return batch.done
        connection.waiting.append(batch)
        assert connection.transport is not None
        pack = hiredis.pack_command
        # The stub of pack_command knows no tuple longer than one.
        connection.transport.write(b"".join([pack(command) for command in commands]))  # type: ignore[arg-type]
        return batch.done

    async def _open(self) -> _Connection:
        async with self._opening:
            if self._connection is not None and not self._connection.lost:
                return self._connection
            self._connection = await self._connect()
            if self._watch is None:
                self._watch = asyncio.create_task(self._watch_for_silence())
            return self._connection

    async def _connect(self) -> _Connection:
        address = self.address
        loop = asyncio.get_running_loop()
        try:
            tls = ssl.create_default_context(cafile=address.ca_file or None) if address.tls else None
            async with asyncio.timeout(_CONNECT_TIMEOUT_S):
                if address.path:
                    _, connection = await loop.create_unix_connection(_Connection, address.path)
                else:
                    _, connection = await loop.create_connection(_Connection, address.host, address.port, ssl=tls)
                # A server that hangs takes connections, too: until it answers, nothing is open.
                await self._greet(connection)
        except (OSError, TimeoutError) as problem:
            raise LinkLost(
                f"Redis at {address.shown} cannot be reached ({str(problem) or 'timed out'}): "
                f"is it running, and is the URL right?"
            ) from problem
        return connection

    async def _greet(self, connection: _Connection) -> None:
        address = self.address
        greetings: list[Command] = []
        if address.password:
            login = (address.username, address.password) if address.username else (address.password,)
            greetings.append(("AUTH", *login))
        if address.database:
            greetings.append(("SELECT", address.database))
        greetings.append(("CLIENT", "SETNAME", self._name))
        try:
            for reply in await self._submit(connection, greetings):
                if isinstance(reply, ReplyError):
                    raise RedisUnusable(f"Redis at {address.shown} refuses us: {reply}")
        except BaseException:
            assert connection.transport is not None
            connection.transport.abort()
            raise

    async def _watch_for_silence(self) -> None:
        while True:
            await asyncio.sleep(_WATCH_INTERVAL_S)
            connection = self._connection
            if connection is None or connection.lost or not connection.waiting:
                continue
            if time.monotonic() - connection.waiting[0].since > self._timeout_s:
                self._abandon()

    def _abandon(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None and connection.transport is not None:
            connection.transport.abort()

    async def close(self) -> None:
        """Close the connection; what still waits for a reply gets :class:`LinkLost`."""
        if self._watch is not None:
            self._watch.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._watch
            self._watch = None
        self._abandon()
