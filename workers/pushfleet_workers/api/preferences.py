"""The endpoints of what a user wants of pushes altogether: on or off, when not, how they sound, what they show."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Request, Response
from msgspec import UNSET, Meta, Struct, UnsetType

from pushfleet_workers.api.documented import documented, schemas_of
from pushfleet_workers.api.paths import AppId, UserId, app_id, user_id
from pushfleet_workers.api.problems import Problem, decode
from pushfleet_workers.tokens.changes import WrongField
from pushfleet_workers.tokens.preference_store import PreferenceStore
from pushfleet_workers.tokens.preferences import DAY_S, Preferences, Window, find_overlap, find_zone

__all__ = ["preference_routes", "preference_schemas"]

BYTES_MAX = 16 * 1024
WINDOWS_MAX = 16

ClockTime = Annotated[
    str,
    Meta(
        pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9](:[0-5][0-9])?$(?!\n)",
        description="A time of day, as `22:00` or `22:00:30`.",
    ),
]
Sound = Annotated[
    str,
    Meta(
        max_length=64,
        pattern=r"^([A-Za-z0-9_][A-Za-z0-9._-]*)?$(?!\n)",
        description='A sound that the app ships on all its platforms, with its suffix, as `ding.wav`; "" is silence; '
        "null: as the account has it.",
    ),
]


class WindowGiven(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A part of each day; an end before its start lies on the next day."""

    start: ClockTime
    end: ClockTime | None = None
    duration_s: Annotated[int, Meta(ge=1, le=DAY_S, description="In place of `end`; 86,400: all day.")] | None = None

    def __post_init__(self) -> None:
        if (self.end is None) == (self.duration_s is None):
            raise WrongField("end", "give end or duration_s, one of the two")
        if self.end is not None and _seconds(self.end) == _seconds(self.start):
            raise WrongField("end", "it ends when it starts: for the whole day say duration_s 86400")

    @property
    def window(self) -> Window:
        """The same, in seconds."""
        start_s = _seconds(self.start)
        if self.duration_s is not None:
            return Window(start_s, self.duration_s)
        assert self.end is not None
        return Window(start_s, (_seconds(self.end) - start_s) % DAY_S)


Windows = Annotated[tuple[WindowGiven, ...], Meta(max_length=WINDOWS_MAX)]
ZoneName = Annotated[
    str,
    Meta(
        max_length=40,
        description="IANA name, as `Asia/Shanghai`, by whose clock `daily` goes; empty or null: the device's, UTC "
        "where it reports none.",
    ),
]
UntilMs = Annotated[
    int, Meta(ge=0, le=253_402_300_799_999, description="Not before then, Unix milliseconds; 0 or null: no such time.")
]
HideText = Annotated[
    bool, Meta(description="Show that there is a message, not what it says nor who wrote it; null: false.")
]


