"""Where apps report what no vendor tells: that a push arrived, or was tapped, on APNs and FCM."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

import msgspec
from fastapi import APIRouter, Request, Response
from msgspec import Meta, Struct

from pushfleet_workers.api.documented import REFUSALS, documented, schemas_of
from pushfleet_workers.api.problems import Problem, decode
from pushfleet_workers.receipts.book import Entry, ReceiptBook
from pushfleet_workers.receipts.limits import Buckets
from pushfleet_workers.receipts.receipt import Event
from pushfleet_workers.tokens.changes import (
    DEVICE_BYTES_MAX,
    ID_BYTES_MAX,
    DeviceId,
    UnixMs,
    UserId,
    check_id,
    in_future,
)

__all__ = ["client_receipt_routes", "client_receipt_schemas"]

BODY_BYTES_MAX = 4 * 1024 * 1024
REPORTS_MAX = 1_000


class ReceiptGiven(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the app on a device saw of a push."""

    mid: Annotated[
        str,
        Meta(
            description="The message's id, which the push carries as `mid`; 1 to 256 bytes of UTF-8.",
            extra_json_schema={"minLength": 1, "maxLength": ID_BYTES_MAX},
        ),
    ]
    user: UserId
    device: DeviceId
    event: Literal["delivered", "clicked"]
    at_ms: UnixMs = 0

    def __post_init__(self) -> None:
        check_id("message", self.mid, ID_BYTES_MAX, "mid")
        check_id("user", self.user, ID_BYTES_MAX)
        check_id("device", self.device, DEVICE_BYTES_MAX)


class ReceiptsGiven(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Receipts of many devices; one that is wrong refuses them all."""

    app: Annotated[str, Meta(description="An app of the settings.")]
    receipts: Annotated[tuple[ReceiptGiven, ...], Meta(min_length=1, max_length=REPORTS_MAX)]


class ReceiptsShown(Struct, frozen=True):
    """What became of the receipts; the counts add up to those given."""

    recorded: int
    repeated: Annotated[int, Meta(description="Recorded before, some minutes ago at most; they change nothing.")]


_given = msgspec.json.Decoder(ReceiptsGiven)
_encode = msgspec.json.Encoder().encode


def client_receipt_schemas() -> dict[str, Any]:
    """The JSON Schemas of all bodies, by name."""
    return schemas_of(ReceiptsGiven, ReceiptsShown)


_REFUSALS = {
    **REFUSALS,
    400: "The body is not JSON.",
    422: "A field is wrong; nothing was recorded.",
    429: "Too many requests; try again.",
}


class _Clients:
    def __init__(
        self, apps: Mapping[str, Any], book: ReceiptBook, now_ms: Callable[[], int], requests_per_s: float
    ) -> None:
        self._apps = apps
        self._book = book
        self._now_ms = now_ms
        self._buckets = Buckets(requests_per_s)

    async def report(self, request: Request) -> Response:
        """Report up to 1,000 pushes that arrived or were tapped, where no vendor tells: on APNs and FCM."""
        given = await decode(request, _given, BODY_BYTES_MAX)
        if given.app not in self._apps:
            known = ", ".join(sorted(self._apps)) or "none"
            raise Problem(422, "unknown_app", f"there is no such app; known are: {known}", "app")
        now_ms = self._now_ms()
        for number, one in enumerate(given.receipts):
            if in_future(one.at_ms, now_ms):
                late = "the time lies more than five minutes in the future: check the clock"
                raise Problem(422, "time_in_future", late, f"receipts[{number}].at_ms")
        if not self._buckets.take(given.app):
            why = "too many requests for this app: send up to 1,000 receipts in each"
            raise Problem(429, "too_many_requests", why, headers={"Retry-After": "1"})
        entries = [
            Entry(Event(one.event), one.at_ms or now_ms, message_id=one.mid, user=one.user, device=one.device)
            for one in given.receipts
        ]
        recorded = await self._book.record(given.app, entries)
        return Response(_encode(ReceiptsShown(recorded, len(entries) - recorded)), media_type="application/json")


def client_receipt_routes(
    apps: Mapping[str, Any], book: ReceiptBook, now_ms: Callable[[], int], *, requests_per_s: float
) -> APIRouter:
    """Where apps report themselves.

    * **requests_per_s** - for one app; twice as many at once.
    """
    routes = APIRouter(prefix="/v1/receipts", tags=["receipts"])
    routes.add_api_route(
        "/client",
        _Clients(apps, book, now_ms, requests_per_s).report,
        methods=["POST"],
        response_class=Response,
        response_model=None,
        **documented(ReceiptsGiven, ReceiptsShown, "What became of them.", refusals=_REFUSALS, never=(404,)),
    )
    return routes
