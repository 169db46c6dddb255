"""The names of the keys that recalls go by: one hash tag per message, one per replace key."""

from __future__ import annotations

from base64 import urlsafe_b64encode
from hashlib import blake2b

__all__ = ["RecallKeys"]


class RecallKeys:
    """The keys of one message of one app; ids enter them as digests, of any id the same length.

    * **replace_key** - what the message's push replaces and is replaced by; empty: only itself.
    """

    __slots__ = ("message", "shown")

    def __init__(self, prefix: str, app: str, message_id: str, replace_key: str = "") -> None:
        self.message = f"{prefix}:{{m:{_digest(app, message_id)}}}"
        """Whether it was taken back, and whom it went to."""

        own = _digest(app, "replace key", replace_key) if replace_key else _digest(app, "message", message_id)
        self.shown = f"{prefix}:{{r:{own}}}"
        """By device, the message that was pushed last under the replace key."""


def _digest(*names: str) -> str:
    data = "\0".join(f"{len(name)}:{name}" for name in names).encode(errors="surrogatepass")
    return urlsafe_b64encode(blake2b(data, digest_size=12).digest()).decode()
