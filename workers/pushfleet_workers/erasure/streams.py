"""Erasing in the streams that keep something for people: receipts, dead tokens, entries that were refused."""

from __future__ import annotations

from collections.abc import Iterable

from pushfleet.errors import InvalidMessage
from pushfleet.message import LANES
from pushfleet_workers import stream_pages
from pushfleet_workers.dead_letters.letter import message_of
from pushfleet_workers.erasure.sought import Sought
from pushfleet_workers.ingress import IngressKeys
from pushfleet_workers.ingress.refused import RefusedEntries, RefusedEntry
from pushfleet_workers.receipts.book import ReceiptKeys
from pushfleet_workers.redis_link import Link
from pushfleet_workers.reports import ReportKeys
from pushfleet_workers.scripts import load
from pushfleet_workers.tokens.death_log import log_key

__all__ = ["StreamErasure"]

_REWRITE = load("pushfleet_workers.erasure", "rewrite")
_PAYLOAD = "m"
"""The field of a refused entry that holds what was refused, a recall as well."""


class StreamErasure:
    """The streams of one fleet; every method raises :class:`RedisUnusable`.

    * **queue** - the Redis of ingress and receipts.
    * **state** - that of the token state.
    * **clocks_apart_ms** - how far its clock may be ahead of the queue's, by which it is told what came before.
    """

    def __init__(self, queue: Link, state: Link, prefix: str, clocks_apart_ms: int) -> None:
        self._queue = queue
        self._state = state
        self._prefix = prefix
        self._apart_ms = clocks_apart_ms

    async def oldest_queued_ms(self) -> int | None:
        """When the oldest entry came that no router is done with; None: there is none."""
        commands = [("XRANGE", IngressKeys(self._prefix, lane).stream, "-", "+", "COUNT", 1) for lane in LANES]
        found = [reply[0][0] for reply in await self._queue.pipeline(commands) if reply]
        return min((int(name.partition(b"-")[0]) for name in found), default=None)

    async def sweep(self, sought: Sought) -> int:
        """Take out what is theirs; gives how many entries."""
        gone = await self._refused(sought) + await self._refused_reports(sought)
        for app in sought.apps:
            gone += await self._of_app(self._queue, ReceiptKeys(self._prefix, app).stream, app, sought)
            gone += await self._of_app(self._state, log_key(self._prefix, app), app, sought, self._apart_ms)
        return gone

    async def _of_app(self, link: Link, stream: str, app: str, sought: Sought, apart_ms: int = 0) -> int:
        """Take out the entries of *stream* that are of one of them alone."""
        gone = 0
        async for page in stream_pages.oldest_first(link, stream):
            theirs = [
                place
                for place, fields in page
                if sought.takes(app, fields.get(b"user", b"").decode(errors="replace"), _came_ms(place) - apart_ms)
            ]
            gone += await _delete(link, stream, theirs)
        return gone

    async def _refused(self, sought: Sought) -> int:
        gone = 0
        for lane in LANES:
            keys = IngressKeys(self._prefix, lane)
            async for page in RefusedEntries(self._queue, keys).oldest_first():
                for one in page:
                    becomes = _without(one, sought)
                    if becomes is not None:
                        arguments = (one.place, _PAYLOAD, one.payload, becomes)
                        gone += await self._queue.run(_REWRITE, (keys.refused,), arguments)
        return gone

    async def _refused_reports(self, sought: Sought) -> int:
        gone, stream = 0, ReportKeys(self._prefix).refused
        async for page in stream_pages.oldest_first(self._state, stream):
            theirs = [place for place, fields in page if _reports_on(fields.items(), sought, _came_ms(place))]
            gone += await _delete(self._state, stream, theirs)
        return gone


async def _delete(link: Link, stream: str, places: list[str]) -> int:
    return int(await link.call("XDEL", stream, *places)) if places else 0


def _without(refused: RefusedEntry, sought: Sought) -> bytes | None:
    """The payload of a *refused* entry without them, see :meth:`Sought.without_recipients`."""
    try:
        return sought.without_recipients(message_of(refused), refused.came_ms)
    except InvalidMessage:
        return b"" if sought.named_in_json(refused.payload, refused.came_ms) else None


def _reports_on(fields: Iterable[tuple[bytes, bytes]], sought: Sought, came_ms: int) -> bool:
    """Whether what no api could read tells of one of them."""
    said = dict(fields)
    app, user = (said.get(name, b"").decode(errors="replace") for name in (b"app", b"user"))
    lists = (value for name, value in said.items() if name not in (b"app", b"user", b"problem", b"id"))
    return sought.takes(app, user, came_ms) or any(sought.named_in_json(value, came_ms) for value in lists)


def _came_ms(place: str) -> int:
    return int(place.partition("-")[0])
