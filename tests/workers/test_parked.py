"""What becomes of parked pushes: router, ledger, courier and token state together, on a real Redis."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from msgspec.structs import replace
from tests.workers.doubles import QUICK, Bench, Cloud, a_bench, until
from tests.workers.ledger.support import a_ledger
from tests.workers.routing import PREFIX, Stage, chat, group, now_ms, settings, staged

from pushfleet import Recipient, Sender
from pushfleet_workers.clock import FleetClock
from pushfleet_workers.ledger import Entry, pack
from pushfleet_workers.ledger.ledger import Rate, Want
from pushfleet_workers.outcome import Outcome, Verdict
from pushfleet_workers.peace import Parking
from pushfleet_workers.push import Delivery, Parcel, Push
from pushfleet_workers.recheck import Rechecked, Rechecker
from pushfleet_workers.retry import RetryPolicy
from pushfleet_workers.tokens.confirmations import Confirmation, ConfirmationStore
from pushfleet_workers.tokens.keys import UserKeys
from pushfleet_workers.tokens.preferences import PREFERENCES_FIELD, Preferences, repack_preferences
from pushfleet_workers.tokens.record import BACKGROUND, FOREGROUND, KILLED, Channel

PARKS: dict[str, Any] = {"name": "Demo", "foreground_ack": "park"}
BOB = UserKeys(PREFIX, "demo", "bob")
LONG_MS = 400_000


class Seeing(Cloud):
    """A cloud that notes badges."""

    def __init__(self, batch_size: int = 1) -> None:
        super().__init__(batch_size)
        self.badges: list[int] = []

    def build(self, account: Any, push: Push, deliveries: Sequence[Delivery], auth: str, now_ms: int) -> Any:
        self.badges += [one.badge for one in deliveries]
        return super().build(account, push, deliveries, auth, now_ms)


async def past(ms: int) -> None:
    """Wait until it is later than *ms*: timers may come a moment early."""
    while now_ms() <= ms:
        await asyncio.sleep(max(1, ms - now_ms()) / 1000)


@dataclass
class Fleet:
    """A router and a worker without their processes; time passes where a test says so."""

    stage: Stage
    bench: Bench
    cloud: Seeing

    async def foreground(self, user: str = "bob", name: str = "phone", *, lease_ms: int = LONG_MS, **more: Any) -> None:
        """The app there is in the foreground."""
        until_ms = now_ms() + lease_ms
        await self.stage.device(user, name, token=f"{user}-{name}", state=FOREGROUND, lease_until_ms=until_ms, **more)

    async def background(self, user: str = "bob", name: str = "phone", **more: Any) -> None:
        """It is not."""
        await self.stage.device(user, name, **{"token": f"{user}-{name}", "state": BACKGROUND, **more})

    async def confirm(self, up_to_ms: int = 0, *, conversation: str = "", device: str = "phone") -> None:
        """Bob's device has everything until then, by default until now."""
        given = Confirmation(user="bob", device=device, up_to_ms=up_to_ms or now_ms(), conversation=conversation)
        await ConfirmationStore(self.stage.queue, PREFIX).confirm("demo", [given])

    async def make_due(self) -> None:
        """Whatever waits in the ledger has waited for long enough."""
        for identity in await self.stage.queue.call("ZRANGE", self.bench.keys.delayed, 0, -1):
            await self.stage.queue.call("ZADD", self.bench.keys.delayed, 1, identity)

    async def look(self) -> None:
        """Make due what waits, and let the worker look at it; what it may send now is sent."""
        await self.make_due()
        await self.work()

    async def work(self) -> None:
        """Let the worker do what is due."""
        claimed = True
        while claimed:
            claim = await self.bench.courier.claim()
            await self.bench.settled()
            claimed = bool(claim.entries)

    async def waiting(self) -> list[tuple[int, Push, list[Delivery]]]:
        """What waits: when it is due, and what it is."""
        return [(due_ms, entry.parcel.push, entry.parcel.deliveries) for due_ms, entry in await self.stage.delayed()]

    async def ends(self) -> dict[str, int]:
        """How deliveries ended; the books balance."""
        assert await self.stage.joined()
        return await self.bench.ends()


