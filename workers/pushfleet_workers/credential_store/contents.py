"""What a credential consists of: settings that anybody may see, and secrets, as values or as files."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any, get_args

import msgspec
from cryptography import x509
from msgspec import Raw, Struct
from pydantic import SecretStr
from pydantic.fields import FieldInfo

from pushfleet_workers import registry
from pushfleet_workers.account import AccountSettings
from pushfleet_workers.credential_store.sealing import MasterKeys
from pushfleet_workers.credential_store.secret_files import SecretFile
from pushfleet_workers.credential_store.store import Name, Version
from pushfleet_workers.errors import CredentialError

__all__ = [
    "Secrets",
    "expires_at_ms",
    "file_settings",
    "open_secrets",
    "outline",
    "seal_secrets",
    "secret_settings",
    "secrets_of",
]

_FINGERPRINT_DIGITS = 16
_SEALED = "(sealed)"


class Secrets(Struct, frozen=True):
    """The secrets of one credential, by setting."""

    values: dict[str, str] = {}
    files: dict[str, SecretFile] = {}

    def __repr__(self) -> str:
        return f"Secrets({', '.join(self.kinds())})"

    def kinds(self) -> dict[str, str]:
        """The setting to ``file`` or ``value``."""
        return dict.fromkeys(self.values, "value") | dict.fromkeys(self.files, "file")

    def fingerprint(self) -> str:
        """Tells keys apart: the first digits of `sha256sum` of the key file.

        Of all files together where there are several, of the secrets where there is none; empty where there is nothing.
        """
        material = [file.content for name, file in sorted(self.files.items()) if _is_key(name) and name != "ca_bundle"]
        # A password alone could be guessed from its digest; beside a file it adds nothing.
        material = material or [
            value.encode()
            for name, value in sorted(self.values.items())
            if _is_key(name) and name != "proxy" and "password" not in name
        ]
        return sha256(b"\0".join(material)).hexdigest()[:_FINGERPRINT_DIGITS] if material else ""


def _is_key(name: str) -> bool:
    """Whether a secret is what the vendor knows the account by; those of receipts are another matter."""
    return not name.startswith("receipt_")


def file_settings(account_type: type[AccountSettings]) -> list[str]:
    """The settings that name a file."""
    return [name for name, field in account_type.model_fields.items() if _takes(field, Path)]


def secret_settings(account_type: type[AccountSettings]) -> list[str]:
    """The settings whose values are secret. A proxy's address counts: it may hold a password."""
    return [name for name, field in account_type.model_fields.items() if _takes(field, SecretStr) or name == "proxy"]


def _takes(field: FieldInfo, kind: type) -> bool:
    return kind in (field.annotation, *get_args(field.annotation))


def seal_secrets(name: Name, settings: Raw, secrets: Secrets, keys: MasterKeys) -> bytes:
    """*secrets*, sealed and bound to the credential and to its *settings*."""
    return keys.seal(msgspec.msgpack.encode(secrets), _belongs_to(name, settings))


def open_secrets(name: Name, version: Version, keys: MasterKeys) -> Secrets:
    """The secrets of *version*; raises :class:`CredentialError`."""
    content = keys.open(version.sealed, _belongs_to(name, version.settings))
    try:
        return msgspec.msgpack.decode(content, type=Secrets)
    except msgspec.MsgspecError:
        raise CredentialError("it was stored by a newer pushfleet: update this one") from None


def _belongs_to(name: Name, settings: Raw) -> bytes:
    # The settings as well: whoever can write to Redis must not get a secret sent to an address of their own.
    return b"\0".join([b"pushfleet credential", name.vendor.encode(), name.credential.encode(), bytes(settings)])


def outline(vendor: str, version: Version) -> AccountSettings:
    """The account without its secrets, for those who send nothing; raises :class:`pydantic.ValidationError`."""
    settings: Mapping[str, Any] = msgspec.json.decode(version.settings)
    return registry.load(vendor).account_type.model_validate({**settings, **dict.fromkeys(version.secrets, _SEALED)})


def secrets_of(account: AccountSettings) -> Secrets:
    """The secrets that an account of the settings file has; a file that cannot be read is left out."""
    values, files = {}, {}
    for name in secret_settings(type(account)):
        value = getattr(account, name)
        if value:
            values[name] = value.get_secret_value() if isinstance(value, SecretStr) else value
    for name in file_settings(type(account)):
        path = getattr(account, name)
        try:
            if path is not None:
                files[name] = SecretFile(path.name, path.read_bytes())
        except OSError:
            continue
    return Secrets(values, files)


def expires_at_ms(vendor: str, account: AccountSettings) -> int:
    """When the account's client certificate expires, Unix milliseconds; 0: it has none, or none that can be read."""
    try:
        identity = registry.load(vendor).identity(account)
        if identity is None:
            return 0
        return int(x509.load_pem_x509_certificates(identity.pem)[0].not_valid_after_utc.timestamp() * 1000)
    except (CredentialError, ValueError):
        return 0
