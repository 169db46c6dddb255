"""The interface of an HTTP engine: one request in, one answer out, or :class:`NoAnswer`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from pushfleet_workers.vendor import Request, Response

__all__ = ["Transport", "TransportOptions"]


@dataclass(frozen=True, slots=True)
class TransportOptions:
    """How an account's connections are made."""

    http2: bool = False
    """Speak HTTP/2 and nothing else."""

    timeout_s: float = 10.0
    connect_timeout_s: float = 5.0
    connections: int = 1
    in_flight_max: int = 200
    ca_bundle: Path | None = None
    proxy: str = ""


class Transport(Protocol):
    """One account's connections in one process, bound to one event loop."""

    async def send(self, request: Request) -> Response:
        """
        The vendor's answer to *request*, whatever its status.

        Raises :class:`NoAnswer` when none came within ``timeout_s``; its ``maybe_delivered`` is False only where
        the request provably never left. Never raises anything else; never times out by cancelling.
        """
        ...

    async def renew(self) -> None:
        """Make the next request use a new connection; those in flight finish on the old one."""
        ...

    async def close(self) -> None:
        """Close all connections. Call it when nothing is in flight."""
        ...