def on(
    url: str,
    scenario: Callable[[Fleet], Awaitable[None]],
    *,
    rate: Rate | None = None,
    policy: RetryPolicy = QUICK,
    batch_size: int = 1,
    **app: Any,
) -> None:
    """Play with a fleet whose app parks."""

    async def run() -> None:
        async with staged(settings(url, apps={"demo": {**PARKS, **app}, "lite": {}})) as stage:
            of_app = stage.settings.apps["demo"]
            parking = Parking(stage.queue, PREFIX, of_app, "apns", "main")
            checker = Rechecker(
                stage.queue,
                PREFIX,
                FleetClock(),
                "apns",
                "main",
                recall_window_s=of_app.recall_window_s,
                reads=of_app.reads,
                parking=parking,
                app_name="Demo",
            )
            cloud = Seeing(batch_size)
            async with a_bench(
                url, cloud=cloud, rate=rate, policy=policy, recheck=checker.recheck, recheck_s=-1
            ) as bench:
                await scenario(Fleet(stage, bench, cloud))

    asyncio.run(run())


# ---- the three answers


def test_what_is_confirmed_is_not_pushed_and_does_not_count(redis_url: str) -> None:
    async def scenario(fleet: Fleet) -> None:
        await fleet.foreground()
        await fleet.stage.route(chat("m1"))
        await fleet.confirm()
        await fleet.look()
        assert await fleet.ends() == {"suppressed:delivered": 1}
        assert fleet.cloud.tokens == []
        assert await fleet.stage.queue.call("EXISTS", BOB.badges) == 0

    on(redis_url, scenario)


@pytest.mark.parametrize("state", [BACKGROUND, KILLED])
def test_who_leaves_the_foreground_before_that_is_pushed_to(redis_url: str, state: str) -> None:
    async def scenario(fleet: Fleet) -> None:
        await fleet.foreground()
        await fleet.stage.route(chat("m1"))
        await fleet.background(state=state, unread=3)
        await fleet.look()
        assert await fleet.ends() == {"sent": 1}
        assert (fleet.cloud.tokens, fleet.cloud.badges) == (["bob-phone"], [4]), "it counts when it leaves"

    on(redis_url, scenario)


def test_a_lease_that_runs_out_brings_the_push(redis_url: str) -> None:
    async def scenario(fleet: Fleet) -> None:
        lease_until_ms = now_ms() + 1_200
        await fleet.foreground(lease_ms=1_200)
        await fleet.stage.route(chat("m1"))
        await fleet.look()
        ((due_ms, _, _),) = await fleet.waiting()
        assert lease_until_ms <= due_ms <= now_ms() + 2_000, "it is looked at when the lease has run out"
        await past(due_ms)
        await fleet.work()
        assert await fleet.ends() == {"sent": 1}

    on(redis_url, scenario)


def test_what_is_neither_waits_on_as_often_as_it_takes(redis_url: str) -> None:
    async def scenario(fleet: Fleet) -> None:
        await fleet.foreground()
        await fleet.stage.route(chat("m1"))
        for _ in range(20):
            asked_ms = now_ms()
            await fleet.look()
            ((due_ms, push, (delivery,)),) = await fleet.waiting()
            assert push.parking == "parked"
            assert asked_ms < due_ms <= now_ms() + 2_000
            assert (delivery.attempt, delivery.tries) == (0, 0)
        assert await fleet.ends() == {}
        await fleet.background()
        await fleet.look()
        assert await fleet.ends() == {"sent": 1}

    on(redis_url, scenario)


