"""Whatever backends, apps and users do in whatever order: the fleet decides and counts as the plain model does."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable
from contextlib import AsyncExitStack
from typing import Any, TypeVar

import hypothesis.strategies as st
import redis
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from tests.workers import routing
from tests.workers.plain_model import LEASE_MS, Model, Planned, Token
from tests.workers.routing import PREFIX, staged

from pushfleet import Conversation, OfflineMessage, Recipient, Sender
from pushfleet.message import LANES
from pushfleet_workers.clock import FleetClock
from pushfleet_workers.ledger import Entry
from pushfleet_workers.push import Delivery, Push
from pushfleet_workers.recheck import Rechecker
from pushfleet_workers.tokens.changes import STATES, ChannelGiven, Registration, Report
from pushfleet_workers.tokens.preference_store import PreferenceStore
from pushfleet_workers.tokens.preferences import DAY_S, Preferences, Window
from pushfleet_workers.tokens.reads import ReadStore
from pushfleet_workers.tokens.store import TokenStore

T = TypeVar("T")

APPS = {"demo": {"name": "Demo", "recall_window_s": 120, "reads": True}, "lite": {}}
USERS = ("ann", "bob")
DEVICES = ("phone", "pad")
CONVERSATIONS = ("c1", "g1")
TOKENS = (
    Token("apns", "main", "a1"),
    Token("apns", "main", "a2"),
    Token("fcm", "main", "f1"),
    Token("huawei", "main", "h1"),
    Token("apns", "main", "v1", "voip"),
    Token("apns", "gone", "g1"),
)
A1, A2, F1, H1, V1, G1 = TOKENS
FIRST = {("ann", "phone"): [A1, V1], ("ann", "pad"): [F1], ("bob", "phone"): [H1], ("bob", "pad"): [G1, A2]}
NAMES: dict[str, Any] = {short: name for name, short in STATES.items()} | {"": ""}

users = st.sampled_from(USERS)
devices = st.sampled_from(DEVICES)
conversations = st.sampled_from(CONVERSATIONS)
states = st.sampled_from(["foreground", *["background", "killed"] * 4, "logged_out"])
seldom = st.sampled_from([False] * 9 + [True])
unreads = st.none() | st.integers(0, 9)
# Of lately, so that leases hold, or of long ago, so that they are over; never in between. Few, so that some meet.
ago = st.integers(1, 7).map(lambda s: s * 1_000) | st.integers(1, 5).map(lambda s: LEASE_MS * 3 + s * 1_000)
recipients = st.builds(
    Recipient,
    id=users,
    unread=st.none() | st.none() | st.integers(0, 99),
    mention=st.sampled_from([False, False, True]),
    push=st.sampled_from(["auto", "auto", "auto", "force", "never"]),
)
preferences = st.builds(
    Preferences,
    push=seldom.map(lambda yes: not yes),
    hide_text=st.booleans(),
    # The hours of a day, and what a clock that changes does to them, have tests of their own.
    quiet_daily=st.sampled_from([(), (), (), (Window(0, DAY_S),)]),
    calls_pass=st.booleans(),
    mentions_pass=st.booleans(),
)


class TokenStateMachine(RuleBasedStateMachine):
    """The real functions on a real Redis beside the model; each rule does the same to both."""

    def __init__(self, url: str) -> None:
        super().__init__()
        with redis.Redis.from_url(url) as client:
            client.flushall()
        self.runner = asyncio.Runner()
        self.stack = AsyncExitStack()
        self.stage = self.wait(self.stack.enter_async_context(staged(routing.settings(url, apps=APPS))))
        link = self.stage.queue
        self.began = int(time.time() * 1000)
        self.store = TokenStore(link, PREFIX, lambda: self.began, lease_s=LEASE_MS // 1000)
        self.reads = ReadStore(link, PREFIX, lambda: self.began)
        self.preferences = PreferenceStore(link, PREFIX)
        self.model = Model()
        self.known: set[tuple[str, bytes]] = set()
        self.waiting: list[tuple[str, Entry, list[Planned]]] = []
        self.written: dict[str, OfflineMessage] = {}

    def wait(self, work: Awaitable[T]) -> T:
        async def run() -> T:
            return await work

        return self.runner.run(run())

    def teardown(self) -> None:
        """Whatever still waits is claimed in the end."""
        try:
            while self.waiting:
                self.claim([0], "")
        finally:
            self.wait(self.stack.aclose())
            self.runner.close()

    # ---- devices and users

    @initialize(ago=ago, state=st.none() | states)
    def begin(self, ago: int, state: Any) -> None:
        """Everybody has two devices."""
        for (user, device), tokens in FIRST.items():
            self.register(user, device, tokens, ago, state, None, permitted=True)

    @rule(
        user=users,
        device=devices,
        tokens=st.lists(st.sampled_from(TOKENS), min_size=1, max_size=3, unique=True),
        ago=ago,
        state=st.none() | states,
        unread=unreads,
        permitted=seldom.map(lambda yes: not yes),
    )
    def register(
        self,
        user: str,
        device: str,
        tokens: list[Token],
        ago: int,
        state: Any,
        unread: int | None,
        *,
        permitted: bool,
    ) -> None:
        at = self.began - ago
        unread = unread if state is not None else None
        channels = tuple(
            ChannelGiven(vendor=one.vendor, credential=one.credential, token=one.token, kind=one.kind)  # type: ignore[arg-type]
            for one in tokens
        )
        given = Registration(channels=channels, notifications=permitted, state=state, unread=unread, at_ms=at)
        done = self.wait(self.store.register("demo", user, device, given))
        assert done.applied == self.model.register(
            user, device, tokens, at, state=state, unread=unread, permitted=permitted
        )

    @rule(
        reports=st.lists(st.tuples(users, devices, states, unreads, ago), min_size=1, max_size=4),
    )
    def report(self, reports: list[tuple[str, str, Any, int | None, int]]) -> None:
        given = [
            Report(user=user, device=device, state=state, unread=unread, at_ms=self.began - ago)
            for user, device, state, unread, ago in reports
        ]
        done = self.wait(self.store.report("demo", given))
        fates: Counter[str] = Counter()
        for one in given:
            device = self.model.user(one.user).devices.get(one.device)
            if device is None:
                fates["unknown"] += 1
            else:
                fates["applied" if device.report(one.state, one.at_ms, one.unread) else "outdated"] += 1
        assert (done.applied, done.outdated, done.unknown) == tuple(
            fates[name] for name in ("applied", "outdated", "unknown")
        )

    @rule(
        user=users,
        device=devices,
        ago=ago,
        how=st.sampled_from(["log in", "log in", "remove", "forget"]),
        really=seldom,
    )
    def leave(self, user: str, device: str, ago: int, how: str, *, really: bool) -> None:
        """Devices go: logged out by another login, removed, or with all that is known of their user."""
        at = self.began - ago
        if how == "log in" and really:
            out = self.wait(self.store.login("demo", user, device, at, ""))
            assert sorted(out) == sorted(self.model.log_in(user, device, at))
        elif how == "remove" and really:
            assert self.wait(self.store.remove("demo", user, device)) == self.model.remove(user, device)
        elif really:
            self.wait(self.store.forget_user("demo", user))
            self.model.forget(user)

    @rule(
        user=users,
        conversation=conversations,
        receive=st.sampled_from(["all", "all", "mentions", "none"]),
        lasts_ms=st.sampled_from([None, None, 3_600_000, -1_000]),
    )
    def mute(self, user: str, conversation: str, receive: str, lasts_ms: int | None) -> None:
        until = 0 if lasts_ms is None else self.began + lasts_ms
        self.wait(self.store.set_receive_option("demo", user, conversation, receive, until))
        self.model.user(user).options[conversation] = (receive, until)

    @rule(user=users, wanted=preferences, quiet_ms=st.sampled_from([None, None, None, 3_600_000, -1_000]))
    def prefer(self, user: str, wanted: Preferences, quiet_ms: int | None) -> None:
        until = 0 if quiet_ms is None else self.began + quiet_ms
        wanted = Preferences(
            push=wanted.push,
            hide_text=wanted.hide_text,
            quiet_until_ms=until,
            quiet_daily=wanted.quiet_daily,
            calls_pass=wanted.calls_pass,
            mentions_pass=wanted.mentions_pass,
        )
        self.wait(self.preferences.change("demo", user, lambda _: wanted))
        self.model.user(user).preferences = wanted

    @rule(user=users, conversation=conversations, up_to=ago, unread=unreads, ago=ago)
    def read(self, user: str, conversation: str, up_to: int, unread: int | None, ago: int) -> None:
        given = (user, conversation, self.began - up_to)
        at = self.began - ago
        news = self.wait(self.reads.mark("demo", *given, unread=unread, at_ms=at))
        assert news == self.model.read(*given, unread, at)

    # ---- messages

    @rule(
        given=st.lists(
            st.tuples(
                st.lists(recipients, min_size=1, max_size=3),
                conversations,
                st.sampled_from(["chat", "chat", "chat", "mention", "call", "system"]),
                st.none() | st.none() | ago,
                st.sampled_from([""] * 9 + ["short", "online only", "again"]),
            ),
            min_size=1,
            max_size=4,
        ),
        dies=seldom,
    )
    def send(self, given: list[tuple[list[Recipient], str, Any, int | None, str]], *, dies: bool) -> None:
        """Messages go to their recipients, and some once again; now and then their router dies on the way."""
        messages = [
            self.message(len(self.model.messages) + number - (how == "again"), to, conversation, kind, sent, how)
            for number, (to, conversation, kind, sent, how) in enumerate(given)
        ]
        self.wait(self.route_at_second_try(messages) if dies else self.stage.route(*messages))
        # Whatever is urgent goes first.
        messages.sort(key=lambda message: LANES.index(message.effective_lane))
        self.meet([one for message in messages for one in self.model.send(message, self.now())])

    async def route_at_second_try(self, messages: list[OfflineMessage]) -> None:
        """The router dies when all is put and nothing is acknowledged, and another one takes over."""
        self.stage.enqueue(*messages)
        for lane, stream in self.stage.streams.items():
            if raws := await self.stage.read(lane):
                await self.stage.put_and_die(*raws, lane=lane)
                await self.stage.router.route(stream, await self.stage.read_again(lane))

    def message(
        self, number: int, to: list[Recipient], conversation: str, kind: Any, sent: int | None, how: str
    ) -> OfflineMessage:
        sent = None if kind == "call" else sent
        identity = f"m{number}"
        if identity not in self.written:
            self.written[identity] = OfflineMessage(
                id=identity,
                app="demo",
                kind=kind,
                sender=Sender(id="cy", name="Cy"),
                conversation=Conversation(id=conversation, kind="group" if conversation == "g1" else "single"),
                recipients=tuple(to),
                body="Lunch?",
                sent_at_ms=0 if sent is None else self.began - sent,
                ttl_s=1 if how == "short" and sent is not None else None,
                online_only=how == "online only",
            )
        return self.written[identity]

    @rule(
        back=st.sampled_from([0, 0, 0, 1, 2, -1]),
        named=st.just([]) | st.lists(users, max_size=2),
        conversation=st.sampled_from(["", "c1"]),
    )
    def recall(self, back: int, named: list[str], conversation: str) -> None:
        """One of the latest messages is taken back, or one before it comes."""
        identity = f"m{len(self.model.messages) - 1 - back}"
        self.wait(self.stage.recall(identity, *named, conversation=conversation))
        self.meet(self.model.recall(identity, conversation, named, self.now()))

    @precondition(lambda self: self.waiting)
    @rule(
        which=st.lists(st.integers(0, 99), min_size=1, max_size=8),
        happens=st.sampled_from(["", "", "", "read", "mute", "quiet", "read, and quiet", "look", "renew"]),
    )
    def claim(self, which: list[int], happens: str) -> None:
        """Workers decide again on what waited, and end it; something happens just before."""
        for number in which[: len(self.waiting)]:
            vendor, entry, planned = self.waiting.pop(number % len(self.waiting))
            self.happen(happens, entry, planned[0])
            happens = ""
            checker = Rechecker(self.stage.queue, PREFIX, FleetClock(), vendor, "main", recall_window_s=120, reads=True)
            done = self.wait(checker.recheck([entry]))
            push = entry.parcel.push
            for delivery, one in zip(entry.parcel.deliveries, planned, strict=True):
                told: str | Planned = done.refused.get(delivery.id, "")
                if not told:
                    told = _told(vendor, done.rendered.get(delivery.id, push), delivery)
                assert told == self.model.recheck(one, push.sent_at_ms, push.replace_key, self.now()), one

    def happen(self, what: str, entry: Entry, one: Planned) -> None:
        push = entry.parcel.push
        if what.startswith("read"):
            self.read(one.user, push.conversation_id, self.began - push.sent_at_ms, None, 1_000)
        elif what == "mute":
            self.mute(one.user, push.conversation_id, "mentions", None)
        if what.endswith("quiet"):
            self.prefer(one.user, Preferences(), 3_600_000)
        elif what == "look":
            self.report([(one.user, one.device, "foreground", None, 1_000)])
        elif what == "renew":
            self.register(one.user, one.device, [A2, F1, V1], 1_000, None, None, permitted=True)

    # ---- what must hold

    @invariant()
    def the_token_state_is_the_models(self) -> None:
        for name in USERS:
            stored, user = self.wait(self.store.user("demo", name)), self.model.user(name)
            assert stored.devices.keys() == user.devices.keys()
            for device_name, device in stored.devices.items():
                wanted = user.devices[device_name]
                assert [
                    (Token(one.vendor, one.credential, one.token, one.kind), one.registered_at_ms)
                    for one in device.channels
                ] == list(wanted.channels.items())
                assert (NAMES[device.state], device.state_at_ms) == (wanted.state, wanted.state_at)
                assert (device.unread, device.logged_out) == (wanted.unread, wanted.logged_out)
                assert device.permitted == wanted.permitted
            options = {
                conversation: option for conversation, option in stored.options.items() if conversation and option
            }
            assert options == {
                conversation: option for conversation, option in user.options.items() if option[0] != "all"
            }
        for token in TOKENS:
            holders = [
                (name, device_name)
                for name in USERS
                for device_name, device in self.model.user(name).devices.items()
                if token in device.channels
            ]
            assert len(holders) <= 1, "a token is on one device"

    # ---- helpers

    def now(self) -> int:
        return int(time.time() * 1000)

    def meet(self, planned: list[Planned]) -> None:
        """What was just put is what the model planned."""
        wanted = {(one.message, one.user, one.device): one for one in planned}
        assert len(wanted) == len(planned)
        for vendor, entry in self.wait(self.put()):
            found = []
            for delivery in entry.parcel.deliveries:
                one = wanted.pop((entry.parcel.push.message_id, delivery.user, delivery.device))
                assert _told(vendor, entry.parcel.push, delivery) == one
                found.append(one)
            self.waiting.append((vendor, entry, found))
        assert list(wanted.values()) == []
        assert self.wait(self.stage.suppressed()) == dict(+self.model.suppressed)
        assert self.wait(self.stage.joined())

    async def put(self) -> list[tuple[str, Entry]]:
        """The entries that were not there before."""
        fresh = []
        for vendor in ("apns", "fcm", "huawei"):
            for entry in await self.stage.entries(vendor):
                if (vendor, entry.id) not in self.known:
                    self.known.add((vendor, entry.id))
                    fresh.append((vendor, entry))
        return fresh


def _told(vendor: str, push: Push, delivery: Delivery) -> Planned:
    return Planned(
        push.message_id,
        push.recall,
        delivery.user,
        delivery.device,
        Token(vendor, "main", delivery.token, delivery.token_kind),
        delivery.badge,
        delivery.mention,
        delivery.forced,
        push.hidden,
    )


def test_the_fleet_decides_as_the_model_does_whatever_happens(redis_url: str) -> None:
    run_state_machine_as_test(
        lambda: TokenStateMachine(redis_url),
        settings=settings(
            max_examples=80,
            stateful_step_count=60,
            deadline=None,
            # Shrinking against a real server takes minutes; the steps that failed are printed as they are.
            phases=(Phase.reuse, Phase.generate),
            suppress_health_check=list(HealthCheck),
        ),
    )
