"""A router on a real Redis without any process around it, and short ways to set up devices and to see what it put."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from pushfleet import Conversation, OfflineMessage, Producer, Recipient, Sender
from pushfleet.message import LANES, Lane
from pushfleet_workers.audit import Books, read_books
from pushfleet_workers.ingress import GROUP, IngressStream, Raw
from pushfleet_workers.ledger import AccountKeys, Entry, VendorKeys, unpack
from pushfleet_workers.push import Delivery
from pushfleet_workers.redis_link import Link
from pushfleet_workers.router import Router
from pushfleet_workers.settings import Settings
from pushfleet_workers.tokens.keys import UserKeys
from pushfleet_workers.tokens.record import BACKGROUND, Channel, Device, State, TokenKind, encode_device

PREFIX = "t"
RECALLS = {"demo": {"name": "Demo", "recall_window_s": 120}, "lite": {}}
"""The apps where messages of one can be taken back."""

APNS = {"app": "demo", "team_id": "A1B2C3D4E5", "key_id": "F6G7H8J9K0", "key_file": "k.p8", "topic": "com.example.a"}
FCM = {"app": "demo", "service_account_file": "service-account.json"}
HUAWEI = {"app": "demo", "client_id": "100", "client_secret": "hunter2"}


def settings(url: str, *, accounts: dict[str, Any] | None = None, **sections: Any) -> Settings:
    """Two apps, three vendors; *accounts* and *sections* replace what is there."""
    accounts = accounts or {
        "apns": {"main": APNS, "lite": {**APNS, "app": "lite"}},
        "fcm": {"main": FCM},
        "huawei": {"main": HUAWEI},
    }
    redis = {"url": url, "prefix": PREFIX}
    fields: dict[str, Any] = {"apps": {"demo": {"name": "Demo"}, "lite": {}}, "accounts": accounts, "redis": redis}
    return Settings(**{**fields, **sections})


def chat(identity: str = "m1", *to: str | Recipient, **changes: Any) -> OfflineMessage:
    """A message of Ann's in a single chat, to Bob unless *to* says otherwise."""
    fields: dict[str, Any] = {
        "id": identity,
        "app": "demo",
        "sender": Sender(id="ann", name="Ann"),
        "conversation": Conversation(id="c1"),
        "recipients": to or ("bob",),
        "body": "Lunch?",
    }
    return OfflineMessage(**{**fields, **changes})


def group(identity: str, *to: str | Recipient, **changes: Any) -> OfflineMessage:
    """The same in a group."""
    return chat(identity, *to, conversation=Conversation(id="g1", kind="group", name="Team"), **changes)


