from __future__ import annotations

import base64
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from pushfleet_workers.credential_store.sealing import MasterKeys
from pushfleet_workers.errors import CredentialError, FleetError
from pushfleet_workers.settings import CredentialsSettings

OLD, NEW = b"o" * 32, b"n" * 32
OWNER = b"apns\0main\0{}"


def text(*keys: bytes) -> str:
    return " ".join(base64.b64encode(key).decode() for key in keys)


@given(st.binary(max_size=200), st.binary(max_size=40))
def test_what_is_sealed_opens_for_its_owner_with_the_key(secret: bytes, owner: bytes) -> None:
    sealed = MasterKeys([NEW]).seal(secret, owner)
    assert len(secret) < 8 or secret not in sealed
    assert MasterKeys([NEW]).open(sealed, owner) == secret


@given(st.integers(min_value=0), st.integers(1, 255))
def test_a_changed_byte_breaks_the_seal(place: int, by: int) -> None:
    keys = MasterKeys([NEW])
    sealed = bytearray(keys.seal(b"a secret", OWNER))
    sealed[place % len(sealed)] ^= by
    with pytest.raises(CredentialError):
        keys.open(bytes(sealed), OWNER)


@pytest.mark.parametrize("owner", [b"apns\0lite\0{}", b'apns\0main\0{"base_url":"https://evil.test"}', b""])
def test_it_opens_for_nobody_else(owner: bytes) -> None:
    keys = MasterKeys([NEW])
    with pytest.raises(CredentialError, match="its seal is broken"):
        keys.open(keys.seal(b"a secret", OWNER), owner)


@pytest.mark.parametrize("cut", [0, 3, 4, 15, 16, 31])
def test_what_is_cut_short_is_no_secret(cut: int) -> None:
    keys = MasterKeys([NEW])
    with pytest.raises(CredentialError):
        keys.open(keys.seal(b"", OWNER)[:cut], OWNER)


def test_the_first_key_seals_and_the_others_open() -> None:
    old, both, new = MasterKeys([OLD]), MasterKeys([NEW, OLD]), MasterKeys([NEW])
    sealed = old.seal(b"a secret", OWNER)
    with pytest.raises(CredentialError, match="master key that is not set here"):
        new.open(sealed, OWNER)
    assert both.open(sealed, OWNER) == b"a secret"
    assert new.open(both.seal(b"a secret", OWNER), OWNER) == b"a secret"


def test_two_seals_of_one_secret_differ() -> None:
    keys = MasterKeys([NEW])
    assert keys.seal(b"a secret", OWNER) != keys.seal(b"a secret", OWNER)


def test_keys_come_from_the_setting_or_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "master-key"
    file.write_text(text(NEW) + "\n" + text(OLD) + "\n")
    sealed = MasterKeys([OLD]).seal(b"a secret", OWNER)
    for settings in (
        CredentialsSettings(master_key=SecretStr(text(NEW, OLD))),
        CredentialsSettings(master_key_file=file),
        CredentialsSettings(master_key=SecretStr(base64.urlsafe_b64encode(OLD).decode())),
    ):
        keys = MasterKeys.from_settings(settings)
        assert keys is not None
        assert keys.open(sealed, OWNER) == b"a secret"
    assert MasterKeys.from_settings(CredentialsSettings()) is None


@pytest.mark.parametrize(
    ("key", "told"),
    [
        ("", "is empty"),
        ("  ", "is empty"),
        ("c2VjcmV0", "key 1 is not 32 bytes in base64"),
        ("never!base64", "key 1 is not 32 bytes in base64"),
        (text(NEW) + " c2VjcmV0", "key 2 is not 32 bytes in base64"),
    ],
)
def test_a_key_that_is_none_is_refused_without_being_told(key: str, told: str) -> None:
    with pytest.raises(FleetError, match=told) as caught:
        MasterKeys.from_settings(CredentialsSettings(master_key=SecretStr(key)))
    assert "openssl rand -base64 32" in str(caught.value)
    assert not any(word in str(caught.value) for word in key.split())


def test_a_file_that_is_not_there_and_one_beside_a_key_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CredentialError, match=r"master_key_file .* does not exist"):
        MasterKeys.from_settings(CredentialsSettings(master_key_file=tmp_path / "none"))
    with pytest.raises(FleetError, match="both set"):
        MasterKeys.from_settings(CredentialsSettings(master_key=SecretStr(text(NEW)), master_key_file=tmp_path / "x"))
