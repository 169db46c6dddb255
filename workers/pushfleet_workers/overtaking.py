"""Retries that a newer push of their conversation has overtaken: sent now, they would put the older text on top.

Whoever lets a delivery wait for another attempt leaves word at its *place*: the device, and what the push replaces on
it; and so does whoever waits for long for an answer, since it may have to be tried again. Whoever sends something newer
to a place where word was left notes when that was written; the retry finds it when it is claimed again.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from itertools import chain

from pushfleet_workers.ledger.keys import AccountKeys
from pushfleet_workers.push import Delivery, Push
from pushfleet_workers.recall.memory import is_visible
from pushfleet_workers.redis_link import Link, ReplyError
from pushfleet_workers.redis_replies import good
from pushfleet_workers.scripts import Script, load
from pushfleet_workers.vendor import Vendor

__all__ = ["Overtaking"]

log = logging.getLogger(__name__)

_LEAVE_WORD = load("pushfleet_workers", "overtaking_wait")
_OVERTAKE = load("pushfleet_workers", "overtaking_sent")
_BEYOND_THE_WAIT_MS = 600_000
"""A retry may be claimed long after it is due. If it is later still its account stands still, and newer pushes too."""

_UNANSWERED_MS = 5_000
"""How long word stands of what is under way: it is left again as long as no answer comes."""

_AT_ONCE = 1_000


class Overtaking:
    """One account's retries, and what overtakes them; what awaits raises :class:`RedisUnusable`."""

    def __init__(self, link: Link, keys: AccountKeys, vendor: Vendor) -> None:
        self._link = link
        self._keys = keys
        self._vendor = vendor.name
        self._replaces = vendor.replaces
        self._others_wait = False
        self._we_wait_until = 0.0
        self._waiting: dict[str, int] = {}
        """Places where word is to be left, and for how many milliseconds."""

        self._sent: dict[str, int] = {}
        """Places, and when the newest that was sent there was written."""

    def heard(self, *, retries_wait: bool) -> None:
        """Take what a claim said: whether retries wait anywhere in the fleet."""
        self._others_wait = retries_wait

    @property
    def possible(self) -> bool:
        """Whether what is sent may overtake anything; mostly it may not, and nothing needs to be noted."""
        return self._others_wait or self._we_wait_until > time.monotonic()

    def retry_waits(self, push: Push, deliveries: Sequence[Delivery], wait_ms: int) -> None:
        """*deliveries* were tried, and are tried again after *wait_ms*."""
        self._leave_word(push, deliveries, wait_ms + _BEYOND_THE_WAIT_MS)

    def unanswered(self, push: Push, deliveries: Sequence[Delivery]) -> None:
        """*deliveries* have been under way for long; to be said again as long as they are."""
        self._leave_word(push, deliveries, _UNANSWERED_MS)

    def _leave_word(self, push: Push, deliveries: Sequence[Delivery], life_ms: int) -> None:
        places = self._places(push, self._shown(push, deliveries)) if self._may_be_overtaken(push) else []
        if not places:
            return
        self._we_wait_until = max(self._we_wait_until, time.monotonic() + life_ms / 1000)
        _keep_most(self._waiting, dict.fromkeys(places, life_ms))

    def sent(self, push: Push, deliveries: Sequence[Delivery]) -> None:
        """*deliveries* were taken by the vendor."""
        if not self._concerns(push):
            return
        places = self._places(push, self._shown(push, deliveries))
        _keep_most(self._sent, dict.fromkeys(places, push.sent_at_ms))

    async def write(self) -> None:
        """Write down what was noted, retries first: what was sent in the same moment may have overtaken them."""
        waiting, self._waiting = self._waiting, {}
        sent, self._sent = self._sent, {}
        try:
            for some in _bites(waiting):
                keys = [self._keys.retrying, *(place for place, _ in some)]
                await self._run(_LEAVE_WORD, keys, [life_ms for _, life_ms in some])
            for some in _bites(sent):
                await self._run(_OVERTAKE, [place for place, _ in some], [at_ms for _, at_ms in some])
        except BaseException:
            _keep_most(self._waiting, waiting)
            _keep_most(self._sent, sent)
            raise

    async def overtaken(self, chunks: Sequence[tuple[Push, Sequence[Delivery]]]) -> set[bytes]:
        """The ids of deliveries in *chunks* that were tried before, and that something newer has overtaken since."""
        asked = [
            (one.id, push.sent_at_ms, place)
            for push, deliveries in chunks
            if self._may_be_overtaken(push)
            for tried in (self._shown(push, [one for one in deliveries if one.tries]),)
            for one, place in zip(tried, self._places(push, tried), strict=True)
        ]
        if not asked:
            return set()
        some = [asked[first : first + _AT_ONCE] for first in range(0, len(asked), _AT_ONCE)]
        replies = good(await self._link.pipeline([("MGET", *(place for *_, place in one)) for one in some]))
        return {
            identity
            for (identity, sent_at_ms, _), at in zip(asked, chain.from_iterable(replies), strict=True)
            if at is not None and int(at) > sent_at_ms
        }

    def _concerns(self, push: Push) -> bool:
        # What tells of others says how many there are by now, whenever it comes.
        return self._replaces and push.replace_key != "" and not push.tells_of_others

    def _may_be_overtaken(self, push: Push) -> bool:
        # A call rings until it is over, whatever is written meanwhile.
        return self._concerns(push) and push.kind != "call"

    def _shown(self, push: Push, deliveries: Sequence[Delivery]) -> list[Delivery]:
        """Those that become a notification: a call by VoIP rings, and no text takes its place."""
        return [one for one in deliveries if is_visible(push.options, self._vendor, one)]

    def _places(self, push: Push, deliveries: Sequence[Delivery]) -> list[str]:
        return [self._keys.newest(_place(push, one)) for one in deliveries]

    async def _run(self, script: Script, keys: list[str], times: list[int]) -> None:
        (reply,) = await self._link.run_many([(script, keys, times)])
        if isinstance(reply, ReplyError):
            # A full server takes no notes, and results must not wait for that.
            log.warning("of %s it cannot be noted what overtakes its retries: %s", self._keys.root, reply)


def _place(push: Push, delivery: Delivery) -> str:
    whose = (delivery.user, delivery.device) if delivery.user else ("", delivery.token)
    name = "\0".join([str(len(push.replace_key)), push.replace_key, str(len(whose[0])), *whose])
    return blake2b(name.encode(errors="surrogatepass"), digest_size=12, person=b"pushfleet-place").hexdigest()


def _keep_most(noted: dict[str, int], also: Mapping[str, int]) -> None:
    for place, number in also.items():
        noted[place] = max(number, noted.get(place, 0))


def _bites(noted: dict[str, int]) -> list[list[tuple[str, int]]]:
    pairs = list(noted.items())
    return [pairs[first : first + _AT_ONCE] for first in range(0, len(pairs), _AT_ONCE)]
