"""The endpoint that is told which messages devices have."""

from __future__ import annotations

from typing import Any

import pytest
from tests.workers.api.support import DEVICE, NOW_MS, USER, Api, a_body, served

from pushfleet_workers.api.confirmations import confirmation_routes
from pushfleet_workers.redis_link import Link
from pushfleet_workers.settings import AppSettings
from pushfleet_workers.tokens.confirmations import ConfirmationStore, confirmed_command, read_confirmed

CONFIRMATIONS = "/v1/apps/demo/confirmations"
APPS = {"demo": AppSettings(foreground_ack="park"), "lite": AppSettings()}
ONE = {"user": "ann", "device": "d1", "up_to_ms": NOW_MS - 5}


def on(url: str, scenario: Any) -> None:
    """Serve the API with the route of confirmations."""

    link = Link(url)

    async def closing(api: Api) -> None:
        try:
            await scenario(api)
        finally:
            await link.close()

    routes = confirmation_routes(ConfirmationStore(link, "t"), APPS, lambda: NOW_MS)
    served(url, closing, routers=[routes], apps=APPS)


def given(*confirmations: Any) -> Any:
    return {"confirmations": confirmations}


def test_confirmations_are_taken_down(redis_url: str) -> None:
    async def scenario(api: Api) -> None:
        await api.put(DEVICE, a_body(state="foreground", at_ms=NOW_MS - 9))
        body = given(ONE, {**ONE, "up_to_ms": 7}, {**ONE, "conversation": "a/b"}, {**ONE, "device": "d2"})
        answer = await api.post(CONFIRMATIONS, body)
        assert (answer.status_code, answer.json()) == (200, {"applied": 2, "outdated": 1, "unknown": 1})
        command = confirmed_command("t", "demo", "ann", "d1", "a/b")
        assert read_confirmed(await api.link.call(*command)) == NOW_MS - 5

    on(redis_url, scenario)


def test_the_verdict_says_that_the_push_would_wait(redis_url: str) -> None:
    async def scenario(api: Api) -> None:
        await api.put(DEVICE, a_body(state="foreground", at_ms=NOW_MS - 9))
        push = (await api.get(USER))["devices"]["d1"]["push"]
        assert (push["goes"], push["reason"], push["parked"]) == (False, "foreground", True)
        assert push["message"].startswith("the app is in the foreground on the device; the push waits")

    on(redis_url, scenario)


@pytest.mark.parametrize(
    ("path", "body", "status", "code", "field"),
    [
        (CONFIRMATIONS, given(), 422, "invalid_field", "confirmations"),
        (CONFIRMATIONS, given(*[ONE] * 1_001), 422, "invalid_field", "confirmations"),
        (CONFIRMATIONS, given(ONE, {**ONE, "up_to_ms": 0}), 422, "invalid_field", "confirmations[1].up_to_ms"),
        (CONFIRMATIONS, given(ONE, {**ONE, "device": ""}), 422, "invalid_field", "confirmations[1].device"),
        (
            CONFIRMATIONS,
            given({**ONE, "conversation": "x" * 257}),
            422,
            "invalid_field",
            "confirmations[0].conversation",
        ),
        (CONFIRMATIONS, given({"user": "ann", "up_to_ms": 1}), 422, "invalid_field", "confirmations[0].device"),
        (CONFIRMATIONS, given({**ONE, "message": "m1"}), 422, "invalid_field", "confirmations[0].message"),
        (
            CONFIRMATIONS,
            given(ONE, {**ONE, "up_to_ms": NOW_MS + 600_000}),
            422,
            "time_in_future",
            "confirmations[1].up_to_ms",
        ),
        (CONFIRMATIONS.replace("demo", "lite"), given(ONE), 409, "parking_off", ""),
        (CONFIRMATIONS.replace("demo", "none"), given(ONE), 404, "unknown_app", ""),
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
