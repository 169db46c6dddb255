"""The command that sends one push by itself."""

from __future__ import annotations

import asyncio
import json
import secrets
from typing import get_args

import click
import msgspec

from pushfleet.errors import InvalidMessage
from pushfleet.message import Kind, OfflineMessage, OfflinePush, Target
from pushfleet_workers import registry
from pushfleet_workers.cli.context import Context, console, json_option, pass_context
from pushfleet_workers.single_send import send_one

__all__ = ["send"]


@click.command()
@click.option("--vendor", required=True, help="The vendor to send through.")
@click.option("--credential", default="main", show_default=True, help="Which of the vendor's accounts.")
@click.option("--token", required=True, help="The device's push token; it is never shown in full.")
@click.option("--token-kind", type=click.Choice(["alert", "voip", "fid"]), default="alert", show_default=True,
              help="What kind of token it is, for vendors that have several.")  # fmt: skip
@click.option("--title", required=True, help="Title of the push.")
@click.option("--body", default="", help="Text of the push.")
@click.option("--kind", type=click.Choice(get_args(Kind)), default="chat", show_default=True,
              help="Kind of message: decides class, sound and time to live.")  # fmt: skip
@click.option("--ext", default="", help="Data for the app.")
@click.option("--badge", type=click.IntRange(0, 1_000_000), help="Number on the app's icon; absent: left as it is.")
@click.option("--ttl", "ttl_s", type=click.IntRange(0, 2_419_200), help="Seconds for which it makes sense.")
@click.option("--replace-key", help="What it replaces on screen has the same one.")
@json_option
@pass_context
def send(
    context: Context,
    vendor: str,
    credential: str,
    token: str,
    token_kind: str,
    title: str,
    body: str,
    kind: Kind,
    ext: str,
    badge: int | None,
    ttl_s: int | None,
    replace_key: str | None,
    as_json: bool,
) -> None:
    """Send one push for real, past router and ledger, and explain the vendor's answer in a sentence.

    Only the account's settings and its authorization are used: no limit, no retry, no book, no device state. The exit
    code is 0 when the vendor takes the push, 1 when it refuses it, 2 when it was not asked or did not answer.
    """
    registry.load(vendor)
    try:
        message = OfflineMessage(
            id=f"send-{secrets.token_hex(8)}",
            app="send",
            kind=kind,
            targets=(Target(vendor=vendor, credential=credential, token=token),),
            title=title,
            body=body,
            offline_push=OfflinePush(ext=ext) if ext else None,
            ttl_s=ttl_s,
            replace_key=replace_key,
        )
    except ValueError as problem:
        raise InvalidMessage(str(problem)) from None
    badge = -1 if badge is None else badge
    sent = asyncio.run(send_one(context.settings, vendor, credential, message, badge=badge, token_kind=token_kind))
    if as_json:
        click.echo(json.dumps(msgspec.to_builtins(sent)))
    else:
        console.print(sent.sentence, markup=False, highlight=False, soft_wrap=True)
    if not sent.accepted:
        raise SystemExit(1)
