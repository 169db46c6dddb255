"""HarmonyOS and Honor through the fake cloud: pushes accepted and refused, tokens by reason, recalls, every code."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest

from pushfleet_workers import registry
from pushfleet_workers.fakecloud import FakeCloud
from pushfleet_workers.fakecloud.registry import VENDORS
from pushfleet_workers.outcome import Outcome, Verdict
from pushfleet_workers.push import Delivery, Push, delivery_id, shared_id
from pushfleet_workers.transports import ENGINES, Transport, TransportOptions, open_transport
from pushfleet_workers.vendor import Vendor

DEAD, GOOD, OTHER, POISON = (f"{number:064x}" for number in (1, 2, 3, 4))
SECRETS = {"harmony": "service_account_file", "honor": "client_secret_file"}
engines = pytest.mark.parametrize("engine", sorted(set(ENGINES) - {"aioapns"}))
vendors = pytest.mark.parametrize("name", sorted(SECRETS))


@dataclass
class Line:
    """A vendor module with an account and a connection to its fake."""

    cloud: FakeCloud
    vendor: Vendor
    account: Any
    transport: Transport
    auth: str = ""

    async def authorize(self) -> None:
        now_s = time.time()
        answer = self.vendor.mint(self.account, now_s)
        if answer is None:
            answer = self.vendor.read_auth(await self.transport.send(self.vendor.auth_request(self.account, now_s)))
        assert answer.failure is None
        self.auth = answer.value

    async def send(self, *tokens: str, recall: bool = False, **changes: Any) -> list[Outcome]:
        now_ms = int(time.time() * 1000)
        push = a_push(now_ms, recall=recall, **changes)
        deliveries = [Delivery(delivery_id("im", "m-1", "u", token), "u", token[-1], token, 0, 1) for token in tokens]
        make = self.vendor.withdraw if recall else self.vendor.build
        request = make(self.account, push, deliveries, self.auth, now_ms)
        assert request is not None
        return self.vendor.read(deliveries, await self.transport.send(request))


def a_push(now_ms: int, **changes: Any) -> Push:
    push = Push("im", "m-1", "chat", "normal", "Li Lei", "八点见?", now_ms + 60_000, now_ms, 0, "c-1", "c-1", '{"x":1}')
    return msgspec.structs.replace(push, **changes)


@asynccontextmanager
async def line_to(name: str, engine: str = "httpx", **changes: Any) -> AsyncIterator[Line]:
    async with FakeCloud(vendors=[name]) as cloud:
        vendor, credential = registry.load(name), cloud.credential(name)
        known = vendor.account_type.model_fields
        fields: dict[str, Any] = {field: value for field, value in credential.settings.items() if field in known}
        fields |= {"app": "im", "base_url": cloud.url(name), SECRETS[name]: credential.file}
        fields |= {"auth_url": f"{cloud.url(name)}/auth/token", **changes}
        options = TransportOptions(http2=vendor.http2, timeout_s=5, ca_bundle=cloud.ca_file)
        line = Line(cloud, vendor, vendor.account_type.model_validate(fields), open_transport(engine, options))
        try:
            await line.authorize()
            yield line
        finally:
            await line.transport.close()


def verdicts(outcomes: list[Outcome]) -> list[Verdict]:
    return [outcome.verdict for outcome in outcomes]


@engines
@vendors
async def test_what_the_engine_brings_is_what_the_vendor_can_read(engine: str, name: str) -> None:
    async with line_to(name, engine) as line:
        line.cloud.kill(name, DEAD)
        assert verdicts(await line.send(GOOD, DEAD)) == [Verdict.OK, Verdict.DROP_TOKEN]
        assert verdicts(await line.send(DEAD)) == [Verdict.DROP_TOKEN]
        (received,) = line.cloud.received(name)
        assert (received.token, received.title, received.body) == (GOOD, "Li Lei", "八点见?")
        assert received.sent_id == shared_id(a_push(0)).hex()
        assert received.data == {"mid": "m-1", "cid": "c-1", "ext": '{"x":1}'}
        line.cloud.rule(name, "throttle", token=GOOD, status=503 if name == "harmony" else 429, retry_after_s=7)
        (busy,) = await line.send(GOOD)
        assert (busy.verdict, busy.wait_s) == (Verdict.RATE_LIMITED, 7.0)


@vendors
async def test_a_worn_out_authorization_is_renewed(name: str) -> None:
    async with line_to(name) as line:
        assert verdicts(await line.send(GOOD)) == [Verdict.OK]
        line.cloud.expire_auth(name)
        assert verdicts(await line.send(GOOD)) == [Verdict.REFRESH_AUTH]
        await line.authorize()
        assert verdicts(await line.send(GOOD)) == [Verdict.OK]


def row_of(vendor: Vendor, code: str) -> Outcome:
    """What the table says of a code that the fake was told to answer with."""
    honors = {"80100003": "8xxxxxxx", "80200001": "802xxxxx", "99999": "other codes"}
    stand_ins = {"harmony": {"503": "HTTP 503"}, "honor": honors}
    return vendor.codes[stand_ins[vendor.name].get(code, code)].outcome


@vendors
async def test_every_code_of_the_fake_arrives_as_its_row(name: str) -> None:
    async with line_to(name) as line:
        # Errors of the token endpoint are no answer to a push.
        for code in sorted(VENDORS[name].refusals - {"invalid_client", "unauthorized_client", "invalid_grant"}):
            number = line.cloud.rule(name, "refuse", token=POISON, code=code)
            expected = row_of(line.vendor, code)
            for outcome in await line.send(POISON, GOOD):
                assert (outcome.verdict, outcome.scope, outcome.remedy) == (
                    expected.verdict,
                    expected.scope,
                    expected.remedy,
                ), code
            line.cloud.clear_rules(name, number)
        assert line.cloud.received(name) == []


@pytest.mark.parametrize("error", ["invalid_client", "unauthorized_client", "invalid_grant", "503"])
async def test_a_refused_grant_says_whose_fault_it_is(error: str) -> None:
    async with line_to("honor") as line:
        line.cloud.rule("honor", "refuse", endpoint="auth", code=error)
        request = line.vendor.auth_request(line.account, time.time())
        answer = line.vendor.read_auth(await line.transport.send(request))
        assert answer.failure is not None
        assert answer.failure.verdict is (Verdict.RETRY if error == "503" else Verdict.MISCONFIGURED)


async def test_a_recall_reaches_huawei_with_the_number_of_the_push() -> None:
    async with line_to("harmony") as line:
        line.cloud.kill("harmony", DEAD, code="noRight")
        assert verdicts(await line.send(GOOD, OTHER)) == [Verdict.OK, Verdict.OK]
        assert verdicts(await line.send(GOOD, OTHER, recall=True, revision=1)) == [Verdict.OK, Verdict.OK]
        assert verdicts(await line.send(GOOD, DEAD, recall=True, revision=1)) == [Verdict.OK, Verdict.DROP_TOKEN]
        line.cloud.rule("harmony", "refuse", endpoint="withdraw", code="80300032")
        (refused,) = await line.send(GOOD, recall=True, revision=1)
        assert (refused.verdict, refused.code) == (Verdict.MISCONFIGURED, "80300032")
        results = line.cloud.stats()["vendors"]["harmony"]["results"]
        assert results == {"accepted": 1, "withdrawn": 1, "80100020": 1, "80300032": 1}


async def test_a_recall_for_another_client_is_refused() -> None:
    async with line_to("harmony", client_id="other") as line:
        (refused,) = await line.send(GOOD, recall=True, revision=1)
        assert (refused.verdict, refused.code) == (Verdict.MISCONFIGURED, "80300028")


async def test_a_call_rings_inside_the_app() -> None:
    async with line_to("harmony", kinds={"call": {"push_type": 10}}) as line:
        assert verdicts(await line.send(GOOD, kind="call")) == [Verdict.OK]
        (received,) = line.cloud.received("harmony")
        assert (received.title, received.data["kind"], received.replace_key) == ("Li Lei", "call", "")
        line.cloud.rule("harmony", "refuse", code="noPushTypeRight")
        assert verdicts(await line.send(GOOD, kind="call")) == [Verdict.MISCONFIGURED]


async def test_a_development_account_takes_ten_tokens_at_a_time() -> None:
    async with line_to("harmony", environment="development") as line:
        tokens = [f"{number:064x}" for number in range(11)]
        (refused,) = set(await line.send(*tokens))
        assert (refused.code, refused.remedy) == ("80300030", "single_send")
        assert set(verdicts(await line.send(*tokens[:10]))) == {Verdict.OK}
