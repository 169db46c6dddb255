"""The token state over HTTP: devices, states, preferences, recalls, dead tokens. It needs ``pushfleet[http]``.

with TokenState("http://push.internal:8080", app="chat", key="…") as tokens:
tokens.register("ann", "phone-1", Registration(channels=(Channel(vendor="apns", token="9f3c1d5e"),)))
"""

from __future__ import annotations

import asyncio
import importlib
import os
import random
import threading
import time
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar
from urllib.parse import urlsplit

from pushfleet.calls import Answer, Api, Call, NoAnswer, Pause, Reply, Request
from pushfleet.devices import (
    AccountDeaths,
    ClientReceipt,
    Confirmation,
    Confirmed,
    DeathDecision,
    DeathPage,
    DeathsDecided,
    DeathsRestored,
    Preferences,
    ReceiptsRecorded,
    Receive,
    Registered,
    Registration,
    Reported,
    StateReport,
    User,
)
from pushfleet.errors import ApiUnavailable, PushfleetError
from pushfleet.message import Kind

if TYPE_CHECKING:
    import httpx

__all__ = ["AsyncTokenState", "TokenState"]

T = TypeVar("T")


class TokenState:
    """Tells the fleet's API of devices, states and preferences of one app; a context manager, for all threads.

    * **url** - the API's address, such as ``http://push.internal:8080``, or a ready ``httpx.Client`` with its
      ``base_url``, for proxies and certificates of your own. A client that was handed in keeps its own timeouts and
      is not closed here.
    * **app** - the app, as in the fleet's settings.
    * **key** - the API's key; empty: it wants none.
    * **timeout_s** - how long connecting, sending, and waiting for more of the answer may each take.
    * **attempts** - how often a request is sent at most, with growing, random pauses, while the API cannot be reached
      or says that it cannot answer now.

    Calls raise :class:`ApiRefused` for what is wrong with them, and :class:`ApiUnavailable` once the attempts are
    spent; repeating a call is safe. After a fork the child may go on using it. Raises ``ValueError`` for an argument
    that cannot be right and ``ModuleNotFoundError`` without httpx.
    """

    def __init__(
        self, url: str | httpx.Client, *, app: str, key: str = "", timeout_s: float = 5.0, attempts: int = 3
    ) -> None:
        self._api = Api(app, _at_least_once(attempts), random.random)
        self._headers = _headers(key)
        self._lock = threading.Lock()
        self._closed = False
        self._pid = os.getpid()
        self._options: dict[str, Any] | None = None
        if isinstance(url, str):
            self._options = _options(url, timeout_s)
            self._client: httpx.Client = _httpx().Client(**self._options)
        else:
            self._client = url
        if not isinstance(self._client, _httpx().Client):
            raise TypeError(f"TokenState needs a URL or an httpx.Client, not {_name_of(url)}")

    def register(self, user: str, device: str, registration: Registration) -> Registered:
        """Register a device after login; a token that another user's device had moves to it."""
        return self._drive(self._api.register(user, device, registration))

    def remove(self, user: str, device: str) -> bool:
        """Forget a device; False when it was not there, or a repeat after a lost answer found it gone."""
        return self._drive(self._api.remove(user, device))

    def logout(self, user: str, device: str, *, at_ms: int = 0) -> bool:
        """Stop all pushes to a device until it registers again; False when that was so, or it registered later.

        False as well for a device that is not known.
        """
        return self._drive(self._api.logout(user, device, at_ms))

    def log_in(self, user: str, device: str, *, platform: str = "", at_ms: int = 0) -> tuple[str, ...]:
        """Log the user's other devices out, as far as the app's ``device_logins`` goes; gives those that it did.

        The device itself registers as ever. Without ``platform`` that of its registration counts.
        """
        return self._drive(self._api.log_in(user, device, platform, at_ms))

    def report(self, report: StateReport) -> Reported:
        """Report the app's state on one device.

        Give ``at_ms`` where several processes report the same device: without it a repeat after a lost answer says
        "now" later than the first time.
        """
        return self._drive(self._api.report(report))

    def report_many(self, reports: Iterable[StateReport]) -> Reported:
        """Report any number of states, 1,000 in a request; gives the sums.

        A wrong report refuses the request that it is in, those before have been applied; the error's ``.field`` counts
        from the start of the call.
        """
        return self._drive(self._api.report_many(reports))

    def confirm_delivery(self, confirmations: Iterable[Confirmation]) -> Confirmed:
        """Confirm which messages any number of devices have, 1,000 in a request; gives the sums.

        Pushes of those are not sent that were parked since the app is in the foreground there. It needs the app's
        ``foreground_ack = "park"``. A wrong one refuses the request that it is in, as :meth:`report_many` says.
        """
        return self._drive(self._api.confirm_delivery(confirmations))

    def user(self, user: str, *, conversation: str = "", kind: Kind = "chat", mention: bool = False) -> User:
        """What is known of a user, and for each device whether such a push would go now, and if not, why."""
        return self._drive(self._api.user(user, conversation, kind, mention=mention))

    def forget_user(self, user: str) -> bool:
        """Erase a user: what is known of them at once, then what is queued or kept of messages to them.

        The rest follows by itself; :meth:`user` says ``erasing_since_ms`` as long as it is not done. The user may
        register again at once. False when neither devices nor preferences nor anything else of theirs was there.
        """
        return self._drive(self._api.forget_user(user))

    def set_receive_option(self, user: str, conversation: str, receive: Receive, *, until_ms: int = 0) -> None:
        """What a user wants from a conversation, until a time (Unix milliseconds) or, with 0, for good."""
        self._drive(self._api.set_receive_option(user, conversation, receive, until_ms))

    def mark_read(
        self, user: str, conversation: str, up_to_ms: int, *, unread: int | None = None, at_ms: int = 0
    ) -> bool:
        """Say that a user has read a conversation up to what was sent at *up_to_ms*; False when that is no news.

        What waits of it is not pushed. ``unread`` is what is left in all conversations, as of ``at_ms``: badges count
        on from there. The user needs no device. It needs the app's ``reads``.
        """
        return self._drive(self._api.mark_read(user, conversation, up_to_ms, unread, at_ms))

    def preferences(self, user: str) -> Preferences:
        """What a user wants of pushes altogether; the defaults for one who never said anything."""
        return self._drive(self._api.preferences(user))

    def set_preferences(self, user: str, wanted: Preferences) -> Preferences:
        """Replace what a user wants of pushes; gives them as they are now."""
        return self._drive(self._api.set_preferences(user, wanted))

    def change_preferences(self, user: str, changes: Mapping[str, object]) -> Preferences:
        """Change some of what a user wants, named as in :class:`Preferences`; None: the default again.

        What is left out stays, whoever changes it at the same time (RFC 7396).
        """
        return self._drive(self._api.change_preferences(user, changes))

    def recall(self, message_id: str, *, conversation: str = "", recipients: Iterable[str] = ()) -> int:
        """Take a message back, as :meth:`pushfleet.Producer.recall` does; gives the stream entries that carry it."""
        return self._drive(self._api.recall(message_id, conversation, recipients))

    def dead_tokens(
        self,
        *,
        after: str = "",
        limit: int = 100,
        vendor: str = "",
        credential: str = "",
        user: str = "",
        code: str = "",
        fate: str = "",
    ) -> DeathPage:
        """What became of dead tokens after a page's cursor, at most 1,000; without a cursor from the oldest on.

        A page may be empty with ``more`` to come. What is given of the rest leaves all others out.
        """
        filters = {"vendor": vendor, "credential": credential, "user": user, "code": code, "fate": fate}
        return self._drive(self._api.dead_tokens(after, limit, filters))

    def restore_dead_tokens(
        self,
        *,
        vendor: str = "",
        credential: str = "",
        user: str = "",
        code: str = "",
        since_ms: int = 0,
        until_ms: int = 0,
        limit: int = 10_000,
        dry_run: bool = False,
    ) -> DeathsRestored:
        """Bring back some ``limit`` dead tokens, the newest first, each only if its device has not registered since.

        Within thirty days of their death. What is given of the rest leaves all others out; times are of when the fleet
        heard of it. A dry run only counts. A repeat after a lost answer counts those of the first time as ``unknown``.
        """
        wanted: dict[str, object] = {"vendor": vendor, "credential": credential, "user": user, "code": code}
        wanted |= {"since_ms": since_ms, "until_ms": until_ms, "limit": limit, "dry_run": dry_run}
        return self._drive(self._api.restore_dead_tokens(wanted))

    def accounts_with_deaths(self) -> tuple[AccountDeaths, ...]:
        """The accounts of the app with tokens that are passed over, or a guard that has tripped."""
        return self._drive(self._api.accounts_with_deaths())

    def decide_deaths(
        self, vendor: str, credential: str, decision: DeathDecision, *, limit: int = 10_000
    ) -> DeathsDecided:
        """Say of an account's tokens that are passed over that they are dead (``confirm``), or live (``lift``).

        Some ``limit`` of them at once; the guard is reset when none is left.
        """
        return self._drive(self._api.decide_deaths(vendor, credential, decision, limit))

    def report_receipts(self, receipts: Iterable[ClientReceipt]) -> ReceiptsRecorded:
        """Report any number of pushes that apps saw arrive or be tapped, 1,000 in a request; gives the sums."""
        return self._drive(self._api.report_receipts(receipts))

    def close(self) -> None:
        """Refuse further calls and close the connections."""
        self._closed = True
        if self._options is not None:
            self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"TokenState(app={self._api.app!r})"

    def _drive(self, call: Call[T]) -> T:
        if self._closed:
            raise ApiUnavailable("this TokenState is closed")
        try:
            step = next(call)
            while True:
                if isinstance(step, Pause):
                    time.sleep(step.seconds)
                    step = call.send(None)
                else:
                    step = call.send(self._send(step))
        except StopIteration as done:
            result: T = done.value
            return result

    def _send(self, request: Request) -> Reply:
        try:
            return _answer(self._current().request(**_arguments(request, self._headers)))
        except _httpx().RequestError as problem:
            return _no_answer(self._client, problem)

    def _current(self) -> httpx.Client:
        """The client; the child of a fork gets one of its own: two processes on one connection garble each other."""
        if self._options is not None and self._pid != os.getpid():
            with self._lock:
                if self._pid != os.getpid():
                    self._client = _httpx().Client(**self._options)
                    self._pid = os.getpid()
        return self._client


