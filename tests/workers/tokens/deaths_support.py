"""A fleet's token feedback on a real Redis: devices, an account's books, and what was told."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from tests.workers.tokens.support import APP, NOW_MS, PREFIX, Stage, a_registration

from pushfleet_workers.ledger import AccountKeys
from pushfleet_workers.outcome import Outcome, Verdict
from pushfleet_workers.push import Delivery
from pushfleet_workers.settings import DeathsSettings
from pushfleet_workers.token_feedback import TokenFeedback
from pushfleet_workers.tokens.death_log import START, DeathTold
from pushfleet_workers.tokens.death_watch import DeathWatch
from pushfleet_workers.tokens.deaths import Deaths
from pushfleet_workers.tokens.record import Device

ACCOUNT = ("apns", "main")
DEAD = Outcome(Verdict.DROP_TOKEN, code="Unregistered")
DATED = Outcome(Verdict.DROP_TOKEN, code="Unregistered", since_ms=NOW_MS + 1)
DOUBTFUL = Outcome(Verdict.DROP_TOKEN, code="BadDeviceToken", doubtful=True)
OK = Outcome(Verdict.OK)


class Hall(Stage):
    """A stage with the feedback of a worker, and small limits."""

    def __init__(self, url: str, **limits: Any) -> None:
        super().__init__(url)
        self.limits = DeathsSettings(**{"guard_floor": 3, "confirm_accepted": 5, "confirm_share": 0.2, **limits})
        self.deaths = Deaths(self.link, PREFIX, self.limits, lambda: self.now_ms)
        self.watch = DeathWatch(self.link, PREFIX, self.limits)
        self.feedback = TokenFeedback(self.link, self.link, PREFIX, self.limits, lambda: self.now_ms)

    async def register(self, user: str, *tokens: str, device: str = "d1") -> None:
        await self.store.register(APP, user, device, a_registration(*tokens, at_ms=NOW_MS))

    async def accept(self, count: int) -> None:
        """The vendor accepts pushes of the account, as its books have it."""
        await self.link.call("HINCRBY", AccountKeys(PREFIX, *ACCOUNT).books, "end:normal:sent:", count)

    async def answer(self, *answers: tuple[str, str, Outcome]) -> None:
        """One answer of the vendor: user, token, outcome."""
        deliveries = [Delivery(b"x" * 16, user, "d1" if user else "", token, NOW_MS) for user, token, _ in answers]
        await self.feedback.tell(*ACCOUNT, APP, deliveries, [outcome for *_, outcome in answers])

    async def told(self) -> list[DeathTold]:
        return (await self.deaths.log.after(APP, START, 10_000))[0]

    async def fates(self) -> list[tuple[str, str]]:
        """User and fate of everything that was told, in order."""
        return [(one.user, one.fate.value) for one in await self.told()]

    async def until(self, user: str = "ann") -> list[int]:
        """Until when the user's channels are passed over."""
        device: Device = await self.device(user)
        return [channel.quarantined_until_ms for channel in device.channels]


def in_hall(url: str, scenario: Callable[[Hall], Awaitable[None]], **limits: Any) -> None:
    async def run() -> None:
        hall = Hall(url, **limits)
        try:
            await scenario(hall)
        finally:
            for link in hall.links:
                await link.close()

    asyncio.run(run())
