"""Triggers that are acknowledged after their connection broke: Celery must not end a worker by that."""

from __future__ import annotations

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

    def basic_ack(delivery_tag: str, multiple: bool = False) -> None:
        if not channel.closed:
            acknowledge(delivery_tag, multiple=multiple)

    def basic_reject(delivery_tag: str, requeue: bool = False) -> None:
        if not channel.closed:
            reject(delivery_tag, requeue=requeue)

    channel.basic_ack, channel.basic_reject = basic_ack, basic_reject
