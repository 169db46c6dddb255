"""An erased user leaves nothing behind, and nobody else notices."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest
from tests.workers.erasure.support import (
    ACCOUNT,
    OPTIONS,
    claimed,
    dead,
    desk_of,
    die,
    everything,
    keeper_of,
    look_until_ripe,
    store_of,
    traces,
)
from tests.workers.ledger.support import an_entry
from tests.workers.routing import PREFIX, Stage, chat, group, now_ms, play

from pushfleet import Conversation, OfflineMessage
from pushfleet.message import Lane
from pushfleet.wire import decode_message
from pushfleet_workers.audit import Books
from pushfleet_workers.erasure.ledgers import LedgerErasure, Swept
from pushfleet_workers.erasure.sought import Sought
from pushfleet_workers.errors import RedisUnusable
from pushfleet_workers.ingress import IngressKeys
from pushfleet_workers.ingress.refused import Readmission, RefusedEntries
from pushfleet_workers.ledger import DeadLetters, pack, unpack
from pushfleet_workers.ledger.ledger import Settlement, Want
from pushfleet_workers.receipts.book import Entry as Receipt
from pushfleet_workers.receipts.book import ReceiptBook
from pushfleet_workers.receipts.receipt import Event
from pushfleet_workers.reports import ReportKeys
from pushfleet_workers.settings import DeathsSettings
from pushfleet_workers.tokens.changes import ChannelGiven, Registration
from pushfleet_workers.tokens.confirmations import Confirmation, ConfirmationStore
from pushfleet_workers.tokens.death_log import log_key
from pushfleet_workers.tokens.deaths import Deaths
from pushfleet_workers.tokens.erasures import Erasures
from pushfleet_workers.tokens.keys import UserKeys
from pushfleet_workers.tokens.reads import ReadStore
from pushfleet_workers.tokens.tombstones import Death, Fate

PLAIN, STRANGE = "vic-7f3a", "Vić/7f3a {x}"
TOKEN, OTHER_TOKEN = "5ec2e7a0" * 8, "0b5e55ed" * 8
SECRET, SHARED = "only-for-vic-1b2c", "for-all-of-the-team-3d4e"


def on(url: str, scenario: Callable[[Stage], Awaitable[None]]) -> None:
    play(url, scenario, **OPTIONS)


async def register(stage: Stage, user: str, token: str = "", device: str = "phone", **more: Any) -> None:
    """A device by the front door, so that the index knows its token."""
    channel = ChannelGiven(vendor="apns", credential="main", token=token or f"token-of-{user}-{device}")
    given = Registration(channels=(channel,), **{"state": "background", **more})
    await store_of(stage).register("demo", user, device, given)


def secret(identity: str, user: str, **changes: Any) -> OfflineMessage:
    """A message to one user alone, with a text of its own."""
    conversation = Conversation(id=f"c-{identity}")
    return chat(identity, user, **{"conversation": conversation, "body": f"{SECRET} {identity}", **changes})


async def fill_state(stage: Stage, user: str) -> None:
    """All that the token state may know of a user."""
    link = stage.queue
    await register(stage, user, TOKEN)
    await register(stage, user, OTHER_TOKEN, "pad", state="foreground")
    store = store_of(stage)
    await store.set_receive_option("demo", user, "c-muted", "none")
    await ReadStore(link, PREFIX, now_ms).mark("demo", user, "c-read", 1_000)
    await ConfirmationStore(link, PREFIX).confirm("demo", [Confirmation(user=user, device="pad", up_to_ms=1_000)])
    keys = UserKeys(PREFIX, "demo", user)
    for key in (keys.storms, keys.days, keys.calls):
        await link.call("HSET", key, "anything", "at all")
    deaths = Deaths(link, PREFIX, DeathsSettings(), now_ms)
    for token, fate in (("old-" + TOKEN, Fate.DROPPED), ("odd-" + TOKEN, Fate.QUARANTINED)):
        await register(stage, user, token, token)
        assert await deaths.bury("demo", [Death(user, token, "apns", token, 0, 2**50, fate, 2**50)])


async def fill_queues(stage: Stage, user: str) -> None:
    """Work and letters in all places of a ledger, some of it shared with others."""
    link = stage.queue
    for other in ("ann", "bea"):
        await register(stage, other)
    everybody = ("ann", user, "bea")
    # Dead letters, one of which others share.
    await stage.route(secret("d1", user), group("d2", *everybody, body=SHARED))
    ledger, entries = await claimed(stage)
    await ledger.settle([dead(one, pack(one)) for one in entries])
    # Tried and to be tried again.
    await stage.route(secret("r1", user))
    ledger, (retried,) = await claimed(stage)
    later = Settlement(retried.id, retried.fence, len(retried.parcel.deliveries), later=[(600_000, pack(retried))])
    await ledger.settle([later])
    # A suspect, which processes died with.
    await stage.route(secret("s1", user))
    for name in ("w1", "w2"):
        await claimed(stage, name)
        await die(stage, name)
    # Stormed and parked; and ready, alone and among others.
    await stage.route(*(group(f"g{number}", *everybody, body=SHARED) for number in range(3)))
    await stage.route(chat("h1", *everybody, conversation=Conversation(id="g2", kind="group"), body=SHARED))
    await stage.route(secret("r2", user), secret("r3", user, lane="bulk"), secret("r4", user, kind="call"))
    # What others have been told of: receipts, and what could not be read.
    await ReceiptBook(link, PREFIX, now_ms, kept=1_000).record(
        "demo",
        [Receipt(Event.DELIVERED, now_ms(), message_id=f"m-{one}", user=one, device="phone") for one in everybody],
    )
    for to, text in ((user, SECRET), ("ann", SHARED)):
        await stage.xadd("v", "1", "m", json.dumps({"app": "demo", "recipients": [to], "kind": 7, "body": text}))
    await stage.route()
    # And what is known only of messages: still in front of the routers.
    stage.enqueue(secret("q1", user), group("q2", *everybody, body=SHARED))


def put_of(books: Books) -> int:
    return sum(account.put for account in books.accounts.values())


@pytest.mark.parametrize("user", [PLAIN, STRANGE])
def test_no_key_holds_name_token_or_text_of_an_erased_user(redis_url: str, user: str) -> None:
    async def scenario(stage: Stage) -> None:
        await fill_state(stage, user)
        await fill_queues(stage, user)
        _, in_hand = await claimed(stage, "w9", Want(2, 10, 10, suspect=False))
        assert user in {one.user for entry in in_hand for one in entry.parcel.deliveries}
        places = {key.removeprefix(ACCOUNT.root.encode()) for key in await traces(stage.queue, SECRET)}
        assert places >= {b":dead", b":suspect", b":delayed:entries", b":leased:w9", b":ready:normal", b":ready:bulk"}
        words = (user, UserKeys(PREFIX, "demo", user).owner, TOKEN, OTHER_TOKEN, SECRET)
        erasing = await desk_of(stage).erase("demo", user)
        assert erasing.known
        known = set(await traces(stage.queue, UserKeys(PREFIX, "demo", user).owner))
        assert known == {f"{PREFIX}:{{erasures}}".encode()}, "the token state goes at once, index and ward as well"
        assert log_key(PREFIX, "demo").encode() in await traces(stage.queue, user)
        assert (await stage.books()).balanced

        assert await look_until_ripe(stage) == (1, 0), "some is in front of the routers, and some in hand"
        assert (await stage.books()).balanced
        await stage.route()
        assert await look_until_ripe(stage) == (1, 0), "some is in hand still"
        await die(stage, "w9")
        assert await look_until_ripe(stage) == (1, 1)

        assert await traces(stage.queue, *words) == {}
        books = await stage.books()
        assert books.balanced
        assert await stage.joined()
        assert (await store_of(stage).user("demo", user)).erasing_since_ms == 0
        ends = books.accounts["apns:main"].ends
        assert {name for name in ends if "user_erased" in name} == {
            f"{lane}:suppressed:user_erased" for lane in ("urgent", "normal", "bulk")
        }

    on(redis_url, scenario)


def test_what_is_claimed_before_its_ledger_is_walked_is_waited_for(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(stage: Stage) -> None:
        await register(stage, PLAIN)
        await stage.route(secret("m1", PLAIN))
        await desk_of(stage).erase("demo", PLAIN)
        sweep = LedgerErasure.sweep

        async def sweep_after_a_claim(ledger: LedgerErasure, sought: Sought) -> Swept:
            await claimed(stage, "w9")
            return await sweep(ledger, sought)

        with monkeypatch.context() as patched:
            patched.setattr(LedgerErasure, "sweep", sweep_after_a_claim)
            assert await look_until_ripe(stage) == (1, 0), "whoever is back would get it if its worker died"
        await die(stage, "w9")
        assert await look_until_ripe(stage) == (1, 1)
        assert await traces(stage.queue, PLAIN, SECRET) == {}

    on(redis_url, scenario)


def test_the_others_in_the_same_parcels_letters_and_messages_keep_theirs(redis_url: str) -> None:
    async def theirs(stage: Stage) -> dict[str, list[tuple[str, bytes]]]:
        """Deliveries of the others, by where they are."""
        delayed = [entry for _, entry in await stage.delayed()]
        letters = [one async for page in DeadLetters(stage.queue, ACCOUNT).oldest_first() for one in page]
        places = {
            "ready": await stage.entries(),
            "delayed": delayed,
            "dead": [unpack(one.entry) for one in letters],
        }
        return {
            place: sorted(
                (f"{one.user} {entry.parcel.push.message_id} {entry.parcel.push.body}", one.id)
                for entry in entries
                for one in entry.parcel.deliveries
                if one.user != PLAIN
            )
            for place, entries in places.items()
        }

    async def scenario(stage: Stage) -> None:
        await fill_state(stage, PLAIN)
        await fill_queues(stage, PLAIN)
        before = await theirs(stage)
        assert all(before.values())
        waits = {entry.id: due for due, entry in await stage.delayed()}
        await desk_of(stage).erase("demo", PLAIN)
        await look_until_ripe(stage)
        assert await theirs(stage) == before
        assert {entry.id: due for due, entry in await stage.delayed()}.items() <= waits.items()
        receipts = await stage.queue.call("XRANGE", f"{PREFIX}:{{receipts:demo}}", "-", "+")
        assert [dict(zip(one[1][::2], one[1][1::2], strict=True))[b"user"] for one in receipts] == [b"ann", b"bea"]
        assert [one["m"] for one in await stage.refused()] == [
            json.dumps({"app": "demo", "recipients": ["ann"], "kind": 7, "body": SHARED})
        ]
        kept = [one async for page in DeadLetters(stage.queue, ACCOUNT).oldest_first() for one in page]
        assert all(one.died_ms <= int(one.place.partition("-")[0]) for one in kept)

    on(redis_url, scenario)


def test_a_recall_still_reaches_the_others(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        for user in (PLAIN, "ann"):
            await register(stage, user)
        await stage.route(group("m1", PLAIN, "ann", body=SHARED), secret("m2", PLAIN))
        await desk_of(stage).erase("demo", PLAIN)
        assert await look_until_ripe(stage) == (1, 1)
        assert await traces(stage.queue, PLAIN, SECRET) == {}
        await claimed(stage)
        await stage.recall("m1")
        assert [
            (one.user, entry.parcel.push.recall) for entry in await stage.entries() for one in entry.parcel.deliveries
        ] == [("ann", True)]

    on(redis_url, scenario)


def test_erasing_twice_and_erasing_nobody_change_nothing_more(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        await fill_state(stage, PLAIN)
        await fill_queues(stage, PLAIN)
        await stage.route()
        desk = desk_of(stage)
        assert (await desk.erase("demo", PLAIN)).known
        await look_until_ripe(stage)
        once = (await stage.books()).accounts
        assert not (await desk.erase("demo", PLAIN)).known
        assert not (await desk.erase("demo", "nobody")).known
        while (await Erasures(stage.queue, PREFIX).waiting())[0]:
            await keeper_of(stage).look()
        assert (await stage.books()).accounts == once
        assert await traces(stage.queue, PLAIN, TOKEN, SECRET, "nobody") == {}

    on(redis_url, scenario)


def test_who_registers_again_at_once_gets_what_comes_from_then_on_and_nothing_older(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        await fill_state(stage, PLAIN)
        await fill_queues(stage, PLAIN)
        await desk_of(stage).erase("demo", PLAIN)
        await register(stage, PLAIN, "the-new-token")
        stage.enqueue(secret("n1", PLAIN, body="welcome"))
        # What is in front of the routers since before is older than a second when they come to it.
        for lane, stream in stage.streams.items():
            for raw in await stage.read(lane):
                raw.again = True
                await stage.router.route(stream, [raw])
        assert (await stage.suppressed())["user_erased"] == 2
        while (await store_of(stage).user("demo", PLAIN)).erasing_since_ms:
            await look_until_ripe(stage)
        assert await traces(stage.queue, SECRET, TOKEN) == {}
        assert [
            (entry.parcel.push.message_id, one.token)
            for entry in await stage.entries()
            for one in entry.parcel.deliveries
            if one.user == PLAIN
        ] == [("n1", "the-new-token")]
        assert await store_of(stage).owner("demo", "apns", "the-new-token") == f"demo:{PLAIN}"
        assert (await stage.books()).balanced

    on(redis_url, scenario)


def test_what_broke_off_anywhere_is_brought_to_its_end(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(stage: Stage) -> None:
        await fill_state(stage, PLAIN)
        before = await everything(stage.queue)

        async def die_now(*_: object) -> None:
            raise KeyboardInterrupt

        for module, step in (
            ("tokens.store.TokenStore", "_disown"),
            ("tokens.ward.Ward", "leave"),
            ("tokens.tombstones.Tombstones", "forget"),
            ("tokens.erasures.Erasures", "forgotten"),
        ):
            with monkeypatch.context() as patch:
                patch.setattr(f"pushfleet_workers.{module}.{step}", die_now)
                with pytest.raises(KeyboardInterrupt):
                    await desk_of(stage).erase("demo", PLAIN)
        # Nobody asks again, so the keeper does.
        key = f"{PREFIX}:{{erasures}}"
        for name in (f"demo:{PLAIN}", f"again demo:{PLAIN}"):
            await stage.queue.call("ZADD", key, "XX", -(now_ms() - 120_000), name)
        await keeper_of(stage).look()
        assert await look_until_ripe(stage) == (1, 1)
        assert before
        assert await traces(stage.queue, PLAIN, TOKEN, OTHER_TOKEN) == {}

    on(redis_url, scenario)


@pytest.mark.parametrize("step", ["tokens.store.TokenStore.forget_user", "tokens.erasures.Erasures.forgotten"])
def test_one_that_broke_off_beside_an_earlier_one_is_brought_to_its_end_as_well(
    redis_url: str, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    async def die_now(*_: object) -> None:
        raise KeyboardInterrupt

    async def scenario(stage: Stage) -> None:
        # In front of the routers: the first erasure is held up by it.
        stage.enqueue(secret("m1", PLAIN))
        first_ms = (await desk_of(stage).erase("demo", PLAIN)).since_ms
        await register(stage, PLAIN, TOKEN)
        stage.enqueue(secret("m2", PLAIN))
        with monkeypatch.context() as patch:
            patch.setattr(f"pushfleet_workers.{step}", die_now)
            with pytest.raises(KeyboardInterrupt):
                await desk_of(stage).erase("demo", PLAIN)
        erasures, owner = Erasures(stage.queue, PREFIX), ("demo", PLAIN)
        assert await erasures.until_ms([owner]) == {owner: first_ms}, "the first goes on to hold"
        # The first is not told as done while the second is not.
        await erasures.done({owner: first_ms})
        assert (await store_of(stage).user("demo", PLAIN)).erasing_since_ms == first_ms
        await stage.queue.call("ZADD", f"{PREFIX}:{{erasures}}", "XX", -(now_ms() - 120_000), f"again demo:{PLAIN}")
        await keeper_of(stage).look()
        assert (await store_of(stage).user("demo", PLAIN)).devices == {}
        assert (await erasures.until_ms([owner]))[owner] > first_ms
        assert (await erasures.pending()).begun == {}
        await stage.route()
        while (await erasures.waiting())[0]:
            await keeper_of(stage).look()
        assert await traces(stage.queue, PLAIN, TOKEN, SECRET) == {}

    on(redis_url, scenario)


def test_erasures_beside_each_other_end_whichever_comes_first(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        erasures, owner = Erasures(stage.queue, PREFIX), ("demo", PLAIN)
        for begun_ms in (1_000, 2_000, 3_000):
            await erasures.begin(*owner, begun_ms)
        assert await erasures.pending() == ({}, {owner: 3_000})
        await erasures.forgotten(*owner, 2_000, 2_500)
        assert await erasures.pending() == ({owner: 2_500}, {owner: 3_000}), "the last began later"
        await erasures.forgotten(*owner, 3_000, 3_500)
        assert await erasures.pending() == ({owner: 3_500}, {})
        await erasures.forgotten(*owner, 1_000, 1_500)
        assert await erasures.pending() == ({owner: 3_500}, {})
        await erasures.done({owner: 3_500})
        assert await erasures.waiting() == (0, 0)

    on(redis_url, scenario)


def test_a_router_that_had_looked_before_is_waited_for(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(stage: Stage) -> None:
        await register(stage, PLAIN)
        put, reached, go_on = stage.router._put, asyncio.Event(), asyncio.Event()

        async def slowly(jobs: Any) -> None:
            reached.set()
            await go_on.wait()
            await put(jobs)

        monkeypatch.setattr(stage.router, "_put", slowly)
        routing = asyncio.create_task(stage.route(secret("m1", PLAIN)))
        await reached.wait()
        await desk_of(stage).erase("demo", PLAIN)
        assert await look_until_ripe(stage) == (1, 0)
        go_on.set()
        await routing
        assert await traces(stage.queue, SECRET) != {}
        assert await look_until_ripe(stage) == (1, 1)
        assert await traces(stage.queue, PLAIN, SECRET) == {}
        assert (await stage.books()).balanced

    on(redis_url, scenario)


def test_a_letter_that_is_too_old_is_not_written_anew(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        for user in (PLAIN, "ann"):
            await register(stage, user)
        await stage.route(group("m1", PLAIN, "ann", body=SHARED))
        ledger, (entry,) = await claimed(stage)
        await ledger.settle([dead(entry, pack(entry))])
        ((_, fields),) = await stage.queue.call("XRANGE", ACCOUNT.dead, "-", "+")
        month_ago = str(now_ms() - 31 * 86_400_000)
        await stage.queue.call("XTRIM", ACCOUNT.dead, "MAXLEN", 0)
        await stage.queue.call("XADD", ACCOUNT.dead, "*", "died", month_ago, *fields)
        await desk_of(stage).erase("demo", PLAIN)
        assert await look_until_ripe(stage) == (1, 1)
        assert await stage.queue.call("XLEN", ACCOUNT.dead) == 0
        assert (await stage.books()).balanced

    on(redis_url, scenario)


def test_a_letter_that_cannot_be_read_goes_with_the_user_that_it_names(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        for user in (PLAIN, "ann"):
            damaged = pack(an_entry("m1"))[:37] + b"\xc1" + msgspec.msgpack.encode(user)
            await stage.queue.call("XADD", ACCOUNT.dead, "*", "entry", damaged, "reason", "undecodable", "attempts", 0)
        await desk_of(stage).erase("demo", PLAIN)
        assert await look_until_ripe(stage) == (1, 1)
        ((_, fields),) = await stage.queue.call("XRANGE", ACCOUNT.dead, "-", "+")
        assert b"ann" in fields[1]
        assert await traces(stage.queue, PLAIN) == {}

    on(redis_url, scenario)


def test_reports_that_no_api_could_read_go_with_the_user_that_they_name(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        refused = ReportKeys(PREFIX).refused
        for user in (PLAIN, "ann"):
            await stage.queue.call("XADD", refused, "*", "problem", "x", "app", "demo", "user", user, "state", "asleep")
            several = json.dumps([{"user": user, "state": "asleep"}])
            await stage.queue.call("XADD", refused, "*", "problem", "x", "app", "demo", "reports", several)
        await desk_of(stage).erase("demo", PLAIN)
        assert await look_until_ripe(stage) == (1, 1)
        assert await stage.queue.call("XLEN", refused) == 2
        assert await traces(stage.queue, PLAIN) == {}

    on(redis_url, scenario)


def test_long_lanes_are_walked_page_by_page_and_keep_their_order(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        for user in (PLAIN, "ann"):
            await register(stage, user)
        await stage.route(*(secret(f"m{number}", (PLAIN, "ann")[number % 3 > 0]) for number in range(330)))
        await desk_of(stage).erase("demo", PLAIN)
        assert await look_until_ripe(stage) == (1, 1)
        assert [entry.parcel.push.message_id for entry in await stage.entries()] == [
            f"m{number}" for number in range(330) if number % 3
        ]
        assert (await stage.books()).balanced

    on(redis_url, scenario)


def test_a_full_redis_takes_an_erasure_and_carries_it_out(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        await fill_state(stage, PLAIN)
        await fill_queues(stage, PLAIN)
        await stage.route()
        await stage.queue.call("CONFIG", "SET", "maxmemory", 1)
        try:
            with pytest.raises(RedisUnusable):
                await stage.queue.call("SET", "anything", "at all")
            await desk_of(stage).erase("demo", PLAIN)
            assert await look_until_ripe(stage) == (1, 1)
        finally:
            await stage.queue.call("CONFIG", "SET", "maxmemory", 0)
        assert await traces(stage.queue, PLAIN, TOKEN, SECRET) == {}
        assert SHARED.encode() in b"".join((await everything(stage.queue)).values())
        assert (await stage.books()).balanced

    on(redis_url, scenario)


def test_a_refused_message_to_several_loses_one_recipient_and_can_be_put_back(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        for user in (PLAIN, "ann"):
            await register(stage, user)
        lane: Lane = "normal"
        stream = stage.streams[lane]
        stage.enqueue(group("m1", PLAIN, "ann", body=SHARED), secret("m2", PLAIN))
        for raw in await stage.read():
            await stream.refuse(raw, "unroutable", "by a defect")
        await desk_of(stage).erase("demo", PLAIN)
        assert await look_until_ripe(stage) == (1, 1)
        assert await traces(stage.queue, PLAIN, SECRET) == {}
        (left,) = [one async for page in RefusedEntries(stage.queue, stream.keys).oldest_first() for one in page]
        assert decode_message(left.payload).recipients == ("ann",)
        assert (left.reason, left.written_ms > 0) == ("unroutable", True)
        back = Readmission(left.place, left.came_ms, left.version, left.name, left.payload)
        assert await RefusedEntries(stage.queue, IngressKeys(PREFIX, lane)).readmit([back]) == []
        await stage.route()
        assert [one.user for one in await stage.deliveries()] == ["ann"]
        assert (await stage.books()).balanced

    on(redis_url, scenario)


async def readmit_all(stage: Stage, lane: Lane = "normal") -> None:
    """Put back what was refused, as a replay does."""
    entries = RefusedEntries(stage.queue, IngressKeys(PREFIX, lane))
    found = [one async for page in entries.oldest_first() for one in page]
    assert await entries.readmit([Readmission(e.place, e.came_ms, e.version, e.name, e.payload) for e in found]) == []


def test_what_was_refused_before_and_comes_back_meanwhile_is_not_for_who_is_back(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        stream = stage.streams["normal"]
        for user in (PLAIN, "ann"):
            await register(stage, user)
        stage.enqueue(group("m1", PLAIN, "ann", body=SHARED))
        for raw in await stage.read():
            await stream.refuse(raw, "unroutable", "by a defect")
        await desk_of(stage).erase("demo", PLAIN)
        await register(stage, PLAIN)
        await readmit_all(stage)
        await stage.route()
        assert [one.user for one in await stage.deliveries()] == ["ann"]
        assert await stage.suppressed() == {"user_erased": 1}
        assert (await stage.books()).balanced

    on(redis_url, scenario)


def test_it_is_waited_for_what_came_back_to_the_routers_and_what_they_refuse_again_goes(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        stream, keeper = stage.streams["normal"], keeper_of(stage)
        await register(stage, PLAIN)
        stage.enqueue(secret("m1", PLAIN))
        for raw in await stage.read():
            await stream.refuse(raw, "unroutable", "by a defect")
        await desk_of(stage).erase("demo", PLAIN)
        await readmit_all(stage)
        while not (look := await keeper.look())[0]:
            pass
        assert look == (1, 0), "routers have not seen it yet"
        for raw in await stage.read():
            await stream.refuse(raw, "unroutable", "by the same defect")
        assert await keeper.look() == (1, 1)
        assert await traces(stage.queue, PLAIN, SECRET) == {}

    on(redis_url, scenario)


def test_a_user_of_another_app_with_the_same_id_stays(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        await register(stage, PLAIN)
        await stage.device(PLAIN, credential="lite", app="lite")
        await stage.route(secret("m1", PLAIN), secret("m2", PLAIN, app="lite", body="in-the-other-app"))
        await desk_of(stage).erase("demo", PLAIN)
        assert await look_until_ripe(stage) == (1, 1)
        assert await traces(stage.queue, SECRET) == {}
        assert [one.user for one in await stage.deliveries(credential="lite")] == [PLAIN]
        assert list((await store_of(stage).user("lite", PLAIN)).devices) == ["phone"]

    on(redis_url, scenario)
