"""A phone whose vendor takes five pushes a day: what becomes of a day's messages, from the router to the vendor."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any

import msgspec
import pytest
from msgspec import structs
from tests.workers.doubles import Bench, a_bench
from tests.workers.ledger.support import PLENTY, a_ledger, an_entry
from tests.workers.routing import APNS, PREFIX, Stage, chat, group, now_ms, settings, staged

from pushfleet import Conversation, Recipient, Sender
from pushfleet_workers.account import AccountSettings
from pushfleet_workers.clock import FleetClock
from pushfleet_workers.errors import NoAnswer, RedisUnusable
from pushfleet_workers.ledger import AccountKeys, pack
from pushfleet_workers.outcome import OK, Outcome, Scope, Verdict
from pushfleet_workers.peace import Parking
from pushfleet_workers.peace.caps import AccountCaps, DayCap
from pushfleet_workers.peace.device_day import Chat, DeviceDay, DeviceDays, day_place, read_day
from pushfleet_workers.peace.device_day import Verdict as Said
from pushfleet_workers.peace.gathers import News, tell
from pushfleet_workers.peace.storms import is_stormy_push
from pushfleet_workers.push import Delivery
from pushfleet_workers.recheck import Rechecker
from pushfleet_workers.settings import AppSettings
from pushfleet_workers.still_wanted import Recheck
from pushfleet_workers.tokens.confirmations import Confirmation, ConfirmationStore
from pushfleet_workers.tokens.keys import UserKeys
from pushfleet_workers.tokens.preferences import Preferences, repack_preferences
from pushfleet_workers.tokens.reads import ReadStore
from pushfleet_workers.tokens.record import FOREGROUND, Channel

BOB = UserKeys(PREFIX, "demo", "bob")
PLACE = day_place(Delivery(b"", "bob", "phone", "", 0), "apns", "main", DayCap("all", 5, 2, 0))
TOKEN = "token-of-bob-phone"
HOUR_MS = 3_600_000


@dataclass
class Phone:
    """Bob's phone, a router before it and a worker behind it, and the vendor that shows what it is sent."""

    stage: Stage
    bench: Bench
    caps: list[AccountCaps]
    """Those of the router and of the worker."""

    recheck: Recheck

    @property
    def shown(self) -> list[str]:
        """What the vendor was sent for the phone so far."""
        return [
            body for body, token in zip(self.bench.cloud.bodies, self.bench.cloud.tokens, strict=True) if token == TOKEN
        ]

    async def come(self, *messages: Any) -> None:
        """Route *messages*, and send what is due."""
        await self.stage.route(*messages)
        await self.work()

    async def work(self) -> None:
        while (await self.bench.courier.claim()).entries or self.bench.courier.busy:
            await asyncio.sleep(0.003)

    async def pass_time(self, ms: int) -> None:
        """As if everything that was put down had been so earlier, within the vendor's day; then send what is due."""
        packed = await self.stage.queue.call("HGET", BOB.days, PLACE)
        if packed is not None:
            fields = msgspec.msgpack.decode(packed)
            fields[3] = max(0, fields[3] - ms)
            for gather in filter(None, fields[4:]):
                gather[1] -= ms
            await self.stage.queue.call("HSET", BOB.days, PLACE, msgspec.msgpack.encode(fields))
        for caps in self.caps:
            for name, cap in caps._by_class.items():
                caps._by_class[name] = replace(cap, begins_ms=cap.begins_ms - ms)
            caps.__dict__.pop("_by_kind", None)
        keys = AccountKeys(PREFIX, "apns", "main")
        for name in await self.stage.queue.call("ZRANGE", keys.delayed, 0, -1):
            await self.stage.queue.call("ZINCRBY", keys.delayed, -ms, name)
        await self.work()

    async def next_day(self) -> None:
        fields = msgspec.msgpack.decode(await self.stage.queue.call("HGET", BOB.days, PLACE))
        fields[0] -= 1
        await self.stage.queue.call("HSET", BOB.days, PLACE, msgspec.msgpack.encode(fields))

    async def day(self) -> DeviceDay:
        found = read_day(await self.stage.queue.call("HGET", BOB.days, PLACE))
        assert found is not None
        return found

    async def ends(self) -> dict[str, int]:
        """How deliveries ended in the account's ledger, and what never got there."""
        suppressed = await self.stage.suppressed()
        ends = await self.bench.ends()
        both = {name.removeprefix("suppressed:"): count for name, count in ends.items()}
        return {name: both.get(name, 0) + suppressed.get(name, 0) for name in sorted({*both, *suppressed})}


