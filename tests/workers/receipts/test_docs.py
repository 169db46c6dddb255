"""docs/receipts.md tells what the readers' tables, the stream and the limits are."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from tests.workers.vendors.samples import REWRITE

from pushfleet_workers.api import client_receipts, vendor_receipts
from pushfleet_workers.receipts import READERS, Event
from pushfleet_workers.receipts import book as book_module
from pushfleet_workers.receipts._huawei_signature import AGE_MS_MAX
from pushfleet_workers.settings import Settings
from pushfleet_workers.vendors._receipts import ECHO_CHARS_MAX, SECRET_PATH_CHARS

FILE = Path(__file__).parents[3] / "docs" / "receipts.md"
HEAD = "| code | event | what it means |\n| --- | --- | --- |\n"
TITLES = {
    "huawei": "Huawei",
    "harmony": "HarmonyOS",
    "honor": "Honor",
    "xiaomi": "Xiaomi",
    "oppo": "OPPO",
    "vivo": "vivo",
    "meizu": "Meizu",
}


def page() -> str:
    return FILE.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", sorted(READERS))
def test_the_table_in_the_docs_is_the_readers(name: str) -> None:
    rows = "".join(
        f"| `{code or 'none'}` | {row.event} | {row.meaning} |\n" for code, row in READERS[name].codes.items()
    )
    table = re.compile(rf"(?<=### {TITLES[name]}\n\n){re.escape(HEAD)}((?:\|.*\|\n)*)")
    text = page()
    if os.environ.get(REWRITE):
        text = table.sub(lambda _: HEAD + rows, text)
        FILE.write_text(text, encoding="utf-8")
    (found,) = table.findall(text)
    assert found.splitlines() == rows.splitlines()


def test_every_event_is_explained() -> None:
    section = page().split("## Events")[1].split("\n## ")[0]
    assert re.findall(r"^\| `([a-z]+)` \|", section, flags=re.MULTILINE) == [event.value for event in Event]


def test_the_acknowledgements_are_those_that_are_sent() -> None:
    for name, title in TITLES.items():
        (row,) = re.findall(rf"^\| {title} \|.*\| `([^`]+)` \|$", page(), flags=re.MULTILINE)
        assert row.encode() == READERS[name].acknowledgement[0]


def test_the_fields_of_the_stream_are_those_of_the_script() -> None:
    script = (Path(str(book_module.__file__)).parent / "record.lua").read_text(encoding="utf-8")
    fields = re.findall(r"'([a-z0-9_]+)'", script.split("local FIELDS = {")[1].split("}")[0])
    section = page().split("## Reading receipts")[1].split("\n## ")[0]
    shown = re.findall(r"^\| (`[^|]+`) \|", section, flags=re.MULTILINE)
    assert re.findall(r"`([a-z0-9_]+)`", " ".join(shown)) == fields


def test_the_figures_are_those_of_the_code() -> None:
    text = page()
    assert f"ends in {SECRET_PATH_CHARS} characters" in text
    assert f"at most {ECHO_CHARS_MAX} characters" in text
    assert AGE_MS_MAX == 300_000, "at most five minutes old"
    assert book_module.WINDOW_MS == 600_000, "ten to twenty minutes"
    assert f"{vendor_receipts.BODY_BYTES_MAX // 2**20} MiB, {vendor_receipts.RECEIPTS_MAX:,} receipts" in text
    assert f"{vendor_receipts.BODY_TIMEOUT_S:g} s to arrive" in text
    assert f"| bodies of vendors under way | {vendor_receipts.AT_ONCE_MAX} in each process" in text
    assert f"{book_module._REPEATS_MAX:,} in ten minutes" in text
    assert f"| labels of unlisted codes | {vendor_receipts.UNLISTED_MAX} " in text
    assert f"Up to {client_receipts.REPORTS_MAX:,} at once" in text


def test_the_settings_that_are_named_exist() -> None:
    named = set(re.findall(r"`receipts\.([a-z_]+)`", page()))
    assert named == set(type(Settings().receipts).model_fields)
