"""Credential files: parsed once, read again when they change."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Generic, TypeVar

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from pydantic import SecretStr

from pushfleet_workers.errors import CredentialError
from pushfleet_workers.vendor import AuthAnswer
from pushfleet_workers.vendors._answers import parse_object

__all__ = ["ParsedFiles", "fixed_secret", "private_key", "read_file", "read_secret", "service_key"]

RSA_BITS_MIN = 2_048

T = TypeVar("T")

SECRET_LIFE_S = 60.0
"""How long a secret from the settings counts before its file is read again."""

_Stamp = tuple[int, int, int]


class ParsedFiles(Generic[T]):
    """What the files named by one setting hold, parsed, by path."""

    def __init__(self, setting: str, parse: Callable[[bytes], T]) -> None:
        self._setting = setting
        self._parse = parse
        self._known: dict[Path, tuple[_Stamp, T]] = {}

    def get(self, path: Path) -> T:
        """What *path* holds; costs one ``stat`` while the file is unchanged.

        A file that is gone or half written leaves its last good content in use; without one :class:`CredentialError`
        is raised, as by :meth:`load`.
        """
        known = self._known.get(path)
        try:
            stamp = _stamp(path)
            if known is not None and known[0] == stamp:
                return known[1]
            value = self.load(path)
        except (OSError, CredentialError):
            if known is not None:
                return known[1]
            return self.load(path)
        self._known[path] = stamp, value
        return value

    def load(self, path: Path) -> T:
        """What *path* holds now; raises :class:`CredentialError`, one sentence with its mend and no secret."""
        data = read_file(self._setting, path)
        try:
            return self._parse(data)
        except ValueError as problem:
            raise CredentialError(f"{self._setting} {path} {problem}") from None


def read_file(setting: str, path: Path) -> bytes:
    """The bytes of *path*; raises :class:`CredentialError`, one sentence with its mend."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        mend = "does not exist: put the file there or correct the setting"
    except PermissionError:
        mend = "may not be read: let the user of the worker read it"
    except OSError as problem:
        mend = f"cannot be read ({problem.strerror}): name a readable file"
    raise CredentialError(f"{setting} {path} {mend}")


def read_secret(setting: str, value: SecretStr | None, file: Path | None) -> str:
    """The secret that the settings *setting* or *setting*_file give.

    Raises :class:`CredentialError` where both are set, or neither, or it is empty: one sentence with its mend.
    """
    if (value is None) == (file is None):
        problem = "are both set" if value is not None else "are both missing"
        raise CredentialError(f"{setting} and {setting}_file {problem}: give one of them")
    if file is not None:
        secret = read_file(f"{setting}_file", file).decode(errors="replace").strip()
        where = f"{setting}_file {file}"
    else:
        secret, where = value.get_secret_value().strip() if value is not None else "", setting
    if not secret:
        raise CredentialError(f"{where} is empty: copy the secret from the vendor's console")
    return secret


def fixed_secret(setting: str, value: SecretStr | None, file: Path | None) -> AuthAnswer:
    """The secret as authorization, for vendors that know their callers by it: good for a minute, in this process alone.

    A changed file so counts within a minute, and the secret never lies in Redis. Raises as :func:`read_secret` does,
    and where it holds what no header can carry.
    """
    secret = read_secret(setting, value, file)
    if not (secret.isascii() and secret.isprintable()):
        where = f"{setting}_file {file}" if file is not None else setting
        raise CredentialError(f"{where} holds more than a secret: copy it alone from the vendor's console")
    return AuthAnswer(secret, SECRET_LIFE_S, shared=False)


def private_key(pem: bytes) -> PrivateKeyTypes | None:
    """The key in *pem*; None where it is none, is encrypted, or is of a kind that is not known here."""
    try:
        return load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return None


def service_key(data: bytes, names: Sequence[str]) -> tuple[dict[str, str], RSAPrivateKey]:
    """The texts called *names* in a service account's JSON key, and the RSA key in its ``private_key``.

    Raises :class:`ValueError`, the rest of a sentence with its mend, as :class:`ParsedFiles` wants it.
    """
    mend = "download a new JSON key of the service account"
    content = parse_object(data)
    if not content:
        raise ValueError(f"is no JSON object: {mend}")
    lacking = [name for name in names if not (isinstance(content.get(name), str) and content[name])]
    if lacking:
        raise ValueError(f"lacks {', '.join(lacking)}: {mend}")
    key = private_key(content["private_key"].encode(errors="replace"))
    if not isinstance(key, RSAPrivateKey) or key.key_size < RSA_BITS_MIN:
        raise ValueError(f"has no RSA private key of {RSA_BITS_MIN} bits or more in private_key: {mend}")
    return {name: content[name] for name in names}, key


def _stamp(path: Path) -> _Stamp:
    facts = os.stat(path)
    return facts.st_mtime_ns, facts.st_size, facts.st_ino
