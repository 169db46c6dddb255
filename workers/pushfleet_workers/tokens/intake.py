"""What is wrong with a registration that its shape does not show: the clock, the settings and the vendor know.

The same for the API and for an import. Nothing that was given is repeated: tokens are among it.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from pushfleet_workers import registry
from pushfleet_workers.tokens.changes import Accounts, Registration, no_account, wrong_time
from pushfleet_workers.tokens.preferences import find_zone

__all__ = ["Fault", "fault_in"]


class Fault(NamedTuple):
    """Why a registration is refused."""

    code: str
    message: str
    field: str


def fault_in(given: Registration, app: str, accounts: Accounts, now_ms: int) -> Fault | None:
    """What is wrong with *given* for *app*; None where nothing is.

    * **accounts** - vendor and credential to the app they belong to.
    """
    code, sentence = wrong_time(given.at_ms, now_ms)
    if code:
        return Fault(code, sentence, "at_ms")
    if given.time_zone and find_zone(given.time_zone) is None:
        why = "this is no time zone of the IANA list, such as Asia/Shanghai; where it is not known leave it out"
        return Fault("invalid_time_zone", why, "time_zone")
    for number, channel in enumerate(given.channels):
        if accounts.get((channel.vendor, channel.credential)) != app:
            return Fault("unknown_account", no_account(app, channel, accounts), f"channels[{number}].credential")
        # The account's vendor is loaded already: it has settings.
        vendor = registry.load(channel.vendor)
        if channel.kind not in vendor.token_kinds:
            kinds = ", ".join(sorted(vendor.token_kinds))
            why = f"{channel.vendor} has no tokens of that kind; it has: {kinds}"
            return Fault("unknown_token_kind", why, f"channels[{number}].kind")
        if vendor.token_shape and not re.fullmatch(vendor.token_shape, channel.token):
            why = f"{channel.vendor} gives no such tokens: pass on what its SDK gave, and check which vendor it was"
            return Fault("invalid_token", why, f"channels[{number}].token")
    return None
