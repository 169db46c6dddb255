"""How each row of each vendor's table is provoked at the fake cloud.

Most rows are a refusal of the fake, or a bare status; what is provoked in another way stands in :data:`OTHERWISE`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from pushfleet_workers import registry
from pushfleet_workers.fakecloud.registry import VENDORS
from pushfleet_workers.outcome import Remedy

__all__ = ["Provocation", "provocation"]


@dataclass(frozen=True)
class Provocation:
    """Deliveries of one account that travel together, and the script line that they meet."""

    rows: tuple[str, ...]
    """Which row befalls each delivery."""

    rule: Mapping[str, Any] = field(default_factory=dict)
    """Fields of the script line; empty: the vendor simply accepts."""

    code: str = ""
    """What the answer is counted under."""

    mixed: bool = False
    """Each delivery has a message of its own; they share a request."""

    recalled: bool = False
    """The message is accepted, then taken back, and that is what the row befalls."""

    @property
    def is_made_up(self) -> bool:
        """Whether the script gives the answer: where that says accepted, the vendor's book has nothing of it."""
        return self.rule.get("action") in ("refuse", "raw")


STATUSES = {"HTTP 2xx": 202, "HTTP 4xx": 418, "HTTP 5xx": 502, "HTTP other": 302}
"""One status for each of the rows that stand for a range."""


def provocation(vendor: str, row: str) -> Provocation:
    """How *row* of *vendor* is provoked; raises :class:`KeyError` where nobody has said how."""
    found = OTHERWISE.get(vendor, {}).get(row)
    if found is not None:
        return found
    if row.startswith("HTTP "):
        status = STATUSES.get(row) or int(row.removeprefix("HTTP "))
        return Provocation(_several(vendor, row), {"action": "raw", "status": status}, f"HTTP {status}")
    if row not in VENDORS[vendor].refusals:
        raise KeyError(f"the fake {vendor} has no refusal {row}, and OTHERWISE does not say how else to provoke it")
    return refused(row, *_several(vendor, row))


def _several(vendor: str, row: str) -> tuple[str, ...]:
    """A request is only taken apart where it is for two."""
    apart = registry.load(vendor).codes[row].outcome.remedy in (Remedy.SPLIT, Remedy.SINGLE_SEND)
    return (row, row) if apart else (row,)


def accepted(*rows: str, counted: str = "") -> Provocation:
    """The vendor takes everything; *counted*: what that is counted under."""
    return Provocation(rows, code=counted)


def refused(code: str, *rows: str, counted: str = "", endpoint: str = "send") -> Provocation:
    """The request is refused with what the fake calls *code*."""
    rule = {"action": "refuse", "code": code, "endpoint": endpoint}
    return Provocation(rows, rule, counted or code, recalled=endpoint == "withdraw")


def dead(*rows: str, code: str = "", counted: str = "") -> Provocation:
    """The first token is dead, the others are not; *code*: by which of the deaths that the fake knows."""
    return Provocation(rows, {"action": "dead", "code": code}, counted)


def said(content: object, *rows: str, counted: str, status: int = 200) -> Provocation:
    """The answer is *content*, whatever was asked."""
    return Provocation(rows, {"action": "raw", "status": status, "body": json.dumps(content).encode()}, counted)


def recalled(what: Provocation) -> Provocation:
    """*what*, but of the recall: the push before it passes."""
    return replace(what, rule={**what.rule, "after": 1}, recalled=True)


def of_many(*codes: str) -> dict[str, Provocation]:
    """Refusals for the fault of one token, of requests for two."""
    rows = {code: f"{code} of many" for code in codes}
    return {row: refused(code, row, row, counted=row) for code, row in rows.items()}


def at(endpoint: str, recipients: int, *codes: str) -> dict[str, Provocation]:
    """Refusals of the requests that go ahead of a push, or take it back."""
    return {code: refused(code, *[code] * recipients, endpoint=endpoint) for code in codes}


