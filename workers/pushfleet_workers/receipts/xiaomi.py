"""Receipts of Xiaomi MiPush. Facts are Xiaomi's (the comments in its server SDK, its notices on receipts)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar

from pushfleet_workers.receipts._parse import Unsigned, any_json, form, receipt, tokens
from pushfleet_workers.receipts.receipt import Event, Receipt, Row

__all__ = ["CODES", "XiaomiReceipts"]

CODES = {
    "1": Row(Event.DELIVERED, "Delivered."),
    "2": Row(Event.CLICKED, "Tapped."),
    "16": Row(
        Event.DEAD, "No valid target: offline for too long, wrong region, or the app is not registered any more."
    ),
    "32": Row(Event.MUTED, "The app's notifications are off."),
    "64": Row(Event.BLOCKED, "The device does not meet the message's conditions."),
    "128": Row(Event.QUOTA, "The day's messages of this class are used up."),
    "1024": Row(Event.BLOCKED, "It expired before the device came online."),
}
"""Values of ``type``."""


class XiaomiReceipts(Unsigned):
    """Xiaomi's receipts: a form whose ``data`` is a JSON object by message id; unsigned, each sent once."""

    codes: ClassVar[Mapping[str, Row]] = CODES
    acknowledgement: ClassVar[tuple[bytes, str]] = (b"ok", "text/plain")

    def read(self, body: bytes) -> Iterator[Receipt]:
        """One for each of the ``targets`` of each message."""
        content = any_json(form(body).get("data", ""))
        for message_id, one in content.items() if isinstance(content, dict) else ():
            if isinstance(one, dict):
                for token in tokens(one.get("targets")):
                    yield receipt(CODES, one.get("type"), token, one.get("param"), one.get("timestamp"), message_id)
