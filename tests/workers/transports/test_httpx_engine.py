"""What httpx alone needs: many connections of HTTP/1.1 without many in one pool."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpcore
import pytest
from tests.workers.transports.peers1 import Http1Peer

from pushfleet_workers.fakecloud.certs import Certificates
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


async def send(transport: Transport, door: Door) -> None:
    response = await transport.send(Request(url=f"{door.url}/send", headers={}, body=b"{}"))
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
