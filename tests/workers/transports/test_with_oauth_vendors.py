"""FCM and Huawei through the fake cloud: access tokens fetched, pushes accepted and refused, tokens that are dead."""

from __future__ import annotations

import time
from typing import Any

import pytest

from pushfleet_workers import registry
from pushfleet_workers.fakecloud import FakeCloud
from pushfleet_workers.outcome import Outcome, Scope, Verdict
from pushfleet_workers.push import Delivery, Push, delivery_id
from pushfleet_workers.transports import ENGINES, Transport, TransportOptions, open_transport

DEAD, POISON, GOOD = (f"{number:064x}" for number in (1, 2, 3))
SECRETS = {"fcm": "service_account_file", "huawei": "client_secret_file"}
REFUSALS = {
    "fcm": ("DEVICE_QUOTA_EXCEEDED", Verdict.RATE_LIMITED, Scope.DEVICE),
    "huawei": ("80300011", Verdict.MISCONFIGURED, Scope.CLASS),
}


def account_of(cloud: FakeCloud, vendor: str, **changes: Any) -> Any:
    credential = cloud.credential(vendor)
    known = registry.load(vendor).account_type.model_fields
    fields: dict[str, Any] = {name: value for name, value in credential.settings.items() if name in known}
    fields |= {"app": "im", "base_url": cloud.url(vendor), SECRETS[vendor]: credential.file}
    if vendor == "huawei":
        fields["auth_url"] = f"{cloud.url(vendor)}/oauth2/v3/token"
    return registry.load(vendor).account_type.model_validate(fields | changes)


async def access_token(transport: Transport, vendor: str, account: Any) -> str:
    module = registry.load(vendor)
    answer = module.read_auth(await transport.send(module.auth_request(account, time.time())))
    assert answer.failure is None
    return answer.value


async def push_to(transport: Transport, vendor: str, account: Any, auth: str, *tokens: str) -> list[Outcome]:
    module, now_ms = registry.load(vendor), int(time.time() * 1000)
    push = Push("im", "m-1", "chat", "normal", "Li Lei", "八点见?", now_ms + 60_000, now_ms, 0, "c-1", "c-1")
    deliveries = [Delivery(delivery_id("im", "m-1", "u", token), "u", "phone", token, 0) for token in tokens]
    response = await transport.send(module.build(account, push, deliveries, auth, now_ms))
    return module.read(deliveries, response)


@pytest.mark.parametrize("vendor", sorted(SECRETS))
@pytest.mark.parametrize("engine", sorted(set(ENGINES) - {"aioapns"}))
async def test_what_the_engine_brings_is_what_the_vendor_can_read(engine: str, vendor: str) -> None:
    async with FakeCloud(vendors=[vendor]) as cloud:
        account = account_of(cloud, vendor)
        code, verdict, scope = REFUSALS[vendor]
        cloud.kill(vendor, DEAD)
        cloud.rule(vendor, "refuse", token=POISON, code=code)
        options = TransportOptions(http2=registry.load(vendor).http2, timeout_s=5, ca_bundle=cloud.ca_file)
        transport = open_transport(engine, options)
        try:
            auth = await access_token(transport, vendor, account)
            (accepted,) = await push_to(transport, vendor, account, auth, GOOD)
            assert accepted.verdict is Verdict.OK
            (dead,) = await push_to(transport, vendor, account, auth, DEAD)
            assert dead.verdict is Verdict.DROP_TOKEN
            (refused,) = await push_to(transport, vendor, account, auth, POISON)
            assert (refused.verdict, refused.scope) == (verdict, scope)
            cloud.expire_auth(vendor)
            (stale,) = await push_to(transport, vendor, account, auth, GOOD)
            assert stale.verdict is Verdict.REFRESH_AUTH
            (received,) = cloud.received(vendor)
            assert (received.title, received.body, received.replace_key) == shown(vendor)
        finally:
            await transport.close()


def shown(vendor: str) -> tuple[str, str, str]:
    # In FCM's data form texts and tag are the app's: the vendor's own fields stay empty.
    return ("", "", "") if vendor == "fcm" else ("Li Lei", "八点见?", "c-1")


async def test_a_huawei_batch_is_settled_by_token_and_by_project() -> None:
    async with FakeCloud(vendors=["huawei"]) as cloud:
        cloud.kill("huawei", DEAD)
        account = account_of(cloud, "huawei")
        assert account.project_id
        transport = open_transport("httpx", TransportOptions(http2=False, timeout_s=5, ca_bundle=cloud.ca_file))
        try:
            for told in (account, account.model_copy(update={"project_id": ""})):
                auth = await access_token(transport, "huawei", told)
                outcomes = await push_to(transport, "huawei", told, auth, GOOD, DEAD)
                assert [outcome.verdict for outcome in outcomes] == [Verdict.OK, Verdict.DROP_TOKEN]
        finally:
            await transport.close()


async def test_a_development_account_of_fcm_delivers_nothing() -> None:
    async with FakeCloud(vendors=["fcm"]) as cloud:
        cloud.kill("fcm", DEAD)
        account = account_of(cloud, "fcm", environment="development")
        transport = open_transport("httpx", TransportOptions(http2=True, timeout_s=5, ca_bundle=cloud.ca_file))
        try:
            auth = await access_token(transport, "fcm", account)
            (checked,) = await push_to(transport, "fcm", account, auth, GOOD)
            (dead,) = await push_to(transport, "fcm", account, auth, DEAD)
            assert (checked.verdict, dead.verdict) == (Verdict.OK, Verdict.DROP_TOKEN)
            assert cloud.received("fcm") == []
        finally:
            await transport.close()
