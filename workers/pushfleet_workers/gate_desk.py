"""What operators do with accounts: see what shuts them, pause them, let them go on."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import Annotated, Literal

from msgspec import Meta, Struct

from pushfleet_workers.audit import accounts_key
from pushfleet_workers.credential_store import Accounts
from pushfleet_workers.distrust import certificate_sentence
from pushfleet_workers.ledger import AccountKeys
from pushfleet_workers.ledger.pause import GateState, OperatorPause, pause, read_gate, resume
from pushfleet_workers.ledger.waiting import hasten
from pushfleet_workers.redis_link import Link

__all__ = ["PAUSE_S_MAX", "REASON_CHARS_MAX", "AccountState", "GateDesk", "gate_sentence"]

log = logging.getLogger(__name__)

PAUSE_S_MAX = 366 * 86_400
REASON_CHARS_MAX = 200


class AccountState(Struct, frozen=True, kw_only=True):
    """How an account stands."""

    vendor: str
    credential: str
    app: Annotated[str, Meta(description="Empty for an account that is gone.")]
    state: Annotated[
        Literal["open", "paused", "shut"],
        Meta(description="`paused`: by an operator. `shut`: by the vendor, or its breaker is open."),
    ]
    gate: GateState


class GateDesk:
    """The accounts' gates in the hands of operators; every method raises :class:`RedisUnusable` and may be repeated.

    * **link** - the Redis of the queue.
    * **accounts** - all that there are; accounts that routers knew before are looked at as well.
    """

    def __init__(self, link: Link, prefix: str, accounts: Accounts) -> None:
        self._link = link
        self._prefix = prefix
        self._accounts = accounts

    async def states(self, vendor: str = "", credential: str = "") -> list[AccountState]:
        """How the accounts stand: all of them, those of *vendor*, or one."""
        return [
            await self._state(keys)
            for keys in await self._all()
            if vendor in ("", keys.vendor) and credential in ("", keys.credential)
        ]

    async def pause(
        self, vendor: str, credential: str = "", *, for_s: int = 0, reason: str = "", elsewhere: bool = False
    ) -> list[AccountState]:
        """Pause the accounts of *vendor*, or one of them; how they stand then. None: there is no such account.

        * **for_s** - after so long they go on; 0: once they are resumed.
        * **elsewhere** - whether what waits goes by its devices' other channels.
        """
        named = await self._named(vendor, credential)
        for keys in named:
            await pause(self._link, keys, span_ms=for_s * 1000, reason=reason[:REASON_CHARS_MAX], elsewhere=elsewhere)
            log.info("account %s:%s is paused by an operator", keys.vendor, keys.credential)
        return [await self._state(keys) for keys in named]

    async def resume(self, vendor: str, credential: str = "", *, force: bool = False) -> list[AccountState]:
        """Let them go on; how they stand then. None: there is no such account.

        * **force** - past what the vendor asked for as well; what was put off because of that is due at once.
        """
        named = await self._named(vendor, credential)
        for keys in named:
            if await resume(self._link, keys, force=force):
                log.info("account %s:%s is resumed by an operator", keys.vendor, keys.credential)
            due = await hasten(self._link, keys) if force else 0
            if due:
                log.info("%d deliveries that the vendor put off are due for %s:%s", due, keys.vendor, keys.credential)
        return [await self._state(keys) for keys in named]

    async def _named(self, vendor: str, credential: str) -> list[AccountKeys]:
        """Those of *vendor*, or one of them: never all that there are."""
        return [keys for keys in await self._all() if keys.vendor == vendor and credential in ("", keys.credential)]

    async def _all(self) -> list[AccountKeys]:
        known = await self._link.call("SMEMBERS", accounts_key(self._prefix))
        names = {*self._accounts.apps, *(tuple(name.decode().split(":", 1)) for name in known)}
        return [AccountKeys(self._prefix, *name) for name in sorted(names)]

    async def _state(self, keys: AccountKeys) -> AccountState:
        gate = await read_gate(self._link, keys)
        return AccountState(
            vendor=keys.vendor,
            credential=keys.credential,
            app=self._accounts.apps.get((keys.vendor, keys.credential), ""),
            state="paused" if gate.operator is not None else "shut" if gate.shut else "open",
            gate=gate,
        )


def gate_sentence(gate: GateState) -> str:
    """Why nothing leaves an account, or some of it, for operators; empty where all of it is open."""
    parts = [_operator(gate.operator)] if gate.operator is not None else []
    told = ": ".join(part for part in (gate.reason, certificate_sentence(gate.reason)) if part)
    why = f" ({told})" if told else ""
    if gate.vendor_until_ms:
        parts.append(f"paused by the vendor until {_time(gate.vendor_until_ms)}{why}")
    if gate.breaker_until_ms:
        parts.append(f"breaker open, next probe {_time(gate.breaker_until_ms)}{why}")
    parts += [f"kind {kind} paused until {_time(at_ms)}" for kind, at_ms in gate.kinds_until_ms.items()]
    return "; ".join(parts)


def _operator(operator: OperatorPause) -> str:
    until = f"until {_time(operator.until_ms)}" if operator.until_ms else "until resumed"
    way = ", its work goes by other channels" if operator.elsewhere else ""
    reason = f": {operator.reason}" if operator.reason else ""
    return f"paused by an operator since {_time(operator.since_ms)} {until}{way}{reason}"


def _time(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
