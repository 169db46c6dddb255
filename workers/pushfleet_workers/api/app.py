"""The application: routes, refusals, key, metrics."""

from __future__ import annotations

import hmac
import logging
import re
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST, Counter, Histogram, generate_latest
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pushfleet_workers.api.credentials import refusal
from pushfleet_workers.api.devices import body_schemas, device_routes
from pushfleet_workers.api.logins import login_routes, login_schemas
from pushfleet_workers.api.problems import PROBLEM_SCHEMA, Problem, problem_response
from pushfleet_workers.api.users import user_routes, user_schemas
from pushfleet_workers.credential_store import CredentialRefused
from pushfleet_workers.errors import RedisUnusable
from pushfleet_workers.redis_link import ReplyError
from pushfleet_workers.tokens.store import OptionsFull, TokenStore

__all__ = ["create_app"]

log = logging.getLogger(__name__)

_is_open = re.compile(r"/healthz|/readyz|/metrics|/v1/receipts(/[^/]+){3}").fullmatch
"""Paths, and templates of paths, for which no key is asked: probes, and what vendors call."""

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})

_LARGE_DIGITS = 5
"""Bytes of a body, from 10,000 on, that the server may not get rid of by itself when nobody reads them."""

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
    routers: Sequence[APIRouter] = (),
    schemas: Mapping[str, Any] | None = None,
) -> ASGIApp:
    """The API over *store*.

    * **apps** - the apps that there are.
    * **accounts** - vendor and credential to the app they belong to.
    * **ready** - whether Redis answers.
    * **key** - the bearer key that callers must show, but vendors and who asks the probes and `/metrics`; empty: none.
    * **routers** - further routes; they may raise :class:`Problem`, and their path parameters are percent-encoded.
    * **schemas** - the JSON Schemas of their bodies, by name.
    """
    app = FastAPI(
        title="pushfleet",
        summary="Token state of an offline-push fleet",
        description=(
            "Ids in paths are percent-encoded UTF-8 and may contain any character, a slash as `%2F`. "
            "Whatever is refused changes nothing; whatever is answered with 5xx is safe to repeat."
        ),
        redirect_slashes=False,
    )
    for router in (
        device_routes(store, apps, accounts, now_ms),
        user_routes(store, apps, accounts, now_ms),
        login_routes(store, apps, now_ms),
        *routers,
    ):
        app.include_router(router)
    _add_probes(app, ready)
    _add_refusals(app)
    _document(app, key, schemas or {})
    return _Edge(app, key)


def _add_probes(app: FastAPI, ready: Callable[[], Awaitable[bool]]) -> None:
    async def healthz() -> Response:
        """Whether the process lives."""
        return PlainTextResponse("ok\n")

    async def readyz() -> Response:
        """Whether the process can do its work now: Redis answers."""
        good = await ready()
        return PlainTextResponse("ready\n" if good else "Redis does not answer\n", 200 if good else 503)

    async def metrics() -> Response:
        """Prometheus metrics of this process, and the totals that live in Redis."""
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)

    for path, handler in (("/healthz", healthz), ("/readyz", readyz), ("/metrics", metrics)):
        statuses = (200, 503) if handler is readyz else (200,)
        responses: dict[int | str, dict[str, Any]] = {
            status: {"description": "Yes." if status == 200 else "No.", "content": {"text/plain": {}}}
            for status in statuses
        }
        app.add_api_route(
            path,
            handler,
            methods=["GET"],
            response_class=PlainTextResponse,
            response_model=None,
            responses=responses,
            tags=["operation"],
        )


