"""A vendor that says yes at once: what the benchmarks send to. Not counted in any figure."""

from __future__ import annotations

from typing import Any


async def app(scope: Any, protocol: Any) -> None:
    """RSGI: 200 without a body, the push id echoed as APNs does."""
    # An answer before the body was read makes the server reset the stream, which httpx takes badly.
    await protocol()
    protocol.response_empty(200, [("apns-id", scope.headers.get("apns-id") or "")])
