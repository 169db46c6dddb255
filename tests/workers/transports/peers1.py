"""Small HTTP/1.1 servers: one that answers, proxies that open tunnels or none, and a threshold that few may cross."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from types import TracebackType
from typing import Literal, Self


class _Server:
    def __init__(self, context: ssl.SSLContext | None) -> None:
        self._context = context
        self._serving: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self.port = 0

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, ssl=self._context)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        for task in list(self._serving):
            task.cancel()
        if self._serving:
            await asyncio.wait(self._serving)
        await self._server.wait_closed()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
                await self.serve(reader, writer)
        finally:
            self._serving.discard(task)
            writer.transport.abort()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        raise NotImplementedError


class Http1Peer(_Server):
    """Answers every request with 200 and an empty object, what it cannot read with 400."""

    def __init__(self, context: ssl.SSLContext | None) -> None:
        super().__init__(context)
        self.heads: list[bytes] = []

    @property
    def url(self) -> str:
        return f"https://localhost:{self.port}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            self.heads.append(head)
            if not head.startswith(b"POST"):
                writer.write(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n")
                continue
            lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
            await reader.readexactly(int(lengths[0].split(b":")[1]))
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Type: application/json\r\n\r\n{}")


class Proxy(_Server):
    """Opens tunnels for those that bring *credentials*."""

    def __init__(self, credentials: str) -> None:
        super().__init__(None)
        self._credentials = credentials
        self.asked: list[str] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        if self._credentials not in head:
            writer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: 0\r\n\r\n")
            await writer.drain()
            return
        target = head.split(" ")[1]
        self.asked.append(target)
        host, port = target.rsplit(":", 1)
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        await _join(reader, writer, "127.0.0.1" if host == "localhost" else host, int(port))


class BadProxy(_Server):
    """Hears whom a tunnel is for and says nothing, or ends the connection, in order or not."""

    def __init__(self, manner: Literal["silent", "closes", "resets"]) -> None:
        super().__init__(None)
        self._manner = manner

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        if self._manner == "closes":
            writer.write_eof()
        if self._manner != "resets":
            await reader.read()


class Threshold(_Server):
    """Lets connections come, and says nothing to them until it is open; then they go on to *peer*."""

    def __init__(self, peer: Http1Peer) -> None:
        super().__init__(None)
        self._peer = peer
        self.came = 0
        self.open = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.came += 1
        await self.open.wait()
        await _join(reader, writer, "127.0.0.1", self._peer.port)


async def _join(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, host: str, port: int) -> None:
    far_reader, far_writer = await asyncio.open_connection(host, port)
    back = asyncio.create_task(_pass_on(far_reader, writer))
    try:
        await _pass_on(reader, far_writer)
    finally:
        back.cancel()
        await asyncio.wait([back])
        far_writer.transport.abort()


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
        writer.close()
