"""Every test has a folder of its own where secret files would lie in memory."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.workers.credential_store.support import Play, player

from pushfleet_workers.credential_store import secret_files


@pytest.fixture(autouse=True)
def memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "memory"
    folder.mkdir()
    monkeypatch.setattr(secret_files, "MEMORY", folder)
    return folder


@pytest.fixture
def play(redis_url: str, tmp_path: Path) -> Play:
    return player(redis_url, tmp_path / "data")