def test_what_a_device_waited_for_leaves_in_its_order(redis_url: str) -> None:
    async def scenario(fleet: Fleet) -> None:
        start_ms = now_ms() - 1_000
        await fleet.foreground()
        order = [f"m{number}" for number in range(12)]
        messages = [chat(name, body=name, sent_at_ms=start_ms + number) for number, name in enumerate(order)]
        await fleet.stage.route(*reversed(messages))
        await fleet.background()
        await fleet.look()
        assert [body.rpartition(" ")[2] for body in fleet.cloud.bodies] == order

    on(redis_url, scenario)


def test_each_delivery_of_a_parcel_goes_its_own_way(redis_url: str) -> None:
    async def scenario(fleet: Fleet) -> None:
        for user in ("bob", "eve", "ann", "joe"):
            await fleet.foreground(user)
        await fleet.foreground("kim", lease_ms=1_500)
        await fleet.stage.route(group("m1", "bob", "eve", "ann", "joe", "kim"))
        await fleet.confirm()
        await fleet.background("eve")
        await fleet.stage.option("ann", "g1", "none")
        await fleet.look()
        assert await fleet.ends() == {"suppressed:delivered": 1, "suppressed:muted": 1, "sent": 1}
        assert fleet.cloud.tokens == ["eve-phone"]
        waiting = {one.user for _, _, some in await fleet.waiting() for one in some}
        assert waiting == {"joe", "kim"}

    on(redis_url, scenario, batch_size=10)


# ---- what counts as confirmed


def test_a_confirmation_is_for_one_device_one_conversation_and_until_then(redis_url: str) -> None:
    async def scenario(fleet: Fleet) -> None:
        sent_ms = now_ms() - 100
        await fleet.foreground()
        await fleet.foreground(name="pad")
        await fleet.stage.route(chat("m1", sent_at_ms=sent_ms), chat("m2", sent_at_ms=sent_ms + 1))
        await fleet.stage.route(group("m3", "bob", sent_at_ms=sent_ms))
        await fleet.confirm(sent_ms, conversation="c1")
        await fleet.look()
        left = {(push.message_id, one.device) for _, push, some in await fleet.waiting() for one in some}
        assert left == {("m1", "pad"), ("m2", "phone"), ("m2", "pad"), ("m3", "phone"), ("m3", "pad")}
        assert await fleet.ends() == {"suppressed:delivered": 1}
        await fleet.confirm(sent_ms, device="pad")
        await fleet.look()
        left = {(push.message_id, one.device) for _, push, some in await fleet.waiting() for one in some}
        assert left == {("m2", "phone"), ("m2", "pad"), ("m3", "phone")}

    on(redis_url, scenario)


def test_a_message_of_no_conversation_is_confirmed_as_well(redis_url: str) -> None:
    async def scenario(fleet: Fleet) -> None:
        await fleet.foreground()
        await fleet.stage.route(chat("m1", kind="system", conversation=None))
        await fleet.confirm(conversation="c1")
        await fleet.look()
        assert len(await fleet.waiting()) == 1
        await fleet.confirm()
        await fleet.look()
        assert await fleet.ends() == {"suppressed:delivered": 1}

    on(redis_url, scenario)


def test_what_was_never_parked_is_pushed_whatever_was_confirmed(redis_url: str) -> None:
    """An app in the background may take a message over its connection and be unable to show it."""

    async def scenario(fleet: Fleet) -> None:
        await fleet.background()
        await fleet.stage.route(chat("m1"))
        await fleet.confirm()
        await fleet.look()
        assert await fleet.ends() == {"sent": 1}

    on(redis_url, scenario, hold_normal_s=5)


def test_a_confirmation_still_stops_what_waits_for_its_account(redis_url: str) -> None:
    async def scenario(fleet: Fleet) -> None:
        fleet.cloud.answer("bob-phone", Outcome(Verdict.RETRY, code="Busy"))
        await fleet.foreground()
        await fleet.stage.route(chat("m1"))
        await fleet.background()
        await fleet.look()
        assert fleet.cloud.tokens == ["bob-phone"]
        ((_, push, _),) = await fleet.waiting()
        assert push.parking == "released"
        await fleet.confirm()
        await fleet.look()
        assert await fleet.ends() == {"suppressed:delivered": 1}

    on(redis_url, scenario, policy=RetryPolicy(attempts_max=50, first_s=60, longest_s=60))


