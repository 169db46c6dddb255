"""The interface of an HTTP engine: one request in, one answer out, or :class:`NoAnswer`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from pushfleet_workers.vendor import Identity, Request, Response

__all__ = ["Transport", "TransportOptions"]


@dataclass(frozen=True, slots=True)
class TransportOptions:
    """How an account's connections are made."""

    http2: bool = False
    """Speak HTTP/2 and nothing else."""

    timeout_s: float = 10.0
    """From when a request leaves; before that it may wait as long again for its connection's first answer."""

    connect_timeout_s: float = 5.0
    """TCP and TLS together; cut to below ``timeout_s``, so that an unreachable peer is known as one."""

    connections: int = 1
    in_flight_max: int = 200
    ca_bundle: Path | None = None
    identity: Identity | None = None
    """What the connections show to a peer that asks for a client certificate."""

    proxy: str = ""
    ping_interval_s: float = 10.0
    """How often an HTTP/2 connection is asked for a sign of life, idle ones too."""

    ping_timeout_s: float = 5.0
    """After how long without that sign it is given up."""


class Transport(Protocol):
    """One account's connections in one process, bound to one event loop."""

    async def send(self, request: Request) -> Response:
        """The vendor's answer to *request*, whatever its status.

        Raises :class:`NoAnswer` when none came within ``timeout_s``; its ``maybe_delivered`` is False only where
        the peer provably never took the request: no connection was made, the peer does not speak the HTTP/2 that
        was demanded, or it said that it had not begun with the request; it is a :class:`NotInTime` where the
        request was held back or its turn on a connection came only after its ``leave_by``, and a :class:`Distrusted`
        where the peer's certificate is not taken. Never raises anything else; never times out by cancelling. A
        cancelled caller breaks no other; whether its request was delivered is unknown.
        """
        ...

    def hold_back(self) -> None:
        """Let no request leave that waits for its turn on a connection: it raises :class:`NotInTime`.

        One that makes the connection which others wait for is under way.
        """
        ...

    async def renew(self) -> None:
        """Make the next request use a new connection; those in flight finish on the old one."""
        ...

    async def close(self) -> None:
        """Close all connections; what is in flight is waited for, at most ``timeout_s``. Nothing can be sent after."""
        ...
