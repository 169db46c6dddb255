"""An account's authorization and its renewal: one for the whole fleet, made or fetched by one process at a time.

It lies in the account's Redis hash until shortly before it expires; a lock there makes renewal single-flight.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Awaitable, Callable
from typing import Any

from pushfleet_workers.clock import FleetClock
from pushfleet_workers.errors import CredentialError, NoAnswer, RedisUnusable
from pushfleet_workers.ledger.keys import AccountKeys
from pushfleet_workers.outcome import Outcome, Scope, Verdict
from pushfleet_workers.redis_link import Link
from pushfleet_workers.vendor import AuthAnswer, Request, Response, Vendor

__all__ = ["AuthRefused", "Authorization"]

_RENEW_AT = 0.8
"""Part of its life after which an authorization is renewed."""

_LOCK_MS = 20_000
_POLL_S = 0.1


class AuthRefused(Exception):
    """There is no authorization now; ``.outcome`` says what that means for the deliveries that wait for it."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(outcome)
        self.outcome = outcome


class Authorization:
    """The authorization of one account in one process.

    * **fetch** - sends a request off the hot path; raises :class:`NoAnswer`.
    """

    def __init__(
        self,
        vendor: Vendor,
        account: Any,
        link: Link,
        keys: AccountKeys,
        clock: FleetClock,
        fetch: Callable[[Request], Awaitable[Response]],
    ) -> None:
        self._vendor = vendor
        self._account = account
        self._link = link
        self._key = f"{keys.root}:auth"
        self._lock_key = f"{keys.root}:auth:lock"
        self._clock = clock
        self._fetch = fetch
        self._value = ""
        self._renew_at_ms = 0.0
        self._renewing = asyncio.Lock()

    def current(self) -> str:
        """The authorization if it is good for a while; empty when :meth:`obtain` must be awaited."""
        return self._value if self._clock.now_ms() < self._renew_at_ms else ""

    async def obtain(self) -> str:
        """A good authorization, from this process, the fleet, or the vendor.

        Raises :class:`AuthRefused` with what it means for what waits.
        """
        async with self._renewing:
            while not self.current():
                if await self._from_fleet():
                    break
                if await self._locked():
                    try:
                        await self._renew()
                    finally:
                        with contextlib.suppress(RedisUnusable):
                            await self._link.call("DEL", self._lock_key)
                else:
                    await asyncio.sleep(_POLL_S)
            return self._value

    async def reject(self, value: str) -> None:
        """The vendor refused *value*: nobody in the fleet may use it again."""
        if self._value == value:
            self._renew_at_ms = 0.0
            self._value = ""
        stored = await self._link.call("HGET", self._key, "value")
        if stored is not None and stored.decode() == value:
            await self._link.call("DEL", self._key)

    async def _from_fleet(self) -> bool:
        value, renew_at = await self._link.call("HMGET", self._key, "value", "renew_at_ms")
        if value is None or float(renew_at) <= self._clock.now_ms():
            return False
        self._value, self._renew_at_ms = value.decode(), float(renew_at)
        return True

    async def _locked(self) -> bool:
        nonce = secrets.token_hex(8)
        return await self._link.call("SET", self._lock_key, nonce, "NX", "PX", _LOCK_MS) is not None

    async def _renew(self) -> None:
        now_ms = self._clock.now_ms()
        answer = await self._ask(now_ms / 1000)
        if answer.failure is not None:
            raise AuthRefused(answer.failure)
        self._value = answer.value
        self._renew_at_ms = now_ms + answer.life_s * _RENEW_AT * 1000
        await self._link.pipeline(
            [
                ("HSET", self._key, "value", self._value, "renew_at_ms", self._renew_at_ms),
                ("PEXPIRE", self._key, max(1, int(answer.life_s * 1000))),
            ]
        )

    async def _ask(self, now_s: float) -> AuthAnswer:
        try:
            minted = self._vendor.mint(self._account, now_s)
            if minted is not None:
                return minted
            request = self._vendor.auth_request(self._account, now_s)
        except (CredentialError, OSError, ValueError) as problem:
            code = type(problem).__name__
            return AuthAnswer(failure=Outcome(Verdict.MISCONFIGURED, Scope.ACCOUNT, code=code))
        try:
            return self._vendor.read_auth(await self._fetch(request))
        except NoAnswer:
            return AuthAnswer(failure=Outcome(Verdict.RETRY, Scope.ACCOUNT, code="auth_unreachable"))
