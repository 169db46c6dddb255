"""One port of the fake cloud: accepts connections, speaks the right HTTP, can go dark and come back."""

from __future__ import annotations

import asyncio
import contextlib
import enum
import socket
import ssl
from collections.abc import Callable
from typing import cast

from pushfleet_workers.fakecloud.h1conn import Http1Answerer, Http1Connection
from pushfleet_workers.fakecloud.h2conn import Http2Connection
from pushfleet_workers.fakecloud.wire import Answerer

__all__ = ["ControlListener", "Listener", "Tls", "VendorListener"]

HANDSHAKE_TIMEOUT_S = 5.0
SHUTDOWN_TIMEOUT_S = 1.0
BACKLOG = 1_024

_PREFACE = b"PRI "
_NO_TLS = b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"


class Tls(enum.StrEnum):
    """How a vendor's TLS is."""

    SOUND = "sound"
    UNTRUSTED = "untrusted"
    """Its certificate is of an authority that nobody knows."""

    ABSENT = "absent"
    """A server of plain HTTP answers in its place."""

    HANGING = "hanging"
    """Connections are accepted, and no word is said on them."""


class Listener:
    """A listening port whose number stays ours while it is dark."""

    def __init__(self, host: str, port: int, context: ssl.SSLContext | None = None) -> None:
        self._context = context
        self._reserved = _reserve(host, port)
        address = self._reserved.getsockname()
        self._address: tuple[str, int] = (address[0], address[1])
        self._server: asyncio.Server | None = None
        self._connections: set[_Connection] = set()
        self._empty = asyncio.Event()
        self._empty.set()
        self.era = 0
        """How often it went dark: what was accepted before that is none of ours."""

        self.connections_total = 0
        """Connections that finished their TLS handshake, ever."""

    @property
    def port(self) -> int:
        """The port in use, also where a free one was asked for."""
        return self._address[1]

    @property
    def connections(self) -> int:
        """Connections that are open now."""
        return len(self._connections)

    @property
    def dark(self) -> bool:
        """Whether connections are refused."""
        return self._server is None

    async def open(self) -> None:
        """Accept connections; nothing where it already does."""
        if self._server is not None:
            return
        listening = _shared_socket(self._reserved.family)
        try:
            listening.bind(self._address)
            self._server = await self._serve(listening)
        except BaseException:
            listening.close()
            raise

    async def darken(self) -> None:
        """Refuse connections and break those that are open."""
        server, self._server = self._server, None
        self.era += 1
        if server is not None:
            server.close()
        for connection in list(self._connections):
            connection.abort()
        await self._empty.wait()
        if server is not None:
            await server.wait_closed()

    async def close(self) -> None:
        """Darken, and give the port back."""
        await self.darken()
        self._reserved.close()

    def set_max_streams(self, max_streams: int) -> None:
        """Announce a new stream limit on every open connection."""
        for connection in list(self._connections):
            connection.set_max_streams(max_streams)

    async def _serve(self, listening: socket.socket) -> asyncio.Server:
        loop = asyncio.get_running_loop()
        if self._context is None:
            return await loop.create_server(self._connect, sock=listening, backlog=BACKLOG)
        return await loop.create_server(
            self._connect,
            sock=listening,
            backlog=BACKLOG,
            ssl=self._context,
            ssl_handshake_timeout=HANDSHAKE_TIMEOUT_S,
            ssl_shutdown_timeout=SHUTDOWN_TIMEOUT_S,
        )

    def _connect(self) -> asyncio.Protocol:
        raise NotImplementedError

    def _enter(self, connection: _Connection) -> None:
        self._connections.add(connection)
        self._empty.clear()

    def _leave(self, connection: _Connection) -> None:
        self._connections.discard(connection)
        if not self._connections:
            self._empty.set()


