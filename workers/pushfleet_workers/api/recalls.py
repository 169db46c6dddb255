"""The endpoint that takes messages back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Path, Request, Response
from msgspec import Meta, Struct

from pushfleet import AsyncProducer, Backpressure, InvalidMessage, QueueUnavailable
from pushfleet.message import Id, Key
from pushfleet_workers.api.documented import REFUSALS, documented, schemas_of
from pushfleet_workers.api.paths import AppId, app_id, identity
from pushfleet_workers.api.problems import Problem, decode
from pushfleet_workers.settings import AppSettings
from pushfleet_workers.tokens.changes import ID_BYTES_MAX, check_id

__all__ = ["recall_routes", "recall_schemas"]

RECIPIENTS_MAX = 10_000
_BYTES_MAX = 4 * 1024 * 1024

MessageId = Annotated[str, Path(description="The message's id, percent-encoded; 1 to 256 bytes of UTF-8.")]


class RecallGiven(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the backend knows of the message; all of it may be left out."""

    conversation: Annotated[
        Key,
        Meta(description="The message's conversation, or its replace key; counts where the fleet has forgotten it."),
    ] = ""
    recipients: Annotated[
        tuple[Id, ...],
        Meta(
            max_length=RECIPIENTS_MAX,
            description="Whose screens to take it off; none: those that the fleet remembers. What has not left is "
            "stopped for everybody.",
        ),
    ] = ()


class RecallTaken(Struct, frozen=True):
    """The recall is in the queue."""

    entries: Annotated[int, Meta(description="How many stream entries carry it.")]


_recall = msgspec.json.Decoder(RecallGiven)
_encode = msgspec.json.Encoder().encode


def recall_schemas() -> dict[str, Any]:
    """The JSON Schemas of all bodies, by name."""
    return schemas_of(RecallGiven, RecallTaken)


_REFUSALS = {
    **REFUSALS,
    409: "Recalls are off for the app.",
    422: "A field is wrong; nothing was enqueued.",
    503: "The fleet is behind, or Redis does not answer; try again.",
}


class _Recalls:
    def __init__(self, producer: AsyncProducer, apps: Mapping[str, AppSettings]) -> None:
        self._producer = producer
        self._apps = apps

    async def recall(self, request: Request, app: AppId, message: MessageId) -> Response:
        """Take a message back: what has not left is stopped, what is still shown is withdrawn or replaced."""
        app, message = app_id(app, self._apps), identity(message, "message", ID_BYTES_MAX)
        given = await decode(request, _recall, _BYTES_MAX)
        if not self._apps[app].recall_window_s:
            raise Problem(409, "recalls_off", f"recalls are off for this app: set apps.{app}.recall_window_s")
        _check(given)
        try:
            taken = await self._producer.recall(
                app, message, conversation=given.conversation, recipients=given.recipients
            )
        except InvalidMessage as problem:
            raise Problem(422, "invalid_recall", problem.problem) from None
        except Backpressure as problem:
            raise Problem(503, "backpressure", problem.problem, headers={"Retry-After": "1"}) from None
        except QueueUnavailable:
            why = "Redis does not answer; try again: it is safe"
            raise Problem(503, "redis_unavailable", why, headers={"Retry-After": "1"}) from None
        return Response(_encode(RecallTaken(taken.parts)), 202, media_type="application/json")


def _check(given: RecallGiven) -> None:
    """Raise :class:`Problem` with the path of what no message can have."""
    ids = [(f"recipients[{number}]", "user", one) for number, one in enumerate(given.recipients)]
    if given.conversation:
        ids.append(("conversation", "conversation", given.conversation))
    for field, what, one in ids:
        try:
            check_id(what, one, ID_BYTES_MAX)
        except ValueError as problem:
            raise Problem(422, "invalid_recall", str(problem), field) from None


def recall_routes(producer: AsyncProducer, apps: Mapping[str, AppSettings]) -> APIRouter:
    """The route that takes messages back; recalls go into the queue of *producer*."""
    routes = APIRouter(prefix="/v1/apps/{app}", tags=["recalls"])
    routes.add_api_route(
        "/messages/{message}/recall",
        _Recalls(producer, apps).recall,
        methods=["POST"],
        response_class=Response,
        response_model=None,
        **documented(RecallGiven, RecallTaken, "The fleet will act on it.", refusals=_REFUSALS, status=202),
    )
    return routes
