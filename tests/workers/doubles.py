"""A vendor and its network in memory, and a bench that puts a courier and a drain on a real Redis around them."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from pushfleet_workers.account import AccountSettings
from pushfleet_workers.audit import AccountBook, read_books
from pushfleet_workers.clock import FleetClock
from pushfleet_workers.courier import Courier
from pushfleet_workers.credentials import Authorization
from pushfleet_workers.drain import Drain
from pushfleet_workers.ledger import AccountKeys, Entry, Ledger, VendorKeys
from pushfleet_workers.ledger.ledger import Breaker, Rate
from pushfleet_workers.next_channel import Moving
from pushfleet_workers.outcome import OK, Outcome, Row, Scope, Verdict
from pushfleet_workers.peace.caps import AccountCaps
from pushfleet_workers.peace.device_day import DeviceDays
from pushfleet_workers.push import Delivery, Push
from pushfleet_workers.recheck import Rechecked
from pushfleet_workers.redis_link import Link
from pushfleet_workers.retry import RetryPolicy
from pushfleet_workers.still_wanted import Recheck
from pushfleet_workers.unshown import Forget
from pushfleet_workers.vendor import AuthAnswer, Request, Response, VendorDefaults
from pushfleet_workers.wake import Bell

Answer = Outcome | Exception
Script = Callable[[str, str], Answer]
"""Token and authorization to what comes back."""

QUICK = RetryPolicy(attempts_max=4, first_s=0.001, longest_s=0.004)


class Cloud(VendorDefaults):
    """One push cloud: a vendor module and its transport in one, answering as told."""

    name: ClassVar[str] = "apns"
    account_type: ClassVar[type[AccountSettings]] = AccountSettings
    payload_limit: ClassVar[int] = 4_096
    http2: ClassVar[bool] = False
    exact_badge: ClassVar[bool] = False
    codes: ClassVar[Mapping[str, Row]] = {
        "no_right": Row("any", Outcome(Verdict.MISCONFIGURED, Scope.CLASS), "The right is missing: ask for it.")
    }

    def __init__(self, batch_size: int = 1) -> None:
        self.batch_size = batch_size
        self.answers: dict[str, list[Answer]] = {}
        self.script: Script | None = None
        self.requests: list[list[str]] = []
        self.bodies: list[str] = []
        """What each token of every request was to show."""

        self.sent_at: list[float] = []
        self.auths: list[str] = []
        self.auth_answers: list[AuthAnswer | Exception] = []
        self.auth_calls = 0
        self.under_way = 0
        self.most_under_way = 0
        self.renewed = 0
        self.held_back = 0
        self.held = asyncio.Event()
        self.held.set()
        self.mixing = False
        self.mixed: list[int] = []
        """How many pushes each mixed request carried."""

        self.moves: set[str] = set()
        """Tokens of devices that have another channel; it takes all that it is given."""

        self.moved: list[str] = []
        self.build_fails: set[str] = set()
        self.read_fails: set[str] = set()
        self._outcomes: list[list[Outcome]] = []

    @property
    def tokens(self) -> list[str]:
        """Every token of every request, in the order in which they left."""
        return [token for tokens in self.requests for token in tokens]

    def answer(self, token: str, *answers: Answer) -> None:
        """What the next requests with *token* get; the last answer stays."""
        self.answers[token] = list(answers)

    # ---- the vendor module

    def build(self, account: Any, push: Push, deliveries: Sequence[Delivery], auth: str, now_ms: int) -> Request:
        tokens = [one.token for one in deliveries]
        if self.build_fails.intersection(tokens):
            raise KeyError(f"secret text of {tokens}")
        self.bodies += [push.body] * len(tokens)
        return Request("https://cloud.test", {"authorization": auth}, json.dumps(tokens).encode())

    def mixes(self, account: Any) -> bool:
        return self.mixing

    def build_mixed(self, account: Any, letters: Sequence[tuple[Push, Delivery]], auth: str, now_ms: int) -> Request:
        self.mixed.append(len({push.message_id for push, _ in letters}))
        return self.build(account, letters[0][0], [delivery for _, delivery in letters], auth, now_ms)

    def read(self, deliveries: Sequence[Delivery], response: Response) -> list[Outcome]:
        outcomes = self._outcomes[int(response.body)]
        if self.read_fails.intersection(one.token for one in deliveries):
            return outcomes[1:]
        return outcomes

    def mint(self, account: Any, now_s: float) -> AuthAnswer | None:
        self.auth_calls += 1
        answer = self.auth_answers.pop(0) if self.auth_answers else AuthAnswer(f"auth-{self.auth_calls}", 3_600)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def auth_request(self, account: Any, now_s: float) -> Request:
        raise NotImplementedError

    def read_auth(self, response: Response) -> AuthAnswer:
        raise NotImplementedError

    def check(self, account: Any, now_s: float) -> list[str]:
        return []

    # ---- its transport

    async def send(self, request: Request) -> Response:
        tokens = json.loads(request.body)
        auth = request.headers["authorization"]
        self.requests.append(tokens)
        self.sent_at.append(time.monotonic())
        self.auths.append(auth)
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            await self.held.wait()
            await asyncio.sleep(0)
            answers = [self._answer(token, auth) for token in tokens]
        finally:
            self.under_way -= 1
        for answer in answers:
            if isinstance(answer, Exception):
                raise answer
        self._outcomes.append([answer for answer in answers if isinstance(answer, Outcome)])
        return Response(200, {}, b"%d" % (len(self._outcomes) - 1))

    def _answer(self, token: str, auth: str) -> Answer:
        if self.script is not None:
            return self.script(token, auth)
        told = self.answers.get(token, [OK])
        return told.pop(0) if len(told) > 1 else told[0]

    def hold_back(self) -> None:
        self.held_back += 1

    async def renew(self) -> None:
        self.renewed += 1

    async def close(self) -> None:
        pass


class OtherChannels:
    """What :class:`NextChannel` knows, for devices whose tokens *cloud* names."""

    def __init__(self, cloud: Cloud, other_accounts: bool) -> None:
        self._cloud = cloud
        self.other_accounts = other_accounts
        self.asked: list[bool] = []
        """Whether another channel of the same account would do, by call."""

        self.forgotten: list[str] = []

    async def move(self, moving: Sequence[Moving], *, same_account: bool) -> set[bytes]:
        self.asked.append(same_account)
        going = [one for _, _, some in moving for one in some if one.token in self._cloud.moves and not one.unknown]
        self._cloud.moved += [one.token for one in going]
        return {one.id for one in going}

    async def forget(self, elsewhere: Sequence[tuple[Push, Delivery]]) -> None:
        self.forgotten += [one.token for _, one in elsewhere]

    async def went(self, moving: Sequence[Moving]) -> set[bytes]:
        return {one.id for _, _, some in moving for one in some if one.token in self._cloud.moved}


@dataclass
class Bench:
    """A courier and the drain around it."""

    link: Link
    keys: AccountKeys
    cloud: Cloud
    courier: Courier
    drain: Drain
    bell: Bell
    vendor_keys: VendorKeys
    triggers: list[str] = field(default_factory=list)
    feedback: list[tuple[str, str, Outcome]] = field(default_factory=list)
    forgotten: list[str] = field(default_factory=list)
    """Tokens of what was dropped."""

    mover: Any = None
    refused: dict[bytes, str] = field(default_factory=dict)
    rendered: dict[bytes, Push] = field(default_factory=dict)
    rechecked: list[bytes] = field(default_factory=list)

    async def book(self) -> AccountBook:
        """The account's book, recounted; it balances or the test fails here."""
        books = await read_books(self.link, "t", [("apns", "main")])
        book = books.accounts["apns:main"]
        assert book.balanced, book
        return book

    async def ends(self) -> dict[str, int]:
        """How deliveries ended so far, without the lane."""
        ends: dict[str, int] = {}
        for name, count in (await self.book()).ends.items():
            short = name.partition(":")[2].rstrip(":")
            ends[short] = ends.get(short, 0) + count
        return ends

    async def finish(self, timeout_s: float = 8.0) -> dict[str, int]:
        """Claim until nothing is left; returns the ends."""

        async def all_ended() -> bool:
            if self.courier.has_room:
                claim = await self.courier.claim()
                if claim.entries:
                    return False
            book = await self.book()
            return not self.courier.busy and not book.ready + book.leased + book.delayed

        await until(all_ended, timeout_s)
        return await self.ends()

    async def settled(self) -> None:
        """Wait until nothing is in hand."""

        async def idle() -> bool:
            return not self.courier.busy

        await until(idle)


