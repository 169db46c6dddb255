"""Where a Redis is, read from its URL: one server, or the Sentinels that know which server it is."""

from __future__ import annotations

from dataclasses import dataclass, field
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

from pushfleet.sentinel import Place, SentinelAddress, is_sentinel_url
from pushfleet_workers.errors import RedisUnusable

__all__ = ["RedisAddress", "master_address", "read_url", "sentinel_address"]


@dataclass(frozen=True, slots=True)
class RedisAddress:
    """Where a Redis is and how to get in, read from a `redis://`, `rediss://` or `unix://` URL."""

    host: str
    port: int
    path: str
    username: str
    password: str = field(repr=False)
    database: int
    tls: bool
    ca_file: str

    @classmethod
    def from_url(cls, url: str) -> RedisAddress:
        """The address in *url*; raises :class:`RedisUnusable` when it is none, without repeating what it says."""
        try:
            return cls._from_parts(urlsplit(url))
        except ValueError:
            raise RedisUnusable(
                "a Redis URL reads redis://user:password@host:port/database; its port and database are numbers"
            ) from None

    @classmethod
    def _from_parts(cls, parts: SplitResult) -> RedisAddress:
        if parts.scheme not in ("redis", "rediss", "unix"):
            raise RedisUnusable(
                f"a Redis URL starts with redis://, rediss://, unix://, redis+sentinel:// or rediss+sentinel://, "
                f"not {parts.scheme!r}"
            )
        query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
        unix = parts.scheme == "unix"
        database = query.get("db", "0") if unix else (parts.path.strip("/") or query.get("db", "0"))
        return cls(
            host=parts.hostname or "127.0.0.1",
            port=parts.port or 6379,
            path=unquote(parts.path) if unix else "",
            username=unquote(parts.username or ""),
            password=unquote(parts.password or ""),
            database=int(database),
            tls=parts.scheme == "rediss",
            ca_file=query.get("ssl_ca_certs", ""),
        )

    @property
    def shown(self) -> str:
        """The address without the password, for error texts."""
        return self.path or f"{Place(self.host, self.port)}/{self.database}"


def read_url(url: str) -> RedisAddress | SentinelAddress:
    """The address in *url*; raises :class:`RedisUnusable` when it is none, without repeating what it says."""
    if not is_sentinel_url(url):
        return RedisAddress.from_url(url)
    try:
        return SentinelAddress.from_url(url)
    except ValueError as problem:
        raise RedisUnusable(str(problem)) from None


def master_address(behind: SentinelAddress, place: Place) -> RedisAddress:
    """The server that the Sentinels of *behind* name."""
    return RedisAddress(*place, "", behind.username, behind.password, behind.database, behind.tls, behind.ca_file)


def sentinel_address(behind: SentinelAddress, place: Place) -> RedisAddress:
    """One of the Sentinels of *behind*."""
    return RedisAddress(*place, "", behind.sentinel_username, behind.sentinel_password, 0, behind.tls, behind.ca_file)
