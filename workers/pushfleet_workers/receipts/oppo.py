"""Receipts of OPPO push. Facts are OPPO's (its push page 11239)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar

from pushfleet_workers.receipts._parse import Unsigned, any_json, objects, receipt, tokens
from pushfleet_workers.receipts.receipt import Event, Receipt, Row

__all__ = ["CODES", "OppoReceipts"]

CODES = {
    "push_arrive": Row(Event.DELIVERED, "It reached the phone, which says nothing of being shown."),
    "regid_invalid": Row(Event.DEAD, "App removed or unregistered, phone reset, or offline for 30 days."),
    "user_daily_limit": Row(Event.QUOTA, "The day's messages of the app to the device are used up."),
}
"""Values of ``eventType``."""


class OppoReceipts(Unsigned):
    """OPPO's receipts: a JSON list of events, unsigned."""

    codes: ClassVar[Mapping[str, Row]] = CODES
    acknowledgement: ClassVar[tuple[bytes, str]] = (b"ok", "text/plain")

    def read(self, body: bytes) -> Iterator[Receipt]:
        """One for each of the ``registrationIds`` of each event."""
        for one in objects(any_json(body)):
            for token in tokens(one.get("registrationIds")):
                yield receipt(
                    CODES, one.get("eventType"), token, one.get("param"), one.get("eventTime"), one.get("messageId")
                )
