"""`make bench`: what a push costs, beside the obvious alternative and the bare transports.

CPU-seconds of the consuming processes and Redis; producer and vendor are not counted. Both sides run as they come: the
naive worker as a team would start it, the fleet as `pushfleet up` does, with its default settings. Rows alternate
within a run and the medians are printed, since machines have fast and slow phases: only ratios of one run mean
something.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

from bench import rows, states
from bench.cpu import machine, server
from bench.stage import ROOT, Stage, stage
from rich.console import Console
from rich.table import Table

OUT = ROOT / "bench" / "out" / "latest.json"
FIGURES = ("per_cpu_s", "per_s", "p50_ms", "p99_ms", "bytes_per_device")

ROWS: dict[str, Callable[[Stage], rows.Figures]] = {
    "raw": partial(rows.raw, engine="pyreqwest"),
    "raw_httpx": partial(rows.raw, engine="httpx"),
    "raw_aioapns": partial(rows.raw, engine="aioapns"),
    "naive_aioapns": rows.naive_aioapns,
    "single_chat": rows.single_chat,
    "idle": rows.idle,
    "state_reports": states.state_reports,
    "state_memory": states.state_memory,
}

ONCE = {"state_memory"}
"""Rows that take a minute and are the same in every round: memory has no fast and slow phases."""

console = Console(stderr=True)


def main() -> int:
    """Run the rows in turn, print the table, write the file."""
    options = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    options.add_argument("--rounds", type=int, default=3, help="how often each row runs (default 3)")
    options.add_argument("--row", action="append", choices=list(ROWS), help="only this row; may be repeated")
    chosen = options.parse_args()
    if not sys.platform.startswith("linux"):
        console.print("The benchmarks read CPU accounts of processes from /proc, which only Linux has.")
        return 2
    measured: dict[str, list[rows.Figures]] = {name: [] for name in chosen.row or ROWS}
    for number in range(chosen.rounds):
        for name, figures in measured.items():
            if number and name in ONCE:
                continue
            console.print(f"round {number + 1} of {chosen.rounds}: {name}")
            with tempfile.TemporaryDirectory(prefix="pushfleet-bench-") as folder, stage(Path(folder)) as ready:
                figures.append(ROWS[name](ready))
    medians = {name: _median(figures) for name, figures in measured.items()}
    _show(medians)
    OUT.parent.mkdir(parents=True, exist_ok=True)
    ran = {"machine": machine(), "server": server(), "rounds": chosen.rounds, "rows": medians}
    OUT.write_text(json.dumps(ran, indent=2) + "\n")
    console.print(f"written to {OUT.relative_to(ROOT)}")
    return 0


def _median(figures: list[rows.Figures]) -> dict[str, float | None]:
    return {
        name: round(statistics.median(one[name] for one in figures), 2) if name in figures[0] else None
        for name in FIGURES
    }


def _show(medians: dict[str, dict[str, float | None]]) -> None:
    base = medians.get("naive_aioapns", {}).get("per_cpu_s")
    table = Table("row", *FIGURES, "x naive", title=f"{machine()}, {server()}")
    for name, figures in medians.items():
        cells = [f"{value:,.1f}" if (value := figures[figure]) is not None else "" for figure in FIGURES]
        per_cpu_s = figures["per_cpu_s"]
        table.add_row(name, *cells, f"{per_cpu_s / base:.1f}" if per_cpu_s and base else "")
    Console().print(table)


if __name__ == "__main__":
    sys.exit(main())
