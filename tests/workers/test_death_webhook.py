"""The webhook of dead tokens: signed, in order, again until it is taken, by one process of the fleet."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
from prometheus_client import REGISTRY
from tests.workers.tokens.deaths_support import ACCOUNT, DATED, Hall, in_hall
from tests.workers.tokens.support import APP, NOW_MS, PREFIX

from pushfleet_workers.death_webhook import DEATHS_MAX, DeathWebhook, signature
from pushfleet_workers.lease import Lease

URL = "https://user:pass-word@backend.test/deaths"
SECRET = "a-secret-of-the-backend"
SENT = f"{PREFIX}:{{deaths:{APP}}}:sent"


@dataclass
class Backend:
    """What listens at the address."""

    answers: list[int | Exception] = field(default_factory=list)
    got: list[httpx.Request] = field(default_factory=list)

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.got.append(request)
        answer = self.answers.pop(0) if self.answers else 204
        if isinstance(answer, Exception):
            raise answer
        return httpx.Response(answer, headers={"location": "https://elsewhere.test/"}, content=b"x" * 100)

    @property
    def bodies(self) -> list[Any]:
        return [json.loads(request.content) for request in self.got]

    @property
    def users(self) -> list[list[str]]:
        return [[one["user"] for one in body["deaths"]] for body in self.bodies]


class Sending:
    def __init__(self, hall: Hall, backend: Backend, lease: Lease | None = None) -> None:
        self.lease = lease or Lease(hall.link, "lease")
        self.client = httpx.AsyncClient(transport=httpx.MockTransport(backend))
        self.webhook = DeathWebhook(
            hall.link,
            PREFIX,
            APP,
            URL,
            SECRET,
            deaths=hall.deaths.log,
            lease=self.lease,
            now_ms=lambda: hall.now_ms,
        )

    async def step(self) -> float:
        return await self.webhook.step(self.client)


def playing(url: str, scenario: Callable[[Hall, Backend, Sending], Awaitable[None]]) -> None:
    async def in_the_hall(hall: Hall) -> None:
        backend = Backend()
        await scenario(hall, backend, Sending(hall, backend))

    in_hall(url, in_the_hall)


async def deaths(hall: Hall, *users: str) -> None:
    for user in users:
        await hall.register(user, f"t-{user}")
        await hall.answer((user, f"t-{user}", DATED))


def test_a_death_arrives_signed(redis_url: str) -> None:
    async def scenario(hall: Hall, backend: Backend, sending: Sending) -> None:
        await deaths(hall, "ann")
        assert await sending.step() == 0
        (request,) = backend.got
        assert (request.method, request.url.host, request.headers["content-type"]) == (
            "POST", "backend.test", "application/json",
        )  # fmt: skip
        timestamp = request.headers["pushfleet-timestamp"]
        assert timestamp == str(NOW_MS // 1000)
        expected = hmac.new(SECRET.encode(), timestamp.encode() + b"." + request.content, hashlib.sha256).hexdigest()
        assert request.headers["pushfleet-signature"] == f"sha256={expected}"
        (body,) = backend.bodies
        assert (body["app"], body["deaths"][0]["user"], body["deaths"][0]["fate"]) == (APP, "ann", "dropped")
        assert set(body["deaths"][0]) == {
            "cursor", "id", "fate", "at_ms", "user", "device", "vendor", "credential", "kind", "token_fingerprint",
            "token_sha256", "code", "since_ms", "registered_at_ms",
        }  # fmt: skip
        assert "t-ann" not in request.content.decode()

    playing(redis_url, scenario)


def test_the_signature_is_that_of_timestamp_dot_body() -> None:
    # printf '1700000000.{}' | openssl dgst -sha256 -hmac key
    assert signature("key", "1700000000", b"{}") == "9d713ed406bb7076d4123f0dc2c39d2df5c654ed4b0cd56b52c8b4c940bd63ae"


def test_each_death_is_sent_once_and_in_order(redis_url: str) -> None:
    async def scenario(hall: Hall, backend: Backend, sending: Sending) -> None:
        await deaths(hall, "ann", "bob")
        await sending.step()
        assert await sending.step() > 0
        await deaths(hall, "eve")
        await sending.step()
        assert backend.users == [["ann", "bob"], ["eve"]]

    playing(redis_url, scenario)


def test_many_go_in_several_requests(redis_url: str) -> None:
    async def scenario(hall: Hall, backend: Backend, sending: Sending) -> None:
        await hall.deaths.report(APP, *ACCOUNT, [(f"t{number}", "x", None) for number in range(2 * DEATHS_MAX + 1)])
        while not await sending.step():
            pass
        assert [len(users) for users in backend.users] == [DEATHS_MAX, DEATHS_MAX, 1]

    playing(redis_url, scenario)


@pytest.mark.parametrize(
    "answer", [500, 429, 404, 301, 400, httpx.ConnectError("no route to pass-word"), httpx.ReadTimeout("x")]
)
def test_what_is_not_taken_is_sent_again_with_ever_longer_waits(
    redis_url: str, answer: int | Exception, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario(hall: Hall, backend: Backend, sending: Sending) -> None:
        await deaths(hall, "ann")
        backend.answers = [answer] * 12
        waits = [await sending.step() for _ in range(12)]
        for number, wait_s in enumerate(waits):
            most = min(300, 2**number)
            assert most / 2 <= wait_s <= most
        await deaths(hall, "bob")
        assert await sending.step() == 0
        assert backend.users == [["ann"]] * 12 + [["ann", "bob"]]
        backend.answers = [answer]
        await deaths(hall, "eve")
        assert await sending.step() <= 1, "the waits begin anew"

    with caplog.at_level(logging.DEBUG, logger="pushfleet_workers"):
        playing(redis_url, scenario)
    assert "did not take 1 deaths" in caplog.text
    assert "pass-word" not in caplog.text
    assert "t-ann" not in caplog.text


def test_requests_are_counted(redis_url: str) -> None:
    def count(result: str) -> float:
        return REGISTRY.get_sample_value("pushfleet_death_webhook_requests_total", {"app": APP, "result": result}) or 0

    async def scenario(hall: Hall, backend: Backend, sending: Sending) -> None:
        before = count("taken"), count("failed")
        await deaths(hall, "ann")
        backend.answers = [503]
        await sending.step()
        await sending.step()
        assert (count("taken"), count("failed")) == (before[0] + 1, before[1] + 1)

    playing(redis_url, scenario)


def test_another_process_goes_on_where_the_last_one_was(redis_url: str) -> None:
    async def scenario(hall: Hall, backend: Backend, sending: Sending) -> None:
        await deaths(hall, "ann")
        await sending.step()
        await deaths(hall, "bob")
        await Sending(hall, backend).step()
        assert backend.users == [["ann"], ["bob"]]

    playing(redis_url, scenario)


def test_only_who_holds_the_lease_sends(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pushfleet_workers.death_webhook._IDLE_S", 0.001)

    async def scenario(hall: Hall, backend: Backend, sending: Sending) -> None:
        monkeypatch.setattr("pushfleet_workers.death_webhook.httpx.AsyncClient", lambda **_: httpx_client(backend))
        await sending.lease.renew()
        other = Sending(hall, backend, Lease(hall.link, "lease"))
        assert not await other.lease.renew()
        await deaths(hall, "ann")
        idle = asyncio.create_task(other.webhook.run())
        await asyncio.sleep(0.02)
        assert backend.got == []
        busy = asyncio.create_task(sending.webhook.run())
        async with asyncio.timeout(8):
            while await hall.link.call("EXISTS", SENT) == 0:
                await asyncio.sleep(0.001)
        assert backend.users == [["ann"]]
        for task in (idle, busy):
            task.cancel()
        await asyncio.gather(idle, busy, return_exceptions=True)

    def httpx_client(backend: Backend, client: Any = httpx.AsyncClient) -> httpx.AsyncClient:
        made: httpx.AsyncClient = client(transport=httpx.MockTransport(backend))
        return made

    playing(redis_url, scenario)
