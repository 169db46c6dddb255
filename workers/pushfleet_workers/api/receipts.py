"""The routes of receipts, put together for the API's process."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

from fastapi import APIRouter

from pushfleet_workers.account import AccountSettings
from pushfleet_workers.api.client_receipts import client_receipt_routes
from pushfleet_workers.api.vendor_receipts import vendor_receipt_routes
from pushfleet_workers.credential_store import Accounts
from pushfleet_workers.credential_store.sealing import MasterKeys
from pushfleet_workers.errors import CredentialError, SettingsError
from pushfleet_workers.receipts.book import ReceiptBook
from pushfleet_workers.receipts.intake import Intake
from pushfleet_workers.redis_link import Link
from pushfleet_workers.settings import Settings
from pushfleet_workers.token_feedback import TokenFeedback
from pushfleet_workers.tokens.holders import Holders

__all__ = ["opened_accounts", "receipt_routers"]

log = logging.getLogger(__name__)


def opened_accounts(settings: Settings, queue: Link) -> Accounts | None:
    """The stored credentials with their secrets, without which none of their receipts could be told from a forgery.

    None where there is no master key to open them: then only accounts of the settings get receipts.
    """
    try:
        if not settings.receipts.vendors or MasterKeys.from_settings(settings.credentials) is None:
            return None
        return Accounts(settings, queue, secrets=True)
    except (SettingsError, CredentialError) as problem:
        log.warning("receipts of stored credentials are not taken: %s", problem)
        return None


def receipt_routers(
    settings: Settings, queue: Link, state: Link, stored: Accounts | None, now_ms: Callable[[], int]
) -> list[APIRouter]:
    """What the settings say is served."""
    told, prefix = settings.receipts, settings.redis.prefix
    book = ReceiptBook(queue, prefix, now_ms, kept=told.kept)
    routers = []
    if told.clients:
        routers.append(client_receipt_routes(settings.apps, book, now_ms, requests_per_s=told.requests_per_s))
    if told.vendors:
        feedback = TokenFeedback(state, queue, prefix, settings.deaths, now_ms)
        intake = Intake(Holders(state, prefix), feedback, book, now_ms)

        def account_of(vendor: str, credential: str) -> AccountSettings | None:
            settled: Mapping[str, AccountSettings] = settings.accounts.get(vendor, {})
            if credential in settled or stored is None:
                return settled.get(credential)
            every = stored.each()
            return next((account for *name, account in every if name == [vendor, credential]), None)

        routers.append(vendor_receipt_routes(account_of, intake, now_ms, requests_per_s=told.requests_per_s))
    return routers
