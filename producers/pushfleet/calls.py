"""The calls of the HTTP API without a connection: requests, their answers, and when a request is sent again.

A call is a generator. It yields a :class:`Request`, to be sent, or a :class:`Pause`, to be waited for, and is sent an
:class:`Answer` or a :class:`NoAnswer` in return; what it returns is the call's result. So the two clients of
:mod:`pushfleet.http` differ in nothing but how they send and wait.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from itertools import islice
from typing import Any, NamedTuple, NoReturn, TypeVar
from urllib.parse import quote

import msgspec

from pushfleet.devices import (
    AccountDeaths,
    AccountsWithDeaths,
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
from pushfleet.errors import ApiError, ApiRefused, ApiUnavailable
from pushfleet.message import Kind

__all__ = ["MANY", "Answer", "Api", "Call", "NoAnswer", "Pause", "Reply", "Request", "Step"]

T = TypeVar("T")

MANY = 1_000
"""Most reports, receipts or recipients of one request."""

PAUSE_S = 0.2
PAUSE_S_MAX = 2.0
RETRY_AFTER_S_MAX = 10.0
"""Who is told to wait longer than this is told so at once."""

ID_BYTES_MAX = 256
NAME_BYTES_MAX = 64
DEVICE_BYTES_MAX = 128

_PLACE_IN_BATCH = re.compile(r"(?P<list>\w+)\[(?P<number>\d+)\]")
_encode = msgspec.json.Encoder().encode


class Request(NamedTuple):
    """What is to be sent."""

    method: str
    path: str
    """With its query, percent-encoded."""

    body: bytes | None
    """JSON."""


class Answer(NamedTuple):
    """What came back."""

    status: int
    body: bytes
    retry_after: str = ""
    """The header of that name."""


class NoAnswer(NamedTuple):
    """Nothing came back."""

    why: str


class Pause(NamedTuple):
    """How long to wait before going on."""

    seconds: float


Step = Request | Pause
Reply = Answer | NoAnswer | None
Call = Generator[Step, Reply, T]


class _Recalled(msgspec.Struct, frozen=True):
    entries: int


class _Applied(msgspec.Struct, frozen=True):
    applied: bool


class _LoggedIn(msgspec.Struct, frozen=True):
    logged_out: tuple[str, ...]


class _Erasing(msgspec.Struct, frozen=True):
    known: bool


class _Told(msgspec.Struct, frozen=True):
    """A refusal, as the API tells it."""

    code: str
    message: str
    field: str = ""


_registered = msgspec.json.Decoder(Registered)
_reported = msgspec.json.Decoder(Reported)
_user = msgspec.json.Decoder(User)
_preferences = msgspec.json.Decoder(Preferences)
_applied = msgspec.json.Decoder(_Applied)
_logged_in = msgspec.json.Decoder(_LoggedIn)
_erasing = msgspec.json.Decoder(_Erasing)
_recalled = msgspec.json.Decoder(_Recalled)
_deaths = msgspec.json.Decoder(DeathPage)
_confirmed = msgspec.json.Decoder(Confirmed)
_restored = msgspec.json.Decoder(DeathsRestored)
_accounts = msgspec.json.Decoder(AccountsWithDeaths)
_decided = msgspec.json.Decoder(DeathsDecided)
_recorded = msgspec.json.Decoder(ReceiptsRecorded)
_told = msgspec.json.Decoder(_Told)


class Api:
    """The calls for one app.

    * **attempts** - how often a request is sent at most; all of them are safe to repeat.
    * **chance** - a number from 0 to 1, drawn for each pause.
    """

    def __init__(self, app: str, attempts: int, chance: Callable[[], float]) -> None:
        self.app = app
        self._root = f"/v1/apps/{_segment('app', app, ID_BYTES_MAX)}"
        self._attempts = attempts
        self._chance = chance

    # ---- devices and states

    def register(self, user: str, device: str, registration: Registration) -> Call[Registered]:
        """Register a device."""
        doing = f"registering device {device!r} of user {user!r}"
        return self._result(doing, "PUT", self._device(user, device), _registered, registration)

    def remove(self, user: str, device: str) -> Call[bool]:
        """Forget a device."""
        doing = f"removing device {device!r} of user {user!r}"
        return self._gone(doing, self._device(user, device), "unknown_device")

    def report(self, report: StateReport) -> Call[Reported]:
        """Report one state."""
        doing = f"reporting device {report.device!r} of user {report.user!r}"
        body = {"state": report.state, "unread": report.unread, "at_ms": report.at_ms}
        path = f"{self._device(report.user, report.device)}/state"
        answer = yield from self._answer(doing, "POST", path, body)
        if _says(answer, "unknown_device"):
            return Reported(unknown=1)
        return _read(doing, answer, _reported)

    def report_many(self, reports: Iterable[StateReport]) -> Call[Reported]:
        """Report many states, in requests of :data:`MANY`."""
        sums = yield from self._in_batches("reporting states", f"{self._root}/states", "reports", reports, _reported)
        return Reported(**sums)

    def confirm_delivery(self, confirmations: Iterable[Confirmation]) -> Call[Confirmed]:
        """Confirm which messages devices have, in requests of :data:`MANY`."""
        path = f"{self._root}/confirmations"
        sums = yield from self._in_batches("confirming", path, "confirmations", confirmations, _confirmed)
        return Confirmed(**sums)

    def logout(self, user: str, device: str, at_ms: int) -> Call[bool]:
        """Log a device out."""
        doing = f"logging out device {device!r} of user {user!r}"
        answer = yield from self._answer(doing, "POST", f"{self._device(user, device)}/logout", {"at_ms": at_ms})
        return not _says(answer, "unknown_device") and _read(doing, answer, _applied).applied

    def log_in(self, user: str, device: str, platform: str, at_ms: int) -> Call[tuple[str, ...]]:
        """Log out a user's other devices."""
        doing = f"logging in device {device!r} of user {user!r}"
        body = {"device": device, "platform": platform, "at_ms": at_ms}
        done = yield from self._result(doing, "POST", f"{self._user(user)}/logins", _logged_in, body)
        return done.logged_out

    # ---- users

    def user(self, user: str, conversation: str, kind: Kind, *, mention: bool) -> Call[User]:
        """Read a user."""
        asked = {"conversation": conversation, "kind": kind, "mention": str(mention).lower()}
        return self._result(f"reading user {user!r}", "GET", f"{self._user(user)}?{_query(asked)}", _user)

    def forget_user(self, user: str) -> Call[bool]:
        """Erase a user."""
        done = yield from self._result(f"erasing user {user!r}", "DELETE", self._user(user), _erasing)
        return done.known

    def set_receive_option(self, user: str, conversation: str, receive: Receive, until_ms: int) -> Call[None]:
        """Mute or unmute a conversation."""
        doing = f"setting what user {user!r} wants from conversation {conversation!r}"
        path = f"{self._conversation(user, conversation)}/receive-option"
        answer = yield from self._answer(doing, "PUT", path, {"receive": receive, "until_ms": until_ms})
        _check(doing, answer)

    def mark_read(self, user: str, conversation: str, up_to_ms: int, unread: int | None, at_ms: int) -> Call[bool]:
        """Say how far a user has read."""
        doing = f"marking conversation {conversation!r} of user {user!r} as read"
        body = {"up_to_ms": up_to_ms, "unread": unread, "at_ms": at_ms}
        path = f"{self._conversation(user, conversation)}/read"
        return (yield from self._result(doing, "POST", path, _applied, body)).applied

    def preferences(self, user: str) -> Call[Preferences]:
        """Read preferences."""
        path = f"{self._user(user)}/preferences"
        return self._result(f"reading the preferences of user {user!r}", "GET", path, _preferences)

    def set_preferences(self, user: str, wanted: Preferences) -> Call[Preferences]:
        """Replace preferences."""
        path = f"{self._user(user)}/preferences"
        return self._result(f"setting the preferences of user {user!r}", "PUT", path, _preferences, wanted)

    def change_preferences(self, user: str, changes: Mapping[str, object]) -> Call[Preferences]:
        """Change some preferences."""
        path = f"{self._user(user)}/preferences"
        return self._result(f"changing the preferences of user {user!r}", "PATCH", path, _preferences, dict(changes))

    # ---- messages and what became of pushes

    def recall(self, message_id: str, conversation: str, recipients: Iterable[str]) -> Call[int]:
        """Take a message back, its recipients in requests of :data:`MANY`."""
        doing = f"recalling message {message_id!r}"
        path = f"{self._root}/messages/{_segment('message', message_id, ID_BYTES_MAX)}/recall"
        entries = 0
        if isinstance(recipients, str):
            raise TypeError("recipients is one text: give a list of ids")
        # Without recipients it is one request all the same: for those that the fleet remembers.
        for some in [*_batches(recipients)] or [[]]:
            body = {"conversation": conversation, "recipients": some}
            done = yield from self._result(doing, "POST", path, _recalled, body)
            entries += done.entries
        return entries

    def dead_tokens(self, after: str, limit: int, filters: dict[str, str]) -> Call[DeathPage]:
        """Read a page of deaths."""
        asked = {"after": after, "limit": str(limit), **filters}
        return self._result("reading dead tokens", "GET", f"{self._root}/dead-tokens?{_query(asked)}", _deaths)

    def restore_dead_tokens(self, wanted: Mapping[str, object]) -> Call[DeathsRestored]:
        """Bring dead tokens back."""
        return self._result("restoring dead tokens", "POST", f"{self._root}/dead-tokens/restore", _restored, wanted)

    def accounts_with_deaths(self) -> Call[tuple[AccountDeaths, ...]]:
        """Read how accounts stand."""
        path = f"{self._root}/dead-tokens/accounts"
        return (yield from self._result("reading accounts with dead tokens", "GET", path, _accounts)).accounts

    def decide_deaths(self, vendor: str, credential: str, decision: DeathDecision, limit: int) -> Call[DeathsDecided]:
        """Decide on an account's tokens that are passed over."""
        place = f"{_segment('vendor', vendor, NAME_BYTES_MAX)}/{_segment('credential', credential, NAME_BYTES_MAX)}"
        body = {"decision": decision, "limit": limit}
        doing = f"deciding on dead tokens of {vendor}:{credential}"
        return self._result(doing, "POST", f"{self._root}/dead-tokens/accounts/{place}", _decided, body)

    def report_receipts(self, receipts: Iterable[ClientReceipt]) -> Call[ReceiptsRecorded]:
        """Report receipts of apps, in requests of :data:`MANY`."""
        path = "/v1/receipts/client"
        sums = yield from self._in_batches("reporting receipts", path, "receipts", receipts, _recorded, app=self.app)
        return ReceiptsRecorded(**sums)

    # ---- sending and reading

    def _user(self, user: str) -> str:
        return f"{self._root}/users/{_segment('user', user, ID_BYTES_MAX)}"

    def _conversation(self, user: str, conversation: str) -> str:
        return f"{self._user(user)}/conversations/{_segment('conversation', conversation, ID_BYTES_MAX)}"

    def _device(self, user: str, device: str) -> str:
        return f"{self._user(user)}/devices/{_segment('device', device, DEVICE_BYTES_MAX)}"

    def _result(
        self, doing: str, method: str, path: str, decoder: msgspec.json.Decoder[T], body: object = None
    ) -> Call[T]:
        answer = yield from self._answer(doing, method, path, body)
        return _read(doing, answer, decoder)

    def _gone(self, doing: str, path: str, unknown: str) -> Call[bool]:
        """Delete what is there; False when it was not."""
        answer = yield from self._answer(doing, "DELETE", path)
        if _says(answer, unknown):
            return False
        _check(doing, answer)
        return True

    def _in_batches(
        self,
        doing: str,
        path: str,
        name: str,
        given: Iterable[object],
        decoder: msgspec.json.Decoder[Any],
        **more: str,
    ) -> Call[dict[str, int]]:
        """The sums of what the answers count."""
        sums: dict[str, int] = {}
        start = 0
        for some in _batches(given):
            answer = yield from self._answer(doing, "POST", path, {**more, name: some})
            for counted, number in msgspec.structs.asdict(_read(doing, answer, decoder, start)).items():
                sums[counted] = sums.get(counted, 0) + number
            start += len(some)
        return sums

    def _answer(self, doing: str, method: str, path: str, body: object = None) -> Call[Answer]:
        """The answer to a request that is sent again while that promises something."""
        try:
            request = Request(method, path, None if body is None else _encode(body))
        except UnicodeEncodeError:
            raise ApiRefused(f"{doing}: a text has half a surrogate pair, which UTF-8 cannot say") from None
        for attempt in range(1, self._attempts + 1):
            received = yield request
            assert received is not None
            reply = received
            if isinstance(reply, Answer) and not _is_passing(reply.status):
                return reply
            pause_s = self._pause_s(attempt, reply)
            if attempt == self._attempts or pause_s is None:
                break
            yield Pause(pause_s)
        tries = f" (sent {attempt} times)" if attempt > 1 else ""
        if isinstance(reply, Answer):
            _raise(f"{doing}{tries}", reply)
        raise ApiUnavailable(f"{doing}: {reply.why}{tries}; repeating it is safe")

    def _pause_s(self, attempt: int, reply: Answer | NoAnswer) -> float | None:
        """How long to wait before the next attempt; None: no attempt makes sense soon."""
        wanted = reply.retry_after if isinstance(reply, Answer) else ""
        least_s = float(wanted) if wanted.isascii() and wanted.isdecimal() else 0.0
        if least_s > RETRY_AFTER_S_MAX:
            return None
        # Drawn from the whole range, so that clients which failed together do not come back together.
        return least_s + self._chance() * min(PAUSE_S_MAX, PAUSE_S * float(2 ** (attempt - 1)))


