"""The API on a real socket, served by granian inside the test's own process."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import httpx
from fastapi import APIRouter

from pushfleet_workers.api import create_app, serve
from pushfleet_workers.errors import RedisUnusable
from pushfleet_workers.redis_link import Link
from pushfleet_workers.settings import AppSettings
from pushfleet_workers.tokens.store import TokenStore

NOW_MS = 1_750_000_000_000
TOKEN = "secret-token-0123456789"
ACCOUNTS = {("apns", "main"): "demo", ("huawei", "main"): "demo", ("harmony", "main"): "demo", ("apns", "lite"): "lite"}
DEVICE = "/v1/apps/demo/users/ann/devices/d1"
USER = "/v1/apps/demo/users/ann"


class Api:
    """The served API, a client of it, and the store beneath."""

    def __init__(self, client: httpx.AsyncClient, store: TokenStore, link: Link, port: int) -> None:
        self.client = client
        self.store = store
        self.link = link
        self.port = port

    async def put(self, path: str, body: Any) -> httpx.Response:
        return await self.client.put(path, json=body)

    async def post(self, path: str, body: Any) -> httpx.Response:
        return await self.client.post(path, json=body)

    async def get(self, path: str) -> Any:
        answer = await self.client.get(path)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def raw(self, target: str, *, method: str = "GET") -> tuple[int, bytes]:
        """Status and whole answer to a request whose target no client has tidied up."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(f"{method} {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode("latin-1"))
        answer = await reader.read()
        writer.close()
        await writer.wait_closed()
        return int(answer.split(b" ", 2)[1]), answer


def a_body(token: str = TOKEN, vendor: str = "huawei", **more: Any) -> dict[str, Any]:
    return {"channels": [{"vendor": vendor, "token": token}], **more}


def served(
    redis_url: str,
    scenario: Callable[[Api], Awaitable[None]],
    *,
    key: str = "",
    routers: Sequence[APIRouter] = (),
    apps: Mapping[str, AppSettings] | None = None,
) -> None:
    """Run *scenario* against an API that is up; afterwards it is down and its port is free."""

    async def run() -> None:
        link = Link(redis_url)
        store = TokenStore(link, "t", lambda: NOW_MS)

        async def ready() -> bool:
            try:
                return bool(await link.call("PING") == b"PONG")
            except RedisUnusable:
                return False

        app = create_app(
            store,
            apps=apps or {"demo": AppSettings(), "lite": AppSettings()},
            accounts=ACCOUNTS,
            now_ms=lambda: NOW_MS,
            ready=ready,
            key=key,
            routers=routers,
        )
        listening: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        serving = asyncio.create_task(serve(app, "127.0.0.1", 0, listening.set_result))
        try:
            await asyncio.wait({serving, listening}, return_when=asyncio.FIRST_COMPLETED)
            port = listening.result()
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
                await scenario(Api(client, store, link, port))
        finally:
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)
            await link.close()

    asyncio.run(run())
