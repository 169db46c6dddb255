"""Why a delivery ended without being sent: every reason once, with the sentence that operators read."""

from __future__ import annotations

__all__ = ["DEAD", "DROPPED", "MOVED", "REFUSED_ENTRIES", "SUPPRESSED"]

SUPPRESSED = {
    "online_only": "the message is for users who are online",
    "push_disabled": "the message says that it must not be pushed",
    "expired": "the message's time to live had run out when it was routed",
    "empty_text": "the message has no text to show",
    "push_never": "the backend asked for no push to this recipient",
    "push_off": "the receiver switched pushes off",
    "muted": "the receiver muted this conversation",
    "mentions_only": "the receiver wants only mentions from this conversation, and was not mentioned",
    "do_not_disturb": "the receiver is not to be disturbed at this hour, and this does not pass",
    "no_device": "the receiver has no registered device",
    "no_channel": "the device has no usable push token",
    "unknown_account": "the device's channel names a credential that the settings do not have",
    "notifications_off": "notifications are switched off on the device",
    "device_stale": "the device has neither registered nor reported for as long as the app's device_unused_days say",
    "logged_out": "the user is logged out on the device",
    "foreground": "the app is in the foreground on the device",
    "stormed": "many messages of the conversation came in a short time: another push tells of this one as well",
    "read": "the receiver has read the message already",
    "call_over": "the call had ended before it rang",
    "recalled": "the message was taken back before it left",
    "not_shown": "a message was taken back, and this is not what the device shows: it never got there, a newer push of "
    "the conversation has replaced it, or it was a call, which call_cancel ends",
    "recall_unknown": "the recall names nobody, and the fleet does not know whom the message went to: it was not "
    "pushed, or not yet, or longer ago than the app's recall_window_s",
    "recalls_off": "a message was taken back, and the app's recall_window_s is 0",
}
"""The decision said no."""

DROPPED = {
    "expired": "the message's time to live ran out before it could be sent",
    "token_dead": "the vendor says that the token is dead",
    "device_muted": "the vendor says that the device takes no notifications",
    "backlog": "the account holds more than its share of the ledger; new bulk work is not taken",
    "not_recallable": "it was to take back what was shown, and the vendor has no means for that",
    "unknown_outcome": "the request left, no answer came, and the account's on_unknown says drop",
}
"""It was due, but it makes no sense any more."""

MOVED = {
    "token_dead": "the vendor says that the token is dead",
    "quota_exhausted": "the vendor takes no more for today",
    "class_paused": "the account may not send this kind of message for now",
    "process_died": "it had gone on when the process that moved it died",
    "account_shut": "the account's breaker is open, or it pauses for a while",
}
"""The device has another channel: the delivery went on in that channel's account, and ends there."""

DEAD = {
    "attempts": "it failed as often as the account allows",
    "bad_payload": "the vendor refuses the payload",
    "poison": "the process that handled it died, three times, at last with nothing else in hand",
    "undecodable": "the ledger entry cannot be read",
}
"""Somebody must look: it lies in the dead letters."""

REFUSED_ENTRIES = {
    "malformed": "the stream entry breaks the contract",
    "unknown_app": "the message names an app that the settings do not have",
    "unroutable": "routing the entry failed by a defect of the fleet; the router's log says where",
}
"""Stream entries that never became deliveries: they lie in the lane's refused stream."""
