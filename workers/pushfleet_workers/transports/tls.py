"""TLS for the engines that use Python's own: whom to trust, who we are, HTTP/2 agreed on before anything is sent."""

from __future__ import annotations

import secrets
import ssl
import tempfile
from collections.abc import Iterable
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from pushfleet_workers.errors import SettingsError
from pushfleet_workers.vendor import Identity

__all__ = ["PeerLacksHttp2", "check_identity", "client_context", "read_ca_bundle"]


class PeerLacksHttp2(ssl.SSLError):
    """The handshake succeeded, but the peer did not agree to HTTP/2."""


class _Http2Object(ssl.SSLObject):
    def do_handshake(self) -> None:
        super().do_handshake()
        if self.selected_alpn_protocol() != "h2":
            raise PeerLacksHttp2("the peer did not agree to HTTP/2")


class _Http2Context(ssl.SSLContext):
    """Offers HTTP/2 and nothing else, and ends the handshake with a peer that does not take it."""

    sslobject_class = _Http2Object

    def set_alpn_protocols(self, alpn_protocols: Iterable[str]) -> None:
        # httpcore would put http/1.1 in front.
        super().set_alpn_protocols(["h2"])


def client_context(ca_bundle: Path | None, http2: bool, identity: Identity | None = None) -> ssl.SSLContext:
    """A context that trusts the authorities in *ca_bundle*, or the system's where it is None, and shows *identity*.

    Raises :class:`SettingsError` when the file cannot be read or holds no certificate, and as :func:`check_identity`.
    """
    context = (_Http2Context if http2 else ssl.SSLContext)(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    if identity is not None:
        _show(identity, context)
    if ca_bundle is None:
        context.load_default_certs()
        return context
    try:
        context.load_verify_locations(cafile=ca_bundle)
    except ssl.SSLError:
        raise SettingsError(f"ca_bundle {ca_bundle} holds no PEM certificate") from None
    except OSError as problem:
        raise SettingsError(f"ca_bundle {ca_bundle} cannot be read: {problem.strerror}") from None
    return context


def read_ca_bundle(ca_bundle: Path) -> bytes:
    """The PEM text in *ca_bundle*; raises :class:`SettingsError` as :func:`client_context` does."""
    client_context(ca_bundle, http2=False)
    return ca_bundle.read_bytes()


def check_identity(identity: Identity) -> None:
    """Raise :class:`SettingsError` unless *identity* is a certificate with its own private key, unencrypted."""
    _show(identity, ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))


def _show(identity: Identity, context: ssl.SSLContext) -> None:
    """Give *identity* to *context*, which only reads files: for that moment the key lies there, but encrypted."""
    password = secrets.token_hex(32)
    try:
        key = load_pem_private_key(identity.pem, None)
        chain = x509.load_pem_x509_certificates(identity.pem)
        locked = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(password.encode()))
        with tempfile.NamedTemporaryFile() as file:
            file.write(locked + b"".join(certificate.public_bytes(Encoding.PEM) for certificate in chain))
            file.flush()
            context.load_cert_chain(file.name, password=password)
    except (ValueError, TypeError, ssl.SSLError):
        raise SettingsError("the client certificate is no PEM with one certificate and its private key") from None
