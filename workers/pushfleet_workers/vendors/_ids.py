"""Numbers for vendors that take no text as id."""

from __future__ import annotations

from hashlib import blake2b

from pushfleet_workers.push import Push

__all__ = ["notify_id"]


def notify_id(push: Push) -> int:
    """What *push* replaces on screen and is replaced by: 1 to 2,147,483,647, made from its replace key.

    Without one it is made from the message, so that a repeat or a new revision replaces what the message showed.
    """
    name = push.replace_key or f"{push.app}\0{push.message_id}"
    return int.from_bytes(blake2b(name.encode(errors="surrogatepass"), digest_size=4).digest()) >> 1 or 1
