"""The addresses that vendors post receipts to, open to the world.

Whoever does not know an address's secret hears 404, whatever else is wrong, before a byte of the body is read. Behind
it all is bounded: bytes and receipts of a request, the time that it takes to arrive, requests a second and at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import secrets
from collections.abc import Callable
from itertools import islice

from fastapi import APIRouter, Request, Response
from prometheus_client import Counter

from pushfleet_workers.account import AccountSettings
from pushfleet_workers.api.problems import Problem, read_body
from pushfleet_workers.errors import CredentialError
from pushfleet_workers.receipts.intake import Intake
from pushfleet_workers.receipts.limits import Buckets
from pushfleet_workers.receipts.readers import load
from pushfleet_workers.receipts.receipt import Proof, Reader, Receipt
from pushfleet_workers.vendors._receipts import ReceiptAccount, receipt_keys, secret_path

__all__ = ["AccountOf", "vendor_receipt_routes"]

BODY_BYTES_MAX = 4 * 1024 * 1024
BODY_TIMEOUT_S = 15.0
RECEIPTS_MAX = 20_000
AT_ONCE_MAX = 16
UNLISTED_MAX = 100

REQUESTS = Counter(
    "pushfleet_receipt_requests", "Requests with receipts of vendors by what became of them.", ["vendor", "result"]
)
FOREIGN = Counter("pushfleet_receipts_foreign", "Receipts of pushes that did not ask for any here.", ["vendor"])
UNLISTED = Counter("pushfleet_receipts_unlisted", "Receipts whose code is in no table.", ["vendor", "code"])

_NOBODY = secrets.token_bytes(32)
"""A key that nobody has: an account that does not exist takes as long to refuse as one that does."""

AccountOf = Callable[[str, str], AccountSettings | None]
"""The account of a vendor and a credential; None where there is none."""


class _Vendors:
    def __init__(self, account_of: AccountOf, intake: Intake, now_ms: Callable[[], int], requests_per_s: float) -> None:
        self._account_of = account_of
        self._intake = intake
        self._now_ms = now_ms
        self._buckets = Buckets(requests_per_s)
        self._under_way = 0
        self._unlisted: set[tuple[str, str]] = set()

    async def receive(
        self,
        request: Request,
        vendor: str,
        credential: str,
        secret: str,
    ) -> Response:
        """Receipts as the vendor posts them, answered as it wants."""
        account, reader = self._known(vendor, credential, secret)
        if not self._buckets.take((vendor, credential)) or self._under_way >= AT_ONCE_MAX:
            REQUESTS.labels(vendor, "limited").inc()
            raise Problem(
                429, "too_many_requests", "too many receipts at once: try again", headers={"Retry-After": "1"}
            )
        self._under_way += 1
        try:
            return await self._take(request, vendor, credential, account, reader)
        finally:
            self._under_way -= 1

    def _known(self, vendor: str, credential: str, secret: str) -> tuple[ReceiptAccount, Reader]:
        account = self._account_of(vendor, credential)
        keys: tuple[bytes, ...] = (_NOBODY,)
        if isinstance(account, ReceiptAccount) and account.receipt_url:
            with contextlib.suppress(CredentialError):
                keys = receipt_keys(account)
        given, name = secret.encode("latin-1", errors="replace"), f"{vendor}/{credential}"
        # All keys are tried: how many there are is nobody's business either.
        good = [hmac.compare_digest(secret_path(key, name).encode(), given) for key in keys]
        if isinstance(account, ReceiptAccount) and any(good):
            reader = load(vendor)
            if reader is not None:
                return account, reader
        REQUESTS.labels("unknown", "not_found").inc()
        raise Problem(404, "not_found", "Not Found")

    async def _take(
        self, request: Request, vendor: str, credential: str, account: ReceiptAccount, reader: Reader
    ) -> Response:
        body = await self._body(request, vendor)
        proof = reader.verify(account, request.headers, body, self._now_ms())
        if proof is Proof.REFUSED:
            REQUESTS.labels(vendor, "unsigned").inc()
            raise Problem(401, "unauthorized", "the signature is missing or wrong")
        receipts = list(islice(reader.read(body), RECEIPTS_MAX + 1))
        if len(receipts) > RECEIPTS_MAX:
            REQUESTS.labels(vendor, "too_large").inc()
            raise Problem(413, "body_too_large", f"more than {RECEIPTS_MAX} receipts in one request")
        taken = await self._intake.take(vendor, credential, account, receipts, proof)
        REQUESTS.labels(vendor, "taken" if receipts else "empty").inc()
        FOREIGN.labels(vendor).inc(taken.foreign)
        self._count_unlisted(vendor, reader, receipts)
        content, media_type = reader.acknowledgement
        return Response(content, media_type=media_type)

    async def _body(self, request: Request, vendor: str) -> bytes:
        try:
            async with asyncio.timeout(BODY_TIMEOUT_S):
                return await read_body(request, BODY_BYTES_MAX)
        except TimeoutError:
            REQUESTS.labels(vendor, "too_slow").inc()
            raise Problem(408, "body_incomplete", f"the body took longer than {BODY_TIMEOUT_S:g} s") from None
        except Problem:
            REQUESTS.labels(vendor, "too_large").inc()
            raise

    def _count_unlisted(self, vendor: str, reader: Reader, receipts: list[Receipt]) -> None:
        for receipt in receipts:
            if receipt.code not in reader.codes:
                name = (vendor, receipt.code or "none")
                # Whoever sends ever new codes gets no label for each.
                if name not in self._unlisted and len(self._unlisted) >= UNLISTED_MAX:
                    name = (vendor, "more")
                self._unlisted.add(name)
                UNLISTED.labels(*name).inc()


def vendor_receipt_routes(
    account_of: AccountOf, intake: Intake, now_ms: Callable[[], int], *, requests_per_s: float
) -> APIRouter:
    """The address of every account whose vendor posts receipts.

    * **requests_per_s** - of one account; twice as many at once.
    """
    routes = APIRouter(prefix="/v1/receipts")
    handlers = _Vendors(account_of, intake, now_ms, requests_per_s)
    routes.add_api_route(
        "/{vendor}/{credential}/{secret}",
        handlers.receive,
        methods=["POST"],
        response_class=Response,
        response_model=None,
        # Not for callers of ours: its bodies are the vendors'.
        include_in_schema=False,
    )
    return routes
