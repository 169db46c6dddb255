"""The control API: the methods of the fake cloud over plain HTTP and JSON.

================= ==========================================================================================
GET /stats        ``{"vendors": {name: totals}}``, without tokens
GET /received     ``?vendor=&token=&limit=``; ``{"received": [...]}``, the latest last
GET /rules        ``?vendor=``; ``{"rules": [...]}`` with ``id`` and ``matches``
POST /rules       one rule or a list; ``{"ids": [...]}``
DELETE /rules     ``?vendor=&id=``; without either, all rules
POST /revive      ``{"vendor", "token"}``; ``{"revived": bool}``
POST /receipts    ``{"vendor"}`` with any of ``code``, ``token``, ``console``, ``times``; ``{"answers": [...]}``
POST /settings    ``{"vendor"}`` with any of ``max_streams``, ``blackout``, ``tls``, ``expire_auth``
POST /credentials ``{"vendor", "options"}``; ``{"vendor", "id", "settings", "file"}``
POST /reset       forgets script and book
================= ==========================================================================================
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Protocol

import msgspec
from msgspec import Meta

from pushfleet_workers.fakecloud.book import Accepted
from pushfleet_workers.fakecloud.credentials import Credential
from pushfleet_workers.fakecloud.listener import Tls
from pushfleet_workers.fakecloud.receipts import Answer, Console
from pushfleet_workers.fakecloud.rules import Rule
from pushfleet_workers.fakecloud.wire import Reply, Request, Response, json_response, parse_form

__all__ = ["Control", "Controlled"]


class Controlled(Protocol):
    """What the control API drives."""

    def stats(self) -> dict[str, Any]:
        """Totals by vendor."""
        ...

    def received(self, vendor: str = "", token: str = "") -> list[Accepted]:
        """The recorded accepted pushes."""
        ...

    def rules(self, vendor: str = "") -> list[dict[str, Any]]:
        """The script."""
        ...

    def add_rule(self, rule: Rule) -> int:
        """Add a line to the script; its number."""
        ...

    def clear_rules(self, vendor: str = "", number: int = 0) -> None:
        """Strike out one rule, or all of a vendor, or all."""
        ...

    def revive(self, vendor: str, token: str) -> bool:
        """Make a dead token alive again."""
        ...

    def max_streams(self, vendor: str, max_streams: int) -> None:
        """Change the stream limit."""
        ...

    def expire_auth(self, vendor: str) -> None:
        """Expire all access tokens."""
        ...

    def credential(self, vendor: str, **options: Any) -> Credential:
        """A new credential."""
        ...

    async def send_receipts(
        self, vendor: str, code: str = "", token: str = "", console: Console | None = None, times: int = 1
    ) -> list[Answer]:
        """Post receipts."""
        ...

    def reset(self) -> None:
        """Forget script and book."""
        ...

    async def blackout(self, vendor: str) -> None:
        """Refuse connections."""
        ...

    async def heal(self, vendor: str) -> None:
        """Accept connections again."""
        ...

    async def tls(self, vendor: str, tls: str) -> None:
        """Change how its TLS is."""
        ...


class _Settings(msgspec.Struct, forbid_unknown_fields=True):
    vendor: str
    max_streams: int | None = None
    blackout: bool | None = None
    tls: Tls | None = None
    expire_auth: bool = False


class _Token(msgspec.Struct, forbid_unknown_fields=True):
    vendor: str
    token: str


class _Receipts(msgspec.Struct, forbid_unknown_fields=True):
    vendor: str
    code: str = ""
    token: str = ""
    console: Console = Console()
    times: Annotated[int, Meta(ge=1, le=1_000)] = 1


class _NewCredential(msgspec.Struct, forbid_unknown_fields=True):
    vendor: str
    options: dict[str, Any] = {}


class Control:
    """Answers the control API for *cloud*.

    Bodies and answers are JSON; a wrong request is 400 with ``{"error": …}`` that says what is wrong.
    """

    def __init__(self, cloud: Controlled) -> None:
        self._cloud = cloud
        self._running: set[asyncio.Task[Reply]] = set()
        self._routes: dict[tuple[str, str], Callable[[Request], Awaitable[object]]] = {
            ("GET", "/stats"): self._stats,
            ("GET", "/received"): self._received,
            ("GET", "/rules"): self._rules,
            ("POST", "/rules"): self._add_rules,
            ("DELETE", "/rules"): self._clear_rules,
            ("POST", "/revive"): self._revive,
            ("POST", "/receipts"): self._receipts,
            ("POST", "/settings"): self._settings,
            ("POST", "/credentials"): self._credential,
            ("POST", "/reset"): self._reset,
        }

    def __call__(self, request: Request) -> asyncio.Future[Reply]:
        """The answer to *request*, once it has been done."""
        task = asyncio.get_running_loop().create_task(self._answer(request))
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return task

    async def close(self) -> None:
        """Stop what is being done."""
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    async def _answer(self, request: Request) -> Reply:
        return Reply(await self._response(request))

    async def _response(self, request: Request) -> Response:
        route = self._routes.get((request.method, request.path))
        if route is None:
            ways = sorted(f"{method} {path}" for method, path in self._routes)
            return json_response(404, "", {"error": f"there is only {', '.join(ways)}"})
        try:
            return json_response(200, "", await route(request))
        except (ValueError, TypeError) as error:
            return json_response(400, "", {"error": str(error)})

    async def _stats(self, request: Request) -> object:
        return self._cloud.stats()

    async def _received(self, request: Request) -> object:
        query = _query(request, "vendor", "token", "limit")
        pushes = self._cloud.received(query.get("vendor", ""), query.get("token", ""))
        limit = int(query.get("limit", "0"))
        return {"received": pushes[-limit:] if limit > 0 else pushes}

    async def _rules(self, request: Request) -> object:
        return {"rules": self._cloud.rules(_query(request, "vendor").get("vendor", ""))}

    async def _add_rules(self, request: Request) -> object:
        rules = msgspec.json.decode(request.body, type=Rule | list[Rule])
        return {"ids": [self._cloud.add_rule(rule) for rule in (rules if isinstance(rules, list) else [rules])]}

    async def _clear_rules(self, request: Request) -> object:
        query = _query(request, "vendor", "id")
        self._cloud.clear_rules(query.get("vendor", ""), int(query.get("id", "0")))
        return {}

    async def _revive(self, request: Request) -> object:
        asked = msgspec.json.decode(request.body, type=_Token)
        return {"revived": self._cloud.revive(asked.vendor, asked.token)}

    async def _receipts(self, request: Request) -> object:
        asked = msgspec.json.decode(request.body, type=_Receipts)
        answers = await self._cloud.send_receipts(asked.vendor, asked.code, asked.token, asked.console, asked.times)
        return {"answers": answers}

    async def _settings(self, request: Request) -> object:
        asked = msgspec.json.decode(request.body, type=_Settings)
        if asked.max_streams is not None:
            self._cloud.max_streams(asked.vendor, asked.max_streams)
        if asked.expire_auth:
            self._cloud.expire_auth(asked.vendor)
        if asked.blackout is not None:
            await (self._cloud.blackout if asked.blackout else self._cloud.heal)(asked.vendor)
        if asked.tls is not None:
            await self._cloud.tls(asked.vendor, asked.tls)
        return {}

    async def _credential(self, request: Request) -> object:
        asked = msgspec.json.decode(request.body, type=_NewCredential)
        return credential_fields(self._cloud.credential(asked.vendor, **asked.options))

    async def _reset(self, request: Request) -> object:
        self._cloud.reset()
        return {}


def credential_fields(credential: Credential) -> dict[str, Any]:
    """*credential* JSON-ready: ``vendor``, ``id``, ``settings`` and the path of its secret ``file``."""
    return {
        "vendor": credential.vendor,
        "id": credential.id,
        "settings": credential.settings,
        "file": str(credential.file),
    }


def _query(request: Request, *names: str) -> dict[str, str]:
    query = parse_form(request.query.encode())
    unknown = set(query) - set(names)
    if unknown:
        raise ValueError(f"there is no {', '.join(sorted(unknown))}, only {', '.join(names)}")
    return query
