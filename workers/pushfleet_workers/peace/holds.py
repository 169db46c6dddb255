"""How long a push waits before it leaves: long enough for the user to read the message elsewhere. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from pushfleet.message import Kind, Lane
from pushfleet_workers.settings import AppSettings
from pushfleet_workers.tokens.record import FOREGROUND, Device

__all__ = ["hold_s", "is_at_desk"]

_NEVER_HELD = frozenset({"call", "call_cancel", "missed_call"})
_DESKTOPS = frozenset({"desktop", "linux", "mac", "macos", "pc", "web", "windows"})


def hold_s(app: AppSettings, kind: Kind, lane: Lane, devices: Iterable[Device], now_ms: int) -> float:
    """How long the pushes of a message to the user of *devices* wait, in seconds; calls never do."""
    if kind in _NEVER_HELD:
        return 0.0
    held_s: float = {"urgent": app.hold_urgent_s, "normal": app.hold_normal_s, "bulk": app.hold_bulk_s}[lane]
    if app.desktop == "hold" and app.desktop_hold_s > held_s and is_at_desk(devices, now_ms):
        return app.desktop_hold_s
    return held_s


def is_at_desk(devices: Iterable[Device], now_ms: int) -> bool:
    """Whether the app is in the foreground on a desktop or in a browser, by a report whose lease still holds."""
    return any(
        device.state == FOREGROUND and now_ms < device.lease_until_ms and device.platform.lower() in _DESKTOPS
        for device in devices
    )
