"""Accounts that prove who they are by a client certificate: what is read from the file, and what is said of it."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import PrivateFormat, load_pem_private_key
from cryptography.hazmat.primitives.serialization.pkcs12 import PBES
from hypothesis import given
from hypothesis import strategies as st
from tests.workers.vendors.apple_certificates import Made, make, topics_extension
from tests.workers.vendors.samples import AUTH, NOW_MS, a_delivery, a_push

from pushfleet_workers.errors import CredentialError
from pushfleet_workers.outcome import Scope, Verdict
from pushfleet_workers.transports.tls import client_context
from pushfleet_workers.vendors._apns_certificate import _texts
from pushfleet_workers.vendors.apns import Apns, ApnsAccount

NOW_S = NOW_MS / 1_000
DAY_S = 86_400
PASSWORD = "open-sesame-of-the-test"
GOOD = make(NOW_S)
apns = Apns()


def an_account(file: Path, content: bytes | None = None, **changes: Any) -> ApnsAccount:
    if content is not None:
        file.write_bytes(content)
    fields = {"app": "demo", "topic": "com.example.im", "certificate_file": str(file)}
    return ApnsAccount.model_validate(fields | changes)


def problem(account: ApnsAccount, now_s: float = NOW_S) -> str:
    (found,) = apns.check(account, now_s)
    assert ": " in found
    assert PASSWORD not in found
    return found


OLD_P12 = (
    PrivateFormat.PKCS12.encryption_builder()
    .kdf_rounds(2_048)
    .key_cert_algorithm(PBES.PBESv1SHA1And3KeyTripleDESCBC)
    .hmac_hash(hashes.SHA1())
    .build(PASSWORD.encode())
)
"""As older keychains and OpenSSL write them."""


@pytest.mark.parametrize(
    ("name", "content", "password"),
    [
        ("a.p12", GOOD.p12(), None),
        ("a.p12", GOOD.p12(PASSWORD), PASSWORD),
        ("a.p12", GOOD.p12(encryption=OLD_P12), PASSWORD),
        ("a.pem", GOOD.pem(), None),
        ("a.pem", GOOD.pem(), PASSWORD),
        ("a.pem", GOOD.pem(PASSWORD), PASSWORD),
        ("no-suffix", GOOD.p12(PASSWORD), PASSWORD),
    ],
)
def test_every_form_of_the_file_gives_the_same_identity(
    tmp_path: Path, name: str, content: bytes, password: str | None
) -> None:
    account = an_account(tmp_path / name, content, certificate_password=password)
    assert apns.check(account, NOW_S) == []
    identity = apns.identity(account)
    assert identity is not None
    assert load_pem_private_key(identity.pem, None).private_numbers() == GOOD.key.private_numbers()  # type: ignore[union-attr]
    chain = x509.load_pem_x509_certificates(identity.pem)
    assert chain[0] == GOOD.certificate
    assert chain[1:] == ([GOOD.authority] if content[:1] == b"\x30" else [])
    assert isinstance(client_context(None, http2=True, identity=identity), ssl.SSLContext)
    assert "PRIVATE" not in repr(identity)


def test_an_rsa_key_as_apples_pages_make_it_is_read(tmp_path: Path) -> None:
    made = make(NOW_S, key=rsa.generate_private_key(65_537, 2_048))
    account = an_account(tmp_path / "a.p12", made.p12(PASSWORD), certificate_password=PASSWORD)
    assert apns.check(account, NOW_S) == []


def test_the_password_may_lie_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "password").write_text(f"{PASSWORD}\n")
    file = str(tmp_path / "password")
    account = an_account(tmp_path / "a.p12", GOOD.p12(PASSWORD), certificate_password_file=file)
    assert apns.check(account, NOW_S) == []
    assert PASSWORD not in repr(account)


def broken(made: Made = GOOD) -> dict[str, tuple[bytes, str]]:
    pem = made.pem()
    key_at = pem.index(b"-----BEGIN PRIVATE KEY")
    other = make(NOW_S).pem()
    return {
        "empty": (b"", "is neither .p12 nor .pem"),
        "text": (b"no certificate", "is neither .p12 nor .pem"),
        "wrong password": (made.p12("another"), "certificate_password does not open it"),
        "cut": (made.p12(PASSWORD)[:-50], "is neither .p12 nor .pem"),
        "certificate alone": (pem[:key_at], "holds no private key: put it into"),
        "key alone": (pem[key_at:], "holds no certificate: put it into"),
        "another key": (pem[:key_at] + other[other.index(b"-----BEGIN PRIVATE KEY") :], "belongs to its key"),
        "locked": (made.pem("another"), "does not open its key"),
        "damaged": (pem[:key_at] + b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "cannot be read"),
    }


@pytest.mark.parametrize("case", broken())
def test_a_file_that_is_no_use_says_why(tmp_path: Path, case: str) -> None:
    content, sentence = broken()[case]
    account = an_account(tmp_path / "a", content, certificate_password=PASSWORD)
    assert sentence in problem(account)
    assert problem(account).startswith(f"certificate_file {tmp_path / 'a'} ")
    answer = apns.mint(account, NOW_S)
    assert answer.failure is not None
    assert (answer.failure.verdict, answer.failure.code) == (Verdict.MISCONFIGURED, "CertificateFile")
    with pytest.raises(CredentialError):
        apns.identity(account)


def test_a_password_that_is_missing_is_asked_for(tmp_path: Path) -> None:
    assert "certificate_password does not open it" in problem(an_account(tmp_path / "a.p12", GOOD.p12(PASSWORD)))
    assert "does not open its key" in problem(an_account(tmp_path / "a.pem", GOOD.pem(PASSWORD)))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"certificate_file": None}, "key_file and certificate_file are both missing: give one of them"),
        ({"key_file": "k.p8"}, "key_file and certificate_file are both set: give one of them"),
        ({"certificate_file": "/nowhere/a.p12"}, "certificate_file /nowhere/a.p12 does not exist: "),
        ({"certificate_password": PASSWORD, "certificate_password_file": "/x"}, "are both set: give one of them"),
        ({"certificate_password_file": "/nowhere/p"}, "certificate_password_file /nowhere/p does not exist: "),
    ],
)
def test_a_wrong_setting_is_found_with_its_mend(tmp_path: Path, changes: dict[str, Any], sentence: str) -> None:
    account = an_account(tmp_path / "a.p12", GOOD.p12(), **changes)
    assert sentence in problem(account)
    answer = apns.mint(account, NOW_S)
    assert answer.failure is not None
    assert (answer.failure.verdict, answer.failure.scope) == (Verdict.MISCONFIGURED, Scope.ACCOUNT)


@pytest.mark.parametrize(
    ("days", "sentence"),
    [
        ((-365, -1), "has expired on 2025-12-31: renew it"),
        ((-365, 0), "has expired on 2026-01-01: renew it"),
        ((-365, 1), "expires on 2026-01-02, in 1 days: renew it"),
        ((-335, 30), "expires on 2026-01-31, in 30 days: renew it"),
        ((2, 365), "is valid from 2026-01-03 on: correct the clock"),
    ],
)
def test_the_time_of_a_certificate_is_told(tmp_path: Path, days: tuple[float, float], sentence: str) -> None:
    account = an_account(tmp_path / "a.p12", make(NOW_S, days=days).p12())
    assert sentence in problem(account)


def test_a_certificate_good_for_31_days_is_no_problem(tmp_path: Path) -> None:
    assert apns.check(an_account(tmp_path / "a.p12", make(NOW_S, days=(-1, 31)).p12()), NOW_S) == []


@pytest.mark.parametrize(
    ("made", "changes", "sentence"),
    [
        (make(NOW_S, "com.example.other"), {}, "is for com.example.other, but topic is com.example.im: "),
        (make(NOW_S, "", environments=()), {}, "is for no app, but topic is com.example.im: "),
        (
            make(NOW_S, topics=["com.a", "com.b.voip"]),
            {"topic": "com.b.c"},
            "is for com.a, com.b.voip, com.example.im,",
        ),
        (make(NOW_S, environments=["development"]), {}, "is for development only, but environment is production: "),
        (
            make(NOW_S, environments=["production"]),
            {"environment": "development"},
            "is for production only, but environment is development: ",
        ),
        (GOOD, {"topic": "com.example.im.voip"}, "topic com.example.im.voip names the VoIP topic: "),
    ],
)
def test_a_certificate_for_something_else_is_found(
    tmp_path: Path, made: Made, changes: dict[str, Any], sentence: str
) -> None:
    assert sentence in problem(an_account(tmp_path / "a.p12", made.p12(), **changes))


@pytest.mark.parametrize(
    "made",
    [
        make(NOW_S, "com.example.im.voip"),
        make(NOW_S, "com.example.first", topics=["com.example.first", "com.example.im", "com.example.im.voip"]),
        make(NOW_S, "", topics=["com.example.im"]),
        make(NOW_S, topics=[f"com.example.{number}" for number in range(20)]),
        make(NOW_S, environments=[]),
        make(NOW_S, environments=["production"]),
    ],
)
def test_a_certificate_for_the_topic_is_good(tmp_path: Path, made: Made) -> None:
    assert apns.check(an_account(tmp_path / "a.p12", made.p12()), NOW_S) == []


def test_a_push_with_a_certificate_carries_no_authorization(tmp_path: Path) -> None:
    account = an_account(tmp_path / "a.p12", GOOD.p12())
    answer = apns.mint(account, NOW_S)
    assert (bool(answer.value), answer.life_s, answer.shared) == (True, 60, False)
    request = apns.build(account, a_push(), [a_delivery()], answer.value, NOW_MS)
    assert "authorization" not in request.headers
    assert request.headers["apns-topic"] == "com.example.im"
    key = ApnsAccount(app="demo", topic="com.example.im", key_file=Path("k.p8"))
    assert apns.identity(key) is None
    assert "authorization" in apns.build(key, a_push(), [a_delivery()], AUTH, NOW_MS).headers


def test_an_expired_certificate_holds_the_account_up_until_it_is_renewed(tmp_path: Path) -> None:
    file = tmp_path / "a.p12"
    account = an_account(file, make(NOW_S, days=(-365, 1)).p12())
    assert apns.mint(account, NOW_S).value
    answer = apns.mint(account, NOW_S + DAY_S)
    assert answer.failure is not None
    assert (answer.failure.verdict, answer.failure.code) == (Verdict.MISCONFIGURED, "CertificateExpired")
    before = apns.identity(account)
    file.write_bytes(make(NOW_S, days=(-1, 365)).p12())
    assert apns.mint(account, NOW_S + DAY_S).value
    assert apns.identity(account) != before


def a_key_account(**changes: Any) -> ApnsAccount:
    fields = {"app": "demo", "team_id": "TEAM000001", "key_id": "KEY0000001", "key_file": "k.p8", "topic": "com.a"}
    return ApnsAccount.model_validate(fields | changes)


def test_accounts_of_one_key_share_a_caller_whatever_their_topics() -> None:
    caller = apns.same_caller(a_key_account())
    assert caller
    assert apns.same_caller(a_key_account(app="other", topic="com.b", rate_per_s=5)) == caller


@pytest.mark.parametrize(
    "changes",
    [
        {"team_id": "TEAM000002"},
        {"key_id": "KEY0000002"},
        {"environment": "development"},
        {"base_url": "https://127.0.0.1:8443"},
        {"proxy": "http://user:hunter2@proxy:3128"},
        {"ca_bundle": "ca.pem"},
        {"transport": "httpx"},
    ],
)
def test_accounts_that_reach_apple_differently_do_not(changes: dict[str, Any]) -> None:
    caller = apns.same_caller(a_key_account(**changes))
    assert caller != apns.same_caller(a_key_account())
    assert "hunter2" not in caller


def test_an_account_with_a_certificate_is_a_caller_of_its_own(tmp_path: Path) -> None:
    assert apns.same_caller(an_account(tmp_path / "a.p12")) == ""


@given(st.binary(max_size=80))
def test_any_extension_can_be_read(der: bytes) -> None:
    assert isinstance(_texts(der), list)


@given(st.lists(st.text(max_size=200), max_size=12))
def test_topics_are_read_as_they_were_written(topics: list[str]) -> None:
    assert _texts(topics_extension(topics)) == topics


def test_no_key_stands_in_what_is_shown(tmp_path: Path) -> None:
    made = make(NOW_S, key=ec.generate_private_key(ec.SECP256R1()))
    account = an_account(tmp_path / "a.p12", made.p12(PASSWORD), certificate_password=PASSWORD)
    assert PASSWORD not in repr(account) + repr(apns.identity(account)) + repr(apns.mint(account, NOW_S))
