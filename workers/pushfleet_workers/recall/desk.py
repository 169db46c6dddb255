"""The router's side of recalls: what it remembers of messages, and what of it a recall finds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from msgspec.structs import replace

from pushfleet.message import Recall
from pushfleet.wire import decode_message, encode
from pushfleet_workers.job import Group, Job
from pushfleet_workers.ledger.entry import parcel_id
from pushfleet_workers.push import Delivery
from pushfleet_workers.recall.memory import Message, RecallMemory, is_visible
from pushfleet_workers.recall.overrides import overrides_of_recall
from pushfleet_workers.redis_link import Link
from pushfleet_workers.redis_replies import checked, good

__all__ = ["RecallDesk", "taken_back"]


class RecallDesk:
    """Marks, keeps and asks for the jobs of a batch; one round trip for each step, none where no job needs it.

    All of it concerns apps whose window is open. Every method raises :class:`RedisUnusable`.
    """

    def __init__(self, state: Link, prefix: str) -> None:
        self._state = state
        self._memory = RecallMemory(prefix)

    async def take_up(self, jobs: Sequence[Job]) -> None:
        """Mark the messages of the recalls among *jobs*, and learn whom they went to.

        To be done before anything of the batch is decided: a message of the same batch meets the mark.
        """
        recalls = [job for job in jobs if job.recall is not None and job.window_s]
        if not recalls:
            return
        calls = [self._memory.mark_call(job.message.app, job.message.id, job.window_s) for job in recalls]
        for job, kept in zip(recalls, await self._state.run_many(calls), strict=True):
            job.remember([decode_message(part) for part in checked(kept)])

    def marked(self, job: Job) -> tuple[str, ...]:
        """The command that asks whether the job's message was taken back; :meth:`heed` takes the reply."""
        return self._memory.marked(job.message.app, job.message.id)

    def heed(self, job: Job, reply: Any) -> None:
        """Note the reply to :meth:`marked`."""
        job.recalled = checked(reply) is not None

    async def look_at_screens(self, jobs: Sequence[Job]) -> None:
        """Remember what devices will show, and leave in recalls only devices that show their message."""
        calls = [
            self._memory.show_call(
                _message(job),
                places,
                job.window_s,
                job.raw.id,
                again=job.raw.again,
            )
            for job in jobs
            if job.recall is None and not job.recalled and (places := _places(job, visible=True))
        ]
        good(await self._state.run_many(calls))
        recalls = [job for job in jobs if job.recall is not None]
        questions = [self._memory.shown(_message(job), _places(job)) for job in recalls]
        for job, reply in zip(recalls, await self._state.pipeline(questions), strict=True):
            # What its dead router put may have been sent by now.
            shown = iter(self._memory.shows(_message(job), checked(reply), or_recall=job.raw.again))
            planned = job.planned_deliveries
            job.planned = {group: [one for one in some if next(shown)] for group, some in job.planned.items()}
            job.suppress("not_shown", planned - job.planned_deliveries)

    async def keep(self, jobs: Sequence[Job]) -> list[Job]:
        """Keep whom the messages among *jobs* went to, which have been put; those that were recalled meanwhile.

        To be done before the acknowledgement: from then on nobody would look at the entry again.
        """
        put = [job for job in jobs if job.window_s and job.recall is None and job.planned and not job.repeat]
        if not put:
            return []
        fresh = [job for job in put if not job.recalled]
        calls = [
            self._memory.keep_call(
                job.message.app, job.message.id, job.message.part, _kept(job), job.window_s, job.expires_at_ms
            )
            for job in fresh
        ]
        for job, recalled in zip(fresh, await self._state.run_many(calls), strict=True):
            job.recalled = bool(checked(recalled))
        return [job for job in put if job.recalled]


def taken_back(job: Job) -> Job:
    """The recall of what was just put for *job*."""
    message = job.message
    planned: dict[Group, list[Delivery]] = {}
    # A call rings; what ends it is another message.
    for (vendor, credential, manner), deliveries in job.planned.items() if message.kind != "call" else ():
        language, _, hidden, _ = manner
        planned.setdefault((vendor, credential, (language, False, hidden, None)), []).extend(
            replace(one, badge=-1, mention=False, forced=False)
            for one in deliveries
            # What waits meets the mark when it is claimed.
            if _shows_at_once(job, vendor, one)
        )
    recall = Recall(id=message.id, app=message.app)
    return Job(job.raw, message, parcel_id(job.part, b"recall"), [], job.window_s, recall, planned=planned)


def _message(job: Job) -> Message:
    return job.message.app, job.message.id, job.replace_key


def _kept(job: Job) -> bytes:
    """What a recall needs to know of the message: whom it went to, and nothing that it said."""
    message = job.message
    users = dict.fromkeys(one.user for some in job.planned.values() for one in some)
    users.pop("", None)
    return encode(
        replace(
            message,
            recipients=tuple(users),
            elements=(),
            body=None,
            offline_push=overrides_of_recall(message.offline_push),
            # An erasure goes by it, and its user's clock may be ahead.
            sent_at_ms=min(job.sent_at_ms, job.raw.written_ms),
            lane=message.effective_lane,
        )
    )


def _places(job: Job, *, visible: bool = False) -> list[bytes]:
    """The devices of the planned deliveries, in order; *visible*: only those that show it now."""
    return [
        RecallMemory.place_of(one, vendor, credential)
        for (vendor, credential, _), deliveries in job.planned.items()
        for one in deliveries
        if not visible or _shows_at_once(job, vendor, one)
    ]


def _shows_at_once(job: Job, vendor: str, delivery: Delivery) -> bool:
    """Whether devices show it from the put on; of what waits, whoever sends it says so."""
    return is_visible(job.message.offline_push, vendor, delivery) and not job.waits(delivery)
