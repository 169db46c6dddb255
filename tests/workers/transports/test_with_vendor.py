"""A vendor module, an engine and the fake cloud together: what the engine brings is what the vendor can read."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.workers.vendors.apple_certificates import make

from pushfleet_workers.errors import NoAnswer
from pushfleet_workers.fakecloud import Credential, FakeCloud
from pushfleet_workers.fakecloud.apns import Apns as FakeApns
from pushfleet_workers.outcome import Outcome, Verdict
from pushfleet_workers.push import Delivery, Push, delivery_id
from pushfleet_workers.transports import ENGINES, Transport, TransportOptions, open_transport
from pushfleet_workers.vendors.apns import Apns, ApnsAccount

DEAD, BUSY, STUCK, GOOD = (f"{number:064x}" for number in (1, 2, 3, 4))
SINCE_MS = 1_766_001_234_567


async def push_to(transport: Transport, account: ApnsAccount, token: str) -> Outcome:
    vendor, now = Apns(), time.time()
    push = Push("im", "m-1", "chat", "normal", "Li Lei", "八点见?", int((now + 60) * 1000), int(now * 1000), 0)
    delivery = Delivery(delivery_id("im", "m-1", "u", token), "u", "phone", token, 0)
    auth = vendor.mint(account, now).value
    response = await transport.send(vendor.build(account, push, [delivery], auth, int(now * 1000)))
    return vendor.read([delivery], response)[0]


@pytest.mark.parametrize("engine", sorted(ENGINES))
async def test_apns_reads_what_each_engine_brings(engine: str) -> None:
    async with FakeCloud(vendors=["apns"]) as cloud:
        credential = cloud.credential("apns")
        account = ApnsAccount(
            app="im", base_url=cloud.url("apns"), key_file=credential.file, transport=engine, **credential.settings
        )
        cloud.kill("apns", DEAD, since_ms=SINCE_MS)
        cloud.rule("apns", "raw", token=BUSY, status=503)
        cloud.rule("apns", "reset", token=STUCK)
        transport = open_transport(engine, TransportOptions(http2=True, timeout_s=5, ca_bundle=cloud.ca_file))
        try:
            assert (await push_to(transport, account, GOOD)).verdict is Verdict.OK
            dead = await push_to(transport, account, DEAD)
            assert (dead.verdict, dead.since_ms) == (Verdict.DROP_TOKEN, SINCE_MS)
            assert (await push_to(transport, account, BUSY)).verdict is Verdict.RETRY
            with pytest.raises(NoAnswer) as caught:
                await push_to(transport, account, STUCK)
            assert caught.value.maybe_delivered
            (accepted,) = cloud.received("apns")
            assert (accepted.title, accepted.body) == ("Li Lei", "八点见?")
            assert cloud.stats()["vendors"]["apns"]["connections_total"] == 1
        finally:
            await transport.close()


def a_certificate_account(cloud: FakeCloud, credential: Credential, **changes: Any) -> ApnsAccount:
    fields = {"app": "im", "base_url": cloud.url("apns"), "certificate_file": str(credential.file)}
    return ApnsAccount.model_validate(fields | credential.settings | changes)


@asynccontextmanager
async def shown(engine: str, cloud: FakeCloud, account: ApnsAccount) -> AsyncIterator[Transport]:
    """A transport that shows the account's certificate."""
    options = TransportOptions(http2=True, timeout_s=5, ca_bundle=cloud.ca_file, identity=Apns().identity(account))
    transport = open_transport(engine, options)
    try:
        yield transport
    finally:
        await transport.close()


@pytest.mark.parametrize("engine", sorted(ENGINES))
async def test_apns_knows_a_certificate_that_each_engine_shows(engine: str) -> None:
    async with FakeCloud(vendors=["apns"]) as cloud:
        credential = cloud.credential("apns", certificate=True)
        account = a_certificate_account(cloud, credential)
        assert Apns().check(account, time.time()) == []
        cloud.kill("apns", DEAD, since_ms=SINCE_MS)
        async with shown(engine, cloud, account) as transport:
            assert (await push_to(transport, account, GOOD)).verdict is Verdict.OK
            dead = await push_to(transport, account, DEAD)
            assert (dead.verdict, dead.since_ms) == (Verdict.DROP_TOKEN, SINCE_MS)
            other = a_certificate_account(cloud, credential, topic="com.example.other")
            refused = await push_to(transport, other, GOOD)
            assert (refused.verdict, refused.code) == (Verdict.MISCONFIGURED, "TopicDisallowed")
        (accepted,) = cloud.received("apns")
        assert accepted.account == credential.id


@pytest.mark.parametrize("engine", sorted(ENGINES))
async def test_apns_refuses_a_certificate_that_does_not_count(engine: str, tmp_path: Path) -> None:
    async with FakeCloud(vendors=["apns"]) as cloud:
        sandbox = cloud.credential("apns", certificate=True, environments=["development"])
        issued = FakeApns.issue("", {"certificate": True})
        ((name, content),) = issued.files.items()
        (tmp_path / name).write_bytes(content)
        unknown = Credential("apns", issued.id, issued.settings, tmp_path / name)
        for credential, code in ((sandbox, "BadCertificateEnvironment"), (unknown, "BadCertificate")):
            account = a_certificate_account(cloud, credential)
            async with shown(engine, cloud, account) as transport:
                refused = await push_to(transport, account, GOOD)
                assert (refused.verdict, refused.code) == (Verdict.MISCONFIGURED, code)
        stranger = make(time.time())
        (tmp_path / "stranger.p12").write_bytes(stranger.p12())
        account = a_certificate_account(cloud, Credential("apns", "", {"topic": "a"}, tmp_path / "stranger.p12"))
        async with shown(engine, cloud, account) as transport:
            with pytest.raises(NoAnswer):
                await push_to(transport, account, GOOD)
        assert cloud.received("apns") == []
