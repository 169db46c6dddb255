"""The interface of a vendor module: pure functions from pushes to requests and from answers to outcomes.

A vendor never touches a clock, a socket, a log or a retry; those stand at the edge (`delivery`, `transports`,
`credentials`). Third parties add vendors through the entry-point group ``pushfleet.vendors``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

from msgspec import Struct

from pushfleet.message import Kind
from pushfleet_workers.account import AccountSettings
from pushfleet_workers.errors import CredentialError
from pushfleet_workers.outcome import DayHour, Outcome, Row, Scope, Verdict
from pushfleet_workers.push import Delivery, Push, TokenKind

__all__ = ["AuthAnswer", "Identity", "Request", "Response", "Staged", "Vendor", "VendorDefaults"]


class Request(Struct):
    """One HTTP request. Its repr shows neither address nor body: both may hold tokens and texts."""

    url: str
    headers: Mapping[str, str]
    """Lower-case names."""

    body: bytes
    method: str = "POST"
    leave_by: float = math.inf
    """Monotonic time after which it must not leave any more: its permit is void by then, or it has expired."""

    def __repr__(self) -> str:
        return f"Request(method={self.method!r})"


class Response(Struct):
    """One HTTP answer. Its repr shows neither headers nor body."""

    status: int
    headers: Mapping[str, str]
    """Lower-case names."""

    body: bytes
    http_version: str = ""
    """``HTTP/2.0`` or ``HTTP/1.1``, as the transport saw it."""

    def __repr__(self) -> str:
        return f"Response(status={self.status}, http_version={self.http_version!r})"


@dataclass(frozen=True, slots=True)
class AuthAnswer:
    """What came of asking for an access token: a value with a life, or an outcome that says why not."""

    value: str = field(default="", repr=False)
    """Goes into :meth:`Vendor.build` as *auth*."""

    life_s: float = 0.0
    rest_s: float = 0.0
    """How long the vendor wants no newer one of the same credential, even where it refuses this one."""

    failure: Outcome | None = None
    shared: bool = True
    """Whether the fleet shares it through Redis; what every process reads from its settings stays in the process."""


@dataclass(frozen=True, slots=True)
class Staged:
    """What came of handing over content ahead of its targets: the vendor's id for it, or why there is none."""

    value: str = ""
    failure: Outcome | None = None


@dataclass(frozen=True, slots=True)
class Identity:
    """A client certificate with its private key, for vendors that know their callers by TLS."""

    pem: bytes = field(repr=False)
    """The key, unencrypted, and the certificate chain."""


class Vendor(Protocol):
    """One push cloud. What most of them do alike is in :class:`VendorDefaults`, which a vendor may inherit."""

    name: ClassVar[str]
    account_type: ClassVar[type[AccountSettings]]
    codes: ClassVar[Mapping[str, Row]]
    """Every code that the vendor answers with, and what each means."""

    batch_size: ClassVar[int]
    """Most deliveries of one request; above 1 they share one content, unless :meth:`mixes`."""

    payload_limit: ClassVar[int]
    """Bytes of what the vendor counts as payload."""

    http2: ClassVar[bool]
    """Whether the vendor speaks HTTP/2 only; the transports then refuse anything else."""

    exact_badge: ClassVar[bool]
    """Whether a push carries the absolute badge, so that deliveries of different badges need requests of their own."""

    replaces: ClassVar[bool]
    """Whether a push replaces, on screen, an earlier one with the same replace key."""

    day: ClassVar[DayHour]
    """When its day begins, by which it counts what a device gets."""

    token_kinds: ClassVar[frozenset[TokenKind]]
    """What kinds of tokens :meth:`build` can address; others do not register."""

    token_shape: ClassVar[str]
    """Regular expression that each of its tokens matches as a whole; empty: whatever comes may be one."""

    def build(self, account: Any, push: Push, deliveries: Sequence[Delivery], auth: str, now_ms: int) -> Request:
        """The request for at most ``batch_size`` deliveries, its texts cut to the vendor's limits."""
        ...

    def read(self, deliveries: Sequence[Delivery], response: Response) -> list[Outcome]:
        """One outcome per delivery, in order, whatever came back."""
        ...

    def check(self, account: Any, now_s: float) -> list[str]:
        """What is wrong with the account's credentials and classes, one sentence each with its mend; no network."""
        ...

    def mint(self, account: Any, now_s: float) -> AuthAnswer | None:
        """An auth value made without the network (a signed JWT, a fixed key), or None where one must be fetched."""
        ...

    def auth_request(self, account: Any, now_s: float) -> Request:
        """The request that fetches an access token; only called where `mint` gives None."""
        ...

    def read_auth(self, response: Response) -> AuthAnswer:
        """The access token in *response*, or why there is none."""
        ...

    def device_caps(self, account: Any) -> Mapping[str, int]:
        """Most pushes that a device gets in a day, by the classes in which the vendor counts; 0: it names no limit."""
        ...

    def class_of(self, account: Any, kind: Kind, *, group: bool = False, own: Any = None) -> str:
        """Which of :meth:`device_caps` a message of *kind* counts in; empty: in none.

        * **group** - whether it was written in a group.
        * **own** - what the message itself asks of this vendor.
        """
        ...

    def same_caller(self, account: Any) -> str:
        """Accounts with the same answer share connections and authorization; empty: this account has its own."""
        ...

    def identity(self, account: Any) -> Identity | None:
        """The client certificate of the account's connections; raises :class:`CredentialError`."""
        ...

    def mixes(self, account: Any) -> bool:
        """Whether one request may carry deliveries of different pushes; then :meth:`build_mixed` makes it."""
        ...

    def build_mixed(self, account: Any, letters: Sequence[tuple[Push, Delivery]], auth: str, now_ms: int) -> Request:
        """As :meth:`build`, each delivery with a push of its own; all of one kind, none with overrides."""
        ...

    def stage(self, account: Any, push: Push, deliveries: Sequence[Delivery], auth: str, now_ms: int) -> Request | None:
        """The request that hands over the content ahead of its targets, or None where these need none."""
        ...

    def read_staged(self, response: Response) -> Staged:
        """The vendor's id for the content, or why there is none."""
        ...

    def build_staged(
        self, account: Any, push: Push, deliveries: Sequence[Delivery], auth: str, now_ms: int, staged: str
    ) -> Request:
        """As :meth:`build`, for content that lies with the vendor under the id *staged*."""
        ...

    def withdraw(
        self, account: Any, push: Push, deliveries: Sequence[Delivery], auth: str, now_ms: int
    ) -> Request | None:
        """The request that takes back what *push* showed, by the vendor's own means; None where it has none.

        :meth:`read` reads its answer.
        """
        ...


