"""What a device got of its vendor's day, and what is gathered for it meanwhile: one small record, changed by scripts.

Important pushes leave as long as anything is left. Of the others the first few leave as they come; then they are told
by one push at a time, which says how many there are, and these are spread over what is left of the day.
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Iterable
from hashlib import blake2b
from typing import Any, NamedTuple

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from pushfleet.message import Kind, Lane
from pushfleet_workers.peace.caps import AccountCaps, DayCap, Sort, sort_of
from pushfleet_workers.peace.storms import Telling
from pushfleet_workers.push import Delivery, Push
from pushfleet_workers.recall.keys import message_digest
from pushfleet_workers.redis_link import Link
from pushfleet_workers.redis_replies import is_damaged
from pushfleet_workers.scripts import Script, load
from pushfleet_workers.tokens.keys import UserKeys

__all__ = [
    "PLACES_MAX",
    "Answer",
    "Asked",
    "Chat",
    "Counted",
    "DeviceDay",
    "DeviceDays",
    "Gather",
    "Verdict",
    "Written",
    "asked_of",
    "day_call",
    "day_command",
    "day_drop_call",
    "day_pass_on_call",
    "day_place",
    "day_return_call",
    "gather_of",
    "read_answer",
    "read_day",
]

PLACES_MAX = 200
"""Most devices of a user, by account and class, whose days are counted; what goes to others is not."""

_SENDER_CHARS_MAX = 64
_DAY = load("pushfleet_workers.peace", "device_day")
_RETURN = load("pushfleet_workers.peace", "device_day_return")
_DROP = load("pushfleet_workers.peace", "device_day_drop")

Call = tuple[Script, tuple[str, ...], tuple[str | bytes | int, ...]]


class Verdict(enum.IntEnum):
    """What becomes of a push."""

    LEAVES = 0
    CARRIES = 1
    """It waits, and tells of others then."""

    GATHERED = 2
    """Another push tells of it."""

    FULL = 3
    """Nothing is left for it today."""

    WAITS = 4
    """It may not leave yet, and was not asked to join others."""


class Answer(NamedTuple):
    """What `device_day.lua` says."""

    verdict: Verdict
    till_ms: int
    """When a push that waits is due, or the day ends, by the clock of the token state."""

    now_ms: int
    day: int


class Chat(Struct, array_like=True, frozen=True):
    """What came of one conversation."""

    conversation: str = ""
    count: int = 0
    sender: str = ""
    """Who wrote the latest."""

    sent_at_ms: int = 0
    """When that was."""

    times: tuple[int, ...] = ()
    """When the last few were written, Unix milliseconds."""

    messages: tuple[str, ...] = ()
    """Digests of those, in the same order."""

    def left(self, read_up_to_ms: int, taken_back: Collection[str] = (), carrier: str = "") -> Chat:
        """What is left of it for a user who has read so far, without the messages that were *taken_back* (digests).

        *carrier* is the message that tells of it, where it is of this conversation: as :meth:`Telling.left`.
        """
        telling = Telling(
            carrier, self.count, self.sender, self.sent_at_ms, times=self.times, messages=self.messages
        ).left(read_up_to_ms, taken_back)
        return replace(self, count=telling.count, sender=telling.sender, times=telling.times, messages=telling.messages)


class Gather(Struct, array_like=True, frozen=True):
    """A push that tells of several messages."""

    message: str = ""
    """Digest of the message that carries it; empty: there is none."""

    until_ms: int = 0
    expires_at_ms: int = 0
    """Until when one of them makes sense."""

    unread: int = -1
    """The latest unread number that the backend gave; -1: none."""

    mark: int = 0
    more: int = 0
    """How many messages of conversations beyond those that are told apart."""

    chats: tuple[Chat, ...] = ()


class DeviceDay(Struct, array_like=True, frozen=True):
    """A device's day with one account and class, as `device_day.lua` keeps it."""

    day: int
    ordinary: int
    important: int
    next_ms: int
    waiting: Gather
    before: Gather


