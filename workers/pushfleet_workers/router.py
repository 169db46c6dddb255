"""The router: from ingress entries to parcels in the ledgers.

For a batch of entries: the state of every recipient in one pipelined round trip, the pure decision, text and badge,
then one put per account, the bells, and the acknowledgement. A batch that breaks anywhere is simply done again; an
entry that breaks it is done alone, so that its neighbours do not pay for it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from pushfleet.errors import InvalidMessage
from pushfleet.message import OfflineMessage, OfflinePush, Recipient
from pushfleet.wire import part_id, read_entry
from pushfleet_workers import registry
from pushfleet_workers.clock import FleetClock
from pushfleet_workers.compose import compose, language_of
from pushfleet_workers.decision import channel_for, refuse_device, refuse_message, refuse_receiver
from pushfleet_workers.errors import RedisUnusable
from pushfleet_workers.hooks import metrics
from pushfleet_workers.ingress import IngressStream, Raw, Routed
from pushfleet_workers.ledger import AccountKeys, Entry, Ledger, VendorKeys, pack
from pushfleet_workers.ledger.entry import parcel_id
from pushfleet_workers.push import Delivery, Parcel, Push, delivery_id
from pushfleet_workers.redis_link import Link, ReplyError
from pushfleet_workers.runtime import rate_of
from pushfleet_workers.settings import Settings
from pushfleet_workers.tokens.lookup import Lookup, UserState
from pushfleet_workers.tokens.record import Channel, Device
from pushfleet_workers.wake import Trigger, ring_call

__all__ = ["Router"]

log = logging.getLogger(__name__)

_RECIPIENTS_AT_ONCE = 2_000
_SECTIONS = ("apns", "android", "huawei", "honor", "xiaomi", "oppo", "vivo", "meizu", "harmony", "fcm")


@dataclass(slots=True)
class _Account:
    """What the router knows of an account."""

    vendor: str
    credential: str
    app: str
    keys: AccountKeys
    parcel: int


@dataclass(slots=True)
class _Job:
    """One entry on its way through a batch."""

    raw: Raw
    message: OfflineMessage
    part: bytes
    repeat: bool = False
    """The part was decided before, by this or another entry: nothing is decided again."""

    counts: dict[str, int] = field(default_factory=dict)
    planned: dict[_Group, list[Delivery]] = field(default_factory=dict)
    texts: dict[tuple[str, bool], tuple[str, str]] = field(default_factory=dict)
    """Language and whether mentioned to title and text."""

    deliveries: int = 0

    def suppress(self, reason: str) -> None:
        """Count a recipient or device that gets no push."""
        name = f"suppressed:{self.message.app}:{reason}"
        self.counts[name] = self.counts.get(name, 0) + 1
        metrics.SUPPRESSED.labels(reason).inc()


_Group = tuple[str, str, str, bool]
"""Vendor, credential, language and whether mentioned: deliveries that share a text."""


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
        self._clock = clock or FleetClock()
        self._accounts: dict[tuple[str, str], _Account] = {}
        self._vendors: dict[str, VendorKeys] = {}
        for vendor, credential, account in settings.each_account():
            size = registry.load(vendor).batch_size
            size = settings.router.parcel if size == 1 else size
            rate = rate_of(account)
            if rate is not None:
                size = max(1, min(size, int(rate.capacity)))
            keys = AccountKeys(settings.redis.prefix, vendor, credential)
            self._accounts[vendor, credential] = _Account(vendor, credential, account.app, keys, size)
            self._vendors[vendor] = VendorKeys(settings.redis.prefix, vendor)

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
                log.error("a batch of %s is done entry by entry: %s", stream.keys.stream, _place_of(problem))
                for job in jobs:
                    await self._finish_alone(stream, job)
            metrics.ROUTED_MESSAGES.labels(stream.lane).inc(len(jobs))
        metrics.ROUTER_BATCH_SECONDS.labels(stream.lane).observe(time.perf_counter() - started)

    async def _finish(self, stream: IngressStream, jobs: Sequence[_Job]) -> None:
        await self._decide(stream, jobs)
        await self._put(jobs)
        await stream.acknowledge([Routed(job.raw, job.part, job.deliveries, job.counts) for job in jobs])

    async def _finish_alone(self, stream: IngressStream, job: _Job) -> None:
        try:
            await self._finish(stream, [_Job(job.raw, job.message, job.part)])
        except (RedisUnusable, ReplyError):
            raise
        except Exception as problem:  # noqa: BLE001 - it would break every batch that it is in, one router after another
            await self._refuse(stream, job.raw, "unroutable", f"routing it failed: {_place_of(problem)}")

    async def _job(self, stream: IngressStream, raw: Raw) -> _Job | None:
        try:
            message = read_entry(raw.fields)
        except InvalidMessage as problem:
            await self._refuse(stream, raw, "malformed", str(problem))
            return None
        if message.app not in self._settings.apps:
            await self._refuse(stream, raw, "unknown_app", f"the settings have no app {message.app!r}")
            return None
        return _Job(raw, message, part_id(message))

    async def _refuse(self, stream: IngressStream, raw: Raw, reason: str, problem: str) -> None:
        log.warning("entry %s of %s is refused: %s", raw.id.decode(), stream.keys.stream, reason)
        await stream.refuse(raw, reason, problem)

    # ---- the decision

    async def _decide(self, stream: IngressStream, jobs: Sequence[_Job]) -> None:
        now_ms = self._clock.now_ms()
        commands: list[tuple[Any, ...]] = []
        asked: list[tuple[_Job, Recipient]] = []
        for job in jobs:
            message = job.message
            recipients = _recipients(message)
            job.counts["recipients"] = len(recipients) + len(message.targets)
            sent_at_ms = message.sent_at_ms or job.raw.time_ms
            refusal = refuse_message(message, sent_at_ms, now_ms, has_text=self._has_text(job))
            if refusal:
                for _ in range(job.counts["recipients"]):
                    job.suppress(refusal)
                continue
            conversation = message.conversation.id if message.conversation is not None else ""
            for recipient in recipients:
                commands += self._lookup.commands(message.app, recipient.id, conversation)
                asked.append((job, recipient))
            self._plan_targets(job)
        replies, _ = await asyncio.gather(self._state.pipeline(commands), _find_repeats(stream, jobs))
        width = self._lookup.width
        badges: list[_BadgeWanted] = []
        for number, (job, recipient) in enumerate(asked):
            if not job.repeat:
                state = self._state_in(replies[number * width : (number + 1) * width])
                self._decide_receiver(job, recipient, state, badges)
        await self._count_badges(badges)

    def _has_text(self, job: _Job) -> bool:
        app = self._settings.apps[job.message.app]
        return bool(self._texts(job, language_of("", app.locale), mentioned=False)[1])

    def _texts(self, job: _Job, language: str, *, mentioned: bool) -> tuple[str, str]:
        """Title and text of the job's message in a language, composed once."""
        composed = job.texts.get((language, mentioned))
        if composed is None:
            app = self._settings.apps[job.message.app]
            composed = compose(job.message, language, app.name or job.message.app, mentioned=mentioned)
            job.texts[language, mentioned] = composed
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

    def _decide_receiver(self, job: _Job, recipient: Recipient, state: UserState, badges: list[_BadgeWanted]) -> None:
        message = job.message
        if not state.devices:
            job.suppress("no_device")
            return
        now_ms = self._clock.now_ms()
        refusal = refuse_receiver(message.kind, recipient, state.receive_at(now_ms))
        push = message.offline_push
        push_type = push.apns.push_type if push is not None and push.apns is not None else None
        for device_id, device in state.devices.items():
            reason = refusal or refuse_device(device, now_ms, forced=recipient.push == "force")
            if reason:
                job.suppress(reason)
                continue
            channel = channel_for(device, message.kind, now_ms, push_type)
            if channel is None:
                job.suppress("no_channel")
                continue
            account = self._accounts.get((channel.vendor, channel.credential))
            if account is None or account.app != message.app:
                job.suppress("unknown_account")
                continue
            self._plan(job, recipient, device_id, device, channel, badges)

    def _plan_targets(self, job: _Job) -> None:
        """Devices addressed directly, past state and badge."""
        message = job.message
        for target in dict.fromkeys(message.targets):
            account = self._accounts.get((target.vendor, target.credential))
            if account is None or account.app != message.app:
                job.suppress("unknown_account")
                continue
            group = (target.vendor, target.credential, self._settings.apps[message.app].locale, False)
            identity = delivery_id(message.app, message.id, "", f"{target.vendor}:{target.credential}:{target.token}")
            delivery = Delivery(identity, "", "", target.token, job.raw.time_ms)
            job.planned.setdefault(group, []).append(delivery)

    def _plan(
        self,
        job: _Job,
        recipient: Recipient,
        device_id: str,
        device: Device,
        channel: Channel,
        badges: list[_BadgeWanted],
    ) -> None:
        message = job.message
        language = language_of(device.locale, self._settings.apps[message.app].locale)
        group = (channel.vendor, channel.credential, language, recipient.mention)
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
        if recipient.unread is not None:
            delivery.badge = recipient.unread
        elif _counts_in_badge(message):
            if registry.load(channel.vendor).exact_badge:
                badges.append((delivery, message, device.unread))
            else:
                delivery.badge = 0  # the vendor adds one by itself
        job.planned.setdefault(group, []).append(delivery)

    async def _count_badges(self, badges: Sequence[_BadgeWanted]) -> None:
        """Each device's base plus the pushes counted since; a message counts once, however often it is routed."""
        if not badges:
            return
        calls = [
            self._lookup.badge_call(message.app, delivery.user, delivery.device, message.id)
            for delivery, message, _ in badges
        ]
        for (delivery, _, base), counted in zip(badges, await self._state.run_many(calls), strict=True):
            if isinstance(counted, ReplyError):
                raise counted
            delivery.badge = base + counted

    # ---- to the ledgers

    async def _put(self, jobs: Sequence[_Job]) -> None:
        """One put per account and bucket; its answer says what the first write of each part decided."""
        puts: dict[tuple[str, str, int], list[tuple[_Job, list[bytes]]]] = {}
        for job in jobs:
            by_account = self._accounts_put_before(job)
            for group, deliveries in job.planned.items() if not job.repeat else ():
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
        for ((vendor, _, _), some), answer in zip(puts.items(), await self._queue.run_many(calls), strict=True):
            if isinstance(answer, ReplyError):
                raise answer
            self._clock.heard(answer[0])
            metrics.ROUTED_DELIVERIES.labels(vendor).inc(sum(answer[2]))
            for (job, _), deliveries in zip(some, answer[2], strict=True):
                job.deliveries += deliveries
        await self._ring({vendor for vendor, _, _ in puts})

    def _accounts_put_before(self, job: _Job) -> dict[tuple[str, str], list[bytes]]:
        """For an entry whose first router died: every account may hold its parcels, whatever is decided now."""
        if not job.raw.again:
            return {}
        return {name: [] for name, account in self._accounts.items() if account.app == job.message.app}

    def _entries(self, job: _Job, group: _Group, deliveries: list[Delivery]) -> Iterator[bytes]:
        vendor, credential, language, mentioned = group
        push = self._push(job, language, mentioned)
        size = self._accounts[vendor, credential].parcel
        for number, first in enumerate(range(0, len(deliveries), size)):
            identity = parcel_id(job.part, f"{language}:{mentioned}".encode(), number)
            parcel = Parcel(push, deliveries[first : first + size])
            yield pack(Entry(identity, parcel, push.lane, job.raw.time_ms))

    def _push(self, job: _Job, language: str, mentioned: bool) -> Push:
        message = job.message
        title, body = self._texts(job, language, mentioned=mentioned)
        sent_at_ms = message.sent_at_ms or job.raw.time_ms
        conversation = message.conversation
        return Push(
            app=message.app,
            message_id=message.id,
            kind=message.kind,
            lane=message.effective_lane,
            title=title,
            body=body,
            expires_at_ms=sent_at_ms + message.effective_ttl_s * 1000,
            sent_at_ms=sent_at_ms,
            enqueued_at_ms=job.raw.time_ms,
            conversation_id=conversation.id if conversation is not None else "",
            replace_key=message.effective_replace_key or "",
            ext=(message.offline_push.ext or "") if message.offline_push is not None else "",
            options=_overrides(message.offline_push),
            group=conversation is not None and conversation.kind != "single",
            sender_name=message.sender.name if message.sender is not None else "",
        )

    async def _ring(self, vendors: set[str]) -> None:
        rung = sorted(vendors)
        calls = [ring_call(self._vendors[vendor]) for vendor in rung]
        for vendor, wanted in zip(rung, await self._queue.run_many(calls), strict=True):
            if wanted == 1:
                self._trigger(vendor)