# ---- calls


def test_a_call_that_nobody_confirms_rings_all_the_same(redis_url: str) -> None:
    async def scenario(fleet: Fleet) -> None:
        channels = [Channel("apns", "main", "voip", 1, "voip")]
        await fleet.foreground(channels=channels)
        await fleet.stage.route(chat("m1", kind="call"))
        await fleet.look()
        assert await fleet.ends() == {"sent": 1}
        assert fleet.cloud.tokens == ["voip"]

    on(redis_url, scenario)


def test_a_call_that_is_confirmed_or_over_does_not_ring(redis_url: str) -> None:
    async def scenario(fleet: Fleet) -> None:
        await fleet.foreground()
        await fleet.stage.route(chat("m1", kind="call", sent_at_ms=now_ms() - 50))
        await fleet.confirm(now_ms() - 40)
        await fleet.stage.route(group("m2", "bob", kind="call"), group("m3", "bob", kind="call_cancel"))
        await fleet.look()
        assert await fleet.ends() == {"suppressed:delivered": 1, "suppressed:call_over": 2}

    on(redis_url, scenario)


def test_a_call_that_ends_while_it_is_parked_brings_no_quiet_end(redis_url: str) -> None:
    async def scenario(fleet: Fleet) -> None:
        await fleet.foreground()
        await fleet.stage.route(chat("m1", kind="call"))
        await fleet.stage.route(chat("m2", kind="call_cancel"))
        (first, _), (second, _) = await fleet.stage.delayed()
        assert first < second, "they are looked at one after the other"
        for _ in range(2):
            (identity, *_) = await fleet.stage.queue.call("ZRANGE", fleet.bench.keys.delayed, 0, 0)
            await fleet.stage.queue.call("ZADD", fleet.bench.keys.delayed, 1, identity)
            await fleet.work()
        assert await fleet.ends() == {"suppressed:call_over": 2}

    on(redis_url, scenario)


def test_a_call_whose_user_opens_the_app_while_it_waits_has_a_moment_to_be_confirmed(redis_url: str) -> None:
    async def scenario(fleet: Fleet) -> None:
        await fleet.background()
        await fleet.stage.route(chat("m1", kind="call"))
        await fleet.foreground()
        asked_ms = now_ms()
        await fleet.work()
        ((due_ms, push, _),) = await fleet.waiting()
        assert (push.parking, asked_ms + 3_000 <= due_ms <= now_ms() + 3_000) == ("parked", True)
        await fleet.look()
        assert await fleet.ends() == {"sent": 1}

    on(redis_url, scenario)


# ---- limits, expiry, trouble


def test_looks_take_no_permits_and_what_is_released_does(redis_url: str) -> None:
    async def scenario(fleet: Fleet) -> None:
        users = [f"u{number}" for number in range(40)]
        for user in users:
            await fleet.foreground(user)
        await fleet.background()
        await fleet.stage.route(*[chat(f"m-{user}", user) for user in users])
        for _ in range(3):
            await fleet.make_due()
            await fleet.bench.courier.claim()
            await fleet.bench.settled()
        assert fleet.cloud.tokens == []
        assert len(await fleet.waiting()) == len(users), "all of them were looked at, three times, within the burst"
        await fleet.stage.route(chat("m1"))
        await fleet.bench.courier.claim()
        await until(lambda: fleet.cloud.tokens == ["bob-phone"])
        for user in users:
            await fleet.background(user)
        await fleet.make_due()
        for _ in range(5):
            await fleet.bench.courier.claim()
            await fleet.bench.settled()
        assert 1 <= len(fleet.cloud.tokens) - 1 <= 6, "no more than the rate allows"
        assert await fleet.bench.finish() == {"sent": 41}

    on(redis_url, scenario, rate=Rate(20, 8))


