"""Deciding again on work that waited: what was read from the token state may no longer hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

from msgspec.structs import replace

from pushfleet.message import Recipient
from pushfleet_workers.catalogue import STANDARD, Catalogue
from pushfleet_workers.clock import FleetClock
from pushfleet_workers.compose import compose_hidden
from pushfleet_workers.decision import refuse_device, refuse_hour, refuse_read, refuse_receiver
from pushfleet_workers.ledger import Entry
from pushfleet_workers.overrides import without_texts
from pushfleet_workers.peace import read_storm, storm_command, storm_place, told, told_by
from pushfleet_workers.push import Delivery, Push
from pushfleet_workers.recall import RecallMemory
from pushfleet_workers.redis_link import Link, ReplyError
from pushfleet_workers.tokens.lookup import Lookup, UserState
from pushfleet_workers.tokens.reads import done_command, read_done

__all__ = ["Rechecked", "Rechecker"]

_Ringing = tuple[str, str, str]
"""App, user and the device that rings."""

_Screen = tuple[str, str, str, bytes]
"""App, message and replace key, and the device that shows it."""


@dataclass(slots=True)
class Rechecked:
    """What became of deliveries that waited."""

    refused: dict[bytes, str] = field(default_factory=dict)
    """Delivery ids to the reason why they must not be sent any more."""

    rendered: dict[bytes, Push] = field(default_factory=dict)
    """Delivery ids to the push that they carry from now on, where it is another one."""

    without: dict[bytes, Push] = field(default_factory=dict)
    """Delivery ids to the push that tells of the other messages, for when the one that carries it was taken back."""


class Rechecker:
    """Asks the token state about the deliveries of entries, in one round trip.

    * **recalls** - whether messages of the account's app can be taken back; where not, nothing is asked about it.
    * **reads** - the same for how far users have read.
    * **app_name** - the title of what its user hides meanwhile.
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
        recalls: bool = False,
        reads: bool = False,
        app_name: str = "",
        locale: str = "en",
        catalogue: Catalogue = STANDARD,
    ) -> None:
        self._state = state
        self._lookup = Lookup(prefix)
        self._memory = RecallMemory(prefix)
        self._clock = clock
        self._vendor = vendor
        self._credential = credential
        self._recalls = recalls
        self._reads = reads
        self._app_name = app_name
        self._locale = locale
        self._catalogue = catalogue
        self._prefix = prefix

    async def recheck(self, entries: Sequence[Entry]) -> Rechecked:
        """Decide again on *entries*; renews tokens and badges in their deliveries.

        Of devices that were addressed directly only recalls are asked about. Raises :class:`RedisUnusable`.
        """
        asked = [
            (entry.parcel.push, delivery) for entry in entries for delivery in entry.parcel.deliveries if delivery.user
        ]
        commands: list[tuple[Any, ...]] = []
        for push, delivery in asked:
            commands += self._lookup.commands(push.app, delivery.user, push.conversation_id)
        recallable = entries if self._recalls else [entry for entry in entries if entry.parcel.push.recall]
        commands += [self._recall_question(entry) for entry in recallable]
        further = [self._further(push, delivery) for push, delivery in asked]
        commands += chain.from_iterable(one.values() for one in further)
        replies = await self._state.pipeline(commands)
        width, found = self._lookup.width, Rechecked()
        rest = iter(replies[len(asked) * width + len(recallable) :])
        for number, (push, delivery) in enumerate(asked):
            learned = {name: next(rest) for name in further[number]}
            try:
                state = self._lookup.read(replies[number * width : (number + 1) * width])
            except ReplyError as problem:
                if not str(problem).startswith("WRONGTYPE"):
                    raise
                # Keys that are not what they should be: for this user alone the first decision stands.
                continue
            self._decide(push, delivery, state, learned, found)
        _say_no_end_of_what_never_rang(entries, found)
        if recallable:
            await self._recall(recallable, replies[len(asked) * width :][: len(recallable)], found)
        return found

    def _further(self, push: Push, delivery: Delivery) -> dict[str, tuple[str | bytes, ...]]:
        """What else to ask for a delivery, by what it is for."""
        commands: dict[str, tuple[str | bytes, ...]] = {}
        place = (push.app, delivery.user)
        if delivery.counted:
            commands["badge"] = self._lookup.counted(*place, delivery.device)
        if (self._reads or push.kind == "call") and not push.recall:
            done = done_command(self._prefix, *place, push.kind, push.conversation_id, push.replace_key)
            if done is not None:
                commands["done"] = done
        if push.later == "storm" and not delivery.tried:
            # What was handed on from another account has been told there, and of that place alone something is known.
            there = storm_place(delivery, self._vendor, self._credential)
            commands["storm"] = storm_command(self._prefix, *place, push.conversation_id, there)
        return commands

    def _decide(
        self, push: Push, delivery: Delivery, state: UserState, learned: Mapping[str, Any], found: Rechecked
    ) -> None:
        stormed = "storm" in learned
        telling = told_by(read_storm(learned["storm"]), push, self._clock.now_ms()) if stormed else None
        sent_at_ms = max(push.sent_at_ms, telling.sent_at_ms) if telling is not None else push.sent_at_ms
        done = read_done(learned.get("done"))
        reason = self._refuse(push, delivery, state, done=done.covers(sent_at_ms, push.enqueued_at_ms))
        if not reason and stormed and telling is None:
            reason = "stormed"
        if reason:
            found.refused[delivery.id] = reason
            return
        device = state.devices[delivery.device]
        count = learned.get("badge")
        if "badge" in learned and not isinstance(count, ReplyError):
            delivery.badge = device.unread + self._lookup.read_counted(count)
        if state.preferences is not None and state.preferences.hide_text and not push.hidden:
            push = found.rendered[delivery.id] = self._without_texts(push, device.locale)
        if telling is not None:
            if not delivery.counted and telling.unread >= 0:
                delivery.badge = telling.unread
            telling = telling.after(done.sent_ms)
            found.rendered[delivery.id] = told(push, telling, device.locale, self._locale, self._catalogue)
            others = telling.count - int(push.sent_at_ms > done.sent_ms)
            if others and self._recalls:
                # No word of what was taken back, not even its title.
                blank, rest = self._without_texts(push, device.locale), replace(telling, count=others)
                found.without[delivery.id] = told(blank, rest, device.locale, self._locale, self._catalogue)

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
        if not delivery.forced and not push.recall:
            recipient = Recipient(id=delivery.user, mention=delivery.mention)
            reason = refuse_receiver(push.kind, recipient, state.receive_at(now_ms), state.preferences)
            reason = reason or refuse_read(push.kind, recipient, done=done)
            reason = reason or refuse_hour(push.kind, recipient, state.preferences, zone, now_ms)
            if reason:
                return reason
        if device is None:
            return "no_device"
        reason = refuse_device(device, now_ms, forced=delivery.forced)
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

    # ---- recalls

    def _recall_question(self, entry: Entry) -> tuple[str | bytes, ...]:
        """Of a message whether it was taken back, of a recall whether its message is still what is shown."""
        push = entry.parcel.push
        if push.recall:
            return self._memory.shown(push.app, push.message_id, push.replace_key, self._places(entry))
        return self._memory.marked(push.app, push.message_id)

    async def _recall(self, entries: Sequence[Entry], replies: Sequence[Any], found: Rechecked) -> None:
        """Stop what was taken back, unless it tells of others too, and recalls that would overwrite something else."""
        refused = found.refused
        blank: set[_Screen] = set()
        for entry, reply in zip(entries, replies, strict=True):
            if isinstance(reply, ReplyError):
                raise reply
            if entry.parcel.push.recall:
                continue
            if reply is not None:
                self._take_back(entry, found)
            blank |= self._never_shown(entry, refused)
        for entry, reply in zip(entries, replies, strict=True):
            push = entry.parcel.push
            if push.recall:
                shows = self._memory.shows(push.message_id, reply)
                for delivery, place, shown in zip(entry.parcel.deliveries, self._places(entry), shows, strict=True):
                    if not shown or (push.app, push.message_id, push.replace_key, place) in blank:
                        refused.setdefault(delivery.id, "not_shown")
        if blank:
            await self._forget(blank)

    def _take_back(self, entry: Entry, found: Rechecked) -> None:
        for one in entry.parcel.deliveries:
            if one.id in found.without and one.id not in found.refused:
                found.rendered[one.id] = found.without[one.id]
            else:
                found.refused[one.id] = "recalled"

    def _never_shown(self, entry: Entry, refused: dict[bytes, str]) -> set[_Screen]:
        """The screens that the refused deliveries of *entry* would have reached, and surely did not."""
        push = entry.parcel.push
        return {
            (push.app, push.message_id, push.replace_key, self._place(one))
            for one in entry.parcel.deliveries
            if one.id in refused and not (one.unknown or entry.lost)
        }

    async def _forget(self, screens: set[_Screen]) -> None:
        """What did not get there needs not be taken back either."""
        places: dict[tuple[str, str, str], list[bytes]] = {}
        for *message, place in screens:
            app, message_id, replace_key = message
            places.setdefault((app, message_id, replace_key), []).append(place)
        for answer in await self._state.run_many(
            [self._memory.forget_call(*message, some) for message, some in places.items()]
        ):
            if isinstance(answer, ReplyError):
                raise answer

    def _places(self, entry: Entry) -> list[bytes]:
        return [self._place(one) for one in entry.parcel.deliveries]

    def _place(self, delivery: Delivery) -> bytes:
        return self._memory.place_of(delivery, self._vendor, self._credential)


