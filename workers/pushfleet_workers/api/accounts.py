"""The endpoints of accounts: how they stand, pausing them, letting them go on."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Path, Query, Request, Response
from msgspec import Meta, Struct

from pushfleet_workers.api.documented import REFUSALS, documented, schemas_of
from pushfleet_workers.api.paths import decoded
from pushfleet_workers.api.problems import Problem, decode
from pushfleet_workers.gate_desk import PAUSE_S_MAX, REASON_CHARS_MAX, AccountState, GateDesk

__all__ = ["account_routes", "account_schemas"]

_BYTES_MAX = 16 * 1024

VendorId = Annotated[str, Path(description="The vendor, as in the settings: apns, fcm, huawei and so on.")]


class PauseGiven(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What to pause, and how."""

    credential: (
        Annotated[
            str, Meta(min_length=1, max_length=256, description="Only this account; absent: all of the vendor's.")
        ]
        | None
    ) = None
    for_s: Annotated[
        int, Meta(ge=0, le=PAUSE_S_MAX, description="After so long they go on; 0: once they are resumed.")
    ] = 0
    reason: Annotated[str, Meta(max_length=REASON_CHARS_MAX, description="For whoever finds them paused.")] = ""
    elsewhere: Annotated[bool, Meta(description="Let deliveries go by their devices' other channels meanwhile.")] = (
        False
    )


class ResumeGiven(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is to go on."""

    credential: (
        Annotated[
            str, Meta(min_length=1, max_length=256, description="Only this account; absent: all of the vendor's.")
        ]
        | None
    ) = None
    force: Annotated[
        bool,
        Meta(
            description="Past a pause that the vendor asked for, and an open breaker, as well; what waits for that is "
            "due at once."
        ),
    ] = False


class AccountStates(Struct, frozen=True):
    """How accounts stand."""

    accounts: list[AccountState]


_pause = msgspec.json.Decoder(PauseGiven)
_resume = msgspec.json.Decoder(ResumeGiven)
_encode = msgspec.json.Encoder().encode


def account_schemas() -> dict[str, Any]:
    """The JSON Schemas of all bodies, by name."""
    return schemas_of(PauseGiven, ResumeGiven, AccountStates)


_REFUSALS = {
    **REFUSALS,
    404: "There is no such account.",
    422: "Something given is wrong; nothing was changed.",
    503: "Redis does not answer.",
}
_documented = partial(documented, refusals=_REFUSALS)


class _Accounts:
    def __init__(self, desk: GateDesk) -> None:
        self._desk = desk

    async def states(
        self,
        vendor: Annotated[str, Query(description="Only those of this vendor.")] = "",
        credential: Annotated[str, Query(description="Only those of this credential.")] = "",
    ) -> Response:
        """How the accounts stand: open, paused by an operator, or shut by the vendor or the breaker, and until when."""
        return _json(await self._desk.states(vendor, credential))

    async def pause(self, request: Request, vendor: VendorId) -> Response:
        """Let nothing leave for a vendor any more, from the whole fleet, within a second; its work waits."""
        name = decoded(vendor, "vendor")
        given = await decode(request, _pause, _BYTES_MAX)
        if not given.reason.isprintable():
            raise Problem(422, "invalid_reason", "reason is one line of printable characters", "reason")
        states = await self._desk.pause(
            name, given.credential or "", for_s=given.for_s, reason=given.reason, elsewhere=given.elsewhere
        )
        return await self._answer(states)

    async def resume(self, request: Request, vendor: VendorId) -> Response:
        """Let a vendor's work leave again after a pause."""
        name = decoded(vendor, "vendor")
        given = await decode(request, _resume, _BYTES_MAX)
        return await self._answer(await self._desk.resume(name, given.credential or "", force=given.force))

    async def _answer(self, states: list[AccountState]) -> Response:
        if not states:
            known = [f"{one.vendor}/{one.credential}" for one in await self._desk.states()]
            raise Problem(404, "unknown_account", f"there is no such account; there are: {', '.join(known) or 'none'}")
        return _json(states)


def account_routes(desk: GateDesk) -> APIRouter:
    """The routes of accounts."""
    handlers = _Accounts(desk)
    routes = APIRouter(prefix="/v1/accounts", tags=["accounts"])
    for path, method, handler, document in (
        ("", "GET", handlers.states, _documented(None, AccountStates, "Those there are.", never=(400, 404, 422))),
        ("/{vendor}/pause", "POST", handlers.pause, _documented(PauseGiven, AccountStates, "How they stand now.")),
        ("/{vendor}/resume", "POST", handlers.resume, _documented(ResumeGiven, AccountStates, "How they stand now.")),
    ):
        routes.add_api_route(path, handler, methods=[method], response_class=Response, response_model=None, **document)
    return routes


def _json(states: list[AccountState]) -> Response:
    return Response(_encode(AccountStates(states)), media_type="application/json")
