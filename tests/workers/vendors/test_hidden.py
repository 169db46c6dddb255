"""What a user hides stays hidden from every vendor."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.workers.routing import PREFIX, Stage, chat, now_ms, play
from tests.workers.vendors.samples import AUTH, an_account, content

from pushfleet import Conversation, Element, OfflinePush, Sender
from pushfleet.message import (
    AndroidOptions,
    ApnsOptions,
    FcmOptions,
    HarmonyOptions,
    HonorOptions,
    HuaweiOptions,
    OppoOptions,
    XiaomiOptions,
)
from pushfleet_workers import registry
from pushfleet_workers.overrides import without_texts
from pushfleet_workers.tokens.preference_store import PreferenceStore
from pushfleet_workers.tokens.preferences import Preferences

TOLD = "TOLD"
"""Stands wherever a message can say something."""

LOUD: dict[str, Any] = {
    "sender": Sender(id="ann", name=f"{TOLD} 1"),
    "conversation": Conversation(id="g1", kind="group", name=f"{TOLD} 2"),
    "title": f"{TOLD} 3",
    "body": f"{TOLD} 4",
    "elements": (Element(type="text", text=f"{TOLD} 5"),),
    "offline_push": OfflinePush(
        title=f"{TOLD} 6",
        desc=f"{TOLD} 7",
        ext='{"room":"g1"}',
        apns=ApnsOptions(
            title=f"{TOLD} 8",
            subtitle=f"{TOLD} 9",
            image=f"https://example.com/{TOLD}",
            mutable_content=True,
            title_loc_key="BY",
            title_loc_args=(TOLD,),
            subtitle_loc_key="IN",
            subtitle_loc_args=(TOLD,),
            loc_key="SAID",
            loc_args=(TOLD,),
        ),
        android=AndroidOptions(style="big_text"),
        huawei=HuaweiOptions(image=f"https://example.com/{TOLD}"),
        honor=HonorOptions(image=f"https://example.com/{TOLD}"),
        xiaomi=XiaomiOptions(channel_id="c", template_id="t", template_params={"text": TOLD}),
        oppo=OppoOptions(category="IM", template_id="t", title_params={"a": TOLD}, content_params={"b": TOLD}),
        harmony=HarmonyOptions(image=f"https://example.com/{TOLD}"),
        fcm=FcmOptions(image=f"https://example.com/{TOLD}"),
    ),
}


@pytest.mark.parametrize("vendor", registry.built_in())
def test_no_vendor_is_told_what_is_hidden(redis_url: str, vendor: str, keys: Path) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.device("a")
        await stage.device("b")
        await PreferenceStore(stage.queue, PREFIX).change("demo", "b", lambda _: Preferences(hide_text=True))
        await stage.route(chat("m1", "a", "b", **LOUD))
        module, account = registry.load(vendor), an_account(vendor, keys)
        for entry in await stage.entries():
            push, deliveries = entry.parcel.push, entry.parcel.deliveries
            ahead = module.stage(account, push, deliveries, AUTH, now_ms())
            request = ahead or module.build(account, push, deliveries, AUTH, now_ms())
            shown = str(content(request))
            assert (TOLD in shown) is not push.hidden
            assert ("You have a new message" in shown) is push.hidden
            assert "room" in shown

    play(redis_url, scenario)


def test_hiding_twice_changes_nothing_and_leaves_how_it_knocks() -> None:
    push = without_texts(LOUD["offline_push"])
    assert TOLD not in str(push) + str(msgspec.to_builtins(push))
    assert without_texts(push) == push
    assert (push.ext, push.oppo.category, push.xiaomi.channel_id) == ('{"room":"g1"}', "IM", "c")
    assert push.android == LOUD["offline_push"].android
