"""What a push tells of that waited for its device's cap: messages of some conversations, as far as they are news."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from msgspec.structs import replace

from pushfleet_workers.catalogue import STANDARD, Catalogue
from pushfleet_workers.compose import compose_chats, compose_storm
from pushfleet_workers.peace.device_day import Chat, DeviceDays, Gather, day_command, gather_of, read_day
from pushfleet_workers.push import Delivery, Push
from pushfleet_workers.recall.keys import message_digest
from pushfleet_workers.redis_link import Link
from pushfleet_workers.redis_replies import is_damaged
from pushfleet_workers.tokens.keys import UserKeys
from pushfleet_workers.tokens.lookup import UserState
from pushfleet_workers.tokens.reads import read_done

__all__ = ["Gathered", "Gathers", "News", "tell", "tells_only"]


@dataclass(frozen=True, slots=True)
class News:
    """Messages that a push tells of."""

    chats: tuple[Chat, ...]
    more: int
    """How many of them are of conversations beyond these."""

    expires_at_ms: int
    """Until when one of them makes sense."""

    @property
    def count(self) -> int:
        """How many they are."""
        return sum(chat.count for chat in self.chats) + self.more


@dataclass(frozen=True, slots=True)
class Gathered:
    """What was gathered for a push, and what is known of its conversations."""

    gather: Gather
    own: str
    """The push's own conversation."""

    read_up_to_ms: dict[str, int]
    """How far the others were read; those that are muted are not among them."""

    @property
    def messages(self) -> Iterator[str]:
        """Digests of the last few messages."""
        return (message for chat in self.gather.chats for message in chat.messages)

    def news(self, seen_up_to_ms: int, own_up_to_ms: int | None, taken_back: Collection[str]) -> News:
        """What is left of it without the messages that were *taken_back* (digests), for a user who has read so far.

        * **seen_up_to_ms** - in all conversations.
        * **own_up_to_ms** - in the push's own; None: they want nothing of it at all.
        """
        known = self.read_up_to_ms if own_up_to_ms is None else {**self.read_up_to_ms, self.own: own_up_to_ms}
        left = [
            chat.left(
                max(seen_up_to_ms, known[chat.conversation]),
                taken_back,
                self.gather.message if chat.conversation == self.own else "",
            )
            for chat in self.gather.chats
            if chat.conversation in known
        ]
        return News(tuple(one for one in left if one.count), self.gather.more, self.gather.expires_at_ms)


class Gathers:
    """Reads what was gathered for pushes of one account.

    * **days** - the days of its devices.
    * **reads** - whether it is known how far users have read.
    """

    def __init__(self, state: Link, prefix: str, days: DeviceDays, *, reads: bool) -> None:
        self._state = state
        self._prefix = prefix
        self._days = days
        self._reads = reads

    def command(self, push: Push, delivery: Delivery) -> tuple[str, ...] | None:
        """The command whose reply :meth:`read` takes; None where nothing is gathered."""
        cap = self._days.cap_of(push) if push.later == "cap" else None
        if cap is None:
            return None
        return day_command(self._prefix, push.app, delivery.user, self._days.place(delivery, cap))

    async def read(self, asked: Sequence[tuple[Push, Delivery, Any]], now_ms: int) -> dict[bytes, Gathered]:
        """What was gathered for each of the *asked*, by delivery id; one round trip for what has to be asked further.

        Raises :class:`RedisUnusable`.
        """
        found = [(push, delivery, _gather(push, reply)) for push, delivery, reply in asked]
        questions = [one for push, delivery, gather in found for one in self._questions(push, delivery, gather)]
        replies = iter(await self._state.pipeline(questions) if questions else ())
        gathered: dict[bytes, Gathered] = {}
        for push, delivery, gather in found:
            others, read_up_to_ms = _others(push, gather), {}
            if others:
                options = _values(next(replies), others)
                cursors = _values(next(replies), others) if self._reads else [None] * len(others)
                read_up_to_ms = {
                    name: read_done(cursor).sent_ms
                    for name, option, cursor in zip(others, options, cursors, strict=True)
                    if UserState(option=option).receive_at(now_ms) == "all"
                }
            gathered[delivery.id] = Gathered(gather, push.conversation_id, read_up_to_ms)
        return gathered

    def _questions(self, push: Push, delivery: Delivery, gather: Gather) -> list[tuple[str, ...]]:
        """What is said of the other conversations."""
        others = _others(push, gather)
        if not others:
            return []
        keys = UserKeys(self._prefix, push.app, delivery.user)
        options = ("HMGET", keys.options, *others)
        return [options, ("HMGET", keys.reads, *others)] if self._reads else [options]


def tell(push: Push, news: News, app_name: str, locale: str, default: str, catalogue: Catalogue = STANDARD) -> Push:
    """*push* with a text that says how many messages there are, in the language of *locale*.

    Of several conversations it tells under the name of the app; one that tells of itself alone speaks for itself.
    """
    language, count = catalogue.language_of(locale, default), news.count
    expires_at_ms = max(push.expires_at_ms, news.expires_at_ms)
    own = _only_own(push, news)
    if own is not None and _says_so(push, news, own):
        return replace(push, expires_at_ms=expires_at_ms)
    if own is not None:
        title, hidden = push.title, push.hidden
        body = compose_storm(language, title, own.sender, count, group=push.group, hidden=hidden, catalogue=catalogue)
    elif count == 1:
        title, body = app_name, compose_storm(language, "", "", 1, group=False, catalogue=catalogue)
    else:
        chats = len(news.chats) if not news.more and len(news.chats) > 1 else 0
        title, body = app_name, compose_chats(language, count, chats, catalogue=catalogue)
    sent_at_ms = max([push.sent_at_ms, *(one.sent_at_ms for one in news.chats)])
    return replace(
        push,
        title=title,
        body=body,
        sent_at_ms=sent_at_ms,
        expires_at_ms=expires_at_ms,
        is_count=True,
        tells=count,
    )


def tells_only(push: Push, news: News) -> bool:
    """Whether *news* are the message of *push* and no other."""
    own = _only_own(push, news)
    return own is not None and own.count == 1 and own.messages == (message_digest(push.app, push.message_id),)


def _only_own(push: Push, news: News) -> Chat | None:
    """What is told where it is all of the push's own conversation."""
    (chat,) = news.chats if len(news.chats) == 1 and not news.more else (None,)
    return chat if chat is not None and chat.conversation == push.conversation_id else None


def _says_so(push: Push, news: News, own: Chat) -> bool:
    """Whether the push tells just of *news* already: of its own message, or of those of a storm."""
    if push.is_count:
        return own.count == push.tells and own.sent_at_ms <= push.sent_at_ms
    return tells_only(push, news)


def _gather(push: Push, reply: Any) -> Gather:
    """What *push* tells of; of what is not known any more it tells itself alone."""
    digest = message_digest(push.app, push.message_id)
    gather = gather_of(read_day(reply), digest)
    if gather is not None:
        return gather
    sent_at_ms = push.sent_at_ms
    itself = Chat(push.conversation_id, push.tells, push.sender_name, sent_at_ms, (sent_at_ms,), (digest,))
    return Gather(digest, chats=(itself,))


def _others(push: Push, gather: Gather) -> list[str]:
    return [one.conversation for one in gather.chats if one.conversation != push.conversation_id]


def _values(reply: Any, names: Sequence[str]) -> list[bytes | None]:
    """What HMGET found for each of *names*; nothing where the key is not what it should be."""
    return list(reply) if not is_damaged(reply) else [None] * len(names)
