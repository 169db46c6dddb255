"""Every scenario in its short form; `make chaos` runs them in full.

Some are played side by side: most of their time they wait, for leases that run out or vendors that are silent.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.chaos.scenario import TRANSPORTS, Scenario, scenarios

ROOT = Path(__file__).parents[2]
AT_ONCE = 3

Played = dict[str, "Future[subprocess.CompletedProcess[str]]"]


def play(scenario: Scenario) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.chaos", scenario.name, "--short", "--transport", TRANSPORTS[0]]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240, check=False)


@pytest.fixture(scope="module")
def played(request: pytest.FixtureRequest) -> Iterator[Played]:
    """What comes of each scenario that was asked for."""
    items = [item for item in request.session.items if isinstance(item, pytest.Function)]
    asked = [item.callspec.params["scenario"] for item in items if item.originalname == test_it_is_green.__name__]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        yield {one.name: pool.submit(play, one) for one in asked}
        pool.shutdown(cancel_futures=True)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("scenario", [one for one in scenarios().values() if one.short], ids=lambda one: one.name)
def test_it_is_green(scenario: Scenario, played: Played) -> None:
    done = played[scenario.name].result()
    if not done.returncode and not done.stdout:
        pytest.skip(done.stderr)
    assert not done.returncode, done.stdout + done.stderr
