"""Why the certificate that a peer shows for a vendor is not taken: codes for metrics, sentences for operators. Pure.

It is nobody's absence, though nothing arrives either way: waiting does not mend it, somebody has to.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from types import MappingProxyType

__all__ = ["CERTIFICATE_FAULTS", "certificate_sentence", "fault_of_openssl", "fault_of_rustls"]

CERTIFICATE_FAULTS: Mapping[str, str] = MappingProxyType(
    {
        "certificate_untrusted": "the certificate shown for the vendor is signed by nobody who is trusted here: if a "
        "proxy reads along, its authority belongs in the account's ca_bundle",
        "certificate_expired": "the certificate shown for the vendor has expired: is the clock of this machine right?",
        "certificate_not_yet_valid": "the certificate shown for the vendor is not valid yet: is the clock of this "
        "machine right?",
        "certificate_wrong_name": "the certificate shown for the vendor is somebody else's: is base_url right, and who "
        "answers in the vendor's place?",
    }
)
"""Each code with what is wrong and how to mend it, without a full stop."""

_OPENSSL = {
    9: "certificate_not_yet_valid",
    10: "certificate_expired",
    62: "certificate_wrong_name",
    64: "certificate_wrong_name",
}
_RUSTLS = (
    ("certificate expired", "certificate_expired"),
    ("certificate not valid yet", "certificate_not_yet_valid"),
    ("certificate not valid for name", "certificate_wrong_name"),
)
_RUSTLS_FAULT = "invalid peer certificate: "


def certificate_sentence(code: str) -> str:
    """What *code* says and how to mend it, also where it tells why there is no authorization; empty: it is another."""
    return CERTIFICATE_FAULTS.get(code.removeprefix("auth_"), "")


def fault_of_openssl(problem: ssl.SSLCertVerificationError) -> str:
    """The code for what Python's TLS found."""
    return _OPENSSL.get(problem.verify_code, "certificate_untrusted")


def fault_of_rustls(told: str) -> str:
    """The code for what the TLS of pyreqwest found; empty where *told* speaks of no certificate."""
    if not told.startswith(_RUSTLS_FAULT):
        return ""
    fault = told.removeprefix(_RUSTLS_FAULT)
    return next((code for words, code in _RUSTLS if fault.startswith(words)), "certificate_untrusted")
