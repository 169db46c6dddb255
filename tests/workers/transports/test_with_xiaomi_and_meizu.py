"""Xiaomi and Meizu through the fake cloud: a batch settled by token, refusals, secrets that are wrong or renewed."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.workers.vendors.samples import HERE

from pushfleet_workers import registry
from pushfleet_workers.fakecloud import FakeCloud
from pushfleet_workers.outcome import Outcome, Scope, Verdict
from pushfleet_workers.push import Delivery, Push, delivery_id
from pushfleet_workers.transports import ENGINES, Transport, TransportOptions, open_transport

GOOD, DEAD, POISON = (f"{number:064x}" for number in (1, 2, 3))
BODY = "八点见? 👍🏽"
REFUSALS = {
    "xiaomi": [
        ("27001", Verdict.MISCONFIGURED, Scope.CLASS),
        ("200001", Verdict.QUOTA_EXHAUSTED, Scope.CLASS),
        ("10002", Verdict.RETRY, Scope.ACCOUNT),
    ],
    "meizu": [
        ("110010", Verdict.RATE_LIMITED, Scope.ACCOUNT),
        ("value 110010", Verdict.MUTE_DEVICE, Scope.DEVICE),
        ("value 520", Verdict.RETRY_AFTER, Scope.DEVICE),
    ],
}


def account_of(cloud: FakeCloud, vendor: str, **changes: Any) -> Any:
    credential = cloud.credential(vendor)
    fields: dict[str, Any] = {"app": "im", "base_url": cloud.url(vendor), "app_secret_file": credential.file}
    fields |= credential.settings
    if vendor == "xiaomi":
        fields["kinds"] = json.loads((HERE / "accounts" / "xiaomi.json").read_text(encoding="utf-8"))["kinds"]
    return registry.load(vendor).account_type.model_validate(fields | changes)


@asynccontextmanager
async def opened(engine: str, cloud: FakeCloud) -> AsyncIterator[Transport]:
    transport = open_transport(engine, TransportOptions(http2=False, timeout_s=5, ca_bundle=cloud.ca_file))
    try:
        yield transport
    finally:
        await transport.close()


def a_push(**changes: Any) -> Push:
    now_ms = int(time.time() * 1000)
    fields = {
        "app": "im",
        "message_id": "m-1",
        "kind": "chat",
        "lane": "normal",
        "title": "Li Lei",
        "body": BODY,
        "expires_at_ms": now_ms + 60_000,
        "sent_at_ms": now_ms,
        "enqueued_at_ms": 0,
        "conversation_id": "c-1",
        "replace_key": "c-1",
        "ext": '{"a":"b"}',
        "sender_name": "Li Lei",
    }
    return Push(**fields | changes)


def deliveries_to(*tokens: str) -> list[Delivery]:
    return [Delivery(delivery_id("im", "m-1", "u", token), "u", "phone", token, 0) for token in tokens]


async def push_to(transport: Transport, vendor: str, account: Any, *tokens: str, **changes: Any) -> list[Outcome]:
    module, now_s = registry.load(vendor), time.time()
    minted = module.mint(account, now_s)
    assert minted is not None
    deliveries = deliveries_to(*tokens)
    request = module.build(account, a_push(**changes), deliveries, minted.value, int(now_s * 1000))
    return module.read(deliveries, await transport.send(request))


@pytest.mark.parametrize("vendor", sorted(REFUSALS))
@pytest.mark.parametrize("engine", sorted(set(ENGINES) - {"aioapns"}))
async def test_what_the_engine_brings_is_what_the_vendor_can_read(engine: str, vendor: str) -> None:
    async with FakeCloud(vendors=[vendor]) as cloud, opened(engine, cloud) as transport:
        account = account_of(cloud, vendor)
        assert registry.load(vendor).check(account, time.time()) == []
        cloud.kill(vendor, DEAD)
        outcomes = await push_to(transport, vendor, account, GOOD, DEAD)
        assert [outcome.verdict for outcome in outcomes] == [Verdict.OK, Verdict.DROP_TOKEN]
        (dead,) = await push_to(transport, vendor, account, DEAD)
        assert dead.verdict is Verdict.DROP_TOKEN
        for code, verdict, scope in REFUSALS[vendor]:
            cloud.rule(vendor, "refuse", token=POISON, code=code, times=1)
            (refused,) = await push_to(transport, vendor, account, POISON)
            assert (refused.verdict, refused.scope, refused.code) == (verdict, scope, code)
        (received,) = cloud.received(vendor)
        assert (received.token, received.title, received.body) == (GOOD, "Li Lei", BODY)
        assert (received.message_id, received.data["ext"]) == ("m-1", '{"a":"b"}')
        assert received.replace_key
        assert cloud.stats()["vendors"][vendor]["connections_total"] == 1


@pytest.mark.parametrize("vendor", sorted(REFUSALS))
@pytest.mark.parametrize(
    "kind", ["chat", "mention", "call", "call_cancel", "missed_call", "summary", "system", "marketing"]
)
async def test_every_kind_is_in_order_alone_and_in_groups(vendor: str, kind: str) -> None:
    async with FakeCloud(vendors=[vendor]) as cloud, opened("httpx", cloud) as transport:
        account = account_of(cloud, vendor)
        for group in (False, True):
            long = {"title": "家" * 60, "body": f"Li Lei: {BODY}" * 40, "ext": "x" * 2_048}
            for texts in ({}, long, {"title": "", "body": "👨‍👩‍👧‍👦", "sender_name": ""}):
                (outcome,) = await push_to(transport, vendor, account, GOOD, kind=kind, group=group, **texts)
                assert outcome.verdict is Verdict.OK, outcome


@pytest.mark.parametrize(("vendor", "code"), [("xiaomi", "21301"), ("meizu", "1006")])
async def test_a_secret_that_is_not_the_vendors_is_found_and_a_new_one_counts(
    vendor: str, code: str, tmp_path: Path
) -> None:
    async with FakeCloud(vendors=[vendor]) as cloud, opened("httpx", cloud) as transport:
        account = account_of(cloud, vendor)
        right = account.app_secret_file.read_text()
        (tmp_path / "secret").write_text("wrong")
        account = account.model_copy(update={"app_secret_file": tmp_path / "secret"})
        (refused,) = await push_to(transport, vendor, account, GOOD)
        assert (refused.verdict, refused.scope, refused.code) == (Verdict.MISCONFIGURED, Scope.ACCOUNT, code)
        (tmp_path / "secret").write_text(right)
        (accepted,) = await push_to(transport, vendor, account, GOOD)
        assert accepted.verdict is Verdict.OK


async def test_xiaomi_refuses_a_channel_that_it_does_not_know() -> None:
    async with FakeCloud(vendors=["xiaomi"]) as cloud, opened("httpx", cloud) as transport:
        for kinds in ({}, {"chat": {"channel_id": "999"}}, {"chat": {"channel_id": "100001", "template_id": "M00002"}}):
            (refused,) = await push_to(transport, "xiaomi", account_of(cloud, "xiaomi", kinds=kinds), GOOD)
            assert (refused.verdict, refused.scope, refused.code) == (Verdict.MISCONFIGURED, Scope.CLASS, "27001")


async def test_messages_of_their_own_go_to_xiaomi_in_one_request() -> None:
    async with FakeCloud(vendors=["xiaomi"]) as cloud, opened("httpx", cloud) as transport:
        account, module = account_of(cloud, "xiaomi", multi_messages=True), registry.load("xiaomi")
        assert module.mixes(account)
        cloud.kill("xiaomi", DEAD)
        minted = module.mint(account, time.time())
        assert minted is not None
        deliveries = deliveries_to(GOOD, DEAD, POISON)
        letters = [(a_push(message_id=f"m-{at}", body=f"Text {at}"), one) for at, one in enumerate(deliveries)]
        request = module.build_mixed(account, letters, minted.value, int(time.time() * 1000))
        outcomes = module.read(deliveries, await transport.send(request))
        # It does not say which token is dead.
        assert [outcome.verdict for outcome in outcomes] == [Verdict.OK] * 3
        assert [(one.token, one.body) for one in cloud.received("xiaomi")] == [(GOOD, "Text 0"), (POISON, "Text 2")]
        cloud.rule("xiaomi", "refuse", code="200001")
        outcomes = module.read(deliveries, await transport.send(request))
        assert {outcome.code for outcome in outcomes} == {"channel_exceed_quota"}
        assert outcomes[0].verdict is Verdict.QUOTA_EXHAUSTED
