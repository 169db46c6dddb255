"""What operators do with credentials: add, list, test, rotate, remove. The command line and the API both do it here."""

from __future__ import annotations

import secrets as chance
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec
from msgspec import Raw, Struct
from pydantic import ValidationError

from pushfleet.message import NAME
from pushfleet_workers import registry
from pushfleet_workers.account import AccountSettings
from pushfleet_workers.audit import accounts_key, read_books
from pushfleet_workers.credential_store.accounts import forget_authorization, open_account
from pushfleet_workers.credential_store.contents import (
    Secrets,
    expires_at_ms,
    file_settings,
    open_secrets,
    seal_secrets,
    secret_settings,
    secrets_of,
)
from pushfleet_workers.credential_store.devices import any_device
from pushfleet_workers.credential_store.errors import CredentialRefused
from pushfleet_workers.credential_store.sealing import MasterKeys
from pushfleet_workers.credential_store.secret_files import SecretFile, SecretFolder
from pushfleet_workers.credential_store.store import CredentialStore, Name, Record, Stored, Version
from pushfleet_workers.credential_store.trial import Trial, try_account
from pushfleet_workers.errors import CredentialError, SettingsError
from pushfleet_workers.ledger import AccountKeys
from pushfleet_workers.redis_link import Link
from pushfleet_workers.settings import Settings, misfit, sentences
from pushfleet_workers.vendors._receipts import receipt_misfit

__all__ = ["FILE_BYTES_MAX", "OVERLAP_S", "OVERLAP_S_MAX", "CredentialManager", "CredentialShown", "Given"]

FILE_BYTES_MAX = 64 * 1024
OVERLAP_S = 86_400
OVERLAP_S_MAX = 30 * 86_400


class CredentialShown(Struct, frozen=True):
    """A credential as it is shown: nothing of it is secret. Times are Unix milliseconds, 0: none, or not known."""

    vendor: str
    id: str
    app: str
    environment: str
    source: Literal["settings", "stored"]
    created_at_ms: int
    changed_at_ms: int
    expires_at_ms: int
    """When its certificate does."""

    key_fingerprint: str
    """Tells keys apart: the first 16 digits of `sha256sum` of the key file, or of the secret where there is no file."""

    overlap_until_ms: int = 0
    """Until when the secret before the last rotation is kept."""

    refused: str = ""
    """The vendor's code where it refused the new secret: until the overlap ends the one before is used."""


@dataclass(frozen=True)
class Given:
    """What somebody hands over; its repr shows nothing of it.

    * **settings** - by name, as in the settings file; secrets among them are sealed. None takes away what is there.
    * **files** - the contents of files, and of secrets that come as a file.
    """

    settings: Mapping[str, Any] = field(default_factory=dict, repr=False)
    files: Mapping[str, SecretFile] = field(default_factory=dict, repr=False)


