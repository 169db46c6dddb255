"""Whether a message is pushed to a device: pure rules, each "no" with its reason.

Asked in the order of message, receiver, device. The reasons: :data:`pushfleet_workers.reasons.SUPPRESSED`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

from pushfleet.message import OfflineMessage, Recipient
from pushfleet_workers.tokens.preferences import Preferences, is_quiet
from pushfleet_workers.tokens.record import FOREGROUND, Channel, Device

__all__ = [
    "channel_for",
    "reach",
    "refuse_delivered",
    "refuse_device",
    "refuse_hour",
    "refuse_message",
    "refuse_read",
    "refuse_recall",
    "refuse_receiver",
]

_CALLS = frozenset({"call", "call_cancel"})


def refuse_message(message: OfflineMessage, sent_at_ms: int, now_ms: int, *, has_text: bool = True) -> str:
    """Why the message is pushed to nobody; empty when it may be."""
    if message.online_only:
        return "online_only"
    if message.offline_push is not None and message.offline_push.disabled:
        return "push_disabled"
    if sent_at_ms + message.effective_ttl_s * 1000 <= now_ms:
        return "expired"
    return "" if has_text else "empty_text"


def refuse_recall(kind: str, window_s: int, people: int, expires_at_ms: int, now_ms: int) -> str:
    """Why a message of *kind* is taken back from nobody's screen; empty when it may be.

    *window_s* is the app's, *people* how many recipients and targets the message is known to have had.
    """
    if not window_s:
        return "recalls_off"
    if not people:
        return "recall_unknown"
    if kind == "call":
        return "not_shown"
    return "expired" if expires_at_ms <= now_ms else ""


def refuse_receiver(kind: str, recipient: Recipient, receive: str, preferences: Preferences | None = None) -> str:
    """Why this receiver gets no push; empty when they may.

    *receive* is the receiver's option for the conversation: ``all``, ``mentions`` or ``none``. Calls pass "mentions".
    The hours in which the receiver is not to be disturbed may differ by device: :func:`refuse_hour`.
    """
    if recipient.push == "never":
        return "push_never"
    if recipient.push == "force":
        return ""
    if preferences is not None and not preferences.push:
        return "push_off"
    if receive == "all":
        return ""
    if receive == "none":
        return "muted"
    return "" if _mentions(kind, recipient) or kind in _CALLS else "mentions_only"


def refuse_read(kind: str, recipient: Recipient, *, done: bool) -> str:
    """Why the receiver needs no push of what they are *done* with; empty where they do.

    Done with is a message that they have read, and a call that is over; calls ring whatever was read.
    """
    if not done:
        return ""
    if kind == "call":
        return "call_over"
    return "" if recipient.push == "force" or kind in _CALLS else "read"


def refuse_delivered(sent_at_ms: int, confirmed_up_to_ms: int) -> str:
    """Why a device that was in the foreground needs no push of what was written at *sent_at_ms*; empty where it does.

    *confirmed_up_to_ms* is until when the backend confirms that the device has everything; 0: it does not.
    """
    return "delivered" if sent_at_ms <= confirmed_up_to_ms else ""


def refuse_hour(kind: str, recipient: Recipient, preferences: Preferences | None, device_zone: str, now_ms: int) -> str:
    """Why the receiver is not to be disturbed now; empty when they may be.

    *device_zone* is the time zone of the device, where the preferences name none. What passes says the receiver.
    """
    if preferences is None or recipient.push == "force":
        return ""
    if preferences.calls_pass and kind in _CALLS:
        return ""
    if preferences.mentions_pass and _mentions(kind, recipient):
        return ""
    return "do_not_disturb" if is_quiet(preferences, device_zone, now_ms) else ""


def _mentions(kind: str, recipient: Recipient) -> bool:
    """Whether the receiver is mentioned; a message of kind ``mention`` mentions everybody that it goes to."""
    return recipient.mention or kind == "mention"


def refuse_device(device: Device, now_ms: int, *, forced: bool = False, unused_ms: int = 0) -> str:
    """Why this device gets no push; empty when it may.

    A foreground report holds until its lease runs out: the app may have died without a word. *forced* passes it. A
    device that was silent for *unused_ms* has expired; 0: none has.
    """
    if device.logged_out:
        return "logged_out"
    # What reported lately need not be asked when it registered.
    if unused_ms and device.state_at_ms < now_ms - unused_ms and device.heard_at_ms < now_ms - unused_ms:
        return "device_stale"
    if not device.permitted:
        return "notifications_off"
    if device.state == FOREGROUND and now_ms < device.lease_until_ms and not forced:
        return "foreground"
    return ""


def channel_for(
    device: Device, kind: str, now_ms: int, push_type: str | None = None, passing_over: Collection[str] = ()
) -> Channel | None:
    """The channel that a message of *kind* goes to: VoIP for calls where there is one, else the first for alerts.

    *push_type*, where the message has one (``alert``, ``background``, ``voip``), decides instead of the kind; channels
    whose names are in *passing_over* do not count.
    """
    usable = [
        channel
        for channel in device.channels
        if channel.quarantined_until_ms <= now_ms and (not passing_over or channel.name not in passing_over)
    ]
    if (push_type or kind) in ("call", "voip"):
        for channel in usable:
            if channel.kind == "voip":
                return channel
    for channel in usable:
        if channel.kind != "voip":
            return channel
    return None


def reach(
    device: Device,
    app: str,
    kind: str,
    now_ms: int,
    takes: Callable[[str, str, str], bool],
    *,
    push_type: str | None = None,
    forced: bool = False,
    unused_ms: int = 0,
) -> Channel | str:
    """The channel by which a message of *app* reaches the device, or the reason why none does.

    *takes* says whether a vendor's credential (the first two) is an account of the app that takes new work. The rest
    is as in :func:`refuse_device` and :func:`channel_for`.
    """
    reason = refuse_device(device, now_ms, forced=forced, unused_ms=unused_ms)
    if reason:
        return reason
    channel = channel_for(device, kind, now_ms, push_type)
    if channel is None:
        return "no_channel"
    return channel if takes(channel.vendor, channel.credential, app) else "unknown_account"
