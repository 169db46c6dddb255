"""The one Celery task: there is work for a vendor."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from celery import Celery

from pushfleet_workers.topology import DRAIN, queue_of

__all__ = ["publish_drain", "register_tasks", "serve_drains"]

_EXPIRES_S = 60
"""A trigger that nobody took for this long is stale: workers look by themselves."""

_drainers: dict[int, Callable[[str], None]] = {}


def register_tasks(app: Celery) -> None:
    """Give *app* the task `push.drain`, which drains the vendor it names in this process."""

    @app.task(name=DRAIN, acks_late=True, ignore_result=True, shared=False)
    def drain(vendor: str) -> None:
        _drainers[id(app)](vendor)


def serve_drains(app: Celery, drain: Callable[[str], None]) -> None:
    """What `push.drain` calls in this process."""
    _drainers[id(app)] = drain


def publish_drain(app: Celery, vendor: str) -> None:
    """Tell the workers of *vendor* that there is work; its name is all that the message carries."""
    options: dict[str, Any] = {"queue": queue_of(vendor), "expires": _EXPIRES_S, "argsrepr": "", "kwargsrepr": ""}
    app.send_task(DRAIN, args=(vendor,), ignore_result=True, **options)
