"""The deaths of an app's tokens, in order: a stream that subscribers follow, operators list and the webhook sends."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from hashlib import sha256
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from pushfleet_workers.push import fingerprint
from pushfleet_workers.redis_link import Argument, Link
from pushfleet_workers.redis_replies import good
from pushfleet_workers.tokens.tombstones import LIFE_S, Buried, Fate

__all__ = ["START", "DeathLog", "DeathTold", "Filter", "as_told", "log_key", "token_digest"]

START = "0-0"
"""The cursor before everything."""

_PAGE = 500


class DeathTold(Struct, frozen=True, kw_only=True):
    """What became of a token that its vendor called dead; times are Unix milliseconds.

    The same may be told twice, with the same `id` and `fate`.
    """

    cursor: Annotated[str, Meta(description="Its place in the order; go on after it.")] = ""
    id: Annotated[str, Meta(description="The same for all that becomes of one token, device and registration.")]
    fate: Annotated[
        Fate,
        Meta(
            description="`dropped`: gone from its device. `quarantined`: passed over until it is confirmed or "
            "restored. `restored`: back. `reported`: addressed directly, in no registry of ours."
        ),
    ]
    at_ms: Annotated[int, Meta(description="When we heard of it.")]
    user: Annotated[str, Meta(description="Empty for a token that was addressed directly; so is `device`.")] = ""
    device: str = ""
    vendor: str
    credential: str
    kind: str = ""
    token_fingerprint: Annotated[str, Meta(description="As the devices' channels show it, and logs.")]
    token_sha256: Annotated[str, Meta(description="In hexadecimal: who keeps tokens finds theirs by it.")]
    code: Annotated[str, Meta(description="The vendor's own code.")] = ""
    since_ms: Annotated[int, Meta(description="When the vendor noticed the death; 0: it does not say.")] = 0
    registered_at_ms: int = 0


def as_told(buried: Buried, fate: Fate, at_ms: int) -> DeathTold:
    """What is told of *buried*."""
    stone = buried.stone
    return DeathTold(
        id=buried.grave.id,
        fate=fate,
        at_ms=at_ms,
        user=buried.grave.user,
        device=stone.device,
        vendor=stone.vendor,
        credential=stone.credential,
        kind=stone.kind,
        token_fingerprint=fingerprint(stone.token),
        token_sha256=token_digest(stone.token),
        code=stone.code,
        since_ms=stone.since_ms,
        registered_at_ms=stone.registered_at_ms,
    )


def token_digest(token: str) -> str:
    """The SHA-256 of *token* in hexadecimal."""
    return sha256(token.encode(errors="surrogatepass")).hexdigest()


class Filter(Struct, frozen=True, kw_only=True):
    """Which deaths are meant; what is empty or 0 leaves all in."""

    vendor: str = ""
    credential: str = ""
    user: str = ""
    code: str = ""
    fate: str = ""
    since_ms: int = 0
    until_ms: int = 0

    def takes(self, one: DeathTold) -> bool:
        """Whether *one* is meant, its time left aside."""
        return all(
            not wanted or wanted == had
            for wanted, had in (
                (self.vendor, one.vendor),
                (self.credential, one.credential),
                (self.user, one.user),
                (self.code, one.code),
                (self.fate, one.fate.value),
            )
        )

    @property
    def bounds(self) -> tuple[str, str]:
        """The first and the last place of the stream that are meant."""
        return str(self.since_ms or "-"), str(self.until_ms or "+")


def log_key(prefix: str, app: str) -> str:
    """The stream of an app's deaths."""
    return f"{prefix}:{{deaths:{app}}}"


class DeathLog:
    """The deaths of all apps; every method raises :class:`RedisUnusable`.

    * **kept_max** - deaths of an app that are kept; older than thirty days is none.
    """

    def __init__(self, link: Link, prefix: str, kept_max: int) -> None:
        self._link = link
        self._prefix = prefix
        self._kept_max = kept_max

    async def add(self, app: str, deaths: Sequence[DeathTold], now_ms: int) -> None:
        """Tell *deaths*."""
        if not deaths:
            return
        key = log_key(self._prefix, app)
        commands: list[tuple[Any, ...]] = [
            ("XADD", key, "MAXLEN", "~", self._kept_max, "*", *_fields(one)) for one in deaths
        ]
        commands.append(("XTRIM", key, "MINID", "~", now_ms - LIFE_S * 1000))
        commands.append(("EXPIRE", key, LIFE_S))
        good(await self._link.pipeline(commands))

    async def after(self, app: str, cursor: str, count: int) -> tuple[list[DeathTold], str]:
        """The next *count* deaths that were told after *cursor*, in order, and the cursor to go on with."""
        entries = await self._link.call("XRANGE", log_key(self._prefix, app), f"({cursor}", "+", "COUNT", count)
        return list(_read(entries)), entries[-1][0].decode() if entries else cursor

    async def newest_first(self, app: str, wanted: Filter) -> AsyncIterator[DeathTold]:
        """The deaths that are meant, the newest first."""
        first, last = wanted.bounds
        while True:
            entries = await self._link.call("XREVRANGE", log_key(self._prefix, app), last, first, "COUNT", _PAGE)
            for one in _read(entries):
                if wanted.takes(one):
                    yield one
            if len(entries) < _PAGE:
                return
            last = f"({entries[-1][0].decode()}"


def _fields(told: DeathTold) -> Iterable[Argument]:
    for name, value in msgspec.to_builtins(told).items():
        if name != "cursor" and value not in ("", 0):
            yield from (name, value.encode(errors="surrogatepass") if isinstance(value, str) else value)


def _read(entries: Sequence[tuple[bytes, Sequence[bytes]]]) -> Iterator[DeathTold]:
    """The deaths in *entries*; what is none of ours (somebody else's, or of a newer kind) is left out."""
    for identity, flat in entries:
        words = [word.decode(errors="replace") for word in flat]
        fields = {**dict(zip(words[::2], words[1::2], strict=True)), "cursor": identity.decode()}
        with contextlib.suppress(msgspec.ValidationError):
            yield msgspec.convert(fields, DeathTold, strict=False)
