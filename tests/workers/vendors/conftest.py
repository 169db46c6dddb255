"""Credential files for the sample accounts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat


def pem(key: PrivateKeyTypes) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


@pytest.fixture(scope="session")
def rsa_pem() -> str:
    return pem(rsa.generate_private_key(public_exponent=65_537, key_size=2_048)).decode()


@pytest.fixture(scope="session")
def service_account(rsa_pem: str) -> dict[str, str]:
    """A Google service account, as in its JSON file."""
    return {
        "type": "service_account",
        "project_id": "demo-im",
        "private_key_id": "0123abcd",
        "private_key": rsa_pem,
        "client_email": "push@demo-im.iam.gserviceaccount.com",
        "token_uri": "https://oauth2.googleapis.com/token",
    }


@pytest.fixture(scope="session")
def harmony_key(rsa_pem: str) -> dict[str, str]:
    """A Huawei service account, as in its JSON file."""
    return {
        "project_id": "388421840000000001",
        "key_id": "0123abcd",
        "private_key": rsa_pem,
        "sub_account": "110000002",
    }


@pytest.fixture(scope="session")
def keys(
    tmp_path_factory: pytest.TempPathFactory, service_account: dict[str, str], harmony_key: dict[str, str]
) -> Path:
    """A folder with every credential file that a sample account names."""
    folder = tmp_path_factory.mktemp("keys")
    (folder / "AuthKey_KEY0000001.p8").write_bytes(pem(ec.generate_private_key(ec.SECP256R1())))
    (folder / "service-account.json").write_text(json.dumps(service_account))
    (folder / "harmony-key.json").write_text(json.dumps(harmony_key))
    return folder
