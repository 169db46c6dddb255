"""Where receipts are recorded: a stream per app that its backend reads, and counts. Ends and books are not touched."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

from pushfleet_workers.receipts.receipt import Event
from pushfleet_workers.redis_link import Link
from pushfleet_workers.redis_replies import good
from pushfleet_workers.scripts import load

__all__ = ["WINDOW_MS", "Entry", "ReceiptBook", "ReceiptKeys", "read_counts"]

_RECORD = load("pushfleet_workers.receipts", "record")
_AT_ONCE = 1_000
_VERSION = 1
_REPEATS_MAX = 100_000
WINDOW_MS = 600_000
"""A repeat is known for one to two windows."""


class ReceiptKeys:
    """The keys of one app's receipts; they share a hash tag."""

    __slots__ = ("counts", "stream")

    def __init__(self, prefix: str, app: str) -> None:
        self.stream = f"{prefix}:{{receipts:{app}}}"
        self.counts = f"{self.stream}:counts"

    def repeats(self, window: int) -> str:
        """The digests of what was recorded in a window."""
        return f"{self.stream}:repeats:{window}"


@dataclass(frozen=True, slots=True)
class Entry:
    """One receipt as it is recorded; empty is what is not known. Its repr shows no token."""

    event: Event
    at_ms: int
    vendor: str = ""
    credential: str = ""
    code: str = ""
    message_id: str = ""
    message_sha256: str = ""
    user: str = ""
    device: str = ""
    token: str = field(default="", repr=False)
    """Its fingerprint, not the token itself."""

    send_id: str = ""

    @property
    def counted_as(self) -> str:
        """Vendor, credential and event."""
        return f"{self.vendor}:{self.credential}:{self.event}"

    def digest(self) -> bytes:
        """The same for a repeat."""
        told = (self.counted_as, self.code, self.message_id, self.message_sha256, self.send_id, self.token)
        # What an app reports has no token: its device says whose receipt it is. Who owns a token may change.
        whose = () if self.token else (self.user, self.device)
        return blake2b("\0".join((*told, *whose)).encode(errors="surrogatepass"), digest_size=8).digest()


class ReceiptBook:
    """Records receipts.

    * **link** - the Redis of the queue, which backends reach already.
    * **kept** - about how many entries an app's stream keeps.
    """

    def __init__(self, link: Link, prefix: str, now_ms: Callable[[], int], *, kept: int) -> None:
        self._link = link
        self._prefix = prefix
        self._now_ms = now_ms
        self._kept = kept

    async def record(self, app: str, entries: Sequence[Entry]) -> int:
        """Record *entries*, repeats left out; gives how many are new. Up to a thousand are recorded together or not.

        Raises :class:`RedisUnusable`, and :class:`ReplyError` when Redis refuses; doing it again is safe.
        """
        keys, window = ReceiptKeys(self._prefix, app), self._now_ms() // WINDOW_MS
        where = (keys.stream, keys.counts, keys.repeats(window), keys.repeats(window - 1))
        calls = []
        for start in range(0, len(entries), _AT_ONCE):
            arguments: list[Any] = [self._kept, _REPEATS_MAX, 2 * WINDOW_MS // 1000]
            for entry in entries[start : start + _AT_ONCE]:
                arguments += (entry.digest(), entry.counted_as, *_fields(entry))
            calls.append((_RECORD, where, tuple(arguments)))
        return sum(good(await self._link.run_many(calls) if calls else ()))


def _fields(entry: Entry) -> tuple[str | bytes | int, ...]:
    names = (entry.event, entry.code, entry.vendor, entry.credential)
    whose = (entry.message_id, entry.message_sha256, entry.user, entry.device, entry.token)
    return (_VERSION, *names, *(one.encode(errors="replace") for one in whose), entry.at_ms)


async def read_counts(link: Link, prefix: str, app: str) -> dict[tuple[str, str, str], int]:
    """Receipts of *app* by vendor, credential and event; both names are empty for what apps report themselves.

    Raises :class:`RedisUnusable`.
    """
    flat = await link.call("HGETALL", ReceiptKeys(prefix, app).counts)
    counts: dict[tuple[str, str, str], int] = {}
    for at in range(0, len(flat), 2):
        vendor, credential, event = flat[at].decode().split(":")
        counts[vendor, credential, event] = int(flat[at + 1])
    return counts
