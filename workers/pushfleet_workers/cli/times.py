"""Times on the command line: spans such as ``30m``, and moments as an age or in ISO 8601."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

import click

__all__ = ["Duration", "Moment", "shown_date"]

_UNITS_S = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
_SPAN = re.compile(r"(\d{1,9})([smhd])")


class Duration(click.ParamType[int]):
    """A span in seconds, given as ``90s``, ``30m``, ``24h`` or ``7d``.

    * **most_s** - the longest that is taken; whole days.
    * **least_s** - the shortest.
    """

    name = "duration"

    def __init__(self, most_s: int, least_s: int = 0) -> None:
        self._most_s = most_s
        self._least_s = least_s

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """The seconds in *value*, or a refusal."""
        if isinstance(value, int):
            return value
        seconds = _seconds(str(value))
        if seconds is None or not self._least_s <= seconds <= self._most_s:
            most = f"{self._most_s // 86_400}d"
            self.fail(f"{value!r} is no time from {self._least_s}s to {most}: write 90s, 30m, 24h or 7d")
        return seconds


class Moment(click.ParamType[int]):
    """A time in Unix milliseconds, given as an age (``2h``) or in ISO 8601."""

    name = "when"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """The time in *value*, or a refusal."""
        if isinstance(value, int):
            return value
        now = datetime.now(UTC)
        age_s = _seconds(str(value))
        if age_s is not None:
            return int(now.timestamp() * 1000) - age_s * 1000
        try:
            moment = datetime.fromisoformat(str(value))
        except ValueError:
            self.fail(f"{value!r} is neither an age (90s, 30m, 24h, 7d) nor a time (2026-01-31T12:00)")
        moment = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
        return max(0, int(moment.timestamp() * 1000))


def shown_date(at_ms: int) -> str:
    """A time in Unix milliseconds as people read it; empty for 0."""
    return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC") if at_ms else ""


def _seconds(span: str) -> int | None:
    found = _SPAN.fullmatch(span)
    return int(found[1]) * _UNITS_S[found[2]] if found else None
