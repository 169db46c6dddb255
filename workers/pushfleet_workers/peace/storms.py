"""Many messages of one conversation in a short time: what a user's devices are told of them, and when.

The first is pushed at once. What follows within the wait is told by one push at its end, which says how many there are;
then the next wait begins, a longer one. Which of this a message meets is one script, per conversation and place: a
device with the account and kind of token that it is reached by. A push tells nothing to another place.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from hashlib import blake2b
from typing import Any

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from pushfleet.message import OfflineMessage, Recipient
from pushfleet_workers.catalogue import STANDARD, Catalogue
from pushfleet_workers.compose import compose_storm
from pushfleet_workers.push import Delivery, Push
from pushfleet_workers.recall.keys import message_digest
from pushfleet_workers.redis_replies import is_damaged
from pushfleet_workers.scripts import Script, load
from pushfleet_workers.settings import AppSettings
from pushfleet_workers.tokens.keys import UserKeys

__all__ = [
    "ABSORBED",
    "AT_ONCE",
    "CARRIES",
    "STORMS_MAX",
    "Storm",
    "StormCall",
    "Telling",
    "is_stormy",
    "is_stormy_push",
    "newer_than",
    "read_storm",
    "storm_call",
    "storm_call_of_push",
    "storm_command",
    "storm_drop_call",
    "storm_pass_on_call",
    "storm_place",
    "told",
    "told_by",
]

STORMS_MAX = 200
"""Most conversations of a user's devices that may storm at once; the messages of others are pushed as they come."""

AT_ONCE, CARRIES, ABSORBED = 0, 1, 2
"""How an answer of `storm.lua` begins."""

_KINDS = frozenset({"chat", "summary"})
_STORM = load("pushfleet_workers.peace", "storm")
_DROP = load("pushfleet_workers.peace", "storm_drop")
_PASS_ON = load("pushfleet_workers.peace", "storm_pass_on")

StormCall = tuple[Script, tuple[str, ...], tuple[str | bytes | int, ...]]


class Telling(Struct, array_like=True, frozen=True):
    """A push that tells of several messages."""

    message: str = ""
    """Digest of the message that carries it; empty: none does."""

    count: int = 0
    sender: str = ""
    """Who wrote the latest; empty: nobody, or nobody who stands by it."""

    sent_at_ms: int = 0
    """When the latest was written."""

    unread: int = -1
    """The latest unread number that the backend gave; -1: none."""

    expires_at_ms: int = 0
    """Until when one of them makes sense."""

    times: tuple[int, ...] = ()
    """When the carrier and the last few others were written, Unix milliseconds."""

    messages: tuple[str, ...] = ()
    """Digests of those, in the same order."""

    def left(self, read_up_to_ms: int, taken_back: Collection[str] = ()) -> Telling:
        """What is left of it for a user who has read so far, without the messages that were *taken_back* (digests).

        Those that are not known one by one came before those that are, all but the carrier: they are read once any of
        these is.
        """
        known = list(zip(self.times, self.messages, strict=False))
        unread = [one for one in known if one[0] > read_up_to_ms]
        left = [one for one in unread if one[1] not in taken_back]
        if len(left) == len(known):
            return self
        any_read = any(at_ms <= read_up_to_ms and digest != self.message for at_ms, digest in known)
        unknown = 0 if any_read else self.count - len(known)
        times = tuple(at_ms for at_ms, _ in left)
        latest_is_gone = self.sent_at_ms not in times and any(at_ms == self.sent_at_ms for at_ms, _ in unread)
        return replace(
            self,
            count=unknown + len(left),
            sender="" if latest_is_gone else self.sender,
            times=times,
            messages=tuple(digest for _, digest in left),
        )

    def tells_only(self, digest: str) -> bool:
        """Whether it tells of that message and no other."""
        return self.count == 1 and self.messages == (digest,)


class Storm(Struct, array_like=True, frozen=True):
    """What came of one conversation for one place, as `storm.lua` keeps it."""

    pushes: int
    until_ms: int
    last_ms: int
    sent_at_ms: int
    shown: str
    waiting: Telling
    """Of the push that is due at ``until_ms``."""

    before: Telling
    """Of the push before it."""


_decode = msgspec.msgpack.Decoder(Storm).decode


def is_stormy(app: AppSettings, message: OfflineMessage, recipient: Recipient) -> bool:
    """Whether a push of *message* may wait for others; mentions, calls, whatever is urgent or forced may not."""
    return (
        bool(app.storm_waits_s)
        and message.kind in _KINDS
        and message.conversation is not None
        and message.effective_lane != "urgent"
        and not recipient.mention
        and recipient.push != "force"
    )


def is_stormy_push(app: AppSettings, push: Push, delivery: Delivery) -> bool:
    """The same of what has been composed; what another account handed on, or carries others already, waits no more."""
    return (
        bool(app.storm_waits_s)
        and push.kind in _KINDS
        and bool(push.conversation_id)
        and push.lane != "urgent"
        and not push.tells_of_others
        and not (delivery.mention or delivery.forced or delivery.tried)
    )


def storm_place(delivery: Delivery, vendor: str, credential: str) -> str:
    """Where *delivery* gets to over an account, in sixteen hexadecimal digits."""
    names = f"{delivery.device}\0{vendor}\0{credential}\0{delivery.token_kind}"
    return blake2b(names.encode(errors="surrogatepass"), digest_size=8).hexdigest()


