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
from dataclasses import dataclass
from typing import Any

from msgspec.structs import replace

from pushfleet.errors import InvalidMessage
from pushfleet.message import OfflineMessage, Recall, Recipient
from pushfleet.wire import read_entry
from pushfleet_workers import registry
from pushfleet_workers.account import AccountSettings
from pushfleet_workers.catalogue import Catalogue
from pushfleet_workers.clock import FleetClock
from pushfleet_workers.compose import compose, compose_recall
from pushfleet_workers.decision import reach, refuse_hour, refuse_message, refuse_read, refuse_recall, refuse_receiver
from pushfleet_workers.errors import RedisUnusable, where_raised
from pushfleet_workers.hooks import metrics
from pushfleet_workers.ingress import IngressStream, Raw, Routed
from pushfleet_workers.job import Group, Job, ParcelName, job_for
from pushfleet_workers.ledger import AccountKeys, Entry, Ledger, VendorKeys, pack
from pushfleet_workers.ledger.entry import parcel_id
from pushfleet_workers.ledger.ledger import PutEntry
from pushfleet_workers.manner import name_of, push_of, sound_of
from pushfleet_workers.peace import CapDesk, StormDesk, Stormy, first_look_ms, hold_s
from pushfleet_workers.push import Delivery, Parcel, delivery_id, sent_id
from pushfleet_workers.recall import RecallDesk, taken_back
from pushfleet_workers.redis_link import Link, ReplyError
from pushfleet_workers.redis_replies import checked, good, is_damaged
from pushfleet_workers.runtime import rate_of
from pushfleet_workers.settings import Settings
from pushfleet_workers.tokens.erasures import Erasures, Owner
from pushfleet_workers.tokens.lookup import Counted, Lookup, UserState, read_badges
from pushfleet_workers.tokens.preferences import Preferences
from pushfleet_workers.tokens.reads import Done, call_over, done_command, read_done
from pushfleet_workers.tokens.record import Channel, Device
from pushfleet_workers.wake import Trigger, ring_call

__all__ = ["Router"]

log = logging.getLogger(__name__)

_RECIPIENTS_AT_ONCE = 2_000
_AGED_MS = 1_000
"""From then on it is asked whether an entry came for a user who was erased since: nobody is back any sooner."""


