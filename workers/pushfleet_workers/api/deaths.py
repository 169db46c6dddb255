"""The endpoints of dead tokens: what became of them, bringing them back, accounts whose guard has tripped."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Path, Query, Request, Response
from msgspec import Meta, Struct

from pushfleet_workers.api.documented import REFUSALS, documented, schemas_of
from pushfleet_workers.api.paths import AppId, app_id, decoded
from pushfleet_workers.api.problems import Problem, decode
from pushfleet_workers.death_desk import AccountDeaths, DeathDesk, DeathPage, Decided, Decision, RestoreDone
from pushfleet_workers.tokens.changes import Accounts, UnixMs
from pushfleet_workers.tokens.death_log import START, Filter
from pushfleet_workers.tokens.tombstones import Fate

__all__ = ["death_routes", "death_schemas"]

PAGE_MAX = 1_000
RESTORE_MAX = 10_000
_BYTES_MAX = 16 * 1024
_is_cursor = re.compile(r"\d{1,15}-\d{1,15}").fullmatch

VendorId = Annotated[str, Path(description="The vendor, as in the settings: apns, fcm, huawei and so on.")]
CredentialId = Annotated[str, Path(description="The credential's id, which devices' channels name.")]


class RestoreGiven(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which dead tokens to bring back; what is not named leaves all in."""

    vendor: str = ""
    credential: str = ""
    user: str = ""
    code: Annotated[str, Meta(description="The vendor's own code.")] = ""
    since_ms: Annotated[UnixMs, Meta(description="Those heard of from then on, Unix milliseconds; 0: all.")] = 0
    until_ms: Annotated[UnixMs, Meta(description="Those heard of until then, Unix milliseconds; 0: all.")] = 0
    limit: Annotated[int, Meta(ge=1, le=RESTORE_MAX, description="About how many at once; the newest go first.")] = (
        RESTORE_MAX
    )
    dry_run: Annotated[bool, Meta(description="Only count them.")] = False

    @property
    def wanted(self) -> Filter:
        """As a filter."""
        return Filter(
            vendor=self.vendor,
            credential=self.credential,
            user=self.user,
            code=self.code,
            since_ms=self.since_ms,
            until_ms=self.until_ms,
        )


