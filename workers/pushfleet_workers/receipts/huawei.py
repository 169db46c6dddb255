"""Receipts of Huawei Push Kit v1 and v2. Facts are Huawei's (the Push Kit pages on message receipts)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar

from pushfleet_workers.receipts._huawei_signature import verify_signature
from pushfleet_workers.receipts._parse import any_json, objects, receipt, tokens
from pushfleet_workers.receipts.receipt import Event, Proof, Receipt, Row
from pushfleet_workers.vendors._receipts import HuaweiReceiptAccount

__all__ = ["CODES", "HuaweiReceipts"]

CODES = {
    "0": Row(Event.DELIVERED, "Delivered."),
    "2": Row(Event.DEAD, "The app is not installed."),
    "5": Row(Event.DEAD, "The token is not this device's: data cleared, app installed anew, token deleted."),
    "6": Row(Event.MUTED, "Notifications are off."),
    "10": Row(Event.MUTED, "The device has been inactive for 30 days."),
    "14": Row(Event.BLOCKED, "Another error, the network inside among them."),
    "15": Row(Event.BLOCKED, "Replaced while the device was offline: by its collapse key, or as one of too many."),
    "22": Row(Event.MUTED, "Another user is active on the device."),
    "27": Row(Event.BLOCKED, "A data message waits on the device until the app runs."),
    "31": Row(
        Event.BLOCKED, "The page that a tap opens is missing, or the system cannot show the message: see click_intent."
    ),
    "51": Row(Event.BLOCKED, "The device was started and not unlocked since."),
    "102": Row(Event.QUOTA, "Too many messages for the device today."),
    "144": Row(Event.BLOCKED, "The profile is not known; we send none."),
    "201": Row(Event.MUTED, "Held back by the push server: other user, notifications off, or app removed."),
    "256": Row(Event.QUOTA, "Too many messages of this class for the device today."),
}
"""Values of ``status``."""


class HuaweiReceipts:
    """Huawei's receipts of Android apps: JSON, up to 1,000 a request, signed where both sides are told to."""

    codes: ClassVar[Mapping[str, Row]] = CODES
    acknowledgement: ClassVar[tuple[bytes, str]] = (b'{"code":"0","message":"success"}', "application/json")

    def verify(self, account: HuaweiReceiptAccount, headers: Mapping[str, str], body: bytes, now_ms: int) -> Proof:
        """By the header ``X-HUAWEI-CALLBACK-ID``."""
        return verify_signature(account, headers, now_ms)

    def read(self, body: bytes) -> Iterator[Receipt]:
        """One for each of ``statuses``."""
        content = any_json(body)
        for one in objects(content.get("statuses") if isinstance(content, dict) else None):
            for token in tokens([one.get("token")]):
                yield receipt(
                    CODES, one.get("status"), token, one.get("biTag"), one.get("timestamp"), one.get("requestId")
                )
