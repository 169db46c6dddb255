import asyncio
import socket
from pathlib import Path
from typing import Any

import httpx
import pytest

from pushfleet_workers.api import serve
from pushfleet_workers.errors import FleetError


class App:
    """Answers at once, or after being told to."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.go_on = asyncio.Event()
        self.life: list[str] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            while "lifespan.shutdown" not in self.life:
                self.life.append((await receive())["type"])
                await send({"type": f"{self.life[-1]}.complete"})
            return
        if scope["path"] == "/slow":
            self.asked.set()
            await self.go_on.wait()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"here"})


async def started(app: App, port: int = 0) -> tuple[asyncio.Task[None], int]:
    listening: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    serving = asyncio.create_task(serve(app, "127.0.0.1", port, listening.set_result))
    await asyncio.wait({serving, listening}, return_when=asyncio.FIRST_COMPLETED)
    if serving.done():
        await serving
    return serving, listening.result()


async def stopped(serving: asyncio.Task[None]) -> None:
    serving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await serving


def nobody_listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


def test_it_answers_once_it_says_it_is_ready_and_leaves_the_port_when_cancelled() -> None:
    async def scenario() -> None:
        app = App()
        serving, port = await started(app)
        async with httpx.AsyncClient() as client:
            assert (await client.get(f"http://127.0.0.1:{port}/")).text == "here"
            await stopped(serving)
        assert nobody_listens(port)
        assert app.life == ["lifespan.startup", "lifespan.shutdown"]
        again, same = await started(app := App(), port)
        assert same == port
        await stopped(again)

    asyncio.run(scenario())


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="the system does not list threads")
def test_no_thread_of_the_server_outlives_it() -> None:
    def threads() -> set[str]:
        return {path.name for path in Path("/proc/self/task").iterdir()}

    async def scenario() -> None:
        for _ in range(5):
            before = threads()
            serving, _ = await started(App())
            assert threads() > before
            await stopped(serving)
            assert threads() <= before, "an interpreter that ends now would abort"

    asyncio.run(scenario())


def test_a_request_under_way_is_answered_before_the_end() -> None:
    async def scenario() -> None:
        app = App()
        serving, port = await started(app)
        async with httpx.AsyncClient() as client:
            asking = asyncio.create_task(client.get(f"http://127.0.0.1:{port}/slow"))
            await app.asked.wait()
            serving.cancel()
            asyncio.get_running_loop().call_later(0.05, app.go_on.set)
            assert (await asking).text == "here"
            with pytest.raises(asyncio.CancelledError):
                await serving

    asyncio.run(scenario())


def test_a_port_that_is_taken_is_refused_with_a_sentence() -> None:
    async def scenario() -> None:
        serving, port = await started(App())
        with pytest.raises(FleetError, match=f"cannot listen on 127.0.0.1:{port}: Address already in use"):
            await started(App(), port)
        async with httpx.AsyncClient() as client:
            assert (await client.get(f"http://127.0.0.1:{port}/")).text == "here", "the first one is not disturbed"
        await stopped(serving)

    asyncio.run(scenario())


def test_an_address_that_is_not_ours_is_refused_with_a_sentence() -> None:
    with pytest.raises(FleetError, match=r"cannot listen on 192\.0\.2\.1:0"):
        asyncio.run(serve(App(), "192.0.2.1", 0, lambda _: None))
