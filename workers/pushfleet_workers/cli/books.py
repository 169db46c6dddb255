"""Commands that look: whether the books balance, whether the settings can work."""

from __future__ import annotations

import json
from collections.abc import Iterator

import click
import msgspec

from pushfleet_workers.audit import AccountBook, Books, read_books
from pushfleet_workers.checks import Finding, check_all
from pushfleet_workers.cli.context import Context, console, json_option, pass_context, with_link
from pushfleet_workers.cli.tables import print_table
from pushfleet_workers.cli.times import shown_date

__all__ = ["audit", "check"]


@click.command()
@json_option
@pass_context
def audit(context: Context, as_json: bool) -> None:
    """Print the books of every lane and account; exit code 1 when one does not balance."""
    settings = context.settings
    accounts = [(vendor, credential) for vendor, credential, _ in settings.each_account()]
    books = with_link(context.queue_url, lambda link: read_books(link, settings.redis.prefix, accounts))
    if as_json:
        summary = {"balanced": books.balanced, "pending": books.pending, **books.ends(), **msgspec.to_builtins(books)}
        click.echo(json.dumps(summary))
    else:
        _show(books)
    if not books.balanced:
        raise SystemExit(1)


def _show(books: Books) -> None:
    print_table(
        ("lane", "added", "present", "routed", "malformed", "balanced"),
        [
            (lane, book.added, book.present, book.routed, book.malformed, book.balanced)
            for lane, book in books.lanes.items()
        ],
        title="Ingress",
    )
    print_table(
        ("account", "put", "ready", "leased", "delayed", "ended", "dead letters", "balanced"),
        [
            (name, one.put, one.ready, one.leased, one.delayed, one.ended, one.dead_letters, one.balanced)
            for name, one in books.accounts.items()
        ],
        title="Ledger",
    )
    for name, account in books.accounts.items():
        for line in _gate(account):
            console.print(f"{name} {line}.", markup=False, highlight=False, soft_wrap=True)
    if not books.balanced and not books.pending:
        decided = sum(book.deliveries for book in books.lanes.values())
        given = sum(book.put for book in books.accounts.values())
        console.print(f"Routers decided on {decided} deliveries, the ledgers were given {given}.")
    console.print(
        "The books balance." if books.balanced else "The books do NOT balance: something is lost or counted twice."
    )


def _gate(account: AccountBook) -> Iterator[str]:
    if account.operator_pause:
        until = shown_date(account.operator_until_ms) or "it is resumed"
        reason = f": {account.operator_reason}" if account.operator_reason else ""
        yield f"is paused by an operator until {until}{reason}"
    if account.open:
        yield f"is shut: {account.pause_reason or 'by its vendor'}"


@click.command()
@json_option
@pass_context
def check(context: Context, as_json: bool) -> None:
    """Say what is wrong with settings, credentials and Redis, and how to mend it; exit code 1 for an error."""
    findings = check_all(context.settings)
    wrong = [finding for finding in findings if finding.wrong]
    if as_json:
        click.echo(json.dumps([msgspec.to_builtins(finding) for finding in findings]))
    else:
        for finding in findings:
            _show_finding(finding)
        console.print(f"{len(findings) - len(wrong)} good, {len(wrong)} to mend")
    if any(finding.level == "error" for finding in wrong):
        raise SystemExit(1)


def _show_finding(finding: Finding) -> None:
    style = {"ok": "green", "warning": "yellow", "error": "red"}[finding.level]
    console.print(f"[{style}]{finding.level:8}[/] ", end="")
    console.print(f"{finding.about}: {finding.sentence}", markup=False, highlight=False, soft_wrap=True)
