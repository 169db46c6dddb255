"""pushfleet.example.toml shows every setting, with its default and its description."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel
from tests.deploy.support import ROOT, each_setting, own_fields, setting_of

from pushfleet_workers import registry
from pushfleet_workers.account import AccountSettings, kind_settings
from pushfleet_workers.settings import AppSettings, Settings, load

EXAMPLE = ROOT / "pushfleet.example.toml"
TEXT = EXAMPLE.read_text(encoding="utf-8")
PROSE = " ".join(line.removeprefix("#").strip() for line in TEXT.splitlines() if re.match(r"# ", line))
OPTIONAL = re.compile(r"^#(?=[a-z_]+ = |\[accounts\.)", re.MULTILINE)
SWITCHED_OFF = re.compile(r"^#(\[accounts\.([a-z]+)\.main\]\n.*?)(?=^#?\[|\Z)", re.MULTILINE | re.DOTALL)
"""An account of which every line is a comment: it is there for those who need it."""


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment of whoever runs the tests must not count."""
    for name in list(os.environ):
        if name.startswith("PUSHFLEET_"):
            monkeypatch.delenv(name)


@pytest.mark.usefixtures("alone")
def test_the_example_loads_as_it_stands() -> None:
    settings = load(EXAMPLE)
    off = {vendor for _, vendor in SWITCHED_OFF.findall(TEXT)}
    assert off == {"tpns"}
    assert {vendor for vendor, _, _ in settings.each_account()} == set(registry.built_in()) - off


def bare(tmp_path: Path) -> Settings:
    """The example as it stands, the accounts that are switched off with no more than they need."""

    def switched_on(found: re.Match[str]) -> str:
        fields = registry.load(found[2]).account_type.model_fields
        needed = "|".join(name for name, field in fields.items() if field.is_required())
        return re.sub(rf"^#(?=(?:{needed}) = )", "", found[1], flags=re.MULTILINE)

    file = tmp_path / "bare.toml"
    file.write_text(SWITCHED_OFF.sub(switched_on, TEXT), encoding="utf-8")
    return load(file)


def complete(tmp_path: Path) -> Settings:
    """The example with every optional line switched on."""
    file = tmp_path / "pushfleet.toml"
    file.write_text(OPTIONAL.sub("", TEXT), encoding="utf-8")
    return load(file)


def models(settings: Settings) -> list[tuple[str, BaseModel]]:
    found: list[tuple[str, BaseModel]] = [("", settings)]
    found += [
        (name, value) for name in Settings.model_fields if isinstance(value := getattr(settings, name), BaseModel)
    ]
    found += [(f"apps.{name}", app) for name, app in settings.apps.items()]
    found += [(f"accounts.{vendor}.{name}", account) for vendor, name, account in settings.each_account()]
    return found


@pytest.mark.usefixtures("alone")
def test_every_setting_is_there_and_takes_what_the_example_shows(tmp_path: Path) -> None:
    settings = complete(tmp_path)
    shared = set(AccountSettings.model_fields)
    shown_anywhere: set[str] = set()
    for where, model in models(settings):
        missing = set(type(model).model_fields) - model.model_fields_set
        if isinstance(model, AccountSettings):
            shown_anywhere |= model.model_fields_set & shared
            missing -= shared - set(own_fields(type(model)))
        assert not missing, f"[{where}] lacks {sorted(missing)}"
    assert shown_anywhere == shared
    assert len(settings.apps) == 1
    assert list(settings.accounts) == list(registry.built_in())


@pytest.mark.usefixtures("alone")
def test_an_optional_line_shows_the_default_or_an_example_of_what_is_empty(tmp_path: Path) -> None:
    for (where, told), (_, left) in zip(models(complete(tmp_path)), models(bare(tmp_path)), strict=True):
        for name in told.model_fields_set - left.model_fields_set:
            default, shown = getattr(left, name), getattr(told, name)
            if isinstance(default, BaseModel | dict) or default in (None, "") or name == "data_dir":
                continue
            assert shown == default, f"{where}.{name}"


def fields() -> list[tuple[str, Any]]:
    listed = [
        (f"{model.__name__}.{name}", field)
        for model in (Settings, AppSettings, AccountSettings)
        for name, field in model.model_fields.items()
    ]
    for name, value in vars(Settings()).items():
        if isinstance(value, BaseModel):
            listed += [(f"{name}.{inner}", field) for inner, field in type(value).model_fields.items()]
    for vendor in registry.built_in():
        account_type = registry.load(vendor).account_type
        listed += [(f"{vendor}.{name}", account_type.model_fields[name]) for name in own_fields(account_type)]
        kinds = kind_settings(account_type)
        if kinds is not None:
            listed += [(f"{vendor}.kinds.{name}", field) for name, field in kinds.model_fields.items()]
    return [(name, field) for name, field in listed if field.description]


@pytest.mark.parametrize(("name", "field"), fields(), ids=[name for name, _ in fields()])
def test_every_description_stands_in_the_example(name: str, field: Any) -> None:
    assert " ".join(field.description.split()) in PROSE


def test_the_example_holds_no_secret() -> None:
    assert set(re.findall(r'^#?(?:key|client_secret) = "(.*)"$', TEXT, flags=re.MULTILINE)) == {"CHANGE-ME"}
    assert "PRIVATE KEY" not in TEXT


def test_the_walk_over_the_settings_finds_sections_apps_and_accounts() -> None:
    known = set(each_setting())
    assert {"data_dir", "redis.url", "apps.*.locale", "accounts.apns.*.team_id", "accounts.fcm.*.proxy"} <= known
    assert "accounts.huawei.*.kinds.*.category" in known
    assert setting_of("PUSHFLEET_ACCOUNTS__HUAWEI__MAIN__KINDS__CHAT__CATEGORY") in known
