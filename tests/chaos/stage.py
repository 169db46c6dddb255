"""Where a scenario plays: a Redis, the fake vendors, people with devices, a fleet without processes yet, the load."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import redis as redis_py
from msgspec import Struct
from tests.chaos.books import Books, Cloud, Terms, compare
from tests.chaos.cloud import FakeCloud, running_cloud
from tests.chaos.ledger import ledger_book, read_audit, register, settled_deaths_s
from tests.chaos.load import Plan, Told, read_told
from tests.chaos.nursery import ROOT, spawn
from tests.chaos.people import APP, DOOMED, People
from tests.chaos.processes import Fleet, until
from tests.chaos.scenario import PACE, Scenario
from tests.chaos.servers import Servers, running_servers
from tests.integration.every_vendor import Accounts
from tests.workers.commands import environment

from pushfleet_workers.account import AccountSettings
from pushfleet_workers.audit import Books as Audit
from pushfleet_workers.ledger.ledger import Rate
from pushfleet_workers.redis_server import EmbeddedRedis
from pushfleet_workers.runtime import rate_of

__all__ = ["Line", "Stage", "run"]

PREFIX = "pushfleet"
SHORT_LEASES_S = 2
_IDLE_S = 120.0


class Line(Struct, kw_only=True):
    """What a scenario comes to: one line of JSON."""

    scenario: str
    transport: str
    accepted: int
    """Messages; all other counts are deliveries."""

    lost: int
    lost_bound: int
    duplicated: int
    unknown_outcomes: int
    late: int
    over_rate: int
    after_death: int
    recovery_s: float
    """How long after the healing pushes still arrived that had waited for more than a second."""

    took_s: float
    figures: dict[str, float]
    """What else was measured."""

    faults: list[str]
    """What must not be; none: the scenario is green."""


@dataclass
class Stage:
    """What a scenario is given."""

    folder: Path
    short: bool
    servers: Servers
    client: redis_py.Redis
    """For a look into the server; behind Sentinels the first master."""

    cloud: FakeCloud
    people: People
    fleet: Fleet
    pace: float
    """What the transport carries, by the default one."""

    terms: Terms
    """What is promised; a scenario whose bound depends on what happened sets it anew."""

    faults: list[str] = field(default_factory=list)
    figures: dict[str, float] = field(default_factory=dict)
    _loads: int = 0

    @property
    def redis(self) -> EmbeddedRedis:
        """The server; behind Sentinels the first master."""
        return self.servers.redis

    # ---- load

    @contextlib.contextmanager
    def load(self, per_s: float, *, older: Path | None = None, **plan: object) -> Iterator[None]:
        """A producer that enqueues so many messages a second while the block runs; *plan*: see :class:`Plan`.

        * **older** - where another version of the SDK lies, for it to use.
        """
        env = {"PYTHONPATH": str(older)} if older is not None else {}
        process = spawn(self._producer(per_s=per_s, **plan), self.folder / "producer.log", fresh=bool(env), **env)
        try:
            yield
            assert process.poll() is None, (self.folder / "producer.log").read_text()[-800:]
        finally:
            process.terminate()
            process.wait(30)

    def backlog(self, count: int, **plan: object) -> None:
        """Enqueue so many messages as fast as it goes; returns when all are accepted."""
        process = spawn(self._producer(per_s=1e6, count=count, **plan), self.folder / "producer.log")
        assert process.wait(60) == 0, (self.folder / "producer.log").read_text()[-800:]

    def _producer(self, **plan: object) -> list[str]:
        self._loads += 1
        book = self.folder / f"producer-{self._loads}.jsonl"
        made = Plan(
            name=f"m{self._loads}", redis_url=self.servers.url, book=str(book),
            per_vendor=self.people.per_vendor, **{"vendors": list(self.people.vendors), **plan},  # type: ignore[arg-type]
        )  # fmt: skip
        return ["tests.chaos.load", msgspec.json.encode(made).decode()]

    def told(self) -> list[Told]:
        """The producers' book."""
        return [one for path in sorted(self.folder.glob("producer-*.jsonl")) for one in read_told(path)]

    # ---- what a scenario waits for and says

    def size(self, *, full: int, short: int) -> int:
        """One number in full, another in the short form."""
        return short if self.short else full

    def rate(self, *, full: float, short: float) -> float:
        """Messages a second: as :meth:`size`, less where the transport is a slower one."""
        return (short if self.short else full) * self.pace

    def until_taken(self, count: float, timeout_s: float = 60.0) -> None:
        """Wait until the vendors have taken so many pushes in all."""
        until(lambda: self.cloud.taken() >= count, timeout_s, what=f"{count:.0f} pushes are taken")

    def until_more_taken(self, count: float) -> None:
        """Wait until the vendors have taken so many more than now."""
        self.until_taken(self.cloud.taken() + count)

    def until_idle(self, timeout_s: float = _IDLE_S) -> None:
        """Wait until nothing is pending."""
        until(lambda: self.audit().pending == 0, timeout_s, what="nothing is pending", every_s=0.1)

    def until_caught_up(self, *vendors: str) -> None:
        """Wait until nothing waits for those vendors, or for any: what a load has under way is all that is there."""

        def waits() -> bool:
            accounts = self.audit().accounts
            chosen = (accounts[f"{vendor}:main"] for vendor in vendors or self.people.vendors)
            return any(account.ready or account.delayed for account in chosen)

        until(lambda: not waits(), _IDLE_S, what=f"nothing waits for {', '.join(vendors) or 'anybody'}", every_s=0.1)

    def now(self) -> float:
        """Unix seconds."""
        return time.time()

    def command(self, *words: str) -> str:
        """What `pushfleet WORDS` prints; raises where it fails."""
        done = subprocess.run(
            [sys.executable, "-m", "pushfleet", "--config", str(self.fleet.config), *words],
            cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"pushfleet {' '.join(words)}: {done.stderr[-500:]}"
        return done.stdout

    def connecting(self, count: int) -> None:
        """So many connections are made while an account's rate is used to the full."""
        self.terms = msgspec.structs.replace(self.terms, connections=count)

    def healed(self) -> None:
        """What was broken is whole again: from here on the recovery counts."""
        self.terms = msgspec.structs.replace(self.terms, healed_at_s=self.now())

    def expect(self, holds: object, sentence: str) -> None:
        """What must hold beyond the books; otherwise *sentence* is a fault of the scenario."""
        if not holds:
            self.faults.append(f"not so: {sentence}")

    def measured(self, name: str, value: float) -> None:
        """Tell a figure along with the line."""
        self.figures[name] = round(value, 3)

    # ---- the books

    def audit(self) -> Audit:
        """What `pushfleet audit` reads."""
        return read_audit(self.servers.books_url, PREFIX, [(vendor, "main") for vendor in self.people.vendors])

    def books(self) -> Books:
        """All three, as they are now."""
        return Books(
            self.told(),
            ledger_book(self.audit()),
            Cloud(list(self.cloud.met()), self.people.tokens, self.people.doomed),
            settled_deaths_s(self.servers.books_url, PREFIX),
        )


def run(scenario: Scenario, *, transport: str = "pyreqwest", short: bool = False, folder: Path | None = None) -> Line:
    """Play *scenario* and compare its books; what it leaves behind lies in *folder*."""
    began = time.monotonic()
    with contextlib.ExitStack() as stack:
        place = folder or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="chaos-")))
        stage = stack.enter_context(_set(scenario, transport, short, place))
        scenario.play(stage)
        stage.until_idle()
        for process in stage.fleet.ended_by_themselves():
            stage.faults.append(f"a {process.role} ended by itself: {process.said()[-500:]}")
        found = compare(stage.books(), stage.terms)
        return Line(
            scenario=scenario.name,
            transport=transport,
            lost_bound=stage.terms.lost_bound,
            took_s=round(time.monotonic() - began, 1),
            figures=stage.figures,
            **{**msgspec.structs.asdict(found), "faults": found.faults + stage.faults},
        )