def _say_no_end_of_what_never_rang(entries: Sequence[Entry], found: Rechecked) -> None:
    """A call that is stopped here, before anybody tried to send it, needs no push that ends it.

    Its own end is the one that names it, else the first one after it: another one ends another call of the
    conversation, which may well ring.
    """
    silent: list[tuple[_Ringing, Push]] = []
    ends: dict[_Ringing, list[tuple[Push, bytes]]] = {}
    for entry in entries:
        push = entry.parcel.push
        for one in entry.parcel.deliveries:
            ringing = push.app, one.user, one.device
            if push.kind == "call_cancel":
                ends.setdefault(ringing, []).append((push, one.id))
            elif found.refused.get(one.id) == "call_over" and not (one.tries or one.unknown or entry.lost):
                silent.append((ringing, push))
    for ringing, call in silent:
        own = [one for one in ends.get(ringing, ()) if _ends(one[0], call)]
        if own:
            _, identity = min(own, key=lambda one: (one[0].replace_key != call.replace_key, one[0].sent_at_ms))
            found.refused.setdefault(identity, "call_over")


def _ends(end: Push, call: Push) -> bool:
    name = end.replace_key or end.conversation_id
    if not name or name not in (call.replace_key, call.conversation_id):
        return False
    # As the token state compares them: an end that says no time itself has that of its entry.
    if end.sent_at_ms == end.enqueued_at_ms:
        return call.enqueued_at_ms <= end.enqueued_at_ms
    return call.sent_at_ms <= end.sent_at_ms