class VendorListener(Listener):
    """HTTP/2, and HTTP/1.1 where the vendor has it, over TLS.

    * **untrusted** - makes the context whose certificate nobody trusts.
    """

    def __init__(
        self,
        host: str,
        port: int,
        context: ssl.SSLContext,
        answerer: Answerer,
        http1: bool,
        max_streams: int,
        untrusted: Callable[[], ssl.SSLContext],
    ) -> None:
        super().__init__(host, port, context)
        self._sound = context
        self._untrusted = untrusted
        self._answerer = answerer
        self._http1 = http1
        self.max_streams = max_streams
        self.tls = Tls.SOUND

    async def set_tls(self, tls: Tls) -> None:
        """Break every connection; those to come find TLS as told."""
        dark = self.dark
        await self.darken()
        self.tls = tls
        self._context = self._context_for(tls)
        if not dark:
            await self.open()

    def set_max_streams(self, max_streams: int) -> None:
        """Announce a new stream limit on every open connection, and on those to come."""
        self.max_streams = max_streams
        super().set_max_streams(max_streams)

    def _context_for(self, tls: Tls) -> ssl.SSLContext | None:
        if tls is Tls.UNTRUSTED:
            return self._untrusted()
        return self._sound if tls is Tls.SOUND else None

    def _connect(self) -> asyncio.Protocol:
        if self._context is not None:
            return _Waiting(self)
        without_tls = _WithoutTls(_NO_TLS if self.tls is Tls.ABSENT else b"", self._leave)
        self._enter(without_tls)
        return without_tls

    def admit(self, waiting: _Waiting, http2: bool) -> Http1Connection | Http2Connection:
        """The connection that takes over from *waiting*."""
        self._leave(waiting)
        chosen: Http1Connection | Http2Connection
        if http2 or not self._http1:
            chosen = Http2Connection(self._answerer, self.max_streams, self._leave)
        else:
            chosen = Http1Connection(self._answerer, self._leave)
        self._enter(chosen)
        return chosen

    def arrive(self, waiting: _Waiting) -> None:
        """Count *waiting* in."""
        self.connections_total += 1
        self._enter(waiting)

    def give_up(self, waiting: _Waiting) -> None:
        """Count *waiting* out: it closed before it said anything."""
        self._leave(waiting)


class ControlListener(Listener):
    """Plain HTTP/1.1."""

    def __init__(self, host: str, port: int, answerer: Http1Answerer) -> None:
        super().__init__(host, port)
        self._answerer = answerer

    def _connect(self) -> asyncio.Protocol:
        connection = Http1Connection(self._answerer, self._leave)
        self._enter(connection)
        return connection


class _Waiting(asyncio.Protocol):
    """A connection whose HTTP version is not known yet: by ALPN, or by its first bytes where there was none."""

    def __init__(self, listener: VendorListener) -> None:
        self._listener = listener
        self._era = listener.era
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # A cast, since the TLS transports of some loops are no subclass.
        self._transport = cast("asyncio.Transport", transport)
        self._listener.arrive(self)
        if self._listener.era != self._era:
            # It came before that, and took its time over the handshake.
            self._transport.abort()
            return
        spoken = transport.get_extra_info("ssl_object").selected_alpn_protocol()
        if spoken is not None:
            self._hand_over(spoken == "h2")

    def connection_lost(self, exc: Exception | None) -> None:
        self._listener.give_up(self)

    def data_received(self, data: bytes) -> None:
        self._hand_over(data.startswith(_PREFACE)).data_received(data)

    def set_max_streams(self, max_streams: int) -> None:
        """Nothing: the limit is announced with the greeting."""

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def _hand_over(self, http2: bool) -> Http1Connection | Http2Connection:
        assert self._transport is not None
        chosen = self._listener.admit(self, http2)
        self._transport.set_protocol(chosen)
        chosen.connection_made(self._transport)
        return chosen


class _WithoutTls(asyncio.Protocol):
    """A connection that says *answer* to whatever comes and closes, or nothing ever where that is empty."""

    def __init__(self, answer: bytes, on_close: Callable[[_WithoutTls], None]) -> None:
        self._answer = answer
        self._on_close = on_close
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # A cast, since the transports of some loops are no subclass.
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._on_close(self)

    def data_received(self, data: bytes) -> None:
        if self._answer and self._transport is not None:
            self._transport.write(self._answer)
            self._transport.close()

    def set_max_streams(self, max_streams: int) -> None:
        """Nothing: there are no streams."""

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()


_Connection = _Waiting | _WithoutTls | Http1Connection | Http2Connection


def _shared_socket(family: int) -> socket.socket:
    made = socket.socket(family, socket.SOCK_STREAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    return made


def _reserve(host: str, port: int) -> socket.socket:
    """A bound socket that never listens: it keeps the port ours while the listener is closed.

    Raises :class:`OSError` where somebody else listens there; sharing the port would hide that.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with contextlib.closing(socket.socket(family, socket.SOCK_STREAM)) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((host, port))
        port = probe.getsockname()[1]
    reserved = _shared_socket(family)
    try:
        reserved.bind((host, port))
    except OSError:
        reserved.close()
        raise
    return reserved
