"""The asynchronous producer."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any, Self

import redis
import redis.asyncio

from pushfleet.connections import connect_async
from pushfleet.errors import PushfleetError, QueueUnavailable
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
    prepare_recall,
    preparing,
    transfer,
)

__all__ = ["AsyncProducer"]


class AsyncProducer:
    """Puts messages into the queue of a fleet; an async context manager, to be shared by all tasks of one event loop.

    Settings and errors are those of :class:`pushfleet.Producer`; a ready client is a ``redis.asyncio.Redis``.
    A call returns when its messages are in Redis. A call that is cancelled may or may not have reached the queue;
    it never takes along the calls of other tasks that share its round trip.
    """

    def __init__(
        self,
        url: str | redis.asyncio.Redis,
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
        self._owns_client = isinstance(url, str)
        self._client = connect_async(url, socket_timeout_s) if isinstance(url, str) else url
        if not isinstance(self._client, redis.asyncio.Redis):
            raise TypeError(
                f"AsyncProducer needs a URL or a redis.asyncio.Redis, not {type(url).__module__}.{type(url).__name__}"
            )
        self._closed = False
        self._calls = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._open: _Shared | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def enqueue(self, message: OfflineMessage) -> Receipt:
        """Put one message into the queue; returns when Redis has it.

        Raises :class:`InvalidMessage`, :class:`Backpressure` or :class:`QueueUnavailable`. Repeating the call within
        ten minutes is safe: the fleet drops a part of an id that it has seen.
        """
        self._enter()
        try:
            prepared = await self._prepare(message)
            if self._policy.linger_ms:
                return await self._send_together(prepared)
            batch = Batch()
            place = batch.add(prepared)
            await self._drive(transfer(batch, self._policy, self._gauge))
            return batch.receipt(place)
        finally:
            await self._leave()

    async def enqueue_many(
        self,
        messages: Iterable[OfflineMessage],
        *,
        on_progress: Callable[[BatchReceipt], object] | None = None,
    ) -> BatchReceipt:
        """Put many messages into the queue, pipelined; returns when Redis has all of them.

        Chunks, order, *on_progress* (a plain function) and errors are those of
        :meth:`pushfleet.Producer.enqueue_many`. The event loop gets its turn every 200 messages.
        """
        run = Run(self._policy, self._gauge, on_progress)
        self._enter()
        try:
            for batch in run.batches(messages):
                if batch is None:
                    await asyncio.sleep(0)
                else:
                    await self._drive(run.transfer(batch))
                    run.finish(batch)
            return run.receipt
        finally:
            await self._leave()

    async def recall(
        self, app: str, message_id: str, *, conversation: str = "", recipients: Iterable[str] = ()
    ) -> Receipt:
        """Take a message back, as :meth:`pushfleet.Producer.recall` does; returns when Redis has the recall."""
        self._enter()
        try:
            batch = Batch(recalls=True)
            place = batch.add(prepare_recall(app, message_id, conversation, recipients, self._policy))
            await self._drive(transfer(batch, self._policy, self._gauge))
            return batch.receipt(place)
        finally:
            await self._leave()

    async def aclose(self) -> None:
        """Refuse further calls, send what lingers at once, and close the connections behind the last call."""
        self._closed = True
        if self._open is not None:
            self._open.go.set()
        if self._tasks:
            await asyncio.wait(self._tasks)
        if self._calls == 0:
            await self._hang_up()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        return f"AsyncProducer(prefix={self._policy.prefix!r})"

    async def _prepare(self, message: OfflineMessage) -> Prepared:
        steps = preparing(message, self._policy)
        while True:
            try:
                next(steps)
            except StopIteration as done:
                prepared: Prepared = done.value
                return prepared
            await asyncio.sleep(0)

    async def _send_together(self, prepared: Prepared) -> Receipt:
        shared = self._open
        if shared is None:
            shared = self._open = _Shared()
            shared.task = asyncio.create_task(self._send_shared(shared))
            self._tasks.add(shared.task)
            shared.task.add_done_callback(self._tasks.discard)
        place = shared.batch.add(prepared)
        if shared.batch.worth_sending:
            self._open = None
            shared.go.set()
        assert shared.task is not None
        await asyncio.shield(shared.task)
        return shared.batch.receipt(place)

    async def _send_shared(self, shared: _Shared) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._policy.linger_ms / 1000):
                await shared.go.wait()
        if self._open is shared:
            self._open = None
        await self._drive(transfer(shared.batch, self._policy, self._gauge))

    async def _drive(self, steps: Steps) -> None:
        try:
            commands = next(steps)
            while True:
                try:
                    replies = await self._round_trip(commands)
                except (redis.RedisError, OSError) as problem:
                    commands = steps.throw(problem)
                else:
                    commands = steps.send(replies)
        except StopIteration:
            return

    async def _round_trip(self, commands: list[Command]) -> list[Any]:
        try:
            async with self._client.pipeline(transaction=False) as pipeline:
                for command in commands:
                    pipeline.execute_command(*command)
                replies = await pipeline.execute(raise_on_error=False)
        except redis.TimeoutError:
            await self._start_afresh()
            raise
        if any(isinstance(reply, redis.ReadOnlyError) for reply in replies):
            await self._start_afresh()
            raise redis.ConnectionError("the server has become a replica")
        return replies

    async def _start_afresh(self) -> None:
        """The master has gone silent, or was demoted under us: only new connections can find the new one.

        Those of a ready client are for its owner to end: others may be using them.
        """
        if self._owns_client:
            await self._client.connection_pool.disconnect(inuse_connections=False)

    def _enter(self) -> None:
        loop = asyncio.get_running_loop()
        if self._loop is None:
            self._loop = loop
        if self._loop is not loop:
            raise PushfleetError("this AsyncProducer belongs to another event loop: make one for each loop")
        if self._closed:
            raise QueueUnavailable("this AsyncProducer is closed")
        self._calls += 1

    async def _leave(self) -> None:
        self._calls -= 1
        if self._closed and self._calls == 0:
            await self._hang_up()

    async def _hang_up(self) -> None:
        if self._owns_client:
            await self._client.aclose()


class _Shared:
    """Messages of several tasks that go together."""

    def __init__(self) -> None:
        self.batch = Batch()
        self.go = asyncio.Event()
        self.task: asyncio.Task[None] | None = None
