"""Deciding again on work that waited: what was read from the token state may no longer hold."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import Any, Literal

from msgspec.structs import replace

from pushfleet.message import Recipient
from pushfleet_workers.catalogue import STANDARD, Catalogue
from pushfleet_workers.clock import FleetClock
from pushfleet_workers.compose import compose_hidden
from pushfleet_workers.decision import refuse_delivered, refuse_device, refuse_hour, refuse_read, refuse_receiver
from pushfleet_workers.errors import RedisUnusable
from pushfleet_workers.ledger import Entry
from pushfleet_workers.meanwhile import Learned, Meanwhile
from pushfleet_workers.overrides import without_texts
from pushfleet_workers.peace.calls import NeverRang, note_commands, say_no_end
from pushfleet_workers.peace.device_day import DeviceDays
from pushfleet_workers.peace.gathers import Gathered, tell, tells_only
from pushfleet_workers.peace.parking import Going, Parking
from pushfleet_workers.peace.storms import Telling, told
from pushfleet_workers.push import Delivery, Push
from pushfleet_workers.recall import ClaimedRecalls
from pushfleet_workers.recall.keys import message_digest
from pushfleet_workers.redis_link import Link, ReplyError
from pushfleet_workers.redis_replies import good
from pushfleet_workers.settings import AppSettings
from pushfleet_workers.tokens.lookup import Lookup, UserState
from pushfleet_workers.tokens.record import Device

__all__ = ["Rechecked", "Rechecker"]

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Rechecked:
    """What became of deliveries that waited."""

    refused: dict[bytes, str] = field(default_factory=dict)
    """Delivery ids to the reason why they must not be sent any more."""

    rendered: dict[bytes, Push] = field(default_factory=dict)
    """Delivery ids to the push that they carry from now on, where it is another one."""

    counting: set[bytes] = field(default_factory=set)
    """Ids of deliveries whose push says how many messages there are, and no word of any."""

    later: dict[bytes, tuple[int, Push]] = field(default_factory=dict)
    """Delivery ids to how long they wait, in milliseconds, and the push that they carry then: no push that is parked
    leaves from here."""


class Rechecker:
    """Asks the token state about the deliveries of entries, in one round trip.

    * **queue** - the Redis of the ingress; absent: that of the token state.
    * **recall_window_s** - how long messages of the account's app can be taken back; 0: not at all, nothing is asked.
    * **reads** - whether it counts how far users have read.
    * **parking** - what becomes of pushes to devices in the foreground; absent: they are not parked.
    * **days** - what devices got of the account's caps.
    * **app_name** - the title of what its user hides meanwhile, and of what tells of several conversations.
    * **locale** - the language of what is composed anew, for devices that report none.
    * **catalogue** - its texts.
    """

    def __init__(
        self,
        state: Link,
        prefix: str,
        clock: FleetClock,
        vendor: str,
        credential: str,
        *,
        queue: Link | None = None,
        recall_window_s: int = 0,
        reads: bool = False,
        parking: Parking | None = None,
        days: DeviceDays | None = None,
        app_name: str = "",
        locale: str = "en",
        catalogue: Catalogue = STANDARD,
    ) -> None:
        self._state = state
        self._lookup = Lookup(prefix)
        self._recalls = ClaimedRecalls(state, queue or state, prefix, clock, vendor, credential, recall_window_s)
        self._clock = clock
        self._vendor = vendor
        self._credential = credential
        self._parking = parking or Parking(state, prefix, AppSettings(), vendor, credential)
        self._meanwhile = Meanwhile(state, prefix, clock, vendor, credential, self._parking, reads=reads, days=days)
        self._app_name = app_name
        self._locale = locale
        self._catalogue = catalogue
        self._prefix = prefix

    async def recheck(self, entries: Sequence[Entry]) -> Rechecked:
        """Decide again on *entries*; renews tokens and badges in their deliveries.

        Of devices that were addressed directly only recalls are asked about; what was gathered from several
        conversations takes one more round trip. Raises :class:`RedisUnusable` where nothing can be found out; what was
        stands, whether it can be written down or not.
        """
        asked = [
            (entry.parcel.push, delivery) for entry in entries for delivery in entry.parcel.deliveries if delivery.user
        ]
        commands: list[tuple[Any, ...]] = []
        for push, delivery in asked:
            commands += self._lookup.commands(push.app, delivery.user, push.conversation_id)
        recallable = self._recalls.concerned(entries)
        commands += [self._recalls.question(entry) for entry in recallable]
        further = [self._meanwhile.commands(push, delivery) for push, delivery in asked]
        commands += chain.from_iterable(one.values() for one in further)
        replies = iter(await self._state.pipeline(commands))
        states = [list(islice(replies, self._lookup.width)) for _ in asked]
        marks = list(islice(replies, len(recallable)))
        answers = [{name: next(replies) for name in names} for names in further]
        learned = await self._meanwhile.read(asked, answers)
        taken_back = await self._recalls.taken_back_of(digest for one in learned for digest in one.messages)
        found, devices = Rechecked(), dict[bytes, Device]()
        for (push, delivery), lookup, one in zip(asked, states, learned, strict=True):
            try:
                state = self._lookup.read(lookup)
            except ReplyError as problem:
                if not str(problem).startswith("WRONGTYPE"):
                    raise
                # Keys that are not what they should be: for this user alone the first decision stands.
                continue
            if one.gathered is not None:
                self._decide_gathered(push, delivery, state, one, one.gathered, taken_back, found)
            else:
                self._decide(push, delivery, state, one, taken_back, found)
            if delivery.device in state.devices:
                devices[delivery.id] = state.devices[delivery.device]
        recalled = self._recalls.taken_back(recallable, marks)
        _stop(recalled, found)
        done = {delivery.id: one.done for (_, delivery), one in zip(asked, learned, strict=True)}
        silent = say_no_end(entries, found.refused, done)
        confirmed_ms = {delivery.id: one.confirmed_ms for (_, delivery), one in zip(asked, learned, strict=True)}
        try:
            # A full server takes no notes: what was refused is not sent for that.
            with self._noting():
                await self._note(silent)
            with self._noting():
                await self._release(entries, devices, confirmed_ms, found)
            with self._noting():
                await self._recalls.look_at_screens(recallable, marks, found.refused, found.later)
            with self._noting():
                meanwhile = await self._recalls.show(recallable, {*found.refused, *found.later}, found.counting)
                await self._decide_anew(
                    [entry for entry in meanwhile if not any(entry is one for one in recalled)], found
                )
        except RedisUnusable as problem:
            self._log_trouble(problem)
        return found

    async def forget_dropped(self, dropped: Sequence[tuple[Entry, Sequence[Delivery]]]) -> None:
        """Devices do not show what was dropped, of each entry these deliveries. Raises :class:`RedisUnusable`."""
        await self._recalls.forget_dropped(dropped)

    @contextlib.contextmanager
    def _noting(self) -> Iterator[None]:
        try:
            yield
        except ReplyError as problem:
            self._log_trouble(problem)

    def _log_trouble(self, problem: Exception) -> None:
        log.warning("of %s:%s it cannot be noted what goes: %s", self._vendor, self._credential, problem)

    async def _note(self, silent: Sequence[NeverRang]) -> None:
        """Let the ends of *silent* calls be told to nobody, whenever they are claimed."""
        notes = note_commands(self._prefix, silent)
        good(await self._state.pipeline(notes) if notes else ())

    async def _decide_anew(self, entries: Sequence[Entry], found: Rechecked) -> None:
        """What was taken back at the very moment when devices were to show it, is decided once more."""
        if not entries:
            return
        for entry in entries:
            for one in entry.parcel.deliveries:
                found.rendered.pop(one.id, None)
        again = await self.recheck(entries)
        found.refused |= again.refused
        found.rendered |= again.rendered
        found.later |= again.later

    def _decide(
        self,
        push: Push,
        delivery: Delivery,
        state: UserState,
        learned: Learned,
        taken_back: Collection[str],
        found: Rechecked,
    ) -> None:
        if learned.never_rang:
            found.refused[delivery.id] = "call_over"
            return
        telling, done = learned.telling, learned.done
        done_up_to_ms = max(done.sent_ms, learned.confirmed_of(push))
        if learned.newer is not None and learned.newer.left(done_up_to_ms, taken_back).count:
            telling = None
        sent_at_ms = max(push.sent_at_ms, telling.sent_at_ms) if telling is not None else push.sent_at_ms
        reason = self._refuse(push, delivery, state, done=done.covers(sent_at_ms, push.enqueued_at_ms))
        parks = reason == "foreground" and self._parking.parks and not push.recall
        if not reason or parks:
            if telling is not None:
                telling = telling.left(done_up_to_ms, taken_back)
            alone = _tells_itself(push) if telling is None else telling.tells_only(_digest(push))
            reason = refuse_delivered(sent_at_ms, learned.confirmed_of(push, alone=alone))
            if learned.storm and not reason:
                reason = _refuse_telling(telling, taken_back)
            if parks and not reason:
                # It makes sense as long as what it tells of.
                others_until_ms = telling.expires_at_ms if telling is not None and not alone else None
                self._park(push, delivery, state.devices[delivery.device], others_until_ms, found)
                return
        if reason:
            found.refused[delivery.id] = reason
            return
        device = state.devices[delivery.device]
        push = self._renewed(push, delivery, state, learned, found)
        if telling is not None:
            if not delivery.counted and telling.unread >= 0:
                delivery.badge = telling.unread
            if telling.message in taken_back:
                # No word of what was taken back, not even its title.
                push = self._without_texts(push, device.locale)
            push = found.rendered[delivery.id] = told(push, telling, device.locale, self._locale, self._catalogue)
            if push.is_count:
                found.counting.add(delivery.id)

    def _park(
        self, push: Push, delivery: Delivery, device: Device, others_until_ms: int | None, found: Rechecked
    ) -> None:
        """*others_until_ms* is until when others make sense that it tells of; None: it tells of none."""
        carried = replace(push, expires_at_ms=max(push.expires_at_ms, others_until_ms or 0))
        wait_ms = self._parking.wait_ms(carried, delivery, device, self._clock.now_ms())
        found.later[delivery.id] = wait_ms, replace(carried, parking="parked")
        if others_until_ms is not None:
            # Its own message may be taken back: it has others to tell of.
            found.counting.add(delivery.id)

    async def _release(
        self,
        entries: Sequence[Entry],
        devices: Mapping[bytes, Device],
        confirmed_ms: Mapping[bytes, int],
        found: Rechecked,
    ) -> None:
        """What was parked, and is neither refused nor to wait on, goes; with a permit of its own."""
        going: list[Going] = []
        for entry in entries:
            push = entry.parcel.push
            for one in entry.parcel.deliveries if push.parking == "parked" else ():
                if one.id in found.refused or one.id in found.later:
                    continue
                carried = found.rendered.pop(one.id, push)
                confirmed_up_to_ms = max(push.confirmed_ms, confirmed_ms.get(one.id, 0))
                carried = replace(carried, parking="released", confirmed_ms=confirmed_up_to_ms)
                if one.id in devices:
                    going.append(Going(carried, one, devices[one.id], entry.lost > 0))
                else:
                    # Nobody can tell where the app is: a push too many beats a push lost.
                    found.later[one.id] = 0, carried
        if going:
            released = await self._parking.release(going, self._clock.now_ms())
            found.refused |= dict.fromkeys(released.absorbed, "stormed")
            found.later |= released.later

    def _decide_gathered(
        self,
        push: Push,
        delivery: Delivery,
        state: UserState,
        learned: Learned,
        gathered: Gathered,
        taken_back: Collection[str],
        found: Rechecked,
    ) -> None:
        """As :meth:`_decide`; what speaks against its own conversation leaves the others to be told of."""
        device, receive = state.devices.get(delivery.device), state.receive_at(self._clock.now_ms())
        unwanted = refuse_receiver(push.kind, Recipient(id=delivery.user), receive)
        # An app that had not got what was parked says that nothing is unread.
        seen_up_to_ms = device.nothing_unread_at_ms if device is not None and push.parking != "released" else 0
        done_up_to_ms = max(learned.done.sent_ms, learned.confirmed_of(push))
        news = gathered.news(seen_up_to_ms, None if unwanted else done_up_to_ms, taken_back)
        recalled = gathered.gather.message in taken_back
        reason = self._refuse(push, delivery, UserState(state.devices, None, state.preferences), done=False)
        parks = reason == "foreground" and self._parking.parks
        alone = tells_only(push, news)
        if parks or not reason:
            delivered = refuse_delivered(push.sent_at_ms, learned.confirmed_of(push, alone=alone))
            if not news.count:
                reason, parks = "recalled" if recalled else unwanted or delivered or "read", False
            elif alone and delivered:
                reason, parks = delivered, False
        if device is None or (reason and not parks):
            found.refused[delivery.id] = reason
            return
        if parks:
            self._park(push, delivery, device, None if alone else news.expires_at_ms, found)
            return
        push = self._renewed(push, delivery, state, learned, found)
        if not delivery.counted and gathered.gather.unread >= 0:
            delivery.badge = gathered.gather.unread
        if recalled:
            push = self._without_texts(push, device.locale)
        name = self._app_name or push.app
        push = found.rendered[delivery.id] = tell(push, news, name, device.locale, self._locale, self._catalogue)
        if push.is_count:
            found.counting.add(delivery.id)

    def _renewed(self, push: Push, delivery: Delivery, state: UserState, learned: Learned, found: Rechecked) -> Push:
        """*push*, hidden where its user hides texts by now; *delivery* gets the badge of now."""
        device = state.devices[delivery.device]
        if learned.count is not None:
            delivery.badge = device.unread + learned.count
        if state.preferences is not None and state.preferences.hide_text and not push.hidden:
            push = found.rendered[delivery.id] = self._without_texts(push, device.locale)
        return push

    def _without_texts(self, push: Push, locale: str) -> Push:
        language = self._catalogue.language_of(locale, self._locale)
        name = self._app_name or push.app
        title, body = compose_hidden(push.kind, language, name, recall=push.recall, catalogue=self._catalogue)
        options = without_texts(push.options) if push.options is not None else None
        return replace(push, title=title, body=body, options=options, sender_name="", hidden=True)

    def _refuse(self, push: Push, delivery: Delivery, state: UserState, *, done: bool) -> str:
        now_ms = self._clock.now_ms()
        device = state.devices.get(delivery.device)
        zone = device.time_zone if device is not None else ""
        if not push.recall:
            wanted: Literal["auto", "force"] = "force" if delivery.forced else "auto"
            recipient = Recipient(id=delivery.user, mention=delivery.mention, push=wanted)
            reason = refuse_receiver(push.kind, recipient, state.receive_at(now_ms), state.preferences)
            reason = reason or refuse_read(push.kind, recipient, done=done)
            reason = reason or refuse_hour(push.kind, recipient, state.preferences, zone, now_ms)
            if reason:
                return reason
        if device is None:
            return "no_device"
        reason = refuse_device(device, now_ms, forced=delivery.forced or push.passes_foreground)
        if reason:
            return reason
        here = (self._vendor, self._credential, delivery.token_kind)
        channels = [
            channel
            for channel in device.channels
            if (channel.vendor, channel.credential, channel.kind) == here and channel.quarantined_until_ms <= now_ms
        ]
        if not channels:
            return "no_channel"
        channel = next((one for one in channels if one.token == delivery.token), channels[0])
        delivery.token, delivery.registered_at_ms = channel.token, channel.registered_at_ms
        return ""


def _digest(push: Push) -> str:
    return message_digest(push.app, push.message_id)


def _tells_itself(push: Push) -> bool:
    """Whether it tells of its own message and no other, by what it says already."""
    return push.tells == 1 and not push.is_count


def _refuse_telling(telling: Telling | None, taken_back: Collection[str]) -> str:
    """Why a push is not needed that tells of what is left in *telling*."""
    if telling is None:
        return "stormed"
    if telling.count:
        return ""
    return "recalled" if telling.message in taken_back else "read"


def _stop(recalled: Sequence[Entry], found: Rechecked) -> None:
    """Send nothing of what was taken back, but what tells of other messages and has no word of it any more."""
    for entry in recalled:
        for one in entry.parcel.deliveries:
            if one.id not in found.counting:
                found.refused[one.id] = "recalled"
                found.later.pop(one.id, None)
