from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client import REGISTRY
from tests.workers.ledger.support import PLENTY
from tests.workers.routing import APNS, FCM, HUAWEI, PREFIX, Stage, chat, group, now_ms, play

from pushfleet import Element, OfflineMessage, OfflinePush, Recipient, Sender, Target, wire
from pushfleet.message import ApnsOptions, Recall
from pushfleet_workers.audit import read_books
from pushfleet_workers.compose import compose
from pushfleet_workers.ingress import GROUP, Raw
from pushfleet_workers.job import Job, job_for
from pushfleet_workers.ledger import AccountKeys, Ledger, Settlement
from pushfleet_workers.push import delivery_id
from pushfleet_workers.redis_link import ReplyError
from pushfleet_workers.router import _slices
from pushfleet_workers.tokens.keys import UserKeys
from pushfleet_workers.tokens.record import FOREGROUND, KILLED, LOGGED_OUT, Channel

# ---- one message, some devices


def test_a_single_chat_becomes_one_delivery(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.device(locale="en-GB")
        await stage.route(chat(sent_at_ms=now_ms()))
        (entry,) = await stage.entries()
        push, (delivery,) = entry.parcel.push, entry.parcel.deliveries
        assert (push.title, push.body, push.lane, push.kind, push.group) == ("Ann", "Lunch?", "normal", "chat", False)
        assert (push.message_id, push.conversation_id, push.replace_key) == ("m1", "c1", "c1")
        assert push.expires_at_ms == push.sent_at_ms + 86_400_000
        assert (delivery.user, delivery.device, delivery.token) == ("bob", "phone", "token-of-bob-phone")
        assert delivery.id == delivery_id("demo", "m1", "bob", "phone")
        books = await stage.books()
        assert (books.lanes["normal"].routed, books.lanes["normal"].recipients) == (1, 1)
        assert await stage.joined()

    play(redis_url, scenario)


def test_the_text_is_in_the_language_of_each_device(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        for user, locale in {"a": "en-US", "b": "zh_CN", "c": "zh-Hant-TW", "d": "fr", "e": ""}.items():
            await stage.device(user, locale=locale)
        image = (Element(type="image"),)
        await stage.route(group("m1", *"abcde", body=None, elements=image))
        texts = {entry.parcel.push.body: entry.parcel.deliveries for entry in await stage.entries()}
        assert {text: [one.user for one in some] for text, some in texts.items()} == {
            "Ann: [Image]": ["a", "d", "e"],
            "Ann: [图片]": ["b", "c"],
        }

    play(redis_url, scenario)


def test_who_is_mentioned_reads_so_and_passes_mentions_only(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        for user in "abc":
            await stage.device(user)
        await stage.option("a", "g1", "mentions")
        await stage.option("b", "g1", "mentions")
        await stage.route(group("m1", Recipient(id="a", mention=True), "b", "c"))
        texts = {entry.parcel.push.body: entry.parcel.deliveries for entry in await stage.entries()}
        assert {text: [(one.user, one.mention) for one in some] for text, some in texts.items()} == {
            "[Mentioned you] Ann: Lunch?": [("a", True)],
            "Ann: Lunch?": [("c", False)],
        }
        assert await stage.suppressed() == {"mentions_only": 1}

    play(redis_url, scenario)


def test_each_device_of_a_user_is_decided_by_itself(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.device(name="iphone")
        await stage.device(name="ipad", state=FOREGROUND, lease_until_ms=now_ms() + 60_000)
        await stage.device(name="pixel", vendor="fcm", state=KILLED)
        await stage.device(name="mate", vendor="huawei", state=LOGGED_OUT)
        await stage.route(chat())
        assert [one.device for one in await stage.deliveries("apns")] == ["iphone"]
        assert [one.device for one in await stage.deliveries("fcm")] == ["pixel"]
        assert await stage.deliveries("huawei") == []
        assert await stage.suppressed() == {"foreground": 1, "logged_out": 1}
        assert await stage.joined()

    play(redis_url, scenario)


def test_devices_go_to_the_account_of_their_credential(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.device("bob")
        await stage.device("bob", "gone", credential="sold")
        await stage.device("eve", "other", credential="lite")
        await stage.device("eve", "other", credential="lite", app="lite")
        await stage.route(chat("m1", "bob", "eve"), chat("m2", "eve", app="lite"))
        assert [one.user for one in await stage.deliveries("apns", "main")] == ["bob"]
        assert [(one.user, one.device) for one in await stage.deliveries("apns", "lite")] == [("eve", "other")]
        assert await stage.suppressed() == {"unknown_account": 2}, "a credential of another app is none"

    play(redis_url, scenario)


def test_targets_are_addressed_past_state_and_each_once(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        bob = Target(vendor="apns", credential="main", token="aa11")
        strange = [
            Target(vendor="apns", credential="sold", token="aa11"),
            Target(vendor="no", credential="n", token="x"),
        ]
        message = OfflineMessage(id="m1", app="demo", targets=(bob, *strange, bob), body="Code: 1234")
        # The SDK drops repeats; other producers may not.
        await stage.xadd("v", "1", "m", wire.encode(message))
        await stage.route()
        (delivery,) = await stage.deliveries()
        assert (delivery.token, delivery.user, delivery.device, delivery.badge) == ("aa11", "", "", -1)
        assert await stage.suppressed() == {"unknown_account": 2}
        assert await stage.joined()

    play(redis_url, scenario)


def test_an_account_may_come_and_go_while_a_router_runs(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.device(credential="late")
        await stage.route(chat("m1"))
        stage.router.learn("apns", "late", stage.settings.accounts["apns"]["main"])
        await stage.route(chat("m2"))
        stage.router.learn("apns", "late", None)
        await stage.route(chat("m3"))
        assert [one.parcel.push.message_id for one in await stage.entries("apns", "late")] == ["m2"]
        assert await stage.suppressed() == {"unknown_account": 2}

    play(redis_url, scenario)


def test_what_was_put_for_an_account_that_is_gone_is_found_again(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.device()
        stage.enqueue(chat())
        await stage.put_and_die(*await stage.read())
        stage.router.learn("apns", "main", None)
        await stage.router.route(stage.streams["normal"], await stage.read_again())
        assert await stage.joined()

    play(redis_url, scenario)


def test_a_recipient_named_twice_counts_once(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.device("a")
        message = group("m1", "a", Recipient(id="a", push="never"), "nobody", "a")
        await stage.xadd("v", "1", "m", wire.encode(message))
        await stage.route()
        assert len(await stage.deliveries()) == 1
        assert (await stage.books()).lanes["normal"].recipients == 2
        assert await stage.suppressed() == {"no_device": 1}

    play(redis_url, scenario)


def test_calls_go_to_the_voip_token_and_their_cancellation_does_not(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        channels = [Channel("apns", "main", "alert-token", 1), Channel("apns", "main", "voip-token", 2, "voip")]
        await stage.device(channels=channels)
        await stage.route(chat("m1", kind="call", body=None), chat("m2", kind="call_cancel", body=None), chat("m3"))
        found = {entry.parcel.push.message_id: entry.parcel for entry in await stage.entries()}
        tokens = {name: (one.deliveries[0].token, one.deliveries[0].token_kind) for name, one in found.items()}
        assert tokens == {
            "m1": ("voip-token", "voip"),
            "m2": ("alert-token", "alert"),
            "m3": ("alert-token", "alert"),
        }
        assert found["m1"].push.body == "Incoming call"
        assert found["m1"].push.expires_at_ms - found["m1"].push.sent_at_ms == 30_000

    play(redis_url, scenario)


def test_the_push_type_of_a_message_chooses_the_token(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        channels = [Channel("apns", "main", "alert-token", 1), Channel("apns", "main", "voip-token", 2, "voip")]
        await stage.device(channels=channels)
        await stage.route(
            chat("m1", offline_push=OfflinePush(apns=ApnsOptions(push_type="voip"))),
            chat("m2", kind="call", offline_push=OfflinePush(apns=ApnsOptions(push_type="alert"))),
        )
        tokens = {entry.parcel.push.message_id: entry.parcel.deliveries[0].token for entry in await stage.entries()}
        assert tokens == {"m1": "voip-token", "m2": "alert-token"}

    play(redis_url, scenario)


# ---- what is not pushed


REFUSED_MESSAGES = [
    (chat(online_only=True), "online_only"),
    (chat(offline_push=OfflinePush(disabled=True)), "push_disabled"),
    (chat(ttl_s=0), "expired"),
    (chat(kind="call", body=None, sent_at_ms=now_ms() - 31_000), "expired"),
    (chat(body=None), "empty_text"),
    (chat(body="\u202e \x07 "), "empty_text"),
    (chat(body=None, elements=(Element(type="custom"),)), "empty_text"),
]


@pytest.mark.parametrize(("message", "reason"), REFUSED_MESSAGES)
def test_a_message_that_is_for_nobody_ends_for_each_recipient(
    redis_url: str, message: OfflineMessage, reason: str
) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.device("bob")
        await stage.device("bob", "tablet")
        target = Target(vendor="apns", credential="main", token="aa11")
        await stage.route(msgspec.structs.replace(message, recipients=("bob", "eve"), targets=(target,)))
        assert await stage.suppressed() == {reason: 3}
        assert await stage.deliveries() == []
        assert await stage.queue.call("EXISTS", UserKeys(PREFIX, "demo", "bob").badges) == 0, "it counts in no badge"

    play(redis_url, scenario)


def test_a_time_that_no_producer_of_ours_lets_through_is_taken_at_its_word(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.device()
        for message in (chat("m1", sent_at_ms=1_764_500_000), chat("m2", sent_at_ms=now_ms() + 10 * 86_400_000)):
            await stage.xadd("v", "1", "m", wire.encode(message))
        await stage.route()
        assert await stage.suppressed() == {"expired": 1}
        assert [entry.parcel.push.message_id for entry in await stage.entries()] == ["m2"]
        assert await stage.refused() == []

    play(redis_url, scenario)


def test_an_entry_that_waited_too_long_in_the_stream_has_expired(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.device()
        payload = wire.encode(chat(kind="call", body=None))
        stream = stage.streams["urgent"].keys.stream
        await stage.queue.call("XADD", stream, f"{now_ms() - 31_000}-1", "v", "1", "m", payload)
        await stage.route()
        assert await stage.suppressed() == {"expired": 1}

    play(redis_url, scenario)


def test_force_passes_mute_and_foreground_only(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.device(name="front", state=FOREGROUND, lease_until_ms=now_ms() + 60_000)
        await stage.device(name="out", state=LOGGED_OUT)
        await stage.device(name="silent", permitted=False)
        await stage.option("bob", "c1", "none")
        await stage.route(chat("m1", Recipient(id="bob", push="force")), chat("m2"))
        assert [(one.device, one.forced) for one in await stage.deliveries()] == [("front", True)]
        assert await stage.suppressed() == {"logged_out": 1, "notifications_off": 1, "muted": 3}

    play(redis_url, scenario)


# ---- badge


def test_the_backends_unread_number_becomes_the_badge(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.device("a", unread=40)
        await stage.device("b", vendor="huawei")
        await stage.route(group("m1", Recipient(id="a", unread=7), Recipient(id="b", unread=0)))
        assert [one.badge for one in await stage.deliveries("apns")] == [7]
        assert [one.badge for one in await stage.deliveries("huawei")] == [0]

    play(redis_url, scenario)


def test_the_badge_counts_on_from_the_base_each_message_once(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.device("a", unread=3)
        await stage.device("a", "tablet", vendor="fcm")
        await stage.device("b", vendor="huawei")
        await stage.route(group("m1", "a", "b"))
        await stage.route(group("m2", "a", "b"), group("m2", "a", "b"))
        raws_before = await stage.read()
        await stage.route(group("m3", "a", "b", offline_push=OfflinePush(apns=ApnsOptions(badge_mode="ignore"))))
        assert raws_before == []
        assert [one.badge for one in await stage.deliveries("apns")] == [4, 5, -1]
        assert [one.badge for one in await stage.deliveries("fcm")] == [1, 2, -1]
        assert [one.badge for one in await stage.deliveries("huawei")] == [0, 0, -1], "it adds one by itself"

    play(redis_url, scenario)


def test_a_message_routed_twice_counts_once_in_the_badge(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.device(unread=3)
        stage.enqueue(chat("m1"))
        await stage.put_and_die(*await stage.read())
        await stage.router.route(stage.streams["normal"], await stage.read_again())
        await stage.route(chat("m2"))
        assert [one.badge for one in await stage.deliveries()] == [4, 5]

    play(redis_url, scenario)


# ---- parcels


def accounts(**rates: Any) -> dict[str, Any]:
    return {"apns": {"main": {**APNS, **rates}}, "fcm": {"main": FCM}, "huawei": {"main": {**HUAWEI, **rates}}}


@pytest.mark.parametrize(
    ("vendor", "rates", "sizes"),
    [
        ("apns", {}, [50, 50, 20]),
        ("huawei", {"rate_per_s": None}, [120]),
        ("apns", {"rate_per_s": 100, "burst": 30}, [15] * 8),
        ("huawei", {"rate_per_s": 60, "burst": 1}, [1] * 120),
    ],
)
def test_parcels_are_cut_to_parcel_size_batch_and_burst(
    redis_url: str, vendor: str, rates: dict[str, Any], sizes: list[int]
) -> None:
    async def scenario(stage: Stage) -> None:
        people = [f"u{number}" for number in range(120)]
        for user in people:
            await stage.device(user, vendor=vendor)
        await stage.route(group("m1", *people))
        entries = await stage.entries(vendor)
        assert [len(entry.parcel.deliveries) for entry in entries] == sizes
        assert [one.user for entry in entries for one in entry.parcel.deliveries] == people
        assert len({entry.id for entry in entries}) == len(entries)
        assert {entry.lane for entry in entries} == {"bulk"}
        assert await stage.joined()

    play(redis_url, scenario, accounts=accounts(**rates))


def test_a_broadcast_of_several_parts_reaches_everybody_once(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        people = [f"u{number}" for number in range(1_201)]
        for user in people:
            await stage.device(user)
        await stage.route(group("m1", *people))
        assert [one.user for one in await stage.deliveries()] == people
        books = await stage.books()
        assert (books.lanes["bulk"].routed, books.lanes["bulk"].recipients) == (3, 1_201)
        assert len({entry.id for entry in await stage.entries()}) == len(await stage.entries())

    play(redis_url, scenario)


def test_bulk_above_an_accounts_share_is_dropped_and_counted(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        people = [f"u{number}" for number in range(200)]
        for user in people:
            await stage.device(user)
        await stage.route(group("m1", *people), chat("m2", "u1"))
        book = (await stage.books()).accounts["apns:main"]
        assert book.ends == {"bulk:dropped:backlog": 100}
        assert book.ready == 101
        assert await stage.joined()

    play(redis_url, scenario, router={"account_backlog_max": 120})


# ---- routing the same thing again


def test_an_entry_routed_again_changes_nothing_and_counts_once(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.device("a")
        await stage.device("b", vendor="fcm")
        stage.enqueue(group("m1", "a", "b", "nobody"))
        raws = await stage.read()
        await stage.put_and_die(*raws)
        assert not await stage.joined(), "put, and not yet acknowledged"
        (again,) = await stage.read_again()
        assert again.again
        await stage.router.route(stage.streams["normal"], [again])
        # The first router was only slow.
        await stage.router.route(stage.streams["normal"], raws)
        lane = (await stage.books()).lanes["normal"]
        assert (lane.routed, lane.present, lane.deliveries, lane.recipients) == (1, 0, 2, 3)
        assert await stage.suppressed() == {"no_device": 1}
        assert len(await stage.deliveries("apns")) == len(await stage.deliveries("fcm")) == 1
        assert await stage.joined()

    play(redis_url, scenario)


@pytest.mark.parametrize("change", ["muted", "gone", "moved", "came", "unmuted"])
def test_the_books_join_when_the_state_changed_before_the_second_routing(redis_url: str, change: str) -> None:
    async def scenario(stage: Stage) -> None:
        devices = UserKeys(PREFIX, "demo", "b").devices
        await stage.device("a")
        if change != "came":
            await stage.device("b", vendor="fcm")
        if change == "unmuted":
            await stage.option("b", "g1", "none")
        stage.enqueue(group("m1", "a", "b"))
        await stage.put_and_die(*await stage.read())
        if change == "muted":
            await stage.option("a", "g1", "none")
            await stage.option("b", "g1", "none")
        elif change == "unmuted":
            await stage.option("b", "g1", "all")
        elif change == "gone":
            await stage.queue.call("DEL", devices)
        elif change == "moved":
            await stage.device("b", vendor="huawei")
        else:
            await stage.device("b", vendor="fcm")
        await stage.router.route(stage.streams["normal"], await stage.read_again())
        assert await stage.joined()
        assert len(await stage.deliveries("apns")) == 1

    play(redis_url, scenario)


def test_a_message_enqueued_twice_is_a_repeat(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.device()
        await stage.route(chat("m1"), chat("m1"), chat("m2"))
        await stage.route(chat("m1"))
        lane = (await stage.books()).lanes["normal"]
        assert (lane.routed, lane.repeated, lane.deliveries, lane.recipients) == (4, 2, 2, 2)
        assert sorted(entry.parcel.push.message_id for entry in await stage.entries()) == ["m1", "m2"]
        assert await stage.joined()

    play(redis_url, scenario)


def test_the_first_decision_holds_for_a_repeat(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.device(state=FOREGROUND, lease_until_ms=now_ms() + 60_000)
        await stage.route(chat("m1"))
        await stage.device()
        await stage.route(chat("m1"))
        assert await stage.deliveries() == []
        assert await stage.suppressed() == {"foreground": 1}
        assert (await stage.books()).lanes["normal"].repeated == 1
        assert await stage.joined()

    play(redis_url, scenario)


def test_a_repeat_does_not_follow_a_user_to_another_vendor(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.device()
        await stage.route(chat("m1"))
        await stage.device(vendor="fcm")
        await stage.route(chat("m1"))
        assert (len(await stage.deliveries("apns")), await stage.deliveries("fcm")) == (1, [])
        assert await stage.joined()

    play(redis_url, scenario)


def test_the_books_join_when_a_repeat_overtook_a_router_that_died(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.device("a")
        await stage.device("b", vendor="fcm")
        stage.enqueue(group("m1", "a", "b"))
        await stage.put_and_die(*await stage.read())
        await stage.device("b", vendor="huawei")
        await stage.route(group("m1", "a", "b"))
        await stage.router.route(stage.streams["normal"], await stage.read_again())
        lane = (await stage.books()).lanes["normal"]
        assert (lane.routed, lane.repeated) == (2, 1)
        assert await stage.joined()

    play(redis_url, scenario)


def test_whoever_was_put_is_not_suppressed_as_well_when_the_next_router_would_refuse(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        for user in ("a", "b", "c"):
            await stage.device(user)
        stage.enqueue(group("m1", "a", "b", "c", "nobody"))
        await stage.put_and_die(*await stage.read())
        await stage.device("a", state=FOREGROUND, lease_until_ms=now_ms() + 60_000)
        await stage.device("b", channels=[])
        await stage.router.route(stage.streams["normal"], await stage.read_again())
        assert len(await stage.deliveries()) == 3
        assert sum((await stage.suppressed()).values()) == 1, "of four recipients three were put"
        assert await stage.joined()

    play(redis_url, scenario)


def test_whoever_a_dead_router_refused_ends_although_the_next_one_would_not(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.device("a")
        await stage.device("b", state=FOREGROUND, lease_until_ms=now_ms() + 60_000)
        stage.enqueue(group("m1", "a", "b"))
        await stage.put_and_die(*await stage.read())
        await stage.device("b")
        await stage.router.route(stage.streams["normal"], await stage.read_again())
        assert [one.user for one in await stage.deliveries()] == ["a"], "the first write is the decision"
        assert await stage.suppressed() == {"decided_before": 1}
        assert await stage.joined()

    play(redis_url, scenario)


def test_a_router_whose_redis_breaks_in_between_does_it_all_again(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.device()
        stage.enqueue(chat("m1", "bob", "nobody"))
        raws = await stage.read()
        stage.router = stage.new_router()
        run_many, before = stage.queue.run_many, suppressed("no_device")

        async def full(*_: object) -> list[object]:
            return [ReplyError("OOM command not allowed when used memory > 'maxmemory'.")]

        monkeypatch.setattr(stage.queue, "run_many", full)
        with pytest.raises(ReplyError):
            await stage.router.route(stage.streams["normal"], raws)
        monkeypatch.setattr(stage.queue, "run_many", run_many)
        await stage.router.route(stage.streams["normal"], raws)
        assert [one.badge for one in await stage.deliveries()] == [1]
        assert suppressed("no_device") - before == 1, "a decision counts once"
        assert await stage.joined()

    play(redis_url, scenario)


def suppressed(reason: str) -> float:
    """What this process has told of it so far."""
    return REGISTRY.get_sample_value("pushfleet_suppressed_total", {"reason": reason}) or 0


# ---- entries that cannot be routed


def body(**changes: Any) -> str:
    return json.dumps({"id": "bad", "app": "demo", "recipients": ["bob"], "body": "secret words", **changes})


MALFORMED = [
    (("v", "1", "m", "secret words"), "malformed", "JSON"),
    (("v", "1", "m", b"\xff\xfe\x00"), "malformed", ""),
    (("v", "1", "m", ""), "malformed", ""),
    (("v", "1", "m", "[]"), "malformed", "object"),
    (("v", "1", "m", "[" * 100_000), "malformed", ""),
    (("v", "1"), "malformed", "field m"),
    (("payload", body()), "malformed", "field m"),
    (("v", "1", "m", body(recipients=[])), "malformed", "recipients"),
    (("v", "1", "m", body(recipients="bob")), "malformed", "recipients"),
    (("v", "1", "m", body(recipients=[17])), "malformed", "recipients"),
    (("v", "1", "m", body(recipients=[""])), "malformed", "empty"),
    (("v", "1", "m", body(recipients=[f"u{n}" for n in range(501)])), "malformed", "500"),
    (("v", "1", "m", body(id="x" * 300)), "malformed", "256"),
    (("v", "1", "m", body(kind="rumour")), "malformed", "kind"),
    (("v", "1", "m", body(ttl_s="soon")), "malformed", "ttl_s"),
    (("v", "1", "m", body(app="no such name!")), "malformed", "app"),
    (("v", "1", "m", body(body="x" * 1_100_000)), "malformed", "1048576"),
    (("v", "2", "m", body()), "malformed", "field v is '2'"),
    (("v", "", "m", body()), "malformed", "field v"),
    (("v", b"\xff" * 500, "m", body()), "malformed", "field v"),
    (("v", "1", "m", body(app="unheard")), "unknown_app", "unheard"),
]


@pytest.mark.parametrize(("fields", "reason", "told"), MALFORMED)
def test_what_breaks_the_contract_is_refused_alone_with_a_reason(
    redis_url: str, fields: tuple[str | bytes, ...], reason: str, told: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.device()
        stage.enqueue(chat("m1"))
        await stage.xadd(*fields)
        stage.enqueue(chat("m2"))
        await stage.route()
        (refused,) = await stage.refused()
        assert refused["reason"] == reason
        assert told in refused["problem"]
        assert "secret words" not in refused["problem"] + caplog.text
        assert len(refused["problem"]) <= 500
        assert [entry.parcel.push.message_id for entry in await stage.entries()] == ["m1", "m2"]
        lane = (await stage.books()).lanes["normal"]
        assert (lane.added, lane.routed, lane.malformed, lane.present) == (3, 2, 1, 0)
        assert await stage.queue.call("XPENDING", stage.streams["normal"].keys.stream, GROUP) == [0, None, None, None]
        assert await stage.joined()

    play(redis_url, scenario)


def test_an_entry_without_a_version_is_of_version_one(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.device()
        await stage.xadd("m", wire.encode(chat()), "trace", "a field that a later version added")
        await stage.route()
        assert len(await stage.deliveries()) == 1

    play(redis_url, scenario)


def test_a_field_of_a_later_version_is_skipped(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.device()
        await stage.xadd("v", "1", "m", body(hologram={"deep": [1]}))
        await stage.route()
        assert len(await stage.deliveries()) == 1

    play(redis_url, scenario)


def test_an_entry_that_brings_out_a_defect_does_not_stop_its_neighbours(
    redis_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def defective(message: OfflineMessage, *others: Any, **more: Any) -> tuple[str, str]:
        if message.id == "m2":
            raise ZeroDivisionError("a text that must not be told")
        return compose(message, *others, **more)

    monkeypatch.setattr("pushfleet_workers.wording.compose", defective)

    async def scenario(stage: Stage) -> None:
        await stage.device(unread=5)
        await stage.route(chat("m1"), chat("m2"), chat("m3"))
        assert [one.badge for one in await stage.deliveries()] == [6, 7]
        (refused,) = await stage.refused()
        assert refused["reason"] == "unroutable"
        assert "ZeroDivisionError at test_router.py" in refused["problem"]
        assert "a text" not in refused["problem"] + caplog.text
        assert await stage.joined()

    play(redis_url, scenario)


# ---- strange ids and records


@pytest.mark.parametrize(
    "user",
    ["{x}", "a:b}:options", "a\0b", "\n", "用户", "😀" * 64, "u" * 256, "*", "a b", "../..", "%7B", "=", "'; FLUSHALL"],
)
def test_any_user_id_is_kept_apart(redis_url: str, user: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.device(user, user[:30], token="t1")
        await stage.option(user, user, "mentions")
        await stage.route(chat("m1", user, "x", "a"), chat("m2", user, conversation=None))
        assert [(one.user, one.device, one.token) for one in await stage.deliveries()] == [(user, user[:30], "t1")] * 2
        assert await stage.suppressed() == {"no_device": 2}
        assert await stage.joined()

    play(redis_url, scenario)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    ids=st.lists(st.text(min_size=1, max_size=60).filter(lambda one: not _lone(one)), min_size=1, max_size=5),
    name=st.text(max_size=60).filter(lambda one: not _lone(one)),
    text=st.text(max_size=200).filter(lambda one: not _lone(one)),
)
def test_whatever_a_producer_accepts_is_routed(redis_url: str, ids: list[str], name: str, text: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.queue.call("FLUSHALL")
        for stream in stage.streams.values():
            await stream.prepare()
        for user in ids:
            await stage.device(user, locale=name[:35])
        await stage.route(chat(ids[0], *ids, body=text, sender=Sender(id="ann", name=name)))
        assert await stage.refused() == []
        assert len(await stage.deliveries()) + (await stage.suppressed()).get("empty_text", 0) == len(set(ids))
        assert await stage.joined()

    play(redis_url, scenario)


def _lone(text: str) -> bool:
    return any("\ud800" <= one <= "\udfff" for one in text)


@pytest.mark.parametrize("key", ["badges", "storms", "days", "calls", "reads", "options"])
def test_one_users_damaged_key_costs_their_neighbours_nothing(redis_url: str, key: str) -> None:
    async def scenario(stage: Stage) -> None:
        for user in ("a", "b"):
            await stage.device(user, unread=2)
        await stage.queue.call("SET", getattr(UserKeys(PREFIX, "demo", "a"), key), "not even a hash")
        await stage.route(
            group("m1", "a", "b"), group("m2", "a", "b"), chat("call", "a", "b", kind="call"),
            chat("end", "a", "b", kind="call_cancel"), chat("again", "a", kind="marketing"),
        )  # fmt: skip
        reached = [one for one in await stage.deliveries() if one.user == "b"]
        assert [one.badge for one in reached] == [3, 4, 5]
        assert await stage.joined()
        assert await stage.refused() == []

    capped = {**APNS, "device_caps": {"all": 50}}
    play(
        redis_url,
        scenario,
        apps={"demo": {"name": "Demo", "storm_waits_s": [10], "reads": True}, "lite": {}},
        accounts={"apns": {"main": capped}},
    )


def test_a_damaged_record_costs_only_its_device(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.device("a")
        await stage.device("a", "tablet")
        for name, damaged in (("tablet", b"\x00"), ("watch", b""), (b"\xff", b"\x91\xc1"), ("tv", b"\x93\x90\x01")):
            await stage.queue.call("HSET", UserKeys(PREFIX, "demo", "a").devices, name, damaged)
        await stage.queue.call("SET", UserKeys(PREFIX, "demo", "b").devices, "not even a hash")
        await stage.device("c")
        await stage.queue.call("HSET", UserKeys(PREFIX, "demo", "c").options, "g1", b"none:\xff")
        await stage.device("d")
        await stage.queue.call("SET", UserKeys(PREFIX, "demo", "d").options, "neither")
        await stage.device("e")
        await stage.route(group("m1", *"abcde"))
        users = [one.user for one in await stage.deliveries()]
        assert users == ["a", "e"]
        assert await stage.suppressed() == {"no_device": 2, "muted": 1}
        assert await stage.joined()

    play(redis_url, scenario)


def test_an_entry_id_of_a_far_future_is_no_stumbling_block(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.device()
        stage.enqueue(chat("m1"))
        stream = stage.streams["normal"].keys.stream
        await stage.queue.call("XADD", stream, f"{2**64 - 1}-1", "v", "1", "m", wire.encode(chat("m2")))
        await stage.route()
        assert [entry.parcel.push.message_id for entry in await stage.entries()] == ["m1"]
        assert [one["reason"] for one in await stage.refused()] == ["unroutable"]

    play(redis_url, scenario)


def test_what_is_put_once_more_when_its_marker_is_gone_is_not_taken_for_the_first(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.device()
        await stage.route(chat())
        for key in await stage.queue.call("KEYS", f"{PREFIX}:*:marks:*"):
            await stage.queue.call("DEL", key)
        await stage.route(chat())
        ledger = Ledger(stage.queue, AccountKeys(PREFIX, "apns", "main"), "worker")
        first, second = (await ledger.claim(PLENTY)).entries
        assert first.id != second.id
        assert first.parcel.deliveries[0].id == second.parcel.deliveries[0].id
        for entry in (first, second):
            await ledger.settle([Settlement(entry.id, entry.fence, 1, ended=1, ends={"normal:sent:": 1})])
        account = (await read_books(stage.queue, PREFIX, [("apns", "main")])).accounts["apns:main"]
        assert (account.put, account.leased, account.ended, account.balanced) == (2, 0, 2, True)

    play(redis_url, scenario)


def test_recalls_of_nobody_knows_how_many_go_alone() -> None:
    def jobs(*recipients: str) -> list[Job]:
        recall = Recall(id="m1", app="demo", recipients=recipients)
        return [job_for(Raw(b"1-0", 1, {}), recall, 60) for _ in range(3)]

    assert [len(batch) for batch in _slices(jobs())] == [1, 1, 1]
    assert [len(batch) for batch in _slices(jobs("bob"))] == [3]


# ---- waking the workers


def test_the_bell_rings_and_a_trigger_goes_out_when_nobody_listens(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.device("a")
        await stage.device("b", vendor="fcm")
        await stage.route(group("m1", "a", "b"))
        assert sorted(stage.triggered) == ["apns", "fcm"]
        await stage.route(group("m2", "a", "b"))
        assert sorted(stage.triggered) == ["apns", "fcm"], "one trigger is under way already"
        for vendor in ("apns", "fcm"):
            keys = stage.vendor_keys(vendor)
            assert await stage.queue.call("LLEN", keys.bell) == 1
        assert await stage.queue.call("EXISTS", stage.vendor_keys("huawei").bell) == 0

    play(redis_url, scenario)


def test_a_drain_that_listens_is_rung_and_not_triggered(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.device()
        keys = stage.vendor_keys("apns")
        await stage.queue.call("ZADD", keys.listeners, now_ms() + 5_000, "drain-1")
        await stage.route(chat())
        assert stage.triggered == []
        assert await stage.queue.call("LLEN", keys.bell) == 1
        await stage.queue.call("ZADD", keys.listeners, now_ms() - 1, "drain-1")
        await stage.route(chat("m2"))
        assert stage.triggered == ["apns"], "whoever listened is gone"

    play(redis_url, scenario)


def test_a_put_that_fails_takes_no_trigger_from_the_others(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.device("a")
        await stage.device("b", vendor="fcm")
        await stage.queue.call("SET", AccountKeys(PREFIX, "fcm", "main").books, "no hash")
        with pytest.raises(ReplyError):
            await stage.route(group("m1", "a", "b"))
        # Their puts will be done again, and then a trigger is said to be out already.
        assert sorted(stage.triggered) == ["apns", "fcm"]

    play(redis_url, scenario)


def test_nothing_rings_for_what_is_not_pushed(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.route(chat(), chat("m2", online_only=True))
        assert stage.triggered == []
        assert await stage.queue.call("KEYS", "*bell*") == []

    play(redis_url, scenario)
