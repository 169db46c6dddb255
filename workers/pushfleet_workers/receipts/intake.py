"""What becomes of receipts that arrived: only those that are ours count; tokens first, then the record.

In that order a repeat of what failed half-way finds nothing recorded, and does the rest.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from pushfleet_workers.outcome import Outcome, Verdict
from pushfleet_workers.push import fingerprint
from pushfleet_workers.receipts.book import Entry, ReceiptBook
from pushfleet_workers.receipts.receipt import Event, Proof, Receipt
from pushfleet_workers.tokens.holders import Holders
from pushfleet_workers.vendors._answers import CHINA_DAY
from pushfleet_workers.vendors._receipts import Echo, ReceiptAccount, read_echo, receipt_keys

__all__ = ["Intake", "Taken", "TellsOfTokens"]

_AT_ONCE = 50
_FOREIGN = Echo("")


class TellsOfTokens(Protocol):
    """Who is told that a token is dead."""

    async def tell_of_token(
        self, app: str, vendor: str, credential: str, token: str, outcome: Outcome, at_ms: int
    ) -> bool:
        """Drop *token* unless it was registered since *at_ms*."""
        ...


@dataclass(frozen=True, slots=True)
class Taken:
    """What became of the receipts in a request."""

    recorded: int = 0
    repeated: int = 0
    foreign: int = 0
    """Not asked for by us: nothing that they bring back is sealed with the account's key."""


@dataclass(frozen=True, slots=True)
class _Known:
    """A receipt that is ours."""

    receipt: Receipt
    echo: Echo
    at_ms: int
    user: str = ""


class Intake:
    """Takes receipts of vendors; raises :class:`RedisUnusable` and :class:`ReplyError`, and may be repeated then."""

    def __init__(self, holders: Holders, feedback: TellsOfTokens, book: ReceiptBook, now_ms: Callable[[], int]) -> None:
        self._holders = holders
        self._feedback = feedback
        self._book = book
        self._now_ms = now_ms

    async def take(
        self, vendor: str, credential: str, account: ReceiptAccount, receipts: Iterable[Receipt], proof: Proof
    ) -> Taken:
        """Tell the token state what *receipts* say of devices, and record them.

        Where the vendor proved itself, a receipt counts without an echo of ours: it is of a push that others sent, or
        that we sent before the account asked for receipts.
        """
        known, foreign = self._ours(f"{vendor}/{credential}", account, receipts, proof)
        known = await self._with_users(account.app, vendor, known)
        for start in range(0, len(known), _AT_ONCE):
            await asyncio.gather(
                *(self._tell(account.app, vendor, credential, one) for one in known[start : start + _AT_ONCE])
            )
        recorded = await self._book.record(account.app, [_entry(vendor, credential, one) for one in known])
        return Taken(recorded, len(known) - recorded, foreign)

    def _ours(
        self, name: str, account: ReceiptAccount, receipts: Iterable[Receipt], proof: Proof
    ) -> tuple[list[_Known], int]:
        keys, now_ms = receipt_keys(account), self._now_ms()
        known, foreign = [], 0
        for receipt in receipts:
            echo = read_echo(keys, name, receipt.echo)
            if echo is None and proof is not Proof.SIGNED:
                foreign += 1
                continue
            at_ms = min(receipt.at_ms, now_ms) or now_ms
            known.append(_Known(receipt, echo or _FOREIGN, at_ms))
        return known, foreign

    async def _with_users(self, app: str, vendor: str, known: Sequence[_Known]) -> list[_Known]:
        users = await self._holders.users(app, vendor, [(one.receipt.token, one.at_ms) for one in known])
        return [_Known(one.receipt, one.echo, one.at_ms, user) for one, user in zip(known, users, strict=True)]

    async def _tell(self, app: str, vendor: str, credential: str, one: _Known) -> None:
        receipt = one.receipt
        if receipt.event is Event.DEAD:
            dead = Outcome(Verdict.DROP_TOKEN, code=receipt.code, since_ms=receipt.at_ms or None)
            await self._feedback.tell_of_token(app, vendor, credential, receipt.token, dead, one.at_ms)
        elif not one.user:
            return
        elif receipt.event is Event.MUTED:
            await self._holders.mute(app, one.user, vendor, receipt.token, one.at_ms)
        elif receipt.event is Event.QUOTA and one.echo is not _FOREIGN and not one.echo.public:
            # A cap on marketing says nothing of chats: only one that a chat met closes the channel.
            until_ms = int(CHINA_DAY.next_ms(one.at_ms))
            await self._holders.pass_over(app, one.user, vendor, receipt.token, one.at_ms, until_ms)


def _entry(vendor: str, credential: str, one: _Known) -> Entry:
    receipt, echo = one.receipt, one.echo
    return Entry(
        receipt.event,
        one.at_ms,
        vendor,
        credential,
        receipt.code,
        echo.message_id,
        echo.digest,
        one.user,
        token=fingerprint(receipt.token),
        send_id=receipt.send_id,
    )
