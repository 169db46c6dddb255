"""The books: whether every message and delivery is accounted for, stage by stage.

Ingress, per lane: entries added = present + routed + malformed. Ledger, per account: put = ready + leased + delayed +
ended, each recounted from what really lies there. With an idle fleet: deliveries decided = deliveries put.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from pushfleet.message import LANES, Lane
from pushfleet_workers.errors import RedisUnusable
from pushfleet_workers.ingress import IngressKeys
from pushfleet_workers.ledger import AccountKeys
from pushfleet_workers.ledger.pause import UNTIL_RESUMED_MS
from pushfleet_workers.redis_link import Link
from pushfleet_workers.scripts import load

__all__ = ["AccountBook", "Books", "LaneBook", "read_books"]

_RECOUNT = load("pushfleet_workers.ledger", "recount", preamble="common")
_LANE_BOOK = load("pushfleet_workers.ingress", "book")
_RECOUNT_ENTRIES_MAX = 200_000
_TRIES = 20


class LaneBook(msgspec.Struct, kw_only=True):
    """One lane's ingress."""

    added: int
    present: int
    routed: int
    malformed: int
    repeated: int
    deliveries: int
    recipients: int
    oldest_ms: int
    """When the oldest present entry was written; 0: none is there."""

    suppressed: dict[str, int]
    """``app:reason`` to recipients or devices that got no push."""

    @property
    def balanced(self) -> bool:
        """Whether nothing is missing."""
        return self.added == self.present + self.routed + self.malformed


class AccountBook(msgspec.Struct, kw_only=True):
    """One account's ledger."""

    put: int
    ready: int
    leased: int
    delayed: int
    ended: int
    unknown: int
    dead_letters: int
    oldest_ms: int
    """When the oldest ready delivery was put; 0: none is there."""

    open: bool
    """Whether the breaker is open or the account pauses, by the vendor's word."""

    pause_reason: str
    operator_pause: bool = False
    """Whether an operator pauses the account; both may be."""

    operator_until_ms: int = 0
    """Until when; 0: until it is resumed."""

    operator_reason: str = ""
    ends: dict[str, int]
    """``lane:end:reason`` to deliveries."""

    replayed: dict[str, int] = {}
    """``lane:reason`` to deliveries that had ended as dead and were put back: they are in *ends* no more."""

    recounted: tuple[int, int, int] | None
    """Ready, leased and delayed as found; None where there are too many to count in one go."""

    @property
    def ends_ever(self) -> dict[str, int]:
        """As *ends*, and what was dead and put back counts as dead still: these numbers only grow."""
        back = {":dead:".join(name.split(":")): count for name, count in self.replayed.items()}
        return {end: count + back.get(end, 0) for end, count in self.ends.items()}

    @property
    def moved(self) -> int:
        """Deliveries that went on in another account's ledger, where they were put once more."""
        return sum(count for name, count in self.ends.items() if name.split(":")[1] == "moved")

    @property
    def balanced(self) -> bool:
        """Whether nothing is missing."""
        if self.recounted is not None and self.recounted != (self.ready, self.leased, self.delayed):
            return False
        return (
            self.put
            == self.ready + self.leased + self.delayed + self.ended
            == sum(self.ends.values()) + self.ready + self.leased + self.delayed
        )


class Books(msgspec.Struct, kw_only=True):
    """All stages."""

    lanes: dict[str, LaneBook]
    accounts: dict[str, AccountBook]

    @property
    def pending(self) -> int:
        """Entries not yet routed and deliveries not yet ended."""
        waiting = sum(book.ready + book.leased + book.delayed for book in self.accounts.values())
        return waiting + sum(book.present for book in self.lanes.values())

    @property
    def balanced(self) -> bool:
        """Whether every book balances, and with an idle fleet also across the stages."""
        each = all(lane.balanced for lane in self.lanes.values()) and all(
            account.balanced for account in self.accounts.values()
        )
        if not each or self.pending:
            return each
        decided = sum(book.deliveries for book in self.lanes.values())
        return decided == sum(book.put - book.moved for book in self.accounts.values())

    def ends(self) -> dict[str, int]:
        """``sent``, ``suppressed``, ``dropped`` and ``dead`` over all lanes and accounts."""
        totals = dict.fromkeys(("sent", "suppressed", "dropped", "dead"), 0)
        for account in self.accounts.values():
            for name, count in account.ends.items():
                end = name.split(":")[1]
                if end in totals:
                    totals[end] += count
        totals["suppressed"] += sum(sum(book.suppressed.values()) for book in self.lanes.values())
        return totals


