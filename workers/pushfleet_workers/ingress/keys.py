"""The names of the ingress' keys: one hash tag per lane."""

from __future__ import annotations

from pushfleet.message import Lane
from pushfleet.wire import ingress_key

__all__ = ["IngressKeys"]


class IngressKeys:
    """The keys of one lane's ingress."""

    def __init__(self, prefix: str, lane: Lane) -> None:
        self.stream = ingress_key(prefix, lane)
        self.books = f"{self.stream}:books"
        self.refused = f"{self.stream}:refused"
        self.mark_index = f"{self.stream}:marks"

    def marks(self, bucket: int) -> str:
        """The parts that were acknowledged, by the time of their entries."""
        return f"{self.stream}:marks:{bucket}"

    def marks_around(self, bucket: int) -> tuple[str, str, str]:
        """The marks of *bucket*, of the one before and of the one after: where a repeat's first write may stand."""
        return self.marks(bucket), self.marks(bucket - 1), self.marks(bucket + 1)
