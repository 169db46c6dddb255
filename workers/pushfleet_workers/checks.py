"""What `pushfleet check` looks at: each account's credential files, and each Redis."""

from __future__ import annotations

import asyncio
import time
from typing import Literal

import msgspec

from pushfleet_workers import registry
from pushfleet_workers.credential_store.management import CredentialManager
from pushfleet_workers.errors import RedisUnusable
from pushfleet_workers.redis_link import Link, ReplyError
from pushfleet_workers.redis_server import FLOORS
from pushfleet_workers.settings import RedisSettings, Settings
from pushfleet_workers.vendors._receipts import receipt_misfit

__all__ = ["Finding", "check_accounts", "check_all", "check_redis", "refuse_old_redis", "refuse_unusable_redis"]


class Finding(msgspec.Struct, frozen=True):
    """One thing that was looked at."""

    level: Literal["ok", "warning", "error"]
    about: str
    sentence: str

    @property
    def wrong(self) -> bool:
        """Whether something should be mended."""
        return self.level != "ok"


def check_all(settings: Settings) -> list[Finding]:
    """Everything that can be found without sending a push."""
    findings = check_accounts(settings)
    if settings.redis.queue_url:
        findings += asyncio.run(_check_stored(settings))
    if not findings:
        findings.append(Finding("warning", "accounts", "no vendor account is configured: nothing can be sent"))
    urls = {
        "redis.broker": settings.redis.broker_url,
        "redis.queue": settings.redis.queue_url,
        "redis.state": settings.redis.state_url,
    }
    seen: set[str] = set()
    for about, url in urls.items():
        if not url:
            findings.append(
                Finding("warning", about, "no URL is set: only `pushfleet up` works, with an embedded server")
            )
        elif url not in seen:
            seen.add(url)
            keeps = url in (settings.redis.queue_url, settings.redis.state_url)
            findings += asyncio.run(_check_url(about, url, keeps=keeps))
    return findings


def check_accounts(settings: Settings) -> list[Finding]:
    """What is wrong with the accounts' credential files, or that nothing is."""
    findings = []
    for vendor, credential, account in settings.each_account():
        about = f"accounts.{vendor}.{credential}"
        problems = registry.load(vendor).check(account, time.time())
        problems += [misfit] if (misfit := receipt_misfit(vendor, credential, account)) else []
        findings += [Finding("error", about, problem) for problem in problems]
        if not problems:
            findings.append(Finding("ok", about, f"complete, for app {account.app}"))
        if account.ca_bundle is not None and not account.ca_bundle.is_file():
            findings.append(Finding("error", about, f"ca_bundle {account.ca_bundle} is no file"))
    return findings


async def _check_stored(settings: Settings) -> list[Finding]:
    """As :func:`check_accounts`, for the credentials in the store; nothing when their Redis is not there."""
    try:
        link = Link(settings.redis.queue_url, name="pushfleet-check")
        try:
            found = await CredentialManager(settings, link, link).check()
        finally:
            await link.close()
    except (RedisUnusable, ReplyError):
        # What is wrong with Redis is a finding of its own.
        return []
    findings = []
    for name, problems in found.items():
        about = f"stored credential {name}"
        findings += [Finding("error", about, problem) for problem in problems]
        if not problems:
            findings.append(Finding("ok", about, "complete"))
    return findings


async def _check_url(about: str, url: str, *, keeps: bool) -> list[Finding]:
    try:
        link = Link(url, name="pushfleet-check")
        try:
            findings = await check_redis(link, about, keeps=keeps)
            if link.sentinels is not None:
                troubles = [*await link.sentinels.troubles(), *await _lonely_master(link)]
                findings += [Finding("warning", about, trouble) for trouble in troubles]
            return findings
        finally:
            await link.close()
    except (RedisUnusable, ReplyError) as problem:
        return [Finding("error", about, str(problem))]


async def _lonely_master(link: Link) -> list[str]:
    """Sentinels count replicas that are long gone; the master knows who follows it."""
    if int((await _info(link, "replication")).get("connected_slaves", 1)):
        return []
    return [f"the master at {link.shown} has no replica that follows it: when it dies, nobody takes over"]


async def check_redis(link: Link, about: str, *, keeps: bool = True) -> list[Finding]:
    """Version, eviction, persistence and hash encoding of one Redis.

    * **keeps** - whether it holds what must survive a restart; Celery's triggers need not.

    Raises :class:`RedisUnusable` when it is not there.
    """
    findings = []
    name, version = await _version(link)
    floor = FLOORS[name]
    if version < floor:
        sentence = f"{name} {_dotted(version)} is too old: {name} {_dotted(floor)} is the oldest that works"
        findings.append(Finding("error", about, sentence))
    wishes = [
        ("maxmemory-policy", "noeviction", "any other policy may throw queued pushes away"),
        ("hash-max-listpack-value", "512", "smaller values store device records in two to three times the memory"),
    ]
    if keeps:
        wishes.insert(1, ("appendonly", "yes", "without it a restart loses everything since the last snapshot"))
    for directive, wanted, why in wishes:
        value = await _directive(link, directive)
        low = value is not None and (int(value) < int(wanted) if wanted.isdigit() else value != wanted)
        if low:
            findings.append(
                Finding("warning", about, f"{directive} is {value}: CONFIG SET {directive} {wanted}; {why}")
            )
    return findings or [Finding("ok", about, f"{name} {_dotted(version)} at {link.shown}")]


async def refuse_old_redis(link: Link) -> None:
    """Raise :class:`RedisUnusable` when the server is older than the floor."""
    name, version = await _version(link)
    if version < FLOORS[name]:
        raise RedisUnusable(
            f"{name} {_dotted(version)} at {link.shown} is too old: pushfleet needs Redis "
            f"{_dotted(FLOORS['redis'])} or Valkey {_dotted(FLOORS['valkey'])}"
        )


def refuse_unusable_redis(redis: RedisSettings) -> None:
    """Raise :class:`RedisUnusable` when the Redis of queue or state is away or too old; no loop may be running."""

    async def look(url: str) -> None:
        link = Link(url, name="pushfleet-check")
        try:
            await refuse_old_redis(link)
        finally:
            await link.close()

    for url in {redis.queue_url: None, redis.state_url: None}:
        asyncio.run(look(url))


async def _version(link: Link) -> tuple[str, tuple[int, int]]:
    facts = await _info(link, "server")
    name = "valkey" if "valkey_version" in facts else "redis"
    major, minor = facts[f"{name}_version"].split(".")[:2]
    return name, (int(major), int(minor))


async def _info(link: Link, section: str) -> dict[str, str]:
    told: bytes = await link.call("INFO", section)
    return dict(line.split(":", 1) for line in told.decode().splitlines() if ":" in line)


async def _directive(link: Link, name: str) -> str | None:
    try:
        reply = await link.call("CONFIG", "GET", name)
    except ReplyError:
        # Managed services and ACLs hide CONFIG; what cannot be seen cannot be judged.
        return None
    return reply[1].decode() if len(reply) == 2 else None


def _dotted(version: tuple[int, int]) -> str:
    return f"{version[0]}.{version[1]}"