def on(
    url: str,
    scenario: Callable[[Phone], Awaitable[None]],
    *,
    app: dict[str, Any] | None = None,
    most: int = 5,
    elsewhere: bool = False,
    **device: Any,
) -> None:
    """Play on a phone of which the vendor takes *most* pushes a day; the day has not begun long ago."""
    limits: dict[str, Any] = {"device_caps": {"all": most}}
    apps = {"demo": {"name": "Demo", "reads": True, "recall_window_s": 120, **(app or {})}}
    given = settings(url, accounts={"apns": {"main": {**APNS, **limits}}}, apps=apps)

    async def run() -> None:
        async with staged(given) as stage:
            caps = AccountCaps("apns", AccountSettings(app="demo", **limits))
            days = DeviceDays(stage.queue, PREFIX, "apns", "main", caps)
            recheck = Rechecker(
                stage.queue,
                PREFIX,
                FleetClock(),
                "apns",
                "main",
                recall_window_s=120,
                reads=True,
                parking=Parking(stage.queue, PREFIX, given.apps["demo"], "apns", "main"),
                days=days,
                app_name="Demo",
            ).recheck
            async with a_bench(url, device_caps={"all": most}, elsewhere=elsewhere, recheck=recheck) as bench:
                bench.courier._caps._days = days
                await stage.device(**device)
                await scenario(Phone(stage, bench, [*stage.router._caps._caps.values(), caps], recheck))

    asyncio.run(run())


@pytest.fixture(autouse=True)
def long_day(monkeypatch: pytest.MonkeyPatch) -> None:
    """The vendor's day began an hour ago."""
    began_ms = (now_ms() - HOUR_MS) % (24 * HOUR_MS)
    monkeypatch.setattr("pushfleet_workers.outcome.DayHour.shift_ms", property(lambda self: began_ms))


def said(number: int, name: str = "", **changes: Any) -> Any:
    """A message of somebody's in the group."""
    return group(f"m{number}", "bob", sender=Sender(id=f"u{number}", name=name or f"User {number}"), **changes)


def mention(identity: str, **changes: Any) -> Any:
    return group(identity, Recipient(id="bob", mention=True), body=f"{identity}!", **changes)


# ---- a day


def test_a_busy_group_leaves_the_day_its_mentions_and_calls(redis_url: str) -> None:
    async def scenario(phone: Phone) -> None:
        await phone.come(*(said(number) for number in range(60)))
        assert phone.shown == ["User 0: Lunch?"]
        await phone.come(mention("lunch"))
        await phone.pass_time(8 * HOUR_MS)
        await phone.come(*(said(number) for number in range(60, 100)))
        await phone.pass_time(8 * HOUR_MS)
        await phone.come(*(said(number) for number in range(100, 120)))
        await phone.come(chat("call", kind="call", body="Ring"))
        await phone.come(mention("too late"))
        assert phone.shown == [
            "User 0: Lunch?",
            "[Mentioned you] Ann: lunch!",
            "User 59 and 58 others in Team",
            "User 99 and 39 others in Team",
            "Ring",
        ]
        ends = await phone.ends()
        assert ends == {"sent": 5, "gathered": 58 + 39, "device_cap": 21}
        assert await phone.stage.joined()
        await phone.next_day()
        await phone.come(said(200))
        assert phone.shown[-1] == "User 200: Lunch?"

    on(redis_url, scenario)


def test_what_is_told_of_or_too_much_never_enters_a_ledger(redis_url: str) -> None:
    async def scenario(phone: Phone) -> None:
        await phone.come(said(0))
        await phone.come(said(1))
        await phone.come(*(said(number) for number in range(2, 30)))
        assert (await phone.stage.books()).accounts["apns:main"].put == 2
        await phone.come(*(mention(f"u{number}") for number in range(4)))
        await phone.come(mention("u9"), said(50))
        books = await phone.stage.books()
        assert books.accounts["apns:main"].put == 2 + 4
        assert await phone.stage.suppressed() == {"gathered": 28, "device_cap": 2}
        assert await phone.stage.joined()

    on(redis_url, scenario)


