from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pushfleet_workers.receipts.limits import Buckets


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def test_twice_the_rate_may_come_at_once_and_then_the_rate() -> None:
    clock = Clock()
    buckets = Buckets(5, monotonic=clock)
    assert [buckets.take("a") for _ in range(12)] == [True] * 10 + [False] * 2
    clock.now_s += 1
    assert [buckets.take("a") for _ in range(6)] == [True] * 5 + [False]
    assert buckets.take("b")


def test_a_slow_rate_still_lets_one_in() -> None:
    clock = Clock()
    buckets = Buckets(0.1, monotonic=clock)
    assert [buckets.take("a"), buckets.take("a")] == [True, False]
    clock.now_s += 10
    assert buckets.take("a")


@given(steps=st.lists(st.tuples(st.integers(0, 3), st.floats(0, 2)), max_size=200))
def test_no_key_ever_gets_more_than_it_may(steps: list[tuple[int, float]]) -> None:
    clock = Clock()
    buckets, taken = Buckets(3, monotonic=clock), [0] * 4
    for key, wait_s in steps:
        clock.now_s += wait_s
        taken[key] += buckets.take(key)
        assert taken[key] <= 6 + 3 * clock.now_s + 1e-6


def test_only_so_many_keys_are_known_and_the_busy_ones_stay() -> None:
    clock = Clock()
    buckets = Buckets(1, keys_max=10, monotonic=clock)
    for _ in range(3):
        buckets.take("busy")
    for number in range(1_000):
        buckets.take(number)
        assert not buckets.take("busy")
    assert len(buckets) == 10
