"""Waking the drains of a vendor: a bell for those that listen, a Celery trigger when nobody does.

All of it is a hint. A lost ring or trigger costs at most the second until a worker looks by itself.
"""

from __future__ import annotations

from collections.abc import Callable

from pushfleet_workers.ledger.keys import VendorKeys
from pushfleet_workers.redis_link import Link
from pushfleet_workers.scripts import Script, load

__all__ = ["Bell", "Trigger", "ring_call"]

Trigger = Callable[[str], None]
"""Publishes `push.drain` for a vendor; returns at once."""

_LISTEN_MS = 5_000
_RING, _LISTEN, _LEAVE, _SPREAD = (load(__name__, name) for name in ("ring", "listen", "leave", "spread"))


def ring_call(keys: VendorKeys) -> tuple[Script, tuple[str, ...], tuple[()]]:
    """The script call that rings the bell; it answers 1 when a trigger must be published."""
    return _RING, (keys.bell, keys.trigger, keys.listeners), ()


class Bell:
    """One drain's ear on its vendor's bell.

    * **link** - for commands that answer at once.
    * **waiting_link** - a connection of its own, since it blocks.
    * **drain** - the drain's name, unique in the fleet.
    """

    def __init__(self, link: Link, waiting_link: Link, keys: VendorKeys, drain: str) -> None:
        self._link = link
        self._waiting_link = waiting_link
        self._keys = keys
        self._drain = drain

    async def listen(self) -> None:
        """Say that this drain listens, for the next five seconds."""
        await self._link.run(_LISTEN, (self._keys.trigger, self._keys.listeners), (self._drain, _LISTEN_MS))

    async def wait(self, timeout_s: float) -> bool:
        """Whether the bell rang within *timeout_s*."""
        return await self._waiting_link.call("BLPOP", self._keys.bell, max(0.01, timeout_s)) is not None

    async def leave(self, *, at_once: bool = False) -> bool:
        """Whether this drain may go: not when the bell rang, which counts as heard then, unless it must *at_once*."""
        left = await self._link.run(_LEAVE, (self._keys.bell, self._keys.listeners), (self._drain, int(at_once)))
        return bool(left)

    async def wants_company(self, drains_max: int) -> bool:
        """Whether one more drain should be triggered, up to *drains_max* in the fleet."""
        spread = await self._link.run(_SPREAD, (self._keys.trigger, self._keys.listeners), (drains_max,))
        return bool(spread)
