"""The README in Chinese against the one in English: what need not be translated is the same, in the same order."""

from __future__ import annotations

import ast
import re
import shlex
import tomllib
from collections import Counter

import pytest
from tests.deploy.support import ROOT

ENGLISH = (ROOT / "README.md").read_text(encoding="utf-8")
CHINESE = (ROOT / "README.zh-CN.md").read_text(encoding="utf-8")


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", page, flags=re.MULTILINE | re.DOTALL)


def prose(page: str) -> str:
    return re.sub(r"^```.*?^```$", "", page, flags=re.MULTILINE | re.DOTALL)


def headings(page: str) -> list[int]:
    """Their levels."""
    return [len(marks) for marks in re.findall(r"^(#+) ", prose(page), flags=re.MULTILINE)]


def kinds_of_blocks(page: str) -> list[str]:
    return re.findall(r"^```(\w*)\n.*?^```$", page, flags=re.MULTILINE | re.DOTALL)


def commands(page: str) -> list[list[str]]:
    """The shell blocks, without their comments."""
    return [
        words
        for block in blocks(page, "sh")
        for line in block.replace("\\\n", " ").splitlines()
        if (words := shlex.split(line, comments=True))
    ]


def settings(page: str) -> list[dict[str, object]]:
    return [tomllib.loads(block) for block in blocks(page, "toml")]


def programs(page: str) -> list[str]:
    """The Python blocks; what a message says is for its readers."""
    return [re.sub(r"body='.*?'", "body='…'", ast.unparse(ast.parse(block))) for block in blocks(page, "python")]


def rows(page: str) -> list[str]:
    """The commands of the table."""
    return re.findall(r"^\| `([^`]+)` \|", page, flags=re.MULTILINE)


def links(page: str) -> list[str]:
    return [target for target in re.findall(r"\]\(([^)]+)\)", page) if not target.startswith("README")]


def names(page: str) -> Counter[str]:
    """What stands in backticks in the text."""
    return Counter(re.findall(r"`([^`\n]+)`", prose(page)))


def figures(page: str) -> Counter[str]:
    """All numbers of the text but those in backticks and links."""
    text = re.sub(r"`[^`\n]*`|\]\([^)]*\)|<!--.*?-->", " ", prose(page))
    return Counter(re.findall(r"\d+(?:[.,]\d+)*", text))


def points(page: str) -> int:
    """Items of lists."""
    return len(re.findall(r"^- ", page, flags=re.MULTILINE))


@pytest.mark.parametrize(
    "of", [headings, kinds_of_blocks, commands, settings, programs, rows, links, names, figures, points],
    ids=lambda of: of.__name__,
)  # fmt: skip
def test_both_have_the_same(of: object) -> None:
    """Whoever changes the one changes the other."""
    assert callable(of)
    assert of(CHINESE) == of(ENGLISH)
