"""All accounts, those of the settings and those of the store, and what changes among the latter meanwhile."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import msgspec
from pydantic import ValidationError

from pushfleet_workers import registry
from pushfleet_workers.account import AccountSettings
from pushfleet_workers.callers import caller_root
from pushfleet_workers.credential_store.contents import Secrets, open_secrets, outline
from pushfleet_workers.credential_store.sealing import MasterKeys
from pushfleet_workers.credential_store.secret_files import SecretFolder
from pushfleet_workers.credential_store.store import CredentialStore, Name, Reading, Record, Version
from pushfleet_workers.errors import CredentialError, RedisUnusable, SettingsError
from pushfleet_workers.redis_link import Link, ReplyError
from pushfleet_workers.settings import Settings, misfit, sentences

__all__ = ["Accounts", "Change", "forget_authorization", "open_account"]

log = logging.getLogger(__name__)

LOOK_S = 3.0
_OPEN_AGAIN_MS = 60_000


class Change(NamedTuple):
    """What became of one stored credential."""

    vendor: str
    credential: str
    account: AccountSettings | None
    """As it is from now on; None: it is gone."""


@dataclass(slots=True)
class _Open:
    """A stored credential as this process uses it."""

    version: str
    account: AccountSettings
    paths: Mapping[str, Path] = field(default_factory=dict)


class Accounts:
    """The accounts of the settings and of the store. Where both have one, the settings win.

    * **link** - the Redis of the queue.
    * **secrets** - whether the accounts are to be sent with. Without, the master key is not needed, and secrets and
      files of stored credentials are only names: enough for whoever decides, counts and registers.

    Nothing is known of the store before the first :meth:`refresh`. Raises :class:`SettingsError` or
    :class:`CredentialError` for a master key that is none.
    """

    def __init__(self, settings: Settings, link: Link, *, secrets: bool) -> None:
        self._settings = settings
        self._link = link
        self._store = CredentialStore(link, settings.redis.prefix)
        self._secrets = secrets
        self._keys = MasterKeys.from_settings(settings.credentials) if secrets else None
        self._folder = SecretFolder(settings.data_dir)
        self._version: tuple[int, str] = (-1, "")
        """Of the store, and of the history of the data that it lies in: a failover may take a change back."""

        self._look_again_at_ms = float("inf")
        self._stored: dict[Name, _Open] = {}
        self._retired: list[Mapping[str, Path]] = []
        self._told: dict[Name, tuple[str, str]] = {}
        """What was logged of a credential that cannot be used, by version."""

        self._refusals: dict[Name, tuple[_Open, str]] = {}
        """What the vendor refused, and its code."""

        self._news = asyncio.Event()
        self.apps: dict[tuple[str, str], str] = {}
        """Vendor and credential to the app they belong to; kept up to date in place."""

        for vendor, credential, account in settings.each_account():
            self.apps[vendor, credential] = account.app

    def each(self) -> Iterator[tuple[str, str, AccountSettings]]:
        """Vendor, credential and settings of every account."""
        yield from self._settings.each_account()
        for (vendor, credential), opened in self._stored.items():
            yield vendor, credential, opened.account

    async def refresh(self) -> list[Change]:
        """Read the store if it changed; gives what is different now. Raises :class:`RedisUnusable`.

        The files of what changed before are removed: call it again only when nobody uses those accounts any more.
        """
        while self._retired:
            self._folder.drop(self._retired.pop())
        await self._write_refusals()
        version, now_ms = await self._store.version()
        if (version, self._link.history) == self._version and now_ms < self._look_again_at_ms:
            return []
        history = self._link.history
        reading = await self._store.read()
        if self._keys is not None:
            await self._end_overlaps(reading)
        self._version = (reading.version, history)
        ends = [one.record.overlap_until_ms for one in reading.records.values() if one.record.overlaps(reading.now_ms)]
        self._look_again_at_ms = min(ends, default=float("inf"))
        return list(self._take(reading))

    async def changes(self, every_s: float = LOOK_S) -> AsyncIterator[list[Change]]:
        """What is different, again and again, as soon as it is noticed; ends only when it is cancelled.

        Whoever asks for the next changes is done with these: no account that they replaced is used any more.
        """
        while True:
            try:
                changes = await self.refresh()
            except (RedisUnusable, ReplyError) as problem:
                log.warning("the stored credentials were not looked at: %s", problem)
                changes = []
            if changes:
                yield changes
            self._news.clear()
            try:
                async with asyncio.timeout(every_s):
                    await self._news.wait()
            except TimeoutError:
                pass

    def refused(self, vendor: str, credential: str, account: AccountSettings, code: str) -> None:
        """The vendor refused *account* itself, not one of its pushes.

        During the overlap of a rotation the whole fleet then goes back to the version before, until the overlap ends.
        """
        opened = self._stored.get(Name(vendor, credential))
        if opened is not None and opened.account is account:
            self._refusals[Name(vendor, credential)] = (opened, code)
            self._news.set()

    def close(self) -> None:
        """Remove the files of all stored credentials."""
        self._folder.close()

    # ---- what the store says

    def _take(self, reading: Reading) -> Iterator[Change]:
        settled = {Name(vendor, credential) for vendor, credential, _ in self._settings.each_account()}
        for name in [name for name in self._stored if name not in reading.records]:
            self._retired.append(self._stored.pop(name).paths)
            del self.apps[name]
            yield Change(*name, None)
        for name, stored in reading.records.items():
            version = stored.record.in_force(reading.now_ms)
            old = self._stored.get(name)
            if old is not None and old.version == version.id:
                continue
            if name in settled:
                self._tell(name, version, "the settings have an account of that name, which is used instead")
                continue
            try:
                opened = self._opened(name, version)
            except CredentialError as problem:
                # What runs goes on: a credential that cannot be opened any more is no worse than before.
                self._tell(name, version, str(problem))
                self._look_again_at_ms = min(self._look_again_at_ms, reading.now_ms + _OPEN_AGAIN_MS)
                continue
            if old is not None:
                self._retired.append(old.paths)
            self._stored[name] = opened
            self.apps[name] = opened.account.app
            yield Change(*name, opened.account)

    def _opened(self, name: Name, version: Version) -> _Open:
        if not self._secrets:
            account, paths = _valid(name, version, self._settings, None, self._folder)
        elif self._keys is None:
            raise CredentialError("no master key is set here: set credentials.master_key as where it was added")
        else:
            secrets = open_secrets(name, version, self._keys)
            account, paths = _valid(name, version, self._settings, secrets, self._folder)
        return _Open(version.id, account, paths)

    def _tell(self, name: Name, version: Version, sentence: str) -> None:
        if self._told.get(name) != (version.id, sentence):
            self._told[name] = (version.id, sentence)
            log.error("stored credential %s cannot be used: %s", name, sentence)

    # ---- what this process tells the store

    async def _write_refusals(self) -> None:
        _, now_ms = await self._store.version() if self._refusals else (0, 0.0)
        while self._refusals:
            name, (refused, code) = next(iter(self._refusals.items()))
            stored = await self._store.get(name)
            record = stored.record if stored is not None else None
            if record is None or record.current.id != refused.version or record.refused or not record.overlaps(now_ms):
                del self._refusals[name]
            elif await self._store.swap(name, stored, _changed(record, refused=code or "refused")):
                log.warning("the new secret of credential %s is refused (%s): the one before is used on", name, code)
                await forget_authorization(self._link, self._settings.redis.prefix, name, refused.account)

    async def _end_overlaps(self, reading: Reading) -> None:
        """Forget the versions before, where their time is up."""
        for name, stored in reading.records.items():
            record = stored.record
            if record.previous is not None and not record.overlaps(reading.now_ms):
                # Whoever is first wins; what was read stays true, since the time is up for it as well.
                await self._store.swap(name, stored, _changed(record, previous=None, overlap_until_ms=0, refused=""))


def _changed(record: Record, **changes: object) -> Record:
    return msgspec.structs.replace(record, **changes)


async def forget_authorization(link: Link, prefix: str, name: Name, account: AccountSettings) -> None:
    """Let no process take the authorization that lies in Redis for *account*: a new one is made."""
    root = caller_root(prefix, registry.load(name.vendor), name.credential, account)
    await link.call("DEL", f"{root}:auth")


def open_account(
    name: Name, settings: Mapping[str, object], secrets: Secrets, folder: SecretFolder
) -> tuple[AccountSettings, dict[str, Path]]:
    """The account of *settings* and *secrets*, and where in *folder* its files lie.

    Raises :class:`pydantic.ValidationError`, and then leaves no files.
    """
    paths = folder.put(secrets.files)
    try:
        account_type = registry.load(name.vendor).account_type
        return account_type.model_validate({**settings, **secrets.values, **paths}), paths
    except BaseException:
        folder.drop(paths)
        raise


def _valid(
    name: Name, version: Version, settings: Settings, secrets: Secrets | None, folder: SecretFolder
) -> tuple[AccountSettings, dict[str, Path]]:
    """The account of *version*, without its secrets where these are None; raises :class:`CredentialError`."""
    paths: dict[str, Path] = {}
    try:
        if secrets is None:
            account = outline(name.vendor, version)
        else:
            account, paths = open_account(name, msgspec.json.decode(version.settings), secrets, folder)
        fault = misfit(name.vendor, account, settings.apps)
    except ValidationError as problem:
        raise CredentialError("; ".join(sentences(problem, registry.load(name.vendor).account_type, ""))) from None
    except SettingsError as problem:
        raise CredentialError(str(problem)) from None
    except OSError as problem:
        raise CredentialError(f"its files cannot be written: {problem.strerror}") from None
    if fault:
        folder.drop(paths)
        raise CredentialError(fault)
    return account, paths
