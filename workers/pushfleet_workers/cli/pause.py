"""Commands that stop what leaves for a vendor, and let it go on."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable

import click
import msgspec

from pushfleet_workers.cli.context import Context, console, json_option, pass_context
from pushfleet_workers.cli.times import Duration
from pushfleet_workers.credential_store import Accounts
from pushfleet_workers.errors import FleetError
from pushfleet_workers.gate_desk import PAUSE_S_MAX, REASON_CHARS_MAX, AccountState, GateDesk, gate_sentence
from pushfleet_workers.redis_link import Link

__all__ = ["pause", "resume"]


def _named(context: click.Context, parameter: click.Parameter, value: str | None) -> str:
    """An empty name, of a variable that is not set as a rule, must not reach further than a name would."""
    if value == "":
        raise click.BadParameter("it is empty; give a name")
    return value or ""


_vendor = click.argument("vendor", callback=_named)
_credential = click.option(
    "--credential", "--account", "credential", default=None, callback=_named,
    help="Only this account; default: all of the vendor's.",
)  # fmt: skip


@click.command()
@_vendor
@_credential
@click.option(
    "--for", "for_s", type=Duration(PAUSE_S_MAX, 1), default=None, metavar="TIME",
    help="After so long they go on by themselves: 90s, 30m, 24h, 7d; default: once they are resumed.",
)  # fmt: skip
@click.option("--reason", default="", help="For whoever finds them paused.")
@click.option("--elsewhere", is_flag=True, help="Let deliveries go by their devices' other channels meanwhile.")
@json_option
@pass_context
def pause(
    context: Context, vendor: str, credential: str, for_s: int | None, reason: str, elsewhere: bool, as_json: bool
) -> None:
    """Let nothing leave for VENDOR any more, from the whole fleet, within a second.

    What is under way comes back; the rest waits in the ledger, and expires by its time to live.
    """
    if len(reason) > REASON_CHARS_MAX or not reason.isprintable():
        raise click.UsageError(f"--reason is one line of at most {REASON_CHARS_MAX} characters")
    states = _at_desk(
        context,
        vendor,
        credential,
        lambda desk: desk.pause(vendor, credential, for_s=for_s or 0, reason=reason, elsewhere=elsewhere),
    )
    _say(states, as_json)


@click.command()
@_vendor
@_credential
@click.option(
    "--force", is_flag=True,
    help="Past a pause that the vendor asked for, and an open breaker, as well; what waits for that is due at once.",
)  # fmt: skip
@json_option
@pass_context
def resume(context: Context, vendor: str, credential: str, force: bool, as_json: bool) -> None:
    """Let VENDOR's work leave again after a pause; what is still wanted of it is sent."""
    _say(_at_desk(context, vendor, credential, lambda desk: desk.resume(vendor, credential, force=force)), as_json)


def _at_desk(
    context: Context, vendor: str, credential: str, work: Callable[[GateDesk], Awaitable[list[AccountState]]]
) -> list[AccountState]:
    settings, url = context.settings, context.queue_url

    async def run() -> list[AccountState]:
        link = Link(url, name="pushfleet-cli")
        try:
            accounts = Accounts(settings, link, secrets=False)
            await accounts.refresh()
            desk = GateDesk(link, settings.redis.prefix, accounts)
            states = await work(desk)
            if not states:
                known = ", ".join(f"{one.vendor}:{one.credential}" for one in await desk.states()) or "none"
                named = f"{vendor}:{credential}" if credential else f"of {vendor}"
                raise FleetError(f"there is no account {named}; there are: {known}")
            return states
        finally:
            await link.close()

    return asyncio.run(run())


def _say(states: list[AccountState], as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(msgspec.to_builtins(states)))
        return
    for one in states:
        line = f"{one.vendor}:{one.credential}: {gate_sentence(one.gate) or 'open'}"
        console.print(line, markup=False, highlight=False, soft_wrap=True)
