"""What a message says in its `offline_push` goes before everything else, from the router to the vendor."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.workers.routing import PREFIX, Stage, chat, now_ms, play
from tests.workers.vendors.samples import AUTH, an_account, content
from tests.workers.vendors.test_contract import leaves

from pushfleet import Element, OfflinePush, Recipient
from pushfleet.message import AndroidOptions, ApnsOptions
from pushfleet_workers import registry
from pushfleet_workers.tokens.preference_store import PreferenceStore
from pushfleet_workers.tokens.preferences import Preferences


async def sent(stage: Stage, keys: Path, vendor: str, **fields: Any) -> Any:
    """What goes out to Bob's device of that vendor for a message with *fields*."""
    await stage.device(vendor=vendor, unread=3)
    await stage.route(chat("m1", **fields))
    (entry,) = await stage.entries(vendor)
    account = an_account(vendor, keys)
    return content(registry.load(vendor).build(account, entry.parcel.push, entry.parcel.deliveries, AUTH, now_ms()))


@pytest.mark.parametrize(
    ("push", "message", "title"),
    [
        (OfflinePush(title="push", apns=ApnsOptions(title="apns")), "message", "apns"),
        (OfflinePush(title="push", apns=ApnsOptions()), "message", "push"),
        (OfflinePush(), "message", "message"),
        (None, None, "Ann"),
    ],
)
def test_the_title(push: OfflinePush | None, message: str | None, title: str, redis_url: str, keys: Path) -> None:
    async def scenario(stage: Stage) -> None:
        body = await sent(stage, keys, "apns", title=message, offline_push=push)
        assert body["aps"]["alert"]["title"] == title

    play(redis_url, scenario)


@pytest.mark.parametrize(
    ("push", "body", "text"),
    [
        (OfflinePush(desc="desc"), "body", "desc"),
        (OfflinePush(), "body", "body"),
        (None, None, "words[Image]"),
    ],
)
def test_the_text(push: OfflinePush | None, body: str | None, text: str, redis_url: str, keys: Path) -> None:
    async def scenario(stage: Stage) -> None:
        elements = (Element(type="text", text="words"), Element(type="image"))
        shown = await sent(stage, keys, "apns", body=body, elements=elements, offline_push=push)
        assert shown["aps"]["alert"]["body"] == text

    play(redis_url, scenario)


EXT = '{"entity":{"chatType":1,"sender":"ann"}}'


@pytest.mark.parametrize("vendor", ["apns", "fcm", "huawei"])
def test_the_ext_is_the_same_everywhere(vendor: str, redis_url: str, keys: Path) -> None:
    async def scenario(stage: Stage) -> None:
        body = await sent(stage, keys, vendor, offline_push=OfflinePush(ext=EXT))
        assert EXT in leaves(body)

    play(redis_url, scenario)


@pytest.mark.parametrize(
    ("push", "user", "sound"),
    [
        (OfflinePush(apns=ApnsOptions(sound="own.caf"), android=AndroidOptions(sound="droid")), "ding.wav", "own.caf"),
        (OfflinePush(android=AndroidOptions(sound="droid")), "ding.wav", "ding.wav"),
        (None, "ding.wav", "ding.wav"),
        (None, "", None),
        (None, None, "default"),
    ],
)
def test_the_sound(push: OfflinePush | None, user: str | None, sound: str | None, redis_url: str, keys: Path) -> None:
    async def scenario(stage: Stage) -> None:
        wanted = Preferences(single_sound=user)
        await PreferenceStore(stage.queue, PREFIX).change("demo", "bob", lambda _: wanted)
        body = await sent(stage, keys, "apns", offline_push=push)
        assert body["aps"].get("sound") == sound

    play(redis_url, scenario)


@pytest.mark.parametrize(
    ("unread", "mode", "badge"),
    [(None, "count", 4), (None, "ignore", None), (9, "count", 9), (9, "ignore", 9), (0, "count", 0)],
)
def test_the_badge(unread: int | None, mode: Any, badge: int | None, redis_url: str, keys: Path) -> None:
    async def scenario(stage: Stage) -> None:
        push = OfflinePush(apns=ApnsOptions(badge_mode=mode))
        bob = Recipient(id="bob", unread=unread)
        body = await sent(stage, keys, "apns", recipients=(bob,), offline_push=push)
        assert body["aps"].get("badge") == badge

    play(redis_url, scenario)
