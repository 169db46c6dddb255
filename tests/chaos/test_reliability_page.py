"""The page that tells of the scenarios has a row for each, and for nothing else."""

import re

from tests.chaos.nursery import ROOT
from tests.chaos.scenario import scenarios


def test_every_scenario_has_its_row() -> None:
    page = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
    table = page.partition("\n## The table\n")[2].partition("\n## ")[0]
    assert re.findall(r"^\| `(\w+)` \|", table, flags=re.MULTILINE) == list(scenarios())


def test_the_page_names_those_that_have_no_short_form() -> None:
    page = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
    named = page.partition("`make test` plays each in a short form")[2].partition(". ")[0]
    assert re.findall(r"`(\w+)`", named) == sorted(one.name for one in scenarios().values() if not one.short)


def test_every_scenario_says_what_it_is_about() -> None:
    assert all(one.meaning.endswith(".") for one in scenarios().values())
