"""Whatever backends, apps and users do in whatever order: the fleet decides and counts as the plain model does."""

from __future__ import annotations

import asyncio
import re
import time
from collections import Counter
from collections.abc import Awaitable
from contextlib import AsyncExitStack
from typing import Any, TypeVar

import hypothesis.strategies as st
import msgspec
import redis
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)
from tests.workers import routing
from tests.workers.plain.fleet import HOLD_AT_DESK_S, HOLD_BULK_S, Fleet, Planned
from tests.workers.plain.registry import LEASE_MS, Token
from tests.workers.plain.storms import QUIET_S, WAITS_S
from tests.workers.routing import PREFIX, staged

from pushfleet import Conversation, OfflineMessage, Recipient, Sender
from pushfleet.message import LANES, Lane
from pushfleet.wire import decode_message
from pushfleet_workers.clock import FleetClock
from pushfleet_workers.ledger import AccountKeys, Entry, unpack
from pushfleet_workers.push import Delivery, Push
from pushfleet_workers.recheck import Rechecker
from pushfleet_workers.tokens.changes import STATES, ChannelGiven, Registration, Report
from pushfleet_workers.tokens.keys import UserKeys
from pushfleet_workers.tokens.preference_store import PreferenceStore
from pushfleet_workers.tokens.preferences import DAY_S, Preferences, Window
from pushfleet_workers.tokens.reads import ReadStore
from pushfleet_workers.tokens.store import StoredUser, TokenStore

T = TypeVar("T")

APPS: dict[str, Any] = {
    "demo": {
        "name": "Demo",
        "recall_window_s": 120,
        "reads": True,
        "hold_bulk_s": HOLD_BULK_S,
        "desktop": "hold",
        "desktop_hold_s": HOLD_AT_DESK_S,
        "storm_waits_s": WAITS_S,
        "storm_quiet_s": QUIET_S,
    },
    "lite": {},
}
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
VENDORS = ("apns", "fcm", "huawei")
NAMES: dict[str, Any] = {short: name for name, short in STATES.items()} | {"": ""}

