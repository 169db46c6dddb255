"""The router: from ingress entries to parcels in the ledgers.

For a batch of entries: the state of every recipient in one pipelined round trip, the pure decision, text and badge,
then one put per account, the bells, and the acknowledgement. A batch that breaks anywhere is simply done again; an
entry that breaks it is done alone, so that its neighbours do not pay for it.

A recall goes the same way, for the recipients of the message that it takes back. Marking the message, and keeping its
recipients, which comes after its put, are both one step on one key. Whichever is second finds the other: the recall
finds whom the message went to, or the message finds that it was recalled and takes itself back.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from msgspec.structs import replace

from pushfleet.errors import InvalidMessage
from pushfleet.message import OfflineMessage, Recall, Recipient
from pushfleet.wire import read_entry
from pushfleet_workers.account import AccountSettings
from pushfleet_workers.clock import FleetClock
from pushfleet_workers.errors import RedisUnusable, where_raised
from pushfleet_workers.hooks import metrics
from pushfleet_workers.ingress import IngressStream, Raw, Routed
from pushfleet_workers.job import Job, job_for
from pushfleet_workers.parcels import ParcelDesk
from pushfleet_workers.peace import CapDesk, StormDesk, Stormy
from pushfleet_workers.planning import BadgeWanted, Planner
from pushfleet_workers.recall import RecallDesk, taken_back
from pushfleet_workers.redis_link import Link, ReplyError
from pushfleet_workers.redis_replies import checked, is_damaged
from pushfleet_workers.settings import Settings
from pushfleet_workers.tokens.erasures import Erasures, Owner
from pushfleet_workers.tokens.lookup import Counted, Lookup, UserState, read_badges
from pushfleet_workers.tokens.reads import Done, call_over, done_command, read_done
from pushfleet_workers.wake import Trigger
from pushfleet_workers.wording import Wording

__all__ = ["Router"]

log = logging.getLogger(__name__)

_RECIPIENTS_AT_ONCE = 2_000
_AGED_MS = 1_000
"""From then on it is asked whether an entry came for a user who was erased since: nobody is back any sooner."""


class Router:
    """Routes batches of entries; holds no state of its own between them.

    * **queue** - the Redis of ingress and ledgers.
    * **state** - the Redis of the token state.
    * **trigger** - publishes `push.drain` where nobody listens.
    * **clock** - Redis' time; one of its own hears it with every put.
    """

    def __init__(
        self, settings: Settings, queue: Link, state: Link, trigger: Trigger, clock: FleetClock | None = None
    ) -> None:
        self._settings = settings
        self._state = state
        self._lookup = Lookup(settings.redis.prefix)
        self._recalls = RecallDesk(state, settings.redis.prefix)
        self._erasures = Erasures(state, settings.redis.prefix)
        self._storms = StormDesk(state, settings)
        self._clock = clock or FleetClock()
        self._caps = CapDesk(state, settings.redis)
        wording = Wording(settings)
        self._parcels = ParcelDesk(settings, queue, trigger, self._clock, wording)
        self._planner = Planner(settings, self._clock, wording, self._caps, self._parcels.takes)
        for vendor, credential, account in settings.each_account():
            self.learn(vendor, credential, account)

    def learn(self, vendor: str, credential: str, account: AccountSettings | None) -> None:
        """From now on *account* is what the credential's devices are sent with; None: there is none any more."""
        self._caps.learn(vendor, credential, account)
        self._parcels.learn(vendor, credential, account)

    async def route(self, stream: IngressStream, raws: Sequence[Raw]) -> None:
        """Decide on *raws*, put what is to be sent, ring, and acknowledge.

        Raises :class:`RedisUnusable`; doing the same entries again changes nothing that was done.
        """
        started = time.perf_counter()
        for jobs in _slices([job for raw in raws if (job := await self._job(stream, raw)) is not None]):
            try:
                await self._finish(stream, jobs)
            except (RedisUnusable, ReplyError):
                raise
            except Exception as problem:  # noqa: BLE001
                log.error("a batch of %s is done entry by entry: %s", stream.keys.stream, where_raised(problem))
                for job in jobs:
                    await self._finish_alone(stream, job)
            metrics.ROUTED_MESSAGES.labels(stream.lane).inc(len(jobs))
        metrics.ROUTER_BATCH_SECONDS.labels(stream.lane).observe(time.perf_counter() - started)

    async def _finish(self, stream: IngressStream, jobs: Sequence[Job]) -> None:
        await self._recalls.take_up(jobs)
        await self._decide(stream, jobs)
        await self._put(jobs)
        await self._keep(jobs)
        for job in jobs:
            job.keep_to_what_was_put()
        await stream.acknowledge([Routed(job.raw, job.part, job.deliveries, job.counts) for job in jobs])
        suppressed: Counter[str] = Counter()
        for job in jobs:
            if job.suppressed and not job.repeat:
                suppressed.update(job.suppressed)
        for reason, count in suppressed.items():
            metrics.SUPPRESSED.labels(reason).inc(count)

    async def _finish_alone(self, stream: IngressStream, job: Job) -> None:
        try:
            # The batch may have got as far as the put.
            raw = replace(job.raw, again=True)
            await self._finish(stream, [self._new_job(raw, job.recall or job.message)])
        except (RedisUnusable, ReplyError):
            raise
        except Exception as problem:  # noqa: BLE001 - it would break every batch that it is in, one router after another
            await self._storms.forget(job)
            await self._caps.forget(job)
            await self._refuse(stream, job.raw, "unroutable", f"routing it failed: {where_raised(problem)}")

    async def _job(self, stream: IngressStream, raw: Raw) -> Job | None:
        try:
            entry = read_entry(raw.fields)
        except InvalidMessage as problem:
            await self._refuse(stream, raw, "malformed", str(problem))
            return None
        if entry.app not in self._settings.apps:
            await self._refuse(stream, raw, "unknown_app", f"the settings have no app {entry.app!r}")
            return None
        return self._new_job(raw, entry)

    def _new_job(self, raw: Raw, entry: OfflineMessage | Recall) -> Job:
        app = self._settings.apps[entry.app]
        job = job_for(raw, entry, app.recall_window_s)
        job.storms = bool(app.storm_waits_s) and job.recall is None
        job.reads = (app.reads or job.message.kind == "call") and job.recall is None
        return job

    async def _refuse(self, stream: IngressStream, raw: Raw, reason: str, problem: str) -> None:
        log.warning("entry %s of %s is refused: %s", raw.id.decode(), stream.keys.stream, reason)
        await stream.refuse(raw, reason, problem)

    # ---- the decision

    async def _decide(self, stream: IngressStream, jobs: Sequence[Job]) -> None:
        now_ms = self._clock.now_ms()
        commands: list[tuple[Any, ...]] = []
        asked: list[tuple[Job, Recipient]] = []
        open_jobs: list[Job] = []
        for job in jobs:
            message = job.message
            refusal = self._planner.refusal(job, now_ms)
            if refusal:
                job.suppress(refusal, job.people or 1)
                continue
            open_jobs.append(job)
            conversation = message.conversation.id if message.conversation is not None else ""
            for recipient in job.recipients:
                commands += self._lookup.commands(message.app, recipient.id, conversation)
                asked.append((job, recipient))
        recallable = [job for job in open_jobs if job.window_s and job.recall is None]
        commands += [self._recalls.marked(job) for job in recallable]
        questions = {number: self._done_command(*one) for number, one in enumerate(asked) if one[0].reads}
        readers = [number for number, command in questions.items() if command is not None]
        commands += [command for command in questions.values() if command is not None]
        # They come in the order in which they were written, but those that were refused and have come back.
        aged = bool(open_jobs) and (
            open_jobs[0].raw.time_ms < now_ms - _AGED_MS
            or open_jobs[0].raw.again
            or any(job.raw.written_ms < job.raw.time_ms for job in open_jobs)
        )
        if aged:
            commands.append(self._erasures.newest_command())
        replies, _ = await asyncio.gather(self._state.pipeline(commands), _find_repeats(stream, jobs))
        width = self._lookup.width
        marks = len(asked) * width
        rest = marks + len(recallable)
        for job, mark in zip(recallable, replies[marks:rest], strict=True):
            self._recalls.heed(job, mark)
        done = dict(zip(readers, map(read_done, replies[rest : rest + len(readers)]), strict=True))
        erased = await self._erased(open_jobs, checked(replies[-1])) if aged else {}
        badges: list[BadgeWanted] = []
        for number, (job, recipient) in enumerate(asked):
            if not job.undecided:
                continue
            if erased and job.raw.written_ms <= erased.get((job.message.app, recipient.id), 0):
                job.suppress("user_erased")
            else:
                state = self._state_in(replies[number * width : (number + 1) * width])
                self._planner.plan(job, recipient, state, badges, done.get(number, Done()))
        for job in open_jobs:
            if job.undecided:
                self._planner.plan_targets(job)
        await self._storms.forget_unplanned(jobs)
        await self._caps.forget_unplanned(jobs)
        # One that is not pushed itself ends its call all the same; one that comes again would end the next as well.
        ended = [job for job in jobs if job.message.kind == "call_cancel" and job.recall is None and not job.repeat]
        await self._tell(open_jobs, badges, ended)

    async def _erased(self, jobs: Sequence[Job], newest: list[bytes]) -> dict[Owner, int]:
        """Of the users of *jobs* those who are being erased, and until when what came for them is to go."""
        newest_ms = self._erasures.read_newest(newest)
        return await self._erasures.until_ms(
            (job.message.app, one.id) for job in jobs if job.raw.written_ms <= newest_ms for one in job.recipients
        )

    async def _tell(self, open_jobs: Sequence[Job], badges: Sequence[BadgeWanted], ended: Sequence[Job]) -> None:
        """What planned pushes have to do with others: badges, storms, caps, and what screens will show."""
        stormy = self._storms.stormy(open_jobs)
        planned = [job for job in open_jobs if job.window_s and job.planned]
        capped = [job for job in open_jobs if job.capped and not job.recalled]
        if planned and not (stormy or ended or capped):
            await asyncio.gather(self._count_badges(badges), self._recalls.look_at_screens(planned))
            return
        await self._count_badges(badges, stormy, ended)
        if capped:
            await self._caps.meet(capped)
        if planned:
            # Only now it is known what will be shown.
            await self._recalls.look_at_screens([job for job in planned if job.planned])

    def _state_in(self, replies: Sequence[Any]) -> UserState:
        """The user in *replies*; one whose keys are not what they should be has no devices."""
        try:
            return self._lookup.read(replies)
        except ReplyError as problem:
            if not str(problem).startswith("WRONGTYPE"):
                raise
            log.error("a user's token state cannot be read: %s", problem)
            return UserState()

    def _done_command(self, job: Job, recipient: Recipient) -> tuple[str, ...] | None:
        message = job.message
        conversation = message.conversation.id if message.conversation is not None else ""
        prefix = self._settings.redis.prefix
        return done_command(prefix, message.app, recipient.id, message.kind, conversation, job.replace_key)

    async def _count_badges(
        self, badges: Sequence[BadgeWanted], stormy: Sequence[Stormy] = (), ended: Sequence[Job] = ()
    ) -> None:
        """Each device's base plus the pushes counted since; a message counts once, however often it is routed.

        In the same round trip it is asked what *stormy* messages meet, and noted which calls have *ended*.
        """
        if not (badges or stormy or ended):
            return
        calls: list[Any] = self._lookup.badge_calls(
            [
                Counted(job.message.app, delivery.user, delivery.device, job.message.id, job.sent_at_ms)
                for delivery, job, _ in badges
            ]
        )
        counting = len(calls)
        calls += self._storms.calls(stormy)
        for job in ended:
            calls += self._over_calls(job)
        answers = await self._state.run_many(calls)
        self._storms.heed(stormy, answers[counting : counting + len(stormy)])
        for (delivery, _, base), counted in zip(badges, read_badges(answers[:counting]), strict=True):
            if counted is not None:
                delivery.badge = base + counted
                delivery.counted = True
        for answer in answers[counting + len(stormy) :]:
            # An end that cannot be noted: the user's calls ring, as where it came too late.
            is_damaged(answer)

    def _over_calls(self, job: Job) -> list[Any]:
        message, prefix = job.message, self._settings.redis.prefix
        name = job.replace_key or (message.conversation.id if message.conversation is not None else "")
        times = {"sent_at_ms": message.sent_at_ms, "enqueued_at_ms": job.raw.time_ms}
        return [call_over(prefix, message.app, one.id, name, **times) for one in job.recipients] if name else []

    # ---- to the ledgers

    async def _put(self, jobs: Sequence[Job]) -> None:
        dropped = await self._parcels.put(jobs)
        if dropped:
            await self._storms.pass_on(jobs, dropped)
            await self._caps.pass_on(jobs, dropped)

    async def _keep(self, jobs: Sequence[Job]) -> None:
        """Keep whom messages went to; one that was recalled while it was put is taken back at once."""
        recalled = await self._recalls.keep(jobs)
        for job in jobs:
            if job.recalled and not (job.repeat or job.deliveries):
                job.suppress_everybody("recalled")
        late = [(job, taken_back(job)) for job in recalled if job.deliveries]
        await self._put([recall for _, recall in late])
        for job, recall in late:
            job.deliveries += recall.deliveries


async def _find_repeats(stream: IngressStream, jobs: Sequence[Job]) -> None:
    """Mark the jobs whose part was acknowledged before, or stands in the batch twice."""
    seen = await stream.acknowledged([(job.raw, job.part) for job in jobs])
    for job in jobs:
        job.repeat = job.part in seen
        seen.add(job.part)


def _slices(jobs: Sequence[Job]) -> Iterator[list[Job]]:
    """Batches of jobs with a bounded number of recipients, so that large groups do not pile up in memory.

    Whom a recall is for is mostly not known yet: it may be thousands.
    """
    batch: list[Job] = []
    recipients = 0
    for job in jobs:
        batch.append(job)
        unknown = job.recall is not None and not job.recall.recipients
        recipients += _RECIPIENTS_AT_ONCE if unknown else job.people
        if recipients >= _RECIPIENTS_AT_ONCE:
            yield batch
            batch, recipients = [], 0
    if batch:
        yield batch
