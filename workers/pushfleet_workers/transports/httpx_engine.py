"""The second engine: httpx's own transport over pure Python HTTP/2, for where pyreqwest has no wheel.

Used below :class:`httpx.AsyncClient`, which logs every URL (here: every token) and keeps cookies.

httpcore has no pings and no deadline for one stream of a busy connection, and a request cancelled while it writes can
break its connection for all. So requests run in tasks of their own that nobody cancels, a deadline only stops the
waiting, and a connection that missed one is left: the next request makes a new one. After a GOAWAY httpcore gives up
all streams, those too that the peer would still answer, so that this engine sees more unknown outcomes than the others.

A request waits inside httpcore for its connection and for its stream, and a busy process is slow to give it its turn.
So it is looked at once more where a connection would be made for it, and where its stream would begin: what must not
leave any more, does not. Of HTTP/1.1 the connection is kept for it once it is there; to give it up would cost another
handshake, which a process that is slow already cannot afford. What a GOAWAY left aside httpcore sends over another
connection by itself: there it is looked at again.

Before and after each request httpcore asks all HTTP/1.1 connections of a pool for each of them that is idle. With the
two hundred that a slow vendor makes necessary that is ten milliseconds of CPU, for every request that follows and with
all vendors of the process waiting. So connections are spread over small pools, of which the first ones fill first.

For the same reason few connections are made at a time: when a vendor comes back, a hundred requests want one each, and
their handshakes would keep the loop to themselves. Who waits for a turn meanwhile has not left.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import socket
import time
from collections.abc import Coroutine
from typing import Any, Literal

import httpcore
import httpx
from h2.errors import ErrorCodes
from h2.events import ConnectionTerminated, StreamReset

from pushfleet_workers.transports.base import TransportOptions
from pushfleet_workers.transports.failure import Failure, Reason, unconnected
from pushfleet_workers.transports.lines import Line, LineTransport, are_sendable, connect_timeout_s
from pushfleet_workers.transports.tls import PeerLacksHttp2, client_context
from pushfleet_workers.vendor import Request, Response

__all__ = ["HttpxTransport"]

# At DEBUG it writes every header, authorization and paths with tokens included.
logging.getLogger("hpack").setLevel(logging.INFO)

_HTTP1_IDLE_S = 30.0
_HTTP1_POOL = 16
"""Requests that one pool of HTTP/1.1 connections carries at a time."""

_CONNECTS_MAX = 24
"""Connections of one transport that are being made at a time: where none of them succeeds, the breaker opens."""

_CONNECTS = "connect_tcp.started"
_LEAVES = "send_request_headers.started"
_TURNS = (_CONNECTS, "http2.send_request_headers.started")
"""Before these steps of httpcore nothing is lost when a request does not go on."""

_MAYBE_SENT = frozenset({Reason.LOST, Reason.LATE, Reason.RESET})
"""What httpcore's errors say of a request that was under way."""

_VERSIONS = {b"HTTP/2": "HTTP/2.0", b"HTTP/1.1": "HTTP/1.1", b"HTTP/1.0": "HTTP/1.0"}


class _Unsent(Exception):
    """The request must not leave any more."""


class _Departure:
    """Watches a request on its way out; called by httpcore at each of its steps.

    * **turns** - to make connections; it has one from where one would be made for it until it leaves, or fails.
    * **tunnel_s** - how long a proxy may take to answer.
    """

    def __init__(self, leave_by: float, turns: asyncio.Semaphore, tunnel_s: float) -> None:
        self._leave_by = leave_by
        self._turns = turns
        self._tunnel_s = tunnel_s
        self._waiting: asyncio.Task[Literal[True]] | None = None
        self._called_off = False
        self.connects = False
        """Whether a connection is being made for it, or is there and it has not left yet."""

        self.left = False
        """Whether any of it may have been sent."""

    def call_off(self) -> None:
        """Let it not leave any more, whatever that costs, if it has not."""
        self._called_off = True
        if self._waiting is not None:
            self._waiting.cancel()

    def over(self) -> None:
        """Its connection is there, or will never be."""
        if self.connects:
            self.connects = False
            self._turns.release()

    async def __call__(self, step: str, info: dict[str, Any]) -> None:
        if step.endswith(_TURNS):
            # Where it has left before, a GOAWAY said that it was not taken, and httpcore begins anew.
            self.left = False
        if self.left:
            return
        if step.endswith(_CONNECTS):
            self.over()
            await self._take_turn()
        if step.endswith(_TURNS):
            self._check(self._leave_by)
        if step.endswith(_LEAVES):
            self._check(math.inf)
            if info["request"].method == b"CONNECT":
                self._bound_tunnel(info["request"])
            else:
                self.over()
                self.left = True

    def _check(self, leave_by: float) -> None:
        if self._called_off or time.monotonic() > leave_by:
            raise _Unsent

    def _bound_tunnel(self, request: httpcore.Request) -> None:
        """A proxy that says nothing must not be waited for as long as for a vendor's answer, or for ever."""
        times = {**request.extensions["timeout"], "read": self._tunnel_s}
        request.extensions = {**request.extensions, "timeout": times}

    async def _take_turn(self) -> None:
        if not self._turns.locked():
            await self._turns.acquire()
            self.connects = True
            return
        self._waiting = waiting = asyncio.get_running_loop().create_task(self._turns.acquire())
        try:
            await waiting
        except asyncio.CancelledError:
            if self._called_off and waiting.cancelled():
                raise _Unsent from None
            raise
        finally:
            self._waiting = None
            self.connects = waiting.done() and not waiting.cancelled()


