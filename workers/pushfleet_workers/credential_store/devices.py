"""Whether any device is registered with a credential."""

from __future__ import annotations

from pushfleet_workers.redis_link import Link, ReplyError
from pushfleet_workers.tokens.record import read_devices

__all__ = ["any_device"]

_KEYS_AT_ONCE = 1_000


async def any_device(link: Link, prefix: str, vendor: str, credential: str) -> bool:
    """Whether a device has a channel of the credential; *link* leads to the token state.

    Walks through all users until it finds one. Raises :class:`RedisUnusable`.
    """
    cursor = b"0"
    while True:
        cursor, keys = await link.call("SCAN", cursor, "MATCH", f"{prefix}:{{u:*}}", "COUNT", _KEYS_AT_ONCE)
        for fields in await link.pipeline([("HGETALL", key) for key in keys]):
            # A key of another type is no user's.
            devices = {} if isinstance(fields, ReplyError) else read_devices(fields)
            for device in devices.values():
                if any((one.vendor, one.credential) == (vendor, credential) for one in device.channels):
                    return True
        if cursor == b"0":
            return False
