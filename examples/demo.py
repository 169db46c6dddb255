"""An hour of a made-up IM product, from `enqueue` to the fake vendors, on this machine: `make demo`.

Starts an embedded Redis, the fake cloud, API, router and vendor workers on free ports, registers the devices over
HTTP, enqueues the messages, waits until nothing is pending, and prints what became of them. `--stay` keeps it up.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from im_hour import Hour, make_hour
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from pushfleet import Producer
from pushfleet.wire import decode_message
from pushfleet_workers import registry
from pushfleet_workers.audit import Books, read_books
from pushfleet_workers.errors import FleetError
from pushfleet_workers.reasons import SUPPRESSED
from pushfleet_workers.redis_link import Link
from pushfleet_workers.settings import load
from pushfleet_workers.stop_signals import AskedToStop, StopSignals
from pushfleet_workers.supervisor import Child, Supervisor
from pushfleet_workers.up import Fleet, pushfleet_command

console = Console(stderr=True, emoji=False)
TIMEOUT_S = 300.0
DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))
"""Everything is on this machine: past any proxy in the environment."""

SECRETS = {
    "apns": "key_file", "fcm": "service_account_file", "huawei": "client_secret_file",
    "harmony": "service_account_file", "honor": "client_secret_file", "xiaomi": "app_secret_file",
    "oppo": "master_secret_file", "vivo": "app_secret_file", "meizu": "app_secret_file", "tpns": "secret_key_file",
}  # fmt: skip
"""The vendors, each with the setting that names the file of its secret."""

ACCOUNTS = (*((vendor, "main", "demo") for vendor in SECRETS), ("apns", "lite", "lite"))
"""Vendor, credential and app; the `lite` app's APNs goes through aioapns."""

AUTH_PATHS = {"huawei": "/oauth2/v3/token", "honor": "/auth/token"}
"""Where access tokens come from, for those whose token endpoint has an address of its own."""

FURTHER = {
    "oppo": ['kinds.chat = {channel_id = "im"}'],
    "tpns": ['click_url = "demo://push/open"'],
    "xiaomi": [
        *(
            f'kinds.{kind} = {{channel_id = "{channel}", template_id = "{template}", template_params = {params}}}'
            for kind, channel, template, params in (
                ("chat", 100001, "M00001", '{keywords1 = "{sender}", keywords2 = "{body}"}'),
                ("call", 100003, "M00003", '{keywords1 = "{title}"}'),
            )
        ),
    ],
}
"""What a vendor's console would have said: channels, templates, the page that a tap opens."""


def call(url: str, body: object = None, method: str = "POST") -> Any:
    """The JSON that an HTTP API answers."""
    data = json.dumps(body).encode() if body is not None else None
    request = urllib.request.Request(url, data, {"content-type": "application/json"}, method=method)  # noqa: S310
    with DIRECT.open(request, timeout=30) as answer:
        content = answer.read()
    return json.loads(content) if content else None


@contextmanager
def fake_cloud(folder: Path, stop: StopSignals) -> Iterator[dict[str, Any]]:
    """The fake vendors in a process of their own; gives their addresses."""
    ready = folder / "fakecloud.json"
    command = pushfleet_command("fakecloud", "--credentials", str(folder / "vendors"), "--ready-file", str(ready))
    with Supervisor(folder / "logs") as supervisor:
        supervisor.start(Child("fakecloud", command))
        deadline = time.monotonic() + 30
        while not ready.exists():
            stop.check()
            if time.monotonic() > deadline:
                raise FleetError("the fake cloud did not start: see logs/fakecloud.log")
            time.sleep(0.05)
        yield json.loads(ready.read_text())


def write_settings(folder: Path, cloud: dict[str, Any]) -> Path:
    """The settings file of the demo's fleet, with credentials that the fake vendors gave out."""
    lines = ['data_dir = "data"', "[api]", "port = 0", "[log]", 'level = "warning"', "[apps.demo]", 'name = "Demo"']
    # Short waits, so that the hour passes in seconds.
    lines += ["hold_normal_s = 2", "reads = true", "storm_waits_s = [1, 2, 4, 8]"]
    lines += ["[apps.lite]", 'name = "Demo Lite"']
    for vendor, credential, app in ACCOUNTS:
        issued = call(f"{cloud['control_url']}/credentials", {"vendor": vendor})
        address = cloud["vendors"][vendor]["url"]
        known = registry.load(vendor).account_type.model_fields
        told = {name: value for name, value in issued["settings"].items() if name in known}
        fields = {**told, "app": app, "ca_bundle": cloud["ca_file"], SECRETS[vendor]: issued["file"]}
        fields |= {"base_url": address}
        if vendor in AUTH_PATHS:
            fields["auth_url"] = address + AUTH_PATHS[vendor]
        if credential == "lite":
            fields["transport"] = "aioapns"
        lines += [f"[accounts.{vendor}.{credential}]"]
        lines += [f"{name} = {json.dumps(value)}" for name, value in fields.items()] + FURTHER.get(vendor, []) + [""]
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


