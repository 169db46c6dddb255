"""What devices show after all: what never got there is forgotten, and what it hid from a recall is taken back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from pushfleet.message import Recall
from pushfleet.wire import RECALL_LANE, VERSION, encode, ingress_key, recalls
from pushfleet_workers.recall.keys import message_digest, unpacked
from pushfleet_workers.recall.memory import Message, RecallMemory
from pushfleet_workers.redis_link import Link
from pushfleet_workers.redis_replies import good, is_damaged

__all__ = ["At", "Screens"]


class At(NamedTuple):
    """One message on one device."""

    message: Message
    place: bytes
    user: str
    lost: bool = False
    """A process died with it: it may have got there, or have been forgotten already."""


class Screens:
    """Changes what is remembered of screens; every method raises :class:`RedisUnusable`.

    * **state** - the Redis of the token state.
    * **queue** - that of the ingress.
    """

    def __init__(self, state: Link, queue: Link, prefix: str) -> None:
        self._state = state
        self._queue = queue
        self._prefix = prefix
        self._memory = RecallMemory(prefix)

    async def change(
        self, *, forget: Iterable[At] = (), recalled: Iterable[At] = (), not_recalled: Iterable[At] = ()
    ) -> None:
        """Devices say from now on that the *recalled* were; or did not after all; what to *forget* never got there.

        A message that comes to the front by that, and was recalled while another one hid it, is recalled once more.
        """
        memory = self._memory
        some = [
            *((memory.recalled_call(group[0].message, _places(group)), group) for group in _by_message(recalled)),
            *(
                (memory.recalled_call(group[0].message, _places(group), undone=True), group)
                for group in _by_message(not_recalled)
            ),
            *(
                (memory.forget_call(group[0].message, _places(group), lost=group[0].lost), group)
                for group in _by_message(forget)
            ),
        ]
        if not some:
            return
        uncovered: dict[tuple[bytes, Message], list[str]] = {}
        for (_, group), fronts in zip(some, good(await self._state.run_many([call for call, _ in some])), strict=True):
            for one, front in zip(group, fronts, strict=True):
                digest = memory.uncovered(front)
                if digest is not None:
                    uncovered.setdefault((digest, one.message), []).append(one.user)
        if uncovered:
            await self._recall_again(uncovered)

    async def _recall_again(self, uncovered: Mapping[tuple[bytes, Message], Sequence[str]]) -> None:
        """As backends do it, so that a router decides; named after what hid it, which none of theirs is a repeat of."""
        digests = list(dict.fromkeys(unpacked(digest) for digest, _ in uncovered))
        replies = await self._state.pipeline([self._memory.marked_digest(digest) for digest in digests])
        marks = {digest: reply for digest, reply in zip(digests, replies, strict=True) if not is_damaged(reply)}
        commands = []
        for (digest, (app, hiding, replace_key)), users in uncovered.items():
            mark = marks.get(unpacked(digest))
            identity = mark.decode() if mark is not None else ""
            if message_digest(app, identity) != unpacked(digest):
                continue
            # Of a device that was addressed directly only the message knows: the router asks all that it went to.
            named = tuple(users) if all(users) else ()
            recall = Recall(id=identity, app=app, conversation=replace_key, recipients=named)
            name = message_digest(app, hiding)
            commands += [
                ("XADD", ingress_key(self._prefix, RECALL_LANE), "*", "v", VERSION, "r", encode(one), "n", name)
                for one in recalls(recall)
            ]
        good(await self._queue.pipeline(commands) if commands else ())


def _by_message(some: Iterable[At]) -> list[list[At]]:
    groups: dict[tuple[Message, bool], list[At]] = {}
    for one in some:
        groups.setdefault((one.message, one.lost), []).append(one)
    return list(groups.values())


def _places(group: Iterable[At]) -> list[bytes]:
    return [one.place for one in group]
