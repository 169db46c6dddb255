"""An account's authorization and its renewal: one for the whole fleet, made or fetched by one process at a time.

It lies in the account's Redis hash until shortly before it expires; a lock there makes renewal single-flight.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

from pushfleet_workers.clock import FleetClock
from pushfleet_workers.errors import Distrusted, NoAnswer, RedisUnusable
from pushfleet_workers.lease import Lease
from pushfleet_workers.outcome import Outcome, Scope, Verdict
from pushfleet_workers.redis_link import Link, LinkLost
from pushfleet_workers.vendor import AuthAnswer, Request, Response, Vendor

__all__ = ["UNREACHABLE_CODE", "AuthRefused", "Authorization"]

log = logging.getLogger(__name__)

_RENEW_AT = 0.8
"""Part of its life after which an authorization is renewed."""

_LOCK_S = 3.0
"""After which others go on where the process that renews one has died."""

_POLL_S = 0.1
_OLD_MS = 5_000
"""How long the old authorization is used on before another try to renew it."""

_REFUSAL_MS = 86_400_000
"""How long operators can see that there was none."""

UNREACHABLE_CODE = "auth_unreachable"
"""Nobody answered who could have given or refused an authorization."""


class AuthRefused(Exception):
    """There is no authorization now; ``.outcome`` says what that means for the deliveries that wait for it."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(outcome)
        self.outcome = outcome


class Authorization:
    """The authorization of one account in one process.

    * **link** - where the fleet keeps it; None: this process obtains one of its own and shares it with nobody.
    * **root** - what its keys in Redis begin with: the account's own, or that of all who are the same caller.
    * **fetch** - sends a request off the hot path; raises :class:`NoAnswer`.
    """

    def __init__(
        self,
        vendor: Vendor,
        account: Any,
        link: Link | None,
        root: str,
        clock: FleetClock,
        fetch: Callable[[Request], Awaitable[Response]],
    ) -> None:
        self._vendor = vendor
        self._account = account
        self._link = link
        self._key = f"{root}:auth"
        self._lock_key = f"{root}:auth:lock"
        self._lock = Lease(link, self._lock_key, life_s=_LOCK_S) if link is not None else None
        self._clock = clock
        self._fetch = fetch
        self._value = ""
        self._renew_at_ms = 0.0
        self._expires_at_ms = 0.0
        self._rests_until_ms = 0.0
        self._refusal: Outcome | None = None
        self._refused_at = 0.0
        self._renewing = asyncio.Lock()

    def current(self) -> str:
        """The authorization if it is good for a while; empty when :meth:`obtain` must be awaited."""
        return self._value if self._clock.now_ms() < self._renew_at_ms else ""

    async def obtain(self) -> str:
        """A good authorization, from this process, the fleet, or the vendor.

        Raises :class:`AuthRefused` with what it means for what waits; one refusal counts for all that waited for it.
        """
        asked_at = time.monotonic()
        async with self._renewing:
            while not self.current() and not await self._from_fleet():
                if self._refusal is not None and self._refused_at >= asked_at:
                    raise AuthRefused(self._refusal)
                if await self._locked():
                    async with self._lock.kept() if self._lock is not None else contextlib.nullcontext():
                        await self._renew()
                    break
                if self._keep_old():
                    break
                await asyncio.sleep(_POLL_S)
            return self._value

    async def reject(self, value: str) -> None:
        """The vendor refused *value*: this process and those that have none yet do not use it again.

        Those that have it learn from the refusal of their own. One that is younger than the vendor wants its
        successor to be stays: a new one would be refused for coming too early.
        """
        if self._value == value:
            if self._clock.now_ms() < self._rests_until_ms:
                return
            self._renew_at_ms = 0.0
            self._value = ""
        if self._link is None:
            return
        stored = await self._link.call("HGET", self._key, "value")
        if stored is not None and stored.decode() == value:
            await self._link.call("DEL", self._key)

    async def _from_fleet(self) -> bool:
        if self._link is None:
            return False
        value, *times = await self._link.call(
            "HMGET", self._key, "value", "renew_at_ms", "expires_at_ms", "rests_until_ms"
        )
        if value is None:
            return False
        self._value = value.decode()
        self._renew_at_ms, self._expires_at_ms, self._rests_until_ms = (float(time or 0) for time in times)
        return bool(self.current())

    async def _locked(self) -> bool:
        """Whether it is for this process to renew it."""
        if self._lock is None:
            return True
        try:
            return await self._lock.renew()
        except LinkLost:
            raise
        except RedisUnusable:
            # A full server takes no lock; without an authorization it would never drain.
            return True

    def _keep_old(self) -> bool:
        """Whether the old authorization is good for a little longer, while nobody gets a new one."""
        now_ms = self._clock.now_ms()
        if not self._value or now_ms >= self._expires_at_ms - _OLD_MS:
            return False
        self._renew_at_ms = now_ms + _OLD_MS
        return True

    async def _renew(self) -> None:
        now_ms = self._clock.now_ms()
        answer = await self._ask(now_ms / 1000)
        if answer.failure is not None:
            if self._keep_old():
                log.warning("the authorization of %s was not renewed (%s)", self._vendor.name, answer.failure.code)
                return
            # Whatever the answer was, no push was in it.
            refusal = replace(answer.failure, unknown=False)
            self._refusal, self._refused_at = refusal, time.monotonic()
            await self._tell_refusal(refusal.code, now_ms)
            raise AuthRefused(refusal)
        self._value = answer.value
        self._renew_at_ms = now_ms + answer.life_s * _RENEW_AT * 1000
        self._expires_at_ms = now_ms + answer.life_s * 1000
        self._rests_until_ms = now_ms + answer.rest_s * 1000
        if not answer.shared or self._link is None:
            return
        await self._link.pipeline(
            [
                ("HDEL", self._key, "refused", "refused_at_ms"),
                ("HSET", self._key, "value", self._value, "renew_at_ms", self._renew_at_ms,
                 "expires_at_ms", self._expires_at_ms, "rests_until_ms", self._rests_until_ms),
                ("PEXPIRE", self._key, max(1, int(answer.life_s * 1000))),
            ]
        )  # fmt: skip

    async def _tell_refusal(self, code: str, now_ms: float) -> None:
        """Leave word for operators why there is none."""
        if self._link is None or code == UNREACHABLE_CODE:
            return
        with contextlib.suppress(RedisUnusable):
            await self._link.pipeline(
                [
                    ("DEL", self._key),
                    ("HSET", self._key, "refused", code, "refused_at_ms", now_ms),
                    ("PEXPIRE", self._key, _REFUSAL_MS),
                ]
            )

    async def _ask(self, now_s: float) -> AuthAnswer:
        try:
            minted = self._vendor.mint(self._account, now_s)
            if minted is not None:
                return minted
            return self._vendor.read_auth(await self._fetch(self._vendor.auth_request(self._account, now_s)))
        except Distrusted as problem:
            return AuthAnswer(failure=Outcome(Verdict.RETRY, Scope.ACCOUNT, code=f"auth_{problem.code}"))
        except NoAnswer:
            return AuthAnswer(failure=Outcome(Verdict.RETRY, Scope.ACCOUNT, code=UNREACHABLE_CODE))
        except Exception as problem:  # noqa: BLE001 - a credential or a vendor module is at fault: the account waits
            code = type(problem).__name__
            return AuthAnswer(failure=Outcome(Verdict.MISCONFIGURED, Scope.ACCOUNT, code=code))
