"""A vendor module, an engine and the fake cloud together: what the engine brings is what the vendor can read."""

from __future__ import annotations

import time

import pytest

from pushfleet_workers.errors import NoAnswer
from pushfleet_workers.fakecloud import FakeCloud
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
