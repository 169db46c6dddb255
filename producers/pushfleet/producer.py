"""The synchronous producer."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable
from functools import partial
from types import TracebackType
from typing import Any, Self

import redis

from pushfleet.connections import connect
from pushfleet.errors import QueueUnavailable
from pushfleet.message import OfflineMessage
from pushfleet.transfer import (
    Batch,
    BatchReceipt,
    Command,
    MemoryGauge,
    Policy,
    Prepared,
    Receipt,
    Run,
    Steps,
    prepare,
    prepare_recall,
    transfer,
)

__all__ = ["Producer"]


class Producer:
    """Puts messages into the queue of a fleet; a context manager, to be shared by all threads of a process.

    * **url** - ``redis://``, ``rediss://`` (TLS) or ``unix://`` address of the queue; behind Sentinels
      ``redis+sentinel://host:26379,host:26379/master/0``, see :mod:`pushfleet.sentinel`. Or a ready ``redis.Redis``:
      a client that was handed in keeps its own timeouts and retries, and is not closed here.
    * **prefix** - the fleet's key prefix.
    * **linger_ms** - single ``enqueue`` calls of all threads within this time share one round trip; 0: none waits.
    * **ingress_max** - entries in a lane's stream beyond which that lane is refused.
    * **memory_mark** - share of Redis' ``maxmemory`` from which on everything is refused; 1: leave it to Redis.
    * **wait_replicas**, **wait_timeout_ms** - how many replicas must confirm before "accepted" is told, and how long
      that may take; 0 replicas: none.
    * **socket_timeout_s** - how long connecting, one answer, and waiting for one of 32 connections may each take.

    A call returns when its messages are in Redis, so there is nothing to flush at exit, and nothing that was
    accepted is lost by leaving without :meth:`close`. After a fork the child may go on using the producer.
    Raises ``ValueError`` for a setting out of its range, ``TypeError`` for a client of another kind.
    """

    def __init__(
        self,
        url: str | redis.Redis,
        *,
        prefix: str = "pushfleet",
        linger_ms: float = 0,
        ingress_max: int = 1_000_000,
        memory_mark: float = 0.7,
        wait_replicas: int = 0,
        wait_timeout_ms: int = 1_000,
        socket_timeout_s: float = 5.0,
    ) -> None:
        self._policy = Policy(
            prefix=prefix,
            linger_ms=linger_ms,
            ingress_max=ingress_max,
            memory_mark=memory_mark,
            wait_replicas=wait_replicas,
            wait_timeout_ms=wait_timeout_ms,
            socket_timeout_s=socket_timeout_s,
        )
        self._gauge = MemoryGauge(memory_mark)
        self._dial: Callable[[], redis.Redis] | None = None
        if isinstance(url, str):
            self._dial = partial(connect, url, socket_timeout_s)
            self._client = self._dial()
        else:
            self._client = url
        if not isinstance(self._client, redis.Redis):
            raise TypeError(f"Producer needs a URL or a redis.Redis, not {type(url).__module__}.{type(url).__name__}")
        self._closed = False
        self._begin()

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._calls = 0
        self._open: _Shared | None = None

    def enqueue(self, message: OfflineMessage) -> Receipt:
        """Put one message into the queue; returns when Redis has it.

        Raises :class:`InvalidMessage`, :class:`Backpressure` or :class:`QueueUnavailable`. Repeating the call within
        ten minutes is safe: the fleet drops a part of an id that it has seen.
        """
        prepared = prepare(message, self._policy)
        self._enter()
        try:
            if self._policy.linger_ms:
                return self._send_together(prepared)
            batch = Batch()
            place = batch.add(prepared)
            self._drive(transfer(batch, self._policy, self._gauge))
            return batch.receipt(place)
        finally:
            self._leave()

    def enqueue_many(
        self,
        messages: Iterable[OfflineMessage],
        *,
        on_progress: Callable[[BatchReceipt], object] | None = None,
    ) -> BatchReceipt:
        """Put many messages into the queue, pipelined; returns when Redis has all of them.

        Up to 10,000 messages (32 MiB of JSON) are validated before the first is sent: a bad one refuses them all. A
        longer iterable goes chunk by chunk of that size, so that memory stays bounded but for the accepted ids.
        Within a lane the order is kept. *on_progress* is told the sum so far after each round trip.

        Raises :class:`InvalidMessage` with ``.index``, :class:`Backpressure` or :class:`QueueUnavailable`, each
        with ``.accepted``: the ids that are safely in.
        """
        run = Run(self._policy, self._gauge, on_progress)
        self._enter()
        try:
            for batch in run.batches(messages):
                if batch is not None:
                    self._drive(run.transfer(batch))
                    run.finish(batch)
            return run.receipt
        finally:
            self._leave()

    def recall(self, app: str, message_id: str, *, conversation: str = "", recipients: Iterable[str] = ()) -> Receipt:
        """Take a message back: what has not left is stopped, what is shown is withdrawn or replaced where it can be.

        Returns when Redis has the recall. The fleet acts on it where the app's ``recall_window_s`` is set.

        * **conversation** - the message's conversation, or its ``replace_key`` where it had one. Only counts where
          the fleet has forgotten the message.
        * **recipients** - whose screens to take it off; none: those that the fleet remembers. What has not left is
          stopped for everybody.

        Raises :class:`InvalidMessage`, :class:`Backpressure` or :class:`QueueUnavailable`. Repeating the call is safe.
        """
        prepared = prepare_recall(app, message_id, conversation, recipients, self._policy)
        self._enter()
        try:
            batch = Batch(recalls=True)
            place = batch.add(prepared)
            self._drive(transfer(batch, self._policy, self._gauge))
            return batch.receipt(place)
        finally:
            self._leave()

    def close(self) -> None:
        """Refuse further calls, send what lingers at once, and close the connections behind the last call."""
        with self._lock:
            self._closed = True
            if self._open is not None:
                self._open.go.set()
            last = self._calls == 0
        if last:
            self._hang_up()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Producer(prefix={self._policy.prefix!r})"

    def _send_together(self, prepared: Prepared) -> Receipt:
        """The first of several threads waits and sends for all: no thread of our own can die or be left behind."""
        with self._lock:
            leads = self._open is None
            shared = self._open = self._open or _Shared()
            place = shared.batch.add(prepared)
            if shared.batch.worth_sending:
                self._open = None
                shared.go.set()
        if not leads:
            shared.done.wait()
            return shared.batch.receipt(place)
        try:
            shared.go.wait(self._policy.linger_ms / 1000)
            self._shut(shared)
            self._drive(transfer(shared.batch, self._policy, self._gauge))
        finally:
            self._shut(shared)
            shared.done.set()
        return shared.batch.receipt(place)

    def _shut(self, shared: _Shared) -> None:
        with self._lock:
            if self._open is shared:
                self._open = None

    def _drive(self, steps: Steps) -> None:
        try:
            commands = next(steps)
            while True:
                try:
                    replies = self._round_trip(commands)
                except (redis.RedisError, OSError) as problem:
                    commands = steps.throw(problem)
                else:
                    commands = steps.send(replies)
        except StopIteration:
            return

    def _round_trip(self, commands: list[Command]) -> list[Any]:
        try:
            with self._client.pipeline(transaction=False) as pipeline:
                for command in commands:
                    pipeline.execute_command(*command)  # type: ignore[no-untyped-call]
                replies = pipeline.execute(raise_on_error=False)
        except redis.TimeoutError:
            self._start_afresh()
            raise
        if any(isinstance(reply, redis.ReadOnlyError) for reply in replies):
            self._start_afresh()
            raise redis.ConnectionError("the server has become a replica")
        return replies

    def _start_afresh(self) -> None:
        """The master has gone silent, or was demoted under us: only new connections can find the new one.

        The old ones are left to the threads that are using them.
        """
        if self._dial is not None:
            self._client = self._dial()

    def _enter(self) -> None:
        if self._pid != os.getpid():
            # The child of a fork: locks and waiting threads of the parent mean nothing here.
            self._begin()
        with self._lock:
            if self._closed:
                raise QueueUnavailable("this Producer is closed")
            self._calls += 1

    def _leave(self) -> None:
        with self._lock:
            self._calls -= 1
            last = self._closed and self._calls == 0
        if last:
            self._hang_up()

    def _hang_up(self) -> None:
        if self._dial is not None:
            self._client.connection_pool.disconnect()


class _Shared:
    """Messages of several threads that go together."""

    def __init__(self) -> None:
        self.batch = Batch()
        self.go = threading.Event()
        self.done = threading.Event()
