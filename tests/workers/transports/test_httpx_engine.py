"""What httpx alone needs: many connections of HTTP/1.1 without many in one pool, a look at who waits for a stream."""

from __future__ import annotations

import asyncio
import contextlib
import math
import ssl
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpcore
import pytest
from tests.workers.transports.peer import Peer, ok, silent
from tests.workers.transports.peers1 import BadProxy, Http1Peer, Threshold

from pushfleet_workers.errors import NoAnswer, NotInTime
from pushfleet_workers.fakecloud.certs import Certificates
from pushfleet_workers.settings import BreakerSettings
from pushfleet_workers.transports import Transport, TransportOptions, httpx_engine, open_transport
from pushfleet_workers.vendor import Request

CROWD = 120


class Door(Http1Peer):
    """Answers nobody before a whole crowd has come, and everybody after that."""

    def __init__(self, context: ssl.SSLContext) -> None:
        super().__init__(context)
        self.open: set[asyncio.StreamWriter] = set()
        self.opened = 0
        self._all_here = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.opened += 1
        self.open.add(writer)
        if self.opened == CROWD:
            self._all_here.set()
        try:
            await self._all_here.wait()
            await super().serve(reader, writer)
        finally:
            self.open.discard(writer)


@asynccontextmanager
async def after_a_crowd(http1: ssl.SSLContext, certificates: Certificates) -> AsyncIterator[tuple[Transport, Door]]:
    """A transport whose peer was slow, so that each of many requests needed a connection of its own."""
    options = TransportOptions(timeout_s=20.0, in_flight_max=CROWD, ca_bundle=certificates.ca_file)
    transport = open_transport("httpx", options)
    async with Door(http1) as door:
        try:
            await asyncio.gather(*(send(transport, door) for _ in range(CROWD)))
            assert door.opened == len(door.open) == CROWD
            yield transport, door
        finally:
            await transport.close()


async def send(transport: Transport, peer: Http1Peer | Threshold, leave_by: float = math.inf) -> None:
    url = f"https://localhost:{peer.port}/send"
    response = await transport.send(Request(url=url, headers={}, body=b"{}", leave_by=leave_by))
    assert response.status == 200


