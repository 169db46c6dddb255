"""Everything that the fleet raises by itself.

FleetError
├── SettingsError       the configuration is wrong; the operator must act
├── CredentialError     a credential is missing, unreadable or refused; the operator must act
├── RedisUnusable       Redis is not there, too old, or refuses what we need
├── MoveUnheard         nobody knows whether deliveries went to another account; ``.deliveries`` are their ids
└── NoAnswer            a vendor gave no answer; ``.maybe_delivered`` says whether it may have got the push
    ├── NotInTime       nothing was sent: by the time that there was a connection it was not to leave any more
    └── Distrusted      nothing was sent: the certificate shown for the vendor is not taken

A vendor's refusal is a value (:class:`pushfleet_workers.outcome.Outcome`), never an exception.
"""

from __future__ import annotations

from pathlib import PurePath

__all__ = [
    "CredentialError",
    "Distrusted",
    "FleetError",
    "MoveUnheard",
    "NoAnswer",
    "NotInTime",
    "RedisUnusable",
    "SettingsError",
    "where_raised",
]


class FleetError(Exception):
    """Root of all errors of the fleet."""


class SettingsError(FleetError):
    """The configuration is wrong; the text says where and how to mend it."""


class CredentialError(FleetError):
    """A credential is missing, unreadable or refused by its vendor."""


class RedisUnusable(FleetError):
    """Redis is not there, is older than the floor, or refuses what we need."""


class MoveUnheard(FleetError):
    """Deliveries may have gone into another account's ledger; ``.deliveries`` are their ids."""

    def __init__(self, problem: str, deliveries: frozenset[bytes]) -> None:
        super().__init__(problem, deliveries)
        self.problem = problem
        self.deliveries = deliveries

    def __str__(self) -> str:
        return self.problem


class NoAnswer(FleetError):
    """No answer came from a vendor: refused, reset, timed out."""

    def __init__(self, problem: str, maybe_delivered: bool) -> None:
        super().__init__(problem, maybe_delivered)
        self.problem = problem
        self.maybe_delivered = maybe_delivered
        """False only where the request provably never reached the vendor."""

    def __str__(self) -> str:
        return self.problem


class NotInTime(NoAnswer):
    """The request waited until it was not to leave any more; the peer is not to blame."""


class Distrusted(NoAnswer):
    """The certificate that the peer shows for the vendor is not taken, and nothing was sent to it.

    ``.code`` is one of :data:`pushfleet_workers.distrust.CERTIFICATE_FAULTS`.
    """

    def __init__(self, problem: str, code: str) -> None:
        super().__init__(problem, maybe_delivered=False)
        self.args = (problem, code)
        self.code = code


def where_raised(problem: BaseException) -> str:
    """The kind and place of an unexpected exception, for logs.

    Neither its text nor its locals: both may hold tokens or message texts.
    """
    trace = problem.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return type(problem).__name__
    return f"{type(problem).__name__} at {PurePath(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}"
