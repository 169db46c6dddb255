"""Servers whose every frame a test decides: which stream is answered, reset or left alone, and when."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Self, cast

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import DataReceived, PingReceived, RequestReceived, StreamEnded, StreamReset, WindowUpdated
from h2.exceptions import ProtocolError
from h2.settings import SettingCodes, Settings

Headers = dict[str, str]


@dataclass
class Call:
    """One request that has arrived in full; the script answers it now, later or never."""

    connection: Connection
    stream_id: int
    method: str
    path: str
    headers: Headers
    body: bytes = b""

    def answer(self, status: int = 200, body: bytes = b"", **headers: str) -> None:
        sent = {"apns-id": self.headers.get("apns-id", "")} | {k.replace("_", "-"): v for k, v in headers.items()}
        self.connection.answer(self.stream_id, status, body, sent)

    def reset(self, code: ErrorCodes = ErrorCodes.INTERNAL_ERROR) -> None:
        self.connection.reset(self.stream_id, code)


Script = Callable[[Call], None]


def ok(call: Call) -> None:
    call.answer()


def silent(call: Call) -> None:
    pass


class Connection(asyncio.Protocol):
    """One HTTP/2 connection, server side."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self.h2 = H2Connection(H2Configuration(client_side=False, header_encoding="utf-8"))
        self.transport: asyncio.Transport | None = None
        self._calls: dict[int, Call] = {}
        self._chunks: dict[int, list[bytes]] = {}
        self._unsent: dict[int, bytes] = {}
        self.streams: set[int] = set()
        self.streams_peak = 0
        self.frozen = False
        self.deaf = False
        """Read and close as usual, but handle nothing: pings are not answered, and the end is seen."""

        self.closed = asyncio.get_running_loop().create_future()
        self.calls = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        secured = transport.get_extra_info("ssl_object")
        self._peer.certificates.append(secured.getpeercert(binary_form=True) if secured else None)
        self._peer.opened(self)
        self.h2.local_settings = Settings(
            client=False, initial_values={SettingCodes.MAX_CONCURRENT_STREAMS: self._peer.streams_max}
        )
        self.h2.initiate_connection()
        if self._peer.frozen:
            self.freeze()
        else:
            self.flush()

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        self._peer.alive.discard(self)
        if not self.closed.done():
            self.closed.set_result(None)
        self._peer.notify()

    def data_received(self, data: bytes) -> None:
        if self.frozen or self.deaf:
            return
        try:
            events = self.h2.receive_data(data)
        except ProtocolError:
            self._peer.protocol_errors += 1
            self.flush()
            self.kill()
            return
        for event in events:
            self._handle(event)
        self.flush()
        self._peer.notify()

    def _handle(self, event: Any) -> None:
        if isinstance(event, RequestReceived):
            self.streams.add(event.stream_id)
            self.streams_peak = max(self.streams_peak, len(self.streams))
            self._peer.calls_total += 1
            self.calls += 1
            headers = dict(event.headers)
            self._chunks[event.stream_id] = []
            self._calls[event.stream_id] = Call(self, event.stream_id, headers[":method"], headers[":path"], headers)
        elif isinstance(event, DataReceived):
            self._chunks.setdefault(event.stream_id, []).append(event.data)
            self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, StreamEnded):
            call = self._calls.pop(event.stream_id)
            call.body = b"".join(self._chunks.pop(event.stream_id))
            self._peer.calls.append(call)
            self._peer.script(call)
        elif isinstance(event, PingReceived):
            self._peer.pings += 1
        elif isinstance(event, StreamReset):
            self._peer.resets += 1
            self.streams.discard(event.stream_id)
        elif isinstance(event, WindowUpdated):
            for stream_id, body in list(self._unsent.items()):
                del self._unsent[stream_id]
                self._send_body(stream_id, body)

    def answer(self, stream_id: int, status: int, body: bytes, headers: Headers) -> None:
        if self.transport is None or stream_id not in self.streams:
            return
        self.h2.send_headers(stream_id, [(":status", str(status)), *headers.items()], end_stream=not body)
        if body:
            self._send_body(stream_id, body)
        else:
            self.streams.discard(stream_id)
        self.flush()

    def _send_body(self, stream_id: int, body: bytes) -> None:
        while body:
            room = min(self.h2.local_flow_control_window(stream_id), self.h2.max_outbound_frame_size)
            if room <= 0:
                self._unsent[stream_id] = body
                return
            self.h2.send_data(stream_id, body[:room], end_stream=len(body) <= room)
            body = body[room:]
        self.streams.discard(stream_id)

    def reset(self, stream_id: int, code: ErrorCodes) -> None:
        self.streams.discard(stream_id)
        self.h2.reset_stream(stream_id, code)
        self.flush()

    def go_away(self, last_stream_id: int, code: ErrorCodes = ErrorCodes.NO_ERROR) -> None:
        """Say GOAWAY; open streams may still be answered (h2 itself would refuse to)."""
        frame = b"\0\0\x08\x07\0\0\0\0\0" + last_stream_id.to_bytes(4, "big") + int(code).to_bytes(4, "big")
        assert self.transport is not None
        self.flush()
        self.transport.write(frame)
        self._peer.going_away.add(self)

    def limit_streams(self, streams_max: int) -> None:
        self.h2.update_settings({SettingCodes.MAX_CONCURRENT_STREAMS: streams_max})
        self.flush()

    def flush(self) -> None:
        data = self.h2.data_to_send()
        if data and self.transport is not None and not self.frozen:
            self.transport.write(data)

    def freeze(self) -> None:
        """Read nothing and say nothing from now on, without closing."""
        self.frozen = True
        assert self.transport is not None
        self.transport.pause_reading()

    def kill(self) -> None:
        if self.transport is not None:
            self.transport.abort()

    def close(self) -> None:
        if self.transport is not None:
            self.transport.close()


