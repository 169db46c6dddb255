"""A recall through the router: what it stops, what it puts, what it leaves alone, and that it is decided once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import redis
from tests.workers.routing import APNS, FCM, HUAWEI, PREFIX, RECALLS, Stage, chat, group, now_ms, play

from pushfleet import OfflineMessage, OfflinePush, Recipient, Target
from pushfleet.message import ApnsOptions, HuaweiOptions, XiaomiOptions
from pushfleet_workers.push import Delivery, Push, delivery_id, sent_id
from pushfleet_workers.recall import message_key
from pushfleet_workers.recall.memory import DEVICES_MAX, PARTS_MAX
from pushfleet_workers.tokens.record import FOREGROUND, LOGGED_OUT, Channel

Scenario = Callable[[Stage], Awaitable[None]]


def on(url: str, scenario: Scenario, **options: Any) -> None:
    """Play with recalls switched on for the app."""
    play(url, scenario, **{"apps": RECALLS, **options})


async def pushes(stage: Stage, vendor: str = "apns", credential: str = "main") -> list[tuple[str, bool, list[str]]]:
    """Message, whether it takes it back, and to whom; as it lies in the ledger."""
    return [
        (entry.parcel.push.message_id, entry.parcel.push.recall, [one.user for one in entry.parcel.deliveries])
        for entry in await stage.entries(vendor, credential)
    ]


async def the_recall(stage: Stage, vendor: str = "apns") -> tuple[Push, list[Delivery]]:
    (entry,) = [entry for entry in await stage.entries(vendor) if entry.parcel.push.recall]
    return entry.parcel.push, entry.parcel.deliveries


def test_what_is_shown_is_replaced_under_the_same_key(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.device(locale="en-GB", unread=3)
        await stage.route(chat("m1"))
        await stage.recall("m1")
        sent, taken_back = [entry.parcel for entry in await stage.entries()]
        push, (delivery,) = taken_back.push, taken_back.deliveries
        assert (push.title, push.body) == ("Ann", "Ann recalled a message")
        assert (push.recall, push.revision, push.replace_key, push.conversation_id) == (True, 1, "c1", "c1")
        assert (push.kind, push.lane) == (sent.push.kind, sent.push.lane), "it follows the message, never overtakes it"
        assert (delivery.token, delivery.badge, delivery.device) == ("token-of-bob-phone", -1, "phone")
        assert [one.badge for one in sent.deliveries] == [4]
        ids = {sent.deliveries[0].id, delivery.id, sent_id(push, delivery), sent_id(sent.push, sent.deliveries[0])}
        assert len(ids) == 3, "no vendor takes it for a repeat, and no late answer to the message for its own"
        assert await stage.suppressed() == {}
        assert await stage.joined()

    on(redis_url, scenario)


@pytest.mark.parametrize(
    ("locale", "sender", "text"),
    [
        ("zh-CN", True, "Ann撤回了一条消息"),
        ("zh-CN", False, "一条消息已被撤回"),
        ("en", True, "Ann recalled a message"),
        ("fr", False, "A message was recalled"),
    ],
)
def test_the_text_is_in_the_language_of_the_device(redis_url: str, locale: str, sender: bool, text: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.device(locale=locale)
        await stage.route(group("m1", "bob", **({} if sender else {"sender": None})))
        await stage.recall("m1")
        push, _ = await the_recall(stage)
        assert (push.title, push.body) == ("Team", text)

    on(redis_url, scenario)


def test_nothing_that_the_message_said_is_kept_or_sent_again(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.device()
        await stage.device(name="mate", vendor="huawei")
        push = OfflinePush(
            title="Ann (card)",
            desc="secret words",
            ext='{"secret":"words"}',
            apns=ApnsOptions(subtitle="secret words", loc_key="SECRET", loc_args=("words",), thread_id="t", sound="x"),
            huawei=HuaweiOptions(channel_id="im", category="IM", importance="NORMAL", image="https://secret/words"),
            xiaomi=XiaomiOptions(channel_id="c", template_id="T", template_params={"a": "secret words"}),
        )
        await stage.route(chat("m1", offline_push=push))
        kept = await stage.queue.call("HGETALL", message_key(PREFIX, "demo", "m1"))
        assert b"secret" not in b"".join(kept).lower()
        await stage.recall("m1")
        taken_back, _ = await the_recall(stage)
        assert "secret" not in repr(taken_back.options).lower() + taken_back.ext + taken_back.body
        assert taken_back.title == "Ann (card)"
        assert taken_back.options is not None
        assert taken_back.options.apns is not None
        assert taken_back.options.apns.thread_id == "t"
        assert taken_back.options.huawei == HuaweiOptions(channel_id="im", category="IM", importance="LOW")
        assert taken_back.options.xiaomi == XiaomiOptions(channel_id="c")

    on(redis_url, scenario)


def test_a_newer_push_of_the_conversation_is_left_alone(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.device()
        await stage.route(chat("m1"), chat("m2"))
        await stage.recall("m1")
        assert await pushes(stage) == [("m1", False, ["bob"]), ("m2", False, ["bob"])]
        assert await stage.suppressed() == {"not_shown": 1}
        await stage.recall("m2")
        push, _ = await the_recall(stage)
        assert push.message_id == "m2"
        assert await stage.joined()

    on(redis_url, scenario)


def test_each_device_is_asked_what_it_shows(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.device("a")
        await stage.device("b")
        await stage.device("b", "tablet")
        await stage.route(group("m1", "a", "b"))
        await stage.device("b", "tablet", state=FOREGROUND, lease_until_ms=now_ms() + 60_000)
        await stage.route(group("m2", "b"))
        await stage.device("b", "tablet")
        await stage.recall("m1")
        _, deliveries = await the_recall(stage)
        assert sorted((one.user, one.device) for one in deliveries) == [("a", "phone"), ("b", "tablet")]
        assert await stage.suppressed() == {"foreground": 1, "not_shown": 1}

    on(redis_url, scenario)


def test_another_conversation_replaces_nothing(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.device()
        await stage.route(chat("m1"), group("m2", "bob"), chat("m3", replace_key="red-packet"))
        await stage.recall("m1")
        await stage.recall("m3")
        taken_back = [message for message, recall, _ in await pushes(stage) if recall]
        assert taken_back == ["m1", "m3"]

    on(redis_url, scenario)


def test_a_recall_that_overtakes_its_message_stops_it(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.device("bob", unread=5)
        await stage.device("eve")
        target = Target(vendor="apns", credential="main", token="direct")
        await stage.recall("m1")
        assert await stage.suppressed() == {"recall_unknown": 1}
        await stage.route(group("m1", "bob", "eve", targets=(target,)), chat("m2"))
        assert await pushes(stage) == [("m2", False, ["bob"])]
        assert [one.badge for one in await stage.deliveries()] == [6], "what is not shown does not count"
        assert await stage.suppressed() == {"recall_unknown": 1, "recalled": 3}
        assert await stage.joined()

    on(redis_url, scenario)


def test_a_recall_in_the_batch_of_its_message_stops_it(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.device()
        stage.enqueue(chat("m1", lane="urgent"), chat("m2", lane="urgent"))
        stage.producer.recall("demo", "m1")
        await stage.route()
        assert await pushes(stage) == [("m2", False, ["bob"])]
        assert await stage.suppressed() == {"recall_unknown": 1, "recalled": 1}

    on(redis_url, scenario)


def test_a_recall_between_put_and_keeping_is_made_good(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.device("bob", locale="zh")
        await stage.device("bob", "pixel", vendor="fcm")
        put = stage.router._put

        async def put_and_then_recalled(jobs: Any) -> None:
            await put(jobs)
            monkeypatch.undo()
            await stage.recall("m1")

        monkeypatch.setattr(stage.router, "_put", put_and_then_recalled)
        await stage.route(chat("m1", Recipient(id="bob", unread=4, mention=True)))
        assert await pushes(stage, "apns") == [("m1", False, ["bob"]), ("m1", True, ["bob"])]
        assert await pushes(stage, "fcm") == [("m1", False, ["bob"]), ("m1", True, ["bob"])]
        push, (delivery,) = await the_recall(stage)
        assert (push.body, delivery.badge, delivery.mention) == ("Ann撤回了一条消息", -1, False)
        assert await stage.joined()

    on(redis_url, scenario)


# ---- once, whatever dies


def test_a_recall_is_decided_once(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.device()
        await stage.route(chat("m1"))
        await stage.recall("m1")
        await stage.recall("m1")
        assert [recall for _, recall, _ in await pushes(stage)] == [False, True]
        lane = (await stage.books()).lanes["urgent"]
        assert (lane.routed, lane.repeated) == (2, 1)
        assert await stage.joined()

    on(redis_url, scenario)


def test_recalls_for_other_recipients_are_other_recalls(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.device("a")
        await stage.device("b")
        await stage.route(group("m1", "a", "b"))
        await stage.recall("m1", "a")
        await stage.recall("m1", "b")
        await stage.recall("m1", "b", "a")
        await stage.recall("m1", "a", "b")
        taken_back = [users for _, recall, users in await pushes(stage) if recall]
        assert taken_back == [["a"], ["b"], ["b", "a"]]

    on(redis_url, scenario)


def test_a_router_that_dies_with_a_recall_in_hand_decides_it_once(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.device()
        await stage.device("bob", "pixel", vendor="fcm")
        await stage.route(chat("m1"))
        stage.producer.recall("demo", "m1")
        raws = await stage.read("urgent")
        await stage.put_and_die(*raws, lane="urgent")
        await stage.device("bob", "pixel", state=LOGGED_OUT, vendor="fcm")
        await stage.router.route(stage.streams["urgent"], await stage.read_again("urgent"))
        for vendor in ("apns", "fcm"):
            assert [recall for _, recall, _ in await pushes(stage, vendor)] == [False, True]
        assert await stage.joined()

    on(redis_url, scenario)


def test_a_message_recalled_after_its_router_died_is_taken_back_by_the_next(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.device()
        stage.enqueue(chat("m1"))
        await stage.put_and_die(*await stage.read(), keeps=False)
        assert await pushes(stage) == [("m1", False, ["bob"])]
        await stage.recall("m1")
        assert len(await pushes(stage)) == 1, "nobody knows yet whom it went to"
        await stage.router.route(stage.streams["normal"], await stage.read_again())
        assert await pushes(stage) == [("m1", False, ["bob"]), ("m1", True, ["bob"])]
        # The first one was only slow.
        assert await stage.joined()
        assert await stage.suppressed() == {"recall_unknown": 1}

    on(redis_url, scenario)


def test_a_message_recalled_before_its_dead_router_put_it_goes_to_nobody(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.device(unread=1)
        await stage.device("eve", state=LOGGED_OUT)
        stage.enqueue(group("m1", "bob", "eve"))
        await stage.read()
        await stage.recall("m1")
        await stage.router.route(stage.streams["normal"], await stage.read_again())
        assert await pushes(stage) == []
        assert await stage.suppressed() == {"recall_unknown": 1, "recalled": 2}
        assert await stage.joined()

    on(redis_url, scenario)


# ---- whom it is taken back from


def test_recipients_that_are_named_win_over_those_that_are_kept(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        for user in "abc":
            await stage.device(user)
        target = Target(vendor="apns", credential="main", token="direct")
        await stage.route(group("m1", *"abc", targets=(target,)))
        await stage.recall("m1", "b", "nobody")
        push, deliveries = await the_recall(stage)
        assert [one.user for one in deliveries] == ["b"]
        assert push.title == "Team"
        assert await stage.suppressed() == {"no_device": 1}

    on(redis_url, scenario)


def test_a_recall_that_names_recipients_works_when_the_message_is_forgotten(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.device("a", locale="zh")
        await stage.device("b")
        await stage.route(group("m1", "a"), chat("m2", "b", conversation=None))
        for message in ("m1", "m2"):
            await stage.queue.call("DEL", message_key(PREFIX, "demo", message))
        await stage.recall("m1", "a", conversation="g1")
        await stage.recall("m2", "b")
        first, second = [entry.parcel.push for entry in await stage.entries() if entry.parcel.push.recall]
        assert (first.title, first.body, first.replace_key) == ("Demo", "一条消息已被撤回", "g1")
        assert (first.kind, first.lane) == ("system", "normal"), "it must not pass for a chat where it was marketing"
        assert (second.body, second.replace_key) == ("A message was recalled", "")
        # Of the wrong conversation nothing is known.
        await stage.recall("m1", "a", "b", conversation="g2")
        assert await stage.suppressed() == {"not_shown": 2}

    on(redis_url, scenario)


def test_parts_are_taken_back_together(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        users = [f"u{number}" for number in range(1_200)]
        for user in (users[0], users[700], users[1_100]):
            await stage.device(user)
        await stage.route(group("m1", *users))
        await stage.recall("m1")
        _, deliveries = await the_recall(stage)
        assert sorted(one.user for one in deliveries) == ["u0", "u1100", "u700"]
        push, _ = await the_recall(stage)
        assert push.lane == "bulk"
        assert await stage.joined()

    on(redis_url, scenario)


def test_devices_that_were_addressed_directly_are_taken_back_from_as_well(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        targets = tuple(Target(vendor="apns", credential="main", token=token) for token in ("one", "two"))
        message = OfflineMessage(id="m1", app="demo", targets=targets, body="Code: 1234", replace_key="codes")
        await stage.route(message)
        await stage.route(OfflineMessage(id="m2", app="demo", targets=targets[1:], body="5678", replace_key="codes"))
        await stage.recall("m1")
        _, (delivery,) = await the_recall(stage)
        assert (delivery.user, delivery.token) == ("", "one")
        assert await stage.suppressed() == {"not_shown": 1}
        assert await stage.joined()

    on(redis_url, scenario)


def test_the_channel_is_the_one_that_the_device_has_now(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.device()
        await stage.route(chat("m1"))
        await stage.device(vendor="huawei", token="new")
        await stage.recall("m1")
        assert len(await pushes(stage, "apns")) == 1
        _, (delivery,) = await the_recall(stage, "huawei")
        assert delivery.token == "new"

    on(redis_url, scenario)


# ---- who is left in peace


def test_who_muted_the_conversation_since_still_has_it_on_the_screen(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.device()
        await stage.route(chat("m1"))
        await stage.option("bob", "c1", "none")
        await stage.recall("m1")
        await the_recall(stage)

    on(redis_url, scenario)


@pytest.mark.parametrize(
    ("device", "reason"),
    [
        ({"state": FOREGROUND, "lease_until_ms": 2**50}, "foreground"),
        ({"state": LOGGED_OUT}, "logged_out"),
        ({"permitted": False}, "notifications_off"),
        ({"channels": []}, "no_channel"),
        ({"channels": [Channel("apns", "main", "v", 1, "voip")]}, "no_channel"),
    ],
)
def test_the_device_decides_as_ever(redis_url: str, device: dict[str, Any], reason: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.device()
        await stage.route(chat("m1"))
        await stage.device(**device)
        await stage.recall("m1")
        assert len(await pushes(stage)) == 1
        assert await stage.suppressed() == {reason: 1}
        assert await stage.joined()

    on(redis_url, scenario)


def test_who_was_not_pushed_to_hears_nothing(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.device("a", state=FOREGROUND, lease_until_ms=now_ms() + 60_000)
        await stage.device("b")
        await stage.option("b", "g1", "none")
        await stage.device("c")
        await stage.route(group("m1", "a", "b", "c"))
        await stage.device("a")
        await stage.option("b", "g1", "all")
        await stage.recall("m1")
        _, deliveries = await the_recall(stage)
        assert [one.user for one in deliveries] == ["c"]

    on(redis_url, scenario)


def test_what_rings_or_shows_nothing_is_not_replaced(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        alert, voip = Channel("apns", "main", "alert", 1), Channel("apns", "main", "voip", 2, "voip")
        await stage.device("a", channels=[alert, voip])
        await stage.device("b")
        silent = OfflinePush(apns=ApnsOptions(push_type="background"))
        await stage.route(
            chat("m1", "a"),
            chat("m2", "a", kind="call"),
            chat("m3", "a", offline_push=OfflinePush(apns=ApnsOptions(push_type="voip"))),
            chat("m4", "b", offline_push=silent),
            chat("m5", "b", kind="call"),
        )
        for message in ("m2", "m3", "m4", "m5"):
            await stage.recall(message)
        assert not [message for message, recall, _ in await pushes(stage) if recall]
        assert await stage.suppressed() == {"not_shown": 4}
        await stage.recall("m1")
        _, (delivery,) = await the_recall(stage)
        assert delivery.token == "alert", "what rang in between replaced nothing"

    on(redis_url, scenario)


# ---- switched off, and bounded


def test_nothing_is_remembered_where_recalls_are_off(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.device()
        await stage.route(chat("m1"))
        await stage.recall("m1")
        await stage.recall("m1", "bob", "eve", conversation="c1")
        assert await pushes(stage) == [("m1", False, ["bob"])]
        assert await stage.suppressed() == {"recalls_off": 3}
        assert await stage.queue.call("KEYS", f"{PREFIX}:{{m:*") == []
        assert await stage.queue.call("KEYS", f"{PREFIX}:{{r:*") == []
        assert await stage.joined()

    play(redis_url, scenario)


def test_what_a_part_costs_where_recalls_are_on_and_off(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    counts: list[Counter[str]] = []

    async def scenario(stage: Stage) -> None:
        for user in "abc":
            await stage.device(user)
        stage.enqueue(group("m1", *"abc"))
        raws = await stage.read()
        sent: Counter[str] = Counter()
        pipeline = stage.queue.pipeline

        async def counting(commands: Any) -> list[Any]:
            sent.update(command[0] for command in commands)
            return await pipeline(commands)

        monkeypatch.setattr(stage.queue, "pipeline", counting)
        await stage.router.route(stage.streams["normal"], raws)
        counts.append(sent)

    play(redis_url, scenario)
    with redis.Redis.from_url(redis_url) as client:
        client.flushall()
    on(redis_url, scenario)
    off, switched_on = counts
    # However many recipients: one mark is asked for, the screens and the part are kept.
    assert switched_on - off == Counter(HGET=1, EVALSHA=2)
    assert not off - switched_on


def test_all_that_is_remembered_has_an_end(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.device()
        await stage.route(chat("m1"), chat("m2", conversation=None), chat("short", ttl_s=1_000))
        keys = await stage.queue.call("KEYS", f"{PREFIX}:{{[mr]:*")
        assert len(keys) == 5, "three messages, one conversation, one message that replaces only itself"
        for key in keys:
            assert 0 < await stage.queue.call("PTTL", key) <= 120_000
        for message in ("m1", "m2", "short", "unheard"):
            await stage.recall(message)
        lives = {}
        for message in ("m1", "short", "unheard"):
            lives[message] = await stage.queue.call("TTL", message_key(PREFIX, "demo", message))
        assert 86_000 < lives["m1"] <= 86_400, "as long as the message may wait"
        assert 900 < lives["short"] <= 1_000
        assert 86_000 < lives["unheard"] <= 86_400

    on(redis_url, scenario)


def test_the_window_is_the_least_that_a_mark_lives(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.device()
        await stage.route(chat("m1", ttl_s=30))
        await stage.recall("m1")
        assert 110 < await stage.queue.call("TTL", message_key(PREFIX, "demo", "m1")) <= 120
        push, _ = await the_recall(stage)
        assert push.expires_at_ms > now_ms() + 100_000, "what was shown at once stays on the screen"

    on(redis_url, scenario)


def test_of_a_very_large_message_so_many_parts_are_kept(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert PARTS_MAX * 500 == 10_000
    monkeypatch.setattr("pushfleet_workers.recall.memory.PARTS_MAX", 2)

    async def scenario(stage: Stage) -> None:
        for user in ("u0", "u500", "u1000"):
            await stage.device(user)
        await stage.route(group("m1", *(f"u{number}" for number in range(1_001))))
        await stage.recall("m1")
        await stage.recall("m1", "u1000")
        taken_back = [users for _, recall, users in await pushes(stage) if recall]
        assert taken_back == [["u0", "u500"], ["u1000"]]

    on(redis_url, scenario)


def test_beyond_so_many_devices_a_replace_key_knows_no_more(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert DEVICES_MAX >= PARTS_MAX * 500
    monkeypatch.setattr("pushfleet_workers.recall.memory.DEVICES_MAX", 2)

    async def scenario(stage: Stage) -> None:
        for user in "abc":
            await stage.device(user)
        await stage.route(group("m1", "a", "b", "c"), group("m2", "a", "c"))
        await stage.recall("m2")
        _, deliveries = await the_recall(stage)
        assert [one.user for one in deliveries] == ["a"]
        assert await stage.suppressed() == {"not_shown": 1}

    on(redis_url, scenario)


def test_apps_are_apart(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.device("bob", credential="lite", app="lite")
        await stage.device("bob")
        await stage.route(chat("m1", app="lite"), chat("m1"))
        await stage.recall("m1")
        assert [recall for _, recall, _ in await pushes(stage, "apns", "lite")] == [False]
        assert [recall for _, recall, _ in await pushes(stage)] == [False, True]

    on(redis_url, scenario, apps={"demo": RECALLS["demo"], "lite": RECALLS["demo"]})


def test_what_is_put_last_is_what_is_shown_however_old_it_is(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.device()
        stage.enqueue(chat("m1"))
        slow = await stage.read()
        await stage.route(chat("m2"))
        await stage.router.route(stage.streams["normal"], slow)
        await stage.recall("m2")
        await stage.recall("m1")
        push, _ = await the_recall(stage)
        assert push.message_id == "m1"

    on(redis_url, scenario)


def test_what_was_put_before_and_is_routed_again_does_not_come_before_what_was_put_since(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.device()
        stage.enqueue(chat("m1"))
        await stage.put_and_die(*await stage.read())
        await stage.route(chat("m2"))
        await stage.router.route(stage.streams["normal"], await stage.read_again())
        await stage.recall("m1")
        await stage.recall("m2")
        push, _ = await the_recall(stage)
        assert push.message_id == "m2"

    on(redis_url, scenario)


# ---- entries that are no recalls


@pytest.mark.parametrize(
    ("fields", "reason", "told"),
    [
        (("v", "1", "r", "secret words"), "malformed", "not a Recall"),
        (("v", "1", "r", '{"app":"demo"}'), "malformed", "missing required field `id`"),
        (("v", "1", "r", '{"app":"demo","id":""}'), "malformed", "id is empty"),
        (("v", "1", "r", '{"app":"demo","id":"m","recipients":[1]}'), "malformed", "recipients"),
        (("v", "2", "r", '{"app":"demo","id":"m"}'), "malformed", "field v is '2'"),
        (("v", "1", "r", '{"app":"demo","id":"m"}', "m", "{}"), "malformed", "both m and r"),
        (("v", "1", "r", '{"app":"unheard","id":"m"}'), "unknown_app", "unheard"),
    ],
)
def test_what_is_no_recall_is_refused_with_a_reason(
    redis_url: str, fields: tuple[str, ...], reason: str, told: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.xadd(*fields, lane="urgent")
        await stage.route()
        (refused,) = await stage.refused("urgent")
        assert refused["reason"] == reason
        assert told in refused["problem"]
        assert refused["m"], "what came is there to look at"
        assert "secret words" not in refused["problem"] + caplog.text
        assert await stage.joined()

    on(redis_url, scenario)


ACCOUNTS = {"apns": {"main": APNS}, "fcm": {"main": FCM}, "huawei": {"main": HUAWEI}}


@pytest.mark.parametrize(
    "identity", ["{x}", "a\0b", "\n", "消息", "😀" * 64, "m" * 256, "*", "a b", "%7B", "'; FLUSHALL"]
)
def test_any_id_can_be_taken_back(redis_url: str, identity: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.device(identity, token="t1")
        await stage.route(chat(identity, identity, replace_key=identity))
        await stage.recall(identity)
        push, (delivery,) = await the_recall(stage)
        assert (push.message_id, delivery.user) == (identity, identity)
        assert delivery.id != delivery_id("demo", identity, identity, "phone")

    on(redis_url, scenario, accounts=ACCOUNTS)
