"""The endpoint that is told which messages devices have: where pushes to the foreground are parked, they end by it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Request, Response
from msgspec import Meta, Struct

from pushfleet_workers.api.documented import REFUSALS, documented, schemas_of
from pushfleet_workers.api.paths import AppId, app_id, check_time
from pushfleet_workers.api.problems import Problem, decode
from pushfleet_workers.settings import AppSettings
from pushfleet_workers.tokens.confirmations import Confirmation, ConfirmationStore

__all__ = ["confirmation_routes", "confirmation_schemas"]

CONFIRMATIONS_MAX = 1_000
_BYTES_MAX = 4 * 1024 * 1024


class ConfirmationsGiven(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What devices have."""

    confirmations: Annotated[tuple[Confirmation, ...], Meta(min_length=1, max_length=CONFIRMATIONS_MAX)]


class ConfirmedShown(Struct, frozen=True):
    """What became of the confirmations; the counts add up to those given."""

    applied: int
    outdated: Annotated[int, Meta(description="More was confirmed before; they change nothing.")]
    unknown: Annotated[int, Meta(description="Of devices that are not registered; they change nothing.")]


_confirmations = msgspec.json.Decoder(ConfirmationsGiven)
_encode = msgspec.json.Encoder().encode


def confirmation_schemas() -> dict[str, Any]:
    """The JSON Schemas of all bodies, by name."""
    return schemas_of(ConfirmationsGiven, ConfirmedShown)


_REFUSALS = {
    **REFUSALS,
    409: "The app does not park pushes.",
}


class _Confirmations:
    def __init__(self, store: ConfirmationStore, apps: Mapping[str, AppSettings], now_ms: Callable[[], int]) -> None:
        self._store = store
        self._apps = apps
        self._now_ms = now_ms

    async def confirm(self, request: Request, app: AppId) -> Response:
        """Confirm which messages up to 1,000 devices have: parked pushes of those are not sent to them."""
        app = app_id(app, self._apps)
        given = await decode(request, _confirmations, _BYTES_MAX)
        if not self._apps[app].parks:
            raise Problem(409, "parking_off", f'nothing is parked for this app: set apps.{app}.foreground_ack = "park"')
        for number, one in enumerate(given.confirmations):
            check_time(one.up_to_ms, self._now_ms(), f"confirmations[{number}].up_to_ms", may_be_old=True)
        done = await self._store.confirm(app, given.confirmations)
        shown = ConfirmedShown(done.applied, done.outdated, done.unknown)
        return Response(_encode(shown), media_type="application/json")


def confirmation_routes(
    store: ConfirmationStore, apps: Mapping[str, AppSettings], now_ms: Callable[[], int]
) -> APIRouter:
    """The route that takes confirmations down in *store*."""
    routes = APIRouter(prefix="/v1/apps/{app}", tags=["token state"])
    routes.add_api_route(
        "/confirmations",
        _Confirmations(store, apps, now_ms).confirm,
        methods=["POST"],
        response_class=Response,
        response_model=None,
        **documented(ConfirmationsGiven, ConfirmedShown, "What became of them.", refusals=_REFUSALS),
    )
    return routes