class CredentialManager:
    """The credentials of the fleet, for operators.

    * **queue** - the Redis of the queue, where the store and the ledgers are.
    * **state** - the Redis of the token state.

    Every method raises :class:`CredentialRefused`, and has then changed nothing, and :class:`RedisUnusable`.
    """

    def __init__(self, settings: Settings, queue: Link, state: Link) -> None:
        self._settings = settings
        self._prefix = settings.redis.prefix
        self._queue = queue
        self._state = state
        self._store = CredentialStore(queue, self._prefix)

    async def every(self) -> list[CredentialShown]:
        """All credentials, those of the settings first."""
        reading = await self._store.read()
        shown = [_shown_setting(*account) for account in self._settings.each_account()]
        stored = [_shown_stored(name, one.record, reading.now_ms) for name, one in sorted(reading.records.items())]
        return shown + stored

    async def add(self, name: Name, app: str, given: Given) -> CredentialShown:
        """Store a credential that is checked as far as that goes without the network."""
        keys = self._master_keys()
        self._refuse_settled(name)
        if not NAME.fullmatch(name.credential):
            mend = "an id has 1 to 64 letters, digits, '.', '_', '-' and starts with a letter or digit"
            raise CredentialRefused("invalid_id", f"{name.credential!r} cannot be an id: {mend}", "id")
        if await self._store.get(name) is not None:
            raise CredentialRefused("credential_exists", f"{name} exists: rotate it, or remove it first", "id")
        plain, secrets = _sorted(_account_type(name.vendor), given, {"app": app}, Secrets())
        _, now_ms = await self._store.version()
        record = Record(int(now_ms), self._version(name, plain, secrets, keys, now_ms))
        await self._swap(name, None, record)
        # The books of an account are read from the moment that it can have any.
        await self._queue.call("SADD", accounts_key(self._prefix), str(name))
        return _shown_stored(name, record, now_ms)

    async def rotate(self, name: Name, given: Given, overlap_s: int = OVERLAP_S) -> CredentialShown:
        """Put new settings and secrets in the place of those that are named; the rest stays.

        New authorizations are made with the new ones. Those before are kept for *overlap_s*, and are used if the
        vendor refuses the new ones by then.
        """
        keys = self._master_keys()
        stored = await self._known(name)
        if not given.settings and not given.files:
            raise CredentialRefused("nothing_new", "nothing new is given: name the settings or files that change")
        if not 0 <= overlap_s <= OVERLAP_S_MAX:
            sentence = f"the overlap must be 0 to {OVERLAP_S_MAX} seconds"
            raise CredentialRefused("invalid_setting", sentence, "overlap_s")
        old = stored.record.current
        before = msgspec.json.decode(old.settings)
        old_secrets = self._opened(name, old, keys)
        plain, secrets = _sorted(_account_type(name.vendor), given, before, old_secrets)
        _, now_ms = await self._store.version()
        new = self._version(name, plain, secrets, keys, now_ms)
        record = Record(stored.record.created_at_ms, new)
        if overlap_s:
            until_ms = int(now_ms) + overlap_s * 1000
            in_use = stored.record.in_force(now_ms)
            record = msgspec.structs.replace(record, previous=in_use, overlap_until_ms=until_ms)
        await self._swap(name, stored, record)
        if secrets != old_secrets:
            # Not else: a vendor may count how often a key signs anew.
            with self._checked(name, plain, secrets) as account:
                await forget_authorization(self._queue, self._prefix, name, account)
        return _shown_stored(name, record, now_ms)

    async def remove(self, name: Name, *, force: bool = False) -> None:
        """Forget a credential; refused while it has work or devices, unless *force* says that both may be stranded."""
        stored = await self._known(name)
        if not force:
            await self._refuse_used(name)
        await self._swap(name, stored, None)
        # Another credential of that name begins with an authorization of its own.
        await self._queue.call("DEL", f"{AccountKeys(self._prefix, *name).root}:auth")

    async def test(self, name: Name, *, probe: bool = False) -> Trial:
        """Obtain an authorization for real; with *probe* send one push to a token that cannot exist as well."""
        account = self._settings.accounts.get(name.vendor, {}).get(name.credential)
        if account is not None:
            return await try_account(name.vendor, account, probe=probe)
        keys = self._master_keys()
        version = (await self._known(name)).record.current
        secrets = self._opened(name, version, keys)
        with self._checked(name, msgspec.json.decode(version.settings), secrets) as opened:
            return await try_account(name.vendor, opened, probe=probe)

    async def check(self) -> dict[Name, list[str]]:
        """What is wrong with each stored credential, one sentence each with its mend; no network but Redis."""
        reading = await self._store.read()
        return {name: self._problems(name, one.record, reading.now_ms) for name, one in reading.records.items()}

    async def reseal(self) -> int:
        """Seal all credentials under the first master key; gives how many. The other keys can go then."""
        keys = self._master_keys()
        reading = await self._store.read()
        for name, stored in reading.records.items():
            record = stored.record
            current = self._resealed(name, record.current, keys)
            previous = self._resealed(name, record.previous, keys) if record.previous is not None else None
            await self._swap(name, stored, msgspec.structs.replace(record, current=current, previous=previous))
        return len(reading.records)

    # ---- checks

    def _master_keys(self) -> MasterKeys:
        try:
            keys = MasterKeys.from_settings(self._settings.credentials)
        except (SettingsError, CredentialError) as problem:
            raise CredentialRefused("bad_master_key", str(problem)) from None
        if keys is None:
            raise CredentialRefused(
                "no_master_key",
                "no master key is set, and without one no secret is stored: make one with openssl rand -base64 32 "
                "and set credentials.master_key or credentials.master_key_file for every process of the fleet",
            )
        return keys

    def _refuse_settled(self, name: Name) -> None:
        if name.credential in self._settings.accounts.get(name.vendor, {}):
            sentence = f"{name} comes from the settings: change accounts.{name.vendor}.{name.credential} there"
            raise CredentialRefused("credential_in_settings", sentence, "id")

    async def _known(self, name: Name) -> Stored:
        self._refuse_settled(name)
        stored = await self._store.get(name)
        if stored is None:
            raise CredentialRefused("unknown_credential", f"there is no credential {name}: see the list", "id")
        return stored

    async def _refuse_used(self, name: Name) -> None:
        book = (await read_books(self._queue, self._prefix, [name], recount=False)).accounts[str(name)]
        waiting = book.ready + book.leased + book.delayed
        mend = "let them end, move them to another credential, or force it"
        if waiting:
            sentence = f"{name} still has {waiting} deliveries to send: {mend}"
            raise CredentialRefused("credential_in_use", sentence)
        if await any_device(self._state, self._prefix, *name):
            sentence = f"devices are registered with {name} and could not be reached any more: {mend}"
            raise CredentialRefused("credential_in_use", sentence)

    def _opened(self, name: Name, version: Version, keys: MasterKeys) -> Secrets:
        try:
            return open_secrets(name, version, keys)
        except CredentialError as problem:
            raise CredentialRefused("sealed_credential", f"{name} cannot be opened: {problem}") from None

    @contextmanager
    def _checked(self, name: Name, plain: Mapping[str, Any], secrets: Secrets) -> Iterator[AccountSettings]:
        """The account, its files in place; refused with what is wrong with its fields."""
        folder = SecretFolder(self._settings.data_dir)
        try:
            try:
                account, _ = open_account(name, plain, secrets, folder)
            except ValidationError as problem:
                where = ".".join(str(part) for part in problem.errors(include_input=False)[0]["loc"])
                sentence = "; ".join(sentences(problem, _account_type(name.vendor), ""))
                raise CredentialRefused("invalid_setting", sentence, where) from None
            fault = misfit(name.vendor, account, self._settings.apps)
            if fault:
                raise CredentialRefused("invalid_setting", fault, fault.partition(" ")[0].rstrip(":"))
            yield account
        finally:
            folder.close()

    def _problems(self, name: Name, record: Record, now_ms: float) -> list[str]:
        version = record.current
        problems = []
        if record.overlaps(now_ms) and record.refused:
            problems.append(
                f"the vendor refuses the new secret ({record.refused}), the one before is used until the overlap ends: "
                f"rotate it again"
            )
        try:
            self._refuse_settled(name)
            secrets = self._opened(name, version, self._master_keys())
            with self._checked(name, msgspec.json.decode(version.settings), secrets) as account:
                return problems + [_without_folders(problem, account) for problem in _found(name, account)]
        except CredentialRefused as refused:
            return [*problems, refused.sentence]

    # ---- versions

    def _version(
        self, name: Name, plain: Mapping[str, Any], secrets: Secrets, keys: MasterKeys, now_ms: float
    ) -> Version:
        """The version to store; refused with what the vendor finds wrong: passwords, expiry, ids, kinds of keys."""
        with self._checked(name, plain, secrets) as account:
            problems = _found(name, account)
            if problems:
                raise CredentialRefused("credential_wrong", _without_folders("; ".join(problems), account))
            expires = expires_at_ms(name.vendor, account)
        settings = Raw(msgspec.json.encode(plain))
        return Version(
            id=chance.token_hex(8),
            settings=settings,
            secrets=secrets.kinds(),
            sealed=seal_secrets(name, settings, secrets, keys),
            made_at_ms=int(now_ms),
            key_fingerprint=secrets.fingerprint(),
            expires_at_ms=expires,
        )

    def _resealed(self, name: Name, version: Version, keys: MasterKeys) -> Version:
        sealed = seal_secrets(name, version.settings, self._opened(name, version, keys), keys)
        return msgspec.structs.replace(version, sealed=sealed)

    async def _swap(self, name: Name, old: Stored | None, new: Record | None) -> None:
        if not await self._store.swap(name, old, new):
            sentence = f"somebody else changed {name} at the same time: look at the list and try again"
            raise CredentialRefused("changed_meanwhile", sentence)


