"""How messages get into Redis, without touching Redis: what to send, and what the answers mean.

Both producers drive the same generator, :func:`transfer`: it yields the commands of one round trip and is sent
their replies, or is thrown the error that came instead.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable, Iterator
from hashlib import sha1
from importlib import resources
from typing import Any, NamedTuple, TypeVar

from msgspec import Struct
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoPermissionError, NoScriptError, OutOfMemoryError, RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from pushfleet import wire
from pushfleet.errors import Backpressure, EnqueueError, InvalidMessage, QueueUnavailable
from pushfleet.message import LANES, Lane, OfflineMessage, Recall, check_sent

__all__ = [
    "WHOLE_BYTES",
    "WHOLE_MESSAGES",
    "Batch",
    "BatchReceipt",
    "Command",
    "MemoryGauge",
    "Policy",
    "Prepared",
    "Receipt",
    "Run",
    "Steps",
    "prepare",
    "prepare_recall",
    "preparing",
    "transfer",
]

WHOLE_MESSAGES = 10_000
"""Up to here a call is refused whole when one of its messages is bad; a longer one goes in chunks of this size."""

WHOLE_BYTES = 32 * 1024 * 1024
"""The same bound in bytes of JSON: what a call may hold in memory at a time."""

_SCRIPT_ENTRIES = 400
"""Most entries written by one run of the script, during which Redis serves nobody else: about 0.5 ms."""

_SCRIPT_BYTES = 512 * 1024
_MEMORY_LOOK_S = 1.0
_BREATH_MESSAGES = 200
"""After so many encoded messages an event loop gets its turn: about 2 ms."""

_BREATH_PARTS = 20
"""The same within a large message."""

_ENQUEUE = resources.files("pushfleet").joinpath("enqueue.lua").read_text("utf-8")
_LOST = (RedisConnectionError, RedisTimeoutError, OSError)
_REPEAT = "what is not in .accepted may be in the queue all the same, repeating it is safe"

Command = tuple[str | bytes | int, ...]
_T = TypeVar("_T")
Steps = Generator[list[Command], list[Any], None]


class _Script(NamedTuple):
    """One Lua script, and the digest that Redis knows it by."""

    text: str
    sha: str


def _script(text: str) -> _Script:
    return _Script(text, sha1(text.encode(), usedforsecurity=False).hexdigest())


_MESSAGES = _script(_ENQUEUE)
_RECALLS = _script(_ENQUEUE.replace("'m', ", "'r', "))
"""The same but for the name of the field."""


class Receipt(Struct, frozen=True):
    """One message, or one recall, is in the queue."""

    id: str
    lane: Lane
    parts: int
    """How many stream entries carry it."""


class BatchReceipt(Struct, frozen=True):
    """So many messages of a call are in the queue."""

    messages: int = 0
    parts: int = 0
    """Stream entries that carry them."""

    recipients: int = 0
    """Recipients and targets, each counted once per message."""


class Policy(Struct, frozen=True, kw_only=True):
    """The settings of a producer, checked; raises ``ValueError`` with the name of a wrong one."""

    prefix: str
    linger_ms: float
    ingress_max: int
    memory_mark: float
    wait_replicas: int
    wait_timeout_ms: int
    socket_timeout_s: float

    def __post_init__(self) -> None:
        if not self.prefix or "{" in self.prefix or "}" in self.prefix:
            # A brace would become the hash tag and put all lanes into one slot of a Cluster.
            raise ValueError(f"prefix must not be empty or contain braces, not {self.prefix!r}")
        if not 0 <= self.linger_ms <= 10_000:
            raise ValueError(f"linger_ms must be 0 to 10000, not {self.linger_ms}")
        if self.ingress_max < 1:
            raise ValueError(f"ingress_max must be at least 1, not {self.ingress_max}")
        if not 0 < self.memory_mark <= 1:
            raise ValueError(f"memory_mark must be above 0 and at most 1, not {self.memory_mark}")
        if self.wait_replicas < 0:
            raise ValueError(f"wait_replicas must not be negative, not {self.wait_replicas}")
        if self.socket_timeout_s <= 0:
            raise ValueError(f"socket_timeout_s must be above 0, not {self.socket_timeout_s}")
        # WAIT 0 would block for ever; a socket that gives up first would turn "not yet" into "connection lost".
        if self.wait_replicas and not 0 < self.wait_timeout_ms < self.socket_timeout_s * 1000:
            raise ValueError(
                f"wait_timeout_ms must be above 0 and below socket_timeout_s, not {self.wait_timeout_ms} "
                f"beside {self.socket_timeout_s} s"
            )


class Prepared(NamedTuple):
    """A message that keeps the contract, cut and encoded."""

    id: str
    lane: Lane
    payloads: list[bytes]
    recipients: int


def prepare(message: OfflineMessage, policy: Policy) -> Prepared:
    """*message* cut and encoded in one go; see :func:`preparing`."""
    steps = preparing(message, policy)
    while True:
        try:
            next(steps)
        except StopIteration as done:
            prepared: Prepared = done.value
            return prepared


def preparing(message: OfflineMessage, policy: Policy) -> Generator[None, None, Prepared]:
    """*message* cut and encoded; pauses now and then in a large one, so that an event loop may turn.

    Every entry is decoded once, as a router will do it: a Struct does not check the types of what its constructor
    is given. Raises :class:`InvalidMessage`.
    """
    if not isinstance(message, OfflineMessage):
        raise InvalidMessage(f"an OfflineMessage is expected, not {type(message).__name__}")
    payloads: list[bytes] = []
    recipients = 0
    for part in wire.parts(message):
        payload = wire.encode(part)
        wire.decode(payload)
        payloads.append(payload)
        recipients += len(part.recipients) + len(part.targets)
        if len(payloads) % _BREATH_PARTS == 0:
            yield
    try:
        check_sent(message.sent_at_ms, int(time.time() * 1000))
    except ValueError as problem:
        raise InvalidMessage(str(problem)) from problem
    if len(payloads) > policy.ingress_max:
        raise InvalidMessage(
            f"the message has {len(payloads)} parts and can never fit into a stream of ingress_max "
            f"{policy.ingress_max} entries"
        )
    return Prepared(message.id, part.effective_lane, payloads, recipients)


def prepare_recall(app: str, message_id: str, conversation: str, recipients: Iterable[str], policy: Policy) -> Prepared:
    """A recall, checked, cut and encoded. Raises :class:`InvalidMessage`."""
    named = recipients if isinstance(recipients, str) else tuple(recipients)
    try:
        recall = Recall(id=message_id, app=app, conversation=conversation, recipients=named)  # type: ignore[arg-type]
    except ValueError as problem:
        raise InvalidMessage(str(problem)) from problem
    payloads = [wire.encode(one) for one in wire.recalls(recall)]
    for payload in payloads:
        wire.decode_recall(payload)
    if len(payloads) > policy.ingress_max:
        raise InvalidMessage(
            f"the recall takes {len(payloads)} entries and can never fit into a stream of ingress_max "
            f"{policy.ingress_max} entries"
        )
    return Prepared(message_id, wire.RECALL_LANE, payloads, len(named))


class _Call(NamedTuple):
    """One run of the script."""

    lane: Lane
    payloads: list[bytes]
    owners: list[int]
    """For each payload the place of its message in the batch."""

    room: int


class _Failure(NamedTuple):
    kind: type[EnqueueError]
    problem: str
    cause: BaseException | None


class Batch:
    """Prepared messages on their way, or prepared recalls, and what has become of each."""

    def __init__(self, *, recalls: bool = False) -> None:
        self.script = _RECALLS if recalls else _MESSAGES
        self.size = 0
        self._messages: list[Prepared] = []
        self._missing: list[int] = []
        self._lanes: dict[Lane, list[int]] = {lane: [] for lane in LANES}
        self._failures: dict[Lane, _Failure] = {}

    def __len__(self) -> int:
        return len(self._messages)

    @property
    def full(self) -> bool:
        """No more should be added: a call's bound is reached."""
        return len(self._messages) >= WHOLE_MESSAGES or self.size >= WHOLE_BYTES

    @property
    def worth_sending(self) -> bool:
        """Waiting for more would gain nothing: the batch fills a run of the script."""
        return len(self._messages) >= _SCRIPT_ENTRIES or self.size >= _SCRIPT_BYTES

    def add(self, prepared: Prepared) -> int:
        """Take a message along; returns its place."""
        place = len(self._messages)
        self._messages.append(prepared)
        self._missing.append(len(prepared.payloads))
        self._lanes[prepared.lane].append(place)
        self.size += sum(map(len, prepared.payloads))
        return place

    def receipt(self, place: int) -> Receipt:
        """The receipt of one message; raises its :class:`EnqueueError` when it is not in the queue."""
        message = self._messages[place]
        if self._missing[place]:
            raise self._error(self._failures.get(message.lane), ())
        return Receipt(message.id, message.lane, len(message.payloads))

    def accepted(self) -> list[Prepared]:
        """The messages that are in the queue with all their parts."""
        return [one for one, missing in zip(self._messages, self._missing, strict=True) if not missing]

    def error(self, accepted: tuple[str, ...]) -> EnqueueError | None:
        """The first failure, in order of urgency, or nothing."""
        if not any(self._missing):
            return None
        failures = [self._failures[lane] for lane in LANES if lane in self._failures]
        return self._error(failures[0] if failures else None, accepted)

    @staticmethod
    def _error(failure: _Failure | None, accepted: tuple[str, ...]) -> EnqueueError:
        """A new exception for each caller: a traceback belongs to one thread."""
        if failure is None:
            return QueueUnavailable(f"the thread or task that was sending was interrupted; {_REPEAT}", accepted)
        error = failure.kind(failure.problem, accepted)
        error.__cause__ = failure.cause
        return error

    def fail(
        self,
        kind: type[EnqueueError],
        problem: str,
        cause: BaseException | None = None,
        lanes: Iterable[Lane] = LANES,
    ) -> None:
        """Nothing more of *lanes* will get in; the first reason counts."""
        for lane in lanes:
            self._failures.setdefault(lane, _Failure(kind, problem, cause))

    def settle(self, call: _Call) -> None:
        """The entries of *call* are in the stream."""
        for owner in call.owners:
            self._missing[owner] -= 1

    def round_trips(self, ingress_max: int) -> Iterator[list[_Call]]:
        """What to send together: at most one run of the script for each lane that has not failed meanwhile.

        Two runs for a lane must not be under way at once: behind a refused one a smaller one might get in, out of
        order, or as the tail of a message whose head was refused.
        """
        lanes = {lane: self._calls(lane, min(_SCRIPT_ENTRIES, ingress_max)) for lane in LANES}
        while True:
            calls = [next(runs, None) for lane, runs in lanes.items() if lane not in self._failures]
            if not any(calls):
                return
            yield [call for call in calls if call is not None]

    def _calls(self, lane: Lane, most: int) -> Iterator[_Call]:
        """The runs of the script for a lane: whole messages together, one of very many parts by itself.

        The first run of such a message asks for room for all of it, so that it is not left half done.
        """
        payloads: list[bytes] = []
        owners: list[int] = []
        size = 0
        for place in self._lanes[lane]:
            parts = self._messages[place].payloads
            weight = sum(map(len, parts))
            if payloads and (len(payloads) + len(parts) > most or size + weight > _SCRIPT_BYTES):
                yield _Call(lane, payloads, owners, len(payloads))
                payloads, owners, size = [], [], 0
            if len(parts) > most or weight > _SCRIPT_BYTES:
                left = len(parts)
                for run in _runs(parts, most):
                    yield _Call(lane, run, [place] * len(run), left)
                    left -= len(run)
            else:
                payloads += parts
                owners += [place] * len(parts)
                size += weight
        if payloads:
            yield _Call(lane, payloads, owners, len(payloads))


