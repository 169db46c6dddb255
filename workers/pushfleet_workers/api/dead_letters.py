"""The endpoints of dead letters and refused entries: look at them, put them back, drop them."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Path, Query, Request, Response
from msgspec import Meta, Struct

from pushfleet.message import LANES
from pushfleet_workers.api.documented import REFUSALS, documented, schemas_of
from pushfleet_workers.api.paths import decoded
from pushfleet_workers.api.problems import Problem, decode
from pushfleet_workers.dead_letters import (
    TTL_S_MAX,
    DropDone,
    LetterDesk,
    LetterDetail,
    LetterFilter,
    LetterName,
    LetterPage,
    ReplayDone,
)
from pushfleet_workers.reasons import DEAD, REFUSED_ENTRIES
from pushfleet_workers.tokens.changes import UnixMs

__all__ = ["dead_letter_routes", "dead_letter_schemas"]

PAGE_MAX = 1_000
AT_ONCE_MAX = 10_000
NAMED_MAX = 1_000
_BYTES_MAX = 256 * 1024
_NUMBER_BYTES_MAX = 15

VendorId = Annotated[str, Path(description="The vendor; `ingress` for what routers refused.")]
CredentialId = Annotated[str, Path(description="The credential's id; of what routers refused, the lane.")]
PlaceId = Annotated[str, Path(description="The last part of the letter's name.")]
Text = Annotated[str, Meta(max_length=256)]


class WhichGiven(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which letters are meant: those that are named, or those that fit in all that is given, or all."""

    letters: Annotated[
        list[Text], Meta(max_length=NAMED_MAX, description="Names of letters; then nothing else is given.")
    ] = []
    all: Annotated[bool, Meta(description="All of them, where nothing else is given.")] = False
    vendor: Annotated[Text, Meta(description="`ingress` for what routers refused.")] = ""
    credential: Annotated[Text, Meta(description="Of what routers refused, the lane.")] = ""
    app: Text = ""
    reason: Text = ""
    code: Annotated[Text, Meta(description="The vendor's own code.")] = ""
    lane: Text = ""
    message_id: Text = ""
    user: Annotated[Text, Meta(description="With a delivery to this user.")] = ""
    since_ms: Annotated[UnixMs, Meta(description="That died from then on, Unix milliseconds; 0: all.")] = 0
    until_ms: Annotated[UnixMs, Meta(description="That died until then, Unix milliseconds; 0: all.")] = 0
    limit: Annotated[int, Meta(ge=1, le=AT_ONCE_MAX, description="Most letters at once; the oldest go first.")] = (
        AT_ONCE_MAX
    )
    dry_run: Annotated[bool, Meta(description="Only say what would happen.")] = False

    @property
    def which(self) -> LetterFilter | list[LetterName]:
        """The letters that are meant; raises :class:`Problem` where that cannot be said."""
        fields = {name: getattr(self, name) for name in LetterFilter.__struct_fields__}
        wanted = LetterFilter(**fields)
        _check(wanted)
        if self.letters:
            if self.all or not wanted.everything:
                raise Problem(
                    422, "letters_and_filters", "name letters, or say which ones by filters, not both", "letters"
                )
            return [_named(name) for name in self.letters]
        if wanted.everything and not self.all:
            raise Problem(422, "nothing_named", "say which: letters, a filter such as vendor or reason, or all")
        return wanted


