"""What was dropped, or died, before it reached its devices: whoever remembers for recalls what they show is told so."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence

from pushfleet_workers.errors import RedisUnusable, where_raised
from pushfleet_workers.ledger import Entry, Settlement
from pushfleet_workers.push import Delivery
from pushfleet_workers.redis_link import ReplyError

__all__ = ["Forget", "Unshown"]

log = logging.getLogger(__name__)

Forget = Callable[[Sequence[tuple[Entry, Sequence[Delivery]]]], Awaitable[None]]
"""Told of entries which of their deliveries were dropped."""


class Unshown:
    """Gathers what one account's deliveries were dropped, and tells *forget* once the ledger has it.

    Nothing waits for that. Where the token state is away it is not told, nor is what came meanwhile: then a recall of
    the message before one of these does not find it on the screen. Told late it would do harm, since what died may have
    been replayed by then, and be shown.
    """

    def __init__(self, forget: Forget, name: str) -> None:
        self._forget = forget
        self._name = name
        self._unsettled: list[tuple[Settlement, Entry, list[Delivery]]] = []
        self._dropped: list[tuple[Entry, Sequence[Delivery]]] = []
        self._telling: asyncio.Task[None] | None = None

    def dropped(self, settlement: Settlement, entry: Entry, deliveries: list[Delivery]) -> None:
        """*deliveries* of *entry* were dropped, as *settlement* will say."""
        self._unsettled.append((settlement, entry, deliveries))

    def settled(self, settlements: Sequence[Settlement], late: Sequence[Settlement]) -> None:
        """The ledger took *settlements*, not those that came too *late*: somebody else may send what these dropped."""
        if not self._unsettled:
            return
        done, void = {id(one) for one in settlements}, {id(one) for one in late}
        self._dropped += [(entry, some) for one, entry, some in self._unsettled if id(one) in done - void]
        self._unsettled = [some for some in self._unsettled if id(some[0]) not in done]
        if self._dropped and self._telling is None:
            self._telling = asyncio.get_running_loop().create_task(self._tell())

    async def told(self, timeout_s: float) -> None:
        """Wait until all is told, for so long at most."""
        if self._telling is not None:
            await asyncio.wait([self._telling], timeout=timeout_s)

    async def _tell(self) -> None:
        try:
            while self._dropped:
                dropped, self._dropped = self._dropped, []
                await self._forget(dropped)
        except (RedisUnusable, ReplyError) as problem:
            log.warning("of %s it cannot be noted what devices do not show: %s", self._name, problem)
        except Exception as problem:  # noqa: BLE001 - nobody awaits it
            log.error("telling what devices of %s do not show raised %s", self._name, where_raised(problem))
        finally:
            self._dropped.clear()
            self._telling = None