OTHERWISE: Mapping[str, Mapping[str, Provocation]] = {
    "fcm": {
        "INVALID_ARGUMENT:token": refused("INVALID_TOKEN", "INVALID_ARGUMENT:token", counted="INVALID_ARGUMENT:token"),
        "QUOTA_EXCEEDED:device": refused(
            "DEVICE_QUOTA_EXCEEDED", "QUOTA_EXCEEDED:device", counted="QUOTA_EXCEEDED:device"
        ),
    },
    "huawei": {
        "80000000": accepted("80000000"),
        "80100000": dead("80100000", "80000000", counted="80100000"),
        "other codes": said({"code": "89999999"}, "other codes", counted="89999999"),
    },
    "harmony": {
        "80000000": accepted("80000000", counted="80000000"),
        "80100000": dead("tokenFormatError", "80100000", counted="80100000"),
        "80100020": recalled(dead("tokenFormatError", "80100020", counted="80100020")),
        **at("withdraw", 1, "80000001", "80200003", "80300028", "80300032"),
        **at("withdraw", 2, "80300017"),
        "80300007": said({"code": "80300007", "msg": "{}"}, "80300007", counted="80300007", status=400),
        "noRight:all": refused("noRight", *["noRight:all"] * 10, counted="noRight:all"),
        "other codes": said({"code": "89999999"}, "other codes", counted="89999999"),
    },
    "honor": {
        "200": accepted("200", counted="200"),
        "80000000": said({"code": 80000000, "data": {}}, "80000000", counted="80000000"),
        "expireTokens": dead("expireTokens", "200", counted="expireTokens"),
        "802xxxxx": refused("80200001", "802xxxxx"),
        "8xxxxxxx": refused("80100003", "8xxxxxxx"),
        "other codes": refused("99999", "other codes"),
        **at("auth", 1, "invalid_client", "invalid_grant", "unauthorized_client"),
    },
    "meizu": {
        "200": accepted("200"),
        **of_many("110002", "110003"),
        "other codes": said({"code": "99999"}, "other codes", counted="99999"),
    },
    "oppo": {
        "0": dead("10000", "0"),
        **at("auth", 1, "14", "15", "16", "17", "18", "19"),
        "other codes": refused("10999", "other codes"),
    },
    "tpns": {
        "0": dead("invalid_targe_list", "0"),
        **of_many("1008006", "1008029", "10010005", "10110008"),
        "other codes": refused("1009999", "other codes"),
    },
    "vivo": {
        "0": accepted("0", "0"),
        **{f"user {n}": dead(f"user {n}", "0", code=f"status {n}", counted=f"user {n}") for n in (1, 2, 3)},
        "user 4": refused("status 4", "user 4", counted="user 4"),
        "user other": refused("status 5", "user other", counted="user other"),
        **at("auth", 1, "10093", *(str(code) for code in range(10_200, 10_208))),
        **at("stage", 2, "10252"),
        "other codes": refused("19999", "other codes"),
    },
    "xiaomi": {
        "0": accepted("0"),
        "bad_regids": dead("bad_regids", "0", counted="bad_regids"),
        **of_many("10029"),
        "20301 of many": said(
            {"code": 20301, "reason": "send failed"}, *["20301 of many"] * 2, counted="20301 of many"
        ),
        "channel_exceed_quota": replace(
            refused("200001", *["channel_exceed_quota"] * 2, counted="channel_exceed_quota"), mixed=True
        ),
        "channel_exceed_quota in part": replace(
            said(
                {"code": 0, "data": {"channel_exceed_quota": "a:1"}},
                *["channel_exceed_quota in part"] * 2,
                counted="channel_exceed_quota in part",
            ),
            mixed=True,
        ),
        "other codes": said({"code": 99999}, "other codes", counted="99999"),
    },
}
"""By vendor and row: partial successes, codes of single tokens, content stored ahead, access tokens, mixed requests,
recalls, rows that stand for several codes, and where the fake has another name."""
