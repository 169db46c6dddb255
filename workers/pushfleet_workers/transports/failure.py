"""Why no answer came, as values: what the caller is told, and what it means for the connection."""

from __future__ import annotations

import enum
import ssl
from dataclasses import dataclass

from pushfleet_workers.distrust import fault_of_openssl
from pushfleet_workers.errors import Distrusted, NoAnswer, NotInTime

__all__ = ["Failure", "Reason", "unconnected"]


class Reason(enum.Enum):
    """Why no answer came."""

    UNREACHABLE = "no connection could be made"
    DISTRUSTED = "the certificate of the peer is not taken"
    NOT_HTTP2 = "the peer does not speak HTTP/2"
    STALE = "the request waited for its connection until it was not to leave any more"
    CROWDED = "the turn of the request on its connection did not come in time"
    UNTAKEN = "the peer closed the connection before it began with the request"
    REFUSED = "the peer refused the request before it began with it"
    CLOSED = "the transport is closed"
    UNSENDABLE = "the request could not be built: its address or one of its headers is not valid"
    RESET = "the peer reset the request"
    LOST = "the connection was lost"
    FROZEN = "the peer stopped answering pings"
    LATE = "no answer came in time"


_NEVER_TAKEN = frozenset(
    {
        Reason.UNREACHABLE,
        Reason.DISTRUSTED,
        Reason.NOT_HTTP2,
        Reason.STALE,
        Reason.CROWDED,
        Reason.UNTAKEN,
        Reason.REFUSED,
        Reason.CLOSED,
        # UNSENDABLE is missing on purpose: "never left" blames the account, and what is wrong is this one request.
        # As an unknown outcome it uses up its own attempts, and its neighbours go on.
    }
)
_TRY_AGAIN = frozenset({Reason.UNTAKEN, Reason.REFUSED})
_SHARED = frozenset({Reason.UNREACHABLE, Reason.DISTRUSTED, Reason.NOT_HTTP2})
_ENDS_CONNECTION = _SHARED | {Reason.UNTAKEN, Reason.LOST, Reason.FROZEN}


@dataclass(frozen=True, slots=True)
class Failure:
    """No answer, and why; ``detail`` never holds a URL, a header or a body."""

    reason: Reason
    detail: str = ""
    code: str = ""
    """What is wrong with the peer's certificate."""

    @property
    def try_again(self) -> bool:
        """Whether the peer itself says that it did not begin: the one case where a repeat is free of doubt."""
        return self.reason in _TRY_AGAIN

    @property
    def shared(self) -> bool:
        """Whether those who wait for the same connection fare no better."""
        return self.reason in _SHARED

    @property
    def ends_connection(self) -> bool:
        """Whether the next request meets a new connection."""
        return self.reason in _ENDS_CONNECTION

    def as_error(self) -> NoAnswer:
        """What the caller of a transport gets."""
        problem = f"{self.reason.value}: {self.detail}" if self.detail else self.reason.value
        if self.reason is Reason.DISTRUSTED:
            return Distrusted(problem, self.code)
        kind = NotInTime if self.reason is Reason.STALE else NoAnswer
        return kind(problem, self.reason not in _NEVER_TAKEN)


def unconnected(problem: BaseException) -> Failure:
    """Why *problem*, of Python's own sockets, kept a connection from being made."""
    if isinstance(problem, ssl.SSLCertVerificationError):
        return Failure(Reason.DISTRUSTED, problem.verify_message, fault_of_openssl(problem))
    return Failure(Reason.UNREACHABLE, _describe(problem))


def _describe(problem: BaseException) -> str:
    """For operators; empty where nothing can be said."""
    match problem:
        case ssl.SSLError():
            return "TLS failed"
        case TimeoutError():
            return "timed out"
        case OSError():
            return problem.strerror or ""
        case _:
            return ""
