"""The three books of a scenario and what comes of comparing them. Pure.

The producer's book has what it was told, the ledger's how deliveries ended, the vendors' what they were sent. None of
them is made from another, so that what is missing from one shows in the other two.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet

from msgspec import Struct
from tests.chaos.load import Told

from pushfleet_workers.fakecloud.journal import Met
from pushfleet_workers.ledger.ledger import Rate

__all__ = [
    "DEATH_SETTLES_S", "DOOMED_ENDS", "LATE_S", "SLOW_S", "Books", "Cloud", "Comparison", "LedgerBook", "Terms",
    "compare", "latencies_s",
]  # fmt: skip

LATE_S = 1.0
"""What a request may be on its way on two cores that everything shares; what it may lie unread is not counted."""

DEATH_SETTLES_S = 2.0 + 1.0 + LATE_S
"""What was put before its token's death was known may go unasked for `worker.recheck_s`, and a second more in hand."""

SLOW_S = 1.0
"""A push that took longer waited for something."""

DOOMED_ENDS = frozenset({"dropped:token_dead", "suppressed:no_device", "suppressed:no_channel"})
"""How deliveries to tokens end that are dead at the vendor, before and after the fleet knows it."""

Pair = tuple[str, str]
"""A delivery: message id and user. Users here have one device."""


class LedgerBook(Struct, frozen=True):
    """What the fleet's own audit says at the end."""

    ends: dict[str, int]
    """``end:reason`` to deliveries, those that moved to another account left out: they have an end there."""

    unknown: int
    pending: int
    balanced: bool


class Cloud(Struct, frozen=True):
    """What the vendors met, and whom they know."""

    met: Sequence[Met]
    users: Mapping[str, str]
    """Token to user."""

    doomed: AbstractSet[str] = frozenset()
    """Users whose tokens are dead at the vendor."""

    def pair(self, met: Met) -> Pair:
        """The delivery that was met."""
        return met.message_id, self.users.get(met.token, "")

    def taken(self) -> Iterable[Met]:
        """What the vendors took."""
        return (met for met in self.met if met.taken)


class Books(Struct, frozen=True):
    """All three."""

    told: Sequence[Told]
    ledger: LedgerBook
    cloud: Cloud
    settled_deaths_s: Mapping[str, float] = {}
    """User to when the fleet had settled the death of their token."""

    def asked(self) -> set[Pair]:
        """The deliveries that were asked for."""
        return {(one.id, user) for one in self.told for user in one.users}

    def due(self) -> set[Pair]:
        """Those of them that were promised."""
        return {(one.id, user) for one in self.told if one.accepted for user in one.users}


class Terms(Struct, frozen=True):
    """What a scenario may do to pushes."""

    lost_bound: int = 0
    excused: AbstractSet[str] = frozenset()
    """Ends, as ``end:reason``, other than being sent."""

    rates: Mapping[str, Rate] = {}
    """By account, as the vendor names its credential."""

    connections: int = 0
    """That are made while a rate is used to the full: each one's first request is late by what making it takes."""

    healed_at_s: float = 0.0


class Comparison(Struct, kw_only=True):
    """The findings, and in plain sentences what must not be."""

    accepted: int
    lost: int
    duplicated: int
    unknown_outcomes: int
    late: int
    over_rate: int
    after_death: int
    recovery_s: float
    faults: list[str]


def compare(books: Books, terms: Terms) -> Comparison:
    """What the three books say together."""
    found = Comparison(
        accepted=sum(one.accepted for one in books.told),
        lost=_lost(books, terms.excused),
        duplicated=_duplicated(books.cloud),
        unknown_outcomes=books.ledger.unknown,
        late=_late(books),
        over_rate=_over_rate(books.cloud, terms),
        after_death=_after_death(books),
        recovery_s=_recovery_s(books, terms.healed_at_s),
        faults=[],
    )
    found.faults = [sentence for sentence, holds in _faults(books, terms, found).items() if holds]
    return found