def _found(name: Name, account: AccountSettings) -> list[str]:
    misfit = receipt_misfit(*name, account)
    return registry.load(name.vendor).check(account, time.time()) + ([misfit] if misfit else [])


def _account_type(vendor: str) -> type[AccountSettings]:
    try:
        return registry.load(vendor).account_type
    except SettingsError as problem:
        raise CredentialRefused("unknown_vendor", str(problem), "vendor") from None


def _sorted(
    account_type: type[AccountSettings], given: Given, before: Mapping[str, Any], secrets: Secrets
) -> tuple[dict[str, Any], Secrets]:
    """What is given, laid over what was there *before*: settings here, secrets there."""
    if given.settings.get("app", before["app"]) != before["app"]:
        sentence = "a credential belongs to one app: add another one for another app"
        raise CredentialRefused("invalid_setting", sentence, "app")
    files, hidden = file_settings(account_type), secret_settings(account_type)
    new_values: dict[str, str] = {}
    new_files: dict[str, SecretFile] = {}
    for name, file in given.files.items():
        if len(file.content) > FILE_BYTES_MAX:
            sentence = f"{name} is larger than {FILE_BYTES_MAX} bytes: no key is"
            raise CredentialRefused("invalid_setting", sentence, name)
        if name in files:
            new_files[name] = file
        elif name in hidden:
            new_values[name] = file.content.decode(errors="replace").strip()
        else:
            sentence = f"{name} is no file: files are {', '.join([*files, *hidden])}"
            raise CredentialRefused("invalid_setting", sentence, name)
    for name, value in given.settings.items():
        if name in files and value is not None:
            raise CredentialRefused("invalid_setting", f"{name} is a file: give its content", name)
        if name in hidden and value is not None:
            new_values[name] = str(value)
    plain = {name: value for name, value in given.settings.items() if name not in (*files, *hidden)}
    replaced = {_other_form(name) for name in (*new_values, *new_files)}
    replaced |= {name for name, value in given.settings.items() if value is None}
    kept_values = {name: value for name, value in secrets.values.items() if name not in replaced}
    kept_files = {name: file for name, file in secrets.files.items() if name not in replaced}
    return _merged(before, plain), Secrets(kept_values | new_values, kept_files | new_files)


