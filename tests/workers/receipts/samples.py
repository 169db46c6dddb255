"""One receipt of each vendor in the vendor's own form."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import urlencode

TOKEN, OTHER = "0a1b2c3d" * 8, "ff00ff00" * 8
NOW_MS = 1_767_300_000_000
AT_MS = NOW_MS - 5_000


def a_body(vendor: str, code: Any, echo: str = "echo-1", token: str = TOKEN, at_ms: int = AT_MS) -> bytes:
    """The body in which *vendor* tells *code*, a number where its codes are numbers."""
    number = int(code) if str(code).isdecimal() else code
    match vendor:
        case "huawei" | "honor":
            one = {"token": token, "biTag": echo, "status": number, "timestamp": at_ms, "requestId": "r-1"}
            return json.dumps({"statuses": [{**one, "appid": "100000001"}]}).encode()
        case "harmony":
            status = {"result": number, "timestamp": at_ms}
            one = {"token": token, "pushType": 0, "biTag": echo, "requestId": "r-1", "deliveryStatus": status}
            return json.dumps({"statuses": [{**one, "appPackageName": "com.example.im"}]}).encode()
        case "xiaomi":
            one = {"type": number, "targets": token, "timestamp": at_ms, "param": echo, "extra": {"ack": "1"}}
            return urlencode({"data": json.dumps({"r-1": one})}).encode()
        case "oppo":
            one = {"messageId": "r-1", "appId": "1", "taskId": "r-1", "registrationIds": token, "param": echo}
            return json.dumps([{**one, "eventTime": str(at_ms), "eventType": code}]).encode()
        case "vivo":
            kind = {"subType": number} if len(str(code)) == 5 else {"type": number} if code else {}
            return json.dumps({"r-1": {"param": echo, "targets": token, **kind}}).encode()
        case "meizu":
            one = {"param": echo, "type": number, "targets": [token]}
            return urlencode({"cb": json.dumps({f"r-1-{code}": one}), "access_token": "shown"}).encode()
    raise AssertionError(vendor)