class HttpxTransport(LineTransport[httpx.AsyncHTTPTransport]):
    """Requests over httpx, one transport of it for each HTTP/2 connection."""

    def __init__(self, options: TransportOptions) -> None:
        pools = 0 if options.http2 else -(-options.in_flight_max // _HTTP1_POOL)
        super().__init__(options, one_connection_per_line=options.http2, lines=pools)
        self._context = client_context(options.ca_bundle, options.http2, options.identity)
        # Streams have no deadline of their own here: one that reads times out for all of its connection.
        read_s = None if options.http2 else options.timeout_s
        times = httpx.Timeout(
            connect=connect_timeout_s(options), read=read_s, write=options.timeout_s, pool=options.timeout_s
        )
        self._extensions = {"timeout": times.as_dict()}
        self._socket_options = _liveness(options)
        self._turns = asyncio.Semaphore(_CONNECTS_MAX)
        self._departures: set[_Departure] = set()
        self._tasks: set[asyncio.Task[Response | Failure]] = set()

    async def close(self) -> None:
        """See :meth:`Transport.close`."""
        await super().close()
        # Left over are those whose callers went away; their connections are closed.
        for left in self._tasks:
            left.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def hold_back(self) -> None:
        """See :meth:`Transport.hold_back`."""
        super().hold_back()
        for departure in self._departures:
            if not departure.connects:
                departure.call_off()

    async def send(self, request: Request) -> Response:
        """See :meth:`Transport.send`."""
        if not self._options.http2 and not self._closed:
            await self._leave_unused()
        return await super().send(request)

    async def _leave_unused(self) -> None:
        """Look at one pool: by itself it looks when it is used, and the last ones are used in a crowd alone."""
        line = super()._next_line(self._lines)
        unused_s = time.monotonic() - line.used_at
        if line.client is not None and not line.in_flight and unused_s > _HTTP1_IDLE_S:
            await self._replace(line)

    def _next_line(self, lines: list[Line[httpx.AsyncHTTPTransport]]) -> Line[httpx.AsyncHTTPTransport]:
        if self._options.http2:
            return super()._next_line(lines)
        return next((line for line in lines if line.in_flight < _HTTP1_POOL), lines[self._turn])

    def _open(self, line: Line[httpx.AsyncHTTPTransport]) -> httpx.AsyncHTTPTransport:
        http2 = self._options.http2
        return httpx.AsyncHTTPTransport(
            verify=self._context,
            trust_env=False,
            http1=not http2,
            http2=http2,
            proxy=self._options.proxy or None,
            limits=httpx.Limits(
                max_connections=None,
                max_keepalive_connections=None,
                keepalive_expiry=None if http2 else _HTTP1_IDLE_S,
            ),
            socket_options=self._socket_options,
        )

    async def _exchange(self, line: Line[httpx.AsyncHTTPTransport], request: Request) -> Response | Failure:
        assert line.client is not None
        departure = _Departure(request.leave_by, self._turns, connect_timeout_s(self._options))
        self._departures.add(departure)
        exchange = self._task(self._run(line.client, request, departure))
        try:
            return await self._outwait(exchange, departure, line)
        except asyncio.CancelledError:
            # Its stream must not be held for ever because nobody waits for it any more.
            self._task(self._outwait(exchange, departure, line))
            raise

    def _task(self, work: Coroutine[Any, Any, Response | Failure]) -> asyncio.Task[Response | Failure]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _outwait(
        self, exchange: asyncio.Task[Response | Failure], departure: _Departure, line: Line[httpx.AsyncHTTPTransport]
    ) -> Response | Failure:
        done, _ = await asyncio.wait([exchange], timeout=self._timeout_s)
        if done:
            return exchange.result()
        departure.call_off()
        if self._options.http2 and (departure.left or departure.connects or not line.warm):
            await self._replace(line)
        return Failure(Reason.LATE if departure.left else Reason.CROWDED)

    async def _run(
        self, client: httpx.AsyncHTTPTransport, request: Request, departure: _Departure
    ) -> Response | Failure:
        try:
            return await self._ask(client, request, departure)
        finally:
            departure.over()
            self._departures.discard(departure)

    async def _ask(
        self, client: httpx.AsyncHTTPTransport, request: Request, departure: _Departure
    ) -> Response | Failure:
        if not are_sendable(request.headers):
            return Failure(Reason.UNSENDABLE)
        try:
            ready = httpx.Request(
                request.method,
                request.url,
                headers=dict(request.headers),
                content=request.body,
                extensions={**self._extensions, "trace": departure},
            )
        except Exception:  # noqa: BLE001 - whatever it is, nothing was sent
            return Failure(Reason.UNSENDABLE)
        answer = None
        try:
            answer = await client.handle_async_request(ready)
            try:
                assert isinstance(answer.stream, httpx.AsyncByteStream)
                body = b"".join([chunk async for chunk in answer.stream])
            finally:
                await answer.aclose()
        except _Unsent:
            return Failure(Reason.STALE)
        except Exception as problem:  # noqa: BLE001 - also what h2 and anyio raise through httpcore
            failure = _failure(problem, unanswered=answer is None)
            if departure.left or failure.reason not in _MAYBE_SENT:
                return failure
            # A proxy that fell silent or went away, for example.
            return unconnected(_origin(problem))
        version: bytes = answer.extensions.get("http_version", b"")
        return Response(answer.status_code, dict(answer.headers), body, _VERSIONS.get(version, ""))

    async def _shut(self, client: httpx.AsyncHTTPTransport) -> None:
        # A connection that is broken may say so once more.
        with contextlib.suppress(Exception):
            await client.aclose()


def _failure(problem: Exception, unanswered: bool) -> Failure:
    origin = _origin(problem)
    if isinstance(origin, PeerLacksHttp2):
        return Failure(Reason.NOT_HTTP2)
    match problem:
        case httpx.ConnectError() | httpx.ConnectTimeout() | httpx.ProxyError():
            return unconnected(origin)
        case httpx.UnsupportedProtocol() | httpx.InvalidURL():
            return Failure(Reason.UNSENDABLE)
        case httpx.TimeoutException():
            return Failure(Reason.LATE)
    said = _said(problem)
    if isinstance(said, StreamReset):
        refused = said.error_code == ErrorCodes.REFUSED_STREAM and unanswered
        return Failure(Reason.REFUSED if refused else Reason.RESET)
    if isinstance(said, ConnectionTerminated) and said.last_stream_id == 0 and unanswered:
        return Failure(Reason.UNTAKEN)
    return Failure(Reason.LOST)


def _origin(problem: BaseException) -> BaseException:
    """What *problem* was made from: httpx wraps httpcore, which wraps anyio, which wraps what happened."""
    while True:
        inner = problem.__cause__ or problem.__context__
        if inner is None:
            return problem
        problem = inner


def _said(problem: BaseException) -> object:
    """What the peer said by HTTP/2 to end a stream or the connection; httpcore leaves it among the arguments."""
    inner = problem.__cause__
    return inner.args[0] if isinstance(inner, httpcore.RemoteProtocolError) and inner.args else None


def _liveness(options: TransportOptions) -> list[tuple[int, int, int]]:
    """In place of pings: the kernel gives up a peer that acknowledges nothing. A frozen process it does not notice."""
    idle_s, lost_s = max(1, int(options.ping_interval_s)), max(1, int(options.ping_timeout_s))
    wanted = [("TCP_KEEPIDLE", idle_s), ("TCP_KEEPINTVL", lost_s), ("TCP_KEEPCNT", 1)]
    # Not everywhere; there the deadline of the next request has to notice.
    wanted.append(("TCP_USER_TIMEOUT", int((options.ping_interval_s + options.ping_timeout_s) * 1000)))
    chosen = [(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1), (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)]
    for name, value in wanted:
        if hasattr(socket, name):
            chosen.append((socket.IPPROTO_TCP, getattr(socket, name), value))
    return chosen
