"""Serving an application on granian inside this process: one process, so that there is one registry of metrics."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import threading
from collections.abc import Callable

from granian.constants import Interfaces
from granian.server.embed import Server
from starlette.types import ASGIApp

from pushfleet_workers.errors import FleetError

__all__ = ["serve"]

_LISTEN_TIMEOUT_S = 10.0
_THREADS_TIMEOUT_S = 2.0
_LOOK_S = 0.005


async def serve(app: ASGIApp, host: str, port: int, ready: Callable[[int], None]) -> None:
    """Serve *app* until cancelled; requests under way are answered first, then the port is free.

    * **port** - 0 picks a free one.
    * **ready** - called with the port once it is listened on.

    Raises :class:`FleetError` when the address cannot be listened on.
    """
    port = _free(host, port)
    threads = _native_threads()
    server = Server(app, address=host, port=port, interface=Interfaces.ASGI, websockets=False, log_enabled=False)
    serving = asyncio.create_task(server.serve())
    try:
        await _until_it_listens(serving, host, port)
        ready(port)
        await asyncio.shield(serving)
    finally:
        server.stop()  # type: ignore[no-untyped-call]
        await _to_the_end(asyncio.ensure_future(_ended(serving, threads)))


def _free(host: str, port: int) -> int:
    """The port, picked where it is 0. Granian shares a port that is taken with whoever has it, and says nothing."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            probe.listen(1)
            return int(probe.getsockname()[1])
    except OSError as problem:
        raise FleetError(f"cannot listen on {host}:{port}: {problem.strerror or problem}") from problem


async def _until_it_listens(serving: asyncio.Task[None], host: str, port: int) -> None:
    deadline = asyncio.get_running_loop().time() + _LISTEN_TIMEOUT_S
    while True:
        if serving.done():
            problem = serving.exception()
            raise FleetError(f"cannot serve on {host}:{port}: {problem or 'it ended at once'}")
        try:
            _, writer = await asyncio.open_connection("127.0.0.1" if host == "0.0.0.0" else host, port)  # noqa: S104
        except OSError:
            if asyncio.get_running_loop().time() > deadline:
                raise FleetError(f"nothing listens on {host}:{port} after {_LISTEN_TIMEOUT_S:.0f} s") from None
            await asyncio.sleep(_LOOK_S)
            continue
        writer.close()
        await writer.wait_closed()
        return


async def _ended(serving: asyncio.Task[None], threads_before: set[int]) -> None:
    """Wait for the server and for the threads of its runtime, which outlive it by some milliseconds.

    An interpreter that ends while one of them still asks for its lock aborts.
    """
    await asyncio.wait({serving})
    deadline = asyncio.get_running_loop().time() + _THREADS_TIMEOUT_S
    # Nothing tells when such a thread ends: it has to be looked at.
    while _native_threads() - threads_before and asyncio.get_running_loop().time() < deadline:  # noqa: ASYNC110
        await asyncio.sleep(_LOOK_S)
    await serving


def _native_threads() -> set[int]:
    """Threads of this process that Python did not start; none where the system does not list them."""
    listed: set[int] = set()
    with contextlib.suppress(OSError):
        listed = {int(name) for name in os.listdir("/proc/self/task")}
    return listed - {thread.native_id for thread in threading.enumerate() if thread.native_id is not None}


async def _to_the_end(ending: asyncio.Future[None]) -> None:
    """Wait even when cancelled again: what is left behind would hold the port."""
    cancelled: asyncio.CancelledError | None = None
    while not ending.done():
        try:
            await asyncio.wait({ending})
        except asyncio.CancelledError as again:
            cancelled = again
    if not ending.cancelled() and (problem := ending.exception()) is not None and cancelled is None:
        raise problem
    if cancelled is not None:
        raise cancelled