def registration(device: dict[str, Any]) -> dict[str, Any]:
    """The body that registers *device*."""
    return {name: value for name, value in device.items() if name not in ("app", "user", "device")}


def register(fleet: Fleet, hour: Hour, bar: Progress, stop: StopSignals) -> None:
    """The devices with their states, and what their users want, over HTTP as an IM backend would."""
    paths = {
        "device": "/v1/apps/{app}/users/{user}/devices/{device}",
        "option": "/v1/apps/{app}/users/{user}/conversations/{conversation}/receive-option",
        "preferences": "/v1/apps/{app}/users/{user}/preferences",
    }
    asleep = {"do_not_disturb": {"daily": [{"start": "00:00", "duration_s": 86_400}]}}
    calls = [(paths["device"].format(**device), registration(device)) for device in hour.devices]
    calls += [(paths["option"].format(**option), {"receive": option["receive"]}) for option in hour.options]
    calls += [(paths["preferences"].format(**user), asleep) for user in hour.preferences]
    call_many(fleet, calls, "PUT", "devices and preferences registered", bar, stop)


def call_many(
    fleet: Fleet, calls: list[tuple[str, Any]], method: str, description: str, bar: Progress, stop: StopSignals
) -> None:
    """Each of *calls* (path, body), a few at once."""
    threads = ThreadPoolExecutor(4)
    try:
        for _ in bar.track(
            threads.map(lambda one: call(fleet.api_url + one[0], one[1], method), calls),
            total=len(calls),
            description=description,
        ):
            stop.check()
    finally:
        threads.shutdown(cancel_futures=True)


def read_elsewhere(fleet: Fleet, hour: Hour, bar: Progress, stop: StopSignals) -> None:
    """Some users have read the last messages on another device while their pushes were held."""
    path = "/v1/apps/{app}/users/{user}/conversations/{conversation}/read"
    body = {"up_to_ms": int(time.time() * 1000)}
    calls = [(path.format(**read), body) for read in hour.reads]
    call_many(fleet, calls, "POST", "conversations read elsewhere", bar, stop)


def enqueue(fleet: Fleet, hour: Hour, bar: Progress, stop: StopSignals) -> int:
    """The messages, as an IM backend would; how many were accepted."""
    messages = [decode_message(json.dumps(message)) for message in hour.messages]
    accepted = 0
    with Producer(fleet.redis_url, prefix=fleet.settings.redis.prefix) as producer:
        task = bar.add_task("messages enqueued", total=len(messages))
        for first in range(0, len(messages), 250):
            stop.check()
            accepted += producer.enqueue_many(messages[first : first + 250]).messages
            bar.update(task, completed=accepted)
    return accepted


def until_idle(fleet: Fleet, bar: Progress, stop: StopSignals) -> Books:
    """Wait until nothing is pending; the books then."""

    async def wait() -> Books:
        link = Link(fleet.redis_url, name="pushfleet-demo")
        accounts = [(vendor, credential) for vendor, credential, _ in fleet.settings.each_account()]
        task = bar.add_task("deliveries ended", total=None)
        deadline = time.monotonic() + TIMEOUT_S
        try:
            while True:
                stop.check()
                books = await read_books(link, fleet.settings.redis.prefix, accounts)
                ended = sum(account.ended for account in books.accounts.values())
                bar.update(task, completed=ended, total=ended + books.pending)
                if not books.pending or time.monotonic() > deadline:
                    return books
                fleet.supervisor.watch()
                await asyncio.sleep(0.1)
        finally:
            await link.close()

    return asyncio.run(wait())


