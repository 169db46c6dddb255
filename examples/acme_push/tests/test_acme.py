"""What only acme does; what holds for every vendor is in the contract suite."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from acme_push.vendor import Acme, AcmeAccount

from pushfleet_workers import registry
from pushfleet_workers.fakecloud import FakeCloud
from pushfleet_workers.outcome import Outcome, Remedy, Scope, Verdict
from pushfleet_workers.push import Delivery, Push, delivery_id
from pushfleet_workers.transports import Transport, TransportOptions, open_transport
from pushfleet_workers.vendor import Response

KINDS = {"chat": {"template": "message"}}


def a_push(**changes: Any) -> Push:
    now_ms = int(time.time() * 1_000)
    fields: dict[str, Any] = {
        "app": "im",
        "message_id": "m-1",
        "kind": "chat",
        "lane": "normal",
        "title": "Li Lei",
        "body": "See you at 8?",
        "expires_at_ms": now_ms + 60_000,
        "sent_at_ms": now_ms,
        "enqueued_at_ms": 0,
    }
    return Push(**fields | changes)


def deliveries_to(*tokens: str) -> list[Delivery]:
    return [Delivery(delivery_id("im", "m-1", "u", token), "u", "phone", token, 0) for token in tokens]


def an_account(**changes: Any) -> AcmeAccount:
    return AcmeAccount.model_validate(
        {"app": "im", "client_id": "acme-demo", "client_secret": "s", "kinds": KINDS} | changes
    )


@dataclass
class Line:
    """An account at the fake cloud."""

    cloud: FakeCloud
    account: AcmeAccount
    transport: Transport
    vendor: Acme

    async def auth(self) -> str:
        answer = self.vendor.read_auth(await self.transport.send(self.vendor.auth_request(self.account, time.time())))
        return answer.value

    async def push(self, auth: str, *tokens: str, **changes: Any) -> list[Outcome]:
        deliveries = deliveries_to(*tokens)
        request = self.vendor.build(self.account, a_push(**changes), deliveries, auth, int(time.time() * 1_000))
        return self.vendor.read(deliveries, await self.transport.send(request))


@asynccontextmanager
async def at_the_fake(**changes: Any) -> AsyncIterator[Line]:
    async with FakeCloud(vendors=["acme"]) as cloud:
        issued = cloud.credential("acme")
        secret = {"client_secret": None, "client_secret_file": issued.file}
        account = an_account(base_url=cloud.url("acme"), **issued.settings, **secret, **changes)
        transport = open_transport("httpx", TransportOptions(ca_bundle=cloud.ca_file, timeout_s=5))
        try:
            yield Line(cloud, account, transport, Acme())
        finally:
            await transport.close()


def test_acme_is_found_by_its_entry_point() -> None:
    assert type(registry.load("acme")).__name__ == "Acme"
    assert "acme" not in registry.built_in()


def test_acme_takes_a_push_and_names_its_dead_tokens() -> None:
    async def main() -> None:
        async with at_the_fake() as line:
            line.cloud.kill("acme", "t-2")
            taken, dead = await line.push(await line.auth(), "t-1", "t-2")
            assert (taken.verdict, dead.verdict, dead.code) == (Verdict.OK, Verdict.DROP_TOKEN, "gone")
            (received,) = line.cloud.received("acme")
            assert (received.token, received.title, received.data) == ("t-1", "Li Lei", {"mid": "m-1"})

    asyncio.run(main())


def test_acme_refuses_what_it_does_not_know() -> None:
    async def main() -> None:
        async with at_the_fake(kinds={"chat": {"template": "unknown"}}) as line:
            auth = await line.auth()
            (refused,) = await line.push(auth, "t-1")
            assert (refused.verdict, refused.scope) == (Verdict.MISCONFIGURED, Scope.CLASS)
            (notice,) = await line.push(auth, "t-1", kind="system")
            assert notice.verdict is Verdict.OK
            line.cloud.expire_auth("acme")
            (refused,) = await line.push(auth, "t-1", kind="system")
            assert refused.verdict is Verdict.REFRESH_AUTH

    asyncio.run(main())


@pytest.mark.parametrize("code", sorted({"bad_request", "too_large", "wrong_template", "too_fast", "gone", "muted"}))
def test_acme_means_by_a_code_what_the_table_says(code: str) -> None:
    async def main() -> None:
        async with at_the_fake() as line:
            line.cloud.rule("acme", "refuse", code=code)
            (outcome,) = await line.push(await line.auth(), "t-1")
            assert outcome == Acme.codes[code].outcome

    asyncio.run(main())


def test_acme_is_asked_again_for_a_token_with_a_code_that_it_does_not_tell() -> None:
    body = json.dumps({"code": 0, "failed": {"t-1": "asleep", "t-2": ["?"]}}).encode()
    outcomes = Acme().read(deliveries_to("t-1", "t-2", "t-3"), Response(200, {}, body))
    assert [(one.verdict, one.code) for one in outcomes] == [
        (Verdict.RETRY, "asleep"),
        (Verdict.RETRY, ""),
        (Verdict.OK, ""),
    ]


def test_acme_has_a_remedy_for_what_is_too_large() -> None:
    (outcome,) = Acme().read(deliveries_to("t-1"), Response(400, {}, b'{"code":"too_large"}'))
    assert outcome.remedy is Remedy.SHRINK


def test_acme_wants_a_template_for_whatever_rings() -> None:
    assert Acme().check(an_account(), 0) == []
    (problem,) = Acme().check(an_account(kinds={}), 0)
    assert problem.startswith("kinds: chat, mention, call, call_cancel, missed_call, summary without a template")
    (problem,) = Acme().check(an_account(client_secret=None), 0)
    assert "client_secret" in problem
