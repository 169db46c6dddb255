"""The command that answers "why did this user get no push?"."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import cast, get_args

import click
import msgspec
from rich.table import Table

from pushfleet.message import Kind
from pushfleet_workers.api.users import PushShown, UserShown, show_user
from pushfleet_workers.cli.context import Context, console, json_option, pass_context
from pushfleet_workers.clock import FleetClock
from pushfleet_workers.credential_store import Accounts
from pushfleet_workers.errors import FleetError
from pushfleet_workers.reasons import SUPPRESSED
from pushfleet_workers.redis_link import Link
from pushfleet_workers.tokens.store import TokenStore
from pushfleet_workers.verdict import verdicts

__all__ = ["users"]


@click.group()
def users() -> None:
    """Users: their devices, and what becomes of a push to them."""


@users.command()
@click.argument("app")
@click.argument("user")
@click.option("--conversation", default="", help="The conversation that the push would be of; else of none.")
@click.option("--kind", type=click.Choice(get_args(Kind)), default="chat", show_default=True, help="Kind of message.")
@click.option("--mention", is_flag=True, help="The message would mention the user.")
@json_option
@pass_context
def show(context: Context, app: str, user: str, conversation: str, kind: str, mention: bool, as_json: bool) -> None:
    """Show USER of APP: each device, and whether a push would go to it now, by which channel, or why not."""
    if app not in context.settings.apps:
        raise FleetError(f"there is no app {app}; there are: {', '.join(sorted(context.settings.apps)) or 'none'}")
    shown = asyncio.run(_look(context, app, user, conversation, cast("Kind", kind), mention))
    if as_json:
        click.echo(msgspec.json.encode(shown))
        return
    if not shown.devices:
        console.print(f"No push: {SUPPRESSED['no_device'].sentence} (no_device).", highlight=False)
        return
    table = Table("device", "platform", "state", "since", "push now", "why")
    for name, device in shown.devices.items():
        since = datetime.fromtimestamp(device.state_at_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
        told = since if device.state_at_ms else ""
        table.add_row(name, device.platform, device.state, told, device.push.channel or "no", _why(device.push))
    console.print(table)


def _why(push: PushShown) -> str:
    return f"{push.reason}: {push.message}" if push.reason else ""


async def _look(context: Context, app: str, user: str, conversation: str, kind: Kind, mention: bool) -> UserShown:
    settings = context.settings
    queue = Link(context.queue_url, name="pushfleet-cli")
    state = queue if context.state_url == context.queue_url else Link(context.state_url, name="pushfleet-cli")
    clock = FleetClock()
    try:
        seconds, micros = await state.call("TIME")
        clock.heard(int(seconds) * 1000 + int(micros) / 1000)
        accounts = Accounts(settings, queue, secrets=False)
        await accounts.refresh()
        store = TokenStore(state, settings.redis.prefix, clock.now_ms)
        options = (await store.user(app, user)).options
        found = await store.state_of(app, user, conversation)
        judged = verdicts(
            found,
            app,
            user,
            clock.now_ms(),
            lambda vendor, credential, owner: accounts.apps.get((vendor, credential)) == owner,
            kind=kind,
            mention=mention,
            unused_ms=settings.apps[app].device_unused_ms,
            parks=settings.apps[app].parks,
        )
        return show_user(found.devices, options, judged)
    finally:
        for link in {queue, state}:
            await link.close()
