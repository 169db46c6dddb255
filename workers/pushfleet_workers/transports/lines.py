"""What all engines share: requests spread over lines, a new line's first request alone, renewal, an orderly end."""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Mapping
from typing import Generic, TypeVar
from urllib.parse import urlsplit

from pushfleet_workers.errors import SettingsError
from pushfleet_workers.transports.base import TransportOptions
from pushfleet_workers.transports.failure import Failure, Reason
from pushfleet_workers.vendor import Request, Response

__all__ = ["Line", "LineTransport", "are_sendable", "connect_timeout_s"]

ClientT = TypeVar("ClientT")

_CONNECT_SHARE = 0.8


def connect_timeout_s(options: TransportOptions) -> float:
    """The connect timeout, kept below the total: whichever strikes first says whether the request may have left."""
    return min(options.connect_timeout_s, options.timeout_s * _CONNECT_SHARE)


def are_sendable(headers: Mapping[str, str]) -> bool:
    """Whether h2 can send *headers*: it finds out in the middle of the block, and breaks the connection for all."""
    return all(name.isascii() and name.isprintable() and value.isprintable() for name, value in headers.items())


def _is_proxy(address: str) -> bool:
    try:
        parts = urlsplit(address)
        return parts.scheme == "http" and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


class Line(Generic[ClientT]):
    """One connection's share of the traffic: a client of its own, and what is known of its connection."""

    __slots__ = ("client", "era", "gone", "in_flight", "piloted", "retired", "used_at", "warm")

    def __init__(self) -> None:
        self.client: ClientT | None = None
        self.warm = False
        """Whether this connection has answered, so that any number of requests may follow."""

        self.era = 0
        """Counts the times it became warm: a failure that began in an older era says nothing of this one."""

        self.piloted = False
        self.in_flight = 0
        self.used_at = 0.0
        """When its last request began or ended; monotonic seconds."""

        self.retired = False
        self.gone: asyncio.Future[None] | None = None


