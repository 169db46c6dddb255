"""The endpoints of the token state: devices, states, receive options."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Annotated, Any, Literal

import msgspec
from fastapi import APIRouter, Path, Request, Response
from msgspec import Meta, Struct

from pushfleet_workers.api.documented import REFUSALS, documented, schemas_of
from pushfleet_workers.api.paths import AppId, UserId, app_id, check_time, identity, user_id
from pushfleet_workers.api.problems import Problem, decode
from pushfleet_workers.push import fingerprint
from pushfleet_workers.tokens.changes import (
    DEVICE_BYTES_MAX,
    ID_BYTES_MAX,
    STATE_NAMES,
    Accounts,
    Registration,
    Report,
    StateName,
    UnixMs,
    Unread,
    WrongField,
)
from pushfleet_workers.tokens.intake import fault_in
from pushfleet_workers.tokens.record import Device
from pushfleet_workers.tokens.store import TokenStore

__all__ = ["REPORTS_MAX", "DeviceShown", "body_schemas", "device_routes", "shown_fields"]

REPORTS_MAX = 1_000
ONE_BYTES_MAX = 64 * 1024
MANY_BYTES_MAX = 4 * 1024 * 1024

DeviceId = Annotated[str, Path(description="The installation's id, percent-encoded; 1 to 128 bytes of UTF-8.")]
ConversationId = Annotated[str, Path(description="As in messages, percent-encoded; 1 to 256 bytes of UTF-8.")]


class StateGiven(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The state of the app on one device, as of its own time."""

    state: StateName
    unread: Unread | None = None
    at_ms: UnixMs = 0


