"""`/metrics`, `/healthz` and `/readyz` of processes without an API of their own."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from pushfleet_workers.errors import FleetError
from pushfleet_workers.settings import MetricsSettings

__all__ = ["ProbeServer", "open_probes"]

log = logging.getLogger(__name__)


class ProbeServer:
    """A small HTTP server in a thread.

    * **ready** - whether the process can do its work now.

    Raises :class:`OSError` when the port is taken.
    """

    def __init__(self, settings: MetricsSettings, *, role: str, ready: Callable[[], bool] = lambda: True) -> None:
        self._server = ThreadingHTTPServer((settings.host, settings.port), _handler(ready))
        self._server.daemon_threads = True
        self.port = int(self._server.server_address[1])
        self._thread = threading.Thread(target=self._server.serve_forever, name="pushfleet-probes", daemon=True)
        self._thread.start()
        log.info("%s serves /metrics on %s:%d", role, settings.host, self.port)

    def close(self) -> None:
        """Stop serving and free the port."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)


def open_probes(settings: MetricsSettings, *, role: str, ready: Callable[[], bool]) -> ProbeServer:
    """A :class:`ProbeServer`; raises :class:`FleetError` with the mend where its port is taken."""
    try:
        return ProbeServer(settings, role=role, ready=ready)
    except OSError as problem:
        where = f"{settings.host}:{settings.port}"
        raise FleetError(f"metrics cannot be served on {where}, set metrics.port: {problem}") from problem


def _handler(ready: Callable[[], bool]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            if path == "/metrics":
                self._answer(200, generate_latest(), CONTENT_TYPE_LATEST)
            elif path == "/healthz":
                self._answer(200, b"ok\n")
            elif path == "/readyz":
                good = ready()
                self._answer(200 if good else 503, b"ready\n" if good else b"not ready\n")
            else:
                self._answer(404, b"not found: /metrics, /healthz and /readyz are here\n")

        def _answer(self, status: int, body: bytes, content_type: str = "text/plain; charset=utf-8") -> None:
            self.send_response(status)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Probes are not worth a line each."""

    return Handler