class AsyncTokenState:
    """Tells the fleet's API of devices, states and preferences of one app; for all tasks of one event loop.

    Arguments, methods and errors are those of :class:`TokenState`; a ready client is an ``httpx.AsyncClient``.
    """

    def __init__(
        self, url: str | httpx.AsyncClient, *, app: str, key: str = "", timeout_s: float = 5.0, attempts: int = 3
    ) -> None:
        self._api = Api(app, _at_least_once(attempts), random.random)
        self._headers = _headers(key)
        self._closed = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._owns_client = isinstance(url, str)
        self._client: httpx.AsyncClient = (
            _httpx().AsyncClient(**_options(url, timeout_s)) if isinstance(url, str) else url
        )
        if not isinstance(self._client, _httpx().AsyncClient):
            raise TypeError(f"AsyncTokenState needs a URL or an httpx.AsyncClient, not {_name_of(url)}")

    async def register(self, user: str, device: str, registration: Registration) -> Registered:
        """As :meth:`TokenState.register`."""
        return await self._drive(self._api.register(user, device, registration))

    async def remove(self, user: str, device: str) -> bool:
        """As :meth:`TokenState.remove`."""
        return await self._drive(self._api.remove(user, device))

    async def logout(self, user: str, device: str, *, at_ms: int = 0) -> bool:
        """As :meth:`TokenState.logout`."""
        return await self._drive(self._api.logout(user, device, at_ms))

    async def log_in(self, user: str, device: str, *, platform: str = "", at_ms: int = 0) -> tuple[str, ...]:
        """As :meth:`TokenState.log_in`."""
        return await self._drive(self._api.log_in(user, device, platform, at_ms))

    async def report(self, report: StateReport) -> Reported:
        """As :meth:`TokenState.report`."""
        return await self._drive(self._api.report(report))

    async def report_many(self, reports: Iterable[StateReport]) -> Reported:
        """As :meth:`TokenState.report_many`."""
        return await self._drive(self._api.report_many(reports))

    async def confirm_delivery(self, confirmations: Iterable[Confirmation]) -> Confirmed:
        """As :meth:`TokenState.confirm_delivery`."""
        return await self._drive(self._api.confirm_delivery(confirmations))

    async def user(self, user: str, *, conversation: str = "", kind: Kind = "chat", mention: bool = False) -> User:
        """As :meth:`TokenState.user`."""
        return await self._drive(self._api.user(user, conversation, kind, mention=mention))

    async def forget_user(self, user: str) -> bool:
        """As :meth:`TokenState.forget_user`."""
        return await self._drive(self._api.forget_user(user))

    async def set_receive_option(self, user: str, conversation: str, receive: Receive, *, until_ms: int = 0) -> None:
        """As :meth:`TokenState.set_receive_option`."""
        await self._drive(self._api.set_receive_option(user, conversation, receive, until_ms))

    async def mark_read(
        self, user: str, conversation: str, up_to_ms: int, *, unread: int | None = None, at_ms: int = 0
    ) -> bool:
        """As :meth:`TokenState.mark_read`."""
        return await self._drive(self._api.mark_read(user, conversation, up_to_ms, unread, at_ms))

    async def preferences(self, user: str) -> Preferences:
        """As :meth:`TokenState.preferences`."""
        return await self._drive(self._api.preferences(user))

    async def set_preferences(self, user: str, wanted: Preferences) -> Preferences:
        """As :meth:`TokenState.set_preferences`."""
        return await self._drive(self._api.set_preferences(user, wanted))

    async def change_preferences(self, user: str, changes: Mapping[str, object]) -> Preferences:
        """As :meth:`TokenState.change_preferences`."""
        return await self._drive(self._api.change_preferences(user, changes))

    async def recall(self, message_id: str, *, conversation: str = "", recipients: Iterable[str] = ()) -> int:
        """As :meth:`TokenState.recall`."""
        return await self._drive(self._api.recall(message_id, conversation, recipients))

    async def dead_tokens(
        self,
        *,
        after: str = "",
        limit: int = 100,
        vendor: str = "",
        credential: str = "",
        user: str = "",
        code: str = "",
        fate: str = "",
    ) -> DeathPage:
        """As :meth:`TokenState.dead_tokens`."""
        filters = {"vendor": vendor, "credential": credential, "user": user, "code": code, "fate": fate}
        return await self._drive(self._api.dead_tokens(after, limit, filters))

    async def restore_dead_tokens(
        self,
        *,
        vendor: str = "",
        credential: str = "",
        user: str = "",
        code: str = "",
        since_ms: int = 0,
        until_ms: int = 0,
        limit: int = 10_000,
        dry_run: bool = False,
    ) -> DeathsRestored:
        """As :meth:`TokenState.restore_dead_tokens`."""
        wanted: dict[str, object] = {"vendor": vendor, "credential": credential, "user": user, "code": code}
        wanted |= {"since_ms": since_ms, "until_ms": until_ms, "limit": limit, "dry_run": dry_run}
        return await self._drive(self._api.restore_dead_tokens(wanted))

    async def accounts_with_deaths(self) -> tuple[AccountDeaths, ...]:
        """As :meth:`TokenState.accounts_with_deaths`."""
        return await self._drive(self._api.accounts_with_deaths())

    async def decide_deaths(
        self, vendor: str, credential: str, decision: DeathDecision, *, limit: int = 10_000
    ) -> DeathsDecided:
        """As :meth:`TokenState.decide_deaths`."""
        return await self._drive(self._api.decide_deaths(vendor, credential, decision, limit))

    async def report_receipts(self, receipts: Iterable[ClientReceipt]) -> ReceiptsRecorded:
        """As :meth:`TokenState.report_receipts`."""
        return await self._drive(self._api.report_receipts(receipts))

    async def aclose(self) -> None:
        """Refuse further calls and close the connections."""
        self._closed = True
        if self._owns_client:
            await self._client.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        return f"AsyncTokenState(app={self._api.app!r})"

    async def _drive(self, call: Call[T]) -> T:
        loop = asyncio.get_running_loop()
        self._loop = self._loop or loop
        if self._loop is not loop:
            raise PushfleetError("this AsyncTokenState belongs to another event loop: make one for each loop")
        if self._closed:
            raise ApiUnavailable("this AsyncTokenState is closed")
        try:
            step = next(call)
            while True:
                if isinstance(step, Pause):
                    await asyncio.sleep(step.seconds)
                    step = call.send(None)
                else:
                    step = call.send(await self._send(step))
        except StopIteration as done:
            result: T = done.value
            return result

    async def _send(self, request: Request) -> Reply:
        try:
            return _answer(await self._client.request(**_arguments(request, self._headers)))
        except _httpx().RequestError as problem:
            return _no_answer(self._client, problem)


