"""The default engine: pyreqwest, whose TLS and HTTP/2 are native code.

Its error classes mislead, its causes do not: a request that timed out is a ``ConnectTimeoutError``, a connection reset
under fifty requests a ``ConnectError``. Only ``client error (Connect)`` means that there was no connection.

The request of a cancelled caller lives on until its deadline, its connection too, even past :meth:`close`.

A peer that closes a connection in good order (GOAWAY without an error) is handled inside: the requests it did not take
move to a new connection, unseen by us and therefore all at once. Where that peer grants few streams at first, some of
them fail, and the line begins again with a single request.
"""

from __future__ import annotations

import contextlib
from datetime import timedelta

from pyreqwest.client import Client, ClientBuilder
from pyreqwest.exceptions import ClientClosedError, DetailedPyreqwestError, PyreqwestError, RequestTimeoutError
from pyreqwest.proxy import ProxyBuilder
from pyreqwest.runtime import runtime_worker_threads

from pushfleet_workers.distrust import fault_of_rustls
from pushfleet_workers.errors import SettingsError
from pushfleet_workers.transports.base import TransportOptions
from pushfleet_workers.transports.failure import Failure, Reason
from pushfleet_workers.transports.lines import Line, LineTransport, connect_timeout_s
from pushfleet_workers.transports.tls import check_identity, read_ca_bundle
from pushfleet_workers.vendor import Request, Response

__all__ = ["PyreqwestTransport"]

# One thread drives all connections of the process: more would only contend for the GIL when answers come in.
with contextlib.suppress(RuntimeError):
    # Raised where somebody else in this process was first.
    runtime_worker_threads(1)

_HTTP1_IDLE_S = 30.0


class PyreqwestTransport(LineTransport[Client]):
    """Requests over pyreqwest, one client for each connection.

    * **ca_bundle** - trusted beside the system's authorities, not instead of them.
    """

    def __init__(self, options: TransportOptions) -> None:
        super().__init__(options, one_connection_per_line=options.http2)
        self._ca_bundle = read_ca_bundle(options.ca_bundle) if options.ca_bundle else b""
        if options.identity is not None:
            check_identity(options.identity)
        try:
            self._build()
        except (ValueError, PyreqwestError):
            # Its TLS is stricter than the one that has read the files.
            raise SettingsError(
                f"pyreqwest does not accept the ca_bundle {options.ca_bundle}, the client certificate or the proxy"
            ) from None

    def _open(self, line: Line[Client]) -> Client:
        return self._build()

    def _build(self) -> Client:
        options = self._options
        builder = (
            ClientBuilder()
            .runtime_multithreaded(True)
            .timeout(timedelta(seconds=options.timeout_s))
            .connect_timeout(timedelta(seconds=connect_timeout_s(options)))
            .follow_redirects(False)
            .referer(False)
            .gzip(False)
            .brotli(False)
            .zstd(False)
            .deflate(False)
            .user_agent("pushfleet")
        )
        builder = builder.proxy(ProxyBuilder.all(options.proxy)) if options.proxy else builder.no_proxy()
        if self._ca_bundle:
            builder = builder.add_root_certificate_pem(self._ca_bundle)
        if options.identity is not None:
            builder = builder.identity_pem(options.identity.pem)
        if not options.http2:
            return builder.http1_only().pool_idle_timeout(timedelta(seconds=_HTTP1_IDLE_S)).build()
        return (
            # Not ``http2(True)``, which also offers HTTP/1.1, and opens a connection for each request of a burst.
            builder.http2_prior_knowledge()
            .pool_idle_timeout(None)
            .http2_keep_alive_interval(timedelta(seconds=options.ping_interval_s))
            .http2_keep_alive_timeout(timedelta(seconds=options.ping_timeout_s))
            .http2_keep_alive_while_idle(True)
            .build()
        )

    async def _exchange(self, line: Line[Client], request: Request) -> Response | Failure:
        assert line.client is not None
        try:
            # One expression: a name for a step would live on in the traceback of a cancelled caller, the client with
            # it, and a client only lets go of its connection when nobody refers to it.
            answer = await (
                line.client.request(request.method, request.url)
                .headers(request.headers)
                .body_bytes(request.body)
                .build()
                .send()
            )
            # Its header map is handed on as it is: a mapping of lower-case names, and a copy costs 3 % of a request.
            return Response(answer.status, answer.headers, bytes(await answer.bytes()), answer.version)
        except (ValueError, TypeError):
            return Failure(Reason.UNSENDABLE)
        except PyreqwestError as problem:
            return _failure(problem, line.warm)

    async def _shut(self, client: Client) -> None:
        await client.close()


def _failure(problem: PyreqwestError, has_answered: bool) -> Failure:
    details = problem.details.get("causes") if isinstance(problem, DetailedPyreqwestError) else None
    # Those that name the URL are not for us: it holds the token.
    causes = [cause["message"] for cause in details or () if "://" not in cause["message"]]
    last = causes[-1] if causes else ""
    if "client error (Connect)" in causes:
        fault = fault_of_rustls(last)
        if fault:
            return Failure(Reason.DISTRUSTED, last, fault)
        return Failure(Reason.UNREACHABLE, last.removeprefix("client error (Connect)"))
    # An answer that broke off while it was read says nothing of this kind: its request was taken.
    unanswered = "client error (SendRequest)" in causes
    if last.startswith("connection error received") and unanswered:
        # Only streams above the last one that the peer's GOAWAY admits fail like this; the others fail as lost.
        return Failure(Reason.UNTAKEN)
    if last.startswith("stream error received: refused stream") and unanswered:
        return Failure(Reason.REFUSED)
    if last.startswith("stream error"):
        return Failure(Reason.RESET)
    if last == "connection error detected: frame with invalid size" and unanswered and not has_answered:
        # What "HTTP/1.1 …" looks like to HTTP/2. Such a peer cannot have understood our frames either.
        return Failure(Reason.NOT_HTTP2)
    if "keep-alive timed out" in causes:
        return Failure(Reason.FROZEN)
    if isinstance(problem, RequestTimeoutError):
        return Failure(Reason.LATE)
    if isinstance(problem, ClientClosedError):
        return Failure(Reason.LOST, "the transport was closed")
    return Failure(Reason.LOST)
