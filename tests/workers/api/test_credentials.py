"""The stored credentials over HTTP: only behind a key, every refusal with code, sentence and field."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.workers.credential_store.support import APNS_FIELDS, MASTER_KEY, P8, SECRET, settings

from pushfleet_workers import api_process
from pushfleet_workers.redis_server import EmbeddedRedis

KEY = "the-api-key"
CREDENTIALS = "/v1/credentials"
HUAWEI = {"vendor": "huawei", "id": "main", "app": "demo", "settings": {"client_id": "1", "client_secret": SECRET}}
APNS = {
    "vendor": "apns",
    "id": "main",
    "app": "demo",
    "settings": APNS_FIELDS,
    "files": {"key_file": {"name": "AuthKey_F6G7H8J9K0.p8", "content": base64.b64encode(P8).decode()}},
}

Scenario = Callable[[httpx.AsyncClient], Awaitable[None]]


@contextlib.asynccontextmanager
async def an_api(url: str, folder: Path, **sections: Any) -> AsyncIterator[httpx.AsyncClient]:
    """`pushfleet api` in this process."""
    stop = asyncio.Event()
    given = settings(url, folder, **sections)
    listening: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    serve = api_process.serve

    async def serving(app: Any, host: str, port: int, ready: Callable[[int], None]) -> None:
        def heard(port: int) -> None:
            ready(port)
            listening.set_result(port)

        await serve(app, host, port, heard)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(api_process, "serve", serving)
        running = asyncio.create_task(api_process.run_api(given, stop))
        await asyncio.wait({running, listening}, return_when=asyncio.FIRST_COMPLETED)
        headers = {"authorization": f"Bearer {KEY}"}
        try:
            base = f"http://127.0.0.1:{listening.result()}"
            async with httpx.AsyncClient(base_url=base, headers=headers, trust_env=False) as client:
                yield client
        finally:
            stop.set()
            await running


@pytest.fixture
def play(redis_url: str, tmp_path: Path) -> Callable[..., None]:
    def run(scenario: Scenario, **sections: Any) -> None:
        async def whole() -> None:
            async with an_api(redis_url, tmp_path, **{"api": {"port": 0, "key": KEY}, **sections}) as client:
                await scenario(client)

        asyncio.run(whole())

    return run


def test_a_credential_from_its_beginning_to_its_end(play: Callable[..., None]) -> None:
    async def scenario(client: httpx.AsyncClient) -> None:
        added = await client.post(CREDENTIALS, json=APNS)
        assert added.status_code == 201, added.text
        listed = (await client.get(CREDENTIALS)).json()["credentials"]
        assert listed == [added.json()]
        body = {"settings": {"rate_per_s": 7}, "overlap_s": 60}
        rotated = await client.post(f"{CREDENTIALS}/apns/main/rotate", json=body)
        assert rotated.status_code == 200, rotated.text
        assert rotated.json()["overlap_until_ms"] == rotated.json()["changed_at_ms"] + 60_000
        tested = await client.post(f"{CREDENTIALS}/apns/main/test", json={})
        assert (tested.json()["good"], "probe" in tested.json()["sentence"]) == (None, True)
        assert (await client.delete(f"{CREDENTIALS}/apns/main")).status_code == 204
        assert (await client.get(CREDENTIALS)).json() == {"credentials": []}

    play(scenario)


def test_a_device_registers_with_a_stored_credential_without_a_restart(play: Callable[..., None]) -> None:
    async def scenario(client: httpx.AsyncClient) -> None:
        device = "/v1/apps/demo/users/ann/devices/d1"
        body = {"channels": [{"vendor": "huawei", "token": "a-token"}]}
        assert (await client.put(device, json=body)).json()["code"] == "unknown_account"
        assert (await client.post(CREDENTIALS, json=HUAWEI)).status_code == 201
        async with asyncio.timeout(20):
            while (await client.put(device, json=body)).status_code != 200:
                await asyncio.sleep(0.1)
        refusal = await client.delete(f"{CREDENTIALS}/huawei/main")
        assert (refusal.status_code, refusal.json()["code"]) == (409, "credential_in_use")
        assert (await client.delete(f"{CREDENTIALS}/huawei/main", params={"force": True})).status_code == 204

    play(scenario)


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code", "field"),
    [
        ("POST", "", {**HUAWEI, "vendor": "pigeon"}, 422, "unknown_vendor", "vendor"),
        ("POST", "", {**HUAWEI, "app": "other"}, 422, "invalid_setting", "app"),
        ("POST", "", {**HUAWEI, "id": "a/b"}, 422, "invalid_id", "id"),
        ("POST", "", {**HUAWEI, "settings": {"client_id": "1"}}, 422, "credential_wrong", ""),
        ("POST", "", {**HUAWEI, "settings": {"colour": "red"}}, 422, "invalid_setting", "client_id"),
        ("POST", "", {**HUAWEI, "colour": "red"}, 422, "invalid_field", "colour"),
        ("POST", "", {**APNS, "files": {"key_file": {"content": "!"}}}, 422, "invalid_field", "files[...].content"),
        ("POST", "", {**HUAWEI, "settings": {"x": "y" * 600_000}}, 413, "body_too_large", ""),
        ("POST", "/huawei/none/rotate", {"settings": {"client_id": "2"}}, 404, "unknown_credential", "id"),
        ("POST", "/huawei/none/rotate", {"overlap_s": -1}, 422, "invalid_field", "overlap_s"),
        ("POST", "/huawei/none/test", {}, 404, "unknown_credential", "id"),
        ("POST", "/huawei/%ff/test", {}, 400, "invalid_path", ""),
        ("DELETE", "/huawei/none", None, 404, "unknown_credential", "id"),
    ],
)
def test_a_refusal_has_code_sentence_and_field(
    play: Callable[..., None], method: str, path: str, body: Any, status: int, code: str, field: str
) -> None:
    async def scenario(client: httpx.AsyncClient) -> None:
        content = (
            {"content": json.dumps(body), "headers": {"content-type": "application/json"}} if body is not None else {}
        )
        answer = await client.request(method, CREDENTIALS + path, **content)
        assert (answer.status_code, answer.json()["code"], answer.json()["field"]) == (status, code, field), answer.text
        assert answer.json()["message"]
        assert SECRET not in answer.text

    play(scenario)


def test_what_exists_is_not_added_again(play: Callable[..., None]) -> None:
    async def scenario(client: httpx.AsyncClient) -> None:
        assert (await client.post(CREDENTIALS, json=HUAWEI)).status_code == 201
        again = await client.post(CREDENTIALS, json=HUAWEI)
        assert (again.status_code, again.json()["code"], again.json()["field"]) == (409, "credential_exists", "id")

    play(scenario)


def test_without_an_api_key_nobody_comes_near_them(play: Callable[..., None], redis_server: EmbeddedRedis) -> None:
    async def scenario(client: httpx.AsyncClient) -> None:
        for method, path in (
            ("GET", ""), ("POST", ""), ("POST", "/a/b/rotate"), ("POST", "/a/b/test"), ("DELETE", "/a/b"),
        ):  # fmt: skip
            answer = await client.request(method, CREDENTIALS + path)
            assert (answer.status_code, answer.json()["code"]) == (403, "no_api_key")
            assert "set api.key" in answer.json()["message"]

    play(scenario, api={"port": 0})


def test_without_a_master_key_they_are_listed_and_none_is_taken(play: Callable[..., None]) -> None:
    async def scenario(client: httpx.AsyncClient) -> None:
        answer = await client.post(CREDENTIALS, json=HUAWEI)
        assert (answer.status_code, answer.json()["code"]) == (503, "no_master_key")
        assert (await client.get(CREDENTIALS)).json() == {"credentials": []}

    play(scenario, credentials={})


def test_the_log_tells_what_was_taken_up_and_no_secret(
    play: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG", logger="pushfleet_workers")

    async def scenario(client: httpx.AsyncClient) -> None:
        await client.post(CREDENTIALS, json=HUAWEI)
        async with asyncio.timeout(20):
            while "credential huawei:main is taken up" not in caplog.text:
                await asyncio.sleep(0.05)

    play(scenario)
    assert SECRET not in caplog.text
    assert MASTER_KEY not in caplog.text
