"""The API with its receipts on a real socket and a real Redis, and a phone of each vendor registered."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
from tests.workers.receipts.samples import NOW_MS, TOKEN, a_body
from tests.workers.vendors.samples import a_push

from pushfleet_workers.api import create_app, serve
from pushfleet_workers.api.receipts import opened_accounts, receipt_routers
from pushfleet_workers.credential_store import Accounts
from pushfleet_workers.receipts.book import ReceiptKeys
from pushfleet_workers.redis_link import Link
from pushfleet_workers.settings import Settings
from pushfleet_workers.tokens.changes import ChannelGiven, Registration
from pushfleet_workers.tokens.record import Device
from pushfleet_workers.tokens.store import TokenStore
from pushfleet_workers.vendors._receipts import ReceiptAccount, callback, receipt_keys, secret_path

KEY = "a-key-of-the-receipts"
REGISTERED_MS = NOW_MS - 3_600_000
CLIENT = "/v1/receipts/client"


def some_settings(master_key: str = "", **receipts: Any) -> Settings:
    """An app with an account of each vendor that has receipts."""
    own: dict[str, dict[str, Any]] = {
        "huawei": {"client_id": "1", "client_secret": "x"},
        "harmony": {"service_account_file": "/nowhere", "receipt_user": "u", "receipt_secret": "c2VjcmV0"},
        "honor": {"app_id": "1", "client_id": "1", "client_secret": "x"},
        "xiaomi": {"package_name": "com.example.im", "app_secret": "x"},
        "oppo": {"app_key": "1", "master_secret": "x"},
        "vivo": {"app_id": 1, "app_key": "1", "app_secret": "x"},
        "meizu": {"app_id": "1", "app_secret": "x", "receipt_token": "shown"},
    }
    accounts = {
        vendor: {
            "main": {
                "app": "demo",
                "receipt_url": f"http://127.0.0.1/v1/receipts/{vendor}/main",
                "receipt_key": KEY,
                **fields,
            }
        }
        for vendor, fields in own.items()
    }
    accounts["honor"]["silent"] = {"app": "demo", **own["honor"]}
    credentials = {"master_key": master_key} if master_key else {}
    return Settings(
        redis={"prefix": "t"}, apps={"demo": {}}, accounts=accounts, receipts=receipts, credentials=credentials
    )


class Receipts:
    """The served API, a client of it, and what lies in Redis."""

    def __init__(
        self,
        settings: Settings,
        client: httpx.AsyncClient,
        link: Link,
        store: TokenStore,
        stored: Accounts | None,
    ) -> None:
        self.settings = settings
        self.client = client
        self.link = link
        self.store = store
        self.stored = stored
        self.now_ms = NOW_MS

    def account(self, vendor: str) -> ReceiptAccount:
        account = self.settings.accounts[vendor]["main"]
        assert isinstance(account, ReceiptAccount)
        return account

    def path(self, vendor: str) -> str:
        key = receipt_keys(self.account(vendor))[0]
        return f"/v1/receipts/{vendor}/main/{secret_path(key, f'{vendor}/main')}"

    def echo(self, vendor: str, **changes: Any) -> str:
        asked = callback(self.account(vendor), a_push(**changes), 50)
        assert asked is not None
        return asked.echo

    async def post(self, vendor: str, body: bytes, path: str = "", **headers: str) -> httpx.Response:
        return await self.client.post(path or self.path(vendor), content=body, headers=headers)

    async def tell(self, vendor: str, code: str, token: str = TOKEN, **changes: Any) -> httpx.Response:
        """The vendor posts *code* of a push that we sent."""
        return await self.post(vendor, a_body(vendor, code, self.echo(vendor, **changes), token))

    async def recorded(self, app: str = "demo") -> list[dict[str, str]]:
        entries = await self.link.call("XRANGE", ReceiptKeys("t", app).stream, "-", "+")
        return [{flat[at].decode(): flat[at + 1].decode() for at in range(0, len(flat), 2)} for _, flat in entries]

    async def counts(self, app: str = "demo") -> dict[str, int]:
        flat = await self.link.call("HGETALL", ReceiptKeys("t", app).counts)
        return {flat[at].decode(): int(flat[at + 1]) for at in range(0, len(flat), 2)}

    async def register(self, *vendors: str, token: str = TOKEN, at_ms: int = REGISTERED_MS) -> None:
        """Ann's phone, with a token of each of *vendors*."""
        channels = tuple(ChannelGiven(vendor=vendor, token=token) for vendor in vendors)
        await self.store.register("demo", "ann", "phone", Registration(channels=channels, at_ms=at_ms))

    async def phone(self) -> Device:
        return (await self.store.user("demo", "ann")).devices["phone"]


def receiving(
    redis_url: str,
    scenario: Callable[[Receipts], Awaitable[None]],
    *,
    key: str = "",
    master_key: str = "",
    **receipts: Any,
) -> None:
    """Run *scenario* against an API that takes receipts, those of stored credentials with a master key."""

    async def run() -> None:
        link, settings = Link(redis_url), some_settings(master_key, **receipts)
        stored = opened_accounts(settings, link)
        stage: list[Receipts] = []

        def now_ms() -> int:
            return stage[0].now_ms if stage else NOW_MS

        async def ready() -> bool:
            return True

        store = TokenStore(link, "t", now_ms)
        app = create_app(
            store,
            apps=settings.apps,
            accounts={},
            now_ms=now_ms,
            ready=ready,
            key=key,
            routers=receipt_routers(settings, link, link, stored, now_ms),
        )
        listening: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        serving = asyncio.create_task(serve(app, "127.0.0.1", 0, listening.set_result))
        try:
            await asyncio.wait({serving, listening}, return_when=asyncio.FIRST_COMPLETED)
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{listening.result()}") as client:
                stage.append(Receipts(settings, client, link, store, stored))
                await scenario(stage[0])
        finally:
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)
            if stored is not None:
                stored.close()
            await link.close()

    asyncio.run(run())