def accounts_key(prefix: str) -> str:
    """The set of all accounts that ever had a ledger, as ``vendor:credential``; routers add theirs."""
    return f"{prefix}:accounts"


async def read_books(link: Link, prefix: str, accounts: Sequence[tuple[str, str]], *, recount: bool = True) -> Books:
    """The books of all lanes and of *accounts* (vendor, credential), each exact at its moment.

    Accounts that routers knew before are read as well: what they hold does not vanish with a line of the settings.

    Raises :class:`RedisUnusable`.
    """
    known = await link.call("SMEMBERS", accounts_key(prefix))
    everyone = {*accounts, *(tuple(name.decode().split(":", 1)) for name in known)}
    lanes: dict[str, LaneBook] = {lane: await _lane_book(link, prefix, lane) for lane in LANES}
    ledgers = {
        f"{vendor}:{credential}": await _account_book(link, AccountKeys(prefix, vendor, credential), recount=recount)
        for vendor, credential in sorted(everyone)
    }
    return Books(lanes=lanes, accounts=ledgers)


async def _lane_book(link: Link, prefix: str, lane: Lane) -> LaneBook:
    keys = IngressKeys(prefix, lane)
    added, present, oldest, flat = await link.run(_LANE_BOOK, (keys.stream, keys.books), ())
    books = _counts(flat)
    return LaneBook(
        added=added,
        present=present,
        routed=books.get("routed", 0),
        malformed=books.get("malformed", 0),
        repeated=books.get("repeated", 0),
        deliveries=books.get("deliveries", 0),
        recipients=books.get("recipients", 0),
        oldest_ms=int(oldest.partition(b"-")[0]) if oldest else 0,
        suppressed=_named(books, "suppressed:"),
    )


async def _account_book(link: Link, keys: AccountKeys, *, recount: bool) -> AccountBook:
    for _ in range(_TRIES):
        owners: list[bytes] = await link.call("ZRANGE", keys.owners, 0, -1)
        leased = [keys.leased(owner.decode()) for owner in owners]
        answer = await link.run(
            _RECOUNT,
            (keys.books, keys.suspect, *keys.ready, keys.delayed_entries, keys.owners, keys.dead, keys.gate, *leased),
            (_RECOUNT_ENTRIES_MAX if recount else -1, *owners),
        )
        if answer:
            break
    else:
        raise RedisUnusable(f"the processes that hold work of {keys.root} changed {_TRIES} times while it was counted")
    flat, ready, leased_now, delayed, dead_letters, oldest_ms, is_open, reason, operator_ms, operator_reason = answer
    books = _counts(flat)
    return AccountBook(
        put=books.get("put", 0),
        ready=books.get("ready", 0),
        leased=books.get("leased", 0),
        delayed=books.get("delayed", 0),
        ended=books.get("ended", 0),
        unknown=books.get("unknown", 0),
        dead_letters=dead_letters,
        oldest_ms=oldest_ms,
        open=bool(is_open),
        pause_reason=reason.decode() if is_open else "",
        operator_pause=bool(operator_ms),
        operator_until_ms=operator_ms if operator_ms < UNTIL_RESUMED_MS else 0,
        operator_reason=operator_reason.decode() if operator_ms else "",
        ends=_named(books, "end:"),
        replayed=_named(books, "replayed:"),
        recounted=None if ready < 0 else (ready, leased_now, delayed),
    )


def _counts(flat: Sequence[Any]) -> dict[str, int]:
    return {flat[at].decode(): int(flat[at + 1]) for at in range(0, len(flat), 2)}


def _named(books: dict[str, int], start: str) -> dict[str, int]:
    return {name.removeprefix(start): count for name, count in sorted(books.items()) if name.startswith(start)}
