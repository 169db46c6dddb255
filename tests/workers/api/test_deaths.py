"""Dead tokens over HTTP."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from tests.workers.api.support import ACCOUNTS, NOW_MS, Api, a_body, served

from pushfleet_workers.api.deaths import death_routes, death_schemas
from pushfleet_workers.death_desk import DeathDesk
from pushfleet_workers.outcome import Outcome, Verdict
from pushfleet_workers.push import Delivery, fingerprint
from pushfleet_workers.redis_link import Link
from pushfleet_workers.settings import DeathsSettings
from pushfleet_workers.token_feedback import TokenFeedback

DEAD = "/v1/apps/demo/dead-tokens"
TOKEN = "5ec2e7a0" * 8
LIMITS = DeathsSettings(guard_floor=2)
CERTAIN = Outcome(Verdict.DROP_TOKEN, code="Unregistered", since_ms=NOW_MS + 1)
UNDATED = Outcome(Verdict.DROP_TOKEN, code="Unregistered")


class Fleet:
    def __init__(self, api: Api) -> None:
        self.api = api
        self._feedback = TokenFeedback(api.link, api.link, "t", LIMITS, lambda: NOW_MS)

    async def dies(self, user: str, token: str = TOKEN, outcome: Outcome = CERTAIN) -> None:
        answer = await self.api.put(f"/v1/apps/demo/users/{user}/devices/d1", a_body(token, "apns", at_ms=NOW_MS))
        assert answer.status_code == 200, answer.text
        delivery = Delivery(b"x" * 16, user, "d1", token, NOW_MS)
        await self._feedback.tell("apns", "main", "demo", [delivery], [outcome])

    async def channels(self, user: str) -> list[dict[str, Any]]:
        shown = await self.api.get(f"/v1/apps/demo/users/{user}")
        channels: list[dict[str, Any]] = shown["devices"]["d1"]["channels"]
        return channels


def play(url: str, scenario: Callable[[Api, Fleet], Awaitable[None]]) -> None:
    async def in_api(api: Api) -> None:
        try:
            await scenario(api, Fleet(api))
        finally:
            await link.close()

    link = Link(url)
    desk = DeathDesk(link, link, "t", LIMITS, lambda: NOW_MS)
    served(url, in_api, routers=[death_routes(desk, {"demo": None, "lite": None}, ACCOUNTS)])


def test_deaths_are_listed_without_their_tokens_and_read_on(redis_url: str) -> None:
    async def scenario(api: Api, fleet: Fleet) -> None:
        for user in ("ann", "bob", "eve"):
            await fleet.dies(user, TOKEN + user.encode().hex())
        first = await api.get(f"{DEAD}?limit=2")
        assert [one["user"] for one in first["deaths"]] == ["ann", "bob"]
        assert first["more"]
        second = await api.get(f"{DEAD}?limit=2&after={first['cursor']}")
        assert ([one["user"] for one in second["deaths"]], second["more"]) == (["eve"], False)
        (one,) = second["deaths"]
        assert one["token_fingerprint"] == fingerprint(TOKEN + b"eve".hex())
        assert TOKEN not in json.dumps([first, second])
        only = await api.get(f"{DEAD}?user=bob&code=Unregistered&fate=dropped&vendor=apns&credential=main")
        assert [one["user"] for one in only["deaths"]] == ["bob"]
        assert (await api.get(f"{DEAD}?code=other"))["deaths"] == []

    play(redis_url, scenario)


def test_a_token_is_brought_back(redis_url: str) -> None:
    async def scenario(api: Api, fleet: Fleet) -> None:
        await fleet.dies("ann")
        assert await fleet.channels("ann") == []
        dry = await api.post(f"{DEAD}/restore", {"user": "ann", "dry_run": True})
        assert (dry.json()["restored"], await fleet.channels("ann")) == (1, [])
        done = await api.post(f"{DEAD}/restore", {"user": "ann", "since_ms": 1})
        assert done.json() == {
            "restored": 1, "unknown": 0, "no_device": 0, "outdated": 0, "taken": 0, "more": False,
        }  # fmt: skip
        (channel,) = await fleet.channels("ann")
        assert channel["token_fingerprint"] == fingerprint(TOKEN)

    play(redis_url, scenario)


@pytest.mark.parametrize(("decision", "told", "left"), [("confirm", "dropped", 0), ("lift", "restored", 1)])
def test_a_guarded_account_is_decided_on(redis_url: str, decision: str, told: str, left: int) -> None:
    async def scenario(api: Api, fleet: Fleet) -> None:
        for number in range(3):
            await fleet.dies(f"u{number}", f"{TOKEN}{number:02x}", UNDATED)
        (account,) = (await api.get(f"{DEAD}/accounts"))["accounts"]
        assert (account["vendor"], account["quarantined"], account["guarded_since_ms"] > 0) == ("apns", 1, True)
        assert (await api.get("/v1/apps/lite/dead-tokens/accounts"))["accounts"] == []
        done = await api.post(f"{DEAD}/accounts/apns/main", {"decision": decision})
        assert (done.status_code, done.json()[told] > 0, done.json()["more"]) == (200, True, False)
        assert len(await fleet.channels("u2")) == left
        assert (await api.get(f"{DEAD}/accounts"))["accounts"] == []

    play(redis_url, scenario)


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code"),
    [
        ("GET", "/v1/apps/none/dead-tokens", None, 404, "unknown_app"),
        ("GET", f"{DEAD}?after=yesterday", None, 422, "invalid_cursor"),
        ("GET", f"{DEAD}?limit=0", None, 422, "invalid_limit"),
        ("GET", f"{DEAD}?limit=1001", None, 422, "invalid_limit"),
        ("GET", f"{DEAD}?limit=x", None, 422, "invalid_limit"),
        ("GET", f"{DEAD}?fate=unkind", None, 422, "invalid_fate"),
        ("POST", f"{DEAD}/restore", {"colour": "red"}, 422, "invalid_field"),
        ("POST", f"{DEAD}/restore", {"since_ms": -1}, 422, "invalid_field"),
        ("POST", f"{DEAD}/restore", {"limit": 10_001}, 422, "invalid_field"),
        ("POST", f"{DEAD}/accounts/apns/main", {"decision": "forget"}, 422, "invalid_field"),
        ("POST", f"{DEAD}/accounts/apns/lite", {"decision": "lift"}, 404, "unknown_account"),
        ("POST", f"{DEAD}/accounts/%FF/main", {"decision": "lift"}, 400, "invalid_path"),
    ],
)
def test_a_refusal_has_a_code_and_a_sentence(
    redis_url: str, method: str, path: str, body: Any, status: int, code: str
) -> None:
    async def scenario(api: Api, fleet: Fleet) -> None:
        answer = await api.client.request(method, path, json=body)
        problem = answer.json()
        assert (answer.status_code, problem["code"]) == (status, code), problem
        assert problem["message"]

    play(redis_url, scenario)


def test_every_schema_that_the_routes_name_is_given(redis_url: str) -> None:
    async def scenario(api: Api, fleet: Fleet) -> None:
        document = await api.get("/openapi.json")
        known = {*document["components"]["schemas"], *death_schemas()}
        named = {
            part.rpartition("/")[2]
            for part in json.dumps([document["paths"], death_schemas()]).split('"')
            if part.startswith("#/components/schemas/")
        }
        assert {"DeathPage", "DeathTold", "RestoreGiven", "RestoreDone", "Decided"} <= named
        assert named <= known
        operations = {(path, method) for path, one in document["paths"].items() for method in one}
        assert {("/v1/apps/{app}/dead-tokens", "get"), ("/v1/apps/{app}/dead-tokens/restore", "post")} <= operations

    play(redis_url, scenario)