class QuietGiven(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When the user is not to be disturbed, and by what all the same."""

    daily: Windows | UnsetType | None = UNSET
    time_zone: ZoneName | UnsetType | None = UNSET
    until_ms: UntilMs | UnsetType | None = UNSET
    calls_pass: Annotated[bool, Meta(description="null: true.")] | UnsetType | None = UNSET
    mentions_pass: Annotated[bool, Meta(description="null: false.")] | UnsetType | None = UNSET


class SoundsGiven(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How messages sound, in single chats and in groups and channels; what a message itself asks for wins."""

    single: Sound | UnsetType | None = UNSET
    group: Sound | UnsetType | None = UNSET


class PreferencesGiven(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a user wants of pushes; whatever is null is as for users who never said anything."""

    push: Annotated[bool, Meta(description="false: no pushes but forced ones; null: true.")] | UnsetType | None = UNSET
    do_not_disturb: QuietGiven | UnsetType | None = UNSET
    hide_text: HideText | UnsetType | None = UNSET
    sound: SoundsGiven | UnsetType | None = UNSET


class WindowShown(Struct, frozen=True, omit_defaults=True):
    """A part of each day; `duration_s` stands where it is the whole of it, else `end`."""

    start: str
    end: str | None = None
    duration_s: int | None = None


class QuietShown(Struct, frozen=True):
    """When the user is not to be disturbed, and by what all the same."""

    daily: list[WindowShown]
    time_zone: str
    until_ms: Annotated[int, Meta(description="0: no such time, or it is over.")]
    calls_pass: bool
    mentions_pass: bool


class SoundsShown(Struct, frozen=True):
    """How messages sound; null: as the account has it."""

    single: str | None
    group: str | None


class PreferencesShown(Struct, frozen=True):
    """What a user wants of pushes; a PUT takes it as it is."""

    push: bool
    do_not_disturb: QuietShown
    hide_text: bool
    sound: SoundsShown


_given = msgspec.json.Decoder(PreferencesGiven)
_encode = msgspec.json.Encoder().encode


def preference_schemas() -> dict[str, Any]:
    """The JSON Schemas of all bodies, by name."""
    return schemas_of(PreferencesGiven, PreferencesShown)


class _Preferences:
    def __init__(self, store: PreferenceStore, apps: Mapping[str, Any], now_ms: Callable[[], int]) -> None:
        self._store = store
        self._apps = apps
        self._now_ms = now_ms

    async def show(self, app: AppId, user: UserId) -> Response:
        """What a user wants of pushes; the defaults for one who never said anything."""
        return self._answer(await self._store.get(app_id(app, self._apps), user_id(user)))

    async def replace(self, request: Request, app: AppId, user: UserId) -> Response:
        """Say what a user wants of pushes; what is left out is as for users who never said anything."""
        app, user = app_id(app, self._apps), user_id(user)
        wanted = _preferences(await decode(request, _given, BYTES_MAX), self._now_ms())
        return self._answer(await self._store.change(app, user, lambda _: wanted))

    async def patch(self, request: Request, app: AppId, user: UserId) -> Response:
        """Change some of what a user wants of pushes (RFC 7396): what is left out stays, null is the default again."""
        app, user = app_id(app, self._apps), user_id(user)
        patch = msgspec.to_builtins(await decode(request, _given, BYTES_MAX))

        def changed(before: Preferences) -> Preferences:
            now_ms = self._now_ms()
            merged = _merge(msgspec.to_builtins(_shown(before, now_ms)), patch)
            try:
                given = msgspec.convert(merged, PreferencesGiven)
            except msgspec.ValidationError:
                # What is stored is nothing that this API took: as good as none.
                given = msgspec.convert(_merge({}, patch), PreferencesGiven)
            return _preferences(given, now_ms)

        return self._answer(await self._store.change(app, user, changed))

    def _answer(self, preferences: Preferences) -> Response:
        return Response(_encode(_shown(preferences, self._now_ms())), media_type="application/json")


def preference_routes(store: PreferenceStore, apps: Mapping[str, Any], now_ms: Callable[[], int]) -> APIRouter:
    """The routes that show and change the preferences in *store*."""
    handlers = _Preferences(store, apps, now_ms)
    routes = APIRouter(prefix="/v1/apps/{app}", tags=["token state"])
    for method, handler, given in (
        ("GET", handlers.show, None),
        ("PUT", handlers.replace, PreferencesGiven),
        ("PATCH", handlers.patch, PreferencesGiven),
    ):
        routes.add_api_route(
            "/users/{user}/preferences",
            handler,
            methods=[method],
            response_class=Response,
            response_model=None,
            **documented(given, PreferencesShown, "What they are now."),
        )
    return routes


def _preferences(given: PreferencesGiven, now_ms: int) -> Preferences:
    """The preferences that *given* says; raises :class:`Problem` for what no shape can tell."""
    quiet, sound = given.do_not_disturb or QuietGiven(), given.sound or SoundsGiven()
    windows = tuple(one.window for one in quiet.daily or ())
    overlapping = find_overlap(windows)
    if overlapping is not None:
        where = f"do_not_disturb.daily[{overlapping}]"
        raise Problem(422, "windows_overlap", "it shares a time of day with one before it: make them one", where)
    if quiet.time_zone and find_zone(quiet.time_zone) is None:
        why = "there is no such time zone: give an IANA name, as Asia/Shanghai"
        raise Problem(422, "unknown_time_zone", why, "do_not_disturb.time_zone")
    if quiet.until_ms and quiet.until_ms <= now_ms:
        why = "it would be over already; to be disturbed again say 0"
        raise Problem(422, "time_in_past", why, "do_not_disturb.until_ms")
    return Preferences(
        push=given.push is not False,
        hide_text=given.hide_text is True,
        single_sound=_sound(sound.single),
        group_sound=_sound(sound.group),
        quiet_until_ms=quiet.until_ms or 0,
        quiet_daily=windows,
        time_zone=quiet.time_zone or "",
        calls_pass=quiet.calls_pass is not False,
        mentions_pass=quiet.mentions_pass is True,
    )


def _sound(given: str | UnsetType | None) -> str | None:
    return given if isinstance(given, str) else None


def _shown(preferences: Preferences, now_ms: int) -> PreferencesShown:
    """*preferences* as they are shown; a time that is over is left out."""
    return PreferencesShown(
        push=preferences.push,
        do_not_disturb=QuietShown(
            daily=[_window_shown(window) for window in preferences.quiet_daily],
            time_zone=preferences.time_zone,
            until_ms=preferences.quiet_until_ms if preferences.quiet_until_ms > now_ms else 0,
            calls_pass=preferences.calls_pass,
            mentions_pass=preferences.mentions_pass,
        ),
        hide_text=preferences.hide_text,
        sound=SoundsShown(preferences.single_sound, preferences.group_sound),
    )


def _merge(before: dict[str, Any], patch: Mapping[str, Any]) -> dict[str, Any]:
    """*before* with *patch* applied (RFC 7396)."""
    merged = dict(before)
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        elif isinstance(value, dict):
            inner = merged.get(name)
            merged[name] = _merge(inner if isinstance(inner, dict) else {}, value)
        else:
            merged[name] = value
    return merged


def _seconds(time: str) -> int:
    hours, minutes, *rest = time.split(":")
    return int(hours) * 3600 + int(minutes) * 60 + (int(rest[0]) if rest else 0)


def _window_shown(window: Window) -> WindowShown:
    start = _clock_time(window.start_s)
    if window.length_s == DAY_S:
        return WindowShown(start, duration_s=DAY_S)
    return WindowShown(start, _clock_time((window.start_s + window.length_s) % DAY_S))


def _clock_time(second: int) -> str:
    hours, rest = divmod(second, 3600)
    minutes, seconds = divmod(rest, 60)
    return f"{hours:02}:{minutes:02}" + (f":{seconds:02}" if seconds else "")
