"""What the commands share: settings, output, and errors as one sentence."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import click
from rich.console import Console

from pushfleet_workers.errors import RedisUnusable, SettingsError
from pushfleet_workers.redis_address import read_url
from pushfleet_workers.redis_link import Link
from pushfleet_workers.redis_server import REDIS_FOLDER, running_in
from pushfleet_workers.settings import CONFIG_VARIABLE, DEFAULT_FILE, Settings, load

__all__ = ["Context", "json_option", "pass_context", "require_redis", "with_link"]

T = TypeVar("T")

console = Console(emoji=False)
errors = Console(stderr=True, emoji=False)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON for scripts.")


@dataclass
class Context:
    """The settings, read when a command first asks for them."""

    config: Path | None = None
    _settings: Settings | None = None

    @property
    def file(self) -> Path | None:
        """The settings file in use; None where the environment says it all."""
        return settings_file(self.config)

    @property
    def configured(self) -> Settings:
        """The settings as they are written; raises :class:`SettingsError`."""
        if self._settings is None:
            self._settings = load(self.config)
        return self._settings

    @property
    def settings(self) -> Settings:
        """The settings; without a Redis in them, with that of the `pushfleet up` that runs on their `data_dir`.

        Raises :class:`SettingsError`.
        """
        settings = self.configured
        if settings.redis.queue_url or settings.redis.state_url:
            return settings
        found = running_in(settings.data_dir / REDIS_FOLDER)
        return settings.model_copy(update={"redis": settings.redis.model_copy(update={"url": found})})

    @property
    def queue_url(self) -> str:
        """The Redis of ingress and ledger; raises :class:`SettingsError` where none is configured."""
        require_redis(self.settings, "queue")
        return self.settings.redis.queue_url

    @property
    def state_url(self) -> str:
        """The Redis of the token state; raises :class:`SettingsError` where none is configured."""
        require_redis(self.settings, "state")
        return self.settings.redis.state_url


def settings_file(named: Path | None) -> Path | None:
    """The absolute path of the file that :func:`load` reads; None where there is none."""
    path = named or Path(os.environ.get(CONFIG_VARIABLE) or DEFAULT_FILE)
    return path.resolve() if path.exists() else None


pass_context = click.make_pass_decorator(Context)


def require_redis(settings: Settings, *uses: str) -> None:
    """Raise :class:`SettingsError` unless there is a good URL for each of *uses* (default: broker, queue, state)."""
    for use in uses or ("broker", "queue", "state"):
        url: str = getattr(settings.redis, f"{use}_url")
        if not url:
            raise SettingsError(
                f"no Redis is configured for {use}: set redis.url in pushfleet.toml or PUSHFLEET_REDIS__URL, "
                "or start everything on this machine with: pushfleet up"
            )
        try:
            read_url(url)
        except RedisUnusable as problem:
            raise SettingsError(f"redis.{use if getattr(settings.redis, use) else 'url'}: {problem}") from None


def with_link(url: str, work: Callable[[Link], Awaitable[T]]) -> T:
    """What *work* gives with a connection to *url*."""

    async def run() -> T:
        link = Link(url, name="pushfleet-cli")
        try:
            return await work(link)
        finally:
            await link.close()

    return asyncio.run(run())
