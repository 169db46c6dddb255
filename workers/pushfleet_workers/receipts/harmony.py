"""Receipts of HarmonyOS Push Kit v3. Facts are Huawei's (the HarmonyOS pages "push-msg-receipt")."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar

from pushfleet_workers.receipts._huawei_signature import verify_signature
from pushfleet_workers.receipts._parse import any_json, objects, receipt, tokens
from pushfleet_workers.receipts.receipt import Event, Proof, Receipt, Row
from pushfleet_workers.vendors._receipts import HuaweiReceiptAccount

__all__ = ["CODES", "HarmonyReceipts"]

CODES = {
    "0": Row(Event.DELIVERED, "Delivered."),
    "2": Row(Event.DEAD, "The app is not installed."),
    "5": Row(Event.DEAD, "The token is not this device's: data cleared, app installed anew, token or AAID deleted."),
    "6": Row(Event.MUTED, "Notifications are off, or the device is in minor mode."),
    "10": Row(Event.MUTED, "The device has been inactive for 30 days."),
    "14": Row(Event.BLOCKED, "A network error inside."),
    "15": Row(Event.BLOCKED, "Replaced while the device was offline."),
    "22": Row(Event.MUTED, "Another user is active on the device."),
    "27": Row(Event.BLOCKED, "A background message waits on the device."),
    "31": Row(Event.BLOCKED, "The page that a tap opens does not exist."),
    "51": Row(Event.BLOCKED, "The device was started and not unlocked since."),
    "102": Row(Event.QUOTA, "Too many messages for the device today."),
    "144": Row(Event.BLOCKED, "The profile is not known; we send none."),
    **{
        code: Row(Event.OTHER, "Of widgets and live views, which we do not send.")
        for code in ("151", "155", "156", "158", "261", "262", "265", "268", "269")
    },
    "188": Row(Event.BLOCKED, "The app could not be started."),
    "191": Row(Event.OTHER, "The badge could not be changed."),
    "256": Row(Event.QUOTA, "Too many messages of this class for the device today."),
    "259": Row(Event.BLOCKED, "A text or an address in the message was rejected."),
    "264": Row(Event.BLOCKED, "The user has not subscribed to such messages."),
}
"""Values of ``result`` in ``deliveryStatus``."""


class HarmonyReceipts:
    """Huawei's receipts of HarmonyOS apps: JSON, up to 100 a request, signed where both sides are told to."""

    codes: ClassVar[Mapping[str, Row]] = CODES
    acknowledgement: ClassVar[tuple[bytes, str]] = (b'{"code":"0","message":"success"}', "application/json")

    def verify(self, account: HuaweiReceiptAccount, headers: Mapping[str, str], body: bytes, now_ms: int) -> Proof:
        """By the header ``X-HUAWEI-CALLBACK-ID``."""
        return verify_signature(account, headers, now_ms)

    def read(self, body: bytes) -> Iterator[Receipt]:
        """One for each of ``statuses`` that has a ``deliveryStatus``."""
        content = any_json(body)
        for one in objects(content.get("statuses") if isinstance(content, dict) else None):
            status = one.get("deliveryStatus")
            if isinstance(status, dict):
                for token in tokens([one.get("token")]):
                    code, at = status.get("result"), status.get("timestamp")
                    yield receipt(CODES, code, token, one.get("biTag"), at, one.get("requestId"))
