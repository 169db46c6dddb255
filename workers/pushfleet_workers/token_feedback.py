"""What vendors say of devices, told to the token state."""

from __future__ import annotations

from pushfleet_workers.outcome import Outcome, Verdict
from pushfleet_workers.push import Delivery
from pushfleet_workers.tokens.store import TokenStore

__all__ = ["TokenFeedback"]


class TokenFeedback:
    """The courier's way to the token state."""

    def __init__(self, store: TokenStore) -> None:
        self._store = store

    async def tell(self, app: str, delivery: Delivery, outcome: Outcome) -> None:
        """Drop the token or mute the device that *delivery* went to, if the news is not out of date.

        A device that was addressed directly is in no registry; other verdicts tell nothing of the device. Raises
        :class:`RedisUnusable`.
        """
        if not delivery.user:
            return
        registered_at_ms = delivery.registered_at_ms
        if outcome.verdict is Verdict.MUTE_DEVICE:
            await self._store.mute_device(app, delivery.user, delivery.device, registered_at_ms)
        elif outcome.verdict is Verdict.DROP_TOKEN:
            await self._store.drop_token(
                app, delivery.user, delivery.device, delivery.token, registered_at_ms, outcome.since_ms
            )
