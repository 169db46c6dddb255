"""What makes a receipt tellable from what anybody might send: a secret in the address, and an echo that is sealed.

An echo is what the vendor hands back with each receipt: which message, sealed with the account's key. Plain or digest,
one letter says which (capital: the message was to many, not from one person to others), then the seal, then the id.
"""

from __future__ import annotations

import base64
import hmac
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

from pydantic import Field, SecretStr

from pushfleet_workers.account import AccountSettings
from pushfleet_workers.errors import CredentialError
from pushfleet_workers.push import Push
from pushfleet_workers.vendors._files import ParsedFiles, read_secret

__all__ = [
    "ECHO_CHARS_MAX",
    "Callback",
    "Echo",
    "HuaweiReceiptAccount",
    "ReceiptAccount",
    "callback",
    "read_echo",
    "receipt_address",
    "receipt_flaws",
    "receipt_keys",
    "receipt_misfit",
    "receipt_secret",
    "secret_path",
]

ECHO_CHARS_MAX = 64
KEY_CHARS_MIN = 16
SECRET_PATH_CHARS = 22

_SEAL_BYTES, _SEAL_CHARS = 9, 12
_DIGEST_BYTES, _DIGEST_CHARS = 16, 22
_PUBLIC = frozenset({"system", "official", "marketing"})
_PLAIN, _DIGEST = "p", "d"
_plain_id = re.compile(r"[A-Za-z0-9._~-]+").fullmatch
_echo = re.compile(r"[pdPD][A-Za-z0-9_-]{12}[A-Za-z0-9._~-]{1,51}").fullmatch


class ReceiptAccount(AccountSettings):
    """An account whose vendor tells what became of a push."""

    receipt_url: str = Field(
        "",
        max_length=256,
        pattern=r"^(https?://[^\s?#]+/v1/receipts/[a-z][a-z0-9_-]*/[A-Za-z0-9][A-Za-z0-9._-]*)?$",
        description="Where the vendor reaches the API with receipts, e.g. "
        "https://push.example.com/v1/receipts/<vendor>/<credential>; a secret is added. Empty: none are asked for.",
    )
    receipt_key: SecretStr | None = Field(
        None,
        description="Makes that secret and seals what receipts bring back: 16 characters or more. Further keys after a "
        "space make nothing and let in what was made with them.",
    )
    receipt_key_file: Path | None = Field(None, description="File that holds the key, instead of it.")


class HuaweiReceiptAccount(ReceiptAccount):
    """An account whose receipts Huawei signs where AppGallery Connect is told a user name and a secret."""

    receipt_user: str = Field(
        "", max_length=256, description="User name of the receipt in AppGallery Connect; empty: it has none."
    )
    receipt_secret: SecretStr | None = Field(None, description="Secret of the receipt in AppGallery Connect.")
    receipt_secret_file: Path | None = Field(None, description="File that holds that secret, instead of it.")
    receipt_secret_is_text: bool = Field(
        False, description="The secret is text, as those of old; absent: it is base64, as Huawei makes them now."
    )


@dataclass(frozen=True, slots=True)
class Callback:
    """What a push carries for the receipts that it is to bring."""

    url: str = field(repr=False)
    echo: str


@dataclass(frozen=True, slots=True)
class Echo:
    """Which message a receipt is about."""

    message_id: str
    """Empty where it did not fit."""

    digest: str = ""
    """Then the first 32 hexadecimal digits of its SHA-256."""

    public: bool = False
    """Whether it was of a kind that nobody writes to anybody."""


def receipt_address(account: ReceiptAccount) -> str:
    """Where the vendor posts to, the secret included; raises :class:`CredentialError`."""
    return f"{account.receipt_url}/{secret_path(receipt_keys(account)[0], _name(account))}"


def callback(account: ReceiptAccount, push: Push, chars_max: int = ECHO_CHARS_MAX) -> Callback | None:
    """The address and the echo of at most *chars_max* characters; None where the account asks for no receipts.

    A key that cannot be read asks for none either: `check` tells of it, and the pushes go on.
    """
    if not account.receipt_url:
        return None
    try:
        keys = receipt_keys(account)
    except CredentialError:
        return None
    name = _name(account)
    return Callback(f"{account.receipt_url}/{secret_path(keys[0], name)}", _make_echo(keys[0], name, push, chars_max))


