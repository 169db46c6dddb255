"""What a push sounds like: what the message asks for, else what the user chose, else as the account says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.workers.vendors.samples import AUTH, NOW_MS, a_delivery, a_push, an_account, content

from pushfleet import OfflinePush
from pushfleet.message import AndroidOptions, ApnsOptions, FcmOptions, Kind, VivoOptions
from pushfleet_workers import registry
from pushfleet_workers.push import Push
from pushfleet_workers.vendors.kit import android_sound


def built(vendor: str, keys: Path, push: Push, **account: Any) -> Any:
    """What goes out for one device."""
    module = registry.load(vendor)
    return content(module.build(an_account(vendor, keys, **account), push, [a_delivery()], AUTH, NOW_MS))


def a_sounding(user: str | None, *, android: str | None = None, kind: Kind = "chat", **options: Any) -> Push:
    wishes = OfflinePush(android=AndroidOptions(sound=android), **options) if android is not None or options else None
    return a_push(kind=kind, sound=user, options=wishes)


# ---- Android


@pytest.mark.parametrize(
    ("message", "user", "sound"),
    [
        (None, None, None),
        (None, "ding.wav", "ding"),
        (None, "ding", "ding"),
        (None, "", ""),
        ("knock", None, "knock"),
        ("knock", "ding.wav", "knock"),
        ("knock", "", "knock"),
        ("", "ding.wav", "ding"),
    ],
)
def test_the_message_goes_before_the_user(message: str | None, user: str | None, sound: str | None) -> None:
    assert android_sound(a_sounding(user, android=message)) == sound


HUAWEI: Callable[[Any], Any] = lambda body: (
    body["message"]["android"]["notification"].get("sound"),
    body["message"]["android"]["notification"].get("default_sound"),
)
XIAOMI: Callable[[Any], Any] = lambda body: (body.get("extra.sound_uri", "").rpartition("/")[2], body["notify_type"])
MEIZU: Callable[[Any], Any] = lambda body: body["messageJson"]["advanceInfo"]["notificationType"]["sound"]
VIVO: Callable[[Any], Any] = lambda body: body["notifyType"]


@pytest.mark.parametrize(
    ("vendor", "read", "plain", "named", "silent"),
    [
        ("huawei", HUAWEI, (None, None), ("/raw/ding", False), (None, False)),
        ("xiaomi", XIAOMI, ("", "-1"), ("ding", "-1"), ("", "6")),
        ("meizu", MEIZU, True, True, False),
        ("vivo", VIVO, 4, 4, 3),
    ],
)
def test_android_makers_play_what_the_user_chose(
    vendor: str, read: Callable[[Any], Any], plain: Any, named: Any, silent: Any, keys: Path
) -> None:
    assert read(built(vendor, keys, a_sounding(None))) == plain
    assert read(built(vendor, keys, a_sounding("ding.wav"))) == named
    assert read(built(vendor, keys, a_sounding(""))) == silent
    # The message's own wish goes before silence.
    assert read(built(vendor, keys, a_sounding("", android="ding"))) == named


def test_what_the_settings_leave_of_the_sound_is_left(keys: Path) -> None:
    kinds = {"chat": {"notify_type": 5, "channel_id": ""}}
    assert built("xiaomi", keys, a_sounding(""), kinds=kinds)["notify_type"] == "4"
    assert (
        built("xiaomi", keys, a_sounding(""), kinds={"chat": {"notify_type": 0, "channel_id": ""}})["notify_type"]
        == "0"
    )
    for told, silent in ((1, 1), (2, 1), (3, 3), (4, 3)):
        assert built("vivo", keys, a_sounding(""), kinds={"chat": {"notify_type": told}})["notifyType"] == silent
    assert built("vivo", keys, a_sounding("", vivo=VivoOptions(notify_type=4)))["notifyType"] == 4
    assert built("meizu", keys, a_sounding(""), numeric_switches=True)["messageJson"]["advanceInfo"][
        "notificationType"
    ] == {"vibrate": 1, "lights": 1, "sound": 0}


@pytest.mark.parametrize(
    ("push", "data", "shown"),
    [
        (a_sounding(None), None, "default"),
        (a_sounding("ding.wav"), "ding", "ding"),
        (a_sounding(""), "", None),
        (a_sounding("", android="knock"), "knock", "knock"),
    ],
)
def test_fcm_tells_the_app_or_the_system(push: Push, data: str | None, shown: str | None, keys: Path) -> None:
    message = built("fcm", keys, push)["message"]
    assert message["data"].get("sound") == data
    told = built("fcm", keys, push, kinds={"chat": {"form": "notification"}})["message"]
    assert told["android"]["notification"].get("sound") == shown
    assert "sound" not in told["data"]


def test_fcm_asks_by_the_form_that_the_message_wants(keys: Path) -> None:
    message = built("fcm", keys, a_sounding("", fcm=FcmOptions(form="notification")))["message"]
    assert "sound" not in message["android"]["notification"]


@pytest.mark.parametrize(("user", "raw", "ring"), [(None, None, None), ("ding.wav", "ding", None), ("", None, 0)])
def test_tpns_rings_on_android_as_the_user_chose(
    user: str | None, raw: str | None, ring: int | None, keys: Path
) -> None:
    android = built("tpns", keys, a_sounding(user), platform="android")["message"]["android"]
    assert (android.get("ring_raw"), android.get("ring")) == (raw, ring)


@pytest.mark.parametrize("vendor", ["honor", "oppo"])
@pytest.mark.parametrize("user", ["ding.wav", ""])
def test_vendors_without_a_field_for_it_send_what_they_did(vendor: str, user: str, keys: Path) -> None:
    assert built(vendor, keys, a_sounding(user)) == built(vendor, keys, a_sounding(None))


# ---- Apple, HarmonyOS


APNS: Callable[[Any], Any] = lambda body: body["aps"].get("sound")
TPNS: Callable[[Any], Any] = lambda body: body["message"]["ios"]["aps"]["sound"] or None
OWN = ApnsOptions(sound="own.caf")
MUTE = ApnsOptions(sound="")


@pytest.mark.parametrize(("vendor", "read", "more"), [("apns", APNS, {}), ("tpns", TPNS, {"platform": "ios"})])
@pytest.mark.parametrize(
    ("message", "user", "told", "sound"),
    [
        (None, None, None, "default"),
        (None, None, "set.caf", "set.caf"),
        (None, None, "", None),
        (None, "ding.wav", None, "ding.wav"),
        (None, "ding.wav", "set.caf", "ding.wav"),
        (None, "ding.wav", "", "ding.wav"),
        (None, "", "set.caf", None),
        (OWN, "ding.wav", "set.caf", "own.caf"),
        (OWN, "", None, "own.caf"),
        (MUTE, "ding.wav", "set.caf", None),
        # What Android plays says nothing of other systems.
        (ApnsOptions(), "ding.wav", None, "ding.wav"),
    ],
)
def test_message_user_settings_default(
    vendor: str,
    read: Callable[[Any], Any],
    more: dict[str, Any],
    message: ApnsOptions | None,
    user: str | None,
    told: str | None,
    sound: str | None,
    keys: Path,
) -> None:
    options = {"apns": message} if message is not None else {}
    kinds = {"chat": {"sound": told}} if told is not None else {}
    push = a_sounding(user, android="knock" if message is not None else None, **options)
    assert read(built(vendor, keys, push, kinds=kinds, **more)) == sound


@pytest.mark.parametrize(
    ("user", "told", "sound"),
    [(None, None, None), (None, "set.mp3", "set.mp3"), ("ding.wav", "set.mp3", "ding.wav"), ("", "set.mp3", None)],
)
def test_harmony_plays_what_the_user_chose(user: str | None, told: str | None, sound: str | None, keys: Path) -> None:
    body = built("harmony", keys, a_sounding(user, android="knock"), kinds={"chat": {"sound": told}} if told else {})
    assert body["payload"]["notification"].get("sound") == sound


def test_a_recall_makes_no_sound_whatever_the_user_chose(keys: Path) -> None:
    recall = a_push(sound="ding.wav", recall=True, revision=1)
    assert APNS(built("apns", keys, recall)) is None
    assert TPNS(built("tpns", keys, recall, platform="ios")) is None
