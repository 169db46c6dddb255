"""What vendor modules have in common, for those of other packages too: they need no other module of this folder.

Answers that may be anything, tables of codes, access tokens, secrets from the settings, texts within a limit, receipts.
"""

from pushfleet_workers.vendors._answers import (
    BAD_PAYLOAD,
    CHINA_DAY,
    CLASS_MISCONFIGURED,
    DOUBTFUL_TOKEN,
    DROP_TOKEN,
    MISCONFIGURED,
    QUOTA_EXHAUSTED,
    RATE_LIMITED,
    REFRESH_AUTH,
    RETRY,
    STATUS_ROWS,
    judge,
    parse_object,
    plain,
    read_token,
    table,
)
from pushfleet_workers.vendors._files import fixed_secret, read_secret
from pushfleet_workers.vendors._ids import notify_id
from pushfleet_workers.vendors._receipts import ReceiptAccount, callback, receipt_flaws
from pushfleet_workers.vendors._sounds import android_sound
from pushfleet_workers.vendors._templates import TemplateParams, filled, texts_for
from pushfleet_workers.vendors._text import BARE, FULL, NO_EXT, clip, clip_chars, encode, within

__all__ = [
    "BAD_PAYLOAD",
    "BARE",
    "CHINA_DAY",
    "CLASS_MISCONFIGURED",
    "DOUBTFUL_TOKEN",
    "DROP_TOKEN",
    "FULL",
    "MISCONFIGURED",
    "NO_EXT",
    "QUOTA_EXHAUSTED",
    "RATE_LIMITED",
    "REFRESH_AUTH",
    "RETRY",
    "STATUS_ROWS",
    "ReceiptAccount",
    "TemplateParams",
    "android_sound",
    "callback",
    "clip",
    "clip_chars",
    "encode",
    "filled",
    "fixed_secret",
    "judge",
    "notify_id",
    "parse_object",
    "plain",
    "read_secret",
    "read_token",
    "receipt_flaws",
    "table",
    "texts_for",
    "within",
]
