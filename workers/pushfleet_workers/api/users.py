"""The endpoint that answers "why did this user get no push?"."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, get_args

import msgspec
from fastapi import APIRouter, Query, Response
from msgspec import Meta, Struct

from pushfleet.message import Kind
from pushfleet_workers.api.devices import DeviceShown, shown_fields
from pushfleet_workers.api.documented import REFUSALS, documented, schemas_of
from pushfleet_workers.api.paths import AppId, UserId, app_id, user_id
from pushfleet_workers.api.problems import Problem
from pushfleet_workers.settings import AppSettings
from pushfleet_workers.tokens.changes import ID_BYTES_MAX, Accounts, check_id
from pushfleet_workers.tokens.lookup import Receive
from pushfleet_workers.tokens.record import Device
from pushfleet_workers.tokens.store import TokenStore
from pushfleet_workers.verdict import Verdict, verdicts

__all__ = ["PushShown", "UserShown", "show_user", "user_routes", "user_schemas"]

_KINDS: tuple[Kind, ...] = get_args(Kind)


class PushShown(Struct, frozen=True):
    """Whether a push to the device would go now."""

    goes: bool
    channel: Annotated[str, Meta(description="`<vendor>:<credential>:<kind of token>` by which; empty: by none.")]
    reason: Annotated[str, Meta(description="Why not, one of `docs/decisions.md`; empty where it would go.")]
    message: Annotated[str, Meta(description="The reason in a sentence.")]
    parked: Annotated[
        bool, Meta(description="It would wait, and go unless it is confirmed that the device has the message.")
    ]


class DeviceJudged(DeviceShown, frozen=True):
    """A device, and what would become of a push to it now."""

    push: PushShown


class OptionShown(Struct, frozen=True):
    """What a user wants from a conversation; `all` is not listed."""

    receive: str
    until_ms: int


class UserShown(Struct, frozen=True):
    """What is known of a user; both empty for one that was never heard of, who gets no push."""

    devices: dict[str, DeviceJudged]
    receive_options: Annotated[dict[str, OptionShown], Meta(description="By conversation.")]
    erasing_since_ms: Annotated[
        int, Meta(description="The user is being erased, and something of them may be left, since then; 0: no.")
    ] = 0


def user_schemas() -> dict[str, Any]:
    """The JSON Schemas of all bodies, by name."""
    return schemas_of(UserShown)


def show_user(
    devices: Mapping[str, Device],
    options: Mapping[str, tuple[Receive, int]],
    judged: Mapping[str, Verdict],
    erasing_since_ms: int = 0,
) -> UserShown:
    """A user as they are shown: *devices*, each with what *judged* says of it, and *options* by conversation."""
    return UserShown(
        {name: DeviceJudged(**shown_fields(device), push=_push(judged[name])) for name, device in devices.items()},
        {name: OptionShown(receive, until_ms) for name, (receive, until_ms) in options.items()},
        erasing_since_ms,
    )


def _push(verdict: Verdict) -> PushShown:
    channel = verdict.channel.name if verdict.channel is not None else ""
    return PushShown(verdict.channel is not None, channel, verdict.reason, verdict.sentence, verdict.parked)


class _Users:
    def __init__(
        self, store: TokenStore, apps: Mapping[str, AppSettings], accounts: Accounts, now_ms: Callable[[], int]
    ) -> None:
        self._store = store
        self._apps = apps
        self._accounts = accounts
        self._now_ms = now_ms

    async def user(
        self,
        app: AppId,
        user: UserId,
        conversation: Annotated[str, Query(description="Of which the push would be; absent: of none.")] = "",
        kind: Annotated[
            str, Query(description="Kind of the message.", json_schema_extra={"enum": list(_KINDS)})
        ] = "chat",
        mention: Annotated[
            str, Query(description="Whether it would mention the user.", json_schema_extra={"enum": ["true", "false"]})
        ] = "false",
    ) -> Response:
        """What is known of a user, and for each device whether a push would go now; tokens appear as fingerprints."""
        app, user = app_id(app, self._apps), user_id(user)
        if conversation:
            try:
                check_id("conversation", conversation, ID_BYTES_MAX)
            except ValueError as problem:
                raise Problem(422, "invalid_id", str(problem), "conversation") from None
        asked = next((one for one in _KINDS if one == kind), None)
        if asked is None:
            raise Problem(422, "invalid_kind", f"kind is one of: {', '.join(_KINDS)}", "kind")
        if mention not in ("true", "false"):
            raise Problem(422, "invalid_mention", "mention is true or false", "mention")
        known = await self._store.user(app, user)
        state = await self._store.state_of(app, user, conversation)
        judged = verdicts(
            state,
            app,
            user,
            self._now_ms(),
            self._takes,
            kind=asked,
            mention=mention == "true",
            unused_ms=self._apps[app].device_unused_ms,
            parks=self._apps[app].parks,
        )
        shown = show_user(state.devices, known.options, judged, known.erasing_since_ms)
        return Response(msgspec.json.encode(shown), media_type="application/json")

    def _takes(self, vendor: str, credential: str, app: str) -> bool:
        return self._accounts.get((vendor, credential)) == app


_REFUSALS = {
    **REFUSALS,
    400: "The path is not percent-encoded UTF-8.",
    422: "An id or parameter is wrong.",
}


def user_routes(
    store: TokenStore, apps: Mapping[str, AppSettings], accounts: Accounts, now_ms: Callable[[], int]
) -> APIRouter:
    """The route that shows a user."""
    routes = APIRouter(prefix="/v1/apps/{app}", tags=["token state"])
    routes.add_api_route(
        "/users/{user}",
        _Users(store, apps, accounts, now_ms).user,
        methods=["GET"],
        response_class=Response,
        response_model=None,
        **documented(None, UserShown, "What is known.", refusals=_REFUSALS),
    )
    return routes