def _faults(books: Books, terms: Terms, found: Comparison) -> dict[str, bool]:
    ledger = books.ledger
    promised, ended = len(books.due()), sum(ledger.ends.values())
    perhaps = sum(len(one.users) for one in books.told if not one.accepted)
    strange = sorted(ledger.ends.keys() - DOOMED_ENDS - terms.excused - {"sent:"})
    unasked = len({books.cloud.pair(met) for met in books.cloud.met} - books.asked())
    return {
        "nothing was accepted: the scenario proves nothing": not promised,
        f"lost {found.lost}, and {terms.lost_bound} is the bound": found.lost > terms.lost_bound,
        f"duplicated {found.duplicated}, more than the {found.unknown_outcomes} unknown outcomes": (
            found.duplicated > found.unknown_outcomes
        ),
        f"{found.late} were sent after they had expired": found.late > 0,
        f"{found.over_rate} more than rate and burst left in a second": found.over_rate > 0,
        f"{found.after_death} were sent to tokens whose death was settled": found.after_death > 0,
        f"{ledger.pending} are still pending": ledger.pending > 0,
        "the books of the fleet do not balance": not ledger.balanced,
        f"the ledger has {ended} ends for {promised} deliveries": (
            not terms.lost_bound and not promised <= ended <= promised + perhaps
        ),
        f"deliveries ended as {', '.join(strange)}": bool(strange),
        f"{unasked} deliveries were sent that nobody asked for": unasked > 0,
        "a repeat had another id than the first": _renamed(books.cloud) > 0,
    }


def _lost(books: Books, excused: AbstractSet[str]) -> int:
    """Promised deliveries that reached no vendor, less those of which the ledger says why."""
    ends, doomed = books.ledger.ends, books.cloud.doomed
    missing = books.due() - {books.cloud.pair(met) for met in books.cloud.taken()}
    hopeless = sum(user in doomed for _, user in missing)
    told_of_hopeless = sum(ends.get(end, 0) for end in DOOMED_ENDS - excused)
    told_of_anybody = sum(ends.get(end, 0) for end in excused) - (len(missing) - hopeless)
    return max(0, -told_of_anybody) + max(0, hopeless - told_of_hopeless - max(0, told_of_anybody))


def _duplicated(cloud: Cloud) -> int:
    return sum(times - 1 for times in Counter(map(cloud.pair, cloud.taken())).values())


def _renamed(cloud: Cloud) -> int:
    """Deliveries that a vendor took under two ids; where it has no place for one there is nothing to compare."""
    ids: dict[tuple[Pair, str], set[str]] = {}
    for met in cloud.taken():
        ids.setdefault((cloud.pair(met), met.token), set()).add(met.sent_id)
    return sum(len(some) > 1 for some in ids.values())


def _late(books: Books) -> int:
    expires_s = {one.id: one.sent_at_s + one.ttl_s for one in books.told}
    return sum(met.since_s > expires_s.get(met.message_id, met.since_s) + LATE_S for met in books.cloud.met)


def _over_rate(cloud: Cloud, terms: Terms) -> int:
    """By how much the busiest second of any account was over its limit, whatever moment the second begins."""
    over = [0]
    for account, rate in terms.rates.items():
        met = [(one.since_s, one.at_s) for one in cloud.met if one.account == account]
        over.append(_peak(met) - int(rate.rate_per_s + rate.burst) - terms.connections)
    return max(over)


def _peak(met: Sequence[tuple[float, float]]) -> int:
    """The most that surely left within one second: each at some time between its two."""
    sure = [one for one in met if one[1] - one[0] < 1.0]
    starts, ends = sorted(since_s for since_s, _ in sure), sorted(at_s for _, at_s in sure)
    # Those that began before a second begins have all ended before it does.
    return max((bisect_left(ends, begin + 1.0) - bisect_left(starts, begin) for begin in starts), default=0)


def _after_death(books: Books) -> int:
    never, settled, users = float("inf"), books.settled_deaths_s, books.cloud.users
    # What was taken went to another token of theirs.
    refused = (met for met in books.cloud.met if not met.taken)
    return sum(met.since_s > settled.get(users.get(met.token, ""), never) + DEATH_SETTLES_S for met in refused)


def latencies_s(books: Books, vendor: str = "", since_s: float = 0.0, until_s: float = float("inf")) -> list[float]:
    """From making a message to the vendor's first taking it, sorted; of messages made between the two times."""
    made = {one.id: one.sent_at_s for one in books.told if since_s <= one.sent_at_s < until_s}
    first: dict[Pair, float] = {}
    for met in books.cloud.taken():
        if met.message_id in made and vendor in ("", met.vendor):
            pair = books.cloud.pair(met)
            first[pair] = min(first.get(pair, met.at_s), met.at_s)
    return sorted(at_s - made[message] for (message, _), at_s in first.items())


def _recovery_s(books: Books, healed_at_s: float) -> float:
    """How long after the healing a push still arrived that had waited for something."""
    made = {one.id: one.sent_at_s for one in books.told}
    slow = [met.at_s for met in books.cloud.taken() if met.at_s - made.get(met.message_id, met.at_s) > SLOW_S]
    return round(max(0.0, max(slow, default=0.0) - healed_at_s), 1) if healed_at_s else 0.0
