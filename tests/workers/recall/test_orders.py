"""Messages, recalls and newer messages in any order, routers that die in between, work that waits: against a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from tests.workers.routing import PREFIX, RECALLS, Stage, chat, play

from pushfleet import Conversation
from pushfleet_workers.clock import FleetClock
from pushfleet_workers.ledger import AccountKeys, Entry, unpack
from pushfleet_workers.recheck import Rechecker

DEVICES = {"a": ("phone",), "b": ("phone", "tablet")}
READY = AccountKeys(PREFIX, "apns", "main").ready

step = st.one_of(
    st.tuples(st.just("send"), st.sampled_from(["c1", "c2"]), st.sampled_from([("a",), ("b",), ("a", "b")])),
    st.tuples(st.just("recall"), st.integers(0, 5), st.sampled_from([(), (), ("b",)])),
    st.tuples(st.just("route"), st.sampled_from(["normal", "urgent"]), st.none()),
    st.tuples(st.just("die"), st.sampled_from(["normal", "urgent"]), st.booleans()),
    st.tuples(st.just("work"), st.integers(1, 3), st.booleans()),
    st.tuples(st.just("expire"), st.integers(1, 3), st.none()),
)

_COVERED: list[tuple[str, Any, Any]] = [
    ("send", "c1", ("a",)),
    ("route", "normal", None),
    ("work", 1, False),
    ("send", "c1", ("a",)),
    ("route", "normal", None),
    ("recall", 0, ()),
    ("route", "urgent", None),
    ("recall", 1, ()),
]
"""The second hides the first from its recall, and never leaves."""

_EXPIRED = [*_COVERED[:5], ("expire", 1, None), *_COVERED[5:7]]
"""The same, but that it has expired by then."""


@dataclass
class World:
    """The fleet without processes, and the screens of its users."""

    stage: Stage
    sent: list[str] = field(default_factory=list)
    recalled: set[str] = field(default_factory=set)
    """Recalled, from everybody's screen."""

    waiting: dict[str, list[str]] = field(default_factory=lambda: {"normal": [], "urgent": []})
    """Messages, and messages of recalls, that no router has read."""

    marked: set[str] = field(default_factory=set)
    """A router has read the recall: what still waits must not leave."""

    unborn: set[str] = field(default_factory=set)
    """That was before any router read the message: nobody must ever see it."""

    under_way: set[str] = field(default_factory=set)
    """A router has put the message, and died before it acknowledged it."""

    screens: dict[tuple[str, str, str], tuple[str, bool]] = field(default_factory=dict)
    """User, device and conversation to the message shown, and whether it says that it was recalled."""

    async def play(self, steps: Sequence[tuple[str, Any, Any]]) -> None:
        for user, devices in DEVICES.items():
            for device in devices:
                await self.stage.device(user, device)
        for name, one, two in steps:
            await getattr(self, name)(one, two)
        await self.route("urgent")
        await self.route("normal")
        # What the last one found recalled it has taken back itself.
        while await self.work(100, True):
            # A worker asks for recalls as well.
            await self.route("urgent")

    async def send(self, conversation: str, users: tuple[str, ...]) -> None:
        self.sent.append(f"m{len(self.sent)}")
        self.waiting["normal"].append(self.sent[-1])
        self.stage.enqueue(chat(self.sent[-1], *users, conversation=Conversation(id=conversation)))

    async def recall(self, number: int, users: tuple[str, ...]) -> None:
        if number < len(self.sent):
            self.stage.producer.recall("demo", self.sent[number], recipients=users)
            self.waiting["urgent"].append(self.sent[number])
            if not users:
                self.recalled.add(self.sent[number])

    async def route(self, lane: Any, _: None = None) -> None:
        self._read(lane)
        stream = self.stage.streams[lane]
        for raws in (await self.stage.read_again(lane), await self.stage.read(lane)):
            if raws:
                await self.stage.router.route(stream, raws)
        if lane == "normal":
            self.under_way.clear()

    async def die(self, lane: Any, keeps: bool) -> None:
        self._read(lane)
        raws = await self.stage.read(lane)
        if raws:
            if lane == "normal":
                self.under_way.update(self.sent)
            await self.stage.put_and_die(*raws, lane=lane, keeps=keeps)

    def _read(self, lane: str) -> None:
        if lane == "urgent":
            self.marked.update(self.waiting[lane])
        else:
            self.unborn.update(self.marked.intersection(self.waiting[lane]))
        self.waiting[lane].clear()

    async def work(self, most: int, aged: bool) -> bool:
        """A worker takes what is first; what is young leaves at once, but for recalls."""
        packed = [data for key in READY for data in await self.stage.queue.call("LPOP", key, most) or ()]
        entries = [unpack(data) for data in packed]
        asked = [entry for entry in entries if aged or entry.parcel.push.recall]
        for entry in entries:
            if entry not in asked:
                self._show(entry, {})
        refused = (await self._checker().recheck(asked)).refused
        for entry in asked:
            push = entry.parcel.push
            if push.message_id in self.marked and not push.recall:
                assert {one.id for one in entry.parcel.deliveries} <= refused.keys(), "it waited, and was recalled"
            self._show(entry, refused)
        return bool(entries)

    async def expire(self, most: int, _: None) -> None:
        """What is first makes no sense any more, but for recalls. Messages live longer than it takes to route them."""
        dropped = []
        for key in READY:
            for data in await self.stage.queue.call("LPOP", key, most) or ():
                entry = unpack(data)
                if entry.parcel.push.recall or entry.parcel.push.message_id in self.under_way:
                    await self.stage.queue.call("RPUSH", key, data)
                else:
                    dropped.append((entry, entry.parcel.deliveries))
        await self._checker().forget_dropped(dropped)

    def _checker(self) -> Rechecker:
        return Rechecker(self.stage.queue, PREFIX, FleetClock(), "apns", "main", recall_window_s=120)

    def _show(self, entry: Entry, refused: dict[bytes, str]) -> None:
        push = entry.parcel.push
        for delivery in entry.parcel.deliveries:
            if delivery.id in refused:
                continue
            screen = (delivery.user, delivery.device, push.replace_key)
            assert push.message_id not in self.unborn
            if push.recall:
                shown = self.screens.get(screen)
                assert shown is not None, "nothing was there to be taken back"
                assert shown[0] == push.message_id, "something else was overwritten"
            self.screens[screen] = (push.message_id, push.recall)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(step, max_size=16))
@example(_COVERED)
@example(_EXPIRED)
def test_no_recalled_message_stays_and_no_other_is_touched(redis_url: str, steps: list[tuple[str, Any, Any]]) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.queue.call("FLUSHALL")
        for stream in stage.streams.values():
            await stream.prepare()
        world = World(stage)
        await world.play(steps)
        for (user, device, _), (message, says_recalled) in world.screens.items():
            assert says_recalled or message not in world.recalled, (user, device)

    play(redis_url, scenario, apps=RECALLS)
