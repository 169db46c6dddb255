"""Receipts of Meizu (Flyme) push. Facts are Meizu's (its API description of April 2025)."""

from __future__ import annotations

import hmac
from collections.abc import Iterator, Mapping
from typing import ClassVar

from pushfleet_workers.errors import CredentialError
from pushfleet_workers.receipts._parse import any_json, form, receipt, tokens
from pushfleet_workers.receipts.receipt import Event, Proof, Receipt, Row
from pushfleet_workers.vendors._receipts import receipt_secret
from pushfleet_workers.vendors.meizu import MeizuAccount

__all__ = ["CODES", "MeizuReceipts"]

CODES = {
    "1": Row(Event.DELIVERED, "Delivered."),
    "2": Row(Event.CLICKED, "Tapped."),
}
"""Values of ``type``. Meizu tells of nothing that failed."""


class MeizuReceipts:
    """Meizu's receipts: a form whose ``cb`` is a JSON object by message id and type; each sent once."""

    codes: ClassVar[Mapping[str, Row]] = CODES
    acknowledgement: ClassVar[tuple[bytes, str]] = (b"ok", "text/plain")

    def verify(self, account: MeizuAccount, headers: Mapping[str, str], body: bytes, now_ms: int) -> Proof:
        """By ``access_token``, which the console was told; UNSIGNED where the account names none."""
        if account.receipt_token is None and account.receipt_token_file is None:
            return Proof.UNSIGNED
        try:
            expected = receipt_secret("receipt_token", account.receipt_token, account.receipt_token_file)
        except CredentialError:
            return Proof.REFUSED
        given = form(body).get("access_token", "")
        good = hmac.compare_digest(expected.encode(), given.encode(errors="replace"))
        return Proof.SIGNED if good else Proof.REFUSED

    def read(self, body: bytes) -> Iterator[Receipt]:
        """One for each of the ``targets`` of each message and type."""
        content = any_json(form(body).get("cb", ""))
        for key, one in content.items() if isinstance(content, dict) else ():
            if isinstance(one, dict):
                for token in tokens(one.get("targets")):
                    yield receipt(CODES, one.get("type"), token, one.get("param"), 0, key.rpartition("-")[0])
