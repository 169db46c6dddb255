"""The fake cloud as one object: listeners, script, book and credentials of all vendors."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import ssl
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
import msgspec

from pushfleet_workers.fakecloud.book import Accepted, Book
from pushfleet_workers.fakecloud.certs import make_certificates, server_context
from pushfleet_workers.fakecloud.control import Control
from pushfleet_workers.fakecloud.credentials import Credential, CredentialFolder, Entry
from pushfleet_workers.fakecloud.desk import Desk
from pushfleet_workers.fakecloud.journal import Glance, Journal
from pushfleet_workers.fakecloud.listener import ControlListener, Tls, VendorListener
from pushfleet_workers.fakecloud.receipts import DELIVERED, Answer, Console, postings
from pushfleet_workers.fakecloud.registry import VENDORS
from pushfleet_workers.fakecloud.rules import Rule, RuleBook, check_rule, make_rule
from pushfleet_workers.fakecloud.vendor import AsksForCertificates, FakeVendor

__all__ = ["FakeCloud"]

MAX_STREAMS_MAX = 2**31 - 1
RECEIPT_TIMEOUT_S = 10.0


class FakeCloud:
    """All vendors on this machine; used as an async context manager, and only in the event loop that entered it.

    *vendors*: which ones, by default all. *ports*: fixed ones by vendor; 0 or absent takes a free one.
    *folder*: where certificates and credentials lie, by default a temporary one that goes with the cloud.
    *public_host*: the name by which clients reach it, by default *host*. *keep*: how many accepted pushes the book
    records in full. *journal*: a file to which every token of every request in order is appended, see :class:`Met`.
    *wall* and *monotonic*: the clocks, in seconds.
    """

    def __init__(
        self,
        *,
        vendors: Sequence[str] | None = None,
        host: str = "127.0.0.1",
        ports: Mapping[str, int] | None = None,
        control_port: int = 0,
        folder: Path | None = None,
        public_host: str = "",
        keep: int = 10_000,
        journal: Path | None = None,
        wall: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.vendors = tuple(VENDORS if vendors is None else vendors)
        """The names of the vendors that this cloud has."""

        for name in self.vendors:
            if name not in VENDORS:
                raise ValueError(f"the fake cloud has no vendor {name!r}: {', '.join(VENDORS)}")
        for name in ports or ():
            self._known(name)
        self._host = host
        self._ports = dict(ports or {})
        self._control_port = control_port
        self._folder = folder.absolute() if folder is not None else None
        self._public_host = public_host or {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104
        self._journal_file = journal
        self._wall = wall
        self._monotonic = monotonic
        numbers = itertools.count(1)
        self._fakes: dict[str, FakeVendor] = {name: VENDORS[name]() for name in self.vendors}
        self._rules = {name: RuleBook(numbers) for name in self.vendors}
        self.book = Book(self.vendors, keep)
        """What was received. Read it in the loop's own thread."""

        self._listeners: dict[str, VendorListener] = {}
        self._control: ControlListener | None = None
        self._cleanup = contextlib.AsyncExitStack()
        self._credentials: CredentialFolder | None = None
        self._ca_file: Path | None = None

    async def __aenter__(self) -> Self:
        """Listen."""
        async with contextlib.AsyncExitStack() as stack:
            folder = self._folder or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fakecloud-")))
            self._credentials = CredentialFolder(folder)
            certificates = make_certificates(folder, (self._host, self._public_host))
            self._ca_file = certificates.ca_file
            journal = None
            if self._journal_file is not None:
                glance = Glance(self._wall)
                journal = Journal(self._journal_file, lambda: glance.since_s)
                stack.callback(journal.close)
                stack.callback(asyncio.create_task(glance.keep_looking()).cancel)
            for name, fake in self._fakes.items():
                authority = fake.client_authority() if isinstance(fake, AsksForCertificates) else b""
                protocols = ("h2", "http/1.1") if fake.http1 else ("h2",)
                context = server_context(certificates.server_file, protocols, authority)
                desk = Desk(fake, self._rules[name], self.book, self._wall, self._monotonic, journal)
                port = self._ports.get(name, 0)
                listener = VendorListener(
                    self._host, port, context, desk, fake.http1, fake.max_streams,
                    partial(self._untrusted, folder, protocols),
                )  # fmt: skip
                self._listeners[name] = listener
                stack.push_async_callback(listener.close)
                await listener.open()
            control = Control(self)
            self._control = ControlListener(self._host, self._control_port, control)
            stack.push_async_callback(control.close)
            stack.push_async_callback(self._control.close)
            await self._control.open()
            self._load()
            self._cleanup = stack.pop_all()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Break every connection and give every port back."""
        await self._cleanup.aclose()

    @property
    def ca_file(self) -> Path:
        """The authority that clients must trust, as PEM: the ``ca_bundle`` of an account."""
        assert self._ca_file is not None, "the cloud is not running"
        return self._ca_file

    @property
    def control_url(self) -> str:
        """Where the control API listens."""
        assert self._control is not None, "the cloud is not running"
        return f"http://{self._netloc(self._control.port)}"

    def url(self, vendor: str) -> str:
        """Where *vendor* listens, without a trailing slash: the ``base_url`` of an account."""
        return f"https://{self._netloc(self._listener(vendor).port)}"

    def port(self, vendor: str) -> int:
        """The port on which *vendor* listens."""
        return self._listener(vendor).port

    def credential(self, vendor: str, **options: Any) -> Credential:
        """A new credential that *vendor* knows.

        Options: apns ``team_id``, ``key_id``, ``topics``, or ``certificate=True``, ``topics``, ``environments``;
        fcm ``project_id``; huawei ``client_id``, ``project_id``;
        harmony ``project_id``, ``client_id``; honor ``app_id``, ``client_id``; oppo ``app_key``;
        vivo ``app_id``, ``test_devices``; xiaomi ``package_name``, ``channels``; meizu ``app_id``;
        tpns ``access_id``, ``platform``.
        """
        self._known(vendor)
        folder = self._credential_folder()
        entry = folder.issue(VENDORS[vendor], self.url(vendor), options)
        self._fakes[vendor].register(folder.known(entry))
        return folder.credential(entry)

    def credentials(self) -> list[Credential]:
        """Every credential that the cloud knows, in order of issue."""
        folder = self._credential_folder()
        return [folder.credential(entry) for entry in folder.entries()]

    def rule(self, vendor: str, action: str, **fields: Any) -> int:
        """Add a line to the script of *vendor* and give its number; *fields* as in :class:`Rule`.

        Raises :class:`ValueError` for what the vendor cannot do.
        """
        return self.add_rule(make_rule({"vendor": vendor, "action": action, **fields}))

    def add_rule(self, rule: Rule) -> int:
        """Add *rule* to the script and give its number; raises :class:`ValueError` as :meth:`rule` does."""
        self._known(rule.vendor)
        check_rule(rule, VENDORS[rule.vendor])
        if rule.since_ms is None:
            rule = msgspec.structs.replace(rule, since_ms=int(self._wall() * 1_000))
        return self._rules[rule.vendor].add(rule)

    def kill(self, vendor: str, token: str, code: str = "", since_ms: int | None = None) -> int:
        """Make *token* dead, from now on or since *since_ms* (Unix milliseconds); gives the rule's number."""
        return self.rule(vendor, "dead", token=token, code=code, since_ms=since_ms)

    def revive(self, vendor: str, token: str) -> bool:
        """Make *token* alive again, as after a new registration; whether it was dead by :meth:`kill`."""
        self._known(vendor)
        self.book.pages[vendor].revive(token)
        return self._rules[vendor].revive(token)

    def rules(self, vendor: str = "") -> list[dict[str, Any]]:
        """The script, JSON-ready: the fields of :class:`Rule` with ``id`` and ``matches``."""
        return [line for name in self._chosen(vendor) for line in self._rules[name].listing()]

    def clear_rules(self, vendor: str = "", number: int = 0) -> None:
        """Strike out the rule *number*, or all rules of *vendor*, or all rules."""
        for name in self._chosen(vendor):
            if number:
                self._rules[name].remove(number)
            else:
                self._rules[name].clear()

    def stats(self) -> dict[str, Any]:
        """The book's totals and the state of the listeners by vendor, JSON-ready, without tokens."""
        summary = self.book.summary()
        for name, listener in self._listeners.items():
            summary[name]["connections"] = listener.connections
            summary[name]["connections_total"] = listener.connections_total
            summary[name]["max_streams"] = listener.max_streams
            summary[name]["blackout"] = listener.dark
            summary[name]["tls"] = listener.tls
        return {"vendors": summary}

    def received(self, vendor: str = "", token: str = "") -> list[Accepted]:
        """The recorded accepted pushes, oldest first."""
        if vendor:
            self._known(vendor)
        return self.book.received(vendor, token)

    def max_streams(self, vendor: str, max_streams: int) -> None:
        """Grant *max_streams* per HTTP/2 connection of *vendor*, on open connections too; 0 stops new requests."""
        if not 0 <= max_streams <= MAX_STREAMS_MAX:
            raise ValueError(f"max_streams is 0 to {MAX_STREAMS_MAX}, not {max_streams}")
        self._listener(vendor).set_max_streams(max_streams)

    def expire_auth(self, vendor: str) -> None:
        """Make every access token that *vendor* has handed out expired."""
        self._known(vendor)
        self._fakes[vendor].expire_auth()

    async def blackout(self, vendor: str) -> None:
        """Break every connection to *vendor* and refuse new ones until :meth:`heal`."""
        await self._listener(vendor).darken()

    async def heal(self, vendor: str) -> None:
        """End the blackout of *vendor*, on the same port."""
        await self._listener(vendor).open()

    async def tls(self, vendor: str, tls: str) -> None:
        """Break every connection to *vendor*, and from now on have its TLS be as :class:`Tls` says."""
        await self._listener(vendor).set_tls(Tls(tls))

    async def send_receipts(
        self, vendor: str, code: str = "", token: str = "", console: Console | None = None, times: int = 1
    ) -> list[Answer]:
        """Have *vendor* post receipts for the recorded pushes that asked for them, and give the receiver's answers.

        *code*: the vendor's own, by default the one for a push that arrived. *token*: only its pushes. *console*: what
        the vendor's console was told. *times*: how often, as vendors repeat themselves. Raises :class:`ValueError`.
        """
        pushes = self.received(vendor, token)
        told = console or Console()
        code = code or DELIVERED.get(vendor, "")
        answers = []
        async with httpx.AsyncClient(trust_env=False, timeout=RECEIPT_TIMEOUT_S) as client:
            for _ in range(times):
                for posting in postings(vendor, code, pushes, told, int(self._wall() * 1_000)):
                    try:
                        answer = await client.post(posting.url, content=posting.body, headers=posting.headers)
                    except httpx.HTTPError as problem:
                        raise ValueError(f"nobody takes receipts there: {type(problem).__name__}") from None
                    answers.append(Answer(answer.status_code, answer.text))
        return answers

    def reset(self) -> None:
        """Forget the script and the book; connections, credentials and access tokens stay."""
        self.clear_rules()
        self.book.clear()

    def _untrusted(self, folder: Path, protocols: Sequence[str]) -> ssl.SSLContext:
        certificates = make_certificates(folder / "untrusted", (self._host, self._public_host))
        return server_context(certificates.server_file, protocols)

    def _load(self) -> None:
        """Know the credentials that lie in the folder; issue anew those that name another address."""
        folder = self._credential_folder()
        for entry in folder.entries():
            if entry.vendor in self._fakes:
                self._fakes[entry.vendor].register(folder.known(self._current(folder, entry)))

    def _current(self, folder: CredentialFolder, entry: Entry) -> Entry:
        vendor, base_url = VENDORS[entry.vendor], self.url(entry.vendor)
        if vendor.address_bound and entry.base_url != base_url:
            return folder.issue(vendor, base_url, entry.options)
        return entry

    def _credential_folder(self) -> CredentialFolder:
        assert self._credentials is not None, "the cloud is not running"
        return self._credentials

    def _netloc(self, port: int) -> str:
        host = f"[{self._public_host}]" if ":" in self._public_host else self._public_host
        return f"{host}:{port}"

    def _known(self, vendor: str) -> None:
        if vendor not in self.vendors:
            raise ValueError(f"the fake cloud has no vendor {vendor!r}: {', '.join(self.vendors)}")

    def _chosen(self, vendor: str) -> tuple[str, ...]:
        if not vendor:
            return self.vendors
        self._known(vendor)
        return (vendor,)

    def _listener(self, vendor: str) -> VendorListener:
        self._known(vendor)
        assert vendor in self._listeners, "the cloud is not running"
        return self._listeners[vendor]
