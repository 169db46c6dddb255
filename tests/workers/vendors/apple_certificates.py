"""Push certificates as Apple makes them, on files as people export them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    pkcs12,
)
from cryptography.x509.oid import NameOID

OIDS = {name: f"1.2.840.113635.100.6.3.{last}" for name, last in (("development", 1), ("production", 2), ("topics", 6))}
APPLE_KEY = ec.generate_private_key(ec.SECP256R1())


def name(common: str, *more: tuple[x509.ObjectIdentifier, str]) -> x509.Name:
    pairs = [(NameOID.COMMON_NAME, common), *more]
    return x509.Name([x509.NameAttribute(oid, value) for oid, value in pairs])


def der(tag: int, content: bytes) -> bytes:
    size = len(content)
    return bytes([tag, size] if size < 128 else [tag, 0x82, *size.to_bytes(2, "big")]) + content


def topics_extension(topics: Sequence[str]) -> bytes:
    """Texts, each followed by a sequence of words, as in Apple's certificates."""
    pairs = [der(0x0C, topic.encode()) + der(0x30, der(0x0C, b"app")) for topic in topics]
    return der(0x30, b"".join(pairs))


@dataclass
class Made:
    """A certificate with its key, in any of its forms."""

    certificate: x509.Certificate
    key: Any
    authority: x509.Certificate

    def p12(self, password: str = "", encryption: KeySerializationEncryption | None = None) -> bytes:
        lock = encryption or (BestAvailableEncryption(password.encode()) if password else NoEncryption())
        return pkcs12.serialize_key_and_certificates(b"push", self.key, self.certificate, [self.authority], lock)

    def pem(self, password: str = "") -> bytes:
        """Certificate first, key last."""
        lock = BestAvailableEncryption(password.encode()) if password else NoEncryption()
        key = self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, lock)
        return bytes(self.certificate.public_bytes(Encoding.PEM) + key)


def make(
    now_s: float,
    uid: str = "com.example.im",
    topics: Sequence[str] = (),
    environments: Sequence[str] = ("development", "production"),
    days: tuple[float, float] = (-100, 265),
    key: Any = None,
) -> Made:
    """A certificate that is valid from *days*[0] to *days*[1] from *now_s* on."""
    now = datetime.fromtimestamp(now_s, UTC)
    key = key or ec.generate_private_key(ec.SECP256R1())

    def builder(subject: x509.Name, public: Any) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(name("Worldwide Developer Relations"))
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + timedelta(days=days[0]))
            .not_valid_after(now + timedelta(days=days[1]))
        )

    authority = builder(name("Worldwide Developer Relations"), APPLE_KEY.public_key()).sign(APPLE_KEY, hashes.SHA256())
    user = ((NameOID.USER_ID, uid),) if uid else ()
    leaf = builder(name(f"Apple Push Services: {uid}", *user), key.public_key())
    values = dict.fromkeys(environments, b"\x05\x00") | ({"topics": topics_extension(topics)} if topics else {})
    for what, value in values.items():
        leaf = leaf.add_extension(x509.UnrecognizedExtension(x509.ObjectIdentifier(OIDS[what]), value), critical=False)
    return Made(leaf.sign(APPLE_KEY, hashes.SHA256()), key, authority)
