"""Every row of every vendor's table befalls a delivery of the whole fleet: real processes, real Redis, fake vendors.

Each row has an account, users and tokens of its own, so that what it does to them is seen apart from all others. Rows
that speak of the account go on until it has been seen shut and its neighbours have been seen served; then the operator
mends the cause, and what waited goes out. No row is left out.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from tests.integration.every_vendor import Accounts
from tests.integration.provocations import OTHERWISE, provocation
from tests.integration.row_cases import RowCase, message, token
from tests.integration.stage import PREFIX, Stage, eventually

from pushfleet import OfflineMessage, Producer
from pushfleet_workers import registry
from pushfleet_workers.audit import Books
from pushfleet_workers.fakecloud import FakeCloudThread
from pushfleet_workers.ledger import AccountKeys
from pushfleet_workers.outcome import Scope
from pushfleet_workers.redis_link import Link
from pushfleet_workers.retry import RetryPolicy
from pushfleet_workers.supervisor import Child, Supervisor
from pushfleet_workers.tokens.record import Device
from pushfleet_workers.tokens.store import TokenStore

VENDORS = registry.built_in()
NEIGHBOUR = "neighbour"
SETTINGS = """
[log]
level = "warning"
[apps.demo]
recall_window_s = 300
# Waits that are ours are short; those that a vendor asks for are met, or expire (`fates.ttl_s`).
[retry]
first_s = 0.3
longest_s = 1.0
[breaker]
failures = 2
open_first_s = 1.0
open_longest_s = 2.0
"""
SEEN_WITHIN_S = 60.0
RUN_S = 90.0
DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@dataclass
class Play:
    """The stage with a case for each row."""

    stage: Stage
    cases: list[RowCase]
    workers: list[Child] = field(default_factory=list)
    enqueued: int = 0

    def about(self, scope: Scope) -> list[RowCase]:
        """The cases whose row speaks of a device, a class or the account."""
        return [case for case in self.cases if case.outcome.scope is scope]

    def enqueue(self, messages: Sequence[OfflineMessage]) -> None:
        self.stage.producer.enqueue_many(messages)
        self.enqueued += len(messages)

    def recall(self, case: RowCase) -> None:
        for one in case.messages():
            self.stage.producer.recall(one.app, one.id)
            self.enqueued += 1

    def start_workers(self) -> None:
        """Two, which share the vendors."""
        for half in (VENDORS[::2], VENDORS[1::2]):
            words = [word for vendor in half for word in ("--vendor", vendor)]
            self.workers.append(self.stage.start("worker", *words))

    def paused_classes(self) -> dict[str, list[str]]:
        """By account, of rows that speak of classes: those that are paused."""
        cases = self.about(Scope.CLASS)

        async def read() -> list[bytes | None]:
            link = Link(self.stage.redis_url)
            try:
                keys = [AccountKeys(PREFIX, case.vendor, case.credential).gate for case in cases]
                return await link.pipeline([("HGET", key, "classes") for key in keys])
            finally:
                await link.close()

        now_ms = time.time() * 1_000
        until_ms = [json.loads(found or b"{}") for found in asyncio.run(read())]
        return {
            case.account: [name for name, at_ms in classes.items() if at_ms > now_ms]
            for case, classes in zip(cases, until_ms, strict=True)
        }

    def answers(self) -> Counter[tuple[str, str, str]]:
        """What the workers counted: account, verdict and code to deliveries."""
        counted: Counter[tuple[str, str, str]] = Counter()
        for worker in self.workers:
            with DIRECT.open(worker.ready_url.replace("readyz", "metrics"), timeout=30) as answer:
                families = list(text_string_to_metric_families(answer.read().decode()))
            for sample in (sample for family in families for sample in family.samples):
                if sample.name == "pushfleet_vendor_answers_total":
                    labels = sample.labels
                    account = f"{labels['vendor']}:{labels['account']}"
                    counted[account, labels["verdict"], labels["code"]] += int(sample.value)
        return counted

    def devices(self) -> dict[str, Device]:
        """What the token state has, by user."""

        async def read() -> dict[str, Device]:
            link = Link(self.stage.redis_url)
            store = TokenStore(link, PREFIX, lambda: int(time.time() * 1_000))
            try:
                users = [user for case in self.cases for user in case.users]
                return {user: (await store.user("demo", user)).devices["phone"] for user in users}
            finally:
                await link.close()

        return asyncio.run(read())


@contextlib.contextmanager
def playing(folder: Path, redis_url: str) -> Iterator[Play]:
    """A fleet of which only the processes are missing: devices are registered, and the vendors have their script."""
    with FakeCloudThread(vendors=VENDORS, uvloop=True) as cloud:
        accounts = Accounts(cloud)
        cases: list[RowCase] = []
        settings = [SETTINGS, f'[redis]\nurl = "{redis_url}"']
        for vendor in VENDORS:
            settings.append(accounts.make(vendor, NEIGHBOUR)[0])
            for number, row in enumerate(registry.load(vendor).codes):
                further: dict[str, Any] = {"multi_messages": True} if provocation(vendor, row).mixed else {}
                if vendor == "xiaomi":
                    # What may have arrived counts, and a day of a device has fewer places than a delivery attempts.
                    further["device_caps.public"] = 0
                lines, known_as = accounts.make(vendor, f"r{number}", **further)
                settings.append(lines)
                cases.append(RowCase(vendor, row, f"r{number}", known_as))
        config = folder / "pushfleet.toml"
        config.write_text("\n".join(settings))
        named = [*((case.vendor, case.credential) for case in cases), *((vendor, NEIGHBOUR) for vendor in VENDORS)]
        with Supervisor(folder / "logs") as supervisor, Producer(redis_url, prefix=PREFIX) as producer:
            stage = Stage(folder, redis_url, cloud, supervisor, config, producer, named)
            stage.register_channels(dict(channels(cases)))
            for case in cases:
                case.script(cloud)
            yield Play(stage, cases)


def channels(cases: Sequence[RowCase]) -> Iterator[tuple[str, dict[str, str]]]:
    """Each user with the one channel of their device."""
    owners = [(case.vendor, case.credential, user) for case in cases for user in [*case.users, case.other_user]]
    owners += [(vendor, NEIGHBOUR, f"{vendor}-{NEIGHBOUR}") for vendor in VENDORS]
    for vendor, credential, user in owners:
        yield user, {"vendor": vendor, "credential": credential, "token": token(user)}


def let_no_vendor_open_meanwhile() -> None:
    """What is refused until a certain hour of the day would be accepted, if that came in the middle of the run."""
    rows = [row for vendor in VENDORS for row in registry.load(vendor).codes.values()]
    for until in {row.outcome.until for row in rows if row.outcome.until is not None}:
        left_s = (until.next_ms(time.time() * 1_000) - time.time() * 1_000) / 1_000
        if left_s < RUN_S:
            time.sleep(left_s + 1)


def provoke(play: Play) -> None:
    """Send what meets the script."""
    play.stage.start("router")
    # Those that share a request lie there together before anybody claims them.
    together = [case for case in play.cases if case.provocation.mixed]
    play.enqueue([one for case in together for one in case.messages()])
    eventually(lambda: not play.stage.books().lanes["normal"].present, what="they are routed")
    play.start_workers()
    play.enqueue([one for case in play.cases if case not in together for one in case.messages()])
    take_back(play)


def take_back(play: Play) -> None:
    """Recall what is shown, where the row is about recalls."""
    cases = [case for case in play.cases if case.provocation.recalled]

    def shown() -> bool:
        books = play.stage.books()
        return all(books.accounts[case.account].ends == {"normal:sent:": len(case.users)} for case in cases)

    eventually(shown, what="they are shown")
    for case in cases:
        play.recall(case)


def serve_other_classes(play: Play) -> None:
    """While chats are paused in an account, its other messages are sent."""
    cases = play.about(Scope.CLASS)
    eventually(lambda: play.paused_classes() == {case.account: ["chat"] for case in cases}, what="chats are paused")
    play.enqueue([message([case.other_user], kind="mention") for case in cases])

    def served() -> bool:
        books = play.stage.books()
        return all("urgent:sent:" in books.accounts[case.account].ends for case in cases)

    eventually(served, timeout_s=20, what="mentions are sent before the chats are let go")


def see_accounts_shut(play: Play) -> None:
    """Wait until each account of which a row speaks has been seen shut for that reason; no other ever is."""
    unseen = {case.account: case for case in play.about(Scope.ACCOUNT)}
    concerned = frozenset(unseen)
    deadline = time.monotonic() + SEEN_WITHIN_S
    while unseen:
        assert time.monotonic() < deadline, f"never seen shut: {', '.join(map(str, unseen.values()))}"
        for name, book in play.stage.books().accounts.items():
            assert not book.open or name in concerned, f"{name} is shut ({book.pause_reason}), and nobody refused it"
            if name in unseen and book.open and book.pause_reason == unseen[name].provocation.code:
                del unseen[name]
        time.sleep(0.02)


def serve_the_neighbours(play: Play) -> None:
    """While accounts are shut, others of their vendors send."""
    play.enqueue([message([f"{vendor}-{NEIGHBOUR}"]) for vendor in VENDORS])

    def served() -> bool:
        books = play.stage.books()
        return all(books.accounts[f"{vendor}:{NEIGHBOUR}"].ends == {"normal:sent:": 1} for vendor in VENDORS)

    eventually(served, what="the neighbours are served")
    books = play.stage.books()
    for case in play.about(Scope.ACCOUNT):
        book = books.accounts[case.account]
        if case.fates[0].end == "sent:":
            assert book.ready + book.leased + book.delayed, f"{case} does not wait any more"


def let_attempts_run_out(play: Play) -> None:
    """Wait for the end of what may have been taken again and again."""
    cases = [case for case in play.cases if case.outcome.unknown]

    def over() -> bool:
        books = play.stage.books()
        return all(books.accounts[case.account].ends == {"normal:dead:attempts": 1} for case in cases)

    assert cases
    eventually(over, timeout_s=SEEN_WITHIN_S, what="attempts have run out")


def wrong_ends(play: Play, books: Books) -> Iterator[str]:
    """Where a delivery did not end as its row says."""
    for case in play.cases:
        ends: Counter[str] = Counter()
        for name, count in books.accounts[case.account].ends.items():
            ends[name.partition(":")[2]] += count
        expected = case.ends
        if case.outcome.scope is Scope.CLASS:
            expected["sent:"] += 1
        if ends != expected:
            yield f"{case}: {dict(ends)} instead of {dict(expected)}"


def wrong_counts(play: Play, books: Books) -> Iterator[str]:
    """Where more or less is counted as an unknown outcome than what may have been taken."""
    for case in play.cases:
        unknown = books.accounts[case.account].unknown
        if unknown != (RetryPolicy().attempts_max if case.outcome.unknown else 0):
            yield f"{case}: {unknown} unknown outcomes"


def wrong_answers(play: Play) -> Iterator[str]:
    """Where no worker ever read the row: then something else brought the end about."""
    answers = play.answers()
    for case in play.cases:
        verdict, code = case.outcome.verdict.value, case.provocation.code
        if not answers[case.account, verdict, code]:
            read = [key[1:] for key in answers if key[0] == case.account]
            yield f"{case}: {read} was read, {(verdict, code)} was not"


def wrong_tokens(play: Play) -> Iterator[str]:
    """Where the token state is not what the row says."""
    devices = play.devices()
    for case in play.cases:
        for user, fate in zip(case.users, case.fates, strict=True):
            state = state_of(devices[user])
            if state != fate.token:
                yield f"{case}: the token of {user} is {state}, not {fate.token}"


def state_of(device: Device) -> str:
    """As :attr:`Fate.token`."""
    if not device.permitted:
        return "muted"
    if not device.channels:
        return "gone"
    return "quarantined" if device.channels[0].quarantined_until_ms > time.time() * 1_000 else "kept"


def wrong_receptions(play: Play) -> Iterator[str]:
    """Where the vendor's book says something else than ours: a push is taken once, or never."""
    taken = Counter(push.token for push in play.stage.cloud.received())
    for case in play.cases:
        for number, user in enumerate(case.users):
            expected = case.receptions(number)
            if taken[token(user)] != expected:
                yield f"{case}: {user} was taken {taken[token(user)]} times, not {expected}"


@pytest.mark.timeout(300)
def test_every_row_of_every_vendor_has_its_end(tmp_path: Path, redis_url: str) -> None:
    let_no_vendor_open_meanwhile()
    with playing(tmp_path, redis_url) as play:
        provoke(play)
        serve_other_classes(play)
        see_accounts_shut(play)
        serve_the_neighbours(play)
        let_attempts_run_out(play)
        play.stage.cloud.clear_rules()
        books = play.stage.wait_until_idle(SEEN_WITHIN_S)
        assert books.balanced
        assert sum(lane.routed for lane in books.lanes.values()) == play.enqueued
        wrong = [
            *wrong_ends(play, books),
            *wrong_counts(play, books),
            *wrong_answers(play),
            *wrong_tokens(play),
            *wrong_receptions(play),
        ]
        assert not wrong, "\n".join(wrong)


def test_what_is_said_of_rows_is_said_of_rows_that_there_are() -> None:
    assert set(OTHERWISE) <= set(VENDORS)
    for vendor, told in OTHERWISE.items():
        named = {row for one in told.values() for row in one.rows} | set(told)
        assert named <= set(registry.load(vendor).codes), vendor