class Written(NamedTuple):
    """A message, composed or not, as far as caps are concerned."""

    app: str
    kind: Kind
    lane: Lane
    message: str
    conversation: str
    sender: str
    sent_at_ms: int
    expires_at_ms: int
    recall: bool = False
    tells: int = 1
    """Of how many messages it tells."""


class Asked(NamedTuple):
    """A push to a device that has a cap, as far as the cap is concerned."""

    app: str
    user: str
    place: str
    cap: DayCap
    sort: Sort
    message: str
    conversation: str
    sender: str
    sent_at_ms: int
    expires_at_ms: int
    unread: int = -1
    tells: int = 1


class Counted(NamedTuple):
    """A push that was counted before it left."""

    asked: Asked
    day: int


_decode = msgspec.msgpack.Decoder(DeviceDay).decode


def day_place(delivery: Delivery, vendor: str, credential: str, cap: DayCap) -> str:
    """Where *delivery* is counted, in sixteen hexadecimal digits."""
    names = f"{delivery.device}\0{vendor}\0{credential}\0{cap.name}"
    return blake2b(names.encode(errors="surrogatepass"), digest_size=8).hexdigest()


def asked_of(written: Written, delivery: Delivery, here: tuple[str, str], cap: DayCap, *, unread: int) -> Asked:
    """What to ask about a *delivery* of the account *here*; *unread* is what the backend gave, -1: nothing."""
    mention, forced = delivery.mention, delivery.forced
    return Asked(
        written.app,
        delivery.user,
        day_place(delivery, *here, cap),
        cap,
        sort_of(written.kind, written.lane, mention=mention, forced=forced, recall=written.recall),
        written.message,
        written.conversation,
        written.sender,
        written.sent_at_ms,
        written.expires_at_ms,
        unread,
        written.tells,
    )


def day_call(prefix: str, asked: Asked, *, leaving: bool, joins: bool, again: bool) -> Call:
    """The script call that decides on a push; :class:`Answer` takes its reply.

    * **leaving** - it goes now unless the answer says otherwise, and counts then; else it is only being routed.
    * **joins** - it may be told of by others, or tell of them, where it must wait.
    * **again** - it may have been asked about before, or have left before without an answer.
    """
    cap = asked.cap
    args: tuple[str | bytes | int, ...] = (
        asked.place,
        int(leaving),
        int(joins),
        asked.sort.value,
        cap.most,
        cap.reserved,
        cap.begins_ms,
        message_digest(asked.app, asked.message),
        asked.conversation.encode(errors="replace"),
        asked.sender[:_SENDER_CHARS_MAX].encode(errors="replace"),
        asked.sent_at_ms,
        asked.expires_at_ms,
        asked.unread,
        asked.tells,
        int(again),
        PLACES_MAX,
    )
    return _DAY, (UserKeys(prefix, asked.app, asked.user).days,), args


def read_answer(reply: Any) -> Answer | None:
    """What the reply to :func:`day_call` says; None where the user's key is not what it should be.

    Raises another :class:`ReplyError` that it is.
    """
    if is_damaged(reply):
        return None
    verdict, till_ms, now_ms, day = reply
    return Answer(Verdict(verdict), till_ms, now_ms, day)


def day_return_call(prefix: str, asked: Asked, day: int, *, full: bool = False) -> Call:
    """The script call after which a push that was counted on *day* is not; *full*: the device gets no more that day."""
    message = message_digest(asked.app, asked.message)
    args = asked.place, day, asked.sort.value, message, asked.cap.most if full else 0
    return _RETURN, (UserKeys(prefix, asked.app, asked.user).days,), args


