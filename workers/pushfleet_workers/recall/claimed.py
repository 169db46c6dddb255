"""The worker's side of recalls: what of claimed work was taken back, and what devices show once it is sent."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any

from pushfleet_workers.clock import FleetClock
from pushfleet_workers.ledger import Entry
from pushfleet_workers.push import Delivery, Push
from pushfleet_workers.recall.memory import Call, Message, RecallMemory, is_visible
from pushfleet_workers.recall.screens import At, Screens
from pushfleet_workers.redis_link import Link
from pushfleet_workers.redis_replies import good, is_damaged

__all__ = ["ClaimedRecalls"]


class ClaimedRecalls:
    """Asks and tells what is remembered for recalls, for entries that one account's worker has claimed.

    * **state**, **queue** - the Redis of the token state, and of the ingress.
    * **window_s** - how long messages of the account's app can be taken back; 0: not at all, then only of recalls
      themselves anything is asked.
    """

    def __init__(
        self, state: Link, queue: Link, prefix: str, clock: FleetClock, vendor: str, credential: str, window_s: int
    ) -> None:
        self._state = state
        self._screens = Screens(state, queue, prefix)
        self._memory = RecallMemory(prefix)
        self._clock = clock
        self._vendor = vendor
        self._credential = credential
        self._window_s = window_s

    def concerned(self, entries: Sequence[Entry]) -> list[Entry]:
        """Those of *entries* that :meth:`question` is to be asked about."""
        return [entry for entry in entries if self._window_s or entry.parcel.push.recall]

    def question(self, entry: Entry) -> tuple[str | bytes, ...]:
        """The command that asks of a message whether it was taken back, of a recall whether its message is shown."""
        push = entry.parcel.push
        if push.recall:
            return self._memory.shown(_message(push), self._places(entry))
        return self._memory.marked(push.app, push.message_id)

    @staticmethod
    def taken_back(entries: Sequence[Entry], replies: Sequence[Any]) -> list[Entry]:
        """Those of *entries* whose message was taken back, by the *replies* to their :meth:`question`."""
        found = zip(entries, replies, strict=True)
        return [entry for entry, reply in found if not entry.parcel.push.recall and _is_marked(reply)]

    async def taken_back_of(self, digests: Iterable[str]) -> set[str]:
        """Which of the messages with those digests were taken back."""
        asked = list(dict.fromkeys(digests)) if self._window_s else []
        replies = await self._state.pipeline([self._memory.marked_digest(one) for one in asked]) if asked else []
        return {digest for digest, reply in zip(asked, replies, strict=True) if _is_marked(reply)}

    async def look_at_screens(
        self, entries: Sequence[Entry], replies: Sequence[Any], refused: dict[bytes, str], waiting: Collection[bytes]
    ) -> None:
        """Refuse recalls of what is not shown; forget that devices show what is *refused* itself, or *waiting* on.

        *entries* are :meth:`concerned`, *replies* those to their :meth:`question`, *waiting* ids of deliveries.
        """
        gone = {*refused, *waiting}
        stopped = [at for entry in entries if not entry.parcel.push.recall for at in self._stopped(entry, gone)]
        blank: dict[tuple[str, bytes], set[bytes]] = {}
        for at in stopped:
            if not at.lost:
                digest = self._memory.digest_in(self._memory.layer(at.message))
                blank.setdefault((self._memory.screen(at.message), at.place), set()).add(digest)
        recalled: list[At] = []
        not_recalled: list[At] = []
        for entry, reply in zip(entries, replies, strict=True):
            push = entry.parcel.push
            if not push.recall:
                continue
            message = _message(push)
            itself, says_so = self._memory.layer(message), self._memory.recalled_layer(message)
            screen = self._memory.screen(message)
            found = reply if not is_damaged(reply) else [None] * len(entry.parcel.deliveries)
            for delivery, place, shown in zip(entry.parcel.deliveries, self._places(entry), found, strict=True):
                nothing = blank.get((screen, place), set())
                layers = [one for one in self._memory.layers(shown) if self._memory.digest_in(one) not in nothing]
                if layers[:1] not in ([itself], [says_so]):
                    refused.setdefault(delivery.id, "not_shown")
                stays = delivery.id in refused or delivery.id in waiting
                if itself in layers and not stays:
                    recalled.append(At(message, place, delivery.user))
                if says_so in layers and stays and _was_let_go(entry, delivery):
                    not_recalled.append(At(message, place, delivery.user))
        await self._screens.change(forget=stopped, recalled=recalled, not_recalled=not_recalled)

    async def forget_dropped(self, dropped: Sequence[tuple[Entry, Sequence[Delivery]]]) -> None:
        """Forget that devices show what was dropped, of each entry these deliveries.

        A recall that was dropped is none of it: its message may be shown still. An answer that says it failed is
        believed, a gateway's 502 too: what the vendor took in spite of it is not found by a recall.
        """
        if not self._window_s:
            return
        await self._screens.change(
            forget=[
                at
                for entry, deliveries in dropped
                if not entry.parcel.push.recall
                for at in self._stopped(entry, {one.id for one in deliveries})
            ]
        )

    async def show(
        self, entries: Sequence[Entry], refused: Collection[bytes], counting: Collection[bytes]
    ) -> list[Entry]:
        """Devices show from now on what waited and is sent; those of *entries* that are taken back by now.

        What waits shows nothing as long as it does, so routers leave this to whoever sends it. First it is written
        and then asked, so that of a recall and this one finds the other. *refused* are the ids of deliveries that are
        not sent, *counting* of those that only say how many messages there are, which no recall takes back.
        """
        waited = [entry for entry in entries if _waited(entry.parcel.push)] if self._window_s else []
        calls = [call for entry in waited for call in self._show_calls(entry, refused, counting)]
        if not calls:
            return []
        good(await self._state.run_many(calls))
        return self.taken_back(waited, await self._state.pipeline([self.question(entry) for entry in waited]))

    def _show_calls(self, entry: Entry, refused: Collection[bytes], counting: Collection[bytes]) -> Iterable[Call]:
        push = entry.parcel.push
        shown = [
            one
            for one in entry.parcel.deliveries
            # What came over another channel shows nothing that a recall would find.
            if one.id not in refused and not one.tried and is_visible(push.options, self._vendor, one)
        ]
        for nobodys in (False, True):
            places = [self._place(one) for one in shown if (one.id in counting) is nobodys]
            if places:
                yield self._memory.show_call(
                    _message(push), places, self._window_s, b"%d-0" % self._clock.now_ms(), again=False, nobodys=nobodys
                )

    def _stopped(self, entry: Entry, gone: Collection[bytes]) -> Iterable[At]:
        """The screens that the *gone* deliveries of *entry* would have reached."""
        if entry.parcel.push.parking == "parked":
            # It has reached none yet.
            return []
        return [
            At(_message(entry.parcel.push), self._place(one), one.user, entry.lost > 0)
            for one in entry.parcel.deliveries
            if one.id in gone and not one.unknown
        ]

    def _places(self, entry: Entry) -> list[bytes]:
        return [self._place(one) for one in entry.parcel.deliveries]

    def _place(self, delivery: Delivery) -> bytes:
        return self._memory.place_of(delivery, self._vendor, self._credential)


def _is_marked(reply: Any) -> bool:
    """Whether a message was taken back; where its key is not what it should be, it alone was not."""
    return reply is not None and not is_damaged(reply)


def _was_let_go(entry: Entry, delivery: Delivery) -> bool:
    """Whether it was to be sent before, and surely did not get there."""
    tried = entry.parcel.put_off is not None or delivery.attempt > 0
    return tried and not (delivery.unknown or entry.lost)


def _waited(push: Push) -> bool:
    """Whether it was put for later, or parked meanwhile: nobody has said yet that devices show it."""
    return bool(push.later or push.parking)


def _message(push: Push) -> Message:
    return push.app, push.message_id, push.replace_key