async def neighbour(bench: Bench, rate: Rate | None = None) -> tuple[Courier, Cloud, AccountKeys]:
    """Another account of the bench's vendor, in the same drain."""
    cloud, clock, keys = Cloud(), FleetClock(), AccountKeys("t", "apns", "second")
    account = AccountSettings(app="demo")

    async def feedback(app: str, deliveries: Sequence[Delivery], outcomes: Sequence[Outcome]) -> None:
        pass

    async def recheck(entries: Sequence[Entry]) -> Rechecked:
        return Rechecked()

    async def forget(dropped: Sequence[tuple[Entry, Sequence[Delivery]]]) -> None:
        pass

    courier = Courier(
        vendor=cloud,
        credential="second",
        account=account,
        ledger=Ledger(bench.link, keys, "w1", rate=rate),
        transport=cloud,
        authorization=Authorization(cloud, account, bench.link, keys.root, clock, cloud.send),
        clock=clock,
        policy=QUICK,
        feedback=feedback,
        recheck=recheck,
        on_change=bench.drain.changed,
        mover=OtherChannels(cloud, False),
        days=DeviceDays(bench.link, "t", "apns", "second", AccountCaps("apns", account)),
        forget=forget,
        settle_s=0.002,
        recheck_s=1_000,
    )
    bench.drain.couriers.append(courier)
    return courier, cloud, keys