def receipt_keys(account: ReceiptAccount) -> tuple[bytes, ...]:
    """The account's keys, the one in use first; raises :class:`CredentialError` where there is none that will do."""
    words = receipt_secret("receipt_key", account.receipt_key, account.receipt_key_file).split()
    if any(len(word) < KEY_CHARS_MIN for word in words):
        raise CredentialError(
            f"receipt_key has fewer than {KEY_CHARS_MIN} characters: make one with openssl rand -hex 32"
        )
    return tuple(word.encode() for word in words)


def receipt_secret(setting: str, value: SecretStr | None, file: Path | None) -> str:
    """The secret that *setting* or *setting*_file give, the file read when it changes; raises as `read_secret` does."""
    if value is not None or file is None:
        return read_secret(setting, value, file)
    return _texts[setting].get(file)


def receipt_flaws(account: ReceiptAccount, url_chars_max: int = 0) -> list[str]:
    """What is wrong with the account's receipts, one sentence each with its mend; *url_chars_max* 0: no limit."""
    if not account.receipt_url:
        if account.receipt_key is None and account.receipt_key_file is None:
            return []
        return ["receipt_key is set without a receipt_url: name the address as well, or leave out both"]
    flaws = []
    try:
        receipt_keys(account)
    except CredentialError as problem:
        flaws.append(str(problem))
    room = url_chars_max - SECRET_PATH_CHARS - 1
    if url_chars_max and len(account.receipt_url.encode()) > room:
        flaws.append(
            f"receipt_url is longer than {room} characters, which is what the vendor takes: use a shorter host"
        )
    return flaws


def receipt_misfit(vendor: str, credential: str, account: AccountSettings) -> str:
    """What is wrong where receipts would go to the address of another account; empty: nothing."""
    own = f"/v1/receipts/{vendor}/{credential}"
    if not isinstance(account, ReceiptAccount) or not account.receipt_url or account.receipt_url.endswith(own):
        return ""
    return f"receipt_url is the address of another account: write the public address of the API and then {own}"


def secret_path(key: bytes, name: str) -> str:
    """What nobody guesses: the end of the address for the receipts of *name* (vendor and credential)."""
    return _text(hmac.digest(key, f"path\0{name}".encode(), "sha256")[:_DIGEST_BYTES])


def read_echo(keys: Sequence[bytes], name: str, echo: str) -> Echo | None:
    """What *echo* says, None unless one of *keys* sealed it for *name*."""
    if not _echo(echo):
        return None
    tag, seal, given = echo[0], echo[1 : 1 + _SEAL_CHARS], echo[1 + _SEAL_CHARS :]
    if not any(hmac.compare_digest(_seal(key, name, tag, given), seal) for key in keys):
        return None
    if tag.lower() == _PLAIN:
        return Echo(given, public=tag.isupper())
    return Echo("", base64.urlsafe_b64decode(given + "==").hex(), public=tag.isupper())


def _make_echo(key: bytes, name: str, push: Push, chars_max: int) -> str:
    tag, given = _PLAIN, push.message_id
    if len(given) > chars_max - 1 - _SEAL_CHARS or not _plain_id(given):
        digest = sha256(given.encode(errors="surrogatepass")).digest()[:_DIGEST_BYTES]
        tag, given = _DIGEST, _text(digest)
    if push.kind in _PUBLIC:
        tag = tag.upper()
    return tag + _seal(key, name, tag, given) + given


def _seal(key: bytes, name: str, tag: str, given: str) -> str:
    return _text(hmac.digest(key, f"echo\0{name}\0{tag}{given}".encode(), "sha256")[:_SEAL_BYTES])


def _name(account: ReceiptAccount) -> str:
    """Vendor and credential, as the address has them."""
    return "/".join(account.receipt_url.rsplit("/", 2)[1:])


def _text(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _parse(data: bytes) -> str:
    text = data.decode(errors="replace").strip()
    if not text:
        raise ValueError("is empty: put the secret into it")
    return text


_texts = {name: ParsedFiles(f"{name}_file", _parse) for name in ("receipt_key", "receipt_secret", "receipt_token")}
