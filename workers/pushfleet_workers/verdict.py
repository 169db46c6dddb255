"""Why a user would get a push now, or would not: the router's decision for each of their devices, explained. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pushfleet.message import Kind, Recipient
from pushfleet_workers.decision import reach, refuse_hour, refuse_receiver
from pushfleet_workers.reasons import SUPPRESSED
from pushfleet_workers.tokens.lookup import UserState
from pushfleet_workers.tokens.record import Channel

__all__ = ["Verdict", "verdicts"]

_PARKED = "; the push waits, and goes unless the backend confirms in time that the device has the message"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What would become of a push to one device now."""

    channel: Channel | None
    """The channel by which it would go; None where it would not."""

    reason: str = ""
    """Why it would not, one of :data:`pushfleet_workers.reasons.SUPPRESSED`; empty where it would."""

    parked: bool = False
    """It would wait: it goes unless the backend confirms that the device has the message."""

    @property
    def sentence(self) -> str:
        """The reason in words; empty where it would go."""
        if not self.reason:
            return ""
        return SUPPRESSED[self.reason].sentence + (_PARKED if self.parked else "")


def verdicts(
    state: UserState,
    app: str,
    user: str,
    now_ms: int,
    takes: Callable[[str, str, str], bool],
    *,
    kind: Kind = "chat",
    mention: bool = False,
    unused_ms: int = 0,
    parks: bool = False,
) -> dict[str, Verdict]:
    """The verdict on each device of *user* as the router would decide now, by installation id.

    * **state** - the user's devices and preferences, looked up for the conversation that is asked about.
    * **takes** - whether a vendor's credential (the first two) is an account of the app (the third).
    * **mention** - whether the message would mention the user.
    * **unused_ms** - the app's, see :func:`pushfleet_workers.decision.refuse_device`.
    * **parks** - whether the app parks what goes to the foreground.

    What a message itself may forbid (online only, expired, without text) is not asked.
    """
    recipient = Recipient(id=user, mention=mention)
    refusal = refuse_receiver(kind, recipient, state.receive_at(now_ms), state.preferences)
    found = {}
    for name, device in state.devices.items():
        quiet = refuse_hour(kind, recipient, state.preferences, device.time_zone, now_ms)
        reached = refusal or quiet or reach(device, app, kind, now_ms, takes, unused_ms=unused_ms)
        parked = parks and reached == "foreground"
        if parked:
            # Without a channel it would not go later either.
            beyond = reach(device, app, kind, now_ms, takes, unused_ms=unused_ms, forced=True)
            parked = not isinstance(beyond, str)
        found[name] = Verdict(None, reached, parked) if isinstance(reached, str) else Verdict(reached)
    return found
