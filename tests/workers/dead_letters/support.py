"""Dead letters and refused entries for tests, written as workers and routers write them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from msgspec.structs import replace

from pushfleet.message import Kind, Lane
from pushfleet_workers.credential_store import Accounts
from pushfleet_workers.dead_letters import LetterDesk
from pushfleet_workers.ingress import Raw
from pushfleet_workers.ingress.keys import IngressKeys
from pushfleet_workers.ledger import AccountKeys, Entry, Ledger, Settlement, pack
from pushfleet_workers.ledger.entry import parcel_id
from pushfleet_workers.ledger.ledger import Want
from pushfleet_workers.push import Delivery, Parcel, Push, delivery_id
from pushfleet_workers.redis_link import Link
from pushfleet_workers.settings import Settings

PREFIX = "t"
TOKEN = "secret-token-0123456789"
TEXT = "a secret text"
PLENTY = Want(parcels=1_000, deliveries=100_000, bulk_deliveries=100_000)

HUAWEI = {"client_id": "1", "client_secret": "x", "rate_per_s": None}


def fleet_settings(**more: Any) -> Settings:
    """Two apps; messages of the second one can be taken back."""
    fields: dict[str, Any] = {
        "redis": {"prefix": PREFIX},
        "apps": {"demo": {}, "lite": {"recall_window_s": 120}},
        "accounts": {
            "huawei": {"main": HUAWEI | {"app": "demo"}, "lite": HUAWEI | {"app": "lite"}},
            "honor": {"main": {"app": "demo", "app_id": "1", "client_id": "1", "client_secret": "x", "rate_per_s": 20}},
        },
    }
    return Settings(**(fields | more))


def an_entry(
    message: str = "m1",
    *users: str,
    app: str = "demo",
    kind: Kind = "chat",
    lane: Lane = "normal",
    ttl_s: float = 3_600,
    lost: int = 0,
    **push: Any,
) -> Entry:
    """A parcel with a delivery for each of *users*."""
    now_ms = int(time.time() * 1000)
    sent = Push(app, message, kind, lane, "Ann", TEXT, int(now_ms + ttl_s * 1000), now_ms, now_ms, **push)
    deliveries = [
        Delivery(delivery_id(app, message, user, "d1"), user, "d1", f"{TOKEN}-{user}", 1_000)
        for user in users or ("bob",)
    ]
    return Entry(parcel_id(message.encode(), b"".join(one.id for one in deliveries)), Parcel(sent, deliveries), lane,
                 now_ms, lost)  # fmt: skip


class Stage:
    """A fleet's ledgers and lanes, and a desk at them."""

    def __init__(self, link: Link, settings: Settings) -> None:
        self.link = link
        self.settings = settings
        self.accounts = Accounts(settings, link, secrets=False)
        self.desk = LetterDesk(settings, link, self.accounts)

    def keys(self, account: str = "huawei:main") -> AccountKeys:
        return AccountKeys(PREFIX, *account.split(":"))

    async def dies(
        self, entry: Entry, account: str = "huawei:main", *, reason: str = "bad_payload", code: str = "80100003"
    ) -> str:
        """Put *entry* and end it as dead; the letter's name."""
        keys = self.keys(account)
        ledger = Ledger(self.link, keys, "w1")
        await self.link.call("SADD", f"{PREFIX}:accounts", account)
        await self.link.run_many([Ledger.put_call(keys, 1, [(entry.id, [pack(replace_lost(entry, 0))])], 0)])
        (claimed,) = (await ledger.claim(PLENTY)).entries
        size = len(entry.parcel.deliveries)
        end = {f"{entry.lane}:dead:{reason}": size}
        letter = (pack(entry), reason, code, entry.parcel.deliveries[0].attempt + 1)
        dead = Settlement(claimed.id, claimed.fence, size, ended=size, ends=end, dead=[letter])
        assert await ledger.settle([dead]) == []
        ((place, _),) = await self.link.call("XREVRANGE", keys.dead, "+", "-", "COUNT", 1)
        return f"{account}:{place.decode()}"

    async def refuses(
        self, fields: Mapping[bytes, bytes], reason: str = "malformed", *, problem: str = "no", lane: Lane = "normal",
        written_ms: int = 0,
    ) -> str:  # fmt: skip
        """Write an entry and refuse it, as a router does; the letter's name."""
        from pushfleet_workers.ingress import IngressStream

        stream = IngressStream(self.link, self.link, PREFIX, lane, "r1")
        await stream.prepare()
        flat = [part for pair in fields.items() for part in pair]
        place = await self.link.call("XADD", stream.keys.stream, f"{written_ms}-1" if written_ms else "*", *flat)
        await stream.refuse(Raw(place, 0, dict(fields)), reason, problem)
        ((refused, _),) = await self.link.call("XREVRANGE", stream.keys.refused, "+", "-", "COUNT", 1)
        return f"ingress:{lane}:{refused.decode()}"

    async def waiting(self, account: str = "huawei:main") -> list[Entry]:
        """What became due and is claimed now."""
        return (await Ledger(self.link, self.keys(account), "w2").claim(PLENTY)).entries

    async def ingress(self, lane: Lane = "normal") -> list[dict[bytes, bytes]]:
        """What lies in a lane for the routers."""
        found = await self.link.call("XRANGE", IngressKeys(PREFIX, lane).stream, "-", "+")
        return [dict(zip(flat[::2], flat[1::2], strict=True)) for _, flat in found]


def replace_lost(entry: Entry, lost: int) -> Entry:
    """*entry*, lost so often."""
    return Entry(entry.id, entry.parcel, entry.lane, entry.put_ms, lost)


def expiring(entry: Entry, at_ms: int) -> Entry:
    """*entry* with another end."""
    parcel = Parcel(replace(entry.parcel.push, expires_at_ms=at_ms), entry.parcel.deliveries)
    return Entry(entry.id, parcel, entry.lane, entry.put_ms, entry.lost)


def on_stage(url: str, scenario: Callable[[Stage], Awaitable[None]], **settings: Any) -> None:
    """Run *scenario* against an empty Redis."""

    async def run() -> None:
        link = Link(url)
        try:
            stage = Stage(link, fleet_settings(**settings))
            await stage.accounts.refresh()
            await scenario(stage)
        finally:
            await link.close()

    asyncio.run(run())
