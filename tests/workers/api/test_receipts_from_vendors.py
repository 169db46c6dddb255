"""A push goes to the fake cloud, its receipt comes back to the API: real sockets both ways, for every vendor."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from tests.workers.api.receipts_support import KEY, Receipts, receiving
from tests.workers.receipts.samples import TOKEN
from tests.workers.vendors.samples import HERE

from pushfleet_workers import registry
from pushfleet_workers.fakecloud import Console, FakeCloud
from pushfleet_workers.outcome import Verdict
from pushfleet_workers.push import Delivery, Push, delivery_id
from pushfleet_workers.receipts import READERS, Event
from pushfleet_workers.transports import Transport, TransportOptions, open_transport
from pushfleet_workers.vendors._receipts import ReceiptAccount

FILES = {
    "huawei": "client_secret_file",
    "harmony": "service_account_file",
    "honor": "client_secret_file",
    "xiaomi": "app_secret_file",
    "oppo": "master_secret_file",
    "vivo": "app_secret_file",
    "meizu": "app_secret_file",
}
SIGNED = {
    "huawei": {"receipt_user": "fleet", "receipt_secret": "c2VjcmV0LW9mLWh1YXdlaQ=="},
    "harmony": {"receipt_user": "fleet", "receipt_secret": "secret of old", "receipt_secret_is_text": True},
    "meizu": {"receipt_token": "token of the console"},
}
CONSOLES = {
    "huawei": {"user": "fleet", "secret": "c2VjcmV0LW9mLWh1YXdlaQ=="},
    "harmony": {"user": "fleet", "secret": "secret of old", "secret_is_text": True},
    "meizu": {"access_token": "token of the console"},
}
BATCHES = [("xiaomi", 3), ("oppo", 3), ("meizu", 3), ("huawei", 3), ("vivo", 3)]


def account_of(cloud: FakeCloud, vendor: str, stage: Receipts, **changes: Any) -> ReceiptAccount:
    """An account of the fake's, with receipts to the API of *stage*, which is told of it."""
    credential, account_type = cloud.credential(vendor), registry.load(vendor).account_type
    fields: dict[str, Any] = {
        "app": "demo",
        "base_url": cloud.url(vendor),
        FILES[vendor]: credential.file,
        "receipt_url": f"{str(stage.client.base_url).rstrip('/')}/v1/receipts/{vendor}/main",
        "receipt_key": KEY,
        **SIGNED.get(vendor, {}),
        **{name: value for name, value in credential.settings.items() if name in account_type.model_fields},
    }
    if vendor in ("huawei", "honor"):
        paths = {"huawei": "/oauth2/v3/token", "honor": "/auth/token"}
        fields["auth_url"] = cloud.url(vendor) + paths[vendor]
    if vendor == "xiaomi":
        fields["kinds"] = json.loads((HERE / "accounts" / "xiaomi.json").read_text(encoding="utf-8"))["kinds"]
    account = account_type.model_validate(fields | changes)
    assert isinstance(account, ReceiptAccount)
    stage.settings.accounts[vendor]["main"] = account
    return account


def console_of(vendor: str, stage: Receipts, **changes: Any) -> Console:
    address = f"{str(stage.client.base_url).rstrip('/')}{stage.path(vendor)}"
    return Console(**{"url": address, **CONSOLES.get(vendor, {}), **changes})


async def push_to(transport: Transport, vendor: str, account: Any, *tokens: str, **changes: Any) -> None:
    module, now_ms = registry.load(vendor), int(time.time() * 1000)
    minted = module.mint(account, now_ms / 1000)
    if minted is None:
        minted = module.read_auth(await transport.send(module.auth_request(account, now_ms / 1000)))
    times = {"expires_at_ms": now_ms + 600_000, "sent_at_ms": now_ms, "enqueued_at_ms": 0}
    fields = {"message_id": "m-1", "kind": "chat", "lane": "normal", "title": "Li Lei", "body": "八点见?", **times}
    push = Push(app="demo", **fields | changes)
    deliveries = [Delivery(delivery_id("demo", push.message_id, "ann", one), "ann", "phone", one, 0) for one in tokens]
    ahead = module.stage(account, push, deliveries, minted.value, now_ms)
    if ahead is None:
        request = module.build(account, push, deliveries, minted.value, now_ms)
    else:
        staged = module.read_staged(await transport.send(ahead))
        request = module.build_staged(account, push, deliveries, minted.value, now_ms, staged.value)
    outcomes = module.read(deliveries, await transport.send(request))
    assert {outcome.verdict for outcome in outcomes} == {Verdict.OK}


