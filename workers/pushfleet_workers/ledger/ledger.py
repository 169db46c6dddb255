"""The one Python face of one account's ledger."""

from __future__ import annotations

import logging
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, Protocol

import msgspec
from msgspec import Struct

from pushfleet_workers.ledger.entry import Entry, head_of, unpack
from pushfleet_workers.ledger.keys import MARK_BUCKET_MS, AccountKeys
from pushfleet_workers.ledger.recent import Recent, Sent
from pushfleet_workers.push import sent_id
from pushfleet_workers.redis_link import Link, LinkLost, ReplyError
from pushfleet_workers.scripts import Script, load

__all__ = [
    "BEAT_S",
    "LEASE_MS",
    "Breaker",
    "Claim",
    "GateNews",
    "Ledger",
    "PutEntry",
    "Rate",
    "Settlement",
    "Want",
    "trim_marks",
]

log = logging.getLogger(__name__)

PutEntry = bytes | tuple[int, bytes]
"""A packed entry that may go at once, or when one is due (Unix milliseconds) and the entry."""

LEASE_MS = 15_000
"""How long a process may be silent before its work goes to others."""

BEAT_S = 5.0
PERMIT_LIFE_S = 0.5
"""How long a permit may wait in a process before it is void."""

_BULK_SHARE_S = 0.05
_LATE_OK_LIFE_MS = 86_400_000
_SHAPE = struct.Struct(">II")
"""Of a part: how many entries are put for now, and how many for later."""

_STOOD = struct.Struct(">dH")
"""As a leased value begins: the fence, then the entry with its deliveries."""

_PACKAGE = "pushfleet_workers.ledger"


def _script(name: str) -> Script:
    return load(_PACKAGE, name, preamble="common")


@dataclass(frozen=True, slots=True)
class Rate:
    """What may leave an account: at most ``rate_per_s + burst`` in any sliding second, over the whole fleet."""

    rate_per_s: float
    burst: int

    @property
    def permit_life_s(self) -> float:
        """How long a permit stands; then the work goes back. Shorter where the burst is small."""
        return min(PERMIT_LIFE_S, self.burst / (2 * self.rate_per_s))

    @property
    def capacity(self) -> float:
        """The bucket's size.

        Permits granted up to ``permit_life_s`` before a second began may be spent within it: what they may amount to
        is taken off the burst, so that the bound holds for what leaves, not only for what is granted.
        """
        return max(1.0, self.burst - self.rate_per_s * self.permit_life_s)


@dataclass(frozen=True, slots=True)
class Want:
    """How much a claim may take."""

    parcels: int
    deliveries: int
    bulk_deliveries: int
    suspect: bool = True
    """Nothing is in hand: a suspect may be taken, and then nothing beside it."""

    elsewhere: bool = False
    """Take what a shut gate holds up, without permits: only to be sent another way, or given back."""


@dataclass(slots=True)
class Claim:
    """What a claim brought."""

    now_ms: int
    wait_ms: int
    """How long until more may be had; 0: at once, or nothing is there."""

    left: int
    """Deliveries still ready."""

    entries: list[Entry] = field(default_factory=list)
    late_oks: frozenset[bytes] = frozenset()
    """:func:`sent_id` of what was accepted after its lease was lost: it must not be sent again."""

    gate_listens: bool = False
    """The breaker is half open or the rate lowered: the gate must hear of good answers."""

    suspects: int = 0
    """Entries that wait for a process with nothing in hand."""

    classes: bytes = b""
    """Until when message classes pause, by class, as JSON; empty when none does."""

    shut: bool = False
    """The breaker is open or the account pauses, for ``wait_ms``, and its work may go another way; not so while a probe
    is out, nor while an operator pauses it who did not say so."""

    paused: bool = False
    """An operator pauses the account: what waits in a process goes back as well."""

    probe: bool = False
    """The entry is the half-open breaker's probe: the gate waits to hear what came of it."""

    retrying: bool = False
    """Deliveries wait for another attempt: what is sent may overtake them."""


