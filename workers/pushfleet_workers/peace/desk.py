"""The router's side of storms: which pushes may wait for others, and what each of them meets."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from pushfleet.message import Recipient
from pushfleet_workers.job import Group, Job, ParcelName
from pushfleet_workers.peace.storms import (
    ABSORBED,
    AT_ONCE,
    CARRIES,
    StormCall,
    is_stormy,
    storm_call,
    storm_drop_call,
    storm_pass_on_call,
    storm_place,
)
from pushfleet_workers.push import Delivery
from pushfleet_workers.redis_link import Link
from pushfleet_workers.redis_replies import is_damaged
from pushfleet_workers.settings import Settings

__all__ = ["StormDesk", "Stormy"]

Stormy = tuple[Job, Recipient, Delivery, str]
"""A planned delivery that may wait for other messages, with its place."""


class StormDesk:
    """Asks the storms for the jobs of a batch, and says what comes of it to the jobs.

    The jobs' apps let messages wait, see :attr:`Job.storms`. What awaits raises :class:`RedisUnusable`.
    """

    def __init__(self, state: Link, settings: Settings) -> None:
        self._state = state
        self._prefix = settings.redis.prefix
        self._apps = settings.apps
        # The state's clock says until when a push waits for others, and the queue's when it goes: no sooner than that.
        self._clocks_apart_ms = settings.redis.clocks_apart_ms

    def stormy(self, jobs: Sequence[Job]) -> list[Stormy]:
        """The planned deliveries of *jobs* that may wait for other messages of their conversation."""
        return [one for job in jobs if job.storms and not job.recalled for one in self._stormy(job)]

    def _stormy(self, job: Job) -> Iterator[Stormy]:
        app = self._apps[job.message.app]
        stormy = {one.id: one for one in job.recipients if is_stormy(app, job.message, one)}
        for (vendor, credential, _), deliveries in job.planned.items() if stormy else ():
            for one in deliveries:
                # What is parked meets them when it leaves.
                if one.user in stormy and one.id not in job.parked:
                    yield job, stormy[one.user], one, storm_place(one, vendor, credential)

    def calls(self, stormy: Sequence[Stormy]) -> list[StormCall]:
        """The script calls that ask what each of *stormy* meets; :meth:`heed` takes the answers."""
        return [
            storm_call(
                self._prefix,
                self._apps[job.message.app],
                job.message,
                recipient,
                place,
                sent_at_ms=job.sent_at_ms,
                expires_at_ms=job.expires_at_ms,
                again=job.raw.again,
            )
            for job, recipient, _, place in stormy
        ]

    def heed(self, stormy: Sequence[Stormy], answers: Sequence[Any]) -> None:
        """Let wait what carries a later push, and leave out what another push tells of."""
        absorbed: dict[int, set[bytes]] = {}
        for (job, _, delivery, _), answer in zip(stormy, answers, strict=True):
            # Of a user whose key is not what it should be every message is pushed at once.
            verdict, *until_ms = answer if not is_damaged(answer) else (AT_ONCE,)
            if verdict == CARRIES:
                job.carriers[delivery.id] = until_ms[0] + self._clocks_apart_ms
            elif verdict == ABSORBED:
                absorbed.setdefault(id(job), set()).add(delivery.id)
        for job in {id(job): job for job, *_ in stormy}.values():
            job.absorb(absorbed.get(id(job), set()))

    async def pass_on(self, jobs: Sequence[Job], dropped: Collection[ParcelName]) -> None:
        """Let the next messages tell what pushes of *jobs* would have told whose parcels were *dropped*."""
        places: dict[tuple[int, str], tuple[Job, list[str]]] = {}
        for job in jobs:
            for name, deliveries in job.carrying.items():
                for one in deliveries if name in dropped else ():
                    if one.id not in job.carriers:
                        continue
                    _, some = places.setdefault((id(job), one.user), (job, []))
                    some.append(storm_place(one, *name[:2]))
        await self._run(
            [storm_pass_on_call(self._prefix, job.message, user, some) for (_, user), (job, some) in places.items()]
        )

    async def forget_unplanned(self, jobs: Sequence[Job]) -> None:
        """No storm waits for what was promised when *jobs* were routed first, and is not planned any more."""
        await self._run([call for job in jobs if job.raw.again for call in self._drop_calls(job, job.planned)])

    async def forget(self, job: Job) -> None:
        """No storm waits for a push of *job*, of which nothing is put."""
        await self._run(self._drop_calls(job, {}))

    def _drop_calls(self, job: Job, planned: Mapping[Group, Sequence[Delivery]]) -> list[StormCall]:
        if not job.storms or job.repeat:
            return []
        places: dict[str, list[str]] = {}
        for (vendor, credential, _), deliveries in planned.items():
            for one in deliveries:
                if one.id not in job.parked:
                    places.setdefault(one.user, []).append(storm_place(one, vendor, credential))
        app = self._apps[job.message.app]
        users = [one.id for one in job.recipients if is_stormy(app, job.message, one)]
        return [storm_drop_call(self._prefix, job.message, user, places.get(user, ())) for user in users]

    async def _run(self, calls: Sequence[StormCall]) -> None:
        for answer in await self._state.run_many(calls) if calls else ():
            is_damaged(answer)
