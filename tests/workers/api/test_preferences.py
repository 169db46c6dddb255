"""What a user wants of pushes, over HTTP: shown, replaced, changed in part; and that a refusal changes nothing."""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from tests.workers.api.support import NOW_MS, USER, Api, served

from pushfleet_workers.api.preferences import preference_routes, preference_schemas
from pushfleet_workers.redis_link import Link
from pushfleet_workers.tokens.preference_store import PreferenceStore
from pushfleet_workers.tokens.preferences import Preferences, Window

PATH = f"{USER}/preferences"
DEFAULTS: dict[str, Any] = {
    "push": True,
    "do_not_disturb": {"daily": [], "time_zone": "", "until_ms": 0, "calls_pass": True, "mentions_pass": False},
    "hide_text": False,
    "sound": {"single": None, "group": None},
}
FULL: dict[str, Any] = {
    "push": False,
    "do_not_disturb": {
        "daily": [{"start": "22:00", "end": "07:00"}, {"start": "12:00:30", "end": "13:30"}],
        "time_zone": "Asia/Shanghai",
        "until_ms": NOW_MS + 1,
        "calls_pass": False,
        "mentions_pass": True,
    },
    "hide_text": True,
    "sound": {"single": "ding.wav", "group": ""},
}
STORED = Preferences(
    push=False,
    hide_text=True,
    single_sound="ding.wav",
    group_sound="",
    quiet_until_ms=NOW_MS + 1,
    quiet_daily=(Window(79_200, 32_400), Window(43_230, 5_370)),
    time_zone="Asia/Shanghai",
    calls_pass=False,
    mentions_pass=True,
)


class Preferring:
    """The API, and the store beneath."""

    def __init__(self, api: Api, store: PreferenceStore) -> None:
        self.api = api
        self.store = store

    async def put(self, body: Any, path: str = PATH) -> Any:
        return await self._ok(await self.api.put(path, body))

    async def patch(self, body: Any) -> Any:
        return await self._ok(await self.api.client.patch(PATH, json=body))

    async def stored(self) -> Preferences:
        return await self.store.get("demo", "ann")

    async def _ok(self, answer: Any) -> Any:
        assert answer.status_code == 200, answer.text
        assert answer.json() == await self.api.get(PATH)
        return answer.json()


def play(
    url: str, scenario: Callable[[Preferring], Awaitable[None]], now_ms: Callable[[], int] = lambda: NOW_MS
) -> None:
    async def in_api(api: Api) -> None:
        try:
            await scenario(Preferring(api, store))
        finally:
            await link.close()

    link = Link(url)
    store = PreferenceStore(link, "t")
    served(url, in_api, routers=[preference_routes(store, {"demo": None, "lite": None}, now_ms)])


def test_who_never_said_anything_has_the_defaults(redis_url: str) -> None:
    async def scenario(user: Preferring) -> None:
        assert await user.api.get(PATH) == DEFAULTS

    play(redis_url, scenario)


def test_a_put_replaces_everything_and_takes_what_a_get_showed(redis_url: str) -> None:
    async def scenario(user: Preferring) -> None:
        assert await user.put(FULL) == FULL
        assert await user.stored() == STORED
        assert await user.put(FULL) == FULL
        assert await user.put({"hide_text": True}) == {**DEFAULTS, "hide_text": True}
        assert await user.put(DEFAULTS) == DEFAULTS
        assert await user.put({"push": None, "do_not_disturb": None, "hide_text": None, "sound": None}) == DEFAULTS

    play(redis_url, scenario)


def test_a_patch_changes_what_it_names(redis_url: str) -> None:
    async def scenario(user: Preferring) -> None:
        await user.put(FULL)
        assert await user.patch({}) == FULL
        assert await user.patch({"push": True}) == {**FULL, "push": True}
        changed = await user.patch({"do_not_disturb": {"until_ms": None}, "sound": {"group": None}})
        assert changed["do_not_disturb"] == {**FULL["do_not_disturb"], "until_ms": 0}
        assert changed["sound"] == {"single": "ding.wav", "group": None}
        night = [{"start": "23:00", "duration_s": 86_400}]
        assert (await user.patch({"do_not_disturb": {"daily": night}}))["do_not_disturb"]["daily"] == night
        assert await user.patch({"do_not_disturb": None, "hide_text": None, "sound": None}) == DEFAULTS

    play(redis_url, scenario)


