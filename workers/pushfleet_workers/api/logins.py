"""The endpoints of logging in and out: which devices of a user still get pushes."""

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
from pushfleet_workers.tokens.changes import DEVICE_BYTES_MAX, Name, Report, UnixMs, check_id
from pushfleet_workers.tokens.store import TokenStore

__all__ = ["login_routes", "login_schemas"]

_BYTES_MAX = 16 * 1024

DeviceId = Annotated[str, Path(description="The installation's id, percent-encoded; 1 to 128 bytes of UTF-8.")]


class LogoutGiven(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A logout, as of its own time."""

    at_ms: UnixMs = 0


class LogoutShown(Struct, frozen=True):
    """What became of a logout."""

    applied: Annotated[bool, Meta(description="False when the device registered later, or had logged out already.")]


class LoginGiven(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A login, as of its own time; the device registers by itself."""

    device: str
    """1 to 128 UTF-8 bytes."""

    platform: Annotated[
        Name, Meta(description="As in registrations, for `one_per_platform`; absent: that of the registered device.")
    ] = ""
    at_ms: UnixMs = 0

    def __post_init__(self) -> None:
        check_id("device", self.device, DEVICE_BYTES_MAX)


class LoginShown(Struct, frozen=True):
    """What became of a login."""

    logged_out: Annotated[list[str], Meta(description="The devices that it logged out.")]


_logout = msgspec.json.Decoder(LogoutGiven)
_login = msgspec.json.Decoder(LoginGiven)


def login_schemas() -> dict[str, Any]:
    """The JSON Schemas of all bodies, by name."""
    return schemas_of(LogoutGiven, LogoutShown, LoginGiven, LoginShown)


class _Logins:
    def __init__(self, store: TokenStore, apps: Mapping[str, AppSettings], now_ms: Callable[[], int]) -> None:
        self._store = store
        self._apps = apps
        self._now_ms = now_ms

    async def logout(self, request: Request, app: AppId, user: UserId, device: DeviceId) -> Response:
        """Log a device out: it gets no pushes until it registers again, whatever is reported of it meanwhile."""
        app, user = app_id(app, self._apps), user_id(user)
        device = identity(device, "device", DEVICE_BYTES_MAX)
        given = await decode(request, _logout, _BYTES_MAX)
        check_time(given.at_ms, self._now_ms(), "at_ms")
        report = Report(user=user, device=device, state="logged_out", at_ms=given.at_ms)
        done = await self._store.report(app, [report])
        if done.unknown:
            raise Problem(404, "unknown_device", "the user has no such device: register it first")
        return _json(LogoutShown(done.applied == 1))

    async def login(self, request: Request, app: AppId, user: UserId) -> Response:
        """A device logged in: the user's others are logged out as of then, as far as the app's `device_logins` goes."""
        app, user = app_id(app, self._apps), user_id(user)
        given = await decode(request, _login, _BYTES_MAX)
        check_time(given.at_ms, self._now_ms(), "at_ms")
        policy = self._apps[app].device_logins
        platform = ""
        if policy == "one_per_platform":
            platform = given.platform or await self._platform(app, user, given.device)
        if policy == "all":
            return _json(LoginShown([]))
        return _json(LoginShown(await self._store.login(app, user, given.device, given.at_ms, platform)))

    async def _platform(self, app: str, user: str, device: str) -> str:
        known = (await self._store.user(app, user)).devices.get(device)
        if known is None or not known.platform:
            why = "the app allows one login per platform, and the device's is not known: say it, or register it first"
            raise Problem(422, "unknown_platform", why, "platform")
        return known.platform


def _json(shown: Struct) -> Response:
    return Response(msgspec.json.encode(shown), media_type="application/json")


_REFUSALS = {
    **REFUSALS,
    404: "There is no such app, or no such device.",
}


def login_routes(store: TokenStore, apps: Mapping[str, AppSettings], now_ms: Callable[[], int]) -> APIRouter:
    """The routes of logging in and out."""
    handlers = _Logins(store, apps, now_ms)
    routes = APIRouter(prefix="/v1/apps/{app}/users/{user}", tags=["token state"])
    for path, handler, given, shown in (
        ("/devices/{device}/logout", handlers.logout, LogoutGiven, LogoutShown),
        ("/logins", handlers.login, LoginGiven, LoginShown),
    ):
        routes.add_api_route(
            path,
            handler,
            methods=["POST"],
            response_class=Response,
            response_model=None,
            **documented(given, shown, "What became of it.", refusals=_REFUSALS),
        )
    return routes
