"""`make chaos`: every scenario in full, with each of its transports.

Prints a line of JSON for each; the exit code is 1 where one is not green.

python -m tests.chaos                           all
python -m tests.chaos sigterm --transport httpx one
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
import traceback
from pathlib import Path

import msgspec
from tests.chaos.scenario import TRANSPORTS, NotHere, Scenario, scenarios
from tests.chaos.stage import run


def main() -> int:
    """Run the scenarios in turn and print their lines; progress goes to standard error."""
    known = scenarios()
    options = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__.partition(".")[0])
    options.add_argument("scenario", nargs="*", help=f"which ones, by default all but soak: {', '.join(known)}")
    options.add_argument("--transport", choices=TRANSPORTS, help="only with this one")
    options.add_argument("--short", action="store_true", help="in the short form that `make test` runs")
    chosen = options.parse_args()
    if unknown := [name for name in chosen.scenario if name not in known]:
        options.error(f"there is no scenario {', '.join(unknown)}: {', '.join(known)}")
    began, red = time.monotonic(), []
    everyday = [name for name, one in known.items() if not one.by_hand]
    for name in chosen.scenario or everyday:
        for transport in known[name].transports:
            if chosen.transport not in (None, transport):
                continue
            if not _green(known[name], transport, short=chosen.short):
                red.append(f"{name} with {transport}")
    _tell(f"{(time.monotonic() - began) / 60:.1f} minutes; {'not green: ' + ', '.join(red) if red else 'all green'}")
    return 1 if red else 0


def _green(scenario: Scenario, transport: str, *, short: bool) -> bool:
    """Play one and print its line; where it is not green, all that its processes left is kept."""
    _tell(f"{scenario.name} with {transport}: {scenario.meaning}")
    folder = Path(tempfile.mkdtemp(prefix=f"chaos-{scenario.name}-"))
    try:
        line = run(scenario, transport=transport, short=short, folder=folder)
    except NotHere as what:
        _tell(f"  left out, it needs {what}")
        shutil.rmtree(folder)
        return True
    except Exception:  # noqa: BLE001 - the other scenarios are played all the same
        traceback.print_exc()
        _tell(f"  it broke off; logs and books: {folder}")
        return False
    print(msgspec.json.encode(line).decode(), flush=True)  # noqa: T201
    if line.faults:
        _tell("".join(f"  {fault}\n" for fault in line.faults) + f"  logs and books: {folder}")
        return False
    shutil.rmtree(folder)
    return True


def _tell(sentence: str) -> None:
    sys.stderr.write(f"{sentence}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