class Settlement(Struct):
    """What became of a leased parcel, as a whole or so far. Its repr shows no entries."""

    id: bytes
    fence: int
    size: int
    """Deliveries in hand before this: tells a repeat of a partial settlement from the settlement itself."""

    ended: int = 0
    ends: dict[str, int] = {}
    """``lane:end:reason`` to deliveries, for example ``normal:sent:``."""

    later: list[tuple[int, bytes]] = []
    """Milliseconds from now, and the packed entry that becomes due then."""

    rest: bytes = b""
    """The packed entry of what is still in hand; empty when all of it is settled."""

    give_back: bool = False
    """Nothing was tried: the parcel returns to the head of its lane."""

    dead: list[tuple[bytes, str, str, int]] = []
    """Dead letters: packed entry, reason, vendor code, attempts."""

    unknown: int = 0
    """Attempts that ended without our knowing whether the vendor took the push."""

    accepted: tuple[bytes, ...] = ()
    """:func:`sent_id` of the deliveries that the vendor took, for the case that the lease is gone."""

    def __repr__(self) -> str:
        return f"Settlement(id={self.id.hex()}, fence={self.fence}, size={self.size}, ends={self.ends})"

    @property
    def plain(self) -> bool:
        """Whether all of it ended, in one way, and nothing else is to be written."""
        rest = self.later or self.rest or self.dead or self.give_back or self.unknown
        return not rest and self.ended == self.size and len(self.ends) == 1


@dataclass(slots=True)
class GateNews:
    """What recent answers mean for the whole account."""

    good: int = 0
    bad: int = 0
    pause_ms: int = 0
    reason: str = ""
    rate_limited: bool = False
    open_now: bool = False
    class_pauses_ms: dict[str, int] = field(default_factory=dict)
    """By message class, how long it is to pause."""

    release: bool = False
    """A probe told nothing of the vendor: another may go."""

    def add(self, other: GateNews) -> None:
        """Keep what *other* has to tell as well."""
        self.good += other.good
        self.bad += other.bad
        self.pause_ms = max(self.pause_ms, other.pause_ms)
        self.reason = self.reason or other.reason
        self.rate_limited = self.rate_limited or other.rate_limited
        self.open_now = self.open_now or other.open_now
        self.class_pauses_ms = {**other.class_pauses_ms, **self.class_pauses_ms}

    def __bool__(self) -> bool:
        told = self.bad or self.pause_ms or self.rate_limited or self.open_now or self.class_pauses_ms
        return bool(told or self.release)


@dataclass(frozen=True, slots=True)
class Breaker:
    """When an account is left alone, and for how long."""

    failures: int = 20
    open_min_ms: int = 1_000
    open_max_ms: int = 60_000