def _httpx() -> Any:
    """The httpx module: only who calls the API needs it."""
    try:
        return importlib.import_module("httpx")
    except ModuleNotFoundError as problem:
        raise ModuleNotFoundError(
            f"calling the HTTP API needs httpx: pip install 'pushfleet[http]' ({problem})", name=problem.name
        ) from problem


def _options(url: str, timeout_s: float) -> dict[str, Any]:
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        good = False
    if not good or parts.query or parts.fragment:
        raise ValueError("url must be like http://push.internal:8080 or https://push.example.com/push")
    if timeout_s <= 0:
        raise ValueError(f"timeout_s must be more than 0, not {timeout_s}")
    return {"base_url": url, "timeout": timeout_s}


def _at_least_once(attempts: int) -> int:
    if attempts < 1:
        raise ValueError(f"attempts must be 1 or more, not {attempts}")
    return attempts


def _headers(key: str) -> dict[str, str]:
    # The text of an error that a client raises about a header quotes it.
    if not (key.isascii() and (key.isprintable() or not key)) or key.strip() != key:
        raise ValueError("the key must be printable ASCII without spaces around it")
    return {"authorization": f"Bearer {key}"} if key else {}


def _arguments(request: Request, headers: dict[str, str]) -> dict[str, Any]:
    if request.body is None:
        return {"method": request.method, "url": request.path, "headers": headers}
    headers = {**headers, "content-type": "application/json"}
    return {"method": request.method, "url": request.path, "headers": headers, "content": request.body}


def _answer(response: httpx.Response) -> Answer:
    return Answer(response.status_code, response.content, response.headers.get("retry-after", ""))


def _no_answer(client: httpx.Client | httpx.AsyncClient, problem: Exception) -> NoAnswer:
    place = f"{client.base_url.host}:{client.base_url.port or client.base_url.scheme}"
    return NoAnswer(f"no answer came from {place}, {str(problem) or type(problem).__name__}")


def _name_of(one: object) -> str:
    return f"{type(one).__module__}.{type(one).__name__}"