async def test_idle_connections_cost_the_next_requests_little(
    http1: ssl.SSLContext, certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = 0
    is_idle = httpcore.AsyncHTTPConnection.is_idle

    def counted(connection: httpcore.AsyncHTTPConnection) -> bool:
        nonlocal asked
        asked += 1
        return is_idle(connection)

    async with after_a_crowd(http1, certificates) as (transport, door):
        monkeypatch.setattr(httpcore.AsyncHTTPConnection, "is_idle", counted)
        for _ in range(10):
            await send(transport, door)
        assert asked < 10 * CROWD * CROWD / 10
        assert door.opened == CROWD, "idle connections are used again"


async def test_connections_that_only_a_crowd_needs_go_in_time(
    http1: ssl.SSLContext, certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with after_a_crowd(http1, certificates) as (transport, door):
        monkeypatch.setattr(httpx_engine, "_HTTP1_IDLE_S", 0.0)
        async with asyncio.timeout(10):
            while len(door.open) > httpx_engine._HTTP1_POOL:
                await send(transport, door)
        assert door.opened == CROWD


@asynccontextmanager
async def at_a_threshold(
    http1: ssl.SSLContext, certificates: Certificates, connect_timeout_s: float
) -> AsyncIterator[tuple[Transport, Threshold]]:
    """A transport whose peer lets connections come, and says nothing."""
    options = TransportOptions(
        timeout_s=20.0, connect_timeout_s=connect_timeout_s, in_flight_max=CROWD, ca_bundle=certificates.ca_file
    )
    transport = open_transport("httpx", options)
    async with Http1Peer(http1) as peer, Threshold(peer) as threshold:
        try:
            yield transport, threshold
        finally:
            await transport.close()


FEW = httpx_engine._CONNECTS_MAX


async def test_few_connections_are_made_at_a_time(http1: ssl.SSLContext, certificates: Certificates) -> None:
    async with at_a_threshold(http1, certificates, connect_timeout_s=3.0) as (transport, threshold):
        leave_by = time.monotonic() + 2.9
        crowd = (send(transport, threshold, leave_by) for _ in range(CROWD))
        problems = await asyncio.gather(*crowd, return_exceptions=True)
        assert threshold.came == FEW
        assert Counter(map(type, problems)) == {NoAnswer: FEW, NotInTime: CROWD - FEW}
        assert not any(problem.maybe_delivered for problem in problems if isinstance(problem, NoAnswer))
        threshold.open.set()
        await asyncio.gather(*(send(transport, threshold) for _ in range(CROWD)))


def test_so_many_that_cannot_connect_open_the_breaker() -> None:
    assert BreakerSettings().failures <= FEW


async def test_whose_turn_to_connect_comes_late_does_not_leave(
    http1: ssl.SSLContext, certificates: Certificates
) -> None:
    async with at_a_threshold(http1, certificates, connect_timeout_s=10.0) as (transport, threshold):
        leave_by = time.monotonic() + 0.3
        first = [asyncio.create_task(send(transport, threshold)) for _ in range(FEW)]
        rest = [asyncio.create_task(send(transport, threshold, leave_by)) for _ in range(FEW)]
        await until_late(leave_by - time.monotonic())
        threshold.open.set()
        await asyncio.gather(*first)
        problems = await asyncio.gather(*rest, return_exceptions=True)
        assert {type(problem) for problem in problems} == {NotInTime}
        assert threshold.came == FEW


async def test_who_waits_for_a_turn_to_connect_is_held_back(http1: ssl.SSLContext, certificates: Certificates) -> None:
    async with at_a_threshold(http1, certificates, connect_timeout_s=10.0) as (transport, threshold):
        first = [asyncio.create_task(send(transport, threshold)) for _ in range(FEW)]
        rest = [asyncio.create_task(send(transport, threshold)) for _ in range(FEW)]
        async with asyncio.timeout(10):
            while threshold.came < FEW:
                await asyncio.sleep(0.005)
        transport.hold_back()
        problems = await asyncio.gather(*rest, return_exceptions=True)
        assert {type(problem) for problem in problems} == {NotInTime}
        assert not any(one.done() for one in first)
        threshold.open.set()
        await asyncio.gather(*first)
        assert threshold.came == FEW


@pytest.mark.parametrize("http2", [True, False])
async def test_a_silent_proxy_is_not_waited_for_for_ever(http2: bool) -> None:
    async with BadProxy("silent") as proxy:
        options = TransportOptions(http2=http2, timeout_s=0.5, proxy=f"http://127.0.0.1:{proxy.port}")
        transport = open_transport("httpx", options)
        try:
            with pytest.raises(NoAnswer):
                await transport.send(Request(url="https://localhost:1/send", headers={}, body=b"{}"))
            async with asyncio.timeout(10):
                while transport._tasks:  # type: ignore[attr-defined]
                    await asyncio.sleep(0.005)
        finally:
            await transport.close()


@asynccontextmanager
async def one_stream(
    http2: ssl.SSLContext, certificates: Certificates, timeout_s: float
) -> AsyncIterator[tuple[Peer, Transport]]:
    """A peer that grants one stream, over which it has answered once and is asked again, and now says nothing."""
    options = TransportOptions(http2=True, timeout_s=timeout_s, ca_bundle=certificates.ca_file, connections=1)
    transport = open_transport("httpx", options)
    async with Peer(http2, streams_max=1) as peer:
        try:
            await transport.send(to(peer))
            peer.script = silent
            first = asyncio.create_task(transport.send(to(peer)))
            await peer.until(lambda: len(peer.calls) == 2)
            yield peer, transport
            with contextlib.suppress(NoAnswer):
                await first
        finally:
            await transport.close()


def to(peer: Peer, leave_by: float = math.inf) -> Request:
    return Request(url=f"{peer.url}/3/device/ab", headers={}, body=b"{}", leave_by=leave_by)


async def test_what_waited_for_a_stream_until_it_was_not_to_leave_any_more_is_not_sent(
    http2: ssl.SSLContext, certificates: Certificates
) -> None:
    async with one_stream(http2, certificates, timeout_s=20) as (peer, transport):
        leave_by = time.monotonic() + 0.1
        late = asyncio.create_task(transport.send(to(peer, leave_by)))
        await asyncio.sleep(leave_by - time.monotonic() + 0.01)
        peer.calls[1].answer()
        with pytest.raises(NotInTime) as told:
            await late
        assert not told.value.maybe_delivered
        assert peer.calls_total == 2
        peer.script = ok
        assert (await transport.send(to(peer))).status == 200
        assert len(peer.connections) == 1, "its connection is as good as before"


def departing(leave_by: float = math.inf) -> httpx_engine._Departure:
    return httpx_engine._Departure(leave_by, asyncio.Semaphore(FEW), 1.0)


def asking(method: bytes = b"POST") -> dict[str, httpcore.Request]:
    return {"request": httpcore.Request(method, "https://localhost/", extensions={"timeout": {"connect": 1.0}})}


@pytest.mark.parametrize("version", ["http11", "http2"])
async def test_whoever_was_told_that_it_was_not_sent_can_rely_on_that(version: str) -> None:
    departure = departing()
    await departure("connection.start_tls.complete", {})
    departure.call_off()
    with pytest.raises(httpx_engine._Unsent):
        await departure(f"{version}.send_request_headers.started", asking())
    assert not departure.left


async def test_a_connection_of_http1_that_is_there_is_used_however_late_it_is() -> None:
    departure = departing(time.monotonic() - 1)
    with pytest.raises(httpx_engine._Unsent):
        await departure("connection.connect_tcp.started", {})
    departure.over()
    await departure("http11.send_request_headers.started", asking())
    assert departure.left


async def test_asking_a_proxy_for_its_tunnel_is_no_departure() -> None:
    departure = departing()
    await departure("connection.connect_tcp.started", {})
    await departure("http11.send_request_headers.started", asking(b"CONNECT"))
    assert not departure.left
    assert departure.connects, "the handshake through the tunnel is still to come"
    await departure("http2.send_request_headers.started", asking())
    assert departure.left
    assert not departure.connects


@pytest.mark.parametrize("why", ["late", "called off"])
async def test_what_a_goaway_left_aside_is_looked_at_again(why: str) -> None:
    departure = departing()
    await departure("http2.send_request_headers.started", asking())
    assert departure.left
    if why == "called off":
        departure.call_off()
    else:
        departure._leave_by = time.monotonic() - 1
    with pytest.raises(httpx_engine._Unsent):
        await departure("http2.send_request_headers.started", asking())
    assert not departure.left, "the peer did not begin with it"


async def until_late(seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        await asyncio.sleep(0.005)


async def test_what_waited_for_a_stream_for_too_long_was_never_sent_and_never_will_be(
    http2: ssl.SSLContext, certificates: Certificates
) -> None:
    async with one_stream(http2, certificates, timeout_s=0.4) as (peer, transport):
        with pytest.raises(NoAnswer) as told:
            await transport.send(to(peer))
        assert not told.value.maybe_delivered
        peer.calls[1].answer()
        peer.script = ok
        assert (await transport.send(to(peer))).status == 200
        assert peer.calls_total == 3
