"""From planned jobs to parcels in the ledgers of their accounts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from msgspec.structs import replace

from pushfleet_workers import registry
from pushfleet_workers.account import AccountSettings
from pushfleet_workers.clock import FleetClock
from pushfleet_workers.hooks import metrics
from pushfleet_workers.job import Group, Job, ParcelName
from pushfleet_workers.ledger import AccountKeys, Entry, Ledger, VendorKeys, pack
from pushfleet_workers.ledger.entry import parcel_id
from pushfleet_workers.ledger.ledger import PutEntry
from pushfleet_workers.manner import name_of, push_of
from pushfleet_workers.push import Delivery, Parcel, sent_id
from pushfleet_workers.redis_link import Link
from pushfleet_workers.redis_replies import good
from pushfleet_workers.runtime import rate_of
from pushfleet_workers.settings import Settings
from pushfleet_workers.wake import Trigger, ring_call
from pushfleet_workers.wording import Wording

__all__ = ["ParcelDesk"]


@dataclass(slots=True)
class _Account:
    """What is known of an account."""

    app: str
    keys: AccountKeys
    parcel: int
    """Most deliveries of a parcel."""

    gone: bool = False
    """It takes nothing new; what was put for it before must still be found again."""


class ParcelDesk:
    """Knows the accounts, and puts into their ledgers what is planned for them.

    * **queue** - the Redis of the ledgers.
    * **trigger** - publishes `push.drain` where nobody listens.
    * **clock** - hears Redis' time with every put.
    """

    def __init__(self, settings: Settings, queue: Link, trigger: Trigger, clock: FleetClock, wording: Wording) -> None:
        self._prefix = settings.redis.prefix
        self._parcel = settings.router.parcel
        self._share = settings.router.account_backlog_max
        self._queue = queue
        self._trigger = trigger
        self._clock = clock
        self._wording = wording
        self._accounts: dict[tuple[str, str], _Account] = {}
        self._vendors: dict[str, VendorKeys] = {}

    def learn(self, vendor: str, credential: str, account: AccountSettings | None) -> None:
        """From now on *account* is what the credential's devices are sent with; None: there is none any more."""
        if account is None:
            self._accounts[vendor, credential].gone = True
            return
        size = registry.load(vendor).batch_size
        size = self._parcel if size == 1 else size
        rate = rate_of(account)
        if rate is not None:
            size = max(1, min(size, int(rate.capacity)))
        keys = AccountKeys(self._prefix, vendor, credential)
        self._accounts[vendor, credential] = _Account(account.app, keys, size)
        self._vendors[vendor] = VendorKeys(self._prefix, vendor)

    def takes(self, vendor: str, credential: str, app: str) -> bool:
        """Whether pushes of *app* may be put for the account."""
        account = self._accounts.get((vendor, credential))
        return account is not None and account.app == app and not account.gone

    async def put(self, jobs: Sequence[Job]) -> set[ParcelName]:
        """Put what is planned, in one script per account and bucket, and ring the bells; gives what full accounts drop.

        The jobs hear how many deliveries the first write of their part put. Raises :class:`RedisUnusable`.
        """
        puts = self._puts_of(jobs)
        if not puts:
            return set()
        # The bells ring in the same round trip, each after the put that it is for.
        rung = sorted({vendor for vendor, _, _ in puts})
        calls = [
            Ledger.put_call(
                self._accounts[vendor, credential].keys,
                bucket,
                [(job.part, entries) for job, entries in some],
                self._share,
            )
            for (vendor, credential, bucket), some in puts.items()
        ]
        answers = await self._queue.run_many(calls + [ring_call(self._vendors[vendor]) for vendor in rung])
        # First of all: whoever rings later, because one of the puts failed, is told that a trigger is out already.
        for vendor, wanted in zip(rung, answers[len(puts) :], strict=True):
            if wanted == 1:
                self._trigger(vendor)
        dropped: set[ParcelName] = set()
        for ((vendor, credential, _), some), (now_ms, _, counts, lost) in zip(
            puts.items(), good(answers[: len(puts)]), strict=True
        ):
            dropped |= {(vendor, credential, parcel) for parcel in lost}
            self._clock.heard(now_ms)
            metrics.ROUTED_DELIVERIES.labels(vendor).inc(sum(counts))
            for (job, _), deliveries in zip(some, counts, strict=True):
                job.deliveries += deliveries
        return dropped

    def _puts_of(self, jobs: Sequence[Job]) -> dict[tuple[str, str, int], list[tuple[Job, list[PutEntry]]]]:
        """What is planned, by vendor, credential and bucket."""
        puts: dict[tuple[str, str, int], list[tuple[Job, list[PutEntry]]]] = {}
        for job in jobs:
            by_account = self._accounts_put_before(job) if job.raw.again else {}
            for group, deliveries in job.planned.items() if not (job.repeat or job.recalled) else ():
                by_account.setdefault(group[:2], []).extend(self._entries(job, group, deliveries))
            for (vendor, credential), entries in by_account.items():
                if entries or job.raw.again:
                    puts.setdefault((vendor, credential, job.raw.bucket), []).append((job, entries))
        return puts

    def _accounts_put_before(self, job: Job) -> dict[tuple[str, str], list[PutEntry]]:
        """For an entry whose first router died: every account may hold its parcels, whatever is decided now."""
        return {name: [] for name, account in self._accounts.items() if account.app == job.message.app}

    def _entries(self, job: Job, group: Group, deliveries: list[Delivery]) -> Iterator[PutEntry]:
        vendor, credential, manner = group
        language, mentioned, hidden, _ = manner
        push = push_of(job, manner, *self._wording.of(job, language, mentioned=mentioned, hidden=hidden))
        if push.recall:
            # An attempt at the message that ends late must not end the recall as well.
            deliveries = [replace(one, id=sent_id(push, one)) for one in deliveries]
        size, told = self._accounts[vendor, credential].parcel, name_of(manner)
        # Its age counts from the decision: what waited in the ingress has just been decided.
        now_ms = self._clock.now_ms()
        for (due_ms, why, parking), some in job.by_wait(deliveries).items():
            carried = replace(push, later=why, parking=parking) if due_ms else push
            wait = f"{why}{parking}".encode()
            for number, first in enumerate(range(0, len(some), size)):
                # Of its stream entry as well: who repeats a message after its marker is gone has it put once more, and
                # what was put before may still be there.
                identity = parcel_id(job.part, job.raw.id, told, number, due_ms, wait)
                parcel = some[first : first + size]
                if carried.tells_of_others:
                    job.carrying[vendor, credential, identity] = parcel
                packed = pack(Entry(identity, Parcel(carried, parcel), push.lane, now_ms))
                yield (due_ms, packed) if due_ms else packed
