"""Commands for dead tokens: look at them, bring them back, decide on accounts whose guard has tripped."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

import click
import msgspec

from pushfleet_workers.cli.context import Context, console, json_option, pass_context
from pushfleet_workers.cli.tables import print_table
from pushfleet_workers.cli.times import Moment, shown_date
from pushfleet_workers.clock import FleetClock
from pushfleet_workers.credential_store import Accounts
from pushfleet_workers.death_desk import AccountDeaths, DeathDesk, Decided, Decision, RestoreDone
from pushfleet_workers.errors import FleetError
from pushfleet_workers.redis_link import Link
from pushfleet_workers.tokens.death_log import DeathTold, Filter
from pushfleet_workers.tokens.tombstones import Fate

__all__ = ["tokens"]

T = TypeVar("T")

_AT_ONCE = 10_000


_FILTERS = (
    click.option("--app", help="The app; may be left out where there is one."),
    click.option("--vendor", default="", help="Only those of this vendor."),
    click.option("--credential", default="", help="Only those of this credential."),
    click.option("--user", default="", help="Only those of this user."),
    click.option("--code", default="", help="Only those with this code of the vendor."),
    click.option(
        "--since", type=Moment(), default=0, metavar="WHEN",
        help="Only those heard of from then on: an age (90s, 30m, 24h, 7d) or a time (2026-01-31T12:00, UTC).",
    ),
    click.option("--until", type=Moment(), default=0, metavar="WHEN", help="Only those heard of until then."),
)  # fmt: skip


def _filtered(command: Callable[..., None]) -> Callable[..., None]:
    for option in reversed(_FILTERS):
        command = option(command)
    return command


def _wanted(given: dict[str, Any], **more: Any) -> Filter:
    since_ms, until_ms = given.pop("since"), given.pop("until")
    return Filter(since_ms=since_ms, until_ms=until_ms, **given, **more)


@click.group()
def tokens() -> None:
    """Dead tokens: what vendors called dead in the last 30 days, and what became of it."""


@tokens.command()
@_filtered
@click.option("--fate", type=click.Choice([fate.value for fate in Fate]), help="Only those that this became of.")
@click.option("--limit", type=click.IntRange(1, 100_000), default=100, show_default=True, help="Most lines.")
@json_option
@pass_context
def dead(context: Context, /, app: str | None, fate: str | None, limit: int, as_json: bool, **given: Any) -> None:
    """List what became of dead tokens, the newest first; with --json one object a line."""
    name, wanted = _app(context, app), _wanted(given, fate=fate or "")
    found = _at_desk(context, lambda desk, _: desk.newest(name, wanted, limit))
    if as_json:
        for one in found:
            click.echo(msgspec.json.encode(one))
        return
    print_table(("heard of", "fate", "user", "device", "account", "code", "dead since", "token"), map(_row, found))


@tokens.command()
@_filtered
@click.option("--dry-run", is_flag=True, help="Only count them.")
@json_option
@pass_context
def restore(context: Context, /, app: str | None, dry_run: bool, as_json: bool, **given: Any) -> None:
    """Bring dead tokens back, each only if its device has not registered since. Name at least one filter."""
    if not any(given.values()):
        raise click.UsageError("say which: --vendor, --credential, --user, --code, --since or --until")
    name, wanted = _app(context, app), _wanted(given)

    async def work(desk: DeathDesk, _: object) -> RestoreDone:
        total = RestoreDone()
        while True:
            done = await desk.restore(name, wanted, _AT_ONCE, dry_run=dry_run)
            total = _sum(total, done)
            if dry_run or not done.more:
                return total

    done = _at_desk(context, work)
    sentence = _counts(done)
    _say(done, as_json, sentence.replace(" restored", " can be tried") if dry_run else sentence)


@tokens.command()
@json_option
@pass_context
def guards(context: Context, as_json: bool) -> None:
    """List accounts with tokens that are passed over, or a guard that has tripped; exit code 1 when one has."""

    async def work(desk: DeathDesk, accounts: Accounts) -> list[AccountDeaths]:
        return await desk.accounts(accounts.apps)

    found = _at_desk(context, work)
    if as_json:
        click.echo(json.dumps(msgspec.to_builtins(found)))
    else:
        print_table(
            ("account", "guard", "passed over", "undated deaths lately", "accepted in that time"),
            map(_guard_row, found),
        )
    if any(one.guarded_since_ms for one in found):
        raise SystemExit(1)


@tokens.command()
@click.argument("vendor")
@click.argument("credential")
@json_option
@pass_context
def confirm(context: Context, vendor: str, credential: str, as_json: bool) -> None:
    """Drop the tokens of an account that are passed over: they are dead. Its guard is reset."""
    _decide(context, vendor, credential, "confirm", as_json)


@tokens.command()
@click.argument("vendor")
@click.argument("credential")
@json_option
@pass_context
def lift(context: Context, vendor: str, credential: str, as_json: bool) -> None:
    """Pass the tokens of an account over no more, and bring back what the wave took. Its guard is reset."""
    _decide(context, vendor, credential, "lift", as_json)


def _decide(context: Context, vendor: str, credential: str, decision: Decision, as_json: bool) -> None:
    async def work(desk: DeathDesk, accounts: Accounts) -> Decided:
        app = accounts.apps.get((vendor, credential))
        if app is None:
            known = ", ".join(sorted(" ".join(account) for account in accounts.apps)) or "none"
            raise FleetError(f"there is no account {vendor} {credential}; there are: {known}")
        total = Decided()
        while True:
            done = await desk.decide(app, vendor, credential, decision, _AT_ONCE)
            total = _sum(total, done)
            if not done.more:
                return total

    done = _at_desk(context, work)
    _say(done, as_json, f"{vendor}:{credential}: {_counts(done)}")


def _app(context: Context, named: str | None) -> str:
    apps = context.settings.apps
    if named is None and len(apps) == 1:
        return next(iter(apps))
    if named not in apps:
        what = f"there is no app {named}" if named is not None else "there are several apps: name one with --app"
        raise FleetError(f"{what}; there are: {', '.join(sorted(apps)) or 'none'}")
    return named


def _at_desk(context: Context, work: Callable[[DeathDesk, Accounts], Awaitable[T]]) -> T:
    """What *work* gives with a desk on the Redis of the settings, and all accounts."""
    settings, queue_url, state_url = context.settings, context.queue_url, context.state_url

    async def run() -> T:
        queue = Link(queue_url, name="pushfleet-cli")
        state = queue if state_url == queue_url else Link(state_url, name="pushfleet-cli")
        clock = FleetClock()
        try:
            seconds, micros = await state.call("TIME")
            clock.heard(int(seconds) * 1000 + int(micros) / 1000)
            accounts = Accounts(settings, queue, secrets=False)
            await accounts.refresh()
            desk = DeathDesk(state, queue, settings.redis.prefix, settings.deaths, clock.now_ms)
            return await work(desk, accounts)
        finally:
            for link in {queue, state}:
                await link.close()

    return asyncio.run(run())


def _sum(total: T, more: T) -> T:
    """Counts added up; what is no count is as it was last."""
    fields = {
        name: value if isinstance(value, bool) else getattr(total, name) + value
        for name, value in msgspec.structs.asdict(more).items()  # type: ignore[arg-type]
    }
    return type(total)(**fields)


def _counts(done: RestoreDone | Decided) -> str:
    counts = {name: value for name, value in msgspec.structs.asdict(done).items() if name != "more" and value}
    return ", ".join(f"{value} {name.replace('_', ' ')}" for name, value in counts.items()) or "nothing to do"


def _say(done: RestoreDone | Decided, as_json: bool, sentence: str) -> None:
    if as_json:
        click.echo(json.dumps(msgspec.to_builtins(done)))
    else:
        console.print(sentence, markup=False, highlight=False, soft_wrap=True)


def _guard_row(one: AccountDeaths) -> Sequence[object]:
    guard = f"tripped {shown_date(one.guarded_since_ms)}" if one.guarded_since_ms else ""
    return f"{one.vendor}:{one.credential}", guard, one.quarantined, one.window_deaths, one.window_accepted


def _row(one: DeathTold) -> Sequence[str]:
    account = f"{one.vendor}:{one.credential}"
    since = shown_date(one.since_ms) if one.since_ms else "not said"
    return shown_date(one.at_ms), one.fate.value, one.user, one.device, account, one.code, since, one.token_fingerprint