def test_a_burst_that_reaches_the_worker_at_once_is_one_push_and_one_later(redis_url: str) -> None:
    async def scenario(phone: Phone) -> None:
        await phone.come(*(said(number) for number in range(20)))
        assert phone.shown == ["User 0: Lunch?"]
        assert (await phone.stage.books()).accounts["apns:main"].put == 20
        assert await phone.ends() == {"sent": 1, "gathered": 18}
        await phone.pass_time(8 * HOUR_MS)
        assert phone.shown[1:] == ["User 19 and 18 others in Team"]
        assert phone.bench.mover.forgotten == [TOKEN] * 19, "nothing of them is shown that could be recalled"

    on(redis_url, scenario)


def test_another_device_has_a_day_of_its_own(redis_url: str) -> None:
    async def scenario(phone: Phone) -> None:
        await phone.stage.device(name="pad")
        await phone.come(*(said(number) for number in range(9)))
        assert sorted(phone.bench.cloud.tokens) == ["token-of-bob-pad", TOKEN]
        await phone.stage.device("eve")
        await phone.come(said(20, recipients=("eve",)))
        assert phone.bench.cloud.tokens[-1] == "token-of-eve-phone"

    on(redis_url, scenario)


def test_devices_that_are_addressed_directly_are_not_counted(redis_url: str) -> None:
    async def scenario(phone: Phone) -> None:
        target = {"vendor": "apns", "credential": "main", "token": "direct"}
        for number in range(9):
            await phone.come(
                msgspec.convert({"id": f"t{number}", "app": "demo", "body": "x", "targets": [target]}, type(said(0)))
            )
        assert phone.bench.cloud.tokens == ["direct"] * 9

    on(redis_url, scenario)


# ---- what a gathered push says


def test_of_several_conversations_it_tells_under_the_name_of_the_app(redis_url: str) -> None:
    async def scenario(phone: Phone) -> None:
        await phone.come(said(0))
        await phone.come(said(1))
        await phone.come(said(2), chat("c1"), chat("c2", conversation=Conversation(id="c2")))
        ((_, entry),) = await phone.stage.delayed()
        found = await phone.recheck([entry])
        (push,) = found.rendered.values()
        assert (push.title, push.body) == ("Demo", "4 new messages in 3 chats")
        await phone.stage.device(locale="zh-CN", state_at_ms=now_ms() - HOUR_MS)
        await phone.pass_time(8 * HOUR_MS)
        assert phone.shown[1:] == ["3个会话有4条新消息"]

    on(redis_url, scenario)


def test_one_that_waited_alone_says_what_it_is(redis_url: str) -> None:
    async def scenario(phone: Phone) -> None:
        await phone.come(said(0))
        await phone.come(said(1))
        await phone.pass_time(8 * HOUR_MS)
        assert phone.shown == ["User 0: Lunch?", "User 1: Lunch?"]

    on(redis_url, scenario)


def test_what_was_read_muted_or_seen_meanwhile_is_not_told(redis_url: str) -> None:
    async def scenario(phone: Phone) -> None:
        stage, start_ms = phone.stage, now_ms()

        async def text() -> str:
            ((_, entry),) = await stage.delayed()
            found = await phone.recheck([entry])
            return found.refused.get(entry.parcel.deliveries[0].id) or next(iter(found.rendered.values())).body

        await phone.come(said(0, sent_at_ms=start_ms))
        await phone.come(said(1, sent_at_ms=start_ms + 1))
        for number, conversation in enumerate(["g1", "c1", "c1", "c2"], start=2):
            message = chat(f"x{number}", conversation=Conversation(id=conversation), sent_at_ms=start_ms + number)
            await phone.come(message)
        assert await text() == "5 new messages in 3 chats"
        reads = ReadStore(stage.queue, PREFIX, now_ms)
        await reads.mark("demo", "bob", "c1", start_ms + 3)
        assert await text() == "4 new messages in 3 chats"
        await stage.option("bob", "c2", "none")
        assert await text() == "3 new messages in 2 chats"
        await stage.option("bob", "g1", "mentions")
        assert await text() == "You have a new message", "that of c1 alone"
        await stage.option("bob", "g1", "all")
        await reads.mark("demo", "bob", "c1", start_ms + 4)
        assert await text() == "Ann and 1 others in Team"
        await stage.device(state_at_ms=start_ms + 1)
        assert await text() == "Ann and 1 others in Team", "the first of them may have come after the report"
        await stage.device(state_at_ms=start_ms + 2)
        assert await text() == "You have a new message", "the app was open after the first of them"
        await stage.device(state_at_ms=start_ms + 2, unread=4)
        assert await text() == "Ann and 1 others in Team", "not all of it was read there"
        await stage.device(state_at_ms=start_ms + 9)
        assert await text() == "read"
        await stage.option("bob", "g1", "none")
        assert await text() == "muted"
        await stage.device(state=FOREGROUND, lease_until_ms=2**50)
        assert await text() == "foreground"

    on(redis_url, scenario)