def _runs(parts: list[bytes], most: int) -> Iterator[list[bytes]]:
    start = size = 0
    for number, part in enumerate(parts):
        if number > start and (number - start >= most or size + len(part) > _SCRIPT_BYTES):
            yield parts[start:number]
            start, size = number, 0
        size += len(part)
    yield parts[start:]


class MemoryGauge:
    """Whether Redis is nearly full, asked for at most once a second."""

    def __init__(self, mark: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._mark = mark
        self._clock = clock
        self._next = float("-inf")
        self._problem: str | None = None

    def look(self) -> Generator[list[Command], list[Any], str | None]:
        """What to tell the producer when memory is over the mark; None while there is room."""
        now = self._clock()
        # At a mark of 1 the server's own refusal says the same without being asked.
        if self._mark < 1 and now >= self._next:
            # Set before asking: other threads go on with the last answer instead of asking too.
            self._next = now + _MEMORY_LOOK_S
            try:
                (answer,) = yield from _ask([("INFO", "memory")])
                if isinstance(answer, RedisError):
                    raise answer
            except BaseException:
                self._next = float("-inf")
                raise
            self._problem = self._read(answer)
        return self._problem

    def _read(self, memory: dict[str, Any]) -> str | None:
        used, most = int(memory.get("used_memory", 0)), int(memory.get("maxmemory", 0))
        if most <= 0 or used < self._mark * most:
            return None
        return f"Redis uses {used / most:.0%} of its maxmemory, the mark is {self._mark:.0%}: try again later"


def transfer(
    batch: Batch, policy: Policy, gauge: MemoryGauge, after_round_trip: Callable[[], object] | None = None
) -> Steps:
    """Put *batch* into the streams; what became of each message stands in the batch afterwards.

    Yields the commands of one round trip on one connection; expects their replies, errors of Redis among them as
    values, or :class:`redis.RedisError` or ``OSError`` thrown in. A lost connection is tried once more.
    """
    problem = yield from _or_fail(batch, gauge.look())
    if problem is not None:
        batch.fail(Backpressure, problem)
    for calls in batch.round_trips(policy.ingress_max):
        yield from _or_fail(batch, _round_trip(batch, calls, policy))
        if after_round_trip is not None:
            after_round_trip()


def _or_fail(
    batch: Batch, steps: Generator[list[Command], list[Any], _T]
) -> Generator[list[Command], list[Any], _T | None]:
    try:
        return (yield from steps)
    except (RedisError, OSError) as trouble:
        batch.fail(*_reason(trouble))
        return None


def _reason(trouble: RedisError | OSError) -> _Failure:
    """What to tell the producer about an error of Redis or of the way to it."""
    if isinstance(trouble, OutOfMemoryError):
        return _Failure(Backpressure, f"Redis is out of memory, try again later: {trouble}", trouble)
    if isinstance(trouble, _LOST):
        return _Failure(QueueUnavailable, f"Redis could not be reached or broke off: {trouble}; {_REPEAT}", trouble)
    if isinstance(trouble, NoPermissionError):
        needs = "+evalsha +script|load +xadd +xlen +info, and +wait for wait_replicas"
        return _Failure(QueueUnavailable, f"the Redis user needs {needs}: {trouble}", trouble)
    return _Failure(QueueUnavailable, f"Redis refused: {trouble}", trouble)


def _ask(commands: list[Command]) -> Generator[list[Command], list[Any], list[Any]]:
    """The replies to *commands*. A lost connection is tried once more: the fleet drops a part that it has seen."""
    try:
        return (yield commands)
    except _LOST:
        return (yield commands)


def _command(script: _Script, call: _Call, policy: Policy) -> Command:
    key = wire.ingress_key(policy.prefix, call.lane)
    return ("EVALSHA", script.sha, 1, key, policy.ingress_max, call.room, wire.VERSION, *call.payloads)


def _round_trip(batch: Batch, calls: list[_Call], policy: Policy) -> Steps:
    head: list[Command] = []
    tail: list[Command] = [("WAIT", policy.wait_replicas, policy.wait_timeout_ms)] if policy.wait_replicas else []
    while calls:
        replies = yield from _ask([*head, *(_command(batch.script, call, policy) for call in calls), *tail])
        answers = replies[len(head) : len(head) + len(calls)]
        confirmed = replies[-1] if tail else 0
        if isinstance(confirmed, RedisError):
            raise confirmed
        unknown: list[_Call] = []
        for call, answer in zip(calls, answers, strict=True):
            if isinstance(answer, NoScriptError) and not head:
                unknown.append(call)
            elif isinstance(answer, RedisError):
                batch.fail(*_reason(answer))
            elif answer <= 0:
                batch.fail(
                    Backpressure,
                    f"{wire.ingress_key(policy.prefix, call.lane)} holds {-answer} entries and has no room for "
                    f"{call.room} more, ingress_max is {policy.ingress_max}: try again later",
                    lanes=[call.lane],
                )
            elif confirmed < policy.wait_replicas:
                batch.fail(
                    QueueUnavailable,
                    f"{confirmed} of {policy.wait_replicas} replicas confirmed within {policy.wait_timeout_ms} ms; "
                    f"{_REPEAT}",
                )
            else:
                batch.settle(call)
        calls = unknown
        head = [("SCRIPT LOAD", batch.script.text)]


class Run:
    """One call of ``enqueue_many``: its batches, and the sum of what they achieved."""

    def __init__(
        self, policy: Policy, gauge: MemoryGauge, on_progress: Callable[[BatchReceipt], object] | None
    ) -> None:
        self._policy = policy
        self._gauge = gauge
        self._on_progress = on_progress
        self._accepted: list[str] = []
        self.receipt = BatchReceipt()

    def batches(self, messages: Iterable[OfflineMessage]) -> Generator[Batch | None, None, None]:
        """The messages in batches, each validated whole; None now and then, a good moment to let others run.

        Raises :class:`InvalidMessage` with the message's place in the call and what earlier batches achieved.
        """
        batch = Batch()
        for index, message in enumerate(messages):
            try:
                batch.add((yield from preparing(message, self._policy)))
            except InvalidMessage as problem:
                raise InvalidMessage(problem.problem, index, tuple(self._accepted)) from problem
            if batch.full:
                yield batch
                batch = Batch()
            elif len(batch) % _BREATH_MESSAGES == 0:
                yield None
        if len(batch):
            yield batch

    def transfer(self, batch: Batch) -> Steps:
        """The steps that put *batch* into the streams."""
        report = self._on_progress
        if report is None:
            return transfer(batch, self._policy, self._gauge)
        return transfer(batch, self._policy, self._gauge, lambda: report(self._with(batch)))

    def finish(self, batch: Batch) -> None:
        """Enter *batch* into the sum; raises its :class:`EnqueueError` when not all of it is in the queue."""
        self._accepted += [one.id for one in batch.accepted()]
        error = batch.error(tuple(self._accepted))
        if error is not None:
            raise error
        self.receipt = self._with(batch)

    def _with(self, batch: Batch) -> BatchReceipt:
        done = batch.accepted()
        return BatchReceipt(
            self.receipt.messages + len(done),
            self.receipt.parts + sum(len(one.payloads) for one in done),
            self.receipt.recipients + sum(one.recipients for one in done),
        )
