"""docs/contract.md tells how long an ``ext`` each vendor carries: what the modules do, measured."""

from __future__ import annotations

import json
import os
import re
from bisect import bisect_left
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from tests.workers.vendors.samples import AUTH, HERE, NOW_MS, REWRITE, a_delivery, a_push, an_account, content

from pushfleet.message import EXT_BYTES_MAX, HuaweiOptions, OfflinePush
from pushfleet_workers import registry
from pushfleet_workers.account import AccountSettings

PAGE = HERE.parents[2] / "docs" / "contract.md"
HEAD = "| vendor | plain ASCII | JSON | Chinese |\n| --- | --- | --- | --- |\n"
TABLE = re.compile(re.escape(HEAD) + r"((?:\|.*\|\n)*)")
STEP = 10
"""What is told is measured, rounded down to this."""

TEXTS = {
    "plain ASCII": "room-7f3a.10086_",
    "JSON": '{"type":1,"id":"10086","name":"Li Lei"},',
    "Chinese": "今晚八点见",
}
IDS = {name: name[0] * 64 for name in ("message_id", "conversation_id", "replace_key")}
AS_INTENT = OfflinePush(huawei=HuaweiOptions(ext_as_intent_param=True))

# What the table calls it -> vendor, settings other than those of the sample account, what the message asks for.
WAYS: dict[str, tuple[str, dict[str, Any], OfflinePush | None]] = {
    "APNs": ("apns", {}, None),
    "FCM": ("fcm", {}, None),
    "Huawei": ("huawei", {}, None),
    "Huawei, `ext_as_intent_param`": ("huawei", {}, AS_INTENT),
    "HarmonyOS": ("harmony", {}, None),
    "Honor": ("honor", {}, None),
    "Xiaomi": ("xiaomi", {}, None),
    "OPPO": ("oppo", {}, None),
    "vivo": ("vivo", {"click_intent": ""}, None),
    "vivo, with `click_intent`": ("vivo", {}, None),
    "Meizu": ("meizu", {}, None),
    "TPNS": ("tpns", {"click_url": ""}, None),
    "TPNS, with `click_url`": ("tpns", {}, None),
}


def cut(text: str, size: int) -> str:
    """*text* again and again, as much of it as *size* bytes hold."""
    return (text * (size // len(text) + 1)).encode()[:size].decode(errors="ignore")


def in_json(text: str) -> str:
    found = json.loads(text).get("ext", "")
    assert isinstance(found, str)
    return found


def of_query(address: str) -> str:
    found = re.search(r"[?&;](?:S\.)?ext=([^&;]*)", address)
    return unquote(found[1]) if found else ""


# Where an app finds it after a tap.
HANDED_OVER: dict[str, Callable[[Any], str]] = {
    "APNs": lambda told: told.get("ext", ""),
    "FCM": lambda told: told["message"]["data"].get("ext", ""),
    "Huawei": lambda told: in_json(told["message"]["android"]["data"]),
    "Huawei, `ext_as_intent_param`": lambda told: of_query(
        told["message"]["android"]["notification"]["click_action"].get("intent", "")
    ),
    "HarmonyOS": lambda told: told["payload"]["notification"]["clickAction"]["data"].get("ext", ""),
    "Honor": lambda told: in_json(told["android"]["data"]),
    "Xiaomi": lambda told: told["payload"].get("ext", ""),
    "OPPO": lambda told: in_json(told["message"]["notification"]["action_parameters"]),
    "vivo": lambda told: told["clientCustomMap"].get("ext", ""),
    "vivo, with `click_intent`": lambda told: of_query(told["skipContent"]),
    "Meizu": lambda told: told["messageJson"]["clickTypeInfo"]["parameters"].get("ext", ""),
    "TPNS": lambda told: in_json(told["message"]["android"]["custom_content"]),
    "TPNS, with `click_url`": lambda told: of_query(told["message"]["android"]["action"]["intent"]),
}


def is_left_out(way: str, account: AccountSettings, text: str, size: int) -> bool:
    """Whether the app gets no ``ext`` of *size* bytes; what it gets is whole, and the line of text is as well."""
    vendor, _, options = WAYS[way]
    push = a_push(**IDS, ext=cut(text, size), options=options)
    told = content(registry.load(vendor).build(account, push, [a_delivery()], AUTH, NOW_MS))
    found = HANDED_OVER[way](told)
    assert found in ("", push.ext)
    assert push.body in json.dumps(told, ensure_ascii=False)
    return not found


def line(way: str, keys: Path) -> str:
    vendor, changes, _ = WAYS[way]
    account = an_account(vendor, keys, **changes)
    told = []
    for text in TEXTS.values():
        most = bisect_left(range(1, EXT_BYTES_MAX + 1), True, key=partial(is_left_out, way, account, text))
        told.append("all" if most == EXT_BYTES_MAX else f"{most // STEP * STEP:,}")
    return f"| {' | '.join([way, *told])} |\n"


def test_every_vendor_is_measured() -> None:
    assert {vendor for vendor, _, _ in WAYS.values()} == set(registry.built_in())


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_a_text_is_cut_to_its_bytes(text: str) -> None:
    assert EXT_BYTES_MAX - 2 <= len(cut(text, EXT_BYTES_MAX).encode()) <= EXT_BYTES_MAX


def test_the_page_tells_what_the_modules_carry(keys: Path) -> None:
    rows = "".join(line(way, keys) for way in WAYS)
    page = PAGE.read_text(encoding="utf-8")
    if os.environ.get(REWRITE):
        page = TABLE.sub(lambda _: HEAD + rows, page)
        PAGE.write_text(page, encoding="utf-8")
    (found,) = TABLE.findall(page)
    assert found.splitlines() == rows.splitlines()