def test_what_expires_unconfirmed_is_dropped_and_what_was_confirmed_is_not_called_so(redis_url: str) -> None:
    async def scenario(fleet: Fleet) -> None:
        await fleet.foreground()
        await fleet.stage.route(chat("m1", ttl_s=3), group("m2", "bob", ttl_s=3))
        expired_ms = now_ms() + 3_000
        await fleet.confirm(conversation="c1")
        await past(expired_ms)
        await fleet.work()
        assert await fleet.ends() == {"dropped:expired": 1, "suppressed:delivered": 1}

    on(redis_url, scenario)


def test_without_the_token_state_it_waits_on_and_expires_in_time(redis_url: str) -> None:
    async def scenario(fleet: Fleet) -> None:
        async def broken(entries: Sequence[Entry]) -> Rechecked:
            raise RuntimeError("no state")

        fleet.bench.courier._still_wanted._recheck = broken
        await fleet.foreground()
        await fleet.stage.route(chat("m1"), chat("m2", ttl_s=3))
        asked_ms = now_ms()
        await fleet.look()
        waiting = {push.message_id: due_ms for due_ms, push, _ in await fleet.waiting()}
        assert waiting.keys() == {"m1", "m2"}
        assert asked_ms + 2_000 <= waiting["m1"] <= now_ms() + 2_000
        await past(asked_ms + 3_000)
        await fleet.look()
        assert await fleet.ends() == {"dropped:expired": 1}
        assert fleet.cloud.tokens == []

    on(redis_url, scenario)


def test_a_user_whose_state_is_damaged_gets_a_push_too_many(redis_url: str) -> None:
    async def scenario(fleet: Fleet) -> None:
        await fleet.foreground()
        await fleet.stage.route(chat("m1"))
        await fleet.stage.queue.call("DEL", BOB.devices)
        await fleet.stage.queue.call("SET", BOB.devices, "not even a hash")
        await fleet.look()
        assert await fleet.ends() == {"sent": 1}

    on(redis_url, scenario)


@pytest.mark.parametrize("key", ["badges", "storms", "delivered", "reads"])
def test_a_user_whose_other_keys_are_damaged_costs_their_neighbours_nothing(redis_url: str, key: str) -> None:
    async def scenario(fleet: Fleet) -> None:
        for user in ("bob", "eve"):
            await fleet.foreground(user)
        await fleet.stage.route(group("m1", "bob", "eve"))
        await fleet.stage.queue.call("SET", getattr(BOB, key), "not even a hash")
        for user in ("bob", "eve"):
            await fleet.background(user, unread=3)
        await fleet.look()
        assert await fleet.ends() == {"sent": 2}
        shown = dict(zip(fleet.cloud.tokens, fleet.cloud.badges, strict=True))
        assert shown == {"bob-phone": -1 if key == "badges" else 4, "eve-phone": 4}

    on(redis_url, scenario, storm_waits_s=[10], reads=True)


def test_a_process_that_dies_with_it_in_hand_takes_nothing_along(redis_url: str) -> None:
    async def scenario(fleet: Fleet) -> None:
        await fleet.foreground()
        await fleet.stage.route(chat("m1"))
        other = a_ledger(fleet.bench.link, "dead")
        for _ in range(2):
            await fleet.make_due()
            claim = await other.claim(Want(parcels=10, deliveries=10, bulk_deliveries=10, suspect=True))
            assert len(claim.entries) == 1
            await fleet.bench.link.call("ZADD", fleet.bench.keys.owners, 1, "dead")
            assert await fleet.bench.courier.ledger.reap() == 1
        # Not even where an account drops what may have been sent.
        await fleet.work()
        ((_, push, (delivery,)),) = await fleet.waiting()
        assert (push.parking, delivery.tries) == ("parked", 0)
        ((_, entry),) = await fleet.stage.delayed()
        assert entry.lost == 0, "we survived it"
        await fleet.background()
        await fleet.look()
        assert await fleet.ends() == {"sent": 1}

    on(redis_url, scenario, policy=RetryPolicy(drop_unknown=True))


