"""Key, probes, metrics, the document, and what happens when something breaks."""

import logging

import httpx
import pytest
from fastapi import APIRouter
from prometheus_client import REGISTRY
from tests.workers.api.support import DEVICE, TOKEN, USER, Api, a_body, served

from pushfleet_workers.redis_server import EmbeddedRedis


def test_a_caller_without_the_key_is_refused(redis_url: str) -> None:
    async def scenario(api: Api) -> None:
        shown = [b"", b"Bearer", b"Bearer wrong", b"Basic k3y", b"k3y", b"Bearer k3y2", b"Bearer k3", b"Bearer \xe9"]
        for headers in ({}, *({b"authorization": one} for one in shown)):
            for path in (USER, "/nowhere", "/docs", "/openapi.json"):
                answer = await api.client.get(path, headers=headers)
                assert (answer.status_code, answer.json()["code"]) == (401, "unauthorized"), headers
                assert answer.headers["www-authenticate"] == "Bearer"
                assert "k3y" not in answer.text
            for path in ("/healthz", "/readyz", "/metrics"):
                assert (await api.client.get(path, headers=headers)).status_code == 200

    served(redis_url, scenario, key="k3y")


def test_a_caller_with_the_key_is_served(redis_url: str) -> None:
    async def scenario(api: Api) -> None:
        for shown in ("Bearer k3y", "bearer  k3y"):
            assert (await api.client.get(USER, headers={"authorization": shown})).status_code == 200

    served(redis_url, scenario, key="k3y")


def count(method: str, route: str, status: str) -> float:
    labels = {"method": method, "route": route, "status": status}
    return REGISTRY.get_sample_value("pushfleet_api_requests_total", labels) or 0


def test_requests_are_counted_by_template_not_by_id(redis_url: str) -> None:
    template = "/v1/apps/{app}/users/{user}"

    async def scenario(api: Api) -> None:
        seen, lost = count("GET", template, "200"), count("GET", "none", "404")
        await api.get(USER)
        await api.client.get("/nowhere")
        assert count("GET", template, "200") == seen + 1
        assert count("GET", "none", "404") == lost + 1
        page = (await api.client.get("/metrics")).text
        assert "pushfleet_api_requests_total{" in page
        assert "pushfleet_api_request_seconds_bucket{" in page
        assert "ann" not in page.replace("channel", "")

    served(redis_url, scenario)


def test_the_document_describes_every_route_its_refusals_and_its_bodies(redis_url: str) -> None:
    async def scenario(api: Api) -> None:
        document = await api.get("/openapi.json")
        operations = {
            (method, path): operation
            for path, methods in document["paths"].items()
            for method, operation in methods.items()
        }
        assert len(operations) == 11
        names = set(document["components"]["schemas"])
        for (_, path), operation in operations.items():
            assert operation["description"]
            if not path.startswith("/v1/"):
                continue
            for parameter in operation["parameters"]:
                assert parameter["description"]
            assert {"400", "401", "404", "422", "503"} <= set(operation["responses"])
        assert "requestBody" in operations["put", "/v1/apps/{app}/users/{user}/devices/{device}"]
        for reference in _references(document):
            assert reference.removeprefix("#/components/schemas/") in names
        assert document["components"]["securitySchemes"]["key"]["scheme"] == "bearer"

    async def with_key(api: Api) -> None:
        api.client.headers["authorization"] = "Bearer k3y"
        await scenario(api)

    served(redis_url, with_key, key="k3y")


def _references(node: object) -> list[str]:
    if isinstance(node, list):
        return [reference for one in node for reference in _references(one)]
    if not isinstance(node, dict):
        return []
    own = [node["$ref"]] if isinstance(node.get("$ref"), str) else []
    return own + [reference for one in node.values() for reference in _references(one)]


def test_further_routes_stand_beside_ours(redis_url: str) -> None:
    routes = APIRouter()

    @routes.get("/more")
    async def more() -> dict[str, int]:
        return {"more": 1}

    async def scenario(api: Api) -> None:
        assert await api.get("/more") == {"more": 1}

    served(redis_url, scenario, routers=[routes])


