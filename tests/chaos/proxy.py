"""The way to Redis, where it can be made slow, fall silent, or break: a TCP proxy in front of the server.

with RedisProxy(server.port) as way:
    client = redis.Redis.from_url(way.url)
    way.delay_s = 0.05
    way.reset()
    with way.silent():
        ...
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import Self, TypeVar

from pushfleet_workers.redis_server import free_port

__all__ = ["RedisProxy"]

T = TypeVar("T")


class RedisProxy:
    """Passes connections on to a server on loopback; a context manager. Its methods are for one other thread.

    * **port** - where the server listens.
    """

    def __init__(self, port: int) -> None:
        self.server_port = port
        self.port = free_port()
        self.delay_s = 0.0
        """How long everything is on its way, in each direction."""

        self.swallowed = 0
        """Pieces of answers that have not got through while they were swallowed last."""

        self.silences = self.swallows = False
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="redis-proxy", daemon=True)
        self._connections: set[_Side] = set()
        self._listener: asyncio.Server | None = None

    @property
    def url(self) -> str:
        """Redis, by way of here."""
        return f"redis://127.0.0.1:{self.port}/0"

    def reset(self) -> int:
        """Break all connections, in both directions (RST); how many there were."""
        return self._do(self._reset)

    @contextlib.contextmanager
    def silent(self) -> Iterator[None]:
        """Nothing gets through, and nobody is told; afterwards it all arrives, also from those who gave up."""
        self.silences = True
        try:
            with self.stalled():
                yield
        finally:
            self.silences = False

    @contextlib.contextmanager
    def stalled(self) -> Iterator[None]:
        """The same for the connections that there are now; those that are opened meanwhile work."""
        self._do(self._stall)
        try:
            yield
        finally:
            self.silences = False
            self._do(self._flow)

    @contextlib.contextmanager
    def swallowing_answers(self) -> Iterator[None]:
        """What is asked is done, but nobody hears of it; at the end all connections break."""
        self.swallowed, self.swallows = 0, True
        try:
            yield
        finally:
            self._do(self._reset)
            self.swallows = False

    # ---- in the loop

    def accept(self, side: _Side) -> None:
        """A client has connected: its counterpart goes to the server."""
        self._connections.add(side)
        task = self._loop.create_task(self._connect(side))
        # The loop holds tasks by weak references only.
        side.connecting = task

    async def _connect(self, client: _Side) -> None:
        try:
            await self._loop.create_connection(lambda: _Side(self, client), "127.0.0.1", self.server_port)
        except OSError:
            client.break_off()

    def forget(self, *sides: _Side | None) -> None:
        """Both sides of a connection have gone."""
        self._connections.difference_update(sides)

    def _reset(self) -> int:
        broken = list(self._connections)
        for side in broken:
            side.break_off()
        return len(broken)

    def _stall(self) -> None:
        for side in self._connections:
            side.stalled = True

    def _flow(self) -> None:
        for side in list(self._connections):
            side.stalled = False
            side.flow()
            if side.other is not None:
                side.other.flow()

    def _do(self, what: Callable[[], T]) -> T:
        async def run() -> T:
            return what()

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result(10)

    async def _open(self) -> None:
        self._listener = await self._loop.create_server(lambda: _Side(self), "127.0.0.1", self.port)

    async def _close(self) -> None:
        assert self._listener is not None
        self._listener.close()
        self._reset()
        # Transports close in the turn after the one that aborts them.
        await asyncio.sleep(0)

    def __enter__(self) -> Self:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._open(), self._loop).result(10)
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()


class _Side(asyncio.Protocol):
    """One side of a connection: what comes in here goes out at the other side, when the proxy lets it."""

    def __init__(self, proxy: RedisProxy, other: _Side | None = None) -> None:
        self.other = other
        self.connecting: asyncio.Task[None] | None = None
        self.stalled = proxy.silences if other is None else False
        """Of a client: nothing passes on its connection."""

        self._proxy = proxy
        self._client = other or self
        self._transport: asyncio.Transport | None = None
        self._waiting: deque[tuple[float, bytes]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._ended = False
        """Nothing more comes in here."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self.other is None:
            self._proxy.accept(self)
        else:
            self.other.other = self
            self.other.flow()

    def data_received(self, data: bytes) -> None:
        if self._swallows:
            self._proxy.swallowed += 1
        self._waiting.append((asyncio.get_running_loop().time() + self._proxy.delay_s, data))
        self.flow()

    def flow(self) -> None:
        """Pass on what is due, and come back for the rest."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._client.stalled or self._swallows or self.other is None or self.other._transport is None:
            return
        loop = asyncio.get_running_loop()
        while self._waiting and self._waiting[0][0] <= loop.time():
            self.other._transport.write(self._waiting.popleft()[1])
        if self._waiting:
            self._timer = loop.call_at(self._waiting[0][0], self.flow)
        elif self._ended:
            self.other._transport.close()

    @property
    def _swallows(self) -> bool:
        return self._proxy.swallows and self is not self._client

    def break_off(self) -> None:
        """End both sides by RST."""
        for side in (self, self.other):
            if side is not None and side._transport is not None:
                side._waiting.clear()
                linger = struct.pack("ii", 1, 0)
                side._transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                side._transport.abort()

    def connection_lost(self, problem: Exception | None) -> None:
        self._transport, self._ended = None, True
        if self.other is None or self.other._transport is None:
            self._proxy.forget(self, self.other)
        self.flow()
