"""docs/vendors/<name>.md, or <name>.md beside a plug-in's module, tells what the module's table tells, row by row."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from tests.workers.vendors.samples import HERE, REWRITE, plug_in_folder

from pushfleet_workers import registry
from pushfleet_workers.account import kind_settings
from pushfleet_workers.outcome import Row

DOCS = HERE.parents[2] / "docs" / "vendors"
HEAD = "| code | status | verdict | scope | what it means |\n| --- | --- | --- | --- | --- |\n"
TABLE = re.compile(re.escape(HEAD) + r"((?:\|.*\|\n)*)")


def page_of(name: str) -> Path:
    folder = DOCS if name in registry.built_in() else plug_in_folder(name)
    return folder / f"{name}.md"


def line(code: str, row: Row) -> str:
    outcome = row.outcome
    verdict = [f"`{outcome.verdict}`"]
    if outcome.doubtful:
        verdict.append("doubtful")
    if outcome.wait_s is not None:
        verdict.append(f"{outcome.wait_s:g} s")
    if outcome.until is not None:
        verdict.append(f"until {outcome.until}")
    if outcome.remedy is not None:
        verdict.append(f"remedy `{outcome.remedy}`")
    if outcome.reconnect:
        verdict.append("new connection")
    return f"| `{code}` | {row.status} | {', '.join(verdict)} | {outcome.scope} | {row.meaning} |\n"


@pytest.mark.parametrize("name", registry.names())
def test_the_table_in_the_docs_is_the_modules(name: str) -> None:
    file = page_of(name)
    rows = "".join(line(code, row) for code, row in registry.load(name).codes.items())
    page = file.read_text(encoding="utf-8")
    if os.environ.get(REWRITE):
        page = TABLE.sub(lambda found: HEAD + rows, page)
        file.write_text(page, encoding="utf-8")
    (found,) = TABLE.findall(page)
    assert found.splitlines() == rows.splitlines()


@pytest.mark.parametrize("name", registry.names())
def test_every_setting_of_the_vendor_is_in_the_docs(name: str) -> None:
    page = page_of(name).read_text(encoding="utf-8")
    account_type = registry.load(name).account_type
    own = [setting for setting in account_type.__annotations__ if setting in account_type.model_fields]
    kinds = kind_settings(account_type)
    own += list(kinds.model_fields) if kinds is not None else []
    assert [setting for setting in own if not re.search(rf"`(?:[a-z<>]+\.)*{setting}`", page)] == []
