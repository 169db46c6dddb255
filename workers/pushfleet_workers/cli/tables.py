"""Tables whose ids can be copied: nothing in them is ever cut or folded, however narrow the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from pushfleet_workers.cli.context import console

__all__ = ["print_table"]

_ANY_WIDTH = 100_000


def print_table(headings: Sequence[str], rows: Iterable[Sequence[object]], *, title: str = "") -> None:
    """Print *rows*, a line each; on a terminal that is too narrow for that, several lines each, without a frame.

    The first column is what a row is known by. Files and pipes get a line for each row, however long.
    """
    cells = [[str(value) for value in row] for row in rows]
    table = Table(*headings, title=title or None)
    for row in cells:
        # What others chose as an id is no markup.
        table.add_row(*map(Text, row))
    width = console.measure(table, options=console.options.update(width=_ANY_WIDTH)).maximum
    if not console.is_terminal:
        Console(file=console.file, width=width, emoji=False).print(table)
    elif width <= console.width or not cells:
        console.print(table)
    else:
        for line in [title] * bool(title) + [line for row in cells for line in _lines(headings, row, console.width)]:
            console.print(line, markup=False, highlight=False, soft_wrap=True)


def _lines(headings: Sequence[str], row: Sequence[str], width: int) -> Iterator[str]:
    """What the row is known by, and its facts below, as many to a line as fit; one that is longer stays whole."""
    yield row[0]
    line = ""
    for heading, value in zip(headings[1:], row[1:], strict=True):
        fact = f"{heading}: {value}" if value else ""
        if line and fact and cell_len(f"  {line}, {fact},") > width:
            yield f"  {line},"
            line = fact
        else:
            line = ", ".join(filter(None, (line, fact)))
    yield f"  {line}"