class ReplayGiven(WhichGiven, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which letters to put back, and how."""

    ttl_s: Annotated[
        int,
        Meta(ge=0, le=TTL_S_MAX, description="A new time to live from now on, also for what has expired; 0: none."),
    ] = 0
    per_second: Annotated[
        float,
        Meta(
            ge=0,
            le=1_000_000,
            description="Deliveries of an account that become due in a second; 0: half of its rate_per_s, else 100.",
        ),
    ] = 0


_drop = msgspec.json.Decoder(WhichGiven)
_replay = msgspec.json.Decoder(ReplayGiven)
_encode = msgspec.json.Encoder().encode


def dead_letter_schemas() -> dict[str, Any]:
    """The JSON Schemas of all bodies, by name."""
    return schemas_of(WhichGiven, ReplayGiven, LetterPage, LetterDetail, ReplayDone, DropDone)


_REFUSALS = {
    **REFUSALS,
    404: "There is no such letter.",
    422: "Something given is wrong; nothing was changed.",
    503: "Redis does not answer.",
}
_documented = partial(documented, refusals=_REFUSALS)


def _number(description: str) -> Any:
    return Query(description=description, json_schema_extra={"pattern": f"^[0-9]{{1,{_NUMBER_BYTES_MAX}}}$"})


class _DeadLetters:
    def __init__(self, desk: LetterDesk) -> None:
        self._desk = desk

    async def page(
        self,
        vendor: Annotated[str, Query(description="Only those of this vendor; `ingress`: what routers refused.")] = "",
        credential: Annotated[str, Query(description="Only those of this credential.")] = "",
        app: Annotated[str, Query(description="Only those of this app.")] = "",
        reason: Annotated[
            str,
            Query(description="Only those; empty: all.", json_schema_extra={"enum": ["", *DEAD, *REFUSED_ENTRIES]}),
        ] = "",
        code: Annotated[str, Query(description="Only those with this code of the vendor.")] = "",
        lane: Annotated[
            str, Query(description="Only those; empty: all.", json_schema_extra={"enum": ["", *LANES]})
        ] = "",
        message_id: Annotated[str, Query(description="Only those of this message.")] = "",
        user: Annotated[str, Query(description="Only those with a delivery to this user.")] = "",
        since_ms: Annotated[str, _number("Only those that died from then on, Unix milliseconds.")] = "0",
        until_ms: Annotated[str, _number("Only those that died until then, Unix milliseconds.")] = "0",
        before: Annotated[str, Query(description="The cursor of the page before; absent: from the newest on.")] = "",
        limit: Annotated[
            str,
            Query(
                description="Most letters in a page, 1 to 1,000.",
                json_schema_extra={"pattern": "^([1-9][0-9]{0,2}|1000)$"},
            ),
        ] = "100",
    ) -> Response:
        """Dead letters and refused entries, the newest first; go on with the cursor. A page may be empty with more."""
        wanted = LetterFilter(
            vendor=vendor, credential=credential, app=app, reason=reason, code=code, lane=lane, message_id=message_id,
            user=user, since_ms=_whole(since_ms, "since_ms"), until_ms=_whole(until_ms, "until_ms"),
        )  # fmt: skip
        _check(wanted)
        count = _whole(limit, "limit")
        if not 1 <= count <= PAGE_MAX:
            raise Problem(422, "invalid_limit", f"limit is a number from 1 to {PAGE_MAX}", "limit")
        cursor = LetterName.read(before)
        if before and cursor is None:
            raise Problem(422, "invalid_cursor", "this is no cursor of ours: leave it out to begin anew", "before")
        return _json(await self._desk.page(wanted, count, cursor))

    async def show(self, vendor: VendorId, credential: CredentialId, place: PlaceId) -> Response:
        """All that helps with one letter, with a sentence for reason and code; neither tokens nor texts."""
        parts = (decoded(vendor, "vendor"), decoded(credential, "credential"), decoded(place, "letter"))
        name = LetterName.read(":".join(parts))
        shown = await self._desk.detail(name) if name is not None else None
        if shown is None:
            raise Problem(404, "unknown_letter", "there is no such letter: it was replayed, dropped or is too old")
        return _json(shown)

    async def replay(self, request: Request) -> Response:
        """Put letters back, each once, whoever else does the same; workers decide on them anew before they are sent."""
        given = await decode(request, _replay, _BYTES_MAX)
        done = await self._desk.replay(
            given.which, ttl_s=given.ttl_s, per_second=given.per_second, limit=given.limit, dry_run=given.dry_run
        )
        return _json(done)

    async def drop(self, request: Request) -> Response:
        """Forget letters for good; the books keep counting their deliveries as dead."""
        given = await decode(request, _drop, _BYTES_MAX)
        return _json(await self._desk.drop(given.which, limit=given.limit, dry_run=given.dry_run))


def dead_letter_routes(desk: LetterDesk) -> APIRouter:
    """The routes of dead letters."""
    handlers = _DeadLetters(desk)
    routes = APIRouter(prefix="/v1/dead-letters", tags=["dead letters"])
    one = "/{vendor}/{credential}/{place}"
    for path, method, handler, document in (
        ("", "GET", handlers.page, _documented(None, LetterPage, "Those before the cursor.", never=(400, 404))),
        (one, "GET", handlers.show, _documented(None, LetterDetail, "All that is told of it.", never=(422,))),
        ("/replay", "POST", handlers.replay, _documented(ReplayGiven, ReplayDone, "What came of it.", never=(404,))),
        ("/drop", "POST", handlers.drop, _documented(WhichGiven, DropDone, "What came of it.", never=(404,))),
    ):
        routes.add_api_route(path, handler, methods=[method], response_class=Response, response_model=None, **document)
    return routes


def _check(wanted: LetterFilter) -> None:
    for name, value, known in (
        ("reason", wanted.reason, [*DEAD, *REFUSED_ENTRIES]),
        ("lane", wanted.lane, list(LANES)),
    ):
        if value and value not in known:
            raise Problem(422, f"invalid_{name}", f"{name} is one of: {', '.join(known)}", name)


def _named(text: str) -> LetterName:
    name = LetterName.read(text)
    if name is None:
        raise Problem(422, "invalid_letter", "a name reads as in the list: huawei:main:1750000000000-0", "letters")
    return name


def _whole(text: str, field: str) -> int:
    if not (text.isascii() and text.isdecimal()) or len(text) > _NUMBER_BYTES_MAX:
        raise Problem(422, f"invalid_{field}", f"{field} is a whole number", field)
    return int(text)


def _json(shown: Struct) -> Response:
    return Response(_encode(shown), media_type="application/json")
