"""The Redis of a scenario: one server, one behind a proxy, or a master with a replica and Sentinels."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.chaos.proxy import RedisProxy
from tests.sentinels import SentinelCluster

from pushfleet_workers.redis_server import EmbeddedRedis

__all__ = ["Servers", "running_servers"]


@dataclass
class Servers:
    """What runs, and how it is reached."""

    redis: EmbeddedRedis
    """Behind Sentinels the first master."""

    proxy: RedisProxy | None = None
    sentinels: SentinelCluster | None = None

    @property
    def url(self) -> str:
        """Where producers and the fleet find it."""
        return (self.sentinels or self.proxy or self.redis).url

    @property
    def books_url(self) -> str:
        """Where it can be looked at whatever befalls the fleet's own way."""
        return (self.sentinels or self.redis).url

    @property
    def way(self) -> RedisProxy:
        """The proxy of a scenario that is ``proxied``."""
        assert self.proxy is not None, "the scenario is not proxied"
        return self.proxy

    @property
    def cluster(self) -> SentinelCluster:
        """The servers of a scenario that has ``sentinels``."""
        assert self.sentinels is not None, "the scenario has no Sentinels"
        return self.sentinels


@contextlib.contextmanager
def running_servers(
    folder: Path, config: Mapping[str, str], *, proxied: bool = False, sentinels: bool = False
) -> Iterator[Servers]:
    """Redis with its data in *folder*; *config*: directives for each server."""
    with contextlib.ExitStack() as stack:
        if sentinels:
            cluster = stack.enter_context(SentinelCluster(folder, **config))
            yield Servers(cluster.servers[0], sentinels=cluster)
            return
        redis = stack.enter_context(EmbeddedRedis(folder, config=config))
        proxy = stack.enter_context(RedisProxy(redis.port)) if proxied else None
        yield Servers(redis, proxy)
