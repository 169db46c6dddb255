"""When a vendor that goes by the day opens again."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

from hypothesis import given
from hypothesis import strategies as st

from pushfleet_workers.outcome import DayHour, Outcome, Verdict


@given(now_ms=st.integers(0, 4_000_000_000_000), hour=st.integers(0, 23), offset_h=st.integers(-12, 14))
def test_the_next_hour_of_the_day_is_within_a_day_and_right_on_the_wall(now_ms: int, hour: int, offset_h: int) -> None:
    next_ms = DayHour(hour, offset_h).next_ms(now_ms)
    assert 0 < next_ms - now_ms <= 86_400_000
    there = datetime.fromtimestamp(next_ms / 1000, UTC).astimezone(timezone(timedelta(hours=offset_h)))
    assert (there.hour, there.minute, there.second) == (hour, 0, 0)


def test_the_longer_of_two_waits_holds() -> None:
    midnight = DayHour(0, 8)
    now_ms = midnight.next_ms(0) - 5_000
    assert Outcome(Verdict.QUOTA_EXHAUSTED, until=midnight).asked_ms(now_ms) == 5_000
    assert Outcome(Verdict.QUOTA_EXHAUSTED, until=midnight, wait_s=60).asked_ms(now_ms) == 60_000
    assert Outcome(Verdict.RETRY).asked_ms(now_ms) == 0
    assert str(midnight) == "00:00 UTC+8"
