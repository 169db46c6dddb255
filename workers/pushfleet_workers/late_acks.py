"""Triggers that are acknowledged after their connection broke: Celery must not end a worker by that."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from celery import bootsteps

__all__ = ["LateAcks", "forgive_late_acks"]


class LateAcks(bootsteps.StartStopStep):
    """The step of a Celery consumer that lets acknowledgements of each of its connections come late."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def start(self, parent: Any) -> None:
        """Called whenever the consumer starts."""
        forgive_late_acks(parent.task_consumer.channel)


def forgive_late_acks(channel: Any) -> None:
    """Let acknowledging over *channel* do nothing once that was closed.

    A drain runs for as long as there is work, and may outlive the connection that its trigger came over. With the
    channel closed kombu raises an ``AttributeError``, which Celery takes for the end of the worker. What is not
    acknowledged comes again, and a trigger too many is harmless.
    """
    acknowledge, reject = channel.basic_ack, channel.basic_reject

    def unless_closed(call: Callable[..., None], *args: object, **options: object) -> None:
        try:
            if not channel.closed:
                call(*args, **options)
        except AttributeError:
            # It may be closed between two steps.
            if not channel.closed:
                raise

    channel.basic_ack, channel.basic_reject = partial(unless_closed, acknowledge), partial(unless_closed, reject)
