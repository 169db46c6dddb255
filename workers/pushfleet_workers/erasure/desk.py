"""The beginning of an erasure: what is known of the user goes at once, the rest is noted for the keeper."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Annotated

from msgspec import Meta, Struct

from pushfleet_workers.redis_link import Link
from pushfleet_workers.settings import DeathsSettings
from pushfleet_workers.tokens.deaths import Deaths
from pushfleet_workers.tokens.erasures import Erasures
from pushfleet_workers.tokens.store import TokenStore

__all__ = ["EraseDesk", "Erasing", "queue_time_ms"]

_MILLISECOND_S = 0.002


class Erasing(Struct, frozen=True, kw_only=True):
    """A user is being erased: nothing goes to them any more, and what is queued for them follows by itself."""

    known: Annotated[bool, Meta(description="Whether devices, preferences or anything else of theirs was there.")]
    since_ms: Annotated[
        int,
        Meta(
            description="Unix milliseconds; messages that came until then are erased. `GET` of the user says "
            "`erasing_since_ms` as long as that is not done."
        ),
    ]


class EraseDesk:
    """Begins to erase users; every method raises :class:`RedisUnusable` and may be repeated.

    * **state** - the Redis of the token state.
    * **queue** - the Redis of ingress and ledgers, by whose clock it is told what came before.
    * **now_ms** - that of the token state.
    """

    def __init__(
        self, state: Link, queue: Link, prefix: str, settings: DeathsSettings, now_ms: Callable[[], int]
    ) -> None:
        self._queue = queue
        self._store = TokenStore(state, prefix, now_ms)
        self._deaths = Deaths(state, prefix, settings, now_ms)
        self._erasures = Erasures(state, prefix)

    async def erase(self, app: str, user: str) -> Erasing:
        """Forget all of a user in the token state, and note that the rest is to go.

        Whoever registers the user again after that gets what comes from then on.
        """
        begun_ms = await queue_time_ms(self._queue)
        await self._erasures.begin(app, user, begun_ms)
        known = await self._store.forget_user(app, user)
        await self._deaths.forget(app, user)
        # Not before: what is routed until then may still find devices.
        until_ms = await queue_time_ms(self._queue)
        await self._erasures.forgotten(app, user, begun_ms, until_ms)
        # What comes after the answer is of another millisecond.
        await asyncio.sleep(_MILLISECOND_S)
        return Erasing(known=known, since_ms=until_ms)


async def queue_time_ms(queue: Link) -> int:
    """The time by the clock of the queue."""
    seconds, micros = await queue.call("TIME")
    return int(seconds) * 1000 + int(micros) // 1000
