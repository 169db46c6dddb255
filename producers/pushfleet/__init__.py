"""pushfleet: hand a message to the offline-push fleet of an instant-messaging product.

with Producer("redis://queue.internal/0") as producer:
producer.enqueue(OfflineMessage(id="m1", app="chat", recipients=("alice",), body="Lunch?"))

Devices, states and preferences go to the fleet's API: :class:`TokenState`.
"""

from __future__ import annotations

from pushfleet.aio import AsyncProducer
from pushfleet.devices import (
    Channel,
    ClientReceipt,
    Confirmation,
    DoNotDisturb,
    Preferences,
    QuietHours,
    Registration,
    Sounds,
    StateReport,
)
from pushfleet.errors import (
    ApiError,
    ApiRefused,
    ApiUnavailable,
    Backpressure,
    EnqueueError,
    InvalidMessage,
    PushfleetError,
    QueueUnavailable,
)
from pushfleet.http import AsyncTokenState, TokenState
from pushfleet.message import Conversation, Element, OfflineMessage, OfflinePush, Recipient, Sender, Target
from pushfleet.producer import Producer
from pushfleet.transfer import BatchReceipt, Receipt

__all__ = [
    "ApiError",
    "ApiRefused",
    "ApiUnavailable",
    "AsyncProducer",
    "AsyncTokenState",
    "Backpressure",
    "BatchReceipt",
    "Channel",
    "ClientReceipt",
    "Confirmation",
    "Conversation",
    "DoNotDisturb",
    "Element",
    "EnqueueError",
    "InvalidMessage",
    "OfflineMessage",
    "OfflinePush",
    "Preferences",
    "Producer",
    "PushfleetError",
    "QueueUnavailable",
    "QuietHours",
    "Receipt",
    "Recipient",
    "Registration",
    "Sender",
    "Sounds",
    "StateReport",
    "Target",
    "TokenState",
]
