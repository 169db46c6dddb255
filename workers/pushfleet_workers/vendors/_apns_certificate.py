"""Push certificates of Apple: .p12 and .pem files, whom they are for, and for how long.

What Apple writes into them: the bundle id as user id of the subject; topics in the extension
1.2.840.113635.100.6.3.6; environments as 1.2.840.113635.100.6.3.1 (development) and .2 (production).
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import lru_cache, partial

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.hazmat.primitives.serialization.pkcs12 import load_pkcs12
from cryptography.x509.oid import NameOID

from pushfleet_workers.vendor import Identity
from pushfleet_workers.vendors._files import ParsedFiles

__all__ = ["PushCertificate", "certificates"]

SETTING = "certificate_file"
SOON = timedelta(days=30)
"""How long before its end a certificate is complained about: Apple's last about a year."""

TOPICS = x509.ObjectIdentifier("1.2.840.113635.100.6.3.6")
ENVIRONMENTS = {
    "development": x509.ObjectIdentifier("1.2.840.113635.100.6.3.1"),
    "production": x509.ObjectIdentifier("1.2.840.113635.100.6.3.2"),
}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_RENEW = "renew it in the Apple developer account and export it anew"


@dataclass(frozen=True, slots=True)
class PushCertificate:
    """A certificate with its key, and what it says of itself."""

    identity: Identity = field(repr=False)
    topics: frozenset[str]
    """Bundle ids, with suffixes such as ``.voip`` where Apple lists them."""

    environments: frozenset[str]
    """``development``, ``production``; empty where it does not say."""

    starts: datetime
    ends: datetime

    def expired(self, now_s: float) -> bool:
        """Whether it has ended."""
        return _time(now_s) >= self.ends

    def problems(self, topic: str, environment: str, now_s: float) -> list[str]:
        """What stands against pushes to *topic* in *environment*, each the rest of a sentence about the file."""
        now, problems = _time(now_s), []
        if self.expired(now_s):
            problems.append(f"has expired on {self.ends:%Y-%m-%d}: {_RENEW}")
        elif now >= self.ends - SOON:
            problems.append(f"expires on {self.ends:%Y-%m-%d}, in {(self.ends - now).days} days: {_RENEW}")
        elif now < self.starts:
            problems.append(f"is valid from {self.starts:%Y-%m-%d} on: correct the clock of this machine, or wait")
        if not {topic, f"{topic}.voip"} & self.topics:
            named = ", ".join(sorted(self.topics)) or "no app"
            problems.append(f"is for {named}, but topic is {topic}: let both speak of the same app")
        if self.environments and environment not in self.environments:
            (other,) = self.environments
            problems.append(f"is for {other} only, but environment is {environment}: let both speak of the same")
        return problems


@lru_cache(maxsize=64)
def certificates(password: str) -> ParsedFiles[PushCertificate]:
    """The certificate files that *password* opens; empty: those that need none."""
    return ParsedFiles(SETTING, partial(_parse, password=password.encode() or None))


def _parse(data: bytes, password: bytes | None) -> PushCertificate:
    """The certificate in *data*; raises :class:`ValueError` with the rest of a sentence about the file."""
    key, chain = _from_pem(data, password) if b"-----BEGIN " in data else _from_p12(data, password)
    own = _public(key.public_key())
    leaf = next((one for one in chain if _public(one.public_key()) == own), None)
    if leaf is None:
        raise ValueError("holds no certificate that belongs to its key: export both together from the keychain")
    parts = [key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())]
    parts += [one.public_bytes(Encoding.PEM) for one in (leaf, *(one for one in chain if one != leaf))]
    return PushCertificate(
        identity=Identity(b"".join(parts)),
        topics=_topics(leaf),
        environments=frozenset(name for name, oid in ENVIRONMENTS.items() if _extension(leaf, oid) is not None),
        starts=leaf.not_valid_before_utc,
        ends=leaf.not_valid_after_utc,
    )


def _from_p12(data: bytes, password: bytes | None) -> tuple[PrivateKeyTypes, Sequence[x509.Certificate]]:
    # No password has two forms in these files.
    for attempt in (password,) if password else (None, b""):
        with contextlib.suppress(ValueError, UnsupportedAlgorithm):
            store = load_pkcs12(data, attempt)
            break
    else:
        raise ValueError("is neither .p12 nor .pem, or certificate_password does not open it: check both")
    if store.key is None:
        raise ValueError("holds no private key: export it together with the certificate")
    bags = ([store.cert] if store.cert is not None else []) + store.additional_certs
    return store.key, [bag.certificate for bag in bags]


def _from_pem(data: bytes, password: bytes | None) -> tuple[PrivateKeyTypes, Sequence[x509.Certificate]]:
    if b"PRIVATE KEY-----" not in data:
        raise ValueError("holds no private key: put it into the same file")
    if b"-----BEGIN CERTIFICATE-----" not in data:
        raise ValueError("holds no certificate: put it into the same file")
    try:
        return _pem_key(data, password), x509.load_pem_x509_certificates(data)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise ValueError("cannot be read, or certificate_password does not open its key: check both") from None


def _pem_key(data: bytes, password: bytes | None) -> PrivateKeyTypes:
    if password:
        # A password that is not needed does no harm.
        with contextlib.suppress(TypeError):
            return load_pem_private_key(data, password)
    return load_pem_private_key(data, None)


def _public(key: object) -> bytes:
    form: bytes = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)  # type: ignore[attr-defined]
    return form


def _topics(leaf: x509.Certificate) -> frozenset[str]:
    listed = _extension(leaf, TOPICS)
    topics = _texts(listed) if listed is not None else []
    users = leaf.subject.get_attributes_for_oid(NameOID.USER_ID)
    return frozenset([*topics, *(str(user.value) for user in users)])


def _extension(leaf: x509.Certificate, oid: x509.ObjectIdentifier) -> bytes | None:
    with contextlib.suppress(x509.ExtensionNotFound, ValueError):
        value = leaf.extensions.get_extension_for_oid(oid).value
        return value.value if isinstance(value, x509.UnrecognizedExtension) else None
    return None


def _texts(der: bytes) -> list[str]:
    """The texts directly inside the DER sequence *der*: the topics, without the sequences of words between them."""
    found = []
    tag, inner, _ = _element(der)
    while tag == _SEQUENCE and inner:
        kind, content, inner = _element(inner)
        if kind == _UTF8:
            found.append(content.decode(errors="replace"))
    return found


_SEQUENCE, _UTF8 = 0x30, 0x0C


def _element(der: bytes) -> tuple[int, bytes, bytes]:
    """Tag, content and what follows of the first element of *der* (X.690 section 8.1); content is cut where it ends."""
    if len(der) < 2:
        return 0, b"", b""
    size, start = der[1], 2
    if size & 0x80:
        start += size & 0x7F
        size = int.from_bytes(der[2:start], "big")
    return der[0], der[start : start + size], der[start + size :]


def _time(now_s: float) -> datetime:
    return _EPOCH + timedelta(seconds=now_s)
