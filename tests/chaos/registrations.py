"""A backend that registers devices over HTTP all the time, and whether the token state has what it was told it has."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

from tests.chaos.people import APP
from tests.chaos.processes import Fleet, Process

from pushfleet import Channel, Registration, TokenState
from pushfleet.errors import ApiUnavailable
from pushfleet_workers.redis_link import Link
from pushfleet_workers.tokens.store import TokenStore

__all__ = ["Registrations", "registering"]

_EVERY_S = 0.02


@dataclass
class Registrations:
    """The users whose registration was answered with yes."""

    told: list[str] = field(default_factory=list)
    refusals: int = 0
    """Requests to an API that was just killed, or not there yet."""

    def missing(self, redis_url: str, prefix: str) -> list[str]:
        """Those of them that the token state does not know."""

        async def read() -> list[str]:
            link = Link(redis_url)
            try:
                store = TokenStore(link, prefix, lambda: 0)
                return [user for user in self.told if not (await store.user(APP, user)).devices]
            finally:
                await link.close()

        return asyncio.run(read())


@contextlib.contextmanager
def registering(fleet: Fleet) -> Iterator[Registrations]:
    """Register new users while the block runs, each with whatever API lives, and again until one says yes."""
    registrations, stop = Registrations(), threading.Event()

    def go_on() -> None:
        with contextlib.ExitStack() as stack:
            clients: dict[Process, TokenState] = {}
            while not stop.wait(_EVERY_S):
                for api in fleet.living("api"):
                    if api not in clients:
                        url = api.ready_url.removesuffix("/readyz")
                        clients[api] = stack.enter_context(TokenState(url, app=APP, timeout_s=2.0, attempts=1))
                    number = len(registrations.told)
                    try:
                        clients[api].register(f"new-{number}", "phone", _registration(number))
                    except ApiUnavailable:
                        registrations.refusals += 1
                    else:
                        registrations.told.append(f"new-{number}")

    thread = threading.Thread(target=go_on, name="registrations")
    thread.start()
    try:
        yield registrations
    finally:
        stop.set()
        thread.join()


def _registration(number: int) -> Registration:
    return Registration(channels=(Channel(vendor="apns", token=f"{number:064x}"),))
