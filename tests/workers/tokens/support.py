"""Makers of registrations and a token store on a real Redis."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from pushfleet_workers.redis_link import Link
from pushfleet_workers.tokens.changes import ChannelGiven, Registration, Report
from pushfleet_workers.tokens.keys import UserKeys, device_field, token_place
from pushfleet_workers.tokens.record import Device
from pushfleet_workers.tokens.store import TokenStore
from pushfleet_workers.tokens.tombstones import Death, Fate, Tombstones

APP = "demo"
PREFIX = "t"
NOW_MS = 1_750_000_000_000
LEASE_S = 400


class Stage:
    """A store, the connection beneath it, and a clock that stands still until it is moved."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.now_ms = NOW_MS
        self.link = Link(url)
        self.links = [self.link]
        self.store = self.a_store(self.link)

    def a_store(self, link: Link | None = None) -> TokenStore:
        """Another store, on a connection of its own."""
        if link is None:
            link = Link(self.url)
            self.links.append(link)
        return TokenStore(link, PREFIX, lambda: self.now_ms, lease_s=LEASE_S)

    async def device(self, user: str = "ann", device: str = "d1") -> Device:
        return (await self.store.user(APP, user)).devices[device]

    async def tokens(self, user: str = "ann", device: str = "d1") -> list[str]:
        """The tokens of a device; none for an unknown one."""
        found = (await self.store.user(APP, user)).devices.get(device)
        return [channel.token for channel in found.channels] if found is not None else []

    async def owner(self, token: str, vendor: str = "apns", app: str = APP) -> str | None:
        """The user that the index names for *token*."""
        entry = await self.link.call("HGET", *token_place(PREFIX, app, vendor, token))
        if entry is None:
            return None
        owners = entry[8:].decode().split(" ")
        assert len(owners) == 1, "owners before are named only while a registration is under way"
        return str(owners[0].removeprefix(f"{app}:"))

    async def index_size(self) -> int:
        sizes = await self.link.pipeline([("HLEN", key) for key in await self.link.call("KEYS", f"{PREFIX}:{{t:*")])
        return sum(sizes)

    async def damage(self, record: bytes, user: str = "ann", device: str = "d1") -> None:
        await self.link.call("HSET", UserKeys(PREFIX, APP, user).devices, device_field(device), record)


def on_redis(url: str, scenario: Callable[[Stage], Awaitable[Any]]) -> Any:
    async def run() -> Any:
        stage = Stage(url)
        try:
            return await scenario(stage)
        finally:
            for link in stage.links:
                await link.close()

    return asyncio.run(run())


async def drop_token(
    store: TokenStore, app: str, user: str, device: str, token: str, registered_at_ms: int, since_ms: int | None
) -> bool:
    """Whether *token* went, called dead as courier and vendor do it: of that registration, or of any before a date."""
    limits = (registered_at_ms, registered_at_ms + 1) if since_ms is None else (0, since_ms)
    death = Death(user, device, "apns", token, *limits, Fate.DROPPED)
    return bool(await Tombstones(store._link, PREFIX, store).bury(app, [death], NOW_MS))


async def quarantine(store: TokenStore, app: str, user: str, device: str, token: str, until_ms: int) -> bool:
    """Whether *token* is passed over from now on, whenever it was registered."""
    death = Death(user, device, "apns", token, 0, 2**50, Fate.QUARANTINED, until_ms)
    return bool(await Tombstones(store._link, PREFIX, store).bury(app, [death], NOW_MS))


def a_channel(token: str = "token-1", vendor: str = "apns", credential: str = "main", **more: Any) -> ChannelGiven:
    return ChannelGiven(vendor=vendor, credential=credential, token=token, **more)


def a_registration(*tokens: str, **more: Any) -> Registration:
    """A registration with these APNs tokens, `token-1` unless told."""
    channels = more.pop("channels", None) or tuple(a_channel(token) for token in tokens or ("token-1",))
    return Registration(channels=channels, **more)


def a_report(state: Any, at_ms: int = 0, unread: int | None = None, *, user: str = "ann", device: str = "d1") -> Report:
    return Report(user=user, device=device, state=state, unread=unread, at_ms=at_ms)
