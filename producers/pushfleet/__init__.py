"""pushfleet: hand a message to the offline-push fleet of an instant-messaging product.

with Producer("redis://queue.internal/0") as producer:
producer.enqueue(OfflineMessage(id="m1", app="chat", recipients=("alice",), body="Lunch?"))
"""

from __future__ import annotations

from pushfleet.aio import AsyncProducer
from pushfleet.errors import Backpressure, EnqueueError, InvalidMessage, PushfleetError, QueueUnavailable
from pushfleet.message import Conversation, Element, OfflineMessage, OfflinePush, Recipient, Sender, Target
from pushfleet.producer import Producer
from pushfleet.transfer import BatchReceipt, Receipt

__all__ = [
    "AsyncProducer",
    "Backpressure",
    "BatchReceipt",
    "Conversation",
    "Element",
    "EnqueueError",
    "InvalidMessage",
    "OfflineMessage",
    "OfflinePush",
    "Producer",
    "PushfleetError",
    "QueueUnavailable",
    "Receipt",
    "Recipient",
    "Sender",
    "Target",
]
