"""From a message to parcels in the ledgers: who gets what, by which account, and why others do not."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from tests.workers.routing import APNS, FCM, HUAWEI, PREFIX, Stage, chat, group, now_ms, play

from pushfleet import Element, OfflineMessage, OfflinePush, Recipient, Target, wire
from pushfleet.message import ApnsOptions
from pushfleet_workers.ledger import AccountKeys
from pushfleet_workers.push import delivery_id
from pushfleet_workers.redis_link import ReplyError
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
