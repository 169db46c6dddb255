"""How many pushes of a day a device gets from its vendor, and how much of it is kept for what is important. Pure."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, get_args

from pushfleet.message import Kind, Lane, OfflinePush
from pushfleet_workers import registry
from pushfleet_workers.account import AccountSettings

__all__ = ["AccountCaps", "DayCap", "Sort", "sort_of"]

_IMPORTANT: frozenset[Kind] = frozenset({"mention", "call", "missed_call"})
_GATHERED = frozenset({"chat", "summary"})
_DAY_MS = 86_400_000


class Sort(enum.StrEnum):
    """What a cap means for a push."""

    IMPORTANT = "i"
    """It goes as long as anything is left, and has a share of its own."""

    GATHERED = "g"
    """It may wait, and be told of by another push."""

    SINGLE = "s"
    """It speaks for itself: it goes as long as anything is left beside that share."""


@dataclass(frozen=True, slots=True)
class DayCap:
    """The cap of one class of messages."""

    name: str
    """The vendor's class."""

    most: int
    """Pushes that a device is sent in a day."""

    reserved: int
    """How many of them only important ones may use."""

    begins_ms: int
    """How long after midnight UTC the vendor's day begins; negative: before it."""

    def day_at(self, now_ms: float) -> int:
        """The number of the vendor's day at that time, as `device_day.lua` counts them."""
        return int((now_ms - self.begins_ms) // _DAY_MS)


def sort_of(kind: Kind, lane: Lane, *, mention: bool = False, forced: bool = False, recall: bool = False) -> Sort:
    """What a cap means for a push of *kind*.

    The end of a call is not important: ``missed_call`` replaces what still rings.
    """
    if recall or mention or forced or kind in _IMPORTANT:
        return Sort.IMPORTANT
    if lane == "urgent" and kind != "call_cancel":
        return Sort.IMPORTANT
    return Sort.GATHERED if kind in _GATHERED else Sort.SINGLE


class AccountCaps:
    """The caps of one account; false where it has none."""

    def __init__(self, vendor: str, account: AccountSettings) -> None:
        self._vendor = registry.load(vendor)
        self._account = account
        self._most = {
            name: most for name, most in {**self._vendor.device_caps(account), **account.device_caps}.items() if most
        }

    def __bool__(self) -> bool:
        return bool(self._most)

    def of(self, kind: Kind, *, group: bool, options: OfflinePush | None) -> DayCap | None:
        """The cap that a message counts in; None: it may be sent as often as one likes.

        *options* are the message's own: they may name another class than the account's settings do.
        """
        own: Any = getattr(options, self._vendor.name, None)
        if own is None or not own.names_class():
            return self._by_kind[kind, group]
        return self._by_class.get(self._vendor.class_of(self._account, kind, group=group, own=own))

    @cached_property
    def _by_kind(self) -> dict[tuple[Kind, bool], DayCap | None]:
        return {
            (kind, group): self._by_class.get(self._vendor.class_of(self._account, kind, group=group))
            for kind, group in _each(get_args(Kind))
        }

    @cached_property
    def _by_class(self) -> dict[str, DayCap]:
        urgent = {self._vendor.class_of(self._account, kind, group=group) for kind, group in _each(_IMPORTANT)}
        share, begins_ms = self._account.device_reserve, self._vendor.day.shift_ms
        return {
            name: DayCap(name, most, round(most * share) if name in urgent else 0, begins_ms)
            for name, most in self._most.items()
        }


def _each(kinds: Iterable[Kind]) -> Iterator[tuple[Kind, bool]]:
    """Each of *kinds*, in single chats and in groups."""
    return ((kind, group) for kind in kinds for group in (False, True))
