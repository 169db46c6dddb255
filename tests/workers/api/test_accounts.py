"""Pausing accounts over HTTP."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from tests.workers.api.support import Api, served
from tests.workers.dead_letters.support import PREFIX, Stage, fleet_settings

from pushfleet_workers.api.accounts import account_routes
from pushfleet_workers.gate_desk import GateDesk
from pushfleet_workers.ledger import GateNews, Ledger
from pushfleet_workers.redis_link import Link

ACCOUNTS = "/v1/accounts"


def play(url: str, scenario: Callable[[Api, Stage], Awaitable[None]]) -> None:
    link = Link(url)
    stage = Stage(link, fleet_settings())

    async def in_api(api: Api) -> None:
        try:
            await stage.accounts.refresh()
            await scenario(api, stage)
        finally:
            await link.close()

    served(url, in_api, routers=[account_routes(GateDesk(link, PREFIX, stage.accounts))])


def states(answer: Any) -> dict[str, str]:
    return {f"{one['vendor']}:{one['credential']}": one["state"] for one in answer["accounts"]}


def test_a_vendor_is_paused_and_resumed(redis_url: str) -> None:
    async def scenario(api: Api, stage: Stage) -> None:
        assert states(await api.get(ACCOUNTS)) == dict.fromkeys(["honor:main", "huawei:lite", "huawei:main"], "open")
        body = {"reason": "wrong text", "for_s": 3_600, "elsewhere": True}
        answer = (await api.post(f"{ACCOUNTS}/huawei/pause", body)).json()
        assert states(answer) == {"huawei:lite": "paused", "huawei:main": "paused"}
        operator = answer["accounts"][0]["gate"]["operator"]
        assert (operator["reason"], operator["elsewhere"]) == ("wrong text", True)
        assert operator["until_ms"] - operator["since_ms"] == 3_600_000
        assert states(await api.get(ACCOUNTS))["honor:main"] == "open"
        assert states(await api.get(f"{ACCOUNTS}?vendor=huawei&credential=lite")) == {"huawei:lite": "paused"}
        answer = (await api.post(f"{ACCOUNTS}/huawei/resume", {"credential": "lite"})).json()
        assert states(answer) == {"huawei:lite": "open"}
        assert states(await api.get(ACCOUNTS))["huawei:main"] == "paused"

    play(redis_url, scenario)


def test_the_vendors_word_stands_unless_it_is_forced(redis_url: str) -> None:
    async def scenario(api: Api, stage: Stage) -> None:
        await Ledger(stage.link, stage.keys("honor:main"), "w1").tell_gate(GateNews(pause_ms=60_000, reason="429"))
        (account,) = (await api.get(f"{ACCOUNTS}?vendor=honor"))["accounts"]
        assert (account["state"], account["gate"]["reason"], account["app"]) == ("shut", "429", "demo")
        answer = (await api.post(f"{ACCOUNTS}/honor/resume", {})).json()
        assert states(answer) == {"honor:main": "shut"}
        answer = (await api.post(f"{ACCOUNTS}/honor/resume", {"force": True})).json()
        assert states(answer) == {"honor:main": "open"}

    play(redis_url, scenario)


@pytest.mark.parametrize("what", ["pause", "resume"])
def test_of_what_is_not_there_it_says_what_is(redis_url: str, what: str) -> None:
    async def scenario(api: Api, stage: Stage) -> None:
        for path, body in (("/nobody", {}), ("/huawei", {"credential": "nobody"})):
            answer = await api.post(f"{ACCOUNTS}{path}/{what}", body)
            assert (answer.status_code, answer.json()["code"]) == (404, "unknown_account")
            assert "huawei/lite" in answer.json()["message"]

    play(redis_url, scenario)


@pytest.mark.parametrize(
    "body",
    [
        {"for_s": -1},
        {"for_s": 400 * 86_400},
        {"reason": "x" * 201},
        {"reason": "a\nb"},
        {"forever": True},
        {"credential": ""},
    ],
)
def test_a_wrong_pause_is_refused_and_nothing_happens(redis_url: str, body: Any) -> None:
    async def scenario(api: Api, stage: Stage) -> None:
        answer = await api.post(f"{ACCOUNTS}/huawei/pause", body)
        assert answer.status_code == 422
        assert set(states(await api.get(ACCOUNTS)).values()) == {"open"}

    play(redis_url, scenario)
