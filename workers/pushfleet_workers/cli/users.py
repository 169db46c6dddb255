"""Commands for users: why one got no push, and erasing one."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import cast, get_args

import click
import msgspec

from pushfleet.message import Kind
from pushfleet_workers.api.users import PushShown, UserShown, show_user
from pushfleet_workers.cli.context import Context, console, json_option, pass_context
from pushfleet_workers.cli.tables import print_table
from pushfleet_workers.cli.times import Duration, shown_date
from pushfleet_workers.clock import FleetClock
from pushfleet_workers.credential_store import Accounts
from pushfleet_workers.erasure import EraseDesk, Erasing, ErasureKeeper
from pushfleet_workers.errors import FleetError
from pushfleet_workers.reasons import SUPPRESSED
from pushfleet_workers.redis_link import Link
from pushfleet_workers.tokens.changes import ID_BYTES_MAX, check_id
from pushfleet_workers.tokens.store import TokenStore
from pushfleet_workers.verdict import verdicts

__all__ = ["users"]

_LOOK_S = 0.2


@click.group()
def users() -> None:
    """Users: their devices, what becomes of a push to them, and erasing them."""


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
    _require_app(context, app)
    shown = asyncio.run(_look(context, app, user, conversation, cast("Kind", kind), mention))
    if as_json:
        click.echo(msgspec.json.encode(shown))
        return
    if not shown.devices:
        console.print(f"No push: {SUPPRESSED['no_device'].sentence} (no_device).", highlight=False)
        return
    print_table(
        ("device", "platform", "state", "since", "push now", "why"),
        [
            (
                name, device.platform, device.state, shown_date(device.state_at_ms), device.push.channel or "no",
                _why(device.push),
            )
            for name, device in shown.devices.items()
        ],
    )  # fmt: skip


@users.command()
@click.argument("app")
@click.argument("user")
@click.option(
    "--wait", "wait_s", type=Duration(3_600), default="60s", show_default=True, metavar="TIME",
    help="How long to look for what is left; 0s: leave that to the api.",
)  # fmt: skip
@json_option
@pass_context
def erase(context: Context, app: str, user: str, wait_s: int, as_json: bool) -> None:
    """Erase USER of APP: what is known of them at once, then what is queued or kept of messages to them.

    Exit code 1: something may be left that is in flight or in front of a router. An api looks for it, or repeat this.
    """
    _require_app(context, app)
    try:
        check_id("user", user, ID_BYTES_MAX)
    except ValueError as problem:
        raise FleetError(str(problem)) from None
    erasing, done = asyncio.run(_erase(context, app, user, wait_s))
    if as_json:
        click.echo(json.dumps({"known": erasing.known, "since_ms": erasing.since_ms, "done": done}))
    else:
        known = f"User {user} is erased" if erasing.known else f"Nothing was known of user {user}"
        left = "nothing is left" if done else "something may be left in the queues; an api looks for it, or repeat this"
        console.print(f"{known}: {left}.", highlight=False, markup=False, soft_wrap=True)
    if not done and wait_s:
        sys.exit(1)


async def _erase(context: Context, app: str, user: str, wait_s: int) -> tuple[Erasing, bool]:
    """What came of it, and whether nothing is left."""
    settings, clock = context.settings, FleetClock()
    queue = Link(context.queue_url, name="pushfleet-cli")
    state = queue if context.state_url == context.queue_url else Link(context.state_url, name="pushfleet-cli")
    try:
        seconds, micros = await state.call("TIME")
        clock.heard(int(seconds) * 1000 + int(micros) / 1000)
        accounts = Accounts(settings, queue, secrets=False)
        await accounts.refresh()
        desk = EraseDesk(state, queue, settings.redis.prefix, settings.deaths, clock.now_ms)
        store = TokenStore(state, settings.redis.prefix, clock.now_ms)
        keeper = ErasureKeeper(state, queue, settings, accounts.apps, desk, store)
        erasing = await desk.erase(app, user)
        until = time.monotonic() + wait_s
        while is_left := bool((await store.user(app, user)).erasing_since_ms):
            if time.monotonic() >= until:
                break
            await keeper.look()
            await asyncio.sleep(_LOOK_S)
        return erasing, not is_left
    finally:
        for link in {queue, state}:
            await link.close()


def _require_app(context: Context, app: str) -> None:
    if app not in context.settings.apps:
        raise FleetError(f"there is no app {app}; there are: {', '.join(sorted(context.settings.apps)) or 'none'}")


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
        known = await store.user(app, user)
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
        return show_user(found.devices, known.options, judged, known.erasing_since_ms)
    finally:
        for link in {queue, state}:
            await link.close()
