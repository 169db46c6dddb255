"""What users want altogether, as router and recheck heed it."""

from __future__ import annotations

from typing import Any

import pytest
from tests.workers.routing import PREFIX, RECALLS, Stage, chat, group, now_ms, play

from pushfleet import Conversation, OfflineMessage, OfflinePush, Recipient
from pushfleet.message import ApnsOptions
from pushfleet_workers.catalogue import STANDARD
from pushfleet_workers.clock import FleetClock
from pushfleet_workers.push import Push
from pushfleet_workers.recheck import Rechecker
from pushfleet_workers.tokens.keys import UserKeys
from pushfleet_workers.tokens.preference_store import PreferenceStore
from pushfleet_workers.tokens.preferences import DAY_S, PREFERENCES_FIELD, Preferences, Window
from pushfleet_workers.tokens.record import KILLED

OFF = Preferences(push=False)
QUIET = Preferences(quiet_daily=(Window(0, DAY_S),))


async def prefer(stage: Stage, wanted: Preferences, user: str = "bob") -> None:
    await PreferenceStore(stage.queue, PREFIX).change("demo", user, lambda _: wanted)


# ---- no push


def test_who_switched_pushes_off_or_is_not_to_be_disturbed_gets_none(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        for user, wanted in (("off", OFF), ("quiet", QUIET), ("free", Preferences(hide_text=True))):
            await stage.device(user, state=KILLED)
            await prefer(stage, wanted, user)
        everybody = ("off", "quiet", "free")
        await stage.route(chat("m1", *everybody), chat("m2", *everybody, kind="call"))
        assert sorted(one.user for one in await stage.deliveries()) == ["free", "free", "quiet"]
        assert await stage.suppressed() == {"push_off": 2, "do_not_disturb": 1}
        forced = [Recipient(id=user, push="force") for user in everybody]
        await stage.route(chat("m3", *forced))
        assert len(await stage.deliveries()) == 6

    play(redis_url, scenario)


def test_each_device_is_quiet_by_its_own_clock(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        # Twelve hours around now by the clock in UTC: half the world away it is another half of the day.
        second = now_ms() // 1000 % DAY_S
        await prefer(stage, Preferences(quiet_daily=(Window((second - DAY_S // 4) % DAY_S, DAY_S // 2),)))
        await stage.device(name="here")
        await stage.device(name="far", time_zone="Etc/GMT+12")
        await stage.route(chat("m1"))
        assert [one.device for one in await stage.deliveries()] == ["far"]
        assert await stage.suppressed() == {"do_not_disturb": 1}

    play(redis_url, scenario)


def test_preferences_that_cannot_be_read_stop_nothing(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.device()
        await stage.queue.call("HSET", UserKeys(PREFIX, "demo", "bob").options, PREFERENCES_FIELD, b"\xc1")
        await stage.route(chat("m1"), chat("m2", conversation=None))
        assert len(await stage.deliveries()) == 2

    play(redis_url, scenario)


HIDING = Preferences(hide_text=True)


@pytest.mark.parametrize(("wanted", "reason"), [(OFF, "push_off"), (QUIET, "do_not_disturb"), (Preferences(), "")])
def test_what_waited_heeds_what_the_user_wants_by_then(redis_url: str, wanted: Preferences, reason: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.device()
        await stage.route(chat("m1"), chat("m2", Recipient(id="bob", push="force")), chat("m3", kind="call"))
        await prefer(stage, wanted)
        entries = await stage.entries()
        found = await Rechecker(stage.queue, PREFIX, FleetClock(), "apns", "main").recheck(entries)
        reasons = {
            entry.parcel.push.message_id: found.refused.get(one.id, "")
            for entry in entries
            for one in entry.parcel.deliveries
        }
        assert reasons == {"m1": reason, "m2": "", "m3": reason if wanted is OFF else ""}

    play(redis_url, scenario)


# ---- hidden texts and sounds


@pytest.mark.parametrize(
    ("message", "body"),
    [
        (chat("m1", offline_push=OfflinePush(apns=ApnsOptions(title="Ann", image="https://x/a.png"))), "hidden"),
        (chat("m1", kind="call"), "call"),
    ],
)
def test_what_waited_says_nothing_to_a_user_who_hides_texts_meanwhile(
    redis_url: str, message: OfflineMessage, body: str
) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.device()
        await stage.route(message)
        await prefer(stage, HIDING)
        entries = await stage.entries()
        found = await Rechecker(stage.queue, PREFIX, FleetClock(), "apns", "main", app_name="Demo").recheck(entries)
        (push,) = found.rendered.values()
        assert (push.title, push.body, push.sender_name, push.hidden) == ("Demo", STANDARD["en"][body], "", True)
        options = push.options.apns if push.options is not None else None
        assert options is None or (options.title, options.image) == (None, None)

    play(redis_url, scenario)


def test_a_sound_of_any_name_is_told_from_none(redis_url: str) -> None:
    """Parcels of one part that differ need ids that differ, else one takes the other's place."""

    async def scenario(stage: Stage) -> None:
        for user in "ab":
            await stage.device(user)
        await prefer(stage, HIDING, "a")
        await prefer(stage, Preferences(hide_text=True, group_sound="None"), "b")
        await stage.route(group("m1", "a", "b"))
        first, second = await stage.entries()
        assert first.id != second.id

    play(redis_url, scenario)


async def pushes(stage: Stage) -> dict[str, Push]:
    """By user, what waits for them."""
    return {one.user: entry.parcel.push for entry in await stage.entries() for one in entry.parcel.deliveries}


def test_who_hides_texts_reads_that_there_is_a_message_and_nothing_else(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        for user in "abcd":
            await stage.device(user, locale="zh" if user == "d" else "")
        await prefer(stage, HIDING, "b")
        await prefer(stage, HIDING, "d")
        await stage.route(group("m1", "a", "b", Recipient(id="c", mention=True), Recipient(id="d", mention=True)))
        told = {user: (one.title, one.body, one.sender_name, one.hidden) for user, one in (await pushes(stage)).items()}
        assert told == {
            "a": ("Team", "Ann: Lunch?", "Ann", False),
            "b": ("Demo", "You have a new message", "", True),
            "c": ("Team", "[Mentioned you] Ann: Lunch?", "Ann", False),
            "d": ("Demo", "你收到一条新消息", "", True),
        }
        assert await stage.joined()

    play(redis_url, scenario)


@pytest.mark.parametrize(("kind", "body"), [("call", "Incoming call"), ("missed_call", "Missed call")])
def test_a_call_is_still_one_when_texts_are_hidden(redis_url: str, kind: str, body: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.device()
        await prefer(stage, HIDING)
        await stage.route(chat("m1", kind=kind))
        (entry,) = await stage.entries()
        assert (entry.parcel.push.title, entry.parcel.push.body) == ("Demo", body)

    play(redis_url, scenario)


def test_a_recall_tells_whoever_hides_texts_not_by_whom(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.device("a")
        await stage.device("b")
        await prefer(stage, Preferences(hide_text=True, single_sound="ding.wav"), "b")
        await stage.route(chat("m1", "a", "b"))
        await stage.recall("m1")
        recalls = {user: (one.title, one.body, one.sound) for user, one in (await pushes(stage)).items() if one.recall}
        assert recalls == {
            "a": ("Ann", "Ann recalled a message", None),
            "b": ("Demo", "A message was recalled", None),
        }

    play(redis_url, scenario, apps=RECALLS)


# ---- sounds


def test_the_sound_is_what_the_user_chose_for_such_chats(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        for user in "abc":
            await stage.device(user)
        await prefer(stage, Preferences(single_sound="ding.wav", group_sound=""), "b")
        await prefer(stage, Preferences(group_sound="ding.wav"), "c")
        expected: dict[str, tuple[dict[str, Any], dict[str, str | None]]] = {
            "m1": ({}, {"a": None, "b": "ding.wav", "c": None}),
            "m2": ({"conversation": None}, {"a": None, "b": "ding.wav", "c": None}),
            "m3": ({"conversation": GROUP}, {"a": None, "b": "", "c": "ding.wav"}),
            "m4": ({"conversation": CHANNEL, "kind": "mention"}, {"a": None, "b": "", "c": "ding.wav"}),
            "m5": ({"conversation": GROUP, "kind": "summary"}, {"a": None, "b": "", "c": "ding.wav"}),
            "m6": ({"kind": "call"}, {"a": None, "b": None, "c": None}),
            "m7": ({"kind": "missed_call"}, {"a": None, "b": None, "c": None}),
            "m8": ({"kind": "marketing"}, {"a": None, "b": None, "c": None}),
        }
        await stage.route(*(chat(name, *"abc", **fields) for name, (fields, _) in expected.items()))
        found: dict[str, dict[str, str | None]] = {name: {} for name in expected}
        for entry in await stage.entries():
            for one in entry.parcel.deliveries:
                found[entry.parcel.push.message_id][one.user] = entry.parcel.push.sound
        assert found == {name: sounds for name, (_, sounds) in expected.items()}
        assert await stage.joined()

    play(redis_url, scenario)


GROUP = Conversation(id="g1", kind="group")
CHANNEL = Conversation(id="n1", kind="channel")


def test_one_parcel_for_each_manner_of_telling(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        for number in range(8):
            user = f"u{number}"
            await stage.device(user, vendor="huawei")
            if number % 4:
                await prefer(
                    stage, Preferences(hide_text=number % 4 > 1, single_sound="" if number % 4 > 2 else None), user
                )
        await stage.route(chat("m1", *(f"u{number}" for number in range(8))))
        entries = await stage.entries("huawei")
        parcels = sorted(
            (entry.parcel.push.hidden, entry.parcel.push.sound == "", [one.user for one in entry.parcel.deliveries])
            for entry in entries
        )
        assert parcels == [
            (False, False, ["u0", "u1", "u4", "u5"]),
            (True, False, ["u2", "u6"]),
            (True, True, ["u3", "u7"]),
        ]
        assert len({entry.id for entry in entries}) == 3

    play(redis_url, scenario)
