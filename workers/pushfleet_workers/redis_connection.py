"""One socket to a Redis, or to a Sentinel: commands go out as they come, replies go to the oldest that waits."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections import deque
from collections.abc import Sequence
from typing import Any, cast

import hiredis

from pushfleet_workers.errors import RedisUnusable
from pushfleet_workers.redis_address import RedisAddress

__all__ = ["Argument", "Command", "LinkLost", "RedisConnection", "ReplyError", "open_connection"]

ReplyError = hiredis.ReplyError
Argument = str | bytes | int | float
Command = tuple[Argument, ...]


class LinkLost(RedisUnusable):
    """The connection broke: what was under way may or may not have been carried out."""


class RedisConnection(asyncio.Protocol):
    """An open connection; made by :func:`open_connection`."""

    def __init__(self) -> None:
        self.lost = False
        """Whether it broke: nothing can be sent any more."""

        self.info: dict[str, str] = {}
        """What the server told of itself when the connection was opened; empty where it would not."""

        self._reader = hiredis.Reader(notEnoughData=Ellipsis)
        self._waiting: deque[_Batch] = deque()
        self._transport: asyncio.Transport | None = None

    @property
    def history(self) -> str:
        """Names the data that the server has: another name, and what was written last under this one may be gone."""
        return f"{self.info.get('run_id', '')}:{self.info.get('master_replid', '')}"

    @property
    def silent_s(self) -> float:
        """How long the oldest command has waited for its reply."""
        return time.monotonic() - self._waiting[0].since if self._waiting else 0.0

    def submit(self, commands: Sequence[Command]) -> asyncio.Future[list[Any]]:
        """The replies to *commands*, in order, errors of the server as values; or :class:`LinkLost` instead."""
        batch = _Batch(len(commands), asyncio.get_running_loop().create_future())
        if not commands:
            batch.done.set_result([])
            return batch.done
        if self.lost:
            batch.done.set_exception(LinkLost("the connection to Redis broke: closed by the server"))
            return batch.done
        assert self._transport is not None
        pack = hiredis.pack_command
        # What cannot be packed raises before it is waited for: the replies of others would be taken for its own. The
        # stub of pack_command knows no tuple longer than one.
        packed = b"".join([pack(command) for command in commands])  # type: ignore[arg-type]
        self._waiting.append(batch)
        self._transport.write(packed)
        return batch.done

    def abort(self) -> None:
        """Close it at once; what waits fails."""
        self.lost = True
        if self._transport is not None:
            self._transport.abort()

    # ---- what asyncio tells

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Asyncio has opened the socket."""
        # uvloop's transports are no asyncio.Transport by class, only by what they do.
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Asyncio has read *data*."""
        reader = self._reader
        reader.feed(data)
        waiting = self._waiting
        while True:
            reply = reader.gets()
            if reply is Ellipsis:
                return
            batch = waiting[0]
            batch.replies.append(reply)
            if type(reply) is ReplyError and str(reply).startswith("READONLY"):
                self._fail("the server is a replica and takes no writes (READONLY)")
                return
            if len(batch.replies) == batch.size:
                waiting.popleft()
                if not batch.done.done():
                    batch.done.set_result(batch.replies)

    def connection_lost(self, problem: Exception | None) -> None:
        """Asyncio has closed the socket."""
        self._fail(str(problem or "closed by the server"))

    def _fail(self, why: str) -> None:
        """A demoted master is left as if it had closed the connection: the address may lead to the new one by now."""
        waiting, self._waiting = self._waiting, deque()
        self.abort()
        for batch in waiting:
            if not batch.done.done():
                batch.done.set_exception(LinkLost(f"the connection to Redis broke: {why}"))


class _Batch:
    __slots__ = ("done", "replies", "since", "size")

    def __init__(self, size: int, done: asyncio.Future[list[Any]]) -> None:
        self.size = size
        self.done = done
        self.replies: list[Any] = []
        self.since = time.monotonic()


async def open_connection(
    address: RedisAddress, *, name: str, timeout_s: float, what: str = "Redis"
) -> RedisConnection:
    """A connection to the server at *address*, which has let us in and answered; *what* it is, for texts.

    Raises :class:`LinkLost` for one that cannot be reached, :class:`RedisUnusable` for one that refuses us.
    """
    loop = asyncio.get_running_loop()
    try:
        tls = ssl.create_default_context(cafile=address.ca_file or None) if address.tls else None
        async with asyncio.timeout(timeout_s):
            if address.path:
                _, connection = await loop.create_unix_connection(RedisConnection, address.path)
            else:
                _, connection = await loop.create_connection(RedisConnection, address.host, address.port, ssl=tls)
            # A server that hangs takes connections, too: until it answers, nothing is open.
            await _greet(connection, address, name, what)
    except (OSError, TimeoutError) as problem:
        raise LinkLost(
            f"{what} at {address.shown} cannot be reached ({str(problem) or 'timed out'}): "
            f"is it running, and is the URL right?"
        ) from problem
    return connection


async def _greet(connection: RedisConnection, address: RedisAddress, name: str, what: str) -> None:
    greetings: list[Command] = []
    if address.password:
        login = (address.username, address.password) if address.username else (address.password,)
        greetings.append(("AUTH", *login))
    if address.database:
        greetings.append(("SELECT", address.database))
    greetings.append(("CLIENT", "SETNAME", name))
    questions: list[Command] = [("INFO", "server"), ("INFO", "replication")]
    try:
        replies = await connection.submit([*greetings, *questions])
        for reply in replies[: len(greetings)]:
            if isinstance(reply, ReplyError):
                raise RedisUnusable(f"{what} at {address.shown} refuses us: {reply}")
    except BaseException:
        connection.abort()
        raise
    for told in replies[len(greetings) :]:
        if isinstance(told, bytes):
            lines = told.decode(errors="replace").splitlines()
            connection.info |= dict(line.split(":", 1) for line in lines if ":" in line)
