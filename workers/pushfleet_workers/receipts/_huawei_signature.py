"""How Huawei signs receipts, of Android and of HarmonyOS apps alike."""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Mapping

from pushfleet_workers.errors import CredentialError
from pushfleet_workers.receipts.receipt import Proof
from pushfleet_workers.vendors._receipts import HuaweiReceiptAccount, receipt_secret

__all__ = ["AGE_MS_MAX", "HEADER", "signature", "verify_signature"]

HEADER = "x-huawei-callback-id"
AGE_MS_MAX = 300_000
"""How far a signature's time may be from ours, either way."""


def signature(secret: str, *, is_text: bool, timestamp: str, nonce: str, user: str) -> str:
    """The ``value`` in the header; raises :class:`ValueError` for a secret that is not the base64 it should be."""
    key = secret.encode() if is_text else base64.b64decode(secret, validate=True)
    return base64.b64encode(hmac.digest(key, f"{timestamp}{nonce}{user}".encode(), "sha256")).decode()


def verify_signature(account: HuaweiReceiptAccount, headers: Mapping[str, str], now_ms: int) -> Proof:
    """SIGNED or REFUSED where the account has a user name or a secret, else UNSIGNED.

    The body is no part of what Huawei signs.
    """
    if not account.receipt_user and account.receipt_secret is None and account.receipt_secret_file is None:
        return Proof.UNSIGNED
    given = dict(_pair(part) for part in headers.get(HEADER, "").split(";"))
    timestamp, nonce = given.get("timestamp", ""), given.get("nonce", "")
    if not (timestamp.isascii() and timestamp.isdecimal() and len(timestamp) <= 15):
        return Proof.REFUSED
    try:
        secret = receipt_secret("receipt_secret", account.receipt_secret, account.receipt_secret_file)
        expected = signature(
            secret,
            is_text=account.receipt_secret_is_text,
            timestamp=timestamp,
            nonce=nonce,
            user=account.receipt_user,
        )
    except (CredentialError, binascii.Error, ValueError):
        return Proof.REFUSED
    good = hmac.compare_digest(expected.encode(), given.get("value", "").encode(errors="replace"))
    return Proof.SIGNED if good and abs(now_ms - int(timestamp)) <= AGE_MS_MAX else Proof.REFUSED


def _pair(part: str) -> tuple[str, str]:
    name, _, value = part.partition("=")
    return name.strip().lower(), value.strip()