class VendorDefaults:
    """What a vendor need not say: a key that never changes hands, one push a request, nothing staged or taken back."""

    replaces: ClassVar[bool] = True
    day: ClassVar[DayHour] = DayHour(0, 0)
    token_kinds: ClassVar[frozenset[TokenKind]] = frozenset({"alert"})
    token_shape: ClassVar[str] = ""

    def device_caps(self, account: Any) -> Mapping[str, int]:
        """One class for everything, without a limit."""
        return {"all": 0}

    def class_of(self, account: Any, kind: Kind, *, group: bool = False, own: Any = None) -> str:
        """The one class."""
        return "all"

    def mint(self, account: Any, now_s: float) -> AuthAnswer | None:
        """None: access tokens are fetched."""
        return None

    def auth_request(self, account: Any, now_s: float) -> Request:
        """Never called by the fleet, as :meth:`mint` always answers; raises :class:`CredentialError`."""
        raise CredentialError("this vendor hands out no access tokens")

    def read_auth(self, response: Response) -> AuthAnswer:
        """A failure: this vendor hands out no access tokens."""
        return AuthAnswer(failure=Outcome(Verdict.MISCONFIGURED, Scope.ACCOUNT, code="NoTokenEndpoint"))

    def same_caller(self, account: Any) -> str:
        """Empty: every account has connections and authorization of its own."""
        return ""

    def identity(self, account: Any) -> Identity | None:
        """None: the vendor asks for no client certificate."""
        return None

    def mixes(self, account: Any) -> bool:
        """False: the deliveries of a request share one push."""
        return False

    def build_mixed(self, account: Any, letters: Sequence[tuple[Push, Delivery]], auth: str, now_ms: int) -> Request:
        """Never called by the fleet; raises :class:`TypeError`."""
        raise TypeError(f"{type(self).__name__} does not mix pushes in a request")

    def stage(self, account: Any, push: Push, deliveries: Sequence[Delivery], auth: str, now_ms: int) -> Request | None:
        """None: content travels with its targets."""
        return None

    def read_staged(self, response: Response) -> Staged:
        """A failure: nothing was handed over ahead."""
        return Staged(failure=Outcome(Verdict.MISCONFIGURED, Scope.ACCOUNT, code="NothingStaged"))

    def build_staged(
        self, account: Any, push: Push, deliveries: Sequence[Delivery], auth: str, now_ms: int, staged: str
    ) -> Request:
        """Never called by the fleet; raises :class:`TypeError`."""
        raise TypeError(f"{type(self).__name__} takes content only together with its targets")

    def withdraw(
        self, account: Any, push: Push, deliveries: Sequence[Delivery], auth: str, now_ms: int
    ) -> Request | None:
        """None: what was shown can only be replaced."""
        return None
