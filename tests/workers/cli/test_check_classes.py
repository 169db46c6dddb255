"""A template, channel or right that the settings lack is found before the vendor refuses the first push for it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.workers.cli.conftest import Cli
from tests.workers.commands import settings_file
from tests.workers.vendors.samples import HERE

from pushfleet_workers import registry
from pushfleet_workers.outcome import Scope, Verdict

LACKING = {
    "harmony": ("kinds.chat", {"push_type": 10}, "kinds.chat.push_type 10 rings like a call"),
    "huawei": ("kinds.chat", {"category": "CHAT"}, "kinds.chat.category CHAT is no message class"),
    "meizu": ("kinds.marketing", {"notice_type": 1}, "kinds.marketing.notice_type is private"),
    "oppo": ("kinds.chat", {"category": "CHAT", "channel_id": "im"}, "kinds.chat.category CHAT is no class of OPPO's"),
    "vivo": ("kinds.chat", {"category": "CHAT"}, "kinds.chat.category CHAT is no class of vivo's"),
    "xiaomi": ("kinds.chat", {"channel_id": "1"}, "kinds.chat names a channel and no template"),
}
"""By vendor: the table, what stands in it, and what is found."""


def lines_of(vendor: str, *more: str) -> list[str]:
    """The sample account without its kinds, and *more* lines."""
    text = (HERE / "accounts" / f"{vendor}.json").read_text(encoding="utf-8")
    fields = {name: value for name, value in json.loads(text).items() if name != "kinds"}
    return [f"[accounts.{vendor}.main]", *(f"{name} = {json.dumps(value)}" for name, value in fields.items()), *more]


def test_whoever_refuses_a_class_for_its_settings_is_looked_at() -> None:
    refusing = {
        name
        for name in registry.built_in()
        for _, outcome, _ in registry.load(name).codes.values()
        if outcome.verdict is Verdict.MISCONFIGURED and outcome.scope is Scope.CLASS
    }
    assert refusing <= LACKING.keys()


@pytest.mark.parametrize("vendor", LACKING)
def test_what_a_kind_lacks_is_an_error(cli: Cli, tmp_path: Path, vendor: str) -> None:
    table, told, found = LACKING[vendor]
    kind = [f"[accounts.{vendor}.main.{table}]", *(f"{name} = {json.dumps(value)}" for name, value in told.items())]
    settings_file(tmp_path, "", *lines_of(vendor, *kind))
    said = cli("check", "--json")
    assert said.code == 1
    errors = [one["sentence"] for one in json.loads(said.out) if one["level"] == "error"]
    assert any(sentence.startswith(found) for sentence in errors), errors


@pytest.mark.parametrize(
    ("vendor", "found"),
    [
        ("oppo", "kinds.chat has no channel_id"),
        (
            "xiaomi",
            "kinds: chat, mention, call, call_cancel, missed_call, summary, system, official, marketing without",
        ),
    ],
)
def test_an_account_that_says_nothing_of_kinds_is_an_error_where_the_vendor_wants_to_know(
    cli: Cli, tmp_path: Path, vendor: str, found: str
) -> None:
    settings_file(tmp_path, "", *lines_of(vendor))
    said = cli("check")
    assert said.code == 1
    assert f"accounts.{vendor}.main: {found}" in said.out
