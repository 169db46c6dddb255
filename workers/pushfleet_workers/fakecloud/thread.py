"""The fake cloud in a thread with an event loop of its own, for callers that have none."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from pushfleet_workers.fakecloud.book import Accepted
from pushfleet_workers.fakecloud.cloud import FakeCloud
from pushfleet_workers.fakecloud.credentials import Credential
from pushfleet_workers.fakecloud.receipts import Answer, Console

__all__ = ["FakeCloudThread"]

T = TypeVar("T")


class FakeCloudThread:
    """:class:`FakeCloud` for synchronous callers: the same options, the same methods, from any thread.

    A context manager. *uvloop* runs it on uvloop, for load. Every method returns once the thing is done.
    """

    def __init__(self, *, uvloop: bool = False, **options: Any) -> None:
        self._cloud = FakeCloud(**options)
        self._uvloop = uvloop
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._ready: concurrent.futures.Future[None] = concurrent.futures.Future()
        self._thread = threading.Thread(target=self._run, name="fakecloud", daemon=True)

    def __enter__(self) -> Self:
        """Listen."""
        self._thread.start()
        try:
            self._ready.result()
        except BaseException:
            self._thread.join()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Give every port back and end the thread."""
        assert self._loop is not None
        assert self._stop is not None
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    @property
    def ca_file(self) -> Path:
        """As :attr:`FakeCloud.ca_file`."""
        return self._cloud.ca_file

    @property
    def control_url(self) -> str:
        """As :attr:`FakeCloud.control_url`."""
        return self._cloud.control_url

    def url(self, vendor: str) -> str:
        """As :meth:`FakeCloud.url`."""
        return self._cloud.url(vendor)

    def port(self, vendor: str) -> int:
        """As :meth:`FakeCloud.port`."""
        return self._cloud.port(vendor)

    def ask(self, question: Callable[[FakeCloud], T]) -> T:
        """What *question* returns, asked in the cloud's own thread: the way to read the book."""
        return self._in_loop(lambda: question(self._cloud))

    def credential(self, vendor: str, **options: Any) -> Credential:
        """As :meth:`FakeCloud.credential`."""
        return self._in_loop(lambda: self._cloud.credential(vendor, **options))

    def credentials(self) -> list[Credential]:
        """As :meth:`FakeCloud.credentials`."""
        return self._in_loop(self._cloud.credentials)

    def rule(self, vendor: str, action: str, **fields: Any) -> int:
        """As :meth:`FakeCloud.rule`."""
        return self._in_loop(lambda: self._cloud.rule(vendor, action, **fields))

    def kill(self, vendor: str, token: str, code: str = "", since_ms: int | None = None) -> int:
        """As :meth:`FakeCloud.kill`."""
        return self._in_loop(lambda: self._cloud.kill(vendor, token, code, since_ms))

    def revive(self, vendor: str, token: str) -> bool:
        """As :meth:`FakeCloud.revive`."""
        return self._in_loop(lambda: self._cloud.revive(vendor, token))

    def rules(self, vendor: str = "") -> list[dict[str, Any]]:
        """As :meth:`FakeCloud.rules`."""
        return self._in_loop(lambda: self._cloud.rules(vendor))

    def clear_rules(self, vendor: str = "", number: int = 0) -> None:
        """As :meth:`FakeCloud.clear_rules`."""
        self._in_loop(lambda: self._cloud.clear_rules(vendor, number))

    def stats(self) -> dict[str, Any]:
        """As :meth:`FakeCloud.stats`."""
        return self._in_loop(self._cloud.stats)

    def received(self, vendor: str = "", token: str = "") -> list[Accepted]:
        """As :meth:`FakeCloud.received`."""
        return self._in_loop(lambda: self._cloud.received(vendor, token))

    def max_streams(self, vendor: str, max_streams: int) -> None:
        """As :meth:`FakeCloud.max_streams`."""
        self._in_loop(lambda: self._cloud.max_streams(vendor, max_streams))

    def expire_auth(self, vendor: str) -> None:
        """As :meth:`FakeCloud.expire_auth`."""
        self._in_loop(lambda: self._cloud.expire_auth(vendor))

    def blackout(self, vendor: str) -> None:
        """As :meth:`FakeCloud.blackout`."""
        asyncio.run_coroutine_threadsafe(self._cloud.blackout(vendor), self._running()).result()

    def heal(self, vendor: str) -> None:
        """As :meth:`FakeCloud.heal`."""
        asyncio.run_coroutine_threadsafe(self._cloud.heal(vendor), self._running()).result()

    def tls(self, vendor: str, tls: str) -> None:
        """As :meth:`FakeCloud.tls`."""
        asyncio.run_coroutine_threadsafe(self._cloud.tls(vendor, tls), self._running()).result()

    def send_receipts(
        self, vendor: str, code: str = "", token: str = "", console: Console | None = None, times: int = 1
    ) -> list[Answer]:
        """As :meth:`FakeCloud.send_receipts`."""
        sending = self._cloud.send_receipts(vendor, code, token, console, times)
        return asyncio.run_coroutine_threadsafe(sending, self._running()).result()

    def reset(self) -> None:
        """As :meth:`FakeCloud.reset`."""
        self._in_loop(self._cloud.reset)

    def _running(self) -> asyncio.AbstractEventLoop:
        assert self._loop is not None, "the cloud is not running"
        return self._loop

    def _in_loop(self, work: Callable[[], T]) -> T:
        async def do() -> T:
            return work()

        return asyncio.run_coroutine_threadsafe(do(), self._running()).result()

    def _run(self) -> None:
        try:
            with asyncio.Runner(loop_factory=self._loop_factory()) as runner:
                runner.run(self._main())
        except BaseException as error:
            if self._ready.done():
                raise
            self._ready.set_exception(error)

    def _loop_factory(self) -> Callable[[], asyncio.AbstractEventLoop] | None:
        if not self._uvloop:
            return None
        import uvloop

        return uvloop.new_event_loop

    async def _main(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        async with self._cloud:
            self._ready.set_result(None)
            await self._stop.wait()
