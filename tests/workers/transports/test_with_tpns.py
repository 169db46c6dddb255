"""TPNS through the fake cloud: batches settled by token, refusals, a secret that is wrong."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, get_args

import pytest

from pushfleet.message import ApnsOptions, Kind, OfflinePush
from pushfleet_workers.fakecloud import FakeCloud
from pushfleet_workers.outcome import Outcome, Remedy, Scope, Verdict
from pushfleet_workers.push import Delivery, Push, delivery_id
from pushfleet_workers.transports import ENGINES, Transport, TransportOptions, open_transport
from pushfleet_workers.vendors.tpns import Tpns, TpnsAccount

GOOD, DEAD, POISON = (f"{number:036x}" for number in (1, 2, 3))
EXT = '{"a":"b&c=d"}'
tpns = Tpns()


def account_of(cloud: FakeCloud, platform: str = "android", **changes: Any) -> TpnsAccount:
    credential = cloud.credential("tpns", platform=platform)
    fields: dict[str, Any] = {"app": "im", "base_url": cloud.url("tpns"), "secret_key_file": credential.file}
    fields |= {"click_url": "chat://push/open"} | credential.settings
    return TpnsAccount.model_validate(fields | changes)


@asynccontextmanager
async def opened(engine: str, cloud: FakeCloud) -> AsyncIterator[Transport]:
    transport = open_transport(engine, TransportOptions(timeout_s=5, ca_bundle=cloud.ca_file))
    try:
        yield transport
    finally:
        await transport.close()


async def push_to(transport: Transport, account: TpnsAccount, *tokens: str, **changes: Any) -> list[Outcome]:
    now_s = time.time()
    now_ms = int(now_s * 1_000)
    fields: dict[str, Any] = {
        "app": "im",
        "message_id": "m-1",
        "kind": "chat",
        "lane": "normal",
        "title": "Li Lei",
        "body": "八点见? 👍🏽",
        "expires_at_ms": now_ms + 60_000,
        "sent_at_ms": now_ms,
        "enqueued_at_ms": 0,
        "conversation_id": "c-1",
        "replace_key": "c-1",
        "ext": EXT,
    }
    deliveries = [Delivery(delivery_id("im", "m-1", "u", token), "u", "phone", token, 0, badge=1) for token in tokens]
    request = tpns.build(account, Push(**fields | changes), deliveries, tpns.mint(account, now_s).value, now_ms)
    return tpns.read(deliveries, await transport.send(request))


@pytest.mark.parametrize("platform", ["android", "ios"])
@pytest.mark.parametrize("engine", sorted(set(ENGINES) - {"aioapns"}))
async def test_what_the_engine_brings_is_what_the_vendor_can_read(engine: str, platform: str) -> None:
    async with FakeCloud(vendors=["tpns"]) as cloud, opened(engine, cloud) as transport:
        account = account_of(cloud, platform)
        assert tpns.check(account, time.time()) == []
        cloud.kill("tpns", DEAD)
        outcomes = await push_to(transport, account, GOOD, DEAD)
        assert [outcome.verdict for outcome in outcomes] == [Verdict.OK, Verdict.DROP_TOKEN]
        for code, verdict, scope in (
            ("1008029", Verdict.DROP_TOKEN, Scope.DEVICE),
            ("1008019", Verdict.BAD_PAYLOAD, Scope.DEVICE),
            ("1008028", Verdict.RATE_LIMITED, Scope.ACCOUNT),
            ("1008023", Verdict.MISCONFIGURED, Scope.ACCOUNT),
            ("1009999", Verdict.RETRY, Scope.DEVICE),
        ):
            cloud.rule("tpns", "refuse", token=POISON, code=code, times=1)
            (refused,) = await push_to(transport, account, POISON)
            assert (refused.verdict, refused.scope, refused.code) == (verdict, scope, code)
        (received,) = cloud.received("tpns")
        assert (received.token, received.title, received.body) == (GOOD, "Li Lei", "八点见? 👍🏽")
        assert (received.message_id, received.data["ext"], received.data["cid"]) == ("m-1", EXT, "c-1")
        assert cloud.stats()["vendors"]["tpns"]["connections_total"] == 1


async def test_a_batch_that_a_token_spoils_is_sent_one_by_one() -> None:
    async with FakeCloud(vendors=["tpns"]) as cloud, opened("httpx", cloud) as transport:
        account = account_of(cloud)
        cloud.rule("tpns", "refuse", token=POISON, code="10010005")
        outcomes = await push_to(transport, account, GOOD, POISON)
        assert {outcome.remedy for outcome in outcomes} == {Remedy.SINGLE_SEND}
        assert (await push_to(transport, account, GOOD))[0].verdict is Verdict.OK
        assert (await push_to(transport, account, POISON))[0].verdict is Verdict.DROP_TOKEN


@pytest.mark.parametrize("platform", ["android", "ios"])
@pytest.mark.parametrize("kind", get_args(Kind))
async def test_every_kind_is_in_order(platform: str, kind: str) -> None:
    options = OfflinePush(apns=ApnsOptions(subtitle="Family", interruption_level="active", image="https://a.example/b"))
    long = {"title": "家" * 200, "body": "八点见" * 1_000, "ext": "x" * 2_048}
    async with FakeCloud(vendors=["tpns"]) as cloud, opened("httpx", cloud) as transport:
        for url in ("chat://push/open", ""):
            account = account_of(cloud, platform, click_url=url)
            for changes in ({}, long, {"title": "", "body": ""}, {"options": options}, {"recall": True, "revision": 1}):
                (outcome,) = await push_to(transport, account, GOOD, kind=kind, **changes)
                assert outcome.verdict is Verdict.OK


async def test_a_wrong_secret_and_a_wrong_id_are_the_accounts_fault(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("wrong")
    async with FakeCloud(vendors=["tpns"]) as cloud, opened("httpx", cloud) as transport:
        (refused,) = await push_to(transport, account_of(cloud, secret_key_file=tmp_path / "secret"), GOOD)
        assert (refused.verdict, refused.code) == (Verdict.REFRESH_AUTH, "1008003")
        (refused,) = await push_to(transport, account_of(cloud, access_id="1"), GOOD)
        assert (refused.verdict, refused.code) == (Verdict.MISCONFIGURED, "1008035")
        assert cloud.received("tpns") == []