@dataclass
class Peer:
    """An HTTP/2 server on loopback."""

    context: ssl.SSLContext | None
    script: Script = ok
    streams_max: int = 100
    frozen: bool = False
    port: int = 0
    calls: list[Call] = field(default_factory=list)
    calls_total: int = 0
    connections: list[Connection] = field(default_factory=list)
    alive: set[Connection] = field(default_factory=set)
    going_away: set[Connection] = field(default_factory=set)
    certificates: list[bytes | None] = field(default_factory=list)
    """What the client of each connection showed, as DER."""

    resets: int = 0
    pings: int = 0
    protocol_errors: int = 0
    _server: asyncio.Server | None = None
    _changed: asyncio.Future[None] | None = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                # Whoever was connected has closed, unless we would not see it.
                async with asyncio.timeout(5):
                    await self.until(lambda: all(connection.frozen for connection in self.alive))
        finally:
            await self.stop()

    @property
    def url(self) -> str:
        scheme = "https" if self.context else "http"
        return f"{scheme}://localhost:{self.port}"

    def opened(self, connection: Connection) -> None:
        self.connections.append(connection)
        self.alive.add(connection)
        self.notify()

    def notify(self) -> None:
        changed, self._changed = self._changed, None
        if changed is not None and not changed.done():
            changed.set_result(None)

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait until something on the wire makes *holds* true."""
        while not holds():
            if self._changed is None or self._changed.done():
                self._changed = asyncio.get_running_loop().create_future()
            await self._changed

    async def start(self) -> None:
        """Listen; on the port of the last time, if there was one."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: Connection(self), "127.0.0.1", self.port, ssl=self.context, backlog=1024
        )
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Break every connection and refuse new ones."""
        if self._server is None:
            return
        server, self._server = self._server, None
        server.close()
        dying = list(self.alive)
        for connection in dying:
            connection.kill()
        for connection in dying:
            await connection.closed
        await server.wait_closed()
