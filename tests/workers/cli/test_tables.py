"""Whatever the width: what an operator must copy is there as a whole."""

from __future__ import annotations

import io
from collections.abc import Sequence

import pytest
from rich.console import Console

from pushfleet_workers.cli import tables

HEADINGS = ("letter", "since", "reason", "code", "message")
LETTER, MESSAGE = "huawei:main:1756800000123-0", "0f6d3a52-7c1b-4e9b-9a53-1d2c3b4a5f60"
ROWS = [
    (LETTER, "2026-11-30 19:12:12 UTC", "bad_payload", 80100003, MESSAGE),
    ("ingress:normal:1756800000456-1", "2026-11-30 19:12:13 UTC", "malformed", "", ""),
]


def printed(
    monkeypatch: pytest.MonkeyPatch, columns: int, *, terminal: bool = True, rows: Sequence[Sequence[object]] = ROWS
) -> list[str]:
    """The lines on a terminal of so many *columns*, or in a file that is written from there."""
    file = io.StringIO()
    screen = Console(
        file=file,
        width=columns,
        height=50,
        force_terminal=terminal,
        color_system=None,
        emoji=False,
        _environ={"TERM": "xterm"},
    )
    monkeypatch.setattr(tables, "console", screen)
    tables.print_table(HEADINGS, rows, title="Letters")
    return file.getvalue().splitlines()


def test_a_wide_terminal_shows_a_line_for_each(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = printed(monkeypatch, 160)
    (line,) = [line for line in lines if LETTER in line]
    assert MESSAGE in line
    assert len(lines) == 1 + 3 + len(ROWS) + 1, "title, heading, rows and the end of the frame"


def test_a_narrow_terminal_shows_all_of_it_in_several_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    assert printed(monkeypatch, 80) == [
        "Letters",
        LETTER,
        "  since: 2026-11-30 19:12:12 UTC, reason: bad_payload, code: 80100003,",
        f"  message: {MESSAGE}",
        "ingress:normal:1756800000456-1",
        "  since: 2026-11-30 19:12:13 UTC, reason: malformed",
    ]


def test_what_is_longer_than_the_terminal_is_wide_stays_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = printed(monkeypatch, 20)
    assert LETTER in lines
    assert f"  message: {MESSAGE}" in lines


@pytest.mark.parametrize("columns", [20, 80, 160])
def test_a_file_gets_a_line_for_each_whatever_the_width(monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    lines = printed(monkeypatch, columns, terminal=False)
    (line,) = [line for line in lines if LETTER in line]
    for value in ("2026-11-30 19:12:12 UTC", "bad_payload", "80100003", MESSAGE):
        assert value in line


@pytest.mark.parametrize("columns", [20, 160])
def test_ids_are_no_markup(monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    said = "\n".join(printed(monkeypatch, columns, rows=[("[/red]", "[bold]", ":+1:", "", "群[1]")]))
    for value in ("[/red]", "[bold]", ":+1:", "群[1]"):
        assert value in said


def test_without_rows_the_headings_are_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "letter" in "\n".join(printed(monkeypatch, 160, rows=[]))