def _add_refusals(app: FastAPI) -> None:
    @app.exception_handler(Problem)
    async def refused(_: Request, problem: Problem) -> Response:
        return problem_response(problem)

    @app.exception_handler(HTTPException)
    async def not_routed(request: Request, problem: HTTPException) -> Response:
        code = {404: "not_found", 405: "method_not_allowed"}.get(problem.status_code, "refused")
        headers = dict(problem.headers or {})
        if problem.status_code == 405:
            headers["Allow"] = ", ".join(_methods_at(app, request))
        return problem_response(Problem(problem.status_code, code, problem.detail, headers=headers))

    @app.exception_handler(RequestValidationError)
    async def wrong_parameter(_: Request, problem: RequestValidationError) -> Response:
        found = problem.errors()[0]
        return problem_response(Problem(422, "invalid_parameter", found["msg"], str(found["loc"][-1])))

    @app.exception_handler(ClientDisconnect)
    async def gone(_: Request, __: ClientDisconnect) -> Response:
        return problem_response(Problem(400, "body_incomplete", "the connection ended before the body did"))

    @app.exception_handler(Exception)
    async def broken(_: Request, __: Exception) -> Response:
        return problem_response(Problem(500, "internal", "the API has a fault; its log says where"))

    @app.exception_handler(OptionsFull)
    async def full(_: Request, problem: OptionsFull) -> Response:
        return problem_response(Problem(409, "receive_options_full", str(problem)))

    @app.exception_handler(CredentialRefused)
    async def credential_refused(_: Request, problem: CredentialRefused) -> Response:
        return problem_response(refusal(problem))

    @app.exception_handler(RedisUnusable)
    async def no_redis(_: Request, __: RedisUnusable) -> Response:
        return problem_response(_unavailable("Redis does not answer; try again: it is safe"))

    @app.exception_handler(ReplyError)
    async def redis_refuses(_: Request, problem: ReplyError) -> Response:
        # Only the first word: what follows may quote arguments, and tokens are among them.
        word = str(problem).partition(" ")[0]
        log.error("Redis refuses a command of the API: %s", word)
        return problem_response(_unavailable(f"Redis refuses ({word}); try again later: it is safe"))


def _methods_at(app: FastAPI, request: Request) -> list[str]:
    """What may be asked of the path of *request*: each of its methods has a route of its own."""
    return [
        method
        for method in sorted(_METHODS)
        if any(route.matches({**request.scope, "method": method})[0] is Match.FULL for route in app.routes)
    ]


def _unavailable(message: str) -> Problem:
    return Problem(503, "redis_unavailable", message, headers={"Retry-After": "1"})


def _document(app: FastAPI, key: str, schemas: Mapping[str, Any]) -> None:
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        document = generate()
        components = document.setdefault("components", {})
        components.setdefault("schemas", {}).update(
            body_schemas(), **user_schemas(), **login_schemas(), Problem=PROBLEM_SCHEMA, **schemas
        )
        if key:
            components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
            for path, operations in document["paths"].items():
                for operation in operations.values():
                    operation["security"] = [] if _is_open(path) else [{"key": []}]
        return document

    app.openapi = openapi  # type: ignore[method-assign]


def _has_large_body(scope: Scope) -> bool:
    return any(
        name == b"transfer-encoding" or (name == b"content-length" and len(value) >= _LARGE_DIGITS)
        for name, value in scope["headers"]
    )


class _Edge:
    """What stands around the application: raw paths, the key, the measuring, and a line in the log for what broke."""

    def __init__(self, app: ASGIApp, key: str) -> None:
        self._app = app
        self._key = key.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        # Routes match the path as it was sent: an encoded slash in an id is no separator.
        scope["path"] = scope["raw_path"].partition(b"?")[0].decode("latin-1")
        status, body_waits = 0, _has_large_body(scope)

        async def receiving() -> Message:
            nonlocal body_waits
            message = await receive()
            body_waits = body_waits and message.get("more_body", False)
            return message

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                if body_waits:
                    # The connection ends with what nobody reads of the body; the caller is not to go on with it.
                    message = {**message, "headers": [*message["headers"], (b"connection", b"close")]}
            await send(message)

        try:
            if self._admits(scope):
                await self._app(scope, receiving, sending)
            else:
                why = "show the API key: Authorization: Bearer <key>"
                refusal = Problem(401, "unauthorized", why, headers={"WWW-Authenticate": "Bearer"})
                await problem_response(refusal)(scope, receive, sending)
        except Exception as problem:  # noqa: BLE001 - it is answered already
            # Not its text: what broke may quote what it broke on.
            where = problem.__traceback__
            while where is not None and where.tb_next is not None:
                where = where.tb_next
            place = f"{where.tb_frame.f_code.co_filename}:{where.tb_lineno}" if where is not None else "nowhere"
            log.error("a request failed: %s at %s", type(problem).__name__, place)
        finally:
            method = scope["method"] if scope["method"] in _METHODS else "other"
            route = getattr(scope.get("route"), "path", "none")
            REQUESTS.labels(method, route, status or "none").inc()
            REQUEST_SECONDS.labels(method, route).observe(time.perf_counter() - started)

    def _admits(self, scope: Scope) -> bool:
        if not self._key or _is_open(scope["path"]):
            return True
        given = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
        scheme, _, shown = given.partition(b" ")
        return hmac.compare_digest(shown.strip(), self._key) and scheme.lower() == b"bearer"
