"""The router's side of caps: what its device cannot get any more today, and what others tell of, never enters a ledger.

Nothing is counted here. What leaves is counted when it leaves, by the worker, which has the last word: see
:mod:`pushfleet_workers.peace.cap_sending`. So it is, too, for devices that can be reached by another account.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from pushfleet_workers.account import AccountSettings
from pushfleet_workers.job import Group, Job, ParcelName
from pushfleet_workers.peace.caps import AccountCaps, DayCap, Sort, sort_of
from pushfleet_workers.peace.device_day import (
    Asked,
    Call,
    Verdict,
    Written,
    asked_of,
    day_call,
    day_drop_call,
    day_pass_on_call,
    day_place,
    read_answer,
)
from pushfleet_workers.push import Delivery
from pushfleet_workers.redis_link import Link
from pushfleet_workers.redis_replies import is_damaged
from pushfleet_workers.settings import RedisSettings
from pushfleet_workers.tokens.record import Channel, Device

__all__ = ["CapDesk"]


class CapDesk:
    """The caps of all accounts, for one router; false where there are none.

    What awaits raises :class:`RedisUnusable`.
    """

    def __init__(self, state: Link, redis: RedisSettings) -> None:
        self._state = state
        self._prefix = redis.prefix
        self._clocks_apart_ms = redis.clocks_apart_ms
        self._caps: dict[tuple[str, str], AccountCaps] = {}

    def __bool__(self) -> bool:
        return bool(self._caps)

    def learn(self, vendor: str, credential: str, account: AccountSettings | None) -> None:
        """From now on *account* is what the credential's devices are sent with; None: there is none any more."""
        caps = AccountCaps(vendor, account) if account is not None else None
        if caps:
            self._caps[vendor, credential] = caps
        else:
            self._caps.pop((vendor, credential), None)

    def limits(self, job: Job, channel: Channel, device: Device) -> bool:
        """Whether a delivery by *channel* to *device* is one of :attr:`Job.capped`."""
        here = channel.vendor, channel.credential
        return self._cap(here, job) is not None and all((one.vendor, one.credential) == here for one in device.channels)

    async def meet(self, jobs: Sequence[Job]) -> None:
        """Leave out of *jobs* what is not to be put, and let wait what has to."""
        asked = [(job, delivery, one) for job in jobs for delivery, one in self._asked(job)]
        calls = [day_call(self._prefix, one, leaving=False, joins=True, again=job.raw.again) for job, _, one in asked]
        gone: dict[tuple[int, str], set[bytes]] = {}
        for (job, delivery, _), reply in zip(asked, await self._state.run_many(calls), strict=True):
            answer = read_answer(reply)
            if answer is None:
                continue
            if answer.verdict is Verdict.CARRIES:
                job.capped_until_ms[delivery.id] = answer.till_ms + self._clocks_apart_ms
            elif answer.verdict in _REASONS:
                gone.setdefault((id(job), _REASONS[answer.verdict]), set()).add(delivery.id)
        for job in jobs:
            for reason in _REASONS.values():
                job.absorb(gone.get((id(job), reason), set()), reason)

    def _asked(self, job: Job) -> Iterator[tuple[Delivery, Asked]]:
        """What to ask about the job's deliveries."""
        unread = {one.id: -1 if one.unread is None else one.unread for one in job.recipients}
        written = _written(job)
        for (vendor, credential, _), deliveries in job.planned.items():
            cap = self._cap((vendor, credential), job)
            if cap is None:
                continue
            for delivery in deliveries:
                # What is parked, or tells of a storm, is asked about when it leaves.
                if delivery.id not in job.capped or delivery.id in job.carriers or delivery.id in job.parked:
                    continue
                yield delivery, asked_of(written, delivery, (vendor, credential), cap, unread=unread[delivery.user])

    async def pass_on(self, jobs: Sequence[Job], dropped: Collection[ParcelName]) -> None:
        """Let the next push that waits tell what pushes of *jobs* would have told whose parcels were *dropped*."""
        calls = [
            day_pass_on_call(self._prefix, job.message.app, one.user, job.message.id, [day_place(one, *name[:2], cap)])
            for job in jobs
            for name, deliveries in job.carrying.items()
            if name in dropped and (cap := self._cap(name[:2], job)) is not None
            for one in deliveries
            if one.id in job.capped_until_ms
        ]
        await self._run(calls)

    async def forget_unplanned(self, jobs: Sequence[Job]) -> None:
        """Nothing waits for what was promised when *jobs* were routed first, and is not planned any more."""
        await self._run([call for job in jobs if job.raw.again for call in self._drop_calls(job, job.planned)])

    async def forget(self, job: Job) -> None:
        """Nothing waits for a push of *job*, of which nothing is put."""
        await self._run(self._drop_calls(job, {}))

    def _drop_calls(self, job: Job, planned: Mapping[Group, Sequence[Delivery]]) -> list[Call]:
        message = job.message
        if job.repeat or not self._caps or sort_of(message.kind, message.effective_lane) is not Sort.GATHERED:
            return []
        places: dict[str, list[str]] = {}
        for (vendor, credential, _), deliveries in planned.items():
            cap = self._cap((vendor, credential), job)
            if cap is None:
                continue
            for one in deliveries:
                if one.id in job.parked:
                    continue
                places.setdefault(one.user, []).append(day_place(one, vendor, credential, cap))
        users = [one.id for one in job.recipients]
        return [day_drop_call(self._prefix, message.app, user, message.id, places.get(user, ())) for user in users]

    async def _run(self, calls: Sequence[Call]) -> None:
        for answer in await self._state.run_many(calls) if calls else ():
            is_damaged(answer)

    def _cap(self, account: tuple[str, str], job: Job) -> DayCap | None:
        caps, message = self._caps.get(account), job.message
        if caps is None or job.recall is not None:
            return None
        group = message.conversation is not None and message.conversation.kind != "single"
        return caps.of(message.kind, group=group, options=message.offline_push)


def _written(job: Job) -> Written:
    message = job.message
    return Written(
        message.app,
        message.kind,
        message.effective_lane,
        message.id,
        message.conversation.id if message.conversation is not None else "",
        message.sender.name if message.sender is not None else "",
        job.sent_at_ms,
        job.expires_at_ms,
    )


_REASONS: Mapping[Any, str] = {Verdict.GATHERED: "gathered", Verdict.FULL: "device_cap"}
