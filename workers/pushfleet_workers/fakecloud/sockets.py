"""What asyncio's transports cannot do with the socket below them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket

__all__ = ["end_writing"]


def end_writing(transport: asyncio.BaseTransport) -> None:
    """End our side of the connection below *transport* at once; reading goes on.

    TLS does not say goodbye, and nothing may be written after: that is a peer whose process has been cut off.
    """
    # A descriptor of our own, since the sockets that loops show cannot be shut down.
    own = os.dup(transport.get_extra_info("socket").fileno())
    with contextlib.closing(socket.socket(fileno=own)) as connection, contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_WR)
