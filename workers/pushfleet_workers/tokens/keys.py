"""The names of the token state's keys: one hash tag per app and user, one per bucket of the token index.

A user id is encoded injectively: braces, colons, control characters and any other script are harmless, and ids of
the usual kind stay readable.
"""

from __future__ import annotations

import re
from hashlib import blake2b
from urllib.parse import quote

__all__ = ["UserKeys", "token_place"]

_PLAIN = re.compile(r"[A-Za-z0-9._~@+-]*")
_BUCKET_DIGITS = 4
"""65,536 hashes: each stays a compact listpack (128 fields) up to eight million tokens."""


def _encoded(identity: str) -> str:
    if _PLAIN.fullmatch(identity):
        return identity
    return quote(identity.encode(errors="surrogatepass"), safe="._~@+-")


class UserKeys:
    """The keys of one user of one app."""

    __slots__ = ("badges", "devices", "options")

    def __init__(self, prefix: str, app: str, user: str) -> None:
        self.devices = f"{prefix}:{{u:{app}:{_encoded(user)}}}"
        self.options = f"{self.devices}:options"
        self.badges = f"{self.devices}:badges"


def token_place(prefix: str, vendor: str, token: str) -> tuple[str, bytes]:
    """The index hash that knows the owner of *token*, and the field in it; the token itself is in neither."""
    digest = blake2b(f"{vendor}\0{token}".encode(errors="surrogatepass"), digest_size=12).digest()
    bucket, field = digest.hex()[:_BUCKET_DIGITS], digest[_BUCKET_DIGITS // 2 :]
    return f"{prefix}:{{t:{bucket}}}", field
