"""Tests that are coroutines, certificates for them, and transports of every engine."""

from __future__ import annotations

import asyncio
import gc
import inspect
import ssl
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import uvloop
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from tests.workers.transports.pushes import OpenTransport

from pushfleet_workers.fakecloud.certs import (
    Certificates,
    client_authority,
    client_certificate,
    make_certificates,
    pem_pair,
    server_context,
)
from pushfleet_workers.transports import ENGINES, Transport, TransportOptions, open_transport
from pushfleet_workers.vendor import Identity


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


@pytest.fixture(scope="session", params=["rsa", "ec"])
def identity(request: pytest.FixtureRequest) -> Identity:
    """A client certificate with its key, of the authority that `http2_for_the_known` trusts."""
    key = rsa.generate_private_key(65_537, 2_048) if request.param == "rsa" else ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "the client of the test")])
    certificate = client_certificate(subject, key, [])
    return Identity(pem_pair(key)[0] + certificate.public_bytes(Encoding.PEM))


@pytest.fixture
def http2_for_the_known(certificates: Certificates) -> ssl.SSLContext:
    """Shuts the door on whoever shows no certificate of our authority."""
    context = server_context(certificates.server_file, ["h2"], client_authority())
    context.verify_mode = ssl.CERT_REQUIRED
    return context


@pytest.fixture(params=sorted(ENGINES))
def engine(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def opened(engine: str, certificates: Certificates) -> OpenTransport:
    """An open transport of the engine, closed at the end."""

    @asynccontextmanager
    async def opened(**options: Any) -> AsyncIterator[Transport]:
        defaults = {"http2": True, "timeout_s": 20.0, "ca_bundle": certificates.ca_file}
        transport = open_transport(engine, TransportOptions(**{**defaults, **options}))
        try:
            yield transport
        finally:
            await transport.close()

    return opened
