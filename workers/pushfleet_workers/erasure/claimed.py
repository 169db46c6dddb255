"""What waited for users who were erased is not sent, although they may be back."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from pushfleet_workers.errors import where_raised
from pushfleet_workers.ledger import Entry
from pushfleet_workers.recheck import Rechecked
from pushfleet_workers.still_wanted import Recheck
from pushfleet_workers.tokens.erasures import Erasures

__all__ = ["RecheckErased"]

log = logging.getLogger(__name__)


class RecheckErased:
    """Asks about erasures while *recheck* asks, and refuses what came for users before they were erased."""

    def __init__(self, recheck: Recheck, erasures: Erasures) -> None:
        self._recheck = recheck
        self._erasures = erasures

    async def __call__(self, entries: Sequence[Entry]) -> Rechecked:
        """As :data:`Recheck`; raises what that does where nobody was erased, and :class:`RedisUnusable`."""
        found, erased = await asyncio.gather(self._recheck(entries), self._erased(entries), return_exceptions=True)
        if isinstance(erased, BaseException):
            raise erased
        if isinstance(found, BaseException):
            if not erased:
                raise found
            # What is known of the erased must not get lost with what is not known of the others.
            log.error("the recheck beside an erasure raised %s", where_raised(found))
            found = Rechecked()
        for identity in erased:
            found.refused[identity] = "user_erased"
        return found

    async def _erased(self, entries: Sequence[Entry]) -> set[bytes]:
        asked = {
            one.id: ((entry.parcel.push.app, one.user), entry.parcel.push.enqueued_at_ms)
            for entry in entries
            for one in entry.parcel.deliveries
            if one.user
        }
        erased = await self._erasures.erased(asked.values())
        return {identity for identity, one in asked.items() if one in erased} if erased else set()
