"""What the fake cloud received: the third book, beside the producer's and the ledger's."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Mapping
from typing import Any

from msgspec import Struct

from pushfleet_workers.fakecloud.wire import Call

__all__ = ["Accepted", "Book", "Page", "SlidingPeak", "message_id_of"]


class Accepted(Struct, frozen=True):
    """One push to one token that the vendor took."""

    vendor: str
    account: str
    token: str
    title: str
    body: str
    sent_id: str
    """The vendor's own place for an id of the sender: ``apns-id``, Huawei's ``bi_tag``; else empty."""

    message_id: str
    """``mid`` or ``message_id`` of the custom payload, where it is text; else empty."""

    replace_key: str
    data: Mapping[str, Any]
    """The custom payload as sent."""

    at_monotonic_s: float
    at_unix_s: float
    callback: Mapping[str, str] = {}
    """What it asks for in receipts: ``param``, ``url``, ``type``."""

    def __repr__(self) -> str:
        return f"Accepted({self.vendor!r}, account={self.account!r}, sent_id={self.sent_id!r})"


class SlidingPeak:
    """The most targets that fell into any one second, whatever moment the second begins.

    The moment of a target is the moment its request was read. Where the fake itself is held up, requests that came
    apart are read together and the peak is too high, never too low.
    """

    def __init__(self, window_s: float = 1.0) -> None:
        self._window_s = window_s
        self._recent: deque[tuple[float, int]] = deque()
        self._sum = 0
        self.peak = 0

    def add(self, at_s: float, targets: int) -> None:
        """Count *targets* at *at_s*, which never goes back."""
        recent = self._recent
        recent.append((at_s, targets))
        self._sum += targets
        edge = at_s - self._window_s
        while recent[0][0] <= edge:
            self._sum -= recent.popleft()[1]
        self.peak = max(self.peak, self._sum)


class Page:
    """The book of one vendor."""

    def __init__(self) -> None:
        self.requests = 0
        """Requests that were read to their end, token requests included."""

        self.accepted = 0
        """Targets (pushes times tokens) that the vendor took."""

        self.results: Counter[str] = Counter()
        """Requests by what became of them: ``accepted``, a vendor's code, ``status 418``, ``silent``, …"""

        self.by_token: Counter[str] = Counter()
        """Accepted pushes of each token."""

        self.dead_targets = 0
        """Targets that were refused because their token is dead."""

        self.after_death = 0
        """Targets whose token had been refused as dead before."""

        self.peaks: dict[str, SlidingPeak] = {}
        """By account."""

        self._told: set[str] = set()

    def meet(self, tokens: Iterable[str]) -> None:
        """Count those of *tokens* that the sender should have forgotten."""
        if self._told:
            self.after_death += sum(token in self._told for token in tokens)

    def tell_dead(self, tokens: Iterable[str]) -> None:
        """Remember that the sender was told that *tokens* are dead."""
        for token in tokens:
            self.dead_targets += 1
            self._told.add(token)

    def revive(self, token: str) -> None:
        """Forget that *token* was ever dead."""
        self._told.discard(token)

    def summary(self) -> dict[str, Any]:
        """The page as JSON-ready fields, without tokens."""
        return {
            "requests": self.requests,
            "accepted": self.accepted,
            "tokens": len(self.by_token),
            "results": dict(self.results),
            "dead_targets": self.dead_targets,
            "after_death": self.after_death,
            "peak_targets_per_s": {account: peak.peak for account, peak in self.peaks.items()},
        }


class Book:
    """A page per vendor, and a record of the latest accepted pushes."""

    def __init__(self, vendors: Iterable[str], keep: int = 10_000) -> None:
        self._vendors = tuple(vendors)
        self.record: deque[Accepted] = deque(maxlen=keep)
        """The latest accepted pushes, oldest first; at most *keep* of them, 0 for none."""

        self.pages: dict[str, Page] = {}
        self.clear()

    def clear(self) -> None:
        """Begin again; whoever holds a page holds an old one."""
        self.record.clear()
        self.pages = {vendor: Page() for vendor in self._vendors}

    def accept(self, vendor: str, call: Call, tokens: Iterable[str], monotonic_s: float, unix_s: float) -> None:
        """Enter the push in *call* as taken for each of *tokens*."""
        page = self.pages[vendor]
        count = 0
        message_id = message_id_of(call.data) if self.record.maxlen else ""
        for token in tokens:
            count += 1
            page.by_token[token] += 1
            if self.record.maxlen:
                self.record.append(
                    Accepted(
                        vendor,
                        call.account,
                        token,
                        call.title,
                        call.body,
                        call.sent_id,
                        message_id,
                        call.replace_key,
                        call.data,
                        monotonic_s,
                        unix_s,
                        call.callback,
                    )
                )
        page.accepted += count
        peak = page.peaks.get(call.account)
        if peak is None:
            peak = page.peaks[call.account] = SlidingPeak()
        peak.add(monotonic_s, count)

    def received(self, vendor: str = "", token: str = "") -> list[Accepted]:
        """The recorded pushes, oldest first, of one vendor and of one token where given."""
        return [
            push for push in self.record if (not vendor or push.vendor == vendor) and (not token or push.token == token)
        ]

    def peak(self, vendor: str, account: str = "") -> int:
        """The most targets accepted in any sliding second, of one account or of the busiest one."""
        peaks = self.pages[vendor].peaks
        chosen = [peaks[account]] if account in peaks else [] if account else list(peaks.values())
        return max((peak.peak for peak in chosen), default=0)

    def summary(self) -> dict[str, Any]:
        """Every page's summary by vendor."""
        return {vendor: page.summary() for vendor, page in self.pages.items()}


def message_id_of(data: Mapping[str, Any]) -> str:
    """The message's id in a custom payload; empty where there is none, or it is no text."""
    for name in ("mid", "message_id"):
        value = data.get(name)
        if isinstance(value, str):
            return value
    return ""
