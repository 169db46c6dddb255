"""Pushes, deliveries and accounts that the tests of all vendors share."""

from __future__ import annotations

import contextlib
import json
import sys
from pathlib import Path
from typing import Any, get_args
from urllib.parse import parse_qsl

from pushfleet.message import (
    AndroidOptions,
    ApnsOptions,
    FcmOptions,
    HarmonyOptions,
    HonorOptions,
    HuaweiOptions,
    Kind,
    MeizuOptions,
    OfflinePush,
    OppoOptions,
    VivoOptions,
    XiaomiOptions,
)
from pushfleet_workers import registry
from pushfleet_workers.account import AccountSettings
from pushfleet_workers.push import Delivery, Push, delivery_id
from pushfleet_workers.vendor import Request

HERE = Path(__file__).parent
KINDS: tuple[Kind, ...] = get_args(Kind)
NOW_MS = 1_767_300_000_000
AUTH = "AUTH-VALUE"
REWRITE = "PUSHFLEET_REWRITE"
"""With this variable set, golden files and tables in docs/ are written instead of compared."""


def a_push(**changes: Any) -> Push:
    fields: dict[str, Any] = {
        "app": "demo",
        "message_id": "m-9f3c1d",
        "kind": "chat",
        "lane": "normal",
        "title": "Li Lei",
        "body": "See you at 8? 今晚八点见",
        "expires_at_ms": NOW_MS + 86_400_000,
        "sent_at_ms": NOW_MS - 200,
        "enqueued_at_ms": NOW_MS - 100,
        "conversation_id": "c-1001",
        "replace_key": "c-1001",
        "ext": '{"entity":{"chatType":1,"sender":"lilei"}}',
    }
    return Push(**fields | changes)


def a_delivery(number: int = 0, **changes: Any) -> Delivery:
    fields: dict[str, Any] = {
        "id": delivery_id("demo", "m-9f3c1d", "hanmeimei", f"d-{number}"),
        "user": "hanmeimei",
        "device": f"d-{number}",
        "token": token(number),
        "registered_at_ms": NOW_MS - 1_000_000,
        "badge": 3,
    }
    return Delivery(**fields | changes)


def token(number: int) -> str:
    """64 hexadecimal digits: a possible token of every vendor, longer than every code."""
    return f"{number:08x}" * 8


def plug_in_folder(name: str) -> Path:
    """Where the package that brings the vendor *name* has its module, and beside it its page and its sample account."""
    file = sys.modules[type(registry.load(name)).__module__].__file__
    assert file is not None
    return Path(file).parent


def an_account(name: str, keys: Path, **changes: Any) -> AccountSettings:
    """The account in ``accounts/<name>.json`` or a plug-in's ``sample_account.json``, its key files in *keys*."""
    ours = name in registry.built_in()
    file = HERE / "accounts" / f"{name}.json" if ours else plug_in_folder(name) / "sample_account.json"
    text = file.read_text(encoding="utf-8").replace("{keys}", str(keys))
    return registry.load(name).account_type.model_validate(json.loads(text) | changes)


def content(request: Request) -> Any:
    """What *request* carries: its JSON, or its form as an object whose JSON values are read as well."""
    if not request.body:
        return None
    if request.headers.get("content-type", "").startswith("application/x-www-form-urlencoded"):
        pairs = parse_qsl(request.body.decode("ascii"), keep_blank_values=True, strict_parsing=True)
        return {name: _read_json(value) for name, value in pairs}
    return json.loads(request.body)


def _read_json(value: str) -> Any:
    if value[:1] in ("{", "["):
        with contextlib.suppress(ValueError):
            return json.loads(value)
    return value


def golden_pushes() -> dict[str, Push]:
    """By the name of their golden file: one per kind, and those that show what overrides and cutting do."""
    pushes = {kind: a_push(kind=kind) for kind in KINDS}
    pushes["call"] = a_push(kind="call", expires_at_ms=NOW_MS + 30_000)
    pushes["bare"] = a_push(title="", conversation_id="", replace_key="", ext="")
    pushes["long"] = a_push(title="群聊", body="今晚八点见👨‍👩‍👧‍👦" * 300, replace_key="会话 " * 30)
    pushes["sound"] = a_push(sound="ding.wav")
    pushes["silence"] = a_push(sound="")
    pushes["overrides"] = a_push(
        options=OfflinePush(
            apns=ApnsOptions(
                title="On iOS",
                subtitle="Family",
                sound="ding.caf",
                image="https://example.com/a.jpg",
                category="REPLY",
                interruption_level="critical",
                subtitle_loc_key="FROM_FAMILY",
                subtitle_loc_args=("Li Lei",),
                thread_id="family",
                relevance_score=0.5,
                critical_volume=0.25,
            ),
            android=AndroidOptions(sound="ding", style="big_text"),
            huawei=HuaweiOptions(
                channel_id="calls",
                category="WORK",
                importance="LOW",
                image="https://example.com/a.jpg",
                ext_as_intent_param=True,
            ),
            fcm=FcmOptions(
                channel_id="calls", image="https://example.com/a.jpg", priority="normal", form="notification"
            ),
            honor=HonorOptions(importance="LOW", image="https://example.com/a.jpg"),
            xiaomi=XiaomiOptions(channel_id="calls", template_id="M1", template_params={"keywords1": "Li Lei"}),
            oppo=OppoOptions(
                channel_id="calls",
                category="ACCOUNT",
                notify_level=16,
                template_id="T1",
                title_params={"name": "Li Lei"},
                content_params={"text": "8?"},
            ),
            vivo=VivoOptions(category="ACCOUNT", classification=1, notify_type=1),
            meizu=MeizuOptions(notice_type=0),
            harmony=HarmonyOptions(category="WORK", image="https://example.com/a.jpg", ignore_badge=True),
        )
    )
    return pushes
