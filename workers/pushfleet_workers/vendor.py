"""The interface of a vendor module: pure functions from pushes to requests and from answers to outcomes.

A vendor never touches a clock, a socket, a log or a retry; those stand at the edge (`delivery`, `transports`,
`credentials`). Third parties add vendors through the entry-point group ``pushfleet.vendors``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

from pushfleet_workers.account import AccountSettings
from pushfleet_workers.outcome import Outcome
from pushfleet_workers.push import Delivery, Push

__all__ = ["AuthAnswer", "Request", "Response", "Vendor"]


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request. Its repr shows neither address nor body: both may hold tokens and texts."""

    url: str = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)
    """Lower-case names."""

    body: bytes = field(repr=False)
    method: str = "POST"


@dataclass(frozen=True, slots=True)
class Response:
    """One HTTP answer."""

    status: int
    headers: Mapping[str, str] = field(repr=False)
    """Lower-case names."""

    body: bytes = field(repr=False)
    http_version: str = ""
    """``HTTP/2.0`` or ``HTTP/1.1``, as the transport saw it."""


@dataclass(frozen=True, slots=True)
class AuthAnswer:
    """What came of asking for an access token: a value with a life, or an outcome that says why not."""

    value: str = field(default="", repr=False)
    """Goes into :meth:`Vendor.build` as *auth*."""

    life_s: float = 0.0
    failure: Outcome | None = None


class Vendor(Protocol):
    """One push cloud."""

    name: ClassVar[str]
    account_type: ClassVar[type[AccountSettings]]
    batch_size: ClassVar[int]
    """Most deliveries of one request; above 1 they share one content."""

    payload_limit: ClassVar[int]
    """Bytes of what the vendor counts as payload."""

    http2: ClassVar[bool]
    """Whether the vendor speaks HTTP/2 only; the transports then refuse anything else."""

    exact_badge: ClassVar[bool]
    """Whether a push carries the absolute badge, so that deliveries of different badges need requests of their own."""

    def build(self, account: Any, push: Push, deliveries: Sequence[Delivery], auth: str, now_ms: int) -> Request:
        """The request for at most ``batch_size`` deliveries, its texts cut to the vendor's limits."""
        ...

    def read(self, deliveries: Sequence[Delivery], response: Response) -> list[Outcome]:
        """One outcome per delivery, in order, whatever came back."""
        ...

    def mint(self, account: Any, now_s: float) -> AuthAnswer | None:
        """An auth value made without the network (a signed JWT), or None where one must be fetched."""
        ...

    def auth_request(self, account: Any, now_s: float) -> Request:
        """The request that fetches an access token; only called where `mint` gives None."""
        ...

    def read_auth(self, response: Response) -> AuthAnswer:
        """The access token in *response*, or why there is none."""
        ...

    def check(self, account: Any, now_s: float) -> list[str]:
        """What is wrong with the account's credential files, one sentence each with its mend; no network."""
        ...
