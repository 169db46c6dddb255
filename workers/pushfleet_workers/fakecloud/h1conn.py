"""HTTP/1.1, server side: one connection, one request after the other."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

import h11

from pushfleet_workers.fakecloud.sockets import end_writing
from pushfleet_workers.fakecloud.wire import Fault, Reply, Request, Response

__all__ = ["Http1Answerer", "Http1Connection"]

Http1Answerer = Callable[[Request], "Reply | asyncio.Future[Reply]"]
"""As :data:`Answerer`, or with an answer that is still being made."""

BODY_BYTES_MAX = 1 << 20


class Http1Connection(asyncio.Protocol):
    """Reads a request, asks *answerer*, answers, and goes on with the next."""

    def __init__(self, answerer: Http1Answerer, on_close: Callable[[Http1Connection], None]) -> None:
        self._answerer = answerer
        self._on_close = on_close
        self._h11 = h11.Connection(h11.SERVER)
        self._transport: asyncio.Transport | None = None
        self._loop = asyncio.get_running_loop()
        self._head: h11.Request | None = None
        self._chunks: list[bytes] = []
        self._timer: asyncio.TimerHandle | None = None
        self._session: dict[str, str] = {}

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Wait for the first request."""
        # A cast, since the TLS transports of some loops are no subclass.
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget what was in flight."""
        self._transport = None
        if self._timer is not None:
            self._timer.cancel()
        self._on_close(self)

    def data_received(self, data: bytes) -> None:
        """Handle as much as is complete."""
        self._h11.receive_data(data)
        self._advance()

    def eof_received(self) -> bool:
        """Let the transport close."""
        return False

    def set_max_streams(self, max_streams: int) -> None:
        """Nothing: HTTP/1.1 has no streams."""

    def abort(self) -> None:
        """Break off at once."""
        if self._transport is not None:
            self._transport.abort()

    def _advance(self) -> None:
        try:
            while self._transport is not None:
                event = self._h11.next_event()
                if event in (h11.NEED_DATA, h11.PAUSED):
                    return
                self._take(event)
        except h11.RemoteProtocolError:
            self._close()

    def _take(self, event: object) -> None:
        if isinstance(event, h11.Request):
            self._head, self._chunks = event, []
        elif isinstance(event, h11.Data):
            self._chunks.append(bytes(event.data))
            if sum(map(len, self._chunks)) > BODY_BYTES_MAX:
                self._close()
        elif isinstance(event, h11.EndOfMessage):
            self._ask()
        elif isinstance(event, h11.ConnectionClosed):
            self._close()

    def _ask(self) -> None:
        assert self._head is not None
        reply = self._answerer(_request(self._head, b"".join(self._chunks), self._session))
        if isinstance(reply, asyncio.Future):
            reply.add_done_callback(self._reply_made)
        elif reply.delay_s:
            self._timer = self._loop.call_later(reply.delay_s, self._reply, reply)
        else:
            self._reply(reply)

    def _reply_made(self, made: asyncio.Future[Reply]) -> None:
        if not made.cancelled():
            self._reply(made.result())

    def _reply(self, reply: Reply) -> None:
        self._timer = None
        if self._transport is None or reply.fault is Fault.SILENT:
            return
        if reply.fault is Fault.NONE:
            assert reply.response is not None
            self._send(reply.response)
        elif reply.fault is Fault.DROP:
            self.abort()
        elif reply.fault is Fault.HALF_CLOSE:
            end_writing(self._transport)
        else:
            self._close()

    def _send(self, response: Response) -> None:
        assert self._transport is not None
        headers = [*response.headers, ("content-length", str(len(response.body)))]
        self._transport.write(
            (self._h11.send(h11.Response(status_code=response.status, headers=headers)) or b"")
            + (self._h11.send(h11.Data(data=response.body)) or b"")
            + (self._h11.send(h11.EndOfMessage()) or b"")
        )
        if self._h11.our_state is h11.MUST_CLOSE:
            self._close()
            return
        self._h11.start_next_cycle()
        # A pipelined request may lie in the buffer already.
        self._loop.call_soon(self._advance)

    def _close(self) -> None:
        if self._transport is not None:
            self._transport.close()
            self._transport = None


def _request(head: h11.Request, body: bytes, session: dict[str, str]) -> Request:
    path, _, query = head.target.decode("latin-1").partition("?")
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in head.headers}
    method = head.method.decode("latin-1")
    return Request(method, path, headers, body, query, len(headers) != len(list(head.headers)), session)