def _read(doing: str, answer: Answer, decoder: msgspec.json.Decoder[T], start: int = 0) -> T:
    """What *answer* says; *start* is the place of the batch that it answers in the whole call."""
    _check(doing, answer, start)
    try:
        return decoder.decode(answer.body)
    except msgspec.DecodeError:
        raise _stranger(doing, answer) from None


def _check(doing: str, answer: Answer, start: int = 0) -> None:
    if not 200 <= answer.status < 300:
        _raise(doing, answer, start)


def _is_passing(status: int) -> bool:
    """Whether the same request may well be answered otherwise in a while."""
    return status >= 500 or status in (408, 429)


def _says(answer: Answer, code: str) -> bool:
    if answer.status != 404:
        return False
    try:
        return _told.decode(answer.body).code == code
    except msgspec.DecodeError:
        return False


def _raise(doing: str, answer: Answer, start: int = 0) -> NoReturn:
    kind = ApiUnavailable if _is_passing(answer.status) else ApiRefused
    try:
        told = _told.decode(answer.body)
    except msgspec.DecodeError:
        raise _stranger(doing, answer) from None
    field = _PLACE_IN_BATCH.sub(lambda at: f"{at['list']}[{int(at['number']) + start}]", told.field, count=1)
    raise kind(f"{doing}: {told.message}", answer.status, told.code, field)


