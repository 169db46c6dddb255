"""The comparison of the three books, on books that are written by hand or made up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.chaos.books import (
    DEATH_SETTLES_S,
    LATE_S,
    Books,
    Cloud,
    Comparison,
    LedgerBook,
    Terms,
    _peak,
    compare,
    latencies_s,
)
from tests.chaos.load import Told

from pushfleet_workers.fakecloud.journal import Met
from pushfleet_workers.ledger.ledger import Rate

EXPIRED = "dropped:expired"
DEAD = "dropped:token_dead"


def told(message: str, *users: str, at_s: float = 0.0, ttl_s: int = 60, accepted: bool = True) -> Told:
    return Told(message, users or ("ann",), at_s, ttl_s, accepted)


def met(message: str, user: str = "ann", at_s: float = 0.5, **further: Any) -> Met:
    fields = {"since_s": at_s, "taken": True, "sent_id": f"{message}-{user}", **further}
    return Met(at_s=at_s, vendor="apns", account="key", token=f"t-{user}", message_id=message, **fields)


def books(
    says: Sequence[Told],
    ends: dict[str, int],
    meets: Sequence[Met],
    *,
    unknown: int = 0,
    pending: int = 0,
    balanced: bool = True,
    doomed: frozenset[str] = frozenset(),
    settled: dict[str, float] | None = None,
) -> Books:
    users = {f"t-{user}": user for one in says for user in one.users}
    return Books(says, LedgerBook(ends, unknown, pending, balanced), Cloud(meets, users, doomed), settled or {})


def faults(found: Comparison) -> str:
    return "; ".join(found.faults)


def test_a_push_that_went_its_way_is_no_fault() -> None:
    found = compare(books([told("m")], {"sent:": 1}, [met("m")]), Terms())
    assert found.faults == []
    assert (found.accepted, found.lost, found.duplicated, found.late) == (1, 0, 0, 0)


def test_nothing_proves_nothing() -> None:
    assert "proves nothing" in faults(compare(books([], {}, []), Terms()))


def test_what_no_vendor_took_and_no_end_tells_of_is_lost() -> None:
    found = compare(books([told("m1"), told("m2")], {"sent:": 1}, [met("m1")]), Terms())
    assert found.lost == 1
    assert "lost 1, and 0 is the bound" in faults(found)
    assert "1 ends for 2 deliveries" in faults(found)


def test_an_end_that_says_sent_does_not_make_a_push_of_it() -> None:
    found = compare(books([told("m")], {"sent:": 1}, []), Terms())
    assert found.lost == 1


def test_other_ends_count_where_the_scenario_says_so() -> None:
    some = books([told("m1"), told("m2")], {"sent:": 1, EXPIRED: 1}, [met("m1")])
    assert compare(some, Terms(excused=frozenset({EXPIRED}))).faults == []
    found = compare(some, Terms())
    assert found.lost == 1
    assert f"ended as {EXPIRED}" in faults(found)


def test_pushes_to_dead_tokens_need_an_end_that_says_so() -> None:
    says = [told("m1", "ann", "bob")]
    assert compare(books(says, {"sent:": 1, DEAD: 1}, [met("m1")], doomed=frozenset({"bob"})), Terms()).faults == []
    unended = compare(books(says, {"sent:": 1}, [met("m1")], doomed=frozenset({"bob"})), Terms())
    assert unended.lost == 1
    of_the_living = compare(books(says, {DEAD: 2}, [], doomed=frozenset({"bob"})), Terms())
    assert of_the_living.lost == 1, "a token that is not dead at the vendor did not die"


def test_a_bound_allows_so_many() -> None:
    some = books([told("m1"), told("m2")], {"sent:": 1}, [met("m1")])
    assert compare(some, Terms(lost_bound=1)).faults == []


def test_what_was_never_accepted_may_have_come_or_not() -> None:
    says = [told("m1"), told("m2", accepted=False)]
    assert compare(books(says, {"sent:": 1}, [met("m1")]), Terms()).faults == []
    assert compare(books(says, {"sent:": 2}, [met("m1"), met("m2")]), Terms()).faults == []


def test_what_nobody_asked_for_and_ends_of_nothing_are_faults() -> None:
    found = compare(books([told("m1")], {"sent:": 2}, [met("m1"), met("m9")]), Terms())
    assert "1 deliveries were sent that nobody asked for" in faults(found)
    assert "2 ends for 1 deliveries" in faults(found)


def test_doubles_are_counted_by_delivery_and_excused_by_unknown_outcomes() -> None:
    some = [met("m"), met("m", at_s=0.6), met("m", "bob"), met("m", at_s=0.7, taken=False)]
    says = [told("m", "ann", "bob")]
    found = compare(books(says, {"sent:": 2}, some), Terms())
    assert found.duplicated == 1
    assert "duplicated 1, more than the 0 unknown outcomes" in faults(found)
    assert compare(books(says, {"sent:": 2}, some, unknown=1), Terms()).faults == []


def test_a_repeat_bears_the_same_id() -> None:
    found = compare(books([told("m")], {"sent:": 1}, [met("m"), met("m", sent_id="other")], unknown=1), Terms())
    assert faults(found) == "a repeat had another id than the first"


@pytest.mark.parametrize(("at_s", "late"), [(59.0, 0), (60.0 + LATE_S, 0), (60.1 + LATE_S, 1)])
def test_late_is_what_was_met_after_it_expired(at_s: float, late: int) -> None:
    found = compare(books([told("m", ttl_s=60)], {"sent:": 1}, [met("m", at_s=at_s + 0.5, since_s=at_s)]), Terms())
    assert found.late == late
    assert ("expired" in faults(found)) == bool(late)


def test_the_rate_holds_in_any_second_and_for_what_was_refused_as_well() -> None:
    some = [met(f"m{n}", at_s=0.9 + n * 0.1, taken=n % 2 == 0) for n in range(8)]
    says = [told(f"m{n}") for n in range(8)]
    found = compare(books(says, {"sent:": 8}, some), Terms(rates={"key": Rate(4, 2)}))
    assert found.over_rate == 2
    assert compare(books(says, {"sent:": 8}, some), Terms(rates={"key": Rate(6, 2)})).over_rate == 0
    assert compare(books(says, {"sent:": 8}, some), Terms(rates={"key": Rate(4, 2)}, connections=1)).over_rate == 1
    assert compare(books(says, {"sent:": 8}, some), Terms(rates={"another key": Rate(1, 1)})).over_rate == 0


def test_what_may_have_left_earlier_is_no_proof_of_a_rate_that_was_too_high() -> None:
    apart = [met(f"m{n}", at_s=2.0 + n * 0.01) for n in range(8)]
    lay_unread = [met(f"m{n}", at_s=2.0, since_s=0.5 if n < 4 else 1.9) for n in range(8)]
    says = [told(f"m{n}") for n in range(8)]
    terms = Terms(rates={"key": Rate(2, 2)})
    assert compare(books(says, {"sent:": 8}, apart), terms).over_rate == 4
    assert compare(books(says, {"sent:": 8}, lay_unread), terms).over_rate == 0


SPANS = st.lists(st.tuples(st.integers(0, 200), st.integers(0, 100)), max_size=40)


@given(SPANS)
def test_the_busiest_second_is_that_of_a_count_by_hand(spans: list[tuple[int, int]]) -> None:
    """In 64ths of a second, which floats hold exactly."""
    by_hand = [sum(since >= begin and since + span < begin + 64 for since, span in spans) for begin in range(201)]
    assert _peak([(since / 64, (since + span) / 64) for since, span in spans]) == max(by_hand)


@pytest.mark.parametrize(("after_s", "count"), [(DEATH_SETTLES_S - 0.1, 0), (DEATH_SETTLES_S + 0.1, 1)])
def test_whom_the_fleet_knows_to_be_dead_it_must_not_send_to(after_s: float, count: int) -> None:
    lay_unread = {"at_s": 10.5 + after_s, "since_s": 10.0 + after_s}
    some = [met("m1", at_s=10.0, taken=False, dead=True), met("m2", taken=False, dead=True, **lay_unread)]
    says = [told("m1"), told("m2")]
    doomed = frozenset({"ann"})
    found = compare(books(says, {DEAD: 2}, some, doomed=doomed, settled={"ann": 10.0}), Terms())
    assert found.after_death == count
    assert compare(books(says, {DEAD: 2}, some, doomed=doomed), Terms()).after_death == 0


def test_what_is_pending_or_does_not_balance_is_a_fault() -> None:
    found = compare(books([told("m")], {"sent:": 1}, [met("m")], pending=2, balanced=False), Terms())
    assert "2 are still pending" in faults(found)
    assert "do not balance" in faults(found)


def test_the_recovery_ends_with_the_last_push_that_had_waited() -> None:
    says = [told(f"m{n}", at_s=float(n)) for n in range(4)]
    some = [met("m0", at_s=20.0), met("m1", at_s=22.5), met("m2", at_s=2.1), met("m3", at_s=3.9)]
    assert compare(books(says, {"sent:": 4}, some), Terms(healed_at_s=15.0)).recovery_s == 7.5
    assert compare(books(says, {"sent:": 4}, some), Terms(healed_at_s=30.0)).recovery_s == 0
    assert compare(books(says, {"sent:": 4}, some), Terms()).recovery_s == 0


def test_latencies_count_from_the_making_to_the_first_taking() -> None:
    says = [told("m1", at_s=1.0), told("m2", at_s=5.0)]
    some = [met("m1", at_s=4.0), met("m1", at_s=1.5), met("m2", at_s=5.25)]
    whole = books(says, {"sent:": 2}, some)
    assert latencies_s(whole) == [0.25, 0.5]
    assert latencies_s(whole, since_s=2.0) == [0.25]
    assert latencies_s(whole, until_s=2.0) == [0.5]
    assert latencies_s(whole, "fcm") == []


FATES = st.lists(
    st.sampled_from(["sent", "twice", "thrice", "expired", "dead", "dead and expired", "lost"]), min_size=1, max_size=60
)


@given(FATES)
def test_whatever_befalls_deliveries_is_counted_as_it_is(fates: list[str]) -> None:
    times = {"sent": 1, "twice": 2, "thrice": 3}
    users = [f"user-{number}" for number in range(len(fates))]
    says = [told("m", *users)]
    some = [met("m", user) for user, fate in zip(users, fates, strict=True) for _ in range(times.get(fate, 0))]
    names = {**dict.fromkeys(times, "sent:"), "expired": EXPIRED, "dead": DEAD, "dead and expired": EXPIRED}
    ends = Counter(names[fate] for fate in fates if fate in names)
    doomed = frozenset(user for user, fate in zip(users, fates, strict=True) if "dead" in fate)
    found = compare(books(says, dict(ends), some, doomed=doomed), Terms(excused=frozenset({EXPIRED})))
    assert found.lost == fates.count("lost")
    assert found.duplicated == fates.count("twice") + 2 * fates.count("thrice")