async def until(condition: Callable[[], Awaitable[bool]] | Callable[[], bool], timeout_s: float = 8.0) -> None:
    """Wait for *condition*; fail when it does not come true in time."""
    deadline = time.monotonic() + timeout_s
    while True:
        holds = condition()
        if not isinstance(holds, bool):
            holds = await holds
        if holds:
            return
        assert time.monotonic() < deadline, "the condition did not come true in time"
        await asyncio.sleep(0.004)


@asynccontextmanager
async def a_bench(
    url: str,
    *,
    cloud: Cloud | None = None,
    owner: str = "w1",
    policy: RetryPolicy = QUICK,
    rate: Rate | None = None,
    breaker: Breaker | None = None,
    in_flight_max: int = 200,
    settle_s: float = 0.002,
    linger_s: float = 0.05,
    recheck_s: float = 1_000.0,
    timeout_s: float = 10.0,
    mover: Any = None,
    elsewhere: bool = False,
    recheck: Recheck | None = None,
    forget: Forget | None = None,
    device_caps: Mapping[str, int] | None = None,
) -> AsyncIterator[Bench]:
    cloud = cloud or Cloud()
    link, waiting_link = Link(url, timeout_s=timeout_s), Link(url)
    keys, vendor_keys = AccountKeys("t", "apns", "main"), VendorKeys("t", "apns")
    clock = FleetClock()
    account = AccountSettings(app="demo", in_flight_max=in_flight_max, device_caps=dict(device_caps or {}))
    bell = Bell(link, waiting_link, vendor_keys, owner)
    couriers: list[Courier] = []
    triggers: list[str] = []
    drain = Drain("apns", couriers, bell, triggers.append, linger_s=linger_s, drains_max=2)
    bench: Bench

    async def feedback(app: str, deliveries: Sequence[Delivery], outcomes: Sequence[Outcome]) -> None:
        bench.feedback += [
            (app, delivery.token, outcome)
            for delivery, outcome in zip(deliveries, outcomes, strict=True)
            if outcome.verdict in (Verdict.DROP_TOKEN, Verdict.MUTE_DEVICE)
        ]

    async def recheck_as_told(entries: Sequence[Entry]) -> Rechecked:
        bench.rechecked += [entry.id for entry in entries]
        return Rechecked(bench.refused, bench.rendered)

    async def forget_as_told(dropped: Sequence[tuple[Entry, Sequence[Delivery]]]) -> None:
        bench.forgotten += [one.token for _, deliveries in dropped for one in deliveries]

    mover = mover or OtherChannels(cloud, elsewhere)
    courier = Courier(
        vendor=cloud,
        credential="main",
        account=account,
        ledger=Ledger(link, keys, owner, rate=rate, breaker=breaker or Breaker(3, 40, 200)),
        transport=cloud,
        authorization=Authorization(cloud, account, link, keys.root, clock, cloud.send),
        clock=clock,
        policy=policy,
        feedback=feedback,
        recheck=recheck or recheck_as_told,
        on_change=drain.changed,
        mover=mover,
        days=DeviceDays(link, "t", "apns", "main", AccountCaps("apns", account)),
        forget=forget or forget_as_told,
        settle_s=settle_s,
        recheck_s=recheck_s,
        rng=random.Random(1),
    )
    couriers.append(courier)
    bench = Bench(link, keys, cloud, courier, drain, bell, vendor_keys, triggers, mover=mover)
    try:
        yield bench
    finally:
        drain.stop()
        cloud.held.set()
        await courier.stop(1.0)
        await until(lambda: not drain.running)
        await link.close()
        await waiting_link.close()


def with_code(outcome: Outcome, code: str) -> Outcome:
    return replace(outcome, code=code)
