"""The names of the keys that recalls go by; ids enter them as digests, of any id the same length."""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from hashlib import blake2b

__all__ = ["digest_key", "message_digest", "message_key", "packed", "screen_key", "unpacked"]


def message_key(prefix: str, app: str, message_id: str) -> str:
    """Whether the message was taken back, and whom it went to."""
    return digest_key(prefix, message_digest(app, message_id))


def digest_key(prefix: str, digest: str) -> str:
    """The same, of a message that only its :func:`message_digest` is known of."""
    return f"{prefix}:{{m:{digest}}}"


def message_digest(app: str, message_id: str) -> str:
    """Sixteen characters that stand for the message where its id would be too long."""
    return _digest(app, message_id)


def packed(digest: str) -> bytes:
    """A :func:`message_digest` in twelve bytes."""
    return urlsafe_b64decode(digest)


def unpacked(digest: bytes) -> str:
    """The other way round."""
    return urlsafe_b64encode(digest).decode()


def screen_key(prefix: str, app: str, message_id: str, replace_key: str) -> str:
    """By device, what was put under *replace_key*, the last first; without one a message replaces only itself."""
    digest = _digest(app, "replace key", replace_key) if replace_key else _digest(app, "message", message_id)
    return f"{prefix}:{{r:{digest}}}"


def _digest(*names: str) -> str:
    data = "\0".join([f"{len(name)}:{name}" for name in names]).encode(errors="surrogatepass")
    return unpacked(blake2b(data, digest_size=12).digest())