def _stranger(doing: str, answer: Answer) -> ApiError:
    """The error about an answer that is none of the API's."""
    kind = ApiUnavailable if _is_passing(answer.status) else ApiError
    return kind(
        f"{doing}: what came back is not an answer of a pushfleet API; check the address, and any proxy before it",
        answer.status,
    )


def _batches(given: Iterable[T]) -> Iterator[list[T]]:
    iterator = iter(given)
    while some := list(islice(iterator, MANY)):
        yield some


def _segment(what: str, identity: str, limit: int) -> str:
    """An id as a segment of a path. Raises :class:`ApiRefused`: a wrong one would make it another path."""
    encoded = _quoted(what, identity)
    size = len(identity.encode())
    if not 0 < size <= limit:
        raise ApiRefused(f"the {what} id has {size} bytes; 1 to {limit} are allowed", 0, "invalid_id", what)
    return encoded


def _query(asked: dict[str, str]) -> str:
    return "&".join(f"{name}={_quoted(name, value)}" for name, value in asked.items() if value)


def _quoted(what: str, value: str) -> str:
    try:
        # Dots too: a segment of nothing else means another folder.
        return quote(value, safe="").replace(".", "%2E")
    except UnicodeEncodeError:
        raise ApiRefused(
            f"the {what} has half a surrogate pair, which UTF-8 cannot say", 0, "invalid_id", what
        ) from None