class Ledger:
    """One account's ledger, seen by one process.

    * **link** - the connection to the queue's Redis.
    * **keys** - the account's keys.
    * **owner** - the process' name in leases, unique in the fleet.
    * **rate** - the account's limit; None: none.
    * **letters_max** - about how many dead letters the account keeps.
    """

    _put = _script("put")
    _claim = _script("claim")
    _settle = _script("settle")
    _finish = _script("finish")
    _reap = _script("reap")
    _reconcile = _script("reconcile")
    _remember = _script("remember")
    _beat = _script("beat")
    _gate = _script("gate")

    def __init__(
        self,
        link: Link,
        keys: AccountKeys,
        owner: str,
        *,
        rate: Rate | None = None,
        breaker: Breaker | None = None,
        letters_max: int = 100_000,
    ) -> None:
        self.link = link
        self.keys = keys
        self.owner = owner
        self.rate = rate
        self.breaker = breaker or Breaker()
        self._letters_max = letters_max
        self._leased = keys.leased(owner)
        self._claim_keys = (
            keys.books, keys.gate, keys.owners, self._leased, keys.suspect, *keys.ready, keys.delayed,
            keys.delayed_entries, keys.oks, keys.retrying,
        )  # fmt: skip
        self._settle_keys = (
            keys.books, self._leased, keys.delayed, keys.delayed_entries, keys.dead, *keys.ready, keys.suspect
        )  # fmt: skip

        self._finish_keys = (keys.books, self._leased)
        self._strays = False
        """Whether leases may stand that we do not know of."""

        self._history = ""
        """Of the data that our leases are in, see :attr:`Link.history`."""

        self._recent = Recent()
        self._fences_from = 0
        """What was claimed before the data changed has a fence below."""

    @staticmethod
    def put_call(
        keys: AccountKeys, bucket: int, parts: Sequence[tuple[bytes, Sequence[PutEntry]]], share_max: int
    ) -> tuple[Script, tuple[str, ...], list[Any]]:
        """The script call that puts *parts* (part id, packed entries), for :meth:`Link.run_many`.

        An entry for later comes with the time when it is due. It answers ``[now_ms, repeats, [deliveries of each part's
        first write], [ids of entries for later that the first write had no room for]]``. *bucket* is the stream
        entry's time divided by ``MARK_BUCKET_MS``; *share_max* is the number of deliveries above which new bulk work is
        dropped.
        """
        shapes, rows = bytearray(), list[Any]()
        for _, entries in parts:
            later = [entry for entry in entries if not isinstance(entry, bytes)]
            shapes += _SHAPE.pack(len(entries) - len(later), len(later))
            if later:
                rows += [entry for entry in entries if isinstance(entry, bytes)]
                rows += chain.from_iterable(later)
            else:
                rows += entries
        arguments = [bucket, share_max, len(parts), *[part for part, _ in parts], bytes(shapes), *rows]
        return (
            Ledger._put,
            (
                keys.books, *keys.marks_around(bucket), keys.mark_index, *keys.ready, keys.delayed, keys.delayed_entries
            ),
            arguments,
        )  # fmt: skip

    async def claim(self, want: Want) -> Claim:
        """Work with the permits to send it, leased to this process.

        Raises :class:`LinkLost`; entries may be leased then that we do not know of: see :meth:`lost_track`.
        """
        try:
            self._refuse_other_data()
            claim = await self._claim_now(want)
            self._refuse_other_data()
        except BaseException:
            self._strays = True
            raise
        self._history = self.link.history
        return claim

    async def _claim_now(self, want: Want) -> Claim:
        rate, capacity, bulk = 0.0, 0.0, want.bulk_deliveries
        if self.rate is not None:
            rate, capacity = self.rate.rate_per_s, self.rate.capacity
            bulk = min(bulk, max(1, int(rate * _BULK_SHARE_S)))
        (
            now, wait, left, fence, packed, oks, listens, suspects, classes, shut, probe, paused, retrying
        ) = await self.link.run(
            self._claim,
            self._claim_keys,
            (
                self.owner, LEASE_MS, want.parcels, want.deliveries, bulk, rate, capacity, int(want.suspect),
                int(want.elsewhere),
            ),
        )  # fmt: skip
        entries = await self._readable([(data, fence) for data in packed])
        late_oks = await self._late_oks(entries) if oks else frozenset()
        return Claim(
            now,
            wait,
            left,
            entries,
            late_oks,
            bool(listens),
            suspects,
            classes,
            bool(shut),
            bool(paused),
            bool(probe),
            bool(retrying),
        )

    async def _readable(self, packed: Sequence[tuple[bytes, int]]) -> list[Entry]:
        """The entries with their fences; one that cannot be read becomes a dead letter, its neighbours go on."""
        entries, damaged = [], []
        for data, fence in packed:
            try:
                entries.append(unpack(data, fence))
            except (msgspec.DecodeError, UnicodeDecodeError, struct.error):
                size, lane, identity = head_of(data)
                end = {f"{lane}:dead:undecodable": size}
                letter = (data, "undecodable", "", 0)
                damaged.append(Settlement(identity, fence, size, ended=size, ends=end, dead=[letter]))
        if damaged:
            await self.settle(damaged)
        return entries

    async def _late_oks(self, entries: Sequence[Entry]) -> frozenset[bytes]:
        ids = [sent_id(entry.parcel.push, one) for entry in entries for one in entry.parcel.deliveries]
        known = await self.link.call("HMGET", self.keys.oks, *ids) if ids else []
        return frozenset(identity for identity, found in zip(ids, known, strict=True) if found is not None)

    async def settle(self, settlements: Sequence[Settlement]) -> list[Settlement]:
        """Write what became of leased parcels; returns those whose lease was gone.

        Repeating it is safe. A late acceptance is remembered, so that the delivery is not sent again. Raises
        :class:`LinkLost`.
        """
        special = {one.id for one in settlements if not one.plain}
        others = [one for one in settlements if one.id in special] if special else []
        by_end: dict[str, list[Settlement]] = {}
        for one in settlements:
            if one.id not in special:
                by_end.setdefault(next(iter(one.ends)), []).append(one)
        calls = [(self._settle, self._settle_keys, [self._letters_max, *_settle_arguments(others)])] if others else []
        for end, some in by_end.items():
            stood = b"".join([_STOOD.pack(one.fence, one.size) for one in some])
            calls.append((self._finish, self._finish_keys, [end, len(some), *[one.id for one in some], stood]))
        late: list[Settlement] = []
        groups = [others, *by_end.values()] if others else [*by_end.values()]
        for some, reply in zip(groups, await self.link.run_many(calls), strict=True):
            if isinstance(reply, ReplyError):
                raise reply
            late += [some[position] for position in (reply[1] if some is others else reply)]
        self._recent.add(Sent(one.id, one.fence, one.accepted) for one in settlements if one.accepted)
        if late:
            # Of a claim that Redis forgot nobody else has counted that its deliveries may be sent twice.
            forgotten = sum(len(one.accepted) + one.unknown for one in late if one.fence < self._fences_from)
            await self._remember_late([delivery for one in late for delivery in one.accepted], forgotten)
        return late

    async def _remember_late(self, accepted: Sequence[bytes], unknown: int) -> None:
        """Let nobody send *accepted* again; so many more than the books say may have been sent twice."""
        if accepted or unknown:
            await self.link.run(
                self._remember, (self.keys.books, self.keys.oks), (_LATE_OK_LIFE_MS, unknown, *accepted)
            )

    @property
    def _data_changed(self) -> bool:
        return self._history not in ("", self.link.history)

    def _refuse_other_data(self) -> None:
        """Until they are reconciled, fences may be given a second time."""
        if self._data_changed:
            raise LinkLost("the data in Redis are others than before: what is leased must be reconciled first")

    async def lost_track(self) -> bool:
        """Whether leases may stand that this process does not know of: a claim's answer was lost, or the data changed.

        :meth:`regain` it before the next claim. Raises :class:`RedisUnusable`.
        """
        await self.link.ready()
        return self._strays or self._data_changed

    async def regain(self, in_hand: Sequence[tuple[bytes, int, int]]) -> list[Entry]:
        """Entries that are leased to this process without its having seen them: they are to go back.

        *in_hand*: id, fence and deliveries of what this process has in hand, or has settled without knowing how that
        went. After a failover or a restart the data may be older than our memory. Then no entry comes from here: leases
        that we have nothing of in hand go back to their lanes, and what we know to be sent is not sent again.
        """
        if self._data_changed:
            await self._reconcile_with(in_hand)
            self._strays = False
            return []
        entries = await self.recover({identity for identity, _, _ in in_hand})
        self._strays = False
        return entries

    async def _reconcile_with(self, in_hand: Sequence[tuple[bytes, int, int]]) -> None:
        history, keys = self.link.history, self.keys
        # First of all: whoever claims what goes back must find it, and we may break off at any point.
        going_back = self._recent.of_leases(await self._not_in_hand(in_hand))
        await self._remember_late(_deliveries(going_back), 0)
        leases: list[Any] = [part for lease in in_hand for part in lease]
        back, flat = await self.link.run(
            self._reconcile,
            (keys.books, keys.gate, self._leased, keys.suspect, keys.dead, *keys.ready),
            (self._letters_max, history, *leases),
        )
        gaps = [(int(last), int(first)) for last, first in zip(flat[::2], flat[1::2], strict=True)]
        self._fences_from = gaps[-1][1]
        forgotten = _deliveries(self._recent.of_claims_between(gaps))
        # What it gave back the script has counted.
        await self._remember_late(forgotten, len(forgotten))
        self._history = history
        if back or forgotten:
            log.warning(
                "Redis has forgotten what became of deliveries of %s: %d went back to their lanes; what is known to be "
                "sent is not sent again",
                keys.root, back,
            )  # fmt: skip

    async def _not_in_hand(self, in_hand: Sequence[tuple[bytes, int, int]]) -> set[bytes]:
        """The ids of our leases in Redis that are not *in_hand* as they stand there."""
        known = set(in_hand)
        return {
            identity
            for value in await self.link.call("HVALS", self._leased)
            for size, _, identity in (head_of(value[8:]),)
            if (identity, int(struct.unpack_from(">d", value)[0]), size) not in known
        }

    async def recover(self, known: set[bytes]) -> list[Entry]:
        """Entries that are leased to this process but not among *known*: a claim's answer was lost."""
        values: list[bytes] = await self.link.call("HVALS", self._leased)
        return await self._readable(
            [
                (value[8:], int(struct.unpack_from(">d", value)[0]))
                for value in values
                if head_of(value[8:])[2] not in known
            ]
        )

    async def beat(self, in_hand: int) -> None:
        """Tell the others that this process lives, and notice leases beyond the *in_hand* that it knows of."""
        leases = await self.link.run(self._beat, (self.keys.owners, self._leased), (self.owner, LEASE_MS))
        self._strays = self._strays or leases > in_hand

    @property
    def knows_the_dead(self) -> bool:
        """Whether all who live have had the time to say so: after an outage every lease has run out at first."""
        return self.link.open_s > LEASE_MS / 2000

    async def reap(self) -> int:
        """Deliveries given back from processes that stopped beating."""
        seconds, _ = await self.link.call("TIME")
        overdue: list[bytes] = await self.link.call(
            "ZRANGE", self.keys.owners, "-inf", int(seconds) * 1000, "BYSCORE", "LIMIT", 0, 20
        )
        given_back = 0
        for name in overdue:
            owner = name.decode()
            keys = self.keys
            back = await self.link.run(
                self._reap,
                (keys.books, keys.owners, keys.leased(owner), keys.suspect, keys.dead, *keys.ready),
                (owner, self._letters_max),
            )
            given_back += max(0, back)
        return given_back

    async def operator_until_ms(self) -> int:
        """Until when an operator pauses the account, by Redis' clock; long past or 0 when none does."""
        return int(await self.link.call("HGET", self.keys.gate, "operator_until") or 0)

    async def tell_gate(self, news: GateNews) -> tuple[str, int]:
        """The breaker's state after *news* (``closed`` or ``open``) and the ms until it is tried again."""
        breaker = self.breaker
        pauses = [part for pair in news.class_pauses_ms.items() for part in pair]
        state, wait_ms = await self.link.run(
            self._gate,
            (self.keys.gate,),
            (
                news.good, news.bad, breaker.failures, breaker.open_min_ms, breaker.open_max_ms, news.pause_ms,
                news.reason, int(news.rate_limited), int(news.open_now), int(news.release), *pauses,
            ),
        )  # fmt: skip
        return state.decode(), wait_ms


