"""The producer of a scenario: a process of its own that enqueues at a steady rate and writes down what it was told.

A backend that is refused tries again, so each message is asked for until it is accepted or the load ends. What became
of it is written once that is known: a line of JSON for each message. Of the project only the SDK is used, which may be
that of an older version.
"""

from __future__ import annotations

import signal
import sys
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Protocol

import msgspec
from msgspec import Struct
from tests.chaos.people import APP, People

from pushfleet import Conversation, Element, OfflineMessage, Producer, Sender
from pushfleet.errors import EnqueueError
from pushfleet.message import Kind

__all__ = ["AskedToStop", "Plan", "Told", "message", "read_told", "run"]

_TICK_S = 0.02
_AT_ONCE = 500
_WAIT_MS = 200
"""Where nobody confirms, whoever waits for longer makes too few messages for some to wait that may be lost."""

_GROUP = 10


class Told(Struct, frozen=True):
    """A line of the producer's book: one message."""

    id: str
    users: tuple[str, ...]
    sent_at_s: float
    """When the backend made it; its time to live counts from here."""

    ttl_s: int
    accepted: bool
    """False: it was refused, or nobody told; it may be in the queue all the same."""

    refusals: int = 0
    """How often the producer was refused before."""

    told_at_s: float = 0.0
    """When it was told."""


class AskedToStop(Exception):
    """It is time to end."""


class Stop(Protocol):
    """Says when to end."""

    def check(self) -> None:
        """Raise :class:`AskedToStop` once it is time."""
        ...


class _StopSignal:
    """SIGTERM, heeded between two round trips."""

    def __init__(self) -> None:
        self._asked = False
        signal.signal(signal.SIGTERM, self._note)

    def _note(self, *_: object) -> None:
        self._asked = True

    def check(self) -> None:
        """Raise :class:`AskedToStop` once it came."""
        if self._asked:
            raise AskedToStop


class Plan(Struct, kw_only=True, frozen=True):
    """What to enqueue."""

    name: str
    """Begins the ids of its messages."""

    redis_url: str
    book: str
    vendors: list[str]
    per_vendor: int
    per_s: float
    count: int = 0
    """After how many messages it ends; 0: when it is asked to."""

    kind: Kind = "chat"
    groups_every: int = 20
    """Each so many-th message goes to a group of ten."""

    ttl_s: int = 3_600
    text: str = "See you at eight?"
    wait_replicas: int = 0
    """How many replicas must have a message before it counts as accepted."""


def message(plan: Plan, number: int, sent_at_s: float) -> OfflineMessage:
    """The message of that number."""
    people = People(plan.vendors, plan.per_vendor)
    group = bool(plan.groups_every) and number % plan.groups_every == plan.groups_every - 1
    users = dict.fromkeys(people.user(number + further) for further in range(_GROUP if group else 1))
    return OfflineMessage(
        id=f"{plan.name}-{number}",
        app=APP,
        kind=plan.kind,
        sender=Sender(id="ann", name="Ann"),
        conversation=Conversation(id=f"c-{number}", kind="group" if group else "single"),
        recipients=tuple(users),
        elements=(Element(type="text", text=plan.text),),
        sent_at_ms=int(sent_at_s * 1000),
        ttl_s=plan.ttl_s,
    )


class _Book:
    """What is known for good goes to the file; the rest is asked for again."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._refusals: dict[str, int] = {}

    def write(self, messages: list[OfflineMessage], *, accepted: bool) -> None:
        now = time.time()
        lines = [
            Told(
                one.id,
                tuple(str(user) for user in one.recipients),
                (one.sent_at_ms or 0) / 1000,
                int(one.ttl_s or 0),
                accepted,
                self._refusals.pop(one.id, 0),
                now,
            )
            for one in messages
        ]
        self._file.write(msgspec.json.Encoder().encode_lines(lines))

    def refused(self, messages: list[OfflineMessage]) -> None:
        for one in messages:
            self._refusals[one.id] = self._refusals.get(one.id, 0) + 1


def run(plan: Plan, stop: Stop) -> None:
    """Enqueue until the plan is done or *stop* asks to end; what waits then is asked for once more."""
    waiting: deque[OfflineMessage] = deque()
    with (
        Path(plan.book).open("ab", buffering=0) as file,
        Producer(
            plan.redis_url, socket_timeout_s=2.0, wait_replicas=plan.wait_replicas, wait_timeout_ms=_WAIT_MS
        ) as producer,
    ):
        book = _Book(file)
        try:
            for number in _paced(plan, stop):
                if number is not None:
                    waiting.append(message(plan, number, time.time()))
                if waiting and (number is None or len(waiting) >= _AT_ONCE):
                    _enqueue(producer, waiting, book)
            while waiting:
                stop.check()
                _enqueue(producer, waiting, book)
        except AskedToStop:
            _enqueue(producer, waiting, book)
        book.write(list(waiting), accepted=False)


def _paced(plan: Plan, stop: Stop) -> Iterator[int | None]:
    """The numbers of messages as they are due, and None whenever it is time to enqueue what is there."""
    began, made = time.monotonic(), 0
    while not plan.count or made < plan.count:
        stop.check()
        now = time.monotonic()
        due = int((now - began) * plan.per_s) + 1
        if due - made > plan.per_s:
            # Whoever was held up for more than a second does not make up for it.
            began, due = now - made / plan.per_s, made + 1
        if plan.count:
            due = min(due, plan.count)
        yield from range(made, due)
        yield None
        made = due
        time.sleep(max(0.0, _TICK_S - (time.monotonic() - now)))


def _enqueue(producer: Producer, waiting: deque[OfflineMessage], book: _Book) -> None:
    """Ask for what waits, oldest first; what was not accepted waits on."""
    asked = [waiting.popleft() for _ in range(min(len(waiting), _AT_ONCE))]
    if not asked:
        return
    accepted: set[str] = {one.id for one in asked}
    try:
        producer.enqueue_many(asked)
    except EnqueueError as problem:
        accepted = set(problem.accepted)
    book.write([one for one in asked if one.id in accepted], accepted=True)
    refused = [one for one in asked if one.id not in accepted]
    book.refused(refused)
    waiting.extendleft(reversed(refused))


def read_told(path: Path) -> Iterator[Told]:
    """What stands in the book at *path* so far."""
    if not path.exists():
        return
    decoder = msgspec.json.Decoder(Told)
    with path.open("rb") as file:
        for line in file:
            if line.endswith(b"\n"):
                yield decoder.decode(line)


if __name__ == "__main__":
    run(msgspec.json.decode(sys.argv[1], type=Plan), _StopSignal())
