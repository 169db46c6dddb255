"""Sealing under the master key: AES-256-GCM, bound to what the secret belongs to.

A sealed secret begins with four bytes that name its key, so that several can open at once while the key is changed.
"""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Sequence
from hashlib import sha256

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from pushfleet_workers.errors import CredentialError, SettingsError
from pushfleet_workers.settings import CredentialsSettings
from pushfleet_workers.vendors._files import read_file

__all__ = ["MasterKeys"]

_KEY_BYTES = 32
_NAME_BYTES = 4
_NONCE_BYTES = 12
"""Random for every sealing: a fleet would have to seal billions of times for two to meet."""

_MEND = "make one with: openssl rand -base64 32"


class MasterKeys:
    """The master keys: the first one seals, each of them opens what was sealed under it."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        self._ciphers = {sha256(key).digest()[:_NAME_BYTES]: AESGCM(key) for key in keys}
        self._current = next(iter(self._ciphers))

    @classmethod
    def from_settings(cls, settings: CredentialsSettings) -> MasterKeys | None:
        """The keys of the settings, None where they have none.

        Raises :class:`SettingsError` or :class:`CredentialError`, one sentence that does not repeat the key.
        """
        value, file = settings.master_key, settings.master_key_file
        if value is not None and file is not None:
            raise SettingsError("credentials.master_key and credentials.master_key_file are both set: give one of them")
        if file is not None:
            where, text = f"credentials.master_key_file {file}", read_file("credentials.master_key_file", file)
        elif value is not None:
            where, text = "credentials.master_key", value.get_secret_value().encode()
        else:
            return None
        words = text.split()
        if not words:
            raise SettingsError(f"{where} is empty: {_MEND}")
        return cls([_key(word, number, where) for number, word in enumerate(words, start=1)])

    def seal(self, secret: bytes, belongs_to: bytes) -> bytes:
        """*secret*, for nobody who lacks the key; opened again only together with the same *belongs_to*."""
        nonce = os.urandom(_NONCE_BYTES)
        return self._current + nonce + self._ciphers[self._current].encrypt(nonce, secret, belongs_to)

    def open(self, sealed: bytes, belongs_to: bytes) -> bytes:
        """The secret in *sealed*; raises :class:`CredentialError`."""
        cipher = self._ciphers.get(sealed[:_NAME_BYTES])
        if cipher is None:
            raise CredentialError(
                "it is sealed under a master key that is not set here: add that key behind the first one"
            )
        nonce, content = sealed[_NAME_BYTES:][:_NONCE_BYTES], sealed[_NAME_BYTES + _NONCE_BYTES :]
        try:
            return cipher.decrypt(nonce, content, belongs_to)
        except (InvalidTag, ValueError):
            raise CredentialError(
                "its seal is broken: somebody changed its settings or secrets in Redis; remove it and add it again"
            ) from None


def _key(word: bytes, number: int, where: str) -> bytes:
    try:
        key = base64.b64decode(word.translate(bytes.maketrans(b"-_", b"+/")), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) != _KEY_BYTES:
        raise SettingsError(f"{where}: key {number} is not {_KEY_BYTES} bytes in base64: {_MEND}")
    return key
