"""Logging in and out over HTTP."""

from __future__ import annotations

from typing import Any

import pytest
from tests.workers.api.support import DEVICE, NOW_MS, USER, Api, a_body, served

from pushfleet_workers.settings import AppSettings

APPS = {
    "demo": AppSettings(device_logins="one"),
    "lite": AppSettings(device_logins="one_per_platform"),
}


async def states(api: Api, user: str = USER) -> dict[str, str]:
    return {name: device["state"] for name, device in (await api.get(user))["devices"].items()}


async def two_devices(api: Api) -> None:
    await api.put(DEVICE, a_body(state="background", at_ms=NOW_MS - 9))
    await api.put(f"{USER}/devices/d2", a_body("t2", state="background", at_ms=NOW_MS - 9))


def test_a_device_that_logged_out_stays_so_until_it_registers(redis_url: str) -> None:
    async def scenario(api: Api) -> None:
        await two_devices(api)
        answer = await api.post(f"{DEVICE}/logout", {"at_ms": NOW_MS - 5})
        assert (answer.status_code, answer.json()) == (200, {"applied": True})
        assert (await api.post(f"{DEVICE}/logout", {"at_ms": NOW_MS - 5})).json() == {"applied": False}
        await api.post(f"{DEVICE}/state", {"state": "killed", "at_ms": NOW_MS - 4})
        assert await states(api) == {"d1": "logged_out", "d2": "background"}
        await api.put(DEVICE, a_body(at_ms=NOW_MS - 3))
        assert (await states(api))["d1"] == "killed"
        assert (await api.post(f"{DEVICE}/logout", {"at_ms": NOW_MS - 4})).json() == {"applied": False}
        unknown = await api.post(f"{USER}/devices/d9/logout", {})
        assert (unknown.status_code, unknown.json()["code"]) == (404, "unknown_device")

    served(redis_url, scenario)


def test_a_login_kicks_the_others_by_the_app_s_policy(redis_url: str) -> None:
    async def scenario(api: Api) -> None:
        await two_devices(api)
        done = await api.post(f"{USER}/logins", {"device": "d2", "at_ms": NOW_MS - 1})
        assert (done.status_code, done.json()) == (200, {"logged_out": ["d1"]})
        assert await states(api) == {"d1": "logged_out", "d2": "background"}

    served(redis_url, scenario, apps=APPS)


def test_by_default_a_login_kicks_nobody(redis_url: str) -> None:
    async def scenario(api: Api) -> None:
        await two_devices(api)
        assert (await api.post(f"{USER}/logins", {"device": "d2"})).json() == {"logged_out": []}
        assert await states(api) == {"d1": "background", "d2": "background"}

    served(redis_url, scenario)


def test_one_login_per_platform_asks_for_the_platform_or_knows_it(redis_url: str) -> None:
    user = "/v1/apps/lite/users/bob"

    async def scenario(api: Api) -> None:
        for device, platform in (("i1", "ios"), ("i2", "ios"), ("a1", "android")):
            body = {
                "channels": [{"vendor": "apns", "credential": "lite", "token": device.encode().hex()}],
                "platform": platform,
            }
            assert (await api.put(f"{user}/devices/{device}", {**body, "at_ms": NOW_MS - 9})).status_code == 200
        before = await states(api, user)
        refused = await api.post(f"{user}/logins", {"device": "new"})
        assert (refused.status_code, refused.json()["code"], refused.json()["field"]) == (
            422,
            "unknown_platform",
            "platform",
        )
        assert await states(api, user) == before
        assert (await api.post(f"{user}/logins", {"device": "i2"})).json() == {"logged_out": ["i1"]}
        done = await api.post(f"{user}/logins", {"device": "new", "platform": "android"})
        assert done.json() == {"logged_out": ["a1"]}

    served(redis_url, scenario, apps=APPS)


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        (f"{DEVICE}/logout", {"at_ms": NOW_MS + 300_001}, "at_ms"),
        (f"{DEVICE}/logout", {"at_ms": -1}, "at_ms"),
        (f"{DEVICE}/logout", {"state": "killed"}, "state"),
        (f"{USER}/logins", {}, "device"),
        (f"{USER}/logins", {"device": ""}, "device"),
        (f"{USER}/logins", {"device": "x" * 129}, "device"),
        (f"{USER}/logins", {"device": "d1", "at_ms": NOW_MS + 300_001}, "at_ms"),
        (f"{USER}/logins", {"device": "d1", "platform": "x" * 65}, "platform"),
    ],
)
def test_what_is_wrong_is_refused_and_changes_nothing(redis_url: str, path: str, body: Any, field: str) -> None:
    async def scenario(api: Api) -> None:
        await two_devices(api)
        before = await api.get(USER)
        answer = await api.post(path, body)
        assert (answer.status_code, answer.json()["field"]) == (422, field)
        assert await api.get(USER) == before

    served(redis_url, scenario, apps=APPS)