def test_one_whose_message_was_taken_back_tells_of_the_others(redis_url: str) -> None:
    async def scenario(phone: Phone) -> None:
        await phone.come(said(0))
        await phone.come(said(1, body="secret"))
        await phone.come(said(2), chat("c1"))
        await phone.stage.recall("m1", conversation="g1")
        await phone.pass_time(8 * HOUR_MS)
        assert phone.shown[1:] == ["2 new messages in 2 chats"]

    on(redis_url, scenario)


def test_a_storm_counts_as_many_as_it_tells_of(redis_url: str) -> None:
    async def scenario(phone: Phone) -> None:
        await phone.come(said(0))
        await phone.come(*(said(number) for number in range(1, 6)))
        assert [entry.parcel.push.later for _, entry in await phone.stage.delayed()] == ["storm"]
        await phone.pass_time(2_500)
        ((_, entry),) = await phone.stage.delayed()
        assert entry.parcel.push.later == "cap"
        assert entry.parcel.push.tells == 5
        await phone.come(chat("c1"))
        await phone.pass_time(8 * HOUR_MS)
        assert phone.shown[1:] == ["6 new messages in 2 chats"]

    on(redis_url, scenario, app={"storm_waits_s": [2, 300]})


def test_who_is_not_to_be_disturbed_when_it_is_due_gets_none(redis_url: str) -> None:
    async def scenario(phone: Phone) -> None:
        await phone.come(said(0))
        await phone.come(said(1))
        await phone.stage.queue.call(
            "HSET", BOB.options, "", repack_preferences(None, Preferences(quiet_until_ms=2**50))
        )
        await phone.pass_time(8 * HOUR_MS)
        assert await phone.ends() == {"do_not_disturb": 1, "sent": 1}

    on(redis_url, scenario)


def test_who_hides_texts_by_then_sees_numbers_alone(redis_url: str) -> None:
    async def scenario(phone: Phone) -> None:
        await phone.come(said(0))
        await phone.come(said(1))
        await phone.come(said(2), said(3))
        await phone.stage.queue.call("HSET", BOB.options, "", repack_preferences(None, Preferences(hide_text=True)))
        await phone.pass_time(8 * HOUR_MS)
        assert phone.shown[1:] == ["3 new messages"]

    on(redis_url, scenario)


def test_of_more_conversations_than_are_told_apart_it_gives_no_number() -> None:
    push = an_entry("m1").parcel.push
    chats = tuple(Chat(f"c{number}", 1, "Ann", 1, (1,), (f"d{number}",)) for number in range(16))
    told = tell(push, News(chats, 3, 0), "Demo", "en", "en")
    assert (told.title, told.body, told.tells) == ("Demo", "19 new messages", 19)
    told = tell(push, News(chats[:2], 0, 0), "Demo", "en", "en")
    assert told.body == "2 new messages in 2 chats"


def test_who_has_the_app_open_when_it_is_due_gets_it_once_they_leave(redis_url: str) -> None:
    async def scenario(phone: Phone) -> None:
        stage, start_ms = phone.stage, now_ms()
        await phone.come(said(0))
        await phone.come(said(1, sent_at_ms=start_ms + 60_000))
        await phone.come(said(2, sent_at_ms=start_ms + 60_001), chat("c1", sent_at_ms=start_ms + 60_002))
        await stage.device(state=FOREGROUND, state_at_ms=start_ms, lease_until_ms=2**50)
        await phone.pass_time(8 * HOUR_MS)
        ((_, entry),) = await stage.delayed()
        assert (entry.parcel.push.later, entry.parcel.push.parking) == ("cap", "parked")
        assert phone.shown == ["User 0: Lunch?"]
        await stage.device(state_at_ms=start_ms)
        await phone.pass_time(15_000)
        assert phone.shown[1:] == ["3 new messages in 2 chats"]
        assert (await phone.day()).ordinary == 2

    on(redis_url, scenario, app={"foreground_ack": "park"})


