"""What a child changes in itself before it becomes `pushfleet`, so that the product needs nothing for these tests.

    python -m tests.chaos.seams SEAM... -- WORDS

runs `pushfleet WORDS` with each seam opened. A seam is a name and, behind colons, what it takes:

================ =====================================================================================
crash:POINT:N    dies by SIGKILL when it comes to that point (:data:`POINTS`) for the N-th time
clock:SECONDS    its clock is so far off
leases:SECONDS   leases run out after that time in place of 15 s, and are renewed three times as often
defect:HOW       the vendor module of APNs has one: a text with "poison" in it kills the process
                 (``exit``) or raises (``raise``)
================ =====================================================================================
"""

from __future__ import annotations

import datetime
import importlib
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any

__all__ = ["POINTS", "POISON", "SEAMS"]

POISON = "poison"


@dataclass(frozen=True)
class Point:
    """A place in the product where a process may die."""

    target: str
    """``module:Class.method``."""

    after: bool = False
    """Behind the call in place of before it."""

    counts: Callable[[Any], bool] = lambda _: True
    """Whether this time counts: asked about the result, or where it dies before the call about the first argument."""


POINTS = {
    "popped": Point("kombu.transport.redis:QoS.append"),
    "put": Point("pushfleet_workers.ingress:IngressStream.acknowledge"),
    "claimed": Point("pushfleet_workers.ledger.ledger:Ledger.claim", after=True, counts=lambda claim: claim.entries),
    "answered": Point(
        "pushfleet_workers.ledger.ledger:Ledger.settle", counts=lambda some: any(one.accepted for one in some)
    ),
}
"""Between Celery's pop of a message and its record; after the put, before the acknowledgement; after the claim; after
the vendor's answer, before it is settled."""


def crash(point: str, times: str = "1") -> None:
    """Die at *point*."""
    where, left = POINTS[point], int(times)
    owner, name = _method(where.target)
    original = getattr(owner, name)

    def passed(value: Any) -> None:
        nonlocal left
        left -= bool(where.counts(value))
        if left <= 0:
            os.kill(os.getpid(), signal.SIGKILL)

    if where.after:

        @wraps(original)
        async def dies_after(*arguments: Any) -> Any:
            result = await original(*arguments)
            passed(result)
            return result

        setattr(owner, name, dies_after)
        return

    @wraps(original)
    def dies_before(*arguments: Any) -> Any:
        passed(arguments[1])
        return original(*arguments)

    setattr(owner, name, dies_before)


def clock(seconds: str) -> None:
    """Be so many seconds off. Celery asks the time of day by another door."""
    from celery import Celery
    from celery.worker import request

    right, off_s = time.time, float(seconds)

    def wrong() -> float:
        return right() + off_s

    class WrongDatetime(datetime.datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return datetime.datetime.now(tz) + datetime.timedelta(seconds=off_s)

    # Some have the function by a name of their own.
    for module in list(sys.modules.values()):
        for name in [name for name, value in vars(module).items() if value is right]:
            setattr(module, name, wrong)
    in_utc = Celery.now
    Celery.now = lambda app: in_utc(app) + datetime.timedelta(seconds=off_s)
    request.datetime = WrongDatetime


def leases(seconds: str) -> None:
    """Let leases run out soon."""
    from pushfleet_workers import runtime
    from pushfleet_workers.ledger import ledger

    ledger.LEASE_MS = int(float(seconds) * 1000)
    runtime.BEAT_S = float(seconds) / 3


def defect(how: str) -> None:
    """Let the module of APNs stumble over some texts."""
    from pushfleet_workers.vendors.apns import Apns

    sound = Apns.build

    def build(vendor: Any, account: Any, push: Any, *rest: Any) -> Any:
        if POISON in push.body:
            if how == "exit":
                os._exit(66)
            raise RuntimeError(f"cannot build {push.body}")
        return sound(vendor, account, push, *rest)

    Apns.build = build


SEAMS: dict[str, Callable[..., None]] = {"crash": crash, "clock": clock, "leases": leases, "defect": defect}


def _method(target: str) -> tuple[Any, str]:
    module, _, path = target.partition(":")
    owner, _, name = path.partition(".")
    return getattr(importlib.import_module(module), owner), name


if __name__ == "__main__":
    split = sys.argv.index("--")
    for seam in sys.argv[1:split]:
        opened, *told = seam.split(":")
        SEAMS[opened](*told)
    sys.argv[:] = ["pushfleet", *sys.argv[split + 1 :]]
    from pushfleet.__main__ import main

    sys.exit(main())
