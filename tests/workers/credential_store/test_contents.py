from __future__ import annotations

from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from pushfleet_workers import registry
from pushfleet_workers.account import AccountSettings
from pushfleet_workers.credential_store.contents import Secrets, file_settings, secret_settings, secrets_of
from pushfleet_workers.credential_store.secret_files import SecretFile
from pushfleet_workers.vendors.huawei import HuaweiAccount


class Account(AccountSettings):
    """Settings of each type."""

    key_id: str = ""
    key_file: Path | None = None
    password: SecretStr | None = None
    must_have: SecretStr = SecretStr("")
    limit: int | None = None


def test_files_and_secrets_are_known_by_their_types() -> None:
    assert file_settings(Account) == ["ca_bundle", "key_file"]
    assert secret_settings(Account) == ["proxy", "password", "must_have"]


@pytest.mark.parametrize("vendor", registry.names())
def test_no_vendor_has_a_secret_that_would_lie_open(vendor: str) -> None:
    account_type = registry.load(vendor).account_type
    sealed = {*file_settings(account_type), *secret_settings(account_type)}
    texts = [name for name, field in account_type.model_fields.items() if field.annotation is not bool]
    named = [name for name in texts if "secret" in name or "password" in name or name.endswith("_file")]
    assert named, "every vendor asks for some secret"
    assert set(named) <= sealed


def test_the_fingerprint_of_one_file_is_what_sha256sum_says() -> None:
    secrets = Secrets({"certificate_password": "1234"}, {"key_file": SecretFile("k.p8", b"key")})
    assert secrets.fingerprint() == sha256(b"key").hexdigest()[:16]


@given(st.text(min_size=1), st.text(min_size=1))
def test_the_fingerprint_tells_secrets_apart(one: str, other: str) -> None:
    prints = {Secrets({"client_secret": secret}).fingerprint() for secret in (one, other)}
    assert len(prints) == len({one, other})


def test_a_password_alone_and_what_is_no_key_have_no_fingerprint() -> None:
    assert Secrets({"certificate_password": "1234", "proxy": "http://u:p@x"}).fingerprint() == ""
    assert Secrets(files={"ca_bundle": SecretFile("ca.pem", b"ca")}).fingerprint() == ""


def test_nothing_secret_is_in_a_repr() -> None:
    secrets = Secrets({"client_secret": "hunter2"}, {"key_file": SecretFile("k.p8", b"hunter3")})
    assert repr(secrets) == "Secrets(client_secret, key_file)"


def test_the_secrets_of_an_account_in_the_settings(tmp_path: Path) -> None:
    account = HuaweiAccount(
        app="demo", client_id="1", client_secret=SecretStr("s"), client_secret_file=tmp_path / "none", proxy="http://x"
    )
    assert secrets_of(account) == Secrets({"client_secret": "s", "proxy": "http://x"})
    (tmp_path / "none").write_bytes(b"t")
    assert secrets_of(account).files == {"client_secret_file": SecretFile("none", b"t")}
