"""What a worker finds out about recalls before it sends: of queued messages, and of recalls that waited themselves."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from msgspec.structs import replace
from tests.workers.routing import PREFIX, RECALLS, Stage, chat, group, now_ms, play

from pushfleet import OfflineMessage, Target
from pushfleet.message import Recall
from pushfleet.wire import decode_recall
from pushfleet_workers.clock import FleetClock
from pushfleet_workers.dead_letters.letter import letter_of_parcel
from pushfleet_workers.dead_letters.renewal import Renewed, Terms, renewed
from pushfleet_workers.ledger import AccountKeys, DeadLetter, Entry, pack, unpack
from pushfleet_workers.recall.keys import message_key, screen_key
from pushfleet_workers.recheck import Rechecker
from pushfleet_workers.redis_link import LinkLost
from pushfleet_workers.tokens.record import FOREGROUND, Channel


def on(url: str, scenario: Callable[[Stage], Awaitable[None]]) -> None:
    """Play with recalls switched on for the app."""
    play(url, scenario, apps=RECALLS)


async def ends(stage: Stage, entries: list[Entry], *, recalls: bool = True) -> dict[tuple[str, bool], list[str]]:
    """By message and whether it is a recall, what a recheck says of its deliveries; empty: it may be sent."""
    checker = Rechecker(stage.queue, PREFIX, FleetClock(), "apns", "main", recall_window_s=120 * recalls)
    refused = (await checker.recheck(entries)).refused
    found: dict[tuple[str, bool], list[str]] = {}
    for entry in entries:
        push = entry.parcel.push
        found.setdefault((push.message_id, push.recall), []).extend(
            refused.get(one.id, "") for one in entry.parcel.deliveries
        )
    return found


def test_queued_work_of_a_recalled_message_is_stopped_and_nothing_replaces_it(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.device("a")
        await stage.device("b")
        await stage.route(group("m1", "a", "b"), chat("m2", "a"))
        await stage.recall("m1")
        found = await ends(stage, await stage.entries())
        assert found == {
            ("m1", False): ["recalled", "recalled"],
            ("m1", True): ["not_shown", "not_shown"],
            ("m2", False): [""],
        }

    on(redis_url, scenario)


def test_a_damaged_key_of_one_message_does_not_spare_the_others(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.device("a")
        await stage.device("b")
        await stage.route(chat("m1", "a"), chat("m2", "b"), chat("m3", "a", replace_key="other"))
        await stage.recall("m2")
        await stage.recall("m3")
        for key in (message_key(PREFIX, "demo", "m1"), screen_key(PREFIX, "demo", "m3", "other")):
            await stage.queue.pipeline([("DEL", key), ("SET", key, "not a hash")])
        found = await ends(stage, await stage.entries())
        assert found[("m1", False)] == [""]
        assert found[("m2", False)] == ["recalled"]
        assert found[("m3", True)] == ["not_shown"]

    on(redis_url, scenario)


@pytest.mark.parametrize("trouble", ["full", "gone"])
def test_what_is_stopped_stays_so_where_nothing_can_be_written_down(
    redis_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, trouble: str
) -> None:
    async def away(calls: object) -> None:
        raise LinkLost("the connection to Redis broke")

    async def scenario(stage: Stage) -> None:
        await stage.device("a")
        await stage.device("b")
        await stage.route(chat("m1", "a"), chat("m2", "b"))
        await stage.recall("m1")
        entries = await stage.entries()
        for entry in entries:
            entry.parcel.push = replace(entry.parcel.push, later="held")
        if trouble == "full":
            await stage.queue.call("CONFIG", "SET", "maxmemory", 1)
        else:
            monkeypatch.setattr(stage.queue, "run_many", away)
        try:
            found = await ends(stage, entries)
        finally:
            await stage.queue.call("CONFIG", "SET", "maxmemory", 0)
        assert found == {("m1", False): ["recalled"], ("m1", True): ["not_shown"], ("m2", False): [""]}
        assert "it cannot be noted what goes" in caplog.text

    on(redis_url, scenario)


def test_a_recall_that_is_claimed_after_its_message_was_stopped_is_stopped_too(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.device()
        await stage.route(chat("m1"))
        await stage.recall("m1")
        message, recall = await stage.entries()
        assert await ends(stage, [message]) == {("m1", False): ["recalled"]}
        assert await ends(stage, [recall]) == {("m1", True): ["not_shown"]}

    on(redis_url, scenario)


def test_a_call_that_is_taken_back_and_over_was_taken_back(redis_url: str) -> None:
    """Nothing is said of it but that: what was taken back is `recalled`, whatever else speaks against it."""

    async def scenario(stage: Stage) -> None:
        await stage.device(channels=[Channel("apns", "main", "alert", 1), Channel("apns", "main", "voip", 1, "voip")])
        await stage.route(chat("ring", kind="call"), chat("end", kind="call_cancel"))
        ring, end = await stage.entries()
        # Stopped before it rang, and noted for its end, which is claimed later.
        assert await ends(stage, [ring]) == {("ring", False): ["call_over"]}
        assert await ends(stage, [end]) == {("end", False): ["call_over"]}
        await stage.recall("ring")
        await stage.recall("end")
        assert await ends(stage, [ring]) == {("ring", False): ["recalled"]}
        assert await ends(stage, [end]) == {("end", False): ["recalled"]}

    on(redis_url, scenario)


@pytest.mark.parametrize("happened", ["unknown", "lost"])
def test_what_may_have_been_shown_is_taken_back_although_its_retry_is_stopped(redis_url: str, happened: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.device()
        await stage.route(chat("m1"))
        await stage.recall("m1")
        message, recall = await stage.entries()
        if happened == "unknown":
            message.parcel.deliveries[0].unknown = 1
        else:
            message.lost = 1
        assert await ends(stage, [message, recall]) == {("m1", False): ["recalled"], ("m1", True): [""]}
        assert await ends(stage, [recall]) == {("m1", True): [""]}

    on(redis_url, scenario)


def test_a_recall_of_what_was_sent_goes_out(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.device()
        await stage.route(chat("m1"))
        sent = await stage.entries()
        assert await ends(stage, sent) == {("m1", False): [""]}
        await stage.recall("m1")
        assert await ends(stage, [(await stage.entries())[1]]) == {("m1", True): [""]}

    on(redis_url, scenario)


def test_a_recall_that_waited_does_not_overwrite_what_came_meanwhile(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.device("a")
        await stage.device("b")
        await stage.route(group("m1", "a", "b"))
        await stage.recall("m1")
        recall = (await stage.entries())[1]
        await stage.route(group("m2", "b"))
        assert await ends(stage, [recall]) == {("m1", True): ["", "not_shown"]}
        assert await ends(stage, [recall], recalls=False) == {("m1", True): ["", "not_shown"]}

    on(redis_url, scenario)


def test_a_recall_finds_the_device_as_it_is_now(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.device()
        await stage.route(chat("m1"))
        await stage.recall("m1")
        recall = (await stage.entries())[1]
        await stage.option("bob", "c1", "none")
        await stage.device(token="renewed")
        assert await ends(stage, [recall]) == {("m1", True): [""]}
        assert recall.parcel.deliveries[0].token == "renewed"
        await stage.device(state=FOREGROUND, lease_until_ms=now_ms() + 60_000)
        assert await ends(stage, [recall]) == {("m1", True): ["foreground"]}

    on(redis_url, scenario)


def test_what_was_stopped_for_another_reason_needs_no_taking_back(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.device()
        await stage.route(chat("m1"))
        await stage.device(state=FOREGROUND, lease_until_ms=now_ms() + 60_000)
        assert await ends(stage, await stage.entries()) == {("m1", False): ["foreground"]}
        await stage.device()
        await stage.recall("m1")
        assert len(await stage.entries()) == 1
        assert await stage.suppressed() == {"not_shown": 1}

    on(redis_url, scenario)


def test_what_an_older_message_failed_to_show_takes_nothing_from_a_newer_one(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.device()
        await stage.route(chat("m1"), chat("m2"))
        await stage.recall("m1")
        first, second = await stage.entries()
        assert await ends(stage, [first]) == {("m1", False): ["recalled"]}
        await stage.recall("m2")
        assert [entry.parcel.push.recall for entry in await stage.entries()] == [False, False, True]
        assert await ends(stage, [second]) == {("m2", False): ["recalled"]}

    on(redis_url, scenario)


def test_devices_addressed_directly_are_stopped_as_well(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        target = Target(vendor="apns", credential="main", token="direct")
        await stage.route(OfflineMessage(id="m1", app="demo", targets=(target,), body="Code"))
        await stage.recall("m1")
        message, recall = await stage.entries()
        assert await ends(stage, [recall]) == {("m1", True): [""]}
        assert await ends(stage, [message]) == {("m1", False): ["recalled"]}
        assert await ends(stage, [recall]) == {("m1", True): ["not_shown"]}

    on(redis_url, scenario)


def test_where_recalls_are_off_no_command_is_spent_on_them(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.device()
        await stage.route(chat("m1"), chat("m2"))
        trips: list[int] = []
        pipeline = stage.queue.pipeline

        async def counting(commands: Any) -> list[Any]:
            trips.append(len(commands))
            return await pipeline(commands)

        monkeypatch.setattr(stage.queue, "pipeline", counting)
        entries = await stage.entries()
        await ends(stage, entries, recalls=False)
        await ends(stage, entries, recalls=True)
        assert trips[-2:] == [6, 8], "one round trip, and one command more for each message where they are on"

    on(redis_url, scenario)


# ---- what one message hides of another


async def recalls_asked_for(stage: Stage) -> list[Recall]:
    """What is in the stream of recalls."""
    found = await stage.queue.call("XRANGE", stage.streams["urgent"].keys.stream, "-", "+")
    fields = [dict(zip(flat[::2], flat[1::2], strict=True)) for _, flat in found]
    return [decode_recall(one[b"r"]) for one in fields]


async def hidden_and_recalled(stage: Stage) -> Entry:
    """A device that shows m1, which was recalled while m2 was to replace it; m2 waits still."""
    await stage.device()
    await stage.route(chat("m1"))
    await stage.queue.call("DEL", AccountKeys(PREFIX, "apns", "main").ready[1])
    await stage.route(chat("m2"))
    await stage.recall("m1")
    assert await stage.suppressed() == {"not_shown": 1}
    (waiting,) = await stage.entries()
    return waiting


@pytest.mark.parametrize("why", ["recalled", "muted"])
def test_what_was_recalled_while_another_hid_it_is_taken_back_where_that_never_left(redis_url: str, why: str) -> None:
    async def scenario(stage: Stage) -> None:
        waiting = await hidden_and_recalled(stage)
        if why == "recalled":
            await stage.recall("m2")
        else:
            await stage.option("bob", "c1", "none")
        assert await ends(stage, [waiting]) == {("m2", False): [why]}
        # A process that died before it could say so finds nothing else.
        waiting.lost = 1
        assert await ends(stage, [waiting]) == {("m2", False): [why]}
        assert (
            await recalls_asked_for(stage) == [Recall(id="m1", app="demo", conversation="c1", recipients=("bob",))] * 2
        )
        await stage.route()
        recalls = [entry for entry in await stage.entries() if entry.parcel.push.recall]
        assert [one.parcel.push.message_id for one in recalls] == (["m2", "m1"] if why == "recalled" else ["m1"])
        assert recalls[-1].parcel.push.body == "Ann recalled a message"
        assert (await ends(stage, recalls))["m1", True] == [""]

    on(redis_url, scenario)


def test_what_was_dropped_hides_nothing_from_a_recall_and_what_may_have_arrived_does(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        waiting = await hidden_and_recalled(stage)
        checker = Rechecker(stage.queue, PREFIX, FleetClock(), "apns", "main", recall_window_s=120)
        (delivery,) = waiting.parcel.deliveries
        delivery.unknown = 1
        await checker.forget_dropped([(waiting, [delivery])])
        assert await recalls_asked_for(stage) == []
        delivery.unknown = 0
        await checker.forget_dropped([(waiting, [])])
        assert await recalls_asked_for(stage) == []
        await checker.forget_dropped([(waiting, [delivery])])
        assert await recalls_asked_for(stage) == [Recall(id="m1", app="demo", conversation="c1", recipients=("bob",))]
        await checker.forget_dropped([(waiting, [delivery])])
        assert len(await recalls_asked_for(stage)) == 1

    on(redis_url, scenario)


def test_a_dead_letter_is_shown_again_once_a_replay_of_it_is_sent(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.device()
        await stage.route(chat("m1"))
        (letter,) = await stage.entries()
        checker = Rechecker(stage.queue, PREFIX, FleetClock(), "apns", "main", recall_window_s=120)
        await checker.forget_dropped([(letter, letter.parcel.deliveries)])
        dead = letter_of_parcel("apns", "main", "demo", DeadLetter("5-1", pack(letter), "bad_payload", "400", 1))
        again = renewed(dead, Terms(now_ms()), recalls=True)
        assert isinstance(again, Renewed)
        assert await ends(stage, [unpack(again.entry)]) == {("m1", False): [""]}
        await stage.queue.call("DEL", AccountKeys(PREFIX, "apns", "main").ready[1])
        await stage.recall("m1")
        assert await ends(stage, await stage.entries()) == {("m1", True): [""]}

    on(redis_url, scenario)


def test_a_recall_that_was_dropped_leaves_its_message_on_the_screen(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.device()
        await stage.route(chat("m1"))
        await stage.queue.call("DEL", AccountKeys(PREFIX, "apns", "main").ready[1])
        await stage.recall("m1")
        (recall,) = await stage.entries()
        checker = Rechecker(stage.queue, PREFIX, FleetClock(), "apns", "main", recall_window_s=120)
        await checker.forget_dropped([(recall, recall.parcel.deliveries)])
        assert await ends(stage, [recall]) == {("m1", True): [""]}

    on(redis_url, scenario)


def test_a_backends_recall_from_the_same_recipients_is_no_reason_not_to(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        waiting = await hidden_and_recalled(stage)
        await stage.recall("m1", "bob")
        await stage.recall("m2", "bob")
        await ends(stage, [waiting])
        await stage.route()
        assert [entry.parcel.push.message_id for entry in await stage.entries()] == ["m2", "m2", "m1"]

    on(redis_url, scenario)


def test_what_was_taken_back_already_is_not_taken_back_again(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.device()
        await stage.route(chat("m1"))
        await stage.recall("m1")
        _, recall = await stage.entries()
        assert await ends(stage, [recall]) == {("m1", True): [""]}
        await stage.route(chat("m2"))
        await stage.option("bob", "c1", "none")
        assert await ends(stage, [(await stage.entries())[-1]]) == {("m2", False): ["muted"]}
        assert await recalls_asked_for(stage) == []
        assert await ends(stage, [recall]) == {("m1", True): [""]}, "its retry"

    on(redis_url, scenario)


def test_a_recall_that_was_put_off_and_overtaken_is_asked_for_again_where_that_never_left(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.device()
        await stage.route(chat("m1"))
        await stage.recall("m1")
        _, recall = await stage.entries()
        assert await ends(stage, [recall]) == {("m1", True): [""]}
        await stage.route(chat("m2"))
        recall.parcel.deliveries[0].attempt = 1
        assert await ends(stage, [recall]) == {("m1", True): ["not_shown"]}
        await stage.option("bob", "c1", "none")
        assert await ends(stage, [(await stage.entries())[-1]]) == {("m2", False): ["muted"]}
        assert [one.id for one in await recalls_asked_for(stage)] == ["m1"]

    on(redis_url, scenario)


def test_a_recall_goes_together_with_the_stop_of_what_hid_its_message(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.device()
        await stage.route(chat("m1"))
        await stage.recall("m1")
        _, recall = await stage.entries()
        await stage.route(chat("m2"))
        await stage.option("bob", "c1", "none")
        waiting = (await stage.entries())[-1]
        assert await ends(stage, [waiting, recall]) == {("m2", False): ["muted"], ("m1", True): [""]}
        assert await recalls_asked_for(stage) == [], "it is on its way"

    on(redis_url, scenario)


def test_devices_addressed_directly_are_found_by_what_the_message_was_for(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        one, two = (Target(vendor="apns", credential="main", token=token) for token in ("one", "two"))
        fields = {"app": "demo", "body": "1234", "replace_key": "codes"}
        await stage.route(OfflineMessage(id="m1", targets=(one, two), **fields))
        await stage.route(OfflineMessage(id="m2", targets=(one,), **fields))
        await stage.recall("m1")
        await stage.recall("m2")
        _, second, first_recall, second_recall = await stage.entries()
        assert await ends(stage, [first_recall]) == {("m1", True): [""]}
        assert await ends(stage, [second, second_recall]) == {("m2", False): ["recalled"], ("m2", True): ["not_shown"]}
        await stage.route()
        recall = (await stage.entries())[-1].parcel
        assert (recall.push.message_id, [delivery.token for delivery in recall.deliveries]) == ("m1", ["one"])

    on(redis_url, scenario)


def test_where_nothing_was_recalled_a_stopped_message_asks_for_nothing(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.device()
        await stage.route(chat("m1"), chat("m2"))
        await stage.recall("m2")
        assert await ends(stage, [(await stage.entries())[1]]) == {("m2", False): ["recalled"]}
        assert await recalls_asked_for(stage) == []
        await stage.recall("m1")
        recalls = [one.parcel.push.message_id for one in await stage.entries() if one.parcel.push.recall]
        assert recalls == ["m2", "m1"], "what is shown again can be taken back"

    on(redis_url, scenario)


def test_of_two_devices_each_is_taken_back_from_however_their_work_was_claimed(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.device("bob", "phone")
        await stage.device("bob", "tablet")
        await stage.route(chat("m1"))
        await stage.queue.call("DEL", AccountKeys(PREFIX, "apns", "main").ready[1])
        await stage.route(chat("m2"))
        await stage.recall("m1")
        await stage.option("bob", "c1", "none")
        (waiting,) = await stage.entries()
        for delivery in waiting.parcel.deliveries:
            alone = replace(waiting, parcel=replace(waiting.parcel, deliveries=[delivery]))
            assert await ends(stage, [alone]) == {("m2", False): ["muted"]}
            await stage.route()
            recall = (await stage.entries())[-1]
            assert recall.parcel.push.message_id == "m1"
            assert [one.device for one in recall.parcel.deliveries] == [delivery.device]
            assert await ends(stage, [recall]) == {("m1", True): [""]}

    on(redis_url, scenario)


def test_what_is_stopped_together_asks_for_no_recall_of_each_other(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        waiting = await hidden_and_recalled(stage)
        await stage.route(chat("m3"))
        await stage.recall("m2")
        await stage.recall("m3")
        newest = (await stage.entries())[1]
        assert newest.parcel.push.message_id == "m3"
        await ends(stage, [newest, waiting])
        assert [one.id for one in await recalls_asked_for(stage)] == ["m1"]

    on(redis_url, scenario)
