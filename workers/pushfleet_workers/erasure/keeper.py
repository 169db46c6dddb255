"""Brings erasures to their end: whatever is queued or kept for the users is looked for until nothing is left.

An erasure is done after a walk through everything that began when nothing could come any more: no entry of the ingress
is older than it, and no worker has anything of the user in hand. What a worker claims later is decided on once more, as
it is older than `worker.recheck_s` by then, and is refused.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Mapping

from prometheus_client import Gauge

from pushfleet_workers.audit import accounts_key
from pushfleet_workers.erasure.desk import EraseDesk, queue_time_ms
from pushfleet_workers.erasure.ledgers import LedgerErasure, Swept
from pushfleet_workers.erasure.memory import sweep_memory
from pushfleet_workers.erasure.sought import Sought
from pushfleet_workers.erasure.streams import StreamErasure
from pushfleet_workers.errors import RedisUnusable, where_raised
from pushfleet_workers.lease import Lease
from pushfleet_workers.ledger import AccountKeys
from pushfleet_workers.redis_link import Link, ReplyError
from pushfleet_workers.settings import Settings
from pushfleet_workers.tokens.erasures import Erasures, Owner
from pushfleet_workers.tokens.store import TokenStore

__all__ = ["ERASURES", "OLDEST", "ErasureKeeper"]

log = logging.getLogger(__name__)

ERASURES = Gauge("pushfleet_erasures_waiting", "Users that are being erased, told by the process that does it.")
OLDEST = Gauge("pushfleet_erasures_oldest_age_seconds", "For how long the first of them has waited; 0: there is none.")

_EVERY_S = 1.0
_LONGEST_S = 30.0
_SETTLING_MS = 1_000
_BROKEN_OFF_MS = 60_000


class ErasureKeeper:
    """Looks for what is left of users that are being erased; one process of the fleet does, more do no harm.

    * **accounts** - vendor and credential to the app they belong to; accounts that routers knew are walked as well.
    * **lease** - without one :meth:`look` is called by somebody else.
    """

    def __init__(
        self,
        state: Link,
        queue: Link,
        settings: Settings,
        accounts: Mapping[tuple[str, str], str],
        desk: EraseDesk,
        store: TokenStore,
        lease: Lease | None = None,
    ) -> None:
        prefix = settings.redis.prefix
        self._state = state
        self._queue = queue
        self._settings = settings
        self._prefix = prefix
        self._accounts = accounts
        self._desk = desk
        self._store = store
        self._lease = lease
        self._erasures = Erasures(state, prefix)
        self._refused_seen_ms: dict[tuple[Owner, int], int] = {}
        """When the refused entries were looked through first for an erasure that is not done."""

        self._streams = StreamErasure(queue, state, prefix, settings.redis.clocks_apart_ms)

    async def run(self) -> None:
        """Look again and again until cancelled, while the lease is ours; less often where nothing comes to its end."""
        wait_s = _EVERY_S
        while True:
            try:
                if self._lease is not None and self._lease.holds:
                    ripe, done = await self.look()
                    wait_s = min(2 * wait_s, _LONGEST_S) if ripe and not done else _EVERY_S
                    await self._tell(*await self._erasures.waiting())
                else:
                    await self._tell(0, 0)
            except (RedisUnusable, ReplyError) as problem:
                log.warning("erased users are not looked for: %s", type(problem).__name__)
            except Exception as problem:  # noqa: BLE001 - whatever it is, the others must not stay for it
                log.error("looking for erased users raised %s", where_raised(problem))
            await asyncio.sleep(wait_s)

    async def _tell(self, count: int, first_ms: int) -> None:
        ERASURES.set(count)
        OLDEST.set((await queue_time_ms(self._queue) - first_ms) / 1000 if count else 0)

    async def look(self) -> tuple[int, int]:
        """Walk through everything once; of how many users, and how many are done. Raises :class:`RedisUnusable`."""
        pending = await self._erasures.pending()
        now_ms = await queue_time_ms(self._queue)
        for (app, user), begun_ms in pending.begun.items():
            if begun_ms < now_ms - _BROKEN_OFF_MS:
                await self._desk.erase(app, user)
        # From then on whoever claims work for them asks before it is sent.
        ripe_ms = now_ms - int(self._settings.worker.recheck_s * 1000) - _SETTLING_MS
        ripe = {
            owner: until_ms
            for owner, until_ms in pending.until_ms.items()
            if until_ms <= ripe_ms and owner not in pending.begun
        }
        if not ripe:
            return 0, 0
        left = await self._walk(ripe, now_ms)
        done = {owner: until_ms for owner, until_ms in ripe.items() if owner not in left}
        await self._store.forget_leavings(list(done))
        await self._erasures.done(done)
        return len(ripe), len(done)

    async def _walk(self, ripe: Mapping[Owner, int], now_ms: int) -> set[Owner]:
        """Those of whom something may be left."""
        sought = Sought(ripe)
        oldest_ms = await self._streams.oldest_queued_ms()
        left = {owner for owner, until_ms in ripe.items() if oldest_ms is not None and oldest_ms <= until_ms}
        ledgers = [
            LedgerErasure(self._queue, keys, now_ms - self._settings.dead_letters.kept_ms)
            for keys in await self._ledgers(sought.apps)
        ]
        for ledger in ledgers:
            left |= await ledger.in_hand(sought)
        total = Swept()
        for ledger in ledgers:
            swept = await ledger.sweep(sought)
            left |= swept.missed
            total.deliveries += swept.deliveries
            total.letters += swept.letters
        entries = await self._streams.sweep(sought)
        left |= await self._maybe_readmitted(ripe)
        parts = await sweep_memory(self._state, self._prefix, sought) if self._recalls(sought.apps) else 0
        if total.deliveries or total.letters or entries or parts or len(left) < len(ripe):
            log.info(
                "of %d erased users: %d deliveries, %d dead letters, %d receipts, told deaths and refused entries, "
                "%d recipients of messages that can be taken back; of %d users nothing is left",
                len(ripe), total.deliveries, total.letters, entries, parts, len(ripe) - len(left),
            )  # fmt: skip
        return left

    async def _maybe_readmitted(self, ripe: Mapping[Owner, int]) -> set[Owner]:
        """Those of whom an entry may stand before the routers that was refused and came back before we looked there."""
        seen_ms = await queue_time_ms(self._queue)
        self._refused_seen_ms = {one: self._refused_seen_ms.get(one, seen_ms) for one in ripe.items()}
        oldest_ms = await self._streams.oldest_queued_ms()
        return {one[0] for one, at_ms in self._refused_seen_ms.items() if oldest_ms is not None and oldest_ms <= at_ms}

    async def _ledgers(self, apps: Collection[str]) -> list[AccountKeys]:
        """Of the accounts of *apps*, and of those that no app has any more."""
        known = await self._queue.call("SMEMBERS", accounts_key(self._prefix))
        names = {*(_name(one) for one in known), *self._accounts}
        return [AccountKeys(self._prefix, *name) for name in sorted(names) if self._accounts.get(name) in (None, *apps)]

    def _recalls(self, apps: Collection[str]) -> bool:
        settings = self._settings.apps
        return any(settings[app].recall_window_s for app in apps if app in settings)


def _name(account: bytes) -> tuple[str, str]:
    vendor, _, credential = account.decode().partition(":")
    return vendor, credential