class Marked(Protocol):
    """Keys of which some are markers by time."""

    mark_index: str

    def marks(self, bucket: int) -> str:
        """The markers of a bucket."""
        ...


def _deliveries(sent: Sequence[Sent]) -> list[bytes]:
    return [delivery for one in sent for delivery in one.deliveries]


def _settle_arguments(settlements: Sequence[Settlement]) -> list[Any]:
    arguments: list[Any] = []
    for one in settlements:
        arguments += (
            one.id, one.fence, one.size, one.ended, one.unknown, int(one.give_back), one.rest, len(one.ends)
        )  # fmt: skip
        for end in one.ends.items():
            arguments += end
        arguments.append(len(one.later))
        for later in one.later:
            arguments += later
        arguments.append(len(one.dead))
        for letter in one.dead:
            arguments += letter
    return arguments


async def trim_marks(link: Link, keys: Marked, before_ms: int) -> int:
    """Forget the markers of parts whose stream entries are older than *before_ms*; returns the buckets removed."""
    last = before_ms // MARK_BUCKET_MS - 1
    buckets = await link.call("ZRANGE", keys.mark_index, "-inf", last, "BYSCORE", "LIMIT", 0, 1000)
    if buckets:
        await link.pipeline(
            [("UNLINK", keys.marks(int(bucket))) for bucket in buckets] + [("ZREM", keys.mark_index, *buckets)]
        )
    return len(buckets)
