"""Erasing users: their token state at once, and then what is queued or kept of messages to them.

`desk` begins it, `keeper` brings it to its end, `claimed` keeps what is in flight from reaching those who came back.
`sought` says what is whose; the others are the places where it may lie.
"""

from pushfleet_workers.erasure.claimed import RecheckErased
from pushfleet_workers.erasure.desk import EraseDesk, Erasing
from pushfleet_workers.erasure.keeper import ErasureKeeper

__all__ = ["EraseDesk", "Erasing", "ErasureKeeper", "RecheckErased"]
