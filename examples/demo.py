"""An hour of a made-up IM product, from `enqueue` to the fake vendors, on this machine: `make demo`.

Starts an embedded Redis, the fake cloud, API, router and vendor workers on free ports, registers the devices over
HTTP, enqueues the messages, waits until nothing is pending, and prints what became of them. `--stay` keeps it up.
"""

from __future__ import annotations

import json
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from im_hour import Hour
from rich.console import Console

from pushfleet_workers.errors import FleetError
from pushfleet_workers.supervisor import Child, Supervisor
from pushfleet_workers.up import Fleet, pushfleet_command

console = Console(stderr=True)
TIMEOUT_S = 300.0

ACCOUNTS = (("apns", "main", "demo"), ("apns", "lite", "lite"), ("fcm", "main", "demo"), ("huawei", "main", "demo"))
"""Vendor, credential and app; the `lite` app's APNs goes through aioapns."""

FILE_FIELDS = {"apns": "key_file", "fcm": "service_account_file", "huawei": "client_secret_file"}


def call(url: str, body: object = None, method: str = "POST") -> Any:
    """The JSON that an HTTP API answers."""
    data = json.dumps(body).encode() if body is not None else None
    request = urllib.request.Request(url, data, {"content-type": "application/json"}, method=method)  # noqa: S310
    with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
        content = answer.read()
    return json.loads(content) if content else None


@contextmanager
def fake_cloud(folder: Path) -> Iterator[dict[str, Any]]:
    """The fake vendors in a process of their own; gives their addresses."""
    ready = folder / "fakecloud.json"
    command = pushfleet_command("fakecloud", "--credentials", str(folder / "vendors"), "--ready-file", str(ready))
    with Supervisor(folder / "logs") as supervisor:
        supervisor.start(Child("fakecloud", command))
        deadline = time.monotonic() + 30
        while not ready.exists():
            if time.monotonic() > deadline:
                raise FleetError("the fake cloud did not start: see logs/fakecloud.log")
            time.sleep(0.05)
        yield json.loads(ready.read_text())


def write_settings(folder: Path, cloud: dict[str, Any]) -> Path:
    """The settings file of the demo's fleet, with credentials that the fake vendors gave out."""
    lines = ['data_dir = "data"', "", "[log]", 'level = "warning"', "", "[apps.demo]", 'name = "Demo"', "", "[apps.lite]",
             'name = "Demo Lite"', ""]  # fmt: skip
    for vendor, credential, app in ACCOUNTS:
        issued = call(f"{cloud['control_url']}/credentials", {"vendor": vendor})
        address = cloud["vendors"][vendor]["url"]
        fields = {**issued["settings"], "app": app, "ca_bundle": cloud["ca_file"], FILE_FIELDS[vendor]: issued["file"]}
        fields |= {"base_url": address}
        if vendor == "huawei":
            fields["auth_url"] = address
        if credential == "lite":
            fields["transport"] = "aioapns"
        lines += [f"[accounts.{vendor}.{credential}]"]
        lines += [f"{name} = {json.dumps(value)}" for name, value in fields.items()] + [""]
    path = folder / "pushfleet.toml"
    path.write_text("\n".join(lines))
    return path


def script_the_vendors(cloud: dict[str, Any], hour: Hour) -> None:
    """Some tokens are dead, and for a while FCM says "too fast"."""
    rules: list[dict[str, Any]] = [
        {"vendor": vendor, "action": "dead", "token": token}
        for vendor, dead in hour.dead_tokens.items()
        for token in dead
    ]
    rules.append({"vendor": "fcm", "action": "throttle", "after": 200, "times": 5, "retry_after_s": 2})
    call(f"{cloud['control_url']}/rules", rules)


def register(fleet: Fleet, hour: Hour) -> None:
    """The devices, their states, and what their users muted, over HTTP as an IM backend would."""
    with bar("devices registered", len(hour.devices)) as advance:
        for device in hour.devices:
            call(
                f"{fleet.api_url}/v1/apps/{device['app']}/users/{device['user']}/devices/{device['device']}",
                registration(device),
                "PUT",
            )
            advance(1)