class DecisionGiven(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is to become of the tokens of an account that are passed over."""

    decision: Annotated[
        Decision,
        Meta(description="`confirm`: they are dead, drop them. `lift`: they live, pass them over no more."),
    ]
    limit: Annotated[int, Meta(ge=1, le=RESTORE_MAX, description="About how many at once.")] = RESTORE_MAX


class AccountDeathsList(Struct, frozen=True):
    """The accounts of the app with tokens that are passed over, or a guard that has tripped."""

    accounts: list[AccountDeaths]


_restore = msgspec.json.Decoder(RestoreGiven)
_decision = msgspec.json.Decoder(DecisionGiven)
_encode = msgspec.json.Encoder().encode


def death_schemas() -> dict[str, Any]:
    """The JSON Schemas of all bodies, by name."""
    return schemas_of(RestoreGiven, DecisionGiven, DeathPage, RestoreDone, AccountDeathsList, Decided)


_REFUSALS = {
    **REFUSALS,
    404: "There is no such app or account.",
    422: "A field or parameter is wrong; nothing was changed.",
}
_documented = partial(documented, refusals=_REFUSALS)


class _Deaths:
    def __init__(self, desk: DeathDesk, apps: Mapping[str, Any], accounts: Accounts) -> None:
        self._desk = desk
        self._apps = apps
        self._accounts = accounts

    async def page(
        self,
        app: AppId,
        after: Annotated[
            str,
            Query(
                description="The cursor of the page before; absent: from the oldest on.",
                json_schema_extra={"pattern": f"^{_is_cursor.__self__.pattern}$"},
            ),
        ] = START,
        limit: Annotated[
            str,
            Query(
                description="Most deaths in a page, 1 to 1,000.",
                json_schema_extra={"pattern": "^([1-9][0-9]{0,2}|1000)$"},
            ),
        ] = "100",
        vendor: Annotated[str, Query(description="Only those of this vendor.")] = "",
        credential: Annotated[str, Query(description="Only those of this credential.")] = "",
        user: Annotated[str, Query(description="Only those of this user.")] = "",
        code: Annotated[str, Query(description="Only those with this code of the vendor.")] = "",
        fate: Annotated[
            str, Query(description="Only those; empty: all.", json_schema_extra={"enum": ["", *Fate]})
        ] = "",
    ) -> Response:
        """What became of dead tokens, in order: read on with the cursor to miss none. A page may be empty with more."""
        app = app_id(app, self._apps)
        if not _is_cursor(after):
            raise Problem(422, "invalid_cursor", "this is no cursor of ours: leave it out to begin anew", "after")
        if not limit.isascii() or not limit.isdecimal() or not 1 <= int(limit[:9]) <= PAGE_MAX:
            raise Problem(422, "invalid_limit", f"limit is a number from 1 to {PAGE_MAX}", "limit")
        if fate and fate not in set(Fate):
            raise Problem(422, "invalid_fate", f"fate is one of: {', '.join(Fate)}", "fate")
        wanted = Filter(vendor=vendor, credential=credential, user=user, code=code, fate=fate)
        return _json(await self._desk.page(app, after, int(limit[:9]), wanted))

    async def restore(self, request: Request, app: AppId) -> Response:
        """Bring dead tokens back, each only if its device has not registered since; within 30 days of their death."""
        app = app_id(app, self._apps)
        given = await decode(request, _restore, _BYTES_MAX)
        return _json(await self._desk.restore(app, given.wanted, given.limit, dry_run=given.dry_run))

    async def accounts(self, app: AppId) -> Response:
        """The accounts of the app with tokens that are passed over, or a guard that has tripped."""
        app = app_id(app, self._apps)
        own = [account for account, owner in self._accounts.items() if owner == app]
        return _json(AccountDeathsList(await self._desk.accounts(own)))

    async def decide(self, request: Request, app: AppId, vendor: VendorId, credential: CredentialId) -> Response:
        """Say whether an account's tokens that are passed over are dead; its guard is then reset."""
        app = app_id(app, self._apps)
        account = decoded(vendor, "vendor"), decoded(credential, "credential")
        given = await decode(request, _decision, _BYTES_MAX)
        if self._accounts.get(account) != app:
            own = sorted(f"{name}/{one}" for (name, one), owner in self._accounts.items() if owner == app)
            raise Problem(404, "unknown_account", f"the app has no such account; it has: {', '.join(own) or 'none'}")
        return _json(await self._desk.decide(app, *account, given.decision, given.limit))


def death_routes(desk: DeathDesk, apps: Mapping[str, Any], accounts: Accounts) -> APIRouter:
    """The routes of dead tokens."""
    handlers = _Deaths(desk, apps, accounts)
    routes = APIRouter(prefix="/v1/apps/{app}", tags=["dead tokens"])
    decision = "/dead-tokens/accounts/{vendor}/{credential}"
    for path, method, handler, document in (
        ("/dead-tokens", "GET", handlers.page, _documented(None, DeathPage, "What was told after the cursor.")),
        ("/dead-tokens/restore", "POST", handlers.restore, _documented(RestoreGiven, RestoreDone, "What came of it.")),
        ("/dead-tokens/accounts", "GET", handlers.accounts, _documented(None, AccountDeathsList, "Those there are.")),
        (decision, "POST", handlers.decide, _documented(DecisionGiven, Decided, "What came of it.")),
    ):
        routes.add_api_route(path, handler, methods=[method], response_class=Response, response_model=None, **document)
    return routes


def _json(shown: Struct) -> Response:
    return Response(_encode(shown), media_type="application/json")
