"""Receipts of vivo push, of the old kind and of the new. Facts are vivo's (its push pages 362 and 896).

What the new kind looks like for ordinary messages is not written anywhere: it is read as the old kind, and its numbers
as those that vivo documents for cards.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from pushfleet_workers.receipts._parse import Unsigned, any_json, receipt, tokens
from pushfleet_workers.receipts.receipt import Event, Receipt, Row
from pushfleet_workers.vendors._answers import plain

__all__ = ["CODES", "VivoReceipts"]

UNTOLD = "untold"
_OLD_KIND = frozenset({"param", "targets"})

CODES = {
    "": Row(Event.DELIVERED, "Delivered: the old kind has no code, as it tells nothing else."),
    "300": Row(Event.DELIVERED, "Delivered."),
    "301": Row(Event.BLOCKED, "It could not be sent to the device."),
    "302": Row(Event.BLOCKED, "The device could not show it."),
    "31004": Row(Event.OTHER, "Of cards: no such regId. Of messages it is not documented: the token is kept."),
    "31005": Row(Event.MUTED, "The device has been inactive for more than 14 days."),
    UNTOLD: Row(Event.OTHER, "Neither a code nor the old kind, which has `param` and `targets` alone."),
}
"""Values of ``type``; those with five digits are of ``subType``, which goes before it where it is listed."""


class VivoReceipts(Unsigned):
    """vivo's receipts: a JSON object by task id, unsigned."""

    codes: ClassVar[Mapping[str, Row]] = CODES
    acknowledgement: ClassVar[tuple[bytes, str]] = (b'{"errno":0,"errmsg":"success"}', "application/json")

    def read(self, body: bytes) -> Iterator[Receipt]:
        """One for each of the ``targets`` of each task."""
        content = any_json(body)
        for task_id, one in content.items() if isinstance(content, dict) else ():
            if isinstance(one, dict):
                for token in tokens(one.get("targets")):
                    yield receipt(CODES, _code(one), token, one.get("param"), one.get("timestamp"), task_id)


def _code(one: Mapping[str, Any]) -> object:
    inner = plain(one.get("subType"))
    if inner and inner in CODES:
        return inner
    code = one.get("type", one.get("subType"))
    if code is None:
        # What has neither a code nor the fields of the old kind may tell anything: it must not count as delivered.
        return "" if one.keys() <= _OLD_KIND else UNTOLD
    return plain(code) or UNTOLD