def show(books: Books, stats: dict[str, Any]) -> None:
    """A table by vendor and end, beside what the fake vendors say that they took."""
    ends = ("sent", "moved", "suppressed", "dropped", "dead")
    table = Table("account", *ends, "why", title="What became of the deliveries")
    for name, account in books.accounts.items():
        counts: Counter[str] = Counter()
        reasons: Counter[str] = Counter()
        for end, count in account.ends.items():
            _, kind, reason = end.split(":")
            counts[kind] += count
            if reason:
                reasons[reason] += count
        table.add_row(name, *(str(counts[end]) for end in ends), _listed(reasons))
    suppressed: Counter[str] = Counter()
    for lane in books.lanes.values():
        for named, count in lane.suppressed.items():
            suppressed[named.split(":")[1]] += count
    table.add_row("(before any vendor)", "0", "0", str(suppressed.total()), "0", "0", _listed(suppressed))
    console.print(table)
    console.print(peace(books))
    taken = Table("vendor", "requests", "pushes taken", title="What the fake vendors say")
    for vendor, page in stats["vendors"].items():
        taken.add_row(vendor, str(page["requests"]), str(page["accepted"]))
    console.print(taken)


PEACE = ("stormed", "read", "muted", "mentions_only", "do_not_disturb")
"""Reasons for which users were left in peace."""


def peace(books: Books) -> Table:
    """How many pushes users were spared, and why."""
    spared: Counter[str] = Counter()
    for lane in books.lanes.values():
        for named, count in lane.suppressed.items():
            spared[named.split(":")[1]] += count
    for account in books.accounts.values():
        for named, count in account.ends.items():
            _, end, reason = named.split(":")
            if end == "suppressed":
                spared[reason] += count
    table = Table("reason", "pushes", "why", title="Left in peace")
    for reason in PEACE:
        table.add_row(reason, str(spared[reason]), SUPPRESSED[reason].sentence)
    return table


def _listed(reasons: Counter[str]) -> str:
    return ", ".join(f"{reason} {count}" for reason, count in reasons.most_common())


def summary(books: Books, accepted: int, duration_s: float) -> dict[str, Any]:
    """The one line for scripts."""
    return {
        "accepted": accepted,
        "routed": sum(book.routed for book in books.lanes.values()),
        "deliveries": sum(account.put - account.moved for account in books.accounts.values()),
        **books.ends(),
        "pending": books.pending,
        "balanced": books.balanced,
        "duration_s": round(duration_s, 1),
    }


def run(folder: Path, stop: StopSignals, *, stay: bool) -> int:
    """The whole demo; gives the exit code."""
    started = time.monotonic()
    hour = make_hour()
    with ExitStack() as stack:
        console.print("Starting Redis, the fake vendors, API, router and vendor workers ...")
        cloud = stack.enter_context(fake_cloud(folder, stop))
        config = write_settings(folder, cloud)
        fleet = stack.enter_context(Fleet(load(config), config, tick=stop.check))
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns, console=console) as bar:
            register(fleet, hour, bar, stop)
            # A token that died before it was registered would count as registered anew.
            script_the_vendors(cloud, hour)
            accepted = enqueue(fleet, hour, bar, stop)
            read_elsewhere(fleet, hour, bar, stop)
            books = until_idle(fleet, bar, stop)
        result = summary(books, accepted, time.monotonic() - started)
        show(books, call(f"{cloud['control_url']}/stats", method="GET"))
        if stay:
            stay_up(fleet, cloud, stop)
            return 0
    print(json.dumps(result), flush=True)
    return exit_code(result)


def exit_code(result: dict[str, Any]) -> int:
    """0 only if every book balances and nothing is pending."""
    return 0 if result["balanced"] and not result["pending"] else 1


def stay_up(fleet: Fleet, cloud: dict[str, Any], stop: StopSignals) -> None:
    """Keep the fleet running until Ctrl-C."""
    console.print(
        f"API docs    {fleet.api_url}/docs\nMetrics     {fleet.api_url}/metrics\nRedis       {fleet.redis_url}"
    )
    console.print(f"Fake cloud  {cloud['control_url']}/stats\nSettings    {fleet.config}\nCtrl-C ends it.")
    try:
        while True:
            stop.check()
            fleet.supervisor.watch()
            time.sleep(0.2)
    except AskedToStop:
        console.print("Stopping ...")


def main() -> int:
    """Run in a folder that is gone afterwards."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--stay", action="store_true", help="keep the fleet running until Ctrl-C")
    stay = options.parse_args().stay
    stop = StopSignals()
    for name in [name for name in os.environ if name.startswith("PUSHFLEET_")]:
        del os.environ[name]  # the demo's fleet must not run on somebody's real Redis
    folder = Path(tempfile.mkdtemp(prefix="pushfleet-demo-"))
    try:
        return run(folder, stop, stay=stay)
    except AskedToStop:
        console.print("Stopped.")
        return 130
    except FleetError as problem:
        console.print(f"The demo failed: {problem}", style="red", markup=False, soft_wrap=True)
        return 1
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
