"""The fake vendors of a scenario, in a process of their own: its control API and its journal."""

from __future__ import annotations

import contextlib
import json
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tests.chaos.nursery import spawn
from tests.chaos.processes import until

from pushfleet_workers.fakecloud.credentials import Credential
from pushfleet_workers.fakecloud.journal import Met, read_journal

__all__ = ["FakeCloud", "running_cloud"]

_direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class FakeCloud:
    """The control API of the fake vendors, with the names that :class:`FakeCloudThread` gives things."""

    def __init__(self, addresses: dict[str, Any], journal: Path) -> None:
        self._addresses = addresses
        self.journal = journal
        self.ca_file = Path(addresses["ca_file"])

    def url(self, vendor: str) -> str:
        """Where *vendor* listens."""
        return str(self._addresses["vendors"][vendor]["url"])

    def credential(self, vendor: str, **options: Any) -> Credential:
        """A new credential that *vendor* knows."""
        told = self._call("POST", "credentials", {"vendor": vendor, "options": options})
        return Credential(told["vendor"], told["id"], told["settings"], Path(told["file"]))

    def rule(self, vendor: str, action: str, **fields: Any) -> int:
        """Add a line to the script of *vendor*; its number. See :class:`pushfleet_workers.fakecloud.rules.Rule`."""
        (number,) = self._call("POST", "rules", {"vendor": vendor, "action": action, **fields})["ids"]
        return int(number)

    def forget_rule(self, vendor: str, number: int) -> None:
        """Strike out a line of the script."""
        self._call("DELETE", f"rules?vendor={vendor}&id={number}")

    def matches(self, vendor: str, number: int) -> int:
        """How many requests a line of the script has met."""
        rules = self._call("GET", f"rules?vendor={vendor}")["rules"]
        return next(int(line["matches"]) for line in rules if line["id"] == number)

    def set(self, vendor: str, **settings: Any) -> None:
        """Any of ``max_streams``, ``blackout``, ``tls`` and ``expire_auth``."""
        self._call("POST", "settings", {"vendor": vendor, **settings})

    def stats(self, vendor: str) -> dict[str, Any]:
        """The totals of *vendor*, see :meth:`pushfleet_workers.fakecloud.FakeCloud.stats`."""
        return dict(self._call("GET", "stats")["vendors"][vendor])

    def taken(self) -> int:
        """How many pushes all vendors took so far."""
        return sum(page["accepted"] for page in self._call("GET", "stats")["vendors"].values())

    def met(self) -> Iterator[Met]:
        """The journal so far."""
        return read_journal(self.journal)

    def _call(self, method: str, path: str, body: object = None) -> Any:
        data = json.dumps(body).encode() if body is not None else None
        request = urllib.request.Request(f"{self._addresses['control_url']}/{path}", data, method=method)
        with _direct.open(request, timeout=30) as answer:
            return json.loads(answer.read())


@contextlib.contextmanager
def running_cloud(folder: Path, vendors: Sequence[str]) -> Iterator[FakeCloud]:
    """`pushfleet fakecloud` for *vendors*."""
    ready, journal = folder / "fakecloud.json", folder / "fakecloud.jsonl"
    words = ["--credentials", str(folder / "vendors"), "--ready-file", str(ready), "--journal", str(journal)]
    words += [word for vendor in vendors for word in ("--vendor", vendor)]
    process = spawn(["pushfleet", "fakecloud", *words], folder / "fakecloud.log")
    try:
        until(lambda: ready.exists() or process.poll() is not None, 30, what="the fake cloud listens")
        yield FakeCloud(json.loads(ready.read_text()), journal)
    finally:
        process.kill()
        process.wait()
