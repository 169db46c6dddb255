"""What the commands share: settings, output, and errors as one sentence."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import click
from rich.console import Console

from pushfleet_workers.errors import SettingsError
from pushfleet_workers.redis_link import Link
from pushfleet_workers.settings import Settings, load

__all__ = ["Context", "json_option", "pass_context", "with_link"]

T = TypeVar("T")

console = Console()
errors = Console(stderr=True)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON for scripts.")


@dataclass
class Context:
    """The settings, read when a command first asks for them."""

    config: Path | None = None
    _settings: Settings | None = None

    @property
    def settings(self) -> Settings:
        """The settings; raises :class:`SettingsError`."""
        if self._settings is None:
            self._settings = load(self.config)
        return self._settings

    @property
    def queue_url(self) -> str:
        """The Redis of ingress and ledger; raises :class:`SettingsError` where none is configured."""
        return require_redis(self.settings)


pass_context = click.make_pass_decorator(Context)


def require_redis(settings: Settings) -> str:
    """The URL of ingress and ledger; raises :class:`SettingsError` where none is configured."""
    if not settings.redis.queue_url:
        raise SettingsError(
            "no Redis is configured: set redis.url in pushfleet.toml or PUSHFLEET_REDIS__URL, "
            "or start everything on this machine with: pushfleet up"
        )
    return settings.redis.queue_url


def with_link(url: str, work: Callable[[Link], Awaitable[T]]) -> T:
    """What *work* gives with a connection to *url*."""

    async def run() -> T:
        link = Link(url, name="pushfleet-cli")
        try:
            return await work(link)
        finally:
            await link.close()

    return asyncio.run(run())
