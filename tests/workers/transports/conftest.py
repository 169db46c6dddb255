"""Certificates, and tests that are coroutines."""

from __future__ import annotations

import asyncio
import functools
import gc
import ssl
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
import uvloop
from pushfleet_workers.fakecloud.certs import Certificates, make_certificates, server_context


async def _without_leftovers(work: Coroutine[Any, Any, None]) -> None:
    await work
    assert asyncio.all_tasks() == {asyncio.current_task()}, "the test left tasks behind"


def _in_loop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_without_leftovers(test(*args, **kwargs)))
        # A socket that was not closed says so when it is collected, and warnings are errors.
        gc.collect()

    return run


def pytest_pycollect_makeitem(collector: pytest.Module, name: str, obj: object) -> None:
    """Run the coroutine tests of this folder in the loop that the workers use."""
    if asyncio.iscoroutinefunction(obj) and name.startswith("test_"):
        setattr(collector.obj, name, _in_loop(obj))


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(Path(tmp_path_factory.mktemp("certificates")))


@pytest.fixture
def http2_context(certificates: Certificates) -> ssl.SSLContext:
    return server_context(certificates.server_file, ["h2"])


@pytest.fixture
def http1_context(certificates: Certificates) -> ssl.SSLContext:
    return server_context(certificates.server_file, ["http/1.1"])
