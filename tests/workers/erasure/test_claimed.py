from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import Any, cast

import pytest
from tests.workers.ledger.support import an_entry

from pushfleet_workers.erasure import RecheckErased
from pushfleet_workers.ledger import Entry
from pushfleet_workers.recheck import Rechecked
from pushfleet_workers.tokens.erasures import Erasures


class Gone:
    """Says of one user that they were erased."""

    def __init__(self, user: str) -> None:
        self._user = user

    async def erased(self, asked: Iterable[Any]) -> set[Any]:
        return {one for one in asked if one[0][1] == self._user}


def recheck_beside(user: str, recheck: Callable[[Sequence[Entry]], Any], entry: Entry) -> Rechecked:
    return asyncio.run(RecheckErased(recheck, cast("Erasures", Gone(user)))([entry]))


async def broken(entries: Sequence[Entry]) -> Rechecked:
    raise RuntimeError("no state")


def test_who_was_erased_gets_nothing_although_nothing_else_is_known() -> None:
    entry = an_entry("m", deliveries=2)
    first, _ = entry.parcel.deliveries
    assert recheck_beside("u0", broken, entry).refused == {first.id: "user_erased"}


def test_where_nobody_was_erased_the_fault_is_told() -> None:
    with pytest.raises(RuntimeError):
        recheck_beside("somebody", broken, an_entry("m"))


def test_an_erasure_wins_over_whatever_else_was_found() -> None:
    entry = an_entry("m")
    (only,) = entry.parcel.deliveries

    async def read(entries: Sequence[Entry]) -> Rechecked:
        return Rechecked(refused={only.id: "read"})

    assert recheck_beside("u0", read, entry).refused == {only.id: "user_erased"}
