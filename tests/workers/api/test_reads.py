"""The endpoint that is told how far users have read."""

from __future__ import annotations

from typing import Any

import pytest
from tests.workers.api.support import DEVICE, NOW_MS, USER, Api, a_body, served

from pushfleet_workers.api.reads import read_routes
from pushfleet_workers.redis_link import Link
from pushfleet_workers.settings import AppSettings
from pushfleet_workers.tokens.keys import UserKeys
from pushfleet_workers.tokens.reads import ReadStore

READ = f"{USER}/conversations/a%2Fb/read"
APPS = {"demo": AppSettings(reads=True), "lite": AppSettings()}


def on(url: str, scenario: Any) -> None:
    """Serve the API with the route of reads."""

    link = Link(url)

    async def closing(api: Api) -> None:
        try:
            await scenario(api)
        finally:
            await link.close()

    served(url, closing, routers=[read_routes(ReadStore(link, "t", lambda: NOW_MS), APPS, lambda: NOW_MS)])


def test_a_read_is_taken_down_and_lowers_the_badge(redis_url: str) -> None:
    async def scenario(api: Api) -> None:
        await api.put(DEVICE, a_body(state="background", unread=7, at_ms=NOW_MS - 9))
        answer = await api.post(READ, {"up_to_ms": NOW_MS - 5, "unread": 3})
        assert (answer.status_code, answer.json()) == (200, {"applied": True})
        assert (await api.get(USER))["devices"]["d1"]["unread"] == 3
        assert (await api.post(READ, {"up_to_ms": NOW_MS - 6})).json() == {"applied": False}
        key = UserKeys("t", "demo", "ann").reads
        assert await api.link.call("HGET", key, "a/b") == str(NOW_MS - 5).encode()

    on(redis_url, scenario)


def test_whoever_reads_elsewhere_needs_no_device(redis_url: str) -> None:
    async def scenario(api: Api) -> None:
        answer = await api.post(READ, {"up_to_ms": NOW_MS - 5, "unread": 3})
        assert (answer.status_code, answer.json()) == (200, {"applied": True})
        assert (await api.get(USER))["devices"] == {}, "nor gets one by that"
        await api.put(DEVICE, a_body(state="background", unread=7))
        key = UserKeys("t", "demo", "ann").reads
        assert await api.link.call("HGET", key, "a/b") == str(NOW_MS - 5).encode(), "it holds for one that comes later"

    on(redis_url, scenario)


@pytest.mark.parametrize(
    ("path", "body", "status", "code", "field"),
    [
        (READ, {}, 422, "invalid_field", "up_to_ms"),
        (READ, {"up_to_ms": 0}, 422, "invalid_field", "up_to_ms"),
        (READ, {"up_to_ms": 1, "unread": -1}, 422, "invalid_field", "unread"),
        (READ, {"up_to_ms": 1, "until": 2}, 422, "invalid_field", "until"),
        (READ, {"up_to_ms": NOW_MS + 600_000}, 422, "time_in_future", "up_to_ms"),
        (READ, {"up_to_ms": 1, "at_ms": NOW_MS + 600_000}, 422, "time_in_future", "at_ms"),
        (READ.replace("demo", "lite"), {"up_to_ms": 1}, 409, "reads_off", ""),
        (READ.replace("demo", "none"), {"up_to_ms": 1}, 404, "unknown_app", ""),
        (READ.replace("a%2Fb", "x" * 257), {"up_to_ms": 1}, 422, "invalid_id", "conversation"),
    ],
)
def test_what_is_wrong_is_refused_and_changes_nothing(
    redis_url: str, path: str, body: Any, status: int, code: str, field: str
) -> None:
    async def scenario(api: Api) -> None:
        answer = await api.post(path, body)
        problem = answer.json()
        assert (answer.status_code, problem["code"], problem["field"]) == (status, code, field)
        assert await api.link.call("DBSIZE") == 0

    on(redis_url, scenario)