def both(redis_url: str, vendor: str, scenario: Any, **changes: Any) -> None:
    async def run(stage: Receipts) -> None:
        stage.now_ms = int(time.time() * 1000) + 2_000
        async with FakeCloud(vendors=[vendor]) as cloud:
            account = account_of(cloud, vendor, stage, **changes)
            options = TransportOptions(http2=False, timeout_s=5, ca_bundle=cloud.ca_file)
            transport = open_transport("httpx", options)
            try:
                await stage.register(vendor, at_ms=stage.now_ms - 60_000)
                await scenario(stage, cloud, transport, account)
            finally:
                await transport.close()

    receiving(redis_url, run)


@pytest.mark.parametrize("vendor", sorted(READERS))
def test_what_becomes_of_a_push_comes_back(redis_url: str, vendor: str) -> None:
    async def scenario(stage: Receipts, cloud: FakeCloud, transport: Transport, account: Any) -> None:
        await push_to(transport, vendor, account, TOKEN)
        console = console_of(vendor, stage)
        answers = await cloud.send_receipts(vendor, console=console, times=3)
        acknowledgement, _ = READERS[vendor].acknowledgement
        assert [(answer.status, answer.body.encode()) for answer in answers] == [(200, acknowledgement)] * 3
        (entry,) = await stage.recorded()
        assert (entry["event"], entry["mid"], entry["user"]) == ("delivered", "m-1", "ann")
        codes = {row.event: code for code, row in READERS[vendor].codes.items()}
        for event in (Event.CLICKED, Event.QUOTA, Event.MUTED, Event.DEAD):
            if event in codes:
                (answer,) = await cloud.send_receipts(vendor, codes[event], console=console)
                assert answer.status == 200
        phone = await stage.phone()
        assert phone.permitted == (Event.MUTED not in codes)
        assert [channel.token for channel in phone.channels] == ([] if Event.DEAD in codes else [TOKEN])

    both(redis_url, vendor, scenario)


@pytest.mark.parametrize("vendor", sorted(SIGNED))
def test_a_console_that_was_told_otherwise_is_refused(redis_url: str, vendor: str) -> None:
    async def scenario(stage: Receipts, cloud: FakeCloud, transport: Transport, account: Any) -> None:
        await push_to(transport, vendor, account, TOKEN)
        wrong = {"access_token": "wrong"} if vendor == "meizu" else {"secret": "d3Jvbmc="}
        for changes in (wrong, {"user": "", "secret": "", "access_token": ""}):
            (answer,) = await cloud.send_receipts(vendor, console=console_of(vendor, stage, **changes))
            assert answer.status == 401
        assert await stage.recorded() == []

    both(redis_url, vendor, scenario)


@pytest.mark.parametrize(("vendor", "count"), BATCHES)
def test_each_device_of_a_batch_has_its_receipt(redis_url: str, vendor: str, count: int) -> None:
    async def scenario(stage: Receipts, cloud: FakeCloud, transport: Transport, account: Any) -> None:
        await push_to(transport, vendor, account, *(f"{number:064x}" for number in range(1, count + 1)))
        (answer,) = await cloud.send_receipts(vendor, console=console_of(vendor, stage))
        assert answer.status == 200
        assert await stage.counts() == {f"{vendor}:main:delivered": count}

    # vivo has receipts of lists by the id of an address that its console knows.
    both(redis_url, vendor, scenario, **({"receipt_id": "77"} if vendor == "vivo" else {}))


def test_an_account_without_an_address_asks_for_none(redis_url: str) -> None:
    async def scenario(stage: Receipts, cloud: FakeCloud, transport: Transport, account: Any) -> None:
        await push_to(transport, "xiaomi", account, TOKEN)
        assert await cloud.send_receipts("xiaomi") == []

    both(redis_url, "xiaomi", scenario, receipt_url="", receipt_key=None)


def test_ids_of_any_script_come_back_as_their_digest(redis_url: str) -> None:
    async def scenario(stage: Receipts, cloud: FakeCloud, transport: Transport, account: Any) -> None:
        await push_to(transport, "oppo", account, TOKEN, message_id="消息-1")
        await cloud.send_receipts("oppo")
        (entry,) = await stage.recorded()
        # printf 消息-1 | sha256sum | head -c 32
        assert (entry["mid"], entry["mid_sha256"]) == ("", "bd034ec02886fa47966f4397260c0482")

    both(redis_url, "oppo", scenario)