def test_what_may_have_left_before_it_was_parked_is_not_forgotten_to_have_done_so(redis_url: str) -> None:
    async def scenario(fleet: Fleet) -> None:
        await fleet.background()
        await fleet.stage.route(chat("m1"))
        claim = await a_ledger(fleet.bench.link, "dead").claim(Want(parcels=10, deliveries=10, bulk_deliveries=10))
        assert len(claim.entries) == 1
        await fleet.bench.link.call("ZADD", fleet.bench.keys.owners, 1, "dead")
        assert await fleet.bench.courier.ledger.reap() == 1
        await fleet.foreground()
        await fleet.work()
        await fleet.look()
        ((_, entry),) = await fleet.stage.delayed()
        assert (entry.parcel.push.parking, entry.lost, entry.parcel.deliveries[0].tries) == ("parked", 1, 1)

    on(redis_url, scenario)


def test_a_worker_that_is_stopped_while_it_asks_gives_back_what_is_parked(redis_url: str) -> None:
    async def scenario(fleet: Fleet) -> None:
        async def hanging(entries: Sequence[Entry]) -> Rechecked:
            await asyncio.sleep(3_600)
            raise AssertionError

        fleet.bench.courier._still_wanted._recheck = hanging
        await fleet.foreground()
        await fleet.stage.route(chat("m1"))
        await fleet.make_due()
        claiming = asyncio.create_task(fleet.bench.courier.claim())
        await until(lambda: fleet.bench.courier.busy)
        await fleet.bench.courier.stop(0.05)
        claiming.cancel()
        book = await fleet.bench.book()
        assert (book.ready, book.ends) == (1, {})

    on(redis_url, scenario, policy=RetryPolicy(drop_unknown=True))


# ---- what waited for something else


def test_whoever_opens_the_app_while_a_push_waits_parks_it(redis_url: str) -> None:
    async def scenario(fleet: Fleet) -> None:
        await fleet.background()
        await fleet.stage.route(chat("m1"))
        assert await _shown(fleet) == 1
        await fleet.foreground()
        asked_ms = now_ms()
        await fleet.work()
        ((due_ms, push, _),) = await fleet.waiting()
        assert (push.parking, asked_ms + 2_000 <= due_ms <= now_ms() + 2_000) == ("parked", True)
        assert await _shown(fleet) == 0, "what is parked is not what the device shows"
        await fleet.background()
        await fleet.look()
        assert await fleet.ends() == {"sent": 1}
        assert fleet.cloud.badges == [1], "it had been counted, and counts once"
        assert await _shown(fleet) == 1

    on(redis_url, scenario, recall_window_s=120)


async def _shown(fleet: Fleet) -> int:
    """How many devices are known to show something."""
    keys = await fleet.stage.queue.call("KEYS", f"{PREFIX}:{{r:*")
    return sum([await fleet.stage.queue.call("HLEN", key) for key in keys])


def test_where_parking_was_switched_off_what_lies_there_ends_as_ever(redis_url: str) -> None:
    async def scenario(fleet: Fleet) -> None:
        await fleet.foreground()
        await fleet.foreground("eve")
        await fleet.stage.route(chat("m1"), chat("m2", "eve"))
        plain = Rechecker(fleet.stage.queue, PREFIX, FleetClock(), "apns", "main")
        fleet.bench.courier._still_wanted._recheck = plain.recheck
        await fleet.background("eve")
        await fleet.look()
        assert await fleet.ends() == {"suppressed:foreground": 1, "sent": 1}

    on(redis_url, scenario)


# ---- storms and recalls


def said(number: int) -> Any:
    """A message of somebody's in the group."""
    return group(f"m{number}", "bob", sender=Sender(id=f"u{number}", name=f"User {number}"))


