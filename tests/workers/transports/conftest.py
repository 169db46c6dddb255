"""Tests that are coroutines, and certificates for them."""

from __future__ import annotations

import asyncio
import gc
import inspect
import ssl
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest
import uvloop

from pushfleet_workers.fakecloud.certs import Certificates, make_certificates, server_context


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run coroutine tests in the loop that the workers use, and let none leave a task or a socket behind."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    arguments = {name: pyfuncitem.funcargs[name] for name in inspect.signature(pyfuncitem.obj).parameters}
    loop_factory = arguments.get("loop_factory", uvloop.new_event_loop)
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(_without_leftovers(pyfuncitem.obj(**arguments)))
    # A socket that was not closed says so when it is collected, and warnings are errors.
    gc.collect()
    return True


async def _without_leftovers(test: Coroutine[Any, Any, None]) -> None:
    await test
    left = asyncio.all_tasks() - {asyncio.current_task()}
    if left:
        # The plain loop accepts a connection in a task that outlives a refused handshake by a moment.
        _, left = await asyncio.wait(left, timeout=1)
    assert not left, "the test left tasks behind"


@pytest.fixture(scope="session", autouse=True)
def _quick_collections() -> Iterator[None]:
    """Spare the collection after each test what was there before all of them."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(Path(tmp_path_factory.mktemp("certificates")))


@pytest.fixture
def http2(certificates: Certificates) -> ssl.SSLContext:
    return server_context(certificates.server_file, ["h2"])


@pytest.fixture
def http1(certificates: Certificates) -> ssl.SSLContext:
    return server_context(certificates.server_file, ["http/1.1"])
