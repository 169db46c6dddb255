"""What a scenario is, and how one is added.

A scenario is a function in a file of `tests/chaos/scenarios/` that is given a stage (:class:`tests.chaos.stage.Stage`).
It starts a fleet and a load, breaks something, heals it, and says with ``stage.expect`` what must hold beyond the three
books. It returns, and then everything that is always promised is checked without its doing: the stage waits until
nothing is pending and compares the books. For example::

    @scenario(vendors=("apns", "fcm"))
    def a_router_dies(stage: Stage) -> None:
        \"""Its entries are taken over.\"""
        router = stage.fleet.start("router")
        stage.fleet.start("worker")
        with stage.load(per_s=stage.size(full=300, short=100)):
            stage.until_taken(stage.size(full=2_000, short=100))
            router.kill()
            stage.fleet.start("router")
            stage.healed()
        stage.expect("a router that is gone" in stage.fleet.said(), "somebody noticed")

``make chaos`` runs it in full, ``make test`` in its short form: a few seconds, in which leases run out after two.
What it promises and what it measured goes into the table of `docs/reliability.md`.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.chaos.stage import Stage

__all__ = ["PACE", "TRANSPORTS", "NotHere", "Scenario", "scenario", "scenarios"]

PACE = {"pyreqwest": 1.0, "httpx": 0.3, "aioapns": 0.6}
"""The transports, the default one first, and what load each may be given on two cores that all share."""

TRANSPORTS = tuple(PACE)


class NotHere(Exception):
    """The scenario needs something that is not here; the text says what."""


@dataclass(frozen=True)
class Scenario:
    """One scenario with what its stage must be like."""

    name: str
    play: Callable[[Stage], None]
    vendors: Sequence[str] = ("apns",)
    transports: Sequence[str] = TRANSPORTS[:1]
    users: int = 500
    """At each vendor."""

    second: Mapping[str, str] = field(default_factory=dict)
    """Vendor to the vendor of a second channel that its devices have."""

    settings: str = ""
    """TOML that stands at the beginning of the settings file."""

    accounts: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    """Further settings of a vendor's account."""

    redis: Mapping[str, str] = field(default_factory=dict)
    """Directives for the Redis server."""

    proxied: bool = False
    """Whether producers and the fleet reach Redis by way of a proxy, ``stage.servers.way``."""

    sentinels: bool = False
    """Whether Redis is a master with a replica and three Sentinels, ``stage.servers.cluster``."""

    excused: frozenset[str] = frozenset()
    """Ends other than being sent that are right here, as ``end:reason``."""

    short: bool = True
    """Whether it has a short form."""

    by_hand: bool = False
    """Played only where it is named: it is too long for every day."""

    @property
    def meaning(self) -> str:
        """What it is about, in a sentence."""
        return (self.play.__doc__ or "").strip().partition("\n")[0]


_KNOWN: dict[str, Scenario] = {}


def scenario(**stage: object) -> Callable[[Callable[[Stage], None]], Callable[[Stage], None]]:
    """Make a scenario of the function; its name is the function's. *stage*: fields of :class:`Scenario`."""

    def enter(play: Callable[[Stage], None]) -> Callable[[Stage], None]:
        name = play.__name__
        assert name not in _KNOWN, f"there are two scenarios named {name}"
        _KNOWN[name] = Scenario(name, play, **stage)  # type: ignore[arg-type]
        return play

    return enter


def scenarios() -> dict[str, Scenario]:
    """Every scenario by its name, in the order of their files."""
    for file in sorted(Path(__file__).with_name("scenarios").glob("*.py")):
        importlib.import_module(f"tests.chaos.scenarios.{file.stem}")
    return _KNOWN