def test_what_is_parked_is_asked_about_when_it_leaves(redis_url: str) -> None:
    async def scenario(phone: Phone) -> None:
        stage = phone.stage
        await phone.come(said(0))
        await phone.come(said(1))
        await stage.device(state=FOREGROUND, lease_until_ms=2**50)
        await phone.come(said(2), said(3))
        assert [entry.parcel.push.parking for _, entry in await stage.delayed()] == ["parked", "parked", ""]
        assert await phone.ends() == {"sent": 1}
        await stage.device(state_at_ms=now_ms() - HOUR_MS)
        await phone.pass_time(15_000)
        assert await phone.ends() == {"gathered": 2, "sent": 1}
        await phone.pass_time(8 * HOUR_MS)
        (text,) = phone.shown[1:]
        assert text.endswith("and 2 others in Team")

    on(redis_url, scenario, app={"foreground_ack": "park"})


async def released(phone: Phone) -> None:
    """The second message is parked, released, and waits for its turn; the app says that nothing is unread."""
    await phone.come(said(0))
    await phone.stage.device(state=FOREGROUND, lease_until_ms=2**50)
    await phone.come(said(1))
    await phone.stage.device()
    await phone.pass_time(15_000)
    ((_, entry),) = await phone.stage.delayed()
    assert (entry.parcel.push.later, entry.parcel.push.parking) == ("cap", "released")


def test_an_app_that_never_got_what_was_parked_cannot_have_shown_it(redis_url: str) -> None:
    async def scenario(phone: Phone) -> None:
        await released(phone)
        await phone.pass_time(8 * HOUR_MS)
        assert phone.shown[1:] == ["User 1: Lunch?"]

    on(redis_url, scenario, app={"foreground_ack": "park"})


async def confirm(phone: Phone) -> None:
    """Bob's phone has everything."""
    given = Confirmation(user="bob", device="phone", up_to_ms=now_ms())
    await ConfirmationStore(phone.stage.queue, PREFIX).confirm("demo", [given])


def test_a_confirmation_stops_what_was_parked_and_waits_alone(redis_url: str) -> None:
    async def scenario(phone: Phone) -> None:
        await released(phone)
        await confirm(phone)
        await phone.pass_time(8 * HOUR_MS)
        assert await phone.ends() == {"delivered": 1, "sent": 1}

    on(redis_url, scenario, app={"foreground_ack": "park"})


def test_a_confirmation_does_not_reach_what_was_gathered_and_never_parked(redis_url: str) -> None:
    async def scenario(phone: Phone) -> None:
        await released(phone)
        await phone.come(said(2))
        await confirm(phone)
        await phone.pass_time(8 * HOUR_MS)
        assert phone.shown[1:] == ["User 2 and 1 others in Team"]

    on(redis_url, scenario, app={"foreground_ack": "park"})


def test_what_tells_of_others_meets_no_storm() -> None:
    app, entry = AppSettings(storm_waits_s=(10,)), an_entry("m1")
    push, (delivery,) = structs.replace(entry.parcel.push, conversation_id="g1"), entry.parcel.deliveries
    assert is_stormy_push(app, push, delivery)
    assert not is_stormy_push(app, structs.replace(push, later="cap"), delivery)


def test_what_a_full_account_drops_is_told_by_the_next(redis_url: str) -> None:
    async def scenario(phone: Phone) -> None:
        await phone.come(said(0))
        phone.stage.router._parcels._share = 1
        await phone.stage.device("eve")
        await phone.stage.route(said(10, recipients=("eve",)))
        await phone.come(said(1, lane="bulk"))
        await phone.come(said(2), said(3))
        assert await phone.ends() == {"dropped:backlog": 1, "gathered": 1, "sent": 2}
        await phone.pass_time(8 * HOUR_MS)
        assert phone.shown[1:] == ["User 3 and 2 others in Team"]

    on(redis_url, scenario)


# ---- whatever becomes of it


def test_what_the_vendor_refuses_does_not_count(redis_url: str) -> None:
    async def scenario(phone: Phone) -> None:
        cloud = phone.bench.cloud
        cloud.answer(TOKEN, Outcome(Verdict.BAD_PAYLOAD), Outcome(Verdict.RETRY), OK)
        await phone.come(mention("u0"), mention("u1"))
        day = await phone.day()
        assert (day.ordinary, day.important) == (0, 1)
        assert await phone.ends() == {"dead:bad_payload": 1, "sent": 1}

    on(redis_url, scenario)


