"""The names of the token state's keys: one hash tag per app and user, one per bucket of the token index.

Ids are encoded injectively: braces, colons, control characters and any script are harmless. Ids of the usual kind
stay readable, and no id grows to more than twice its UTF-8 bytes.
"""

from __future__ import annotations

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from functools import lru_cache
from hashlib import blake2b
from urllib.parse import quote, unquote_to_bytes

__all__ = ["UserKeys", "device_field", "device_name", "devices_of", "owner_named", "owner_of", "token_place"]

_SAFE = "._~@+-"
_is_plain = re.compile(r"[A-Za-z0-9._~@+-]*").fullmatch
_BUCKET_DIGITS = 4
"""65,536 hashes: each stays a compact listpack (128 fields) up to eight million tokens."""


def _encoded(identity: str) -> str:
    if _is_plain(identity):
        return identity
    raw = identity.encode(errors="surrogatepass")
    quoted = quote(raw, safe=_SAFE)
    if len(quoted) <= 2 * len(raw):
        return quoted
    # Other scripts would grow threefold. "=" starts neither a plain nor a quoted id.
    return "=" + urlsafe_b64encode(raw).rstrip(b"=").decode()


_encoded_app = lru_cache(maxsize=1024)(_encoded)


def _decoded(encoded: str) -> str:
    if encoded.startswith("="):
        raw = urlsafe_b64decode(encoded[1:] + "=" * (-(len(encoded) - 1) % 4))
    else:
        raw = unquote_to_bytes(encoded)
    return raw.decode(errors="surrogatepass")


def owner_named(owner: str) -> tuple[str, str]:
    """App and user of an owner in the token index."""
    app, _, user = owner.partition(":")
    return _decoded(app), _decoded(user)


_is_uuid = re.compile(r"[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}|[0-9A-F]{8}-([0-9A-F]{4}-){3}[0-9A-F]{12}").fullmatch
_LOWER, _UPPER = 0xFF, 0xFE
"""Neither byte occurs in UTF-8."""


def device_field(device: str) -> bytes:
    """The hash field of an installation id: a UUID, as most are, in 17 bytes instead of 36, anything else as it is."""
    if len(device) == 36 and _is_uuid(device):
        # A UUID of digits alone counts as lower case.
        return bytes((_LOWER if device.lower() == device else _UPPER,)) + bytes.fromhex(device.replace("-", ""))
    return device.encode(errors="surrogatepass")


def device_name(field: bytes) -> str:
    """The installation id of a hash field."""
    if field[:1] in (b"\xff", b"\xfe"):
        digits = field[1:].hex()
        name = f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"
        return name if field[0] == _LOWER else name.upper()
    return field.decode(errors="replace")


class UserKeys:
    """The keys of one user of one app; they share a hash tag."""

    __slots__ = ("devices", "owner")

    def __init__(self, prefix: str, app: str, user: str) -> None:
        # Most ids are plain: a call for each would cost the lookup a tenth.
        user = user if _is_plain(user) else _encoded(user)
        self.owner = owner = f"{_encoded_app(app)}:{user}"
        """The user in the token index: no space is in it."""

        self.devices = f"{prefix}:{{u:{owner}}}"

    # None asks for all of these: they need not be made for every lookup.

    @property
    def options(self) -> str:
        """What the user wants of their conversations, and altogether."""
        return self.devices + ":options"

    @property
    def badges(self) -> str:
        """The pushes counted for each device."""
        return self.devices + ":badges"

    @property
    def dead(self) -> str:
        """Tokens that died."""
        return self.devices + ":dead"

    @property
    def reads(self) -> str:
        """How far the user has read their conversations."""
        return self.devices + ":reads"

    @property
    def delivered(self) -> str:
        """Until when the user's devices have everything, by device and conversation."""
        return self.devices + ":delivered"

    @property
    def calls(self) -> str:
        """Conversations in which a call ended lately."""
        return self.devices + ":calls"

    @property
    def storms(self) -> str:
        """Conversations of which much came lately."""
        return self.devices + ":storms"

    @property
    def days(self) -> str:
        """What the user's devices got of their vendors' days."""
        return self.devices + ":days"

    @property
    def gone(self) -> str:
        """Devices of a user who was erased, until the index has given up their tokens."""
        return self.devices + ":gone"

    @property
    def put_down(self) -> tuple[str, ...]:
        """What routers and workers put down by themselves as messages come."""
        return self.badges, self.delivered, self.storms, self.days, self.calls


def devices_of(prefix: str, owner: str) -> str:
    """The key of an owner's devices."""
    return f"{prefix}:{{u:{owner}}}"


def owner_of(prefix: str, devices: str) -> tuple[str, str]:
    """App and user of a key of devices."""
    return owner_named(devices[len(prefix) + len(":{u:") : -1])


def token_place(prefix: str, owner: str, vendor: str, token: str) -> tuple[str, bytes]:
    """The index hash that knows the owner of *token*, and the field in it; the token itself is in neither.

    Of *owner* only the app counts. Apps are apart: what one registers never takes a token from another.
    """
    name = f"{owner.partition(':')[0]}\0{vendor}\0{token}".encode(errors="surrogatepass")
    digest = blake2b(name, digest_size=12).digest()
    bucket, field = digest.hex()[:_BUCKET_DIGITS], digest[_BUCKET_DIGITS // 2 :]
    return f"{prefix}:{{t:{bucket}}}", field
