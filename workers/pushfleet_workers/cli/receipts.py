"""The command that shows where vendors post receipts to."""

from __future__ import annotations

import json

import click

from pushfleet_workers.api.receipts import opened_accounts
from pushfleet_workers.cli.context import Context, console, json_option, pass_context, with_link
from pushfleet_workers.errors import CredentialError
from pushfleet_workers.redis_link import Link
from pushfleet_workers.settings import Settings
from pushfleet_workers.vendors._receipts import ReceiptAccount, receipt_address

__all__ = ["receipts"]


@click.command()
@json_option
@pass_context
def receipts(context: Context, as_json: bool) -> None:
    """Show the address of each account's receipts, its secret included, for the vendors' consoles."""
    settings = context.settings
    addresses = _of_settings(settings)
    if settings.redis.queue_url:
        addresses |= with_link(context.queue_url, lambda link: _of_store(settings, link))
    if as_json:
        click.echo(json.dumps(addresses))
        return
    for name, address in addresses.items():
        console.print(f"{name}  {address}", markup=False, highlight=False, soft_wrap=True)
    if not addresses:
        console.print("No account has a receipt_url.")


def _of_settings(settings: Settings) -> dict[str, str]:
    return {
        f"{vendor}:{credential}": _address(account)
        for vendor, credential, account in settings.each_account()
        if isinstance(account, ReceiptAccount) and account.receipt_url
    }


async def _of_store(settings: Settings, link: Link) -> dict[str, str]:
    stored = opened_accounts(settings, link)
    if stored is None:
        return {}
    try:
        await stored.refresh()
        return {
            f"{vendor}:{credential}": _address(account)
            for vendor, credential, account in stored.each()
            if isinstance(account, ReceiptAccount) and account.receipt_url
        }
    finally:
        stored.close()


def _address(account: ReceiptAccount) -> str:
    try:
        return receipt_address(account)
    except CredentialError as problem:
        return f"none: {problem}"