def test_a_fault_is_answered_and_logged_without_what_it_broke_on(
    redis_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    routes = APIRouter()

    @routes.get("/broken")
    async def broken() -> None:
        raise ValueError(f"cannot digest {TOKEN}")

    async def scenario(api: Api) -> None:
        before = count("GET", "/broken", "500")
        answer = await api.client.get("/broken")
        assert (answer.status_code, answer.json()["code"]) == (500, "internal")
        assert TOKEN not in answer.text
        assert count("GET", "/broken", "500") == before + 1

    with caplog.at_level(logging.DEBUG):
        served(redis_url, scenario, routers=[routes])
    assert "ValueError at " in caplog.text
    assert TOKEN not in caplog.text


def test_a_connection_that_ends_with_an_unread_body_is_said_to_end(redis_url: str) -> None:
    """Else a client sends its next request on it, and gets no answer."""
    headers = {"authorization": "Bearer k3y", "content-type": "application/json"}
    large, small = b"{" * 1_000_000, b"{"

    async def scenario(api: Api) -> None:
        for changed, body, status, ends in (
            ({}, large, 413, True),
            ({"authorization": "none"}, large, 401, True),
            ({"content-type": "text/plain"}, large, 415, True),
            ({}, small, 400, False),
            ({}, b"", 400, False),
        ):
            answer = await api.client.put(DEVICE, content=body, headers={**headers, **changed})
            assert answer.status_code == status
            assert (answer.headers.get("connection") == "close") is ends, answer
        answer = await api.client.get(USER, headers=headers)
        assert answer.status_code == 200
        assert "connection" not in answer.headers

    served(redis_url, scenario, key="k3y")


def test_without_redis_the_api_lives_but_is_not_ready(tmp_path_factory: pytest.TempPathFactory) -> None:
    server = EmbeddedRedis(tmp_path_factory.mktemp("gone"))
    server.start()

    async def scenario(api: Api) -> None:
        assert (await api.client.get("/readyz")).status_code == 200
        server.kill()
        assert (await api.client.get("/healthz")).status_code == 200
        assert (await api.client.get("/readyz")).status_code == 503
        for answer in (await api.client.get(USER), await api.put(DEVICE, a_body())):
            assert (answer.status_code, answer.json()["code"]) == (503, "redis_unavailable")
            assert answer.headers["retry-after"] == "1"

    try:
        served(server.url, scenario)
    finally:
        server.stop()


def test_a_redis_that_refuses_writes_is_an_outage_not_a_fault(redis_url: str, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(api: Api) -> None:
        await api.link.call("CONFIG", "SET", "maxmemory", "1")
        try:
            answer: httpx.Response = await api.put(DEVICE, a_body())
        finally:
            await api.link.call("CONFIG", "SET", "maxmemory", "0")
        assert (answer.status_code, answer.json()["code"]) == (503, "redis_unavailable")
        assert "OOM" in answer.json()["message"]
        assert TOKEN not in answer.text
        assert await api.link.call("DBSIZE") == 0

    served(redis_url, scenario)
    assert TOKEN not in caplog.text


def test_a_method_that_is_not_allowed_is_told_all_that_are(redis_url: str) -> None:
    async def scenario(api: Api) -> None:
        for path, allowed in ((DEVICE, "DELETE, PUT"), (f"{DEVICE}/state", "POST"), ("/metrics", "GET")):
            answer = await api.client.request("BREW", path)
            assert (answer.status_code, answer.headers["allow"]) == (405, allowed)
            assert answer.json()["code"] == "method_not_allowed"
        assert "allow" not in (await api.client.get("/nowhere")).headers

    served(redis_url, scenario)


def test_a_parameter_of_the_wrong_kind_is_refused_like_anything_else_and_not_repeated(redis_url: str) -> None:
    routes = APIRouter()

    @routes.get("/asked")
    async def asked(loud: bool) -> None:
        """Never comes here."""

    async def scenario(api: Api) -> None:
        for given in (f"/asked?loud={TOKEN}", "/asked"):
            answer = await api.client.get(given)
            assert answer.status_code == 422
            told = answer.json()
            assert (told["code"], told["field"]) == ("invalid_parameter", "loud")
            assert told.keys() == {"code", "message", "field"}
            assert TOKEN not in answer.text

    served(redis_url, scenario, routers=[routes])