_BadgeWanted = tuple[Delivery, OfflineMessage, int]
"""A delivery, its message, and the device's unread number when it went to the background."""


def _overrides(push: OfflinePush | None) -> OfflinePush | None:
    """What vendors read of the options; the rest has been composed, and would lie in Redis twice."""
    if push is None:
        return None
    sections = {name: section for name in _SECTIONS if (section := getattr(push, name)) is not None}
    return OfflinePush(**sections) if sections else None


def _counts_in_badge(message: OfflineMessage) -> bool:
    push = message.offline_push
    return push is None or push.apns is None or push.apns.badge_mode == "count"


async def _find_repeats(stream: IngressStream, jobs: Sequence[_Job]) -> None:
    """Mark the jobs whose part was acknowledged before, or stands in the batch twice."""
    seen = await stream.acknowledged([(job.raw, job.part) for job in jobs])
    for job in jobs:
        job.repeat = job.part in seen
        seen.add(job.part)


def _place_of(problem: Exception) -> str:
    """What a log may say of *problem*: its text may hold tokens or message texts."""
    trace = problem.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    where = f"{trace.tb_frame.f_code.co_name}, line {trace.tb_lineno}" if trace is not None else "nowhere"
    return f"{type(problem).__name__} in {where}"


def _recipients(message: OfflineMessage) -> list[Recipient]:
    """Each recipient once; where one is named twice, the first entry counts."""
    if len(message.recipients) == 1:
        (only,) = message.recipients
        return [only if isinstance(only, Recipient) else Recipient(id=only)]
    seen: dict[str, Recipient] = {}
    for one in message.recipients:
        recipient = one if isinstance(one, Recipient) else Recipient(id=one)
        seen.setdefault(recipient.id, recipient)
    return list(seen.values())


def _slices(jobs: Sequence[_Job]) -> Iterator[list[_Job]]:
    """Batches of jobs with a bounded number of recipients, so that large groups do not pile up in memory."""
    batch: list[_Job] = []
    recipients = 0
    for job in jobs:
        batch.append(job)
        recipients += len(job.message.recipients) + len(job.message.targets)
        if recipients >= _RECIPIENTS_AT_ONCE:
            yield batch
            batch, recipients = [], 0
    if batch:
        yield batch
