"""The Celery side, as data: the one task, and a queue per vendor."""

from __future__ import annotations

from collections.abc import Sequence

from kombu.entity import Queue

__all__ = ["DRAIN", "QUEUE_PREFIX", "queue_of", "queues", "vendor_of"]

DRAIN = "push.drain"
"""The name of the task that says "there is work"; it carries the vendor's name and nothing else."""

QUEUE_PREFIX = "push."


def queue_of(vendor: str) -> str:
    """The Celery queue of a vendor."""
    return QUEUE_PREFIX + vendor


def vendor_of(queue: str) -> str | None:
    """The vendor whose queue that is; None for a queue that is not of the fleet."""
    return queue.removeprefix(QUEUE_PREFIX) if queue.startswith(QUEUE_PREFIX) else None


def queues(vendors: Sequence[str]) -> tuple[Queue, ...]:
    """The queues of *vendors*, on the anonymous exchange: no binding table that could be lost."""
    return tuple(Queue(queue_of(vendor), exchange="", routing_key=queue_of(vendor)) for vendor in vendors)
