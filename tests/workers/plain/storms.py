"""Many messages of one conversation to one place: which are pushed, when, and what each push tells of."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

WAITS_S = (107, 307, 807)
"""How long the next push waits after the first one, the second, and all further ones."""

QUIET_S = 1_050
KNOWN_MAX = 20


@dataclass(frozen=True)
class Written:
    """A message, as far as a push that counts messages knows it."""

    message: str
    at: int
    sender: str
    unread: int | None = None


@dataclass
class Told:
    """What one push tells of; the first message carries it."""

    messages: list[Written]
    latest: Written

    @property
    def carrier(self) -> str:
        return self.messages[0].message

    def add(self, one: Written) -> None:
        self.messages.append(one)
        if one.at >= self.latest.at:
            self.latest = one

    def left(self, read_up_to: int, taken_back: Collection[str]) -> tuple[list[Written], str]:
        """The messages that are neither read nor taken back, and who wrote the latest.

        Which they are is known of the carrier and of the last few. The others are older: they are read once any of the
        last few is.
        """
        carrier, *others = self.messages
        unknown, last = others[: -(KNOWN_MAX - 1)], others[-(KNOWN_MAX - 1) :]
        known = [carrier, *last]
        if any(one.at <= read_up_to for one in last):
            unknown = []
        left = [one for one in known if one.at > read_up_to and one.message not in taken_back]
        of_the_latest = [one for one in known if one.at == self.latest.at]
        is_gone = bool(of_the_latest) and not any(one in left for one in of_the_latest)
        return unknown + left, "" if is_gone else self.latest.sender


@dataclass
class Storm:
    """What came of one conversation for one place. Times are Unix milliseconds."""

    pushes: int = 0
    until: int = 0
    """Nothing more is pushed before."""

    last_came: int = 0
    latest_at: int = 0
    """When the latest message was written."""

    waiting: Told | None = None
    before: Told | None = None

    def meet(self, one: Written, now: int, expires: int) -> Literal["at once", "carries", "told"]:
        """What becomes of a message that comes *now*."""
        is_quiet = now >= max(self.last_came + QUIET_S * 1000, self.until)
        if self.waiting is not None and now >= self.until:
            # It was pushed when it was due, and the next wait began then.
            self.before, self.waiting = self.waiting, None
            self._wait_from(self.until)
        if is_quiet:
            self.pushes = self.until = 0
        self.last_came, self.latest_at = now, max(self.latest_at, one.at)
        if now >= self.until:
            # Nothing came while it waited: it calms down.
            self.pushes = max(0, self.pushes - 2)
            self._wait_from(now)
            return "at once"
        if expires <= self.until:
            return "at once"
        if self.waiting is None:
            self.waiting = Told([one], one)
            return "carries"
        self.waiting.add(one)
        return "told"

    def _wait_from(self, start: int) -> None:
        self.until = start + WAITS_S[min(self.pushes, len(WAITS_S) - 1)] * 1000
        self.pushes = min(self.pushes + 1, len(WAITS_S))

    def told_by(self, message: str, now: int, read_up_to: int, taken_back: Collection[str]) -> Told | None:
        """What a carrier tells of that is sent *now*; None: a newer one is enough, which has something to tell."""
        if self.waiting is not None and self.waiting.carrier == message:
            return self.waiting
        is_last = self.waiting is None or now < self.until or not self.waiting.left(read_up_to, taken_back)[0]
        return self.before if is_last and self.before is not None and self.before.carrier == message else None
