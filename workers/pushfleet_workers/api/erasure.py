"""The endpoint that erases a user."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from fastapi import APIRouter, Response

from pushfleet_workers.api.documented import REFUSALS, documented, schemas_of
from pushfleet_workers.api.paths import AppId, UserId, app_id, user_id
from pushfleet_workers.erasure import EraseDesk, Erasing

__all__ = ["erasure_routes", "erasure_schemas"]

_REFUSALS = {**REFUSALS, 422: "The user id is wrong."}


def erasure_schemas() -> dict[str, Any]:
    """The JSON Schemas of all bodies, by name."""
    return schemas_of(Erasing)


class _Erasures:
    def __init__(self, desk: EraseDesk, apps: Mapping[str, Any]) -> None:
        self._desk = desk
        self._apps = apps

    async def erase(self, app: AppId, user: UserId) -> Response:
        """Erase a user: devices, preferences, badges and dead tokens at once, then what is queued or kept of messages.

        The user may register again at once, and gets what comes from then on. Repeating it is safe.
        """
        erasing = await self._desk.erase(app_id(app, self._apps), user_id(user))
        return Response(msgspec.json.encode(erasing), 202, media_type="application/json")


def erasure_routes(desk: EraseDesk, apps: Mapping[str, Any]) -> APIRouter:
    """The route that erases a user."""
    routes = APIRouter(prefix="/v1/apps/{app}", tags=["token state"])
    what = "What was known is gone; the rest follows by itself, within seconds where nothing is held up."
    routes.add_api_route(
        "/users/{user}",
        _Erasures(desk, apps).erase,
        methods=["DELETE"],
        response_class=Response,
        response_model=None,
        **documented(None, Erasing, what, refusals=_REFUSALS, status=202),
    )
    return routes