@contextlib.contextmanager
def _set(scenario: Scenario, transport: str, short: bool, folder: Path) -> Iterator[Stage]:
    users = scenario.users if not short else min(scenario.users, 100)
    people = People(scenario.vendors, users, scenario.second)
    with (
        running_servers(
            folder / "redis", scenario.redis, proxied=scenario.proxied, sentinels=scenario.sentinels
        ) as servers,
        redis_py.Redis.from_url(servers.redis.url) as client,
        running_cloud(folder, scenario.vendors) as cloud,
    ):
        config, rates = _settings(scenario, transport, folder, servers.url, cloud)
        register(servers.redis.url, PREFIX, people)
        for vendor in scenario.vendors:
            # A vendor that dates deaths says nothing of tokens that are registered later.
            cloud.rule(vendor, "dead", prefix=DOOMED)
        fleet = Fleet(folder, config)
        if short:
            fleet.seams = {"worker": (f"leases:{SHORT_LEASES_S}",)}
            fleet.env = {"PUSHFLEET_ROUTER__TAKEOVER_S": str(SHORT_LEASES_S)}
        try:
            terms = Terms(excused=scenario.excused, rates=rates)
            yield Stage(folder, short, servers, client, cloud, people, fleet, PACE[transport], terms)
        finally:
            fleet.close()


def _settings(
    scenario: Scenario, transport: str, folder: Path, redis_url: str, cloud: FakeCloud
) -> tuple[Path, dict[str, Rate]]:
    """The settings file, and the limits of accounts by the vendor's name for them."""
    accounts, rates = Accounts(cloud), {}  # type: ignore[arg-type,var-annotated]
    lines = [scenario.settings, f'[redis]\nurl = "{redis_url}"', '[log]\nlevel = "warning"', f"[apps.{APP}]"]
    for vendor in scenario.vendors:
        engine = transport if transport != "aioapns" or vendor == "apns" else "pyreqwest"
        further = {"transport": engine, **scenario.accounts.get(vendor, {})}
        toml, known_as = accounts.make(vendor, "main", **further)
        lines.append(toml)
        limits = {name: further[name] for name in ("rate_per_s", "burst") if name in further}
        rate = rate_of(AccountSettings(app=APP, **limits))  # type: ignore[arg-type]
        if rate is not None:
            rates[known_as] = rate
    config = folder / "pushfleet.toml"
    config.write_text("\n".join(lines))
    return config, rates
