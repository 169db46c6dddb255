"""aioapns made safe, for APNs: its protocol's machinery, our request, every stream answered for.

What aioapns 4.0 does by itself, and what happens here instead:

* waits for an answer for ever - a deadline resets the stream, and the connection goes on;
* matches answers by ``apns-id``, reads a refusal only from its body - by stream, with or without body or echo;
* never acknowledges data, so that a connection takes some thousand refusals - acknowledges;
* raises in ``connection_lost`` where a caller was cancelled, and leaves the rest waiting - skips what is done;
* sends as many streams as it likes before the peer's limit is known, and bodies beyond its window - waits for both;
* repeats by itself after a GOAWAY - lets those finish that the peer took, says of the others that they were not;
* closes after ten idle seconds - keeps the connection and pings it, as Apple asks;
* no ALPN, a token of its own for each connection, one of three hosts - what the request and its URL say.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import logging
import ssl
from collections import deque
from collections.abc import Callable
from typing import Any, cast
from urllib.parse import SplitResult, unquote, urlsplit

from aioapns.connection import APNsTLSClientProtocol
from h2.config import H2Configuration
from h2.connection import ConnectionInputs, H2Connection, H2ConnectionStateMachine
from h2.errors import ErrorCodes
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    PingAckReceived,
    RemoteSettingsChanged,
    ResponseReceived,
    StreamEnded,
    StreamReset,
    WindowUpdated,
)
from h2.exceptions import ProtocolError
from h2.settings import SettingCodes

from pushfleet_workers.errors import SettingsError
from pushfleet_workers.transports.base import TransportOptions
from pushfleet_workers.transports.failure import Failure, Reason, unconnected
from pushfleet_workers.transports.lines import Line, LineTransport, are_sendable, connect_timeout_s
from pushfleet_workers.transports.tls import PeerLacksHttp2, client_context
from pushfleet_workers.vendor import Request, Response

__all__ = ["AioapnsTransport"]

# At DEBUG it writes every header, authorization and paths with tokens included.
logging.getLogger("hpack").setLevel(logging.INFO)

_PATH = "/3/device/"
_PING = b"pushflt."
_CLOSE_S = 1.0
_PROXY_PORT = 80


class AioapnsTransport(LineTransport["_Apns"]):
    """Requests to APNs over aioapns, one of its protocols for each connection.

    Raises :class:`SettingsError` where HTTP/2 is not asked for: aioapns speaks nothing else. A request that is not a
    POST to ``/3/device/…`` is not sent.
    """

    def __init__(self, options: TransportOptions) -> None:
        if not options.http2:
            raise SettingsError("the transport 'aioapns' is for APNs only, which speaks HTTP/2")
        super().__init__(options, one_connection_per_line=True)
        self._context = client_context(options.ca_bundle, True, options.identity)

    def _open(self, line: Line[_Apns]) -> _Apns:
        def on_end() -> None:
            line.warm = False

        return _Apns(self._options, self._context, on_end)

    async def _exchange(self, line: Line[_Apns], request: Request) -> Response | Failure:
        assert line.client is not None
        return await line.client.exchange(request)

    async def _shut(self, client: _Apns) -> None:
        await client.close()


class _Apns:
    """One connection to APNs, made anew when it has ended."""

    def __init__(self, options: TransportOptions, context: ssl.SSLContext, on_end: Callable[[], None]) -> None:
        self._options = options
        self._context = context
        self._on_end = on_end
        self._connecting = asyncio.Lock()
        self._protocol: _Protocol | None = None
        self._protocols: set[_Protocol] = set()

    async def exchange(self, request: Request) -> Response | Failure:
        """The answer to *request*, or why there is none."""
        try:
            url = urlsplit(request.url)
            host, port = url.hostname, url.port or 443
        except ValueError:
            return Failure(Reason.UNSENDABLE)
        if url.scheme != "https" or not host or _PATH not in url.path or request.method != "POST":
            return Failure(Reason.UNSENDABLE)
        if not are_sendable(request.headers):
            return Failure(Reason.UNSENDABLE)
        try:
            protocol = self._protocol or await self._connected(host, port)
        except PeerLacksHttp2:
            return Failure(Reason.NOT_HTTP2)
        except (OSError, ValueError) as problem:
            return unconnected(problem)
        return await protocol.exchange(_headers(request, url.netloc, url.path), request.body)

    async def close(self) -> None:
        """End all connections and wait until they are gone."""
        protocols = list(self._protocols)
        for protocol in protocols:
            protocol.close()
        if protocols:
            _, left = await asyncio.wait([protocol.gone for protocol in protocols], timeout=_CLOSE_S)
            if left:
                for protocol in protocols:
                    protocol.abort()
                await asyncio.wait(left)

    async def _connected(self, host: str, port: int) -> _Protocol:
        async with self._connecting:
            if self._protocol is None:
                protocol = await self._connect(host, port)
                if protocol.ending:
                    raise ConnectionResetError(0, "closed at once")
                self._protocol = protocol
                self._protocols.add(protocol)
            return self._protocol

    async def _connect(self, host: str, port: int) -> _Protocol:
        # A deadline that cancels is right here: nothing has been sent.
        async with asyncio.timeout(connect_timeout_s(self._options)):
            loop = asyncio.get_running_loop()
            protocol = _Protocol(loop, self._options, self._ended)
            if self._options.proxy:
                await self._connect_through(urlsplit(self._options.proxy), protocol, host, port)
            else:
                await loop.create_connection(lambda: protocol, host, port, ssl=self._context, server_hostname=host)
        return protocol

    async def _connect_through(self, proxy: SplitResult, protocol: _Protocol, host: str, port: int) -> None:
        loop = asyncio.get_running_loop()
        assert proxy.hostname is not None
        transport, tunnel = await loop.create_connection(
            lambda: _Tunnel(proxy, host, port), proxy.hostname, proxy.port or _PROXY_PORT
        )
        try:
            await tunnel.opened
            secured = await loop.start_tls(transport, protocol, self._context, server_hostname=host)
        except BaseException:
            transport.abort()
            raise
        assert secured is not None
        protocol.connection_made(secured)

    def _ended(self, protocol: _Protocol) -> None:
        """Open no more streams on *protocol*; it may still be answering."""
        if protocol.gone.done():
            self._protocols.discard(protocol)
        if self._protocol is protocol:
            self._protocol = None
            self._on_end()


class _Stream:
    """One request on its way."""

    __slots__ = ("answer", "body", "headers", "status", "unsent")

    def __init__(self, answer: asyncio.Future[Response | Failure], unsent: bytes) -> None:
        self.answer = answer
        self.unsent = unsent
        self.status = 0
        self.headers: dict[str, str] = {}
        self.body: list[bytes] = []


class _PatientStateMachine(H2ConnectionStateMachine):
    """h2 refuses to read on after a GOAWAY, although the peer may still answer what it took."""

    def process_input(self, input_: ConnectionInputs) -> list[Event]:
        return [] if input_ is ConnectionInputs.RECV_GOAWAY else super().process_input(input_)


class _Protocol(APNsTLSClientProtocol):
    """aioapns' connection, with streams of our own."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, options: TransportOptions, on_end: Callable[[_Protocol], None]
    ) -> None:
        super().__init__(apns_topic="", loop=loop, on_connection_lost=None, auth_provider=None)
        # Our headers are checked by ourselves, Apple's need none; h2's own checks cost a fifth of the time.
        self.conn = H2Connection(
            H2Configuration(
                client_side=True,
                header_encoding=None,
                validate_outbound_headers=False,
                normalize_outbound_headers=False,
                validate_inbound_headers=False,
                normalize_inbound_headers=False,
            )
        )
        self.conn.state_machine = _PatientStateMachine()
        self.gone: asyncio.Future[None] = loop.create_future()
        self.ending = False
        self._options = options
        self._on_end = on_end
        self._streams: dict[int, _Stream] = {}
        self._queue: deque[asyncio.Future[bool]] = deque()
        self._streams_max = 1
        self._taken = 0
        """Streams that are open, and those promised to callers that are about to open them."""

        self._pinging: asyncio.TimerHandle | None = None
        self._lost = Reason.LOST

    async def exchange(self, headers: list[tuple[str, str]], body: bytes) -> Response | Failure:
        """The answer, or why there is none; a cancelled caller gives its stream back."""
        deadline = self.loop.time() + self._options.timeout_s
        if self._taken < self._streams_max and not self._queue:
            self._taken += 1
        elif not await self._wait_for_stream(deadline):
            return Failure(Reason.UNTAKEN if self.ending else Reason.CROWDED)
        if self.ending:
            return Failure(Reason.UNTAKEN)
        try:
            stream_id = self.conn.get_next_available_stream_id()
            self.conn.send_headers(stream_id, headers)
        except ProtocolError:
            # All stream ids are used up, or the connection is past sending.
            self._end()
            return Failure(Reason.UNTAKEN)
        stream = self._streams[stream_id] = _Stream(self.loop.create_future(), body)
        self._pump(stream_id, stream)
        self.flush()
        timer = self.loop.call_at(deadline, self._give_up, stream_id, Failure(Reason.LATE))
        try:
            return await stream.answer
        except asyncio.CancelledError:
            self._give_up(stream_id, Failure(Reason.LATE))
            raise
        finally:
            timer.cancel()

    # ---- what asyncio and aioapns call

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._pinging = self.loop.call_later(self._options.ping_interval_s, self._ping)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._pinging is not None:
            self._pinging.cancel()
        streams, self._streams = self._streams, {}
        for stream in streams.values():
            _resolve(stream.answer, Failure(self._lost))
        self.transport = None
        _resolve(self.gone, None)
        self._end()

    def data_received(self, data: bytes) -> None:
        try:
            events = self.conn.receive_data(data)
        except ProtocolError:
            self.flush()
            self.abort()
            return
        for event in events:
            handler = _HANDLERS.get(type(event))
            if handler is not None:
                handler(self, event)
        self._admit()
        self.flush()
        if self.ending and not self._streams:
            self.close()

    def flush(self) -> None:
        data = self.conn.data_to_send()
        if data and self.transport is not None:
            self.transport.write(data)

    def refresh_inactivity_timer(self) -> None:
        """Nothing: idle connections are kept, and pinged."""

    def close(self) -> None:
        """Say GOAWAY and close."""
        self.ending = True
        if self._pinging is not None:
            self._pinging.cancel()
        self.conn.close_connection()
        self.flush()
        super().close()

    def abort(self) -> None:
        """Break the connection off."""
        if self.transport is not None:
            self.transport.abort()

    # ---- streams

    async def _wait_for_stream(self, deadline: float) -> bool:
        """Whether a stream became free; those that came before are served first."""
        turn: asyncio.Future[bool] = self.loop.create_future()
        self._queue.append(turn)
        timer = self.loop.call_at(deadline, _resolve, turn, False)
        try:
            return await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled() and turn.result():
                # It was given in the same moment.
                self._taken -= 1
                self._admit()
            raise
        finally:
            timer.cancel()

    def _admit(self) -> None:
        while self._queue and (self._taken < self._streams_max or self.ending):
            turn = self._queue.popleft()
            if not turn.done():
                turn.set_result(not self.ending)
                self._taken += not self.ending

    def _release(self, stream_id: int) -> _Stream | None:
        stream = self._streams.pop(stream_id, None)
        if stream is not None:
            self._taken -= 1
        return stream

    def _pump(self, stream_id: int, stream: _Stream) -> None:
        """Send of the body what the peer's windows admit; the rest follows when they open."""
        body = stream.unsent
        while True:
            room = min(self.conn.local_flow_control_window(stream_id), self.conn.max_outbound_frame_size)
            if body and room <= 0:
                break
            chunk, body = body[:room], body[room:]
            self.conn.send_data(stream_id, chunk, end_stream=not body)
            if not body:
                break
        stream.unsent = body

    def _give_up(self, stream_id: int, failure: Failure) -> None:
        stream = self._release(stream_id)
        if stream is None:
            return
        with contextlib.suppress(ProtocolError):
            self.conn.reset_stream(stream_id, ErrorCodes.CANCEL)
        self._admit()
        self.flush()
        _resolve(stream.answer, failure)

    def _on_headers(self, event: ResponseReceived) -> None:
        stream = self._streams.get(event.stream_id)
        if stream is None:
            return
        fields: Any = event.headers
        for name, value in fields:
            if name == b":status":
                stream.status = int(value)
            else:
                stream.headers.setdefault(name.decode("latin-1"), value.decode("latin-1"))

    def _on_data(self, event: DataReceived) -> None:
        self.conn.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        stream = self._streams.get(event.stream_id)
        if stream is not None:
            stream.body.append(event.data)

    def _on_stream_end(self, event: StreamEnded) -> None:
        stream = self._release(event.stream_id)
        if stream is None:
            return
        if stream.unsent:
            # Answered before the whole body was taken: the rest is not wanted.
            with contextlib.suppress(ProtocolError):
                self.conn.reset_stream(event.stream_id, ErrorCodes.NO_ERROR)
        _resolve(stream.answer, Response(stream.status, stream.headers, b"".join(stream.body), "HTTP/2.0"))

    def _on_stream_reset(self, event: StreamReset) -> None:
        stream = self._release(event.stream_id)
        if stream is not None:
            refused = event.error_code == ErrorCodes.REFUSED_STREAM and not stream.status
            _resolve(stream.answer, Failure(Reason.REFUSED if refused else Reason.RESET))

    def _on_settings(self, event: RemoteSettingsChanged) -> None:
        if SettingCodes.MAX_CONCURRENT_STREAMS in event.changed_settings:
            self._streams_max = event.changed_settings[SettingCodes.MAX_CONCURRENT_STREAMS].new_value
        elif self._streams_max == 1:
            self._streams_max = self.conn.remote_settings.max_concurrent_streams
        self._on_window(event)

    def _on_window(self, event: WindowUpdated | RemoteSettingsChanged) -> None:
        for stream_id, stream in self._streams.items():
            if stream.unsent:
                self._pump(stream_id, stream)

    def _on_go_away(self, event: ConnectionTerminated) -> None:
        self._end()
        last = event.last_stream_id or 0
        for stream_id in [one for one in self._streams if one > last]:
            stream = self._release(stream_id)
            assert stream is not None
            _resolve(stream.answer, Failure(Reason.LOST if stream.status else Reason.UNTAKEN))

    def _end(self) -> None:
        self.ending = True
        self._admit()
        self._on_end(self)

    # ---- signs of life

    def _ping(self) -> None:
        self.conn.ping(_PING)
        self.flush()
        self._pinging = self.loop.call_later(self._options.ping_timeout_s, self._freeze)

    def _on_pong(self, event: PingAckReceived) -> None:
        if self._pinging is not None:
            self._pinging.cancel()
        self._pinging = self.loop.call_later(self._options.ping_interval_s, self._ping)

    def _freeze(self) -> None:
        self._lost = Reason.FROZEN
        self.abort()


