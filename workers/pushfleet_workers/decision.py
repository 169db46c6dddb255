"""Whether a message is pushed to a device: pure rules, each "no" with its reason.

The rules are asked in the order of message, receiver, device. Reasons: :data:`pushfleet_workers.reasons.SUPPRESSED`.
"""

from __future__ import annotations

from pushfleet.message import OfflineMessage, Recipient

__all__ = ["channel_for", "refuse_device", "refuse_message", "refuse_receiver"]

_CALLS = frozenset({"call", "call_cancel"})


def refuse_message(message: OfflineMessage) -> str:
    """Why the message is pushed to nobody; empty when it may be."""
    if message.online_only:
        return "online_only"
    if message.offline_push is not None and message.offline_push.disabled:
        return "push_disabled"
    return ""


def refuse_receiver(kind: str, recipient: Recipient, receive: str) -> str:
    """Why this receiver gets no push; empty when they may.

    *receive* is the receiver's option for the conversation: ``all``, ``mentions`` or ``none``. Calls pass "mentions".
    """
    if recipient.push == "never":
        return "push_never"
    if recipient.push == "force" or receive == "all":
        return ""
    if receive == "none":
        return "muted"
    mentioned = recipient.mention or kind == "mention" or kind in _CALLS
    return "" if mentioned else "mentions_only"
