"""The interface of what reads a vendor's receipts: pure functions from bytes to receipts.

A reader never touches a clock, a socket or a log. It is total: whatever arrives is some receipts, or none.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple, Protocol

__all__ = ["Event", "Proof", "Reader", "Receipt", "Row"]


class Event(enum.StrEnum):
    """What became of a push on its way to one device."""

    DELIVERED = "delivered"
    CLICKED = "clicked"
    BLOCKED = "blocked"
    """Not shown, or not yet; the token is as good as before."""

    DEAD = "dead"
    """The token belongs to no installation any more."""

    MUTED = "muted"
    """The device does not show the app's notifications."""

    QUOTA = "quota"
    """The day's messages of this kind to the device are used up."""

    OTHER = "other"
    """None of the above, or a code that is in no table."""


class Row(NamedTuple):
    """One line of a vendor's table of receipt codes."""

    event: Event
    meaning: str
    """For operators; in the documentation word for word."""


@dataclass(frozen=True, slots=True)
class Receipt:
    """What a vendor tells of one push to one device. Its repr shows no token."""

    event: Event
    code: str
    """The vendor's own, for metrics and records; empty where it has none. Never a token or a text."""

    token: str = field(repr=False)
    echo: str
    """What the push carried for this; empty where the vendor brings none back."""

    at_ms: int = 0
    """When it happened by the vendor's clock, Unix milliseconds; 0: it does not say."""

    send_id: str = ""
    """The vendor's own id of the request or message."""


class Proof(enum.Enum):
    """Whether a request is the vendor's, by what the vendor itself does about that."""

    SIGNED = "signed"
    UNSIGNED = "unsigned"
    """The vendor signs nothing, or nobody told it to: only an echo proves anything."""

    REFUSED = "refused"


class Reader(Protocol):
    """One vendor's receipts."""

    codes: ClassVar[Mapping[str, Row]]
    """Every code, and what each means."""

    acknowledgement: ClassVar[tuple[bytes, str]]
    """What the vendor wants to hear with status 200, and its media type."""

    def verify(self, account: Any, headers: Mapping[str, str], body: bytes, now_ms: int) -> Proof:
        """Whether the vendor sent *body*; names of *headers* are lower-case. A secret that cannot be read refuses."""
        ...

    def read(self, body: bytes) -> Iterator[Receipt]:
        """The receipts in *body*, one per token; what cannot be read is left out."""
        ...
