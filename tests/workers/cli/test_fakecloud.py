"""`pushfleet fakecloud` tells people how to send through it."""

from __future__ import annotations

import tomllib
from pathlib import Path

from tests.integration.every_vendor import KINDS
from tests.workers.cli.conftest import Cli
from tests.workers.commands import started, until

from pushfleet_workers import registry
from pushfleet_workers.fakecloud.registry import VENDORS


def test_it_shows_its_addresses_and_its_accounts_work_as_they_are(cli: Cli, tmp_path: Path) -> None:
    log, accounts = tmp_path / "output.log", tmp_path / ".pushfleet" / "fakecloud" / "accounts.toml"
    with started("fakecloud", folder=tmp_path):
        until(lambda: "Ctrl-C ends it." in log.read_text())
        shown = log.read_text()
        text = accounts.read_text()
        made = tomllib.loads(text)["accounts"]
        assert made.keys() == VENDORS.keys() & set(registry.names())
        for vendor, account in made.items():
            assert f"{vendor:8} {account['main']['base_url']}\n" in shown
        assert "copy an account from .pushfleet/fakecloud/accounts.toml into pushfleet.toml" in shown
        # What no fake can know: the operator's own channels.
        for vendor, kinds in KINDS.items():
            text = text.replace(f"[accounts.{vendor}.main]\n", f"[accounts.{vendor}.main]\n{kinds}\n")
        (tmp_path / "pushfleet.toml").write_text(f"[apps.chat]\n\n{text}")
        for vendor in registry.built_in():
            said = cli("send", "--vendor", vendor, "--token", "ab" * 18, "--title", "Li Lei")
            assert said.code == 0, said


def test_with_a_ready_file_it_shows_nothing(tmp_path: Path) -> None:
    ready = tmp_path / "ready.json"
    with started("fakecloud", "--ready-file", str(ready), folder=tmp_path):
        until(ready.exists)
        assert (tmp_path / "output.log").read_text() == ""
        assert not (tmp_path / ".pushfleet" / "fakecloud" / "accounts.toml").exists()