class LineTransport(ABC, Generic[ClientT]):
    """A :class:`Transport` over *lines* lines, by default ``options.connections`` of them, or one for HTTP/1.1.

    The first request of a line goes alone. A burst on a cold client would open several connections, and Apple admits
    one stream until the first request has been answered. Meanwhile the others use lines that are warm, or wait.
    """

    def __init__(self, options: TransportOptions, *, one_connection_per_line: bool, lines: int = 0) -> None:
        if options.proxy and not _is_proxy(options.proxy):
            # Not with the value: it may hold a password.
            raise SettingsError("proxy is not an address like http://proxy:3128")
        self._options = options
        self._timeout_s = options.timeout_s
        self._first_alone = one_connection_per_line
        self._count = lines or (options.connections if one_connection_per_line else 1)
        self._turn = 0
        self._lines = self._new_lines()
        self._retired: set[Line[ClientT]] = set()
        self._landed: asyncio.Future[Failure | None] | None = None
        self._held_back = 0
        """How often what waited for a connection was held back."""

        self._closed = False

    @abstractmethod
    def _open(self, line: Line[ClientT]) -> ClientT:
        """A client that will make one connection when it is used."""

    @abstractmethod
    async def _exchange(self, line: Line[ClientT], request: Request) -> Response | Failure:
        """The answer over ``line.client``, or why there is none; raises nothing but CancelledError."""

    @abstractmethod
    async def _shut(self, client: ClientT) -> None:
        """Close *client* and its connection; nothing else refers to it any more."""

    async def send(self, request: Request) -> Response:
        """See :meth:`Transport.send`."""
        if time.monotonic() > request.leave_by:
            # Content was stored ahead of it for too long, or an idle connection was closed.
            raise Failure(Reason.STALE).as_error()
        outcome = await self._try(request)
        if isinstance(outcome, Failure) and outcome.try_again and time.monotonic() <= request.leave_by:
            outcome = await self._try(request)
        if isinstance(outcome, Failure):
            raise outcome.as_error()
        return outcome

    def hold_back(self) -> None:
        """See :meth:`Transport.hold_back`."""
        self._held_back += 1
        self._wake(None)

    async def renew(self) -> None:
        """See :meth:`Transport.renew`."""
        if self._closed:
            return
        old, self._lines = self._lines, self._new_lines()
        self._wake(None)
        for line in old:
            await self._retire(line)

    async def close(self) -> None:
        """See :meth:`Transport.close`."""
        self._closed = True
        old, self._lines = self._lines, [Line()]
        self._wake(None)
        for line in old:
            await self._retire(line)
        waiting = [line.gone for line in self._retired if line.gone is not None]
        if waiting:
            await asyncio.wait(waiting, timeout=self._timeout_s)
        for line in list(self._retired):
            await self._finish(line)

    async def _replace(self, line: Line[ClientT]) -> None:
        """Give *line*'s place to a new one, as :meth:`renew` does for all; for engines that doubt a connection."""
        if line in self._lines:
            self._lines[self._lines.index(line)] = self._new_line()
            await self._retire(line)

    def _new_line(self) -> Line[ClientT]:
        line: Line[ClientT] = Line()
        line.warm = not self._first_alone
        return line

    def _new_lines(self) -> list[Line[ClientT]]:
        return [self._new_line() for _ in range(self._count)]

    # ---- one attempt

    def _try(self, request: Request) -> Awaitable[Response | Failure]:
        line = self._next_line(self._lines)
        return self._carry(line, request) if line.warm else self._try_cold(request)

    def _next_line(self, lines: list[Line[ClientT]]) -> Line[ClientT]:
        """The line for the next request: each in turn."""
        self._turn = (self._turn + 1) % len(lines)
        return lines[self._turn]

    async def _try_cold(self, request: Request) -> Response | Failure:
        """Be the first on a line, or find one that is warm, or wait for one."""
        loop = asyncio.get_running_loop()
        deadline, held_back = loop.time() + self._timeout_s, self._held_back
        while not self._closed:
            if time.monotonic() > request.leave_by or self._held_back != held_back:
                # All that waited for the connection would leave at once.
                return Failure(Reason.STALE)
            lines = self._lines
            line = lines[self._turn % len(lines)]
            if not (line.warm or line.piloted):
                return await self._pilot(line, request)
            warm = [other for other in lines if other.warm]
            if warm:
                return await self._carry(warm[self._turn % len(warm)], request)
            if self._landed is None:
                self._landed = loop.create_future()
            done, _ = await asyncio.wait([self._landed], timeout=max(0.0, deadline - loop.time()))
            if not done:
                return Failure(Reason.CROWDED)
            failure = done.pop().result()
            hopeless = lines is self._lines and not any(other.warm or other.piloted for other in lines)
            if failure and failure.shared and hopeless:
                return failure
            if failure and hopeless and time.monotonic() > request.leave_by:
                # Not its own lateness kept it: the breaker is to hear of a peer that answers nobody.
                return Failure(Reason.CROWDED)
            self._turn += 1
        return Failure(Reason.CLOSED)

    async def _pilot(self, line: Line[ClientT], request: Request) -> Response | Failure:
        outcome: Response | Failure | None = None
        line.piloted = True
        try:
            outcome = await self._carry(line, request)
            if isinstance(outcome, Response):
                line.era += 1
                line.warm = True
        finally:
            line.piloted = False
            self._wake(outcome if isinstance(outcome, Failure) else None)
        return outcome

    def _wake(self, failure: Failure | None) -> None:
        if self._landed is not None:
            self._landed.set_result(failure)
            self._landed = None

    async def _carry(self, line: Line[ClientT], request: Request) -> Response | Failure:
        era = line.era
        if line.client is None:
            line.client = self._open(line)
        line.in_flight += 1
        line.used_at = time.monotonic()
        try:
            outcome = await self._exchange(line, request)
        finally:
            line.in_flight -= 1
            line.used_at = time.monotonic()
            if line.retired and not line.in_flight:
                await self._finish(line)
        if isinstance(outcome, Failure) and outcome.ends_connection and line.era == era:
            line.warm = not self._first_alone
        return outcome

    # ---- ends

    async def _retire(self, line: Line[ClientT]) -> None:
        line.retired = True
        if line.client is None and not line.in_flight:
            return
        line.gone = asyncio.get_running_loop().create_future()
        self._retired.add(line)
        if not line.in_flight:
            await self._finish(line)

    async def _finish(self, line: Line[ClientT]) -> None:
        self._retired.discard(line)
        client, line.client = line.client, None
        if client is not None:
            await self._shut(client)
        if line.gone is not None and not line.gone.done():
            line.gone.set_result(None)
