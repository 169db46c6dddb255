"""The endpoint that is told how far users have read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Path, Request, Response
from msgspec import Meta, Struct

from pushfleet_workers.api.documented import REFUSALS, documented, schemas_of
from pushfleet_workers.api.paths import AppId, UserId, app_id, check_time, identity, user_id
from pushfleet_workers.api.problems import Problem, decode
from pushfleet_workers.settings import AppSettings
from pushfleet_workers.tokens.changes import ID_BYTES_MAX, UnixMs, Unread
from pushfleet_workers.tokens.reads import ReadStore

__all__ = ["read_routes", "read_schemas"]

_BYTES_MAX = 4 * 1024

ConversationId = Annotated[str, Path(description="As in messages, percent-encoded; 1 to 256 bytes of UTF-8.")]


class ReadGiven(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How far a user has read a conversation."""

    up_to_ms: Annotated[
        int,
        Meta(
            ge=1,
            le=253_402_300_799_999,
            description="`sent_at_ms` of the last message that was read; what was written until then is not pushed.",
        ),
    ]
    unread: Annotated[
        Unread | None,
        Meta(description="What the user has left unread in all conversations; badges count on from there."),
    ] = None
    at_ms: UnixMs = 0


class ReadTaken(Struct, frozen=True):
    """What became of it."""

    applied: Annotated[bool, Meta(description="False when all of it is older than what was known.")]


_read = msgspec.json.Decoder(ReadGiven)
_encode = msgspec.json.Encoder().encode


def read_schemas() -> dict[str, Any]:
    """The JSON Schemas of all bodies, by name."""
    return schemas_of(ReadGiven, ReadTaken)


_REFUSALS = {
    **REFUSALS,
    409: "Reads are off for the app.",
}


class _Reads:
    def __init__(self, store: ReadStore, apps: Mapping[str, AppSettings], now_ms: Callable[[], int]) -> None:
        self._store = store
        self._apps = apps
        self._now_ms = now_ms

    async def mark(self, request: Request, app: AppId, user: UserId, conversation: ConversationId) -> Response:
        """Say how far a user has read a conversation: what waits of it is not pushed, and badges go down.

        The user needs no device: what was read elsewhere holds for one that registers later.
        """
        app, user = app_id(app, self._apps), user_id(user)
        conversation = identity(conversation, "conversation", ID_BYTES_MAX)
        given = await decode(request, _read, _BYTES_MAX)
        if not self._apps[app].reads:
            raise Problem(409, "reads_off", f"reads are off for this app: set apps.{app}.reads")
        check_time(given.up_to_ms, self._now_ms(), "up_to_ms", may_be_old=True)
        check_time(given.at_ms, self._now_ms(), "at_ms")
        applied = await self._store.mark(
            app, user, conversation, given.up_to_ms, unread=given.unread, at_ms=given.at_ms
        )
        return Response(_encode(ReadTaken(applied)), media_type="application/json")


def read_routes(store: ReadStore, apps: Mapping[str, AppSettings], now_ms: Callable[[], int]) -> APIRouter:
    """The route that takes reads down in *store*."""
    routes = APIRouter(prefix="/v1/apps/{app}", tags=["token state"])
    routes.add_api_route(
        "/users/{user}/conversations/{conversation}/read",
        _Reads(store, apps, now_ms).mark,
        methods=["POST"],
        response_class=Response,
        response_model=None,
        **documented(ReadGiven, ReadTaken, "It is taken note of.", refusals=_REFUSALS),
    )
    return routes
