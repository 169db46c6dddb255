"""Reading an entry of the stream of reports: one report or confirmation in plain fields, or many in JSON. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, NamedTuple

import msgspec
from msgspec import Meta
from msgspec.structs import replace

from pushfleet_workers.tokens.changes import Report, explain, wrong_time
from pushfleet_workers.tokens.confirmations import Confirmation

__all__ = ["REPORTS_MAX", "InvalidEntry", "Told", "read_entry"]

REPORTS_MAX = 1_000
"""Most reports, and most confirmations, of an entry."""

_LISTS = frozenset({b"reports", b"confirmations"})
_reports = msgspec.json.Decoder(Annotated[tuple[Report, ...], Meta(min_length=1, max_length=REPORTS_MAX)])
_confirmations = msgspec.json.Decoder(Annotated[tuple[Confirmation, ...], Meta(min_length=1, max_length=REPORTS_MAX)])


class InvalidEntry(ValueError):
    """An entry that is none, with what is wrong in a sentence, without what it holds."""


class Told(NamedTuple):
    """What an entry tells of an app's devices."""

    app: str
    reports: tuple[Report, ...] = ()
    confirmations: tuple[Confirmation, ...] = ()
    problem: str = ""
    """What is wrong with the confirmations that came beside the reports; then there are none here."""


def read_entry(fields: Mapping[bytes, bytes], arrived_ms: int, now_ms: int) -> Told:
    """What an entry tells; a report without a time of its own is of when the entry was written.

    The fields of a report are ``app``, ``user``, ``device``, ``state`` and, where wanted, ``unread`` and ``at_ms``;
    those of a confirmation ``app``, ``user``, ``device``, ``up_to_ms`` and, where wanted, ``conversation``; all as
    text. Or they are ``app``, and ``reports`` or ``confirmations`` or both: JSON arrays of 1 to 1,000 objects with the
    other fields.
    Raises :class:`InvalidEntry`: one thing that is wrong spoils its entry, but of confirmations only these.
    """
    if not fields.keys() >= _LISTS:
        return _read_checked(fields, arrived_ms, now_ms)
    told = _read_checked(_without(fields, b"confirmations"), arrived_ms, now_ms)
    try:
        beside = _read_checked(_without(fields, b"reports"), arrived_ms, now_ms)
    except InvalidEntry as problem:
        return told._replace(problem=str(problem))
    return told._replace(confirmations=beside.confirmations)


def _without(fields: Mapping[bytes, bytes], name: bytes) -> dict[bytes, bytes]:
    return {other: value for other, value in fields.items() if other != name}


def _read_checked(fields: Mapping[bytes, bytes], arrived_ms: int, now_ms: int) -> Told:
    try:
        told = _read(fields)
    except msgspec.ValidationError as problem:
        sentence, where = explain(problem)
        raise InvalidEntry(f"{sentence} - at `{where}`" if where else sentence) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise InvalidEntry("it is not text in UTF-8, or its lists are not JSON") from None
    for number, report in enumerate(told.reports):
        _, sentence = wrong_time(report.at_ms, now_ms)
        if sentence:
            raise InvalidEntry(f"report {number}: {sentence}")
    for number, confirmation in enumerate(told.confirmations):
        _, sentence = wrong_time(confirmation.up_to_ms, now_ms)
        if sentence and confirmation.up_to_ms > now_ms:
            raise InvalidEntry(f"confirmation {number}: {sentence}")
    return told._replace(reports=tuple(one if one.at_ms else replace(one, at_ms=arrived_ms) for one in told.reports))


def _read(fields: Mapping[bytes, bytes]) -> Told:
    app = fields.get(b"app")
    if app is None:
        raise InvalidEntry("it has no field app")
    lists = _LISTS.intersection(fields)
    if lists:
        if len(fields) > 1 + len(lists):
            raise InvalidEntry("beside app and lists it has other fields")
        reports, confirmations = fields.get(b"reports"), fields.get(b"confirmations")
        return Told(
            app.decode(),
            _reports.decode(reports) if reports is not None else (),
            _confirmations.decode(confirmations) if confirmations is not None else (),
        )
    told = {name.decode(): value.decode() for name, value in fields.items() if name != b"app"}
    # Numbers are text here, as everything in a stream.
    if "up_to_ms" in told:
        return Told(app.decode(), confirmations=(msgspec.convert(told, Confirmation, strict=False),))
    return Told(app.decode(), (msgspec.convert(told, Report, strict=False),))
