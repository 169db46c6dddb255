"""Which part of a parcel belongs to whom, and that nothing else of it changes."""

from __future__ import annotations

from tests.workers.ledger.support import an_entry

from pushfleet_workers.erasure.sought import Sought
from pushfleet_workers.ledger import pack, unpack
from pushfleet_workers.push import PutOff

FOREVER_MS = 2**53


def test_a_parcel_without_a_user_is_the_same_for_the_others() -> None:
    entry = an_entry("m", deliveries=3, lane="bulk")
    entry.lost = 1
    entry.parcel.put_off, entry.parcel.gated = PutOff(decided_ms=5, lost=1, counted_day=20_000), True
    before = unpack(pack(entry))
    left = Sought({("demo", "u1"): FOREVER_MS}).without(pack(entry))
    assert left
    before.parcel.deliveries.pop(1)
    assert pack(unpack(left)) == pack(before) == left


def test_a_parcel_of_nobody_else_goes_and_one_of_others_stays_as_it_is() -> None:
    packed = pack(an_entry("m", deliveries=2))
    assert Sought({("demo", "u0"): FOREVER_MS, ("demo", "u1"): FOREVER_MS}).without(packed) == b""
    for stranger in (("lite", "u0"), ("demo", "u7")):
        assert Sought({stranger: FOREVER_MS}).without(packed) is None
    assert Sought({("demo", "u0"): 0}).without(packed) is None, "what came later is theirs"