def storm_call(
    prefix: str,
    app: AppSettings,
    message: OfflineMessage,
    recipient: Recipient,
    place: str,
    *,
    sent_at_ms: int,
    expires_at_ms: int,
    again: bool,
) -> StormCall:
    """The script call that decides on *message* for a place; its answer: `storm.lua` says.

    * **again** - it may have been asked before, by a router that died or in a batch that broke.
    """
    assert message.conversation is not None
    return _call(
        prefix,
        app,
        (message.app, recipient.id, message.conversation.id, place),
        message.id,
        message.sender.name if message.sender is not None else "",
        sent_at_ms=sent_at_ms,
        expires_at_ms=expires_at_ms,
        unread=-1 if recipient.unread is None else recipient.unread,
        again=again,
    )


def storm_call_of_push(
    prefix: str, app: AppSettings, push: Push, delivery: Delivery, place: str, *, again: bool
) -> StormCall:
    """The same for what has been composed."""
    return _call(
        prefix,
        app,
        (push.app, delivery.user, push.conversation_id, place),
        push.message_id,
        push.sender_name,
        sent_at_ms=push.sent_at_ms,
        expires_at_ms=push.expires_at_ms,
        unread=-1 if delivery.counted else delivery.badge,
        again=again,
    )


def _call(
    prefix: str,
    app: AppSettings,
    where: tuple[str, str, str, str],
    message_id: str,
    sender: str,
    *,
    sent_at_ms: int,
    expires_at_ms: int,
    unread: int,
    again: bool,
) -> StormCall:
    name, user, conversation, place = where
    args: tuple[str | bytes | int, ...] = (
        _field(conversation, place),
        message_digest(name, message_id),
        sender[:64].encode(errors="replace"),
        sent_at_ms,
        expires_at_ms,
        unread,
        int(again),
        int(app.storm_quiet_s * 1000),
        STORMS_MAX,
        *(int(wait_s * 1000) for wait_s in app.storm_waits_s),
    )
    return _STORM, (UserKeys(prefix, name, user).storms,), args


def storm_drop_call(prefix: str, message: OfflineMessage, user: str, places: Iterable[str]) -> StormCall:
    """The script call after which no storm waits for a push of *message* to the user, except at *places*."""
    assert message.conversation is not None
    args = (message.conversation.id, message_digest(message.app, message.id), *places)
    return _DROP, (UserKeys(prefix, message.app, user).storms,), args


def storm_pass_on_call(prefix: str, message: OfflineMessage, user: str, places: Iterable[str]) -> StormCall:
    """The script call after which the next message at each of *places* tells what the push of *message* would have."""
    assert message.conversation is not None
    fields = (_field(message.conversation.id, place) for place in places)
    return _PASS_ON, (UserKeys(prefix, message.app, user).storms,), (message_digest(message.app, message.id), *fields)


def storm_command(prefix: str, app: str, user: str, conversation: str, place: str) -> tuple[str, ...]:
    """The command whose reply :func:`read_storm` takes."""
    return "HGET", UserKeys(prefix, app, user).storms, _field(conversation, place)


def read_storm(reply: Any) -> Storm | None:
    """The storm in *reply*; None where it is over, read away, or cannot be read."""
    try:
        return _decode(reply) if reply is not None and not is_damaged(reply) else None
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def told_by(storm: Storm | None, push: Push) -> Telling | None:
    """What the carrier *push* tells of; None: two newer ones wait or went since, and this one is not needed.

    Where nothing is known any more it tells of itself.
    """
    digest = message_digest(push.app, push.message_id)
    if storm is None:
        return Telling(digest, 1, push.sender_name, push.sent_at_ms, times=(push.sent_at_ms,), messages=(digest,))
    return next((one for one in (storm.waiting, storm.before) if one.message == digest), None)


def newer_than(storm: Storm | None, push: Push, now_ms: int) -> Telling | None:
    """What a newer carrier tells of that is due at *now_ms* as well: while it has anything to tell, one is enough."""
    if storm is None or not storm.waiting.message or storm.waiting.message == message_digest(push.app, push.message_id):
        return None
    return storm.waiting if storm.until_ms <= now_ms < storm.waiting.expires_at_ms else None


def told(push: Push, telling: Telling, locale: str, default: str, catalogue: Catalogue = STANDARD) -> Push:
    """*push* with a text that says how many messages there are, in the language of *locale*.

    One that tells of itself alone speaks for itself.
    """
    if telling.tells_only(message_digest(push.app, push.message_id)) and not push.is_count:
        return push
    text = compose_storm(
        catalogue.language_of(locale, default),
        push.title,
        telling.sender,
        telling.count,
        group=push.group,
        hidden=push.hidden,
        catalogue=catalogue,
    )
    # The latest of them says how old the push is, and the one that holds longest until when it makes sense.
    sent_at_ms, expires_at_ms = max(push.sent_at_ms, telling.sent_at_ms), max(push.expires_at_ms, telling.expires_at_ms)
    return replace(
        push, body=text, sent_at_ms=sent_at_ms, expires_at_ms=expires_at_ms, is_count=True, tells=telling.count
    )


def _field(conversation: str, place: str) -> str:
    """What a storm is kept under; `read.lua` finds all of a conversation by it."""
    return f"{conversation}:{place}"