def test_a_duration_is_as_good_as_an_end(redis_url: str) -> None:
    async def scenario(user: Preferring) -> None:
        daily = [{"start": "22:00", "duration_s": 32_400}]
        shown = await user.put({"do_not_disturb": {"daily": daily}})
        assert shown["do_not_disturb"]["daily"] == [{"start": "22:00", "end": "07:00"}]
        daily = [{"start": "23:30", "duration_s": 1_800}]
        shown = await user.put({"do_not_disturb": {"daily": daily}})
        assert shown["do_not_disturb"]["daily"] == [{"start": "23:30", "end": "00:00"}]

    play(redis_url, scenario)


def test_a_time_that_is_over_is_not_in_the_way_of_a_patch(redis_url: str) -> None:
    now_ms = NOW_MS

    async def scenario(user: Preferring) -> None:
        nonlocal now_ms
        await user.put({"do_not_disturb": {"until_ms": NOW_MS + 1}})
        now_ms = NOW_MS + 1
        assert (await user.api.get(PATH))["do_not_disturb"]["until_ms"] == 0
        assert await user.patch({"push": False}) == {**DEFAULTS, "push": False}

    play(redis_url, scenario, lambda: now_ms)


@pytest.mark.parametrize(
    "stored",
    [
        Preferences(push=False, quiet_daily=(Window(999_999, 60),)),
        Preferences(push=False, quiet_daily=(Window(0, 0),)),
        Preferences(push=False, quiet_daily=(Window(0, -3600),)),
        Preferences(push=False, quiet_until_ms=5 * 10**15),
        Preferences(push=False, single_sound="../ding"),
        Preferences(push=False, time_zone="x" * 41),
    ],
)
def test_a_stored_record_that_nobody_could_have_said_is_as_good_as_none_for_a_patch(
    redis_url: str, stored: Preferences
) -> None:
    async def scenario(user: Preferring) -> None:
        await user.store.change("demo", "ann", lambda _: stored)
        assert await user.patch({"hide_text": True}) == {**DEFAULTS, "hide_text": True}
        assert await user.api.get(PATH) == {**DEFAULTS, "hide_text": True}

    play(redis_url, scenario)


def windows(*daily: dict[str, Any]) -> dict[str, Any]:
    return {"do_not_disturb": {"daily": list(daily)}}


NIGHT = {"start": "22:00", "end": "07:00"}


@pytest.mark.parametrize(
    ("body", "code", "field"),
    [
        ({"push": "no"}, "invalid_field", "push"),
        ({"silence": True}, "invalid_field", "silence"),
        ({"do_not_disturb": {"days": []}}, "invalid_field", "do_not_disturb.days"),
        ({"do_not_disturb": {"time_zone": "Mars/Olympus"}}, "unknown_time_zone", "do_not_disturb.time_zone"),
        ({"do_not_disturb": {"time_zone": "../../etc/passwd"}}, "unknown_time_zone", "do_not_disturb.time_zone"),
        ({"do_not_disturb": {"time_zone": "x" * 41}}, "invalid_field", "do_not_disturb.time_zone"),
        ({"do_not_disturb": {"until_ms": NOW_MS}}, "time_in_past", "do_not_disturb.until_ms"),
        ({"do_not_disturb": {"until_ms": -1}}, "invalid_field", "do_not_disturb.until_ms"),
        ({"do_not_disturb": {"until_ms": 2**60}}, "invalid_field", "do_not_disturb.until_ms"),
        (windows({"start": "24:00", "end": "07:00"}), "invalid_field", "do_not_disturb.daily[0].start"),
        (windows({"start": "7:00", "end": "08:00"}), "invalid_field", "do_not_disturb.daily[0].start"),
        (windows({"start": "07:00\n", "end": "08:00"}), "invalid_field", "do_not_disturb.daily[0].start"),
        (windows({"start": "22:00", "end": "07:60"}), "invalid_field", "do_not_disturb.daily[0].end"),
        (windows({"start": "22:00"}), "invalid_field", "do_not_disturb.daily[0].end"),
        (windows({**NIGHT, "duration_s": 5}), "invalid_field", "do_not_disturb.daily[0].end"),
        (windows({"start": "22:00", "end": "22:00:00"}), "invalid_field", "do_not_disturb.daily[0].end"),
        (windows({"start": "22:00", "duration_s": 0}), "invalid_field", "do_not_disturb.daily[0].duration_s"),
        (windows({"start": "22:00", "duration_s": 86_401}), "invalid_field", "do_not_disturb.daily[0].duration_s"),
        (windows(NIGHT, {"start": "06:59", "end": "12:00"}), "windows_overlap", "do_not_disturb.daily[1]"),
        (windows(NIGHT, {"start": "12:00", "end": "13:00"}, NIGHT), "windows_overlap", "do_not_disturb.daily[2]"),
        (windows(*[NIGHT] * 17), "invalid_field", "do_not_disturb.daily"),
        ({"sound": {"single": "x" * 65}}, "invalid_field", "sound.single"),
        ({"sound": {"group": "../ding"}}, "invalid_field", "sound.group"),
        ({"sound": {"group": 7}}, "invalid_field", "sound.group"),
        ({"sound": {"group": ".wav"}}, "invalid_field", "sound.group"),
    ],
)
def test_what_is_wrong_is_refused_with_its_place_and_changes_nothing(
    redis_url: str, body: dict[str, Any], code: str, field: str
) -> None:
    async def scenario(user: Preferring) -> None:
        await user.put(FULL)
        for method in ("PUT", "PATCH"):
            # What goes with it and is right is not taken either.
            answer = await user.api.client.request(method, PATH, json={"hide_text": False, **body})
            assert (answer.status_code, answer.json()["code"], answer.json()["field"]) == (422, code, field)
            assert await user.stored() == STORED

    play(redis_url, scenario)


