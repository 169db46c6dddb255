"""Connections that show a client certificate, and show the new one once the old was replaced."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from pushfleet_workers.errors import CredentialError, NoAnswer, SettingsError
from pushfleet_workers.transports.base import Transport
from pushfleet_workers.vendor import Identity, Request, Response

__all__ = ["CertifiedTransport"]


class CertifiedTransport:
    """A transport that is opened anew for every new certificate.

    * **open_with** - opens connections that show a certificate.
    * **identity** - the certificate now; raises :class:`CredentialError`.
    """

    def __init__(self, open_with: Callable[[Identity], Transport], identity: Callable[[], Identity]) -> None:
        self._open_with = open_with
        self._identity = identity
        self._shown: Identity | None = None
        self._transport: Transport | None = None
        self._closing: set[asyncio.Task[None]] = set()

    async def send(self, request: Request) -> Response:
        """As :meth:`Transport.send`; without a readable certificate nothing leaves."""
        try:
            transport = self._current()
        except (CredentialError, SettingsError, OSError) as problem:
            raise NoAnswer(str(problem), maybe_delivered=False) from None
        return await transport.send(request)

    def hold_back(self) -> None:
        """As :meth:`Transport.hold_back`."""
        if self._transport is not None:
            self._transport.hold_back()

    async def renew(self) -> None:
        """As :meth:`Transport.renew`."""
        if self._transport is not None:
            await self._transport.renew()

    async def close(self) -> None:
        """As :meth:`Transport.close`."""
        if self._transport is not None:
            await self._transport.close()
        await asyncio.gather(*self._closing)

    def _current(self) -> Transport:
        identity = self._identity()
        if self._transport is not None and identity == self._shown:
            return self._transport
        opened = self._open_with(identity)
        if self._transport is not None:
            # What is in flight on the old connections finishes there.
            closing = asyncio.get_running_loop().create_task(self._transport.close())
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)
        self._transport, self._shown = opened, identity
        return opened
