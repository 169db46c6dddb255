"""What devices show after all: what never got there is forgotten, and what it hid from a recall is taken back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b
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
        changes = [
            memory.recalled_call(group[0].message, _places(group), undone=undone)
            for undone, some in ((False, recalled), (True, not_recalled))
            for group in _by_message(some)
        ]
        stopped = _by_message(forget)
        calls = [
            *changes,
            *(memory.forget_call(group[0].message, _places(group), lost=group[0].lost) for group in stopped),
        ]
        if not calls:
            return
        # Whoever's key is not what it should be shows nothing that could come to the front.
        answers = [[] if is_damaged(answer) else answer for answer in await self._state.run_many(calls)]
        fronts = answers[len(changes) :]
        gone = {(self._on(one), memory.layer(one.message)) for group in stopped for one in group if not one.lost}
        uncovered: dict[tuple[str, str, bytes], list[At]] = {}
        for group, came in zip(stopped, fronts, strict=True):
            for one, front in zip(group, came, strict=False):
                digest = memory.uncovered(front)
                if digest is not None and (self._on(one), front) not in gone:
                    app, _, replace_key = one.message
                    uncovered.setdefault((app, replace_key, digest), []).append(one)
        if uncovered:
            await self._recall_again(uncovered)

    def _on(self, one: At) -> tuple[str, bytes]:
        return self._memory.screen(one.message), one.place

    async def _recall_again(self, uncovered: Mapping[tuple[str, str, bytes], Sequence[At]]) -> None:
        """As backends do it, so that a router decides; named after what hid it where, no other is a repeat of it."""
        digests = list(dict.fromkeys(unpacked(digest) for _, _, digest in uncovered))
        replies = await self._state.pipeline([self._memory.marked_digest(digest) for digest in digests])
        marks = {digest: reply for digest, reply in zip(digests, replies, strict=True) if not is_damaged(reply)}
        commands = []
        for (app, replace_key, digest), hidden in uncovered.items():
            mark = marks.get(unpacked(digest))
            identity = mark.decode() if mark is not None else ""
            if message_digest(app, identity) != unpacked(digest):
                continue
            # Of a device that was addressed directly only the message knows: the router asks all that it went to.
            users = tuple(one.user for one in hidden)
            named = users if all(users) else ()
            recall = Recall(id=identity, app=app, conversation=replace_key, recipients=named)
            name = _name_of(hidden)
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


def _name_of(hidden: Sequence[At]) -> str:
    names = sorted(one.place + message_digest(*one.message[:2]).encode() for one in hidden)
    return blake2b(b"".join(names), digest_size=12).hexdigest()
