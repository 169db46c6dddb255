"""Why a delivery ended without being sent: every reason once, with the sentence that operators read and an example."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["DEAD", "DROPPED", "MOVED", "REFUSED_ENTRIES", "SUPPRESSED", "Reason"]


class Reason(NamedTuple):
    """What a reason means; both are sentences without a full stop."""

    sentence: str
    example: str


SUPPRESSED = {
    "online_only": Reason(
        "the message is for users who are online",
        'the backend sends "Ann is typing" with online_only; whoever is offline never hears of it',
    ),
    "push_disabled": Reason(
        "the message says that it must not be pushed",
        "a bot edits its last message and sets offline_push.disabled, since nobody needs to look for that",
    ),
    "expired": Reason(
        "the message's time to live had run out when it was routed",
        "routers were down for a minute, and a call with 30 s to ring waited in the stream all that time",
    ),
    "empty_text": Reason(
        "the message has no text to show",
        "a single custom element carries a signal of the app, and neither its desc nor offline_push.desc is given",
    ),
    "push_never": Reason(
        "the backend asked for no push to this recipient",
        'a recipient entry says {"id": "bob", "push": "never"}, as Bob wrote the message himself on another device',
    ),
    "push_off": Reason(
        "the receiver switched pushes off",
        'Bob\'s settings page did PATCH …/users/bob/preferences with {"push": false}; a call does not pass either',
    ),
    "muted": Reason(
        "the receiver muted this conversation",
        "Bob set the receive option of the group to none for eight hours, of which five are left",
    ),
    "mentions_only": Reason(
        "the receiver wants only mentions from this conversation, and was not mentioned",
        'Ann writes "lunch?" to the group; Bob, whose option is mentions, gets the push only if he is in it by name',
    ),
    "do_not_disturb": Reason(
        "the receiver is not to be disturbed at this hour, and this does not pass",
        "Bob's hours are 22:00 to 07:00 in Asia/Shanghai, and a chat comes at 23:30 there; a call would ring",
    ),
    "no_device": Reason(
        "the receiver has no registered device",
        "Bob only ever used the web client, or his devices were removed",
    ),
    "no_channel": Reason(
        "the device has no usable push token",
        "the vendor called the phone's only token dead last week, and the app has not registered a new one",
    ),
    "unknown_account": Reason(
        "the device's channel names a credential that the settings do not have",
        "the token came in for huawei:beta, and [accounts.huawei.beta] was taken out of the settings since",
    ),
    "notifications_off": Reason(
        "notifications are switched off on the device",
        "the app registered with notifications false, as the user declined them in the system's dialog",
    ),
    "device_stale": Reason(
        "the device has neither registered nor reported for as long as the app's device_unused_days say",
        "an old phone lies in a drawer for 30 days; it gets pushes again once the app is opened on it",
    ),
    "logged_out": Reason(
        "the user is logged out on the device",
        "Bob logged out on the tablet, or a login elsewhere kicked it",
    ),
    "foreground": Reason(
        "the app is in the foreground on the device",
        "Bob reads the chat: his phone reported foreground 90 s ago, and the lease of 400 s still holds",
    ),
    "delivered": Reason(
        "the app is in the foreground on the device, and the backend has confirmed that it got the message there",
        "Bob chats with Ann: each push is parked, and ends within seconds as his phone tells the server what it has",
    ),
    "stormed": Reason(
        "many messages of the conversation came in a short time: another push tells of this one as well",
        'the group writes 40 more in a minute; the next push says "Ann and 39 others in Team"',
    ),
    "gathered": Reason(
        "the vendor takes only so many pushes a day for the device: another push tells of this message as well",
        "a phone of Xiaomi's gets five public messages a day, and the push at noon says how many came in the morning",
    ),
    "device_cap": Reason(
        "the device has had the pushes of this class that it gets in a day, or what is left is kept for important ones",
        "the third marketing message of the day to a phone of OPPO's, which takes two",
    ),
    "read": Reason(
        "the receiver has read the message already",
        "Bob reads the chat on his desktop while the push to his phone is held for a moment",
    ),
    "call_over": Reason(
        "the call had ended before it rang",
        "Ann hangs up after a second, and call_cancel comes while the call still waits for its account's rate",
    ),
    "recalled": Reason(
        "the message was taken back before it left",
        "Ann recalls what she wrote while the push waits for a vendor that is down",
    ),
    "not_shown": Reason(
        "a message was taken back, and this is not what the device shows: it never got there, a newer push of the "
        "conversation has replaced it, or it was a call, which call_cancel ends",
        "Ann recalls a message after writing another one: the phone shows the newer, which stays",
    ),
    "recall_unknown": Reason(
        "the recall names nobody, and the fleet does not know whom the message went to: it was not pushed, or not yet, "
        "or longer ago than the app's recall_window_s",
        "a message is recalled after three minutes, and recall_window_s is 120",
    ),
    "user_erased": Reason(
        "the receiver was erased after the message came",
        "Bob deletes his account and makes a new one at once; what was queued for the old one is not for the new one",
    ),
    "decided_before": Reason(
        "another router had decided against it and died before it could say why",
        "Bob comes online, his router dies in the middle of a batch, Bob goes offline, and the next router takes over",
    ),
    "recalls_off": Reason(
        "a message was taken back, and the app's recall_window_s is 0",
        "the backend recalls in an app whose settings never mentioned recalls",
    ),
}
"""The decision said no."""

DROPPED = {
    "expired": Reason(
        "the message's time to live ran out before it could be sent",
        "the vendor was unreachable for two hours, and the message had ttl_s 3600",
    ),
    "token_dead": Reason(
        "the vendor says that the token is dead",
        "the app was removed from the phone, and APNs answers 410 Unregistered",
    ),
    "device_muted": Reason(
        "the vendor says that the device takes no notifications",
        "a receipt or an answer says that the user switched the app's notifications off in the system",
    ),
    "backlog": Reason(
        "the account holds more than its share of the ledger; new bulk work is not taken",
        "a broadcast meets an account that already holds router.account_backlog_max deliveries",
    ),
    "not_recallable": Reason(
        "it was to take back what was shown, and the vendor has no means for that",
        "TPNS can neither withdraw nor replace what is shown, so a recalled message stays on its devices",
    ),
    "superseded": Reason(
        "it was to be tried again, and a newer push of its conversation has been sent to the device since, which "
        "replaces it on screen",
        "the vendor is overloaded and refuses Ann's first message; the second gets through before the first is tried "
        "again",
    ),
    "unknown_outcome": Reason(
        "the request left, no answer came or none that can be read, and the account's on_unknown says drop",
        "the connection broke while the vendor thought; the push may have arrived, and twice is worse than not",
    ),
}
"""It was due, but it makes no sense any more."""

MOVED = {
    "token_dead": Reason(
        "the vendor says that the token is dead",
        "the Huawei token of a phone is dead, and its FCM token takes the delivery over",
    ),
    "quota_exhausted": Reason(
        "the vendor takes no more for today",
        "the day's quota of messages is spent, and the phone has another channel",
    ),
    "device_cap": Reason(
        "the device gets no more pushes of this class today, or none at the moment",
        "a phone of Meizu's has had its three public messages, and its FCM token has no such limit",
    ),
    "class_paused": Reason(
        "the account may not send this kind of message for now",
        "the channel for marketing is refused until midnight; the phone's second channel has no such limit",
    ),
    "process_died": Reason(
        "it had gone on when the process that moved it died",
        "a worker was killed between putting a delivery into the next account and ending it in this one",
    ),
    "account_shut": Reason(
        "the account's breaker is open, or it pauses for a while",
        "the vendor has been answering 503 for a minute, and the phone can be reached by another",
    ),
}
"""The device has another channel: the delivery went on in that channel's account, and ends there."""

DEAD = {
    "attempts": Reason(
        "it failed as often as the account allows",
        "the vendor answered eight times that this one device cannot be served right now; attempts_max is 8",
    ),
    "bad_payload": Reason(
        "the vendor refuses the payload",
        "a message names a notification channel that the app does not have, and the vendor refuses it for that",
    ),
    "poison": Reason(
        "the process that handled it died, three times, at last with nothing else in hand",
        "an entry drives a defect that kills the process; its neighbours went on without it",
    ),
    "undecodable": Reason(
        "the ledger entry cannot be read",
        "bytes of the entry were changed by hand in Redis",
    ),
}
"""Somebody must look: it lies in the dead letters."""

REFUSED_ENTRIES = {
    "malformed": Reason(
        "the stream entry breaks the contract",
        "a producer of another language writes recipients as one string",
    ),
    "unknown_app": Reason(
        "the message names an app that the settings do not have",
        "the staging backend enqueues for chat-staging, and there is only [apps.chat]",
    ),
    "unroutable": Reason(
        "routing the entry failed by a defect of the fleet; the router's log says where",
        "a combination that no test had broke the composer; the entries around it were routed",
    ),
}
"""Stream entries that never became deliveries: they lie in the lane's refused stream."""
