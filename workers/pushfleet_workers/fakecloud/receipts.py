"""The receipts that a fake vendor posts: the vendor's own form, for pushes that asked for it."""

from __future__ import annotations

import base64
import hmac
import json
import secrets
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import urlencode

from msgspec import Struct

from pushfleet_workers.fakecloud.book import Accepted

__all__ = ["DELIVERED", "Answer", "Console", "Posting", "postings"]

DELIVERED = {
    "huawei": "0",
    "harmony": "0",
    "honor": "40000002",
    "xiaomi": "1",
    "oppo": "push_arrive",
    "vivo": "",
    "meizu": "1",
}
"""Vendors that post receipts, and their code for a push that arrived."""

_JSON = {"content-type": "application/json;charset=UTF-8"}
_FORM = {"content-type": "application/x-www-form-urlencoded;charset=UTF-8"}


class Console(Struct, frozen=True, forbid_unknown_fields=True):
    """What the vendor's console was told."""

    url: str = ""
    """Where receipts go that no push names an address for."""

    user: str = ""
    secret: str = ""
    """Of Huawei and HarmonyOS: what they sign with; empty: they do not."""

    secret_is_text: bool = False
    access_token: str = ""
    """Of Meizu."""


class Posting(Struct, frozen=True):
    """One request with receipts."""

    url: str
    headers: dict[str, str]
    body: bytes


class Answer(Struct, frozen=True):
    """What came back."""

    status: int
    body: str


def postings(vendor: str, code: str, pushes: Sequence[Accepted], console: Console, now_ms: int) -> list[Posting]:
    """The requests in which *vendor* tells *code* of those of *pushes* that asked to be told, one for each address.

    Raises :class:`ValueError` where the vendor posts none, or nobody said where to.
    """
    write = _WRITERS.get(vendor)
    if write is None:
        raise ValueError(f"{vendor} posts no receipts: {', '.join(_WRITERS)}")
    by_url: dict[str, list[Accepted]] = {}
    for push in pushes:
        if push.callback.get("param") and _wanted(push.callback.get("type", ""), code):
            url = push.callback.get("url") or console.url
            if not url:
                raise ValueError(f"{vendor} takes the address from its console: say where it is in console.url")
            by_url.setdefault(url, []).append(push)
    return [write(url, code, some, console, now_ms) for url, some in by_url.items()]


def _wanted(asked: str, code: str) -> bool:
    """Whether *code* is among the types that a push asked for, where it said which: their sum."""
    return not asked.isdecimal() or not code.isdecimal() or bool(int(asked) & int(code))


def _number(code: str) -> int | str:
    return int(code) if code.isdecimal() else code


def _at_ms(push: Accepted) -> int:
    return int(push.at_unix_s * 1_000)


def _by_param(pushes: Sequence[Accepted]) -> dict[str, list[Accepted]]:
    found: dict[str, list[Accepted]] = {}
    for push in pushes:
        found.setdefault(push.callback["param"], []).append(push)
    return found


def _signed(console: Console, now_ms: int) -> dict[str, str]:
    if not console.secret:
        return dict(_JSON)
    nonce = secrets.token_hex(16)
    key = console.secret.encode() if console.secret_is_text else base64.b64decode(console.secret)
    value = base64.b64encode(hmac.digest(key, f"{now_ms}{nonce}{console.user}".encode(), "sha256")).decode()
    return {**_JSON, "x-huawei-callback-id": f"timestamp={now_ms}; nonce={nonce}; value={value}"}


def _statuses(code: str, pushes: Sequence[Accepted]) -> list[dict[str, Any]]:
    return [
        {
            "token": push.token,
            "biTag": push.callback["param"],
            "status": _number(code),
            "timestamp": _at_ms(push),
            "appid": push.account,
            "requestId": f"fake-{push.callback['param']}",
        }
        for push in pushes
    ]


def _huawei(url: str, code: str, pushes: Sequence[Accepted], console: Console, now_ms: int) -> Posting:
    return Posting(url, _signed(console, now_ms), json.dumps({"statuses": _statuses(code, pushes)}).encode())


def _honor(url: str, code: str, pushes: Sequence[Accepted], console: Console, now_ms: int) -> Posting:
    return Posting(url, dict(_JSON), json.dumps({"statuses": _statuses(code, pushes)}).encode())


def _harmony(url: str, code: str, pushes: Sequence[Accepted], console: Console, now_ms: int) -> Posting:
    statuses = [
        {
            "token": push.token,
            "pushType": 0,
            "appPackageName": "com.example.im",
            "biTag": push.callback["param"],
            "requestId": f"fake-{push.callback['param']}",
            "deliveryStatus": {"result": _number(code), "timestamp": _at_ms(push)},
        }
        for push in pushes
    ]
    return Posting(url, _signed(console, now_ms), json.dumps({"statuses": statuses}).encode())


def _xiaomi(url: str, code: str, pushes: Sequence[Accepted], console: Console, now_ms: int) -> Posting:
    data = {
        f"fakemsg{number:08}": {
            "type": _number(code),
            "targets": ",".join(push.token for push in some),
            "timestamp": _at_ms(some[0]),
            "param": param,
            "barStatus": "Enable",
        }
        for number, (param, some) in enumerate(_by_param(pushes).items())
    }
    return Posting(url, dict(_FORM), urlencode({"data": json.dumps(data)}).encode())


def _oppo(url: str, code: str, pushes: Sequence[Accepted], console: Console, now_ms: int) -> Posting:
    events = [
        {
            "messageId": some[0].sent_id,
            "appId": some[0].account,
            "taskId": some[0].sent_id,
            "registrationIds": ",".join(push.token for push in some),
            "eventTime": str(_at_ms(some[0])),
            "param": param,
            "eventType": code,
        }
        for param, some in _by_param(pushes).items()
    ]
    return Posting(url, dict(_JSON), json.dumps(events).encode())


def _vivo(url: str, code: str, pushes: Sequence[Accepted], console: Console, now_ms: int) -> Posting:
    kind = {} if not code else {"type": 301, "subType": int(code)} if len(code) == 5 else {"type": int(code)}
    tasks = {
        f"9{number:017}": {"param": param, "targets": ",".join(push.token for push in some), **kind}
        for number, (param, some) in enumerate(_by_param(pushes).items())
    }
    return Posting(url, dict(_JSON), json.dumps(tasks).encode())


def _meizu(url: str, code: str, pushes: Sequence[Accepted], console: Console, now_ms: int) -> Posting:
    cb = {
        f"NS{number:012}_0_1_1_3-{code}": {
            "param": param,
            "type": _number(code),
            "targets": [push.token for push in some],
        }
        for number, (param, some) in enumerate(_by_param(pushes).items())
    }
    form = {"cb": json.dumps(cb), "access_token": console.access_token}
    return Posting(url, dict(_FORM), urlencode(form).encode())


_WRITERS: Mapping[str, Callable[[str, str, Sequence[Accepted], Console, int], Posting]] = {
    "huawei": _huawei,
    "harmony": _harmony,
    "honor": _honor,
    "xiaomi": _xiaomi,
    "oppo": _oppo,
    "vivo": _vivo,
    "meizu": _meizu,
}
