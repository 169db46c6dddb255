"""What lies in a stream, page by page, from either end."""

from __future__ import annotations

from collections.abc import AsyncIterator

from pushfleet_workers.redis_link import Link

__all__ = ["Page", "newest_first", "oldest_first"]

Page = list[tuple[str, dict[bytes, bytes]]]
"""Entries: id and fields; never empty."""

_PAGE = 100


async def oldest_first(link: Link, stream: str, first: str = "-", last: str = "+") -> AsyncIterator[Page]:
    """The entries of *stream* from id *first* to *last*, both as `XRANGE` takes them. Raises :class:`RedisUnusable`."""
    while True:
        found = _page(await link.call("XRANGE", stream, first, last, "COUNT", _PAGE))
        if found:
            yield found
        if len(found) < _PAGE:
            return
        first = f"({found[-1][0]}"


async def newest_first(link: Link, stream: str, first: str = "-", last: str = "+") -> AsyncIterator[Page]:
    """As :func:`oldest_first`, the other way round."""
    while True:
        found = _page(await link.call("XREVRANGE", stream, last, first, "COUNT", _PAGE))
        if found:
            yield found
        if len(found) < _PAGE:
            return
        last = f"({found[-1][0]}"


def _page(reply: list[tuple[bytes, list[bytes]]]) -> Page:
    return [(name.decode(), dict(zip(flat[::2], flat[1::2], strict=True))) for name, flat in reply]
