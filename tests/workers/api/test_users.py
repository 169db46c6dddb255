"""A user as the API shows them: devices, preferences, and whether a push would go."""

from __future__ import annotations

from typing import Any

import pytest
from tests.workers.api.support import DEVICE, NOW_MS, USER, Api, a_body, served

from pushfleet_workers.reasons import SUPPRESSED


async def pushes(api: Api, query: str = "") -> dict[str, Any]:
    return {name: device["push"] for name, device in (await api.get(USER + query))["devices"].items()}


def test_a_device_tells_by_which_channel_a_push_would_go_or_why_none_does(redis_url: str) -> None:
    async def scenario(api: Api) -> None:
        await api.put(DEVICE, a_body(state="background", at_ms=NOW_MS - 2))
        await api.put(f"{USER}/devices/d2", a_body("t2", state="foreground", at_ms=NOW_MS - 1))
        assert await pushes(api) == {
            "d1": {"goes": True, "channel": "huawei:main:alert", "reason": "", "message": "", "parked": False},
            "d2": {
                "goes": False,
                "channel": "",
                "reason": "foreground",
                "message": SUPPRESSED["foreground"].sentence,
                "parked": False,
            },
        }

    served(redis_url, scenario)


def test_the_conversation_the_kind_and_a_mention_count(redis_url: str) -> None:
    async def scenario(api: Api) -> None:
        await api.put(DEVICE, a_body())
        await api.put(f"{USER}/conversations/g%2F1/receive-option", {"receive": "mentions"})
        for query, reason in (
            ("", ""),
            ("?conversation=g2", ""),
            ("?conversation=g%2F1", "mentions_only"),
            ("?conversation=g%2F1&mention=true", ""),
            ("?conversation=g%2F1&kind=call", ""),
            ("?conversation=g%2F1&kind=system&mention=false", "mentions_only"),
        ):
            assert (await pushes(api, query))["d1"]["reason"] == reason, query

    served(redis_url, scenario)


@pytest.mark.parametrize(
    ("query", "field"),
    [("kind=shout", "kind"), ("mention=maybe", "mention"), (f"conversation={'x' * 257}", "conversation")],
)
def test_a_question_that_makes_no_sense_is_refused(redis_url: str, query: str, field: str) -> None:
    async def scenario(api: Api) -> None:
        answer = await api.client.get(f"{USER}?{query}")
        assert (answer.status_code, answer.json()["field"]) == (422, field)

    served(redis_url, scenario)
