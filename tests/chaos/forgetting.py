"""What a Redis has forgotten after a crash or a failover, as a span of time: whatever is lost was accepted within it.

Marks are written to the server all the while, each with the time when it was sent. Whoever was told of a write before
then has it in front of the mark. So the last mark that is still there tells since when things may be gone.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

import msgspec
import redis
from msgspec import Struct
from tests.chaos.stage import Stage

__all__ = ["MARK", "Forgotten", "Marks", "expect_only_these_lost"]

MARK = "chaos:mark"
EVERY_S = 0.01


class Forgotten(Struct, frozen=True):
    """What happened since may be gone; times in Unix seconds."""

    since_s: float
    died_s: float
    back_s: float
    """From when on there was a server again. Whoever was told of a write before was told by the one that died."""

    def covers(self, at_s: float) -> bool:
        """Whether what was told at that time may be gone."""
        return self.since_s <= at_s <= self.back_s


class Marks:
    """Writes marks to the server at *url*, from a thread; a context manager.

    * **look** - called after each mark.
    """

    def __init__(self, url: str, look: Callable[[], None] = lambda: None) -> None:
        self._url = url
        self._look = look
        self._sent_at_s: list[float] = []
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._mark, name="marks", daemon=True)

    def sent_at_s(self, mark: bytes | None) -> float:
        """When *mark* was sent; None: before everything."""
        return self._sent_at_s[int(mark)] if mark is not None else 0.0

    def _mark(self) -> None:
        while not self._ending.wait(EVERY_S):
            with contextlib.suppress(redis.RedisError), redis.Redis.from_url(self._url) as client:
                while not self._ending.wait(EVERY_S):
                    self._sent_at_s.append(time.time())
                    client.set(MARK, len(self._sent_at_s) - 1)
                    self._look()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ending.set()
        self._thread.join(10)


def expect_only_these_lost(stage: Stage, times: Sequence[Forgotten]) -> None:
    """What was accepted within *times* may be lost, and nothing else; waits until nothing is pending."""
    stage.until_idle()
    books = stage.books()
    gone = {one.id for one in books.told if any(time.covers(one.told_at_s) for time in times)}
    bound = sum(len(one.users) for one in books.told if one.accepted and one.id in gone)
    taken = {books.cloud.pair(met) for met in books.cloud.taken()}
    missing = {pair for pair in books.due() - taken if pair[1] not in books.cloud.doomed}
    stage.expect(all(message in gone for message, _ in missing), "all that is lost was accepted in that time")
    stage.measured("forgotten_s", max(time.died_s - time.since_s for time in times))
    stage.terms = msgspec.structs.replace(stage.terms, lost_bound=bound)
