"""The command that lists vendors and their accounts."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime

import click
import msgspec

from pushfleet_workers.cli.context import Context, console, json_option, pass_context
from pushfleet_workers.distrust import certificate_sentence
from pushfleet_workers.gate_desk import gate_sentence
from pushfleet_workers.vendor_list import AccountShown, AuthShown, VendorList, list_vendors

__all__ = ["vendors"]


@click.command()
@json_option
@pass_context
def vendors(context: Context, as_json: bool) -> None:
    """List all vendors and their accounts: authorization, limits, how many pushes a request carries, what shuts them.

    Works without Redis as well; authorizations, pauses and stored credentials are then not known.
    """
    listed = asyncio.run(list_vendors(context.settings))
    if as_json:
        click.echo(json.dumps(msgspec.to_builtins(listed)))
    else:
        _show(listed)


def _show(listed: VendorList) -> None:
    for vendor in listed.vendors:
        traits = {"replaces": vendor.replaces, "recalls": vendor.recalls, "exact badge": vendor.exact_badge}
        _print(f"{vendor.name}: {', '.join([vendor.batch, *(name for name, has in traits.items() if has)])}")
        for one in vendor.accounts:
            _print(f"  {one.credential}: {_account(one)}")
    if listed.redis:
        _print(listed.redis)


def _account(one: AccountShown) -> str:
    rate = f"{one.rate_per_s:g} a second, burst {one.burst}" if one.rate_per_s else "no limit"
    facts = [f"app {one.app}", one.environment, one.source, f"authorization {_auth(one.auth)}", one.batch, rate]
    shut = gate_sentence(one.gate) if one.gate is not None else ""
    return ", ".join([fact for fact in [*facts, f"{one.in_flight_max} in flight", shut] if fact])


def _auth(auth: AuthShown) -> str:
    match auth.state:
        case "fresh":
            return f"fresh until {datetime.fromtimestamp(auth.until_ms / 1000, UTC):%Y-%m-%d %H:%M UTC}"
        case "refused":
            distrust = certificate_sentence(auth.code)
            return f"not obtained ({auth.code}: {distrust})" if distrust else f"refused ({auth.code})"
        case "unusable":
            return f"unusable ({auth.code}; see pushfleet check)"
    return {"none": "not yet obtained", "own": "each process its own", "unknown": "not known"}[auth.state]


def _print(line: str) -> None:
    console.print(line, markup=False, highlight=False, soft_wrap=True)
