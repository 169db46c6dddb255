"""The application: routes, refusals, key, metrics."""

from __future__ import annotations

import hmac
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST, Counter, Histogram, generate_latest
from starlette.types import ASGIApp, Receive, Scope, Send

from pushfleet_workers.api.devices import body_schemas, device_routes
from pushfleet_workers.api.problems import Problem, problem_response
from pushfleet_workers.errors import RedisUnusable
from pushfleet_workers.tokens.store import StateContended, TokenStore

__all__ = ["create_app"]

_OPEN_PATHS = frozenset({"/healthz", "/readyz", "/metrics"})

REQUESTS = Counter("pushfleet_api_requests", "Requests to the API.", ["method", "route", "status"])
REQUEST_SECONDS = Histogram(
    "pushfleet_api_request_seconds", "How long the API took to answer.", ["method", "route"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 5),
)  # fmt: skip


def create_app(
    store: TokenStore,
    *,
    apps: Mapping[str, Any],
    accounts: Mapping[tuple[str, str], str],
    now_ms: Callable[[], int],
    ready: Callable[[], Awaitable[bool]],
    key: str = "",
) -> ASGIApp:
    """The API over *store*.

    * **apps** - the apps that there are.
    * **accounts** - vendor and credential to the app they belong to.
    * **ready** - whether Redis answers.
    * **key** - the bearer key that callers must show; empty: none.
    """
    app = FastAPI(
        title="pushfleet",
        summary="Token state of an offline-push fleet",
        description="Ids in paths are percent-encoded and may contain any character.",
    )
    app.include_router(device_routes(store, apps, accounts, now_ms))
    _add_probes(app, ready)
    _add_refusals(app)
    _add_measuring(app, key)
    _document_bodies(app)
    return _RawPaths(app)


def _add_probes(app: FastAPI, ready: Callable[[], Awaitable[bool]]) -> None:
    async def healthz() -> Response:
        """Whether the process lives."""
        return PlainTextResponse("ok\n")

    async def readyz() -> Response:
        """Whether the process can do its work now."""
        good = await ready()
        return PlainTextResponse("ready\n" if good else "Redis does not answer\n", 200 if good else 503)

    async def metrics() -> Response:
        """Prometheus metrics of this process, and the totals that live in Redis."""
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)

    for path, handler in (("/healthz", healthz), ("/readyz", readyz), ("/metrics", metrics)):
        app.add_api_route(path, handler, methods=["GET"], response_model=None, tags=["operation"])


def _add_refusals(app: FastAPI) -> None:
    @app.exception_handler(Problem)
    async def refused(_: Request, problem: Problem) -> Response:
        return problem_response(problem)

    @app.exception_handler(RedisUnusable)
    async def no_redis(_: Request, __: RedisUnusable) -> Response:
        return problem_response(Problem(503, "redis_unavailable", "Redis does not answer; try again: it is safe"))

    @app.exception_handler(StateContended)
    async def contended(_: Request, problem: StateContended) -> Response:
        return problem_response(Problem(503, "contended", str(problem)))


def _add_measuring(app: FastAPI, key: str) -> None:
    @app.middleware("http")
    async def measure(request: Request, answer: Callable[[Request], Awaitable[Response]]) -> Response:
        started = time.perf_counter()
        if key and request.scope["path"] not in _OPEN_PATHS and not _shows(request, key):
            response: Response = problem_response(
                Problem(401, "unauthorized", "show the API key: Authorization: Bearer <key>")
            )
        else:
            response = await answer(request)
        route = getattr(request.scope.get("route"), "path", "none")
        REQUESTS.labels(request.method, route, response.status_code).inc()
        REQUEST_SECONDS.labels(request.method, route).observe(time.perf_counter() - started)
        return response


def _shows(request: Request, key: str) -> bool:
    given = request.headers.get("authorization", "")
    return hmac.compare_digest(given.encode(), f"Bearer {key}".encode())


def _document_bodies(app: FastAPI) -> None:
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        document = generate()
        document.setdefault("components", {}).setdefault("schemas", {}).update(body_schemas())
        return document

    app.openapi = openapi  # type: ignore[method-assign]


class _RawPaths:
    """Routes by the path as it was sent: an encoded slash in an id is not a separator."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope.get("raw_path"):
            scope = {**scope, "path": scope["raw_path"].decode("ascii", "replace").partition("?")[0]}
        await self._app(scope, receive, send)
