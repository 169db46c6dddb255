"""OPPO and vivo through the fake cloud: signatures checked, batches settled by device, content stored ahead."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

import pytest

from pushfleet_workers import registry
from pushfleet_workers.clock import FleetClock
from pushfleet_workers.errors import NotInTime
from pushfleet_workers.exchange import Exchange
from pushfleet_workers.fakecloud import FakeCloud
from pushfleet_workers.outcome import Outcome, Remedy, Scope, Verdict
from pushfleet_workers.push import Delivery, Push, delivery_id
from pushfleet_workers.transports import ENGINES, Transport, TransportOptions, open_transport
from pushfleet_workers.vendor import Staged

DEAD, POISON, GOOD, OTHER = (f"{number:064x}" for number in (1, 2, 3, 4))
SECRETS = {"oppo": "master_secret_file", "vivo": "app_secret_file"}
REFUSALS = {"oppo": "67", "vivo": "10096"}


def account_of(cloud: FakeCloud, vendor: str, options: Any = (), **changes: Any) -> Any:
    credential = cloud.credential(vendor, **dict(options))
    fields = {"app": "im", "base_url": cloud.url(vendor), SECRETS[vendor]: credential.file, **credential.settings}
    return registry.load(vendor).account_type.model_validate(fields | changes)


def opened(cloud: FakeCloud, engine: str = "httpx") -> Transport:
    return open_transport(engine, TransportOptions(http2=False, timeout_s=5, ca_bundle=cloud.ca_file))


async def auth_token(transport: Transport, vendor: str, account: Any) -> str:
    module = registry.load(vendor)
    answer = module.read_auth(await transport.send(module.auth_request(account, time.time())))
    assert answer.failure is None
    return answer.value


def a_push(number: int = 1, **changes: Any) -> Push:
    now_ms = int(time.time() * 1000)
    fields = {"title": "李雷", "body": "八点见?", "conversation_id": "c-1", "replace_key": "c-1", **changes}
    times = {"expires_at_ms": now_ms + 600_000, "sent_at_ms": now_ms, "enqueued_at_ms": 0}
    return Push(app="im", message_id=f"m-{number}", kind="chat", lane="normal", **times, **fields)


def to(tokens: Sequence[str], **changes: Any) -> list[Delivery]:
    return [Delivery(delivery_id("im", "m-1", "u", one), "u", "phone", one, 0, **changes) for one in tokens]


async def push_to(
    transport: Transport, vendor: str, account: Any, auth: str, deliveries: list[Delivery], push: Push | None = None
) -> list[Outcome]:
    module, now_ms, push = registry.load(vendor), int(time.time() * 1000), push or a_push()
    ahead = module.stage(account, push, deliveries, auth, now_ms)
    if ahead is None:
        request = module.build(account, push, deliveries, auth, now_ms)
    else:
        staged: Staged = module.read_staged(await transport.send(ahead))
        if staged.failure is not None:
            return [staged.failure] * len(deliveries)
        request = module.build_staged(account, push, deliveries, auth, now_ms, staged.value)
    return module.read(deliveries, await transport.send(request))


@pytest.mark.parametrize("vendor", sorted(SECRETS))
@pytest.mark.parametrize("engine", sorted(set(ENGINES) - {"aioapns"}))
async def test_what_the_engine_brings_is_what_the_vendor_can_read(engine: str, vendor: str) -> None:
    async with FakeCloud(vendors=[vendor]) as cloud:
        account = account_of(cloud, vendor)
        cloud.kill(vendor, DEAD)
        cloud.rule(vendor, "refuse", token=POISON, code=REFUSALS[vendor])
        transport = opened(cloud, engine)
        try:
            auth = await auth_token(transport, vendor, account)
            for tokens in ([GOOD], [DEAD], [GOOD, DEAD, OTHER]):
                outcomes = await push_to(
                    transport, vendor, account, auth, to(tokens), a_push(len(tokens), revision=len(tokens))
                )
                expected = [Verdict.DROP_TOKEN if token == DEAD else Verdict.OK for token in tokens]
                assert [outcome.verdict for outcome in outcomes] == expected
            (refused,) = await push_to(transport, vendor, account, auth, to([POISON]))
            assert (refused.verdict, refused.scope) == (Verdict.MISCONFIGURED, Scope.CLASS)
            cloud.expire_auth(vendor)
            (stale,) = await push_to(transport, vendor, account, auth, to([GOOD]))
            assert stale.verdict is Verdict.REFRESH_AUTH
            received = cloud.received(vendor)
            assert [push.token for push in received] == [GOOD, GOOD, OTHER]
            assert {(push.title, push.body) for push in received} == {("李雷", "八点见?")}
            assert len({push.replace_key for push in received}) == 1
        finally:
            await transport.close()


@pytest.mark.parametrize(("vendor", "code"), [("oppo", "16"), ("vivo", "10000")])
async def test_a_wrong_secret_signs_nothing(vendor: str, code: str) -> None:
    module = registry.load(vendor)
    async with FakeCloud(vendors=[vendor]) as cloud:
        secret = SECRETS[vendor].removesuffix("_file")
        account = account_of(cloud, vendor, **{SECRETS[vendor]: None, secret: "wrong"})
        transport = opened(cloud)
        try:
            answer = module.read_auth(await transport.send(module.auth_request(account, time.time())))
            assert answer.failure == Outcome(Verdict.MISCONFIGURED, Scope.ACCOUNT, code)
        finally:
            await transport.close()


async def test_oppo_takes_different_chats_in_one_request_and_a_repeat_once() -> None:
    oppo = registry.load("oppo")
    async with FakeCloud(vendors=["oppo"]) as cloud:
        account = account_of(cloud, "oppo")
        cloud.kill("oppo", DEAD)
        transport = opened(cloud)
        try:
            auth = await auth_token(transport, "oppo", account)
            deliveries = to([GOOD, DEAD, OTHER])
            letters = [(a_push(number, title=f"会话 {number}"), one) for number, one in enumerate(deliveries)]

            async def send() -> list[Verdict]:
                request = oppo.build_mixed(account, letters, auth, int(time.time() * 1000))
                return [outcome.verdict for outcome in oppo.read(deliveries, await transport.send(request))]

            assert await send() == [Verdict.OK, Verdict.DROP_TOKEN, Verdict.OK]
            for delivery in deliveries:
                delivery.unknown += 1
            assert await send() == [Verdict.OK, Verdict.DROP_TOKEN, Verdict.OK]
            assert [(push.token, push.title) for push in cloud.received("oppo")] == [
                (GOOD, "会话 0"),
                (OTHER, "会话 2"),
            ]
            assert cloud.stats()["vendors"]["oppo"]["requests"] == 3
        finally:
            await transport.close()


async def test_vivo_shows_a_neutral_text_where_it_refuses_ours() -> None:
    async with FakeCloud(vendors=["vivo"]) as cloud:
        account = account_of(cloud, "vivo")
        transport = opened(cloud)
        try:
            auth = await auth_token(transport, "vivo", account)
            for tokens in ([GOOD], [GOOD, OTHER]):
                outcomes = await push_to(transport, "vivo", account, auth, to(tokens), a_push(body="123"))
                assert outcomes == [Outcome(Verdict.BAD_PAYLOAD, code="10085", remedy=Remedy.NEUTRAL_TEXT)] * len(
                    tokens
                )
                mended = await push_to(
                    transport, "vivo", account, auth, to(tokens, remedy="neutral_text"), a_push(body="123")
                )
                assert [outcome.verdict for outcome in mended] == [Verdict.OK] * len(tokens)
            (bracketed,) = await push_to(transport, "vivo", account, auth, to([GOOD]), a_push(body="[图片]"))
            assert bracketed.verdict is Verdict.OK
            assert [push.body for push in cloud.received("vivo")] == ["您有一条新消息"] * 3 + ["图片"]
        finally:
            await transport.close()


async def test_vivo_sends_one_by_one_when_it_stores_nothing_more() -> None:
    async with FakeCloud(vendors=["vivo"]) as cloud:
        account = account_of(cloud, "vivo")
        cloud.rule("vivo", "refuse", endpoint="stage", code="10252")
        transport = opened(cloud)
        try:
            auth = await auth_token(transport, "vivo", account)
            outcomes = await push_to(transport, "vivo", account, auth, to([GOOD, OTHER]))
            assert {outcome.remedy for outcome in outcomes} == {Remedy.SINGLE_SEND}
            for delivery in to([GOOD, OTHER], remedy="single_send"):
                (outcome,) = await push_to(transport, "vivo", account, auth, [delivery])
                assert outcome.verdict is Verdict.OK
        finally:
            await transport.close()


async def test_what_expires_while_vivo_stores_its_content_is_not_sent() -> None:
    async with FakeCloud(vendors=["vivo"]) as cloud:
        account = account_of(cloud, "vivo")
        cloud.rule("vivo", "answer", endpoint="stage", delay_s=0.3)
        transport = opened(cloud)
        try:
            auth = await auth_token(transport, "vivo", account)
            exchange = Exchange(registry.load("vivo"), account, transport, FleetClock(), lambda _: None)
            with pytest.raises(NotInTime) as late:
                await exchange([(a_push(), to([GOOD, OTHER]))], auth, time.monotonic() + 0.2)
            assert not late.value.maybe_delivered
            assert cloud.stats()["vendors"]["vivo"]["requests"] == 2, "authorization and content, no targets"
            assert cloud.received("vivo") == []
            (outcomes,) = await exchange([(a_push(), to([GOOD, OTHER]))], auth, time.monotonic() + 60)
            assert [outcome.verdict for outcome in outcomes] == [Verdict.OK] * 2, "the content is known by then"
        finally:
            await transport.close()


async def test_what_is_held_back_while_vivo_stores_its_content_is_not_sent() -> None:
    async with FakeCloud(vendors=["vivo"]) as cloud:
        account = account_of(cloud, "vivo")
        cloud.rule("vivo", "answer", endpoint="stage", delay_s=0.3)
        transport = opened(cloud)
        try:
            auth = await auth_token(transport, "vivo", account)
            exchange = Exchange(registry.load("vivo"), account, transport, FleetClock(), lambda _: None)
            sending = asyncio.create_task(exchange([(a_push(), to([GOOD, OTHER]))], auth))
            await asyncio.sleep(0.1)
            exchange.hold_back()
            with pytest.raises(NotInTime) as held_back:
                await sending
            assert not held_back.value.maybe_delivered
            assert cloud.received("vivo") == []
            (outcomes,) = await exchange([(a_push(), to([GOOD, OTHER]))], auth)
            assert [outcome.verdict for outcome in outcomes] == [Verdict.OK] * 2
        finally:
            await transport.close()


async def test_vivo_tests_on_test_devices_only() -> None:
    async with FakeCloud(vendors=["vivo"]) as cloud:
        account = account_of(cloud, "vivo", {"test_devices": (GOOD,)}, environment="development")
        transport = opened(cloud)
        try:
            auth = await auth_token(transport, "vivo", account)
            for tokens in ([GOOD], [OTHER], [GOOD, OTHER]):
                outcomes = await push_to(transport, "vivo", account, auth, to(tokens))
                expected = [Verdict.OK if token == GOOD else Verdict.MISCONFIGURED for token in tokens]
                assert [outcome.verdict for outcome in outcomes] == expected
                assert {outcome.scope for outcome in outcomes} == {Scope.DEVICE}
            assert [push.token for push in cloud.received("vivo")] == [GOOD, GOOD]
        finally:
            await transport.close()
