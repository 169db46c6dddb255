"""What vendors say of devices, told to the token state.

A death that is certain takes the token. One whose code may speak of the account is doubtful: the token is passed over
until others of its account are seen to live. And where an account's undated deaths come as a wave, its guard trips:
from then on they are all passed over, until somebody has looked.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from pushfleet_workers.outcome import Outcome, Verdict
from pushfleet_workers.push import Delivery
from pushfleet_workers.redis_link import Link
from pushfleet_workers.settings import DeathsSettings
from pushfleet_workers.tokens.death_watch import DeathWatch, Standing
from pushfleet_workers.tokens.deaths import Deaths
from pushfleet_workers.tokens.keys import owner_named
from pushfleet_workers.tokens.store import TokenStore
from pushfleet_workers.tokens.tombstones import LIFE_S, Death, Fate

__all__ = ["TokenFeedback"]

log = logging.getLogger(__name__)


class TokenFeedback:
    """The courier's way to the token state, and that of receipts; every method raises :class:`RedisUnusable`.

    * **state** - the Redis of the token state.
    * **queue** - the Redis of the ledgers, where accounts have their books.
    """

    def __init__(
        self, state: Link, queue: Link, prefix: str, settings: DeathsSettings, now_ms: Callable[[], int]
    ) -> None:
        self._store = TokenStore(state, prefix, now_ms)
        self._deaths = Deaths(state, prefix, settings, now_ms)
        self._watch = DeathWatch(queue, prefix, settings)
        self._quarantine_ms = int(settings.quarantine_s * 1000)
        self._now_ms = now_ms

    async def tell(
        self, vendor: str, credential: str, app: str, deliveries: Sequence[Delivery], outcomes: Sequence[Outcome]
    ) -> None:
        """Drop the tokens and mute the devices that one answer speaks of, where the news is not out of date.

        Dated news applies to a token registered before that date; undated news to the very registration that was
        sent to. Of a token that was addressed directly, and is in no registry, only subscribers hear.
        """
        answers = list(zip(deliveries, outcomes, strict=True))
        for delivery, outcome in answers:
            if outcome.verdict is Verdict.MUTE_DEVICE and delivery.user:
                await self._store.mute_device(app, delivery.user, delivery.device, delivery.registered_at_ms)
        dead = [pair for pair in answers if pair[1].verdict is Verdict.DROP_TOKEN]
        if not dead:
            return
        accepted = sum(outcome.verdict is Verdict.OK for outcome in outcomes)
        standing = await self._weigh(vendor, credential, [outcome for _, outcome in dead], accepted)
        deaths = []
        for delivery, outcome in dead:
            if delivery.user:
                since_ms, at_ms = outcome.since_ms, delivery.registered_at_ms
                limits = (0, since_ms) if since_ms is not None else (at_ms, at_ms + 1)
                deaths.append(
                    self._death(vendor, delivery.user, delivery.device, delivery.token, limits, outcome, standing)
                )
        await self._deaths.bury(app, deaths)
        direct = [(one.token, outcome.code, outcome.since_ms) for one, outcome in dead if not one.user]
        await self._deaths.report(app, vendor, credential, direct)

    async def tell_of_token(
        self, app: str, vendor: str, credential: str, token: str, outcome: Outcome, at_ms: int
    ) -> bool:
        """Drop *token*, of which a receipt says so; False where nobody has it, or has registered it since.

        * **at_ms** - what the receipt cannot speak of any more: a token registered then or later lives on, unless
          the outcome has its own ``since_ms``, which goes before it.

        An outcome with another verdict than DROP_TOKEN changes nothing here.
        """
        if outcome.verdict is not Verdict.DROP_TOKEN:
            return False
        owner = await self._store.owner(app, vendor, token)
        if owner is None:
            return False
        standing = await self._weigh(vendor, credential, [outcome], 0)
        limits = (0, outcome.since_ms if outcome.since_ms is not None else at_ms)
        death = self._death(vendor, owner_named(owner)[1], "", token, limits, outcome, standing)
        return bool(await self._deaths.bury(app, [death]))

    async def _weigh(self, vendor: str, credential: str, dead: Sequence[Outcome], accepted: int) -> Standing:
        undated = sum(outcome.since_ms is None for outcome in dead)
        standing = await self._watch.weigh(vendor, credential, undated, accepted)
        if standing.tripped:
            log.error(
                "%s:%s calls many tokens dead and does not say since when: %d of %d answers in %d s. None of them is "
                "dropped any more, they are passed over. Check environment, app and project of the credential. If it "
                "is wrong: mend it, then pushfleet tokens lift %s %s. If the tokens are dead: pushfleet tokens "
                "confirm %s %s",
                vendor, credential, standing.window_deaths, standing.window_deaths + standing.window_accepted,
                (standing.guarded_since_ms - standing.window_since_ms) // 1000 + 1,
                vendor, credential, vendor, credential,
            )  # fmt: skip
        return standing

    def _death(
        self,
        vendor: str,
        user: str,
        device: str,
        token: str,
        limits: tuple[int, int],
        outcome: Outcome,
        standing: Standing,
    ) -> Death:
        fate, until_ms = Fate.DROPPED, 0
        if standing.guarded_since_ms:
            fate, until_ms = Fate.QUARANTINED, self._now_ms() + LIFE_S * 1000
        elif outcome.doubtful:
            fate, until_ms = Fate.QUARANTINED, self._now_ms() + self._quarantine_ms
        return Death(
            user, device, vendor, token, *limits, fate, until_ms, outcome.code, outcome.since_ms or 0,
            standing.accepted, standing.deaths,
        )  # fmt: skip
