"""Reading an entry of the stream of reports: one report in plain fields, or many in JSON. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import msgspec
from msgspec import Meta
from msgspec.structs import replace

from pushfleet_workers.tokens.changes import Report, explain, wrong_time

__all__ = ["REPORTS_MAX", "InvalidEntry", "read_entry"]

REPORTS_MAX = 1_000
"""Most reports of an entry."""

_many = msgspec.json.Decoder(Annotated[tuple[Report, ...], Meta(min_length=1, max_length=REPORTS_MAX)])


class InvalidEntry(ValueError):
    """An entry that is none, with what is wrong in a sentence, without what it holds."""


def read_entry(fields: Mapping[bytes, bytes], arrived_ms: int, now_ms: int) -> tuple[str, tuple[Report, ...]]:
    """The app of an entry and its reports; one without a time of its own is of when the entry was written.

    The fields are ``app``, ``user``, ``device``, ``state`` and, where wanted, ``unread`` and ``at_ms``, all as text; or
    ``app`` and ``reports``, a JSON array of 1 to 1,000 objects with the others. Raises :class:`InvalidEntry`: one
    report that is wrong spoils its entry.
    """
    try:
        app, reports = _read(fields)
    except msgspec.ValidationError as problem:
        sentence, where = explain(problem)
        raise InvalidEntry(f"{sentence} - at `{where}`" if where else sentence) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise InvalidEntry("it is not text in UTF-8, or its reports are not JSON") from None
    for number, one in enumerate(reports):
        _, sentence = wrong_time(one.at_ms, now_ms)
        if sentence:
            raise InvalidEntry(f"report {number}: {sentence}")
    return app, tuple(one if one.at_ms else replace(one, at_ms=arrived_ms) for one in reports)


def _read(fields: Mapping[bytes, bytes]) -> tuple[str, tuple[Report, ...]]:
    app = fields.get(b"app")
    if app is None:
        raise InvalidEntry("it has no field app")
    if (many := fields.get(b"reports")) is not None:
        if len(fields) > 2:
            raise InvalidEntry("beside app and reports it has other fields")
        return app.decode(), _many.decode(many)
    told = {name.decode(): value.decode() for name, value in fields.items() if name != b"app"}
    # Numbers are text here, as everything in a stream.
    return app.decode(), (msgspec.convert(told, Report, strict=False),)
