"""Throw-away keys and certificates: an authority, what it signs for servers, and what another signs for clients."""

from __future__ import annotations

import ipaddress
import ssl
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from pushfleet_workers.fakecloud.files import write_private

__all__ = [
    "Certificates",
    "client_authority",
    "client_certificate",
    "make_certificates",
    "pem_pair",
    "server_context",
]

LIFE = timedelta(days=397)
LOCAL_NAMES = ("localhost", "127.0.0.1", "::1")


class Certificates(NamedTuple):
    """Where the two PEM files lie."""

    ca_file: Path
    """What clients trust: give it as ``ca_bundle``."""

    server_file: Path
    """The server's certificate and key in one file."""


def make_certificates(folder: Path, names: Sequence[str] = ()) -> Certificates:
    """A new authority and a certificate for this machine and for *names* (host names or addresses).

    Both last 397 days. The private key of the authority is not kept.
    """
    ca_key = ec.generate_private_key(ec.SECP256R1())
    server_key = ec.generate_private_key(ec.SECP256R1())
    ca_name, server_name = _name("pushfleet fake cloud authority"), _name("pushfleet fake cloud")
    ca = _authority(ca_name, ca_key)
    server = (
        _builder(server_name, ca_name, server_key.public_key())
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName([_general(n) for n in (*LOCAL_NAMES, *names)]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    made = Certificates(folder / "ca.pem", folder / "server.pem")
    write_private(made.ca_file, ca.public_bytes(Encoding.PEM))
    write_private(made.server_file, server.public_bytes(Encoding.PEM) + pem_pair(server_key)[0])
    return made


def client_authority() -> bytes:
    """The authority that signs client certificates, as PEM.

    Its key follows from its name, so that certificates issued by one process count in every other. Anybody can make
    it: nothing but a fake may trust it.
    """
    return _authority(_name(_CLIENT_AUTHORITY), _client_authority_key()).public_bytes(Encoding.PEM)


def client_certificate(
    subject: x509.Name, key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey, extensions: Sequence[x509.ExtensionType]
) -> x509.Certificate:
    """A certificate for *key* that may be shown to servers, signed by the authority of :func:`client_authority`."""
    builder = _builder(subject, _name(_CLIENT_AUTHORITY), key.public_key()).add_extension(
        x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=True
    )
    for extension in extensions:
        builder = builder.add_extension(extension, critical=False)
    return builder.sign(_client_authority_key(), hashes.SHA256())


def server_context(server_file: Path, protocols: Sequence[str], client_authority: bytes = b"") -> ssl.SSLContext:
    """A TLS 1.2+ server context that offers *protocols* by ALPN.

    With *client_authority* (PEM) it asks for a client certificate and takes none, or one of that authority.
    """
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(server_file)
    context.set_alpn_protocols(list(protocols))
    if client_authority:
        context.verify_mode = ssl.CERT_OPTIONAL
        context.load_verify_locations(cadata=client_authority.decode("ascii"))
    return context


def pem_pair(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> tuple[bytes, bytes]:
    """The private half (PKCS #8) and the public half of *key* as PEM."""
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return private, key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


_CLIENT_AUTHORITY = "pushfleet fake developer relations"

_CA_USAGE = x509.KeyUsage(
    digital_signature=True,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=True,
    crl_sign=True,
    encipher_only=False,
    decipher_only=False,
)


def _client_authority_key() -> ec.EllipticCurvePrivateKey:
    return ec.derive_private_key(int.from_bytes(sha256(_CLIENT_AUTHORITY.encode()).digest()), ec.SECP256R1())


def _authority(name: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    return (
        _builder(name, name, key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_CA_USAGE, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _general(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _builder(
    subject: x509.Name, issuer: x509.Name, public: ec.EllipticCurvePublicKey | rsa.RSAPublicKey
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        # A client's clock may be behind ours.
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + LIFE)
    )
