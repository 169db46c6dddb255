"""Taking messages back over HTTP: what gets into the queue, and every refusal with code and field."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import redis
from tests.workers.api.support import Api, served

from pushfleet import AsyncProducer, wire
from pushfleet.message import Recall
from pushfleet_workers.api.recalls import recall_routes
from pushfleet_workers.settings import AppSettings

APPS = {"demo": AppSettings(recall_window_s=120), "lite": AppSettings()}
RECALL = "/v1/apps/demo/messages/m1/recall"


def play(url: str, scenario: Callable[[Api], Awaitable[None]], *, queue: str = "", **settings: Any) -> None:
    """Run *scenario*; the recalls go to *queue*, or to the Redis of everything."""
    producer = AsyncProducer(queue or url, prefix="t", socket_timeout_s=1, **settings)

    async def closing(api: Api) -> None:
        async with producer:
            await scenario(api)

    served(url, closing, routers=[recall_routes(producer, APPS)])


def queued(client: redis.Redis) -> list[Recall]:
    found: Any = client.xrange(wire.ingress_key("t", "urgent"))
    read = [wire.read_entry(fields) for _, fields in found]
    return [one for one in read if isinstance(one, Recall)]


def test_a_recall_is_in_the_queue_when_it_is_answered(redis_url: str, redis_client: redis.Redis) -> None:
    async def scenario(api: Api) -> None:
        answer = await api.post(RECALL, {})
        assert (answer.status_code, answer.json()) == (202, {"entries": 1})
        assert queued(redis_client) == [Recall(id="m1", app="demo")]
        users = [f"u{number}" for number in range(501)]
        answer = await api.post("/v1/apps/demo/messages/c2c%2F1%20%E4%BD%A0/recall", {"recipients": users})
        assert answer.json() == {"entries": 2}
        answer = await api.post(RECALL, {"conversation": "c1", "recipients": ["bob"]})
        recalls = queued(redis_client)
        assert [len(one.recipients) for one in recalls] == [0, 500, 1, 1]
        assert recalls[1].id == "c2c/1 你"
        assert recalls[-1] == Recall(id="m1", app="demo", conversation="c1", recipients=("bob",))

    play(redis_url, scenario)


@pytest.mark.parametrize(
    ("path", "body", "status", "code", "field"),
    [
        ("/v1/apps/unheard/messages/m1/recall", {}, 404, "unknown_app", ""),
        ("/v1/apps/lite/messages/m1/recall", {}, 409, "recalls_off", ""),
        (f"/v1/apps/demo/messages/{'m' * 257}/recall", {}, 422, "invalid_id", "message"),
        ("/v1/apps/demo/messages/%ff/recall", {}, 400, "invalid_path", ""),
        (RECALL, {"recipients": "bob"}, 422, "invalid_field", "recipients"),
        (RECALL, {"recipients": ["bob", 7]}, 422, "invalid_field", "recipients[1]"),
        (RECALL, {"recipients": [f"u{number}" for number in range(10_001)]}, 422, "invalid_field", "recipients"),
        (RECALL, {"recipients": ["u1", ""]}, 422, "invalid_recall", "recipients[1]"),
        (RECALL, {"conversation": "c" * 257}, 422, "invalid_recall", "conversation"),
        (RECALL, {"for_all": True}, 422, "invalid_field", "for_all"),
        (RECALL, [], 422, "invalid_field", ""),
    ],
)
def test_what_is_wrong_is_refused_and_nothing_is_enqueued(
    redis_url: str, redis_client: redis.Redis, path: str, body: Any, status: int, code: str, field: str
) -> None:
    async def scenario(api: Api) -> None:
        answer = await api.post(path, body)
        told = answer.json()
        assert (answer.status_code, told["code"], told["field"]) == (status, code, field)
        assert told["message"]
        assert queued(redis_client) == []

    play(redis_url, scenario)


def test_a_body_must_be_json_and_say_so(redis_url: str, redis_client: redis.Redis) -> None:
    async def scenario(api: Api) -> None:
        for content, media_type, status in (
            (b"{}", "text/plain", 415),
            (b"{", "application/json", 400),
            (b" " * (4 * 1024 * 1024 + 1), "application/json", 413),
        ):
            answer = await api.client.post(RECALL, content=content, headers={"content-type": media_type})
            assert answer.status_code == status
        for nothing_said in (b"{}", b""):
            answer = await api.client.post(RECALL, content=nothing_said)
            assert answer.status_code == 415
        assert queued(redis_client) == []

    play(redis_url, scenario)


def test_a_full_stream_and_an_absent_redis_ask_for_patience(redis_url: str) -> None:
    async def full(api: Api) -> None:
        assert (await api.post(RECALL, {})).status_code == 202
        answer = await api.post(RECALL, {})
        assert (answer.status_code, answer.json()["code"]) == (503, "backpressure")
        assert answer.headers["retry-after"] == "1"

    async def absent(api: Api) -> None:
        answer = await api.post(RECALL, {})
        assert (answer.status_code, answer.json()["code"]) == (503, "redis_unavailable")

    play(redis_url, full, ingress_max=1)
    play(redis_url, absent, queue="redis://127.0.0.1:1/0")
