"""A fake vendor cloud: every push vendor on this machine, as strict as the real one and scriptable per token.

``async with FakeCloud() as cloud`` in an event loop, ``with FakeCloudThread() as cloud`` without one, and
:func:`serve` as a process. A new vendor is one module and one row in `registry`.
"""

from __future__ import annotations

from pushfleet_workers.fakecloud.book import Accepted, Book
from pushfleet_workers.fakecloud.cloud import FakeCloud
from pushfleet_workers.fakecloud.credentials import Credential
from pushfleet_workers.fakecloud.receipts import Console
from pushfleet_workers.fakecloud.rules import Action, Rule
from pushfleet_workers.fakecloud.serving import serve
from pushfleet_workers.fakecloud.thread import FakeCloudThread

__all__ = ["Accepted", "Action", "Book", "Console", "Credential", "FakeCloud", "FakeCloudThread", "Rule", "serve"]