@dataclass(slots=True)
class _Account:
    """What the router knows of an account."""

    vendor: str
    credential: str
    app: str
    keys: AccountKeys
    parcel: int
    gone: bool = False
    """It takes nothing new; what was put for it before must still be found again."""


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
        self._queue = queue
        self._state = state
        self._trigger = trigger
        self._lookup = Lookup(settings.redis.prefix)
        self._recalls = RecallDesk(state, settings.redis.prefix)
        self._erasures = Erasures(state, settings.redis.prefix)
        self._storms = StormDesk(state, settings)
        self._clock = clock or FleetClock()
        self._caps = CapDesk(state, settings.redis)
        self._catalogue = Catalogue(settings.texts)
        self._holding = frozenset(name for name, app in settings.apps.items() if app.holds)
        self._accounts: dict[tuple[str, str], _Account] = {}
        self._vendors: dict[str, VendorKeys] = {}
        for vendor, credential, account in settings.each_account():
            self.learn(vendor, credential, account)

    def learn(self, vendor: str, credential: str, account: AccountSettings | None) -> None:
        """From now on *account* is what the credential's devices are sent with; None: there is none any more."""
        self._caps.learn(vendor, credential, account)
        if account is None:
            self._accounts[vendor, credential].gone = True
            return
        size = registry.load(vendor).batch_size
        size = self._settings.router.parcel if size == 1 else size
        rate = rate_of(account)
        if rate is not None:
            size = max(1, min(size, int(rate.capacity)))
        keys = AccountKeys(self._settings.redis.prefix, vendor, credential)
        self._accounts[vendor, credential] = _Account(vendor, credential, account.app, keys, size)
        self._vendors[vendor] = VendorKeys(self._settings.redis.prefix, vendor)

    def _takes(self, vendor: str, credential: str, app: str) -> bool:
        account = self._accounts.get((vendor, credential))
        return account is not None and account.app == app and not account.gone

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
            refusal = self._refusal(job, now_ms)
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
        # They come in the order in which they were written.
        aged = bool(open_jobs) and (open_jobs[0].raw.time_ms < now_ms - _AGED_MS or open_jobs[0].raw.again)
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
        badges: list[_BadgeWanted] = []
        for number, (job, recipient) in enumerate(asked):
            if not job.undecided:
                continue
            if erased and job.raw.time_ms <= erased.get((job.message.app, recipient.id), 0):
                job.suppress("user_erased")
            else:
                state = self._state_in(replies[number * width : (number + 1) * width])
                self._decide_receiver(job, recipient, state, badges, done.get(number, Done()))
        for job in open_jobs:
            if job.undecided:
                self._plan_targets(job)
        await self._storms.forget_unplanned(jobs)
        await self._caps.forget_unplanned(jobs)
        # One that is not pushed itself ends its call all the same; one that comes again would end the next as well.
        ended = [job for job in jobs if job.message.kind == "call_cancel" and job.recall is None and not job.repeat]
        await self._tell(open_jobs, badges, ended)

    async def _erased(self, jobs: Sequence[Job], newest: list[bytes]) -> dict[Owner, int]:
        """Of the users of *jobs* those who are being erased, and until when what came for them is to go."""
        newest_ms = self._erasures.read_newest(newest)
        return await self._erasures.until_ms(
            (job.message.app, one.id) for job in jobs if job.raw.time_ms <= newest_ms for one in job.recipients
        )

    async def _tell(self, open_jobs: Sequence[Job], badges: Sequence[_BadgeWanted], ended: Sequence[Job]) -> None:
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

    def _refusal(self, job: Job, now_ms: int) -> str:
        if job.recall is not None:
            return refuse_recall(job.message.kind, job.window_s, job.people, job.expires_at_ms, now_ms)
        return refuse_message(job.message, job.sent_at_ms, now_ms, has_text=self._has_text(job))

    def _has_text(self, job: Job) -> bool:
        app = self._settings.apps[job.message.app]
        return bool(self._texts(job, self._catalogue.language_of("", app.locale))[1])

    def _texts(self, job: Job, language: str, *, mentioned: bool = False, hidden: bool = False) -> tuple[str, str]:
        """Title and text of the job's message in a language, composed once."""
        composed = job.texts.get((language, mentioned, hidden))
        if composed is None:
            app = self._settings.apps[job.message.app]
            name = app.name or job.message.app
            texts = self._catalogue
            if job.recall is None:
                composed = compose(job.message, language, name, mentioned=mentioned, hidden=hidden, catalogue=texts)
            else:
                composed = compose_recall(job.message, language, name, hidden=hidden, catalogue=texts)
            job.texts[language, mentioned, hidden] = composed
        return composed

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

    def _decide_receiver(
        self, job: Job, recipient: Recipient, state: UserState, badges: list[_BadgeWanted], done: Done
    ) -> None:
        message = job.message
        if not state.devices:
            job.suppress("no_device")
            return
        now_ms = self._clock.now_ms()
        push = message.offline_push
        push_type = push.apns.push_type if push is not None and push.apns is not None else None
        refusal = ""
        preferences = state.preferences
        if job.recall is None:
            refusal = refuse_receiver(message.kind, recipient, state.receive_at(now_ms), preferences)
            refusal = refusal or refuse_read(message.kind, recipient, done=done.covers(job.sent_at_ms, job.raw.time_ms))
        else:
            # What was shown came over the channel for alerts, and whoever muted the conversation since has it still.
            push_type, preferences = "alert", None
        forced = recipient.push == "force"
        if job.recall is None and message.app in self._holding and not forced:
            self._hold(job, recipient, state, now_ms)
        for device_id, device in state.devices.items():
            reached: Channel | str = refusal or refuse_hour(
                message.kind, recipient, preferences, device.time_zone, now_ms
            )
            reached = reached or self._reach(job, device, now_ms, push_type, forced=forced)
            parks = reached == "foreground" and job.recall is None and self._settings.apps[message.app].parks
            if parks and isinstance(beyond := self._reach(job, device, now_ms, push_type, forced=True), Channel):
                reached = beyond
            if isinstance(reached, str):
                job.suppress(reached)
            else:
                self._plan(job, recipient, device_id, device, reached, state.preferences, badges, parks=parks)

    def _reach(self, job: Job, device: Device, now_ms: int, push_type: str | None, *, forced: bool) -> Channel | str:
        """The channel by which the job's message reaches the device, or why none does."""
        message = job.message
        unused_ms = self._settings.apps[message.app].device_unused_ms
        return reach(
            device,
            message.app,
            message.kind,
            now_ms,
            self._takes,
            push_type=push_type,
            forced=forced,
            unused_ms=unused_ms,
        )

    def _hold(self, job: Job, recipient: Recipient, state: UserState, now_ms: int) -> None:
        """Let the recipient's pushes wait where the app says so; not past the message's end."""
        message = job.message
        app, lane = self._settings.apps[message.app], message.effective_lane
        wait_s = hold_s(app, message.kind, lane, state.devices.values(), now_ms)
        due_ms = job.raw.time_ms + int(wait_s * 1000)
        # A clock that is behind may see an entry before its time: what does not wait is due at once all the same.
        if wait_s and now_ms < due_ms < job.expires_at_ms:
            job.holds[recipient.id] = due_ms

    def _plan_targets(self, job: Job) -> None:
        """Devices addressed directly, past state and badge."""
        message = job.message
        for target in dict.fromkeys(message.targets):
            if not self._takes(target.vendor, target.credential, message.app):
                job.suppress("unknown_account")
                continue
            manner = (self._settings.apps[message.app].locale, False, False, None)
            group = (target.vendor, target.credential, manner)
            identity = delivery_id(message.app, message.id, "", f"{target.vendor}:{target.credential}:{target.token}")
            delivery = Delivery(identity, "", "", target.token, job.raw.time_ms)
            job.planned.setdefault(group, []).append(delivery)

    def _plan(
        self,
        job: Job,
        recipient: Recipient,
        device_id: str,
        device: Device,
        channel: Channel,
        preferences: Preferences | None,
        badges: list[_BadgeWanted],
        *,
        parks: bool,
    ) -> None:
        message = job.message
        language = self._catalogue.language_of(device.locale, self._settings.apps[message.app].locale)
        hidden = preferences is not None and preferences.hide_text
        sound = sound_of(job, preferences) if preferences is not None else None
        group = (channel.vendor, channel.credential, (language, recipient.mention, hidden, sound))
        delivery = Delivery(
            delivery_id(message.app, message.id, recipient.id, device_id),
            recipient.id,
            device_id,
            channel.token,
            channel.registered_at_ms,
            token_kind=channel.kind,
            mention=recipient.mention,
            forced=recipient.push == "force",
        )
        if parks:
            app, lane = self._settings.apps[message.app], message.effective_lane
            job.parked[delivery.id] = first_look_ms(lane, app.park_urgent_s, job.raw.time_ms, job.expires_at_ms)
        if job.recall is not None or job.recalled:
            pass
        elif recipient.unread is not None:
            delivery.badge = recipient.unread
        elif _counts_in_badge(message):
            if not registry.load(channel.vendor).exact_badge:
                delivery.badge = 0  # the vendor adds one by itself
            elif parks:
                delivery.counted = True  # when it leaves
            else:
                badges.append((delivery, job, device.unread))
        job.planned.setdefault(group, []).append(delivery)
        if self._caps and self._caps.limits(job, channel, device):
            job.capped.add(delivery.id)

    async def _count_badges(
        self, badges: Sequence[_BadgeWanted], stormy: Sequence[Stormy] = (), ended: Sequence[Job] = ()
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
        """One put per account and bucket; its answer says what the first write of each part decided."""
        puts: dict[tuple[str, str, int], list[tuple[Job, list[PutEntry]]]] = {}
        for job in jobs:
            by_account = self._accounts_put_before(job)
            for group, deliveries in job.planned.items() if not (job.repeat or job.recalled) else ():
                by_account.setdefault(group[:2], []).extend(self._entries(job, group, deliveries))
            for (vendor, credential), entries in by_account.items():
                if entries or job.raw.again:
                    puts.setdefault((vendor, credential, job.raw.bucket), []).append((job, entries))
        if not puts:
            return
        share = self._settings.router.account_backlog_max
        calls = [
            Ledger.put_call(
                self._accounts[vendor, credential].keys, bucket, [(job.part, entries) for job, entries in some], share
            )
            for (vendor, credential, bucket), some in puts.items()
        ]
        dropped: set[ParcelName] = set()
        answers = good(await self._queue.run_many(calls))
        for ((vendor, credential, _), some), (now_ms, _, counts, lost) in zip(puts.items(), answers, strict=True):
            dropped |= {(vendor, credential, parcel) for parcel in lost}
            self._clock.heard(now_ms)
            metrics.ROUTED_DELIVERIES.labels(vendor).inc(sum(counts))
            for (job, _), deliveries in zip(some, counts, strict=True):
                job.deliveries += deliveries
        await self._storms.pass_on(jobs, dropped)
        await self._caps.pass_on(jobs, dropped)
        await self._ring({vendor for vendor, _, _ in puts})

    def _accounts_put_before(self, job: Job) -> dict[tuple[str, str], list[PutEntry]]:
        """For an entry whose first router died: every account may hold its parcels, whatever is decided now."""
        if not job.raw.again:
            return {}
        return {name: [] for name, account in self._accounts.items() if account.app == job.message.app}

    def _entries(self, job: Job, group: Group, deliveries: list[Delivery]) -> Iterator[PutEntry]:
        vendor, credential, manner = group
        language, mentioned, hidden, _ = manner
        push = push_of(job, manner, *self._texts(job, language, mentioned=mentioned, hidden=hidden))
        if push.recall:
            # An attempt at the message that ends late must not end the recall as well.
            deliveries = [replace(one, id=sent_id(push, one)) for one in deliveries]
        size = self._accounts[vendor, credential].parcel
        # Its age counts from the decision: what waited in the ingress has just been decided.
        now_ms = self._clock.now_ms()
        for (due_ms, why, parking), some in job.by_wait(deliveries).items():
            carried = replace(push, later=why, parking=parking) if due_ms else push
            for number, first in enumerate(range(0, len(some), size)):
                identity = parcel_id(job.part, name_of(manner), number, due_ms, f"{why}{parking}".encode())
                parcel = some[first : first + size]
                if carried.tells_of_others:
                    job.carrying[vendor, credential, identity] = parcel
                packed = pack(Entry(identity, Parcel(carried, parcel), push.lane, now_ms))
                yield (due_ms, packed) if due_ms else packed

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

    async def _ring(self, vendors: set[str]) -> None:
        rung = sorted(vendors)
        calls = [ring_call(self._vendors[vendor]) for vendor in rung]
        for vendor, wanted in zip(rung, await self._queue.run_many(calls), strict=True):
            if wanted == 1:
                self._trigger(vendor)


_BadgeWanted = tuple[Delivery, Job, int]
"""A delivery, the job of its message, and the device's unread number when it went to the background."""


def _counts_in_badge(message: OfflineMessage) -> bool:
    push = message.offline_push
    return push is None or push.apns is None or push.apns.badge_mode == "count"


async def _find_repeats(stream: IngressStream, jobs: Sequence[Job]) -> None:
    """Mark the jobs whose part was acknowledged before, or stands in the batch twice."""
    seen = await stream.acknowledged([(job.raw, job.part) for job in jobs])
    for job in jobs:
        job.repeat = job.part in seen
        seen.add(job.part)


def _slices(jobs: Sequence[Job]) -> Iterator[list[Job]]:
    """Batches of jobs with a bounded number of recipients, so that large groups do not pile up in memory."""
    batch: list[Job] = []
    recipients = 0
    for job in jobs:
        batch.append(job)
        recipients += len(job.message.recipients) + len(job.message.targets)
        if recipients >= _RECIPIENTS_AT_ONCE:
            yield batch
            batch, recipients = [], 0
    if batch:
        yield batch
