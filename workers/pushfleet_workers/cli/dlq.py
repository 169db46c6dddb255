"""Commands for dead letters: look at them, put them back, drop them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

import click
import msgspec
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from pushfleet.message import LANES
from pushfleet_workers.cli.context import Context, console, errors, json_option, pass_context
from pushfleet_workers.cli.tables import print_table
from pushfleet_workers.cli.times import Duration, shown_date
from pushfleet_workers.credential_store import Accounts
from pushfleet_workers.dead_letters import (
    LEFT,
    TTL_S_MAX,
    DropDone,
    Left,
    LetterDesk,
    LetterDetail,
    LetterFilter,
    LetterName,
    LetterShown,
    ReplayDone,
)
from pushfleet_workers.errors import FleetError
from pushfleet_workers.reasons import DEAD, REFUSED_ENTRIES
from pushfleet_workers.redis_link import Link

__all__ = ["dlq"]

T = TypeVar("T")

_PAGE = 500
_AGE_S_MAX = 366 * 86_400
_DELIVERIES_SHOWN = 20


class _Name(click.ParamType[LetterName]):
    name = "letter"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> LetterName:
        if isinstance(value, LetterName):
            return value
        name = LetterName.read(str(value))
        if name is None:
            self.fail(
                f"{value!r} is no name of a letter: they read as in pushfleet dlq list, huawei:main:1750000000000-0"
            )
        return name


_FILTERS = (
    click.option("--vendor", default="", help="Only those of this vendor; ingress for what routers refused."),
    click.option(
        "--credential", "--account", "credential", default="",
        help="Only those of this credential; of what routers refused, of this lane.",
    ),
    click.option("--app", default="", help="Only those of this app."),
    click.option("--reason", default=None, type=click.Choice([*DEAD, *REFUSED_ENTRIES]), help="Only those with it."),
    click.option("--code", default="", help="Only those with this code of the vendor."),
    click.option("--lane", default=None, type=click.Choice(LANES), help="Only those of this lane."),
    click.option("--message", "message_id", default="", help="Only those of this message."),
    click.option("--user", default="", help="Only those with a delivery to this user."),
    click.option(
        "--older-than", "older_s", type=Duration(_AGE_S_MAX), default=0, metavar="AGE",
        help="Only those that have been dead for so long: 90s, 30m, 24h, 7d.",
    ),
    click.option("--newer-than", "newer_s", type=Duration(_AGE_S_MAX), default=0, metavar="AGE",
                 help="Only those that have not been dead for so long."),
)  # fmt: skip

_WHICH = (
    click.argument("letters", nargs=-1, type=_Name(), metavar="[LETTER]..."),
    *_FILTERS,
    click.option("--all", "everything", is_flag=True, help="All of them, where neither letters nor filters are given."),
    click.option("--limit", type=click.IntRange(1), default=None, help="Most letters; the oldest go first."),
    click.option("--dry-run", is_flag=True, help="Only say what would happen."),
)  # fmt: skip

_Command = Callable[..., None]


def _with(options: Sequence[Callable[[_Command], _Command]]) -> Callable[[_Command], _Command]:
    def decorate(command: _Command) -> _Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


@click.group()
def dlq() -> None:
    """Dead letters: what could not be delivered, and what routers could not route."""


@dlq.command("list")
@_with(_FILTERS)
@click.option("--limit", type=click.IntRange(1, 1_000_000), default=100, show_default=True, help="Most lines.")
@json_option
@pass_context
def list_(context: Context, /, limit: int, as_json: bool, **given: Any) -> None:
    """List dead letters, the newest first; with --json one object a line."""

    async def work(desk: LetterDesk, now_ms: int) -> list[LetterShown]:
        found: list[LetterShown] = []
        wanted, before, more = _filter(given, now_ms), None, True
        while more and len(found) < limit:
            page = await desk.page(wanted, min(_PAGE, limit - len(found)), before)
            found += page.letters
            before, more = LetterName.read(page.cursor), page.more
        return found

    found = _at_desk(context, work)
    if as_json:
        for one in found:
            click.echo(msgspec.json.encode(one))
        return
    print_table(
        ("letter", "since", "app", "lane", "reason", "code", "attempts", "deliveries", "message"),
        [
            (
                one.letter, shown_date(one.at_ms), one.app, one.lane, one.reason, one.code, one.attempts,
                one.deliveries, one.message_id,
            )
            for one in found
        ],
    )  # fmt: skip


@dlq.command()
@click.argument("letter", type=_Name())
@json_option
@pass_context
def show(context: Context, letter: LetterName, as_json: bool) -> None:
    """Show all that helps with LETTER, with a sentence for reason and code; never a token or a text."""

    async def work(desk: LetterDesk, now_ms: int) -> LetterDetail | None:
        return await desk.detail(letter)

    shown = _at_desk(context, work)
    if shown is None:
        raise FleetError(f"there is no letter {letter}: it was replayed, dropped, or is older than what is kept")
    if as_json:
        click.echo(msgspec.json.encode(shown))
    else:
        _show(shown)


@dlq.command()
@_with(_WHICH)
@click.option(
    "--ttl", "ttl_s", type=Duration(TTL_S_MAX), default=0, metavar="TIME",
    help="A new time to live from now on, also for what has expired: 90s, 30m, 24h, 7d.",
)  # fmt: skip
@click.option(
    "--per-second", type=click.FloatRange(0, min_open=True), default=None,
    help="Deliveries of an account that become due in a second; default: half of its rate_per_s, else 100.",
)  # fmt: skip
@json_option
@pass_context
def replay(context: Context, /, ttl_s: int, per_second: float | None, **given: Any) -> None:
    """Put letters back into their accounts' ledgers, each once, whoever else does the same.

    Workers decide on each anew: what was read, muted or taken back since is not sent. What has expired stays a letter
    unless --ttl gives it a new life.
    """
    as_json, dry_run = given.pop("as_json"), given["dry_run"]

    async def work(desk: LetterDesk, which: Any, progress: Callable[[int], None], limit: int) -> ReplayDone:
        return await desk.replay(
            which, ttl_s=ttl_s, per_second=per_second or 0.0, limit=limit, dry_run=dry_run, progress=progress
        )

    done = _on_letters(context, "replay", work, **given)
    if as_json:
        click.echo(json.dumps(msgspec.to_builtins(done)))
        return
    _print(f"{_number(done.replayed, 'letter')} {'would go' if dry_run else 'went'} back, with "
           f"{_number(done.deliveries, 'delivery', 'deliveries')}.")  # fmt: skip
    for why, count in done.left.items():
        _print(f"{_number(count, 'letter')} {'would stay' if dry_run else 'stayed'} ({why}): {LEFT[Left(why)]}.")
    _say_more(done.more)


@dlq.command()
@_with(_WHICH)
@json_option
@pass_context
def drop(context: Context, /, **given: Any) -> None:
    """Forget letters for good, whole ones; the books keep counting their deliveries as dead."""
    as_json, dry_run = given.pop("as_json"), given["dry_run"]

    async def work(desk: LetterDesk, which: Any, progress: Callable[[int], None], limit: int) -> DropDone:
        return await desk.drop(which, limit=limit, dry_run=dry_run, progress=progress)

    done = _on_letters(context, "drop", work, **given)
    if as_json:
        click.echo(json.dumps(msgspec.to_builtins(done)))
        return
    _print(f"{'Would drop' if dry_run else 'Dropped'} {_number(done.dropped, 'letter')}.")
    if done.gone:
        _print(f"{_number(done.gone, 'letter')}: {LEFT[Left.GONE]}.")
    _say_more(done.more)


def _on_letters(
    context: Context,
    what: str,
    work: Callable[[LetterDesk, Any, Callable[[int], None], int], Awaitable[T]],
    *,
    letters: tuple[LetterName, ...],
    everything: bool,
    limit: int | None,
    dry_run: bool,
    **given: Any,
) -> T:
    """What *work* gives for the letters that are meant, with a progress bar where somebody looks."""
    filtered = any(given.values())
    if letters and (filtered or everything):
        raise click.UsageError("name letters, or say which ones by filters, not both")
    if not (letters or filtered or everything):
        raise click.UsageError("say which: letters, filters such as --vendor and --reason, or --all")
    bar = Progress(
        TextColumn("dry run" if dry_run else what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
        console=errors, disable=not errors.is_terminal, transient=True,
    )  # fmt: skip

    async def run(desk: LetterDesk, now_ms: int) -> T:
        which = letters or _filter(given, now_ms)
        task = bar.add_task(what, total=await desk.count(which))
        return await work(desk, which, lambda looked: bar.advance(task, looked), limit or 0)

    with bar:
        return _at_desk(context, run)


def _filter(given: dict[str, Any], now_ms: int) -> LetterFilter:
    fields = {name: value or "" for name, value in given.items() if name not in ("older_s", "newer_s")}
    older_s, newer_s = given["older_s"], given["newer_s"]
    return LetterFilter(
        since_ms=now_ms - newer_s * 1000 if newer_s else 0, until_ms=now_ms - older_s * 1000 if older_s else 0, **fields
    )


def _at_desk(context: Context, work: Callable[[LetterDesk, int], Awaitable[T]]) -> T:
    """What *work* gives with a desk on the Redis of the settings, and what time it is there."""
    settings, url = context.settings, context.queue_url

    async def run() -> T:
        link = Link(url, name="pushfleet-cli")
        try:
            accounts = Accounts(settings, link, secrets=False)
            await accounts.refresh()
            seconds, micros = await link.call("TIME")
            return await work(LetterDesk(settings, link, accounts), int(seconds) * 1000 + int(micros) // 1000)
        finally:
            await link.close()

    return asyncio.run(run())


def _show(shown: LetterDetail) -> None:
    code = f"{shown.code}: {shown.code_meaning}" if shown.code_meaning else shown.code
    facts = (
        ("letter", shown.letter),
        ("since", shown_date(shown.at_ms)),
        ("app", shown.app),
        ("lane", shown.lane),
        ("reason", f"{shown.reason}: {shown.meaning}" if shown.meaning else shown.reason),
        ("code", code),
        ("problem", shown.problem),
        ("attempts", str(shown.attempts or "")),
        ("message", shown.message_id),
        ("kind", shown.kind),
        ("conversation", shown.conversation_id),
        ("sent", shown_date(shown.sent_at_ms)),
        ("expires", shown_date(shown.expires_at_ms)),
        ("payload", f"{shown.payload_bytes} bytes" if shown.payload_bytes else ""),
        ("overrides", ", ".join(shown.overrides)),
    )
    for name, value in facts:
        if value:
            _print(f"{name + ':':14}{value}")
    if shown.parcel:
        print_table(
            ("delivery", "user", "device", "token", "kind", "attempts", "unknown"),
            [
                (one.id, one.user, one.device, one.token_fingerprint, one.token_kind, one.attempts, one.unknown)
                for one in shown.parcel[:_DELIVERIES_SHOWN]
            ],
        )
    if len(shown.parcel) > _DELIVERIES_SHOWN:
        _print(f"and {len(shown.parcel) - _DELIVERIES_SHOWN} more; --json has all of them.")
    _print(shown.replay)


def _say_more(more: bool) -> None:
    if more:
        _print("The limit left some out.")


def _number(count: int, one: str, many: str = "") -> str:
    return f"{count} {one if count == 1 else many or one + 's'}"


def _print(line: str) -> None:
    console.print(line, markup=False, highlight=False, soft_wrap=True)
