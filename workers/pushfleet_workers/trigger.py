"""Publishing Celery triggers from an event loop without blocking it: a thread and a short queue."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable

__all__ = ["Publisher"]

log = logging.getLogger(__name__)


class Publisher:
    """Publishes in a thread of its own what :meth:`trigger` is given; a trigger that is lost costs at most a second.

    * **publish** - blocks until the broker has it.
    """

    def __init__(self, publish: Callable[[str], None]) -> None:
        self._publish = publish
        self._queue: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="pushfleet-trigger", daemon=True)
        self._thread.start()

    def trigger(self, vendor: str) -> None:
        """Publish a trigger for *vendor* soon."""
        self._queue.put(vendor)

    def close(self) -> None:
        """Publish what waits, then end the thread."""
        self._queue.put(None)
        self._thread.join(5)

    def _run(self) -> None:
        while (vendor := self._queue.get()) is not None:
            try:
                self._publish(vendor)
            except Exception as problem:  # noqa: BLE001
                # Whatever the broker raises: workers look for work by themselves.
                log.warning("the trigger for %s was not published: %s", vendor, type(problem).__name__)