async def release_a_carrier(fleet: Fleet) -> None:
    """Of two messages that were parked the first goes, and the second waits to tell of what comes."""
    await fleet.foreground()
    await fleet.stage.route(said(0), said(1))
    await fleet.background()
    await fleet.look()
    ((_, carrier, _),) = await fleet.waiting()
    assert (carrier.later, carrier.parking) == ("storm", "released")


def test_many_that_are_released_together_are_told_by_few(redis_url: str) -> None:
    async def scenario(fleet: Fleet) -> None:
        await fleet.foreground()
        start_ms = now_ms() - 1_000
        await fleet.stage.route(*[replace(said(number), sent_at_ms=start_ms + number) for number in range(6)])
        await fleet.background(unread=2)
        await fleet.look()
        assert await fleet.bench.ends() == {"sent": 1, "suppressed:stormed": 4}
        ((_, carrier, _),) = await fleet.waiting()
        assert (carrier.later, carrier.parking) == ("storm", "released")
        await fleet.look()
        assert await fleet.ends() == {"sent": 2, "suppressed:stormed": 4}
        assert fleet.cloud.bodies == ["User 0: Lunch?", "User 5 and 4 others in Team"]
        assert fleet.cloud.badges[1] == 8, "all six count"

    on(redis_url, scenario, storm_waits_s=[10, 20])


def test_a_chat_in_the_foreground_starts_no_storm(redis_url: str) -> None:
    async def scenario(fleet: Fleet) -> None:
        await fleet.foreground()
        await fleet.stage.route(*[said(number) for number in range(6)])
        await fleet.confirm()
        await fleet.look()
        await fleet.background()
        await fleet.stage.route(said(7))
        await fleet.work()
        assert await fleet.ends() == {"suppressed:delivered": 6, "sent": 1}

    on(redis_url, scenario, storm_waits_s=[10, 20])


def test_a_carrier_that_is_parked_tells_of_what_was_not_confirmed(redis_url: str) -> None:
    async def scenario(fleet: Fleet) -> None:
        start_ms = now_ms() - 1_000
        await fleet.background()
        await fleet.stage.route(*[replace(said(number), sent_at_ms=start_ms + number) for number in range(6)])
        await fleet.work()
        assert await fleet.bench.ends() == {"sent": 1}
        await fleet.foreground()
        await fleet.look()
        ((_, carrier, _),) = await fleet.waiting()
        assert (carrier.later, carrier.parking) == ("storm", "parked")
        await fleet.confirm(start_ms + 3, conversation="g1")
        await fleet.background()
        await fleet.look()
        assert await fleet.ends() == {"sent": 2}
        assert fleet.cloud.bodies[1] == "User 5 and 1 others in Team"

    on(redis_url, scenario, storm_waits_s=[10, 20])


def test_a_parked_carrier_holds_as_long_as_what_it_tells_of(redis_url: str) -> None:
    async def scenario(fleet: Fleet) -> None:
        start_ms = now_ms()
        await fleet.background()
        await fleet.stage.route(said(0), said(1), said(2))
        await fleet.work()
        ((_, carrier),) = await fleet.stage.delayed()
        expired = replace(carrier.parcel.push, expires_at_ms=now_ms() - 1)
        packed = pack(Entry(carrier.id, Parcel(expired, carrier.parcel.deliveries), carrier.lane, carrier.put_ms))
        await fleet.stage.queue.call("HSET", fleet.bench.keys.delayed_entries, carrier.id, packed)
        await fleet.foreground()
        for _ in range(2):
            await fleet.look()
            ((_, push, _),) = await fleet.waiting()
            assert (push.later, push.parking) == ("storm", "parked")
            assert push.expires_at_ms > start_ms + 80_000_000, "the other makes sense for a day"
        await fleet.background()
        await fleet.look()
        assert await fleet.ends() == {"sent": 2}
        assert fleet.cloud.bodies[1] == "User 2 and 1 others in Team"

    on(redis_url, scenario, storm_waits_s=[10, 20])


