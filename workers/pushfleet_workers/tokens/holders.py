"""Who has a token, and what is noted of them when only the token is known, as receipts have it."""

from __future__ import annotations

from collections.abc import Sequence

from pushfleet_workers.redis_link import Link, ReplyError
from pushfleet_workers.scripts import load
from pushfleet_workers.tokens.keys import UserKeys, devices_of, owner_named, token_place

__all__ = ["Holders"]

_HOLDER = load("pushfleet_workers.tokens", "holder", preamble="common")
_AT_BYTES, _HEAD_BYTES = 6, 8


class Holders:
    """Users by their tokens; every method raises :class:`RedisUnusable`, and :class:`ReplyError` when Redis refuses.

    * **link** - the Redis of the token state.
    """

    def __init__(self, link: Link, prefix: str) -> None:
        self._link = link
        self._prefix = prefix

    async def users(self, app: str, vendor: str, tokens: Sequence[tuple[str, int]]) -> list[str]:
        """Who had each token at its time (Unix milliseconds); empty where nobody did, or somebody else does by now."""
        owner = UserKeys(self._prefix, app, "").owner
        places = [token_place(self._prefix, owner, vendor, token) for token, _ in tokens]
        replies = await self._link.pipeline([("HGET", key, name) for key, name in places])
        return [_user(reply, at_ms) for reply, (_, at_ms) in zip(replies, tokens, strict=True)]

    async def mute(self, app: str, user: str, vendor: str, token: str, at_ms: int) -> bool:
        """Note that the device with *token* shows no notifications; False where it registered since *at_ms*."""
        return await self._tell(app, user, vendor, token, at_ms, "")

    async def pass_over(self, app: str, user: str, vendor: str, token: str, at_ms: int, until_ms: int) -> bool:
        """Have *token* passed over until a time; False where it was registered since *at_ms*."""
        return await self._tell(app, user, vendor, token, at_ms, until_ms)

    async def _tell(self, app: str, user: str, vendor: str, token: str, at_ms: int, until_ms: int | str) -> bool:
        devices = devices_of(self._prefix, UserKeys(self._prefix, app, user).owner)
        return bool(await self._link.run(_HOLDER, (devices,), (vendor, token, at_ms, until_ms)))


def _user(entry: bytes | ReplyError | None, at_ms: int) -> str:
    """The first owner in an entry of the index, as `index.lua` wrote it; empty for a damaged one."""
    if isinstance(entry, ReplyError):
        raise entry
    if entry is None or int.from_bytes(entry[:_AT_BYTES], "big") > at_ms:
        return ""
    try:
        return owner_named(entry[_HEAD_BYTES:].partition(b" ")[0].decode())[1]
    except ValueError:
        return ""
