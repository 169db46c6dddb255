"""What passes between a connection and a fake vendor: requests, calls, responses, replies."""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import parse_qs

import msgspec
from msgspec import Struct

__all__ = ["Answerer", "Call", "Fault", "Reply", "Request", "Response", "json_response", "parse_form", "parse_object"]

JSON = ("content-type", "application/json; charset=UTF-8")


class Request(Struct):
    """One HTTP request, as it came off the wire."""

    method: str
    path: str
    """Without the query."""

    headers: Mapping[str, str]
    """Lower-case names; values as Latin-1, so that their length is their length in bytes."""

    body: bytes
    query: str = ""
    doubled: bool = False
    """Whether a header name came twice."""

    session: dict[str, str] = msgspec.field(default_factory=dict)
    """The memory of the connection it came on, shared by all its requests."""


class Response(Struct, frozen=True):
    """One HTTP answer, and the word under which the book counts it."""

    status: int
    result: str
    """``accepted``, or the vendor's own code."""

    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()
    """Lower-case names."""


class Call(Struct, frozen=True):
    """A request that the vendor found in order: what it asks for, for whom, and with which content."""

    account: str
    """The credential it was made with."""

    endpoint: str = "send"
    """``send``; ``auth`` where the vendor hands out access tokens, ``stage`` where it takes content ahead of its
    targets, ``withdraw`` where it takes pushes back."""

    tokens: tuple[str, ...] = ()
    title: str = ""
    body: str = ""
    sent_id: str = ""
    """The vendor's own place for an id of the sender, e.g. ``apns-id``; empty where it has none."""

    replace_key: str = ""
    data: Mapping[str, Any] = {}
    """The custom part of the payload."""

    echo: tuple[tuple[str, str], ...] = ()
    """Headers that every answer to this request carries."""

    dry_run: bool = False
    """Checked in full, delivered to nobody, recorded nowhere."""

    parts: tuple[Call, ...] = ()
    """What each target gets, where a request carries several pushes; empty: all get the same."""

    callback: Mapping[str, str] = {}
    """What the push asks for in receipts: ``param`` to bring back, and ``url`` and ``type`` where it names them."""

    names_dead: bool = True
    """Whether the answer tells which targets are dead, where only some are."""


class Fault(enum.Enum):
    """What happens on the wire in place of an answer."""

    NONE = "none"
    SILENT = "silent"
    RESET = "reset"
    GOAWAY = "goaway"
    DROP = "drop"
    HALF_CLOSE = "half_close"


class Reply(Struct, frozen=True):
    """What a connection does with one request."""

    response: Response | None = None
    delay_s: float = 0.0
    fault: Fault = Fault.NONE
    h2_error: int = 0
    """Error code of RST_STREAM and GOAWAY (RFC 9113, section 7)."""

    processed: bool = True
    """Whether the last-stream-id of a GOAWAY includes this request: if so, its outcome is unknown to the client."""

    reason: str = ""
    """Debug data of a GOAWAY."""


Answerer = Callable[[Request], Reply]


def json_response(status: int, result: str, content: object, headers: tuple[tuple[str, str], ...] = ()) -> Response:
    """A JSON answer; *content* is anything msgspec can encode."""
    return Response(status, result, msgspec.json.encode(content), (JSON, *headers))


def parse_object(body: bytes) -> dict[str, Any] | None:
    """The JSON object in *body*, or None where there is anything else."""
    try:
        content = msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    return content if isinstance(content, dict) else None


def parse_form(body: bytes) -> dict[str, str]:
    """The fields of a form body; of a repeated one the last, of an unreadable body none."""
    try:
        return {name: values[-1] for name, values in parse_qs(body.decode()).items()}
    except ValueError:
        return {}


def text(value: object) -> str:
    """*value* where it is a string, else nothing."""
    return value if isinstance(value, str) else ""


def table(value: object) -> dict[str, Any]:
    """*value* where it is a JSON object, else an empty one."""
    return value if isinstance(value, dict) else {}


def whole(value: object, least: int, most: int) -> bool:
    """Whether *value* is an integer from *least* to *most*."""
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def words(listed: str) -> frozenset[str]:
    """The words of *listed*, which is how long tables of names stay readable."""
    return frozenset(listed.split())