@pytest.mark.parametrize(
    ("content", "media_type", "status", "code"),
    [
        (b"{}", "text/plain", 415, "unsupported_media_type"),
        (b"", "application/json", 400, "invalid_json"),
        (b"[]", "application/json", 422, "invalid_field"),
        (b"null", "application/json", 422, "invalid_field"),
        (b'{"push": tru', "application/json", 400, "invalid_json"),
        (b" " * 16_385, "application/json", 413, "body_too_large"),
    ],
)
def test_a_body_that_is_none_is_refused(
    redis_url: str, content: bytes, media_type: str, status: int, code: str
) -> None:
    async def scenario(user: Preferring) -> None:
        for method in ("PUT", "PATCH"):
            answer = await user.api.client.request(method, PATH, content=content, headers={"content-type": media_type})
            assert (answer.status_code, answer.json()["code"]) == (status, code)
        assert await user.api.get(PATH) == DEFAULTS

    play(redis_url, scenario)


def test_an_unknown_app_and_a_wrong_user_are_refused(redis_url: str) -> None:
    async def scenario(user: Preferring) -> None:
        for method in ("GET", "PUT", "PATCH"):
            body = None if method == "GET" else {}
            answer = await user.api.client.request(method, "/v1/apps/nope/users/ann/preferences", json=body)
            assert (answer.status_code, answer.json()["code"]) == (404, "unknown_app")
            path = f"/v1/apps/demo/users/{'u' * 257}/preferences"
            answer = await user.api.client.request(method, path, json=body)
            assert (answer.status_code, answer.json()["code"]) == (422, "invalid_id")

    play(redis_url, scenario)


def test_apps_and_users_are_apart(redis_url: str) -> None:
    async def scenario(user: Preferring) -> None:
        await user.put(FULL)
        for other in ("/v1/apps/lite/users/ann", "/v1/apps/demo/users/bob"):
            assert await user.api.get(f"{other}/preferences") == DEFAULTS

    play(redis_url, scenario)


def test_the_examples_of_the_page_are_taken(redis_url: str) -> None:
    page = (Path(__file__).parents[3] / "docs" / "preferences.md").read_text(encoding="utf-8")
    whole, part = (json.loads(block) for block in re.findall(r"```json\n(.*?)```", page, flags=re.DOTALL))

    async def scenario(user: Preferring) -> None:
        shown = await user.put(whole)
        assert shown["sound"] == whole["sound"]
        changed = await user.patch(part)
        assert changed["do_not_disturb"] == {**shown["do_not_disturb"], **part["do_not_disturb"]}

    play(redis_url, scenario)


def test_the_bodies_are_documented() -> None:
    assert {"PreferencesGiven", "PreferencesShown"} <= set(preference_schemas())
