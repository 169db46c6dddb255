"""What the answers of HarmonyOS Push Kit mean: business codes, and the reasons that some of them give by token.

Facts are Huawei's (the HarmonyOS pages "push-scenariozed-api-response" and "push-msg-revoke").
"""

from __future__ import annotations

from dataclasses import replace

from pushfleet_workers.outcome import OK, Outcome, Remedy, Scope, Verdict
from pushfleet_workers.vendors._answers import (
    BAD_PAYLOAD,
    CLASS_MISCONFIGURED,
    DOUBTFUL_TOKEN,
    DROP_TOKEN,
    MISCONFIGURED,
    QUOTA_EXHAUSTED,
    RATE_LIMITED,
    REFRESH_AUTH,
    RETRY,
    STATUS_ROWS,
    table,
)

__all__ = ["ALL_INVALID", "CODES", "PARTIAL", "REASONS", "REVOKED_IN_PART"]

PARTIAL, REVOKED_IN_PART, ALL_INVALID = "80100000", "80100020", "80300007"

_NO_IMAGE = replace(BAD_PAYLOAD, remedy=Remedy.NO_IMAGE)
_THIS_ONE = replace(MISCONFIGURED, scope=Scope.DEVICE)
"""Only recalls meet it: pushes go on."""

_PENALTY = replace(QUOTA_EXHAUSTED, scope=Scope.ACCOUNT)
"""Penalties are the app's, whatever it sends: to go on makes them worse."""

REASONS = table(
    ("tokenFormatError", "any", DROP_TOKEN, "This is no token."),
    ("tokenPlatformNotSupport", "any", DROP_TOKEN, "The token comes from another provider's kit."),
    (
        "noRight",
        "any",
        DOUBTFUL_TOKEN,
        "The token is another project's, or dates from before the upgrade to HarmonyOS 5.",
    ),
    (
        "noRight:all",
        "any",
        MISCONFIGURED,
        "noRight for every token of ten or more: use the key file of the project that the app belongs to.",
    ),
    (
        "noPushTypeRight",
        "any",
        CLASS_MISCONFIGURED,
        "The app has no right to this push type: apply for it in AppGallery Connect, or set push_type = 0.",
    ),
    (
        "atomicUnableSendUnsubscribedMsg",
        "any",
        CLASS_MISCONFIGURED,
        'A meta-service may not send this class: set category = "SUBSCRIPTION" for the kind and let users subscribe.',
    ),
    (
        "noRightToSendThisLiveNotificationEvent",
        "any",
        CLASS_MISCONFIGURED,
        "The app has no right to this live view: apply for it in AppGallery Connect.",
    ),
    (
        "countryNotSupport",
        "any",
        Outcome(Verdict.MUTE_DEVICE),
        "The device is in a country that is not served; if it should be: open a ticket with Huawei.",
    ),
    (
        "disableSendHuaweiMsgBecauseOfPenalty",
        "any",
        _PENALTY,
        "The app is under a penalty: read Huawei's notice, and correct the message classes.",
    ),
    ("differentImgVerifyPolicy", "any", _NO_IMAGE, "The picture was reviewed for another push type."),
    (
        "appinfoError",
        "any",
        MISCONFIGURED,
        "The app does not exist yet: create it in AppGallery Connect; a new one is known after some minutes.",
    ),
    ("notSupportPlayVoice", "any", BAD_PAYLOAD, "The class PLAY_VOICE is for spoken messages."),
)
"""Why a token was refused while others of its request may have been served."""

CODES = {
    **table(
        *STATUS_ROWS,
        ("HTTP 404", "404", MISCONFIGURED, "There is no such address: correct base_url."),
        ("HTTP 503", "503", RATE_LIMITED, "Flow control, of the app or of the whole service."),
        ("80000000", "any", OK, "Accepted for all tokens."),
        ("80000001", "any", RETRY, "Huawei has a fault (recalls)."),
        (PARTIAL, "any", OK, "Accepted, but for the tokens that the answer names with their reasons."),
        ("80100001", "any", BAD_PAYLOAD, "A parameter is wrong: look at the message's overrides and the kinds."),
        ("80100003", "any", BAD_PAYLOAD, "The structure of the message is wrong."),
        ("80100004", "any", BAD_PAYLOAD, "The message had expired when it arrived."),
        (REVOKED_IN_PART, "any", OK, "Taken back, but for the tokens that the answer names with their reasons."),
        ("80100022", "any", _NO_IMAGE, "The picture has not passed Huawei's review."),
        (
            "80200001",
            "any",
            REFRESH_AUTH,
            "The JWT was refused; if a fresh one is refused as well: download the key file of the app's own project.",
        ),
        ("80200003", "any", REFRESH_AUTH, "The authorization has expired (recalls)."),
        ("80200005", "any", REFRESH_AUTH, "The JWT has expired."),
        (
            "80300002",
            "any",
            MISCONFIGURED,
            "Push Kit is off: switch it on in AppGallery Connect; or the key file is another project's.",
        ),
        (ALL_INVALID, "any", Outcome(Verdict.RETRY), "No token was accepted; the answer names their reasons."),
        ("80300008", "any", replace(BAD_PAYLOAD, remedy=Remedy.SHRINK), "The body is above 4,096 bytes."),
        ("80300010", "any", replace(BAD_PAYLOAD, remedy=Remedy.SPLIT), "Too many tokens, or none."),
        (
            "80300017",
            "any",
            replace(BAD_PAYLOAD, remedy=Remedy.SINGLE_SEND),
            "The tokens belong to several apps (recalls).",
        ),
        ("80300028", "any", _THIS_ONE, "The token does not belong to this client id (recalls): correct client_id."),
        ("80300029", "any", RATE_LIMITED, "Test messages come too fast."),
        (
            "80300030",
            "any",
            replace(BAD_PAYLOAD, remedy=Remedy.SINGLE_SEND),
            "Too many tokens for a test message, which takes ten.",
        ),
        (
            "80300032",
            "any",
            _THIS_ONE,
            "The app has no right to recall: apply for it in AppGallery Connect, or leave client_id empty.",
        ),
        ("80300036", "any", MISCONFIGURED, "The JWT would live for more than a day: set this machine's clock right."),
        (
            "80300037",
            "any",
            _PENALTY,
            "The app is under a penalty: read Huawei's notice, and correct the message classes.",
        ),
        ("81000001", "any", RETRY, "Huawei has a fault."),
        (
            "other codes",
            "any",
            Outcome(Verdict.RETRY),
            "Eight digits, or a reason, that are not listed here: this push alone is tried again, the token is kept.",
        ),
    ),
    **REASONS,
}
"""Business codes, which come with any status and go before it, and the reasons that some of them give by token."""
