"""`pushfleet api` looks after dead tokens: it confirms them, and posts them to the app's webhook."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.workers.credential_store.support import settings

from pushfleet_workers import api_process, death_keeper
from pushfleet_workers.death_keeper import keeper_key
from pushfleet_workers.death_webhook import signature
from pushfleet_workers.ledger import AccountKeys
from pushfleet_workers.outcome import Outcome, Verdict
from pushfleet_workers.push import Delivery
from pushfleet_workers.redis_link import Link
from pushfleet_workers.settings import Settings
from pushfleet_workers.token_feedback import TokenFeedback
from pushfleet_workers.tokens.changes import ChannelGiven, Registration
from pushfleet_workers.tokens.store import TokenStore

NOW_MS = 1_750_000_000_000
DOUBTFUL = Outcome(Verdict.DROP_TOKEN, code="80300007", doubtful=True)
SECRET = "a-secret-of-the-backend"


class Backend:
    """A server that takes what is posted, after it has refused once."""

    def __init__(self) -> None:
        self.heads: list[dict[str, str]] = []
        self.bodies: list[bytes] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError):
            while head := (await reader.readuntil(b"\r\n\r\n")).decode():
                fields = dict(line.lower().split(": ", 1) for line in head.strip().split("\r\n")[1:])
                self.heads.append(fields)
                self.bodies.append(await reader.readexactly(int(fields["content-length"])))
                status = b"503 Not yet" if len(self.bodies) == 1 else b"204 No Content"
                writer.write(b"HTTP/1.1 %b\r\ncontent-length: 0\r\n\r\n" % status)
        writer.close()

    @property
    def told(self) -> list[tuple[str, str]]:
        """User and fate of what was taken."""
        return [(one["user"], one["fate"]) for body in self.bodies[1:] for one in json.loads(body)["deaths"]]


@contextlib.asynccontextmanager
async def running(given: Settings) -> AsyncIterator[None]:
    stop = asyncio.Event()
    task = asyncio.create_task(api_process.run_api(given, stop))
    try:
        yield
    finally:
        stop.set()
        await task


async def one_dies(link: Link, given: Settings) -> None:
    """A token of a Huawei account dies, doubtfully; afterwards the vendor accepts others of the account."""
    store = TokenStore(link, given.redis.prefix, lambda: NOW_MS)
    channel = ChannelGiven(vendor="huawei", credential="main", token="t1")
    await store.register("demo", "ann", "d1", Registration(channels=(channel,), at_ms=NOW_MS))
    feedback = TokenFeedback(link, link, given.redis.prefix, given.deaths, lambda: NOW_MS)
    await feedback.tell("huawei", "main", "demo", [Delivery(b"x" * 16, "ann", "d1", "t1", NOW_MS)], [DOUBTFUL])
    books = AccountKeys(given.redis.prefix, "huawei", "main").books
    await link.call("HINCRBY", books, "end:bulk:sent:", given.deaths.confirm_accepted)


def test_a_doubtful_death_is_confirmed_and_the_backend_hears_of_it(
    redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(death_keeper, "_EVERY_S", 0.05)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)

    async def scenario() -> None:
        backend = Backend()
        server = await asyncio.start_server(backend.serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        given = settings(
            redis_url,
            tmp_path,
            api={"port": 0},
            apps={"demo": {"deaths_webhook": f"http://127.0.0.1:{port}/deaths", "deaths_secret": SECRET}},
            accounts={"huawei": {"main": {"app": "demo", "client_id": "1", "client_secret": "x"}}},
        )
        link = Link(redis_url)
        await one_dies(link, given)
        async with running(given), asyncio.timeout(30):
            while len(backend.told) < 2:
                await asyncio.sleep(0.02)
        assert backend.told == [("ann", "quarantined"), ("ann", "dropped")]
        for head, body in zip(backend.heads, backend.bodies, strict=True):
            assert head["pushfleet-signature"] == f"sha256={signature(SECRET, head['pushfleet-timestamp'], body)}"
        assert await link.call("EXISTS", keeper_key(given.redis.prefix)) == 0, "the next process need not wait"
        await link.close()
        server.close()

    asyncio.run(scenario())
