"""What shuts one account's gate, and an operator's hand on it."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct, json

from pushfleet_workers.ledger.keys import AccountKeys
from pushfleet_workers.redis_link import Link
from pushfleet_workers.scripts import load

__all__ = ["UNTIL_RESUMED_MS", "GateState", "OperatorPause", "pause", "read_gate", "resume"]

UNTIL_RESUMED_MS = 253_402_300_799_999
"""The end of a pause that has none."""

_PAUSE = load("pushfleet_workers.ledger", "pause", preamble="common")
_RESUME = load("pushfleet_workers.ledger", "resume", preamble="common")


class OperatorPause(Struct, frozen=True, kw_only=True):
    """An operator's pause of an account."""

    since_ms: int
    until_ms: Annotated[int, Meta(description="0: until it is resumed.")]
    reason: str
    elsewhere: Annotated[bool, Meta(description="Whether deliveries go by their devices' other channels meanwhile.")]


class GateState(Struct, frozen=True, kw_only=True):
    """Why nothing leaves an account, or some of it."""

    operator: Annotated[OperatorPause | None, Meta(description="The operator's pause; null: there is none.")]
    vendor_until_ms: Annotated[int, Meta(description="Until when the vendor asked for a pause; 0: it did not.")]
    breaker_until_ms: Annotated[
        int, Meta(description="The breaker is open: when its next probe goes; 0: it is closed.")
    ]
    reason: Annotated[str, Meta(description="Why vendor or breaker shut it, in the vendor's own code.")]
    kinds_until_ms: Annotated[
        dict[str, int], Meta(description="Kinds of messages that the vendor does not take, until when.")
    ]

    @property
    def shut(self) -> bool:
        """Whether nothing leaves by the vendor's word, an operator left aside."""
        return bool(self.vendor_until_ms or self.breaker_until_ms)


async def pause(link: Link, keys: AccountKeys, *, span_ms: int, reason: str, elsewhere: bool) -> None:
    """Claim nothing of the account any more, for *span_ms*, or until it is resumed where that is 0.

    * **elsewhere** - whether what waits goes by its devices' other channels, as when the vendor shuts the account.
    """
    await link.run(_PAUSE, (keys.gate,), (span_ms, reason, int(elsewhere)))


async def resume(link: Link, keys: AccountKeys, *, force: bool) -> bool:
    """End an operator's pause; whether there was one.

    * **force** - end also what the vendor asked for, and let the breaker's next probe go at once.
    """
    return bool(await link.run(_RESUME, (keys.gate,), (int(force),)))


async def read_gate(link: Link, keys: AccountKeys) -> GateState:
    """How the account's gate stands."""
    (seconds, micros), values = await link.pipeline(
        [
            ("TIME",),
            (
                "HMGET", keys.gate, "operator_until", "operator_since", "operator_reason", "operator_elsewhere",
                "pause_until", "open_until", "pause_reason", "classes",
            ),
        ]
    )  # fmt: skip
    now_ms = int(seconds) * 1000 + int(micros) // 1000
    until, since, why, elsewhere, paused, opened, reason, classes = values
    until_ms = int(until or 0)
    operator = None
    if until_ms > now_ms:
        operator = OperatorPause(
            since_ms=int(since or 0),
            until_ms=until_ms if until_ms < UNTIL_RESUMED_MS else 0,
            reason=(why or b"").decode(errors="replace"),
            elsewhere=elsewhere == b"1",
        )
    vendor_until_ms = int(float(paused or 0))
    breaker_until_ms = int(float(opened or 0))
    shut = vendor_until_ms > now_ms or breaker_until_ms > 0
    kinds: dict[str, float] = json.decode(classes) if classes else {}
    return GateState(
        operator=operator,
        vendor_until_ms=vendor_until_ms if vendor_until_ms > now_ms else 0,
        breaker_until_ms=breaker_until_ms,
        reason=(reason or b"").decode(errors="replace") if shut else "",
        kinds_until_ms={kind: int(at_ms) for kind, at_ms in sorted(kinds.items()) if at_ms > now_ms},
    )
