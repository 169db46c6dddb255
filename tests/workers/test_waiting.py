"""What waits in a process: how much of it there should be, and in which order it leaves."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from tests.workers.doubles import Cloud
from tests.workers.ledger.support import an_entry

from pushfleet.message import LANES, Lane
from pushfleet_workers.hand import Held
from pushfleet_workers.ledger import Settlement
from pushfleet_workers.triage import Chunk
from pushfleet_workers.waiting import Ahead, Waiting


def held(name: str, lane: Lane = "normal", *, deliveries: int = 1, waited_s: float = 0.0) -> Held:
    entry = an_entry(name, deliveries=deliveries, lane=lane, ttl_s=60, put_ms=0)
    now = time.monotonic()
    return Held(entry, Settlement(entry.id, 1, deliveries), now, deliveries, queued_at=now - waited_s)


def waiting(
    window: int = 200, batch_size: int = 1, void: tuple[str, ...] = ()
) -> tuple[Waiting, list[Chunk], list[None]]:
    put_off: list[Chunk] = []
    low: list[None] = []
    queues = Waiting(
        Cloud(batch_size),
        window,
        void=lambda one: one.entry.parcel.push.message_id in void,
        put_off=put_off.extend,
        on_low=lambda: low.append(None),
    )
    return queues, put_off, low


def add(queues: Waiting, *some: Held) -> None:
    for one in some:
        queues.add(one, one.entry.parcel.deliveries)


# ---- how much is claimed ahead


def test_what_leaves_at_once_is_claimed_by_the_hundred() -> None:
    ahead = Ahead(150)
    for _ in range(5):
        ahead.heed(0.0)
    assert (ahead.count, ahead.low) == (150, 50)


def test_what_waits_long_is_claimed_in_small_numbers_and_more_again_once_it_leaves() -> None:
    ahead = Ahead(150)
    counts = []
    for waited_s in (1.0, 0.3, 0.15, 0.05, 0.0, 0.0):
        ahead.heed(waited_s)
        counts.append(ahead.count)
    assert counts == [75, 37, 37, 74, 148, 150]


@given(st.integers(1, 500), st.lists(st.floats(0, 60), max_size=50))
def test_something_is_always_claimed_ahead_and_never_more_than_the_most(most: int, waits_s: list[float]) -> None:
    ahead = Ahead(most)
    for waited_s in waits_s:
        ahead.heed(waited_s)
        assert min(6, most) <= ahead.count <= most
        assert ahead.low < ahead.count


def test_a_slow_process_has_less_room_than_a_fast_one() -> None:
    fast, slow = waiting()[0], waiting()[0]
    add(fast, held("m"))
    add(slow, held("m", waited_s=0.3))
    assert fast.room(200) == (149, 140 + 150)
    assert slow.room(200) == (74, 140 + 150)


def test_bulk_that_waits_long_lets_the_others_be_claimed_as_before() -> None:
    queues = waiting()[0]
    add(queues, held("b", "bulk", waited_s=0.3))
    assert queues.room(200) == (150, 140 + 75 - 1)


def test_what_is_under_way_takes_room_and_there_is_always_room_for_one() -> None:
    queues = waiting(window=10)[0]
    add(queues, *[held(f"m{number}") for number in range(60)])
    assert queues.room(3)[0] == 10 + 55 - 60 - 3
    assert queues.room(10)[0] == 1


def test_once_few_wait_it_is_time_to_claim() -> None:
    queues, _, low = waiting()
    assert queues.is_low
    add(queues, *[held(f"m{number}") for number in range(51)])
    assert not queues.is_low
    queues.next(mixes=False)
    assert (queues.is_low, low) == (False, [])
    queues.next(mixes=False)
    assert (queues.is_low, low) == (True, [None])


# ---- what leaves


@given(st.lists(st.sampled_from(LANES), max_size=30))
def test_the_more_urgent_leaves_first_and_of_one_lane_the_older(lanes: list[Lane]) -> None:
    queues = waiting()[0]
    some = [held(f"m{number}", lane) for number, lane in enumerate(lanes)]
    add(queues, *some)
    assert len(queues) == len(some)
    left = []
    while load := queues.next(mixes=False):
        left += [one for one, _ in load]
    assert left == sorted(some, key=lambda one: LANES.index(one.entry.lane))
    assert len(queues) == 0


@pytest.mark.parametrize(("batch_size", "sizes"), [(1, [1] * 7), (3, [3, 3, 1]), (500, [7])])
def test_a_parcel_waits_in_chunks_of_a_request(batch_size: int, sizes: list[int]) -> None:
    queues = waiting(batch_size=batch_size)[0]
    add(queues, held("m", deliveries=7))
    assert len(queues) == len(sizes)
    assert [len(deliveries) for _, deliveries in queues.drain()] == sizes
    assert len(queues) == 0


def test_bulk_leaves_a_part_of_the_window_to_the_others() -> None:
    queues = waiting(window=10)[0]
    for _ in range(7):
        queues.began("bulk")
    add(queues, held("b", "bulk"))
    assert not queues.may_go
    assert queues.next(mixes=False) == []
    queues.ended("bulk")
    assert queues.may_go
    assert len(queues.next(mixes=False)) == 1


@given(st.lists(st.tuples(st.sampled_from("ab"), st.booleans()), max_size=20))
def test_of_one_place_no_newer_message_leaves_before_an_older_one_that_is_put_off(some: list[tuple[str, bool]]) -> None:
    void = {f"m{number}" for number, (_, stale) in enumerate(some) if stale}
    queues, put_off, _ = waiting(void=tuple(void))
    names = {}
    for number, (place, _) in enumerate(some):
        one = held(f"m{number}")
        one.entry.parcel.push = replace(one.entry.parcel.push, replace_key=place)
        names[one] = number, place
        add(queues, one)
    left = []
    while load := queues.next(mixes=False):
        left += [names[one] for one, _ in load]
    stopped = [names[one] for one, _ in put_off]
    assert sorted(left + stopped) == sorted(names.values())
    assert len(queues) == 0
    for place in "ab":
        went = [number for number, at in left if at == place]
        stays = [number for number, at in stopped if at == place]
        assert went == sorted(went)
        assert stays == sorted(stays)
        assert not (went and stays) or max(went) < min(stays)


def test_what_must_not_leave_any_more_is_put_off() -> None:
    queues, put_off, _ = waiting(void=("stale",))
    stale, good = held("stale"), held("good")
    add(queues, stale, good)
    assert [one for one, _ in queues.next(mixes=False)] == [good]
    assert [one for one, _ in put_off] == [stale]
