"""Dead letters over HTTP."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from tests.workers.api.support import Api, served
from tests.workers.dead_letters.support import TEXT, TOKEN, Stage, an_entry, fleet_settings

from pushfleet import OfflineMessage
from pushfleet.wire import entry
from pushfleet_workers.api.dead_letters import dead_letter_routes, dead_letter_schemas
from pushfleet_workers.push import fingerprint
from pushfleet_workers.redis_link import Link

LETTERS = "/v1/dead-letters"


def play(url: str, scenario: Callable[[Api, Stage], Awaitable[None]]) -> None:
    link = Link(url)
    stage = Stage(link, fleet_settings())

    async def in_api(api: Api) -> None:
        try:
            await stage.accounts.refresh()
            await scenario(api, stage)
        finally:
            await link.close()

    served(url, in_api, routers=[dead_letter_routes(stage.desk)])


async def listed(api: Api, query: str = "") -> list[str]:
    return [one["letter"] for one in (await api.get(f"{LETTERS}{query}"))["letters"]]


async def refused(api: Api, path: str, body: Any) -> tuple[int, str, str]:
    answer = await api.post(f"{LETTERS}{path}", body)
    assert answer.status_code >= 400, answer.text
    told = answer.json()
    return answer.status_code, told["code"], told["field"]


def test_letters_are_listed_without_tokens_and_texts_and_read_on(redis_url: str) -> None:
    async def scenario(api: Api, stage: Stage) -> None:
        names = [await stage.dies(an_entry(f"m{number}")) for number in range(5)]
        page = await api.get(f"{LETTERS}?limit=3")
        assert [one["letter"] for one in page["letters"]] == names[:1:-1]
        assert (page["more"], page["cursor"]) == (True, names[2])
        page = await api.get(f"{LETTERS}?limit=3&before={page['cursor']}")
        assert [one["letter"] for one in page["letters"]] == names[1::-1]
        assert page["more"] is False
        text = (await api.client.get(LETTERS)).text
        assert TOKEN not in text
        assert TEXT not in text

    play(redis_url, scenario)


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("?vendor=huawei", 2),
        ("?vendor=huawei&credential=lite", 1),
        ("?vendor=ingress", 1),
        ("?app=lite", 1),
        ("?reason=malformed", 1),
        ("?code=80100003", 2),
        ("?lane=normal", 3),
        ("?lane=bulk", 0),
        ("?message_id=m1", 1),
        ("?user=bob", 1),
        ("?since_ms=1", 3),
        ("?until_ms=1", 0),
    ],
)
def test_filters(redis_url: str, query: str, found: int) -> None:
    async def scenario(api: Api, stage: Stage) -> None:
        await stage.dies(an_entry("m1", "bob"))
        await stage.dies(an_entry("m2", "eve", app="lite"), "huawei:lite")
        await stage.refuses({b"m": b"{}"})
        assert len(await listed(api, query)) == found
        given: dict[str, Any] = dict(part.split("=") for part in query[1:].split("&"))
        given |= {name: int(value) for name, value in given.items() if name.endswith("_ms")}
        answer = await api.post(f"{LETTERS}/drop", {**given, "dry_run": True})
        assert answer.json()["dropped"] == found

    play(redis_url, scenario)


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("?limit=0", "invalid_limit"),
        ("?limit=1001", "invalid_limit"),
        ("?limit=x", "invalid_limit"),
        ("?since_ms=-1", "invalid_since_ms"),
        ("?until_ms=99999999999999999", "invalid_until_ms"),
        ("?before=somewhere", "invalid_cursor"),
        ("?reason=bad", "invalid_reason"),
        ("?lane=slow", "invalid_lane"),
    ],
)
def test_a_wrong_question_is_refused(redis_url: str, query: str, code: str) -> None:
    async def scenario(api: Api, stage: Stage) -> None:
        answer = await api.client.get(f"{LETTERS}{query}")
        assert (answer.status_code, answer.json()["code"]) == (422, code)

    play(redis_url, scenario)


def test_one_letter_in_full(redis_url: str) -> None:
    async def scenario(api: Api, stage: Stage) -> None:
        name = await stage.dies(an_entry("m1", "bob", conversation_id="c1"))
        shown = await api.get(f"{LETTERS}/{name.replace(':', '/')}")
        assert (shown["letter"], shown["message_id"], shown["conversation_id"]) == (name, "m1", "c1")
        assert shown["meaning"] == "the vendor refuses the payload"
        assert shown["parcel"][0]["token_fingerprint"] == fingerprint(f"{TOKEN}-bob")
        said = entry(OfflineMessage(id="m1", app="gone", recipients=("bob",), body=TEXT))
        name = await stage.refuses(said, "unknown_app", problem="no app 'gone'")
        shown = await api.get(f"{LETTERS}/{name.replace(':', '/')}")
        assert (shown["vendor"], shown["problem"]) == ("ingress", "no app 'gone'")
        for path in ("huawei/main/1-1", "huawei/main/x", "x/y/1-1", "huawei/%3A/1-1"):
            answer = await api.client.get(f"{LETTERS}/{path}")
            assert (answer.status_code, answer.json()["code"]) == (404, "unknown_letter")

    play(redis_url, scenario)


def test_letters_go_back_once(redis_url: str) -> None:
    async def scenario(api: Api, stage: Stage) -> None:
        await stage.dies(an_entry("m1", "ann", "bob"))
        await stage.dies(an_entry("old", ttl_s=-1))
        body = {"vendor": "huawei", "dry_run": True}
        done = (await api.post(f"{LETTERS}/replay", body)).json()
        assert (done["replayed"], done["deliveries"], done["left"]) == (1, 2, {"expired": 1})
        assert len(await listed(api)) == 2
        done = (await api.post(f"{LETTERS}/replay", {"vendor": "huawei"})).json()
        assert (done["replayed"], done["left"], done["more"]) == (1, {"expired": 1}, False)
        assert done["until_ms"] > 0
        done = (await api.post(f"{LETTERS}/replay", {"all": True, "ttl_s": 600, "per_second": 5.5})).json()
        assert (done["replayed"], done["left"]) == (1, {})
        assert (await api.post(f"{LETTERS}/replay", {"all": True})).json()["replayed"] == 0
        assert (await stage.waiting())[0].parcel.push.message_id == "m1"

    play(redis_url, scenario)


def test_named_letters_and_limits(redis_url: str) -> None:
    async def scenario(api: Api, stage: Stage) -> None:
        names = [await stage.dies(an_entry(f"m{number}")) for number in range(5)]
        body = {"letters": [names[4], names[4], "huawei:main:1-1"]}
        done = (await api.post(f"{LETTERS}/replay", body)).json()
        assert (done["replayed"], done["left"]) == (1, {"gone": 1})
        done = (await api.post(f"{LETTERS}/drop", {"all": True, "limit": 2})).json()
        assert (done["dropped"], done["more"]) == (2, True)
        done = (await api.post(f"{LETTERS}/drop", {"letters": names[1:3]})).json()
        assert (done["dropped"], done["gone"]) == (1, 1)
        assert await listed(api) == [names[3]]

    play(redis_url, scenario)


@pytest.mark.parametrize("path", ["/replay", "/drop"])
@pytest.mark.parametrize(
    ("body", "told"),
    [
        ({}, (422, "nothing_named", "")),
        ({"dry_run": True}, (422, "nothing_named", "")),
        ({"letters": ["huawei:main:1-1"], "vendor": "huawei"}, (422, "letters_and_filters", "letters")),
        ({"letters": ["huawei:main:1-1"], "all": True}, (422, "letters_and_filters", "letters")),
        ({"letters": ["huawei"]}, (422, "invalid_letter", "letters")),
        ({"reason": "bad"}, (422, "invalid_reason", "reason")),
        ({"all": True, "lane": "slow"}, (422, "invalid_lane", "lane")),
        ({"all": True, "limit": 0}, (422, "invalid_field", "limit")),
        ({"al": True}, (422, "invalid_field", "")),
    ],
)
def test_what_makes_no_sense_is_refused_and_nothing_happens(
    redis_url: str, path: str, body: Any, told: tuple[int, str, str]
) -> None:
    async def scenario(api: Api, stage: Stage) -> None:
        name = await stage.dies(an_entry("m1"))
        status, code, field = await refused(api, path, body)
        assert (status, code) == told[:2]
        assert field == told[2] or not told[2]
        assert await listed(api) == [name]

    play(redis_url, scenario)


def test_the_schemas_are_those_of_the_routes() -> None:
    assert {"WhichGiven", "ReplayGiven", "LetterPage", "LetterDetail", "ReplayDone", "DropDone"} <= (
        dead_letter_schemas().keys()
    )
