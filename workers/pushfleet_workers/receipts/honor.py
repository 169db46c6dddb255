"""Receipts of Honor Push. Facts are those of a public receiver; Honor's own page was not at hand.

One code is known. Whatever else comes is recorded with its code and changes nothing: no token dies of a guess.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar

from pushfleet_workers.receipts._parse import Unsigned, any_json, objects, receipt, tokens
from pushfleet_workers.receipts.receipt import Event, Receipt, Row

__all__ = ["CODES", "HonorReceipts"]

CODES = {"40000002": Row(Event.DELIVERED, "Delivered.")}
"""Values of ``status``."""


class HonorReceipts(Unsigned):
    """Honor's receipts: JSON, unsigned as far as is known."""

    codes: ClassVar[Mapping[str, Row]] = CODES
    acknowledgement: ClassVar[tuple[bytes, str]] = (b'{"code":"0","message":"success"}', "application/json")

    def read(self, body: bytes) -> Iterator[Receipt]:
        """One for each of ``statuses``."""
        content = any_json(body)
        for one in objects(content.get("statuses") if isinstance(content, dict) else None):
            for token in tokens([one.get("token")]):
                yield receipt(
                    CODES, one.get("status"), token, one.get("biTag"), one.get("timestamp"), one.get("requestId")
                )
