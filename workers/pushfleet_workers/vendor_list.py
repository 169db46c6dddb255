"""What the fleet knows of its vendors and their accounts, how their authorizations stand and what shuts them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Literal

from msgspec import Struct

from pushfleet_workers import registry
from pushfleet_workers.account import AccountSettings
from pushfleet_workers.callers import caller_root
from pushfleet_workers.clock import FleetClock
from pushfleet_workers.credential_store import Accounts
from pushfleet_workers.credential_store.sealing import MasterKeys
from pushfleet_workers.errors import CredentialError, RedisUnusable
from pushfleet_workers.ledger import AccountKeys
from pushfleet_workers.ledger.pause import GateState, read_gate
from pushfleet_workers.redis_link import Link, ReplyError
from pushfleet_workers.runtime import rate_of
from pushfleet_workers.settings import Settings
from pushfleet_workers.vendor import Vendor, VendorDefaults

__all__ = ["AccountShown", "AuthShown", "VendorList", "VendorShown", "list_vendors"]

_NO_URL = "no Redis is configured: authorizations, pauses and stored credentials are not known"


class AuthShown(Struct, frozen=True):
    """How an account's authorization stands."""

    state: Literal["fresh", "none", "refused", "unusable", "own", "unknown"]
    """``none``: not yet obtained. ``unusable``: secret or key file cannot be used. ``own``: each process makes its own,
    and none is kept. ``unknown``: no Redis."""

    until_ms: int = 0
    """Of one that is fresh: when it expires, Unix milliseconds."""

    code: str = ""
    """Of one that was refused or is unusable: why."""


class AccountShown(Struct, frozen=True):
    """One account; nothing of it is secret."""

    credential: str
    app: str
    environment: str
    source: Literal["settings", "stored"]
    auth: AuthShown
    batch: str
    rate_per_s: float | None
    """Targets; None: no limit."""

    burst: int | None
    in_flight_max: int
    gate: GateState | None = None
    """What shuts it; None: no Redis, so nobody knows."""


class VendorShown(Struct, frozen=True):
    """One vendor of the registry."""

    name: str
    batch: str
    """``single``, ``shared up to N`` (one content), ``mixed up to N``; ``, staged`` where content goes ahead of many
    targets. As an account has it that is told nothing of it."""

    replaces: bool
    """Whether a newer push replaces an older one on screen."""

    recalls: bool
    """Whether the vendor has means of its own to take back what it showed."""

    exact_badge: bool
    """Whether a push carries the number itself."""

    accounts: list[AccountShown]


class VendorList(Struct, frozen=True):
    """All vendors."""

    redis: str
    """Why authorizations and stored credentials are not known; empty: they are."""

    vendors: list[VendorShown]


async def list_vendors(settings: Settings) -> VendorList:
    """Every vendor of the registry with its accounts, those of the store included where there is a Redis."""
    if not settings.redis.queue_url:
        return await _listed(settings, None, _NO_URL)
    link = Link(settings.redis.queue_url, name="pushfleet-cli", timeout_s=settings.redis.timeout_s)
    try:
        return await _listed(settings, link, "")
    except (RedisUnusable, ReplyError) as problem:
        return await _listed(settings, None, f"{problem}: authorizations, pauses and stored credentials are not known")
    finally:
        await link.close()


async def _listed(settings: Settings, link: Link | None, note: str) -> VendorList:
    by_vendor: dict[str, list[AccountShown]] = {name: [] for name in registry.names()}
    async with _accounts(settings, link) as accounts:
        for name, credential, account in accounts:
            auth = await _auth(settings.redis.prefix, link, registry.load(name), credential, account)
            settled = credential in settings.accounts.get(name, {})
            keys = AccountKeys(settings.redis.prefix, name, credential)
            gate = await read_gate(link, keys) if link is not None else None
            by_vendor[name].append(_account_shown(registry.load(name), credential, account, settled, auth, gate))
    return VendorList(note, [_vendor_shown(registry.load(name), shown) for name, shown in by_vendor.items()])


@asynccontextmanager
async def _accounts(settings: Settings, link: Link | None) -> AsyncIterator[list[tuple[str, str, AccountSettings]]]:
    if link is None:
        yield list(settings.each_account())
        return
    # Without a master key the stored ones are shown by their outlines.
    keys = MasterKeys.from_settings(settings.credentials)
    accounts = Accounts(settings, link, secrets=keys is not None)
    try:
        await accounts.refresh()
        yield list(accounts.each())
    finally:
        accounts.close()


async def _auth(prefix: str, link: Link | None, vendor: Vendor, credential: str, account: Any) -> AuthShown:
    clock = FleetClock()
    try:
        minted = vendor.mint(account, clock.now_ms() / 1000)
    except CredentialError:
        return AuthShown("unusable", code=CredentialError.__name__)
    if minted is not None and minted.failure is not None:
        return AuthShown("unusable", code=minted.failure.code)
    if minted is not None and not minted.shared:
        return AuthShown("own")
    if link is None:
        return AuthShown("unknown")
    key = f"{caller_root(prefix, vendor, credential, account)}:auth"
    expires_at_ms, refused = await link.call("HMGET", key, "expires_at_ms", "refused")
    if expires_at_ms is not None:
        return AuthShown("fresh", until_ms=int(float(expires_at_ms)))
    return AuthShown("refused", code=refused.decode()) if refused is not None else AuthShown("none")


def _account_shown(
    vendor: Vendor,
    credential: str,
    account: AccountSettings,
    settled: bool,
    auth: AuthShown,
    gate: GateState | None,
) -> AccountShown:
    rate = rate_of(account)
    return AccountShown(
        credential=credential,
        app=account.app,
        environment=getattr(account, "environment", ""),
        source="settings" if settled else "stored",
        auth=auth,
        batch=_batch(vendor, account),
        rate_per_s=rate.rate_per_s if rate is not None else None,
        burst=rate.burst if rate is not None else None,
        in_flight_max=account.in_flight_max,
        gate=gate,
    )


def _vendor_shown(vendor: Vendor, accounts: list[AccountShown]) -> VendorShown:
    return VendorShown(
        name=vendor.name,
        batch=_batch(vendor, vendor.account_type.model_construct(app="")),
        replaces=vendor.replaces,
        recalls=_has_own(vendor, "withdraw"),
        exact_badge=vendor.exact_badge,
        accounts=accounts,
    )


def _batch(vendor: Vendor, account: AccountSettings) -> str:
    if vendor.batch_size == 1:
        return "single"
    form = "mixed" if vendor.mixes(account) else "shared"
    return f"{form} up to {vendor.batch_size}{', staged' if _has_own(vendor, 'stage') else ''}"


def _has_own(vendor: Vendor, method: str) -> bool:
    return getattr(type(vendor), method) is not getattr(VendorDefaults, method)
