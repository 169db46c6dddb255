"""Posts what became of an app's dead tokens to the address that the app names, signed, in order, until it is taken."""

from __future__ import annotations

import asyncio
import hmac
import logging
import random
from collections.abc import Callable, Sequence

import httpx
import msgspec
from prometheus_client import Counter

from pushfleet_workers.errors import RedisUnusable
from pushfleet_workers.lease import Lease
from pushfleet_workers.redis_link import Link, ReplyError
from pushfleet_workers.tokens.death_log import START, DeathLog, DeathTold, log_key
from pushfleet_workers.tokens.tombstones import LIFE_S

__all__ = ["WEBHOOK_REQUESTS", "DeathWebhook", "signature"]

log = logging.getLogger(__name__)

DEATHS_MAX = 100
"""Most deaths in one request."""

_IDLE_S = 1.0
_FIRST_WAIT_S = 1.0
_LONGEST_WAIT_S = 300.0
_TIMEOUT_S = 10.0

WEBHOOK_REQUESTS = Counter(
    "pushfleet_death_webhook_requests", "Requests to apps' webhooks of dead tokens.", ["app", "result"]
)


def signature(secret: str, timestamp: str, body: bytes) -> str:
    """HMAC-SHA256 in hexadecimal of timestamp, dot and body."""
    return hmac.digest(secret.encode(), timestamp.encode() + b"." + body, "sha256").hex()


class DeathWebhook:
    """One app's webhook. What was not taken is sent again, with ever longer waits; nothing overtakes it.

    * **link** - the Redis of the token state, where it is kept how far the webhook has got.
    * **lease** - held by the one process of the fleet that sends.
    """

    def __init__(
        self,
        link: Link,
        prefix: str,
        app: str,
        url: str,
        secret: str,
        *,
        deaths: DeathLog,
        lease: Lease,
        now_ms: Callable[[], int],
    ) -> None:
        self._link = link
        self._app = app
        self._url = url
        self._secret = secret
        self._log = deaths
        self._lease = lease
        self._now_ms = now_ms
        self._sent_key = f"{log_key(prefix, app)}:sent"
        self._failures = 0

    async def run(self) -> None:
        """Send until cancelled, while the lease is ours."""
        # A redirect would carry the deaths to where nobody configured.
        async with httpx.AsyncClient(timeout=_TIMEOUT_S, follow_redirects=False) as client:
            while True:
                wait_s = _IDLE_S
                try:
                    if self._lease.holds:
                        wait_s = await self.step(client)
                except (RedisUnusable, ReplyError) as problem:
                    log.warning("the webhook of app %s does not know what to send: %s", self._app, problem)
                await asyncio.sleep(wait_s)

    async def step(self, client: httpx.AsyncClient) -> float:
        """Send what comes next, if anything; how long to wait before the next step. Raises :class:`RedisUnusable`."""
        sent = await self._link.call("GET", self._sent_key)
        cursor = sent.decode() if sent is not None else START
        deaths, reached = await self._log.after(self._app, cursor, DEATHS_MAX)
        if reached == cursor:
            return _IDLE_S
        if deaths and (refusal := await self._post(client, deaths)):
            self._failures += 1
            WEBHOOK_REQUESTS.labels(self._app, "failed").inc()
            wait_s = min(_LONGEST_WAIT_S, _FIRST_WAIT_S * 2.0 ** (self._failures - 1)) * random.uniform(0.5, 1)  # noqa: S311
            log.warning("the webhook of app %s did not take %d deaths: %s", self._app, len(deaths), refusal)
            return wait_s
        if deaths:
            self._failures = 0
            WEBHOOK_REQUESTS.labels(self._app, "taken").inc()
        await self._link.call("SET", self._sent_key, reached, "EX", LIFE_S)
        return 0.0

    async def _post(self, client: httpx.AsyncClient, deaths: Sequence[DeathTold]) -> str:
        """Why it was not taken; empty when it was."""
        body = msgspec.json.encode({"app": self._app, "deaths": deaths})
        timestamp = str(self._now_ms() // 1000)
        headers = {
            "Content-Type": "application/json",
            "Pushfleet-Timestamp": timestamp,
            "Pushfleet-Signature": f"sha256={signature(self._secret, timestamp, body)}",
        }
        try:
            # Its body is not asked for: whatever it is, it is not read.
            async with client.stream("POST", self._url, content=body, headers=headers) as answer:
                status = answer.status_code
        except (httpx.HTTPError, httpx.InvalidURL) as problem:
            # Not its text: it may quote the address, and with it a password.
            return type(problem).__name__
        return "" if 200 <= status < 300 else f"status {status}"
