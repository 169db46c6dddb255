"""Everything that the SDK raises.

PushfleetError
├── InvalidMessage        the message breaks the contract; says which field and how to mend it
├── EnqueueError          Redis did not take the messages; ``.accepted`` lists the ids that it did take
│   ├── Backpressure      the fleet is behind or Redis is nearly full: slow down, try again later
│   └── QueueUnavailable  Redis could not be reached or refused the command
└── ApiError              a call of the HTTP API failed; ``.status``, ``.code`` and ``.field`` say how
    ├── ApiRefused        the request is wrong and changed nothing: mend it, repeating does not help
    └── ApiUnavailable    the API could not be reached or cannot answer now: repeating is safe
"""

from __future__ import annotations

__all__ = [
    "ApiError",
    "ApiRefused",
    "ApiUnavailable",
    "Backpressure",
    "EnqueueError",
    "InvalidMessage",
    "PushfleetError",
    "QueueUnavailable",
]


class PushfleetError(Exception):
    """Root of all errors of pushfleet."""


class InvalidMessage(PushfleetError):
    """The message breaks the contract; the text names the field, the limit and what was given.

    Nothing of the call was enqueued, except from an iterable so long that its earlier chunks had gone already.
    """

    def __init__(self, problem: str, index: int | None = None, accepted: tuple[str, ...] = ()) -> None:
        super().__init__(problem, index, accepted)
        self.problem = problem
        self.index = index
        """Which message of the call it is, counted from 0; None where there was only one."""

        self.accepted = accepted
        """Ids of the messages of this call that are safely in Redis."""

    def __str__(self) -> str:
        place = "" if self.index is None else f"messages[{self.index}]: "
        return place + self.problem + _how_many(self.accepted)


class EnqueueError(PushfleetError):
    """Redis did not take all of the messages; repeating them all within ten minutes is safe, ids are idempotent."""

    def __init__(self, problem: str, accepted: tuple[str, ...] = ()) -> None:
        super().__init__(problem, accepted)
        self.problem = problem
        self.accepted = accepted
        """Ids of the messages of this call that are safely in Redis."""

    def __str__(self) -> str:
        return self.problem + _how_many(self.accepted)


class Backpressure(EnqueueError):
    """The ingress stream is at its configured length, or Redis at its memory mark."""


class QueueUnavailable(EnqueueError):
    """Redis could not be reached, or it refused the command."""


class ApiError(PushfleetError):
    """A call of the HTTP API failed; the text says what was being done, to what, and how to mend it."""

    def __init__(self, problem: str, status: int = 0, code: str = "", field: str = "") -> None:
        super().__init__(problem, status, code, field)
        self.problem = problem
        self.status = status
        """HTTP status of the answer; 0: there was none."""

        self.code = code
        """What is wrong, for programs, such as ``unknown_account``; it does not change."""

        self.field = field
        """The path of what is wrong in what was given, such as ``reports[1005].at_ms``; empty: no single field."""

    def __str__(self) -> str:
        said = " ".join(filter(None, (str(self.status or ""), self.code, self.field and f"at {self.field}")))
        return f"{self.problem} ({said})" if said else self.problem


class ApiRefused(ApiError):
    """The request is wrong, or there is nothing of that name; it changed nothing. Repeating it does not help.

    Of a call in several requests those before it have been applied.
    """


class ApiUnavailable(ApiError):
    """The API could not be reached, did not answer in time, or cannot do it now. Repeating the call is safe."""


def _how_many(accepted: tuple[str, ...]) -> str:
    return f" ({len(accepted)} messages of this call were accepted: see .accepted)" if accepted else ""