def _other_form(name: str) -> str:
    """A secret comes as a value or as a file, the latter's setting named after the former: one replaces the other."""
    return name.removesuffix("_file") if name.endswith("_file") else f"{name}_file"


def _merged(before: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """Tables are merged, everything else is replaced; what is None goes."""
    merged = dict(before)
    for name, value in new.items():
        old = merged.get(name)
        merged[name] = _merged(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return {name: value for name, value in merged.items() if value is not None}


def _without_folders(sentence: str, account: AccountSettings) -> str:
    """*sentence* with the files called as whoever gave them calls them."""
    for name in file_settings(type(account)):
        path = getattr(account, name)
        if path is not None:
            sentence = sentence.replace(f"{path.parent}/", "")
    return sentence


def _shown_setting(vendor: str, credential: str, account: AccountSettings) -> CredentialShown:
    return CredentialShown(
        vendor=vendor,
        id=credential,
        app=account.app,
        environment=getattr(account, "environment", ""),
        source="settings",
        created_at_ms=0,
        changed_at_ms=0,
        expires_at_ms=expires_at_ms(vendor, account),
        key_fingerprint=secrets_of(account).fingerprint(),
    )


def _shown_stored(name: Name, record: Record, now_ms: float) -> CredentialShown:
    current = record.current
    settings = msgspec.json.decode(current.settings)
    overlaps = record.overlaps(now_ms)
    return CredentialShown(
        vendor=name.vendor,
        id=name.credential,
        app=settings["app"],
        environment=settings.get("environment") or _usual_environment(name.vendor),
        source="stored",
        created_at_ms=record.created_at_ms,
        changed_at_ms=current.made_at_ms,
        expires_at_ms=current.expires_at_ms,
        key_fingerprint=current.key_fingerprint,
        overlap_until_ms=record.overlap_until_ms if overlaps else 0,
        refused=record.refused if overlaps else "",
    )


def _usual_environment(vendor: str) -> str:
    """The environment of an account that names none; empty for a vendor that has none, or that is not installed."""
    if vendor not in registry.names():
        return ""
    field_ = registry.load(vendor).account_type.model_fields.get("environment")
    return str(field_.default) if field_ is not None else ""
