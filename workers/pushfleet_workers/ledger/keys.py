"""The names of the ledger's keys: one hash tag per account, one per vendor."""

from __future__ import annotations

from pushfleet.message import LANES

__all__ = ["MARK_BUCKET_MS", "AccountKeys", "VendorKeys"]

MARK_BUCKET_MS = 600_000
"""A part's marker lies in the bucket of its stream entry's time; a repeat is known for one to two buckets."""


class AccountKeys:
    """The keys of one account."""

    __slots__ = (
        "books",
        "credential",
        "dead",
        "deaths",
        "delayed",
        "delayed_entries",
        "gate",
        "mark_index",
        "oks",
        "owners",
        "ready",
        "retrying",
        "root",
        "suspect",
        "vendor",
    )

    def __init__(self, prefix: str, vendor: str, credential: str) -> None:
        self.vendor = vendor
        self.credential = credential
        self.root = f"{prefix}:{{{vendor}:{credential}}}"
        self.books = f"{self.root}:books"
        self.gate = f"{self.root}:gate"
        self.owners = f"{self.root}:owners"
        self.suspect = f"{self.root}:suspect"
        self.ready = tuple(f"{self.root}:ready:{lane}" for lane in LANES)
        self.delayed = f"{self.root}:delayed"
        self.delayed_entries = f"{self.root}:delayed:entries"
        self.dead = f"{self.root}:dead"
        self.deaths = f"{self.root}:deaths"
        self.oks = f"{self.root}:oks"
        self.mark_index = f"{self.root}:marks"
        self.retrying = f"{self.root}:retrying"

    def leased(self, owner: str) -> str:
        """What the process *owner* has in hand."""
        return f"{self.root}:leased:{owner}"

    def newest(self, place: str) -> str:
        """What was sent last to a place for which a retry waits."""
        return f"{self.root}:newest:{place}"

    def marks(self, bucket: int) -> str:
        """The parts that were decided, by the time of their stream entries."""
        return f"{self.root}:marks:{bucket}"

    def marks_around(self, bucket: int) -> tuple[str, str, str]:
        """The marks of *bucket*, of the one before and of the one after: where a repeat's first write may stand."""
        return self.marks(bucket), self.marks(bucket - 1), self.marks(bucket + 1)


class VendorKeys:
    """The keys of one vendor: hints about where work is, which may be lost without harm."""

    __slots__ = ("bell", "listeners", "trigger")

    def __init__(self, prefix: str, vendor: str) -> None:
        root = f"{prefix}:{{{vendor}}}"
        self.bell = f"{root}:bell"
        self.trigger = f"{root}:trigger"
        self.listeners = f"{root}:listeners"
