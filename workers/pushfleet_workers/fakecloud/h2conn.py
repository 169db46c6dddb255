"""HTTP/2, server side: one connection, no task per request."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from hashlib import sha256
from typing import Any, cast

import msgspec
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import (
    DataReceived,
    RemoteSettingsChanged,
    RequestReceived,
    StreamEnded,
    StreamReset,
    WindowUpdated,
)
from h2.exceptions import ProtocolError
from h2.settings import SettingCodes, Settings

from pushfleet_workers.fakecloud.sockets import end_writing
from pushfleet_workers.fakecloud.wire import Answerer, Fault, Reply, Request, Response

__all__ = ["Http2Connection"]

BODY_BYTES_MAX = 1 << 20
"""Also each stream's window, which is never widened: a larger body is reset."""

_CONNECTION_WINDOW = 1 << 22
_WINDOW_STEP = 1 << 19
_DEFAULT_WINDOW = 65_535


class _Arriving:
    """A request whose end has not come."""

    __slots__ = ("chunks", "headers", "size")

    def __init__(self, headers: list[tuple[bytes, bytes]]) -> None:
        self.headers = headers
        self.chunks: list[bytes] = []
        self.size = 0


class Http2Connection(asyncio.Protocol):
    """Reads requests, asks *answerer*, and writes each batch of answers at once."""

    def __init__(self, answerer: Answerer, max_streams: int, on_close: Callable[[Http2Connection], None]) -> None:
        self._answerer = answerer
        self._max_streams = max_streams
        self._on_close = on_close
        # The checks are for peers that might not speak HTTP/2 properly; they cost a fifth of the time.
        config = H2Configuration(
            client_side=False,
            header_encoding=None,
            validate_inbound_headers=False,
            validate_outbound_headers=False,
            normalize_inbound_headers=False,
            normalize_outbound_headers=False,
        )
        self._h2 = H2Connection(config)
        self._transport: asyncio.Transport | None = None
        self._loop = asyncio.get_running_loop()
        self._arriving: dict[int, _Arriving] = {}
        self._unsent: dict[int, bytes] = {}
        self._timers: dict[int, asyncio.TimerHandle] = {}
        self._session: dict[str, str] = {}
        self._consumed = 0
        self._last_asked = 0
        self._asked_before = 0
        self._ended = False
        self._mute = False
        """We have ended our side: what comes is taken, and nothing is said any more."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Greet with our settings."""
        # A cast, since the TLS transports of some loops are no subclass.
        self._transport = cast("asyncio.Transport", transport)
        shown = transport.get_extra_info("ssl_object").getpeercert(binary_form=True)
        if shown:
            self._session["certificate"] = sha256(shown).hexdigest()
        self._h2.local_settings = Settings(
            client=False,
            initial_values={
                SettingCodes.INITIAL_WINDOW_SIZE: BODY_BYTES_MAX,
                SettingCodes.MAX_FRAME_SIZE: 16_384,
                SettingCodes.ENABLE_CONNECT_PROTOCOL: 0,
            },
        )
        self._h2.initiate_connection()
        # In a frame of its own: h2 then enforces the limit only once the client has acknowledged it.
        self._h2.update_settings({SettingCodes.MAX_CONCURRENT_STREAMS: self._max_streams})
        self._h2.increment_flow_control_window(_CONNECTION_WINDOW - _DEFAULT_WINDOW)
        self._flush()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget what was in flight."""
        self._ended = True
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        self._transport = None
        self._on_close(self)

    def data_received(self, data: bytes) -> None:
        """Handle all that came, then write all that is to be said."""
        if self._ended:
            return
        try:
            events = self._h2.receive_data(data)
        except ProtocolError:
            self._flush()
            self._close()
            return
        for event in events:
            handler = _HANDLERS.get(type(event))
            if handler is not None:
                handler(self, event)
            if self._ended:
                return
        self._flush()

    def set_max_streams(self, max_streams: int) -> None:
        """Announce a new limit; streams that are open stay open."""
        if not self._ended:
            self._h2.update_settings({SettingCodes.MAX_CONCURRENT_STREAMS: max_streams})
            self._flush()

    def abort(self) -> None:
        """Break off at once."""
        self._ended = True
        if self._transport is not None:
            self._transport.abort()

    def _on_headers(self, event: RequestReceived) -> None:
        headers: Any = event.headers
        self._arriving[event.stream_id] = _Arriving(headers)

    def _on_data(self, event: DataReceived) -> None:
        self._consumed += event.flow_controlled_length
        if self._consumed >= _WINDOW_STEP:
            self._h2.increment_flow_control_window(self._consumed)
            self._consumed = 0
        request = self._arriving.get(event.stream_id)
        if request is None:
            return
        request.chunks.append(event.data)
        request.size += len(event.data)
        if request.size >= BODY_BYTES_MAX:
            del self._arriving[event.stream_id]
            self._h2.reset_stream(event.stream_id, ErrorCodes.ENHANCE_YOUR_CALM)

    def _on_end(self, event: StreamEnded) -> None:
        arrived = self._arriving.pop(event.stream_id, None)
        if arrived is None:
            return
        if event.stream_id > self._last_asked:
            self._asked_before, self._last_asked = self._last_asked, event.stream_id
        reply = self._answerer(self._request(arrived))
        if reply.delay_s:
            self._timers[event.stream_id] = self._loop.call_later(
                reply.delay_s, self._reply_late, event.stream_id, reply
            )
        else:
            self._reply(event.stream_id, reply)

    def _on_reset(self, event: StreamReset) -> None:
        self._arriving.pop(event.stream_id, None)
        self._unsent.pop(event.stream_id, None)
        timer = self._timers.pop(event.stream_id, None)
        if timer is not None:
            timer.cancel()

    def _on_window(self, event: WindowUpdated | RemoteSettingsChanged) -> None:
        for stream_id, body in list(self._unsent.items()):
            del self._unsent[stream_id]
            self._send_body(stream_id, body)

    def _request(self, arrived: _Arriving) -> Request:
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in arrived.headers}
        path, _, query = headers.get(":path", "").partition("?")
        return Request(
            headers.get(":method", ""),
            path,
            headers,
            b"".join(arrived.chunks),
            query,
            len(headers) != len(arrived.headers),
            self._session,
        )

    def _reply_late(self, stream_id: int, reply: Reply) -> None:
        del self._timers[stream_id]
        if self._ended:
            return
        self._reply(stream_id, reply)
        self._flush()

    def _reply(self, stream_id: int, reply: Reply) -> None:
        try:
            self._carry_out(stream_id, reply)
        except ProtocolError:
            # The client gave this stream up, perhaps in the very bytes that brought the request.
            self._unsent.pop(stream_id, None)

    def _carry_out(self, stream_id: int, reply: Reply) -> None:
        if reply.fault is Fault.NONE:
            assert reply.response is not None
            self._send(stream_id, reply.response)
        elif reply.fault is Fault.RESET:
            self._h2.reset_stream(stream_id, reply.h2_error)
        elif reply.fault is Fault.GOAWAY:
            self._go_away(stream_id, reply)
        elif reply.fault is Fault.DROP:
            self.abort()
        elif reply.fault is Fault.HALF_CLOSE:
            self._end_our_side()

    def _send(self, stream_id: int, response: Response) -> None:
        headers = [(b":status", b"%d" % response.status)]
        headers += [(name.encode("latin-1"), value.encode("latin-1")) for name, value in response.headers]
        self._h2.send_headers(stream_id, headers, end_stream=not response.body)
        if response.body:
            self._send_body(stream_id, response.body)

    def _send_body(self, stream_id: int, body: bytes) -> None:
        """Send what the client's window admits and keep the rest for when it opens."""
        h2 = self._h2
        while body:
            room = min(h2.local_flow_control_window(stream_id), h2.max_outbound_frame_size)
            if room <= 0:
                self._unsent[stream_id] = body
                return
            h2.send_data(stream_id, body[:room], end_stream=len(body) <= room)
            body = body[room:]

    def _go_away(self, stream_id: int, reply: Reply) -> None:
        # Streams above the last one named were not processed: that must stay true of all that were asked since.
        last = self._asked_before if stream_id == self._last_asked and not reply.processed else self._last_asked
        data = msgspec.json.encode({"reason": reply.reason}) if reply.reason else None
        self._h2.close_connection(reply.h2_error, data, last)
        self._flush()
        self._close()

    def _end_our_side(self) -> None:
        self._flush()
        self._mute = True
        if self._transport is not None:
            end_writing(self._transport)

    def _flush(self) -> None:
        data = self._h2.data_to_send()
        if data and self._transport is not None and not self._mute:
            self._transport.write(data)

    def _close(self) -> None:
        self._ended = True
        if self._transport is not None:
            self._transport.close()


_HANDLERS: dict[type, Callable[[Http2Connection, Any], None]] = {
    RequestReceived: Http2Connection._on_headers,
    DataReceived: Http2Connection._on_data,
    StreamEnded: Http2Connection._on_end,
    StreamReset: Http2Connection._on_reset,
    WindowUpdated: Http2Connection._on_window,
    RemoteSettingsChanged: Http2Connection._on_window,
}
