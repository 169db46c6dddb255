"""Draining one vendor in one process: claims for its accounts as long as there is work, then listens on the bell.

A second drain of a vendor in the same process returns at once: the loop thread does the work, not the slots.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Sequence

from pushfleet_workers.courier import Courier
from pushfleet_workers.errors import RedisUnusable, where_raised
from pushfleet_workers.hooks import metrics
from pushfleet_workers.ledger import Claim
from pushfleet_workers.redis_link import ReplyError
from pushfleet_workers.wake import Bell, Trigger

__all__ = ["Drain"]

log = logging.getLogger(__name__)

_GATHER_BELOW = 20
_GATHER_S = 0.002
"""From some hundred pushes a second on, waking up costs more than sending: a short pause gathers them."""

_LISTEN_AGAIN_S = 2.0
_FULL_LOOK_S = 0.05
_REDIS_RETRY_S = 0.5
_COMPANY_LEFT = 200
_COMPANY_EVERY_S = 1.0


class Drain:
    """The drain of one vendor in one process.

    * **linger_s** - how long it listens on after everything ran dry.
    * **drains_max** - processes of the fleet that may drain this vendor at once.
    """

    def __init__(
        self,
        vendor: str,
        couriers: list[Courier],
        bell: Bell,
        trigger: Trigger,
        *,
        linger_s: float,
        drains_max: int,
    ) -> None:
        self.vendor = vendor
        self.couriers = couriers
        self._bell = bell
        self._trigger = trigger
        self._linger_s = linger_s
        self._drains_max = drains_max
        self._changed = asyncio.Event()
        self._ringing: asyncio.Task[bool] | None = None
        self._listened_at = 0.0
        self._company_at = 0.0
        self._stopping = False
        self._rests: dict[Courier, float] = {}
        """Accounts whose claim failed, and until when they are left alone."""

        self.running = False

    def changed(self) -> None:
        """There is room for a claim again, or nothing is left in hand."""
        self._changed.set()

    def stop(self) -> None:
        """Claim nothing any more; :meth:`run` returns soon."""
        self._stopping = True
        self._changed.set()

    async def run(self, *, linger: bool = True) -> None:
        """Drain until nothing is there and nothing rang for a while; at once when a drain runs already.

        Without *linger* it leaves at once when it finds nothing to begin with.
        """
        if self.running or self._stopping:
            return
        self.running = True
        try:
            await self._run(self._linger_s if linger else 0.0)
        finally:
            self.running = False
            if self._ringing is not None:
                self._ringing.cancel()
                self._ringing = None

    async def _run(self, linger_s: float) -> None:
        dry_since: float | None = None
        self._listened_at = -_LISTEN_AGAIN_S
        while not self._stopping:
            try:
                await self._listen()
                self._changed.clear()
                claims = await self._claim()
                claimed = sum(len(claim.entries) for claim in claims)
                if claimed:
                    dry_since, linger_s = None, self._linger_s
                    if claimed < _GATHER_BELOW:
                        await asyncio.sleep(_GATHER_S)
                    await self._maybe_company(claims)
                    continue
                wait_s = self._wait_s(claims)
                if self._rests or any(courier.busy for courier in self.couriers):
                    dry_since = None
                    await self._wait(wait_s)
                    continue
                dry_since = dry_since if dry_since is not None else time.monotonic()
                left_s = dry_since + linger_s - time.monotonic()
                if left_s > 0:
                    if await self._wait(min(left_s, wait_s)):
                        dry_since = None
                elif await self._may_leave():
                    return
            except (RedisUnusable, ReplyError) as problem:
                metrics.REDIS_LOST.labels("worker").inc()
                log.warning("drain of %s waits for Redis: %s", self.vendor, problem)
                await asyncio.sleep(_REDIS_RETRY_S)
            except Exception as problem:  # noqa: BLE001
                # A defect must not end the draining of a vendor; what is leased stays leased and is settled.
                log.error("a round of the drain of %s raised %s", self.vendor, where_raised(problem))
                await asyncio.sleep(_REDIS_RETRY_S)
        with contextlib.suppress(RedisUnusable, ReplyError):
            await self._bell.leave(at_once=True)

    async def _listen(self) -> None:
        now = time.monotonic()
        if now - self._listened_at > _LISTEN_AGAIN_S:
            await self._bell.listen()
            self._listened_at = now

    async def _claim(self) -> list[Claim]:
        """A claim for every account with room. One whose claim fails rests for a moment; the others go on."""
        now = time.monotonic()
        roomy = [courier for courier in self.couriers if courier.has_room and self._rests.get(courier, 0.0) <= now]
        if len(roomy) == 1:
            return [await roomy[0].claim()]
        answers = await asyncio.gather(*(courier.claim() for courier in roomy), return_exceptions=True)
        failed = [answer for answer in answers if isinstance(answer, BaseException)]
        if failed and len(failed) == len(answers):
            raise failed[0]
        for courier, answer in zip(roomy, answers, strict=True):
            if isinstance(answer, BaseException):
                self._rests[courier] = time.monotonic() + _REDIS_RETRY_S
                log.warning("a claim of %s raised %s", courier.name, where_raised(answer))
        return [answer for answer in answers if isinstance(answer, Claim)]

    def _wait_s(self, claims: Sequence[Claim]) -> float:
        """How long until a claim may bring something that is already there; events come besides."""
        waits = [
            claim.wait_ms / 1000 if claim.wait_ms else _FULL_LOOK_S for claim in claims if claim.wait_ms or claim.left
        ]
        return min([*waits, _REDIS_RETRY_S if self._resting else _LISTEN_AGAIN_S])

    @property
    def _resting(self) -> bool:
        """Whether an account must be asked again although it said nothing; forgets those that have rested."""
        now = time.monotonic()
        self._rests = {courier: until for courier, until in self._rests.items() if until > now}
        return bool(self._rests)

    async def _wait(self, timeout_s: float) -> bool:
        """Wait for the bell, for room, or for the time; whether the bell rang."""
        if self._ringing is None:
            self._ringing = asyncio.create_task(self._bell.wait(self._linger_s or 0.1))
        changed = asyncio.create_task(self._changed.wait())
        try:
            await asyncio.wait({self._ringing, changed}, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            changed.cancel()
        if not self._ringing.done():
            return False
        rang, self._ringing = self._ringing, None
        return rang.result()

    async def _may_leave(self) -> bool:
        """Leave, unless it rang meanwhile; a ring that our waiting swallowed counts."""
        if self._ringing is not None:
            rang, self._ringing = self._ringing, None
            if await rang:
                return False
        return await self._bell.leave()

    async def _maybe_company(self, claims: Sequence[Claim]) -> None:
        now = time.monotonic()
        if now - self._company_at < _COMPANY_EVERY_S or not any(claim.left > _COMPANY_LEFT for claim in claims):
            return
        self._company_at = now
        if await self._bell.wants_company(self._drains_max):
            self._trigger(self.vendor)
