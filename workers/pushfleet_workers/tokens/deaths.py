"""What happens to dead tokens: taken or quarantined, restored, and told of, in an order that survives a crash."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pushfleet_workers.hooks import metrics
from pushfleet_workers.push import fingerprint
from pushfleet_workers.redis_link import Link
from pushfleet_workers.settings import DeathsSettings
from pushfleet_workers.tokens.death_log import DeathLog, DeathTold, as_told, token_digest
from pushfleet_workers.tokens.store import TokenStore
from pushfleet_workers.tokens.tombstones import Buried, Death, Fate, Grave, Restored, Tombstone, Tombstones
from pushfleet_workers.tokens.ward import Ward

__all__ = ["Deaths"]


class Deaths:
    """The dead tokens of all apps; every method raises :class:`RedisUnusable`, and repeating it is safe.

    * **link** - the Redis of the token state.
    """

    def __init__(self, link: Link, prefix: str, settings: DeathsSettings, now_ms: Callable[[], int]) -> None:
        self._now_ms = now_ms
        self._stones = Tombstones(link, prefix, TokenStore(link, prefix, now_ms))
        self.log = DeathLog(link, prefix, settings.kept_max)
        self.ward = Ward(link, prefix, settings.kept_max)

    async def bury(self, app: str, deaths: Sequence[Death]) -> list[Buried]:
        """Take or quarantine tokens, and tell of those that are news."""
        if not deaths:
            return []
        now_ms = self._now_ms()
        buried = await self._stones.bury(app, deaths, now_ms)
        if not buried:
            return []
        for (vendor, credential), some in _by_account(buried).items():
            held = [one.grave for one in some if one.stone.fate is Fate.QUARANTINED]
            if held:
                await self.ward.admit(vendor, credential, held, now_ms)
        await self.log.add(app, [as_told(one, one.stone.fate, one.stone.at_ms) for one in buried], now_ms)
        await self._stones.told([one.grave for one in buried])
        _count(buried)
        return buried

    async def report(self, app: str, vendor: str, credential: str, told: Sequence[tuple[str, str, int | None]]) -> None:
        """Tell of tokens (token, code, since) that were addressed directly."""
        now_ms = self._now_ms()
        deaths = [
            DeathTold(
                id=token_digest(token)[:24],
                fate=Fate.REPORTED,
                at_ms=now_ms,
                vendor=vendor,
                credential=credential,
                token_fingerprint=fingerprint(token),
                token_sha256=token_digest(token),
                code=code,
                since_ms=since_ms or 0,
            )
            for token, code, since_ms in told
        ]
        await self.log.add(app, deaths, now_ms)

    async def restore(self, grave: Grave) -> Restored:
        """Bring a token back or lift its quarantine, and tell of it."""
        now_ms = self._now_ms()
        said, stone = await self._stones.restore(grave, now_ms)
        if stone is not None:
            await self.ward.leave(stone.vendor, stone.credential, [grave])
        if stone is not None and said is Restored.RESTORED:
            await self.log.add(grave.app, [as_told(Buried(grave, stone), Fate.RESTORED, now_ms)], now_ms)
        return said

    async def confirm(self, grave: Grave, stone: Tombstone) -> bool:
        """Drop a quarantined token; False when its device has registered it since: then it is passed over no more."""
        death = Death(
            grave.user, stone.device, stone.vendor, stone.token, stone.registered_at_ms, stone.registered_at_ms + 1,
            Fate.DROPPED, code=stone.code, since_ms=stone.since_ms, accepted=stone.accepted, deaths=stone.deaths,
        )  # fmt: skip
        buried = await self.bury(grave.app, [death])
        if buried:
            await self.ward.leave(stone.vendor, stone.credential, [grave])
        else:
            await self.restore(grave)
        return bool(buried)

    async def find(self, graves: Sequence[Grave]) -> list[Tombstone | None]:
        """The tombstones; None where there is none any more."""
        return await self._stones.find(graves)

    async def forget(self, app: str, user: str) -> None:
        """Forget a user's tombstones, and what is passed over of theirs; what was told of them stays in the log.

        Repeating it after it broke off anywhere takes the rest.
        """
        for account, some in _by_account(await self._stones.of(app, user)).items():
            await self.ward.leave(*account, [one.grave for one in some])
        await self._stones.forget(app, user)


def _by_account(buried: Sequence[Buried]) -> dict[tuple[str, str], list[Buried]]:
    accounts: dict[tuple[str, str], list[Buried]] = {}
    for one in buried:
        accounts.setdefault((one.stone.vendor, one.stone.credential), []).append(one)
    return accounts


def _count(buried: Sequence[Buried]) -> None:
    for one in buried:
        metrics.TOKEN_DEATHS.labels(one.stone.vendor, one.stone.credential, one.stone.fate.value).inc()
