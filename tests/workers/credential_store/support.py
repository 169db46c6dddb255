"""A manager and the accounts of some processes on a real Redis."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from pushfleet_workers.credential_store import Accounts, CredentialRefused
from pushfleet_workers.credential_store.management import CredentialManager, Given
from pushfleet_workers.credential_store.secret_files import SecretFile
from pushfleet_workers.credential_store.store import CredentialKeys, CredentialStore, Name
from pushfleet_workers.redis_link import Link
from pushfleet_workers.settings import Settings

MASTER_KEY = base64.b64encode(b"k" * 32).decode()
OTHER_KEY = base64.b64encode(b"o" * 32).decode()
KEYS = CredentialKeys("t")
APNS = Name("apns", "main")
HUAWEI = Name("huawei", "main")
SECRET = "hunter2-very-secret"
P8 = ec.generate_private_key(ec.SECP256R1()).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
OTHER_P8 = ec.generate_private_key(ec.SECP256R1()).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
APNS_FIELDS = {"team_id": "A1B2C3D4E5", "key_id": "F6G7H8J9K0", "topic": "com.example.a"}


def apns(p8: bytes = P8, name: str = "AuthKey_F6G7H8J9K0.p8", **changes: Any) -> Given:
    return Given({**APNS_FIELDS, **changes}, {"key_file": SecretFile(name, p8)})


def huawei(secret: str = SECRET, **changes: Any) -> Given:
    return Given({"client_id": "100", "client_secret": secret, **changes})


@dataclass
class Stage:
    """A Redis with settings around it."""

    settings: Settings
    link: Link
    opened: list[Accounts] = field(default_factory=list)

    @property
    def manager(self) -> CredentialManager:
        return CredentialManager(self.settings, self.link, self.link)

    @property
    def store(self) -> CredentialStore:
        return CredentialStore(self.link, "t")

    def accounts(self, *, secrets: bool = True, settings: Settings | None = None) -> Accounts:
        """The accounts of one more process."""
        made = Accounts(settings or self.settings, self.link, secrets=secrets)
        self.opened.append(made)
        return made

    async def refused(self, work: Awaitable[object]) -> CredentialRefused:
        """The refusal of *work*; nothing was changed by it."""
        before = await self.link.call("HGETALL", KEYS.records)
        with pytest.raises(CredentialRefused) as caught:
            await work
        assert await self.link.call("HGETALL", KEYS.records) == before
        return caught.value


def settings(url: str, data_dir: Path, *, master_key: str | None = MASTER_KEY, **sections: Any) -> Settings:
    fields: dict[str, Any] = {
        "apps": {"demo": {}, "lite": {}},
        "redis": {"url": url, "prefix": "t"},
        "data_dir": data_dir,
        "credentials": {"master_key": master_key},
    }
    return Settings(**{**fields, **sections})


@asynccontextmanager
async def a_stage(url: str, data_dir: Path, **sections: Any) -> AsyncIterator[Stage]:
    stage = Stage(settings(url, data_dir, **sections), Link(url))
    try:
        yield stage
    finally:
        for accounts in stage.opened:
            accounts.close()
        await stage.link.close()


Play = Callable[..., None]


def player(url: str, data_dir: Path) -> Play:
    """Runs a scenario on a stage."""

    def play(scenario: Callable[[Stage], Awaitable[None]], **sections: Any) -> None:
        async def run() -> None:
            async with a_stage(url, data_dir, **sections) as stage:
                await scenario(stage)

        asyncio.run(run())

    return play
