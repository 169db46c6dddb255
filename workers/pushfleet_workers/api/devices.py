"""The endpoints of the token state: devices, states, receive options, users."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal
from urllib.parse import unquote

import msgspec
from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from msgspec import Meta, Struct

from pushfleet_workers.api.problems import PROBLEM_SCHEMA, Problem, decode
from pushfleet_workers.push import fingerprint
from pushfleet_workers.tokens.changes import STATES, Registration, Report, StateName
from pushfleet_workers.tokens.record import Device
from pushfleet_workers.tokens.store import TokenStore

__all__ = ["REPORTS_MAX", "body_schemas", "device_routes"]

REPORTS_MAX = 1_000
USER_BYTES_MAX = 256
DEVICE_BYTES_MAX = 128
_FUTURE_MS = 300_000
_STATE_NAMES = {short: name for name, short in STATES.items()}

Accounts = Mapping[tuple[str, str], str]
"""Vendor and credential to app."""


class StateGiven(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The state of the app on one device, as of its own time."""

    state: StateName
    unread: Annotated[int, Meta(ge=0, le=1_000_000)] | None = None
    at_ms: Annotated[int, Meta(ge=0)] = 0


class ReportsGiven(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """States of many devices; all are taken, or none."""

    reports: Annotated[tuple[Report, ...], Meta(min_length=1, max_length=REPORTS_MAX)]


class OptionGiven(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a user wants from a conversation."""

    receive: Literal["all", "mentions", "none"]
    until_ms: Annotated[int, Meta(ge=0)] = 0
    """When it ends, Unix milliseconds; 0: never."""


_registration = msgspec.json.Decoder(Registration)
_state = msgspec.json.Decoder(StateGiven)
_reports = msgspec.json.Decoder(ReportsGiven)
_option = msgspec.json.Decoder(OptionGiven)


def body_schemas() -> dict[str, Any]:
    """The JSON Schemas of all request bodies, by name."""
    _, components = msgspec.json.schema_components(
        [Registration, StateGiven, ReportsGiven, OptionGiven], ref_template="#/components/schemas/{name}"
    )
    return components


def _documented(body: type[Struct] | None, *statuses: int) -> dict[str, Any]:
    extra: dict[str, Any] = {}
    if body is not None:
        schema = {"$ref": f"#/components/schemas/{body.__name__}"}
        extra = {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}
    responses = {
        status: {"description": text, "content": {"application/json": {"schema": PROBLEM_SCHEMA}}}
        for status, text in (
            (400, "The body is not JSON."),
            (401, "The API key is missing or wrong."),
            (404, "There is no such app, device or user."),
            (413, "The body is too large."),
            (422, "A field is wrong; nothing was changed."),
            (503, "Redis does not answer; try again."),
        )
        if status in {401, 404, 503, *statuses}
    }
    return {"openapi_extra": extra, "responses": responses}


class _Devices:
    """The handlers; path ids arrive percent-encoded, so that they may contain any character."""

    def __init__(
        self, store: TokenStore, apps: Mapping[str, Any], accounts: Accounts, now_ms: Callable[[], int]
    ) -> None:
        self._store = store
        self._apps = apps
        self._accounts = accounts
        self._now_ms = now_ms

    async def register(self, request: Request, app: str, user: str, device: str) -> Response:
        """Register a device after login: its push tokens, language and state; tokens move to it from other users."""
        app, user, device = self._app(app), _user(user), _device(device)
        given = await decode(request, _registration)
        for number, channel in enumerate(given.channels):
            if self._accounts.get((channel.vendor, channel.credential)) != app:
                known = ", ".join(f"{v}/{c}" for (v, c), owner in sorted(self._accounts.items()) if owner == app)
                raise Problem(
                    422,
                    "unknown_account",
                    f"app {app} has no account {channel.vendor}/{channel.credential}; it has: {known or 'none'}",
                    f"channels[{number}].credential",
                )
        self._check_time(given.at_ms, "at_ms")
        done = await self._store.register(app, user, device, given)
        return JSONResponse(_shown(done))

    async def remove(self, app: str, user: str, device: str) -> Response:
        """Forget a device: it gets no pushes any more."""
        if not await self._store.remove(self._app(app), _user(user), _device(device)):
            raise Problem(404, "unknown_device", "the user has no such device")
        return Response(status_code=204)

    async def report(self, request: Request, app: str, user: str, device: str) -> Response:
        """Report the app's state on a device; a report older than what is known changes nothing."""
        app, user, device = self._app(app), _user(user), _device(device)
        given = await decode(request, _state)
        self._check_time(given.at_ms, "at_ms")
        report = Report(user=user, device=device, state=given.state, unread=given.unread, at_ms=given.at_ms)
        return JSONResponse({"applied": await self._store.report(app, [report])})

    async def report_many(self, request: Request, app: str) -> Response:
        """Report up to 1,000 states at once; unknown devices and older news change nothing."""
        app = self._app(app)
        given = await decode(request, _reports)
        for number, report in enumerate(given.reports):
            self._check_time(report.at_ms, f"reports[{number}].at_ms")
        return JSONResponse({"applied": await self._store.report(app, given.reports)})

    async def set_option(self, request: Request, app: str, user: str, conversation: str) -> Response:
        """Say what a user wants from a conversation: every push, only mentions, or none; for a time or for good."""
        app, user = self._app(app), _user(user)
        conversation = _identity(conversation, "conversation", USER_BYTES_MAX)
        given = await decode(request, _option)
        await self._store.set_receive_option(app, user, conversation, given.receive, given.until_ms)
        return Response(status_code=204)

    async def user(self, app: str, user: str) -> Response:
        """What is known of a user; tokens are shown as fingerprints."""
        stored = await self._store.user(self._app(app), _user(user))
        return JSONResponse(
            {
                "devices": {name: _shown(device) for name, device in stored.devices.items()},
                "receive_options": {
                    conversation: {"receive": receive, "until_ms": until_ms}
                    for conversation, (receive, until_ms) in stored.options.items()
                },
            }
        )

    def _app(self, encoded: str) -> str:
        app = unquote(encoded)
        if app not in self._apps:
            raise Problem(
                404, "unknown_app", f"there is no such app; known are: {', '.join(sorted(self._apps)) or 'none'}"
            )
        return app

    def _check_time(self, at_ms: int, field: str) -> None:
        if at_ms > self._now_ms() + _FUTURE_MS:
            raise Problem(
                422, "future_time", "the time lies more than five minutes in the future: check the clock", field
            )


def device_routes(
    store: TokenStore, apps: Mapping[str, Any], accounts: Accounts, now_ms: Callable[[], int]
) -> APIRouter:
    """The routes of the token state."""
    handlers = _Devices(store, apps, accounts, now_ms)
    routes = APIRouter(prefix="/v1/apps/{app}", tags=["token state"])
    device = "/users/{user}/devices/{device}"
    for path, method, handler, documented in (
        (device, "PUT", handlers.register, _documented(Registration, 400, 413, 422)),
        (device, "DELETE", handlers.remove, _documented(None, 422)),
        (f"{device}/state", "POST", handlers.report, _documented(StateGiven, 400, 413, 422)),
        ("/states", "POST", handlers.report_many, _documented(ReportsGiven, 400, 413, 422)),
        (
            "/users/{user}/conversations/{conversation}/receive-option",
            "PUT",
            handlers.set_option,
            _documented(OptionGiven, 400, 413, 422),
        ),
        ("/users/{user}", "GET", handlers.user, _documented(None, 422)),
    ):
        routes.add_api_route(path, handler, methods=[method], response_model=None, **documented)
    return routes


def _identity(encoded: str, what: str, limit: int) -> str:
    try:
        value = unquote(encoded, errors="strict")
    except UnicodeDecodeError:
        raise Problem(422, "invalid_id", f"the {what} id is not UTF-8", what) from None
    size = len(value.encode())
    if not 0 < size <= limit:
        raise Problem(422, "invalid_id", f"the {what} id has {size} bytes; 1 to {limit} are allowed", what)
    return value


def _user(encoded: str) -> str:
    return _identity(encoded, "user", USER_BYTES_MAX)


def _device(encoded: str) -> str:
    return _identity(encoded, "device", DEVICE_BYTES_MAX)


def _shown(device: Device) -> dict[str, Any]:
    return {
        "state": _STATE_NAMES.get(device.state, "unknown"),
        "state_at_ms": device.state_at_ms,
        "lease_until_ms": device.lease_until_ms,
        "unread": device.unread,
        "notifications": device.permitted,
        "locale": device.locale,
        "time_zone": device.time_zone,
        "platform": device.platform,
        "maker": device.maker,
        "os_version": device.os_version,
        "app_version": device.app_version,
        "channels": [
            {
                "vendor": channel.vendor,
                "credential": channel.credential,
                "kind": channel.kind,
                "region": channel.region,
                "token_fingerprint": fingerprint(channel.token),
                "registered_at_ms": channel.registered_at_ms,
            }
            for channel in device.channels
        ],
    }
