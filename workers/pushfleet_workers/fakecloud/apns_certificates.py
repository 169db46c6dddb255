"""Push certificates as Apple issues them, signed by the authority of the fake."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from hashlib import sha256

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding
from cryptography.hazmat.primitives.serialization.pkcs12 import serialize_key_and_certificates
from cryptography.x509.oid import NameOID

from pushfleet_workers.fakecloud.certs import client_certificate
from pushfleet_workers.fakecloud.vendor import Issued

__all__ = ["ENVIRONMENTS", "issue_certificate"]

ENVIRONMENTS = {"development": "1.2.840.113635.100.6.3.1", "production": "1.2.840.113635.100.6.3.2"}
"""The extension that stands for each of Apple's two services."""

TOPICS = "1.2.840.113635.100.6.3.6"

_UTF8, _SEQUENCE, _NULL = 0x0C, 0x30, b"\x05\x00"


def issue_certificate(
    topics: Sequence[str] = ("com.example.im",), environments: Sequence[str] = ("development", "production")
) -> Issued:
    """A certificate with its key as .p12, for the bundle ids *topics* with all their suffixes, in *environments*."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name(
        [
            x509.NameAttribute(NameOID.USER_ID, topics[0]),
            x509.NameAttribute(NameOID.COMMON_NAME, f"Apple Push Services: {topics[0]}"),
        ]
    )
    extensions = [_extension(ENVIRONMENTS[name], _NULL) for name in environments]
    listed = [f"{bundle}{suffix}" for bundle in topics for suffix in ("", ".voip", ".complication")]
    extensions.append(_extension(TOPICS, _topics(listed)))
    certificate = client_certificate(subject, key, extensions)
    number, password = f"{certificate.serial_number:040X}"[:10], secrets.token_urlsafe(12)
    locked = serialize_key_and_certificates(
        topics[0].encode(), key, certificate, None, BestAvailableEncryption(password.encode())
    )
    known = {
        "certificate": sha256(certificate.public_bytes(Encoding.DER)).hexdigest(),
        "id": number,
        "topics": list(topics),
        "environments": list(environments),
    }
    return Issued(number, known, {"topic": topics[0], "certificate_password": password}, {f"{number}.p12": locked})


def _extension(oid: str, value: bytes) -> x509.UnrecognizedExtension:
    return x509.UnrecognizedExtension(x509.ObjectIdentifier(oid), value)


def _topics(listed: Sequence[str]) -> bytes:
    """Each topic as a text, and after it a sequence of what it is for."""
    pairs = [_der(_UTF8, topic.encode()) + _der(_SEQUENCE, _der(_UTF8, b"app")) for topic in listed]
    return _der(_SEQUENCE, b"".join(pairs))


def _der(tag: int, content: bytes) -> bytes:
    size = len(content)
    return bytes([tag, size] if size < 0x80 else [tag, 0x82, *size.to_bytes(2, "big")]) + content
