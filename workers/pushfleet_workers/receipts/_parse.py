"""What all vendors' receipts have in common: bodies that may be anything, tokens, times, tables."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import parse_qsl

import msgspec

from pushfleet_workers.receipts.receipt import Event, Proof, Receipt, Row
from pushfleet_workers.vendors._answers import plain
from pushfleet_workers.vendors._receipts import ECHO_CHARS_MAX

__all__ = ["Unsigned", "any_json", "form", "objects", "receipt", "tokens", "unix_ms"]

_FIELDS_MAX = 32
_TIME_MS = range(1_000_000_000_000, 253_402_300_800_000)
_token = re.compile(r"[\x21-\x7e]{1,4096}").fullmatch


class Unsigned:
    """What vendors have in common that sign nothing."""

    def verify(self, account: object, headers: Mapping[str, str], body: bytes, now_ms: int) -> Proof:
        """UNSIGNED, always."""
        return Proof.UNSIGNED


def any_json(body: bytes | str) -> Any:
    """The JSON in *body*; None where there is none."""
    try:
        return msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return None


def form(body: bytes) -> dict[str, str]:
    """The fields of a form; none where *body* is anything else."""
    try:
        return dict(parse_qsl(body.decode("ascii"), max_num_fields=_FIELDS_MAX, errors="replace"))
    except ValueError:
        return {}


def objects(values: object) -> Iterator[dict[str, Any]]:
    """The JSON objects in the list *values*; none where it is no list."""
    for value in values if isinstance(values, list) else ():
        if isinstance(value, dict):
            yield value


def tokens(value: object) -> Iterator[str]:
    """The tokens in *value*: a list of them, or a text with commas between."""
    if isinstance(value, str):
        value = value.split(",")
    for one in value if isinstance(value, list) else ():
        if isinstance(one, str) and _token(one.strip()):
            yield one.strip()


def unix_ms(value: object) -> int:
    """*value* where it is a time of this age in Unix milliseconds, as number or text; else 0."""
    if isinstance(value, str) and len(value) <= 15 and value.isascii() and value.isdecimal():
        value = int(value)
    return value if isinstance(value, int) and value in _TIME_MS else 0


def receipt(
    codes: Mapping[str, Row], code: object, token: str, echo: object, at: object = 0, send_id: object = ""
) -> Receipt:
    """The receipt of *code*; one that *codes* lacks is OTHER."""
    name = plain(code)
    row = codes.get(name)
    return Receipt(
        row.event if row is not None else Event.OTHER,
        name,
        token,
        echo if isinstance(echo, str) and len(echo) <= ECHO_CHARS_MAX else "",
        unix_ms(at),
        str(send_id)[:_SEND_ID_CHARS_MAX] if isinstance(send_id, str | int) else "",
    )


_SEND_ID_CHARS_MAX = 128