users = st.sampled_from(USERS)
devices = st.sampled_from(DEVICES)
conversations = st.sampled_from(CONVERSATIONS)
states = st.sampled_from(["foreground", *["background", "killed"] * 4, "logged_out"])
seldom = st.sampled_from([False] * 9 + [True])
unreads = st.none() | st.integers(0, 9)
# Never near the end of a wait, whatever few seconds a test has taken so far.
passing_s = st.sampled_from([100, 100, 400, 2_000])
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
        self.model = Fleet()
        self.known: set[tuple[str, bytes]] = set()
        """Entries for later that were there before."""

        self.seen: Counter[str] = Counter()
        """How many others, by lane of each account."""

        self.waiting: list[tuple[str, Entry, list[Planned]]] = []
        self.written: dict[str, OfflineMessage] = {}

    def wait(self, work: Awaitable[T]) -> T:
        async def run() -> T:
            return await work

        return self.runner.run(run())

    def teardown(self) -> None:
        """Whatever still waits is claimed in the end."""
        try:
            self.time_passes(100_000)
            while self.waiting:
                self.claim([0] * 8, "")
            assert self.wait(self.stage.joined())
        finally:
            self.wait(self.stack.aclose())
            self.runner.close()

    # ---- devices and users

    @initialize(ago=ago, state=st.none() | states)
    def begin(self, ago: int, state: Any) -> None:
        """Everybody has two devices."""
        for (user, device), tokens in FIRST.items():
            self.register(user, device, tokens, ago, state, None, permitted=True, desktop=device == "pad")

    @rule(
        user=users,
        device=devices,
        tokens=st.lists(st.sampled_from(TOKENS), min_size=1, max_size=3, unique=True),
        ago=ago,
        state=st.none() | states,
        unread=unreads,
        permitted=seldom.map(lambda yes: not yes),
        desktop=seldom,
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
        desktop: bool,
    ) -> None:
        at = self.began - ago
        unread = unread if state is not None else None
        channels = tuple(
            ChannelGiven(vendor=one.vendor, credential=one.credential, token=one.token, kind=one.kind)  # type: ignore[arg-type]
            for one in tokens
        )
        platform = "mac" if desktop else ""
        given = Registration(
            channels=channels, notifications=permitted, platform=platform, state=state, unread=unread, at_ms=at
        )
        done = self.wait(self.store.register("demo", user, device, given))
        assert done.applied == self.model.register(
            user, device, tokens, at, state=state, unread=unread, permitted=permitted, platform=platform
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
                st.sampled_from(["chat"] * 6 + ["mention", "call", "call", "call_cancel", "system"]),
                st.none() | st.none() | ago,
                st.sampled_from([""] * 9 + ["short", "online only", "again", "brief", *["bulk", "named"] * 2]),
            ),
            min_size=1,
            max_size=4,
        ),
        dies=st.sampled_from([""] * 9 + ["once", "and the backend repeats itself"]),
    )
    def send(self, given: list[tuple[list[Recipient], str, Any, int | None, str]], dies: str) -> None:
        """Messages go to their recipients, and some once again; now and then their router dies on the way."""
        messages = [
            self.message(len(self.model.messages) + number - (how == "again"), to, conversation, kind, sent, how)
            for number, (to, conversation, kind, sent, how) in enumerate(given)
        ]
        # The end of a call counts from when it comes: one that comes twice is none of this.
        if any(message.kind == "call_cancel" for message in messages):
            dies = ""
        came = self.wait(self.come(messages))
        lanes = list(dict.fromkeys(message.effective_lane for message in messages))
        if dies:
            self.wait(self.route_at_second_try(lanes, messages if "repeats" in dies else []))
        else:
            self.wait(self.route(lanes))
        self.meet(self.model.send(messages, came, self.now()))

    @rule(
        user=users,
        conversation=conversations,
        said=st.lists(
            st.tuples(unreads, st.none() | st.none() | ago, st.sampled_from(["", "", "", "bulk", "brief"])),
            min_size=2,
            # Of what comes again beyond the last twenty nobody can tell that it was counted.
            max_size=12,
        ),
        dies=st.sampled_from([""] * 4 + ["once", "and the backend repeats itself"]),
        seconds=st.sampled_from([0, 0, 100, 400]),
    )
    def talk(
        self,
        user: str,
        conversation: str,
        said: list[tuple[int | None, int | None, str]],
        dies: str,
        seconds: int,
    ) -> None:
        """Many messages of one conversation in a short time, and then a while."""
        for some in (said[:4], said[4:]):
            given = [
                ([Recipient(id=user, unread=unread)], conversation, "chat", sent, how) for unread, sent, how in some
            ]
            if given:
                self.send(given, dies)
        if seconds:
            self.time_passes(seconds)

    @rule(
        user=users,
        conversation=conversations,
        calls=st.lists(
            st.tuples(
                st.sampled_from(["call", "call", "call_cancel"]),
                st.none() | st.integers(1, 4).map(lambda s: s * 1_000),
                st.sampled_from(["", "named"]),
            ),
            min_size=2,
            max_size=4,
        ),
    )
    def ring(self, user: str, conversation: str, calls: list[tuple[str, int | None, str]]) -> None:
        """Calls and their ends, one after the other."""
        for kind, sent, how in calls:
            self.send([([Recipient(id=user)], conversation, kind, sent, how)], "")

    async def come(self, messages: list[OfflineMessage]) -> list[int]:
        """Enqueue *messages*; when each of them came."""
        self.stage.enqueue(*messages)
        streams = [stream.keys.stream for stream in self.stage.streams.values()]
        times: dict[str, int] = {}
        for entries in await self.stage.queue.pipeline([("XRANGE", stream, "-", "+") for stream in streams]):
            for entry, fields in entries:
                message = decode_message(fields[fields.index(b"m") + 1])
                times.setdefault(message.id, int(entry.partition(b"-")[0]))
        return [times[message.id] for message in messages]

    async def route(self, lanes: list[Lane]) -> None:
        for lane in sorted(lanes, key=LANES.index):
            await self.stage.router.route(self.stage.streams[lane], await self.stage.read(lane))

    async def route_at_second_try(self, lanes: list[Lane], repeated: list[OfflineMessage]) -> None:
        """The router dies when all is put and nothing is acknowledged, and another one takes over.

        Before it does, what is *repeated* comes once more and is routed.
        """
        for lane in sorted(lanes, key=LANES.index):
            await self.stage.put_and_die(*await self.stage.read(lane), lane=lane)
        if repeated:
            await self.stage.route(*repeated)
        for lane in lanes:
            await self.stage.router.route(self.stage.streams[lane], await self.stage.read_again(lane))

    def message(
        self, number: int, to: list[Recipient], conversation: str, kind: Any, sent: int | None, how: str
    ) -> OfflineMessage:
        call = kind in ("call", "call_cancel")
        if call and sent is not None:
            # Calls do not live for long.
            sent %= LEASE_MS
        identity = f"m{number}"
        if identity not in self.written:
            self.written[identity] = OfflineMessage(
                id=identity,
                app="demo",
                kind=kind,
                sender=Sender(id="cy", name="Cy" if number % 3 else "Di"),
                conversation=Conversation(id=conversation, kind="group" if conversation == "g1" else "single"),
                recipients=tuple(to),
                body="Lunch?",
                sent_at_ms=0 if sent is None else self.began - sent,
                ttl_s={"short": None if sent is None else 1, "brief": None if call else 200}.get(how),
                lane="bulk" if how == "bulk" and not call else None,
                replace_key=f"call:{number % 2}" if call and how == "named" else None,
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

    @rule(seconds=passing_s)
    def time_passes(self, seconds: int) -> None:
        """For holds and storms alone: all else has times of its own."""
        self.model.passed += seconds * 1000
        self.wait(self.grow_older(seconds * 1000))

    async def grow_older(self, ms: int) -> None:
        """As if all that storms have put down had been so earlier."""
        for user in USERS:
            key = UserKeys(PREFIX, "demo", user).storms
            stored = await self.stage.queue.call("HGETALL", key)
            for place, packed in zip(stored[::2], stored[1::2], strict=True):
                storm = msgspec.msgpack.decode(packed)
                storm[1:3] = [at - ms for at in storm[1:3]]
                await self.stage.queue.call("HSET", key, place, msgspec.msgpack.encode(storm))

    @rule(
        which=st.lists(st.integers(0, 99), min_size=1, max_size=8),
        happens=st.sampled_from(["", "", "", "read", "mute", "quiet", "read, and quiet", "look", "renew"]),
    )
    def claim(self, which: list[int], happens: str) -> None:
        """Workers decide again on what is due, each account's on all that it took; something happens just before."""
        claimed: dict[str, list[tuple[Entry, list[Planned]]]] = {}
        for number in which:
            due = [at for at, one in enumerate(self.waiting) if one[2][0].due <= self.now() + self.model.passed]
            if due:
                vendor, entry, planned = self.waiting.pop(due[number % len(due)])
                claimed.setdefault(vendor, []).append((entry, planned))
        for vendor, some in claimed.items():
            self.happen(happens, some[0][0], some[0][1][0])
            happens = ""
            checker = Rechecker(self.stage.queue, PREFIX, FleetClock(), vendor, "main", recall_window_s=120, reads=True)
            done = self.wait(checker.recheck([entry for entry, _ in some]))
            fates = self.model.claim([one for _, planned in some for one in planned], self.now())
            for entry, planned in some:
                push = entry.parcel.push
                for delivery, one in zip(entry.parcel.deliveries, planned, strict=True):
                    told: str | Planned = done.refused.get(delivery.id, "")
                    if not told:
                        told = _told(vendor, done.rendered.get(delivery.id, push), delivery)
                    assert told == fates.pop(0), one
            self.wait(self.stage.route())
            self.meet(self.model.recall_uncovered(self.now()))

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
            self.register(one.user, one.device, [A2, F1, V1], 1_000, None, None, permitted=True, desktop=False)

    # ---- what must hold

    @invariant()
    def the_token_state_is_the_models(self) -> None:
        for name, stored in zip(USERS, self.wait(self.stored()), strict=True):
            user = self.model.user(name)
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

    async def stored(self) -> list[StoredUser]:
        return await asyncio.gather(*(self.store.user("demo", name) for name in USERS))

    def now(self) -> int:
        return int(time.time() * 1000)

    def meet(self, planned: list[Planned]) -> None:
        """What was just put is what the model planned."""
        wanted = {(one.message, one.user, one.device): one for one in planned}
        assert len(wanted) == len(planned)
        for vendor, entry, due in self.wait(self.put()):
            found = []
            for delivery in entry.parcel.deliveries:
                one = wanted.pop((entry.parcel.push.message_id, delivery.user, delivery.device))
                assert _told(vendor, entry.parcel.push, delivery) == one
                assert abs(due + self.model.passed - one.due) < 3_000 if one.due else due == 0
                found.append(one)
            self.waiting.append((vendor, entry, found))
        assert list(wanted.values()) == []
        assert self.wait(self.stage.suppressed()) == dict(+self.model.suppressed)

    async def put(self) -> list[tuple[str, Entry, int]]:
        """The entries that were not there before, with when they are due; 0: at once."""
        accounts = [AccountKeys(PREFIX, vendor, "main") for vendor in VENDORS]
        ready = [(vendor, lane) for vendor, keys in zip(VENDORS, accounts, strict=True) for lane in keys.ready]
        replies = await self.stage.queue.pipeline(
            [
                *(("LRANGE", lane, self.seen[lane], -1) for _, lane in ready),
                *(("ZRANGE", keys.delayed, 0, -1, "WITHSCORES") for keys in accounts),
            ]
        )
        fresh = []
        for (vendor, lane), packed in zip(ready, replies, strict=False):
            self.seen[lane] += len(packed)
            fresh += [(vendor, unpack(one), 0) for one in packed]
        for vendor, keys, due in zip(VENDORS, accounts, replies[len(ready) :], strict=True):
            new = {one: int(at) for one, at in zip(due[::2], due[1::2], strict=True) if (vendor, one) not in self.known}
            self.known |= {(vendor, one) for one in new}
            if new:
                waiting = await self.stage.queue.call("HMGET", keys.delayed_entries, *new)
                fresh += [(vendor, unpack(one), at) for one, at in zip(waiting, new.values(), strict=True)]
        return fresh


def _told(vendor: str, push: Push, delivery: Delivery) -> Planned:
    count, by = 0, ""
    if push.is_count:
        named = re.fullmatch(r"(?P<by>\w+) and (?P<others>\d+) others in .*", push.body)
        unnamed = re.fullmatch(r"(?P<count>\d+) new messages", push.body)
        count = int(named["others"]) + 1 if named else int(unnamed["count"]) if unnamed else 1
        by = named["by"] if named else ""
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
        push.replace_key,
        push.later,
        count,
        by,
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