def test_a_parked_carrier_that_is_taken_back_still_tells_of_the_others(redis_url: str) -> None:
    async def scenario(fleet: Fleet) -> None:
        await fleet.background()
        await fleet.stage.route(*[said(number) for number in range(4)])
        await fleet.work()
        ((_, carrier, _),) = await fleet.waiting()
        await fleet.foreground()
        await fleet.stage.recall(carrier.message_id)
        await fleet.look()
        assert len(await fleet.waiting()) == 1
        await fleet.background()
        await fleet.look()
        assert await fleet.ends() == {"sent": 2}
        assert fleet.cloud.bodies[1] == "2 new messages"

    on(redis_url, scenario, storm_waits_s=[10, 20], recall_window_s=120)


def test_a_carrier_all_of_which_was_confirmed_is_not_sent(redis_url: str) -> None:
    async def scenario(fleet: Fleet) -> None:
        await fleet.background()
        await fleet.stage.route(*[said(number) for number in range(6)])
        await fleet.work()
        await fleet.foreground()
        await fleet.look()
        await fleet.confirm(conversation="g1")
        await fleet.look()
        assert await fleet.ends() == {"sent": 1, "suppressed:delivered": 1}

    on(redis_url, scenario, storm_waits_s=[10, 20])


def test_a_confirmation_does_not_reach_what_a_carrier_tells_of_that_was_never_parked(redis_url: str) -> None:
    async def scenario(fleet: Fleet) -> None:
        await release_a_carrier(fleet)
        await fleet.stage.route(said(2), said(3))
        await fleet.confirm()
        await fleet.look()
        assert await fleet.bench.ends() == {"sent": 2}
        assert fleet.cloud.bodies[1].endswith(" and 2 others in Team")

    on(redis_url, scenario, storm_waits_s=[10, 20])


def test_a_confirmation_stops_a_released_carrier_of_itself_alone(redis_url: str) -> None:
    async def scenario(fleet: Fleet) -> None:
        await release_a_carrier(fleet)
        await fleet.confirm()
        await fleet.look()
        assert await fleet.ends() == {"sent": 1, "suppressed:delivered": 1}

    on(redis_url, scenario, storm_waits_s=[10, 20])


def test_a_recall_stops_what_is_parked_and_still_finds_what_is_shown(redis_url: str) -> None:
    async def scenario(fleet: Fleet) -> None:
        await fleet.background()
        await fleet.stage.route(chat("m0"))
        await fleet.work()
        await fleet.foreground()
        await fleet.stage.route(chat("m1"))
        await fleet.background()
        await fleet.stage.recall("m1")
        await fleet.stage.recall("m0")
        await fleet.look()
        ends = await fleet.ends()
        assert ends == {"sent": 2, "suppressed:recalled": 1}, "m0, and what takes it back"
        assert await fleet.stage.suppressed() == {"not_shown": 1}, "nothing of m1"

    on(redis_url, scenario, recall_window_s=120)


def test_what_was_released_can_be_taken_back(redis_url: str) -> None:
    async def scenario(fleet: Fleet) -> None:
        await fleet.foreground()
        await fleet.stage.route(chat("m1"))
        await fleet.background()
        await fleet.look()
        await fleet.stage.recall("m1")
        await fleet.work()
        assert await fleet.ends() == {"sent": 2}

    on(redis_url, scenario, recall_window_s=120)


def test_what_the_user_hides_meanwhile_is_hidden(redis_url: str) -> None:
    async def scenario(fleet: Fleet) -> None:
        await fleet.foreground()
        await fleet.stage.route(chat("m1", Recipient(id="bob", unread=17)))
        await fleet.background()
        packed = repack_preferences(None, Preferences(hide_text=True))
        await fleet.stage.queue.call("HSET", BOB.options, PREFERENCES_FIELD, packed)
        await fleet.look()
        assert fleet.cloud.bodies == ["You have a new message"]
        assert fleet.cloud.badges == [17]

    on(redis_url, scenario)