def test_what_never_left_does_not_count_and_what_may_have_arrived_does(redis_url: str) -> None:
    async def scenario(phone: Phone) -> None:
        cloud = phone.bench.cloud
        cloud.answer(TOKEN, NoAnswer("refused", maybe_delivered=False), OK)
        await phone.come(mention("u0"))
        assert (await phone.day()).important == 1
        cloud.answer(TOKEN, NoAnswer("reset", maybe_delivered=True), OK)
        await phone.come(mention("u1"))
        assert (await phone.day()).important == 3
        cloud.answer(TOKEN, Outcome(Verdict.RETRY, Scope.ACCOUNT, code="HTTP 200", unknown=True), OK)
        await phone.come(mention("u2"))
        assert (await phone.day()).important == 5

    on(redis_url, scenario)


def test_a_chat_that_may_have_arrived_is_tried_again_at_once_and_counts_again(redis_url: str) -> None:
    async def scenario(phone: Phone) -> None:
        phone.bench.cloud.answer(TOKEN, NoAnswer("reset", maybe_delivered=True), OK)
        await phone.come(said(0))
        assert phone.shown == ["User 0: Lunch?"] * 2
        assert (await phone.day()).ordinary == 2
        assert await phone.ends() == {"sent": 1}

    on(redis_url, scenario)


def test_what_a_dead_process_had_in_hand_is_tried_again_at_once_and_counts_again(redis_url: str) -> None:
    async def scenario(phone: Phone) -> None:
        await phone.stage.route(said(0), said(1))
        days = phone.bench.courier._caps._days
        first, second = await phone.stage.entries()
        for entry in (first, second):
            push, (delivery,) = entry.parcel.push, entry.parcel.deliveries
            cap = days.cap_of(push)
            assert cap is not None
            await days.ask([(days.asked(push, delivery, cap), False)], joins=False)
        keys = AccountKeys(PREFIX, "apns", "main")
        await phone.stage.queue.call("DEL", keys.ready[1])
        for entry in (first, second):
            entry.lost = 1
            await phone.stage.queue.call("RPUSH", keys.ready[1], pack(entry))
        await phone.work()
        assert phone.shown == ["User 0: Lunch?", "User 1: Lunch?"]
        assert (await phone.day()).ordinary == 3

    on(redis_url, scenario)


@pytest.mark.parametrize("elsewhere", [False, True])
def test_what_a_process_was_told_to_gather_and_died_with_tells_of_all_of_it(redis_url: str, elsewhere: bool) -> None:
    async def scenario(phone: Phone) -> None:
        await phone.come(said(0))
        # The router lets all of it pass, as for a device that another account reaches as well.
        phone.stage.router._caps._caps.clear()
        await phone.stage.route(said(1))
        ledger = a_ledger(phone.bench.link, "dead")
        (entry,) = (await ledger.claim(PLENTY)).entries
        days = phone.bench.courier._caps._days
        cap = days.cap_of(entry.parcel.push)
        assert cap is not None
        asked = days.asked(entry.parcel.push, entry.parcel.deliveries[0], cap)
        (answer,) = await days.ask([(asked, False)], joins=True)
        assert answer is not None
        assert answer.verdict is Said.CARRIES
        await phone.come(said(2), said(3))
        await phone.bench.link.call("ZADD", phone.bench.keys.owners, 1, "dead")
        assert await phone.bench.courier.ledger.reap() == 1
        await phone.work()
        assert phone.shown == ["User 0: Lunch?"]
        await phone.pass_time(8 * HOUR_MS)
        assert phone.shown[1:] == ["User 3 and 2 others in Team"]
        assert await phone.ends() == {"gathered": 2, "sent": 2}

    on(redis_url, scenario, elsewhere=elsewhere)


def test_an_answer_that_nobody_can_read_counts(redis_url: str) -> None:
    async def scenario(phone: Phone) -> None:
        phone.bench.cloud.read_fails.add(TOKEN)
        await phone.come(mention("u0"))
        assert await phone.bench.finish() == {"dead:attempts": 1}
        assert (await phone.day()).important == len(phone.shown) == 4

    on(redis_url, scenario)


