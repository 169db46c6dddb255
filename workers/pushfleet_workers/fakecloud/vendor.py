"""The interface of a fake vendor: pure methods from requests to responses, time handed in.

A fake vendor keeps state (keys, access tokens) but touches no clock, socket or log. It is as strict as the
vendor's documents; what a rule makes of a request that is in order is decided elsewhere (`rules`, `desk`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Protocol, runtime_checkable

from msgspec import Struct

from pushfleet_workers.fakecloud.wire import Call, Request, Response

__all__ = ["AsksForCertificates", "Death", "FakeVendor", "Issued"]


class Death(Struct, frozen=True):
    """Why and since when a token is dead."""

    code: str
    """The vendor's code for it; empty: the usual one."""

    since_ms: int


class Issued(Struct, frozen=True):
    """A new credential: what its holder gets and what the vendor keeps."""

    id: str
    """Names it among the vendor's credentials, and its pushes in the book."""

    public: dict[str, Any]
    """What the fake must know to check it. No secret."""

    settings: dict[str, str]
    """Plain values that its holder needs, e.g. ``team_id``."""

    files: dict[str, bytes]
    """What to write, by file name; secrets are only here."""


class FakeVendor(Protocol):
    """One push cloud, faked."""

    name: ClassVar[str]
    http1: ClassVar[bool]
    """Whether it speaks HTTP/1.1 beside HTTP/2."""

    max_streams: ClassVar[int]
    """Streams it grants per HTTP/2 connection unless told otherwise."""

    refusals: ClassVar[frozenset[str]]
    """Every code that :meth:`refuse` knows."""

    deaths: ClassVar[frozenset[str]]
    """Those refusals that tell the sender to forget the token."""

    throttled: ClassVar[str]
    """The refusal that stands for "too fast"."""

    address_bound: ClassVar[bool]
    """Whether issued files hold the fake's own address, so that a new address asks for new ones."""

    @classmethod
    def issue(cls, base_url: str, options: Mapping[str, Any]) -> Issued:
        """A new credential; raises :class:`TypeError` for an option that it does not know."""
        ...

    def register(self, public: Mapping[str, Any]) -> None:
        """Know a credential by its public half, to which the cloud adds its file as ``secret``, in bytes.

        Only a vendor that checks signatures made with a shared secret may look at that.
        """
        ...

    def read(self, request: Request, now_s: float) -> Call | Response:
        """What *request* asks for, or the vendor's refusal of a request that is not in order."""
        ...

    def answer(self, call: Call, dead: Mapping[str, Death], now_s: float) -> Response:
        """The answer to a call that is in order, given which of its tokens are dead."""
        ...

    def refuse(self, code: str, call: Call, now_s: float) -> Response:
        """The refusal called *code*, in the vendor's own status and form."""
        ...

    def expire_auth(self) -> None:
        """Forget all access tokens handed out so far."""
        ...


@runtime_checkable
class AsksForCertificates(Protocol):
    """A vendor that knows some of its callers by TLS.

    The SHA-256 of the certificate that a connection showed stands in ``Request.session`` under ``certificate``.
    """

    def client_authority(self) -> bytes:
        """Whose client certificates pass the handshake, as PEM; what they are good for is decided by :meth:`read`."""
        ...