class ReportsGiven(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """States of many devices; one that is wrong refuses them all."""

    reports: Annotated[tuple[Report, ...], Meta(min_length=1, max_length=REPORTS_MAX)]


class OptionGiven(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a user wants from a conversation."""

    receive: Literal["all", "mentions", "none"]
    until_ms: Annotated[
        int, Meta(ge=0, le=253_402_300_799_999, description="When it ends, Unix milliseconds; 0: never.")
    ] = 0

    def __post_init__(self) -> None:
        if self.receive == "all" and self.until_ms:
            raise WrongField("until_ms", "until_ms ends a mute; all is what there is without one")


class ChannelShown(Struct, frozen=True):
    """A push token as it is shown: never the token itself."""

    vendor: str
    credential: str
    kind: str
    region: str
    token_fingerprint: Annotated[str, Meta(description="Tells tokens apart, also in logs; addresses nothing.")]
    registered_at_ms: int
    quarantined_until_ms: int


class DeviceShown(Struct, frozen=True):
    """A device as it is known; times are Unix milliseconds, 0: never."""

    state: Literal["unknown", "foreground", "background", "killed", "logged_out"]
    state_at_ms: int
    lease_until_ms: Annotated[int, Meta(description="Until when a foreground report holds.")]
    unread: Annotated[int, Meta(description="What the badge counts on from.")]
    notifications: bool
    locale: str
    time_zone: str
    platform: str
    maker: str
    os_version: str
    app_version: str
    channels: list[ChannelShown]


class RegisteredShown(Struct, frozen=True):
    """What became of a registration."""

    applied: Annotated[bool, Meta(description="False when the device had registered later than this already.")]
    device: DeviceShown


class ReportedShown(Struct, frozen=True):
    """What became of the reports; the counts add up to those given."""

    applied: int
    outdated: Annotated[int, Meta(description="Older than what was known; they change nothing.")]
    unknown: Annotated[int, Meta(description="Of devices that are not registered; they change nothing.")]


_registration = msgspec.json.Decoder(Registration)
_state = msgspec.json.Decoder(StateGiven)
_reports = msgspec.json.Decoder(ReportsGiven)
_option = msgspec.json.Decoder(OptionGiven)
_encode = msgspec.json.Encoder().encode


def body_schemas() -> dict[str, Any]:
    """The JSON Schemas of all bodies, by name."""
    return schemas_of(Registration, StateGiven, ReportsGiven, OptionGiven, RegisteredShown, ReportedShown)


_REFUSALS = {
    **REFUSALS,
    404: "There is no such app, or no such device.",
}
_documented = partial(documented, refusals=_REFUSALS)


class _Devices:
    """The handlers; path ids arrive percent-encoded, so that they may contain any character."""

    def __init__(
        self, store: TokenStore, apps: Mapping[str, Any], accounts: Accounts, now_ms: Callable[[], int]
    ) -> None:
        self._store = store
        self._apps = apps
        self._accounts = accounts
        self._now_ms = now_ms

    async def register(self, request: Request, app: AppId, user: UserId, device: DeviceId) -> Response:
        """Register a device after login: its push tokens, language and state; tokens move to it from other users."""
        app, user, device = self._app(app), user_id(user), _device(device)
        given = await decode(request, _registration, ONE_BYTES_MAX)
        fault = fault_in(given, app, self._accounts, self._now_ms())
        if fault is not None:
            raise Problem(422, *fault)
        done = await self._store.register(app, user, device, given)
        return _json(RegisteredShown(done.applied, DeviceShown(**shown_fields(done.device))))

    async def remove(self, app: AppId, user: UserId, device: DeviceId) -> Response:
        """Forget a device: it gets no pushes any more."""
        if not await self._store.remove(self._app(app), user_id(user), _device(device)):
            raise _unknown_device()
        return Response(status_code=204)

    async def report(self, request: Request, app: AppId, user: UserId, device: DeviceId) -> Response:
        """Report the app's state on a device; a report older than what is known changes nothing."""
        app, user, device = self._app(app), user_id(user), _device(device)
        given = await decode(request, _state, ONE_BYTES_MAX)
        check_time(given.at_ms, self._now_ms(), "at_ms")
        report = Report(user=user, device=device, state=given.state, unread=given.unread, at_ms=given.at_ms)
        done = await self._store.report(app, [report])
        if done.unknown:
            raise _unknown_device()
        return _json(ReportedShown(done.applied, done.outdated, done.unknown))

    async def report_many(self, request: Request, app: AppId) -> Response:
        """Report up to 1,000 states at once; unknown devices and older news change nothing."""
        app = self._app(app)
        given = await decode(request, _reports, MANY_BYTES_MAX)
        for number, report in enumerate(given.reports):
            check_time(report.at_ms, self._now_ms(), f"reports[{number}].at_ms")
        done = await self._store.report(app, given.reports)
        return _json(ReportedShown(done.applied, done.outdated, done.unknown))

    async def set_option(self, request: Request, app: AppId, user: UserId, conversation: ConversationId) -> Response:
        """Say what a user wants from a conversation: every push, only mentions, or none; for a time or for good."""
        app, user = self._app(app), user_id(user)
        conversation = identity(conversation, "conversation", ID_BYTES_MAX)
        given = await decode(request, _option, ONE_BYTES_MAX)
        if given.until_ms and given.until_ms <= self._now_ms():
            raise Problem(422, "time_in_past", "it would be over already; to unmute say all", "until_ms")
        await self._store.set_receive_option(app, user, conversation, given.receive, given.until_ms)
        return Response(status_code=204)

    def _app(self, encoded: str) -> str:
        return app_id(encoded, self._apps)


def device_routes(
    store: TokenStore, apps: Mapping[str, Any], accounts: Accounts, now_ms: Callable[[], int]
) -> APIRouter:
    """The routes of the token state."""
    handlers = _Devices(store, apps, accounts, now_ms)
    routes = APIRouter(prefix="/v1/apps/{app}", tags=["token state"])
    device = "/users/{user}/devices/{device}"
    option = "/users/{user}/conversations/{conversation}/receive-option"
    crowded = {**_REFUSALS, 409: "The user has too many of them."}
    for path, method, handler, document in (
        (device, "PUT", handlers.register, _documented(Registration, RegisteredShown, "The device as it is now.")),
        (device, "DELETE", handlers.remove, _documented(None, None, "It is gone.")),
        (f"{device}/state", "POST", handlers.report, _documented(StateGiven, ReportedShown, "It is taken note of.")),
        ("/states", "POST", handlers.report_many, _documented(ReportsGiven, ReportedShown, "What became of them.")),
        (option, "PUT", handlers.set_option, _documented(OptionGiven, None, "So it is from now on.", refusals=crowded)),
    ):
        routes.add_api_route(path, handler, methods=[method], response_class=Response, response_model=None, **document)
    return routes


def _device(encoded: str) -> str:
    return identity(encoded, "device", DEVICE_BYTES_MAX)


def _unknown_device() -> Problem:
    return Problem(404, "unknown_device", "the user has no such device: register it first")


def _json(shown: Struct) -> Response:
    return Response(_encode(shown), media_type="application/json")


def shown_fields(device: Device) -> dict[str, Any]:
    """The fields of :class:`DeviceShown` for *device*."""
    return {
        "state": "logged_out" if device.logged_out else STATE_NAMES.get(device.state, "unknown"),
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
            ChannelShown(
                channel.vendor,
                channel.credential,
                channel.kind,
                channel.region,
                fingerprint(channel.token),
                channel.registered_at_ms,
                channel.quarantined_until_ms,
            )
            for channel in device.channels
        ],
    }