class Stage:
    """What a test sees of router and Redis."""

    def __init__(self, given: Settings, queue: Link, waiting: Link) -> None:
        self.settings = given
        self.queue = queue
        self.triggered: list[str] = []
        self.router = self.new_router()
        self.streams: dict[Lane, IngressStream] = {
            lane: IngressStream(queue, waiting, PREFIX, lane, "router-1") for lane in LANES
        }
        self.producer = Producer(given.redis.queue_url, prefix=PREFIX)

    def new_router(self, given: Settings | None = None) -> Router:
        """Another router of the same fleet."""
        return Router(given or self.settings, self.queue, self.queue, self.triggered.append)

    async def device(
        self,
        user: str = "bob",
        name: str = "phone",
        vendor: str = "apns",
        credential: str = "main",
        *,
        app: str = "demo",
        token: str = "",
        kind: TokenKind = "alert",
        state: State = BACKGROUND,
        **fields: Any,
    ) -> None:
        """A device that reported just now, with one channel, unless *fields* has ``channels``."""
        channel = Channel(vendor, credential, token or f"token-of-{user}-{name}", 1_000, kind)
        heard = {"state": state, "state_at_ms": int(time.time() * 1000)}
        device = Device(**{"channels": [channel], **heard, **fields})
        await self.queue.call("HSET", UserKeys(PREFIX, app, user).devices, name, encode_device(device))

    async def option(self, user: str, conversation: str, receive: str) -> None:
        """What *user* wants from *conversation*."""
        await self.queue.call("HSET", UserKeys(PREFIX, "demo", user).options, conversation, receive)

    def enqueue(self, *messages: OfflineMessage) -> None:
        """As a backend does."""
        self.producer.enqueue_many(messages)

    async def recall(self, identity: str, *to: str, conversation: str = "") -> None:
        """Take a message back, and route everything."""
        self.producer.recall("demo", identity, conversation=conversation, recipients=to)
        await self.route()

    async def read(self, lane: Lane = "normal") -> list[Raw]:
        """Entries that no router has read before."""
        stream = self.streams[lane]
        present, pending = await self.queue.pipeline(
            [("XLEN", stream.keys.stream), ("XPENDING", stream.keys.stream, GROUP)]
        )
        # A server takes a tenth of a second to find that a blocked reader has waited long enough.
        return await stream.read(2_000, 1_000) if present > pending[0] else []

    async def read_again(self, lane: Lane = "normal") -> list[Raw]:
        """Entries whose router died."""
        return await self.streams[lane].take_over(0, 1_000)

    async def route(self, *messages: OfflineMessage) -> None:
        """Enqueue *messages*, then route everything in all lanes."""
        if messages:
            self.enqueue(*messages)
        for lane, stream in self.streams.items():
            while raws := await self.read(lane):
                await self.router.route(stream, raws)

    async def put_and_die(self, *raws: Raw, lane: Lane = "normal", keeps: bool = True) -> None:
        """What a router does that dies between put and acknowledgement; not *keeps*: before it kept whom it put for."""

        class Died(BaseException):
            pass

        async def die(_: object) -> Any:
            raise Died

        stream = self.streams[lane]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(stream, "acknowledge", die)
            if not keeps:
                patch.setattr(self.router, "_keep", die)
            with pytest.raises(Died):
                await self.router.route(stream, raws)

    async def entries(self, vendor: str = "apns", credential: str = "main") -> list[Entry]:
        """What lies ready in an account's ledger, urgent first."""
        keys = AccountKeys(PREFIX, vendor, credential)
        return [unpack(data) for lane in keys.ready for data in await self.queue.call("LRANGE", lane, 0, -1)]

    async def deliveries(self, vendor: str = "apns", credential: str = "main") -> list[Delivery]:
        """The deliveries of :meth:`entries`."""
        return [one for entry in await self.entries(vendor, credential) for one in entry.parcel.deliveries]

    async def delayed(self, vendor: str = "apns", credential: str = "main") -> list[tuple[int, Entry]]:
        """What waits in an account's ledger, with when it is due, soonest first."""
        keys = AccountKeys(PREFIX, vendor, credential)
        due = await self.queue.call("ZRANGE", keys.delayed, 0, -1, "WITHSCORES")
        return [
            (int(float(due[at + 1])), unpack(await self.queue.call("HGET", keys.delayed_entries, due[at])))
            for at in range(0, len(due), 2)
        ]

    async def books(self) -> Books:
        """The books of everything."""
        accounts = [(vendor, credential) for vendor, credential, _ in self.settings.each_account()]
        return await read_books(self.queue, PREFIX, accounts)

    async def suppressed(self) -> dict[str, int]:
        """Reason to how many, over all lanes and apps."""
        books = [("HGETALL", stream.keys.books) for stream in self.streams.values()]
        found: dict[str, int] = {}
        for flat in await self.queue.pipeline(books):
            for name, count in zip(flat[::2], flat[1::2], strict=True):
                kind, _, reason = name.decode().partition(":")
                if kind == "suppressed":
                    reason = reason.partition(":")[2]
                    found[reason] = found.get(reason, 0) + int(count)
        return found

    async def joined(self) -> bool:
        """Whether what routers say they decided is what the ledgers were given."""
        books = await self.books()
        decided = sum(lane.deliveries for lane in books.lanes.values())
        return books.balanced and decided == sum(account.put for account in books.accounts.values())

    async def refused(self, lane: Lane = "normal") -> list[dict[str, str]]:
        """The refused entries, oldest first."""
        found = await self.queue.call("XRANGE", self.streams[lane].keys.refused, "-", "+")
        return [
            {fields[at].decode(): fields[at + 1].decode(errors="replace") for at in range(0, len(fields), 2)}
            for _, fields in found
        ]

    async def xadd(self, *fields: str | bytes, lane: Lane = "normal") -> None:
        """An entry as some other client writes it."""
        await self.queue.call("XADD", self.streams[lane].keys.stream, "*", *fields)

    def vendor_keys(self, vendor: str) -> VendorKeys:
        """The keys of bell and trigger."""
        return VendorKeys(PREFIX, vendor)


@asynccontextmanager
async def staged(given: Settings) -> AsyncIterator[Stage]:
    """A stage that is cleared up afterwards."""
    queue, waiting = Link(given.redis.queue_url), Link(given.redis.queue_url)
    stage = Stage(given, queue, waiting)
    try:
        for stream in stage.streams.values():
            await stream.prepare()
        yield stage
    finally:
        stage.producer.close()
        await queue.close()
        await waiting.close()


def play(url: str, scenario: Callable[[Stage], Awaitable[None]], **options: Any) -> None:
    """Run *scenario* on a stage; *options* go to :func:`settings`."""

    async def run() -> None:
        async with staged(settings(url, **options)) as stage:
            await scenario(stage)

    asyncio.run(run())


def now_ms() -> int:
    """Unix milliseconds."""
    return int(time.time() * 1000)