_HANDLERS: dict[type, Callable[[_Protocol, Any], None]] = {
    ResponseReceived: _Protocol._on_headers,
    DataReceived: _Protocol._on_data,
    StreamEnded: _Protocol._on_stream_end,
    StreamReset: _Protocol._on_stream_reset,
    RemoteSettingsChanged: _Protocol._on_settings,
    WindowUpdated: _Protocol._on_window,
    ConnectionTerminated: _Protocol._on_go_away,
    PingAckReceived: _Protocol._on_pong,
}


def _resolve(future: asyncio.Future[Any], value: object) -> None:
    if not future.done():
        future.set_result(value)


def _headers(request: Request, authority: str, path: str) -> list[tuple[str, str]]:
    block = [(":method", "POST"), (":scheme", "https"), (":authority", authority), (":path", path)]
    block += request.headers.items()
    block.append(("content-length", str(len(request.body))))
    return block


class _Tunnel(asyncio.Protocol):
    """A connection to *host* through a proxy."""

    def __init__(self, proxy: SplitResult, host: str, port: int) -> None:
        self.opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._ask = [f"CONNECT {host}:{port} HTTP/1.1", f"Host: {host}:{port}"]
        if proxy.username is not None:
            login = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}".encode()
            self._ask.append(f"Proxy-Authorization: Basic {base64.b64encode(login).decode()}")
        self._told = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # A cast, since the transports of some loops are no subclass.
        cast("asyncio.WriteTransport", transport).write("\r\n".join([*self._ask, "", ""]).encode())

    def data_received(self, data: bytes) -> None:
        self._told += data
        if b"\r\n\r\n" in self._told:
            if self._told.split(b" ", 2)[1:2] == [b"200"]:
                _resolve(self.opened, None)
            else:
                self._fail()

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail()

    def _fail(self) -> None:
        if not self.opened.done():
            self.opened.set_exception(ConnectionRefusedError(0, "the proxy refused the tunnel"))