def day_drop_call(prefix: str, app: str, user: str, message: str, places: Iterable[str]) -> Call:
    """The script call after which nothing waits for a push of *message* to the user, except at *places*."""
    return _DROP, (UserKeys(prefix, app, user).days,), (message_digest(app, message), 0, *places)


def day_pass_on_call(prefix: str, app: str, user: str, message: str, places: Iterable[str]) -> Call:
    """The script call after which the next push that waits at *places* tells what that of *message* would have told."""
    return _DROP, (UserKeys(prefix, app, user).days,), (message_digest(app, message), 1, *places)


def day_command(prefix: str, app: str, user: str, place: str) -> tuple[str, ...]:
    """The command whose reply :func:`read_day` takes."""
    return "HGET", UserKeys(prefix, app, user).days, place


def read_day(reply: Any) -> DeviceDay | None:
    """The day in *reply*; None where nothing is known, or it cannot be read."""
    try:
        return _decode(reply) if reply is not None and not is_damaged(reply) else None
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def gather_of(day: DeviceDay | None, digest: str) -> Gather | None:
    """What the push of the message with that digest tells of; None: nobody knows, of itself at least."""
    return next((one for one in (day.waiting, day.before) if one.message == digest), None) if day is not None else None


class DeviceDays:
    """The days of an account's devices, in the token state; false where the account has no caps.

    * **clocks_apart_ms** - how far its clock may be behind the ledger's, by which what waited goes.
    """

    def __init__(
        self, state: Link, prefix: str, vendor: str, credential: str, caps: AccountCaps, clocks_apart_ms: int = 0
    ) -> None:
        self._state = state
        self._prefix = prefix
        self._here = vendor, credential
        self._caps = caps
        self._clocks_apart_ms = clocks_apart_ms

    def __bool__(self) -> bool:
        return bool(self._caps)

    def cap_of(self, push: Push) -> DayCap | None:
        """The cap that *push* counts in."""
        return self._caps.of(push.kind, group=push.group, options=push.options)

    def place(self, delivery: Delivery, cap: DayCap) -> str:
        """Where *delivery* is counted."""
        return day_place(delivery, *self._here, cap)

    def asked(self, push: Push, delivery: Delivery, cap: DayCap) -> Asked:
        """What to ask about *delivery*."""
        written = Written(
            push.app,
            push.kind,
            push.lane,
            push.message_id,
            push.conversation_id,
            push.sender_name,
            push.sent_at_ms,
            push.expires_at_ms,
            push.recall,
            push.tells,
        )
        return asked_of(written, delivery, self._here, cap, unread=-1 if delivery.counted else delivery.badge)

    async def ask(self, asked: Iterable[tuple[Asked, bool]], *, joins: bool) -> list[Answer | None]:
        """What is said of each of the *asked*, which come with whether they may have left before; None: it is unknown.

        Raises :class:`RedisUnusable` and :class:`ReplyError`.
        """
        calls = [day_call(self._prefix, one, leaving=True, joins=joins, again=again) for one, again in asked]
        return [read_answer(reply) for reply in await self._state.run_many(calls)]

    async def foretell(self, asked: Iterable[Asked]) -> list[Answer | None]:
        """What was said of each of the *asked* before: CARRIES where it was to wait, and others counted on it.

        Any other answer says nothing; nothing is counted. Raises as :meth:`ask` does.
        """
        calls = [day_call(self._prefix, one, leaving=False, joins=False, again=True) for one in asked]
        return [read_answer(reply) for reply in await self._state.run_many(calls)]

    async def give_back(self, counted: Iterable[tuple[Counted, bool]]) -> None:
        """Take *counted* out of the count; each comes with whether its device is full for today, as the vendor says."""
        calls = [day_return_call(self._prefix, one.asked, one.day, full=full) for one, full in counted]
        await self._state.run_many(calls)

    def wait_ms(self, answer: Answer) -> int:
        """How long what has to wait does."""
        return max(0, answer.till_ms - answer.now_ms) + self._clocks_apart_ms
