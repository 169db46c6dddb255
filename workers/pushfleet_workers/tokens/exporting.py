"""All devices as lines that an import takes."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field

import msgspec

from pushfleet_workers.redis_link import Link, ReplyError
from pushfleet_workers.tokens.changes import STATE_NAMES, ChannelGiven, StateName
from pushfleet_workers.tokens.importing import DeviceLine
from pushfleet_workers.tokens.keys import owner_of
from pushfleet_workers.tokens.record import Device, read_devices

__all__ = ["ExportPage", "export_lines"]

log = logging.getLogger(__name__)

_KEYS_AT_ONCE = 1_000
_encode = msgspec.json.Encoder().encode


@dataclass
class ExportPage:
    """Some of the lines, without their ends."""

    keys: int
    """Keys of Redis that were looked at since the page before, of :attr:`keys_max` or so in all."""

    keys_max: int
    lines: list[bytes] = field(default_factory=list)


async def export_lines(url: str, prefix: str, app: str | None = None) -> AsyncIterator[ExportPage]:
    """The devices of *app*, or of all apps, page by page; their tokens are in the lines.

    A line is as of when the device was last heard of. Devices that have lost all their tokens are left out, and what
    changes meanwhile may or may not be in it; a device may come twice. Raises :class:`RedisUnusable`.
    """
    link = Link(url, name="pushfleet-export")
    start = f"{prefix}:{{u:".encode()
    try:
        keys_max = await link.call("DBSIZE")
        cursor = b"0"
        while True:
            cursor, keys = await link.call("SCAN", cursor, "COUNT", _KEYS_AT_ONCE)
            users = [key for key in keys if key.startswith(start) and key.endswith(b"}")]
            page = ExportPage(len(keys), keys_max)
            replies = await link.pipeline([("HGETALL", key) for key in users])
            for key, fields in zip(users, replies, strict=True):
                owner, user = owner_of(prefix, key.decode())
                if app not in (None, owner):
                    continue
                if isinstance(fields, ReplyError):
                    log.error("a user's devices cannot be read and are left out: %s", str(fields).partition(" ")[0])
                    continue
                page.lines += _lines(owner, user, read_devices(fields))
            yield page
            if cursor == b"0":
                return
    finally:
        await link.close()


def _lines(app: str, user: str, devices: dict[str, Device]) -> Iterator[bytes]:
    for name, device in devices.items():
        if device.channels:
            yield _encode(_line(app, user, name, device))


def _line(app: str, user: str, name: str, device: Device) -> DeviceLine:
    state: StateName | None = "logged_out" if device.logged_out else STATE_NAMES.get(device.state)
    return DeviceLine(
        app=app,
        user=user,
        device=name,
        channels=tuple(
            ChannelGiven(
                vendor=one.vendor, credential=one.credential, token=one.token, kind=one.kind, region=one.region
            )
            for one in device.channels
        ),
        platform=device.platform,
        maker=device.maker,
        os_version=device.os_version,
        app_version=device.app_version,
        locale=device.locale,
        time_zone=device.time_zone,
        notifications=device.permitted,
        state=state,
        unread=device.unread if state is not None else None,
        at_ms=device.heard_at_ms,
    )