def test_what_takes_something_back_counts_unless_the_vendor_has_means_of_its_own(redis_url: str) -> None:
    async def scenario(phone: Phone) -> None:
        await phone.come(said(0))
        await phone.stage.recall("m0", conversation="g1")
        await phone.work()
        assert phone.shown[1:] == ["User 0 recalled a message"]
        assert (await phone.day()).important == 1
        await phone.come(mention("u1"))
        phone.bench.courier._caps._withdraws = lambda push, deliveries: True
        await phone.stage.recall("u1", conversation="g1")
        await phone.work()
        assert phone.shown[3:] == ["Ann recalled a message"]
        assert (await phone.day()).important == 2

    on(redis_url, scenario)


def test_a_vendor_that_says_full_is_heard_for_this_device_alone(redis_url: str) -> None:
    async def scenario(phone: Phone) -> None:
        full = Outcome(Verdict.QUOTA_EXHAUSTED, Scope.DEVICE, code="full", wait_s=60)
        phone.bench.cloud.answer(TOKEN, full)
        await phone.come(mention("u0"))
        await phone.come(mention("u1"), said(2))
        assert await phone.ends() == {"device_cap": 3}
        assert phone.bench.cloud.tokens == [TOKEN]
        await phone.stage.device("eve")
        await phone.come(said(3, recipients=("eve",)))
        assert phone.bench.cloud.tokens == [TOKEN, "token-of-eve-phone"]

    on(redis_url, scenario)


def test_a_device_with_another_way_waits_for_nothing(redis_url: str) -> None:
    async def scenario(phone: Phone) -> None:
        phone.bench.cloud.moves.add(TOKEN)
        await phone.come(*(said(number) for number in range(4)))
        await phone.come(*(mention(f"u{number}") for number in range(5)))
        assert len(phone.shown) == 5
        assert await phone.ends() == {"moved:device_cap": 4, "sent": 5}
        assert await phone.stage.delayed() == []

    channels = [Channel("apns", "main", TOKEN, 1_000), Channel("fcm", "main", "other", 1_000)]
    on(redis_url, scenario, elsewhere=True, channels=channels)


def test_a_device_whose_other_way_is_none_waits_as_ever(redis_url: str) -> None:
    async def scenario(phone: Phone) -> None:
        await phone.come(*(said(number) for number in range(4)))
        assert await phone.ends() == {"gathered": 2, "sent": 1}
        await phone.pass_time(8 * HOUR_MS)
        assert phone.shown[1:] == ["User 3 and 2 others in Team"]
        await phone.come(*(mention(f"u{number}") for number in range(5)))
        assert await phone.ends() == {"gathered": 2, "sent": 5, "device_cap": 2}

    channels = [Channel("apns", "main", TOKEN, 1_000), Channel("fcm", "main", "other", 1_000)]
    on(redis_url, scenario, elsewhere=True, channels=channels)


def test_without_the_state_pushes_leave_uncounted(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(phone: Phone) -> None:
        async def gone(*_: Any, **__: Any) -> Any:
            raise RedisUnusable("no state")

        monkeypatch.setattr(DeviceDays, "ask", gone)
        await phone.come(*(mention(f"u{number}") for number in range(9)))
        assert len(phone.shown) == 9

    on(redis_url, scenario)


def test_a_router_that_died_lets_nobody_wait_for_what_is_not_put(redis_url: str) -> None:
    async def scenario(phone: Phone) -> None:
        stage = phone.stage
        await phone.come(said(0))
        stage.enqueue(said(1), said(2))
        await stage.put_and_die(*await stage.read())
        stage.enqueue(said(3))
        raws = await stage.read()
        await stage.option("bob", "g1", "none")
        await stage.router.route(stage.streams["normal"], [*await stage.read_again(), *raws])
        await stage.option("bob", "g1", "all")
        assert await stage.joined()
        await phone.come(said(4))
        assert [entry.parcel.push.message_id for _, entry in await stage.delayed()] == ["m1", "m4"]

    on(redis_url, scenario)


def test_where_no_cap_is_nothing_is_asked(redis_url: str) -> None:
    async def scenario(phone: Phone) -> None:
        await phone.come(*(said(number) for number in range(9)))
        assert len(phone.shown) == 9
        assert await phone.stage.queue.call("EXISTS", BOB.days) == 0
        stats = await phone.stage.queue.call("INFO", "commandstats")
        assert b"device_day" not in stats

    on(redis_url, scenario, most=0)
