"""Receipts of credentials that were added while the fleet runs: their keys are secrets, and stay so."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

import pytest
from tests.workers.api.receipts_support import Receipts, receiving, some_settings
from tests.workers.credential_store.support import MASTER_KEY
from tests.workers.receipts.samples import a_body
from tests.workers.vendors.samples import a_push

from pushfleet_workers.api.receipts import opened_accounts
from pushfleet_workers.credential_store.errors import CredentialRefused
from pushfleet_workers.credential_store.management import CredentialManager, Given
from pushfleet_workers.credential_store.store import Name
from pushfleet_workers.redis_link import Link
from pushfleet_workers.vendors._receipts import ReceiptAccount, callback, secret_path
from pushfleet_workers.vendors.oppo import OppoAccount

NAME = Name("oppo", "extra")
KEY = "a-key-that-was-stored"
FIELDS = {
    "app_key": "1",
    "master_secret": "x",
    "receipt_url": "http://127.0.0.1/v1/receipts/oppo/extra",
    "receipt_key": KEY,
    "kinds": {"chat": {"channel_id": "im"}},
}


def path_of(key: str) -> str:
    return f"/v1/receipts/oppo/extra/{secret_path(key.encode(), 'oppo/extra')}"


def body_of(key: str) -> bytes:
    account = OppoAccount.model_validate({"app": "demo", **FIELDS, "receipt_key": key})
    asked = callback(account, a_push(), 50)
    assert asked is not None
    return a_body("oppo", "push_arrive", asked.echo)


def test_a_stored_credential_has_receipts_as_one_of_the_settings(redis_url: str) -> None:
    async def scenario(stage: Receipts) -> None:
        assert stage.stored is not None
        manager = CredentialManager(stage.settings, stage.link, stage.link)
        assert (await stage.post("", body_of(KEY), path_of(KEY))).status_code == 404
        await manager.add(NAME, "demo", Given(FIELDS))
        await stage.stored.refresh()
        assert (await stage.post("", body_of(KEY), path_of(KEY))).status_code == 200
        assert await stage.counts() == {"oppo:extra:delivered": 1}
        await manager.remove(NAME)
        await stage.stored.refresh()
        assert (await stage.post("", body_of(KEY), path_of(KEY))).status_code == 404

    receiving(redis_url, scenario, master_key=MASTER_KEY)


def test_without_the_master_key_nothing_stands_in_for_what_is_sealed(redis_url: str) -> None:
    async def scenario(stage: Receipts) -> None:
        assert stage.stored is None
        await CredentialManager(some_settings(MASTER_KEY), stage.link, stage.link).add(NAME, "demo", Given(FIELDS))
        for key in (KEY, "(sealed)", ""):
            assert (await stage.post("", body_of(KEY), path_of(key))).status_code == 404

    receiving(redis_url, scenario)


def test_what_stands_for_a_sealed_secret_is_no_key() -> None:
    sealed = OppoAccount.model_validate({"app": "demo", **FIELDS, "receipt_key": "(sealed)"})
    assert callback(sealed, a_push()) is None


def with_link(redis_url: str, work: Callable[[Link], Awaitable[None]]) -> None:
    async def run() -> None:
        link = Link(redis_url)
        try:
            await work(link)
        finally:
            await link.close()

    asyncio.run(run())


def test_a_master_key_that_is_none_is_told_and_holds_nothing_up(
    redis_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)

    async def work(link: Link) -> None:
        assert opened_accounts(some_settings("no base64 of 32 bytes"), link) is None

    with_link(redis_url, work)
    assert "receipts of stored credentials are not taken" in caplog.text
    assert "no base64" not in caplog.text


def test_the_address_of_another_account_is_refused_and_a_new_key_is_no_other_credential(redis_url: str) -> None:
    async def work(link: Link) -> None:
        manager = CredentialManager(some_settings(MASTER_KEY), link, link)
        wrong = {**FIELDS, "receipt_url": "http://127.0.0.1/v1/receipts/oppo/main"}
        with pytest.raises(CredentialRefused, match="address of another account"):
            await manager.add(NAME, "demo", Given(wrong))
        shown = await manager.add(NAME, "demo", Given(FIELDS))
        rotated = await manager.rotate(NAME, Given({"receipt_key": f"a-new-key-of-receipts {KEY}"}))
        assert shown.key_fingerprint == rotated.key_fingerprint

    with_link(redis_url, work)


def test_every_account_with_receipts_is_one() -> None:
    for _, credential, account in some_settings().each_account():
        assert isinstance(account, ReceiptAccount)
        assert bool(account.receipt_url) == (credential == "main")
